"""Carries out what the ledger asks of a serving stack, one deployment at a time.

deploy_model asks and begins if the stack is free; confirm_deployment says what came of it and begins what waited.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from noria.aws.ledger import Ledger
from noria.aws.pages import Page
from noria.aws.serving import Operation, ServingStack, Update
from noria.deployment import Request, newest_request, unsettled
from noria.ledger import Fact, Kind
from noria.names import version

# The ledger's clock and CloudFormation's are not the same one.
_SKEW = timedelta(minutes=5)


class Begun(StrEnum):
    NOTHING = "NothingToDeploy"
    STARTED = "DeploymentStarted"
    WAITING = "DeploymentWaiting"  # one is under way, or the stack is busy: its end begins the next
    STUCK = "ServingStackStuck"  # only a person gets the stack out of this


@dataclass(frozen=True, kw_only=True)
class CarriedOut:
    """A deployment that the stack has begun, and the operation that did it; None when it wanted the package already."""

    request: Request
    operation: Operation | None


@dataclass(frozen=True, kw_only=True)
class Rollout:
    model: str
    stack: ServingStack
    ledger: Ledger

    def carried_out(self) -> CarriedOut | None:
        """The deployment without an outcome that the stack has begun: there is at most one."""
        requests = list(reversed(unsettled(self.ledger.entries(self.model))))
        for request in requests:
            if operation := self.stack.operation(request.id, since=request.at - _SKEW):
                return CarriedOut(request=request, operation=operation)
        state = self.stack.state()
        for request in requests:
            if not state.in_progress and state.package == request.package:
                return CarriedOut(request=request, operation=None)
        return None

    def begin_next(self, *, now: datetime) -> Begun:
        """Begin the deployment that was asked for last, and give up those before it."""
        if self.carried_out():
            return Begun.WAITING
        entries = self.ledger.entries(self.model)
        newest = newest_request(entries)
        for request in unsettled(entries):
            if request != newest:
                self._supersede(request, now=now)
        if newest is None:
            return Begun.NOTHING
        match self.stack.update(newest.package, token=newest.id):
            case Update.STARTED:
                return Begun.STARTED
            case Update.STUCK:
                return Begun.STUCK
            case _:
                return Begun.WAITING

    def _supersede(self, request: Request, *, now: datetime) -> None:
        self.ledger.record(
            Fact(
                model=self.model,
                kind=Kind.DEPLOYMENT_SUPERSEDED,
                subject=request.id,
                at=now,
                summary=f"{version(request.package).capitalize()} will not go live: another was asked for after it.",
                details={"package": request.package},
            )
        )


def stuck(model: str, stack: str) -> Page:
    return Page(
        subject=f"{model}: the serving stack is stuck",
        what=f"{stack} could not roll back and takes no update, so nothing new can go live.",
        where=f"CloudFormation, stack {stack}, events",
        do="Mend what its last events name and let the rollback continue; a deployment that waits then begins.",
        command=f"aws cloudformation continue-update-rollback --stack-name {stack}",
    )
