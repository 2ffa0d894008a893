"""One-time schedules: a reaction that must look again later books it here."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

import boto3

from noria.aws.environment import BookingEnvironment
from noria.aws.telemetry import following
from noria.events import correlated

if TYPE_CHECKING:
    from mypy_boto3_scheduler import EventBridgeSchedulerClient


@dataclass(frozen=True, kw_only=True)
class Schedules:
    """`role_arn` is assumed by EventBridge Scheduler to send to the queue, or to the dead letters when that fails."""

    group: str
    role_arn: str
    queue_arn: str
    dead_letters_arn: str
    client: "EventBridgeSchedulerClient" = field(default_factory=lambda: boto3.client("scheduler"), repr=False)

    @classmethod
    def of(cls, env: BookingEnvironment) -> Self:
        return cls(
            group=env.schedule_group,
            role_arn=env.schedule_role_arn,
            queue_arn=env.queue_arn,
            dead_letters_arn=env.dead_letters_arn,
        )

    def once(self, name: str, *, at: datetime, message: str) -> None:
        """Send `message` to the queue at `at`; the schedule then deletes itself. Booked twice is booked once.

        A time that has passed meanwhile is a minute from now: Scheduler doesn't call what is past.
        """
        at = max(at, datetime.now(UTC) + timedelta(minutes=1))
        try:
            self.client.create_schedule(
                Name=name,
                GroupName=self.group,
                ScheduleExpression=f"at({at.astimezone(UTC):%Y-%m-%dT%H:%M:%S})",
                ScheduleExpressionTimezone="UTC",
                FlexibleTimeWindow={"Mode": "OFF"},
                ActionAfterCompletion="DELETE",
                Target={
                    "Arn": self.queue_arn,
                    "RoleArn": self.role_arn,
                    "Input": correlated(message, following()),
                    "DeadLetterConfig": {"Arn": self.dead_letters_arn},
                },
            )
        except self.client.exceptions.ConflictException:
            return
