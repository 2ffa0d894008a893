"""Late labels meet captured predictions: the metrics are the pipeline's; a bad file is told what is wrong."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binomtest
from sklearn import metrics as sklearn

from noria.evaluation import SEGMENT_ROWS, Estimate, Evaluation
from noria.labels import LabelsError, LabelsFile
from noria.monitors import Monitor, Reading, Unknown, monitors
from noria.profile import Source
from noria.quality import Quality, QualityLoss, join, reading
from noria.spec import METRICS, Metric, ModelSpec, Task
from noria.sql import cursor
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


def test_metrics_are_scikit_learns(tmp_path: Path) -> None:
    y, guessed = positive.astype(int), (chance >= 0.5).astype(int)
    expected = {
        Metric.AUC: sklearn.roc_auc_score(y, chance),
        Metric.ACCURACY: sklearn.accuracy_score(y, guessed),
        Metric.F1: sklearn.f1_score(y, guessed),
        Metric.LOG_LOSS: sklearn.log_loss(y, np.clip(chance, 1e-15, 1)),
        Metric.BRIER: sklearn.brier_score_loss(y, chance),
    }
    answers = binary(np.clip(chance, 1e-15, 1).tolist())
    quality = joined(tmp_path, spec_of(), requests(answers), labels_csv(y.tolist()))
    assert quality.overall.values == pytest.approx(expected, rel=1e-9)
    taught, best = classes % 3, weights.argmax(axis=1)
    expected = {
        Metric.AUC: sklearn.roc_auc_score(taught, weights, multi_class="ovr", average="macro"),
        Metric.ACCURACY: sklearn.accuracy_score(taught, best),
        Metric.F1: sklearn.f1_score(taught, best, average="macro"),
        Metric.LOG_LOSS: sklearn.log_loss(taught, weights),
    }
    labels = labels_csv(["abc"[c] for c in taught])
    quality = joined(tmp_path, spec_of(Task.MULTICLASS), requests(multiclass()), labels)
    assert quality.overall.values == pytest.approx(expected, rel=1e-9)
    expected = {
        Metric.RMSE: sklearn.root_mean_squared_error(values, guesses),
        Metric.MAE: sklearn.mean_absolute_error(values, guesses),
        Metric.R2: sklearn.r2_score(values, guesses),
    }
    answers = CASES[Task.REGRESSION][0]
    quality = joined(tmp_path, spec_of(Task.REGRESSION), requests(answers), labels_csv(values.tolist()))
    assert quality.overall.values == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("names", [(0, 1), (False, True), ("no", "yes"), (9, 10)], ids=str)
def test_labels_are_called_as_the_model_calls_them(names: tuple[Any, Any], tmp_path: Path) -> None:
    truth = [names[int(value)] for value in positive]
    quality = joined(tmp_path, spec_of(), requests(binary(chance.tolist(), names)), labels_csv(truth))
    assert quality.overall.values == pytest.approx(binary_scorer(positive, chance)(np.ones(ROWS)), rel=1e-12)


def test_csv_and_parquet_labels_say_the_same(tmp_path: Path) -> None:
    truth = positive.astype(int).tolist()
    quality = joined(tmp_path, spec_of(), requests(binary(chance.tolist())), labels_csv(truth))
    with cursor(SMALL) as db:
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


def test_metrics_that_no_number_can_hold_are_left_out(tmp_path: Path) -> None:
    spec = spec_of(Task.REGRESSION, segments=["color"])
    answers = [{"prediction": 1e308 if row % 2 else -1e308} for row in range(ROWS)]
    quality = joined(
        tmp_path, spec, requests(answers), labels_csv([-1e308 if row % 2 else 1e308 for row in range(ROWS)])
    )
    assert quality.overall.rows == ROWS
    assert quality.overall.metrics == {}
    assert Quality.model_validate_json(quality.model_dump_json()) == quality


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


# --- intervals


SIMULATED, ROWS_EACH = 100, 160


@cache
def simulation(task: Task, per_request: int) -> tuple[Quality, dict[Metric, float]]:
    """Quality of many small samples, one for each value of segment `size`, and the metrics of what they are drawn from.

    Rows of one request are alike: they share a part of what the model sees, and of its error.
    """
    rows, many = SIMULATED * ROWS_EACH, 300_000
    draw = np.random.default_rng(per_request)

    def drawn(count: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        shared = draw.normal(size=count // per_request).repeat(per_request) * (per_request > 1)
        seen = draw.normal(size=count) + shared
        if task is Task.REGRESSION:
            return seen * 2 + draw.standard_t(6, size=count) + shared, seen * 2
        return draw.random(count) < expit(1.5 * seen - 1), expit(1.3 * seen - 1.1)

    scorer = regression_scorer if task is Task.REGRESSION else binary_scorer
    truth, guessed = drawn(rows)
    lines, labels = [], ["inference_id,row,y"]
    for start in range(0, rows, per_request):
        part = guessed[start : start + per_request].tolist()
        answers = binary(part) if task is Task.BINARY else [{"prediction": value} for value in part]
        lines.append(record(f"e{start}", [{"x": 1, "size": start // ROWS_EACH}] * per_request, answers))
        labels += [f"e{start},{row},{truth[start + row] + 0}" for row in range(per_request)]
    with TemporaryDirectory() as folder:
        spec = spec_of(task, segments=["size"])
        return joined(Path(folder), spec, lines, "\n".join(labels) + "\n"), scorer(*drawn(many))(np.ones(many))


@pytest.mark.parametrize("task", [Task.BINARY, Task.REGRESSION])
@pytest.mark.parametrize("per_request", [1, 8])
def test_intervals_hold_the_truth(task: Task, per_request: int) -> None:
    """In 95 of 100 samples but for chance; where rows of a request are alike too, and 20 requests are few."""
    quality, truth = simulation(task, per_request)
    samples = quality.segments["size"].values()
    assert len(samples) == SIMULATED
    assert {sample.requests for sample in samples} == {ROWS_EACH // per_request}
    for metric, value in truth.items():
        held = sum(s.metrics[metric].low <= value <= s.metrics[metric].high for s in samples)
        assert held >= 87, metric
    # What the samples show of the spread of the first metric is what the interval over all of them says.
    first = METRICS[task][0]
    overall = quality.overall.metrics[first]
    shown = 1.96 * np.std([sample.values[first] for sample in samples]) / np.sqrt(SIMULATED)
    assert (overall.high - overall.low) / 2 == pytest.approx(shown, rel=0.3)


@pytest.mark.parametrize("task", Task)
def test_intervals_are_those_of_resampled_requests(task: Task, tmp_path: Path) -> None:
    """The bootstrap, by brute force: whole requests are drawn again."""
    answers, truth, scorer = CASES[task]
    quality = joined(tmp_path, spec_of(task), requests(answers), labels_csv(truth))
    draw = np.random.default_rng(1)
    count = ROWS // PER_REQUEST
    drawn = (np.bincount(draw.integers(0, count, count), minlength=count) for _ in range(1500))
    samples = [scorer(times.repeat(PER_REQUEST).astype(float)) for times in drawn]
    for metric, estimate in quality.overall.metrics.items():
        low, high = np.percentile([sample[metric] for sample in samples], [2.5, 97.5])
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.15 * (high - low)), metric
        assert estimate.low < estimate.value < estimate.high


def test_few_requests_are_taken_for_independent_rows_and_alarm_nobody(tmp_path: Path) -> None:
    lines = [record("event-0", [{"x": 1.0, "color": str(c)} for c in COLORS], binary(chance.tolist()))]
    labels = "inference_id,row,y\n" + "".join(f"event-0,{row},{int(y)}\n" for row, y in enumerate(positive))
    spec = spec_of(monitor={"min_rows": 100})
    quality = joined(tmp_path, spec, lines, labels)
    accuracy = quality.overall.metrics[Metric.ACCURACY]
    expected = binomtest(round(accuracy.value * ROWS), ROWS).proportion_ci(method="wilson")
    assert (accuracy.low, accuracy.high) == pytest.approx((expected.low, expected.high), rel=1e-3)
    assert "1 requests" in unknown(quality, spec, "QualityLoss")


@pytest.mark.parametrize("certain", [0.9, 0.1])
def test_a_share_of_all_or_nothing_is_not_certain(certain: float, tmp_path: Path) -> None:
    truth = [n % 2 for n in range(ROWS)]
    scores = [certain if y else 1 - certain for y in truth]
    metrics = joined(tmp_path, spec_of(), requests(binary(scores)), labels_csv(truth)).overall.metrics
    for metric in (Metric.AUC, Metric.ACCURACY, Metric.F1):
        assert metrics[metric].value == round(certain)
        assert 0.01 < metrics[metric].high - metrics[metric].low < 0.1


# --- against registration


def estimate(value: float, half: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


@pytest.mark.parametrize(
    ("metric", "then", "now", "share"),
    [
        (Metric.AUC, 0.8, 0.6, 0.25),
        (Metric.AUC, 0.6, 0.8, -1 / 3),
        (Metric.LOG_LOSS, 0.4, 0.5, 0.25),
        (Metric.LOG_LOSS, 0.5, 0.4, -0.2),
        (Metric.RMSE, 10.0, 30.0, 2.0),
        (Metric.R2, 0.5, -0.5, 2.0),
        (Metric.R2, -0.5, -1.0, 1.0),
    ],
)
def test_a_loss_is_the_share_by_which_a_metric_is_worse(metric: Metric, then: float, now: float, share: float) -> None:
    loss = QualityLoss.of(metric, estimate(then), estimate(now))
    assert loss.share.value == pytest.approx(share)
    assert loss.share.low < loss.share.value < loss.share.high
    assert loss.value == (loss.share.value if share > 0 else 0)


@pytest.mark.parametrize(("half", "told"), [(0.02, 1.0), (0.05, 0.0)])
def test_a_share_of_nearly_nothing_is_told_only_beyond_chance(half: float, told: float) -> None:
    """Registered with an R2 of zero, up to chance: nothing is divided by less than that chance."""
    loss = QualityLoss.of(Metric.R2, estimate(0.0, half), estimate(-0.1, half))
    assert loss.share.value == pytest.approx(0.1 / half)
    assert (loss.value > 0) == bool(told)
    assert QualityLoss.of(Metric.MAE, estimate(0.0, 0.0), estimate(3.0, 0.5)).value == 3.0
    assert QualityLoss.of(Metric.MAE, estimate(0.0, 0.0), estimate(0.0, 0.0)).value == 0.0


def test_chance_is_no_loss() -> None:
    """Twice as bad as the interval of either would let through, and still fewer than 1 in 1,000."""
    draw = np.random.default_rng(5)
    pairs = draw.normal(0.7, 0.01, (5000, 2)).tolist()
    losses = [QualityLoss.of(Metric.AUC, estimate(then, 0.0196), estimate(now, 0.0196)) for then, now in pairs]
    assert sum(loss.value > 0 for loss in losses) <= 5
    assert sum(loss.share.low > 0 for loss in losses) == pytest.approx(125, abs=40)


def evaluation(**metrics: Estimate) -> Evaluation:
    day = {"rows": 1000, "first_event": "2026-01-01T00:00:00Z", "last_event": "2026-01-02T00:00:00Z"}
    return Evaluation.model_validate(
        {
            "model": "example",
            "slice": day,
            "trained_on": day,
            "metrics": metrics,
            "latency_p95_ms": 1.0,
            "gate": {"passed": True},
        }
    )


def watched(metric: str, spec: ModelSpec) -> Monitor:
    (found,) = (monitor for monitor in monitors(spec) if monitor.metric == metric)
    return found


def unknown(quality: Quality, spec: ModelSpec, metric: str) -> str:
    read = reading(watched(metric, spec), quality, spec)
    assert isinstance(read, Unknown)
    assert not read.failed
    return read.reason


def compared(folder: Path, spec: ModelSpec, registered: Evaluation | None) -> Quality:
    path = folder / "labels.csv"
    path.write_text(labels_csv(positive.astype(int).tolist()), encoding="utf-8")
    captured = Source.captured(write(folder / "captured.jsonl", requests(binary(chance.tolist()))))
    return join(captured, [LabelsFile(path, path.name)], spec, registered=registered, resources=SMALL)


def test_a_worse_metric_than_at_registration_is_a_breach(tmp_path: Path) -> None:
    spec = spec_of(monitor={"min_rows": 100, "quality": 0.1})
    quality = compared(tmp_path, spec, evaluation(auc=estimate(0.99)))
    read = reading(watched("QualityLoss", spec), quality, spec)
    assert isinstance(read, Reading)
    assert quality.registration
    live = quality.overall.values[Metric.AUC]
    assert read.value == quality.registration.value == pytest.approx((0.99 - live) / 0.99)
    assert watched("QualityLoss", spec).breached(read.value)
    assert f"{live:.4g}" in read.reason
    assert "0.99 at registration" in read.reason


def test_the_same_metric_as_at_registration_is_no_breach(tmp_path: Path) -> None:
    spec = spec_of(monitor={"min_rows": 100})
    quality = compared(tmp_path, spec, evaluation(auc=estimate(0.83)))
    read = reading(watched("QualityLoss", spec), quality, spec)
    assert isinstance(read, Reading)
    assert read.value == 0
    assert read.low is not None
    assert read.low < 0 < (read.high or 0)


def test_what_labels_cannot_tell_is_not_enough_data(tmp_path: Path) -> None:
    few, enough = spec_of(monitor={"min_rows": ROWS + 1}), spec_of(monitor={"min_rows": 100})
    quality = compared(tmp_path, enough, None)
    assert "not known" in unknown(quality, enough, "QualityLoss")
    for metric in ("QualityLoss", "CalibrationError"):
        assert f"{ROWS:,} predictions with a label are fewer than {ROWS + 1:,}" in unknown(quality, few, metric)
    quality = joined(tmp_path, enough, requests(binary(chance.tolist())), labels_csv([1] * ROWS))
    assert "all the same" in unknown(quality, enough, "QualityLoss")
    spec = spec_of(Task.MULTICLASS, monitor={"min_rows": 30})
    lines = [record(f"event-{n}", "1.0,4,red\n", "a\n") for n in range(0, ROWS, 3)]
    quality = joined(tmp_path, spec, lines, "inference_id,y\n" + "".join(f"event-{n},a\n" for n in range(0, ROWS, 3)))
    assert "no probabilities" in unknown(quality, spec, "CalibrationError")


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
    "not text": ("inference_id,y\n\0\0\0\0,1\n", ["NUL"]),
}


@pytest.mark.parametrize(("text", "told"), BAD.values(), ids=BAD)
def test_a_bad_labels_file_is_told_what_is_wrong(text: str, told: Sequence[str], tmp_path: Path) -> None:
    with pytest.raises(LabelsError) as caught:
        joined(tmp_path, spec_of(), requests(binary(chance.tolist())), text)
    (problem,) = caught.value.problems
    assert problem.startswith("labels.csv: ")
    assert all(part in problem for part in told), problem


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "text",
    [f"inference_id,y\nevent-0,{LONG}\n", f"inference_id,{LONG}\nevent-0,1\n", f"{LONG},{LONG}\n1,1\n"],
    ids=["class", "column", "repeated column"],
)
def test_however_long_what_a_file_holds_is_its_problem_is_told_in_short(text: str, tmp_path: Path) -> None:
    with pytest.raises(LabelsError) as caught:
        joined(tmp_path, spec_of(), requests(binary(chance.tolist())), text)
    (problem,) = caught.value.problems
    assert "x…" in problem
    assert len(problem) < 1000


def test_a_labels_file_of_nothing_but_broken_lines_is_refused_in_little_memory(tmp_path: Path) -> None:
    with pytest.raises(LabelsError) as caught:
        joined(tmp_path, spec_of(), requests(binary(chance.tolist())), "inference_id,row,y\n" + "event-0,1\n" * 200_000)
    (problem,) = caught.value.problems
    assert "line 2 and more" in problem


def test_broken_lines_are_told_beside_what_is_wrong_in_the_others(tmp_path: Path) -> None:
    with pytest.raises(LabelsError) as caught:
        joined(tmp_path, spec_of(Task.REGRESSION), [], "inference_id,row,y\nevent-0,1\nevent-0,x,1\nevent-1,0,1,1\n")
    lines, column = caught.value.problems
    assert "lines 2, 4: 2 lines" in lines
    assert "column 'row'" in column


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
