"""What is on trial beside the champion, and since when: as the ledger tells it."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from noria.deployment import Desired, places
from noria.ledger import Entry


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A challenger or shadow beside a champion, without a break since `since`, whatever its share of the requests."""

    kind: Literal["challenger", "shadow"]
    champion: str
    rival: str
    since: datetime

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Self | None:
        """The one that goes on now; None where the champion answers alone."""
        seen = _seen(entries)
        now = seen[-1][1] if seen else None
        if now is None or now.package is None:
            return None
        since = _since(seen, lambda desired: (desired.package, desired.challenger, desired.shadow))
        if since and now.challenger:
            return cls(kind="challenger", champion=now.package, rival=now.challenger, since=since)
        if since and now.shadow:
            return cls(kind="shadow", champion=now.package, rival=now.shadow, since=since)
        return None


def champion_since(entries: Sequence[Entry], package: str | None = None) -> datetime | None:
    """When the champion became it, or when `package` last did; changes of traffic and of who is beside don't count."""
    if package is not None:
        last = max((n for n, (_, desired) in enumerate(_seen(entries)) if desired.package == package), default=None)
        return None if last is None else _since(_seen(entries)[: last + 1], lambda desired: desired.package)
    return _since(_seen(entries), lambda desired: desired.package)


def _since(seen: "Sequence[tuple[datetime, Desired]]", what: Callable[[Desired], Hashable]) -> datetime | None:
    """Since when `what` is as it is at the end."""
    since, now = None, None
    for at, desired in seen:
        if since is None or what(desired) != now:
            since, now = at, what(desired)
    return since


def _seen(entries: Sequence[Entry]) -> list[tuple[datetime, Desired]]:
    """What was seen to answer, oldest first; hours in which nothing does are no break of it."""
    return [(entry.at, Desired.of(entry.details)) for entry in places(entries)]
