"""How a model answers and how a new version goes live: the `serve` part of a spec.

| mode       | answers                                     | strategies                                         |
|------------|---------------------------------------------|----------------------------------------------------|
| realtime   | requests, at once                           | canary, linear, rolling, all_at_once, progressive  |
| async      | objects in S3, one by one, told through SNS | canary, linear, rolling, all_at_once               |
| serverless | requests; nothing runs between them         | all_at_once                                        |
| batch      | files uploaded under `<model>/batch/`       | all_at_once                                        |

Limits: SageMaker guide, `deployment-guardrails`, `serverless-endpoints`, `endpoint-auto-scaling`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, WithJsonSchema, model_validator

from noria.hours import Hours
from noria.units import Duration, Part, format_duration

INSTANCE = r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"
GRAVITON = r"ml\.[a-z]+\d+g[a-z]*\..+"
"""Instances with AWS's own processor (arm64): ml.c7g.large, and not ml.g5.xlarge."""

SCHEDULE = r"^(rate|cron|at)\(.+\)$"


class Mode(StrEnum):
    REALTIME = "realtime"
    SERVERLESS = "serverless"
    ASYNC = "async"
    BATCH = "batch"

    @property
    def has_endpoint(self) -> bool:
        return self is not Mode.BATCH

    @property
    def has_instances(self) -> bool:
        """Whether an endpoint runs on instances that the spec chooses."""
        return self in {Mode.REALTIME, Mode.ASYNC}


class Strategy(StrEnum):
    ALL_AT_ONCE = "all_at_once"
    CANARY = "canary"
    LINEAR = "linear"
    ROLLING = "rolling"
    PROGRESSIVE = "progressive"


STEPWISE = frozenset({Strategy.CANARY, Strategy.LINEAR, Strategy.ROLLING})
"""Strategies that move whole instances, a step at a time."""

LONGEST_DEPLOYMENT = timedelta(hours=8)
"""Source: MaximumExecutionTimeoutInSeconds of BlueGreenUpdatePolicy and RollingUpdatePolicy (API)."""

BATCH_STARTING, FLEET_STARTING = timedelta(minutes=10), timedelta(hours=1)
"""Allowance for instances to start: a batch of a rolling deployment, or a whole new fleet."""

SMALLEST_SHARE = {Strategy.CANARY: 0.0, Strategy.LINEAR: 0.1, Strategy.ROLLING: 0.05}
"""Of the fleet, in one step; the largest is half of it. Source: BlueGreenUpdatePolicy, RollingUpdatePolicy (API)."""


class Step(Part):
    """`1` or `25%`: how much of the fleet a step moves."""

    value: int = Field(ge=1)
    unit: Literal["instances", "percent"] = "instances"

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"value": value}
        if isinstance(value, str):
            if not (found := re.fullmatch(r"\s*(\d+)\s*(%?)\s*", value)):
                raise ValueError("write a number of instances or a percentage, as in 1 or 25%")
            return {"value": int(found[1]), "unit": "percent" if found[2] else "instances"}
        return value

    def __str__(self) -> str:
        return f"{self.value}%" if self.unit == "percent" else str(self.value)

    def instances(self, count: int) -> float:
        """Of a fleet of `count`; less than one is possible only on paper."""
        return count * self.value / 100 if self.unit == "percent" else self.value


class Serverless(Part):
    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 2048
    concurrency: int = Field(5, ge=1, le=200, description="requests at a time")


class ScheduledScale(Part):
    """At these times the fleet's bounds change."""

    at: str = Field(
        pattern=SCHEDULE, description="an Application Auto Scaling expression, as in cron(0 7 ? * MON-FRI *)"
    )
    min: int = Field(ge=0)
    max: int = Field(ge=1)
    timezone: str = "UTC"


class Scale(Part):
    """The fleet grows and shrinks between `min` and `max` so that each instance has about `target` to do."""

    min: int = Field(ge=0, description="fewest instances; 0 is possible for async only")
    max: int = Field(ge=1, le=100, description="most instances")
    target: float = Field(
        gt=0, description="requests a minute for each instance (realtime), or waiting objects for each (async)"
    )
    out_cooldown: Duration = Field(timedelta(minutes=1), alias="out", description="wait after growing")
    in_cooldown: Duration = Field(timedelta(minutes=5), alias="in", description="wait after shrinking")
    schedule: tuple[ScheduledScale, ...] = ()

    @property
    def ends(self) -> bool:
        """Whether the fleet can come to have no instance."""
        return any(least == 0 for least, _ in self.bounds)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Fewest and most instances: at first, then by schedule."""
        return [(self.min, self.max), *((each.min, each.max) for each in self.schedule)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for least, most in self.bounds:
            if least > most:
                raise ValueError(f"min {least} is larger than max {most}: exchange them")
        return self


class Jwt(Part):
    """Who may call the front door: bearers of tokens of this issuer, meant for one of these audiences."""

    issuer: str = Field(pattern=r"^https://\S+$")
    audience: tuple[str, ...] = Field(min_length=1)


class FrontDoor(Part):
    """An HTTP API before the endpoint: checks who asks and what, and picks the variant by feature flags."""

    auth: Literal["iam"] | Jwt = "iam"
    rate: float = Field(100, gt=0, description="requests a second, steady")
    burst: int = Field(200, ge=1, description="requests at once")


class Serve(Part):
    mode: Mode = Mode.REALTIME
    server: Literal["noria", "aws"] | None = Field(
        None,
        description="noria: Noria's model server, built with Docker at deploy; aws: the prebuilt scikit-learn image. "
        "noria when left out, unless the model names its own image",
    )
    instance: str = Field("ml.m5.large", pattern=INSTANCE)
    count: int = Field(3, ge=1, le=100, description="instances; at first, where `scale` moves them")
    serverless: Serverless | None = None
    scale: Scale | None = None
    hours: Hours | None = Field(None, description="when there is an endpoint, in mode realtime; always when left out")

    strategy: Strategy = Field(
        Strategy.CANARY,
        description="how a new version goes live; canary when left out, all_at_once where that cannot be",
    )
    step: Annotated[
        Step, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\d+%?$"}]})
    ] = Field(
        Step(value=1),
        description="what canary, linear and rolling move at a time: instances, or a percentage of them",
    )
    weights: tuple[Annotated[int, Field(gt=0, lt=100)], ...] = Field(
        (5, 25, 50), min_length=1, description="percent of the requests that progressive gives the new version, in turn"
    )
    bake: Duration = Field(timedelta(minutes=10), description="how long a step answers before the next follows")
    termination_wait: Duration = Field(
        timedelta(minutes=5), description="how long the old fleet stays once the new one answers everything"
    )

    error_rate: float = Field(0.01, gt=0, lt=1, description="share of 5XX answers that rolls back")
    latency_p95_ms: float = Field(500, gt=0, description="95th percentile of model latency that rolls back")
    prediction_shift: float | None = Field(
        0.25, gt=0, description="PSI between old and new version's answers to the same requests that rolls back"
    )
    golden: int = Field(20, ge=0, le=200, description="rows with known answers that a new version must still give")
    min_requests: int = Field(10, ge=1, description="requests a minute below which the alarms stay silent")
    capture: int = Field(100, ge=0, le=100, description="percentage of requests kept for monitoring")
    front_door: FrontDoor | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_strategy(cls, given: object) -> object:
        """What suits mode and size, where the spec says nothing."""
        if not isinstance(given, Mapping) or "strategy" in given:
            return given
        count, mode = given.get("count", 3), given.get("mode", Mode.REALTIME)
        stepwise = mode in {Mode.REALTIME, Mode.ASYNC} and isinstance(count, int) and count > 1
        return {**given, "strategy": Strategy.CANARY if stepwise else Strategy.ALL_AT_ONCE}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        yield from self._strategy_problems()
        # AWS: WaitIntervalInSeconds is at most 3600; alarms with one-minute periods must fit inside.
        if not timedelta(minutes=2) <= self.bake <= timedelta(hours=1):
            yield f"bake {format_duration(self.bake)} must be between 2m and 1h"
        if self.termination_wait > timedelta(hours=1):
            yield f"termination_wait {format_duration(self.termination_wait)} must be at most 1h"
        if list(self.weights) != sorted(set(self.weights)):
            yield f"weights {list(self.weights)} must grow: each step gives the new version more"
        yield from self._scale_problems()
        if self.timeout > LONGEST_DEPLOYMENT:
            yield (
                f"strategy {self.strategy.value} with step {self.step} and bake {format_duration(self.bake)} takes up "
                f"to {format_duration(self.timeout)}; SageMaker allows {format_duration(LONGEST_DEPLOYMENT)}: raise "
                "step, or lower bake"
            )
        if self.front_door and self.mode not in {Mode.REALTIME, Mode.SERVERLESS}:
            yield f"front_door answers at once, which mode {self.mode.value} does not: remove it, or use mode realtime"
        if self.serverless and self.mode is not Mode.SERVERLESS:
            yield f"serverless says how mode serverless runs, but mode is {self.mode.value}: remove it, or change mode"
        # API: TransformInstanceType knows none of them, as ProductionVariantInstanceType does.
        if self.mode is Mode.BATCH and re.fullmatch(GRAVITON, self.instance):
            yield f"instance {self.instance} is one of Graviton's, which transform jobs do not have: use ml.m5.large"

    def _strategy_problems(self) -> Iterator[str]:
        strategy, mode = self.strategy, self.mode
        if not mode.has_instances:
            if strategy is not Strategy.ALL_AT_ONCE:
                yield (
                    f"strategy {strategy.value} moves instances or weights, which mode {mode.value} does not have: "
                    "use strategy all_at_once"
                )
            return
        if strategy is Strategy.PROGRESSIVE and mode is not Mode.REALTIME:
            yield f"strategy progressive splits requests by weight, which mode {mode.value} cannot: use mode realtime"
        if strategy not in STEPWISE:
            return
        moved = self.step.instances(self.count)
        share = math.floor(moved) / self.count
        if moved < 1:
            yield (
                f"step {self.step} of {self.count} instances is less than one: raise count or step, "
                "or use strategy progressive, which gives a share of the requests by weight"
            )
        elif share > 1 / 2:
            yield (
                f"step {self.step} of {self.count} instances is more than half of them, which SageMaker refuses: "
                "raise count, lower step, or use strategy all_at_once"
            )
        elif share < SMALLEST_SHARE[strategy]:
            least = math.ceil(self.count * SMALLEST_SHARE[strategy])
            yield f"step {self.step} of {self.count} instances is too small for {strategy.value}: use {least} or more"

    def _scale_problems(self) -> Iterator[str]:
        if self.hours and not self.mode.has_instances:
            yield f"hours take instances away, which mode {self.mode.value} does not have: remove them"
        if self.hours and self.mode is Mode.ASYNC:
            # Nobody documents what becomes of them; none waits longer than RequestTTLSeconds, 6 hours at most (API).
            yield (
                "hours take the endpoint away, and with it the requests that wait for it: remove hours, and use "
                "scale with min 0, which costs nothing while no request waits"
            )
        if self.scale is None:
            return
        if not self.mode.has_instances:
            yield f"scale moves instances, which mode {self.mode.value} does not have: remove it"
            return
        lowest = min(least for least, _ in self.scale.bounds)
        if lowest == 0 and self.mode is not Mode.ASYNC:
            yield "scale goes down to 0 instances, which mode async alone can: use min 1"
        if not self.scale.min <= self.count <= self.scale.max:
            yield f"count {self.count} is outside of scale's {self.scale.min} to {self.scale.max}: bring it inside"
        if self.strategy not in STEPWISE:
            return
        # A fleet that has grown or shrunk must still be able to move a step.
        if self.step.unit == "percent":
            if lowest > 0 and self.step.instances(lowest) < 1:
                yield (
                    f"scale goes down to {lowest} instances, of which step {self.step} is less than one: use min "
                    f"{math.ceil(100 / self.step.value)} or more, or strategy all_at_once or progressive"
                )
            return
        highest = max(most for _, most in self.scale.bounds)
        if self.step.value / highest < SMALLEST_SHARE[self.strategy]:
            yield (
                f"scale goes up to {highest} instances, of which step {self.step} is too small for "
                f"{self.strategy.value}: write step as a percentage, {SMALLEST_SHARE[self.strategy]:.0%} or more"
            )
        if 0 < lowest < 2 * self.step.value:
            yield (
                f"scale goes down to {lowest} instances, of which strategy {self.strategy.value} cannot move "
                f"{self.step}: use min {2 * self.step.value} or more, or strategy all_at_once or progressive"
            )

    def __str__(self) -> str:
        """In a few words, as a list of models shows it."""
        match self.mode:
            case Mode.BATCH:
                return "batch"
            case Mode.SERVERLESS:
                size = self.serverless or Serverless()
                return f"serverless, {size.memory_mb} MB, {size.concurrency} at a time"
        fleet = f"{self.scale.min} to {self.scale.max}" if self.scale else self.count
        hours = f", {self.hours}" if self.hours else ""
        return f"{'async, ' if self.mode is Mode.ASYNC else ''}{fleet} x {self.instance}, {self.strategy.value}{hours}"

    @property
    def steps(self) -> int:
        """How many steps move the whole fleet, at its largest or smallest."""
        if self.strategy not in STEPWISE:
            return 1
        if self.strategy is Strategy.CANARY:
            return 2
        sizes = {self.count, *(size for bounds in (self.scale.bounds if self.scale else ()) for size in bounds)} - {0}
        return max(math.ceil(size / max(1, math.floor(self.step.instances(size)))) for size in sizes)

    @property
    def timeout(self) -> timedelta:
        """How long a deployment may take: what it waits on purpose, and an allowance for instances to start."""
        if self.strategy is Strategy.ROLLING:
            return self.steps * (self.bake + BATCH_STARTING)
        return (self.steps + 1) * self.bake + self.termination_wait + FLEET_STARTING

    @property
    def graviton(self) -> bool:
        """Whether it answers on Graviton instances, which run images for arm64 alone."""
        return self.mode.has_instances and re.fullmatch(GRAVITON, self.instance) is not None

    @property
    def captures(self) -> bool:
        """Whether SageMaker captures requests and answers; serverless endpoints have no data capture."""
        return self.capture > 0 and self.mode in {Mode.REALTIME, Mode.ASYNC}


@dataclass(frozen=True, kw_only=True)
class Running:
    """What of a model is up: its endpoint's mode, whether something scales it, and its instances now."""

    mode: Mode
    scaled: bool
    instances: int | None


def impossible(running: Running, wanted: Serve) -> Iterator[str]:
    """Why an endpoint that is up cannot become what the spec now says; empty where it can.

    Sources: SageMaker guide, `serverless-endpoints`; UpdateEndpoint's own "The AsyncInferenceConfig parameter cannot be
    removed from this endpoint" (sagemaker-python-sdk, pull request 3124).
    """
    if running.mode is not wanted.mode and running.mode.has_endpoint and wanted.mode.has_endpoint:
        yield (
            f"mode cannot change from {running.mode.value} to {wanted.mode.value}: SageMaker refuses it for an "
            "endpoint that exists. Remove the model (noria destroy --model) and deploy it anew, or give it another name"
        )
    elif running.scaled and running.instances == 0 and wanted.scale is None and wanted.mode.has_instances:
        yield (
            "scale cannot be removed while the endpoint has no instance: nothing is sure to start one again. Send it "
            "an object and deploy once it has an instance, or keep scale with min 1 for one deployment"
        )
