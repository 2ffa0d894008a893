"""Pages: what a person is told, and what to do about it."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

_SUBJECT = 100  # SNS: at most 100 characters of printable ASCII, no line breaks
_MESSAGE = 60_000  # SNS takes 256 KB: four bytes a character at most


@dataclass(frozen=True, kw_only=True)
class Page:
    """`subject` in one line; `what` happened, `where` to look, what to `do`, and a `command` that helps."""

    subject: str
    what: str
    where: str
    do: str
    command: str

    @property
    def message(self) -> str:
        return f"{self.what}\n\nWhere: {self.where}\nWhat to do: {self.do}\n\n    {self.command}\n"


@dataclass(frozen=True, kw_only=True)
class Pages:
    topic: str
    client: "SNSClient" = field(default_factory=lambda: boto3.client("sns"), repr=False)

    def send(self, page: Page) -> None:
        subject = re.sub(r"[^\x20-\x7e]+", " ", page.subject)
        subject = subject if len(subject) <= _SUBJECT else subject[: _SUBJECT - 3] + "..."
        self.client.publish(TopicArn=self.topic, Subject=subject, Message=page.message[:_MESSAGE])
