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


@dataclass(frozen=True)
class Proposal:
    """What one policy wants: a capacity, and the alarm that it wants it for."""

    policy: Policy
    capacity: int
    alarm: str

    @property
    def cause(self) -> str:
        return f"monitor alarm {self.alarm} in state ALARM triggered policy {self.policy.name}"


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
        self._follow_policies(target, current)

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

    def _follow_policies(self, target: Target, current: int) -> None:
        growing: list[Proposal] = []
        shrinking: list[Proposal] = []
        unwilling = False
        for policy, readings in self._readings(target):
            proposals = self._proposals(policy, readings, current)
            growing += [proposal for proposal in proposals if proposal.capacity > current]
            less = [proposal for proposal in proposals if proposal.capacity < current]
            shrinking += less
            scales_in = policy.type == "TargetTrackingScaling" and not policy.config.get("DisableScaleIn")
            unwilling = unwilling or (scales_in and not less)
        if growing:
            self._grow(target, max(growing, key=lambda proposal: proposal.capacity), current)
        elif shrinking and not unwilling:
            self._shrink(target, max(shrinking, key=lambda proposal: proposal.capacity), current)

    def _grow(self, target: Target, proposal: Proposal, current: int) -> None:
        if target.suspended["DynamicScalingOutSuspended"]:
            return
        wanted = within(proposal.capacity, target.least, target.most)
        if wanted <= current:
            self._explain(target, proposal.cause, {"Code": "AlreadyAtMaxCapacity", "MaxCapacity": target.most})
        elif self._scale(target, wanted, proposal.cause):
            if not self._is_cooling_down(proposal.policy, "ScaleOutCooldown"):
                proposal.policy.scaled_out = ScalingOut(self._now(), current)
            proposal.policy.scaled_in = None

    def _shrink(self, target: Target, proposal: Proposal, current: int) -> None:
        if target.suspended["DynamicScalingInSuspended"]:
            return
        wanted = within(proposal.capacity, target.least, target.most)
        if wanted >= current:
            self._explain(target, proposal.cause, {"Code": "AlreadyAtMinCapacity", "MinCapacity": target.least})
        elif self._scale(target, wanted, proposal.cause):
            proposal.policy.scaled_in = self._now()

    def _proposals(self, policy: Policy, readings: list[Reading], current: int) -> list[Proposal]:
        found = []
        for reading in readings:
            if not reading.alarmed or reading.value is None:
                continue
            before = policy.scaled_out
            added = before is not None and self._is_cooling_down(policy, "ScaleOutCooldown")
            from_ = before.capacity if before and added else current
            capacity = self._wanted(policy, reading, from_)
            if from_ != current and capacity <= current:
                continue  # what was just added is enough
            if capacity < current and self._is_cooling_down(policy, "ScaleInCooldown"):
                continue
            found.append(Proposal(policy, capacity, reading.alarm))
        return found

    @staticmethod
    def _wanted(policy: Policy, reading: Reading, capacity: int) -> int:
        value = reading.value or 0.0
        if policy.type == "TargetTrackingScaling":
            return tracked(capacity, value, policy.config["TargetValue"])
        return stepped(capacity, value - reading.threshold, policy.config)

    def _is_cooling_down(self, policy: Policy, kind: str) -> bool:
        out = kind == "ScaleOutCooldown"
        began = (policy.scaled_out and policy.scaled_out.moment) if out else policy.scaled_in
        member = kind if policy.type == "TargetTrackingScaling" else "Cooldown"
        return began is not None and self._now() < began + policy.config.get(member, DEFAULT_COOLDOWN)

    def _readings(self, target: Target) -> list[tuple[Policy, list[Reading]]]:
        """The alarms of each policy: those that name it as their action."""
        policies = list(target.policies.values())

        def read() -> list[tuple[Policy, list[Reading]]]:
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
