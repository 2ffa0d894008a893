"""Hours in which a model answers, against the calendar of Madrid, where the clock is put forward and back."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from noria.hours import Hours
from noria.serve import Serve

START = datetime(2026, 1, 1, tzinfo=UTC)
MADRID = ZoneInfo("Europe/Madrid")
OFFICE = Hours.model_validate({"from": "07:00", "to": "20:00", "timezone": "Europe/Madrid"})
WEEKDAYS = Hours.model_validate({"from": "00:00", "to": "24:00", "timezone": "Europe/Madrid"})
ALL = (
    OFFICE,
    WEEKDAYS,
    Hours.model_validate({"days": "FRI-MON,WED", "from": "1:30", "to": "23:15", "timezone": "Pacific/Chatham"}),
)


def at(text: str) -> datetime:
    """A time on Madrid's walls."""
    return datetime.fromisoformat(text).replace(tzinfo=MADRID).astimezone(UTC)


@pytest.mark.parametrize(
    ("moment", "within"),
    [
        ("2026-11-23 06:59", False),
        ("2026-11-23 07:00", True),
        ("2026-11-23 19:59", True),
        ("2026-11-23 20:00", False),
        ("2026-11-21 12:00", False),  # a Saturday
        ("2026-03-30 07:00", True),  # the clock was put forward the night before
        ("2026-10-26 06:59", False),  # … and back
    ],
)
def test_they_are_those_of_the_clock_on_the_wall(moment: str, *, within: bool) -> None:
    assert OFFICE.include(at(moment)) is within


def test_after_friday_evening_comes_monday_morning_whatever_the_clock_does() -> None:
    assert OFFICE.next_start(at("2026-03-27 20:00")) == at("2026-03-30 07:00") == datetime(2026, 3, 30, 5, tzinfo=UTC)
    assert OFFICE.turned(at("2026-03-29 12:00")) == at("2026-03-27 20:00")
    assert OFFICE.turned(at("2026-03-30 12:00")) == at("2026-03-30 07:00")
    assert OFFICE.between(at("2026-03-27 19:00"), at("2026-03-30 08:00")) == timedelta(hours=2)


def test_a_whole_day_ends_when_the_next_begins() -> None:
    assert WEEKDAYS.include(at("2026-11-24 00:00"))
    assert WEEKDAYS.crons == ("cron(0 0 ? * MON,TUE,WED,THU,FRI *)", "cron(0 0 ? * TUE,WED,THU,FRI,SAT *)")
    assert OFFICE.crons == ("cron(0 7 ? * MON,TUE,WED,THU,FRI *)", "cron(0 20 ? * MON,TUE,WED,THU,FRI *)")


@given(
    hours=st.sampled_from(ALL),
    moment=st.integers(0, 2 * 365 * 24 * 60).map(lambda minutes: START + timedelta(minutes=minutes)),
    days=st.floats(0, 20),
)
def test_what_they_say_agrees_with_the_minutes_one_by_one(hours: Hours, moment: datetime, days: float) -> None:
    zone = ZoneInfo(hours.timezone)

    def within(minute: datetime) -> bool:
        local = minute.astimezone(zone)
        time = timedelta(hours=local.hour, minutes=local.minute)
        return local.weekday() in hours.weekdays and hours.start <= time < hours.end

    assert hours.include(moment) is within(moment)
    start, turned = hours.next_start(moment), hours.turned(moment)
    assert turned <= moment < start
    assert within(start)
    if hours is not WEEKDAYS:  # there a day's end may be another's beginning
        assert not within(start - timedelta(minutes=1))
        assert within(turned) is within(moment) is not within(turned - timedelta(minutes=1))
    quarters = [moment + timedelta(minutes=15 * n) for n in range(int(days * 4))]
    counted = sum((timedelta(minutes=15) for quarter in quarters if within(quarter)), timedelta())
    end = moment + timedelta(minutes=15 * len(quarters))
    assert abs(hours.between(moment, end) - counted) <= timedelta(minutes=15) * (2 * len(quarters) / 96 + 2)


def test_yaml_reads_a_time_without_quotes_as_a_number() -> None:
    assert Hours.model_validate({"from": "07:00", "to": 20 * 60, "timezone": "Europe/Madrid"}) == OFFICE


def test_they_survive_the_way_to_the_functions() -> None:
    assert Hours.model_validate_json(OFFICE.model_dump_json()) == OFFICE


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"from": "20:00", "to": "07:00"}, "hours over midnight cannot be written"),
        ({"from": "07:00", "to": "07:30"}, "less than 1h"),
        ({"from": "7am", "to": "20:00"}, "write a time of the day in quotes"),
        ({"from": "07:00", "to": "25:00"}, "write a time of the day in quotes"),
        ({"from": "07:00", "to": "20:00", "timezone": "Madrid"}, "timezone 'Madrid' is not known"),
        ({"from": "07:00", "to": "20:00", "timezone": "/etc/passwd"}, "is not known"),
        ({"from": "00:00", "to": "24:00", "days": "MON-SUN"}, "leave `hours` out"),
        ({"from": "07:00", "to": "20:00", "days": "Monday"}, "write days as in MON-FRI, or in MON,WED,FRI; known"),
        ({"from": "07:00", "to": "20:00", "days": ["MON"]}, "write days as in MON-FRI"),
    ],
)
def test_what_cannot_be_is_told(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Hours.model_validate(given)


@pytest.mark.parametrize("mode", ["serverless", "batch"])
def test_what_has_no_instances_has_no_hours(mode: str) -> None:
    with pytest.raises(ValidationError, match=f"hours take instances away, which mode {mode} does not have"):
        Serve.model_validate({"mode": mode, "hours": OFFICE})


def test_an_endpoint_that_keeps_requests_waiting_has_no_hours() -> None:
    with pytest.raises(ValidationError, match="the requests that wait for it: remove hours, and use scale with min 0"):
        Serve.model_validate({"mode": "async", "count": 1, "hours": OFFICE})
