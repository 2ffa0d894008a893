"""Scales what is registered: each minute by what its alarms and its schedule say.

A policy scales while one of its alarms is in ALARM, again and again, as CloudWatch calls it. A cool-down after scaling
out doesn't forbid to scale out further, but counts what has just been added as if it had been asked for; one after
scaling in does forbid to scale in further. Of several policies the one that wants most capacity wins, and capacity
shrinks only if every target tracking policy agrees.
https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html
"""

import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from botocore.exceptions import ClientError

from local import alarms, ministack
from local.autoscaling.arithmetic import stepped, tracked, within
from local.autoscaling.operations import DEFAULT_COOLDOWN, Operations
from local.autoscaling.state import Action, Policy, ScalingOut, State, Target
from local.sagemaker.api import Document
from local.sagemaker.cloud import Cloud

logger = logging.getLogger("noria.autoscaling")

MINUTE = 60


@dataclass(frozen=True)
class Reading:
    """An alarm of a policy: its name, whether it is in ALARM, its last value, and the threshold of that."""

    alarm: str
    alarmed: bool
    value: float | None
    threshold: float


Readings = list[tuple[Policy, list[Reading]]]
"""Each policy with its alarms."""


@dataclass(frozen=True)
class Proposal:
    """What one policy wants: a capacity, and the alarm that it wants it for."""

    policy: Policy
    capacity: int
    alarm: str

    @property
    def cause(self) -> str:
        return f"monitor alarm {self.alarm} in state ALARM triggered policy {self.policy.name}"


def chosen(readings: Readings, current: int, now: float) -> Proposal | None:
    """What the policies together want of a capacity at a moment (AWS seconds); None if it is right as it is."""
    growing: list[Proposal] = []
    shrinking: list[Proposal] = []
    unwilling = False
    for policy, read in readings:
        proposals = list(_proposals(policy, read, current, now))
        less = [proposal for proposal in proposals if proposal.capacity < current]
        growing += [proposal for proposal in proposals if proposal.capacity > current]
        shrinking += less
        unwilling = unwilling or (_scales_in(policy) and not less)
    if growing:
        return max(growing, key=lambda proposal: proposal.capacity)
    if shrinking and not unwilling:
        return max(shrinking, key=lambda proposal: proposal.capacity)
    return None


def _proposals(policy: Policy, readings: list[Reading], current: int, now: float) -> Iterator[Proposal]:
    """What one policy wants; nothing if it has what it wants, or has to cool down first."""
    recent = policy.scaled_out if _is_cooling_down(policy, "ScaleOutCooldown", now) else None
    for reading in readings:
        if not reading.alarmed or reading.value is None:
            continue
        before = recent.capacity if recent else current
        capacity = _wanted(policy, reading, reading.value, before)
        if recent and capacity <= current:
            continue  # what was just added is enough
        if capacity < current and _is_cooling_down(policy, "ScaleInCooldown", now):
            continue
        yield Proposal(policy, capacity, reading.alarm)


def _wanted(policy: Policy, reading: Reading, value: float, capacity: int) -> int:
    if policy.type == "TargetTrackingScaling":
        return tracked(capacity, value, policy.config["TargetValue"])
    return stepped(capacity, value - reading.threshold, policy.config)


def _scales_in(policy: Policy) -> bool:
    return policy.type == "TargetTrackingScaling" and not policy.config.get("DisableScaleIn")


def _is_cooling_down(policy: Policy, kind: str, now: float) -> bool:
    began = policy.scaled_in if kind == "ScaleInCooldown" else policy.scaled_out and policy.scaled_out.moment
    member = kind if policy.type == "TargetTrackingScaling" else "Cooldown"
    return began is not None and now < began + policy.config.get(member, DEFAULT_COOLDOWN)


# --- every minute


class Scaler:
    def __init__(self, cloud: Cloud, state: State, operations: Operations) -> None:
        self._cloud = cloud
        self._state = state
        self._operations = operations

    def start(self) -> None:
        self._cloud.run(self._keep_scaling, "auto scaling")

    def _keep_scaling(self) -> None:
        while self._cloud.sleep(MINUTE):
            for target in self._state:
                try:
                    self.look(target)
                except (ClientError, ValueError) as error:
                    logger.warning("%s cannot be scaled: %s", target.resource_id, error)
                except Exception:
                    logger.exception("%s was not scaled", target.resource_id)  # the next minute may go better

    def look(self, target: Target) -> None:
        """One minute of one target."""
        for action in list(target.actions.values()):
            if action.due is not None and action.due <= self._cloud.now():
                self._act(target, action)
        current = self._capacity(target)
        if target.overdue and current != (wanted := within(current, target.least, target.most)):
            self._scale(target, wanted, target.overdue)
            return
        target.overdue = None
        if proposal := chosen(self._readings(target), current, self._now()):
            self._follow(target, proposal, current)

    # --- by schedule

    def _act(self, target: Target, action: Action) -> None:
        due, action.due = action.due, self._operations.next_moment(action, self._cloud.now())
        if target.suspended["ScheduledScalingSuspended"]:
            return
        with self._state.lock:
            target.least = action.bounds.get("MinCapacity", target.least)
            target.most = action.bounds.get("MaxCapacity", max(target.most, target.least))
            target.least = min(target.least, target.most)
        logger.info("%s: scheduled action %s of %s", target.resource_id, action.name, due)
        target.overdue = f"scheduled action name {action.name} was triggered"

    # --- by policies

    def _follow(self, target: Target, proposal: Proposal, current: int) -> None:
        out, policy = proposal.capacity > current, proposal.policy
        if target.suspended["DynamicScalingOutSuspended" if out else "DynamicScalingInSuspended"]:
            return
        wanted = within(proposal.capacity, target.least, target.most)
        if out and wanted <= current:
            self._explain(target, proposal.cause, {"Code": "AlreadyAtMaxCapacity", "MaxCapacity": target.most})
        elif not out and wanted >= current:
            self._explain(target, proposal.cause, {"Code": "AlreadyAtMinCapacity", "MinCapacity": target.least})
        elif self._scale(target, wanted, proposal.cause):
            if not out:
                policy.scaled_in = self._now()
            elif not _is_cooling_down(policy, "ScaleOutCooldown", self._now()):
                policy.scaled_out = ScalingOut(self._now(), current)

    def _readings(self, target: Target) -> Readings:
        """The alarms of each policy: those that name it as their action."""
        policies = list(target.policies.values())

        def read() -> Readings:
            known = [alarm for alarm in ministack.alarms() if alarm.get("AlarmActions") and "AlarmRule" not in alarm]
            return [
                (policy, [self._reading(alarm) for alarm in known if policy.arn in alarm["AlarmActions"]])
                for policy in policies
            ]

        return self._cloud.on_loop(read) if policies else []

    def _reading(self, alarm: alarms.Alarm) -> Reading:
        return Reading(
            alarm=alarm["AlarmName"],
            alarmed=alarm["StateValue"] == "ALARM" and alarm.get("ActionsEnabled", True),
            value=alarms.last_value(alarm, self._cloud),
            threshold=float(alarm["Threshold"]),
        )

    # --- the endpoint

    def _capacity(self, target: Target) -> int:
        described = self._cloud.client("sagemaker").describe_endpoint(EndpointName=target.endpoint)
        variants = {each["VariantName"]: each for each in described.get("ProductionVariants", [])}
        if target.variant not in variants:
            raise ValueError(f"its endpoint has no variant {target.variant}")
        return int(variants[target.variant].get("DesiredInstanceCount", 0))

    def _scale(self, target: Target, capacity: int, cause: str) -> bool:
        """Scale, and keep it as an activity. An endpoint that is being updated refuses, and is asked again."""
        change = {"VariantName": target.variant, "DesiredInstanceCount": capacity}
        start, what = self._cloud.now(), f"desired instance count to {capacity}."
        try:
            self._cloud.client("sagemaker").update_endpoint_weights_and_capacities(
                EndpointName=target.endpoint, DesiredWeightsAndCapacities=[change]
            )
        except ClientError as error:
            reason = f"Failed to set {what} Reason: {error.response['Error']['Message']}"
            self._note(target, f"Setting {what}", cause, start, StatusCode="Failed", StatusMessage=reason)
            return False
        logger.info("%s: %d instances, because %s", target.resource_id, capacity, cause)
        message = f"Successfully set {what} Change successfully fulfilled by sagemaker."
        self._note(target, f"Setting {what}", cause, start, StatusCode="Successful", StatusMessage=message)
        return True

    def _explain(self, target: Target, cause: str, reason: Document) -> None:
        """Why nothing was done."""
        self._note(
            target,
            "Attempting to scale due to alarm triggered",
            cause,
            self._cloud.now(),
            StatusCode="Unfulfilled",
            NotScaledReasons=[reason],
        )

    def _note(self, target: Target, description: str, cause: str, start: datetime, **outcome: object) -> None:
        """Keep an activity; one that only repeats the last is the last, which took longer."""
        activity: Document = {"Description": description, "Cause": cause, **outcome}
        last = target.activities[-1] if target.activities else {}
        if outcome["StatusCode"] != "Successful" and all(last.get(name) == value for name, value in activity.items()):
            last["EndTime"] = self._cloud.now()
            return
        moments = {"StartTime": start, "EndTime": self._cloud.now()}
        target.activities.append({"ActivityId": str(uuid.uuid4()), **activity, **moments})

    def _now(self) -> float:
        """AWS seconds."""
        return time.monotonic() * self._cloud.time_scale
