"""Environments in accounts of their own: versions are registered in one, and go live in others once approved there.

    registry's account                            another's
    package approved ─ rule ─ role ──────────────> bus ─ import_package ─ its own package ─ deploy_model
    package group  <────────── describe ──────────────────┤
    data bucket    <────────── read runs, baselines ──────┤
    key            <────────── decrypt, through S3 ───────┘

The three policies on the left belong together: without one of them nothing can be promoted, and none of them lets the
other account change anything. Each names one role of one account.
"""

from collections.abc import Sequence
from typing import Any, cast

from aws_cdk import Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from noria.names import PROMOTION
from noria.promotion import AREAS
from stacks.constructs.permissions import Grant, allow
from stacks.foundation import Foundation
from stacks.reactions import APPROVED, Reactions
from stacks.settings import Follower, Settings
from stacks.training import Training


def importer(follower: Follower) -> str:
    """The role's ARN in the other account, but for the end of its name, which CloudFormation makes up there."""
    return f"arn:aws:iam::{follower.account}:role/noria-{follower.env}-reactions-ImportPackage*"


def _by(follower: Follower) -> dict[str, Any]:
    return {"ArnLike": {"aws:PrincipalArn": importer(follower)}}


def let_follow(foundation: Foundation, followers: Sequence[Follower]) -> None:
    """Let other accounts' importers read what packages are made of."""
    for follower in followers:
        account = iam.AccountPrincipal(follower.account)
        name = follower.env.capitalize()
        foundation.data_bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid=f"PromoteTo{name}",
                principals=[account],
                actions=["s3:GetObject"],
                resources=[foundation.data_bucket.arn_for_objects(f"*/{area}/*") for area in sorted(AREAS)],
                conditions=_by(follower),
            )
        )
        foundation.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid=f"PromoteTo{name}",
                principals=[account],
                actions=["kms:Decrypt", "kms:DescribeKey"],
                resources=["*"],  # in a key's policy, that is this key
                conditions=_by(follower)
                | {"StringEquals": {"kms:ViaService": f"s3.{foundation.region}.amazonaws.com"}},
            )
        )


def let_describe(training: Training, name: str, followers: Sequence[Follower]) -> None:
    """Let other accounts' importers see the packages of one model's group, beside what its policy says already."""
    group = cast(sagemaker.CfnModelPackageGroup, training.node.find_child("Packages"))
    said = cast(dict[str, Any], group.model_package_group_policy or {"Version": "2012-10-17", "Statement": []})
    packages = training.format_arn(service="sagemaker", resource="model-package", resource_name=f"{name}/*")
    group.model_package_group_policy = {
        **said,
        "Statement": [
            *said["Statement"],
            *(
                {
                    "Sid": f"PromoteTo{follower.env.capitalize()}",
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:aws:iam::{follower.account}:root"},
                    "Action": ["sagemaker:DescribeModelPackage"],
                    "Resource": [packages],
                    "Condition": _by(follower),
                }
                for follower in followers
            ),
        ],
    }


class Promotion(Construct):
    """Tells the other accounts which packages were approved; what cannot be delivered pages, as any other event."""

    def __init__(self, reactions: Reactions, id_: str, *, settings: Settings) -> None:
        super().__init__(reactions, id_)
        stack = Stack.of(self)
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal(
                "events.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": stack.account}}
            ),
        )
        buses = {
            follower.env: f"arn:aws:events:{stack.region}:{follower.account}:event-bus/noria-{follower.env}"
            for follower in settings.promotes_to
        }
        allow(role, Grant(actions=["events:PutEvents"], resources=list(buses.values())))
        events.CfnRule(
            self,
            "OnApproval",
            name=f"{settings.names.prefix}-{PROMOTION}",
            event_pattern={
                "source": ["aws.sagemaker"],
                "detail-type": ["SageMaker Model Package State Change"],
                "detail": {"ModelPackageGroupName": [{"prefix": f"{settings.names.prefix}-"}], **APPROVED},
            },
            state="ENABLED",
            targets=[
                events.CfnRule.TargetProperty(
                    id=env,
                    arn=bus,
                    role_arn=role.role_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                        arn=reactions.dead_letters.queue.queue_arn
                    ),
                    retry_policy=events.CfnRule.RetryPolicyProperty(
                        maximum_event_age_in_seconds=24 * 3600, maximum_retry_attempts=185
                    ),
                )
                for env, bus in buses.items()
            ],
        )


def hear(foundation: Foundation, settings: Settings) -> None:
    """Let the registry's rule send to this environment's bus: its role, and nobody else of that account."""
    registry = settings.registry
    if registry is None:
        return
    role = f"arn:aws:iam::{registry.account}:role/noria-{registry.env}-reactions-Promotion*"
    bus = cast(events.CfnEventBus, foundation.bus.node.default_child)
    bus.policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "HearOfApprovals",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{registry.account}:root"},
                "Action": "events:PutEvents",
                "Resource": foundation.format_arn(
                    service="events", resource="event-bus", resource_name=settings.names.prefix
                ),
                "Condition": {
                    "ArnLike": {"aws:PrincipalArn": role},
                },
            }
        ],
    }
