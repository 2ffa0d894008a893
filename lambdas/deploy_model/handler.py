"""What is decided about serving becomes the serving stack's parameters: what should be live, and what should not.

package approved, rejected ─┐   an approval that does not hold is put back
Serving Requested ──────────┤
a challenger's alarm ───────┼─ noria/decisions.py ─ ledger ┐
Advance Challenger ─────────┘                              ├─ UpdateStack unless one is under way
the stack has come to rest ────────────────────────────────┤
Keep Hours ────────────────────────────────────────────────┘

Calls: sagemaker:DescribeModelPackage and sagemaker:UpdateModelPackage on the model's packages; s3:GetObject on */runs/*
and s3:ListBucket, for what their model data is now;
cloudformation:DescribeStacks, cloudformation:DescribeStackEvents and cloudformation:UpdateStack on its serving stack;
iam:PassRole on its output DeployerRoleArn to cloudformation.amazonaws.com; cloudwatch:DescribeAlarms and
cloudwatch:GetMetricData; sqs:GetQueueUrl and sqs:SendMessage on the queues of probe_deployment, confirm_deployment and
its own; events:PutEvents; sns:Publish; kms:Decrypt, kms:DescribeKey, kms:Encrypt and kms:GenerateDataKey;
dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
While the model is paused: s3:PutObject on */held/*.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.approval import ASKED_AGAIN
from noria.aws.approvals import Approvals
from noria.aws.bus import Bus
from noria.aws.endpoints import CHALLENGER
from noria.aws.environment import Environment
from noria.aws.metrics import Measurements
from noria.aws.pauses import pausable
from noria.aws.registry import OUTCOME
from noria.aws.retries import retried_soon
from noria.aws.rollout import Begun, Rollout
from noria.aws.telemetry import follow, reaction, tell
from noria.decisions import Decided, Decisions, Verdict
from noria.decisions import Outcome as Decision
from noria.deployment import Desired, live_package
from noria.events import (
    AlarmStateChange,
    Deployment,
    ModelPackageStateChange,
    ModelRolledBack,
    ServingRequested,
    StackStatusChange,
    Tick,
    parse,
)
from noria.ledger import Entry, Kind, correlation_of, latest
from noria.spec import ModelSpec

Trigger = ModelPackageStateChange | ServingRequested | AlarmStateChange | Tick | StackStatusChange


_PROOF_AGAIN = timedelta(seconds=30)

KEEP_HOURS = "Keep Hours"
"""What the clock says; what that means now, the beginning of every deployment looks at."""


class Outcome(StrEnum):
    NO_DECISION = "NoDecision"
    OTHER = "OtherResource"


@retried_soon
@reaction
@pausable
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    trigger = parse(event, ModelPackageStateChange, ServingRequested, AlarmStateChange, Tick, StackStatusChange)
    model = _model(trigger, env)
    spec = env.spec(model) if model else None
    if spec is None:
        tell(Outcome.OTHER, model="none")
        return
    rollout = Rollout.of(spec, env)
    outcome = deploy_model(
        trigger=trigger,
        spec=spec,
        rollout=rollout,
        measurements=Measurements(),
        bus=Bus(name=env.event_bus),
        now=datetime.now(UTC),
    )
    tell(outcome, model=spec.model)


def _model(trigger: Trigger, env: Environment) -> str | None:
    match trigger:
        case ModelPackageStateChange():
            return env.names.model_of(trigger.detail.group)
        case AlarmStateChange():
            return env.names.model_of(trigger.detail.alarm.rpartition("-challenger-")[0])
        case StackStatusChange():
            return env.model_of_stack(trigger.detail.stack, "serving")
        case ServingRequested():
            return trigger.detail.model
        case Tick():
            return trigger.model


def deploy_model(
    *,
    trigger: Trigger,
    spec: ModelSpec,
    rollout: Rollout,
    measurements: Measurements,
    bus: Bus,
    now: datetime,
) -> Outcome | Decision | Begun:
    """Decide what the trigger asks for, record it, and begin it if the stack is free."""
    follow(_correlation(trigger, rollout.ledger.entries(rollout.model)))
    question = _question(trigger, rollout=rollout, measurements=measurements, now=now)
    if question is None:
        goes_on = isinstance(trigger, (StackStatusChange, Tick))
        return rollout.begin_next(now=now) if goes_on else Outcome.NO_DECISION

    def answer(entries: Sequence[Entry]) -> Verdict:
        return question(rollout.decisions(entries, now=now))

    announce = partial(_announce, rollout=rollout, bus=bus)
    verdict = rollout.record(answer, now=now, announce=announce)
    rollout.put_back(verdict)
    if verdict.outcome is Decision.WAITING and isinstance(trigger, Tick):
        deployment = trigger.detail.deployment or ""
        message = Tick.message("Advance Challenger", model=spec.model, time=now, deployment=deployment)
        rollout.queues.send(rollout.names.queue("deploy-model"), message, delay=_PROOF_AGAIN)
        return verdict.outcome
    if verdict.outcome in {Decision.REFUSED, Decision.OVERTAKEN}:
        return verdict.outcome
    return rollout.begin_next(now=now)


def _correlation(trigger: Trigger, entries: Sequence[Entry]) -> str | None:
    """Of what made the package, or brought the challenger that an alarm is about; None where the trigger tells it."""
    match trigger:
        case ModelPackageStateChange():
            return correlation_of(entries, trigger.detail.package)
        case AlarmStateChange() if requested := latest(entries, Kind.DEPLOYMENT_REQUESTED):
            return requested.correlation
        case _:
            return None


Question = Callable[[Decisions], Verdict]


def _question(trigger: Trigger, *, rollout: Rollout, measurements: Measurements, now: datetime) -> Question | None:
    """What to decide; None where there is nothing to."""
    match trigger:
        case ModelPackageStateChange() if trigger.is_decision or trigger.is_change:
            return _word(trigger, rollout.approvals)
        case ServingRequested():
            return lambda decisions: decisions.requested(trigger.detail)
        case AlarmStateChange() if trigger.detail.state.value == "ALARM":
            alarm, state = trigger.detail.alarm, trigger.detail.state
            return _alarm(alarm, state.at, state.reason, rollout)
        case Tick() if trigger.detail_type != KEEP_HOURS:
            deployment = trigger.detail.deployment or ""
            raised = measurements.raised(rollout.names.challenger_alarms(rollout.model))
            # An alarm may have been raised while nobody heard it: a step is judged when it ends, too.
            # Unless another deployment is under way: alarms are about what that one brings.
            if raised and rollout.under_way_at(now) is None:
                why = f"It was raised when {deployment} was to go on."
                return _alarm(raised[0], now, why, rollout)
            return _step(deployment, rollout, measurements, now=now)
        case _:
            return None


def _step(deployment: str, rollout: Rollout, measurements: Measurements, *, now: datetime) -> Question:
    entries = rollout.ledger.entries(rollout.model)
    live = next((e for e in entries if e.kind is Kind.DEPLOYED and e.subject == deployment), None)
    endpoint = rollout.names.model(rollout.model)
    if live:
        stepping = Desired.of(live.details)
        rollout.void_unfit(stepping, live=stepping, now=now)
    answered = measurements.requests(endpoint, CHALLENGER, since=live.at, until=now) if live else 0
    return lambda decisions: decisions.advance(deployment, answered=answered)


def _alarm(alarm: str, at: datetime, why: str, rollout: Rollout) -> Question:
    under_way = rollout.under_way_at(at)
    return lambda decisions: decisions.challenger_alarm(alarm, at, why, under_way=under_way)


def _word(change: ModelPackageStateChange, approvals: Approvals) -> Question | None:
    """What counts is what the registry says now, not what the event said when it was sent."""
    package = approvals.registry.describe(change.detail.package)
    decided = Decided(
        package=package.arn,
        at=change.decided_at,
        by=package.decided_by,
        reason=package.reason.rstrip("."),
        candidate=approvals.candidate(package),
    )
    match package.approval:
        case "Approved" if not change.is_decision:
            return lambda decisions: decisions.changed(decided)
        case "Approved":
            return lambda decisions: decisions.approved(decided)
        case "Rejected" if change.is_decision:
            return lambda decisions: decisions.rejected(decided)
        case "PendingManualApproval" if change.is_decision and package.reason != ASKED_AGAIN:
            return lambda decisions: decisions.taken_back(decided)
        case _:
            return None


def _announce(verdict: Verdict, *, rollout: Rollout, bus: Bus) -> None:
    if verdict.blamed is None:
        return
    rollout.registry.mark(verdict.blamed, OUTCOME, "rolled-back")
    bus.publish(
        ModelRolledBack.of(
            Deployment(
                model=rollout.model,
                deployment=verdict.facts[-1].subject,
                package=verdict.blamed,
                live=live_package(rollout.ledger.entries(rollout.model)),
                reason=verdict.facts[0].summary,
            )
        )
    )
