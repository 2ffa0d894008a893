"""Times as people write them in options: the same way in every command."""

import re
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter

from noria.cli.output import Refused
from noria.units import Duration

PAST = "2026-11-21T14:30:00Z, or how long ago, as 24h"
COMING = "2026-11-21T14:30:00Z, or in how long, as 4h"
"""What an option's help says of them."""

_LONG: TypeAdapter[timedelta] = TypeAdapter(Duration)


def past(text: str, *, now: datetime, option: str) -> datetime:
    """A time that was: ISO 8601, in UTC unless it says otherwise, or how long ago, as 90m, 24h or 7d. Raises `Refused`.

    A date alone is its beginning.
    """
    found = _moment(text, now=now, sign=-1, option=option, known=PAST)
    if found > now:
        raise Refused(f"{option} {text} is still to come: name a time that was, or how long ago, as 24h.")
    return found


def coming(text: str, *, now: datetime, option: str) -> datetime:
    """A time to come, written likewise, or in how long. Raises `Refused`."""
    found = _moment(text, now=now, sign=1, option=option, known=COMING)
    if found <= now:
        raise Refused(f"{option} {text} is over: name a time to come, or how long, as 4h.")
    return found


def _moment(text: str, *, now: datetime, sign: int, option: str, known: str) -> datetime:
    try:
        if re.fullmatch(r"\d+[smhd]", text):
            return now + sign * _LONG.validate_python(text)
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise Refused(f"{option} {text!r} is no time: write {known}.") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
