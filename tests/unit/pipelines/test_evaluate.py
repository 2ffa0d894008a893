"""Evaluation: candidate and champion on the same rows, each through the code that serves it."""

import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from noria.evaluation import SEGMENT_ROWS, Evaluation, Form
from noria.spec import METRICS, Metric, ModelSpec, Task
from noria.sql import connect
from pipelines.tabular.evaluate import Champion, evaluate
from pipelines.tabular.signature import Signature
from pipelines.tabular.train import read, train

IMAGES: dict[Form, str] = {"onnx": "noria-serving", "sklearn": "sagemaker-scikit-learn"}
GATES = {Task.BINARY: "auc", Task.MULTICLASS: "accuracy", Task.REGRESSION: "r2"}


@pytest.fixture(autouse=True)
def _few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """To measure the latency of small models by hundreds of calls takes longer than all the rest."""
    monkeypatch.setattr("pipelines.tabular.evaluate.LATENCY_CALLS", 20)
    monkeypatch.setattr("pipelines.tabular.evaluate.LATENCY_WARM_UP", 1)


@pytest.mark.parametrize("task", list(Task))
def test_a_candidate_alone(trained: Callable[[Task], Any], tables: Any, task: Task) -> None:
    example = trained(task)
    spec = tables.spec(task, gates={GATES[task]: {"min": 0.7}, "latency_p95_ms": 10_000})
    done = evaluate(example.test_rows, spec, example.archive, champion=None, images=IMAGES, resources=tables.resources)
    assert set(done.metrics) == set(METRICS[task])
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in done.metrics.values())
    assert done.gate.passed, done.gate.reason
    assert done.champion is None
    assert done.champion_problem is None
    assert done.slice.rows == 120
    assert done.trained_on.rows == 480
    assert done.trained_on.last_event < done.slice.first_event
    assert 0 < done.latency_p95_ms < 10_000
    assert (done.calibration is None) == (task is Task.REGRESSION)
    assert set(done.fairness) == ({"color"} if task is Task.BINARY else set())
    assert Evaluation.model_validate_json(done.model_dump_json()) == done


def test_metrics_are_those_of_the_estimator_on_the_test_rows(trained: Callable[[Task], Any], tables: Any) -> None:
    example = trained(Task.BINARY)
    done = evaluate(
        example.test_rows, example.spec, example.archive, champion=None, images=IMAGES, resources=tables.resources
    )
    signature = Signature.model_validate_json((example.bundle / "signature.json").read_text())
    with connect(tables.resources) as db:
        table = read(db, example.test_rows, example.spec, signature)
    scores = joblib.load(example.bundle / "model.joblib").predict_proba(table.inputs)[:, 1]
    assert done.metrics[Metric.AUC].value == pytest.approx(roc_auc_score(table.target, scores))
    assert done.calibration
    assert sum(b.rows for b in done.calibration.bins) == done.calibration.rows == len(scores)
    assert sum(b.rows * b.predicted for b in done.calibration.bins) == pytest.approx(scores.sum())
    assert sum(b.rows * b.happened for b in done.calibration.bins) == pytest.approx((table.target == 1).sum())


def test_segments_are_those_with_enough_rows(trained: Callable[[Task], Any], tables: Any) -> None:
    example = trained(Task.BINARY)
    done = evaluate(
        example.test_rows, example.spec, example.archive, champion=None, images=IMAGES, resources=tables.resources
    )
    with connect(tables.resources) as db:
        counts = dict(
            db.execute(
                f"SELECT color, count(*) FROM read_parquet('{example.test_rows}') WHERE color IS NOT NULL GROUP BY 1"  # noqa: S608
            ).fetchall()
        )
    expected = {color: rows for color, rows in counts.items() if rows >= SEGMENT_ROWS}
    assert {color: score.rows for color, score in done.segments["color"].items()} == expected
    fairness = done.fairness["color"]
    assert {color: rates.rows for color, rates in fairness.values.items()} == expected
    assert fairness.left_out == {color: rows for color, rows in counts.items() if rows < SEGMENT_ROWS}


def test_no_value_of_a_sensitive_segment_is_written_and_its_bias_is_judged_as_before(
    trained: Callable[[Task], Any], tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.tabular.evaluate.SEGMENT_ROWS", 10)
    example = trained(Task.BINARY)
    described = example.spec.model_dump()
    described["gates"] = {"log_loss": {"max": 100.0}, "bias": {"color": 0.0001}}
    told, hidden = (
        evaluate(
            example.test_rows,
            ModelSpec.model_validate(
                described | {"features": described["features"] | {"color": described["features"]["color"] | which}}
            ),
            example.archive,
            champion=None,
            images=IMAGES,
            resources=tables.resources,
        )
        for which in ({}, {"sensitive": True})
    )
    assert not told.gate.passed
    assert not hidden.gate.passed
    assert sorted(score.rows for score in hidden.segments["color"].values()) == sorted(
        score.rows for score in told.segments["color"].values()
    )
    for value in (*told.segments["color"], *told.fairness["color"].left_out):
        assert not re.search(rf"\b{value}\b", hidden.model_dump_json())


@pytest.fixture(scope="module")
def weak(
    trained: Callable[[Task], Any], tables: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Task], Path]:
    """Bundle of a model of each task that learnt nothing but noise, trained once."""

    @cache
    def bundle(task: Task) -> Path:
        example, made = trained(task), tmp_path_factory.mktemp(f"weak-{task}")
        spec = tables.spec(
            task, train={"hyperparameters": {"max_iter": 1, "learning_rate": 0.01}}, serve={"server": "aws"}
        )
        train(example.train_rows, example.test_rows, spec, made, resources=tables.resources)
        return made

    return bundle


class WithChampion:
    """A weak champion, in a bundle of its own, beside a candidate that learnt."""

    def __init__(self, example: Any, tables: Any, bundle: Path) -> None:
        self._example, self._tables, self.bundle = example, tables, bundle
        self._archive = bundle.with_suffix(".tar.gz")

    def evaluate(self, spec: ModelSpec, *, swap: bool = False) -> Evaluation:
        mine, theirs = self._example.archive, self._tables.pack(self.bundle, self._archive)
        if swap:
            mine, theirs = theirs, mine
        champion = Champion(package="arn:champion", archive=theirs)
        return evaluate(
            self._example.test_rows, spec, mine, champion=champion, images=IMAGES, resources=self._tables.resources
        )


@pytest.fixture
def beside(
    trained: Callable[[Task], Any], weak: Callable[[Task], Path], tables: Any, tmp_path: Path
) -> Callable[[Task], WithChampion]:
    def both(task: Task) -> WithChampion:
        return WithChampion(trained(task), tables, shutil.copytree(weak(task), tmp_path / "champion"))

    return both


@pytest.mark.parametrize(
    ("task", "metric"), [(Task.BINARY, "log_loss"), (Task.MULTICLASS, "log_loss"), (Task.REGRESSION, "rmse")]
)
def test_the_better_one_beats_the_other(
    beside: Callable[[Task], WithChampion], tables: Any, task: Task, metric: str
) -> None:
    spec = tables.spec(task, gates={metric: {"beats_champion_by": 0.05}})
    both = beside(task)
    done = both.evaluate(spec)
    assert done.champion is not None
    assert done.champion.package == "arn:champion"
    assert set(done.champion.metrics) == set(done.metrics)
    assert done.champion.margins[Metric(metric)].low > 0
    assert done.gate.passed
    swapped = both.evaluate(spec, swap=True)
    assert not swapped.gate.passed
    assert "champion's" in swapped.gate.reason


def test_a_model_equals_itself(trained: Callable[[Task], Any], tables: Any) -> None:
    example = trained(Task.BINARY)
    champion = Champion(package="arn:itself", archive=example.archive)
    spec = tables.spec(Task.BINARY, gates={"auc": {"beats_champion_by": 0.0}})
    done = evaluate(
        example.test_rows, spec, example.archive, champion=champion, images=IMAGES, resources=tables.resources
    )
    assert done.champion is not None
    assert done.champion.metrics == done.metrics
    assert {margin.value for margin in done.champion.margins.values()} == {0.0}
    assert done.gate.passed, "not worse"


def test_a_champion_with_code_of_its_own_is_asked_through_it(
    beside: Callable[[Task], WithChampion], tables: Any
) -> None:
    both = beside(Task.BINARY)
    code = both.bundle / "code" / "inference.py"
    code.write_text(
        code.read_text()
        + "\n_predict = predict_fn\ndef predict_fn(request, model):\n"
        + "    done = _predict(request, model)\n"
        + "    return done._replace(result=[{**a, 'score': 1 - a['score']} for a in done.result])\n"
    )
    done = both.evaluate(tables.spec(Task.BINARY))
    assert done.champion is not None
    assert done.champion.metrics[Metric.AUC].value < 0.5


@pytest.mark.parametrize("harm", ["code", "signature"])
def test_a_champion_that_cannot_answer_is_a_finding_and_not_a_failure(
    beside: Callable[[Task], WithChampion], tables: Any, harm: str
) -> None:
    both = beside(Task.BINARY)
    if harm == "code":
        (both.bundle / "code" / "inference.py").write_text("raise RuntimeError('worn out')")
    else:
        signature = (both.bundle / "signature.json").read_text()
        (both.bundle / "signature.json").write_text(signature.replace('"size"', '"weight"'))
    done = both.evaluate(tables.spec(Task.BINARY, gates={"auc": {"beats_champion_by": 0.5}}))
    assert done.champion is None
    assert done.champion_problem is not None
    assert ("worn out" if harm == "code" else "weight") in done.champion_problem
    assert done.gate.passed


def test_a_label_that_a_multiclass_model_was_never_taught_counts_against_it(
    trained: Callable[[Task], Any], tables: Any, tmp_path: Path
) -> None:
    example = trained(Task.MULTICLASS)
    changed = tmp_path / "rows.parquet"
    with connect(tables.resources) as db:
        query = (
            f"SELECT * REPLACE (CASE y WHEN 'high' THEN 'new' ELSE y END AS y) FROM read_parquet('{example.test_rows}')"  # noqa: S608
        )
        db.sql(query).write_parquet(str(changed))
    before, after = (
        evaluate(rows, example.spec, example.archive, champion=None, images=IMAGES, resources=tables.resources).metrics
        for rows in (example.test_rows, changed)
    )
    assert after[Metric.ACCURACY].value < before[Metric.ACCURACY].value
    assert after[Metric.LOG_LOSS].value > 5
    assert np.isfinite(after[Metric.LOG_LOSS].value)


def test_the_bundle_is_read_from_the_archive_alone(trained: Callable[[Task], Any], tables: Any, tmp_path: Path) -> None:
    example = trained(Task.REGRESSION)
    archive = shutil.copy(example.archive, tmp_path / "model.tar.gz")
    done = evaluate(
        example.test_rows, example.spec, Path(archive), champion=None, images=IMAGES, resources=tables.resources
    )
    assert done.model == "example"
