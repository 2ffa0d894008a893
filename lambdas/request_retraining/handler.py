"""Whatever asks for a training asks here; this decides with reasons, and looks again where time changes the answer.

alarm, data, schedule, person ┬ noria/retraining.py ┬ yes: ledger, Retraining Requested
training's end, a later look  ┘                     └ no:  ledger, later look booked, Retraining Declined

A decision rests on the ledger as it is written: if anything was recorded meanwhile, it is made anew; so no two
trainings are granted at once. That data wait is recorded whatever else was, since of a flood each would else disturb
all others; what came just then is seen by the look that is booked. What the ledger says is said again when the same
message comes again.

Calls: cloudwatch:DescribeAlarms; scheduler:CreateSchedule in group NORIA_SCHEDULE_GROUP; iam:PassRole on
NORIA_SCHEDULE_ROLE_ARN to scheduler.amazonaws.com; events:PutEvents; kms:Decrypt, kms:DescribeKey, kms:Encrypt and
kms:GenerateDataKey; dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
While the model is paused: s3:PutObject on */held/*.
"""

import hashlib
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, Self

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ConfigDict

from noria import policy
from noria.aws.bus import Bus
from noria.aws.environment import BookingEnvironment, Variables
from noria.aws.ledger import Ledger, LedgerBusyError
from noria.aws.metrics import Measurements
from noria.aws.pauses import pausable
from noria.aws.retries import retried_soon
from noria.aws.schedules import Schedules
from noria.aws.telemetry import reaction, tell
from noria.events import (
    AlarmStateChange,
    Dataset,
    DatasetAccepted,
    RetrainingDeclined,
    RetrainingRequested,
    RetrainingWanted,
    Tick,
    TrainingEnded,
    parse,
)
from noria.feedback import origin
from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.monitors import Monitor, monitors
from noria.retraining import Ask, Decision, announced, another_look, data_asks, decide, in_words, moment, waits
from noria.spec import ModelSpec

_ATTEMPTS = 12


class Outcome(StrEnum):
    REQUESTED = "RetrainingRequested"
    DECLINED = "RetrainingDeclined"
    WOULD = "RetrainingDryRun"
    HELD = "TrainingHeld"
    NOTHING = "NothingToDecide"
    CALM = "AlarmCalm"
    OTHER = "OtherAlarm"


class Asked(BaseModel):
    """Who asks. `request` names it, always the same. `ask` is None for data: what they ask the ledger says."""

    model_config = ConfigDict(frozen=True)

    request: str
    why: str
    ask: Ask | None = None
    alarm: str | None = None
    by: str | None = None
    dataset: Dataset | None = None

    def later(self, model: str, at: datetime) -> str:
        """The message that asks again at `at`."""
        if self.alarm:
            return Tick.message("Recheck Alarm", model=model, time=at, alarm=self.alarm)
        by_schedule = self.ask is not None and self.ask.cause == "schedule"
        return Tick.message("Start Training" if by_schedule else "Recheck Data", model=model, time=at)

    @classmethod
    def by_data(cls, event: DatasetAccepted | TrainingEnded | Tick) -> Self:
        match event:
            case DatasetAccepted(detail=dataset):
                return cls(request=dataset.dataset, why=f"{dataset.key} was accepted", dataset=dataset)
            case TrainingEnded(detail=training):
                return cls(request=f"data#after {training.execution}", why=f"a training {training.outcome}")
            case Tick(detail=tick):
                return cls(request=f"data#re-check {_instant(tick.time)}", why="data wait")

    @classmethod
    def by_schedule(cls, tick: Tick) -> Self:
        at = _instant(tick.detail.time)
        return cls(request=f"schedule#{at}", why=f"it is due {at}", ask=Ask(cause="schedule"))

    @classmethod
    def by_hand(cls, event: RetrainingWanted) -> Self:
        wish = event.detail
        return cls(
            request=f"hand#{wish.request}", why=wish.reason, by=wish.by, ask=Ask(cause="hand", forced=wish.force)
        )

    @classmethod
    def by_alarm(cls, event: AlarmStateChange | Tick, alarm: str, monitor: Monitor, cause: policy.Cause) -> Self:
        if isinstance(event, Tick):
            request, why, raised = f"{alarm}#re-check {_instant(event.detail.time)}", "the alarm has not ended", None
        else:
            raised = event.detail.state.at
            request, why = f"{alarm}#{_instant(raised)}", event.detail.state.reason
        return cls(request=request, why=why, alarm=alarm, ask=Ask(cause=cause, monitor=monitor, raised=raised))


@retried_soon
@reaction
@pausable
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = BookingEnvironment.from_os()
    said = parse(event, AlarmStateChange, DatasetAccepted, RetrainingWanted, TrainingEnded, Tick)
    question = understand(said, env=env, measurements=Measurements())
    if isinstance(question, Outcome):
        tell(question, model="none", said=said.detail_type)
        return
    outcome = request_retraining(
        asked=question.asked,
        spec=question.spec,
        ledger=Ledger(table=env.ledger_table),
        bus=Bus(name=env.event_bus),
        schedules=Schedules.of(env),
        now=datetime.now(UTC),
    )
    tell(outcome, model=question.spec.model, request=question.asked.request)


class Question(NamedTuple):
    spec: ModelSpec
    asked: Asked


def understand(
    said: AlarmStateChange | DatasetAccepted | RetrainingWanted | TrainingEnded | Tick,
    *,
    env: Variables,
    measurements: Measurements,
) -> Question | Outcome:
    """What a message asks of which model; an outcome, where it asks nothing."""
    match said:
        case AlarmStateChange(detail=change):
            return _of_alarm(change.alarm, said, env, raised=change.state.value == "ALARM")
        case Tick(detail_type="Recheck Alarm", detail=tick):
            if tick.alarm is None:
                raise ValueError(f"a {said.detail_type!r} tick names no alarm")
            return _of_alarm(tick.alarm, said, env, raised=measurements.alarm_state(tick.alarm) == "ALARM")
        case Tick(detail_type="Start Training"):
            return Question(env.required_spec(said.model), Asked.by_schedule(said))
        case Tick():
            return Question(env.required_spec(said.model), Asked.by_data(said))
        case RetrainingWanted(detail=wish):
            return Question(env.required_spec(wish.model), Asked.by_hand(said))
        case _:
            return Question(env.required_spec(said.detail.model), Asked.by_data(said))


def _of_alarm(alarm: str, said: AlarmStateChange | Tick, env: Variables, *, raised: bool) -> Question | Outcome:
    for spec in (env.required_spec(model) for model in env.models):
        for monitor in monitors(spec):
            if monitor.trigger and env.names.monitor_alarm(spec.model, monitor.name) == alarm:
                if not raised:
                    return Outcome.CALM
                return Question(spec, Asked.by_alarm(said, alarm, monitor, monitor.trigger))
    return Outcome.OTHER


def request_retraining(
    *, asked: Asked, spec: ModelSpec, ledger: Ledger, bus: Bus, schedules: Schedules, now: datetime
) -> Outcome:
    fact = _decided(asked, spec, ledger, now=now)
    if fact is None:
        return Outcome.NOTHING
    told = announced(fact)
    if told.again_at:
        message = asked.later(spec.model, told.again_at)
        name = f"re-check-{spec.model}-{hashlib.sha256(message.encode()).hexdigest()[:16]}"
        schedules.once(name, at=told.again_at, message=message)
    if fact.kind is Kind.RETRAINING_REQUESTED:
        bus.publish(RetrainingRequested.of(told))
        return Outcome.REQUESTED
    if fact.kind is Kind.TRAINING_HELD:
        return Outcome.HELD
    bus.publish(RetrainingDeclined.of(told))
    return Outcome.WOULD if fact.details["would"] else Outcome.DECLINED


def _decided(asked: Asked, spec: ModelSpec, ledger: Ledger, *, now: datetime) -> Fact | None:
    """What the ledger says was decided, and if it says nothing, a decision, recorded. None: nothing asks."""
    for attempt in range(_ATTEMPTS):
        entries = ledger.entries(spec.model)
        if before := _answer(entries, asked.request):
            return before
        fact = _decide(asked, spec, entries, now=now)
        if fact is None:
            return None
        if fact.kind is Kind.TRAINING_HELD:
            ledger.record(fact)
            return fact
        if ledger.append([fact], after=entries[-1] if entries else None):
            return fact
        # Others write too, as when many files are accepted at once: a little later than they do.
        time.sleep(random.uniform(0, 0.02 * 2 ** min(attempt, 5)))  # noqa: S311 (no secret)
    raise LedgerBusyError(f"{spec.model}: {asked.request} not decided after {_ATTEMPTS} attempts")


def _answer(entries: Sequence[Entry], request: str) -> Entry | None:
    kinds = {Kind.RETRAINING_REQUESTED, Kind.RETRAINING_DECLINED, Kind.TRAINING_HELD}
    return next((entry for entry in entries if entry.kind in kinds and entry.subject == request), None)


def _decide(asked: Asked, spec: ModelSpec, entries: Sequence[Entry], *, now: datetime) -> Fact | None:
    if asked.dataset:
        entries = _with(asked.dataset, entries, now=now)
    ask = asked.ask or data_asks(spec, entries)
    if ask is not None:
        return _fact(asked, spec, ask.cause, decide(spec, entries, ask, now=now), now=now)
    if asked.dataset is None or _trained_on(asked.dataset, entries):
        return None
    held = Decision(retrain=False, rules=("policy",), reasons=(waits(spec, entries),))
    return _fact(asked, spec, "upload", held, now=now)


def _with(dataset: Dataset, entries: Sequence[Entry], *, now: datetime) -> Sequence[Entry]:
    """The entries with a dataset that is told before the ledger has it, as validate_upload and the reconciler do."""
    if any(entry.kind is Kind.DATASET_ACCEPTED and entry.subject == dataset.dataset for entry in entries):
        return entries
    accepted = Fact(
        model=dataset.model,
        kind=Kind.DATASET_ACCEPTED,
        subject=dataset.dataset,
        at=now,
        summary=f"{dataset.key} is a dataset.",
        details={"key": dataset.key, "rows": dataset.rows, "origin": origin(dataset.key)},
    )
    return [*entries, Entry.after(accepted, number=len(entries) + 1, previous=GENESIS)]


def _trained_on(dataset: Dataset, entries: Sequence[Entry]) -> bool:
    started = (entry.details["datasets"] for entry in entries if entry.kind is Kind.TRAINING_STARTED)
    return any(isinstance(datasets, list) and dataset.dataset in datasets for datasets in started)


def _fact(asked: Asked, spec: ModelSpec, cause: policy.Cause, decision: Decision, *, now: datetime) -> Fact:
    if decision.retrain:
        kind = Kind.RETRAINING_REQUESTED
    else:
        kind = Kind.TRAINING_HELD if asked.dataset else Kind.RETRAINING_DECLINED
    again_at = decision.again_at
    if kind is Kind.TRAINING_HELD and not decision.would:
        again_at = again_at or another_look(now)
    return Fact(
        model=spec.model,
        kind=kind,
        subject=asked.request,
        at=now,
        summary=_summary(asked, cause, decision),
        details={
            "cause": cause,
            "alarm": asked.alarm,
            "because": asked.why,
            "by": asked.by,
            "forced": asked.ask is not None and asked.ask.forced,
            "rules": list(decision.rules),
            "reasons": list(decision.reasons),
            "would": decision.would,
            "again_at": again_at.isoformat() if again_at else None,
            **decision.numbers,
        },
    )


def _summary(asked: Asked, cause: policy.Cause, decision: Decision) -> str:
    if asked.dataset and not decision.retrain:
        name, rows = asked.dataset.key.rpartition("/")[2], asked.dataset.rows
        again = f" Looked at again {moment(decision.again_at)}." if decision.again_at else ""
        held = "would be trained on" if decision.would else "is held"
        return f"{name} ({rows:,} rows) {held}: {'; '.join(decision.reasons)}.{again}"
    person = f" ({asked.by}: {asked.why})" if asked.by else ""
    who = in_words(cause)
    return f"{who[0].upper()}{who[1:]}{person}: {decision.sentence}"


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
