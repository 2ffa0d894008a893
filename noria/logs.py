"""Log lines as people read them: whose, when, how bad, what, and of a failure its last line.

Functions log JSON (noria/aws/telemetry.py); Lambda itself, jobs and containers write plain text.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from noria.ledger import Entry

_OWN = frozenset(
    {
        "level",
        "location",
        "message",
        "timestamp",
        "service",
        "correlation_id",
        "event_id",
        "exception",
        "exception_name",
        "stack_trace",
        "cold_start",
        "function_name",
        "function_memory_size",
        "function_arn",
        "function_request_id",
        "xray_trace_id",
        "sampling_rate",
    }
)
_PLATFORM = ("INIT_START", "START RequestId", "END RequestId", "REPORT RequestId")
_STARTED = "Invoking script with the following command:"
_OF_TOOLKIT = re.compile(r"sagemaker[-_]training\S* INFO ")
_ENDED = ("Task timed out", "Runtime exited", "Runtime.ExitError", "signal: killed")


class Line(BaseModel):
    """A line of a log, or an entry of the ledger between them; `where` is the function, the job or the model."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    kind: Literal["log", "ledger"]
    where: str
    level: str = ""
    message: str
    exception: str | None = None
    correlation: str | None = None
    event: str | None = None
    request: str | None = None

    @classmethod
    def of(cls, entry: Entry) -> "Line":
        return cls(
            at=entry.at,
            kind="ledger",
            where=f"{entry.model} #{entry.number}",
            level=entry.kind.value,
            message=entry.summary,
            correlation=entry.correlation,
        )


def read(text: str, *, at: datetime, where: str) -> Line | None:
    """A line that was logged at about `at`; None of what says nothing: metrics, Lambda's frame of an invocation."""
    text = text.strip()
    if not text or text.startswith(_PLATFORM):
        return None
    told = _json(text)
    if told is None or "message" not in told:
        if told is not None and "_aws" in told:
            return None
        level = "ERROR" if any(word in text for word in _ENDED) or text.startswith(("Traceback", "[ERROR]")) else ""
        return Line(at=at, kind="log", where=where, level=level, message=text)
    more = [f"{name}={_short(value)}" for name, value in told.items() if name not in _OWN]
    exception = told.get("exception")
    return Line(
        at=_moment(told.get("timestamp")) or at,
        kind="log",
        where=where,
        level=str(told.get("level", "")),
        message=" ".join([str(told["message"]), *more, *_last_line(exception)]),
        exception=exception,
        correlation=told.get("correlation_id"),
        event=told.get("event_id"),
        request=told.get("function_request_id"),
    )


def silent(lines: Iterable[Line]) -> list[tuple[str, str]]:
    """Function and request of invocations that said what they heard, and then nothing: they may have been killed."""
    said = Counter((line.where, line.request) for line in lines if line.request)
    return [invocation for invocation, count in said.items() if count == 1]


def without_toolkit(lines: Sequence[Line]) -> list[Line]:
    """Of a training job's lines those that are not AWS's training toolkit's: 150 lines of how it finds its environment.

    Until it says how it starts the script; where it never does, all lines are left, since one of them says why.
    """
    started = next((place + 2 for place, line in enumerate(lines) if line.message == _STARTED), 0)
    return [line for line in lines[started:] if not (started and _OF_TOOLKIT.search(line.message))]


def told(lines: Iterable[Line], entries: Iterable[Entry]) -> list[Line]:
    """In the order in which it happened; what was at the same moment stays as it is."""
    return sorted([*map(Line.of, entries), *lines], key=lambda line: line.at)


def correlation_in(lines: Iterable[Line], asked: str) -> str | None:
    """Whose effect the event is that is asked about, by lines that name it: its own until a function knew better."""
    found = {line.correlation for line in lines if asked in {line.event, line.correlation}} - {None}
    return next(iter(sorted(str(known) for known in found - {asked})), asked) if found else None


def _json(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _moment(text: object) -> datetime | None:
    """Powertools writes `2026-11-21 10:00:00,123+0000`."""
    try:
        return datetime.fromisoformat(str(text).replace(",", ".")).astimezone(UTC)
    except ValueError:
        return None


def _last_line(exception: object) -> list[str]:
    return [line.strip() for line in str(exception or "").splitlines() if line.strip()][-1:]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:197]}..."
