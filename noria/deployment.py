"""Deployments: which package should answer, which one does, and what it means when they differ.

SageMaker has no event that says "rolled back": it is inferred from what is live. Stack and endpoint are both asked,
because nobody documents what a stack reports when SageMaker rolls an update back on an alarm.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from noria.ledger import Entry, Kind, latest

ENDPOINT_TYPE = "AWS::SageMaker::Endpoint"
RESTORES = 5
"""How often a stack is brought back to what is live before a person is asked instead."""

_SETTLED = frozenset({Kind.DEPLOYED, Kind.ROLLED_BACK, Kind.DEPLOYMENT_FAILED, Kind.DEPLOYMENT_SUPERSEDED})


@dataclass(frozen=True, kw_only=True)
class Request:
    """A deployment that was asked for and whose outcome is not known yet."""

    id: str
    package: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The resource at which the stack's operation went wrong first, and what CloudFormation says about it."""

    resource_type: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Stack and endpoint, looked at together. `wanted` is the stack's parameter; None where there is no package.

    `failure` belongs to the operation of the deployment in question.
    """

    changing: bool
    wanted: str | None
    live: str | None
    failure: Failure | None = None
    endpoint_failure: str | None = None


class Outcome(StrEnum):
    """What a look at stack and endpoint shows; the values are names of metrics."""

    CHANGING = "DeploymentChanging"  # look again when it has ended: that is an event
    QUIET = "DeploymentQuiet"  # nothing was asked
    LIVE = "ModelDeployed"
    ROLLED_BACK = "ModelRolledBack"
    FAILED = "DeploymentFailed"


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """`restore`: the stack wants something else than what is live, and must be told the truth."""

    outcome: Outcome
    reason: str
    restore: bool = False


def deployment_id(package: str, decision: str) -> str:
    """Names a deployment by package and decision; also the token of the stack's update: `[a-zA-Z0-9][-a-zA-Z0-9]*`."""
    return f"deploy-{hashlib.sha256(f'{package}#{decision}'.encode()).hexdigest()[:24]}"


def unsettled(entries: Sequence[Entry]) -> list[Request]:
    """Deployments without an outcome, oldest first."""
    settled = {entry.subject for entry in entries if entry.kind in _SETTLED}
    return [
        Request(id=entry.subject, package=str(entry.details["package"]), at=entry.at)
        for entry in entries
        if entry.kind is Kind.DEPLOYMENT_REQUESTED and entry.subject not in settled
    ]


def newest_request(entries: Sequence[Entry]) -> Request | None:
    """The deployment that was asked for last, if it has no outcome yet. Older ones will not be carried out any more."""
    last = latest(entries, Kind.DEPLOYMENT_REQUESTED)
    return next((request for request in unsettled(entries) if last and request.id == last.subject), None)


def overtaken_by(entries: Sequence[Entry], decided_at: datetime) -> str | None:
    """The package that was asked for by a decision later than `decided_at`: events arrive in any order."""
    for entry in reversed(entries):
        if entry.kind is Kind.DEPLOYMENT_REQUESTED:
            moment = str(entry.details["decision"]).rpartition("#")[2]
            if datetime.fromisoformat(moment) > decided_at:
                return str(entry.details["package"])
    return None


def live_package(entries: Sequence[Entry]) -> str | None:
    """The package that was confirmed last: rollbacks and failures leave it where it was."""
    return next((str(e.details["package"]) for e in reversed(entries) if e.kind is Kind.DEPLOYED), None)


def wanted_package(entries: Sequence[Entry]) -> str | None:
    """What is to be live when everything under way has ended well."""
    newest = newest_request(entries)
    return newest.package if newest else live_package(entries)


def rollback_of(entries: Sequence[Entry], package: str) -> Entry | None:
    """The entry that says that this package was rolled back."""
    return next((e for e in entries if e.kind is Kind.ROLLED_BACK and e.details["package"] == package), None)


def predecessors(entries: Sequence[Entry], package: str) -> list[str]:
    """Packages that were live before, newest first, without `package` and those that were rolled back."""
    found: dict[str, None] = {}
    for entry in reversed(entries):
        if entry.kind is Kind.DEPLOYED:
            found.setdefault(str(entry.details["package"]))
    return [arn for arn in found if arn != package and rollback_of(entries, arn) is None]


def restores(entries: Sequence[Entry]) -> int:
    """How often the stack was brought back to what is live since a deployment last had an outcome."""
    count = 0
    for entry in reversed(entries):
        if entry.kind in _SETTLED:
            break
        count += entry.kind is Kind.SERVING_RESTORED
    return count


def settle(observed: Observed, request: Request | None) -> Settlement:
    """What became of the deployment that the stack has carried out, or begun and given up.

    What the endpoint gave up because of an alarm is rolled back, whether the stack calls that a failure or a success;
    so is what it gave up without a word, since nobody documents what it says. What failed for a stated reason of
    another kind, as a quota or another resource, says nothing against the package: it may be tried again.
    """
    if observed.changing:
        return Settlement(outcome=Outcome.CHANGING, reason="stack or endpoint is still changing")
    restore = observed.wanted != observed.live
    if request is None:
        return Settlement(outcome=Outcome.QUIET, reason="no deployment is under way", restore=restore)
    if observed.live == request.package:
        return Settlement(outcome=Outcome.LIVE, reason="the endpoint answers with it", restore=restore)
    failure = observed.failure
    why = (failure.reason if failure else None) or observed.endpoint_failure
    if observed.live is None:
        return Settlement(outcome=Outcome.FAILED, reason=why or "the endpoint did not start", restore=restore)
    of_endpoint = failure is None or failure.resource_type == ENDPOINT_TYPE
    if of_endpoint and (why is None or "alarm" in why.lower()):
        why = why or "the endpoint answers with its predecessor although the stack reports success"
        return Settlement(outcome=Outcome.ROLLED_BACK, reason=why, restore=restore)
    return Settlement(outcome=Outcome.FAILED, reason=why or "CloudFormation gave no reason", restore=restore)
