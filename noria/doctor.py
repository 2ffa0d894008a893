"""What is wrong now: since when, what it means for those who use it, its runbook, and the one command to try first.

| looked at                          | wrong when                                                                  |
|------------------------------------|-----------------------------------------------------------------------------|
| alarms                             | raised                                                                      |
| dead letters                       | there are any                                                               |
| queues                             | the oldest message has waited for a quarter of an hour                      |
| stacks                             | failed, rolled back, or changing for over an hour                           |
| endpoints                          | not in service, or other than the ledger says while nothing is under way;   |
|                                    | gone by the model's hours, and refused when they began again                |
| trainings                          | two in a row failed, one runs for half a day, a granted one has not begun   |
| deployments                        | without an outcome for two hours                                            |
| packages                           | the newest version has waited for approval for three days                   |
| pauses                             | a model is paused                                                           |
| the ledger                         | an entry does not follow from the one before, or its head from the last     |
| rules, schedules, event sources    | switched off, or failing                                                    |
| functions                          | failed or were throttled within the last hour                               |
| the reconciler                     | not heard of for twenty minutes                                             |
| the key                            | disabled or about to be deleted                                             |
| the budget                         | spent, or forecast to be                                                    |

The rules are pure: `noria.aws.health` reads what they judge.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from noria.alarms import Severity, Told
from noria.decisions import NEED_NOT_COME
from noria.deployment import SETTLED, Cause, Desired, live, requests, turned_off, unsettled, waits_for_hours
from noria.ledger import Entry, Kind, latest, verify
from noria.names import Names
from noria.pause import paused
from noria.retraining import unstarted
from noria.units import count, format_duration

OLD_MESSAGE = timedelta(minutes=15)
LONG_CHANGE = timedelta(hours=1)
LONG_DEPLOYMENT = timedelta(hours=2)
LONG_TRAINING = timedelta(hours=12)
LATE_START = timedelta(hours=1)
LONG_WAIT = timedelta(days=3)
TRIED_AGAIN = timedelta(minutes=90)
"""An endpoint that cannot come back in its hours is tried again every hour; what is older was before they ended."""

SILENT = timedelta(minutes=20)
FAILURES = 2

ALL_WAITS = "Uploads, approvals or reports of all models that it is about stand still; what is live answers."

NOBODY_HEARS = (
    "Nothing waits for them, and nobody hears them; while they lie there, no page tells of another dead letter."
)


class Finding(BaseModel):
    """Something wrong. `means` says what users notice; `command` is the one to try first."""

    model_config = ConfigDict(frozen=True)

    severity: Severity
    what: str
    since: AwareDatetime | None = None
    means: str
    runbook: str | None = None
    command: str


# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """`rule` is of a composite one: the alarms that raise it."""

    name: str
    description: str
    reason: str
    since: datetime
    rule: str = ""


@dataclass(frozen=True, kw_only=True)
class DeadLetters:
    """`models` are those of the letters that were looked at, and `oldest` is the oldest of them.

    `reaction` is None of those that say nothing of where they come from, and of those that were not looked at.
    `removed`: it is deployed no more.
    """

    reaction: str | None
    removed: bool
    count: int
    oldest: datetime | None
    models: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    reaction: str
    waiting: int
    age: timedelta


@dataclass(frozen=True, kw_only=True)
class Stack:
    name: str
    status: str
    changed: datetime


@dataclass(frozen=True, kw_only=True)
class Answering:
    """An endpoint as SageMaker tells of it."""

    status: str
    failure: str | None
    desired: Desired


@dataclass(frozen=True, kw_only=True)
class Version:
    arn: str
    number: int
    approval: str
    created: datetime


@dataclass(frozen=True, kw_only=True)
class Model:
    """`endpoint` is None where there is none; `has_endpoint` says whether its stack is to have one."""

    name: str
    entries: Sequence[Entry]
    head: bool
    endpoint: Answering | None
    has_endpoint: bool
    versions: Sequence[Version]


@dataclass(frozen=True, kw_only=True)
class Off:
    """A rule, a schedule or an event source that does not do its work; `on` is the command that switches it on."""

    kind: Literal["rule", "schedule", "event source"]
    name: str
    state: str
    on: str


@dataclass(frozen=True, kw_only=True)
class Function:
    name: str
    errors: int
    throttles: int


@dataclass(frozen=True, kw_only=True)
class Key:
    id: str
    state: str
    deleted_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """In US dollars, this month."""

    name: str
    limit: float
    spent: float
    forecast: float | None


# --- rules ------------------------------------------------------------------------------------------------------------


def alarms(found: Iterable[Alarm], names: Names, models: Sequence[str]) -> Iterator[Finding]:
    """Those that tell somebody, of a cause its children alone; dead letters are told by what lies there."""
    told_by = {alarm: told for alarm in found if (told := Told.read(alarm.description)) and told.severity}
    for alarm, told in told_by.items():
        children = any(f':{child.name}"' in alarm.rule for child in told_by)
        if told.severity is None or told.runbook == "dead-letters" or children:
            continue
        of = max(
            (model for model in models if f"{alarm.name}-".startswith(f"{names.model(model)}-")), key=len, default=""
        )
        yield Finding(
            severity=told.severity,
            what=f"Alarm {alarm.name}: {alarm.reason}",
            since=alarm.since,
            means=alarm.description.partition(" Severity:")[0].partition(" docs/")[0],
            runbook=told.runbook,
            command=_command(told.runbook, of),
        )


def _command(runbook: str, model: str) -> str:
    """The runbook's first command."""
    states = runbook.startswith(("endpoint-", "front-door-")) or runbook == "error-budget"
    return f"noria {'status' if states else 'events'} {model}".strip()


def dead_letters(found: Iterable[DeadLetters]) -> Iterator[Finding]:
    for letters in found:
        of = f" of {letters.reaction}" if letters.reaction else " of which it is not known whose"
        removed = ", which was removed" if letters.removed else ""
        about = f", about {', '.join(letters.models)}" if letters.models else ""
        yield Finding(
            severity=Severity.WARNING if letters.removed else Severity.CRITICAL,
            what=f"{count(letters.count, 'dead letter')}{of}{removed}{about}",
            since=letters.oldest,
            means=NOBODY_HEARS if letters.removed else ALL_WAITS,
            runbook="dead-letters",
            command=f"noria queues {letters.reaction or ''}".strip(),
        )


def queues(found: Iterable[Waiting], now: datetime) -> Iterator[Finding]:
    for queue in found:
        if queue.age >= OLD_MESSAGE:
            yield Finding(
                severity=Severity.WARNING,
                what=f"The oldest of {count(queue.waiting, 'event')} of {queue.reaction} has waited for "
                f"{format_duration(_minutes(queue.age))}",
                since=now - queue.age,
                means=ALL_WAITS,
                runbook="dead-letters",
                command=f"noria queues {queue.reaction}",
            )


def stacks(found: Iterable[Stack], now: datetime) -> Iterator[Finding]:
    for stack in found:
        if stack.status == "UPDATE_ROLLBACK_FAILED":
            command = f"aws cloudformation continue-update-rollback --stack-name {stack.name}"
        else:
            command = f"aws cloudformation describe-stack-events --max-items 20 --stack-name {stack.name}"
        failed = stack.status.endswith("_FAILED") or stack.status == "ROLLBACK_COMPLETE"
        # A serving stack ends so whenever SageMaker takes a version back: that is told by the ledger.
        taken_back = stack.status == "UPDATE_ROLLBACK_COMPLETE" and not stack.name.endswith("-serving")
        slow = stack.status.endswith("_IN_PROGRESS") and now - stack.changed >= LONG_CHANGE
        if failed or taken_back or slow:
            yield Finding(
                severity=Severity.CRITICAL if failed else Severity.WARNING,
                what=f"Stack {stack.name} is {stack.status}",
                since=stack.changed,
                means="Nothing new can be deployed through it; what it made before goes on."
                if not taken_back
                else "The last deployment of it was taken back: what is deployed is not what is written.",
                command=command,
            )


def of_model(model: Model, now: datetime) -> Iterator[Finding]:
    """All that can be wrong with one model."""
    yield from endpoints(model)
    yield from returns(model, now)
    yield from trainings(model, now)
    yield from deployments(model, now)
    yield from packages(model, now)
    yield from pauses(model, now)
    yield from ledgers(model)


def endpoints(model: Model) -> Iterator[Finding]:
    known, endpoint = live(model.entries), model.endpoint
    wanted = known.package if known and model.has_endpoint else None
    under_way = unsettled(model.entries)
    if endpoint is None:
        if wanted and not under_way:
            yield _endpoint(model, "has no endpoint, and the ledger says that it answers", "Every request fails.")
    elif endpoint.status in {"Failed", "UpdateRollbackFailed", "OutOfService"}:
        why = f": {endpoint.failure}" if endpoint.failure else ""
        yield _endpoint(model, f"has an endpoint that is {endpoint.status}{why}", "Requests may fail.")
    elif endpoint.status == "InService" and not under_way and endpoint.desired != (known or Desired(package=None)):
        yield _endpoint(
            model,
            f"is answered by {endpoint.desired}, and the ledger says {known or 'nothing'}",
            "Callers get answers of a version that nobody asked for.",
        )


def returns(model: Model, now: datetime) -> Iterator[Finding]:
    """An endpoint that was taken away by the model's hours, and could not come back when they began."""
    gone = turned_off(model.entries)
    if gone is None or model.endpoint:
        return
    turns = {request.id for request in requests(model.entries) if request.cause is Cause.ON}
    refused = [
        entry
        for entry in model.entries[gone.number :]
        if entry.kind in SETTLED and entry.subject in turns and entry.summary != NEED_NOT_COME
    ]
    if refused and now - refused[-1].at < TRIED_AGAIN:
        yield Finding(
            severity=Severity.CRITICAL,
            what=f"{model.name} has not come back in its hours: {refused[-1].summary}",
            since=refused[0].at,
            means="Every request fails. It is tried again every hour.",
            runbook="endpoint-errors",
            command=f"noria status {model.name}",
        )


def _endpoint(model: Model, what: str, means: str) -> Finding:
    deployed = latest(model.entries, Kind.DEPLOYED, Kind.ROLLED_BACK, Kind.DEPLOYMENT_FAILED, Kind.SERVING_DIFFERS)
    return Finding(
        severity=Severity.CRITICAL,
        what=f"{model.name} {what}",
        since=deployed.at if deployed else None,
        means=means,
        runbook="endpoint-errors",
        command=f"noria events {model.name}",
    )


def trainings(model: Model, now: datetime) -> Iterator[Finding]:
    ended = [e for e in model.entries if e.kind in {Kind.TRAINING_SUCCEEDED, Kind.TRAINING_FAILED}]
    # What a gate refuses was trained, and what a person stops did not fail.
    broken = [
        e.kind is Kind.TRAINING_FAILED and e.details.get("status") != "Stopped" and not e.details.get("refused")
        for e in ended
    ]
    row = next((number for number, failed in enumerate(reversed(broken)) if not failed), len(broken))
    if row >= FAILURES:
        yield Finding(
            severity=Severity.WARNING,
            what=f"{model.name}: the last {row} trainings failed: {ended[-1].summary}",
            since=ended[-row].at,
            means="The model learns nothing new; what is live answers as before.",
            command=f"noria logs {ended[-1].subject}",
        )
    outcomes = {entry.subject for entry in ended}
    for entry in model.entries:
        execution = str(entry.details.get("execution"))
        if entry.kind is Kind.TRAINING_STARTED and execution not in outcomes and now - entry.at >= LONG_TRAINING:
            yield Finding(
                severity=Severity.WARNING,
                what=f"{model.name}: a training has run for {format_duration(_minutes(now - entry.at))}",
                since=entry.at,
                means="No other training of the model begins meanwhile, and its instances cost.",
                command=f"noria logs {execution}",
            )
    for entry in unstarted(model.entries):
        if now - entry.at >= LATE_START:
            yield Finding(
                severity=Severity.WARNING,
                what=f"{model.name}: a training was granted and has not begun",
                since=entry.at,
                means="No other training of the model begins meanwhile.",
                command="noria queues start-training",
            )


def deployments(model: Model, now: datetime) -> Iterator[Finding]:
    for request in unsettled(model.entries)[-1:]:
        if now - request.at >= LONG_DEPLOYMENT and not waits_for_hours(model.entries):
            yield Finding(
                severity=Severity.WARNING,
                what=f"{model.name}: {request.desired} was asked for and is neither live nor taken back",
                since=request.at,
                means="What answered before answers; nothing else of the model goes live meanwhile.",
                command=f"noria logs {request.id}",
            )


def packages(model: Model, now: datetime) -> Iterator[Finding]:
    newest = max(model.versions, key=lambda version: version.number, default=None)
    expired = newest and any(e.kind is Kind.PACKAGE_EXPIRED and e.subject == newest.arn for e in model.entries)
    waits = newest and newest.approval == "PendingManualApproval" and not expired
    if newest and waits and now - newest.created >= LONG_WAIT:
        yield Finding(
            severity=Severity.WARNING,
            what=f"{model.name}: version {newest.number} waits for approval",
            since=newest.created,
            means="Callers get answers of an older version than they could.",
            command=f"noria card {model.name}/{newest.number}",
        )


def pauses(model: Model, now: datetime) -> Iterator[Finding]:
    if pause := paused(model.entries, now):
        until = f", until {pause.until:%Y-%m-%d %H:%M} UTC" if pause.until else ", until a person resumes it"
        yield Finding(
            severity=Severity.WARNING,
            what=f"{model.name} is paused by {pause.by.rpartition('/')[2]}{until}: {pause.reason}",
            since=pause.since,
            means="Nothing begins for it by itself: uploads and approvals wait, none is lost.",
            command=f"noria resume {model.name} --reason '…'",
        )


def ledgers(model: Model) -> Iterator[Finding]:
    broken = [found.text for found in verify(model.entries)]
    if not model.head:
        broken.append("its head names another entry than the last")
    if broken:
        yield Finding(
            severity=Severity.CRITICAL,
            what=f"The ledger of {model.name} does not hold: {'; '.join(broken[:3])}",
            means="What it says of who approved what, and of what answered when, cannot be believed.",
            command=f"noria ledger verify {model.name}",
        )


def switched_off(found: Iterable[Off]) -> Iterator[Finding]:
    for off in found:
        yield Finding(
            severity=Severity.CRITICAL,
            what=f"The {off.kind} {off.name} is {off.state}",
            means="What it would tell is not heard; what is live answers.",
            command=off.on,
        )


def functions(found: Iterable[Function], names: Names, now: datetime) -> Iterator[Finding]:
    for function in found:
        said = [f"failed {count(function.errors, 'time')}"] * bool(function.errors)
        said += [f"was throttled {count(function.throttles, 'time')}"] * bool(function.throttles)
        if said:
            reaction = function.name.removeprefix(f"{names.prefix}-")
            yield Finding(
                severity=Severity.WARNING,
                what=f"{reaction} {' and '.join(said)} within the last hour",
                since=now - timedelta(hours=1),
                means="Its events are tried again; what fails five times becomes a dead letter.",
                runbook="dead-letters",
                command=f"aws logs tail /aws/lambda/{function.name} --since 1h --filter-pattern ERROR",
            )


def reconciler(heard: datetime | None, names: Names, now: datetime) -> Iterator[Finding]:
    """`heard` is when it last began a turn, None where it did not for as long as was looked at."""
    if heard is None or now - heard >= SILENT:
        yield Finding(
            severity=Severity.CRITICAL,
            what="The reconciler is silent",
            since=heard,
            means="Events that AWS does not deliver are lost until it works again.",
            runbook="dead-letters",
            command=f"aws logs tail /aws/lambda/{names.function('reconcile')} --since 1h",
        )


def key(found: Key) -> Iterator[Finding]:
    if found.state != "Enabled":
        at = f", on {found.deleted_at:%Y-%m-%d}" if found.deleted_at else ""
        verb = "cancel-key-deletion" if found.state == "PendingDeletion" else "enable-key"
        yield Finding(
            severity=Severity.CRITICAL,
            what=f"The key {found.id} is {found.state}{at}",
            means="Buckets, queues, ledger and topic are encrypted with it: nothing can be read or written.",
            command=f"aws kms {verb} --key-id {found.id}",
        )


def budget(found: Budget | None) -> Iterator[Finding]:
    """None where the environment has no budget."""
    if found is None:
        return
    over = found.spent > found.limit
    if over or (found.forecast or 0) > found.limit:
        spent = f"{found.spent:,.0f} of {found.limit:,.0f} USD are spent this month"
        yield Finding(
            severity=Severity.WARNING,
            what=spent if over else f"{spent}, and {found.forecast:,.0f} USD are forecast",
            means="Nothing stops by itself: it costs more than was meant.",
            command="noria cost",
        )


def _minutes(span: timedelta) -> timedelta:
    return timedelta(minutes=span // timedelta(minutes=1))


def in_order(found: Iterable[Finding], env: str) -> list[Finding]:
    """The critical first, and of these what has been so for longest; Noria's own commands with their environment."""
    whole = (
        finding.model_copy(update={"command": f"{finding.command} --env {env}"})
        if finding.command.startswith("noria ")
        else finding
        for finding in found
    )
    return sorted(whole, key=lambda f: (f.severity is not Severity.CRITICAL, f.since is None, f.since, f.what))
