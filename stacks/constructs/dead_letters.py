"""What no reaction could do, and what could not be delivered to one: one queue of an environment, and the page for it.

SQS, EventBridge, Scheduler and Lambda each say with a letter what it comes from (`noria.messages.origin`), so that one
queue and one alarm do for all reactions: docs/decisions/0002-one-queue-before-each-reaction.md.
"""

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from noria.alarms import Severity, Told
from stacks.constructs.paging import tell
from stacks.foundation import Foundation
from stacks.settings import Settings


class DeadLetters(Construct):
    def __init__(
        self, scope: Construct, id_: str, *, settings: Settings, key: kms.IKey, foundation: Foundation
    ) -> None:
        super().__init__(scope, id_)
        self.queue = sqs.Queue(
            self,
            "Queue",
            queue_name=settings.names.dead_letters,
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=key,
            data_key_reuse=Duration.hours(1),
            enforce_ssl=True,
            retention_period=Duration.days(14),
        )
        rules = [
            Stack.of(self).format_arn(service="events", resource="rule", resource_name=name)
            # A queue's policy has no room for the names of all rules of forty models, so these are theirs by how they
            # begin: those of the default bus, and of this environment's own.
            for name in (f"{settings.names.prefix}-*", f"{settings.names.prefix}/{settings.names.prefix}-*")
        ]
        self.queue.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("events.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[self.queue.queue_arn],
                conditions={"ArnLike": {"aws:SourceArn": rules}},
            )
        )
        cloudwatch.Alarm(
            self,
            # Not "Alarm": so was a composite alarm in its place, and CloudFormation changes no resource's type.
            "AnyLetter",
            alarm_name=settings.names.dead_letters,
            alarm_description=Told(severity=Severity.CRITICAL, runbook="dead-letters").describe(
                "Events could not be handled, and what waits for them stands still."
            ),
            metric=self.queue.metric_approximate_number_of_messages_visible(
                period=Duration.minutes(1), statistic=cloudwatch.Stats.MAXIMUM
            ),
            threshold=1,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        ).add_alarm_action(tell(foundation, Severity.CRITICAL))
