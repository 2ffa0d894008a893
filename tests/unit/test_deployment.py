"""What is live decides what became of a deployment, whatever the stack reports."""

from datetime import UTC, datetime, timedelta

import pytest

from noria.deployment import (
    ENDPOINT_TYPE,
    Failure,
    Observed,
    Outcome,
    Request,
    deployment_id,
    live_package,
    newest_request,
    overtaken_by,
    predecessors,
    restores,
    rollback_of,
    settle,
    unsettled,
    wanted_package,
)
from noria.ledger import GENESIS, Entry, Fact, Kind

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
ONE, TWO, THREE = (f"arn:aws:sagemaker:eu-west-1:123456789012:model-package/m/{n}" for n in (1, 2, 3))
REQUEST = Request(id="deploy-2", package=TWO, at=AT)
ALARM = Failure(resource_type=ENDPOINT_TYPE, reason="rolled back because alarms were in ALARM")
QUOTA = Failure(resource_type=ENDPOINT_TYPE, reason="ResourceLimitExceeded: ml.m5.large for endpoint usage is 4")
NO_MODEL = Failure(resource_type="AWS::SageMaker::Model", reason="model data not found")


def entries(*said: tuple[Kind, str, str]) -> list[Entry]:
    made: list[Entry] = []
    for number, (kind, subject, package) in enumerate(said, start=1):
        fact = Fact(model="m", kind=kind, subject=subject, at=AT, summary="…", details={"package": package})
        made.append(Entry.after(fact, number=number, previous=made[-1].hash if made else GENESIS))
    return made


@pytest.mark.parametrize(
    ("observed", "outcome", "restore"),
    [
        (Observed(changing=True, wanted=TWO, live=ONE), Outcome.CHANGING, False),
        (Observed(changing=False, wanted=TWO, live=TWO), Outcome.LIVE, False),
        (Observed(changing=False, wanted=ONE, live=TWO), Outcome.LIVE, True),
        (Observed(changing=False, wanted=ONE, live=ONE, failure=ALARM), Outcome.ROLLED_BACK, False),
        (Observed(changing=False, wanted=TWO, live=ONE), Outcome.ROLLED_BACK, True),
        (Observed(changing=False, wanted=ONE, live=ONE, failure=NO_MODEL), Outcome.FAILED, False),
        (Observed(changing=False, wanted=ONE, live=ONE, failure=QUOTA), Outcome.FAILED, False),
        (Observed(changing=False, wanted=TWO, live=ONE, endpoint_failure="no capacity"), Outcome.FAILED, True),
        (Observed(changing=False, wanted=None, live=None, failure=ALARM), Outcome.FAILED, False),
        (Observed(changing=False, wanted=TWO, live=None), Outcome.FAILED, True),
    ],
    ids=[
        "still changing",
        "live",
        "live, stack went back",
        "alarm, stack says failure",
        "alarm, stack says success",
        "another resource failed",
        "quota, stack says failure",
        "no capacity, stack says success",
        "first one failed",
        "first one failed, stack says success",
    ],
)
def test_a_requested_deployment_settles(observed: Observed, outcome: Outcome, *, restore: bool) -> None:
    settlement = settle(observed, REQUEST)
    assert (settlement.outcome, settlement.restore) == (outcome, restore)
    assert settlement.reason


def test_the_reason_is_what_cloudformation_said_else_what_the_endpoint_says() -> None:
    assert settle(Observed(changing=False, wanted=ONE, live=ONE, failure=ALARM), REQUEST).reason == ALARM.reason
    quiet = Observed(changing=False, wanted=TWO, live=ONE, endpoint_failure="alarm P-errors")
    assert settle(quiet, REQUEST).reason == "alarm P-errors"


@pytest.mark.parametrize(("wanted", "restore"), [(ONE, False), (TWO, True), (None, True)])
def test_without_a_request_only_the_truth_of_the_stack_matters(wanted: str | None, *, restore: bool) -> None:
    settlement = settle(Observed(changing=False, wanted=wanted, live=ONE), None)
    assert (settlement.outcome, settlement.restore) == (Outcome.QUIET, restore)


def test_the_same_decision_is_the_same_deployment() -> None:
    assert deployment_id(ONE, "d1") == deployment_id(ONE, "d1")
    assert len({deployment_id(ONE, "d1"), deployment_id(ONE, "d2"), deployment_id(TWO, "d1")}) == 3
    assert deployment_id(ONE, "d1").replace("-", "").isalnum()


HISTORY = entries(
    (Kind.DEPLOYMENT_REQUESTED, "deploy-1", ONE),
    (Kind.DEPLOYED, "deploy-1", ONE),
    (Kind.DEPLOYMENT_REQUESTED, "deploy-2", TWO),
    (Kind.DEPLOYED, "deploy-2", TWO),
    (Kind.DEPLOYMENT_REQUESTED, "deploy-3", THREE),
)


def test_a_request_without_outcome_is_unsettled_and_wanted() -> None:
    assert [request.id for request in unsettled(HISTORY)] == ["deploy-3"]
    assert wanted_package(HISTORY) == THREE
    assert live_package(HISTORY) == TWO


def test_a_request_that_a_later_one_overtook_is_not_wanted_any_more() -> None:
    history = [
        *HISTORY,
        *entries((Kind.DEPLOYMENT_REQUESTED, "deploy-4", ONE), (Kind.DEPLOYED, "deploy-4", ONE)),
    ]
    assert [request.id for request in unsettled(history)] == ["deploy-3"]
    assert newest_request(history) is None
    assert wanted_package(history) == ONE


@pytest.mark.parametrize("kind", [Kind.ROLLED_BACK, Kind.DEPLOYMENT_FAILED, Kind.DEPLOYMENT_SUPERSEDED])
def test_what_did_not_go_live_leaves_what_was(kind: Kind) -> None:
    history = [*HISTORY, *entries((kind, "deploy-3", THREE))]
    assert unsettled(history) == []
    assert live_package(history) == wanted_package(history) == TWO
    assert (rollback_of(history, THREE) is not None) is (kind is Kind.ROLLED_BACK)


def test_a_decision_is_overtaken_by_a_later_one_whichever_is_heard_first() -> None:
    asked = Fact(
        model="m",
        kind=Kind.DEPLOYMENT_REQUESTED,
        subject="deploy-2",
        at=AT,
        summary="…",
        details={"package": TWO, "decision": f"{TWO}#{AT.isoformat()}"},
    )
    history = [Entry.after(asked, number=1, previous=GENESIS)]
    assert overtaken_by(history, AT - timedelta(minutes=10)) == TWO
    assert overtaken_by(history, AT) is None
    assert overtaken_by(history, AT + timedelta(minutes=10)) is None
    assert overtaken_by([], AT) is None


def test_predecessors_are_what_was_live_and_was_not_rolled_back() -> None:
    assert predecessors(HISTORY, TWO) == [ONE]
    assert predecessors([*HISTORY, *entries((Kind.ROLLED_BACK, "x", ONE))], TWO) == []
    assert predecessors([], TWO) == []


def test_restores_count_from_the_last_outcome() -> None:
    restored = entries((Kind.SERVING_RESTORED, "r1", ONE), (Kind.SERVING_RESTORED, "r2", ONE))
    assert restores([*HISTORY, *restored]) == 2
    assert restores([*restored, *HISTORY]) == 0
