"""Service levels against hand-made histories, whose budgets are counted by hand."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from noria.cli.objectives import KeptRow, left_out_of
from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.objectives import Kept, Objectives, Served, by_ledger, by_requests, within

NOW = datetime(2026, 6, 30, tzinfo=UTC)
ALARM = "noria-dev-m-drift"  # and noria-dev-m-prediction-drift is another
CHAMPION = {"package": "arn:p/1", "challenger": "none", "percent": 0, "shadow": "none"}


def at(minutes: float) -> datetime:
    """So many minutes into the first of June."""
    return datetime(2026, 6, 10, tzinfo=UTC) + timedelta(minutes=minutes)


def history(*told: tuple[float, Kind, str, dict[str, Any], str | None]) -> list[Entry]:
    return [
        Entry.after(
            Fact(model="m", kind=kind, subject=subject, at=at(minutes), summary="It is said.", details=details),
            number=number,
            previous=GENESIS,
            correlation=correlation,
        )
        for number, (minutes, kind, subject, details, correlation) in enumerate(told, start=1)
    ]


def kept(asked: Objectives, entries: Sequence[Entry]) -> Kept:
    (only,) = by_ledger("m", asked, entries, now=NOW)
    return only


def test_the_budget_of_availability_is_what_it_leaves() -> None:
    asked = Objectives(availability=99.9)
    period = Served(requests=1_000_000, failed=250, slow=None)
    (found,) = by_requests("m", asked, period, Served(requests=1000, failed=2, slow=None))
    assert (found.events, found.bad) == (1_000_000, 250)
    assert found.share == pytest.approx(0.99975)
    assert found.left == pytest.approx(0.75)  # 250 of the 1,000 that may fail
    assert found.burn == pytest.approx(2)  # 2 in 1,000 are twice as many as may
    assert not found.exhausted


def test_a_budget_that_is_used_up_is_below_nothing_and_said_so() -> None:
    asked = Objectives(availability=99, latency_p95_ms=50)
    found = list(by_requests("m", asked, Served(1000, 20, 40), Served(0, 0, 0)))
    assert [each.left for each in found] == [pytest.approx(-1), pytest.approx(0.2)]
    assert [each.burn for each in found] == [None, None]
    assert [KeptRow.of(each).budget_left for each in found] == ["used up", "20 %"]


def test_what_is_not_promised_is_not_judged_and_nothing_happening_uses_nothing() -> None:
    assert list(by_requests("m", Objectives(), Served(10, 10, None), Served(10, 10, None))) == []
    (silent,) = by_requests("m", Objectives(latency_p95_ms=10), Served(0, 0, 0), Served(0, 0, 0))
    assert (silent.share, silent.left, silent.burn) == (None, None, None)


def test_requests_of_noria_s_own_are_no_clients_and_are_told_of() -> None:
    asked = Objectives(availability=99, latency_p95_ms=50)
    every, own = Served(1200, 25, 250), Served(200, 20, 190)
    found = list(by_requests("m", asked, every.without(own), Served(10, 0, 0).without(Served(10, 1, 3)), own=200))
    assert [(each.events, each.bad, each.left, each.burn) for each in found] == [  # type: ignore[comparison-overlap]
        (1000, 5, pytest.approx(0.5), None),
        (1000, 60, pytest.approx(-0.2), None),
    ]
    (line,) = left_out_of([KeptRow.of(each) for each in found])
    assert line.endswith("too: 200 to m.")
    assert left_out_of([KeptRow.of(each) for each in by_requests("m", asked, every, every)]) == []
    assert Served(5, 0, None).without(Served(9, 1, None)) == Served(0, 0, None)


def test_an_upload_is_live_when_its_version_is_without_the_wait_for_people() -> None:
    chain = "upload-1"
    entries = history(
        (0, Kind.DATASET_ACCEPTED, "sha", {"key": "m/incoming/june.csv"}, chain),
        (1, Kind.TRAINING_STARTED, "token", {}, chain),
        (2, Kind.DATASET_ACCEPTED, "other", {"key": "m/incoming/july.csv"}, "upload-2"),
        (21, Kind.TRAINING_SUCCEEDED, "execution", {"package": "arn:p/1"}, chain),
        (621, Kind.PACKAGE_APPROVED, "arn:p/1#then", {"package": "arn:p/1"}, chain),
        (622, Kind.DEPLOYMENT_REQUESTED, "deploy-1", {**CHAMPION, "decided_at": at(621).isoformat()}, chain),
        (640, Kind.DEPLOYED, "deploy-1", {**CHAMPION, "cause": "approved"}, chain),
        # The same version again, after a rollback by hand: no upload of its own.
        (999, Kind.DEPLOYED, "deploy-2", {**CHAMPION, "cause": "approved"}, chain),
    )
    in_time = kept(Objectives(upload_to_live=timedelta(minutes=40)), entries)
    assert (in_time.events, in_time.bad, in_time.worst) == (1, 0, "m/incoming/june.csv: 40m 00s")
    late = kept(Objectives(upload_to_live=timedelta(minutes=39)), entries)
    assert (late.events, late.bad) == (1, 1)
    assert (late.left, late.exhausted) == (0, False)


def test_an_endpoint_that_goes_or_comes_by_its_hours_brings_no_upload_live() -> None:
    chain, off = "upload-1", {"package": "none", "challenger": "none", "percent": 0, "shadow": "none"}
    entries = history(
        (0, Kind.DATASET_ACCEPTED, "sha", {"key": "m/incoming/june.csv"}, chain),
        (21, Kind.TRAINING_SUCCEEDED, "execution", {"package": "arn:p/2"}, chain),
        (22, Kind.PACKAGE_APPROVED, "arn:p/2#then", {"package": "arn:p/2"}, chain),
        (40, Kind.ROLLED_BACK, "deploy-2", {**CHAMPION, "package": "arn:p/2", "cause": "approved"}, chain),
        # It is asked for by who said that, and so is an effect of the upload, too.
        (45, Kind.DEPLOYED, "off", {**off, "cause": "off"}, chain),
        (700, Kind.DEPLOYED, "on", {**CHAMPION, "cause": "on"}, chain),
    )
    promise = Objectives(upload_to_live=timedelta(minutes=40))
    assert kept(promise, entries).events == 0
    live = (720, Kind.DEPLOYED, "deploy-3", {**CHAMPION, "package": "arn:p/2", "cause": "approved"}, chain)
    later = [*entries, *history(*[live] * 7)[6:]]
    assert kept(promise, later).worst == "m/incoming/june.csv: 11h 59m"


def test_drift_is_detected_since_the_first_window_of_those_that_raised_the_alarm() -> None:
    def window(start: float, *breached: str) -> tuple[float, Kind, str, dict[str, Any], None]:
        name = f"{at(start).isoformat()}/{at(start + 60).isoformat()}"
        return start + 75, Kind.MONITORED, name, {"breached": list(breached)}, None

    asks = {"alarm": ALARM, "cause": "drift"}
    entries = history(
        window(0, "drift"),
        window(60),
        window(120, "drift", "outliers"),
        window(180, "drift"),
        window(240, "prediction-drift", "drift"),
        (330, Kind.RETRAINING_DECLINED, "transition", asks, None),
        (900, Kind.RETRAINING_REQUESTED, "transition, again", asks, None),
        (901, Kind.RETRAINING_REQUESTED, "an upload", {"alarm": None}, None),
    )
    found = kept(Objectives(detect=timedelta(hours=2)), entries)
    assert (found.events, found.bad) == (1, 1)
    assert found.worst == f"{ALARM}: 3h 30m"


def test_ways_back_are_timed_from_the_decision_and_old_ones_are_over() -> None:
    def went(minutes: float, id_: str, cause: str, end: Kind, took: float) -> Any:
        asked = {**CHAMPION, "cause": cause, "decided_at": at(minutes - 1).isoformat()}
        yield minutes, Kind.DEPLOYMENT_REQUESTED, id_, asked, None
        yield minutes + took, end, id_, {**CHAMPION, "cause": cause}, None

    entries = history(
        *went(-60 * 24 * 20, "long ago", "rollback", Kind.DEPLOYED, 500),
        *went(0, "forward", "approved", Kind.DEPLOYED, 300),
        *went(400, "back", "rollback", Kind.DEPLOYED, 4),
        *went(500, "by an alarm", "approved", Kind.ROLLED_BACK, 25),
    )
    found = kept(Objectives(roll_back=timedelta(minutes=10)), entries)
    assert (found.events, found.bad, found.worst) == (2, 1, "version 1, by an alarm: 25m 00s")
    assert kept(Objectives(roll_back=timedelta(minutes=25)), entries).bad == 0


def test_a_way_back_from_what_is_off_keeps_nobody_waiting() -> None:
    back = {**CHAMPION, "cause": "rollback", "decided_at": at(10).isoformat()}
    entries = history(
        (0, Kind.DEPLOYED, "off", {**CHAMPION, "package": "none", "cause": "off"}, None),
        (11, Kind.DEPLOYMENT_REQUESTED, "back", back, None),
        (700, Kind.DEPLOYED, "on", {**CHAMPION, "cause": "on"}, None),
        (701, Kind.DEPLOYED, "back", {**CHAMPION, "cause": "rollback"}, None),
        (710, Kind.DEPLOYMENT_REQUESTED, "further", back | {"decided_at": at(709).isoformat()}, None),
        (715, Kind.DEPLOYED, "further", {**CHAMPION, "cause": "rollback"}, None),
    )
    found = kept(Objectives(roll_back=timedelta(minutes=10)), entries)
    assert (found.events, found.bad, found.worst) == (1, 0, "version 1, rollback: 6m 00s")


def test_one_late_thing_is_forgiven_and_two_are_not() -> None:
    def back(number: int, took: float) -> Any:
        asked = {**CHAMPION, "cause": "rollback", "decided_at": at(number * 100).isoformat()}
        yield number * 100, Kind.DEPLOYMENT_REQUESTED, f"d{number}", asked, None
        yield number * 100 + took, Kind.DEPLOYED, f"d{number}", {**CHAMPION, "cause": "rollback"}, None

    promise = Objectives(roll_back=timedelta(minutes=10))
    one = kept(promise, history(*back(1, 50), *back(2, 1), *back(3, 1)))
    two = kept(promise, history(*back(1, 50), *back(2, 50), *back(3, 1)))
    assert (one.exhausted, two.exhausted) == (False, True)


@pytest.mark.parametrize(("limit", "told"), [(50, "50000"), (1500, "1500000"), (0.5, "500"), (1234.567, "1234567")])
def test_a_limit_is_written_as_cloudwatch_reads_it(limit: float, told: str) -> None:
    assert within(limit) == f"TC(:{told})"


def test_an_alarm_of_another_monitor_is_another() -> None:
    name = f"{at(0).isoformat()}/{at(60).isoformat()}"
    entries = history(
        (75, Kind.MONITORED, name, {"breached": ["drift"]}, None),
        (80, Kind.RETRAINING_REQUESTED, "t", {"alarm": "noria-dev-m-prediction-drift"}, None),
    )
    assert kept(Objectives(detect=timedelta(hours=2)), entries).events == 0


@pytest.mark.parametrize("told", ["99.9%", "99.9 %", 99.9])
def test_a_share_is_written_as_people_write_it(told: object) -> None:
    assert Objectives.model_validate({"availability": told}).availability == 99.9


@pytest.mark.parametrize("wrong", [{"availability": 100}, {"availability": 0.999}, {"detect": 5}, {"uptime": 99}])
def test_what_cannot_be_promised_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Objectives.model_validate(wrong)
