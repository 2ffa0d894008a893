"""When an alarm is in which state: the tables of the CloudWatch guide."""

from collections.abc import Mapping
from typing import Any

import pytest

from local.alarms import Samples, evaluate
from local.metric_math import Sample

NOW = 600.0  # ten minutes after the epoch


def alarm(**members: Any) -> dict[str, Any]:
    return {
        "AlarmName": "test",
        "Namespace": "Test",
        "MetricName": "Load",
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "StateValue": "OK",
        **members,
    }


def by_minute(**series: list[float | None]) -> Samples:
    """Metrics whose last minute ended just now: one sample a minute, none where the series has None."""

    def samples(metric: Mapping[str, Any], since: float) -> list[Sample]:
        values = series[metric["MetricName"]]
        first = NOW - 60 * len(values)
        return [
            Sample(first + 60 * minute + 30, 1, value, value, value)
            for minute, value in enumerate(values)
            if value is not None
        ]

    return samples


def state(samples: Samples, **members: Any) -> str | None:
    verdict = evaluate(alarm(**members), samples, now=NOW, time_scale=1)
    return verdict.state if verdict else None


# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html: X breaches, 0 does not,
# - is missing; then the states when missing data is `missing`, `ignore`, `breaching`, `notBreaching`; None: as it was.
THREE_OUT_OF_THREE = [
    ("0-X-X", "OK", "OK", "OK", "OK"),
    ("----0", "OK", "OK", "OK", "OK"),
    ("-----", "INSUFFICIENT_DATA", None, "ALARM", "OK"),
    ("0XX-X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("--X--", "ALARM", None, "ALARM", "OK"),
]
TWO_OUT_OF_THREE = [
    ("0-X-X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("00X0X", "ALARM", "ALARM", "ALARM", "ALARM"),
    ("0-X--", "OK", "OK", "ALARM", "OK"),
    ("----0", "OK", "OK", "ALARM", "OK"),
    ("---X-", "ALARM", None, "ALARM", "OK"),
]
# The guide's next section, "Avoiding premature transitions to alarm state".
PREMATURE = [("----X", None, None, "ALARM", "OK"), ("---X-", None, None, "ALARM", "OK")]


@pytest.mark.parametrize("treatment", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("needed", "row"), [(3, row) for row in THREE_OUT_OF_THREE + PREMATURE] + [(2, row) for row in TWO_OUT_OF_THREE]
)
def test_missing_data(needed: int, row: tuple[str, ...], treatment: int) -> None:
    points, *states = row
    values = {"X": 1.0, "0": 0.0, "-": None}
    found = state(
        by_minute(Load=[values[point] for point in points]),
        EvaluationPeriods=3,
        DatapointsToAlarm=needed,
        TreatMissingData=["missing", "ignore", "breaching", "notBreaching"][treatment],
    )
    assert found == states[treatment]


@pytest.mark.parametrize(
    ("comparison", "at_threshold", "above"),
    [
        ("GreaterThanThreshold", "OK", "ALARM"),
        ("GreaterThanOrEqualToThreshold", "ALARM", "ALARM"),
        ("LessThanThreshold", "OK", "OK"),
        ("LessThanOrEqualToThreshold", "ALARM", "OK"),
    ],
)
def test_comparisons(comparison: str, at_threshold: str, above: str) -> None:
    assert state(by_minute(Load=[1.0]), ComparisonOperator=comparison) == at_threshold
    assert state(by_minute(Load=[1.5]), ComparisonOperator=comparison) == above


def rate_alarm(expression: str = "IF(requests >= 5, errors / requests, 0)") -> dict[str, Any]:
    def total(name: str) -> dict[str, Any]:
        stat = {"Metric": {"Namespace": "Test", "MetricName": name}, "Period": 60, "Stat": "Sum"}
        return {"Id": name, "MetricStat": stat, "ReturnData": False}

    return {
        **dict.fromkeys(("Namespace", "MetricName", "Statistic", "Period")),
        "Metrics": [total("errors"), total("requests"), {"Id": "rate", "Expression": expression, "ReturnData": True}],
        "Threshold": 0.5,
    }


@pytest.mark.parametrize(
    ("errors", "requests", "expected"), [(5, 10, "ALARM"), (4, 10, "OK"), (3, 3, "OK"), (None, None, "OK")]
)
def test_metric_math(errors: float | None, requests: float | None, expected: str) -> None:
    samples = by_minute(errors=[errors], requests=[requests])
    assert state(samples, **rate_alarm(), TreatMissingData="notBreaching") == expected


def test_expression_that_is_not_understood_is_an_error() -> None:
    with pytest.raises(ValueError, match="RATE"):
        state(by_minute(errors=[1.0], requests=[1.0]), **rate_alarm("RATE(errors)"))


@pytest.mark.parametrize(("count", "expected"), [(199, None), (200, "ALARM")])
def test_percentile_of_too_few_samples_is_ignored_if_asked(count: int, expected: str | None) -> None:
    """p95 needs 10/(1 - 0.95) samples: /percentiles-with-low-samples.html."""

    def samples(metric: Mapping[str, Any], since: float) -> list[Sample]:
        return [Sample(NOW - 30, count, 2.0 * count, 2.0, 2.0)]

    members = {"Statistic": None, "ExtendedStatistic": "p95"}
    assert state(samples, **members, EvaluateLowSampleCountPercentile="ignore") == expected
    assert state(samples, **members) == "ALARM"


def test_period_that_has_not_ended_does_not_count() -> None:
    def samples(metric: Mapping[str, Any], since: float) -> list[Sample]:
        return [Sample(NOW + 5, 1, 9, 9, 9), Sample(NOW - 5, 1, 0, 0, 0)]

    verdict = evaluate(alarm(), samples, now=NOW + 30, time_scale=1)
    assert verdict is not None
    assert verdict.state == "OK"


def test_periods_shrink_with_the_clouds_time() -> None:
    def samples(metric: Mapping[str, Any], since: float) -> list[Sample]:
        return [Sample(NOW - 0.5, 1, 9, 9, 9), Sample(NOW - 1.5, 1, 0, 0, 0)]

    verdict = evaluate(alarm(EvaluationPeriods=2), samples, now=NOW, time_scale=60)
    assert verdict is not None
    assert verdict.state == "OK"  # the minute before the last one, a second ago, was fine
    assert evaluate(alarm(), samples, now=NOW, time_scale=60).state == "ALARM"  # type: ignore[union-attr]


def test_reason_reads_like_cloudwatchs() -> None:
    verdict = evaluate(alarm(Threshold=50), by_minute(Load=[99.5]), now=NOW, time_scale=1)
    assert verdict is not None
    assert verdict.reason == (
        "Threshold Crossed: 1 out of the last 1 datapoints [99.5 (01/01/70 00:09:00)] was greater than or equal to the "
        "threshold (50.0) (minimum 1 datapoint for OK -> ALARM transition)."
    )
