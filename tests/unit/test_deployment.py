"""What is live decides what became of a deployment, whatever the stack reports."""

from datetime import UTC, datetime, timedelta

import pytest

from noria.deployment import (
    ENDPOINT_TYPE,
    OF_CHAMPION,
    Cause,
    Desired,
    Failure,
    Guard,
    Observed,
    Outcome,
    Request,
    challenger_at,
    deployment_id,
    difference,
    guard,
    live,
    live_package,
    newest_request,
    overtaken_by,
    percent,
    predecessors,
    restores,
    rollback_of,
    settle,
    unsettled,
    wanted,
    weight,
)
from noria.ledger import GENESIS, Entry, Fact, Kind

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
ONE, TWO, THREE = (f"arn:aws:sagemaker:eu-west-1:123456789012:model-package/m/{n}" for n in (1, 2, 3))


def only(package: str | None) -> Desired:
    return Desired(package=package)


def request(desired: Desired, cause: Cause = Cause.APPROVED) -> Request:
    return Request(id="deploy-2", desired=desired, at=AT, cause=cause, reason="why", decision="d", decided_at=AT)


REQUEST = request(only(TWO))
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
        (Observed(changing=True, wanted=only(TWO), live=only(ONE)), Outcome.CHANGING, False),
        (Observed(changing=False, wanted=only(TWO), live=only(TWO)), Outcome.LIVE, False),
        (Observed(changing=False, wanted=only(ONE), live=only(TWO)), Outcome.LIVE, True),
        (Observed(changing=False, wanted=only(ONE), live=only(ONE), failure=ALARM), Outcome.ROLLED_BACK, False),
        (Observed(changing=False, wanted=only(TWO), live=only(ONE)), Outcome.ROLLED_BACK, True),
        (Observed(changing=False, wanted=only(ONE), live=only(ONE), failure=NO_MODEL), Outcome.FAILED, False),
        (Observed(changing=False, wanted=only(ONE), live=only(ONE), failure=QUOTA), Outcome.FAILED, False),
        (
            Observed(changing=False, wanted=only(TWO), live=only(ONE), endpoint_failure="no capacity"),
            Outcome.FAILED,
            True,
        ),
        (Observed(changing=False, wanted=only(None), live=only(None), failure=ALARM), Outcome.FAILED, False),
        (Observed(changing=False, wanted=only(TWO), live=only(None)), Outcome.FAILED, True),
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
    assert (
        settle(Observed(changing=False, wanted=only(ONE), live=only(ONE), failure=ALARM), REQUEST).reason
        == ALARM.reason
    )
    quiet = Observed(changing=False, wanted=only(TWO), live=only(ONE), endpoint_failure="alarm P-errors")
    assert settle(quiet, REQUEST).reason == "alarm P-errors"


@pytest.mark.parametrize(("package", "restore"), [(ONE, False), (TWO, True), (None, True)])
def test_without_a_request_only_the_truth_of_the_stack_matters(package: str | None, *, restore: bool) -> None:
    settlement = settle(Observed(changing=False, wanted=only(package), live=only(ONE)), None)
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
    assert wanted(HISTORY) == only(THREE)
    assert live_package(HISTORY) == TWO


def test_a_request_that_a_later_one_overtook_is_not_wanted_any_more() -> None:
    history = [
        *HISTORY,
        *entries((Kind.DEPLOYMENT_REQUESTED, "deploy-4", ONE), (Kind.DEPLOYED, "deploy-4", ONE)),
    ]
    assert [request.id for request in unsettled(history)] == ["deploy-3"]
    assert newest_request(history) is None
    assert wanted(history) == only(ONE)


@pytest.mark.parametrize("kind", [Kind.ROLLED_BACK, Kind.DEPLOYMENT_FAILED, Kind.DEPLOYMENT_SUPERSEDED])
def test_what_did_not_go_live_leaves_what_was(kind: Kind) -> None:
    history = [*HISTORY, *entries((kind, "deploy-3", THREE))]
    assert unsettled(history) == []
    assert live(history) == wanted(history) == only(TWO)
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
    assert overtaken_by(history, AT - timedelta(minutes=10)) == "version 2"
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


WEIGHED = Desired(package=ONE, challenger=TWO, percent=25)


@pytest.mark.parametrize("share", range(1, 100))
def test_a_percentage_survives_as_a_weight(share: int) -> None:
    assert percent(float(f"{weight(share):.6g}")) == share


@pytest.mark.parametrize(
    ("before", "after", "cause", "expected"),
    [
        (None, only(ONE), Cause.APPROVED, Guard.ON),
        (only(None), only(ONE), Cause.APPROVED, Guard.ON),
        (only(ONE), only(TWO), Cause.APPROVED, Guard.ON),
        (only(ONE), WEIGHED, Cause.TRAFFIC, Guard.OFF),
        (WEIGHED, only(ONE), Cause.ABANDON, Guard.OFF),
        (WEIGHED, only(THREE), Cause.ROLLBACK, Guard.OFF),
        (WEIGHED, Desired(package=ONE, challenger=TWO, percent=50), Cause.PROGRESSIVE, Guard.ON),
        (WEIGHED, Desired(package=THREE, challenger=TWO, percent=25), Cause.APPROVED, Guard.ON),
        (only(ONE), Desired(package=ONE, shadow=TWO), Cause.SHADOW, Guard.ON),
        (only(TWO), only(ONE), Cause.ROLLBACK, Guard.AT_ONCE),
        (only(TWO), only(ONE), Cause.REJECTED, Guard.AT_ONCE),
        (only(TWO), only(ONE), Cause.ABANDON, Guard.AT_ONCE),
    ],
)
def test_only_what_changes_the_set_of_variants_is_not_guarded_and_the_way_back_takes_one_step(
    before: Desired | None, after: Desired, cause: Cause, expected: Guard
) -> None:
    assert guard(before, after, cause) is expected


def test_a_package_is_taken_out_of_what_it_does() -> None:
    assert WEIGHED.without(TWO) == only(ONE)
    assert WEIGHED.without(ONE, instead=THREE) == Desired(package=THREE, challenger=TWO, percent=25)
    assert WEIGHED.without(ONE, instead=TWO) == only(TWO)
    assert Desired(package=ONE, shadow=TWO).without(ONE, instead=TWO) == only(TWO)


def test_a_change_that_leaves_the_champion_blames_nobody_when_an_alarm_ends_it() -> None:
    moved = Desired(package=ONE, challenger=TWO, percent=50)
    settlement = settle(Observed(changing=False, wanted=WEIGHED, live=WEIGHED, failure=ALARM), request(moved))
    assert (settlement.outcome, settlement.blamed) == (Outcome.ROLLED_BACK, None)
    rolled_back = settle(Observed(changing=False, wanted=only(ONE), live=only(ONE), failure=ALARM), REQUEST)
    assert rolled_back.blamed == TWO


@pytest.mark.parametrize("cause", [Cause.ROLLBACK, Cause.REJECTED, Cause.ABANDON])
def test_an_alarm_on_the_way_back_bars_nothing(cause: Cause) -> None:
    left = Observed(changing=False, wanted=only(TWO), live=only(TWO), failure=ALARM)
    settlement = settle(left, request(only(ONE), cause))
    assert (settlement.outcome, settlement.blamed) == (Outcome.ROLLED_BACK, None)


def test_where_no_alarm_watches_nothing_is_rolled_back_by_one() -> None:
    begun = settle(Observed(changing=False, wanted=WEIGHED, live=only(ONE)), request(WEIGHED, Cause.TRAFFIC))
    assert (begun.outcome, begun.restore) == (Outcome.FAILED, True)
    without = Observed(changing=False, wanted=only(TWO), live=only(ONE), alarms=False)
    assert settle(without, REQUEST).outcome is Outcome.FAILED


def test_a_template_that_was_rolled_back_under_the_same_packages_is_noticed() -> None:
    quiet = Observed(changing=False, wanted=only(TWO), live=only(TWO))
    assert difference(quiet, HISTORY) is None
    other = Observed(changing=False, wanted=only(TWO), live=only(TWO), same_config=False)
    assert "changed template was rolled back" in (difference(other, HISTORY) or "")
    by_hand = Observed(changing=False, wanted=only(ONE), live=only(ONE))
    assert "of which the ledger knows nothing" in (difference(by_hand, HISTORY) or "")
    assert difference(Observed(changing=False, wanted=only(ONE), live=only(TWO)), HISTORY) is None


def asked(subject: str, desired: Desired, cause: Cause, at: datetime = AT) -> Fact:
    return Fact(
        model="m",
        kind=Kind.DEPLOYMENT_REQUESTED,
        subject=subject,
        at=at,
        summary="…",
        details={**desired.details, "cause": cause.value, "decision": "d", "decided_at": at.isoformat()},
    )


def done(subject: str, desired: Desired, kind: Kind = Kind.DEPLOYED) -> Fact:
    return Fact(model="m", kind=kind, subject=subject, at=AT, summary="…", details=desired.details)


def chain(*facts: Fact) -> list[Entry]:
    made: list[Entry] = []
    for number, fact in enumerate(facts, start=1):
        made.append(Entry.after(fact, number=number, previous=made[-1].hash if made else GENESIS))
    return made


def test_who_goes_back_leaves_behind_what_came_after() -> None:
    history = [
        fact
        for number, package in enumerate((ONE, TWO, THREE), start=1)
        for fact in (asked(f"{number}", only(package), Cause.APPROVED), done(f"{number}", only(package)))
    ]
    assert predecessors(chain(*history), THREE) == [TWO, ONE]
    back = [*history, asked("4", only(TWO), Cause.ROLLBACK), done("4", only(TWO))]
    assert predecessors(chain(*back), TWO) == [ONE]
    again = [*back, asked("5", only(THREE), Cause.APPROVED), done("5", only(THREE))]
    assert predecessors(chain(*again), THREE) == [TWO, ONE]


def test_an_alarm_is_about_the_challenger_of_its_time() -> None:
    other = Desired(package=ONE, challenger=THREE, percent=5)
    history = chain(
        asked("1", WEIGHED, Cause.TRAFFIC, AT - timedelta(minutes=5)),
        done("1", WEIGHED),
        asked("2", other, Cause.TRAFFIC, AT + timedelta(hours=1)),
    )
    later = AT + timedelta(hours=2)
    assert challenger_at(history, AT - timedelta(seconds=1), None) is None
    assert challenger_at(history, AT - timedelta(seconds=1), request(WEIGHED)) == TWO
    assert challenger_at(history, AT + timedelta(minutes=1), None) == TWO
    assert challenger_at(history, later, None) == TWO, "the other one only waits for its turn"
    assert challenger_at(history, later, request(only(ONE))) == TWO, "it is going"
    assert challenger_at(history, later, request(other)) == THREE


def test_what_only_moves_traffic_overtakes_no_decision_on_the_champion() -> None:
    history = chain(asked("1", WEIGHED, Cause.TRAFFIC))
    earlier = AT - timedelta(minutes=1)
    assert overtaken_by(history, earlier, OF_CHAMPION) is None
    assert overtaken_by(history, earlier) == "version 1, with version 2 on 25%"
