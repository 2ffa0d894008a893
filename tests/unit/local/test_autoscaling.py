"""How far policies scale, whose word counts, and when schedules are due."""

from datetime import UTC, datetime
from typing import Any

import pytest

from local.autoscaling.arithmetic import stepped, tracked
from local.autoscaling.scaler import Reading, chosen
from local.autoscaling.schedule import following
from local.autoscaling.state import Policy, ScalingOut

NOW = datetime(2026, 11, 20, 12, 30, 15, tzinfo=UTC)  # a Friday


# --- how far


@pytest.mark.parametrize(
    ("capacity", "metric", "target", "wanted"),
    [
        (2, 20, 10, 4),
        (2, 10.1, 10, 3),
        (4, 10, 10, 4),
        (10, 3, 10, 3),
        (3, 0.1 + 0.2, 0.3, 3),
        (4, 0, 10, 0),
        (0, 25, 10, 3),
    ],
)
def test_target_tracking_keeps_the_work_of_each_instance(
    capacity: int, metric: float, target: float, wanted: int
) -> None:
    assert tracked(capacity, metric, target) == wanted


def steps(kind: str = "ChangeInCapacity", **members: Any) -> dict[str, Any]:
    """Beyond the threshold by less than 10, by more; and below it by more than 10, by less."""
    return {
        "AdjustmentType": kind,
        "StepAdjustments": [
            {"MetricIntervalUpperBound": -10, "ScalingAdjustment": -30},
            {"MetricIntervalLowerBound": -10, "MetricIntervalUpperBound": 0, "ScalingAdjustment": -10},
            {"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 10, "ScalingAdjustment": 10},
            {"MetricIntervalLowerBound": 10, "ScalingAdjustment": 30},
        ],
        **members,
    }


@pytest.mark.parametrize(
    ("breach", "kind", "wanted"),
    [
        (0, "ChangeInCapacity", 30),
        (9.9, "ChangeInCapacity", 30),
        (10, "ChangeInCapacity", 50),
        (-0.1, "ChangeInCapacity", 10),
        (-10, "ChangeInCapacity", -10),
        (0, "ExactCapacity", 10),
        (0, "PercentChangeInCapacity", 22),
        (-11, "PercentChangeInCapacity", 14),
    ],
)
def test_steps_go_by_how_far_the_metric_is_beyond_the_threshold(breach: float, kind: str, wanted: int) -> None:
    assert stepped(20, breach, steps(kind)) == wanted


@pytest.mark.parametrize(("capacity", "breach", "wanted"), [(1, 0, 2), (15, 0, 16), (1, -5, 0), (15, -11, 11)])
def test_percentages_are_whole_instances_and_at_least_one(capacity: int, breach: float, wanted: int) -> None:
    assert stepped(capacity, breach, steps("PercentChangeInCapacity")) == wanted


def test_percentages_can_have_a_minimum() -> None:
    assert stepped(10, 0, steps("PercentChangeInCapacity", MinAdjustmentMagnitude=4)) == 14


def test_a_breach_that_no_step_is_for() -> None:
    with pytest.raises(ValueError, match="no step"):
        stepped(1, -1, {"AdjustmentType": "ExactCapacity", "StepAdjustments": [{"MetricIntervalLowerBound": 0}]})


# --- whose word counts


def tracking(name: str = "load", **config: Any) -> Policy:
    cooldowns = {"ScaleOutCooldown": 60, "ScaleInCooldown": 300}
    return Policy(name, name, "TargetTrackingScaling", {"TargetValue": 10, **cooldowns, **config}, NOW)


def alarm(value: float | None, *, alarmed: bool = True) -> list[Reading]:
    return [Reading("alarm", alarmed, value, 10)]


def capacity(policies: list[tuple[Policy, list[Reading]]], current: int = 4, now: float = 1000) -> int | None:
    proposal = chosen(policies, current, now)
    return proposal.capacity if proposal else None


def test_nothing_changes_without_an_alarm_or_a_value() -> None:
    assert capacity([(tracking(), alarm(40, alarmed=False))]) is None
    assert capacity([(tracking(), alarm(None))]) is None
    assert capacity([]) is None


def test_the_policy_that_wants_most_wins() -> None:
    assert capacity([(tracking("a"), alarm(20)), (tracking("b"), alarm(30)), (tracking("c"), alarm(5))]) == 12


def test_capacity_shrinks_only_if_all_agree() -> None:
    assert capacity([(tracking("a"), alarm(5)), (tracking("b"), alarm(2.5))]) == 2
    assert capacity([(tracking("a"), alarm(5)), (tracking("b"), alarm(8, alarmed=False))]) is None
    assert capacity([(tracking("a"), alarm(5)), (tracking("b", DisableScaleIn=True), [])]) == 2


def test_what_was_just_added_counts_while_it_cools_down() -> None:
    policy = tracking()
    policy.scaled_out = ScalingOut(moment=990, capacity=2)  # from two to four
    assert capacity([(policy, alarm(20))]) is None  # the metric is still that of two
    assert capacity([(policy, alarm(35))]) == 7
    assert capacity([(policy, alarm(20))], now=1051) == 8


def test_shrinking_waits_for_the_cool_down_and_growing_does_not() -> None:
    policy = tracking()
    policy.scaled_in = 900
    assert capacity([(policy, alarm(5))]) is None
    assert capacity([(policy, alarm(5))], now=1201) == 2
    assert capacity([(policy, alarm(20))]) == 8


# --- when


@pytest.mark.parametrize(
    ("expression", "timezone", "due"),
    [
        ("at(2026-11-20T13:00:00)", "UTC", "2026-11-20T13:00:00+00:00"),
        ("at(2026-11-20T14:00:00)", "Europe/Paris", "2026-11-20T13:00:00+00:00"),
        ("at(2026-11-20T12:00:00)", "UTC", None),
        ("rate(5 minutes)", "UTC", "2026-11-20T12:35:15+00:00"),
        ("rate(1 day)", "UTC", "2026-11-21T12:30:15+00:00"),
        ("cron(0 20 ? * MON-FRI *)", "UTC", "2026-11-20T20:00:00+00:00"),
        ("cron(0 20 ? * MON-FRI *)", "Europe/Paris", "2026-11-20T19:00:00+00:00"),
        ("cron(0 6 * * ? *)", "America/New_York", "2026-11-21T11:00:00+00:00"),
    ],
)
def test_schedules(expression: str, timezone: str, due: str | None) -> None:
    found = following(expression, NOW, timezone=timezone)
    assert found == (datetime.fromisoformat(due) if due else None)


def test_rates_pass_in_the_clouds_time() -> None:
    assert following("rate(1 hour)", NOW, time_scale=60) == datetime(2026, 11, 20, 12, 31, 15, tzinfo=UTC)


@pytest.mark.parametrize(("expression", "timezone"), [("daily", "UTC"), ("cron(1 2)", "UTC"), ("rate(1 day)", "Moon")])
def test_what_is_no_schedule(expression: str, timezone: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        following(expression, NOW, timezone=timezone)
