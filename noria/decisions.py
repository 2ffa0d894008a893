"""Decisions about serving: what the ledger, a trigger and the registry together ask for, as facts to record.

| trigger                     | asks for                                                                          |
|-----------------------------|-----------------------------------------------------------------------------------|
| a package is approved       | it as champion; `progressive`: as challenger on the first weight                  |
| … that is the challenger    | it as champion; `progressive`: the next weight                                    |
| a package is rejected       | its predecessor as champion; no such challenger or shadow                         |
| a person: traffic           | a challenger on so many percent; of a progressive one: it stays there             |
| a person: shadow            | a shadow, or none                                                                 |
| a person: promote, abandon  | the challenger as champion, or no challenger                                      |
| a person: rollback          | a version that was champion before, and nothing beside it; not the one before     |
|                             | while a rollback is on its way, or after one by a rejection, unless it is named   |
| a person: retire            | nothing: no endpoint                                                              |
| an approval does not hold,  | what was wanted; the package waits for approval again                             |
| or is taken back            |                                                                                   |
| a challenger's alarm        | no such challenger; the package counts as rolled back                             |
| a step has baked            | the next weight, after the last one the challenger as champion; no such           |
|                             | challenger where probe or experiment speak against it; none without its approval  |
| a deployment has ended      | what was decided against is not left in place                                     |
| the clock, by serve.hours   | nothing, outside of them; in them what answered before, or what a way back has    |
|                             | asked for since                                                                   |

Nothing here reads or changes anything. Of two decisions the newer counts, whichever is heard first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from noria.approval import (
    APPROVED,
    AUTOMATIC,
    REJECTED,
    Candidate,
    State,
    author,
    decided_at,
    judge,
    rule,
    stands,
    unfit,
    void,
)
from noria.deployment import (
    NONE,
    OF_CHAMPION,
    WAY_BACK,
    Cause,
    Desired,
    Request,
    answering,
    asked_for,
    by_hours,
    challenger_at,
    comes_back,
    deployment_id,
    kept,
    live_package,
    newest_request,
    overtaken_by,
    predecessors,
    rollback_of,
    taken_back,
    took_back,
    turned_off,
    unsettled,
    wanted,
)
from noria.events import ServingRequest
from noria.ledger import Entry, Fact, Kind
from noria.names import version
from noria.page import Matter, Page
from noria.serve import Mode, Strategy
from noria.spec import ModelSpec

PERMITTED = "To answer beside the champion: "
"""How the reason of an approval begins that a request for a challenger or a shadow brought about."""

PROOF = timedelta(hours=1)
"""How long a step waits, once it has baked, for the challenger to be probed; a probe gives up after as long."""

NEED_NOT_GO = "The endpoint need not go any more: its hours have begun, or it is gone."
NEED_NOT_COME = "The endpoint need not come any more: its hours have ended, or it is not wanted."

_AFTER = "after "
_ADVANCE = "advance "


class Outcome(StrEnum):
    """What became of a trigger; the values are names of metrics."""

    REQUESTED = "DeploymentRequested"
    NOTHING = "NothingToDeploy"
    REFUSED = "DeploymentRefused"
    OVERTAKEN = "DeploymentOvertaken"
    WAITING = "StepWaiting"  # for a proof: ask again in a while


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`facts` belong into the ledger together, right after the entries that were looked at; `page` goes out before.

    `desired` is what is to be live, where that changes; `refusal` says why it does not; `blamed` is rolled back by it;
    `put_back` is approved in the registry, and is not to be.
    """

    outcome: Outcome
    facts: tuple[Fact, ...] = ()
    page: Page | None = None
    desired: Desired | None = None
    refusal: str | None = None
    blamed: str | None = None
    put_back: str | None = None


@dataclass(frozen=True, kw_only=True)
class Decided:
    """Somebody approved or rejected a package in the registry; `candidate` is the package as it is now."""

    package: str
    at: datetime
    by: str | None = None
    reason: str = ""
    candidate: Candidate | None = None

    @property
    def name(self) -> str:
        return f"{self.package}#{self.at.isoformat()}"


class _Refused(Exception):
    """What was asked cannot be; the message says why and what can."""


def superseded(fact: Fact) -> Page:
    """Tells a person what the fact says: what was asked for will not be done."""
    return Page(
        matter=Matter.SUPERSEDED,
        subject=f"{fact.model}: {Desired.of(fact.details)} will not go live",
        what=fact.summary,
        where=f"endpoint of {fact.model}",
        do="Nothing, if the newer one is what you want: of two decisions the newer counts. Else ask again.",
        command=f"noria events {fact.model}",
    )


def unanswered(fact: Fact) -> Page:
    """Tells a person what the fact says: the endpoint does not come back, and nothing else is on its way."""
    return Page(
        matter=Matter.UNANSWERED,
        subject=f"{fact.model}: nothing answers in its hours",
        what=fact.summary,
        where=f"endpoint of {fact.model}",
        do="Approve another version, which goes live at once; or this one again: it comes back within the hour.",
        command=f"noria status {fact.model}",
    )


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """`approval` tells `noria.approval.word` on a package, None where the model has no such package."""

    spec: ModelSpec
    entries: Sequence[Entry]
    approval: Callable[[str], str | None]
    now: datetime

    # --- people, in the registry

    def approved(self, decided: Decided) -> Verdict:
        known = self._knows(Kind.PACKAGE_APPROVED, decided.name)
        if decided.candidate and not known and (why := self._void(decided, decided.candidate)):
            return self._put_back(decided.name, decided, why)
        if known and (refused := self.changed(decided)).put_back:
            return refused
        return self._go_live(decided)

    def _go_live(self, decided: Decided) -> Verdict:
        said = self._said(Kind.PACKAGE_APPROVED, decided)
        if self._permitted(decided):
            return Verdict(outcome=Outcome.NOTHING, facts=said)
        package, id_ = decided.package, deployment_id(decided.package, decided.name)
        if before := rollback_of(self.entries, package):
            why = f"{version(package).capitalize()} was approved but is not deployed again, because it was rolled back."
            if self._knows(Kind.DEPLOYMENT_REFUSED, decided.name):
                return Verdict(outcome=Outcome.REFUSED, facts=said, refusal=why)
            return self._refuse(decided.name, f"{why} {before.summary}", package=package, said=said)
        wanted = self._wanted
        desired, cause = self._going_live(package)
        if desired == wanted or self._knows(Kind.DEPLOYMENT_REQUESTED, id_) or wanted.package == package:
            return Verdict(outcome=Outcome.NOTHING, facts=said)
        if later := overtaken_by(self.entries, decided.at, OF_CHAMPION):
            return self._superseded(id_, Desired(package=package), decided.name, later, said=said)
        why = f"{version(package)} was approved"
        return self._request(id_, desired, cause, why, decision=decided.name, at=decided.at, by=decided.by, said=said)

    def changed(self, decided: Decided, *, answers: bool | None = None) -> Verdict:
        """Something of an approved package may be another now: if that is its content, nobody approved it.

        `answers`: whether the package answers, or is about to, where the caller has seen that.
        """
        candidate = decided.candidate
        if candidate is None or (why := unfit(self.spec, self.entries, candidate, self.now)) is None:
            return Verdict(outcome=Outcome.NOTHING)
        return self._put_back(f"{decided.package}#{candidate.content}", decided, why, answers)

    def taken_back(self, decided: Decided) -> Verdict:
        """Somebody has a package wait again: what was approved, by however many, is so no more."""
        if not stands(self.entries, decided.package, decided.at):
            return Verdict(outcome=Outcome.NOTHING)
        by = f" by {decided.by}" if decided.by else ""
        verdict = self._put_back(decided.name, replace(decided, by=None), f"it was taken back{by}")
        return replace(verdict, put_back=None)  # it waits already

    def _void(self, decided: Decided, candidate: Candidate) -> str | None:
        told = next((e for e in self.entries if e.kind is Kind.APPROVAL_VOIDED and e.subject == decided.name), None)
        return str(told.details["reason"]) if told else void(self.spec, self.entries, candidate, decided.at)

    def _put_back(self, subject: str, decided: Decided, why: str, answers: bool | None = None) -> Verdict:
        """An approval that does not hold: the package waits for approval again, and people are told."""
        package, model = decided.package, self.spec.model
        by = f" by {decided.by}" if decided.by else ""
        summary = f"The approval of {version(package)}{by} does not hold: {why}. It waits for approval again."
        if self._knows(Kind.APPROVAL_VOIDED, subject):
            return Verdict(outcome=Outcome.REFUSED, refusal=summary, put_back=package)
        matter, do = self._without_approval(package, answers)
        page = Page(
            matter=matter,
            subject=f"{model}: the approval of {version(package)} does not hold",
            what=summary,
            where=package,
            do=do,
            command=f"noria approve {package} --reason '…'",
        )
        fact = self._fact(Kind.APPROVAL_VOIDED, subject, summary, package=package, by=decided.by, reason=why)
        return Verdict(outcome=Outcome.REFUSED, facts=(fact,), page=page, refusal=summary, put_back=package)

    def _without_approval(self, package: str, answers: bool | None) -> tuple[Matter, str]:
        """What it is to people that a package is not approved any more, and what they can do."""
        if package in answering(self.entries) if answers is None else answers:
            return (
                Matter.UNAPPROVED_LIVE,
                "It answers, or is about to: look at it, then noria rollback or approve it anew.",
            )
        look = "Look who changed the registry; approve it by the rule if it is good."
        if not turned_off(self.entries):
            return Matter.APPROVAL_VOID, f"What answers stays as it is. {look}"
        waits = newest_request(self.entries)
        if package != self._comes_back.package or (waits and waits.desired.package not in {package, None}):
            return Matter.APPROVAL_VOID, f"What is to answer in the model's hours does so without it. {look}"
        hours = self.spec.serve.hours
        off = hours and not hours.include(self.now)
        until = f" until {hours.local(hours.next_start(self.now))}, and nothing will then" if hours and off else ""
        return (
            Matter.NOT_BACK,
            f"Nothing answers{until}: approve it by the rule if it is good, or another version.",
        )

    def _permitted(self, decided: Decided) -> bool:
        """Whether a request brought this approval about. SageMaker keeps the reason of it when a person gives none."""
        if not decided.reason.startswith(PERMITTED):
            return False
        return not any(
            str(entry.details.get("reason")).startswith(PERMITTED) and decided_at(entry) < decided.at
            for entry in self.entries
            if entry.kind is Kind.PACKAGE_APPROVED and entry.details["package"] == decided.package
        )

    def rejected(self, decided: Decided) -> Verdict:
        said = self._said(Kind.PACKAGE_REJECTED, decided)
        package, wanted = decided.package, self._wanted
        id_ = deployment_id(package, decided.name)
        desired = self._without(package)
        if desired == wanted:
            return Verdict(outcome=Outcome.NOTHING, facts=said)
        if desired.package is None:
            return Verdict(outcome=Outcome.NOTHING, facts=said, page=self._stays(package) if said else None)
        if self._knows(Kind.DEPLOYMENT_REQUESTED, id_):
            return Verdict(outcome=Outcome.NOTHING, facts=said)
        why = f"{version(package)} was rejected"
        # It follows from what it takes back, and does not overtake what was decided since.
        at = self._since(decided.at)
        return self._request(id_, desired, Cause.REJECTED, why, decision=decided.name, at=at, by=decided.by, said=said)

    # --- people, by name

    def requested(self, asked: ServingRequest) -> Verdict:
        name, id_ = f"request {asked.request}", deployment_id("request", asked.request)
        if self._knows(Kind.DEPLOYMENT_REFUSED, name) or self._asked(id_):
            return Verdict(outcome=Outcome.NOTHING)
        # Who asks with a clock that is fast decides now, not later: else nothing could be decided meanwhile.
        at = min(asked.requested_at, self.now)
        try:
            desired, cause = self._answer(asked)
        except _Refused as refused:
            return self._refuse(name, str(refused), package=asked.package, by=asked.by)
        if desired == self._wanted:
            return Verdict(outcome=Outcome.NOTHING)
        if later := overtaken_by(self.entries, at):
            return self._superseded(id_, desired, name, later)
        said = (self._retired(id_, asked),) if cause is Cause.RETIRED else ()
        return self._request(id_, desired, cause, asked.reason, decision=name, at=at, by=asked.by, said=said)

    def _retired(self, id_: str, asked: ServingRequest) -> Fact:
        summary = f"{self.spec.model} is retired by {asked.by}: {asked.reason.rstrip('.')}. The record stays."
        was = self._wanted.package
        return self._fact(Kind.MODEL_RETIRED, id_, summary, package=was, by=asked.by, reason=asked.reason)

    def _answer(self, asked: ServingRequest) -> tuple[Desired, Cause]:
        """What a request comes to. Raises `_Refused`."""
        wanted = self._wanted
        match asked.action:
            case "rollback":
                return Desired(package=self._rollback_target(asked.package)), Cause.ROLLBACK
            case "traffic":
                return self._traffic(asked.package, asked.percent), Cause.TRAFFIC
            case "shadow":
                return self._shadow(asked.package), Cause.SHADOW
            case "promote":
                return self._promoted(asked.package), Cause.PROMOTE
            case "abandon":
                return wanted.without(self._challenger(asked.package)), Cause.ABANDON
            case "retire":
                return Desired(package=None), Cause.RETIRED

    def _promoted(self, package: str | None) -> Desired:
        wanted = self._wanted
        if package is not None and package == wanted.package:
            return wanted
        challenger = self._challenger(package)
        self._require(challenger, approved=True)
        return wanted.without(wanted.package or NONE, instead=challenger)

    def _rollback_target(self, package: str | None) -> str:
        if package is None:
            self._refuse_further_back()
            before = predecessors(self.entries, self._wanted.package)
            package = next((arn for arn in before if self.approval(arn) == APPROVED), None)
            if package is None:
                raise _Refused("No approved version was live before: approve one, or name one with --to.")
            return package
        self._require(package, approved=True)
        champions = {str(entry.details["package"]) for entry in self.entries if entry.kind is Kind.DEPLOYED} - {NONE}
        if package not in champions:
            raise _Refused(f"{version(package).capitalize()} never was champion: approve it, and it goes live.")
        return package

    def _refuse_further_back(self) -> None:
        """Asked twice, by two people, or of a version that was left already, it is meant once: further only by name."""
        now = live_package(self.entries)
        ways = [r for r in unsettled(self.entries) if r.cause in WAY_BACK and r.desired.package != now]
        if ways:
            raise _Refused(
                f"A rollback to {version(ways[-1].desired.package)} is under way ({ways[-1].reason}): "
                "wait for it, or name the version with --to."
            )
        back = took_back(self.entries)
        if back and self._wanted.package == now:
            raise _Refused(
                f"{version(now).capitalize()} answers by a rollback already ({back.reason}): "
                "to go back further, name the version with --to."
            )

    def _traffic(self, package: str | None, percent: int | None) -> Desired:
        wanted = self._wanted
        self._require_realtime("A challenger")
        if percent is None or not 1 <= percent <= 99:
            raise _Refused(
                f"{percent} percent is not between 1 and 99; `noria abandon` ends an A/B, promote decides it."
            )
        package = package or wanted.challenger
        if package is None:
            raise _Refused("No A/B runs: name the challenger with --package.")
        if wanted.shadow:
            raise _Refused(
                f"{version(wanted.shadow).capitalize()} is a shadow, beside which SageMaker has no challenger: "
                "end the shadow first (noria shadow MODEL --off)."
            )
        self._require_other(package)
        return replace(wanted, challenger=package, percent=percent)

    def _shadow(self, package: str | None) -> Desired:
        wanted = self._wanted
        if package is None:
            if wanted.shadow is None:
                raise _Refused("There is no shadow to end.")
            return replace(wanted, shadow=None)
        self._require_realtime("A shadow")
        if wanted.challenger:
            raise _Refused(
                f"{version(wanted.challenger).capitalize()} is a challenger, beside which SageMaker has no shadow: "
                "end the A/B first (noria abandon or noria promote)."
            )
        self._require_other(package)
        return replace(wanted, shadow=package)

    def _challenger(self, meant: str | None) -> str:
        challenger = self._wanted.challenger
        if challenger is None:
            raise _Refused("No A/B runs, so there is no challenger: begin one with noria traffic.")
        if meant not in {None, challenger}:
            raise _Refused(
                f"{version(meant).capitalize()} is not the challenger any more, {version(challenger)} is: look again."
            )
        return challenger

    def _require_realtime(self, what: str) -> None:
        mode = self.spec.serve.mode
        if mode is not Mode.REALTIME:
            raise _Refused(f"{what} needs variants beside each other, which mode {mode.value} does not have.")

    def _require_other(self, package: str) -> None:
        champion = self._wanted.package
        if champion is None:
            raise _Refused("Nothing is live to compare with: approve a package first.")
        if package == champion:
            raise _Refused(f"{version(package).capitalize()} is the champion: name another version.")
        self._require(package)

    def _require(self, package: str, *, approved: bool = False) -> None:
        """A package that may answer. In mode open, one that is to answer beside the champion is approved by that."""
        approval = self.approval(package)
        if approval is None:
            raise _Refused(f"There is no package {package} of {self.spec.model}.")
        if approval == State.EXPIRED:
            raise _Refused(f"{version(package).capitalize()} expired: it waited too long for approval; train anew.")
        if approval == REJECTED or ((approved or self.spec.approval.strict) and approval != APPROVED):
            state = "rejected" if approval == REJECTED else "not approved"
            raise _Refused(f"{version(package).capitalize()} is {state}: approve it first (noria approve).")
        if before := rollback_of(self.entries, package):
            raise _Refused(f"{version(package).capitalize()} was rolled back before. {before.summary}")

    # --- time and alarms

    def challenger_alarm(self, alarm: str, at: datetime, why: str, *, under_way: Request | None = None) -> Verdict:
        """An alarm of the challenger was raised at that time: whoever was the challenger then, is so no more.

        `under_way`: the deployment that the stack had begun then, and that had no outcome yet.
        """
        package = challenger_at(self.entries, at, under_way)
        if package is None:
            return Verdict(outcome=Outcome.NOTHING)
        return self._end_challenge(package, f"{alarm}#{at.isoformat()}", f"alarm {alarm}", "was raised", why, at=at)

    def _end_challenge(self, package: str, name: str, what: str, did: str, why: str, *, at: datetime) -> Verdict:
        """It counts as rolled back from now on; `what` speaks against it, by what it `did`."""
        id_ = deployment_id(package, name)
        summary = f"{version(package).capitalize()} is no challenger any more: {what} {did}. {why}"
        known = self._knows(Kind.CHALLENGER_ROLLED_BACK, package)
        said = (
            () if known else (self._fact(Kind.CHALLENGER_ROLLED_BACK, package, summary, package=package, reason=why),)
        )
        page = Page(
            matter=Matter.CHALLENGER_ROLLED_BACK,
            subject=f"{self.spec.model}: {version(package)} was rolled back as challenger",
            what=summary,
            where=f"{package}\nendpoint of {self.spec.model}",
            do="Nobody is waiting: the champion answers. Find out why; this version is not deployed again.",
            command=f"noria events {self.spec.model}",
        )
        desired = self._without(package)
        if desired.package is None:
            stays = "No approved version was live before, so it stays. Approve another version."
            page = replace(page, matter=Matter.UNWANTED_LIVE, do=stays)
        if desired == self._wanted or desired.package is None or self._knows(Kind.DEPLOYMENT_REQUESTED, id_):
            return Verdict(outcome=Outcome.NOTHING, facts=said, page=page if said else None, blamed=package)
        why, at = f"{what} {did}", self._since(at)
        verdict = self._request(id_, desired, Cause.ABANDON, why, decision=what, at=at, said=said)
        return replace(verdict, page=page if said else None, blamed=package)

    def advance(self, deployment: str, *, answered: int) -> Verdict:
        """A step of a progressive deployment has baked; its challenger `answered` so many requests.

        It goes on once the challenger is proved, and ends where the proof or the experiment speak against it. One whose
        approval does not hold any more stays where it is until a person decides.
        """
        step, decision = self.step, f"{_ADVANCE}{deployment}"
        live = next((e for e in self.entries if e.kind is Kind.DEPLOYED and e.subject == deployment), None)
        if step is None or step.id != deployment or live is None or self._knows(Kind.DEPLOYMENT_REFUSED, decision):
            return Verdict(outcome=Outcome.NOTHING)
        package = step.desired.challenger or NONE
        if against := next(self._against(package, step.desired.package), None):
            return self._end_challenge(package, decision, *against, at=self.now)
        if self.approval(package) != APPROVED or taken_back(self.entries, package):
            why, first = "it is not approved any more", "Look at it, and approve it if it is good"
            return self._stays_on_its_share(package, decision, why, first)
        if self._proof(package) is None:
            if self.now < live.at + self.spec.serve.bake + PROOF:
                return Verdict(outcome=Outcome.WAITING)
            why, first = "no probe has heard an answer of it", "See why it is not probed (noria events)"
            return self._stays_on_its_share(package, decision, why, first)
        desired, cause = self._next_step(package)
        why = f"it stood the test on {step.desired.percent}%"
        least = self.spec.serve.min_requests
        if answered < least * (self.now - live.at) / timedelta(minutes=1):
            why = (
                f"nothing was heard against it on {step.desired.percent}%, but its {answered} requests were too few "
                f"for the alarms of errors and latency, which are silent below {least} a minute"
            )
        id_ = deployment_id("advance", deployment)
        return self._request(id_, desired, cause, why, decision=decision, at=step.decided_at)

    def _proof(self, challenger: str) -> Entry | None:
        """The last probe of it as challenger. It stays in its place from step to step, and is probed once."""
        proofs = (e for e in reversed(self.entries) if e.kind is Kind.PROBED and e.details["package"] == challenger)
        return next((entry for entry in proofs if entry.details["variant"] == "challenger"), None)

    def _against(self, challenger: str, champion: str | None) -> Iterator[tuple[str, str, str]]:
        """What else than alarms speaks against a challenger: what, what it did, and the details."""
        if proof := self._proof(challenger):
            wrong, shift, most = proof.details["wrong"], proof.details["shift"], self.spec.serve.prediction_shift
            if wrong:
                yield "the probe", "found golden rows that are answered wrongly", proof.summary
            if isinstance(shift, float) and most is not None and shift > most:
                yield "the probe", f"found answers that have shifted by more than PSI {most:g}", proof.summary
        pair = {"rival": challenger, "champion": champion}
        judged = (e for e in reversed(self.entries) if e.kind is Kind.EXPERIMENT_JUDGED)
        newest = next((e for e in judged if pair.items() <= e.details.items()), None)
        if newest and newest.details["verdict"] == "abandon":
            yield "the experiment", "came to a verdict against it", newest.summary

    def _stays_on_its_share(self, package: str, decision: str, why: str, first: str) -> Verdict:
        why = f"{version(package).capitalize()} does not go on to more requests: {why}."
        verdict = self._refuse(decision, why, package=package)
        do = f"It stays on its share. {first}; then noria promote or noria abandon it."
        return replace(verdict, page=replace(verdict.page, do=do) if verdict.page else None)

    @property
    def step(self) -> Request | None:
        """The step of a progressive deployment that was asked for last, unless something else was asked for since."""
        asked = asked_for(self.entries)
        last = asked[-1] if asked else None
        return last if last and last.cause is Cause.PROGRESSIVE and last.desired.challenger else None

    def not_left(self) -> Verdict:
        """After a deployment: what was decided against goes now, where it could not go before.

        Once: if that fails too, a person has been told.
        """
        asked = asked_for(self.entries)
        if not asked or newest_request(self.entries) or asked[-1].decision.startswith(_AFTER):
            return Verdict(outcome=Outcome.NOTHING)
        wanted, last = self._wanted, asked[-1]
        against = [p for p in (wanted.challenger, wanted.shadow, wanted.package) if p and self._unwanted(p)]
        desired = wanted
        for package in against:
            left = self._without(package, desired)
            desired = left if left.package else desired
        if desired in {wanted, last.desired}:
            return Verdict(outcome=Outcome.NOTHING)
        why = f"{' and '.join(map(version, against))} was decided against meanwhile"
        name = f"{_AFTER}{last.id}"
        at = self._since(last.decided_at)
        return self._request(deployment_id("after", last.id), desired, Cause.REJECTED, why, decision=name, at=at)

    # --- the clock

    def hours(self, under_way: Request | None = None) -> Verdict:
        """Take the endpoint away outside of the model's hours, and put it back in them.

        `under_way` is the deployment that the stack has begun. What was decided on before goes first, and a progressive
        deployment to its end; what can not begin any more in time is given up.
        """
        hours, gone, turn = self.spec.serve.hours, turned_off(self.entries), by_hours(self.entries)
        answers = hours is None or hours.include(self.now)
        if turn:
            comes = turn.cause is Cause.ON
            if turn == under_way or answers == comes == (gone is not None):
                return Verdict(outcome=Outcome.NOTHING)
            why = NEED_NOT_COME if comes else NEED_NOT_GO
            return Verdict(outcome=Outcome.NOTHING, facts=(self._fact(Kind.DEPLOYMENT_SUPERSEDED, turn.id, why),))
        now = kept(self.entries)
        if answers == (gone is None) or now is None or now.package is None:
            return Verdict(outcome=Outcome.NOTHING)
        if not answers and (newest_request(self.entries) or self._stepping):
            return Verdict(outcome=Outcome.NOTHING)
        desired = self._comes_back if answers else Desired(package=None)
        turned = hours.turned(self.now) if hours else gone.at if gone else self.now
        cause = Cause.ON if answers else Cause.OFF
        # What failed is tried again, once an hour.
        decision = f"{cause} {turned.isoformat()} {(self.now - turned) // timedelta(hours=1)}"
        id_ = deployment_id("hours", decision)
        if self._knows(Kind.DEPLOYMENT_REQUESTED, id_):
            return Verdict(outcome=Outcome.NOTHING)
        why = f"it is outside of {hours}" if not answers else f"{hours} has begun" if hours else "it has no hours"
        return self._request(id_, desired, cause, why, decision=decision, at=self.now)

    @property
    def _comes_back(self) -> Desired:
        """What did not answer outside of hours, without whom people or alarms decided against to be beside it."""
        desired = comes_back(self.entries) or Desired(package=None)
        for package in (desired.challenger, desired.shadow):
            if package and (self._unwanted(package) or taken_back(self.entries, package)):
                desired = desired.without(package)
        return desired

    @property
    def _stepping(self) -> bool:
        """Whether a progressive deployment goes on by itself."""
        step, now = self.step, kept(self.entries)
        if step is None or now is None or now.challenger != step.desired.challenger:
            return False
        return not self._knows(Kind.DEPLOYMENT_REFUSED, f"{_ADVANCE}{step.id}")

    def _unwanted(self, package: str) -> bool:
        return self.approval(package) == REJECTED or rollback_of(self.entries, package) is not None

    # --- what is to be live

    @property
    def _wanted(self) -> Desired:
        return wanted(self.entries) or Desired(package=None)

    def _going_live(self, package: str) -> tuple[Desired, Cause]:
        """An approved package by the spec's strategy."""
        wanted = self._wanted
        if wanted.package is None or (turned_off(self.entries) and taken_back(self.entries, wanted.package)):
            return Desired(package=package), Cause.APPROVED  # nothing comes back that it could answer beside
        if self.spec.serve.strategy is Strategy.PROGRESSIVE:
            under_way = self.step is not None and self.step == newest_request(self.entries)
            stepping = self.step is not None and (under_way or self._knows(Kind.DEPLOYED, self.step.id))
            if stepping and wanted.challenger == package:
                return wanted, Cause.PROGRESSIVE
            return self._next_step(package)
        if wanted.challenger == package:
            return wanted.without(wanted.package, instead=package), Cause.PROMOTE
        # A challenger stays: SageMaker guards no deployment that takes it away, and a new version needs its guard.
        return wanted.without(wanted.package, instead=package), Cause.APPROVED

    def _next_step(self, package: str) -> tuple[Desired, Cause]:
        wanted = self._wanted
        reached = wanted.percent if wanted.challenger == package else 0
        for percent in self.spec.serve.weights:
            if percent > reached:
                return Desired(package=wanted.package, challenger=package, percent=percent), Cause.PROGRESSIVE
        return Desired(package=package), Cause.PROMOTE

    def _without(self, package: str, wanted: Desired | None = None) -> Desired:
        """What is wanted without a package: an approved predecessor takes its place; None where there is none."""
        wanted = wanted or self._wanted
        if wanted.package != package:
            return wanted.without(package)
        before = (arn for arn in predecessors(self.entries, package) if self.approval(arn) == APPROVED)
        return wanted.without(package, instead=next(before, None))

    def _since(self, at: datetime) -> datetime:
        """When what is wanted was decided: what only takes a part of it back is no newer decision."""
        asked = asked_for(self.entries)
        return min(asked[-1].decided_at, at) if asked else at

    # --- facts

    def _knows(self, kind: Kind, subject: str) -> bool:
        return any(entry.kind is kind and entry.subject == subject for entry in self.entries)

    def _asked(self, id_: str) -> bool:
        return self._knows(Kind.DEPLOYMENT_REQUESTED, id_) or self._knows(Kind.DEPLOYMENT_SUPERSEDED, id_)

    def _fact(self, kind: Kind, subject: str, summary: str, **details: str | int | None) -> Fact:
        return Fact(
            model=self.spec.model, kind=kind, subject=subject, at=self.now, summary=summary, details={**details}
        )

    def _said(self, kind: Kind, decided: Decided) -> tuple[Fact, ...]:
        """That somebody decided, unless the ledger knows."""
        if self._knows(kind, decided.name):
            return ()
        approving = kind is Kind.PACKAGE_APPROVED
        ruled = self._ruled(decided) if approving else {"approver": decided.by}
        who = ruled["approver"]
        by = f" by {who}" if who and who != AUTOMATIC else " by its gates" if who else ""
        why = f": {decided.reason}" if decided.reason else "."
        summary = f"{version(decided.package).capitalize()} was {'approved' if approving else 'rejected'}{by}{why}"
        told = {"package": decided.package, "by": decided.by, "reason": decided.reason, **ruled}
        return (self._fact(kind, decided.name, summary, **told),)

    def _ruled(self, decided: Decided) -> dict[str, str | None]:
        """By whom, by which rule, and of what a package was approved; by whom only as far as SageMaker tells."""
        candidate = decided.candidate
        if candidate is None:
            return {"approver": decided.by}
        ruling = judge(self.spec, self.entries, candidate)
        counted = ruling.approved and (self.spec.approval.strict or self.spec.approval.automatic)
        return {
            "approver": ", ".join(ruling.approvers) if counted else decided.by,
            "rule": ruling.rule if counted else rule(self.spec.approval),
            "content": candidate.content,
            "author": author(self.entries, candidate),
        }

    def _request(
        self,
        id_: str,
        desired: Desired,
        cause: Cause,
        why: str,
        *,
        decision: str,
        at: datetime,
        by: str | None = None,
        said: tuple[Fact, ...] = (),
    ) -> Verdict:
        what = f"{str(desired).capitalize()} is to {'go live' if desired.package else 'answer'}"
        fact = Fact(
            model=self.spec.model,
            kind=Kind.DEPLOYMENT_REQUESTED,
            subject=id_,
            at=self.now,
            summary=f"{what}: {why.rstrip('.')}.",
            details={
                **desired.details,
                "decision": decision,
                "decided_at": at.isoformat(),
                "cause": cause.value,
                "reason": why,
                "by": by,
            },
        )
        return Verdict(outcome=Outcome.REQUESTED, facts=(*said, fact), desired=desired)

    def _superseded(
        self, id_: str, desired: Desired, decision: str, later: str, *, said: tuple[Fact, ...] = ()
    ) -> Verdict:
        if self._knows(Kind.DEPLOYMENT_SUPERSEDED, id_):
            return Verdict(outcome=Outcome.OVERTAKEN, facts=said)
        summary = f"{str(desired).capitalize()} will not go live: {later} was asked for by a later decision."
        fact = self._fact(Kind.DEPLOYMENT_SUPERSEDED, id_, summary)
        fact = fact.model_copy(update={"details": {**desired.details, "decision": decision}})
        return Verdict(outcome=Outcome.OVERTAKEN, facts=(*said, fact), page=superseded(fact))

    def _refuse(
        self, decision: str, why: str, *, package: str | None, by: str | None = None, said: tuple[Fact, ...] = ()
    ) -> Verdict:
        model = self.spec.model
        page = Page(
            matter=Matter.REFUSED,
            subject=f"{model}: {version(package)} is refused" if package else f"{model}: a request is refused",
            what=why,
            where=f"{package or model}, {decision}",
            do="What answers stays as it is. Ask again for what can be; if it was rolled back, train a new version.",
            command=f"noria status {model}",
        )
        fact = self._fact(Kind.DEPLOYMENT_REFUSED, decision, why, package=package or NONE, by=by)
        return Verdict(outcome=Outcome.REFUSED, facts=(*said, fact), page=page, refusal=why)

    def _stays(self, package: str) -> Page:
        model, hours = self.spec.model, self.spec.serve.hours
        if turned_off(self.entries):
            off = hours and not hours.include(self.now)
            start = f" from {hours.local(hours.next_start(self.now))}" if hours and off else ""
            return Page(
                matter=Matter.NOT_BACK if off else Matter.UNANSWERED,
                subject=f"{model}: {version(package)} was rejected, and nothing takes its place",
                what=f"{package} was rejected, and no approved version was live before it: nothing will answer{start}.",
                where=f"endpoint of {model}",
                do="Approve another version.",
                command=f"noria status {model}",
            )
        return Page(
            matter=Matter.UNWANTED_LIVE,
            subject=f"{model}: {version(package)} was rejected but stays live",
            what=f"{package} was rejected while it is live, and no approved version was live before it.",
            where=f"endpoint of {model}",
            do="Approve another version, or set the serving stack's ModelPackageArn to none to answer nobody.",
            command=f"noria status {model}",
        )
