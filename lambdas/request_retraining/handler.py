"""A drift alarm asks for a retraining; this decides with reasons, and looks again later after a no.

alarm or re-check ─ noria/retraining.py ┬ yes: ledger, Retraining Requested
                                        └ no:  ledger, re-check booked, Retraining Declined

The ledger comes first: what it says is said again when the same message comes again.

Calls: cloudwatch:DescribeAlarms; scheduler:CreateSchedule in group NORIA_SCHEDULE_GROUP; iam:PassRole on
NORIA_SCHEDULE_ROLE_ARN to scheduler.amazonaws.com; events:PutEvents; kms:Decrypt, kms:DescribeKey, kms:Encrypt and
kms:GenerateDataKey; dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
"""

import hashlib
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import AwareDatetime, BaseModel

from noria.aws.bus import Bus
from noria.aws.environment import BookingEnvironment
from noria.aws.ledger import Ledger
from noria.aws.metrics import Measurements
from noria.aws.schedules import Schedules
from noria.aws.telemetry import EVENT_ID, logger, metrics, tell
from noria.events import AlarmStateChange, Retraining, RetrainingDeclined, RetrainingRequested, Tick, parse
from noria.ledger import Entry, Fact, Kind
from noria.retraining import decide
from noria.spec import ModelSpec


class Outcome(StrEnum):
    REQUESTED = "RetrainingRequested"
    DECLINED = "RetrainingDeclined"
    CALM = "AlarmCalm"
    OTHER = "OtherAlarm"


class Asked(BaseModel):
    """Who asks: `request` names the alarm's transition or the re-check, the same at each delivery."""

    alarm: str
    request: str
    why: str
    in_alarm: bool


@logger.inject_lambda_context(correlation_id_path=EVENT_ID)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = BookingEnvironment.from_os()
    asked = _asked(parse(event, AlarmStateChange, Tick), Measurements())
    model = next((model for model in env.models if env.names.monitor_alarm(model, "drift") == asked.alarm), None)
    if model is None:
        tell(Outcome.OTHER, model="none", alarm=asked.alarm)
        return
    outcome = request_retraining(
        asked=asked,
        spec=env.required_spec(model),
        ledger=Ledger(table=env.ledger_table),
        bus=Bus(name=env.event_bus),
        schedules=Schedules.of(env),
        now=datetime.now(UTC),
    )
    tell(outcome, model=model, alarm=asked.alarm)


def _asked(event: AlarmStateChange | Tick, measurements: Measurements) -> Asked:
    if isinstance(event, Tick):
        alarm = event.detail.alarm
        if alarm is None:
            raise ValueError(f"a {event.detail_type!r} tick names no alarm")
        request = f"{alarm}#re-check {event.detail.time.astimezone(UTC).isoformat()}"
        in_alarm = measurements.alarm_state(alarm) == "ALARM"
        return Asked(alarm=alarm, request=request, why="the alarm has not ended", in_alarm=in_alarm)
    state = event.detail.state
    request = f"{event.detail.alarm}#{state.at.astimezone(UTC).isoformat()}"
    return Asked(alarm=event.detail.alarm, request=request, why=state.reason, in_alarm=state.value == "ALARM")


def request_retraining(
    *,
    asked: Asked,
    spec: ModelSpec,
    ledger: Ledger,
    bus: Bus,
    schedules: Schedules,
    now: datetime,
) -> Outcome:
    if not asked.in_alarm:
        return Outcome.CALM
    decision = _decided(asked, spec, ledger, now=now)
    if decision.again_at:
        _look_again(asked, spec.model, decision.again_at, schedules=schedules)
    if decision.retrain:
        bus.publish(RetrainingRequested.of(decision.event(spec.model, asked)))
        return Outcome.REQUESTED
    bus.publish(RetrainingDeclined.of(decision.event(spec.model, asked)))
    return Outcome.DECLINED


class _Decided(BaseModel):
    retrain: bool
    reasons: tuple[str, ...]
    again_at: AwareDatetime | None

    def event(self, model: str, asked: Asked) -> Retraining:
        return Retraining(model=model, request=asked.request, reasons=self.reasons, again_at=self.again_at)


def _decided(asked: Asked, spec: ModelSpec, ledger: Ledger, *, now: datetime) -> _Decided:
    """What the ledger says was decided, and if it says nothing, a decision, recorded."""
    entries = ledger.entries(spec.model)
    if before := _answer(entries, asked.request):
        return before
    decision = decide(spec, entries, now=now)
    verdict = "A retraining is asked for" if decision.retrain else "No retraining now"
    again = f" Looked at again {decision.again_at:%Y-%m-%d %H:%M} UTC." if decision.again_at else ""
    ledger.record(
        Fact(
            model=spec.model,
            kind=Kind.RETRAINING_REQUESTED if decision.retrain else Kind.RETRAINING_DECLINED,
            subject=asked.request,
            at=now,
            summary=f"{verdict}: {'; '.join(decision.reasons)}.{again}",
            details={
                "alarm": asked.alarm,
                "because": asked.why,
                "reasons": list(decision.reasons),
                "again_at": decision.again_at.isoformat() if decision.again_at else None,
            },
        )
    )
    return _Decided(**decision.model_dump())


def _answer(entries: list[Entry], request: str) -> _Decided | None:
    kinds = {Kind.RETRAINING_REQUESTED, Kind.RETRAINING_DECLINED}
    entry = next((e for e in entries if e.kind in kinds and e.subject == request), None)
    if entry is None:
        return None
    return _Decided.model_validate(
        {
            "retrain": entry.kind is Kind.RETRAINING_REQUESTED,
            "reasons": entry.details["reasons"],
            "again_at": entry.details["again_at"],
        }
    )


def _look_again(asked: Asked, model: str, at: datetime, *, schedules: Schedules) -> None:
    schedules.once(
        f"re-check-{model}-{hashlib.sha256(asked.request.encode()).hexdigest()[:16]}",
        at=at,
        message=Tick.message("Recheck Alarm", model=model, time=at, alarm=asked.alarm),
    )
