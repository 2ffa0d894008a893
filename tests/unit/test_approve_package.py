"""approve_package against AWS in memory: what time brings, approvals that nobody let count, and gates that approve."""

from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lambdas.approve_package.handler import Approver, Outcome, react
from noria.alarms import Severity
from noria.approval import AUTOMATIC
from noria.aws.approvals import Approvals
from noria.aws.pages import Pages
from noria.events import Tick, TrainingEnded
from noria.ledger import Fact, Kind
from noria.spec import ModelSpec
from tests.unit.serving_world import GROUP, MODEL, Died, World
from tests.unit.test_serving_machine import SHIPPED, Serving

BEN = "arn:aws:iam::123456789012:user/ben"


class Desk:
    """One package, and the function that approves it."""

    def __init__(self, **approval: Any) -> None:
        self.world = World()
        self.spec = ModelSpec.model_validate(SHIPPED | {"model": MODEL, "approval": approval})
        self.serving = Serving(self.world, self.spec)
        self.package = self.world.register()
        self.world.packages[self.package]["CustomerMetadataProperties"]["noria:execution"] = "run"

    @property
    def approver(self) -> Approver:
        serving = self.serving
        return Approver(
            approvals=Approvals(registry=serving.registry, storage=serving.storage),
            ledger=serving.ledger,
            pages=Pages(topics={severity: severity.value for severity in Severity}, client=serving.aws),
            now=self.world.now,
        )

    def ticks(self) -> Outcome:
        detail = {"model": MODEL, "time": self.world.now.isoformat(), "package": self.package}
        tick = Tick.model_validate({"source": "noria.schedule", "detail-type": "Look At Package", "detail": detail})
        return react(tick, self.spec, self.package, GROUP, self.approver)

    def trained(self) -> Outcome:
        detail = {"model": MODEL, "execution": "run", "outcome": "succeeded", "package": self.package}
        told = TrainingEnded.model_validate({"detail-type": "Training Ended", "detail": detail})
        return react(told, self.spec, self.package, GROUP, self.approver)

    @property
    def status(self) -> str:
        return str(self.world.packages[self.package]["ModelApprovalStatus"])

    def kinds(self) -> list[Kind]:
        return [entry.kind for entry in self.serving.entries()]


def replayed(desk: Desk, models: Path) -> list[str]:
    (models / f"{MODEL}.json").write_text(desk.spec.model_dump_json())
    desk.serving.reconcile(models)
    return [entry.subject for entry in desk.serving.entries() if entry.kind is Kind.REPLAYED]


def test_who_waits_too_long_expires_and_people_are_told_once(tmp_path: Path) -> None:
    desk = Desk(mode="strict", within="14d")
    assert (desk.ticks(), replayed(desk, tmp_path)) == (Outcome.NOTHING, [])
    desk.world.pass_time(timedelta(days=15))
    assert replayed(desk, tmp_path) == [f"package_expired {desk.package}"]
    for _ in range(2):
        desk.ticks()
        assert replayed(desk, tmp_path) == [f"package_expired {desk.package}"]
    assert desk.kinds().count(Kind.PACKAGE_EXPIRED) == 1
    (page,) = desk.world.pages
    assert "version 1 expired" in page


def died_after(calls: int) -> Desk:
    desk = Desk(mode="strict")
    desk.world.dies_after = calls
    with pytest.raises(Died):
        desk.approver.approve(desk.spec, GROUP, desk.package, by=BEN, reason="good")
    desk.world.dies_after, desk.world.dead = None, False
    return desk


def test_approvals_count_though_whoever_recorded_the_last_died_before_they_did(tmp_path: Path) -> None:
    desk = next(desk for desk in map(died_after, count(1)) if desk.kinds())
    assert (desk.kinds(), desk.status) == ([Kind.APPROVAL_GIVEN], "PendingManualApproval")
    desk.world.pass_time(timedelta(minutes=20))
    assert replayed(desk, tmp_path) == [f"approvals {desk.package} 1"]
    assert desk.ticks() is Outcome.APPROVED
    assert desk.status == "Approved"


def test_what_a_person_put_back_after_its_approval_waits_for_new_words(tmp_path: Path) -> None:
    desk = Desk(mode="strict")
    desk.approver.approve(desk.spec, GROUP, desk.package, by=BEN, reason="good")
    said = Fact(
        model=MODEL,
        kind=Kind.PACKAGE_APPROVED,
        subject=f"{desk.package}#{desk.world.now.isoformat()}",
        at=desk.world.now,
        summary="It was approved.",
        details={"package": desk.package},
    )
    desk.serving.ledger.record(said)
    desk.serving.registry.decide(desk.package, "PendingManualApproval", reason="not yet")
    desk.world.pass_time(timedelta(minutes=20))
    (told,) = replayed(desk, tmp_path)
    assert told.startswith(f"decision {desk.package}")
    assert (desk.ticks(), desk.status) == (Outcome.NOTHING, "PendingManualApproval")
    assert desk.approver.approve(desk.spec, GROUP, desk.package, by=BEN, reason="now it is").approved


def test_gates_approve_where_the_rule_asks_nobody_and_only_there() -> None:
    desk = Desk(mode="strict", risk="low", automatic_below="medium")
    assert (desk.trained(), desk.status) == (Outcome.APPROVED, "Approved")
    (given,) = (entry for entry in desk.serving.entries() if entry.kind is Kind.APPROVAL_GIVEN)
    assert given.details["approver"] == AUTOMATIC
    for approval in ({}, {"mode": "strict"}, {"risk": "high", "automatic_below": "medium"}):
        asked = Desk(**approval)
        assert (asked.trained(), asked.status) == (Outcome.NOT_ASKED, "PendingManualApproval")
