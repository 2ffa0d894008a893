"""What is live is compared with what was asked; a rollback is told, remembered, and undone in the stack too.

endpoint or stack event ─ look at both ┬ still changing: nothing, its end is an event
                                       ├ live: mark, Model Deployed, ledger, collect what is no longer used
                                       ├ rolled back: mark, Model Rolled Back, page, ledger
                                       └ failed: mark, page, ledger
                       then ─ begin the deployment that waits, or bring the stack back to what is live

Calls: cloudformation:DescribeStacks, cloudformation:DescribeStackEvents, cloudformation:ListStackResources and
cloudformation:UpdateStack on the model's serving stack; iam:PassRole on its output DeployerRoleArn to
cloudformation.amazonaws.com; sagemaker:DescribeEndpoint, sagemaker:DescribeEndpointConfig, sagemaker:DescribeModel,
sagemaker:DeleteEndpointConfig and sagemaker:DeleteModel; sagemaker:DescribeModelPackage and
sagemaker:UpdateModelPackage on the model's packages; events:PutEvents; sns:Publish; kms:Decrypt, kms:DescribeKey,
kms:Encrypt and kms:GenerateDataKey; dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.aws.bus import Bus
from noria.aws.endpoints import Endpoint, EndpointState
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.pages import Page, Pages
from noria.aws.registry import Registry
from noria.aws.rollout import Begun, CarriedOut, Rollout, stuck
from noria.aws.serving import CONFIG_TYPE, MODEL_TYPE, ServingStack, StackState, Update
from noria.aws.telemetry import EVENT_ID, logger, metrics, tell
from noria.deployment import RESTORES, Observed, Outcome, Request, live_package, predecessors, restores, settle
from noria.events import (
    Deployment,
    EndpointDeploymentStateChange,
    EndpointStateChange,
    ModelDeployed,
    ModelRolledBack,
    StackStatusChange,
    parse,
)
from noria.ledger import Fact, Kind
from noria.names import version

OUTCOME = "noria:outcome"
"""Property of a package that says what came of its deployment."""


class Other(StrEnum):
    OTHER = "OtherResource"


@logger.inject_lambda_context(correlation_id_path=EVENT_ID)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    change = parse(event, EndpointStateChange, EndpointDeploymentStateChange, StackStatusChange)
    if isinstance(change, StackStatusChange):
        model = env.model_of_stack(change.detail.stack, "serving")
    else:
        model = env.names.model_of(change.detail.endpoint)
    if model is None:
        tell(Other.OTHER, model="none")
        return
    ledger = Ledger(table=env.ledger_table)
    stack = ServingStack(name=env.names.stack(model, "serving"))
    outcome = confirm_deployment(
        rollout=Rollout(model=model, stack=stack, ledger=ledger),
        endpoint=Endpoint(name=env.names.model(model)),
        registry=Registry(),
        bus=Bus(name=env.event_bus),
        pages=Pages(topic=env.pages_topic),
        now=datetime.now(UTC),
    )
    tell(outcome, model=model)


def confirm_deployment(
    *, rollout: Rollout, endpoint: Endpoint, registry: Registry, bus: Bus, pages: Pages, now: datetime
) -> Outcome:
    """Say what came of the deployment under way, then begin the next one or let the stack tell the truth."""
    carried_out = rollout.carried_out()
    stack, serving = rollout.stack.state(), endpoint.state()
    settlement = settle(_observe(stack, serving, carried_out), carried_out.request if carried_out else None)
    if settlement.outcome is Outcome.CHANGING:
        return settlement.outcome
    live = serving.package if serving else None
    if carried_out:
        told = _Told(
            model=rollout.model,
            request=carried_out.request,
            reason=settlement.reason,
            live=live,
            before=live_package(rollout.ledger.entries(rollout.model)),
            now=now,
        )
        announce = {Outcome.LIVE: _live, Outcome.ROLLED_BACK: _rolled_back, Outcome.FAILED: _failed}
        announce[settlement.outcome](told, serving, registry=registry, bus=bus, pages=pages, ledger=rollout.ledger)
        if settlement.outcome is Outcome.LIVE and serving:
            _collect_garbage(rollout, endpoint, serving, before=carried_out.request.at)
    if stack.stuck:
        pages.send(stuck(rollout.model, rollout.stack.name))
    elif rollout.begin_next(now=now) is Begun.NOTHING and settlement.restore:
        _restore(rollout, stack, live, pages=pages, now=now)
    return settlement.outcome


def _observe(stack: StackState, endpoint: EndpointState | None, carried_out: CarriedOut | None) -> Observed:
    operation = carried_out.operation if carried_out else None
    return Observed(
        changing=stack.in_progress or (endpoint is not None and endpoint.changing),
        wanted=stack.package,
        live=endpoint.package if endpoint else None,
        failure=operation.failure if operation else None,
        endpoint_failure=endpoint.failure if endpoint else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What is said about a deployment that has ended. `before` was live before it."""

    model: str
    request: Request
    reason: str
    live: str | None
    before: str | None
    now: datetime

    @property
    def event(self) -> Deployment:
        return Deployment(
            model=self.model,
            deployment=self.request.id,
            package=self.request.package,
            live=self.live,
            reason=self.reason,
        )

    def fact(self, kind: Kind, summary: str, **details: str | list[str] | None) -> Fact:
        return Fact(
            model=self.model,
            kind=kind,
            subject=self.request.id,
            at=self.now,
            summary=summary,
            details={"package": self.request.package, "live": self.live, "reason": self.reason, **details},
        )


def _live(
    told: _Told, serving: EndpointState | None, *, registry: Registry, bus: Bus, pages: Pages, ledger: Ledger
) -> None:
    registry.mark(told.request.package, OUTCOME, "live")
    bus.publish(ModelDeployed.of(told.event))
    after = f", after {version(told.before)}" if told.before else ", as the first"
    ledger.record(
        told.fact(
            Kind.DEPLOYED,
            f"{version(told.request.package).capitalize()} is live{after}.",
            config=serving.config if serving else None,
            models=sorted(serving.models.values()) if serving else [],
        )
    )


def _rolled_back(
    told: _Told, serving: EndpointState | None, *, registry: Registry, bus: Bus, pages: Pages, ledger: Ledger
) -> None:
    what = f"{version(told.request.package).capitalize()} was rolled back; {version(told.live)} answers. {told.reason}"
    registry.mark(told.request.package, OUTCOME, "rolled-back")
    bus.publish(ModelRolledBack.of(told.event))
    pages.send(
        Page(
            subject=f"{told.model}: {version(told.request.package)} was rolled back",
            what=what,
            where=f"{told.request.package}\nendpoint of {told.model}",
            do="Nobody is waiting: the version before answers. Find out why; this version is not deployed again.",
            command=f"noria events {told.model}",
        )
    )
    ledger.record(told.fact(Kind.ROLLED_BACK, what))


def _failed(
    told: _Told, serving: EndpointState | None, *, registry: Registry, bus: Bus, pages: Pages, ledger: Ledger
) -> None:
    answers = f"{version(told.live)} answers" if told.live else "nothing answers"
    what = f"{version(told.request.package).capitalize()} could not be deployed; {answers}. {told.reason}"
    registry.mark(told.request.package, OUTCOME, "failed")
    pages.send(
        Page(
            subject=f"{told.model}: {version(told.request.package)} could not be deployed",
            what=what,
            where=f"{told.request.package}\nCloudFormation and endpoint of {told.model}",
            do="Mend the cause, then approve the package again: the new decision deploys it.",
            command=f"noria approve {told.request.package} --reason '…'",
        )
    )
    ledger.record(told.fact(Kind.DEPLOYMENT_FAILED, what))


def _restore(rollout: Rollout, stack: StackState, live: str | None, *, pages: Pages, now: datetime) -> None:
    """Bring the stack's parameter back to what is live: it may have reported success while SageMaker rolled back."""
    subject = f"{live or 'none'}#{stack.changed.isoformat()}"
    if restores(rollout.ledger.entries(rollout.model)) >= RESTORES:
        pages.send(
            Page(
                subject=f"{rollout.model}: the serving stack does not tell the truth",
                what=f"{rollout.stack.name} wants {stack.package or 'nothing'}, but {live or 'nothing'} is live, and "
                f"{RESTORES} attempts to bring the stack back have failed.",
                where=f"CloudFormation, stack {rollout.stack.name}, events",
                do="Look at its last events; do not deploy this stack by hand before its parameter is what is live.",
                command=f"aws cloudformation describe-stack-events --stack-name {rollout.stack.name}",
            )
        )
        return
    token = f"restore-{hashlib.sha256(subject.encode()).hexdigest()[:24]}"
    if rollout.stack.update(live, token=token) is not Update.STARTED:
        return
    rollout.ledger.record(
        Fact(
            model=rollout.model,
            kind=Kind.SERVING_RESTORED,
            subject=subject,
            at=now,
            summary=f"The serving stack wanted {version(stack.package)} while {version(live)} is live: "
            "it is brought back to what is live.",
            details={"wanted": stack.package, "live": live},
        )
    )


def _collect_garbage(rollout: Rollout, endpoint: Endpoint, serving: EndpointState, *, before: datetime) -> None:
    """Delete configs and models that the stack left behind, but those that are live and those of the predecessor.

    `before` is when the deployment was asked for: what is newer may belong to an update that has just begun.
    """
    entries = rollout.ledger.entries(rollout.model)
    keep = {serving.config, *serving.models.values()}
    last = next(iter(predecessors(entries, serving.package or "")), None)
    deployed = next((e for e in reversed(entries) if e.kind is Kind.DEPLOYED and e.details["package"] == last), None)
    if deployed:
        models = deployed.details["models"]
        keep |= {str(deployed.details["config"]), *(models if isinstance(models, list) else [])}
    keep |= {name for _, name in rollout.stack.resources()}
    kept = {name.lower() for name in keep}
    left = {(kind, name) for kind, name in rollout.stack.resources_made(before=before) if name.lower() not in kept}
    for kind, name in sorted(left):
        if kind == CONFIG_TYPE:
            endpoint.delete_config(name)
    for kind, name in sorted(left):
        if kind == MODEL_TYPE:
            endpoint.delete_model(name)
