"""What is shown of an environment and of each model: the one list behind CloudWatch's dashboards, `noria metrics` and
Grafana's dashboards.

    Series   one metric of CloudWatch, and what it is called outside
    Panel    series that belong together, and the limit of an alarm
    Board    panels under headings
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from noria.monitors import BUSINESS, Monitor, monitors
from noria.names import METRIC_NAMESPACE, SERVICE, Names, dimension
from noria.serve import Mode
from noria.spec import ModelSpec

MINUTE = 60
HOUR = 3600


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Series(Part):
    """`family` and `labels` are its name outside; `factor` makes its `unit`, a base unit of OpenMetrics, of
    CloudWatch's. Of what `counts`, no datapoint means none; of all else it means that nobody knows.
    """

    family: str
    help: str
    unit: Literal["", "seconds", "ratio"] = ""
    labels: dict[str, str]
    namespace: str
    metric: str
    dimensions: dict[str, str]
    statistic: str
    period: int
    factor: float = 1
    counts: bool = False

    @property
    def selector(self) -> str:
        """The series in PromQL."""
        labels = ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(self.labels.items()))
        return f"{self.family}{{{labels}}}"


class Line(Part):
    """What a panel draws: a series, or its share of another."""

    legend: str
    series: Series
    of: Series | None = None


class Panel(Part):
    title: str
    lines: tuple[Line, ...]
    limit: float | None = None
    limited: Literal["above", "below"] = "above"
    unit: Literal["", "seconds", "ratio"] = ""


class Row(Part):
    heading: str
    panels: tuple[Panel, ...]


class Board(Part):
    """`alarms` are the names of those whose state it shows; `model` is None for the environment's."""

    name: str
    title: str
    alarms: tuple[str, ...]
    model: str | None
    rows: tuple[Row, ...]

    @property
    def panels(self) -> Iterator[Panel]:
        return (panel for row in self.rows for panel in row.panels)

    @property
    def series(self) -> Iterator[Series]:
        for panel in self.panels:
            for line in panel.lines:
                yield line.series
                if line.of:
                    yield line.of


def boards(names: Names, specs: Sequence[ModelSpec], reactions: Sequence[str]) -> Iterator[Board]:
    """The environment's, then each model's; `reactions` are named as their queues are: `validate-upload`."""
    yield of_environment(names, specs, reactions)
    for spec in specs:
        yield of_model(names, spec)


def of_environment(names: Names, specs: Sequence[ModelSpec], reactions: Sequence[str]) -> Board:
    """At most some fifty metrics with two models, which is what CloudWatch gives away with a dashboard."""
    served = [spec for spec in specs if spec.serve.mode.has_endpoint]
    return Board(
        name=names.prefix,
        title=f"Noria, {names.env}",
        alarms=(
            names.dead_letters,
            *(f"{names.model(spec.model)}-{cause}" for spec in served for cause in ("serving", "data")),
        ),
        model=None,
        rows=tuple(
            _drawn(
                Row(
                    heading="Callers",
                    panels=(
                        Panel(
                            title="Requests a minute",
                            lines=tuple(_line(spec.model, _requests(names, spec)) for spec in served),
                        ),
                        Panel(
                            title="Share answered 5XX",
                            unit="ratio",
                            lines=tuple(_errors(names, spec, legend=spec.model) for spec in served),
                        ),
                        Panel(
                            title="Latency of the model, p95",
                            unit="seconds",
                            lines=tuple(_line(spec.model, _latency(names, spec)) for spec in served),
                        ),
                    ),
                ),
                Row(
                    heading="Events",
                    panels=(
                        Panel(
                            title="Age of the oldest waiting event",
                            unit="seconds",
                            lines=tuple(_line(reaction, _age(names, reaction)) for reaction in reactions),
                        ),
                        Panel(title="Dead letters", lines=(_line("of all reactions", _dead_letters(names)),)),
                        Panel(
                            title="Failures, most of which are tried again",
                            lines=tuple(_line(reaction, _failures(names, reaction)) for reaction in reactions),
                        ),
                    ),
                ),
                Row(
                    heading="The wheel, and what costs",
                    panels=tuple(
                        Panel(
                            title=title,
                            lines=tuple(_line(spec.model, _outcome(spec, outcome)) for spec in specs),
                        )
                        for title, outcome in (
                            ("Datasets accepted, an hour", "DatasetAccepted"),
                            ("Trainings begun, an hour", "TrainingStarted"),
                            ("Trainings failed, an hour", "TrainingFailed"),
                        )
                    ),
                ),
            )
        ),
    )


def _drawn(*rows: Row) -> Iterator[Row]:
    """Those with something to draw: for a panel without a line, CloudWatch refuses the whole dashboard."""
    for row in rows:
        if panels := tuple(panel for panel in row.panels if panel.lines):
            yield Row(heading=row.heading, panels=panels)


def of_model(names: Names, spec: ModelSpec) -> Board:
    rows = [*_served(names, spec)] if spec.serve.mode.has_endpoint else [_batches(spec)]
    return Board(
        name=names.model(spec.model),
        title=f"{spec.model}, {names.env}",
        alarms=tuple(_alarms(names, spec)) if spec.serve.mode.has_endpoint else (),
        model=spec.model,
        rows=(*rows, _wheel(spec)),
    )


def _alarms(names: Names, spec: ModelSpec) -> Iterator[str]:
    """What callers feel, and what each monitor says."""
    doors = ("endpoint", "front-door") if spec.serve.front_door else ("endpoint",)
    for door in doors:
        for what in ("errors", "latency"):
            yield f"{names.model(spec.model)}-{door}-{what}"
    for monitor in monitors(spec):
        yield names.monitor_alarm(spec.model, monitor.name)


def _served(names: Names, spec: ModelSpec) -> Iterator[Row]:
    limits, variants = spec.serve, _variants(spec)
    yield Row(
        heading="Callers, by variant",
        panels=(
            Panel(title="Requests a minute", lines=tuple(_line(v, _requests(names, spec, v)) for v in variants)),
            Panel(
                title="Share answered 5XX",
                unit="ratio",
                limit=limits.error_rate,
                lines=tuple(_errors(names, spec, variant=v, legend=v) for v in variants),
            ),
            Panel(
                title="Latency of the model, p95",
                unit="seconds",
                limit=limits.latency_p95_ms / 1000,
                lines=tuple(_line(v, _latency(names, spec, v)) for v in variants),
            ),
        ),
    )
    yield Row(
        heading="What the model sees",
        panels=(
            Panel(
                title="Population stability index",
                limit=spec.monitor.psi,
                lines=(
                    _line(
                        "of the features, the largest",
                        _measured(spec, "MaxPsi", "PSI of the feature that drifted most"),
                    ),
                    _line("of the predictions", _measured(spec, "PredictionPsi", "PSI of the predictions")),
                ),
            ),
            Panel(
                title="Rows of a window, and records that could not be read",
                lines=(
                    _line("rows", _measured(spec, "Rows", "Rows")),
                    _line("not read", _measured(spec, "MalformedRecords", "Captured records that could not be read")),
                ),
            ),
        ),
    )
    for clock, heading in (("window", "Monitors of requests"), ("labels", "Monitors of outcomes")):
        if of_clock := [monitor for monitor in monitors(spec) if monitor.clock == clock]:
            yield Row(heading=heading, panels=tuple(_monitor(spec, monitor) for monitor in of_clock))


def _batches(spec: ModelSpec) -> Row:
    return Row(
        heading="Files of rows",
        panels=(
            _hourly(spec, "Files begun and answered", ("begun", "BatchStarted"), ("answered", "BatchPredicted")),
            _hourly(spec, "Files refused or failed", ("refused", "BatchRefused"), ("failed", "BatchFailed")),
        ),
    )


def _wheel(spec: ModelSpec) -> Row:
    return Row(
        heading="The wheel",
        panels=(
            _hourly(spec, "Uploads", ("accepted", "DatasetAccepted"), ("quarantined", "DatasetQuarantined")),
            _hourly(
                spec,
                "Trainings",
                ("begun", "TrainingStarted"),
                ("registered", "TrainingSucceeded"),
                ("not good enough", "CandidateRefused"),
                ("failed", "TrainingFailed"),
            ),
        ),
    )


def _monitor(spec: ModelSpec, monitor: Monitor) -> Panel:
    series = of_monitor(spec, monitor)
    return Panel(
        title=monitor.title,
        unit=series.unit,
        limit=monitor.limit * series.factor,
        limited=monitor.breaches,
        lines=(_line(monitor.name, series),),
    )


# --- series


def of_monitor(spec: ModelSpec, monitor: Monitor) -> Series:
    """The worst that was measured in a window's time, as when a person asked for one of their own besides."""
    business, hours = monitor.metric.startswith(BUSINESS), monitor.unit == "hours"
    segment = {"segment": monitor.segment} if monitor.segment else {}
    name = {"name": monitor.metric.removeprefix(BUSINESS)} if business else {}
    return _measured(
        spec,
        monitor.metric,
        "A business number" if business else monitor.title.partition(" (")[0],
        statistic="Maximum" if monitor.breaches == "above" else "Minimum",
        segment=monitor.segment,
        family="noria_business" if business else "noria_silence_seconds" if hours else None,
        labels={**segment, **name},
        unit="seconds" if hours else "",
        factor=HOUR if hours else 1,
    )


def _measured(
    spec: ModelSpec,
    metric: str,
    help_: str,
    *,
    statistic: str = "Maximum",
    segment: str | None = None,
    family: str | None = None,
    labels: dict[str, str] | None = None,
    unit: Literal["", "seconds"] = "",
    factor: float = 1,
) -> Series:
    """One of `noria.aws.metrics.Measurement`; bias by segment has one help for all."""
    return Series(
        family=family or f"noria_{snake(metric)}",
        help=f"{re.sub(r'^Bias by [^:]+: ', 'Bias: ', help_)}, of the last window",
        labels={"model": spec.model, **(labels or {})},
        namespace=METRIC_NAMESPACE,
        metric=metric,
        dimensions={"Model": spec.model, **({"Segment": dimension(segment)} if segment else {})},
        statistic=statistic,
        period=int(spec.monitor.every.total_seconds()),
        unit=unit,
        factor=factor,
    )


def _hourly(spec: ModelSpec, title: str, *outcomes: tuple[str, str]) -> Panel:
    """How often each outcome, by its legend and metric, came in an hour."""
    lines = tuple(_line(legend, _outcome(spec, metric)) for legend, metric in outcomes)
    return Panel(title=f"{title}, an hour", lines=lines)


def _outcome(spec: ModelSpec, outcome: str) -> Series:
    """A count by `noria.aws.telemetry.tell`."""
    return Series(
        family="noria_outcomes",
        help="How often a reaction ended so in the last hour",
        labels={"model": spec.model, "outcome": outcome},
        namespace=METRIC_NAMESPACE,
        metric=outcome,
        dimensions={"Model": spec.model, "service": SERVICE},
        statistic="Sum",
        period=HOUR,
        counts=True,
    )


def _variants(spec: ModelSpec) -> tuple[str, ...]:
    return ("champion", "challenger", "shadow") if spec.serve.mode is Mode.REALTIME else ("champion",)


def _endpoint(names: Names, spec: ModelSpec, variant: str, **what: object) -> Series:
    return Series.model_validate(
        {
            "labels": {"model": spec.model, "variant": variant},
            "namespace": "AWS/SageMaker",
            "dimensions": {"EndpointName": names.model(spec.model), "VariantName": variant},
            "period": MINUTE,
            **what,
        }
    )


def _requests(names: Names, spec: ModelSpec, variant: str = "champion") -> Series:
    """Asynchronous endpoints have no Invocations, but a latency of each (`async-inference-monitor`)."""
    asynchronous = spec.serve.mode is Mode.ASYNC
    return _endpoint(
        names,
        spec,
        variant,
        family="noria_endpoint_requests",
        help="Requests of the last minute",
        metric="ModelLatency" if asynchronous else "Invocations",
        statistic="SampleCount" if asynchronous else "Sum",
        counts=True,
    )


def _errors(names: Names, spec: ModelSpec, *, legend: str, variant: str = "champion") -> Line:
    errors = _endpoint(
        names,
        spec,
        variant,
        family="noria_endpoint_errors",
        help="Requests of the last minute that were answered 5XX",
        metric="Invocation5XXErrors",
        statistic="Sum",
        counts=True,
    )
    return Line(legend=legend, series=errors, of=_requests(names, spec, variant))


def _latency(names: Names, spec: ModelSpec, variant: str = "champion") -> Series:
    return _endpoint(
        names,
        spec,
        variant,
        family="noria_endpoint_latency_p95_seconds",
        help="95th percentile of the model's latency in the last minute",
        unit="seconds",
        metric="ModelLatency",
        statistic="p95",
        factor=1e-6,
    )


def _queue(name: str, **what: object) -> Series:
    return Series.model_validate(
        {
            "namespace": "AWS/SQS",
            "dimensions": {"QueueName": name},
            "statistic": "Maximum",
            "period": MINUTE,
            "counts": True,
            **what,
        }
    )


def _age(names: Names, reaction: str) -> Series:
    return _queue(
        names.queue(reaction),
        family="noria_queue_oldest_event_age_seconds",
        help="Age of the oldest event that waits for a reaction",
        unit="seconds",
        labels={"reaction": reaction},
        metric="ApproximateAgeOfOldestMessage",
    )


def _dead_letters(names: Names) -> Series:
    return _queue(
        names.dead_letters,
        family="noria_dead_letters",
        help="Events that reactions could not handle: noria queues says which and why",
        labels={},
        metric="ApproximateNumberOfMessagesVisible",
    )


def _failures(names: Names, reaction: str) -> Series:
    return Series(
        family="noria_reaction_failures",
        help="How often a reaction failed in the last minute",
        labels={"reaction": reaction},
        namespace="AWS/Lambda",
        metric="Errors",
        dimensions={"FunctionName": names.function(reaction)},
        statistic="Sum",
        period=MINUTE,
        counts=True,
    )


def _line(legend: str, series: Series) -> Line:
    return Line(legend=legend, series=series)


def snake(name: str) -> str:
    """A metric's name as OpenMetrics writes them.

    >>> snake("DriftedFeatures")
    'drifted_features'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
