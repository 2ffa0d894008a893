"""A training as a run of MLflow: what it was told, what it measured, on which data. Pure; noria.aws.tracking sends it.

Values of sensitive features are in none of it, nor rows of any: a tracking server has readers of its own.
"""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from noria import masking
from noria.evaluation import Evaluation, Training
from noria.spec import ModelSpec
from noria.training import TrainingRequest

EXECUTION = "noria.execution"
"""The tag that makes a run this training's and no other's."""

# MLflow: names of parameters, metrics and tags are of these and at most 250 long, values of parameters 6,000.
_UNNAMED = re.compile(r"[^\w\-. :/]")
_NAME, _VALUE, _DIGEST = 250, 6000, 36

Outcome = Literal["succeeded", "refused", "failed"]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Attempt(Part):
    """What is known of a training by its execution, registered or not; `package` and `code` where it was."""

    model: str
    execution: str
    outcome: Outcome
    package: str | None = None
    code: str | None = None
    spec: ModelSpec | None = None
    training: Training | None = None
    request: TrainingRequest | None = None
    evaluation: Evaluation | None = None
    unknown: dict[str, str] = Field(default_factory=dict)


class Input(Part):
    """A dataset: `digest` is the beginning of its SHA-256, of which MLflow keeps 36 characters."""

    name: str
    digest: str
    source: str


class Run(Part):
    """`started` and `measured` are in milliseconds; `artifacts` are texts by file name."""

    experiment: str
    name: str
    status: Literal["FINISHED", "FAILED"]
    started: int | None
    measured: int
    tags: dict[str, str]
    parameters: dict[str, str]
    metrics: dict[str, float]
    inputs: tuple[Input, ...]
    artifacts: dict[str, str]


def run(attempt: Attempt, *, experiment: str, bucket: str, ended: int) -> Run:
    """A pure function: the same attempt gives the same run, but for `ended`."""
    request = attempt.request
    # Without the spec nobody knows which values may be told.
    hidden = masking.sensitive(attempt.spec) if attempt.spec else None
    measured = masking.quality(attempt.evaluation, hidden) if attempt.evaluation and hidden is not None else None
    documents: dict[str, BaseModel | None] = {
        "evaluation.json": measured,
        "spec.json": attempt.spec,
        "training.json": attempt.training,
        "request.json": request,
    }
    return Run(
        experiment=experiment,
        name=f"{attempt.model}/{(attempt.package or attempt.execution).rsplit('/', 1)[-1]}",
        status="FAILED" if attempt.outcome == "failed" else "FINISHED",
        started=round(request.requested_at.timestamp() * 1000) if request else None,
        measured=ended,
        tags=dict(_tags(attempt)),
        parameters={_named(name): value[:_VALUE] for name, value in _parameters(attempt)},
        metrics={_named(name): value for name, value in _metrics(attempt.evaluation)},
        inputs=tuple(
            Input(name=each.source_key or each.key, digest=each.sha256[:_DIGEST], source=f"s3://{bucket}/{each.key}")
            for each in (request.datasets if request else ())
        ),
        artifacts={name: document.model_dump_json(indent=1) for name, document in documents.items() if document},
    )


def _named(name: str) -> str:
    return _UNNAMED.sub("_", name)[:_NAME]


def _tags(attempt: Attempt) -> Iterator[tuple[str, str]]:
    yield EXECUTION, attempt.execution
    yield "noria.model", attempt.model
    yield "noria.outcome", attempt.outcome
    if attempt.package:
        yield "noria.package", attempt.package
    if attempt.request:
        yield "noria.training", attempt.request.token
        yield "noria.cause", attempt.request.cause.text
    if attempt.evaluation and not attempt.evaluation.gate.passed:
        yield "noria.gate", attempt.evaluation.gate.reason[:_VALUE]
    for part, why in sorted(attempt.unknown.items()):
        yield f"noria.unknown.{_named(part)}", why[:_VALUE]


def _parameters(attempt: Attempt) -> Iterator[tuple[str, str]]:
    if training := attempt.training:
        yield "estimator", training.estimator
        if training.iterations is not None:
            yield "iterations", str(training.iterations)
        yield "serves", training.serves
        for name, value in sorted(training.hyperparameters.items()):
            yield f"hyperparameters.{name}", str(value)
    if spec := attempt.spec:
        yield "seed", str(spec.train.seed)
        yield "holdout", str(spec.train.holdout)
        yield "instance", spec.train.instance
        yield "features", str(len(spec.features))
    if attempt.request:
        yield "dataset_hash", attempt.request.dataset_hash
        yield "datasets", str(len(attempt.request.datasets))
        yield "champion", attempt.request.champion.package if attempt.request.champion else "none"
    if attempt.code:
        yield "code", attempt.code


def _metrics(evaluation: Evaluation | None) -> Iterator[tuple[str, float]]:
    if evaluation is None:
        return
    for metric, found in evaluation.metrics.items():
        yield metric.value, found.value
        yield f"{metric.value}.low", found.low
        yield f"{metric.value}.high", found.high
    if rival := evaluation.champion:
        for metric, margin in rival.margins.items():
            yield f"{metric.value}.better_than_champion", margin.value
    yield "latency_p95_ms", evaluation.latency_p95_ms
    yield "rows.trained_on", float(evaluation.trained_on.rows)
    yield "rows.measured_on", float(evaluation.slice.rows)
    if evaluation.calibration:
        yield "calibration_error", evaluation.calibration.error
    for segment, fairness in evaluation.fairness.items():
        for name in ("disparate_impact", "equal_opportunity", "equalized_odds"):
            if found := getattr(fairness, name):
                yield f"{name}/{segment}", found.value
