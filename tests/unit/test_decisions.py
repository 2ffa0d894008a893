"""What each trigger comes to, given what the ledger holds; test_serving_machine.py puts them in any order."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.alarms import Severity
from noria.decisions import PERMITTED, Decided, Decisions, Outcome, Verdict
from noria.deployment import Cause, Desired, wanted
from noria.events import ServingRequest
from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.spec import ModelSpec, load

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
SHIPPED = load(Path(__file__).parents[2] / "models" / "flight-delay.yaml").model_dump(
    mode="json", exclude={"objectives"}
)
ONE, TWO, THREE, FOUR = (
    f"arn:aws:sagemaker:eu-west-1:123456789012:model-package/noria-local-flight-delay/{n}" for n in (1, 2, 3, 4)
)
AB = Desired(package=ONE, challenger=TWO, percent=20)


def spec(**serve: Any) -> ModelSpec:
    return ModelSpec.model_validate(SHIPPED | {"serve": {"mode": "realtime", "count": 3, **serve}})


class Story:
    """A ledger that grows by what is decided, and a registry."""

    def __init__(self, **serve: Any) -> None:
        self.spec, self.entries, self.now = spec(**serve), list[Entry](), AT
        self.approvals: dict[str, str | None] = {
            ONE: "Approved",
            TWO: "Approved",
            THREE: "PendingManualApproval",
            FOUR: "Rejected",
        }

    @property
    def decisions(self) -> Decisions:
        return Decisions(spec=self.spec, entries=self.entries, approval=self.approvals.get, now=self.now)

    def record(self, *facts: Fact) -> None:
        for fact in facts:
            last = self.entries[-1] if self.entries else None
            self.entries.append(
                Entry.after(fact, number=len(self.entries) + 1, previous=last.hash if last else GENESIS)
            )

    def end(self, kind: Kind = Kind.DEPLOYED, **details: str) -> None:
        """The newest request ends so."""
        asked = [entry for entry in self.entries if entry.kind is Kind.DEPLOYMENT_REQUESTED][-1]
        told = asked.model_dump(include=set(Fact.model_fields)) | {"kind": kind}
        self.record(Fact.model_validate(told | {"details": told["details"] | details}))

    def probe(self, package: str, *, wrong: int = 0, shift: float = 0.0) -> None:
        said = {"package": package, "variant": "challenger", "wrong": wrong, "shift": shift}
        self.say(Kind.PROBED, f"config#{len(self.entries)}", f"{wrong} golden rows are wrong.", said)

    def judge(self, verdict: str, *, rival: str = TWO, champion: str = ONE) -> None:
        said = {"verdict": verdict, "rival": rival, "champion": champion}
        self.say(Kind.EXPERIMENT_JUDGED, f"{rival}#{len(self.entries)}", f"The verdict is {verdict}.", said)

    def say(self, kind: Kind, subject: str, summary: str, details: dict[str, Any]) -> None:
        self.record(
            Fact(model=self.spec.model, kind=kind, subject=subject, at=self.now, summary=summary, details=details)
        )

    def advance(self, *, answered: int = 10_000, after: timedelta = timedelta(minutes=10)) -> Verdict:
        """The newest step has baked."""
        self.now += after
        asked = [entry for entry in self.entries if entry.kind is Kind.DEPLOYMENT_REQUESTED][-1]
        verdict = self.decisions.advance(asked.subject, answered=answered)
        self.record(*verdict.facts)
        return verdict

    def approve(self, package: str, *, reason: str = "") -> Desired | None:
        self.now += timedelta(minutes=1)
        self.approvals[package] = "Approved"
        verdict = self.decisions.approved(Decided(package=package, at=self.now, reason=reason))
        self.record(*verdict.facts)
        return verdict.desired

    def ask(self, action: str, *, at: datetime | None = None, **asked: Any) -> Desired | str | None:
        """What is to be live, or why it is refused."""
        self.now += timedelta(minutes=1)
        request = {"request": f"r{len(self.entries)}", "requested_at": at or self.now, "reason": "why", "by": "ana"}
        detail = ServingRequest.model_validate({"model": self.spec.model, "action": action, **request, **asked})
        verdict = self.decisions.requested(detail)
        self.record(*verdict.facts)
        assert (verdict.page is not None) is (verdict.outcome in {Outcome.REFUSED, Outcome.OVERTAKEN})
        assert self.decisions.requested(detail).facts == ()
        return verdict.refusal or verdict.desired


@pytest.fixture
def story() -> Story:
    """Version 1, then version 2 went live."""
    told = Story()
    for package in (ONE, TWO):
        told.approve(package)
        told.end()
    return told


@pytest.fixture
def ab() -> Story:
    told = Story()
    told.approve(ONE)
    told.end()
    assert told.ask("traffic", package=TWO, percent=20) == AB
    told.end()
    return told


@pytest.mark.parametrize(
    ("asked", "because"),
    [
        ({"action": "traffic", "package": ONE, "percent": 0}, "not between 1 and 99"),
        ({"action": "traffic", "package": ONE, "percent": None}, "not between 1 and 99"),
        ({"action": "traffic", "percent": 20}, "name the challenger"),
        ({"action": "traffic", "package": TWO, "percent": 20}, "is the champion"),
        ({"action": "traffic", "package": FOUR, "percent": 20}, "is rejected"),
        ({"action": "traffic", "package": f"{ONE}9", "percent": 20}, "There is no package"),
        ({"action": "shadow"}, "no shadow to end"),
        ({"action": "shadow", "package": TWO}, "is the champion"),
        ({"action": "promote"}, "No A/B runs"),
        ({"action": "abandon"}, "No A/B runs"),
        ({"action": "rollback", "package": THREE}, "is not approved"),
        ({"action": "rollback", "package": FOUR}, "is rejected"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason_once(story: Story, asked: dict[str, Any], because: str) -> None:
    refusal = story.ask(**asked)
    assert isinstance(refusal, str)
    assert because in refusal
    assert story.entries[-1].kind is Kind.DEPLOYMENT_REFUSED


@pytest.mark.parametrize("mode", ["serverless", "async", "batch"])
def test_what_has_one_variant_only_has_nothing_beside_it(mode: str) -> None:
    story = Story()
    story.spec = spec(mode=mode, strategy="all_at_once")
    story.approve(ONE)
    story.end()
    for asked in ({"action": "traffic", "percent": 20}, {"action": "shadow"}):
        assert f"mode {mode}" in str(story.ask(**asked, package=TWO))


def test_challenger_and_shadow_exclude_each_other(ab: Story) -> None:
    assert "beside which SageMaker has no shadow" in str(ab.ask("shadow", package=THREE))
    assert ab.ask("abandon") == Desired(package=ONE)
    assert ab.ask("shadow", package=THREE) == Desired(package=ONE, shadow=THREE)
    assert "beside which SageMaker has no challenger" in str(ab.ask("traffic", package=TWO, percent=20))
    assert ab.ask("shadow") == Desired(package=ONE)


def test_who_means_another_challenger_looks_again(ab: Story) -> None:
    assert "is not the challenger any more" in str(ab.ask("promote", package=THREE))
    assert ab.ask("promote", package=TWO) == Desired(package=TWO)


def test_what_is_so_already_is_not_asked_for_again(ab: Story) -> None:
    before = len(ab.entries)
    assert ab.ask("traffic", package=TWO, percent=20) is None
    assert len(ab.entries) == before


def test_the_approval_that_a_request_brought_about_promotes_nothing_a_persons_does(ab: Story) -> None:
    assert ab.approve(TWO, reason=f"{PERMITTED}try it") is None
    assert ab.entries[-1].kind is Kind.PACKAGE_APPROVED
    again = Decided(package=TWO, at=ab.now, reason=f"{PERMITTED}try it")
    assert ab.decisions.approved(again).outcome is Outcome.NOTHING, "it is heard twice"
    assert ab.approve(TWO, reason=f"{PERMITTED}try it") == Desired(package=TWO), "its reason is left from before"


def test_a_fast_clock_does_not_decide_for_the_future(ab: Story) -> None:
    ab.ask("traffic", percent=50, at=ab.now + timedelta(days=1))
    assert ab.approve(THREE) == Desired(package=THREE, challenger=TWO, percent=50)


def test_a_request_that_is_heard_after_a_later_one_is_superseded(ab: Story) -> None:
    early = ab.now - timedelta(seconds=30)
    ab.ask("abandon")
    assert ab.ask("traffic", package=TWO, percent=50, at=early) is None
    assert ab.entries[-1].kind is Kind.DEPLOYMENT_SUPERSEDED


def test_an_approval_that_a_later_one_overtook_is_told_to_a_person(story: Story) -> None:
    early = Decided(package=THREE, at=story.now - timedelta(minutes=2))
    verdict = story.decisions.approved(early)
    assert verdict.page
    assert "version 3 will not go live" in verdict.page.subject
    story.record(*verdict.facts)
    assert story.decisions.approved(early).page is None


def test_an_approval_that_is_heard_after_a_later_alarm_is_carried_out(ab: Story) -> None:
    approved = ab.now + timedelta(seconds=10)
    raised = ab.decisions.challenger_alarm("P-challenger-errors", ab.now + timedelta(minutes=5), "5 of 100")
    assert (raised.desired, raised.blamed) == (Desired(package=ONE), TWO)
    ab.record(*raised.facts)
    assert ab.decisions.approved(Decided(package=THREE, at=approved)).desired == Desired(package=THREE)


def test_a_progressive_deployment_takes_the_place_of_another_challenger_and_steps_on() -> None:
    story = Story(strategy="progressive", weights=[5, 25])
    story.approve(ONE)
    story.end()
    story.ask("traffic", package=TWO, percent=40)
    story.end()
    assert story.approve(THREE) == Desired(package=ONE, challenger=THREE, percent=5)
    story.end()
    assert story.approve(THREE) is None, "it is on its way"
    story.probe(THREE)
    steps = []
    while step := story.decisions.step:
        verdict = story.advance()
        assert story.decisions.advance(step.id, answered=0).facts == ()
        story.end()
        steps.append(verdict.desired)
    assert steps == [Desired(package=ONE, challenger=THREE, percent=25), Desired(package=THREE)]


def test_a_step_that_is_not_live_or_not_the_newest_does_not_go_on() -> None:
    story = Story(strategy="progressive", weights=[5, 25])
    story.approve(ONE)
    story.end()
    story.approve(TWO)
    step = story.entries[-1].subject
    assert story.decisions.advance(step, answered=0).outcome is Outcome.NOTHING
    story.end()
    story.ask("traffic", percent=10)
    assert story.decisions.advance(step, answered=0).outcome is Outcome.NOTHING


@pytest.fixture
def stepping() -> Story:
    """Version 2 is on its way, on the first five percent."""
    told = Story(strategy="progressive", weights=[5, 25])
    for package in (ONE, TWO):
        told.approve(package)
        told.end()
    return told


def test_a_failed_step_goes_on_when_the_version_is_approved_again(stepping: Story) -> None:
    stepping.probe(TWO)
    stepping.advance()
    stepping.end(Kind.DEPLOYMENT_FAILED)
    assert stepping.approve(TWO) == Desired(package=ONE, challenger=TWO, percent=25)


def test_a_challenger_that_nobody_has_probed_waits_and_then_a_person_decides(stepping: Story) -> None:
    stepping.judge("promote")
    assert stepping.advance().outcome is Outcome.WAITING
    refused = stepping.advance(after=timedelta(hours=1))
    assert (refused.outcome, refused.blamed) == (Outcome.REFUSED, None)
    assert refused.page
    assert "noria promote or noria abandon" in refused.page.do
    assert stepping.advance().outcome is Outcome.NOTHING, "it is told once"


@pytest.mark.parametrize("state", ["PendingManualApproval", "Rejected", None, "voided"])
def test_a_challenger_that_is_not_approved_any_more_gets_no_more_requests(stepping: Story, state: str | None) -> None:
    stepping.probe(TWO)
    if state == "voided":  # and the registry still says Approved: it is put back after the ledger says why
        details = {"package": TWO, "by": "eve", "reason": "it was changed"}
        stepping.say(Kind.APPROVAL_VOIDED, f"{TWO}#another", "The approval does not hold.", details)
    else:
        stepping.approvals[TWO] = state
    verdict = stepping.advance()
    assert (verdict.outcome, verdict.desired, verdict.blamed) == (Outcome.REFUSED, None, None)
    assert verdict.page
    assert "is not approved any more" in verdict.page.what
    assert "noria promote or noria abandon" in verdict.page.do
    assert stepping.advance().outcome is Outcome.NOTHING, "it is told once"
    assert stepping.ask("abandon") == Desired(package=ONE)


@pytest.mark.parametrize(
    ("found", "because"),
    [
        (lambda story: story.probe(TWO, wrong=1), "golden rows that are answered wrongly. 1 golden rows are wrong"),
        (lambda story: story.probe(TWO, shift=0.5), "shifted by more than PSI 0.25"),
        (lambda story: story.judge("abandon"), "verdict against it. The verdict is abandon"),
    ],
    ids=["golden rows", "shift", "experiment"],
)
def test_a_step_ends_where_probe_or_experiment_speak_against_it(
    stepping: Story, found: Callable[[Story], None], because: str
) -> None:
    stepping.probe(TWO)
    found(stepping)
    verdict = stepping.advance()
    assert (verdict.desired, verdict.blamed) == (Desired(package=ONE), TWO)
    assert verdict.page
    assert because in verdict.page.what
    stepping.end()
    assert stepping.approve(TWO) is None, "it counts as rolled back"


def test_only_the_newest_verdict_on_the_same_two_counts(stepping: Story) -> None:
    stepping.probe(TWO)
    stepping.judge("abandon", champion=THREE)
    stepping.judge("abandon")
    stepping.judge("promote")
    assert stepping.advance().desired == Desired(package=ONE, challenger=TWO, percent=25)


def test_a_step_that_hardly_anybody_asked_says_so(stepping: Story) -> None:
    stepping.probe(TWO)
    assert "its 99 requests were too few" in stepping.advance(answered=99).facts[-1].summary
    stepping.end()
    assert "it stood the test on 25%" in stepping.advance(answered=100).facts[-1].summary


def test_what_was_rejected_while_it_was_to_go_does_not_stay_when_it_could_not(ab: Story) -> None:
    ab.approve(THREE)
    ab.approvals[ONE] = "Rejected"
    ab.record(*ab.decisions.rejected(Decided(package=ONE, at=ab.now)).facts)
    ab.end(Kind.DEPLOYMENT_FAILED)
    assert ab.decisions.not_left().outcome is Outcome.NOTHING, "no approved version was live before"
    assert Cause(str(ab.entries[-1].details["cause"])) is Cause.APPROVED
    ab.approvals[TWO] = "Rejected"
    assert ab.decisions.not_left().desired == Desired(package=ONE), "the challenger goes, though the champion cannot"


def test_a_challenger_that_could_not_be_taken_away_goes_after_the_next_deployment(ab: Story) -> None:
    ab.record(*ab.decisions.challenger_alarm("P-challenger-errors", ab.now, "5 of 100").facts)
    ab.end(Kind.DEPLOYMENT_FAILED)
    assert ab.approve(THREE) == Desired(package=THREE, challenger=TWO, percent=20), "a new version needs its guard"
    ab.end()
    assert ab.decisions.not_left().desired == Desired(package=THREE)


def test_a_rolled_back_package_is_refused_everywhere(story: Story) -> None:
    story.approve(THREE)
    story.end(Kind.ROLLED_BACK, blamed=THREE)
    assert story.approve(THREE) is None
    assert story.entries[-1].kind is Kind.DEPLOYMENT_REFUSED
    for asked in (
        {"action": "traffic", "percent": 5, "package": THREE},
        {"action": "shadow", "package": THREE},
        {"action": "rollback", "package": THREE},
    ):
        assert "was rolled back before" in str(story.ask(**asked))
    assert story.ask("rollback") == Desired(package=ONE)


def test_who_asks_for_the_way_back_twice_goes_one_version_back(story: Story) -> None:
    story.approve(THREE)
    story.end()
    assert story.ask("rollback") == Desired(package=TWO)
    under_way = "A rollback to version 2 is under way (why): wait for it, or name the version with --to."
    assert story.ask("rollback") == under_way
    assert wanted(story.entries) == Desired(package=TWO)
    story.approve(FOUR)
    assert story.ask("rollback") == under_way, "the stack may carry it out all the same"
    assert story.ask("rollback", package=TWO) == Desired(package=TWO)
    assert story.ask("rollback", package=TWO) is None
    assert story.ask("rollback", package=ONE) == Desired(package=ONE)
    assert "A rollback to version 1 is under way" in str(story.ask("rollback"))


@pytest.mark.parametrize(
    ("ended", "further"), [(Kind.DEPLOYED, ONE), (Kind.ROLLED_BACK, TWO), (Kind.DEPLOYMENT_FAILED, TWO)]
)
def test_once_the_way_back_has_ended_the_next_begins_where_it_led(story: Story, ended: Kind, further: str) -> None:
    story.approve(THREE)
    story.end()
    story.ask("rollback")
    story.end(ended, blamed="none")
    assert story.ask("rollback") == Desired(package=further)


def test_who_rejects_what_answers_and_asks_for_the_way_back_goes_one_version_back(story: Story) -> None:
    story.approve(THREE)
    story.end()
    story.now += timedelta(minutes=1)
    story.approvals[THREE] = "Rejected"
    rejected = story.decisions.rejected(Decided(package=THREE, at=story.now))
    story.record(*rejected.facts)
    assert rejected.desired == Desired(package=TWO)
    under_way = "A rollback to version 2 is under way (version 3 was rejected): wait for it, or name the version"
    assert under_way in str(story.ask("rollback"))
    story.end()
    done = "Version 2 answers by a rollback already (version 3 was rejected): to go back further, name the version"
    assert done in str(story.ask("rollback"))
    story.approve(FOUR)
    assert story.ask("rollback") == Desired(package=TWO), "the newer version is what is meant"
    story.end(Kind.DEPLOYMENT_SUPERSEDED)
    assert story.ask("rollback", package=ONE) == Desired(package=ONE)
    story.end()
    story.approve(FOUR)
    story.end()
    assert story.ask("rollback") == Desired(package=ONE)


def test_who_rejects_a_challenger_and_asks_for_the_way_back_leaves_the_champion(ab: Story) -> None:
    ab.approve(THREE)
    ab.end()
    ab.approvals[TWO] = "Rejected"
    ab.record(*ab.decisions.rejected(Decided(package=TWO, at=ab.now)).facts)
    assert ab.ask("rollback") == Desired(package=ONE)


@given(st.permutations([*range(4), *range(4)]))
def test_the_last_approval_counts_in_whatever_order_and_however_often_they_are_heard(heard: list[int]) -> None:
    story = Story()
    story.approvals[THREE] = story.approvals[FOUR] = "Approved"
    decided = [(package, AT + timedelta(minutes=n)) for n, package in enumerate((ONE, TWO, THREE, FOUR))]
    story.now += timedelta(hours=1)
    for number in heard:
        package, at = decided[number]
        story.record(*story.decisions.approved(Decided(package=package, at=at)).facts)
    assert wanted(story.entries) == Desired(package=FOUR)
    ended = [entry.subject for entry in story.entries if entry.kind is Kind.DEPLOYMENT_SUPERSEDED]
    assert len(ended) == len(set(ended))


@pytest.fixture
def office() -> Story:
    """Version 1, then version 2 went live, on a Friday at noon."""
    told = Story(hours={"from": "07:00", "to": "20:00"})
    told.now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    for package in (ONE, TWO):
        told.approve(package)
        told.end()
    return told


def take_back(story: Story, package: str) -> tuple[Severity, str]:
    """Somebody has a package wait for approval again: how severe that is, and what a person is told of it."""
    page = story.decisions.taken_back(Decided(package=package, at=story.now, by="eve")).page
    assert page
    return page.matter.severity, page.message


def turn(story: Story, at: datetime) -> None:
    story.now = at
    story.record(*story.decisions.hours().facts)


def test_who_is_told_at_night_that_an_approval_does_not_hold_hears_what_will_answer(office: Story) -> None:
    turn(office, datetime(2026, 11, 20, 20, tzinfo=UTC))
    assert take_back(office, TWO)[0] is Severity.CRITICAL, "the endpoint is on its way off, and answers until then"
    office.end()
    severity, told = take_back(office, TWO)
    assert severity is Severity.WARNING, "nobody asks it"
    assert "Nothing answers until Mon 23 Nov 07:00 UTC, and nothing will then" in told
    severity, told = take_back(office, ONE)
    assert (severity, "does so without it" in told) == (Severity.WARNING, True)

    office.approve(THREE)
    request = next(entry for entry in reversed(office.entries) if entry.kind is Kind.DEPLOYMENT_REQUESTED)
    office.say(Kind.DEPLOYMENT_WAITING, request.subject, "Version 3 waits for its turn.", {**request.details})
    severity, told = take_back(office, THREE)
    assert (severity, "does so without it" in told) == (Severity.WARNING, True), "it waits, and is given up"
    severity, told = take_back(office, TWO)
    assert (severity, "does so without it" in told) == (Severity.WARNING, True), "the one that waits goes live instead"

    turn(office, datetime(2026, 11, 23, 7, tzinfo=UTC))
    severity, told = take_back(office, TWO)
    assert (severity, "It answers, or is about to" in told) == (Severity.CRITICAL, True)


def test_what_answers_while_another_version_is_on_its_way_answers_unapproved(office: Story) -> None:
    office.approve(THREE)
    severity, told = take_back(office, TWO)
    assert (severity, "It answers, or is about to" in told) == (Severity.CRITICAL, True)
