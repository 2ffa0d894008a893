"""What happens at a time: EventBridge Scheduler puts an event into a reaction's queue."""

import json
from collections.abc import Mapping, Sequence

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler
from constructs import Construct

from noria.events import Tick
from stacks.constructs.permissions import Grant, allow
from stacks.constructs.reaction import Reaction
from stacks.settings import Settings


class Clock(Construct):
    """A group of schedules, and the role with which Scheduler reaches the queues of some reactions."""

    def __init__(
        self, scope: Construct, id_: str, *, settings: Settings, key: kms.IKey, reaching: Sequence[Reaction]
    ) -> None:
        super().__init__(scope, id_)
        self.group = settings.names.prefix
        self._group = scheduler.CfnScheduleGroup(self, "Group", name=self.group)
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal(
                "scheduler.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            ),
        )
        allow(self.role, Grant(actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[key.key_arn]))
        for reaction in reaching:
            self.reach(reaction)

    def reach(self, reaction: Reaction) -> None:
        """Let schedules of this group send to the reaction's queue, and what fails to the dead letters."""
        queues = [reaction.queue.queue_arn, reaction.dead_letters.queue_arn]
        allow(self.role, Grant(actions=["sqs:SendMessage"], resources=queues))

    def schedule(
        self,
        scope: Construct,
        id_: str,
        *,
        name: str,
        expression: str,
        reaction: Reaction,
        detail_type: str,
        detail: Mapping[str, str],
        timezone: str | None = None,
    ) -> None:
        """Send `detail_type` to `reaction` whenever `expression` says; to `detail` comes the time that it was due."""
        event = {
            "source": Tick.SOURCE,
            "detail-type": detail_type,
            "detail": {**detail, "time": "<aws.scheduler.scheduled-time>"},
        }
        schedule = scheduler.CfnSchedule(
            scope,
            id_,
            name=name,
            group_name=self.group,
            schedule_expression=expression,
            schedule_expression_timezone=timezone,
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=reaction.queue.queue_arn,
                role_arn=self.role.role_arn,
                input=json.dumps(event),
                dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(arn=reaction.dead_letters.queue_arn),
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=3600, maximum_retry_attempts=10
                ),
            ),
        )
        schedule.add_resource_dependency(self._group)
