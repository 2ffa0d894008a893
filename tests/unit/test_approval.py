"""Who may let a version go live, and what an approval is worth: rules against small histories."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from noria.approval import (
    APPROVED,
    AUTOMATIC,
    PENDING,
    REGISTERED,
    Candidate,
    Refusal,
    State,
    approve,
    content,
    judge,
    person,
    state,
    told_by_time,
    word,
)
from noria.decisions import Decided, Decisions, Outcome, Verdict
from noria.events import ServingRequest
from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.spec import ModelSpec, SpecError, load, parse
from noria.training import training_token

SPEC = Path(__file__).parents[2] / "models" / "flight-delay.yaml"
SHIPPED = load(SPEC).model_dump(mode="json")
MODEL = "flight-delay"
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
THREE = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/noria-local-flight-delay/3"
ROLE = "arn:aws:sts::123456789012:assumed-role/Approvers"
CENTER = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Approver_0123456789abcdef"
ANA, BEN, EVE = (f"arn:aws:iam::123456789012:user/{name}" for name in ("ana", "ben", "eve"))
HASH, OTHER = "c" * 64, "d" * 64


def spec(**approval: Any) -> ModelSpec:
    return ModelSpec.model_validate(SHIPPED | {"approval": approval})


def candidate(approval: str = PENDING, *, content: str = HASH, **known: Any) -> Candidate:
    known = {"registered_by": "arn:aws:sts::123456789012:assumed-role/Pipeline/SageMaker", **known}
    return Candidate(package=THREE, approval=approval, created=AT, content=content, **known)


class History:
    """A ledger of one model."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.now = AT

    def say(self, kind: Kind, subject: str, **details: Any) -> "History":
        self.now += timedelta(minutes=1)
        fact = Fact(model=MODEL, kind=kind, subject=subject, at=self.now, summary="It is said.", details=details)
        self.record(fact)
        return self

    def record(self, *facts: Fact) -> None:
        for fact in facts:
            last = self.entries[-1] if self.entries else None
            self.entries.append(
                Entry.after(fact, number=len(self.entries) + 1, previous=last.hash if last else GENESIS)
            )

    def gives(self, approver: str, *, of: str = HASH) -> "History":
        return self.say(
            Kind.APPROVAL_GIVEN, f"{THREE}#{approver}#{of}", package=THREE, approver=approver, content=of, reason="good"
        )

    def decides(self, made: ModelSpec, seen: Candidate, **decided: Any) -> Verdict:
        """deploy_model hears that the registry calls the package approved."""
        at = decided.pop("at", self.now + timedelta(minutes=1))
        self.now = max(self.now, at)
        decisions = Decisions(spec=made, entries=self.entries, approval=lambda _: seen.approval, now=self.now)
        verdict = decisions.approved(Decided(package=THREE, at=at, candidate=seen, by=decided.get("by")))
        self.record(*verdict.facts)
        return verdict


# --- who counts as whom


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (ANA, BEN, False),
        (f"{ROLE}/ana", f"{ROLE}/ben", True),  # whoever assumes a role chooses the session's name
        (f"{CENTER}/ana", f"{CENTER}/ben", False),  # Identity Center names the session after its user
        (f"{CENTER}/ana", f"{CENTER.replace('Approver_', 'Admin_')}/ana", True),
        (f"{ROLE}/ana", "arn:aws:iam::123456789012:role/Approvers", True),
    ],
)
def test_two_names_of_one_person_are_one_person(one: str, other: str, *, same: bool) -> None:
    assert (person(one) == person(other)) is same


# --- four eyes


def test_as_many_people_as_the_rule_asks_for_approve_and_each_counts_once() -> None:
    rule, told = spec(mode="strict", approvers=2), History()
    assert judge(rule, told.entries, candidate()).because == "0 of 2 approved"
    told.gives(f"{CENTER}/ana").gives(f"{CENTER.replace('Approver_', 'Admin_')}/ana")
    assert not judge(rule, told.entries, candidate()).approved
    ruling = judge(rule, told.gives(BEN).entries, candidate())
    assert ruling.approved
    assert ruling.approvers == (f"{CENTER}/ana", BEN)


def test_who_made_a_version_does_not_approve_it() -> None:
    token = training_token(MODEL, "hand#1")
    told = History().say(Kind.DATASET_ACCEPTED, "a" * 64, uploaded_by=ANA)
    told.say(Kind.RETRAINING_REQUESTED, "hand#1", by=BEN, cause="hand")
    told.say(Kind.TRAINING_STARTED, token, execution="run", datasets=["a" * 64], cause="hand")
    told.say(Kind.RETRAINING_REQUESTED, "hand#2", by="arn:aws:iam::123456789012:user/zoe", cause="hand")
    told.say(Kind.TRAINING_SUCCEEDED, "run", package=THREE)
    rule = spec(mode="strict")
    for author in (ANA, BEN):
        assert not judge(rule, [*told.entries, *History().gives(author).entries], candidate()).approved
    assert judge(spec(mode="strict", not_author=False), told.gives(ANA).entries, candidate()).approved
    assert not judge(rule, told.entries, candidate()).approved
    assert not judge(rule, told.gives(EVE).entries, candidate(registered_by=EVE)).approved
    assert judge(rule, told.entries, candidate()).approvers == (EVE,)


@pytest.mark.parametrize(
    ("sender", "reason"),
    [("123456789012", "account 123456789012 alone"), (None, "nobody alone"), ("s3.amazonaws.com", "s3.amazonaws.com")],
)
def test_one_more_approves_where_the_author_is_not_known_as_a_person(sender: str | None, reason: str) -> None:
    rule, told = spec(mode="strict"), History()
    told.say(Kind.DATASET_ACCEPTED, "a" * 64, uploaded_by=sender)
    told.say(Kind.TRAINING_STARTED, "t", execution="run", datasets=["a" * 64], cause="schedule")
    told.say(Kind.TRAINING_SUCCEEDED, "run", package=THREE)
    told.gives(ANA)
    one = judge(rule, told.entries, candidate())
    assert not one.approved
    assert "1 of 2 approved; one more than approval.approvers" in one.because
    assert reason in one.because
    both = judge(rule, told.gives(BEN).entries, candidate())
    assert both.approved
    assert "author is not known" in both.rule
    verdict = told.decides(rule, candidate(APPROVED))
    assert str(verdict.facts[0].details["author"]).startswith("not known: who sent dataset aaaaaaaaaaaa")
    assert judge(spec(mode="strict", not_author=False), History().gives(ANA).entries, candidate()).approved


def test_one_more_approves_a_copy_of_another_account_and_what_nobody_is_named_for() -> None:
    rule, told = spec(mode="strict"), History().gives(ANA)
    assert judge(rule, told.entries, candidate()).approved
    assert not judge(rule, told.entries, candidate(registered_by=None)).approved
    told.say(Kind.PACKAGE_IMPORTED, "origin", package=THREE, account="210987654321")
    ruling = judge(rule, told.entries, candidate())
    assert not ruling.approved
    assert "account 210987654321" in ruling.because


def test_an_approval_is_of_a_content_and_ends_with_a_rejection() -> None:
    rule, told = spec(mode="strict"), History().gives(ANA, of=OTHER)
    assert judge(rule, told.entries, candidate()).because == "0 of 1 approved; 1 approved another content"
    assert judge(rule, told.gives(BEN).entries, candidate()).approved
    told.say(Kind.PACKAGE_REJECTED, f"{THREE}#x", package=THREE)
    assert not judge(rule, told.entries, candidate()).approved


def test_content_is_what_serves_and_what_it_was_made_of_and_nothing_that_is_said_later() -> None:
    container = {"Image": "i", "ModelDataUrl": "s3://b/m", "ModelDataETag": "e"}
    described = {
        "ModelPackageArn": THREE,
        "InferenceSpecification": {"Containers": [container]},
        "CustomerMetadataProperties": {"noria:dataset": "1"},
        "ModelApprovalStatus": PENDING,
    }
    same = content(described, {"s3://b/m": "e"})
    later = {"noria:dataset": "1", "noria:outcome": "live", "mine": "x"}
    assert content(described | {"CustomerMetadataProperties": later}, {"s3://b/m": "e"}) == same
    assert (
        content(described | {"ModelApprovalStatus": APPROVED, "ApprovalDescription": "ok"}, {"s3://b/m": "e"}) == same
    )
    for change in (
        content(
            described | {"InferenceSpecification": {"Containers": [container | {"Image": "j"}]}}, {"s3://b/m": "e"}
        ),
        content(described | {"CustomerMetadataProperties": {"noria:dataset": "2"}}, {"s3://b/m": "e"}),
        content(described, {"s3://b/m": "another object under the same name"}),
        content(described | {"ModelPackageArn": f"{THREE}4"}, {"s3://b/m": "e"}),
    ):
        assert change != same


# --- what deploy_model does with it


def test_strict_deploys_what_enough_people_approved_and_says_who_by_which_rule() -> None:
    told = History().gives(ANA).gives(BEN)
    verdict = told.decides(spec(mode="strict", approvers=2), candidate(APPROVED), by="arn:aws:iam::1:role/function")
    assert verdict.outcome is Outcome.REQUESTED
    details = verdict.facts[0].details
    assert (details["approver"], details["rule"]) == (f"{ANA}, {BEN}", "2 people who did not make it")
    assert details["content"] == HASH


def test_strict_puts_back_what_any_other_hand_approved_and_tells_it_once() -> None:
    rule, told = spec(mode="strict"), History()
    first = told.decides(rule, candidate(APPROVED), by=EVE)
    assert (first.outcome, first.put_back, first.desired) == (Outcome.REFUSED, THREE, None)
    assert [fact.kind for fact in first.facts] == [Kind.APPROVAL_VOIDED]
    assert first.page
    assert EVE in first.page.what
    assert "0 of 1 approved" in first.page.what
    again = told.decides(rule, candidate(APPROVED), by=EVE, at=told.now)
    assert (again.outcome, again.put_back, again.facts, again.page) == (Outcome.REFUSED, THREE, (), None)


def test_what_another_hand_approved_is_worth_nothing_before_it_is_put_back_either() -> None:
    rule, told = spec(mode="strict"), History()
    assert word(rule, told.entries, candidate(APPROVED), AT) == PENDING
    assert word(spec(), told.entries, candidate(APPROVED), AT) == APPROVED
    assert word(rule, told.gives(ANA).entries, candidate(APPROVED), AT) == APPROVED


@pytest.mark.parametrize("mode", ["open", "strict"])
def test_a_change_after_approval_voids_it(mode: str) -> None:
    rule, told = spec(mode=mode), History().gives(ANA)
    assert told.decides(rule, candidate(APPROVED), by=ANA).outcome is Outcome.REQUESTED
    seen = candidate(APPROVED, content=OTHER)
    assert word(rule, told.entries, candidate(APPROVED), told.now) == APPROVED
    assert word(rule, told.entries, seen, told.now) == PENDING
    decisions = Decisions(spec=rule, entries=told.entries, approval=lambda _: APPROVED, now=told.now)
    verdict = decisions.changed(Decided(package=THREE, at=told.now, by=EVE, candidate=seen))
    assert verdict.put_back == THREE
    assert verdict.page
    assert "it was changed" in verdict.page.what
    assert verdict.facts[0].kind is Kind.APPROVAL_VOIDED
    told.record(*verdict.facts)
    told.gives(BEN, of=OTHER)
    approved = told.decides(rule, seen, by=BEN)
    assert approved.facts[0].kind is Kind.PACKAGE_APPROVED, "a person may approve the new content"


@pytest.mark.parametrize("mode", ["open", "strict"])
def test_what_waited_too_long_is_not_approved_any_more_but_what_was_approved_in_time_is(mode: str) -> None:
    rule = spec(mode=mode, within="14d")
    late = History().gives(ANA).decides(rule, candidate(APPROVED), at=AT + timedelta(days=14, seconds=1))
    assert late.put_back == THREE
    assert "expired" in (late.refusal or "")
    told = History().gives(ANA)
    assert told.decides(rule, candidate(APPROVED), at=AT + timedelta(days=13)).outcome is Outcome.REQUESTED
    assert told.decides(rule, candidate(APPROVED), at=AT + timedelta(days=90)).put_back is None


def test_open_approves_as_people_expect_and_says_what_can_be_known() -> None:
    verdict = History().decides(spec(), candidate(APPROVED), by="studio-user")
    assert verdict.outcome is Outcome.REQUESTED
    assert verdict.facts[0].details["approver"] == "studio-user"


# --- states


def test_the_states_of_a_version_in_order() -> None:
    told = History()

    def now(approval: str = PENDING, *, content: str = HASH) -> State:
        return state(told.entries, candidate(approval, content=content))

    assert now() is State.DRAFT
    told.say(Kind.TRAINING_SUCCEEDED, "run", package=THREE)
    assert now() is State.PENDING
    told.gives(ANA).say(Kind.PACKAGE_APPROVED, f"{THREE}#1", package=THREE, content=HASH)
    assert now(APPROVED) is State.APPROVED
    assert now(APPROVED, content=OTHER) is State.PENDING
    assert now("Rejected") is State.REJECTED
    told.say(Kind.DEPLOYED, "d1", package=THREE)
    assert now(APPROVED) is State.LIVE
    told.say(Kind.DEPLOYED, "d2", package="none")
    assert now(APPROVED) is State.RETIRED


def test_time_makes_versions_expire_and_grow_old_and_says_each_once() -> None:
    rule, told = spec(mode="strict", within="14d", max_age="90d"), History()
    told.say(Kind.TRAINING_SUCCEEDED, "run", package=THREE)
    assert told_by_time(rule, told.entries, candidate(), AT + timedelta(days=14)) is None
    due = told_by_time(rule, told.entries, candidate(), AT + timedelta(days=15))
    assert due
    assert (due[0].kind, due[0].subject) == (Kind.PACKAGE_EXPIRED, THREE)
    assert "approval.within 14d" in due[1].what
    told.record(due[0])
    assert told_by_time(rule, told.entries, candidate(), AT + timedelta(days=16)) is None
    assert state(told.entries, candidate()) is State.EXPIRED
    assert told_by_time(rule, told.entries, candidate(APPROVED), AT + timedelta(days=91)) is None, "it does not answer"
    told.say(Kind.DEPLOYED, "d1", package=THREE)
    old = told_by_time(rule, told.entries, candidate(APPROVED), AT + timedelta(days=91))
    assert old
    assert old[0].kind is Kind.PACKAGE_OUTDATED
    assert "91 days old" in old[1].what


# --- giving it


def test_approve_records_who_and_why_once_and_refuses_with_the_reason() -> None:
    rule, told = spec(mode="strict", approvers=2, within="14d"), History()

    def gives(by: str, *, at: datetime = AT, made: ModelSpec = rule, of: Candidate | None = None) -> list[Fact]:
        return list(approve(made, told.entries, of or candidate(registered_by=EVE), by=by, reason="good", now=at))

    (fact,) = gives(ANA)
    assert fact.subject == f"{THREE}#{ANA}#{HASH}"
    assert fact.details == {
        "package": THREE,
        "approver": ANA,
        "reason": "good",
        "rule": "2 people who did not make it",
        "content": HASH,
        "author": EVE,
    }
    told.record(fact)
    assert gives(ANA) == []
    assert gives(ANA, of=candidate(content=OTHER)), "another content is another approval"
    told.say(Kind.PACKAGE_REJECTED, f"{THREE}#x", package=THREE)
    assert gives(ANA)[0].subject == f"{THREE}#{ANA}#{HASH}#1", "who changes their mind is heard"
    with pytest.raises(Refusal, match="you made version 3"):
        gives(EVE)
    with pytest.raises(Refusal, match="expired at 2026-12-05"):
        gives(BEN, at=AT + timedelta(days=15))
    with pytest.raises(Refusal, match="mode open"):
        gives(BEN, made=spec())
    told, automatic = History(), spec(risk="low", automatic_below="medium")
    (own,) = gives(AUTOMATIC, made=automatic)
    told.record(own)
    assert judge(automatic, told.entries, candidate()).approvers == (AUTOMATIC,)
    assert not judge(rule, told.entries, candidate()).approved, "gates approve only where the rule lets them"


def test_words_are_used_up_by_the_decision_that_they_led_to() -> None:
    rule, told = spec(mode="strict", approvers=2), History().gives(ANA).gives(BEN)
    assert told.decides(rule, candidate(APPROVED)).outcome is Outcome.REQUESTED
    assert judge(rule, told.entries, candidate()).because == "0 of 2 approved"
    (again,) = approve(rule, told.entries, candidate(APPROVED), by=ANA, reason="once more", now=told.now)
    assert again.subject == f"{THREE}#{ANA}#{HASH}#1"
    told.record(again)
    assert judge(rule, told.entries, candidate(APPROVED)).because == "1 of 2 approved", "nobody else said it again"
    told.say(Kind.APPROVAL_VOIDED, f"{THREE}#x", package=THREE)
    assert judge(rule, told.entries, candidate()).because == "0 of 2 approved"


@pytest.mark.parametrize("kind", [Kind.PACKAGE_APPROVED, Kind.PACKAGE_REJECTED, Kind.APPROVAL_VOIDED])
def test_gates_do_not_approve_what_was_decided_before(kind: Kind) -> None:
    rule, told = spec(risk="low", automatic_below="medium"), History()

    def approves(status: str) -> list[Fact]:
        return list(approve(rule, told.entries, candidate(status), by=AUTOMATIC, reason="good", now=told.now))

    assert approves(PENDING)
    with pytest.raises(Refusal, match="decided before"):
        approves("Rejected")  # the ledger has not heard of it yet
    told.say(kind, f"{THREE}#x", package=THREE)
    with pytest.raises(Refusal, match="decided before"):
        approves(PENDING)


def test_gates_bring_no_retired_model_back() -> None:
    rule, told = spec(mode="strict", risk="low", automatic_below="medium"), History()
    told.say(Kind.DEPLOYMENT_REQUESTED, "d1", package="none", cause="retired")
    told.say(Kind.DEPLOYED, "d1", package="none")
    with pytest.raises(Refusal, match="is retired: a person brings it back"):
        list(approve(rule, told.entries, candidate(), by=AUTOMATIC, reason="good", now=told.now))
    assert list(approve(rule, told.entries, candidate(), by=ANA, reason="good", now=told.now))
    told.say(Kind.DEPLOYMENT_REQUESTED, "d2", package=THREE, cause="rollback")
    assert list(approve(rule, told.entries, candidate(), by=AUTOMATIC, reason="good", now=told.now))


# --- retirement


def request(action: str, told: History) -> ServingRequest:
    detail = {"model": MODEL, "action": action, "reason": "nobody needs it", "by": ANA, "requested_at": told.now}
    return ServingRequest.model_validate(detail | {"request": f"r{len(told.entries)}"})


def test_a_retired_model_answers_nothing_and_a_later_approval_or_a_rollback_brings_it_back() -> None:
    told, rule = History(), spec()
    told.decides(rule, candidate(APPROVED))
    told.say(Kind.DEPLOYED, told.entries[-1].subject, **told.entries[-1].details)

    def decisions() -> Decisions:
        return Decisions(spec=rule, entries=told.entries, approval=lambda _: APPROVED, now=told.now)

    told.now += timedelta(minutes=1)
    verdict = decisions().requested(request("retire", told))
    assert verdict.desired
    assert verdict.desired.package is None
    assert [fact.kind for fact in verdict.facts] == [Kind.MODEL_RETIRED, Kind.DEPLOYMENT_REQUESTED]
    told.record(*verdict.facts)
    told.say(Kind.DEPLOYED, verdict.facts[-1].subject, **verdict.facts[-1].details)
    told.now += timedelta(minutes=1)
    assert decisions().requested(request("retire", told)).outcome is Outcome.NOTHING
    assert decisions().requested(request("promote", told)).outcome is Outcome.REFUSED
    back = decisions().requested(request("rollback", told))
    assert back.desired
    assert back.desired.package == THREE
    assert decisions().approved(Decided(package=THREE, at=told.now)).desired == back.desired


# --- the spec


@pytest.mark.parametrize(
    ("approval", "expected"),
    [
        ("{approvers: 2}", "approvers 2 cannot be kept in mode open"),
        ("{not_author: true}", "not_author true cannot be kept in mode open"),
        ("{mode: strict, approvers: 2, risk: low, automatic_below: medium}", "so nobody is asked"),
        ("{automatic_below: low}", "below every risk"),
        ("{within: 5m}", "within 5m is too short"),
        ("{max_age: 5m}", "max_age 5m is too short"),
        ("{mode: loose}", "Input should be 'open' or 'strict'"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_a_mistake_of_the_spec(approval: str, expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(f"{SPEC.read_text()}\napproval: {approval}\n", name="m.yaml")
    assert expected in str(caught.value)
    assert "approval" in str(caught.value)


def test_the_metadata_that_an_approval_is_of_is_what_the_pipeline_registers() -> None:
    definition = json.loads((SPEC.parents[1] / "pipelines" / "tabular" / "definition.json").read_text())
    found: list[set[str]] = []

    def walk(part: Any) -> None:
        for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
            if key == "CustomerMetadataProperties":
                found.append(set(value))
            walk(value)

    walk(definition)
    assert found == [set(REGISTERED)]
