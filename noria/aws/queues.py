"""The queues in front of the reactions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3

from noria.aws.telemetry import following
from noria.events import correlated

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@dataclass(frozen=True, kw_only=True)
class Queues:
    client: "SQSClient" = field(default_factory=lambda: boto3.client("sqs"), repr=False)

    def send(self, queue: str, message: str, *, delay: timedelta = timedelta(0)) -> None:
        """Send an event that is seen after `delay`, at most 15 minutes."""
        url = self.client.get_queue_url(QueueName=queue)["QueueUrl"]
        self.client.send_message(QueueUrl=url, MessageBody=correlated(message, following()), DelaySeconds=round(delay.total_seconds()))

    def show_again(self, record: Mapping[str, Any], *, after: int) -> None:
        """Show a message to the function that failed on it, so many seconds from now, at most 12 hours."""
        url = self.client.get_queue_url(QueueName=record["eventSourceARN"].rpartition(":")[2])["QueueUrl"]
        self.client.change_message_visibility(
            QueueUrl=url,
            ReceiptHandle=record["receiptHandle"],
            VisibilityTimeout=after,
        )
