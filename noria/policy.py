"""The `retrain:` part of a spec: what may train a model anew, how often, and when not."""

import re
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, WithJsonSchema, model_validator

from noria.units import Duration, Part

Trigger = Literal["upload", "drift", "quality", "bias"]
Cause = Literal["first", "upload", "rows", "drift", "quality", "bias", "schedule", "hand"]
"""What may ask for a training: `first`, data while there is no model yet; `rows`, enough of them; `hand`, a person."""

_PERIODS = {"day": timedelta(days=1), "week": timedelta(weeks=1), "month": timedelta(days=30)}


class Budget(Part):
    """`4 per month`: how many retrainings in a rolling period."""

    count: int = Field(ge=0)
    per: Literal["day", "week", "month"]

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, str):
            if not (found := re.fullmatch(r"\s*(\d+)\s+per\s+(day|week|month)\s*", value)):
                raise ValueError("write it as in: 4 per month (or day, or week)")
            return {"count": int(found[1]), "per": found[2]}
        return value

    @property
    def period(self) -> timedelta:
        return _PERIODS[self.per]


class Quiet(Part):
    """`22:00-06:00`: hours of each day, UTC, in which no training begins by itself; over midnight where they must."""

    start: time
    end: time

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, str):
            if not (found := re.fullmatch(r"\s*([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)\s*", value)):
                raise ValueError("write it as in: 22:00-06:00 (UTC)")
            begin_hour, begin_minute, end_hour, end_minute = map(int, found.groups())
            return {"start": time(begin_hour, begin_minute), "end": time(end_hour, end_minute)}
        return value

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.start == self.end:
            raise ValueError(
                "quiet hours that end when they begin are none, or all: leave them out, or set a budget of 0"
            )
        return self

    def until(self, now: datetime) -> datetime | None:
        """When they end; None when it is not within them. Their first second belongs to them, their end does not."""
        now = now.astimezone(UTC)
        for day in (now - timedelta(days=1), now):
            begins = datetime.combine(day, self.start, tzinfo=UTC)
            ends = datetime.combine(day + timedelta(days=self.end < self.start), self.end, tzinfo=UTC)
            if begins <= now < ends:
                return ends
        return None

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M} UTC"


class Retrain(Part):
    after: tuple[Trigger, ...] = Field(
        ("upload", "drift", "quality", "bias"),
        description="what trains by itself: each uploaded dataset (joined labels do not), alarms of that kind. "
        "The first dataset always does.",
    )
    new_rows: int | None = Field(
        None, ge=1, description="so many accepted rows that no training has learnt from are a reason of their own"
    )
    min_new_rows: int = Field(1, ge=1, description="fewer new rows than this, and nothing retrains by itself")
    cooldown: Duration = Field(timedelta(hours=24), description="shortest time from a retraining to the next by itself")
    budget: Annotated[Budget, WithJsonSchema({"type": "string", "pattern": r"^\d+ per (day|week|month)$"})] = Field(
        Budget(count=4, per="month"), description="how many retrainings in a rolling period"
    )
    hours: float | None = Field(
        None, gt=0, description="instance-hours that trainings may take in the budget's period, whoever asked for them"
    )
    quiet: Annotated[Quiet, WithJsonSchema({"type": "string", "pattern": r"^\d\d:\d\d-\d\d:\d\d$"})] | None = Field(
        None, description="hours of the day, UTC, in which nothing begins by itself: 22:00-06:00"
    )
    dry_run: bool = Field(False, description="decide and say so, and train nothing")
    schedule: str | None = Field(
        None,
        pattern=r"^(rate|cron)\(.+\)$",
        description="an EventBridge Scheduler expression, as in rate(7 days)",
    )
