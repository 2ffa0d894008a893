"""What of a model is up now, which the next deployment of its stacks must be able to change."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import ClientError

from noria.aws.serving import PACKAGE
from noria.deployment import NONE
from noria.names import Names
from noria.serve import Mode, Running

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_sagemaker import SageMakerClient

MODE = "Mode"
"""Output of a serving stack. Stacks from before there were modes have none: they are real-time."""

SCALING = "ScalingTarget"
"""Output of a serving stack while something scales its endpoint."""


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    names: Names
    cloudformation: "CloudFormationClient" = field(default_factory=lambda: boto3.client("cloudformation"), repr=False)
    sagemaker: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker"), repr=False)

    def running(self, model: str) -> Running | None:
        """None while the model's stack is not deployed, or serves no package."""
        try:
            (stack,) = self.cloudformation.describe_stacks(StackName=self.names.stack(model, "serving"))["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError" and "does not exist" in str(error):
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

    def _instances(self, endpoint: str) -> int | None:
        """None where the endpoint is missing, as after a failed deployment."""
        try:
            variants = self.sagemaker.describe_endpoint(EndpointName=endpoint).get("ProductionVariants", [])
        except ClientError as error:
            if "could not find" in str(error).lower():
                return None
            raise
        return next((v.get("CurrentInstanceCount") for v in variants if v["VariantName"] == "champion"), None)
