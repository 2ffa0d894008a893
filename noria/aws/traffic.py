"""What CloudWatch counted of an endpoint's variants.

https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING

import boto3

from noria.experiment import Traffic

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef

_PERIOD = 300
"""Seconds. CloudWatch keeps shorter periods for two weeks only."""
_MICROSECONDS = 1000
_METRICS = {
    "requests": ("Invocations", "Sum"),
    "failures": ("Invocation5XXErrors", "Sum"),
    "latency": ("ModelLatency", "p95"),
}


@dataclass(frozen=True, kw_only=True)
class TrafficMetrics:
    endpoint: str
    client: "CloudWatchClient" = field(default_factory=lambda: boto3.client("cloudwatch"), repr=False)

    def of(self, variant: str, *, since: datetime, until: datetime) -> Traffic:
        values: defaultdict[str, list[float]] = defaultdict(list)
        pages = self.client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[self._query(id_, variant) for id_ in _METRICS], StartTime=since, EndTime=until
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                values[result["Id"]] += result["Values"]
        return Traffic(
            requests=round(sum(values["requests"])),
            failures=round(sum(values["failures"])),
            latency_p95_ms=median(values["latency"]) / _MICROSECONDS if values["latency"] else None,
        )

    def _query(self, id_: str, variant: str) -> "MetricDataQueryTypeDef":
        metric, statistic = _METRICS[id_]
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
