"""What was live at a moment, from the ledger alone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noria.cli.ledger import Live, live_then
from noria.cli.output import Refused
from noria.cli.state import Deployed
from noria.history import LiveThen, live_at
from noria.ledger import GENESIS, Entry, Fact, Kind

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ARN = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/noria-prod-delays"


class Ledger:
    """Facts as Noria records them, at hours after noon."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def say(self, hour: float, kind: Kind, subject: str, **details: Any) -> None:
        fact = Fact(
            model="delays",
            kind=kind,
            subject=subject,
            at=NOON + timedelta(hours=hour),
            summary=f"{kind} of {subject}.",
            details=details,
        )
        previous = self.entries[-1].hash if self.entries else GENESIS
        self.entries.append(Entry.after(fact, number=len(self.entries) + 1, previous=previous))

    def approve(self, hour: float, version: int, by: str, reason: str, *, heard: float | None = None) -> None:
        package, at = f"{ARN}/{version}", NOON + timedelta(hours=hour)
        subject = f"{package}#{at.isoformat()}"
        self.say(heard or hour, Kind.PACKAGE_APPROVED, subject, package=package, by=by, reason=reason)

    def deploy(
        self,
        hour: float,
        name: str,
        champion: int | None,
        *,
        cause: str = "approved",
        live: float | None = None,
        **rest: Any,
    ) -> None:
        desired = {"package": f"{ARN}/{champion}" if champion else "none", **rest}
        self.say(hour, Kind.DEPLOYMENT_REQUESTED, name, **desired, cause=cause, reason=f"why {name}")
        if live is not None:
            self.say(live, Kind.DEPLOYED, name, **desired)


@pytest.fixture
def ledger() -> Ledger:
    """1 goes live, then 2 beside it, which is promoted; 3 is rolled back; then 3 is its shadow; then all is retired."""
    ledger = Ledger()
    ledger.approve(0, 1, "alice", "good enough")
    ledger.deploy(0, "deploy-1", 1, live=1)
    ledger.approve(2, 2, "bob", "to be compared")
    ledger.deploy(2, "deploy-2", 1, cause="traffic", live=3, challenger=f"{ARN}/2", percent=10)
    ledger.deploy(4, "deploy-3", 1, cause="traffic", live=5, challenger=f"{ARN}/2", percent=50)
    ledger.deploy(6, "deploy-4", 2, cause="promote", live=7)
    ledger.approve(8, 3, "carol", "newer")
    ledger.deploy(8, "deploy-5", 3)
    ledger.say(9, Kind.ROLLED_BACK, "deploy-5", package=f"{ARN}/3", blamed=f"{ARN}/3")
    ledger.deploy(10, "deploy-6", 2, cause="shadow", live=11, shadow=f"{ARN}/3")
    ledger.deploy(20, "deploy-7", None, cause="retired", live=21)
    return ledger


def then(ledger: Ledger, hour: float) -> LiveThen:
    return live_at("delays", ledger.entries, NOON + timedelta(hours=hour))


def parts(ledger: Ledger, hour: float) -> list[tuple[str, str, int | None, float]]:
    """Part, version, percent and since which hour."""
    return [
        (a.part, a.package.rsplit("/", 1)[1], a.percent, (a.since - NOON) / timedelta(hours=1))
        for a in then(ledger, hour).answering
    ]


def test_before_anything_was_live_nothing_was(ledger: Ledger) -> None:
    for hour in (-5, 0.5):
        assert (then(ledger, hour).answering, then(ledger, hour).since) == ([], None)
    assert then(ledger, 0.5).until == NOON + timedelta(hours=1)
    assert "no version had gone live yet" in Live.model_validate(then(ledger, 0.5).model_dump()).text


@pytest.mark.parametrize(
    ("hour", "answered"),
    [
        (1, [("champion", "1", None, 1)]),
        (3.5, [("champion", "1", None, 1), ("challenger", "2", 10, 3)]),
        (
            5.5,
            [("champion", "1", None, 1), ("challenger", "2", 50, 3)],
        ),  # since it is a challenger, not since the share
        (7.5, [("champion", "2", None, 7)]),
        (8.5, [("champion", "2", None, 7)]),  # asked for, not live
        (9.5, [("champion", "2", None, 7)]),  # rolled back
        (12, [("champion", "2", None, 7), ("shadow", "3", None, 11)]),
        (22, []),
    ],
)
def test_who_answered_and_since_when(ledger: Ledger, hour: float, answered: list[tuple[Any, ...]]) -> None:
    assert parts(ledger, hour) == answered


def test_by_whose_word_and_why(ledger: Ledger) -> None:
    champion, challenger = then(ledger, 3.5).answering
    assert (champion.deployment, champion.cause, champion.reason) == ("deploy-1", "approved", "why deploy-1")
    assert champion.approval is not None
    assert (champion.approval.by, champion.approval.reason) == ("alice", "good enough")
    assert challenger.approval is not None
    assert (challenger.deployment, challenger.approval.by) == ("deploy-2", "bob")
    text = Live.model_validate(then(ledger, 3.5).model_dump()).text
    assert "champion: version 1, since 2026-11-21 13:00:00 UTC" in text
    assert "approved by alice at 2026-11-21 12:00:00 UTC: good enough" in text
    assert "challenger: version 2 on 10%" in text


def test_the_time_of_an_approval_is_when_it_was_given_and_not_when_a_pause_ended(ledger: Ledger) -> None:
    ledger.approve(30, 4, "dan", "while it was paused", heard=40)
    ledger.deploy(40, "deploy-8", 4, live=41)
    (champion,) = then(ledger, 42).answering
    assert champion.approval is not None
    assert champion.approval.at == NOON + timedelta(hours=30)
    assert "approved by dan at 2026-11-22 18:00:00 UTC" in Live.model_validate(then(ledger, 42).model_dump()).text


def test_it_was_so_until_something_else_answered(ledger: Ledger) -> None:
    assert then(ledger, 5.5).since == NOON + timedelta(hours=5)  # the share changed
    assert then(ledger, 5.5).until == NOON + timedelta(hours=7)
    assert then(ledger, 8.5).until == NOON + timedelta(hours=11)
    assert then(ledger, 30).until is None
    assert "nothing was live" in Live.model_validate(then(ledger, 30).model_dump()).text


def test_what_answers_unasked_has_no_deployment(ledger: Ledger) -> None:
    ledger.say(23, Kind.SERVING_DIFFERS, "config#1", package=f"{ARN}/9", config="by-hand")
    (answering,) = then(ledger, 24).answering
    assert (answering.package, answering.deployment, answering.approval) == (f"{ARN}/9", None, None)
    assert answering.reason == "serving_differs of config#1."


def test_nobody_knows_yet_what_will_be_live() -> None:
    with pytest.raises(Refused, match="--at 2030-01-01T00:00:00Z is still to come"):
        live_then(Deployed("local"), "delays", "2030-01-01T00:00:00Z", now=NOON)
