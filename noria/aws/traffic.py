"""What CloudWatch counted of an endpoint's variants.

https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING

import boto3

from noria.experiment import Traffic
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
        values = self._values(_METRICS, variant, since=since, until=until)
        return Traffic(
            requests=round(sum(values["requests"])),
            failures=round(sum(values["failures"])),
            latency_p95_ms=median(values["latency"]) / _MICROSECONDS if values["latency"] else None,
        )

    def served(self, variant: str, *, since: datetime, until: datetime, within_ms: float | None) -> Served:
        """Requests, and those of them that were answered with 5XX, or by the model later than `within_ms`."""
        fast = {"fast": ("ModelLatency", within(within_ms))} if within_ms else {}
        # An asynchronous endpoint has no Invocations, but a latency of each.
        asked: _Asked = {**_COUNTS, "answered": ("ModelLatency", "SampleCount"), **fast}
        told = {id_: sum(values) for id_, values in self._values(asked, variant, since=since, until=until).items()}
        answered = told.get("answered", 0.0)
        return Served(
            requests=told.get("requests") or answered,
            failed=told.get("failures", 0.0),
            slow=max(0.0, answered - told.get("fast", 0.0)) if within_ms else None,
        )

    def _values(
        self, asked: _Asked, variant: str, *, since: datetime, until: datetime
    ) -> defaultdict[str, list[float]]:
        values: defaultdict[str, list[float]] = defaultdict(list)
        pages = self.client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[self._query(id_, *told, variant) for id_, told in asked.items()],
            StartTime=since,
            EndTime=until,
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                values[result["Id"]] += result["Values"]
        return values

    def _query(self, id_: str, metric: str, statistic: str, variant: str) -> "MetricDataQueryTypeDef":
        return {
            "Id": id_,
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/SageMaker",
                    "MetricName": metric,
                    "Dimensions": [
                        {"Name": "EndpointName", "Value": self.endpoint},
                        {"Name": "VariantName", "Value": variant},
                    ],
                },
                "Period": _PERIOD,
                "Stat": statistic,
            },
        }
