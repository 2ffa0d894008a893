"""Late labels meet captured predictions: the metrics are the pipeline's; a bad file is told what is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noria.evaluation import SEGMENT_ROWS
from noria.labels import LabelsError, LabelsFile
from noria.profile import Source
from noria.quality import Quality, join
from noria.spec import METRICS, Metric, ModelSpec, Task
from noria.sql import connect
from pipelines.tabular.metrics import Scorer, binary_scorer, multiclass_scorer, regression_scorer
from tests.unit.engine_data import SMALL, record, spec_of, write

ROWS, PER_REQUEST = 240, 3
COLORS = np.array(["red", "blue", 'it\'s "green"'])[np.arange(ROWS) % 3]
random = np.random.default_rng(3)
chance = random.random(ROWS).round(1)  # with ties
positive = random.random(ROWS) < chance
weights = random.dirichlet([1, 2, 3], ROWS)
classes = random.integers(0, 4, ROWS)  # the last of which the model was never taught
values, guesses = random.normal(size=(2, ROWS))

Answer = dict[str, Any]


def requests(answers: Sequence[Answer]) -> list[str]:
    starts = range(0, len(answers), PER_REQUEST)
    return [
        record(
            f"event-{start}",
            [{"x": 1.0, "size": 4, "color": str(COLORS[row])} for row in range(start, start + PER_REQUEST)],
            answers[start : start + PER_REQUEST],
        )
        for start in starts
    ]


def labels_csv(truth: Sequence[Any]) -> str:
    rows = (f"event-{n - n % PER_REQUEST},{n % PER_REQUEST},{value}\n" for n, value in enumerate(truth))
    return "inference_id,row,y\n" + "".join(rows)


def joined(folder: Path, spec: ModelSpec, lines: Sequence[str], labels: str) -> Quality:
    path = folder / "labels.csv"
    path.write_text(labels, encoding="utf-8")
    captured = Source.captured(write(folder / "captured.jsonl", lines))
    return join(captured, [LabelsFile(path, path.name)], spec, resources=SMALL)


def binary(scores: Sequence[float], names: Sequence[Any] = (0, 1)) -> list[Answer]:
    return [{"prediction": names[int(score >= 0.5)], "score": score} for score in scores]


def multiclass() -> list[Answer]:
    return [{"prediction": "abc"[p.argmax()], "scores": dict(zip("abc", p.tolist(), strict=True))} for p in weights]


CASES: dict[Task, tuple[list[Answer], list[Any], Scorer]] = {
    Task.BINARY: (binary(chance.tolist()), positive.astype(int).tolist(), binary_scorer(positive, chance)),
    Task.MULTICLASS: (
        multiclass(),
        ["abcd"[c] for c in classes],
        multiclass_scorer(classes, np.column_stack([weights, np.zeros(ROWS)])),
    ),
    Task.REGRESSION: (
        [{"prediction": guess} for guess in guesses.tolist()],
        values.tolist(),
        regression_scorer(values, guesses),
    ),
}


@pytest.mark.parametrize("task", Task)
def test_metrics_are_those_of_the_pipeline(task: Task, tmp_path: Path) -> None:
    answers, truth, scorer = CASES[task]
    quality = joined(tmp_path, spec_of(task, segments=["color", "size"]), requests(answers), labels_csv(truth))
    assert (quality.predictions, quality.labels, quality.matched, quality.coverage) == (ROWS, ROWS, ROWS, 1.0)
    assert set(quality.overall.values) == set(METRICS[task])
    assert quality.overall.values == pytest.approx(scorer(np.ones(ROWS)), rel=1e-12)
    assert set(quality.segments["color"]) == set(COLORS)
    for color, score in quality.segments["color"].items():
        assert score.values == pytest.approx(scorer(np.asarray(color == COLORS, dtype=float)), rel=1e-12)
    assert quality.segments["size"] == {"4": quality.overall}


@pytest.mark.parametrize("names", [(0, 1), (False, True), ("no", "yes"), (9, 10)], ids=str)
def test_labels_are_called_as_the_model_calls_them(names: tuple[Any, Any], tmp_path: Path) -> None:
    truth = [names[int(value)] for value in positive]
    quality = joined(tmp_path, spec_of(), requests(binary(chance.tolist(), names)), labels_csv(truth))
    assert quality.overall.values == pytest.approx(binary_scorer(positive, chance)(np.ones(ROWS)), rel=1e-12)


def test_csv_and_parquet_labels_say_the_same(tmp_path: Path) -> None:
    truth = positive.astype(int).tolist()
    quality = joined(tmp_path, spec_of(), requests(binary(chance.tolist())), labels_csv(truth))
    with connect(SMALL) as db:
        db.sql(f"FROM read_csv('{tmp_path / 'labels.csv'}')").write_parquet(str(tmp_path / "labels.parquet"))
    source = Source.captured(tmp_path / "captured.jsonl")
    labels = LabelsFile(tmp_path / "labels.parquet", "labels.parquet")
    assert join(source, [labels], spec_of(), resources=SMALL) == quality


def test_a_request_that_was_captured_twice_counts_once_and_its_newest_answer_counts(tmp_path: Path) -> None:
    first, again = (
        record("event", [{"x": 1.0}], binary([score]), time=f"2026-11-21T{hour}:00:00Z", inference_id="mine")
        for hour, score in (("10", 0.1), ("11", 0.9))
    )
    quality = joined(tmp_path, spec_of(), [again, first, first], "inference_id,y\nmine,1\n")
    assert (quality.predictions, quality.matched) == (1, 1)
    assert quality.overall.values[Metric.BRIER] == pytest.approx(0.01)


def test_what_has_no_partner_is_counted_and_not_scored(tmp_path: Path) -> None:
    lines = [*requests(binary(chance.tolist())), "no JSON", record("failed", [{"x": 1.0}], None)]
    quality = joined(tmp_path, spec_of(), lines, "inference_id,row,y\nevent-0,1,1\nnobody,0,1\nevent-0,7,0\n")
    assert (quality.matched, quality.labels, quality.unmatched_labels) == (1, 3, 2)
    assert quality.coverage == 1 / ROWS
    assert quality.malformed == 2


def test_without_a_partner_for_any_there_are_no_metrics(tmp_path: Path) -> None:
    quality = joined(tmp_path, spec_of(segments=["color"]), [], "inference_id,y\nnobody,1\n")
    assert (quality.predictions, quality.coverage, quality.overall.values) == (0, 0.0, {})
    assert quality.segments == {"color": {}}


def test_metrics_that_are_undefined_are_left_out(tmp_path: Path) -> None:
    quality = joined(tmp_path, spec_of(), requests(binary(chance.tolist())), labels_csv([1] * ROWS))
    assert set(quality.overall.values) == {*METRICS[Task.BINARY]} - {Metric.AUC}
    spec, guessed = spec_of(Task.REGRESSION), CASES[Task.REGRESSION][0]
    quality = joined(tmp_path, spec, requests(guessed), labels_csv([0.1] * ROWS))
    assert set(quality.overall.values) == {Metric.RMSE, Metric.MAE}


def test_certainty_that_was_wrong_costs_much_but_not_infinitely_much(tmp_path: Path) -> None:
    quality = joined(tmp_path, spec_of(), requests(binary([0.0] * 3)), labels_csv([1] * 3))
    assert quality.overall.values[Metric.LOG_LOSS] == pytest.approx(-np.log(1e-15))


def test_answers_in_csv_have_no_probabilities_of_classes(tmp_path: Path) -> None:
    line = record("event-0", "1.0,4,red\n1.0,4,red\n1.0,4,red\n", "a\nb\nc\n")
    quality = joined(tmp_path, spec_of(Task.MULTICLASS), [line], labels_csv(["a", "b", "b"]))
    assert quality.overall.values == {Metric.ACCURACY: pytest.approx(2 / 3), Metric.F1: pytest.approx((1 + 2 / 3) / 3)}


def test_a_segment_value_with_few_rows_has_no_score(tmp_path: Path) -> None:
    few = SEGMENT_ROWS - 1
    quality = joined(
        tmp_path,
        spec_of(segments=["color"]),
        requests(binary(chance.tolist())),
        labels_csv([1] * (3 * few)),
    )
    assert quality.matched == 3 * few
    assert quality.segments == {"color": {}}


BAD: dict[str, tuple[str, Sequence[str]]] = {
    "no target": ("inference_id,late\nevent-0,1\n", ["column 'y' is missing", "'late'"]),
    "no id": ("id,y\nevent-0,1\n", ["column 'inference_id' is missing"]),
    "empty id": ("inference_id,y\n,1\n", ["'inference_id'", "is empty"]),
    "row that is none": ("inference_id,row,y\nevent-0,first,1\nevent-3,0.5,1\n", ["'row'", "'first'", "'0.5'"]),
    "negative row": ("inference_id,row,y\nevent-0,-1,1\n", ["'row'", "'-1'"]),
    "no outcome": ("inference_id,y\nevent-0,\n", ["'y'", "leave out"]),
    "repeated": ("inference_id,row,y\nevent-0,1,1\nevent-0,1,0\n", ["'event-0 row 1'", "more than once"]),
    "repeated without rows": ("inference_id,y\nevent-0,1\nevent-0,1\n", ["'event-0 row 0'"]),
    "truncated": ("inference_id,row,y\nevent-0,0,1\nevent-0,1\n", ["lines 3"]),
    "other words": ("inference_id,y\nevent-0,late\n", ["'y' holds late", "0, 1"]),
    "empty": ("", ["the file is empty"]),
    "not text": ("a\0b", ["NUL"]),
}


@pytest.mark.parametrize(("text", "told"), BAD.values(), ids=BAD)
def test_a_bad_labels_file_is_told_what_is_wrong(text: str, told: Sequence[str], tmp_path: Path) -> None:
    with pytest.raises(LabelsError) as caught:
        joined(tmp_path, spec_of(), requests(binary(chance.tolist())), text)
    (problem,) = caught.value.problems
    assert problem.startswith("labels.csv: ")
    assert all(part in problem for part in told), problem


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(LabelsError) as caught:
        joined(tmp_path, spec_of(Task.REGRESSION), [], "inference_id,row,y\n,x,nan\n")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("name", "told"), [("labels.xlsx", "neither .csv nor .parquet"), ("labels.parquet", "content does not")]
)
def test_a_file_of_another_kind_is_refused_by_the_name_it_was_given(name: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("inference_id,y\nevent-0,1\n")
    with pytest.raises(LabelsError, match=told) as caught:
        join(Source.captured(), [LabelsFile(path, name)], spec_of(), resources=SMALL)
    assert str(caught.value).startswith(name)
