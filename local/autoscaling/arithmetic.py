"""How far a policy scales: numbers in, a number of instances out.

https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html
https://docs.aws.amazon.com/autoscaling/application/userguide/step-scaling-policy-overview.html
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# What floating point may add to a quotient that ought to be whole.
TINY = 1e-9


def tracked(capacity: int, metric: float, target: float) -> int:
    """The capacity at which a metric that falls as capacity grows would be at its target.

    AWS documents no formula. Without capacity the metric is what there is to do, and so what the first ones will share.
    """
    return math.ceil(max(capacity, 1) * metric / target - TINY)


def stepped(capacity: int, breach: float, config: Mapping[str, Any]) -> int:
    """The capacity after the step whose interval holds `breach`: how far the metric is beyond the alarm's threshold.

    `config` is a StepScalingPolicyConfiguration. Raises ValueError if no interval holds it.
    """
    adjustment = _adjustment(breach, config["StepAdjustments"])
    match config["AdjustmentType"]:
        case "ExactCapacity":
            return adjustment
        case "PercentChangeInCapacity":
            return capacity + _instances(capacity * adjustment / 100, config.get("MinAdjustmentMagnitude", 1))
    return capacity + adjustment


def _adjustment(breach: float, steps: Sequence[Mapping[str, Any]]) -> int:
    """Of two intervals that meet, the one further from the threshold begins: both bounds are said from there."""
    for step in steps:
        low = step.get("MetricIntervalLowerBound", -math.inf)
        high = step.get("MetricIntervalUpperBound", math.inf)
        if (low <= breach < high) if breach >= 0 else (low < breach <= high):
            return int(step["ScalingAdjustment"])
    raise ValueError(f"no step adjustment is for a breach of {breach:g}")


def _instances(change: float, least: int) -> int:
    """A part of the capacity in whole instances: towards zero, but at least `least`."""
    if change == 0:
        return 0
    return int(math.copysign(max(math.floor(abs(change) + TINY), least), change))


def within(capacity: int, least: int, most: int) -> int:
    return max(least, min(most, capacity))
