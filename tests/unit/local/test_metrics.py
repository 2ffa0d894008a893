"""What CloudWatch keeps of a steady load's metrics: little, and right."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count

import pytest

from local import ministack
from local.metric_math import Sample, statistic

_names = (f"endpoint-{number}" for number in count())


@pytest.fixture
def dimensions() -> dict[str, str]:
    return {"EndpointName": next(_names)}


@pytest.fixture(autouse=True)
def usual_time() -> Iterator[None]:
    yield
    ministack.scale_time(1)


def put(values: Counter[float], dimensions: dict[str, str]) -> None:
    ministack.put_metric("AWS/SageMaker", "ModelLatency", values, unit="Microseconds", dimensions=dimensions)


def samples(dimensions: dict[str, str], since: float = 0) -> list[Sample]:
    points = ministack.metric_points("AWS/SageMaker", "ModelLatency", dimensions, since)
    return [Sample.from_point(point) for point in points]


def test_many_requests_of_a_minute_make_few_points_and_true_percentiles(dimensions: dict[str, str]) -> None:
    ministack.scale_time(1 / 60)  # the whole test within one minute of the cloud's
    chance = random.Random(7)  # noqa: S311
    latencies = [float(round(chance.lognormvariate(8, 0.5), -2)) for _ in range(20_000)]
    for start in range(0, len(latencies), 200):
        put(Counter(latencies[start : start + 200]), dimensions)
    kept = samples(dimensions)
    assert len(kept) == len(set(latencies)) < 300
    assert statistic(kept, "SampleCount") == len(latencies)
    assert statistic(kept, "Sum") == sum(latencies)
    assert statistic(kept, "p95") == sorted(latencies)[round(0.95 * (len(latencies) - 1))]
    assert statistic(kept, "Maximum") == max(latencies)


def test_minutes_long_past_leave_their_statistics(dimensions: dict[str, str]) -> None:
    ministack.scale_time(60_000)  # a minute takes a millisecond
    minutes = ministack.KEPT_MINUTES + 20
    for _ in range(minutes):
        put(Counter({1.0: 3, 9.0: 1}), dimensions)
        time.sleep(0.0015)
    kept = samples(dimensions)
    assert len(kept) < 2 * minutes
    assert [sample.timestamp for sample in kept] == sorted(sample.timestamp for sample in kept)
    for name, value in {"SampleCount": 4 * minutes, "Sum": 12 * minutes, "Minimum": 1, "Maximum": 9}.items():
        assert statistic(kept, name) == value, name
    assert statistic(kept[-2:], "p95") is not None
    assert kept[0] == Sample(kept[0].timestamp, 4, 12, 1, 9)


def test_points_are_found_from_a_moment_on(dimensions: dict[str, str]) -> None:
    ministack.scale_time(60_000)
    put(Counter({1.0: 1}), dimensions)
    time.sleep(0.01)
    since = time.time()
    put(Counter({2.0: 1}), dimensions)
    assert [sample.low for sample in samples(dimensions, since)] == [2.0]
    assert [sample.low for sample in samples(dimensions)] == [1.0, 2.0]
