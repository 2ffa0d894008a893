"""The hours in which a model answers: its spec's `serve.hours`, and what the clock says of them."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, field_validator, model_validator

from noria.units import Part, format_duration

DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
STARTING = timedelta(minutes=15)
"""How long after hours have begun nobody is told that there is no endpoint yet."""

SHORTEST = timedelta(hours=1)
"""An endpoint takes minutes to come and to go."""

_A_DAY = timedelta(days=1)
_NAMED = "|".join(DAYS)
_SPAN = rf"({_NAMED})(-({_NAMED}))?"
_DAYS = rf"^{_SPAN}(,{_SPAN})*$"


def _parse(value: object) -> object:
    # YAML reads 20:00 without quotes as a number of base 60.
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value // 60:02}:{value % 60:02}"
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,2}):([0-5]\d)", value.strip())):
        moment = timedelta(hours=int(found[1]), minutes=int(found[2]))
        if moment <= _A_DAY:
            return moment
    if isinstance(value, timedelta):
        return value
    raise ValueError('write a time of the day in quotes, as in "07:00"; "24:00" is its end')


def _text(value: timedelta) -> str:
    minutes = value // timedelta(minutes=1)
    return f"{minutes // 60:02}:{minutes % 60:02}"


TimeOfDay = Annotated[
    timedelta,
    BeforeValidator(_parse),
    PlainSerializer(_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,2}:[0-5]\d$", "examples": ["07:00", "20:00"]}),
]
"""By a clock on the wall, since midnight."""


class Hours(Part):
    """On these days, from one time to another, a model answers; outside of them it has no endpoint."""

    days: str = Field(
        "MON-FRI",
        json_schema_extra={"pattern": _DAYS},
        description="as in MON-FRI, or in MON,WED,FRI",
    )
    start: TimeOfDay = Field(alias="from", description='when a day begins, as in "07:00"')
    end: TimeOfDay = Field(alias="to", description='when it ends, as in "20:00", or "24:00"')
    timezone: str = Field("UTC", description="of these times, as in Europe/Madrid")

    @field_validator("days", mode="before")
    @classmethod
    def _known(cls, days: object) -> object:
        if isinstance(days, str) and re.fullmatch(_DAYS, days):
            return days
        raise ValueError(f"write days as in MON-FRI, or in MON,WED,FRI; known are {', '.join(DAYS)}")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.end - self.start < SHORTEST:
            raise ValueError(
                f"from {_text(self.start)} to {_text(self.end)} is less than {format_duration(SHORTEST)} of one day: "
                "an endpoint takes minutes to come; hours over midnight cannot be written"
            )
        if self.week == 7 * _A_DAY:
            raise ValueError("hours that never end are none: leave `hours` out")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"timezone {self.timezone!r} is not known: write it as in Europe/Madrid") from error
        return self

    @cached_property
    def weekdays(self) -> tuple[int, ...]:
        """Of the days, Monday being 0."""
        found: set[int] = set()
        for first, _, last in re.findall(_SPAN, self.days):
            begin, end = DAYS.index(first), DAYS.index(last or first)
            found |= {day % 7 for day in range(begin, end + (0 if begin <= end else 7) + 1)}
        return tuple(sorted(found))

    @property
    def week(self) -> timedelta:
        """How long a model answers in a week."""
        return len(self.weekdays) * (self.end - self.start)

    def __str__(self) -> str:
        return f"{self.days} {_text(self.start)} to {_text(self.end)} {self.timezone}"

    # --- what the clock says

    def include(self, moment: datetime) -> bool:
        return any(start <= moment < end for start, end in self._around(moment))

    def excuse(self, moment: datetime) -> timedelta | None:
        """How long to wait, where at that moment nobody expects an endpoint; None where there should be one."""
        if not self.include(moment):
            return self.next_start(moment) - moment
        return timedelta(minutes=1) if moment - self.turned(moment) < STARTING else None

    def turned(self, moment: datetime) -> datetime:
        """When it last became as it is at that moment: the last beginning or end of a day's hours before it."""
        return max(turn for span in self._around(moment) for turn in span if turn <= moment)

    def next_start(self, moment: datetime) -> datetime:
        """When a day's hours begin next, in UTC."""
        return min(start for start, _ in self._around(moment) if start > moment)

    def local(self, moment: datetime) -> str:
        """As people in the time zone write it.

        >>> Hours.model_validate({"from": "07:00", "to": "20:00", "timezone": "Europe/Madrid"}).local(
        ...     datetime(2026, 11, 23, 6, tzinfo=UTC)
        ... )
        'Mon 23 Nov 07:00 Europe/Madrid'
        """
        return f"{moment.astimezone(ZoneInfo(self.timezone)):%a %d %b %H:%M} {self.timezone}"

    def between(self, since: datetime, until: datetime) -> timedelta:
        """How much of that time is within the hours."""
        days = (until - since) // _A_DAY + 2
        spans = self._spans(since, -1, days)
        return sum((max(min(end, until) - max(start, since), timedelta()) for start, end in spans), timedelta())

    def _around(self, moment: datetime) -> list[tuple[datetime, datetime]]:
        """Each day's hours from a week before the moment to a week after, in UTC."""
        return list(self._spans(moment, -8, 8))

    def _spans(self, moment: datetime, first: int, last: int) -> Iterator[tuple[datetime, datetime]]:
        zone = ZoneInfo(self.timezone)
        today = moment.astimezone(zone).date()
        for number in range(first, last + 1):
            day = today + number * _A_DAY
            if day.weekday() in self.weekdays:
                yield _at(day, self.start, zone), _at(day, self.end, zone)

    # --- what a schedule says

    @property
    def crons(self) -> tuple[str, str]:
        """When a day's hours begin and when they end, for EventBridge Scheduler, in the time zone."""
        return _cron(self.start, self.weekdays), _cron(self.end, self.weekdays)


def _at(day: date, time: timedelta, zone: ZoneInfo) -> datetime:
    """Time on the wall, whatever the clock does that night."""
    return (datetime(day.year, day.month, day.day, tzinfo=zone) + time).astimezone(UTC)


def _cron(time: timedelta, weekdays: tuple[int, ...]) -> str:
    later, within = divmod(time, _A_DAY)
    hour, minute = divmod(within // timedelta(minutes=1), 60)
    days = ",".join(DAYS[day] for day in sorted((day + later) % 7 for day in weekdays))
    return f"cron({minute} {hour} ? * {days} *)"
