"""Pages are sent to the topic of their severity, which knows who is to hear of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3

from noria.alarms import Severity
from noria.aws.telemetry import following
from noria.page import Matter, Page

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

__all__ = ["Matter", "Page", "Pages"]

_SUBJECT = 100  # SNS: at most 100 characters of printable ASCII, no line breaks
_MESSAGE = 60_000  # SNS takes 256 KB: four bytes a character at most


@dataclass(frozen=True, kw_only=True)
class Pages:
    topics: Mapping[Severity, str]
    client: "SNSClient" = field(default_factory=lambda: boto3.client("sns"), repr=False)

    def send(self, page: Page) -> None:
        subject = re.sub(r"[^\x20-\x7e]+", " ", page.subject)
        subject = subject if len(subject) <= _SUBJECT else subject[: _SUBJECT - 3] + "..."
        message = page.message[:_MESSAGE]
        if correlation := following():
            message += f"\nAll that led to this, in order:\n\n    noria logs {correlation}\n"
        self.client.publish(TopicArn=self.topics[page.matter.severity], Subject=subject, Message=message)
