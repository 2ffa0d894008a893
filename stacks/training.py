"""What one model needs to be trained, registered and, by others, served: pipeline, package group and roles."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aws_cdk import ArnFormat, AssetStaging, Environment, FileAssetPackaging, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sns as sns
from constructs import Construct

from noria.names import Area
from noria.serve import Mode
from noria.spec import ModelSpec, Train
from pipelines.bundle import digest
from stacks import bundles
from stacks.constructs.generated import generated_arns
from stacks.constructs.permissions import Grant, allow
from stacks.constructs.placement import Placement, admit_jobs
from stacks.foundation import Foundation
from stacks.images import images_of
from stacks.reactions import Reactions
from stacks.settings import Settings

DEFINITION = bundles.REPOSITORY / "pipelines" / "tabular" / "definition.json"


class Training(Stack):
    """`model_role` is what served models run as, `deployer_role` what CloudFormation updates the serving stack as."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        env: Environment,
        settings: Settings,
        spec: ModelSpec,
        foundation: Foundation,
        reactions: Reactions,
        placement: Placement | None = None,
    ) -> None:
        super().__init__(
            scope,
            id_,
            stack_name=settings.names.stack(spec.model, "training"),
            description=f"Noria ({settings.env}): how {spec.model} is trained and registered",
            env=env,
            termination_protection=settings.termination_protection,
        )
        self._settings = settings
        self._spec = spec
        self._placement = placement
        self._name = settings.names.model(spec.model)
        self._bucket = s3.Bucket.from_bucket_name(self, "Data", foundation.data_bucket_name)
        self._key = kms.Key.from_key_arn(self, "Key", foundation.key.key_arn)
        self._images = images_of(spec, self, settings.target)

        self.model_role = self._model_role()
        self.deployer_role = self._deployer_role()
        if spec.serve.mode is Mode.ASYNC:
            self._told_through_topics()
        if spec.serve.scale:
            self._scales()
        self._pipeline(approver=reactions.approve_package.role)
        if spec.retrain.schedule is not None:
            reactions.clock.schedule(
                self,
                "RetrainingSchedule",
                name=f"{self._name}-retrain",
                expression=spec.retrain.schedule,
                reaction=reactions.request_retraining,
                detail_type="Start Training",
                detail={"model": spec.model},
            )

    def _approved_by(self, approver: iam.IRole) -> dict[str, Any]:
        """Denies everybody but one function to approve, whatever else they may do with packages.

        Condition key: Service Authorization Reference, `list_amazonsagemaker`.
        """
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "ApprovedByTheRuleAlone",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": ["sagemaker:CreateModelPackage", "sagemaker:UpdateModelPackage"],
                    "Resource": [
                        self._arn("model-package-group", self._name),
                        self._arn("model-package", f"{self._name}/*"),
                    ],
                    "Condition": {
                        "StringEquals": {"sagemaker:ModelApprovalStatus": "Approved"},
                        "ArnNotEquals": {"aws:PrincipalArn": approver.role_arn},
                    },
                }
            ],
        }

    def _pipeline(self, approver: iam.IRole) -> None:
        group = sagemaker.CfnModelPackageGroup(
            self,
            "Packages",
            model_package_group_name=self._name,
            model_package_group_description=f"Candidates and champions of {self._spec.model}",
            model_package_group_policy=self._approved_by(approver) if self._spec.approval.strict else None,
        )
        archive = bundles.pipeline_code()
        code = StagedFile(self, "Code", archive, name="sourcedir.tar.gz")
        wheels = StagedFile(self, "Wheels", bundles.pipeline_wheels(self._settings.target), name="wheels.tar.gz")
        spec = StagedFile(self, "Spec", bundles.spec_file(self._spec), name="spec.json")
        role = self._pipeline_role(code, wheels, spec)
        definition = _filled(
            json.dumps(
                _on_spot(
                    _placed(json.loads(DEFINITION.read_text(encoding="utf-8")), self._placement), self._spec.train
                ),
                separators=(",", ":"),
            ),
            {
                "NORIA_ROLE_ARN": role.role_arn,
                "NORIA_BUCKET": self._bucket.bucket_name,
                "NORIA_MODEL": self._spec.model,
                "NORIA_GROUP": self._name,
                "NORIA_IMAGE": self._images.jobs.uri,
                "NORIA_SERVE_IMAGE": self._images.serving.uri,
                "NORIA_KEY_ARN": self._key.key_arn,
                "NORIA_CODE_URI": code.uri,
                "NORIA_CODE_HASH": digest(archive),
                "NORIA_WHEELS_URI": wheels.uri,
                "NORIA_SPEC_URI": spec.uri,
                "NORIA_TRAIN_INSTANCE": self._spec.train.instance,
                '"NORIA_TIMEOUT_SECONDS"': str(int(self._spec.train.timeout.total_seconds())),
            },
        )
        pipeline = sagemaker.CfnPipeline(
            self,
            "Pipeline",
            pipeline_name=self._name,
            pipeline_description=f"Trains {self._spec.model}: prepare, train, evaluate, gate, register",
            pipeline_definition={"PipelineDefinitionBody": definition},
            role_arn=role.role_arn,
        )
        # What the role may do is a resource of its own, which nothing else says must be there first.
        pipeline.node.add_dependency(group, role.node.find_child("DefaultPolicy"))

    # --- roles

    def _pipeline_role(self, *inputs: "StagedFile") -> iam.Role:
        """What the pipeline, and its jobs, run as."""
        role = self._sagemaker_role("PipelineRole", jobs=("Processing", "Training"))
        allow(
            role,
            Grant(
                actions=[
                    *(f"sagemaker:{verb}ProcessingJob" for verb in ("Create", "Describe", "Stop")),
                    *(f"sagemaker:{verb}TrainingJob" for verb in ("Create", "Describe", "Stop")),
                    "sagemaker:AddTags",
                ],
                resources=[
                    self._arn("processing-job", "pipelines-*"),
                    self._arn("training-job", "pipelines-*"),
                ],
                because="SageMaker names a pipeline's jobs after the execution, which is not known before.",
            ),
            Grant(
                actions=["sagemaker:CreateModelPackage", "sagemaker:DescribeModelPackage", "sagemaker:AddTags"],
                resources=[
                    self._arn("model-package-group", self._name),
                    self._arn("model-package", f"{self._name}/*"),
                ],
                because="The registry numbers the packages of this model's group.",
            ),
            Grant(
                actions=["iam:PassRole"],
                resources=[role.role_arn],
                conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
            ),
            self._objects("s3:GetObject", "datasets", "trainings", "runs", "baselines"),
            self._objects("s3:PutObject", "runs", "baselines"),
            self._list(self._bucket.bucket_arn, *(f"{self._spec.model}/{area}/*" for area in PIPELINE_AREAS)),
            *(self._of_checkpoints() if self._spec.train.spot else ()),
            Grant(actions=["s3:GetObject"], resources=[file.arn for file in inputs]),
            self._list(inputs[0].bucket_arn, *(file.key for file in inputs)),
        )
        return role

    def _of_checkpoints(self) -> tuple[Grant, ...]:
        """What SageMaker must be allowed to send checkpoints and to bring them back; jobs delete none."""
        return (
            self._objects("s3:GetObject", "checkpoints"),
            self._objects("s3:PutObject", "checkpoints"),
            self._list(self._bucket.bucket_arn, f"{self._spec.model}/checkpoints/*"),
        )

    def _model_role(self) -> iam.Role:
        """What a served model's containers are started with; without a network they cannot use it themselves."""
        role = self._sagemaker_role("ModelRole", jobs=("Transform",))
        allow(
            role,
            # Transform jobs act as the model's role: predict_batch prepares what they read and takes what they write.
            self._objects("s3:GetObject", "runs", "transforms"),
            self._objects("s3:PutObject", "captured", "transforms"),
            self._list(self._bucket.bucket_arn, f"{self._spec.model}/runs/*", f"{self._spec.model}/transforms/*"),
            Grant(  # SageMaker reads the rollback alarms with it: guide, `deployment-guardrails-configuration`
                actions=["cloudwatch:DescribeAlarms"],
                resources=["*"],
                because="CloudWatch doesn't narrow DescribeAlarms to single alarms.",
            ),
        )
        return role

    def _told_through_topics(self) -> None:
        """An asynchronous endpoint reads what it is asked, writes what it answers, and says so on topics."""
        topics = [
            sns.Topic(
                self,
                f"Topic-{area}",
                topic_name=self._settings.names.topic(self._spec.model, area),
                master_key=self._key,
                enforce_ssl=True,
            )
            for area in ASYNC_ANSWERS
        ]
        allow(
            self.model_role,
            self._objects("s3:GetObject", "async"),
            self._objects("s3:PutObject", *ASYNC_ANSWERS),
            self._list(self._bucket.bucket_arn, f"{self._spec.model}/async/*"),
            Grant(actions=["sns:Publish"], resources=[topic.topic_arn for topic in topics]),
        )

    def _scales(self) -> None:
        """What CloudFormation, and Application Auto Scaling on behalf of it, must be allowed to scale the endpoint.

        Sources: SageMaker guide, `endpoint-auto-scaling-prerequisites`; Application Auto Scaling guide,
        `security_iam_id-based-policy-examples`. Its targets have made-up ids, which no policy can tell apart.
        """
        service = "sagemaker.application-autoscaling.amazonaws.com"
        linked_role = self.format_arn(
            service="iam",
            region="",
            resource="role",
            resource_name=f"aws-service-role/{service}/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
        )
        allow(
            self.deployer_role,
            Grant(
                actions=[
                    f"application-autoscaling:{action}"
                    for action in (
                        "DeleteScalingPolicy",
                        "DeleteScheduledAction",
                        "DeregisterScalableTarget",
                        "PutScalingPolicy",
                        "PutScheduledAction",
                        "RegisterScalableTarget",
                    )
                ],
                resources=[
                    self.format_arn(service="application-autoscaling", resource="scalable-target", resource_name="*")
                ],
                conditions={"StringEquals": {"application-autoscaling:service-namespace": "sagemaker"}},
                because="Application Auto Scaling makes up its targets' ids; the condition leaves SageMaker's only.",
            ),
            Grant(
                actions=[
                    f"application-autoscaling:Describe{what}"
                    for what in ("ScalableTargets", "ScalingActivities", "ScalingPolicies", "ScheduledActions")
                ],
                resources=["*"],
                because="Application Auto Scaling's Describe operations know no resource.",
            ),
            Grant(
                actions=["sagemaker:UpdateEndpointWeightsAndCapacities"],
                resources=[self._arn("endpoint", self._name)],
            ),
            self._alarms(
                f"{self._name}-scale-*",
                f"TargetTracking-endpoint/{self._name}/variant/*",
                because="Application Auto Scaling names the alarms of target tracking, the second kind, by itself.",
            ),
            Grant(
                actions=["iam:CreateServiceLinkedRole"],
                resources=[linked_role],
                conditions={"StringEquals": {"iam:AWSServiceName": service}},
            ),
            Grant(
                actions=["iam:PassRole"],
                resources=[linked_role],
                conditions={"StringEquals": {"iam:PassedToService": service}},
            ),
        )

    def _sagemaker_role(self, id_: str, *, jobs: Sequence[str]) -> iam.Role:
        """`jobs` are the kinds whose log groups it makes; that of the endpoint is made by the serving stack alone."""
        role = iam.Role(
            self,
            id_,
            assumed_by=iam.ServicePrincipal(
                "sagemaker.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": self.account}}
            ),
        )
        if self._placement:
            admit_jobs(role)
        allow(
            role,
            Grant(
                actions=["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"],
                resources=[self._key.key_arn],
            ),
            Grant(  # for the volumes of instances
                actions=["kms:CreateGrant"],
                resources=[self._key.key_arn],
                conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
            ),
            Grant(
                actions=["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                resources=self._images.repository_arns,
            ),
            Grant(
                actions=["ecr:GetAuthorizationToken"],
                resources=["*"],
                because="A registry's authorization token is not a resource: ECR knows no narrower one.",
            ),
            Grant(
                actions=["logs:CreateLogGroup"],
                resources=[self._log_group(f"{kind}Jobs*") for kind in jobs],
                because="IAM is asked about the group's ARN with `:log-stream:` behind it.",
            ),
            Grant(
                actions=["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                resources=[self._log_group("*")],
                because="SageMaker names log groups after the kind of job or the endpoint, streams after instances.",
            ),
            Grant(
                actions=["cloudwatch:PutMetricData"],
                resources=["*"],
                conditions={"StringLike": {"cloudwatch:namespace": ["AWS/SageMaker", "/aws/sagemaker/*"]}},
                because="CloudWatch narrows PutMetricData by namespace, as the condition does, and not by resource.",
            ),
        )
        return role

    def _log_group(self, name: str) -> str:
        return self.format_arn(
            service="logs",
            resource="log-group",
            resource_name=f"/aws/sagemaker/{name}",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )

    def _deployer_role(self) -> iam.Role:
        """Covers all that any condition of the serving stack switches on: a stack keeps the role it was given."""
        role = iam.Role(
            self,
            "DeployerRole",
            path=self._settings.deployer_path,
            assumed_by=iam.ServicePrincipal(
                "cloudformation.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": self.account}}
            ),
        )
        tags = ("AddTags", "DeleteTags", "ListTags")
        allow(
            role,
            Grant(
                actions=[
                    f"sagemaker:{action}"
                    for action in ("CreateEndpoint", "DeleteEndpoint", "DescribeEndpoint", "UpdateEndpoint", *tags)
                ],
                resources=[self._arn("endpoint", self._name)],
            ),
            Grant(
                actions=[
                    *(f"sagemaker:{verb}Model" for verb in ("Create", "Delete", "Describe")),
                    *(f"sagemaker:{verb}EndpointConfig" for verb in ("Create", "Delete", "Describe")),
                    "sagemaker:CreateEndpoint",
                    "sagemaker:UpdateEndpoint",
                    *(f"sagemaker:{action}" for action in tags),
                ],
                resources=generated_arns(self, self._name),
                because="CloudFormation makes up the names of models and endpoint configurations.",
            ),
            Grant(
                actions=["sagemaker:DescribeModelPackage"],
                resources=[self._arn("model-package", f"{self._name}/*")],
                because="The registry numbers the packages of this model's group.",
            ),
            Grant(
                actions=["iam:PassRole"],
                resources=[self.model_role.role_arn],
                conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
            ),
            self._alarms(
                *(f"{self._name}-{role}-*" for role in ("rollback", "challenger")),
                because="The serving stack has several alarms of each kind, whose names begin so.",
            ),
            Grant(
                actions=["cloudwatch:DescribeAlarms"],
                resources=["*"],
                because="CloudWatch doesn't narrow DescribeAlarms to single alarms.",
            ),
        )
        return role

    def _alarms(self, *names: str, because: str) -> Grant:
        return Grant(
            actions=[
                f"cloudwatch:{action}"
                for action in ("DeleteAlarms", "ListTagsForResource", "PutMetricAlarm", "TagResource", "UntagResource")
            ],
            resources=[
                self.format_arn(
                    service="cloudwatch",
                    resource="alarm",
                    resource_name=name,
                    arn_format=ArnFormat.COLON_RESOURCE_NAME,
                )
                for name in names
            ],
            because=because,
        )

    def _arn(self, kind: str, name: str) -> str:
        return self.format_arn(service="sagemaker", resource=kind, resource_name=name)

    def _objects(self, action: str, *areas: Area) -> Grant:
        return Grant(
            actions=[action],
            resources=[self._bucket.arn_for_objects(f"{self._spec.model}/{area}/*") for area in areas],
            because="Objects of one model and one purpose: their names are hashes and execution ids.",
        )

    def _list(self, bucket_arn: str, *prefixes: str) -> Grant:
        return Grant(
            actions=["s3:ListBucket"],
            resources=[bucket_arn],
            conditions={"StringLike": {"s3:prefix": list(prefixes)}},
        )


ASYNC_ANSWERS: tuple[Area, ...] = ("async-results", "async-failures")
CHECKPOINTS = "/opt/ml/checkpoints"
PIPELINE_AREAS: tuple[Area, ...] = ("datasets", "trainings", "runs", "baselines")


class StagedFile(Construct):
    """A file that a deployment uploads to `<hash>/<name>`: containers expect it under its own name."""

    def __init__(self, scope: Construct, id_: str, path: Path, *, name: str) -> None:
        super().__init__(scope, id_)
        stack = Stack.of(self)
        staged = AssetStaging(self, "Staged", source_path=str(path))
        stem, suffix = name.removesuffix(path.suffix), path.suffix
        if stem + suffix != name:
            raise ValueError(f"{path.name} cannot be staged as {name}: their suffixes differ")
        location = stack.synthesizer.add_file_asset(
            source_hash=f"{staged.asset_hash}/{stem}",
            file_name=staged.relative_staged_path(stack),
            packaging=FileAssetPackaging.FILE,
        )
        self.uri = location.s3_object_url
        self.key = location.object_key
        self.bucket_arn = stack.format_arn(
            service="s3", region="", account="", resource=location.bucket_name, arn_format=ArnFormat.NO_RESOURCE_NAME
        )
        self.arn = f"{self.bucket_arn}/{self.key}"


def _placed(definition: dict[str, Any], placement: Placement | None) -> dict[str, Any]:
    """The definition with its jobs in a network; they keep their isolation, so that only SageMaker itself uses it."""
    if placement is None:
        return definition
    for step in definition["Steps"]:
        match step["Type"]:
            case "Processing":
                step["Arguments"]["NetworkConfig"]["VpcConfig"] = placement.of_jobs()
            case "Training":
                step["Arguments"]["VpcConfig"] = placement.of_jobs()
    return definition


def _on_spot(definition: dict[str, Any], train: Train) -> dict[str, Any]:
    """Where the spec wants it. No parameter could say so: without Spot, SageMaker refuses a time to wait.

    An interrupted job goes on from its execution's checkpoint, and has as long again to get through (SageMaker guide,
    `model-managed-spot-training`, `model-checkpoints`). A step that is tried again finds it too. Processing has no
    Spot.
    """
    if train.spot:
        prefix = ["s3://NORIA_BUCKET/NORIA_MODEL/checkpoints", {"Get": "Execution.PipelineExecutionId"}]
        for arguments in (step["Arguments"] for step in definition["Steps"] if step["Type"] == "Training"):
            arguments["EnableManagedSpotTraining"] = True
            arguments["StoppingCondition"]["MaxWaitTimeInSeconds"] = 2 * int(train.timeout.total_seconds())
            arguments["CheckpointConfig"] = {
                "S3Uri": {"Std:Join": {"On": "/", "Values": prefix}},
                "LocalPath": CHECKPOINTS,
            }
            arguments["HyperParameters"]["checkpoints"] = CHECKPOINTS
    return definition


def _filled(definition: str, values: Mapping[str, str]) -> str:
    """The definition with its placeholders replaced; longest first, because some begin like others."""
    for placeholder in sorted(values, key=len, reverse=True):
        if placeholder not in definition:
            raise ValueError(f"{DEFINITION} has no {placeholder}: is it older than this stack?")
        definition = definition.replace(placeholder, values[placeholder])
    if left := sorted(set(re.findall(r"NORIA_[A-Z_]+", definition))):
        raise ValueError(f"{DEFINITION} has placeholders that nothing fills: {', '.join(left)}")
    return definition
