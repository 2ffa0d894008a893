"""A reaction: what happens when an event arrives.

    rule ──> queue ──> function          one event at a time
      └───────┴──> the environment's dead-letter queue ──> alarm ──> page

The queue holds what a function could not do yet. The dead-letter queue holds what it could not do at all, and what
could not be delivered: each message is the event as it was sent, so that it can be sent again as it is. The alarm on it
is the only one: an error that a retry mends pages nobody.
"""

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from aws_cdk import ArnFormat, Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from noria.patience import ATTEMPTS
from noria.spec import ModelSpec
from stacks import bundles
from stacks.constructs.permissions import Grant, acknowledge, allow
from stacks.constructs.placement import Placement, admit_function
from stacks.settings import Settings, Target

LayerName = Literal["runtime", "data", "models", "tracking"]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What all functions of an environment share."""

    settings: Settings
    key: kms.IKey
    layers: Mapping[LayerName, lambda_.ILayerVersion]
    variables: Mapping[str, str]
    placement: Placement | None = None


@dataclass(frozen=True, kw_only=True)
class Shared(Surroundings):
    """What all reactions of an environment share: where what fails goes, besides."""

    dead_letters: sqs.IQueue


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Events of one bus (the default one when left out) that start a reaction; `name` says which.

    `about` is what the ARN begins with that they are about, where their details alone do not say whose they are.
    `group` is what SQS is fair between, a word or a path into the event: who floods the queue then waits for the
    others, and not they for it. An event without one is a group of its own.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
    """

    name: str
    source: str
    detail_types: Sequence[str]
    detail: Mapping[str, Any]
    about: str | None = None
    bus: events.IEventBus | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a function needs for one event: seconds, MiB of memory, MiB of disk; and how many at the same time.

    `concurrency` is for events that may come by the thousand. Of the others there are few, and without a bound an empty
    queue is asked less often: docs/decisions/0033-what-it-costs.md.
    """

    timeout: int = 60
    memory: int = 512
    disk: int = 512
    concurrency: int | None = None
    layers: Sequence[LayerName] = ("runtime", "models")
    variables: Mapping[str, str] = field(default_factory=dict)


def layers(
    scope: Construct, *, prefix: str, target: Target, specs: Sequence[ModelSpec], data: bool, tracking: bool = False
) -> Mapping[LayerName, lambda_.ILayerVersion]:
    """What functions import beside their own code: packages (`data`: DuckDB too, `tracking`: MLflow), and the specs of
    their models."""
    contents: Mapping[LayerName, Path] = {
        "runtime": bundles.runtime(target),
        **({"data": bundles.data(target)} if data else {}),
        **({"tracking": bundles.tracking(target)} if tracking else {}),
        "models": bundles.models(specs),
    }
    return {
        name: lambda_.LayerVersion(
            scope,
            f"Layer-{name}",
            layer_version_name=f"{prefix}-{name}",
            code=lambda_.Code.from_asset(str(path)),
            compatible_runtimes=[runtime(target)],
            compatible_architectures=[architecture(target)],
        )
        for name, path in contents.items()
    }


def models_folder(target: Target, specs: Sequence[ModelSpec]) -> str:
    """Where a function finds the specs of its layer; the local cloud unpacks layers to no fixed place."""
    return "/opt/models" if target == "aws" else str(bundles.models(specs) / "models")


class Reaction(Construct):
    """`name` is the function's folder under `lambdas/`; its parts are called `noria-<env>-<name>`, with hyphens."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        name: str,
        surroundings: Shared,
        triggers: Sequence[Trigger] = (),
        work: Work = Work(),
    ) -> None:
        super().__init__(scope, id_)
        self._settings = surroundings.settings
        self.name = name.replace("_", "-")

        self.dead_letters = surroundings.dead_letters
        self.queue = sqs.Queue(
            self,
            "Queue",
            queue_name=self._settings.names.queue(self.name),
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=surroundings.key,
            data_key_reuse=Duration.hours(1),
            enforce_ssl=True,
            retention_period=Duration.days(14),
            # Six times the function's timeout, as the Lambda guide advises for queues as event sources.
            visibility_timeout=Duration.seconds(6 * work.timeout),
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=ATTEMPTS),
        )
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        )
        self.function = function(
            self,
            folder=name,
            name=self._settings.names.function(self.name),
            role=self.role,
            surroundings=surroundings,
            work=work,
        )
        self.function.add_event_source(
            sources.SqsEventSource(self.queue, batch_size=1, max_concurrency=work.concurrency)
        )
        if rules := [self._rule(trigger) for trigger in triggers]:
            # In one statement: a queue's policy has room for twenty, and uploads have a rule for each model.
            # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-policies.html
            self.queue.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=[iam.ServicePrincipal("events.amazonaws.com")],
                    actions=["sqs:SendMessage"],
                    resources=[self.queue.queue_arn],
                    conditions={"ArnEquals": {"aws:SourceArn": [rule.attr_arn for rule in rules]}},
                )
            )

    def allow(self, *grants: Grant) -> None:
        allow(self.role, *grants)

    def _rule(self, trigger: Trigger) -> events.CfnRule:
        # The L2 target would let every rule of the account send to an encrypted queue.
        return events.CfnRule(
            self,
            f"On-{trigger.name}",
            name=f"{self._settings.names.function(self.name)}-{trigger.name}",
            event_bus_name=trigger.bus.event_bus_name if trigger.bus else None,
            event_pattern={
                "source": [trigger.source],
                "detail-type": list(trigger.detail_types),
                "detail": dict(trigger.detail),
                **({"resources": [{"prefix": trigger.about}]} if trigger.about else {}),
            },
            state="ENABLED",
            targets=[
                events.CfnRule.TargetProperty(
                    id="queue",
                    arn=self.queue.queue_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(arn=self.dead_letters.queue_arn),
                    retry_policy=events.CfnRule.RetryPolicyProperty(
                        maximum_event_age_in_seconds=24 * 3600, maximum_retry_attempts=185
                    ),
                    sqs_parameters=(
                        events.CfnRule.SqsParametersProperty(message_group_id=trigger.group) if trigger.group else None
                    ),
                )
            ],
        )


def function(
    scope: Construct, *, folder: str, name: str, role: iam.Role, surroundings: Surroundings, work: Work
) -> lambda_.Function:
    """The function of `lambdas/<folder>/`, called `name`, with its log group and what `role` needs to log and trace."""
    settings = surroundings.settings
    log_group = logs.LogGroup(
        scope,
        "Logs",
        log_group_name=f"/aws/lambda/{name}",
        retention=RETENTION[settings.log_days],
        encryption_key=surroundings.key,
        removal_policy=RemovalPolicy.DESTROY,
    )
    allow(
        role,
        Grant(actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[log_group.log_group_arn]),
    )
    acknowledge(
        role,
        "AwsSolutions-IAM5[Resource::*]",
        "X-Ray's PutTraceSegments and PutTelemetryRecords know no resources, and tracing needs both.",
    )
    made = lambda_.Function(
        scope,
        "Function",
        function_name=name,
        description=f"docs/architecture.md, {folder}",
        code=lambda_.Code.from_asset(str(bundles.function(folder, settings.target))),
        handler=f"{folder}.handler.handler",
        runtime=runtime(settings.target),
        architecture=architecture(settings.target),
        layers=[surroundings.layers[layer] for layer in work.layers],
        timeout=Duration.seconds(work.timeout),
        memory_size=work.memory,
        ephemeral_storage_size=Size.mebibytes(work.disk),
        role=role,
        log_group=log_group,
        tracing=lambda_.Tracing.ACTIVE,
        environment={**surroundings.variables, **work.variables},
    )
    acknowledge(made, "AwsSolutions-L1", RUNTIME_REASON[settings.target])
    if surroundings.placement:
        admit_function(
            role,
            # By its name: the function waits for the policy that this is written in.
            function_arn=Stack.of(scope).format_arn(
                service="lambda", resource="function", resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
            ),
        )
        cast(lambda_.CfnFunction, made.node.default_child).vpc_config = surroundings.placement.of_functions()
    return made


RETENTION = {7: logs.RetentionDays.ONE_WEEK, 30: logs.RetentionDays.ONE_MONTH, 365: logs.RetentionDays.ONE_YEAR}

RUNTIME_REASON: Mapping[Target, str] = {
    "aws": "Wheels and bytecode are built for Python 3.13: a newer one is chosen in stacks/bundles.py.",
    "local": "The local cloud runs functions with the interpreter of this machine, whichever that is.",
}


def runtime(target: Target) -> lambda_.Runtime:
    version = bundles.AWS_PYTHON if target == "aws" else f"{sys.version_info.major}.{sys.version_info.minor}"
    return lambda_.Runtime(f"python{version}", lambda_.RuntimeFamily.PYTHON)


def architecture(target: Target) -> lambda_.Architecture:
    on_arm = target == "aws" or platform.machine() in {"arm64", "aarch64"}
    return lambda_.Architecture.ARM_64 if on_arm else lambda_.Architecture.X86_64
