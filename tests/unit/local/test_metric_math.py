"""CloudWatch's statistics and metric math."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.metric_math import Sample, expression, percentile, statistic


def seen(value: float, times: float = 1) -> Sample:
    return Sample(0, times, value * times, value, value)


def test_statistics_of_a_period() -> None:
    samples = [seen(1, 3), Sample(0, count=2, total=10, low=4, high=6)]
    found = {name: statistic(samples, name) for name in ("SampleCount", "Sum", "Average", "Minimum", "Maximum")}
    assert found == {"SampleCount": 5, "Sum": 13, "Average": 2.6, "Minimum": 1, "Maximum": 6}


def test_period_without_samples_has_no_statistic() -> None:
    assert statistic([], "Sum") is None
    assert statistic([], "p95") is None


def test_statistic_set_has_no_percentile() -> None:
    assert statistic([Sample(0, count=2, total=10, low=4, high=6)], "p50") is None


def test_a_trimmed_count_is_of_values_no_larger_and_of_sets_that_lie_on_one_side() -> None:
    low, high = Sample(0, count=2, total=10, low=4, high=6), Sample(0, count=3, total=30, low=9, high=11)
    assert statistic([seen(5, 2), seen(6, 4), seen(7)], "TC(:6)") == 6
    assert statistic([low, high, seen(1)], "TC(:6.5)") == 3
    assert statistic([low], "TC(:5)") is None


def test_unknown_statistic_is_an_error() -> None:
    with pytest.raises(ValueError, match="TM99"):
        statistic([seen(1)], "TM99")


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50), st.sampled_from([0, 10, 50, 90, 95, 99, 100]))
def test_percentile_interpolates_between_ranks(values: list[int], share: int) -> None:
    samples = [seen(value, values.count(value)) for value in set(values)]
    assert statistic(samples, f"p{share}") == pytest.approx(float(np.percentile(values, share)))


@pytest.mark.parametrize(("name", "share"), [("p95", 0.95), ("p99.9", 0.999), ("p100", 1), ("Sum", None)])
def test_percentile_names(name: str, share: float | None) -> None:
    assert percentile(name) == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m1 + m2 * 2", [21.0, None, 3.0]),
        ("100 * m1 / m2", [10.0, None, None]),
        ("-m1", [-1.0, -2.0, -3.0]),
        ("m1 ^ 2", [1.0, 4.0, 9.0]),
        ("m1 >= 2", [0.0, 1.0, 1.0]),
        ("m1 > 1 AND m1 < 3", [0.0, 1.0, 0.0]),
        ("m1 == 1 || m1 == 3", [1.0, 0.0, 1.0]),
        ("IF(m2 >= 5, m1 / m2, 0)", [0.1, 0.0, 0.0]),
        ("FILL(m2, 7)", [10.0, 7.0, 0.0]),
        ("FILL(m2, REPEAT)", [10.0, 10.0, 0.0]),
        ("SUM([m1, m2])", [11.0, 2.0, 3.0]),
        ("AVG(METRICS())", [5.5, 2.0, 1.5]),
        ("MAX([m1, m2]) - MIN([m1, m2])", [9.0, 0.0, 3.0]),
        ("CEIL(m1 / 2) + FLOOR(m1 / 2) + ABS(-m1)", [2.0, 4.0, 6.0]),
        ("5", [5.0, 5.0, 5.0]),
    ],
)
def test_expressions(text: str, expected: list[float | None]) -> None:
    assert expression(text, {"m1": [1.0, 2.0, 3.0], "m2": [10.0, None, 0.0]}) == expected


@pytest.mark.parametrize(
    "text", ["m3", "m1 +", "__import__('os')", "m1.real", "ANOMALY_DETECTION_BAND(m1, 2)", "SUM(m1)", "m1 if m1 else 2"]
)
def test_what_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"cannot|not an array"):
        expression(text, {"m1": [1.0]})
