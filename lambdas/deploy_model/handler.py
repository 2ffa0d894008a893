"""Approved packages go live; a rejected one that is live gives way to its predecessor.

decision ─ ledger ─ rolled back before? refuse ─ Deployment Requested ─ UpdateStack unless one is under way

Calls: sagemaker:DescribeModelPackage on the model's packages; cloudformation:DescribeStacks,
cloudformation:DescribeStackEvents and cloudformation:UpdateStack on its serving stack; iam:PassRole on its output
DeployerRoleArn to cloudformation.amazonaws.com; sns:Publish; kms:Decrypt, kms:DescribeKey, kms:Encrypt and
kms:GenerateDataKey; dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.pages import Page, Pages
from noria.aws.registry import Package, Registry
from noria.aws.rollout import Begun, Rollout, stuck
from noria.aws.serving import ServingStack
from noria.aws.telemetry import EVENT_ID, logger, metrics, tell
from noria.deployment import deployment_id, overtaken_by, predecessors, rollback_of, wanted_package
from noria.events import ModelPackageStateChange, StackStatusChange, parse
from noria.ledger import Fact, Kind
from noria.names import version


class Outcome(StrEnum):
    NO_DECISION = "NoDecision"
    OTHER_STACK = "OtherStack"
    NOTHING = "NothingToDeploy"
    REFUSED = "DeploymentRefused"
    OVERTAKEN = "DeploymentOvertaken"


@logger.inject_lambda_context(correlation_id_path=EVENT_ID)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    change = parse(event, ModelPackageStateChange, StackStatusChange)
    if isinstance(change, StackStatusChange):
        model = env.model_of_stack(change.detail.stack, "serving")
    else:
        model = env.names.model_of(change.detail.group)
    if model is None:
        tell(Outcome.OTHER_STACK, model="none")
        return
    ledger = Ledger(table=env.ledger_table)
    pages = Pages(topic=env.pages_topic)
    stack = ServingStack(name=env.names.stack(model, "serving"))
    rollout = Rollout(model=model, stack=stack, ledger=ledger)
    outcome: Outcome | Begun
    if isinstance(change, StackStatusChange):
        outcome = begin(rollout=rollout, pages=pages, now=datetime.now(UTC))
    else:
        outcome = deploy_model(
            change=change, rollout=rollout, registry=Registry(), ledger=ledger, pages=pages, now=datetime.now(UTC)
        )
    tell(outcome, model=model)


def deploy_model(
    *,
    change: ModelPackageStateChange,
    rollout: Rollout,
    registry: Registry,
    ledger: Ledger,
    pages: Pages,
    now: datetime,
) -> Outcome | Begun:
    """Act on one decision. What counts is what the registry says now, not what the event said when it was sent."""
    if not change.is_decision:
        return Outcome.NO_DECISION
    package = registry.describe(change.detail.package)
    decision = f"{package.arn}#{change.decided_at.isoformat()}"
    match package.approval:
        case "Approved":
            outcome = _approved(
                rollout.model, package, decision, change.decided_at, ledger=ledger, pages=pages, now=now
            )
        case "Rejected":
            outcome = None
            _rejected(rollout.model, package, decision, registry=registry, ledger=ledger, pages=pages, now=now)
        case _:
            outcome = Outcome.NO_DECISION
    return outcome or begin(rollout=rollout, pages=pages, now=now)


def begin(*, rollout: Rollout, pages: Pages, now: datetime) -> Begun:
    """Begin what waits; a stack that only a person can mend is told to one."""
    begun = rollout.begin_next(now=now)
    if begun is Begun.STUCK:
        pages.send(stuck(rollout.model, rollout.stack.name))
    return begun


def _approved(
    model: str, package: Package, decision: str, decided_at: datetime, *, ledger: Ledger, pages: Pages, now: datetime
) -> Outcome | None:
    _record_decision(model, package, Kind.PACKAGE_APPROVED, decision, ledger=ledger, now=now)
    entries = ledger.entries(model)
    if before := rollback_of(entries, package.arn):
        if not ledger.knows(model, Kind.DEPLOYMENT_REFUSED, decision):
            _refuse(model, package, decision, because=before.summary, ledger=ledger, pages=pages, now=now)
        return Outcome.REFUSED
    if later := overtaken_by(entries, decided_at):
        # A decision that was carried out in its time, and is told again, is none that was overtaken.
        if not ledger.knows(model, Kind.DEPLOYMENT_REQUESTED, deployment_id(package.arn, decision)):
            _supersede(model, package, decision, later, ledger=ledger, now=now)
        return Outcome.OVERTAKEN
    if wanted_package(entries) != package.arn:
        _request(model, package.arn, decision, f"version {package.version} was approved", ledger=ledger, now=now)
    return None


def _rejected(
    model: str,
    package: Package,
    decision: str,
    *,
    registry: Registry,
    ledger: Ledger,
    pages: Pages,
    now: datetime,
) -> None:
    known = ledger.knows(model, Kind.PACKAGE_REJECTED, decision)
    entries = ledger.entries(model)
    if wanted_package(entries) == package.arn:
        approved = (p for p in predecessors(entries, package.arn) if registry.describe(p).approval == "Approved")
        before = next(approved, None)
        if before:
            _request(model, before, decision, f"version {package.version} was rejected", ledger=ledger, now=now)
        elif not known:
            pages.send(
                Page(
                    subject=f"{model}: version {package.version} was rejected but stays live",
                    what=f"{package.arn} was rejected while it is live, and no approved version was live before it.",
                    where=f"endpoint of {model}",
                    do="Approve another version, or set the serving stack's ModelPackageArn to none to answer nobody.",
                    command=f"noria status {model}",
                )
            )
    _record_decision(model, package, Kind.PACKAGE_REJECTED, decision, ledger=ledger, now=now)


def _record_decision(model: str, package: Package, kind: Kind, decision: str, *, ledger: Ledger, now: datetime) -> None:
    verb = "approved" if kind is Kind.PACKAGE_APPROVED else "rejected"
    by = f" by {package.decided_by}" if package.decided_by else ""
    why = f": {package.reason}" if package.reason else "."
    ledger.record(
        Fact(
            model=model,
            kind=kind,
            subject=decision,
            at=now,
            summary=f"Version {package.version} was {verb}{by}{why}",
            details={"package": package.arn, "by": package.decided_by, "reason": package.reason},
        )
    )


def _request(model: str, package: str, decision: str, why: str, *, ledger: Ledger, now: datetime) -> None:
    ledger.record(
        Fact(
            model=model,
            kind=Kind.DEPLOYMENT_REQUESTED,
            subject=deployment_id(package, decision),
            at=now,
            summary=f"{version(package).capitalize()} is to go live: {why}.",
            details={"package": package, "decision": decision},
        )
    )


def _supersede(model: str, package: Package, decision: str, later: str, *, ledger: Ledger, now: datetime) -> None:
    ledger.record(
        Fact(
            model=model,
            kind=Kind.DEPLOYMENT_SUPERSEDED,
            subject=deployment_id(package.arn, decision),
            at=now,
            summary=f"Version {package.version} will not go live: {version(later)} was asked for by a later decision.",
            details={"package": package.arn, "decision": decision},
        )
    )


def _refuse(
    model: str, package: Package, decision: str, *, because: str, ledger: Ledger, pages: Pages, now: datetime
) -> None:
    what = f"Version {package.version} was approved but is not deployed again, because it was rolled back. {because}"
    pages.send(
        Page(
            subject=f"{model}: version {package.version} is refused, it was rolled back before",
            what=what,
            where=package.arn,
            do="Train a new version. If the cause lay elsewhere, register this model again as a new version.",
            command=f"noria events {model}",
        )
    )
    ledger.record(
        Fact(
            model=model,
            kind=Kind.DEPLOYMENT_REFUSED,
            subject=decision,
            at=now,
            summary=what,
            details={"package": package.arn},
        )
    )
