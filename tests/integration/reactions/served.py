"""A model with a real serving stack and endpoint, cut down to what a deployment needs."""

import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import boto3

from lambdas.confirm_deployment.handler import handler as confirm_deployment
from lambdas.deploy_model.handler import handler as deploy_model
from local.cloud import ACCOUNT
from noria.aws.endpoints import Endpoint
from noria.aws.registry import Decision, Registry
from noria.deployment import Desired
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
    """A serving stack cut down to one instance without a canary; an alarm rolls its guarded deployments back."""

    def given(parameter: str) -> dict[str, Any]:
        return {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, "none"]}]}

    def model(condition: str, package: str) -> dict[str, Any]:
        return {
            "Type": "AWS::SageMaker::Model",
            "Condition": condition,
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "ExecutionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/everything",
                "PrimaryContainer": {"ModelPackageName": {"Ref": package}},
            },
        }

    def variant(called: str, model: str, weight: Any = 1) -> dict[str, Any]:
        return {
            "VariantName": called,
            "ModelName": {"Fn::GetAtt": [model, "ModelName"]},
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
            "InitialVariantWeight": weight,
        }

    nothing = {"Ref": "AWS::NoValue"}
    challenger = variant("challenger", "ChallengerModel", {"Ref": "ChallengerWeight"})
    shadows = [variant("shadow", "ShadowModel")]
    guardrails = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]},
    }
    packages = ("ModelPackageArn", "ChallengerPackageArn", "ShadowPackageArn")
    return json.dumps(
        {
            "Parameters": {
                **{package: {"Type": "String", "Default": "none"} for package in packages},
                "ChallengerWeight": {"Type": "Number", "Default": 0},
                "Guardrails": {"Type": "String", "Default": "on", "AllowedValues": ["on", "at-once", "off"]},
                "Note": {"Type": "String", "Default": "kept"},
            },
            "Conditions": {
                "Live": given("ModelPackageArn"),
                "Challenged": given("ChallengerPackageArn"),
                "Shadowed": given("ShadowPackageArn"),
                "Unguarded": {"Fn::Equals": [{"Ref": "Guardrails"}, "off"]},
            },
            "Resources": {
                "Waiting": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
                "Model": model("Live", "ModelPackageArn"),
                "ChallengerModel": model("Challenged", "ChallengerPackageArn"),
                "ShadowModel": model("Shadowed", "ShadowPackageArn"),
                "Config": {
                    "Type": "AWS::SageMaker::EndpointConfig",
                    "Condition": "Live",
                    "UpdateReplacePolicy": "Retain",
                    "Properties": {
                        "ProductionVariants": [
                            variant("champion", "Model"),
                            {"Fn::If": ["Challenged", challenger, nothing]},
                        ],
                        "ShadowProductionVariants": {"Fn::If": ["Shadowed", shadows, nothing]},
                    },
                },
                "Endpoint": {
                    "Type": "AWS::SageMaker::Endpoint",
                    "Condition": "Live",
                    "Properties": {
                        "EndpointName": name,
                        "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                        "RetainAllVariantProperties": True,
                        "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredWeight"}],
                        "DeploymentConfig": {"Fn::If": ["Unguarded", nothing, guardrails]},
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
    _decided: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=1))

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

    def create_for_batches(self) -> "Served":
        """Without an endpoint: the stack holds the model that answers batches."""
        self.place.sagemaker.create_model_package_group(ModelPackageGroupName=self.name)
        whole = json.loads(template(self.name, ""))
        parts = {name: whole["Resources"][name] for name in ("Waiting", "Model")}
        output = {"Condition": "Live", "Value": {"Fn::GetAtt": ["Model", "ModelName"]}}
        outputs = whole["Outputs"] | {"ChampionModelName": output}
        parameters = {"ModelPackageArn": whole["Parameters"]["ModelPackageArn"]}
        conditions = {"Live": whole["Conditions"]["Live"]}
        cut = {"Parameters": parameters, "Conditions": conditions, "Resources": parts, "Outputs": outputs}
        boto3.client("cloudformation").create_stack(StackName=self.stack_name, TemplateBody=json.dumps(cut))
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

    @property
    def parameters(self) -> dict[str, str]:
        return {p["ParameterKey"]: p["ParameterValue"] for p in self.stack()["Parameters"]}

    def wanted(self) -> str:
        return self.parameters["ModelPackageArn"]

    def ask(self, action: str, *, package: str | None = None, percent: int | None = None) -> dict[str, Any]:
        """A person's request, as it comes from the bus; returns the event."""
        self._decided += timedelta(seconds=1)
        asked = {
            "model": self.model,
            "action": action,
            "package": package,
            "percent": percent,
            "reason": "the test says so",
            "by": "ana",
            "requested_at": self._decided.isoformat(),
            "request": str(uuid.uuid4()),
        }
        event = self.place.event("noria", "Serving Requested", asked)
        self.place.deliver(deploy_model, event)
        return event

    def live(self) -> Desired:
        state = Endpoint(name=self.name).state()
        assert state
        return state.desired

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
