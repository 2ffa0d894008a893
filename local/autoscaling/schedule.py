"""When a scheduled action is due: `at(…)`, `rate(…)` and `cron(…)`.

https://docs.aws.amazon.com/autoscaling/application/userguide/scheduled-scaling-using-cron-expressions.html
"""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from local import ministack

_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")


def following(expression: str, after: datetime, *, timezone: str = "UTC", time_scale: float = 1.0) -> datetime | None:
    """The first moment after another at which a schedule is due; None if there is none any more.

    `at` and `cron` are moments of the clock in that time zone; a rate passes in the cloud's time. Raises ValueError for
    what is no such expression, or no time zone.
    """
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"unknown time zone {timezone!r}") from error
    if at := _AT.fullmatch(expression):
        moment = datetime.fromisoformat(at[1]).replace(tzinfo=zone).astimezone(UTC)
        return moment if moment > after else None
    if rate := _RATE.fullmatch(expression):
        return after + timedelta(**{f"{rate[2]}s": int(rate[1])}) / time_scale
    # Cron fields are wall-clock time of the zone.
    due = ministack.next_cron(expression, after.astimezone(zone).replace(tzinfo=UTC))
    return due and due.replace(tzinfo=zone).astimezone(UTC)
