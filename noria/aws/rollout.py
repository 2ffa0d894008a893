"""Carries out what the ledger asks of a serving stack, one deployment at a time.

deploy_model asks and begins if the stack is free; confirm_deployment says what came of it and begins what waited.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from noria.aws.environment import Environment
from noria.aws.ledger import Ledger, LedgerBusyError
from noria.aws.pages import Page, Pages
from noria.aws.queues import Queues
from noria.aws.registry import DESCRIPTION, Registry
from noria.aws.serving import Operation, ServingStack, Update
from noria.aws.telemetry import follow, tell
from noria.decisions import PERMITTED, Verdict, superseded
from noria.deployment import Desired, Guard, Request, decided_against, guard, live, newest_request, unsettled
from noria.events import Tick
from noria.ledger import Entry, Fact, Kind, correlation_of, latest
from noria.names import Names, version
from noria.spec import ModelSpec

# The ledger's clock and CloudFormation's are not the same one.
_SKEW = timedelta(minutes=5)

_PROBE_AFTER = timedelta(minutes=3)
"""By then a new instance is mostly up. The probe puts itself off where it is not."""

_ATTEMPTS = 12


class Begun(StrEnum):
    NOTHING = "NothingToDeploy"
    STARTED = "DeploymentStarted"
    WAITING = "DeploymentWaiting"  # one is under way, or the stack is busy: its end begins the next
    UNCHANGED = "DeploymentUnchanged"  # the stack has these parameters already: look what is live
    SUPERSEDED = "DeploymentSuperseded"  # another was asked for before it could begin
    STUCK = "ServingStackStuck"  # only a person gets the stack out of this


@dataclass(frozen=True, kw_only=True)
class CarriedOut:
    """A deployment that the stack has begun, and the operation that did it; None when it wanted the package already."""

    request: Request
    operation: Operation | None


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """`strict`: in that mode versions are approved by its rule, and by nothing else."""

    model: str
    strict: bool
    names: Names
    stack: ServingStack
    ledger: Ledger
    registry: Registry
    pages: Pages
    queues: Queues

    @classmethod
    def of(cls, spec: ModelSpec, env: Environment) -> Self:
        return cls(
            model=spec.model,
            strict=spec.approval.strict,
            names=env.names,
            stack=ServingStack(name=env.names.stack(spec.model, "serving")),
            ledger=Ledger(table=env.ledger_table),
            registry=Registry(),
            pages=Pages(topic=env.pages_topic),
            queues=Queues(),
        )

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

    def begin_next(self, *, now: datetime) -> Begun:
        """Begin the deployment that was asked for last, and give up those before it."""
        under_way = self.carried_out()
        entries = self.ledger.entries(self.model)
        last, newest = latest(entries, Kind.DEPLOYMENT_REQUESTED), newest_request(entries)
        for request in unsettled(entries):
            if request != newest and last and not (under_way and request == under_way.request):
                later = Request.of(last).desired
                self._supersede(request, f"{later} was asked for after it", now=now)
        if newest is None:
            return Begun.NOTHING
        follow(correlation_of(entries, newest.id))
        if under_way is None:
            if against := decided_against(entries, newest.desired):
                self._supersede(newest, f"{version(against)} was decided against before it began", now=now)
                return Begun.NOTHING
            if waits := self._not_permitted(newest, live(entries)):
                why = f"{version(waits)} waits for approval again; ask for it once it is approved (noria approve)"
                self._supersede(newest, why, now=now)
                return Begun.NOTHING
            return self._begin(newest, guard=guard(live(entries), newest.desired, newest.cause), now=now)
        if under_way.request != newest:
            self._wait(newest, f"{under_way.request.desired} is under way", now=now)
        if under_way.operation is None:
            return self._unchanged(now=now)
        return Begun.WAITING

    def _begin(self, request: Request, *, guard: Guard, now: datetime) -> Begun:
        match self.stack.update(request.desired, guard=guard, token=request.id):
            case Update.STARTED if request.desired.package is None:
                return Begun.STARTED
            case Update.STARTED:
                message = Tick.message("Probe Deployment", model=self.model, time=now)
                self.queues.send(self.names.queue("probe-deployment"), message, delay=_PROBE_AFTER)
                return Begun.STARTED
            case Update.UNCHANGED:
                return self._unchanged(now=now)
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
        answer = {live.package, live.challenger, live.shadow} if live else set()
        for package in (request.desired.challenger, request.desired.shadow):
            if package and self.registry.approval(self.names.model(self.model), package) == "PendingManualApproval":
                if not self.strict:
                    self.registry.decide(package, "Approved", reason=f"{PERMITTED}{request.reason}"[:DESCRIPTION])
                elif package not in answer:
                    return package
        return None

    def _unchanged(self, *, now: datetime) -> Begun:
        """Have confirm_deployment look, as at the end of an update: one that changes nothing has no end to hear of."""
        message = Tick.message("Confirm Deployment", model=self.model, time=now)
        self.queues.send(self.names.queue("confirm-deployment"), message)
        return Begun.UNCHANGED

    def _wait(self, request: Request, why: str, *, now: datetime) -> None:
        summary = f"{str(request.desired).capitalize()} waits for its turn: {why}."
        self.ledger.record(self._fact(Kind.DEPLOYMENT_WAITING, request, summary, now=now))

    def _supersede(self, request: Request, why: str, *, now: datetime) -> None:
        summary = f"{str(request.desired).capitalize()} will not go live: {why}."
        fact = self._fact(Kind.DEPLOYMENT_SUPERSEDED, request, summary, now=now)
        if self.page(superseded(fact), f"superseded {request.id}", now=now):
            tell(Begun.SUPERSEDED, model=self.model, deployment=request.id)
            self.ledger.record(fact)

    def _fact(self, kind: Kind, request: Request, summary: str, *, now: datetime) -> Fact:
        details = request.desired.details
        return Fact(model=self.model, kind=kind, subject=request.id, at=now, summary=summary, details=details)

    def tell_stuck(self, *, now: datetime) -> None:
        name = self.stack.name
        page = Page(
            subject=f"{self.model}: the serving stack is stuck",
            what=f"{name} could not roll back and takes no update, so nothing new can go live.",
            where=f"CloudFormation, stack {name}, events",
            do="Mend what its last events name and let the rollback continue; a deployment that waits then begins.",
            command=f"aws cloudformation continue-update-rollback --stack-name {name}",
        )
        self.page(page, "stuck", now=now)
