"""What is wrong now, by rules that know no service."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noria import doctor
from noria.alarms import Severity, Told
from noria.decisions import NEED_NOT_COME
from noria.deployment import Desired
from noria.doctor import Alarm, Answering, Budget, Finding, Model, Stack, Version
from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.names import Names
from noria.pause import OPEN_END

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NAMES = Names(env="prod")
ONE = "arn:aws:sagemaker:eu-west-1:1:model-package/noria-prod-prices/1"
LIVE = {"package": ONE, "challenger": "none", "percent": 0, "shadow": "none"}


def entries(*told: tuple[float, Kind, str, dict[str, Any]]) -> list[Entry]:
    """Entries of so many hours ago."""
    found: list[Entry] = []
    for hours, kind, subject, details in told:
        at = NOW - timedelta(hours=hours)
        summary = str(details.get("reason", f"{kind}."))
        fact = Fact(model="prices", kind=kind, subject=subject, at=at, summary=summary, details=details)
        previous = found[-1].hash if found else GENESIS
        found.append(Entry.after(fact, number=len(found) + 1, previous=previous))
    return found


def model(*told: tuple[float, Kind, str, dict[str, Any]], **more: Any) -> Model:
    nothing: dict[str, Any] = {"head": True, "endpoint": None, "has_endpoint": True, "versions": []}
    return Model(name="prices", entries=entries(*told), **nothing | more)


def said(found: Model) -> list[str]:
    return [finding.what for finding in doctor.of_model(found, NOW)]


@pytest.mark.parametrize(
    ("name", "status", "hours", "wrong"),
    [
        ("noria-prod-prices-serving", "UPDATE_COMPLETE", 1, False),
        ("noria-prod-prices-serving", "UPDATE_ROLLBACK_COMPLETE", 1, False),
        ("noria-prod-reactions", "UPDATE_ROLLBACK_COMPLETE", 1, True),
        ("noria-prod-reactions", "ROLLBACK_COMPLETE", 1, True),
        ("noria-prod-prices-serving", "UPDATE_ROLLBACK_FAILED", 0, True),
        ("noria-prod-prices-serving", "UPDATE_IN_PROGRESS", 0.5, False),
        ("noria-prod-prices-serving", "UPDATE_IN_PROGRESS", 2, True),
    ],
)
def test_stacks(name: str, status: str, hours: float, *, wrong: bool) -> None:
    stack = Stack(name=name, status=status, changed=NOW - timedelta(hours=hours))
    assert [finding.since for finding in doctor.stacks([stack], NOW)] == [stack.changed] * wrong


def test_of_a_budget_both_windows_are_told_and_of_a_cause_what_raised_it() -> None:
    def alarm(name: str, severity: Severity | None, *children: str) -> Alarm:
        told = Told(severity=severity, runbook="error-budget").describe("prices: it is so.")
        rule = " AND ".join(f'ALARM("arn:aws:cloudwatch:eu-west-1:1:alarm:noria-prod-prices-{c}")' for c in children)
        return Alarm(name=f"noria-prod-prices-{name}", description=told, reason="r", since=NOW, rule=rule)

    def told(*raised: Alarm) -> list[str]:
        return [finding.what for finding in doctor.alarms(raised, NAMES, ["prices"])]

    windows = [alarm(f"availability-fast-{of}", None) for of in ("1h", "5m")]
    fast = alarm("availability-fast", Severity.CRITICAL, "availability-fast-1h", "availability-fast-5m")
    serving = alarm("serving", Severity.CRITICAL, "endpoint-errors", "availability-fast")
    assert told(windows[0]) == []
    assert told(*windows, fast) == told(*windows, fast, serving) == ["Alarm noria-prod-prices-availability-fast: r"]
    assert told(alarm("rollback-errors", None)) == []


def test_a_stuck_stack_is_told_how_to_go_on() -> None:
    (found,) = doctor.stacks([Stack(name="s", status="UPDATE_ROLLBACK_FAILED", changed=NOW)], NOW)
    assert found.command == "aws cloudformation continue-update-rollback --stack-name s"


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (model(), []),
        (
            model(
                (1, Kind.DEPLOYED, "d", LIVE),
                endpoint=Answering(status="Failed", failure="no image", desired=Desired(package=None)),
            ),
            ["prices has an endpoint that is Failed: no image"],
        ),
        (
            model(
                (1, Kind.DEPLOYMENT_REQUESTED, "d", LIVE),
                endpoint=Answering(status="InService", failure=None, desired=Desired(package=None)),
            ),
            [],
        ),
        (
            model(
                (2, Kind.DEPLOYMENT_REQUESTED, "d", LIVE),
                (2, Kind.DEPLOYED, "d", LIVE),
                endpoint=Answering(status="InService", failure=None, desired=Desired(package=ONE)),
            ),
            [],
        ),
        (model((2, Kind.DEPLOYED, "d", LIVE), has_endpoint=False), []),
        (
            model((3, Kind.DEPLOYMENT_REQUESTED, "d", LIVE)),
            ["prices: version 1 was asked for and is neither live nor taken back"],
        ),
        (
            model(
                (9, Kind.DEPLOYED, "d", LIVE),
                (8, Kind.DEPLOYED, "off", {"package": "none", "cause": "off"}),
                (7, Kind.DEPLOYMENT_REQUESTED, "e", LIVE | {"cause": "approved"}),
                (7, Kind.DEPLOYMENT_WAITING, "e", LIVE),
            ),
            [],
        ),
        (
            model((7, Kind.DEPLOYMENT_REQUESTED, "first", LIVE), (7, Kind.DEPLOYMENT_WAITING, "first", LIVE)),
            [],
        ),
        (
            model(
                (9, Kind.DEPLOYED, "d", LIVE),
                (7, Kind.DEPLOYMENT_REQUESTED, "e", LIVE | {"cause": "approved"}),
                (7, Kind.DEPLOYMENT_WAITING, "e", LIVE),
                endpoint=Answering(status="InService", failure=None, desired=Desired(package=ONE)),
            ),
            ["prices: version 1 was asked for and is neither live nor taken back"],
        ),
        (
            model(
                (9, Kind.DEPLOYED, "d", LIVE),
                (8, Kind.DEPLOYED, "off", {"package": "none", "cause": "off"}),
                (7, Kind.DEPLOYMENT_REQUESTED, "on", LIVE | {"cause": "on"}),
            ),
            ["prices: version 1 was asked for and is neither live nor taken back"],
        ),
        (
            model((13, Kind.TRAINING_STARTED, "t", {"execution": "e"})),
            ["prices: a training has run for 13h"],
        ),
        (model((13, Kind.TRAINING_STARTED, "t", {"execution": "e"}), (1, Kind.TRAINING_SUCCEEDED, "e", {})), []),
        (model((2, Kind.RETRAINING_REQUESTED, "one", {})), ["prices: a training was granted and has not begun"]),
        (
            model(
                (3, Kind.TRAINING_FAILED, "a", {"status": "Failed"}),
                (2, Kind.TRAINING_FAILED, "b", {"status": "Failed", "refused": True}),
                (1, Kind.TRAINING_FAILED, "c", {"status": "Failed"}),
            ),
            [],
        ),
        (
            model(
                versions=[Version(arn=ONE, number=1, approval="PendingManualApproval", created=NOW - timedelta(days=4))]
            ),
            ["prices: version 1 waits for approval"],
        ),
        (
            model(
                (1, Kind.PACKAGE_EXPIRED, ONE, {}),
                versions=[
                    Version(arn=ONE, number=1, approval="PendingManualApproval", created=NOW - timedelta(days=4))
                ],
            ),
            [],
        ),
        (
            model((1, Kind.DATASET_ACCEPTED, "a", {}), head=False),
            ["The ledger of prices does not hold: its head names another entry than the last"],
        ),
    ],
)
def test_a_model(found: Model, what: list[str]) -> None:
    assert said(found) == what


OFF = {"package": "none", "cause": "off"}
ON = LIVE | {"cause": "on"}
NIGHT: list[Any] = [(16, Kind.DEPLOYED, "d", LIVE), (15, Kind.DEPLOYED, "off", OFF)]


@pytest.mark.parametrize(
    ("told", "since"),
    [
        ([], None),
        ([(1, Kind.DEPLOYMENT_REQUESTED, "on", ON)], None),
        (
            [
                (1, Kind.DEPLOYMENT_REQUESTED, "on", ON),
                (0.9, Kind.DEPLOYMENT_SUPERSEDED, "on", LIVE | {"reason": NEED_NOT_COME}),
            ],
            None,
        ),
        ([(1, Kind.DEPLOYMENT_REQUESTED, "on", ON), (0.9, Kind.DEPLOYMENT_FAILED, "on", ON)], 0.9),
        (
            [
                (2, Kind.DEPLOYMENT_REQUESTED, "on", ON),
                (1.9, Kind.DEPLOYMENT_SUPERSEDED, "on", LIVE),
                (1, Kind.DEPLOYMENT_REQUESTED, "again", ON),
                (0.9, Kind.DEPLOYMENT_SUPERSEDED, "again", LIVE),
                (0.1, Kind.DEPLOYMENT_REQUESTED, "and again", ON),
            ],
            1.9,
        ),
        ([(5, Kind.DEPLOYMENT_REQUESTED, "on", ON), (4, Kind.DEPLOYMENT_FAILED, "on", ON)], None),
    ],
    ids=["off", "coming", "ended", "failed", "refused twice", "refused until its hours ended"],
)
def test_an_endpoint_that_does_not_come_back_in_its_hours(told: list[Any], since: float | None) -> None:
    found = list(doctor.of_model(model(*NIGHT, *told), NOW))
    assert [finding.since for finding in found] == ([] if since is None else [NOW - timedelta(hours=since)])
    for finding in found:
        assert finding.severity is Severity.CRITICAL
        assert finding.what.startswith("prices has not come back in its hours: ")
        assert (finding.runbook, finding.command) == ("endpoint-errors", "noria status prices")


def test_a_paused_model_is_told_how_to_go_on() -> None:
    details = {"until": OPEN_END.isoformat(), "by": "arn:aws:iam::1:user/ana", "reason": "a new airport"}
    found = model((1, Kind.MODEL_PAUSED, "wish", details))
    (finding,) = doctor.of_model(found, NOW)
    assert "prices is paused by ana" in finding.what
    assert "a new airport" in finding.what
    assert finding.command == "noria resume prices --reason '…'"


@pytest.mark.parametrize(
    ("spent", "forecast", "what"),
    [
        (90, 95, []),
        (90, None, []),
        (110, 200, ["110 of 100 USD are spent this month"]),
        (50, 120, ["50 of 100 USD are spent this month, and 120 USD are forecast"]),
    ],
)
def test_the_budget(spent: float, forecast: float | None, what: list[str]) -> None:
    found = doctor.budget(Budget(name="b", limit=100, spent=spent, forecast=forecast))
    assert [finding.what for finding in found] == what


def test_an_alarm_is_of_the_model_with_the_longest_name_that_fits() -> None:
    description = Told(severity=Severity.CRITICAL, runbook="endpoint-errors").describe("It fails.")
    alarm = Alarm(name="noria-prod-prices-new-endpoint-errors", description=description, reason="5XX", since=NOW)
    (found,) = doctor.alarms([alarm], NAMES, ["prices", "prices-new"])
    assert (found.severity, found.command) == (Severity.CRITICAL, "noria status prices-new")
    letters = Told(severity=Severity.CRITICAL, runbook="dead-letters").describe("It waits.")
    dead = Alarm(name="noria-prod-dead-letters", description=letters, reason="1", since=NOW)
    assert list(doctor.alarms([dead], NAMES, ["prices"])) == [], "told by what lies there"


def test_the_worst_and_the_oldest_come_first_and_commands_name_the_environment() -> None:
    def finding(what: str, severity: Severity, hours: float | None, command: str = "aws s3 ls") -> Finding:
        since = None if hours is None else NOW - timedelta(hours=hours)
        return Finding(severity=severity, what=what, since=since, means="It is so.", command=command)

    found = [
        finding("d", Severity.WARNING, 9),
        finding("c", Severity.CRITICAL, None),
        finding("b", Severity.CRITICAL, 1, "noria queues"),
        finding("a", Severity.CRITICAL, 2),
    ]
    told = doctor.in_order(found, "prod")
    assert [f.what for f in told] == ["a", "b", "c", "d"]
    assert [f.command for f in told][1:3] == ["noria queues --env prod", "aws s3 ls"]
