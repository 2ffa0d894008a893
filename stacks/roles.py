"""What people may do: a customer managed policy for each role, to attach to an IAM role or a permission set.

Whose model it is, the person's tag `noria:model` says, and the resource's tag of that name: ABAC. Where a service knows
no tags (objects of S3, items of DynamoDB, stacks), the model is part of the name, and the same tag is put in there.
An auditor sees every model, a platform engineer acts through the CDK's roles: neither needs the tag.

docs/security.md says who may do what; a test asks the local cloud, with these policies, about each cell of its table.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from aws_cdk import ArnFormat, CfnOutput, Environment, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from noria.names import EVENT_SOURCE, Area, Parameter
from stacks.constructs.generated import generated_arns
from stacks.constructs.permissions import Grant, allow, deny
from stacks.foundation import Foundation
from stacks.settings import Settings

Person = Literal["data-scientist", "approver", "operator", "auditor", "platform-engineer"]

MODEL_TAG = "noria:model"
OWN = f"${{aws:PrincipalTag/{MODEL_TAG}}}"
"""The model of whoever asks; without that tag, a statement with it allows nothing (IAM guide, policy variables)."""

IN_ANOTHERS_NAME = (
    "lambda:AddPermission",
    "lambda:CreateFunctionUrlConfig",
    "lambda:InvokeFunction",
    "lambda:InvokeFunctionUrl",
    "lambda:UpdateFunctionCode",
    "lambda:UpdateFunctionConfiguration",
)
"""The approval function believes its event, which API Gateway writes, about who asks. Who invokes it writes that event
too: none of our people may, even with another policy that lets them invoke any function. An event source mapping is no
such way: it hands on records of what the function's own role may read, which are no request of the API."""

TAGGED = {"StringEquals": {f"aws:ResourceTag/{MODEL_TAG}": OWN}}

LIST = "SageMaker's List operations know no resource; they tell names, and nothing of what is in them."
ONE_MODEL = "Objects of the person's model: S3 compares no tags here, so the tag is put into the key instead."
BY_TAG = "The resource's tag says whose model it is; the name, that it is of this environment."


class Roles(Stack):
    def __init__(
        self, scope: Construct, id_: str, *, env: Environment, settings: Settings, foundation: Foundation
    ) -> None:
        super().__init__(
            scope,
            id_,
            stack_name=settings.names.environment_stack("roles"),
            description=f"Noria ({settings.env}): what people may do, by role and model",
            env=env,
            termination_protection=settings.termination_protection,
        )
        self._settings = settings
        self._prefix = settings.names.prefix
        self._foundation = foundation
        self._bucket = self._bucket_arn(foundation.data_bucket_name)

        self._policy("data-scientist", [*self._sees_a_model(), *self._works_on_data()])
        self._policy("approver", [*self._sees_a_model(), *self._decides()])
        self._policy("operator", [*self._sees_a_model(), *self._operates()])
        self._policy("on-call", self._is_on_call())
        self._policy("auditor", self._sees_everything())
        self._policy("platform-engineer", self._deploys())

    def _policy(self, name: str, grants: Sequence[Grant]) -> None:
        policy = iam.ManagedPolicy(
            self,
            name,
            managed_policy_name=f"{self._prefix}-{name}",
            description=f"Noria ({self._settings.env}): {name}, docs/security.md",
        )
        allow(policy, *grants)
        deny(policy, *IN_ANOTHERS_NAME, resources=self._approving())
        CfnOutput(self, f"Policy-{name}", value=policy.managed_policy_arn, description="To attach to a role")

    # --- what each may do

    def _sees_a_model(self) -> tuple[Grant, ...]:
        """What `noria status`, `events`, `packages`, `report`, `card` and the like read of one model."""
        return (
            self._finds(),
            self._lists(),
            Grant(
                actions=[
                    "sagemaker:DescribeEndpoint",
                    "sagemaker:DescribeModelPackage",
                    "sagemaker:DescribeModelPackageGroup",
                    "sagemaker:DescribePipeline",
                    "sagemaker:ListPipelineExecutions",
                ],
                resources=self._named("endpoint", "model-package", "model-package-group", "pipeline"),
                conditions=TAGGED,
                because=BY_TAG,
            ),
            Grant(
                actions=["sagemaker:DescribePipelineExecution", "sagemaker:ListPipelineExecutionSteps"],
                resources=[
                    self.format_arn(
                        service="sagemaker", resource="pipeline", resource_name=f"{self._prefix}-{OWN}/execution/*"
                    )
                ],
                because="Executions of the person's model: they are not documented to have their pipeline's tags.",
            ),
            Grant(
                actions=["sagemaker:DescribeEndpointConfig", "sagemaker:DescribeModel"],
                resources=generated_arns(self, self._prefix),
                conditions=TAGGED,
                because=BY_TAG,
            ),
            self._alarms(),
            Grant(
                actions=["cloudformation:DescribeStacks", "cloudformation:ListStackResources"],
                resources=[self._stack(f"{self._prefix}-{OWN}-{part}") for part in ("serving", "front-door")],
                because="The stack's id follows its name; stacks have no tags of their own here, so the name has it.",
            ),
            Grant(
                actions=["dynamodb:GetItem", "dynamodb:Query"],
                resources=[self._foundation.ledger.table_arn],
                # Items have no tags: the partition is the model's. All of none would be true of a request without one.
                conditions={
                    "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [OWN]},
                    "Null": {"dynamodb:LeadingKeys": "false"},
                },
            ),
            Grant(
                actions=["s3:GetObject", "s3:GetObjectVersion"],
                resources=[f"{self._bucket}/{OWN}/*"],
                because=ONE_MODEL,
            ),
            Grant(
                actions=["s3:ListBucket", "s3:ListBucketVersions"],
                resources=[self._bucket],
                conditions={"StringLike": {"s3:prefix": [f"{OWN}/*"]}},
            ),
            self._decrypts("s3", "dynamodb"),
        )

    def _works_on_data(self) -> tuple[Grant, ...]:
        """`noria upload`, `label`, `predict`, `explain` and `retrain`."""
        areas: tuple[Area, ...] = ("incoming", "labels", "batch")
        return (
            Grant(
                actions=["s3:AbortMultipartUpload", "s3:PutObject"],
                resources=[f"{self._bucket}/{OWN}/{area}/*" for area in areas],
                because=ONE_MODEL,
            ),
            self._encrypts("s3"),
            Grant(
                actions=["sagemaker:InvokeEndpoint"],
                resources=self._named("endpoint"),
                conditions=TAGGED,
                because=BY_TAG,
            ),
            self._says("Retraining Wanted"),
        )

    def _decides(self) -> tuple[Grant, ...]:
        """`noria approve` and `reject`."""
        return (
            Grant(
                actions=["sagemaker:UpdateModelPackage"],
                resources=self._named("model-package"),
                # A request that changes anything else, and not the status, has no such key.
                conditions={
                    "StringEquals": {
                        **TAGGED["StringEquals"],
                        "sagemaker:ModelApprovalStatus": ["Approved", "PendingManualApproval", "Rejected"],
                    }
                },
                because=BY_TAG,
            ),
            # In mode strict the package group denies the above, and the approval function is asked instead.
            Grant(
                actions=["ssm:GetParameter"],
                resources=[
                    self.format_arn(
                        service="ssm", resource="parameter", resource_name=self._settings.names.approvals(OWN)[1:]
                    )
                ],
            ),
            Grant(
                actions=["execute-api:Invoke"],
                resources=[
                    self.format_arn(service="execute-api", resource="*", resource_name=f"$default/POST/approvals/{OWN}")
                ],
                because="API Gateway makes up the API's id; the path says that it is this API, and whose model it is.",
            ),
        )

    def _operates(self) -> tuple[Grant, ...]:
        """`noria traffic`, `shadow`, `promote`, `abandon`, `rollback`, `pause`, `resume` and `monitor`."""
        return (
            self._says("Serving Requested", "Pause Requested", "Events Sent Again"),
            Grant(
                actions=["sqs:GetQueueUrl", "sqs:SendMessage"],
                resources=[self._queue("monitor-model")],
            ),
            self._encrypts("sqs"),
            self._decrypts("sqs"),
        )

    def _is_on_call(self) -> tuple[Grant, ...]:
        """`noria queues`, `redrive`, `replay`, `logs` and `doctor`: of an operator, to whom it is attached besides."""
        return (
            Grant(
                actions=["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"],
                resources=[self._queue("*")],
                because="Reactions, and so their queues, are shared by all models: a redrive gives back what was sent.",
            ),
            Grant(
                actions=["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"],
                resources=[self._queue("dead-letters")],
            ),
            Grant(
                actions=["events:DescribeArchive", "events:DescribeReplay", "events:StartReplay"],
                resources=[
                    self.format_arn(service="events", resource=kind, resource_name=f"{self._prefix}-*")
                    for kind in ("archive", "replay")
                ],
                because="A replay is called after its archive; archives hold what was told of all models.",
            ),
            Grant(
                actions=["logs:FilterLogEvents", "logs:GetLogEvents", "logs:DescribeLogStreams"],
                resources=[
                    self._log_group(f"/aws/lambda/{self._prefix}-*"),
                    *(self._log_group(f"/aws/sagemaker/Endpoints/{self._prefix}-{OWN}{all_}") for all_ in ("", ":*")),
                ],
                because="Functions are shared by all models, and log no payload; an endpoint's group is its model's.",
            ),
            Grant(
                actions=["logs:FilterLogEvents"],
                resources=[
                    self._log_group(f"/aws/sagemaker/{kind}Jobs{all_}")
                    for kind in ("Processing", "Training", "Transform")
                    for all_ in ("", ":*")
                ],
                because="The command reads one job's lines; SageMaker has one group for all jobs of an account.",
            ),
            *self._diagnoses(),
            Grant(
                actions=["logs:DescribeLogGroups"],
                resources=["*"],
                because="DescribeLogGroups searches all groups by prefix: IAM narrows it to none.",
            ),
        )

    def _diagnoses(self) -> tuple[Grant, ...]:
        """What `noria doctor` looks at besides."""
        return (
            Grant(
                actions=["cloudformation:DescribeStacks"],
                resources=[
                    *(
                        self._stack(f"{self._prefix}-{part}")
                        for part in ("foundation", "network", "reactions", "roles")
                    ),
                    *(self._stack(f"{self._prefix}-{OWN}-{part}") for part in ("training", "monitoring")),
                ],
                because="The stack's id follows its name; the environment's own are shared by all models.",
            ),
            Grant(
                actions=[
                    "events:ListRules",
                    "lambda:ListEventSourceMappings",
                    "lambda:ListFunctions",
                    "scheduler:ListSchedules",
                    "sqs:ListQueues",
                ],
                resources=["*"],
                because="Lists of the whole account, of which the commands pick the environment's by its prefix.",
            ),
            Grant(actions=["kms:DescribeKey"], resources=[self._foundation.key.key_arn]),
            Grant(
                actions=["budgets:ViewBudget"],
                resources=[
                    self.format_arn(service="budgets", region="", resource="budget", resource_name=self._prefix)
                ],
            ),
        )

    def _sees_everything(self) -> tuple[Grant, ...]:
        """Every model's record, and who may do what; nothing that changes anything."""
        return (
            self._finds(),
            self._lists(),
            Grant(
                actions=[
                    *(
                        f"sagemaker:Describe{what}"
                        for what in ("Endpoint", "ModelPackage", "ModelPackageGroup", "Pipeline", "PipelineExecution")
                    ),
                    "sagemaker:ListPipelineExecutions",
                    "sagemaker:ListPipelineExecutionSteps",
                    "sagemaker:ListTags",
                ],
                resources=self._named("endpoint", "model-package", "model-package-group", "pipeline"),
                because="An auditor sees every model of the environment: its prefix is as narrow as it gets.",
            ),
            Grant(
                actions=["sagemaker:DescribeEndpointConfig", "sagemaker:DescribeModel"],
                resources=generated_arns(self, self._prefix),
                because="CloudFormation makes up the names of models and endpoint configurations.",
            ),
            self._alarms(),
            Grant(
                actions=[
                    "cloudformation:DescribeStackEvents",
                    "cloudformation:DescribeStacks",
                    "cloudformation:GetTemplate",
                    "cloudformation:ListStackResources",
                ],
                resources=[self._stack(f"{self._prefix}-*")],
                because="An auditor sees every stack of the environment.",
            ),
            Grant(
                actions=["dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Query"],
                resources=[self._foundation.ledger.table_arn],
            ),
            Grant(
                actions=["s3:GetObject", "s3:GetObjectRetention", "s3:GetObjectVersion"],
                resources=[
                    # By its beginning: what is exported of the ledger lies in a bucket of its own.
                    self.format_arn(
                        service="s3", region="", account="", resource=f"{self._prefix}-*", resource_name="*"
                    )
                ],
                because="An auditor reads every model's objects, and the ledger's export.",
            ),
            Grant(
                actions=["s3:GetBucketPolicy", "s3:GetBucketVersioning", "s3:ListBucket", "s3:ListBucketVersions"],
                resources=[self._bucket_arn(f"{self._prefix}-*")],
                because="The environment's buckets, whose names begin so.",
            ),
            self._decrypts("s3", "dynamodb"),
            Grant(actions=["kms:DescribeKey", "kms:GetKeyPolicy"], resources=[self._foundation.key.key_arn]),
            Grant(
                actions=[
                    "iam:GetPolicy",
                    "iam:GetPolicyVersion",
                    "iam:GetRole",
                    "iam:GetRolePolicy",
                    "iam:ListAttachedRolePolicies",
                    "iam:ListRolePolicies",
                ],
                resources=[
                    self._iam("role", f"{self._prefix}-*"),
                    self._iam("role", f"{self._settings.deployer_path[1:]}*"),
                    self._iam("policy", f"{self._prefix}-*"),
                ],
                because="CloudFormation ends the names of the environment's roles with letters of its own.",
            ),
            Grant(
                actions=["cloudtrail:LookupEvents"],
                resources=["*"],
                because="CloudTrail looks events up for the whole account and region: LookupEvents knows no resource.",
            ),
        )

    def _deploys(self) -> tuple[Grant, ...]:
        """`make deploy` and `diff`: what they change, CloudFormation's role of the bootstrap stack changes."""
        return (
            self._finds(),
            self._lists(),
            self._alarms(),
            Grant(
                actions=["sts:AssumeRole"],
                resources=[
                    self._iam("role", f"cdk-hnb659fds-{role}-role-{self.account}-{self.region}")
                    for role in ("deploy", "file-publishing", "image-publishing", "lookup")
                ],
            ),
            Grant(
                actions=[
                    "cloudformation:DescribeStackEvents",
                    "cloudformation:DescribeStacks",
                    "cloudformation:ListStackResources",
                ],
                resources=[self._stack(f"{self._prefix}-*")],
                because="Before a deployment, noria preflight looks at the serving stack of every spec.",
            ),
            Grant(
                actions=["sagemaker:DescribeEndpoint"],
                resources=self._named("endpoint"),
                because="Before a deployment, noria preflight looks at every endpoint of the environment.",
            ),
            Grant(
                actions=["logs:DescribeLogGroups"],
                resources=["*"],
                because="DescribeLogGroups searches all groups by prefix: IAM narrows it to none.",
            ),
        )

    # --- parts

    def _finds(self) -> Grant:
        """Where things are: what Foundation published."""
        names = self._settings.names
        return Grant(
            actions=["ssm:GetParameter"],
            resources=[
                self.format_arn(service="ssm", resource="parameter", resource_name=names.parameter(parameter)[1:])
                for parameter in get_args(Parameter)
            ],
        )

    def _lists(self) -> Grant:
        return Grant(
            actions=["sagemaker:ListModelPackageGroups", "sagemaker:ListModelPackages"], resources=["*"], because=LIST
        )

    def _alarms(self) -> Grant:
        return Grant(
            actions=["cloudwatch:DescribeAlarms", "cloudwatch:GetMetricData"],
            resources=["*"],
            because="CloudWatch narrows neither to single alarms or metrics; they tell numbers, and no data.",
        )

    def _says(self, *detail_types: str) -> Grant:
        return Grant(
            actions=["events:PutEvents"],
            resources=[self._foundation.bus.event_bus_arn],
            conditions={"StringEquals": {"events:source": EVENT_SOURCE, "events:detail-type": list(detail_types)}},
        )

    def _decrypts(self, *services: str) -> Grant:
        return self._uses_key("kms:Decrypt", *services)

    def _encrypts(self, *services: str) -> Grant:
        return self._uses_key("kms:GenerateDataKey", *services)

    def _uses_key(self, action: str, *services: str) -> Grant:
        """Through a service alone, which asks for it on behalf of who may read or write there."""
        via = [f"{service}.{self.region}.amazonaws.com" for service in services]
        return Grant(
            actions=[action],
            resources=[self._foundation.key.key_arn],
            conditions={"StringEquals": {"kms:ViaService": via}},
        )

    def _named(self, *kinds: str) -> list[str]:
        return [
            self.format_arn(service="sagemaker", resource=kind, resource_name=f"{self._prefix}-*") for kind in kinds
        ]

    def _bucket_arn(self, name: str) -> str:
        return self.format_arn(
            service="s3", region="", account="", resource=name, arn_format=ArnFormat.NO_RESOURCE_NAME
        )

    def _stack(self, name: str) -> str:
        return self.format_arn(service="cloudformation", resource="stack", resource_name=f"{name}/*")

    def _queue(self, name: str) -> str:
        return self.format_arn(service="sqs", resource=f"{self._prefix}-{name}", arn_format=ArnFormat.NO_RESOURCE_NAME)

    def _log_group(self, name: str) -> str:
        return self.format_arn(
            service="logs", resource="log-group", resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
        )

    def _approving(self) -> list[str]:
        """The function that approves versions, and each of its versions and aliases."""
        name = self._settings.names.function("approve-package")
        function = self.format_arn(
            service="lambda", resource="function", resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        return [function, f"{function}:*"]

    def _iam(self, kind: str, name: str) -> str:
        return self.format_arn(service="iam", region="", resource=kind, resource_name=name)


PEOPLE: tuple[Person, ...] = get_args(Person)

POLICIES: Mapping[Person, tuple[str, ...]] = {
    **{person: (person,) for person in PEOPLE},
    "operator": ("operator", "on-call"),
}
"""Which policies to attach for each; one would be too long for an operator (6,144 characters)."""
