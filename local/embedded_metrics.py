"""Metrics in log lines, as CloudWatch Logs makes them of the embedded metric format: of functions, and of all others.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from local import ministack

logger = logging.getLogger("noria.embedded_metrics")

MARK = '"_aws"'
"""Every document has it, and hardly another line: only lines that do are parsed."""

PAST, FUTURE = 14 * 86400, 2 * 3600
"""Seconds from now beyond which CloudWatch takes no value (PutMetricData, `Timestamp`)."""

UNIT = (
    "(?:Micro|Milli)seconds|Seconds|Percent|None"
    "|(?:Bytes|Bits|(?:Kilo|Mega|Giga|Tera)(?:bytes|bits))(?:/Second)?|Count(?:/Second)?"
)
VALUES = 100
"""Of one metric in a document, at most."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]


@dataclass(frozen=True)
class Datum:
    """Values of one metric with one set of dimensions; `at` in epoch seconds."""

    namespace: str
    name: str
    unit: str
    dimensions: dict[str, str]
    values: tuple[float, ...]
    at: float


class Definition(BaseModel):
    name: Name = Field(alias="Name")
    unit: str = Field("None", alias="Unit", pattern=f"^(?:{UNIT})$")


class Directive(BaseModel):
    namespace: Name = Field(alias="Namespace")
    dimensions: list[Annotated[list[Name], Field(max_length=30)]] = Field(alias="Dimensions", min_length=1)
    metrics: list[Definition] = Field(alias="Metrics", max_length=100)


class Metadata(BaseModel):
    timestamp: int = Field(alias="Timestamp", description="milliseconds since 1970")
    directives: list[Directive] = Field(alias="CloudWatchMetrics")


class Document(BaseModel):
    """What it is about is at its root: the values of metrics and of dimensions, by name."""

    model_config = ConfigDict(extra="allow")

    metadata: Metadata = Field(alias="_aws")

    def data(self, *, now: float) -> Iterator[Datum]:
        """Raises ValueError where what is named is not there, or is no value, or is of a time that nobody takes."""
        at = self.metadata.timestamp / 1000
        if not now - PAST <= at <= now + FUTURE:
            raise ValueError(f"Timestamp {self.metadata.timestamp} is not of the last two weeks")
        for directive in self.metadata.directives:
            for names in directive.dimensions:
                dimensions = {name: self._dimension(name) for name in names}
                for metric in directive.metrics:
                    values = self._values(metric.name)
                    yield Datum(directive.namespace, metric.name, metric.unit, dimensions, values, at)

    def _dimension(self, name: str) -> str:
        value = (self.model_extra or {}).get(name)
        if not isinstance(value, str) or not 1 <= len(value) <= 1024:
            raise ValueError(f"dimension {name} is {value!r}, no text of 1 to 1,024 characters")
        return value

    def _values(self, name: str) -> tuple[float, ...]:
        told = (self.model_extra or {}).get(name)
        values = told if isinstance(told, list) else [told]
        if len(values) > VALUES or not all(_is_number(value) for value in values):
            raise ValueError(f"metric {name} is {told!r}, neither a number nor at most {VALUES} of them")
        return tuple(map(float, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class NoMetrics(ValueError):
    """A line that means to be a document and is none; `counted` is CloudWatch Logs' own metric of such lines."""

    def __init__(self, counted: str, why: Exception) -> None:
        super().__init__(str(why))
        self.counted = counted


def data_in(line: str, *, now: float) -> list[Datum]:
    """What one log line says of metrics; nothing for most. Raises `NoMetrics`.

    The errors are named by https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CloudWatch-Logs-Monitoring-CloudWatch-Metrics.html
    """
    if MARK not in line or not line.startswith("{"):
        return []
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise NoMetrics("EMFParsingErrors", error) from error
    if not isinstance(metadata := told.get("_aws"), dict) or "CloudWatchMetrics" not in metadata:
        return []
    try:
        return list(Document.model_validate(told).data(now=now))
    except ValueError as error:  # pydantic's is one
        raise NoMetrics("EMFValidationErrors", error) from error


def install() -> None:
    ministack.on_log_lines(_extract)


def _extract(group: str, lines: Sequence[str]) -> None:
    """Of a document that is wrong nothing is taken: it is counted, as a line that fails."""
    now, found = time.time(), list[Datum]()
    for line in lines:
        try:
            found += data_in(line, now=now)
        except NoMetrics as wrong:
            logger.warning("%s: no metrics are made of a line: %s", group, wrong)
            found.append(Datum("AWS/Logs", wrong.counted, "Count", {"LogGroupName": group}, (1.0,), now))
    if found:
        ministack.soon(partial(_put, found))


def _put(found: Sequence[Datum]) -> None:
    for datum in found:
        ministack.put_metric(
            datum.namespace,
            datum.name,
            Counter(datum.values),
            unit=datum.unit,
            dimensions=datum.dimensions,
            at=datum.at,
        )
