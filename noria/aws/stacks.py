"""CloudFormation stacks of an environment, as one removes them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import ClientError, WaiterError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient


_LOOK_SECONDS = 2


class NotDeleted(RuntimeError):
    """CloudFormation could not delete a stack; the message has its reasons."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    name: str
    id: str
    protected: bool
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StackResource:
    type: str
    id: str
    deletion_policy: str


@dataclass(frozen=True, kw_only=True)
class Stacks:
    client: "CloudFormationClient" = field(default_factory=lambda: boto3.client("cloudformation"), repr=False)

    def named(self, prefix: str) -> list[Stack]:
        pages = self.client.get_paginator("describe_stacks").paginate()
        return [
            Stack(
                name=stack["StackName"],
                id=stack["StackId"],
                protected=stack.get("EnableTerminationProtection", False),
                outputs={output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])},
            )
            for page in pages
            for stack in page["Stacks"]
            if stack["StackName"].startswith(prefix)
        ]

    def outputs(self, name: str) -> Mapping[str, str] | None:
        """None where there is no such stack."""
        try:
            (stack,) = self.client.describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            # CloudFormation has no code of its own for stacks that do not exist.
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            return None
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def resources(self, stack: Stack) -> list[StackResource]:
        """Its resources, with what their template says about their deletion."""
        policies = {
            logical: body.get("DeletionPolicy", "Delete")
            for logical, body in dict(self.client.get_template(StackName=stack.id)["TemplateBody"])["Resources"].items()
        }
        return [
            StackResource(
                type=resource["ResourceType"], id=resource["PhysicalResourceId"], deletion_policy=policies[resource_id]
            )
            for page in self.client.get_paginator("list_stack_resources").paginate(StackName=stack.id)
            for resource in page["StackResourceSummaries"]
            if (resource_id := resource["LogicalResourceId"]) in policies and "PhysicalResourceId" in resource
        ]

    def begin_deletion(self, stack: Stack) -> None:
        """Stacks that begin together go together."""
        self.client.delete_stack(StackName=stack.id)

    def wait_until_deleted(self, stack: Stack) -> None:
        """Wait for an hour at most; raises `NotDeleted`. A stack that is gone already is no error."""
        waiter, looks = self.client.get_waiter("stack_delete_complete"), 3600 // _LOOK_SECONDS
        try:
            waiter.wait(StackName=stack.id, WaiterConfig={"Delay": _LOOK_SECONDS, "MaxAttempts": looks})
        except WaiterError as error:
            reasons = "; ".join(dict.fromkeys(self._events(stack, "DELETE_FAILED"))) or str(error)
            raise NotDeleted(f"{stack.name} was not deleted: {reasons}") from error

    def kept(self, stack: Stack) -> list[str]:
        """What the deleted stack left behind because its template says so: type and id."""
        try:
            pages = self.client.get_paginator("describe_stack_events").paginate(StackName=stack.id)
            return sorted(
                {
                    f"{event['ResourceType']} {event['PhysicalResourceId']}"
                    for page in pages
                    for event in page["StackEvents"]
                    if event.get("ResourceStatus") == "DELETE_SKIPPED"
                }
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError":  # CloudFormation forgets deleted stacks in time
                return []
            raise

    def _events(self, stack: Stack, status: str) -> Iterator[str]:
        for page in self.client.get_paginator("describe_stack_events").paginate(StackName=stack.id):
            for event in page["StackEvents"]:
                if event.get("ResourceStatus") == status and event.get("ResourceStatusReason"):
                    yield f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"


def no_stack(error: ClientError) -> bool:
    """Whether CloudFormation says that there is no such stack."""
    return error.response["Error"]["Code"] == "ValidationError" and "does not exist" in str(error)
