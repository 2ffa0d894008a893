"""Training: what a bundle holds, and that time and the spec are respected."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from noria.contract import check
from noria.evaluation import Training
from noria.explain import Attribution
from noria.golden import Golden
from noria.profile import Profile
from noria.spec import ModelSpec, Task
from noria.sql import connect
from pipelines.tabular import served, trees
from pipelines.tabular.prepare import ROWS, prepare
from pipelines.tabular.signature import Signature
from pipelines.tabular.train import Untrainable, describe, fit, read, train


def prepared(tables: Any, folder: Path, rows: list[dict[str, Any]], spec: ModelSpec) -> tuple[Path, Path]:
    """Training rows and holdout."""
    data = tables.csv(folder / "data.csv", rows)
    prepare([data], spec, train=folder / "train", test=folder / "test", resources=tables.resources)
    return folder / "train" / ROWS, folder / "test" / ROWS


@pytest.mark.parametrize("task", list(Task))
def test_a_bundle_holds_all_that_serving_and_monitoring_need(trained: Callable[[Task], Any], task: Task) -> None:
    example = trained(task)
    assert sorted(p.relative_to(example.bundle).as_posix() for p in example.bundle.rglob("*") if p.is_file()) == [
        "attribution.json",
        "baseline.json",
        "code/inference.py",
        "golden.json",
        "model.joblib",
        "model.onnx",
        "signature.json",
        "spec.json",
        "training.json",
    ]

    def read_text(name: str) -> str:
        return str((example.bundle / name).read_text())

    assert ModelSpec.model_validate_json(read_text("spec.json")) == example.spec
    assert Training.model_validate_json(read_text("training.json")) == example.training
    baseline = Profile.model_validate_json(read_text("baseline.json"))
    assert baseline.rows == example.training.rows.rows
    assert set(baseline.features) == {"x", "color", "size"}
    assert baseline.prediction is not None
    assert baseline.prediction.rows == baseline.rows
    assert (baseline.confidence is None) == (example.spec.task is Task.REGRESSION)
    assert baseline.outliers == 0


def test_a_signature_names_features_in_order_with_types_and_categories(trained: Callable[[Task], Any]) -> None:
    signature = json.loads((trained(Task.BINARY).bundle / "signature.json").read_text())
    assert [(f["name"], f["type"], f["nullable"]) for f in signature["features"]] == [
        ("x", "number", True),
        ("color", "category", True),
        ("size", "integer", False),
    ]
    assert signature["features"][1]["categories"] == ["blue", "green", "red"]
    assert (signature["task"], signature["labels"], signature["output"]) == (
        "binary_classification",
        [0, 1],
        ["prediction", "score"],
    )


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        (("no", "yes"), ("no", "yes")),
        (("false", "true"), (False, True)),
        (("1", "2"), (1, 2)),
        (("01", "1"), ("01", "1")),
    ],
)
def test_labels_keep_their_type(tables: Any, tmp_path: Path, written: tuple[str, str], labels: tuple[Any, Any]) -> None:
    rows = tables.rows(Task.BINARY, 60)
    for row in rows:
        row["y"] = written[row["y"]]
    spec = tables.spec(Task.BINARY)
    with connect(tables.resources) as db:
        signature = describe(db, prepared(tables, tmp_path, rows, spec)[0], spec)
    assert signature.labels == labels
    assert Signature.model_validate_json(signature.model_dump_json()).labels == labels


def test_the_same_rows_and_seed_give_the_same_model(trained: Callable[[Task], Any], tables: Any) -> None:
    example = trained(Task.BINARY)
    signature = Signature.model_validate_json((example.bundle / "signature.json").read_text())
    with connect(tables.resources) as db:
        table = read(db, example.train_rows, example.spec, signature)
    again = fit(table, example.spec, signature).predict_proba(table.inputs)
    first = joblib.load(example.bundle / "model.joblib").predict_proba(table.inputs)
    np.testing.assert_array_equal(first, again)


def test_early_stopping_watches_the_newest_rows(tables: Any, tmp_path: Path) -> None:
    """The newest tenth contradicts the rest: only a model that is validated on it stops at once."""
    rows = tables.rows(Task.BINARY, 500)
    for row in rows[360:400]:  # the newest tenth of the training rows
        row["y"] = 1 - row["y"]
    hyperparameters = {"max_iter": 100, "early_stopping": True}
    spec = tables.spec(Task.BINARY, train={"hyperparameters": hyperparameters})
    done = train(*prepared(tables, tmp_path, rows, spec), spec, tmp_path / "bundle", resources=tables.resources)
    assert done.iterations is not None
    assert done.iterations < 20


def test_hyperparameters_reach_the_estimator(tables: Any, tmp_path: Path) -> None:
    spec = tables.spec(Task.REGRESSION, train={"hyperparameters": {"max_iter": 3, "loss": "absolute_error"}})
    rows = prepared(tables, tmp_path, tables.rows(Task.REGRESSION, 100), spec)
    train(*rows, spec, tmp_path / "bundle", resources=tables.resources)
    estimator = joblib.load(tmp_path / "bundle" / "model.joblib")
    assert (estimator.n_iter_, estimator.loss, estimator.random_state) == (3, "absolute_error", spec.train.seed)


def test_of_more_categories_than_a_feature_may_have_the_frequent_ones_are_known(tables: Any, tmp_path: Path) -> None:
    rows = tables.rows(Task.BINARY, 400)
    for number, row in enumerate(rows):
        row["color"] = "common" if number % 2 else f"rare {number}"
    spec = tables.spec(Task.BINARY, train={"hyperparameters": {"max_iter": 3, "max_bins": 10}})
    train(*prepared(tables, tmp_path, rows, spec), spec, tmp_path / "bundle", resources=tables.resources)
    signature = Signature.model_validate_json((tmp_path / "bundle" / "signature.json").read_text())
    categories = signature.features[1].categories
    assert len(categories) == 10
    assert "common" in categories


@pytest.mark.parametrize(
    ("labels", "words"), [((0, 0, 0), "one value of y only"), ((0, 1, 2), "has 3 values")], ids=["one", "three"]
)
def test_labels_that_are_no_binary_classification_are_refused(
    tables: Any, tmp_path: Path, labels: tuple[int, ...], words: str
) -> None:
    rows = tables.rows(Task.BINARY, 60)
    for number, row in enumerate(rows):
        row["y"] = labels[number % 3]
    spec = tables.spec(Task.BINARY)
    with pytest.raises(Untrainable, match=words):
        train(*prepared(tables, tmp_path, rows, spec), spec, tmp_path / "bundle", resources=tables.resources)


# --- which form of the model is served


@pytest.mark.parametrize("task", list(Task))
def test_the_onnx_form_is_compared_on_every_row_and_served(trained: Callable[[Task], Any], task: Task) -> None:
    done = trained(task).training
    assert (done.serves, done.serves_because) == ("onnx", "")
    assert done.onnx_rows == 600, "training and holdout"
    assert done.onnx_difference is not None
    assert done.onnx_difference < 1e-12


def train_with(tables: Any, folder: Path, **changes: Any) -> Training:
    """A training of the small binary table, with changes to its spec."""
    spec = tables.spec(Task.BINARY, **changes)
    rows, holdout = prepared(tables, folder, tables.rows(Task.BINARY, 120), spec)
    return train(rows, holdout, spec, folder / "bundle", resources=tables.resources)


def test_a_model_without_an_onnx_form_is_served_as_it_is(tables: Any, tmp_path: Path) -> None:
    estimator = "sklearn.ensemble.RandomForestClassifier"
    done = train_with(tables, tmp_path, train={"estimator": estimator, "hyperparameters": {"n_estimators": 5}})
    assert done.serves == "sklearn"
    assert "no ONNX form" in done.serves_because
    assert done.estimator == "sklearn.RandomForestClassifier"
    assert not (tmp_path / "bundle" / "model.onnx").exists()
    assert joblib.load(tmp_path / "bundle" / "model.joblib").random_state == tables.spec(Task.BINARY).train.seed


def test_an_onnx_form_that_answers_differently_is_not_served(
    tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "BRANCH_LEQ", 1)  # BRANCH_LT: wrong for rows that hold a threshold
    monkeypatch.setattr(trees, "LINKS", {**trees.LINKS, "LogitLink": "Tanh"})
    done = train_with(tables, tmp_path, train={"hyperparameters": {"max_iter": 3}})
    assert done.serves == "sklearn"
    assert done.onnx_difference is not None
    assert done.onnx_difference > 1e-5
    assert "answers differently" in done.serves_because
    assert not (tmp_path / "bundle" / "model.onnx").exists()


def test_a_spec_that_chooses_awss_server_gets_no_onnx_form(tables: Any, tmp_path: Path) -> None:
    done = train_with(tables, tmp_path, serve={"server": "aws"}, train={"hyperparameters": {"max_iter": 3}})
    assert (done.serves, done.onnx_difference) == ("sklearn", None)
    assert not (tmp_path / "bundle" / "model.onnx").exists()


@pytest.mark.parametrize(
    "estimator", ["sklearn.ensemble.NoSuchThing", "sklearn.nothing.Model", "no_such_package.Model"]
)
def test_an_estimator_that_the_image_lacks_is_told(tables: Any, tmp_path: Path, estimator: str) -> None:
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/own:1"
    with pytest.raises(Untrainable, match=f"the image has no {estimator}"):
        train_with(tables, tmp_path, image=image, train={"estimator": estimator})


# --- golden rows


@pytest.mark.parametrize("server", ["noria", "aws"])
def test_golden_rows_are_spread_over_the_training_and_answered_by_what_is_served(
    tables: Any, tmp_path: Path, server: str
) -> None:
    hyperparameters = {"hyperparameters": {"max_iter": 3}}
    done = train_with(tables, tmp_path, serve={"server": server, "golden": 5}, train=hyperparameters)
    golden = Golden.model_validate_json((tmp_path / "bundle" / "golden.json").read_text())
    file = tmp_path / "bundle" / ("model.onnx" if server == "noria" else "model.joblib")
    assert golden.bundle == hashlib.sha256(file.read_bytes()).hexdigest()
    with connect(tables.resources) as db:
        rows = db.execute(f"SELECT x, color, size FROM read_parquet('{tmp_path}/train/rows.parquet')").fetchall()  # noqa: S608
    places = [rows.index(tuple(row.values())) for row in golden.rows]
    assert places == [round(step * (done.rows.rows - 1) / 4) for step in range(5)]
    model = served.load(tmp_path / "bundle")
    assert list(golden.mistakes(model.answer(model.contract.encode(golden.rows)))) == []


def test_a_spec_may_want_no_golden_rows(tables: Any, tmp_path: Path) -> None:
    train_with(tables, tmp_path, serve={"golden": 0}, train={"hyperparameters": {"max_iter": 3}})
    golden = Golden.model_validate_json((tmp_path / "bundle" / "golden.json").read_text())
    assert (golden.rows, golden.answers) == ((), ())


# --- attribution


@pytest.mark.parametrize("task", list(Task))
def test_predictions_for_training_rows_rest_on_what_the_target_follows_from(
    trained: Callable[[Task], Any], tables: Any, task: Task
) -> None:
    example = trained(task)
    found = Attribution.model_validate_json((example.bundle / "attribution.json").read_text())
    assert found.bundle == served.load(example.bundle).bundle
    assert (found.rows, found.pairs, len(found.background)) == (200, 4, 100)
    assert found.features == ("x", "color", "size")
    shares = {name: weight.share for name, weight in found.weights.items()}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["size"] < 0.1 < min(shares["x"], shares["color"])
    with connect(tables.resources) as db:
        rows = db.execute(f"SELECT x, color, size FROM read_parquet('{example.train_rows}')").fetchall()  # noqa: S608
    assert {tuple(row.values()) for row in found.background} <= set(rows)


@pytest.mark.parametrize("server", ["noria", "aws"])
def test_the_bundle_that_is_served_is_explained_the_same_way_each_time(
    tables: Any, tmp_path: Path, server: str
) -> None:
    def attributed(folder: Path) -> Attribution:
        train_with(tables, folder, serve={"server": server}, train={"hyperparameters": {"max_iter": 3}})
        found = Attribution.model_validate_json((folder / "bundle" / "attribution.json").read_text())
        return found.model_copy(update={"seconds": 0})

    assert attributed(tmp_path / "one") == attributed(tmp_path / "other")


def test_few_rows_are_all_explained(tables: Any, tmp_path: Path) -> None:
    spec = tables.spec(Task.REGRESSION)
    rows = prepared(tables, tmp_path, tables.rows(Task.REGRESSION, count=40), spec)
    done = train(*rows, spec, tmp_path / "bundle", resources=tables.resources)
    found = Attribution.model_validate_json((tmp_path / "bundle" / "attribution.json").read_text())
    assert (found.rows, len(found.background)) == (done.rows.rows, done.rows.rows)


def test_rows_that_were_only_warned_of_can_be_learnt_from_and_answered(tables: Any, tmp_path: Path) -> None:
    mild = dict.fromkeys(("range", "category", "missing"), "warn")
    features = {
        "x": {"type": "number", "min": -1, "max": 1},
        "color": {"type": "category", "values": ["red", "green"]},
        "size": {"type": "integer", "max": 2},
    }
    spec = tables.spec(Task.BINARY, features=features, contract={"severity": mild})
    rows = [row | ({"size": None} if n % 7 == 0 else {}) for n, row in enumerate(tables.rows(Task.BINARY, 400))]
    report = check(tables.csv(tmp_path / "data.csv", rows), spec, filename="data.csv", now=datetime.now(UTC))
    assert report.accepted
    assert {violation.rule for violation in report.violations} == {*mild}
    training, holdout = prepared(tables, tmp_path, rows, spec)
    train(training, holdout, spec, tmp_path / "bundle", resources=tables.resources)
    golden = Golden.model_validate_json((tmp_path / "bundle" / "golden.json").read_bytes())
    assert len(golden.answers) == len(golden.rows) == spec.serve.golden
    assert any(row["size"] is None for row in golden.rows)
