"""Deployment guardrails: how an endpoint's traffic moves from its old (blue) fleet to a new (green) one, or back.

    check          what UpdateEndpoint refuses of a DeploymentConfig
    stages         a DeploymentConfig as steps: how many green instances take traffic, and how long to bake
    Deployment     carries it out: start green → (shift → bake)… → end blue; an alarm or a deadline gives all traffic
                   back to blue. If it is rolling, old instances leave as new ones come, batch by batch

Durations are AWS seconds. https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from local.sagemaker.fleet import Fleet, StartError
from local.sagemaker.traffic import Router

DeploymentConfig = Mapping[str, Any]
Counts = Mapping[str, int]
"""Instances by variant."""

ALARM_POLL = 10.0  # seconds between two looks at the alarms; AWS documents none


# --- the plan


@dataclass(frozen=True)
class Stage:
    """Traffic on so many green instances of each variant, then a bake; `name` and `wait` as AWS's messages put it."""

    active: Counts
    shares: Mapping[str, float]
    bake: int
    name: str
    wait: str


def check(config: DeploymentConfig, counts: Counts) -> None:
    """Raise ValueError with what is wrong with a deployment to a fleet of that size."""
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    if (blue_green is None) == (rolling is None):
        raise ValueError("Specify exactly one of BlueGreenUpdatePolicy and RollingUpdatePolicy in DeploymentConfig.")
    if rolling is not None:
        if len(counts) > 1:
            raise ValueError("Rolling deployments are not supported for multi-variant endpoints.")
        _check_size("MaximumBatchSize", rolling["MaximumBatchSize"], counts, low=5)
    if blue_green is not None:
        _check_routing(blue_green["TrafficRoutingConfiguration"], counts)
    limit = (blue_green or rolling or {}).get("MaximumExecutionTimeoutInSeconds")
    waits = sum(stage.bake for stage in stages(config, counts))
    if limit is not None and limit <= waits:
        raise ValueError(
            f"MaximumExecutionTimeoutInSeconds ({limit}) must be larger than the total waiting time ({waits})."
        )


def _check_routing(routing: Mapping[str, Any], counts: Counts) -> None:
    sizes = {"CANARY": ("CanarySize", 1), "LINEAR": ("LinearStepSize", 10)}
    for kind, (member, low) in sizes.items():
        size = routing.get(member)
        if (size is not None) != (routing["Type"] == kind):
            raise ValueError(f"{member} must be specified if and only if the traffic routing type is {kind}.")
        if size is not None:
            _check_size(member, size, counts, low=low)


def _check_size(member: str, size: Mapping[str, Any], counts: Counts, *, low: int) -> None:
    for variant, total in counts.items():
        percent = 100 * _instances(size, total) / total
        stated = size["Value"] if size["Type"] == "CAPACITY_PERCENT" else percent
        if not low <= stated <= 50 or percent > 50:
            raise ValueError(
                f"{member} must be between {low}% and 50% of the instances of variant {variant}, which has {total}."
            )


def stages(config: DeploymentConfig | None, counts: Counts) -> list[Stage]:
    """The steps of a deployment; without a config, everything at once and no bake."""
    if config is None:
        return [_full(counts, 0, "TerminationWaitInSeconds")]
    if rolling := config.get("RollingUpdatePolicy"):
        wait = rolling["WaitIntervalInSeconds"]
        partial = _partial(rolling["MaximumBatchSize"], counts, wait, "batch")
        return [*partial, _full(counts, wait, "WaitIntervalInSeconds")]
    policy = config["BlueGreenUpdatePolicy"]
    routing = policy["TrafficRoutingConfiguration"]
    last = _full(counts, policy.get("TerminationWaitInSeconds", 0), "TerminationWaitInSeconds")
    match routing["Type"]:
        case "CANARY":
            return [*_partial(routing["CanarySize"], counts, routing["WaitIntervalInSeconds"], "canary")[:1], last]
        case "LINEAR":
            return [*_partial(routing["LinearStepSize"], counts, routing["WaitIntervalInSeconds"], "linear step"), last]
    return [last]


def _partial(size: Mapping[str, Any], counts: Counts, wait: int, name: str) -> list[Stage]:
    """Steps of one size, as long as some variant is not at full capacity."""
    steps = max(math.ceil(total / _instances(size, total)) for total in counts.values()) - 1
    found = []
    for step in range(1, steps + 1):
        active = {variant: min(total, step * _instances(size, total)) for variant, total in counts.items()}
        shares = {variant: active[variant] / total for variant, total in counts.items()}
        found.append(Stage(active, shares, wait, name, "WaitIntervalInSeconds"))
    return found


def _full(counts: Counts, bake: int, wait: str) -> Stage:
    return Stage(counts, dict.fromkeys(counts, 1.0), bake, "full", wait)


@dataclass(frozen=True)
class Rolling:
    """Old instances make room for new ones. On the way back it is the reverse: `batch` at a time, or all at once."""

    batch: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, config: DeploymentConfig | None) -> "Rolling | None":
        policy = (config or {}).get("RollingUpdatePolicy")
        return cls(policy.get("RollbackMaximumBatchSize")) if policy else None

    def fewer(self, active: Counts, total: Counts) -> Counts:
        """The new instances that are left when a batch of them has gone."""
        return {
            name: max(0, active[name] - (_instances(self.batch, count) if self.batch else count))
            for name, count in total.items()
        }


def _instances(size: Mapping[str, Any], total: int) -> int:
    """A CapacitySize in whole instances."""
    value: int = size["Value"]
    return value if size["Type"] == "INSTANCE_COUNT" else max(1, math.floor(total * value / 100))


# --- carrying it out


class Clock(Protocol):
    """AWS seconds. `sleep` tells whether the cloud still runs."""

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> bool: ...


class Observer(Protocol):
    """Is told what each side does: a status of `VariantStatus`, its message, and the instances that it is about."""

    def green(self, status: str, message: str, active: Counts) -> None: ...

    def blue(self, status: str, message: str) -> None: ...


class Stopped(Exception):
    """The cloud ends; so does the deployment, where it is."""


class RollbackError(Exception):
    """Why the deployment has to be rolled back."""


@dataclass
class Deployment:
    """One deployment, run by one thread.

    `start` brings up the green fleet (raising `StartError`), `tripped` names the alarms that are in ALARM (raising
    RollbackError if it cannot tell), `limit` is MaximumExecutionTimeoutInSeconds, counted from when green is up: how
    long a container takes to start is this machine's affair. Blue/green unless it is `rolling`.
    """

    stages: list[Stage]
    start: Callable[[], Fleet]
    router: Router
    tripped: Callable[[], list[str]]
    clock: Clock
    observer: Observer
    limit: float | None = None
    poll: float = ALARM_POLL
    rolling: Rolling | None = None

    def run(self) -> str | None:
        """Carry it out. Returns why it was rolled back; None if green is live. Raises `Stopped`."""
        blue, total = self.router.fleet, self.stages[-1].active
        first = self.stages[0].active if self.rolling else total
        self.observer.green("Creating", f"Launching {_sum(first)} instance(s).", dict.fromkeys(total, 0))
        try:
            green = self.start()
        except StartError as error:
            return str(error)
        try:
            self._shift_to(green, blue)
        except Stopped:
            raise
        except Exception as error:
            self._roll_back(green, blue)
            green.stop()
            if isinstance(error, RollbackError):
                return str(error)
            raise
        self.router.settle(green)
        self.observer.blue("Deleting", f"Terminating {_sum(_running(blue))} instance(s).")
        blue.stop()
        return None

    def _shift_to(self, green: Fleet, blue: Fleet) -> None:
        deadline = math.inf if self.limit is None else self.clock.now() + self.limit
        previous: Stage | None = None
        for stage in self.stages:
            if self.rolling:
                if previous:
                    self._make_room(blue, previous.shares)
                    launching = _sum(stage.active) - _sum(previous.active)
                    self.observer.green("Creating", f"Launching {launching} instance(s).", previous.active)
                _keep(green, stage.active)
                previous = stage
            capacity = f"{stage.name} capacity of {_sum(stage.active)} instance(s)."
            self.observer.green("ActivatingTraffic", f"Activating traffic on {capacity}", stage.active)
            self.router.shift(green, stage.shares)
            message = f"Baking for {stage.bake} seconds ({stage.wait}) with traffic enabled on {capacity}"
            self.observer.green("Baking", message, stage.active)
            self._bake(stage.bake, deadline)

    def _make_room(self, blue: Fleet, shares: Mapping[str, float]) -> None:
        """The old instances go whose share of the traffic has baked well on new ones."""
        before = _sum(_running(blue))
        _keep(blue, _rest(blue, shares))
        self.observer.blue("Deleting", f"Terminating {before - _sum(_running(blue))} instance(s).")

    def _roll_back(self, green: Fleet, blue: Fleet) -> None:
        """All traffic back to blue: at once, or as a rolling deployment says, whose old instances come back first.

        AWS's guide does not tell whether it bakes these batches; here one follows the other.
        """
        active, total = _running(green), self.stages[-1].active
        while any(active.values()):
            left = (self.rolling or Rolling()).fewer(active, total)
            shares = {name: left[name] / count for name, count in total.items()}
            if launching := _sum(_rest(blue, shares)) - _sum(_running(blue)):
                self.observer.blue("Creating", f"Launching {launching} instance(s).")
                _keep(blue, _rest(blue, shares))
            self.router.shift(green, shares)
            self.observer.green("Deleting", f"Terminating {_sum(active) - _sum(left)} instance(s).", active)
            _keep(green, left)
            active = left
        self.router.settle(blue)

    def _bake(self, seconds: float, deadline: float) -> None:
        end = self.clock.now() + seconds
        while True:
            if alarms := self.tripped():
                raise RollbackError(f"Deployment was rolled back because alarms were in ALARM: {', '.join(alarms)}.")
            now = self.clock.now()
            if now > deadline:
                raise RollbackError(f"Deployment exceeded MaximumExecutionTimeoutInSeconds ({self.limit:.0f}).")
            if now >= end:
                return
            if not self.clock.sleep(min(self.poll, end - now)):
                raise Stopped


def _running(fleet: Fleet) -> Counts:
    return {name: variant.running for name, variant in fleet.variants.items()}


def _rest(fleet: Fleet, shares: Mapping[str, float]) -> Counts:
    """How many instances a fleet needs for what another's share of the traffic leaves."""
    return {
        name: variant.instance_count - math.floor(variant.instance_count * shares.get(name, 0))
        for name, variant in fleet.variants.items()
    }


def _keep(fleet: Fleet, running: Counts) -> None:
    """Let so many instances of each variant run."""
    for name, variant in fleet.variants.items():
        variant.absent = variant.instance_count - running[name]


def _sum(counts: Counts) -> int:
    return sum(counts.values())
