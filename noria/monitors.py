"""What is watched of each model: the one list behind metrics, alarms, reports, runbooks and the retraining policy.

A monitor compares one number with one limit. Its metric carries dimension Model (and `Segment`, where it is about the
values of one); its alarm is `noria-<env>-<model>-<name>` and its runbook docs/runbooks/<runbook>.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from noria.alarms import CauseName
from noria.names import slug
from noria.policy import Trigger
from noria.spec import ModelSpec, Task

BUSINESS = "Business-"
"""What the names of the metrics of business numbers begin with."""

State = Literal["ok", "breach", "not enough data"]
Clock = Literal["window", "labels"]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Monitor(Part):
    """`breaches`: on which side of `limit` it speaks. `clock`: measured at each window, or when labels arrive.

    A window's alarm asks for `monitor.when`; labels come seldom and speak of many windows, so one word of theirs is
    enough. `trigger`: the word of `retrain.after` under which its alarm asks for a retraining; None, where it only
    tells somebody. `cause`: the one of noria.alarms that it shares with others; None, where it has its own.
    """

    name: str
    title: str
    metric: str
    segment: str | None = None
    limit: float
    breaches: Literal["above", "below"]
    unit: str = ""
    clock: Clock = "window"
    trigger: Trigger | None = None
    cause: CauseName | None = None
    runbook: str
    meaning: str

    def breached(self, value: float) -> bool:
        return value > self.limit if self.breaches == "above" else value < self.limit


class Finding(Part):
    """What one monitor says of one window. `reason` is a sentence; of "not enough data", what is lacking.

    `low` and `high` are the ends of a 95 % interval, where there is one.
    """

    monitor: str
    state: State
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float
    reason: str


class Reading(NamedTuple):
    """What one monitor measured, and a sentence about it; with the ends of a 95 % interval where there is one."""

    value: float
    reason: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """What could not be told, and why, as a sentence. `failed`: something broke, where else something was lacking."""

    reason: str
    failed: bool = False


def monitors(spec: ModelSpec) -> tuple[Monitor, ...]:
    """Everything that is watched of a model with an endpoint, the most telling first."""
    return tuple(_monitors(spec))


def _monitors(spec: ModelSpec) -> Iterator[Monitor]:
    watch, metric = spec.monitor, spec.primary_metric.value
    yield Monitor(
        name="drift",
        title="Data drift",
        metric="DriftedFeatures",
        limit=0,
        breaches="above",
        unit="features",
        trigger="drift",
        cause="data",
        runbook="drift",
        meaning="a feature of the requests is distributed differently than in training",
    )
    yield Monitor(
        name="prediction-drift",
        title="Prediction drift",
        metric="PredictionDrift",
        limit=watch.prediction_psi or watch.psi,
        breaches="above",
        trigger="drift",
        cause="data",
        runbook="prediction-drift",
        meaning="the predictions are distributed differently than in training",
    )
    yield Monitor(
        name="invalid",
        title="Requests that break the contract",
        metric="InvalidShare",
        limit=watch.invalid,
        breaches="above",
        cause="data",
        runbook="invalid",
        meaning="too many requested rows break the data contract",
    )
    yield Monitor(
        name="outliers",
        title="Outliers",
        metric="OutlierShare",
        limit=watch.outliers,
        breaches="above",
        cause="data",
        runbook="outliers",
        meaning="too many rows hold a value beyond all of the training data",
    )
    if spec.task is not Task.REGRESSION:
        yield Monitor(
            name="confidence",
            title="Loss of confidence",
            metric="ConfidenceDrop",
            limit=watch.confidence,
            breaches="above",
            cause="data",
            runbook="confidence",
            meaning="the model is less sure of its predictions than in training",
        )
    yield Monitor(
        name="attribution",
        title="Weight of the features",
        metric="AttributionCorrelation",
        limit=watch.attribution,
        breaches="below",
        cause="data",
        runbook="attribution",
        meaning="predictions rest on other features than in training",
    )
    yield Monitor(
        name="quality",
        title=f"Model quality ({metric})",
        metric="QualityLoss",
        limit=watch.quality,
        breaches="above",
        clock="labels",
        trigger="quality",
        cause="labels",
        runbook="quality",
        meaning=f"{metric} is worse than at registration by more than chance and more than the limit",
    )
    if spec.task is not Task.REGRESSION:
        yield Monitor(
            name="calibration",
            title="Calibration",
            metric="CalibrationError",
            limit=watch.calibration,
            breaches="above",
            clock="labels",
            trigger="quality",
            cause="labels",
            runbook="calibration",
            meaning="probabilities are not the shares of what then happened",
        )
    if watch.labels.coverage is not None:
        yield Monitor(
            name="label-coverage",
            title="Label coverage",
            metric="LabelCoverage",
            limit=watch.labels.coverage,
            breaches="below",
            runbook="label-coverage",
            meaning="outcomes are not becoming known as expected, so nobody can tell how right the model is",
        )
    yield from _of_bias(spec)
    yield from _of_business(spec)
    yield Monitor(
        name="silence",
        title="Traffic",
        metric="SilentHours",
        limit=watch.silence / timedelta(hours=1),
        breaches="above",
        unit="hours",
        runbook="silence",
        meaning="nobody asks the model any more",
    )
    yield Monitor(
        name="monitor-failures",
        title="The monitors themselves",
        metric="MonitorFailures",
        limit=0,
        breaches="above",
        runbook="monitor-failures",
        meaning="some monitors could not measure, so their silence means nothing",
    )


def _of_business(spec: ModelSpec) -> Iterator[Monitor]:
    for name, business in spec.monitor.business.items():
        for breaches, limit in (("below", business.min), ("above", business.max)):
            if limit is not None:
                yield Monitor(
                    name=f"business-{name}-{breaches}",
                    title=name,
                    metric=f"{BUSINESS}{name}",
                    limit=limit,
                    breaches="below" if breaches == "below" else "above",
                    runbook="business",
                    meaning=f"business metric {name} is {breaches} its limit",
                )


def _of_bias(spec: ModelSpec) -> Iterator[Monitor]:
    for segment, limits in spec.monitor.bias.items():
        for name, metric, limit in (
            ("disparate-impact", "DisparateImpact", limits.disparate_impact),
            ("equal-opportunity", "EqualOpportunityDifference", limits.equal_opportunity),
            ("equalized-odds", "EqualizedOddsDifference", limits.equalized_odds),
        ):
            if limit is not None:
                yield Monitor(
                    name=f"bias-{name}-{slug(segment)}",
                    title=f"Bias by {segment}: {name.replace('-', ' ')}",
                    metric=metric,
                    segment=segment,
                    limit=limit,
                    breaches="below" if metric == "DisparateImpact" else "above",
                    clock="window" if metric == "DisparateImpact" else "labels",
                    trigger="bias",
                    cause="bias",
                    runbook="bias",
                    meaning=f"the values of {segment} are treated more unequally than the spec allows",
                )
