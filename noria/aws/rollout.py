"""Carries out what the ledger asks of a serving stack, one deployment at a time.

deploy_model asks and begins if the stack is free; confirm_deployment says what came of it and begins what waited.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Self

from noria.approval import PENDING
from noria.aws.approvals import Approvals
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger, LedgerBusyError
from noria.aws.pages import Matter, Page, Pages
from noria.aws.queues import Queues
from noria.aws.registry import DESCRIPTION, Registry
from noria.aws.serving import Operation, ServingStack, Update
from noria.aws.storage import Storage
from noria.aws.telemetry import follow, tell
from noria.decisions import PERMITTED, Decided, Decisions, Verdict, superseded, unanswered
from noria.deployment import (
    WAY_BACK,
    Desired,
    Guard,
    Request,
    asked_for,
    by_hours,
    decided_against,
    guard,
    live,
    newest_request,
    turned_off,
    unsettled,
)
from noria.events import Tick
from noria.ledger import Entry, Fact, Kind, correlation_of
from noria.names import Names, version
from noria.spec import ModelSpec

# The ledger's clock and CloudFormation's are not the same one.
_SKEW = timedelta(minutes=5)

_PROBE_AFTER = timedelta(minutes=3)
"""By then a new instance is mostly up. The probe puts itself off where it is not."""

_LOOK_AGAIN = timedelta(seconds=10)
"""Somebody else may be saying at this moment what differs."""

_ATTEMPTS = 12


class Begun(StrEnum):
    NOTHING = "NothingToDeploy"
    STARTED = "DeploymentStarted"
    WAITING = "DeploymentWaiting"  # one is under way, or the stack is busy: its end begins the next
    UNCHANGED = "DeploymentUnchanged"  # the stack has these parameters already: look what is live
    DIFFERS = "ServingDiffers"  # the stack asks for what nobody asked of us: look what is live, and say so first
    SUPERSEDED = "DeploymentSuperseded"  # another was asked for before it could begin
    STUCK = "ServingStackStuck"  # only a person gets the stack out of this


@dataclass(frozen=True, kw_only=True)
class CarriedOut:
    """A deployment that the stack has begun, and the operation that did it; None when it wanted the package already."""

    request: Request
    operation: Operation | None


@dataclass(frozen=True, kw_only=True)
class Rollout:
    spec: ModelSpec
    names: Names
    stack: ServingStack
    ledger: Ledger
    approvals: Approvals
    pages: Pages
    queues: Queues

    @classmethod
    def of(cls, spec: ModelSpec, env: Environment) -> Self:
        return cls(
            spec=spec,
            names=env.names,
            stack=ServingStack(name=env.names.stack(spec.model, "serving")),
            ledger=Ledger(table=env.ledger_table),
            approvals=Approvals(registry=Registry(), storage=Storage(bucket=env.data_bucket)),
            pages=Pages(topics=env.topics),
            queues=Queues(),
        )

    @property
    def model(self) -> str:
        return self.spec.model

    @property
    def group(self) -> str:
        return self.names.model(self.model)

    @property
    def registry(self) -> Registry:
        return self.approvals.registry

    def record(
        self,
        decide: Callable[[Sequence[Entry]], Verdict],
        *,
        now: datetime,
        announce: Callable[[Verdict], None] = lambda _: None,
    ) -> Verdict:
        """Decide on what the ledger holds, tell it, and record it: again if something else was recorded meanwhile.

        A verdict that a person is paged of is told once, `announce`d first, by who claims it.
        """
        told: set[str] = set()
        for _ in range(_ATTEMPTS):
            entries = self.ledger.entries(self.model)
            verdict = decide(entries)
            if verdict.page and (subject := verdict.facts[0].meaning) not in told:
                with self.ledger.claim(self.model, subject, now=now) as ours:
                    if not ours:
                        return verdict  # somebody else is at it, who then records it too
                    announce(verdict)
                    self.pages.send(verdict.page)
                told.add(subject)
            if self.ledger.append(verdict.facts, after=entries[-1] if entries else None):
                return verdict
        raise LedgerBusyError(f"{self.model}: nothing decided after {_ATTEMPTS} attempts")

    def decisions(self, entries: Sequence[Entry], *, now: datetime) -> Decisions:
        def approval(package: str) -> str | None:
            return self.approvals.word(self.spec, self.group, entries, package, now)

        return Decisions(spec=self.spec, entries=entries, approval=approval, now=now)

    def put_back(self, verdict: Verdict) -> None:
        """Have a package wait for approval again, as the verdict says and the ledger has it already.

        Who dies before this finds the package approved at the next delivery, and puts it back then.
        """
        if verdict.put_back:
            self.registry.decide(verdict.put_back, PENDING, reason=f"Put back: {verdict.refusal}"[:DESCRIPTION])

    def void_unfit(self, desired: Desired, *, live: Desired | None, now: datetime) -> set[str]:
        """Look at what these packages would serve now; the approvals of those that are something else now are void.

        Returns these. `live` is what answers. A model file lies in S3 for as long as its package waits, or answers: it
        may be replaced.
        """
        unfit = set()
        for package in desired.packages:
            found = self.registry.find(self.group, package)
            if found is None:
                continue
            decided = Decided(package=found.arn, at=now, by=found.decided_by, candidate=self.approvals.candidate(found))
            answers = live is not None and package in live.packages
            verdict = self.record(partial(self._changed, decided, answers=answers, now=now), now=now)
            self.put_back(verdict)
            if verdict.refusal:
                unfit.add(package)
        return unfit

    def _changed(self, decided: Decided, entries: Sequence[Entry], *, answers: bool, now: datetime) -> Verdict:
        return self.decisions(entries, now=now).changed(decided, answers=answers)

    def page(self, page: Page, subject: str, *, now: datetime) -> bool:
        """Tell a person, unless somebody tells them the same at this moment."""
        with self.ledger.claim(self.model, subject, now=now) as ours:
            if ours:
                self.pages.send(page)
        return ours

    def carried_out(self) -> CarriedOut | None:
        """The deployment without an outcome that the stack has begun: there is at most one."""
        requests = list(reversed(unsettled(self.ledger.entries(self.model))))
        for request in requests:
            if operation := self.stack.operation(request.id, since=request.at - _SKEW):
                return CarriedOut(request=request, operation=operation)
        state = self.stack.state()
        for request in requests:
            if not state.in_progress and state.desired == request.desired:
                return CarriedOut(request=request, operation=None)
        return None

    def under_way_at(self, moment: datetime) -> Request | None:
        """The deployment that the stack had begun by then and that had no outcome yet."""
        past = [entry for entry in self.ledger.entries(self.model) if entry.at <= moment]
        for request in reversed(unsettled(past)):
            operation = self.stack.operation(request.id, since=request.at - _SKEW)
            if operation and operation.began < moment:
                return request
        return None

    def begin_next(self, *, now: datetime, looked: Desired | None = None) -> Begun:
        """Begin the deployment that was asked for last, and give up those before it.

        `looked`: what the caller saw to be live, once the ledger says so. Else what somebody else had the stack do
        would be replaced unsaid.
        """
        under_way = self.carried_out()
        entries = self._keep_hours(under_way, now=now)
        newest, turn = newest_request(entries), by_hours(entries)
        for request in unsettled(entries):
            if request not in {newest, turn, under_way and under_way.request}:
                later = asked_for(entries)[-1].desired
                self._supersede(request, f"{later} was asked for after it", now=now)
        first = turn or newest
        if first is None:
            return Begun.NOTHING
        follow(correlation_of(entries, first.id))
        if under_way is None:
            return self._carry_out(first, entries, looked, now=now)
        if newest and under_way.request != newest:
            turns = under_way.request == turn
            what = "the endpoint comes or goes by its hours" if turns else f"{under_way.request.desired} is under way"
            self._wait(newest, what, now=now)
        if under_way.operation is None:
            return self._look(Begun.UNCHANGED, now=now)
        return Begun.WAITING

    def _carry_out(self, request: Request, entries: Sequence[Entry], looked: Desired | None, *, now: datetime) -> Begun:
        if why := self._outside(request, entries, now=now):
            self._wait(request, why, now=now)
            return Begun.WAITING
        if why := self._against(request, entries, now=now):
            gone = turned_off(entries) if newest_request(entries) in {None, request} else None
            said = self._supersede(request, why, unanswered_since=gone, now=now)
            return self.begin_next(now=now, looked=looked) if said else Begun.NOTHING
        if self._differs(live(entries), looked):
            return self._look(Begun.DIFFERS, now=now, delay=_LOOK_AGAIN)
        return self._begin(request, guard=guard(live(entries), request.desired, request.cause), now=now)

    def _keep_hours(self, under_way: CarriedOut | None, *, now: datetime) -> list[Entry]:
        """Ask for what the clock asks for; the entries of the ledger after that."""
        entries = self.ledger.entries(self.model)
        if not (self.spec.serve.hours or turned_off(entries) or by_hours(entries)):
            return entries
        request = under_way.request if under_way else None
        self.record(lambda entries: self.decisions(entries, now=now).hours(request), now=now)
        return self.ledger.entries(self.model)

    def _outside(self, request: Request, entries: Sequence[Entry], *, now: datetime) -> str | None:
        """Why nothing may begin to answer now, where it is outside of the model's hours."""
        hours, answers = self.spec.serve.hours, live(entries) or Desired(package=None)
        if hours is None or hours.include(now) or answers.package or request.desired.package is None:
            return None
        return f"{self.model} is off until {hours.local(hours.next_start(now))}"

    def _differs(self, known: Desired | None, looked: Desired | None) -> bool:
        """Whether the stack has come to rest on something of which the ledger knows nothing."""
        state, known = self.stack.state(), known or Desired(package=None)
        return not state.in_progress and known not in {state.desired, looked}

    def _against(self, request: Request, entries: Sequence[Entry], *, now: datetime) -> str | None:
        """Why what was asked for, and perhaps waited, may not begin any more."""
        if against := decided_against(entries, request.desired):
            return f"{version(against)} was decided against before it began"
        now_live = live(entries)
        # The way back is open: an endpoint that leaves a bad version goes on with what it answers by already.
        answer = now_live.packages if now_live and request.cause in WAY_BACK else frozenset()
        if unfit := self.void_unfit(request.desired, live=now_live, now=now) - answer:
            return f"what {' and '.join(map(version, sorted(unfit)))} would serve now is not what was approved"
        if waits := self._not_permitted(request, now_live):
            return f"{version(waits)} waits for approval again; ask for it once it is approved (noria approve)"
        return None

    def _begin(self, request: Request, *, guard: Guard, now: datetime) -> Begun:
        match self.stack.update(request.desired, guard=guard, token=request.id):
            case Update.STARTED if request.desired.package is None:
                return Begun.STARTED
            case Update.STARTED:
                message = Tick.message("Probe Deployment", model=self.model, time=now)
                self.queues.send(self.names.queue("probe-deployment"), message, delay=_PROBE_AFTER)
                return Begun.STARTED
            case Update.UNCHANGED:
                return self._look(Begun.UNCHANGED, now=now)
            case Update.BUSY if self.stack.operation(request.id, since=request.at - _SKEW):
                return Begun.STARTED  # by another delivery of the same, a moment ago
            case Update.BUSY:
                self._wait(request, "the serving stack is changing for another reason", now=now)
                return Begun.WAITING
            case Update.STUCK:
                self.tell_stuck(now=now)
                return Begun.STUCK

    def _not_permitted(self, request: Request, live: Desired | None) -> str | None:
        """SageMaker serves approved packages only: who asks for one beside the champion approves it by that.

        Not in mode strict: there it is the package that cannot go live, unless it answers already.
        """
        answer = live.packages if live else frozenset()
        for package in (request.desired.challenger, request.desired.shadow):
            if package and self.registry.approval(self.group, package) == PENDING:
                if not self.spec.approval.strict:
                    self.registry.decide(package, "Approved", reason=f"{PERMITTED}{request.reason}"[:DESCRIPTION])
                elif package not in answer:
                    return package
        return None

    def _look(self, why: Begun, *, now: datetime, delay: timedelta = timedelta(0)) -> Begun:
        """Have confirm_deployment look, as at the end of an update: here there is none to hear of."""
        message = Tick.message("Confirm Deployment", model=self.model, time=now)
        self.queues.send(self.names.queue("confirm-deployment"), message, delay=delay)
        return why

    def _wait(self, request: Request, why: str, *, now: datetime) -> None:
        summary = f"{str(request.desired).capitalize()} waits for its turn: {why}."
        self.ledger.record(self._fact(Kind.DEPLOYMENT_WAITING, request, summary, now=now))

    def _supersede(self, request: Request, why: str, *, now: datetime, unanswered_since: Entry | None = None) -> bool:
        """Whether it was up to us to say so.

        `unanswered_since`: what took the endpoint away, where nothing is left to answer in the hours that have begun.
        What is asked for again every hour then is told once.
        """
        summary = f"{str(request.desired).capitalize()} will not go live: {why}."
        if unanswered_since:
            summary = f"Nothing answers: {request.desired} will not go live, for {why}."
        fact = self._fact(Kind.DEPLOYMENT_SUPERSEDED, request, summary, now=now)
        since = self.ledger.entries(self.model)[unanswered_since.number :] if unanswered_since else []
        if all(entry.summary != summary for entry in since):
            page = unanswered(fact) if unanswered_since else superseded(fact)
            if not self.page(page, f"superseded {request.id}", now=now):
                return False
        tell(Begun.SUPERSEDED, model=self.model, deployment=request.id)
        self.ledger.record(fact)
        return True

    def _fact(self, kind: Kind, request: Request, summary: str, *, now: datetime) -> Fact:
        details = request.desired.details
        return Fact(model=self.model, kind=kind, subject=request.id, at=now, summary=summary, details=details)

    def tell_stuck(self, *, now: datetime) -> None:
        name = self.stack.name
        page = Page(
            matter=Matter.STACK_STUCK,
            subject=f"{self.model}: the serving stack is stuck",
            what=f"{name} could not roll back and takes no update, so nothing new can go live.",
            where=f"CloudFormation, stack {name}, events",
            do="Mend what its last events name and let the rollback continue; a deployment that waits then begins.",
            command=f"aws cloudformation continue-update-rollback --stack-name {name}",
        )
        self.page(page, "stuck", now=now)
