"""What of a model is up now, which the next deployment of its stacks must be able to change."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import ClientError

from noria.aws.serving import PACKAGE
from noria.aws.stacks import no_stack
from noria.deployment import NONE
from noria.logged import LOG_GROUP
from noria.names import Names
from noria.serve import Mode, Running

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_sagemaker import SageMakerClient

MODE = "Mode"
"""Output of a serving stack. Stacks from before there were modes have none: they are real-time."""

LOG_GROUP_TYPE = "AWS::Logs::LogGroup"

NOT_THERE = frozenset({"CREATE_FAILED", "DELETE_COMPLETE"})
"""Of what a stack lists, what it has not made or no longer has."""

SCALING = "ScalingTarget"
"""Output of a serving stack while something scales its endpoint."""


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    names: Names
    cloudformation: "CloudFormationClient" = field(default_factory=lambda: boto3.client("cloudformation"), repr=False)
    sagemaker: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker"), repr=False)
    logs: "CloudWatchLogsClient" = field(default_factory=lambda: boto3.client("logs"), repr=False)

    def running(self, model: str) -> Running | None:
        """None while the model's stack is not deployed, or serves no package."""
        try:
            (stack,) = self.cloudformation.describe_stacks(StackName=self.names.stack(model, "serving"))["Stacks"]
        except ClientError as error:
            if no_stack(error):
                return None
            raise
        parameters = {each["ParameterKey"]: each["ParameterValue"] for each in stack.get("Parameters", [])}
        if parameters.get(PACKAGE, NONE) == NONE:
            return None
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}
        mode = Mode(outputs.get(MODE, Mode.REALTIME))
        return Running(
            mode=mode,
            scaled=SCALING in outputs,
            instances=self._instances(self.names.model(model)) if mode.has_instances else None,
        )

    def foreign_log_group(self, model: str) -> str | None:
        """The log group of the model's endpoint where it is there and its stack has not made it: it cannot any more."""
        name = LOG_GROUP + self.names.model(model)
        groups = self.logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]  # the shortest name is first
        if all(group["logGroupName"] != name for group in groups):
            return None
        return None if name in self._made_log_groups(self.names.stack(model, "serving")) else name

    def _made_log_groups(self, stack: str) -> set[str]:
        try:
            return {
                resource["PhysicalResourceId"]
                for page in self.cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
                for resource in page["StackResourceSummaries"]
                if resource["ResourceType"] == LOG_GROUP_TYPE and resource["ResourceStatus"] not in NOT_THERE
            }
        except ClientError as error:
            if no_stack(error):
                return set()
            raise

    def _instances(self, endpoint: str) -> int | None:
        """None where the endpoint is missing, as after a failed deployment."""
        try:
            variants = self.sagemaker.describe_endpoint(EndpointName=endpoint).get("ProductionVariants", [])
        except ClientError as error:
            if "could not find" in str(error).lower():
                return None
            raise
        return next((v.get("CurrentInstanceCount") for v in variants if v["VariantName"] == "champion"), None)
