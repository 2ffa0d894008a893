"""Blue/green deployments, step by step, on a clock that the test turns."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from local.sagemaker.deployments import Counts, Deployment, Rolling, Stopped, check, stages
from local.sagemaker.fleet import Fleet, StartError, Variant, VariantSpec
from local.sagemaker.traffic import Router, UnroutableError


def fleet(name: str, weights: dict[str, float] | None = None, instances: int = 4) -> Fleet:
    """A fleet without servers: this is about where its traffic would go."""
    variants = {}
    for variant, weight in (weights or {"champion": 1.0}).items():
        spec = VariantSpec(
            variant, "role", (), isolated=True, instance_count=instances, weight=weight, startup_timeout=1
        )
        variants[variant] = Variant(spec, [], instances, weight)
    return Fleet(name, variants, {})


@dataclass
class Clock:
    """Time passes only when somebody sleeps; what is due then happens."""

    time: float = 0.0
    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    runs: bool = True

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> bool:
        self.time += seconds
        for moment, action in list(self.due):
            if moment <= self.time:
                self.due.remove((moment, action))
                action()
        return self.runs


@dataclass
class Diary:
    clock: Clock
    lines: list[tuple[float, str, str]] = field(default_factory=list)

    def green(self, status: str, message: str, active: Counts) -> None:
        self.lines.append((self.clock.time, f"green {status}", message))

    def blue(self, status: str, message: str) -> None:
        self.lines.append((self.clock.time, f"blue {status}", message))

    @property
    def steps(self) -> list[tuple[float, str]]:
        return [(moment, status) for moment, status, _ in self.lines]


class Rehearsal:
    """A deployment of four instances from `blue` to `green`."""

    def __init__(self, config: dict[str, Any] | None, limit: float | None = None) -> None:
        self.clock, self.alarms = Clock(), list[str]()
        self.diary = Diary(self.clock)
        self.blue, self.green = fleet("blue"), fleet("green")
        self.router = Router(self.blue, random.Random(7))  # noqa: S311
        self.deployment = Deployment(
            stages=stages(config, {"champion": 4}),
            start=lambda: self.green,
            router=self.router,
            tripped=lambda: list(self.alarms),
            clock=self.clock,
            observer=self.diary,
            limit=limit,
            rolling=Rolling.of(config),
        )

    @property
    def running(self) -> tuple[int, int]:
        """Instances of blue and of green."""
        return self.blue.variants["champion"].running, self.green.variants["champion"].running

    @property
    def green_share(self) -> float:
        taken = 0
        for _ in range(1000):
            with self.router.route() as route:
                taken += route.fleet is self.green
        return taken / 1000


def canary(size: int = 1, kind: str = "INSTANCE_COUNT", wait: int = 300, termination: int = 120) -> dict[str, Any]:
    routing = {"Type": "CANARY", "CanarySize": {"Type": kind, "Value": size}, "WaitIntervalInSeconds": wait}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": termination}}


def linear(size: int, kind: str = "INSTANCE_COUNT", wait: int = 60) -> dict[str, Any]:
    routing = {"Type": "LINEAR", "LinearStepSize": {"Type": kind, "Value": size}, "WaitIntervalInSeconds": wait}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}


def rolling(size: int, wait: int = 60) -> dict[str, Any]:
    batch = {"Type": "INSTANCE_COUNT", "Value": size}
    return {"RollingUpdatePolicy": {"MaximumBatchSize": batch, "WaitIntervalInSeconds": wait}}


# --- going live


def test_canary_bakes_twice_and_keeps_blue_until_the_end() -> None:
    rehearsal = Rehearsal(canary())
    shares = {}
    for moment in (10, 350):
        rehearsal.clock.due.append((moment, lambda m=moment: shares.update({m: rehearsal.green_share})))  # type: ignore[misc]
    assert rehearsal.deployment.run() is None
    assert rehearsal.diary.steps == [
        (0, "green Creating"),
        (0, "green ActivatingTraffic"),
        (0, "green Baking"),
        (300, "green ActivatingTraffic"),
        (300, "green Baking"),
        (420, "blue Deleting"),
    ]
    assert shares[10] == pytest.approx(0.25, abs=0.05)
    assert shares[350] == 1
    assert rehearsal.router.fleet is rehearsal.green
    messages = [message for _, _, message in rehearsal.diary.lines]
    assert messages[2] == (
        "Baking for 300 seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s)."
    )


def test_without_a_config_everything_moves_at_once() -> None:
    rehearsal = Rehearsal(None)
    assert rehearsal.deployment.run() is None
    assert rehearsal.clock.time == 0
    assert rehearsal.green_share == 1


def test_linear_takes_a_step_an_interval() -> None:
    rehearsal = Rehearsal(linear(1))
    assert [stage.shares["champion"] for stage in rehearsal.deployment.stages] == [0.25, 0.5, 0.75, 1]
    assert rehearsal.deployment.run() is None
    assert rehearsal.clock.time == 180


def test_rolling_bakes_every_batch() -> None:
    assert [(s.shares["champion"], s.bake) for s in stages(rolling(2), {"champion": 4})] == [(0.5, 60), (1, 60)]


def test_rolling_makes_room_batch_by_batch() -> None:
    rehearsal = Rehearsal(rolling(1))
    seen = {}
    for moment in (30, 90, 150, 210):
        rehearsal.clock.due.append((moment, lambda m=moment: seen.update({m: rehearsal.running})))  # type: ignore[misc]
    assert rehearsal.deployment.run() is None
    # The old instance whose place a batch takes goes after the batch has baked.
    assert seen == {30: (4, 1), 90: (3, 2), 150: (2, 3), 210: (1, 4)}
    assert rehearsal.diary.steps[:5] == [
        (0, "green Creating"),
        (0, "green ActivatingTraffic"),
        (0, "green Baking"),
        (60, "blue Deleting"),
        (60, "green Creating"),
    ]
    assert [message for _, what, message in rehearsal.diary.lines if what == "blue Deleting"] == (
        ["Terminating 1 instance(s)."] * 4
    )
    assert rehearsal.diary.lines[0][2] == "Launching 1 instance(s)."


# --- going back


@pytest.mark.parametrize("moment", [0, 200, 299, 350])
def test_alarm_in_any_bake_gives_the_traffic_back(moment: float) -> None:
    rehearsal = Rehearsal(canary())
    if moment == 0:
        rehearsal.alarms.append("errors")
    rehearsal.clock.due.append((moment, lambda: rehearsal.alarms.append("errors")))
    reason = rehearsal.deployment.run()
    assert reason is not None
    assert "errors" in reason
    assert rehearsal.router.fleet is rehearsal.blue
    assert rehearsal.green_share == 0
    assert rehearsal.diary.lines[-1][1:] == ("green Deleting", "Terminating 4 instance(s).")
    assert rehearsal.clock.time <= moment + 10  # the interval at which it looks


@pytest.mark.parametrize(
    ("batch", "steps"),
    [
        (None, ["blue: Launching 2 instance(s).", "green: Terminating 3 instance(s)."]),
        (
            {"Type": "INSTANCE_COUNT", "Value": 2},
            [
                "blue: Launching 1 instance(s).",
                "green: Terminating 2 instance(s).",
                "blue: Launching 1 instance(s).",
                "green: Terminating 1 instance(s).",
            ],
        ),
    ],
)
def test_rolling_goes_back_at_once_or_in_batches(batch: dict[str, Any] | None, steps: list[str]) -> None:
    config = rolling(1)
    if batch:
        config["RollingUpdatePolicy"]["RollbackMaximumBatchSize"] = batch
    rehearsal = Rehearsal(config)
    rehearsal.clock.due.append((130, lambda: rehearsal.alarms.append("errors")))  # three new ones, two old
    assert "errors" in str(rehearsal.deployment.run())
    last = [f"{what.split()[0]}: {message}" for _, what, message in rehearsal.diary.lines[-len(steps) :]]
    assert last == steps
    assert rehearsal.running == (4, 0)
    assert rehearsal.green_share == 0


def test_whatever_goes_wrong_gives_the_traffic_back() -> None:
    rehearsal = Rehearsal(canary())

    def fail() -> list[str]:
        raise OSError("nobody has thought of this")

    rehearsal.deployment.tripped = fail
    with pytest.raises(OSError, match="nobody"):
        rehearsal.deployment.run()
    assert rehearsal.green_share == 0
    assert rehearsal.diary.lines[-1][1] == "green Deleting"


def test_alarm_after_the_deployment_changes_nothing() -> None:
    rehearsal = Rehearsal(canary())
    rehearsal.clock.due.append((421, lambda: rehearsal.alarms.append("errors")))
    assert rehearsal.deployment.run() is None


def test_deployment_that_takes_too_long_goes_back() -> None:
    rehearsal = Rehearsal(canary(wait=300), limit=200)
    assert "MaximumExecutionTimeoutInSeconds" in str(rehearsal.deployment.run())
    assert rehearsal.green_share == 0


def test_fleet_that_does_not_start_never_sees_traffic() -> None:
    rehearsal = Rehearsal(canary())

    def fail() -> Fleet:
        raise StartError("no ping")

    rehearsal.deployment.start = fail
    assert rehearsal.deployment.run() == "no ping"
    assert rehearsal.green_share == 0


def test_stopping_the_cloud_stops_a_deployment() -> None:
    rehearsal = Rehearsal(canary())
    rehearsal.clock.runs = False
    with pytest.raises(Stopped):
        rehearsal.deployment.run()


# --- what is refused


@pytest.mark.parametrize(
    ("config", "instances"),
    [
        (canary(2), 3),
        (canary(1), 1),
        (canary(51, "CAPACITY_PERCENT"), 10),
        (canary(30, "CAPACITY_PERCENT"), 1),
        (linear(1), 11),
        (linear(9, "CAPACITY_PERCENT"), 10),
        (linear(3), 4),
        (rolling(3), 4),
        ({}, 3),
        ({**canary(), **rolling(1)}, 3),
    ],
)
def test_impossible_configs(config: dict[str, Any], instances: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        check(config, {"champion": instances})


def test_waits_must_fit_into_the_time_limit() -> None:
    config = canary(wait=300, termination=300)
    config["BlueGreenUpdatePolicy"]["MaximumExecutionTimeoutInSeconds"] = 600
    with pytest.raises(ValueError, match="600"):
        check(config, {"champion": 3})


def test_rolling_excludes_several_variants() -> None:
    with pytest.raises(ValueError, match="multi-variant"):
        check(rolling(1), {"champion": 4, "challenger": 4})


@pytest.mark.parametrize(("config", "instances"), [(canary(1), 3), (canary(50, "CAPACITY_PERCENT"), 3), (linear(1), 3)])
def test_possible_configs(config: dict[str, Any], instances: int) -> None:
    check(config, {"champion": instances})


# --- traffic


def test_weights_split_the_traffic() -> None:
    router = Router(fleet("only", {"champion": 3.0, "challenger": 1.0}), random.Random(7))  # noqa: S311
    taken = []
    for _ in range(1000):
        with router.route() as route:
            taken.append(route.variant.spec.name)
    assert taken.count("challenger") / 1000 == pytest.approx(0.25, abs=0.05)


def test_target_variant_wins_over_weights() -> None:
    router = Router(fleet("only", {"champion": 1.0, "challenger": 0.0}))
    with router.route("challenger") as route:
        assert route.variant.spec.name == "challenger"
    with pytest.raises(UnroutableError, match="nobody"), router.route("nobody"):
        pass


def test_weights_change_at_once() -> None:
    """Whoever asks meanwhile never finds all of them zero."""
    router = Router(fleet("only", {"champion": 1.0, "challenger": 0.0}))
    done = threading.Event()

    def swap() -> None:
        for turn in range(3000):
            router.reweigh({"champion": float(turn % 2), "challenger": float(1 - turn % 2)})
        done.set()

    swapping = threading.Thread(target=swap)
    swapping.start()
    while not done.is_set():
        with router.route():
            pass
    swapping.join()


def test_no_weight_no_traffic() -> None:
    with pytest.raises(UnroutableError), Router(fleet("only", {"champion": 0.0})).route():
        pass
