"""What CloudWatch counted of an endpoint's variants.

https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import boto3

from noria.experiment import Traffic
from noria.names import METRIC_NAMESPACE, OWN_FAILURES, OWN_LATENCY, SERVICE
from noria.objectives import Served, within

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef

_PERIOD = 300
"""Seconds. CloudWatch keeps shorter periods for two weeks only, and this one for 63 days."""
_MICROSECONDS = 1000
_Asked = Mapping[str, tuple[str, str]]
"""Metric and statistic by the name of what they are asked for."""
_COUNTS: _Asked = {"requests": ("Invocations", "Sum"), "failures": ("Invocation5XXErrors", "Sum")}
_METRICS: _Asked = {**_COUNTS, "latency": ("ModelLatency", "p95")}


@dataclass(frozen=True, kw_only=True)
class TrafficMetrics:
    endpoint: str
    client: "CloudWatchClient" = field(default_factory=lambda: boto3.client("cloudwatch"), repr=False)

    def of(self, variant: str, *, since: datetime, until: datetime) -> Traffic:
        values = self._values(_METRICS, self._of(variant), since=since, until=until)
        return Traffic(
            requests=round(sum(values["requests"])),
            failures=round(sum(values["failures"])),
            latency_p95_ms=median(values["latency"]) / _MICROSECONDS if values["latency"] else None,
        )

    def served(self, variant: str, *, since: datetime, until: datetime, within_ms: float | None) -> Served:
        """Requests, and those of them that were answered with 5XX, or by the model later than `within_ms`."""
        # An asynchronous endpoint has no Invocations, but a latency of each.
        asked: _Asked = {**_COUNTS, **_answered("ModelLatency", within_ms)}
        return _served(self._values(asked, self._of(variant), since=since, until=until), within_ms)

    def own(self, *, since: datetime, until: datetime, within_ms: float | None) -> Served:
        """Those of them that Noria's functions sent: `noria.aws.telemetry.own_request`, by the clock of who asked."""
        asked: _Asked = {"failures": (OWN_FAILURES, "Sum"), **_answered(OWN_LATENCY, within_ms)}
        where = _Where(METRIC_NAMESPACE, {"EndpointName": self.endpoint, "service": SERVICE})
        return _served(self._values(asked, where, since=since, until=until), within_ms)

    def _of(self, variant: str) -> "_Where":
        return _Where("AWS/SageMaker", {"EndpointName": self.endpoint, "VariantName": variant})

    def _values(
        self, asked: _Asked, where: "_Where", *, since: datetime, until: datetime
    ) -> defaultdict[str, list[float]]:
        values: defaultdict[str, list[float]] = defaultdict(list)
        pages = self.client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[where.query(id_, *told) for id_, told in asked.items()],
            StartTime=since,
            EndTime=until,
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                values[result["Id"]] += result["Values"]
        return values


class _Where(NamedTuple):
    """Where metrics are: their namespace and dimensions."""

    namespace: str
    dimensions: Mapping[str, str]

    def query(self, id_: str, metric: str, statistic: str) -> "MetricDataQueryTypeDef":
        return {
            "Id": id_,
            "MetricStat": {
                "Metric": {
                    "Namespace": self.namespace,
                    "MetricName": metric,
                    "Dimensions": [{"Name": name, "Value": value} for name, value in self.dimensions.items()],
                },
                "Period": _PERIOD,
                "Stat": statistic,
            },
        }


def _answered(latency: str, within_ms: float | None) -> _Asked:
    """How many have a latency, and how many of these are in time."""
    return {"answered": (latency, "SampleCount"), **({"fast": (latency, within(within_ms))} if within_ms else {})}


def _served(values: Mapping[str, list[float]], within_ms: float | None) -> Served:
    told = {id_: sum(found) for id_, found in values.items()}
    answered = told.get("answered", 0.0)
    return Served(
        requests=told.get("requests") or answered,
        failed=told.get("failures", 0.0),
        slow=max(0.0, answered - told.get("fast", 0.0)) if within_ms else None,
    )
