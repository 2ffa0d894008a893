"""A model with a real serving stack and endpoint, cut down to what a deployment needs."""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import boto3

from lambdas.confirm_deployment.handler import handler as confirm_deployment
from lambdas.deploy_model.handler import handler as deploy_model
from local.cloud import ACCOUNT
from noria.aws.registry import Decision, Registry
from noria.ledger import Kind
from tests.integration.reactions.place import BUCKET, IMAGE, Place
from tests.integration.test_local_endpoints import archive

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

SCRIPT = """
import json

def model_fn(model_dir):
    with open(model_dir + "/version") as file:
        return file.read()

def transform_fn(model, content, content_type, accept):
    return json.dumps({"version": model}), "application/json"
"""
SLOW = f"import time\ntime.sleep(2)\n{SCRIPT}"
BROKEN = "raise ImportError('no such library')"


def template(name: str, alarm: str) -> str:
    """A serving stack cut down to one instance without a canary; an alarm rolls its deployments back."""
    live: dict[str, Any] = {"Condition": "Live", "UpdateReplacePolicy": "Retain"}
    variant = {
        "VariantName": "champion",
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1,
    }
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    return json.dumps(
        {
            "Parameters": {
                "ModelPackageArn": {"Type": "String", "Default": "none"},
                "Note": {"Type": "String", "Default": "kept"},
            },
            "Conditions": {"Live": {"Fn::Not": [{"Fn::Equals": [{"Ref": "ModelPackageArn"}, "none"]}]}},
            "Resources": {
                "Waiting": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
                "Model": {
                    "Type": "AWS::SageMaker::Model",
                    **live,
                    "Properties": {
                        "ExecutionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/everything",
                        "PrimaryContainer": {"ModelPackageName": {"Ref": "ModelPackageArn"}},
                    },
                },
                "Config": {
                    "Type": "AWS::SageMaker::EndpointConfig",
                    **live,
                    "Properties": {"ProductionVariants": [variant]},
                },
                "Endpoint": {
                    "Type": "AWS::SageMaker::Endpoint",
                    "Condition": "Live",
                    "Properties": {
                        "EndpointName": name,
                        "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                        "DeploymentConfig": {
                            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing},
                            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]},
                        },
                    },
                },
            },
            "Outputs": {"DeployerRoleArn": {"Value": f"arn:aws:iam::{ACCOUNT}:role/everything"}},
        }
    )


@dataclass
class Served:
    """A model with its group, alarm and serving stack, and packages numbered as they are registered."""

    place: Place
    model: str
    _decided: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def name(self) -> str:
        return self.place.names.model(self.model)

    @property
    def stack_name(self) -> str:
        return self.place.names.stack(self.model, "serving")

    def create(self) -> "Served":
        self.place.sagemaker.create_model_package_group(ModelPackageGroupName=self.name)
        self.alarm("OK")
        boto3.client("cloudformation").create_stack(
            StackName=self.stack_name, TemplateBody=template(self.name, f"{self.name}-rollback")
        )
        self.stack()
        return self

    def register(self, script: str = SCRIPT) -> str:
        """A package that awaits approval."""
        version = len(
            self.place.sagemaker.list_model_packages(ModelPackageGroupName=self.name)["ModelPackageSummaryList"]
        )
        key = f"{self.model}/runs/{version}/model.tar.gz"
        self.place.put(key, archive({"version": str(version + 1), "code/inference.py": script}))
        container = {
            "Image": IMAGE,
            "ModelDataUrl": f"s3://{BUCKET}/{key}",
            "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
        }
        arn: str = self.place.sagemaker.create_model_package(
            ModelPackageGroupName=self.name,
            ModelApprovalStatus="PendingManualApproval",
            InferenceSpecification={
                "Containers": [container],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )["ModelPackageArn"]
        return arn

    def decide(self, package: str, decision: Decision, reason: str = "because") -> dict[str, Any]:
        """Decide in the registry; returns the event that SageMaker sends of it. Decisions are a second apart."""
        Registry().decide(package, decision, reason=reason)
        self._decided += timedelta(seconds=1)
        return self.place.event(
            "aws.sagemaker",
            "SageMaker Model Package State Change",
            {
                "ModelPackageGroupName": self.name,
                "ModelPackageArn": package,
                "ModelApprovalStatus": decision,
                "UpdatedModelPackageFields": ["ModelApprovalStatus", "ApprovalDescription"],
                "LastModifiedTime": self._decided.isoformat(),
            },
        )

    def approve(self, package: str) -> dict[str, Any]:
        event = self.decide(package, "Approved")
        self.place.deliver(deploy_model, event)
        return event

    def stack(self) -> "StackTypeDef":
        """The stack, once it is quiet."""
        deadline = time.monotonic() + 60
        while True:
            stack = boto3.client("cloudformation").describe_stacks(StackName=self.stack_name)["Stacks"][0]
            if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                return stack
            assert time.monotonic() < deadline, stack["StackStatus"]
            time.sleep(0.1)

    def wanted(self) -> str:
        parameters = {p["ParameterKey"]: p["ParameterValue"] for p in self.stack()["Parameters"]}
        return parameters["ModelPackageArn"]

    def settled(self) -> dict[str, Any]:
        """The event that CloudFormation sends when the stack has come to rest."""
        stack = self.stack()
        return self.place.event(
            "aws.cloudformation",
            "CloudFormation Stack Status Change",
            {
                "stack-id": stack["StackId"],
                "status-details": {"status": stack["StackStatus"], "status-reason": ""},
                "client-request-token": "",
            },
        )

    def confirm(self) -> None:
        self.place.deliver(confirm_deployment, self.settled())

    def alarm(self, state: Literal["OK", "ALARM"]) -> None:
        cloudwatch = boto3.client("cloudwatch")
        name = f"{self.name}-rollback"
        cloudwatch.put_metric_alarm(
            AlarmName=name,
            Namespace="Test",
            MetricName=f"{self.name}-{state}",
            Statistic="Sum",
            Period=86400,
            EvaluationPeriods=1,
            Threshold=0,
            ComparisonOperator="GreaterThanThreshold",
            TreatMissingData="notBreaching" if state == "OK" else "breaching",
        )
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="the test says so")

    def answers(self) -> str:
        body = boto3.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=self.name, ContentType="application/json", Body=b"[]"
        )["Body"]
        version: str = json.loads(body.read())["version"]
        return version

    def kinds(self) -> list[Kind]:
        return self.place.kinds(self.model)

    def outcome(self, package: str) -> str | None:
        described = self.place.sagemaker.describe_model_package(ModelPackageName=package)
        outcome: str | None = described.get("CustomerMetadataProperties", {}).get("noria:outcome")
        return outcome
