"""The archives of both buses, and replays of what is in them.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-replay-archived-event.html
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import boto3

from noria.names import Names

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

LATE = timedelta(minutes=10)
"""How long an event may be on its way into an archive."""

ENDED = frozenset({"COMPLETED", "CANCELLED", "FAILED"})


class NoArchiveError(LookupError):
    """There is no such archive; says which was looked for."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule that starts a reaction. `archive` keeps what it hears, and `bus` is where that is replayed."""

    name: str
    arn: str
    archive: str
    bus: str


@dataclass(frozen=True, kw_only=True)
class Replay:
    """`reached` is the time of the last event that was sent again."""

    name: str
    state: str
    why: str | None
    reached: datetime | None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, kw_only=True)
class Archives:
    """Those of an environment; `bus` is Noria's own."""

    names: Names
    bus: str
    client: "EventBridgeClient" = field(default_factory=lambda: boto3.client("events"), repr=False)

    def rules(self) -> Iterator[Rule]:
        """The environment's rules, of both buses."""
        for archive, bus in ((f"{self.names.prefix}-default", "default"), (f"{self.names.prefix}-own", self.bus)):
            pages = self.client.get_paginator("list_rules").paginate(
                EventBusName=bus, NamePrefix=f"{self.names.prefix}-"
            )
            for page in pages:
                for rule in page["Rules"]:
                    yield Rule(name=rule["Name"], arn=rule["Arn"], archive=archive, bus=bus)

    def replay(self, name: str, rules: Sequence[Rule], *, since: datetime, until: datetime, why: str) -> Replay:
        """Send to `rules`, which are of one bus, what its archive has of that time. Raises `NoArchiveError`.

        Always to rules that are named: others, of other people too, listen on the default bus.
        """
        try:
            archive = self.client.describe_archive(ArchiveName=rules[0].archive)
        except self.client.exceptions.ResourceNotFoundException as error:
            raise NoArchiveError(f"There is no archive {rules[0].archive}.") from error
        bus = archive["EventSourceArn"]
        self.client.start_replay(
            ReplayName=name,
            Description=why[:512],
            EventSourceArn=archive["ArchiveArn"],
            EventStartTime=since,
            EventEndTime=until,
            Destination={"Arn": bus, "FilterArns": [rule.arn for rule in rules]},
        )
        return self.progress(name)

    def progress(self, name: str) -> Replay:
        told = self.client.describe_replay(ReplayName=name)
        return Replay(
            name=name, state=told["State"], why=told.get("StateReason"), reached=told.get("EventLastReplayedTime")
        )
