"""A training as a run of MLflow, by what is known of it."""

import json
from typing import Any

import pytest

from noria.record import Record
from noria.spec import Metric
from noria.tracking import EXECUTION, Attempt, run
from stacks.settings import ENVIRONMENTS, OwnVpc, Settings
from tests.unit import card_world
from tests.unit.card_world import CATEGORIES, arn, record
from tests.unit.report_run import HOSTILE


def attempt(outcome: Any = "succeeded", of: Record | None = None) -> Attempt:
    of = of or record()
    return Attempt(
        model=of.model,
        execution=card_world.EXECUTION,
        outcome=outcome,
        package=arn(2) if outcome == "succeeded" else None,
        code="c" * 64,
        spec=of.spec,
        training=of.training,
        request=of.request,
        evaluation=of.evaluation,
    )


def test_a_run_says_what_the_training_was_told_and_measured() -> None:
    of = record()
    made = run(attempt(), experiment="noria-local-example", bucket="b", ended=7)
    assert of.evaluation
    assert of.request
    auc = of.evaluation.metrics[Metric.AUC]
    assert {name: made.metrics[name] for name in ("auc", "auc.low", "auc.high", "auc.better_than_champion")} == {
        "auc": auc.value,
        "auc.low": auc.low,
        "auc.high": auc.high,
        "auc.better_than_champion": 0.0223,
    }
    assert made.metrics["disparate_impact/color"] == 0.91
    assert made.parameters["estimator"] == "sklearn.HistGradientBoostingClassifier"
    assert made.parameters["hyperparameters.learning_rate"] == "0.05"
    assert made.parameters["dataset_hash"] == "d" * 64
    assert made.parameters["code"] == "c" * 64
    assert made.tags[EXECUTION] == card_world.EXECUTION
    (data,) = made.inputs
    (dataset,) = of.request.datasets
    assert (data.name, data.source) == (dataset.source_key, f"s3://b/{dataset.key}")
    assert dataset.sha256.startswith(data.digest)
    assert len(data.digest) == 36
    assert made.started == round(of.request.requested_at.timestamp() * 1000)
    assert json.loads(made.artifacts["evaluation.json"]) == of.evaluation.model_dump(mode="json")
    assert set(made.artifacts) == {"evaluation.json", "spec.json", "training.json", "request.json"}


@pytest.mark.parametrize(
    ("outcome", "status"), [("succeeded", "FINISHED"), ("refused", "FINISHED"), ("failed", "FAILED")]
)
def test_every_training_is_a_run_whatever_came_of_it(outcome: str, status: str) -> None:
    bare = Attempt(model="example", execution="e", outcome=outcome, unknown={"evaluation": "it never came so far"})
    made = run(bare, experiment="x", bucket="b", ended=7)
    assert (made.status, made.metrics, made.parameters, made.inputs, made.started) == (status, {}, {}, (), None)
    assert made.tags["noria.outcome"] == outcome
    assert made.tags["noria.unknown.evaluation"] == "it never came so far"


def test_names_are_such_as_mlflow_takes() -> None:
    of = record(card_world.spec(HOSTILE), HOSTILE)
    made = run(attempt(of=of), experiment="x", bucket="b", ended=7)
    for name in (*made.parameters, *made.metrics):
        assert len(name) <= 250
        assert all(c.isalnum() or c in "_-. :/" for c in name), name


def test_values_of_sensitive_features_and_rows_are_in_no_run() -> None:
    usual = card_world.spec()
    color = usual.features["color"].model_copy(update={"sensitive": True})
    of = record(usual.model_copy(update={"features": usual.features | {"color": color}}))
    told = run(attempt(of=of), experiment="x", bucket="b", ended=7).model_dump_json()
    assert [value for value in CATEGORIES if f'\\"{value}\\"' in told] == []
    unknown = run(attempt(of=of).model_copy(update={"spec": None}), experiment="x", bucket="b", ended=7)
    assert "evaluation.json" not in unknown.artifacts


def test_no_environment_tracks_by_default_and_what_cannot_be_is_refused() -> None:
    assert {settings.tracking for settings in ENVIRONMENTS.values()} == {None}

    def with_tracking(server: str, **more: Any) -> Settings:
        return Settings(
            env="dev", log_days=7, archive_days=1, captured_days=1, noncurrent_days=1, tracking=server, **more
        )

    server = "arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/team"
    assert with_tracking(server).tracking == server
    with pytest.raises(ValueError, match="name a SageMaker tracking server by its ARN"):
        with_tracking("https://mlflow.example.com")
    with pytest.raises(ValueError, match="choose one of the two"):
        with_tracking(server, network=OwnVpc())
