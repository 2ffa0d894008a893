"""Measurements that alarms look at: they carry the time of what was measured, not of the measuring."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import boto3

from noria.names import METRIC_NAMESPACE, dimension

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import DimensionTypeDef, MetricDatumTypeDef

_BATCH = 1000  # PutMetricData: at most 1000 metrics a call


@dataclass(frozen=True, kw_only=True)
class Measurement:
    name: str
    value: float
    feature: str | None = None
    segment: str | None = None

    def dimensions(self, model: str) -> "list[DimensionTypeDef]":
        named = {"Model": model, "Feature": self.feature, "Segment": self.segment}
        return [{"Name": name, "Value": dimension(value)} for name, value in named.items() if value]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What answers for one variant under one configuration: SageMaker's own metrics have these dimensions too."""

    endpoint: str
    config: str
    variant: str

    @property
    def dimensions(self) -> "list[DimensionTypeDef]":
        return [
            {"Name": "EndpointName", "Value": self.endpoint},
            {"Name": "EndpointConfigName", "Value": self.config},
            {"Name": "VariantName", "Value": self.variant},
        ]


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Metrics of namespace Noria: of a model, and of a feature or segment where one is named; or of a fleet."""

    client: "CloudWatchClient" = field(default_factory=lambda: boto3.client("cloudwatch"), repr=False)

    def publish(self, model: str, measured: Sequence[Measurement], *, at: datetime) -> None:
        self._put([_datum(m, m.dimensions(model)) | {"Timestamp": at} for m in measured])

    def publish_of_fleet(self, fleet: "Fleet", measured: Sequence[Measurement]) -> None:
        """As of the moment in which it arrives: the fleet's alarms look at the last minutes only."""
        self._put([_datum(m, fleet.dimensions) for m in measured])

    def _put(self, data: "Sequence[MetricDatumTypeDef]") -> None:
        for start in range(0, len(data), _BATCH):
            self.client.put_metric_data(Namespace=METRIC_NAMESPACE, MetricData=data[start : start + _BATCH])

    def alarm_state(self, alarm: str) -> str | None:
        """OK, ALARM or INSUFFICIENT_DATA; None when there is no such alarm."""
        alarms = self.client.describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
        return alarms[0]["StateValue"] if alarms else None

    def requests(self, endpoint: str, variant: str, *, since: datetime, until: datetime) -> int:
        """How many requests a variant was asked, to the minute."""
        pages = self.client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[
                {
                    "Id": "requests",
                    "MetricStat": {
                        "Metric": {
                            "Namespace": "AWS/SageMaker",
                            "MetricName": "Invocations",
                            "Dimensions": [
                                {"Name": "EndpointName", "Value": endpoint},
                                {"Name": "VariantName", "Value": variant},
                            ],
                        },
                        "Period": 60,
                        "Stat": "Sum",
                    },
                }
            ],
            StartTime=since,
            EndTime=until,
        )
        return round(sum(value for page in pages for result in page["MetricDataResults"] for value in result["Values"]))

    def raised(self, prefix: str) -> list[str]:
        """The alarms in ALARM whose names begin so."""
        pages = self.client.get_paginator("describe_alarms").paginate(AlarmNamePrefix=prefix, StateValue="ALARM")
        return [alarm["AlarmName"] for page in pages for alarm in page["MetricAlarms"]]


def _datum(measured: Measurement, dimensions: "list[DimensionTypeDef]") -> "MetricDatumTypeDef":
    return {"MetricName": measured.name, "Dimensions": dimensions, "Value": measured.value}
