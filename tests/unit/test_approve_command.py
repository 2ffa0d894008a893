"""`noria approve` of who may not read whether the model is in mode strict: the registry's policy decides then."""

from typing import Any

import boto3
import pytest

from noria.cli.approvals import DENIED, decide
from noria.cli.output import Refused
from noria.cli.state import Deployed
from tests.unit.serving_world import World, error


class Ssm:
    def get_parameter(self, **_: Any) -> Any:
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
    clients = {"ssm": Ssm(), "sagemaker": world.client(world)}
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
