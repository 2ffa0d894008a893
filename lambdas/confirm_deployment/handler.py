"""What is live is compared with what was asked; a rollback is told, remembered, and undone in the stack too.

endpoint or stack event ─ look at both ┬ still changing: nothing, its end is an event
                                       ├ live: mark, Model Deployed, ledger
                                       ├ rolled back: mark, Model Rolled Back, page, ledger
                                       └ failed: mark, page, ledger
                       then ─ say what else is wrong; begin the deployment that waits, or bring the stack back to
                              what is live; collect what is no longer used; a progressive step books the next one

Calls: cloudformation:DescribeStacks, cloudformation:DescribeStackEvents, cloudformation:ListStackResources and
cloudformation:UpdateStack on the model's serving stack; iam:PassRole on its output DeployerRoleArn to
cloudformation.amazonaws.com, and on NORIA_SCHEDULE_ROLE_ARN to scheduler.amazonaws.com; scheduler:CreateSchedule in
group NORIA_SCHEDULE_GROUP; sagemaker:DescribeEndpoint, sagemaker:DescribeEndpointConfig, sagemaker:DescribeModel,
sagemaker:DeleteEndpointConfig and sagemaker:DeleteModel; sagemaker:DescribeModelPackage and
sagemaker:UpdateModelPackage on the model's packages; s3:GetObject on */runs/* and s3:ListBucket, for what their model
data is now; sqs:GetQueueUrl and sqs:SendMessage on the queues of
probe_deployment and its own; events:PutEvents; sns:Publish; kms:Decrypt, kms:DescribeKey, kms:Encrypt and
kms:GenerateDataKey; dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.aws.bus import Bus
from noria.aws.endpoints import Endpoint, EndpointState
from noria.aws.environment import BookingEnvironment
from noria.aws.pages import Matter, Page, Pages
from noria.aws.registry import OUTCOME, Registry
from noria.aws.retries import retried_soon
from noria.aws.rollout import Begun, CarriedOut, Rollout
from noria.aws.schedules import Schedules
from noria.aws.serving import CONFIG_TYPE, MODEL, MODEL_TYPE, StackState, Update
from noria.aws.telemetry import follow, reaction, tell
from noria.decisions import Outcome as Decision
from noria.decisions import Verdict
from noria.deployment import (
    BY_HOURS,
    RESTORES,
    WAY_BACK,
    Cause,
    Desired,
    Guard,
    Observed,
    Outcome,
    Request,
    Settlement,
    difference,
    difference_subject,
    live_package,
    predecessors,
    requests,
    restores,
    settle,
)
from noria.events import (
    Deployment,
    EndpointDeploymentStateChange,
    EndpointStateChange,
    ModelDeployed,
    ModelRolledBack,
    StackStatusChange,
    Tick,
    parse,
)
from noria.ledger import Entry, Fact, Kind, correlation_of, latest
from noria.names import version
from noria.serve import Mode
from noria.spec import ModelSpec

_LOOKED_BACK = 10
"""Deployments whose leavings are looked for. Each looks after those before it, unless what did so died for good."""


class Other(StrEnum):
    OTHER = "OtherResource"


@retried_soon
@reaction
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = BookingEnvironment.from_os()
    change = parse(event, EndpointStateChange, EndpointDeploymentStateChange, StackStatusChange, Tick)
    match change:
        case StackStatusChange():
            model = env.model_of_stack(change.detail.stack, "serving")
        case Tick():
            model = change.model
        case _:
            model = env.names.model_of(change.detail.endpoint)
    spec = env.spec(model) if model else None
    if spec is None:
        tell(Other.OTHER, model="none")
        return
    rollout = Rollout.of(spec, env)
    outcome = confirm_deployment(
        spec=spec,
        rollout=rollout,
        endpoint=Endpoint(name=env.names.model(spec.model)),
        registry=rollout.registry,
        bus=Bus(name=env.event_bus),
        schedules=Schedules.of(env),
        now=datetime.now(UTC),
    )
    tell(outcome, model=spec.model)


def confirm_deployment(
    *,
    spec: ModelSpec,
    rollout: Rollout,
    endpoint: Endpoint,
    registry: Registry,
    bus: Bus,
    schedules: Schedules,
    now: datetime,
) -> Outcome:
    """Say what came of the deployment under way, then begin the next one or let the stack tell the truth."""
    entries = rollout.ledger.entries(rollout.model)
    carried_out = rollout.carried_out()
    if carried_out:
        follow(correlation_of(entries, carried_out.request.id))
    stack, serving = rollout.stack.state(), endpoint.state()
    used = _Used.of(stack, serving)
    observed = _observe(spec, stack, serving, carried_out, rollout=rollout, endpoint=endpoint)
    settlement = settle(observed, carried_out.request if carried_out else None)
    if settlement.outcome is Outcome.CHANGING:
        return settlement.outcome
    if carried_out:
        # SageMaker loads a model file when an instance starts: later than it was looked at before the deployment.
        rollout.void_unfit(observed.live, live=observed.live, now=now)
        told = _Told(
            spec=spec,
            request=carried_out.request,
            settlement=settlement,
            live=observed.live,
            before=live_package(entries),
            first=latest(entries, Kind.DEPLOYED) is None,
            now=now,
        )
        with rollout.ledger.claim(rollout.model, f"outcome {told.request.id}", now=now) as ours:
            if not ours:
                return settlement.outcome  # somebody says it at this moment, and goes on from there
            _announce(told, used, registry=registry, bus=bus, schedules=schedules, rollout=rollout)
    _not_left(rollout, now=now)
    if stack.stuck:
        rollout.tell_stuck(now=now)
        return settlement.outcome
    if carried_out is None:
        _say_difference(rollout, observed, serving, stack, seen=entries, now=now)
    if rollout.begin_next(now=now, looked=observed.live) is Begun.NOTHING and settlement.restore:
        _restore(rollout, stack, observed.live, now=now)
    # Last, as nothing waits for it; and whenever all is quiet, as who told of the outcome may have died before this.
    _collect_garbage(rollout, endpoint, used, observed.live)
    return settlement.outcome


def _observe(
    spec: ModelSpec,
    stack: StackState,
    serving: EndpointState | None,
    carried_out: CarriedOut | None,
    *,
    rollout: Rollout,
    endpoint: Endpoint,
) -> Observed:
    operation = carried_out.operation if carried_out else None
    live, config = Desired(package=None), None
    if spec.serve.mode is Mode.BATCH:
        if model := stack.outputs.get(MODEL):
            live = Desired(package=endpoint.package_of(model))
    elif serving:
        live, config = serving.desired, rollout.stack.config()
    return Observed(
        changing=stack.in_progress or (serving is not None and serving.changing),
        wanted=stack.desired,
        live=live,
        same_config=serving is None or config is None or serving.config.lower() == config.lower(),
        failure=operation.failure if operation else None,
        endpoint_failure=serving.failure if serving else None,
        alarms=spec.serve.mode.has_instances,
    )


@dataclass(frozen=True, kw_only=True)
class _Used:
    """What answers is made of: SageMaker's names of the endpoint configuration, if there is one, and the models."""

    config: str | None
    models: tuple[str, ...]

    @classmethod
    def of(cls, stack: StackState, serving: EndpointState | None) -> "_Used":
        """The endpoint's own; of a model without one, the model that the stack answers its batches by."""
        if serving:
            return cls(config=serving.config, models=tuple(sorted(serving.models.values())))
        return cls(config=None, models=(stack.outputs[MODEL],) if MODEL in stack.outputs else ())


def _not_left(rollout: Rollout, *, now: datetime) -> None:
    rollout.record(lambda entries: rollout.decisions(entries, now=now).not_left(), now=now)


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What is said about a deployment that has ended. `before` was the champion before it, None after a retirement."""

    spec: ModelSpec
    request: Request
    settlement: Settlement
    live: Desired
    before: str | None
    first: bool
    now: datetime

    @property
    def model(self) -> str:
        return self.spec.model

    @property
    def what(self) -> str:
        return str(self.request.desired).capitalize()

    @property
    def answers(self) -> str:
        return f"{self.live} answers" if self.live.package else "nothing answers"

    @property
    def candidate(self) -> str | None:
        """The package that was to do something that it does not do."""
        desired, live = self.request.desired, self.live
        if desired.package != live.package:
            return desired.package
        return desired.challenger if desired.challenger != live.challenger else desired.shadow

    @property
    def event(self) -> Deployment:
        desired = self.request.desired
        return Deployment(
            model=self.model,
            deployment=self.request.id,
            package=desired.package or "",
            challenger=desired.challenger,
            percent=desired.percent,
            shadow=desired.shadow,
            live=self.live.package,
            reason=self.settlement.reason,
        )

    def fact(self, kind: Kind, summary: str, **details: str | list[str] | None) -> Fact:
        return Fact(
            model=self.model,
            kind=kind,
            subject=self.request.id,
            at=self.now,
            summary=summary,
            details={
                **self.request.desired.details,
                "cause": self.request.cause.value,
                "live": self.live.package,
                "reason": self.settlement.reason,
                **details,
            },
        )


def _announce(
    told: _Told, used: _Used, *, registry: Registry, bus: Bus, schedules: Schedules, rollout: Rollout
) -> None:
    match told.settlement.outcome:
        case Outcome.LIVE:
            fact = _live(told, used, registry=registry, bus=bus, schedules=schedules)
        case Outcome.ROLLED_BACK:
            fact = _rolled_back(told, registry=registry, bus=bus, pages=rollout.pages)
        case _:
            fact = _failed(told, registry=registry, pages=rollout.pages)
    rollout.ledger.record(fact)


def _live(told: _Told, used: _Used, *, registry: Registry, bus: Bus, schedules: Schedules) -> Fact:
    desired = told.request.desired
    if desired.package is None:
        was = version(told.before)
        if told.request.cause is Cause.OFF:
            return told.fact(Kind.DEPLOYED, f"{was.capitalize()} is off{_until(told)}.")
        return told.fact(Kind.DEPLOYED, f"Nothing answers any more, after {was}: {told.model} is retired.")
    registry.mark(desired.package, OUTCOME, "live")
    bus.publish(ModelDeployed.of(told.event))
    if told.request.cause is Cause.PROGRESSIVE and desired.challenger:
        at = told.now + told.spec.serve.bake
        schedules.once(
            f"advance-{told.model}-{told.request.id.removeprefix('deploy-')[:16]}",
            at=at,
            message=Tick.message("Advance Challenger", model=told.model, time=at, deployment=told.request.id),
        )
    if told.request.cause is Cause.ON:
        return told.fact(Kind.DEPLOYED, f"{told.what} is live again.", config=used.config, models=list(used.models))
    after = ", as the first" if told.first else f", after {version(told.before)}"
    return told.fact(
        Kind.DEPLOYED,
        f"{told.what} is live{after if desired.package != told.before else ''}.",
        config=used.config,
        models=list(used.models),
    )


def _until(told: _Told) -> str:
    hours = told.spec.serve.hours
    return f" until {hours.local(hours.next_start(told.now))}" if hours else ""


def _rolled_back(told: _Told, *, registry: Registry, bus: Bus, pages: Pages) -> Fact:
    what = f"{told.what} was rolled back; {told.answers}. {told.settlement.reason}"
    blamed = told.settlement.blamed
    if blamed:
        registry.mark(blamed, OUTCOME, "rolled-back")
    bus.publish(ModelRolledBack.of(told.event))
    pages.send(
        Page(
            matter=Matter.ROLLED_BACK,
            subject=f"{told.model}: {told.request.desired} was rolled back",
            what=what,
            where=f"{told.candidate or told.request.id}\nendpoint of {told.model}",
            do=_after_rollback(told),
            command=f"noria events {told.model}",
        )
    )
    return told.fact(Kind.ROLLED_BACK, what, blamed=blamed)


def _after_rollback(told: _Told) -> str:
    if told.request.cause in WAY_BACK and told.request.desired.package != told.live.package:
        return (
            f"The version you are leaving still answers: {version(told.live.package)}. Look which alarm was raised, "
            "and ask for the way back again (noria rollback); nothing is barred by this."
        )
    done = "this version is not deployed again." if told.settlement.blamed else "then ask again: no version is barred."
    return f"Nobody is waiting: what answered before answers. Find out why; {done}"


_BY_HOURS = {Cause.ON: Matter.UNANSWERED, Cause.OFF: Matter.STAYS_ON}
"""What it is that an endpoint does not come or go; both are tried again."""


def _failed(told: _Told, *, registry: Registry, pages: Pages) -> Fact:
    what = f"{told.what} could not be deployed; {told.answers}. {told.settlement.reason}"
    if told.candidate:
        registry.mark(told.candidate, OUTCOME, "failed")
    approved = told.request.cause is Cause.APPROVED
    pages.send(
        Page(
            matter=_BY_HOURS.get(told.request.cause, Matter.DEPLOYMENT_FAILED),
            subject=f"{told.model}: {told.request.desired} could not be deployed",
            what=what,
            where=f"{told.candidate or told.request.id}\nCloudFormation and endpoint of {told.model}",
            do=_after_failure(told.request.cause),
            command=f"noria approve {told.candidate} --reason '…'" if approved else f"noria status {told.model}",
        )
    )
    return told.fact(Kind.DEPLOYMENT_FAILED, what)


def _after_failure(cause: Cause) -> str:
    if cause in BY_HOURS:
        return "Mend the cause: it is tried again every hour."
    if cause is Cause.APPROVED:
        return "Mend the cause, then approve the package again: the new decision deploys it."
    return "Mend the cause, then ask for it again."


def _say_difference(
    rollout: Rollout,
    observed: Observed,
    serving: EndpointState | None,
    stack: StackState,
    *,
    seen: Sequence[Entry],
    now: datetime,
) -> None:
    """Stack and endpoint agree with each other, but something about them is not what anybody asked for."""
    subject = difference_subject(serving.config if serving else observed.live.package, stack.changed)

    def decide(entries: Sequence[Entry]) -> Verdict:
        # What was recorded since we looked explains more than what we saw.
        what = difference(observed, entries) if [*entries[-1:]] == [*seen[-1:]] else None
        known = any(entry.kind is Kind.SERVING_DIFFERS and entry.subject == subject for entry in entries)
        if what is None or known:
            return Verdict(outcome=Decision.NOTHING)
        model = rollout.model
        summary = f"{what[0].upper()}{what[1:]}."
        fact = Fact(
            model=model,
            kind=Kind.SERVING_DIFFERS,
            subject=subject,
            at=now,
            summary=summary,
            details={**observed.live.details, "config": serving.config if serving else None},
        )
        page = Page(
            matter=Matter.SERVING_DIFFERS,
            subject=f"{model}: what answers is not what was asked for",
            what=summary,
            where=f"{rollout.stack.name}, endpoint of {model}",
            do="If a template was rolled back, mend it and deploy again; if somebody changed the endpoint, ask them.",
            command=f"noria events {model}",
        )
        return Verdict(outcome=Decision.NOTHING, facts=(fact,), page=page)

    rollout.record(decide, now=now)


def _restore(rollout: Rollout, stack: StackState, live: Desired, *, now: datetime) -> None:
    """Bring the stack's parameters back to what is live: it may have reported success while SageMaker rolled back."""
    subject = f"{live.package or 'none'}#{stack.changed.isoformat()}"
    if restores(rollout.ledger.entries(rollout.model)) >= RESTORES:
        page = Page(
            matter=Matter.STACK_UNTRUE,
            subject=f"{rollout.model}: the serving stack does not tell the truth",
            what=f"{rollout.stack.name} wants {stack.desired}, but {live} is live, and "
            f"{RESTORES} attempts to bring the stack back have failed.",
            where=f"CloudFormation, stack {rollout.stack.name}, events",
            do="Look at its last events; do not deploy this stack by hand before its parameters are what is live.",
            command=f"aws cloudformation describe-stack-events --stack-name {rollout.stack.name}",
        )
        rollout.page(page, f"untrue {subject}", now=now)
        return
    token = f"restore-{hashlib.sha256(subject.encode()).hexdigest()[:24]}"
    if rollout.stack.update(live, guard=Guard.AT_ONCE, token=token) is not Update.STARTED:
        return
    rollout.ledger.record(
        Fact(
            model=rollout.model,
            kind=Kind.SERVING_RESTORED,
            subject=subject,
            at=now,
            summary=f"The serving stack wanted {stack.desired} while {live} is live: it is brought back to what is "
            "live.",
            details={**live.details, "wanted": stack.desired.package, "live": live.package},
        )
    )


def _collect_garbage(rollout: Rollout, endpoint: Endpoint, used: _Used, live: Desired) -> None:
    """Delete configs and models that the last deployments left behind, but those that are live and the predecessor's.

    What is newer than the request of what is live may belong to an update that has just begun: it stays, and so does
    all while something answers that was not deployed last.
    """
    entries = rollout.ledger.entries(rollout.model)
    asked = {request.id: request.at for request in requests(entries)}
    ends = [entry for entry in entries if entry.kind is Kind.DEPLOYED and entry.subject in asked][-_LOOKED_BACK:]
    if not ends or ends[-1].details["package"] != live.details["package"]:
        return
    oldest, newest = asked[ends[0].subject], asked[ends[-1].subject]
    keep = {str(used.config), *used.models}
    last = next(iter(predecessors(entries, live.package or "")), None)
    deployed = next((e for e in reversed(entries) if e.kind is Kind.DEPLOYED and e.details["package"] == last), None)
    if deployed:
        models = deployed.details["models"]
        keep |= {str(deployed.details["config"]), *(models if isinstance(models, list) else [])}
    keep |= {name for _, name in rollout.stack.resources()}
    kept = {name.lower() for name in keep}
    made = rollout.stack.resources_made(since=oldest, before=newest)
    left = {(kind, name) for kind, name in made if name.lower() not in kept}
    for kind, name in sorted(left):
        if kind == CONFIG_TYPE:
            endpoint.delete_config(name)
    for kind, name in sorted(left):
        if kind == MODEL_TYPE:
            endpoint.delete_model(name)
