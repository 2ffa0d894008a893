"""Noria's event bus."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3

from noria.aws.telemetry import following
from noria.events import NoriaEvent

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient


class BusError(RuntimeError):
    """PutEvents answered, but did not take the event: it reports that in its body, not as an error."""


@dataclass(frozen=True, kw_only=True)
class Bus:
    name: str
    client: "EventBridgeClient" = field(default_factory=lambda: boto3.client("events"), repr=False)

    def publish(self, event: NoriaEvent) -> None:
        answer = self.client.put_events(Entries=[event.entry(self.name, correlation=following())])
        if answer["FailedEntryCount"]:
            (entry,) = answer["Entries"]
            why = f"{entry.get('ErrorCode')}: {entry.get('ErrorMessage')}"
            raise BusError(f"{self.name} did not take {event.detail_type!r}: {why}")
