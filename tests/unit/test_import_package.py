"""import_package against AWS in memory: when a copy that is known here follows the word of where it comes from."""

import pytest

from lambdas.import_package.handler import Outcome, import_package
from noria.ledger import Fact, Kind
from noria.promotion import Place
from noria.spec import ModelSpec
from tests.unit.serving_world import ACCOUNT, GROUP, MODEL, World
from tests.unit.test_serving_machine import SHIPPED, Serving


def hear(origin: str, serving: Serving) -> Outcome:
    """That a package was approved there, of which `serving` has a copy."""
    place = Place(account=ACCOUNT, bucket="b")
    return import_package(
        origin=origin,
        spec=serving.spec,
        group=GROUP,
        there=place,
        here=place,
        registry=serving.registry,
        storage=serving.storage,
        ledger=serving.ledger,
        now=serving.world.now,
    )


def test_what_is_put_back_there_while_it_is_copied_is_not_approved_here() -> None:
    world, spec = World(), ModelSpec.model_validate(SHIPPED | {"model": MODEL})
    serving, origin, copied = Serving(world, spec), world.register(), world.register()
    serving.registry.decide(origin, "Approved", reason="good there")
    details = {"package": copied}
    known = Fact(
        model=MODEL, kind=Kind.PACKAGE_IMPORTED, subject=origin, at=world.now, summary="S.", details={**details}
    )
    serving.ledger.record(known)
    world.meanwhile = (1, lambda: world.decide(origin, "PendingManualApproval", heard=False))  # after it was asked once
    outcome = hear(origin, serving)
    assert world.meanwhile is None
    assert outcome is Outcome.NOT_APPROVED
    assert world.packages[copied]["ModelApprovalStatus"] == "PendingManualApproval"


@pytest.mark.parametrize("decided", [None, Kind.PACKAGE_APPROVED, Kind.PACKAGE_REJECTED, Kind.APPROVAL_VOIDED])
def test_a_copy_is_approved_with_its_origin_until_it_was_decided_here(decided: Kind | None) -> None:
    world, spec = World(), ModelSpec.model_validate(SHIPPED | {"model": MODEL})
    serving, origin, copied = Serving(world, spec), world.register(), world.register()
    serving.registry.decide(origin, "Approved", reason="good there")

    def say(kind: Kind, subject: str) -> None:
        fact = Fact(model=MODEL, kind=kind, subject=subject, at=world.now, summary="S.", details={"package": copied})
        serving.ledger.record(fact)

    say(Kind.PACKAGE_IMPORTED, origin)  # and whoever recorded it died before it was approved
    if decided:
        say(decided, f"{copied}#1")
    outcome = hear(origin, serving)
    assert outcome is Outcome.KNOWN
    expected = "PendingManualApproval" if decided else "Approved"
    assert world.packages[copied]["ModelApprovalStatus"] == expected
