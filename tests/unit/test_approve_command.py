"""`noria approve` of what is live already; and of who may not read whether the model is in mode strict."""

from typing import Any

import boto3
import pytest

from noria.aws.ledger import Ledger
from noria.cli.approvals import DENIED, decide
from noria.cli.output import Refused
from noria.cli.state import Deployed
from noria.deployment import Desired
from noria.ledger import Fact, Kind
from tests.unit.serving_world import MODEL, START, World, error


class Ssm:
    """Tells where the ledger is, and not who approves."""

    def get_parameter(self, *, Name: str) -> Any:  # noqa: N803 (as boto3 has it)
        if Name == "/noria/local/ledger-table":
            return {"Parameter": {"Value": "ledger"}}
        raise error("GetParameter", DENIED, "not authorized to perform: ssm:GetParameter")


class Strict(World):
    """The policy of its package group lets nobody but a function approve."""

    def update_model_package(self, **change: Any) -> None:
        if change.get("ModelApprovalStatus") == "Approved":
            raise error("UpdateModelPackage", DENIED, "with an explicit deny in a resource-based policy")
        super().update_model_package(**change)


@pytest.fixture(params=["PendingManualApproval", "Approved"])
def before(request: pytest.FixtureRequest) -> str:
    state: str = request.param
    return state


def registered(world: World, before: str, monkeypatch: pytest.MonkeyPatch) -> str:
    clients = {"ssm": Ssm(), "sagemaker": world.client(world), "dynamodb": world.client(world.table)}
    monkeypatch.setattr(boto3, "client", clients.__getitem__)
    package = world.register()
    world.packages[package]["ModelApprovalStatus"] = before
    return package


def test_in_mode_open_it_is_approved_in_the_registry_all_the_same(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    package = registered(world, before, monkeypatch)
    assert decide(Deployed("local"), package, "Approved", "good").decision == "Approved"
    assert world.packages[package]["ModelApprovalStatus"] == "Approved"
    assert world.messages, "the change is told as a decision"


def recorded(package: str, *kinds: Kind) -> None:
    """In the ledger, one after another, of the package and its deployment."""
    details = Desired(package=package).details
    for kind in kinds:
        fact = Fact(model=MODEL, kind=kind, subject=package, at=START, summary="so it was", details=details)
        Ledger(table="ledger").record(fact)


GONE_LIVE = (Kind.PACKAGE_APPROVED, Kind.DEPLOYMENT_REQUESTED, Kind.DEPLOYED)


def test_what_is_live_is_not_approved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    package = registered(world, "Approved", monkeypatch)
    recorded(package, *GONE_LIVE)
    told = decide(Deployed("local"), package, "Approved", "good")
    assert told.text == f"{package} is live already, since 2026-11-21 12:00:00 UTC: nothing was changed."
    assert world.messages == []


def test_what_is_live_and_waits_for_approval_again_is_approved(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is about to be replaced: an approval of it is a newer decision."""
    world = World()
    package = registered(world, "PendingManualApproval", monkeypatch)
    recorded(package, *GONE_LIVE)
    assert decide(Deployed("local"), package, "Approved", "good").live is None
    assert len(world.messages) == 1
    recorded(world.register(), Kind.PACKAGE_APPROVED, Kind.DEPLOYMENT_REQUESTED)
    assert decide(Deployed("local"), package, "Approved", "good").live is None
    assert len(world.messages) > 1


def test_in_mode_strict_it_is_refused_with_the_missing_permission_and_nothing_is_taken_back(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Strict()
    package = registered(world, before, monkeypatch)
    with pytest.raises(
        Refused, match=r"explicit deny[\s\S]*/noria/local/approvals/flight-delay[\s\S]*ssm:GetParameter"
    ):
        decide(Deployed("local"), package, "Approved", "good")
    assert world.packages[package]["ModelApprovalStatus"] == before
