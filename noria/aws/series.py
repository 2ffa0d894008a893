"""What CloudWatch knows of the series of noria.boards: the newest value of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import boto3

from noria.alarms import Severity, Told
from noria.boards import Series

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef

_MOST = 500  # GetMetricData: queries a call
_PERIODS = 3
_LATE = timedelta(minutes=5)
"""How late datapoints may be: a minute or two, says experience; no guide says how long."""


@dataclass(frozen=True, kw_only=True)
class AlarmNow:
    name: str
    raised: bool
    severity: Severity | None


@dataclass(frozen=True, kw_only=True)
class SeriesReader:
    client: "CloudWatchClient" = field(default_factory=lambda: boto3.client("cloudwatch"), repr=False)

    def newest(self, series: Sequence[Series], *, now: datetime) -> Iterator[float | None]:
        """The value of each in its last period, in its own unit; None where nobody knows it.

        CloudWatch takes 0.01 USD for 1000 series.
        """
        for some in _batched(series, _MOST):
            found = self._values(some, now=now)
            for number, each in enumerate(some):
                newest = found.get(f"s{number}")
                yield (0.0 if each.counts else None) if newest is None else newest * each.factor

    def _values(self, series: Sequence[Series], *, now: datetime) -> dict[str, float]:
        queries: list[MetricDataQueryTypeDef] = [
            {
                "Id": f"s{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": each.namespace,
                        "MetricName": each.metric,
                        "Dimensions": [{"Name": name, "Value": value} for name, value in each.dimensions.items()],
                    },
                    "Period": each.period,
                    "Stat": each.statistic,
                },
            }
            for number, each in enumerate(series)
        ]
        back = {f"s{number}": _reach(each) for number, each in enumerate(series)}
        newest: dict[str, tuple[datetime, float]] = {}
        for page in self.client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=now - max(back.values()), EndTime=now, ScanBy="TimestampDescending"
        ):
            for result in page["MetricDataResults"]:
                id_ = result["Id"]
                for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                    if at >= now - back[id_] and (id_ not in newest or at > newest[id_][0]):
                        newest[id_] = (at, value)
        return {id_: value for id_, (_, value) in newest.items()}

    def alarms(self, prefix: str) -> Iterator[AlarmNow]:
        """Every alarm of an environment that a person may hear of."""
        pages = self.client.get_paginator("describe_alarms").paginate(
            AlarmNamePrefix=prefix, AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
        for page in pages:
            for alarm in (*page.get("MetricAlarms", []), *page.get("CompositeAlarms", [])):
                if told := Told.read(alarm.get("AlarmDescription", "")):
                    raised = alarm["StateValue"] == "ALARM"
                    yield AlarmNow(name=alarm["AlarmName"], raised=raised, severity=told.severity)


def _reach(series: Series) -> timedelta:
    return timedelta(seconds=_PERIODS * series.period) + _LATE


def _batched(series: Sequence[Series], most: int) -> Iterator[Sequence[Series]]:
    for start in range(0, len(series), most):
        yield series[start : start + most]
