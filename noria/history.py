"""What was live at a moment, since when, by whose word and why: from the ledger alone."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Literal

from pydantic import BaseModel, ConfigDict

from noria.approval import decided_at
from noria.deployment import Desired, Request
from noria.ledger import Entry, Kind, latest

Part = Literal["champion", "challenger", "shadow"]

_SEEN = (Kind.DEPLOYED, Kind.SERVING_DIFFERS)
_PARTS: Mapping[Part, Callable[[Desired], str | None]] = {
    "champion": lambda live: live.package,
    "challenger": lambda live: live.challenger,
    "shadow": lambda live: live.shadow,
}


class Approval(BaseModel):
    """Somebody's word for a package, and when it was given: heard of it may have been later, as after a pause.

    `by` is None where the ledger does not know who it was.
    """

    model_config = ConfigDict(frozen=True)

    entry: int
    at: datetime
    by: str | None
    reason: str | None


class Answering(BaseModel):
    """A package that answered. `entry` is the number of the one that says since when; what brought it is a deployment.

    `percent` of the requests are a challenger's. Where nobody asked for it, it has no deployment, and `reason` is what
    was seen.
    """

    model_config = ConfigDict(frozen=True)

    part: Part
    package: str
    percent: int | None
    since: datetime
    entry: int
    deployment: str | None
    cause: str | None
    reason: str | None
    approval: Approval | None


class LiveThen(BaseModel):
    """What answered for a model at `at`, and so from `since` to `until`: nothing where `answering` is empty.

    `since` is None where nothing was live before, `until` where nothing has changed yet. `why` says why nothing is.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    at: datetime
    since: datetime | None
    until: datetime | None
    answering: list[Answering]
    why: str | None = None


def live_at(model: str, entries: Sequence[Entry], moment: datetime) -> LiveThen:
    """`entries` are the model's, oldest first."""
    past = [entry for entry in entries if entry.at <= moment]
    seen = [entry for entry in past if entry.kind in _SEEN]
    then = Desired.of(seen[-1].details) if seen else Desired(package=None)
    later = (entry for entry in entries if entry.kind in _SEEN and entry.at > moment)
    return LiveThen(
        model=model,
        at=moment,
        since=_run(seen, lambda live: live == then)[0].at if seen else None,
        until=next((entry.at for entry in later if Desired.of(entry.details) != then), None),
        answering=[_answering(past, seen, part) for part in _PARTS if _PARTS[part](then)],
        why=seen[-1].summary if seen and then.package is None else None,
    )


def _answering(past: Sequence[Entry], seen: Sequence[Entry], part: Part) -> Answering:
    then, of = Desired.of(seen[-1].details), _PARTS[part]
    package = str(of(then))
    first = _run(seen, lambda live: of(live) == package)[0]
    asked = next((e for e in past if e.kind is Kind.DEPLOYMENT_REQUESTED and e.subject == first.subject), None)
    request = Request.of(asked) if asked else None
    words = [e for e in past if e.details.get("package") == package and e.number <= first.number]
    word = latest(words, Kind.PACKAGE_APPROVED)
    return Answering(
        part=part,
        package=package,
        percent=then.percent if part == "challenger" else None,
        since=first.at,
        entry=first.number,
        deployment=request.id if request else None,
        cause=request.cause.value if request else None,
        reason=(request.reason or (asked.summary if asked else None)) if request else first.summary,
        approval=_approval(word) if word else None,
    )


def _run(seen: Sequence[Entry], holds: Callable[[Desired], bool]) -> list[Entry]:
    """The last entries without a break for all of which it holds, oldest first."""
    return list(takewhile(lambda entry: holds(Desired.of(entry.details)), reversed(seen)))[::-1]


def _approval(word: Entry) -> Approval:
    by, reason = (word.details.get(name) for name in ("by", "reason"))
    by = word.details.get("approver") or by
    return Approval(
        entry=word.number,
        at=decided_at(word),
        by=str(by) if by else None,
        reason=str(reason) if reason else None,
    )
