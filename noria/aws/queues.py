"""The queues in front of the reactions, and their dead letters."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3

from noria.aws.telemetry import following
from noria.events import correlated
from noria.messages import origin
from noria.names import Names

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_LOOKED_AT = 120
"""Seconds for which a dead letter is hidden while somebody looks at it: if they die, it shows again."""

_WAIT = 1
"""Seconds that a look for dead letters waits for one: at 0, SQS asks only some of its servers."""

_BATCH = 10
"""SQS gives out and takes at most ten messages in one call."""

_TIMES = "noria-sent-again"
"""The attribute of a message that says how often it was sent again; it stays with it among the dead letters."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many messages of a queue can be seen now, are being worked on, or are held back for later."""

    waiting: int
    in_flight: int
    delayed: int


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A dead letter. `origin` is the queue, function or rule that it comes from, and `undelivered` why EventBridge
    could not hand the event over, where that is how it got here."""

    id: str
    origin: str | None
    body: str
    sent: datetime
    received: datetime | None
    undelivered: str | None
    group: str | None
    times: int
    handle: str = field(repr=False)

    @classmethod
    def of(cls, message: "MessageTypeDef") -> "Letter":
        attributes = {
            name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()
        }
        told = ": ".join(attributes[name] for name in ("ERROR_CODE", "ERROR_MESSAGE") if name in attributes)
        system = message.get("Attributes", {})
        first = system.get("ApproximateFirstReceiveTimestamp")
        return cls(
            id=message["MessageId"],
            origin=origin(message["Body"], source=system.get("DeadLetterQueueSourceArn"), attributes=attributes),
            body=message["Body"],
            sent=_time(system["SentTimestamp"]),
            received=_time(first) if first else None,
            undelivered=told or None,
            group=system.get("MessageGroupId"),
            times=int(attributes.get(_TIMES) or 0),
            handle=message["ReceiptHandle"],
        )


@dataclass(frozen=True, kw_only=True)
class Queues:
    client: "SQSClient" = field(default_factory=lambda: boto3.client("sqs"), repr=False)
    _urls: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def send(self, queue: str, message: str, *, delay: timedelta = timedelta(0)) -> None:
        """Send an event that is seen after `delay`, at most 15 minutes."""
        self.client.send_message(
            QueueUrl=self.url(queue),
            MessageBody=correlated(message, following()),
            DelaySeconds=round(delay.total_seconds()),
        )

    def send_again(self, queue: str, body: str, *, group: str | None, times: int = 0) -> None:
        """Send what somebody else sent, as it was, in its message group: in a standard queue, those of one tenant.

        `times` says how often that was done to it, if it failed before.
        """
        more: dict[str, Any] = {"MessageGroupId": group} if group else {}
        if times:
            more["MessageAttributes"] = {_TIMES: {"DataType": "Number", "StringValue": str(times)}}
        self.client.send_message(QueueUrl=self.url(queue), MessageBody=body, **more)

    def show_again(self, record: Mapping[str, Any], *, after: int) -> None:
        """Show a message to the function that failed on it, so many seconds from now, at most 12 hours."""
        self.client.change_message_visibility(
            QueueUrl=self.url(record["eventSourceARN"].rpartition(":")[2]),
            ReceiptHandle=record["receiptHandle"],
            VisibilityTimeout=after,
        )

    # --- for people

    def of_reactions(self, names: Names) -> list[str]:
        """The reactions of an environment, sorted: all that stand behind a queue."""
        pages = self.client.get_paginator("list_queues").paginate(QueueNamePrefix=f"{names.prefix}-")
        found = {url.rpartition("/")[2] for page in pages for url in page.get("QueueUrls", [])}
        return sorted(reaction for queue in found - {names.dead_letters} if (reaction := names.reaction_of(queue)))

    def count(self, queue: str) -> Count:
        """How many messages there are, as SQS knows it: seconds late."""
        found = self.client.get_queue_attributes(
            QueueUrl=self.url(queue),
            AttributeNames=[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
                "ApproximateNumberOfMessagesDelayed",
            ],
        )["Attributes"]
        return Count(
            waiting=int(found["ApproximateNumberOfMessages"]),
            in_flight=int(found["ApproximateNumberOfMessagesNotVisible"]),
            delayed=int(found["ApproximateNumberOfMessagesDelayed"]),
        )

    @contextmanager
    def dead_letters(self, queue: str, *, most: int | None = None) -> Iterator["DeadLetters"]:
        """What lies in a queue of dead letters, hidden from others meanwhile; what is not thrown away shows again."""
        letters = DeadLetters(queues=self, queue=queue, most=most)
        try:
            yield letters
        finally:
            letters.show_again()

    def url(self, queue: str) -> str:
        """Asked for once."""
        if queue not in self._urls:
            self._urls[queue] = self.client.get_queue_url(QueueName=queue)["QueueUrl"]
        return self._urls[queue]


@dataclass(frozen=True, kw_only=True)
class DeadLetters:
    """All dead letters, or `most` of them, each once, received ten at a time as they are asked for.

    They end where SQS has none to show: its counts are seconds late.

    So whoever works on each has done so with ten before they show again. The only way to read a message is to receive
    it. Dead letters have no queue of their own to fall into, so that nothing comes of how often they were.
    """

    queues: Queues
    queue: str
    most: int | None
    seen: set[str] = field(default_factory=set, init=False, repr=False)
    _hidden: dict[str, Letter] = field(default_factory=dict, init=False, repr=False)

    def __iter__(self) -> Iterator[Letter]:
        # What is looked at for long shows again: a queue of many ends once each was, on average, received twice.
        again = 0
        while again <= len(self.seen) and (letters := self._receive(self._wanted)):
            new = [letter for letter in letters if letter.id not in self.seen]
            again += len(letters) - len(new)
            self._hidden.update({letter.id: letter for letter in letters})
            self.seen.update(letter.id for letter in new)
            yield from new

    def bring_back(self, letter: Letter, *, to: str) -> None:
        """Send a letter to a queue, and only then throw it away: who dies in between leaves it in both."""
        self.queues.send_again(to, letter.body, group=letter.group, times=letter.times + 1)
        self.throw_away(letter)

    def throw_away(self, letter: Letter) -> None:
        self.queues.client.delete_message(QueueUrl=self._url, ReceiptHandle=letter.handle)
        del self._hidden[letter.id]

    def show_again(self) -> None:
        """Those that were received and not thrown away."""
        left = list(self._hidden.values())
        for start in range(0, len(left), _BATCH):
            self.queues.client.change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": letter.handle, "VisibilityTimeout": 0}
                    for number, letter in enumerate(left[start : start + _BATCH])
                ],
            )

    @property
    def _wanted(self) -> int:
        return _BATCH if self.most is None else min(_BATCH, self.most - len(self.seen))

    def _receive(self, most: int) -> list[Letter]:
        if not most:
            return []
        received = self.queues.client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=most,
            VisibilityTimeout=_LOOKED_AT,
            WaitTimeSeconds=_WAIT,
            MessageSystemAttributeNames=[
                "SentTimestamp",
                "ApproximateFirstReceiveTimestamp",
                "MessageGroupId",
                "DeadLetterQueueSourceArn",
            ],
            MessageAttributeNames=["All"],
        )
        return [Letter.of(message) for message in received.get("Messages", [])]

    @property
    def _url(self) -> str:
        return self.queues.url(self.queue)


def _time(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def ages(queues: Sequence[str], *, now: datetime) -> dict[str, int]:
    """How many seconds the oldest message of each queue has waited, where CloudWatch was told in the last minutes."""
    if not queues:
        return {}
    answer = boto3.client("cloudwatch").get_metric_data(
        StartTime=now - timedelta(minutes=5),
        EndTime=now,
        MetricDataQueries=[
            {
                "Id": f"q{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/SQS",
                        "MetricName": "ApproximateAgeOfOldestMessage",
                        "Dimensions": [{"Name": "QueueName", "Value": queue}],
                    },
                    "Period": 60,
                    "Stat": "Maximum",
                },
            }
            for number, queue in enumerate(queues)
        ],
    )
    values = {result["Id"]: result.get("Values", []) for result in answer["MetricDataResults"]}
    return {queue: round(found[0]) for number, queue in enumerate(queues) if (found := values.get(f"q{number}"))}
