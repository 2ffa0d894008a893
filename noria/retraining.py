"""The governor of retraining: an alarm asks, this decides, and says why.

| refusal                    | ends                                             |
|----------------------------|--------------------------------------------------|
| policy has no `drift`      | never                                            |
| a training runs            | looked at again after `LOOK_AGAIN`               |
| no data since the last one | looked at again after the next monitored window  |
| cooldown                   | `cooldown` after the last request                |
| budget                     | when the oldest request leaves the period        |

How many windows must drift before the alarm asks at all is the alarm's own `monitor.when`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict

from noria.ledger import Entry, Kind, latest, since
from noria.spec import ModelSpec
from noria.training import unfinished

LOOK_AGAIN = timedelta(minutes=15)


class Decision(BaseModel):
    """`reasons` are sentences, for the yes or for the no. `again_at`: when it is looked at again; None is never."""

    model_config = ConfigDict(frozen=True)

    retrain: bool
    reasons: tuple[str, ...]
    again_at: AwareDatetime | None = None


def decide(spec: ModelSpec, entries: Sequence[Entry], *, now: datetime) -> Decision:
    """Whether to retrain now. `entries` are the model's, oldest first."""
    if "drift" not in spec.retrain.after:
        return Decision(retrain=False, reasons=("the policy does not retrain on alarms (retrain.after)",))
    if spec.retrain.budget.count == 0:
        return Decision(retrain=False, reasons=("the budget is 0 retrainings",))
    fresh = _untrained(entries)
    refusals = [
        refusal
        for refusal in (
            _in_flight(entries, now),
            _nothing_new(spec, fresh, now),
            _cooling(spec, entries, now),
            _spent(spec, entries, now),
        )
        if refusal
    ]
    if refusals:
        return Decision(
            retrain=False,
            reasons=tuple(reason for reason, _ in refusals),
            again_at=max(ends for _, ends in refusals),
        )
    return Decision(
        retrain=True,
        reasons=(f"{_count(len(fresh), 'dataset')} arrived since the last training",),
        # The alarm speaks only when it changes: if the training comes to nothing, nobody else would ask again.
        again_at=now + spec.retrain.cooldown,
    )


def _untrained(entries: Sequence[Entry]) -> list[str]:
    """Accepted datasets that the newest training did not see."""
    last = latest(entries, Kind.TRAINING_STARTED)
    seen = frozenset(_texts(last.details["datasets"])) if last else frozenset()
    return [e.subject for e in entries if e.kind is Kind.DATASET_ACCEPTED and e.subject not in seen]


def _texts(value: object) -> list[str]:
    return value if isinstance(value, list) else []


def _in_flight(entries: Sequence[Entry], now: datetime) -> tuple[str, datetime] | None:
    running = unfinished(entries)
    if not running:
        return None
    return f"a training is under way since {_at(running[0].at)}", now + LOOK_AGAIN


def _nothing_new(spec: ModelSpec, fresh: Sequence[str], now: datetime) -> tuple[str, datetime] | None:
    if fresh:
        return None
    return "no data has arrived since the last training: upload newer data", now + spec.monitor.every


def _cooling(spec: ModelSpec, entries: Sequence[Entry], now: datetime) -> tuple[str, datetime] | None:
    last = latest(entries, Kind.RETRAINING_REQUESTED)
    if last is None or (ends := last.at + spec.retrain.cooldown) <= now:
        return None
    return f"the last retraining was requested {_at(last.at)}, and the cooldown ends {_at(ends)}", ends


def _spent(spec: ModelSpec, entries: Sequence[Entry], now: datetime) -> tuple[str, datetime] | None:
    budget = spec.retrain.budget
    spent = since(entries, now - budget.period, Kind.RETRAINING_REQUESTED)
    if len(spent) < budget.count:
        return None
    ends = spent[-budget.count].at + budget.period
    return f"the budget of {budget.count} per {budget.per} is spent until {_at(ends)}", ends


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
