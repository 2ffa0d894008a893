"""CloudWatch alarms on metrics and metric math, evaluated as the CloudWatch guide describes.

    evaluate     one alarm at one moment: the state it should be in, and why
    Alarms       evaluates every alarm of the cloud, minute by minute, and announces each change of state

MiniStack keeps alarms, their history and their actions; it evaluates them neither with metric math nor with missing
data, and sends no events. Minutes and periods shrink by the cloud's time scale.
"""

import json
import logging
import math
import operator
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from local import ministack
from local.metric_math import Sample, Series, expression, percentile, statistic
from local.sagemaker import metrics
from local.sagemaker.cloud import Cloud

logger = logging.getLogger("noria.alarms")

MINUTE = 60
# CloudWatch looks at more periods than asked, so that late datapoints count; how many more is not documented.
SPARE_PERIODS = 2
_MOST_AT_ONCE = 30
"""Minutes that are evaluated one after the other when none was for a while."""

Alarm = dict[str, Any]


# --- evaluation

_COMPARISONS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}

Samples = Callable[[Mapping[str, Any], float], list[Sample]]
"""What was published of one metric (`Namespace`, `MetricName`, `Dimensions`) since a moment (epoch seconds)."""


@dataclass(frozen=True)
class Verdict:
    state: str
    reason: str
    reason_data: str | None


@dataclass(frozen=True)
class Datapoint:
    """One period's value, when the period began (epoch seconds), and whether too few samples make it insignificant."""

    start: float
    value: float
    low_sample: bool


def queries(alarm: Alarm) -> list[dict[str, Any]]:
    """What the alarm watches, as `Metrics` of PutMetricAlarm would say it: a single-metric alarm has one entry."""
    if several := alarm.get("Metrics"):
        return list(several)
    metric = {
        "Namespace": alarm["Namespace"],
        "MetricName": alarm["MetricName"],
        "Dimensions": alarm.get("Dimensions", []),
    }
    stat = alarm.get("ExtendedStatistic") or alarm.get("Statistic")
    return [{"Id": "m1", "MetricStat": {"Metric": metric, "Period": alarm["Period"], "Stat": stat}, "ReturnData": True}]


def period(alarm: Alarm) -> int:
    """AWS seconds between two datapoints of the alarm."""
    stated = [q.get("MetricStat", q).get("Period") for q in queries(alarm)] + [alarm.get("Period")]
    return int(max((seconds for seconds in stated if seconds), default=MINUTE))


def evaluate(alarm: Alarm, samples: Samples, *, now: float, time_scale: float) -> Verdict | None:
    """The state that the alarm should be in at `now` (epoch seconds), and why; None to leave it as it is.

    Datapoints end on whole minutes (of the cloud's time). How missing ones are treated is the table in
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
    Raises ValueError for an expression or a statistic that is not understood.
    """
    asked = alarm["EvaluationPeriods"]
    needed = alarm.get("DatapointsToAlarm") or asked
    minute = MINUTE / time_scale
    end = math.floor(now / minute) * minute
    known = _datapoints(alarm, samples, end=end, count=asked + SPARE_PERIODS, time_scale=time_scale)[-asked:]
    if any(point.low_sample for point in known) and alarm.get("EvaluateLowSampleCountPercentile") == "ignore":
        return None
    compare, wording = _COMPARISONS[alarm["ComparisonOperator"]]
    breaching = [point for point in known if compare(point.value, alarm["Threshold"])]
    oldest = round((end - known[0].start) * time_scale / period(alarm)) if known else 0
    missing_is = alarm.get("TreatMissingData") or "missing"
    state = _state(len(breaching), len(known), asked, needed, oldest=oldest, missing_is=missing_is)
    if state is None:
        return None
    points = breaching if state == "ALARM" and breaching else known
    return Verdict(state, _reason(state, points, alarm, wording), _reason_data(alarm, known, now))


def last_value(alarm: Alarm, cloud: Cloud) -> float | None:
    """The last value within the periods that the alarm looks at; None if there is none. On MiniStack's loop only."""
    minute = MINUTE / cloud.time_scale
    end = math.floor((time.time() - settling(cloud)) / minute) * minute
    points = _datapoints(alarm, _samples, end=end, count=alarm["EvaluationPeriods"], time_scale=cloud.time_scale)
    return points[-1].value if points else None


def settling(cloud: Cloud) -> float:
    """Seconds after a minute in which its last metrics still arrive."""
    return 2 * metrics.interval(cloud)


def _state(breaching: int, known: int, asked: int, needed: int, *, oldest: int, missing_is: str) -> str | None:
    """The state by the guide's tables; `oldest` is how many periods ago the oldest known datapoint began."""
    missing = asked - known
    if missing_is == "breaching":
        breaching += missing
    if breaching >= needed:
        return "ALARM"
    if not missing or missing_is in ("breaching", "notBreaching") or breaching < known:
        return "OK"
    # All that is known breaches, and it is too little, or nothing is known.
    if not known:
        return None if missing_is == "ignore" else "INSUFFICIENT_DATA"
    # What follows may not breach: the alarm waits for as long as it would have taken to be sure.
    return "ALARM" if missing_is == "missing" and oldest >= needed else None


def _datapoints(alarm: Alarm, samples: Samples, *, end: float, count: int, time_scale: float) -> list[Datapoint]:
    """The last `count` periods before `end` that have a value, oldest first."""
    length = period(alarm) / time_scale
    starts = [end - (count - index) * length for index in range(count)]
    series: dict[str, Series] = {}
    low_sample = [False] * count
    watched = queries(alarm)
    for query in watched:
        if stat := query.get("MetricStat"):
            periods = _by_period(samples(stat["Metric"], starts[0]), starts, length)
            series[query["Id"]] = [statistic(within, stat["Stat"]) for within in periods]
            low_sample = [
                low or _is_low_sample(within, stat["Stat"]) for low, within in zip(low_sample, periods, strict=True)
            ]
    for query in watched:
        if text := query.get("Expression"):
            series[query["Id"]] = expression(text, series)
    returned = next(query["Id"] for query in watched if query.get("ReturnData", True))
    rows = zip(starts, series[returned], low_sample, strict=True)
    return [Datapoint(start, value, low) for start, value, low in rows if value is not None]


def _by_period(samples: list[Sample], starts: list[float], length: float) -> list[list[Sample]]:
    periods: list[list[Sample]] = [[] for _ in starts]
    for sample in samples:
        index = math.floor((sample.timestamp - starts[0]) / length)
        if 0 <= index < len(periods):
            periods[index].append(sample)
    return periods


def _is_low_sample(samples: list[Sample], stat: str) -> bool:
    """Too few samples for a percentile to mean something: 10/(1-p) above the median, 10/p below.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/percentiles-with-low-samples.html
    """
    share = percentile(stat)
    if share is None or not 0 < share < 1:
        return False
    count = sum(sample.count for sample in samples)
    return 0 < count < 10 / (1 - share if share >= 0.5 else share) - 1e-9


def _reason(state: str, points: list[Datapoint], alarm: Alarm, wording: str) -> str:
    asked = alarm["EvaluationPeriods"]
    needed = alarm.get("DatapointsToAlarm") or asked
    if not points:
        return f"No datapoints were received for {asked} period{'s'[: asked != 1]}."
    values = ", ".join(f"{p.value} ({datetime.fromtimestamp(p.start, UTC):%d/%m/%y %H:%M:%S})" for p in points)
    verb = ("was" if len(points) == 1 else "were") + ("" if state == "ALARM" else " not")
    change = "OK -> ALARM" if state == "ALARM" else "ALARM -> OK"
    return (
        f"Threshold Crossed: {len(points)} out of the last {asked} datapoints [{values}] {verb} {wording} the "
        f"threshold ({float(alarm['Threshold'])}) (minimum {needed} datapoint{'s'[: needed != 1]} for {change} "
        f"transition)."
    )


def _reason_data(alarm: Alarm, known: list[Datapoint], now: float) -> str:
    data = {
        "version": "1.0",
        "queryDate": timestamp(now),
        **({"startDate": timestamp(known[0].start)} if known else {}),
        **({"statistic": stat} if (stat := alarm.get("ExtendedStatistic") or alarm.get("Statistic")) else {}),
        "period": period(alarm),
        "recentDatapoints": [point.value for point in known],
        "threshold": alarm["Threshold"],
    }
    return json.dumps(data, separators=(",", ":"))


def timestamp(moment: float) -> str:
    """As CloudWatch's events write it: `2019-10-02T17:04:40.985+0000`."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")


# --- the alarms of a cloud


class Alarms:
    """Keeps every alarm of the cloud in the state that its metrics say."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._settling = settling(cloud)
        self._announced: dict[str, dict[str, Any]] = {}  # by ARN: the state as it was last told
        self._evaluated: dict[str, Alarm] = {}  # by ARN: the alarm as it was last evaluated

    def start(self) -> None:
        ministack.evaluate_alarms_with(self._evaluate_if_changed)
        ministack.on_alarm_state_change(self._announce)
        self._cloud.run(self._keep_evaluating, "alarms")

    def _keep_evaluating(self) -> None:
        minute = max(self._cloud.scaled(MINUTE), self._settling)
        done = math.floor((time.time() - self._settling) / minute)
        while self._cloud.sleep((minute - (time.time() - self._settling) % minute) * self._cloud.time_scale):
            if not ministack.is_running():
                continue
            # A scaled minute is short, and on a busy machine several pass at once: CloudWatch leaves none out.
            begun, done = done, math.floor((time.time() - self._settling) / minute)
            for ended in range(max(begun + 1, done - _MOST_AT_ONCE + 1), done + 1):
                within = min((ended + 0.5) * minute, time.time() - self._settling)
                try:
                    self._cloud.on_loop(partial(self._evaluate_all, within))
                except Exception:
                    logger.exception("alarms were not evaluated")  # the next minute may go better

    def _evaluate_all(self, now: float) -> None:
        for alarm in ministack.alarms():
            if "AlarmRule" not in alarm:  # MiniStack itself follows the children of composite alarms
                self._evaluate(alarm, now)

    def _evaluate_if_changed(self, alarm: Alarm) -> None:
        """MiniStack asks after each put of a metric or of an alarm; only a put alarm is a new object."""
        if self._evaluated.get(alarm["AlarmArn"]) is not alarm:
            self._evaluate(alarm, time.time() - self._settling)

    def _evaluate(self, alarm: Alarm, now: float) -> None:
        self._evaluated[alarm["AlarmArn"]] = alarm
        try:
            verdict = evaluate(alarm, _samples, now=now, time_scale=self._cloud.time_scale)
        except (ValueError, KeyError) as error:
            logger.warning("alarm %s cannot be evaluated: %s", alarm["AlarmName"], error)
            return
        if verdict is not None:
            ministack.set_alarm_state(alarm, verdict.state, verdict.reason, verdict.reason_data)

    def _announce(self, alarm: Alarm, old: str, new: str) -> None:
        """Send `CloudWatch Alarm State Change`.

        https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html
        """
        created = alarm.get("AlarmConfigurationUpdatedTimestamp", time.time())
        initially = {"value": old, "reason": "Unchecked: Initial alarm creation", "timestamp": timestamp(created)}
        previous = self._announced.get(alarm["AlarmArn"], initially)
        data = alarm.get("StateReasonData")
        state = {
            "value": new,
            "reason": alarm["StateReason"],
            **({"reasonData": data} if data else {}),
            "timestamp": timestamp(time.time()),
        }
        self._announced[alarm["AlarmArn"]] = state
        detail = {
            "alarmName": alarm["AlarmName"],
            "state": state,
            "previousState": previous,
            "configuration": _configuration(alarm),
        }
        ministack.emit("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [alarm["AlarmArn"]])


def _samples(metric: Mapping[str, Any], since: float) -> list[Sample]:
    dimensions = {dimension["Name"]: dimension["Value"] for dimension in metric.get("Dimensions", [])}
    points = ministack.metric_points(metric["Namespace"], metric["MetricName"], dimensions, since)
    return [Sample.from_point(point) for point in points]


def _configuration(alarm: Alarm) -> dict[str, Any]:
    description = {"description": text} if (text := alarm.get("AlarmDescription")) else {}
    if "AlarmRule" in alarm:
        return {**description, "alarmRule": alarm["AlarmRule"]}
    single = not alarm.get("Metrics")
    watched = [_metric(query, str(uuid.uuid4()) if single else query["Id"]) for query in queries(alarm)]
    return {**description, "metrics": watched}


def _metric(query: dict[str, Any], identity: str) -> dict[str, Any]:
    common = {"id": identity, "returnData": query.get("ReturnData", True)}
    if text := query.get("Expression"):
        return {**common, "expression": text, **({"label": label} if (label := query.get("Label")) else {})}
    stat = query["MetricStat"]
    metric = {
        "namespace": stat["Metric"]["Namespace"],
        "name": stat["Metric"]["MetricName"],
        "dimensions": {d["Name"]: d["Value"] for d in stat["Metric"].get("Dimensions", [])},
    }
    return {**common, "metricStat": {"metric": metric, "period": stat["Period"], "stat": stat["Stat"]}}
