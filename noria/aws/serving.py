"""The serving stack of a model: its parameters are the desired state of the endpoint."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import takewhile
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import ClientError

from noria.aws.stacks import no_stack
from noria.deployment import NONE, Desired, Failure, Guard, percent, weight

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

PACKAGE = "ModelPackageArn"
CHALLENGER = "ChallengerPackageArn"
WEIGHT = "ChallengerWeight"
SHADOW = "ShadowPackageArn"
GUARDRAILS = "Guardrails"

DEPLOYER = "DeployerRoleArn"
"""Output of the stack: the service role of its updates."""

MODEL = "ChampionModelName"
"""Output of the stack of a model without an endpoint: what its batches are answered by."""

CONFIG_TYPE = "AWS::SageMaker::EndpointConfig"
MODEL_TYPE = "AWS::SageMaker::Model"


class Update(StrEnum):
    """How a stack took the request to change."""

    STARTED = "started"
    UNCHANGED = "unchanged"  # it has these parameters already
    BUSY = "busy"  # another operation runs; its end is an event
    STUCK = "stuck"  # a failed rollback: only a person gets it out


@dataclass(frozen=True, kw_only=True)
class StackState:
    id: str
    status: str
    parameters: dict[str, str]
    outputs: dict[str, str]
    changed: datetime

    @property
    def in_progress(self) -> bool:
        return self.status.endswith("_IN_PROGRESS")

    @property
    def stuck(self) -> bool:
        return self.status in {"UPDATE_ROLLBACK_FAILED", "ROLLBACK_FAILED", "DELETE_FAILED"}

    @property
    def desired(self) -> Desired:
        """What its parameters ask for."""
        challenger, weighs = self.parameters.get(CHALLENGER, NONE), float(self.parameters.get(WEIGHT, 0))
        return Desired.of(
            {
                "package": self.parameters.get(PACKAGE, NONE),
                "challenger": challenger,
                "percent": 0 if challenger == NONE else percent(weighs),
                "shadow": self.parameters.get(SHADOW, NONE),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation on the stack, by its token. `failure` is the first one in it."""

    began: datetime
    failure: Failure | None


@dataclass(frozen=True, kw_only=True)
class ServingStack:
    name: str
    client: "CloudFormationClient" = field(default_factory=lambda: boto3.client("cloudformation"), repr=False)

    def state(self) -> StackState:
        (stack,) = self.client.describe_stacks(StackName=self.name)["Stacks"]
        return StackState(
            id=stack["StackId"],
            status=stack["StackStatus"],
            parameters={p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", [])},
            outputs={o["OutputKey"]: o["OutputValue"] for o in stack.get("Outputs", [])},
            changed=stack.get("LastUpdatedTime", stack["CreationTime"]),
        )

    def found(self) -> StackState | None:
        """None where there is none: it is still to be deployed for the first time, or was destroyed."""
        try:
            return self.state()
        except ClientError as error:
            if no_stack(error):
                return None
            raise

    def update(self, desired: Desired, *, guard: Guard, token: str) -> Update:
        """Ask for `desired` (no package: no endpoint), leaving template and other parameters as they are."""
        state = self.state()
        asked = parameters(desired, guard)
        if state.in_progress:
            return Update.BUSY
        if state.stuck:
            return Update.STUCK
        if state.desired == desired:
            # Guardrails alone would be a change to CloudFormation, and none that an endpoint could be updated with.
            return Update.UNCHANGED
        try:
            self.client.update_stack(
                StackName=self.name,
                UsePreviousTemplate=True,
                Parameters=[
                    {"ParameterKey": name, "ParameterValue": asked[name]}
                    if name in asked
                    else {"ParameterKey": name, "UsePreviousValue": True}
                    for name in state.parameters
                ],
                RoleARN=state.outputs[DEPLOYER],
                ClientRequestToken=token,
            )
        except ClientError as error:
            outcome = _outcome(error)
            if outcome is None:
                raise
            return outcome
        return Update.STARTED

    def operation(self, token: str, *, since: datetime) -> Operation | None:
        """What became of the operation with this token since `since`; None when the stack never began it."""
        began: datetime | None = None
        failure: Failure | None = None
        for page in self.client.get_paginator("describe_stack_events").paginate(StackName=self.name):
            for event in page["StackEvents"]:  # newest first
                if event["Timestamp"] < since:
                    return Operation(began=began, failure=failure) if began else None
                if event.get("ClientRequestToken") != token:
                    continue
                began = event["Timestamp"]
                # Resources that were stopped because another one failed say so; the first failure is the cause.
                reason = event.get("ResourceStatusReason", "")
                if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in reason.lower():
                    failure = Failure(resource_type=event["ResourceType"], reason=reason)
        return Operation(began=began, failure=failure) if began else None

    def config(self) -> str | None:
        """Name of the endpoint configuration that the stack holds now, maybe in small letters."""
        return next((name for kind, name in self.resources() if kind == CONFIG_TYPE), None)

    def resources(self) -> set[tuple[str, str]]:
        """Type and name of what the stack holds now."""
        pages = self.client.get_paginator("list_stack_resources").paginate(StackName=self.name)
        return {
            (item["ResourceType"], _name(item["PhysicalResourceId"]))
            for page in pages
            for item in page["StackResourceSummaries"]
            if "PhysicalResourceId" in item
        }

    def resources_made(self, *, before: datetime, since: datetime | None = None) -> set[tuple[str, str]]:
        """Type and name of all that the stack made between two times; its events go back 90 days."""
        pages = self.client.get_paginator("describe_stack_events").paginate(StackName=self.name)
        newest_first = (event for page in pages for event in page["StackEvents"])
        return {
            (event["ResourceType"], _name(event["PhysicalResourceId"]))
            for event in takewhile(lambda event: since is None or event["Timestamp"] >= since, newest_first)
            if event.get("PhysicalResourceId") and event["Timestamp"] < before
        }


def parameters(desired: Desired, guard: Guard) -> dict[str, str]:
    """The stack's parameters that ask for it; a stack whose mode of serving has fewer of them takes those."""
    return {
        PACKAGE: desired.package or NONE,
        CHALLENGER: desired.challenger or NONE,
        WEIGHT: f"{weight(desired.percent):.6g}",
        SHADOW: desired.shadow or NONE,
        GUARDRAILS: guard.value,
    }


def _name(physical_id: str) -> str:
    """SageMaker's physical ids are ARNs; in them it may write names in small letters, and finds them either way."""
    return physical_id.rsplit("/", 1)[-1]


def _outcome(error: ClientError) -> Update | None:
    code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
    if code == "TokenAlreadyExistsException":
        return Update.STARTED
    if code != "ValidationError":
        return None
    if "No updates are to be performed" in message:
        return Update.UNCHANGED
    if found := re.search(r"is in (\w+) state and can ?not be updated", message):
        return Update.BUSY if found[1].endswith("_IN_PROGRESS") else Update.STUCK
    return None
