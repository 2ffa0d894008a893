"""A paused model: nothing is begun for it by itself, and what happens meanwhile waits. Decision 0031.

| goes on                                              | because                                               |
|------------------------------------------------------|-------------------------------------------------------|
| what a person asks for by a command                  | who pauses a model works on it                        |
| a rejection, an approval taken back, an alarm of a   | they only take back                                   |
| challenger                                           |                                                       |
| the end of a training, of a batch, of a deployment   | it was begun before, or by a person                   |
| probes, locked copies of the ledger, hours           | they protect, record, and save money                  |
| objects that are no uploads                          | nothing begins with them                              |

All else waits, but the ticks of the monitor: the next one comes by itself.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

from noria import messages
from noria.approval import PENDING, REJECTED
from noria.events import PauseRequest
from noria.ledger import Entry, Fact, Kind, latest
from noria.names import Area, ObjectKey
from noria.units import count

OPEN_END = datetime(9999, 1, 1, tzinfo=UTC)

CLOCK = "noria"
"""Who ends a pause whose time is up."""

UPLOADED: frozenset[Area] = frozenset({"incoming", "labels", "batch"})
"""Where people put what a reaction is to take."""


class Turn(StrEnum):
    """What becomes of an event of a paused model."""

    GOES_ON = "goes on"
    WAITS = "waits"
    LAPSES = "lapses"


ENDINGS = frozenset(
    {
        "SageMaker Model Building Pipeline Execution Status Change",
        "SageMaker Transform Job State Change",
        "SageMaker Endpoint State Change",
        "SageMaker Endpoint Deployment State Change",
        "CloudFormation Stack Status Change",
        "Probe Deployment",
        "Confirm Deployment",
        "Export Ledger",
        "Keep Hours",
    }
)
"""Detail types of what ends, protects or records something that was begun, or goes by the clock."""

WISHES = frozenset({"Serving Requested", "Retraining Wanted"})
"""Detail types of what people ask for by a command."""


def turn(event: Mapping[str, Any]) -> Turn:
    """What becomes of this event while its model is paused."""
    detail = event.get("detail")
    detail = detail if isinstance(detail, Mapping) else {}
    match str(event.get("detail-type")):
        case "Monitor Model":
            return Turn.GOES_ON if detail.get("by") else Turn.LAPSES
        case "SageMaker Model Package State Change":
            goes_on = detail.get("ModelApprovalStatus") in (REJECTED, PENDING)
        case "Object Created":
            goes_on = not _is_upload(messages.key_of(detail))
        case "CloudWatch Alarm State Change":
            goes_on = "-challenger-" in str(detail.get("alarmName"))
        case "Retraining Requested":
            goes_on = detail.get("cause") == "hand"
        case other:
            goes_on = other in ENDINGS or other in WISHES
    return Turn.GOES_ON if goes_on else Turn.WAITS


class Pause(BaseModel):
    """A pause as the ledger tells it; `until` is None where a person is to end it."""

    model_config = ConfigDict(frozen=True)

    request: str
    since: AwareDatetime
    until: AwareDatetime | None
    by: str
    reason: str

    @classmethod
    def of(cls, entry: Entry) -> Self:
        until = entry.details["until"]
        return cls(
            request=entry.subject,
            since=entry.at,
            until=datetime.fromisoformat(str(until)) if until else None,
            by=str(entry.details["by"]),
            reason=str(entry.details["reason"]),
        )

    def __str__(self) -> str:
        until = f" until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else ""
        return f"paused since {self.since:%Y-%m-%d %H:%M} UTC{until} by {self.by}: {self.reason}"


def last_pause(entries: Sequence[Entry]) -> Pause | None:
    """The pause that nobody has ended, though its time may have; `entries` are oldest first."""
    last = latest(entries, Kind.MODEL_PAUSED, Kind.MODEL_RESUMED)
    return Pause.of(last) if last and last.kind is Kind.MODEL_PAUSED else None


def paused(entries: Sequence[Entry], now: datetime) -> Pause | None:
    """The pause in which a model is."""
    pause = last_pause(entries)
    return pause if pause and now < (pause.until or OPEN_END) else None


def resumed(entries: Sequence[Entry]) -> datetime | None:
    """When the last pause was ended."""
    last = latest(entries, Kind.MODEL_PAUSED, Kind.MODEL_RESUMED)
    return last.at if last and last.kind is Kind.MODEL_RESUMED else None


def held_until(entry: Entry) -> datetime | None:
    """Until when an entry has events wait: a time gone by where it ends a pause; None where it is about no pause."""
    match entry.kind:
        case Kind.MODEL_PAUSED:
            return Pause.of(entry).until or OPEN_END
        case Kind.MODEL_RESUMED:
            return entry.at
    return None


def decide(entries: Sequence[Entry], asked: PauseRequest, now: datetime) -> Fact | None:
    """What to record of a person's wish; None where it is known, or a newer one counts, or nothing is to be ended.

    What time ended is nobody's wish: it is older than any that was asked after the pause.
    """
    wishes = [entry for entry in entries if entry.kind in {Kind.MODEL_PAUSED, Kind.MODEL_RESUMED}]
    if any(entry.subject == asked.request or _outranks(entry, asked) for entry in wishes):
        return None
    if asked.action == "resume" and last_pause(entries) is None:
        return None
    who = asked.by.rpartition("/")[2]
    if asked.action == "pause":
        until = f" until {asked.until:%Y-%m-%d %H:%M} UTC" if asked.until else ""
        kind, summary = Kind.MODEL_PAUSED, f"Paused{until} by {who}: {asked.reason}"
    else:
        kind, summary = Kind.MODEL_RESUMED, f"Resumed by {who}: {asked.reason}"
    return Fact(
        model=asked.model,
        kind=kind,
        subject=asked.request,
        at=now,
        summary=summary,
        details={
            "by": asked.by,
            "reason": asked.reason,
            "until": asked.until.isoformat() if asked.until else None,
            "requested_at": asked.requested_at.isoformat(),
        },
    )


def ended_by_time(entries: Sequence[Entry], model: str, now: datetime) -> Fact | None:
    """What to record of a pause whose time is up."""
    pause = last_pause(entries)
    if pause is None or pause.until is None or now < pause.until:
        return None
    return Fact(
        model=model,
        kind=Kind.MODEL_RESUMED,
        subject=f"{pause.request} # {pause.until.isoformat()}",
        at=now,
        summary=f"Resumed: the pause was until {pause.until:%Y-%m-%d %H:%M} UTC.",
        details={
            "by": CLOCK,
            "reason": "its time was up",
            "until": None,
            "requested_at": pause.until.isoformat(),
        },
    )


def unheard(entries: Sequence[Entry], model: str, reaction: str, number: int, now: datetime) -> Fact:
    """What to record, once for each pause that ended, of events whose reaction has no queue any more."""
    ended = latest(entries, Kind.MODEL_RESUMED)
    waits = count(number, "event waits", "events wait")
    return Fact(
        model=model,
        kind=Kind.EVENTS_UNHEARD,
        subject=f"{reaction} # {ended.subject if ended else 'no pause'}",
        at=now,
        summary=f"{waits} for {reaction}, which has no queue that the reconciler may send to: it is not deployed here.",
        details={"reaction": reaction, "count": number},
    )


def _outranks(entry: Entry, asked: PauseRequest) -> bool:
    by, at = entry.details["by"], datetime.fromisoformat(str(entry.details["requested_at"]))
    return by != CLOCK and at > asked.requested_at


def _is_upload(key: str) -> bool:
    """Whether somebody put it there to have it taken; all else in the bucket is what reactions and endpoints write."""
    try:
        return ObjectKey.parse(key).area in UPLOADED
    except ValueError:
        return False
