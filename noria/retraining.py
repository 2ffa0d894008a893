"""The governor of training: whatever asks, this decides, and says by which rule and on which numbers.

| rule     | binds               | refuses while                                         | a no ends              |
|----------|---------------------|-------------------------------------------------------|------------------------|
| policy   | uploads, alarms     | `retrain.after` does not have it                      | never by itself        |
| data     | a person            | there is no dataset                                   | with data              |
| flight   | everything          | a training runs, or was granted and has not begun     | `LOOK_AGAIN`           |
| latest   | alarms              | the live version's newest window is fine, or unknown  | the next window        |
| rows     | all that is *again* | new rows are fewer than `min_new_rows`                | with data or a window  |
| cooldown | all that is *again* | the last retraining was granted within `cooldown`     | when that is over      |
| runs     | again, and a person | the budget of retrainings is spent                    | when one is old enough |
| hours    | again, and a person | `hours` would not suffice for another run             | when one is old enough |
| quiet    | all but a person    | these are the quiet hours                             | at their end           |
| dry-run  | everything          | `dry_run` is set: told is what would have been done   | never by itself        |

*Again* is whatever asks by itself once a training has ended; the first one is no retraining, so that data come to a
model whatever the policy says. Until one succeeds, cooldown and budget bind those that follow, and `after` and
`min_new_rows` do not.
Every rule is asked, and a no tells every refusal; the last to end says when it is looked at again. A person who insists
(`--force`) may go over the budget. How many windows must breach before an alarm asks is the alarm's own `monitor.when`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict

from noria import policy
from noria.events import Retraining
from noria.feedback import superseded
from noria.ledger import Entry, Fact, Kind, latest, since
from noria.monitors import Monitor
from noria.spec import ModelSpec
from noria.training import training_token, unfinished
from noria.trial import champion_since
from noria.units import count, format_duration

LOOK_AGAIN = timedelta(minutes=15)
"""After this long, whether a training still runs; its end is also told at once."""

LOST = timedelta(days=7)
"""What SageMaker has not told of a training so long after the jobs' timeouts, the reconciler will not find either."""

RECENT = 5
"""So many of the newest whole trainings say how long the next may take."""

ENDS = (Kind.TRAINING_SUCCEEDED, Kind.TRAINING_FAILED)

LABELS = "labels"
"""`origin` of a dataset that was made of joined labels: its rows are new rows, but it is no upload."""

Number = str | int | float | bool | list[str] | None

EVERYTHING = frozenset[policy.Cause](get_args(policy.Cause))
ALARMS = frozenset[policy.Cause]({"drift", "quality", "bias"})
BY_ITSELF = EVERYTHING - {"hand"}
AGAIN = BY_ITSELF - {"first"}


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Ask(Part):
    """What asks for a training. `monitor` is the alarm's, raised at `raised` (None: at some time before).

    `forced`: a person insists.
    """

    cause: policy.Cause
    monitor: Monitor | None = None
    raised: AwareDatetime | None = None
    forced: bool = False


class Ruling(Part):
    """What one rule says. `ends`: of a refusal, when it is over, None where time alone does not end it."""

    says: str = ""
    refuses: bool = False
    ends: AwareDatetime | None = None
    numbers: Mapping[str, Number] = {}


class Decision(Part):
    """`rules` are those that refuse. `reasons` are sentences, for the yes or for the no.

    `would`: nothing but `dry_run` refuses. `again_at`: when it is looked at again; None is not by time.
    """

    retrain: bool
    would: bool = False
    rules: tuple[str, ...] = ()
    reasons: tuple[str, ...]
    numbers: Mapping[str, Number] = {}
    again_at: AwareDatetime | None = None

    @property
    def sentence(self) -> str:
        so = "trains" if self.retrain else "would train" if self.would else "no training now"
        again = f". Looked at again {moment(self.again_at)}" if self.again_at and not self.retrain else ""
        why = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return f"{so}{why}{again}."


def decide(spec: ModelSpec, entries: Sequence[Entry], ask: Ask, *, now: datetime) -> Decision:
    """Whether to train now. `entries` are the model's, oldest first."""
    case = Case(spec, entries, ask, now)
    ruled = {name: rule(case) for name, (binds, rule) in RULES.items() if ask.cause in binds}
    against = {name: ruling for name, ruling in ruled.items() if ruling.refuses}
    numbers = {name: number for ruling in ruled.values() for name, number in ruling.numbers.items()}
    if against:
        ends = [ruling.ends for ruling in against.values()]
        heals = ask.cause != "hand" and None not in ends
        return Decision(
            retrain=False,
            rules=tuple(against),
            reasons=tuple(ruling.says for ruling in against.values()),
            numbers=numbers,
            again_at=_whole(max(end for end in ends if end)) if heals else None,
        )
    reasons = tuple(ruling.says for ruling in ruled.values() if ruling.says)
    if spec.retrain.dry_run:
        return Decision(
            retrain=False,
            would=True,
            rules=("dry-run",),
            reasons=(*reasons, "retrain.dry_run is set"),
            numbers=numbers,
            again_at=_whole(_next(now, spec.retrain.cooldown)) if ask.cause in ALARMS else None,
        )
    # An alarm speaks only when it changes: if the training comes to nothing, nobody else would ask again.
    again_at = _whole(now + spec.retrain.cooldown) if ask.cause in ALARMS else None
    return Decision(retrain=True, reasons=reasons, numbers=numbers, again_at=again_at)


# --- what asks


def data_asks(spec: ModelSpec, entries: Sequence[Entry]) -> Ask | None:
    """What accepted data ask for now; None where they wait for something else to ask."""
    unseen = _accepted(entries, besides=_seen(entries))
    if unseen and latest(entries, Kind.TRAINING_SUCCEEDED) is None:
        return Ask(cause="first")
    if "upload" in spec.retrain.after and any(e.details.get("origin") != LABELS for e in unseen):
        return Ask(cause="upload")
    if spec.retrain.new_rows is not None and new_rows(entries) >= spec.retrain.new_rows:
        return Ask(cause="rows")
    return None


def waits(spec: ModelSpec, entries: Sequence[Entry]) -> str:
    """Why accepted data that ask for nothing wait."""
    alarms = [cause for cause in spec.retrain.after if cause != "upload"]
    for_what = [f"an alarm of {' or '.join(alarms)}"] * bool(alarms)
    if spec.retrain.new_rows:
        for_what.append(f"{spec.retrain.new_rows:,} new rows ({new_rows(entries):,} have come)")
    if spec.retrain.schedule:
        for_what.append(f"the schedule {spec.retrain.schedule}")
    return f"by the policy they wait for {', or '.join([*for_what, 'a person who asks'])} (retrain)"


def fresh(entries: Sequence[Entry]) -> list[Entry]:
    """Accepted datasets that no training has learnt from: one that broke has learnt nothing, a refused one has."""
    return _accepted(entries, besides=_seen(entries, learnt=True))


def new_rows(entries: Sequence[Entry]) -> int:
    """Rows that no training has learnt from. A day's joined labels hold again what those before held."""
    learnt = _seen(entries, learnt=True)
    known: dict[str, int] = {}
    for entry in entries:
        if entry.kind is Kind.DATASET_ACCEPTED and entry.subject in learnt and (day := _day(entry)):
            known[day] = max(known.get(day, 0), _rows_of(entry))
    return sum(max(_rows_of(entry) - known.get(_day(entry), 0), 0) for entry in fresh(entries))


# --- what was decided


def in_words(cause: policy.Cause) -> str:
    """A few words without commas, as a pipeline's parameter must be."""
    return {
        "first": "first data",
        "upload": "new data",
        "rows": "enough new rows",
        "schedule": "schedule",
        "hand": "by hand",
    }.get(cause, f"{cause} alarm")


def announced(fact: Fact) -> Retraining:
    """A recorded decision as the bus tells it."""
    return Retraining.model_validate({"model": fact.model, "request": fact.subject, **fact.details})


def unstarted(entries: Sequence[Entry]) -> list[Entry]:
    """Grants whose training has not begun."""
    begun = {entry.subject for entry in entries if entry.kind is Kind.TRAINING_STARTED}
    granted = (entry for entry in entries if entry.kind is Kind.RETRAINING_REQUESTED)
    return [entry for entry in granted if training_token(entry.model, entry.subject) not in begun]


# --- the rules


@dataclass(frozen=True)
class Case:
    spec: ModelSpec
    entries: Sequence[Entry]
    ask: Ask
    now: datetime

    @property
    def grants(self) -> list[Entry]:
        """Retrainings: the first training is none, but what is granted as first when one has ended is."""
        ended = next((n for n, entry in enumerate(self.entries) if entry.kind in ENDS), len(self.entries))
        return [
            entry
            for n, entry in enumerate(self.entries)
            if entry.kind is Kind.RETRAINING_REQUESTED and (n > ended or entry.details.get("cause") != "first")
        ]


def _policy(case: Case) -> Ruling:
    if case.ask.cause in case.spec.retrain.after:
        return Ruling()
    asks = "uploads" if case.ask.cause == "upload" else f"alarms of {case.ask.cause}"
    return Ruling(refuses=True, says=f"the policy does not train after {asks} (retrain.after)")


def _data(case: Case) -> Ruling:
    if latest(case.entries, Kind.DATASET_ACCEPTED):
        return Ruling()
    return Ruling(refuses=True, says=f"there is no data: noria upload {case.spec.model} FILE")


def _flight(case: Case) -> Ruling:
    patience = LOST + 3 * case.spec.train.timeout  # three jobs, one after the other
    running = [entry for entry in unfinished(case.entries) if entry.at > case.now - patience]
    under_way = [*running, *unstarted(case.entries)]
    if not under_way:
        return Ruling()
    return Ruling(
        refuses=True,
        says=f"a training is under way since {moment(under_way[0].at)}",
        ends=_next(case.now, LOOK_AGAIN),
        numbers={"running_since": under_way[0].at.isoformat()},
    )


def _latest(case: Case) -> Ruling:
    """An alarm looks back; whether it is still so, the newest window knows.

    The window that raised the alarm may be told to the ledger after the alarm has spoken; what is older than the alarm
    says nothing against it. What is older than the live version is about another: an alarm of late labels stays as it
    is until labels of the live version come.
    """
    monitor, raised, live = case.ask.monitor, case.ask.raised, champion_since(case.entries)
    if monitor is None:
        return Ruling()
    kinds = {Kind.MONITORED} | ({Kind.LABELS_JOINED} if monitor.clock == "labels" else set())
    for entry in reversed(case.entries):
        breached = entry.details.get("breached")
        if entry.kind not in kinds or not isinstance(breached, list) or (live and entry.at < live):
            continue
        if raised and entry.at < raised:
            return Ruling(says=f"{monitor.title} is beyond its limit")
        if monitor.name in breached:
            return Ruling(says=f"{monitor.title} is beyond its limit in the newest window, {moment(entry.at)}")
        if monitor.name not in _texts(entry.details.get("not_enough")):
            return Ruling(
                refuses=True,
                says=f"{monitor.title} is within its limit again in the newest window, {moment(entry.at)}",
                ends=_next(case.now, case.spec.monitor.every),
                numbers={"window": entry.subject},
            )
    if live is None:
        return Ruling(says=f"{monitor.title} is beyond its limit")
    return Ruling(
        refuses=True,
        says=f"{monitor.title}: nothing is known yet of the version that is live now, since {moment(live)}",
        ends=_next(case.now, case.spec.monitor.every),
        numbers={"live_since": live.isoformat()},
    )


def _rows(case: Case) -> Ruling:
    new, rows, wanted = fresh(case.entries), new_rows(case.entries), case.spec.retrain.min_new_rows
    numbers: dict[str, Number] = {"new_rows": rows, "new_datasets": len(new), "min_new_rows": wanted}
    if rows >= wanted:
        says = f"no training has learnt from {count(len(new), 'dataset')} ({count(rows, 'new row')})"
        return Ruling(says=says, numbers=numbers)
    says = "no data has arrived since the last training: upload newer data"
    if new:
        says = f"only {count(rows, 'new row')} of {wanted:,} that are wanted (retrain.min_new_rows)"
    ends = _next(case.now, case.spec.monitor.every) if case.ask.cause in ALARMS else None
    return Ruling(refuses=True, says=says, ends=ends, numbers=numbers)


def _cooldown(case: Case) -> Ruling:
    if not case.grants or (ends := case.grants[-1].at + case.spec.retrain.cooldown) <= case.now:
        return Ruling()
    return Ruling(
        refuses=True,
        says=f"the last retraining was granted {moment(case.grants[-1].at)}, and the cooldown of "
        f"{format_duration(case.spec.retrain.cooldown)} ends {moment(ends)}",
        ends=ends,
        numbers={"cooldown_ends": ends.isoformat()},
    )


def _runs(case: Case) -> Ruling:
    budget = case.spec.retrain.budget
    spent = [entry for entry in case.grants if entry.at > case.now - budget.period]
    numbers: dict[str, Number] = {"runs": len(spent), "budget_runs": budget.count}
    if len(spent) < budget.count or case.ask.forced:
        return Ruling(says=f"{len(spent)} of {budget.count} retrainings per {budget.per} are spent", numbers=numbers)
    if budget.count == 0:
        return Ruling(refuses=True, says="the budget is 0 retrainings", numbers=numbers)
    ends = spent[-budget.count].at + budget.period
    says = f"the budget of {budget.count} per {budget.per} is spent until {moment(ends)}"
    return Ruling(refuses=True, says=says, ends=ends, numbers=numbers)


def _hours(case: Case) -> Ruling:
    limit, budget = case.spec.retrain.hours, case.spec.retrain.budget
    if limit is None:
        return Ruling()
    ended = since(case.entries, case.now - budget.period + timedelta.resolution, *ENDS)
    spent = sum(_number(entry.details.get("hours")) for entry in ended)
    next_run = expected_hours(case.spec, case.entries)
    numbers: dict[str, Number] = {
        "hours": round(spent, 3),
        "next_hours": round(next_run.hours, 3),
        "next_hours_from": next_run.source,
        "budget_hours": limit,
    }
    says = (
        f"{spent:.2f} of {limit:g} instance-hours per {budget.per} are spent, and the next run may take "
        f"{next_run.hours:.2f} ({next_run.source})"
    )
    if spent + next_run.hours <= limit or case.ask.forced:
        return Ruling(says=says, numbers=numbers)
    left = spent
    for entry in ended:
        left -= _number(entry.details.get("hours"))
        if left + next_run.hours <= limit:
            ends = entry.at + budget.period
            return Ruling(refuses=True, says=f"{says}; it fits {moment(ends)}", ends=ends, numbers=numbers)
    return Ruling(refuses=True, says=f"{says}: that never fits (retrain.hours)", numbers=numbers)


class Expected(Part):
    """Instance-hours that the next training may take, and where that is from."""

    hours: float
    source: str


def expected_hours(spec: ModelSpec, entries: Sequence[Entry]) -> Expected:
    """The longest of the recent trainings that ran to their end; before there is one, `train.timeout`."""
    whole = [
        _number(entry.details.get("hours"))
        for entry in entries
        if entry.details.get("hours") is not None
        and (entry.kind is Kind.TRAINING_SUCCEEDED or (entry.kind is Kind.TRAINING_FAILED and entry.details["refused"]))
    ]
    if whole:
        return Expected(
            hours=max(whole[-RECENT:]), source=f"the longest of the last {count(len(whole[-RECENT:]), 'run')}"
        )
    return Expected(hours=spec.train.timeout / timedelta(hours=1), source="train.timeout")


def _quiet(case: Case) -> Ruling:
    quiet = case.spec.retrain.quiet
    if quiet is None or (ends := quiet.until(case.now)) is None:
        return Ruling()
    return Ruling(
        refuses=True,
        says=f"nothing begins by itself in the quiet hours {quiet}, which end {moment(ends)}",
        ends=ends,
        numbers={"quiet_until": ends.isoformat()},
    )


def _unless_first(rule: Callable[[Case], Ruling]) -> Callable[[Case], Ruling]:
    """Data that ask for the first training are free until one has ended: with gates that refuse all, they ask again."""
    return lambda case: Ruling() if case.ask.cause == "first" and not latest(case.entries, *ENDS) else rule(case)


RULES: Mapping[str, tuple[frozenset[policy.Cause], Callable[[Case], Ruling]]] = {
    "policy": (ALARMS | {"upload"}, _policy),
    "data": (frozenset({"hand"}), _data),
    "flight": (EVERYTHING, _flight),
    "latest": (ALARMS, _latest),
    "rows": (AGAIN, _rows),
    "cooldown": (BY_ITSELF, _unless_first(_cooldown)),
    "runs": (EVERYTHING, _unless_first(_runs)),
    "hours": (EVERYTHING, _unless_first(_hours)),
    "quiet": (BY_ITSELF, _quiet),
}


def _next(now: datetime, step: timedelta) -> datetime:
    """The next of the times that divide the clock in steps: however many ask until then, one look answers them."""
    return now + step - (now - datetime.fromtimestamp(0, UTC)) % step


def another_look(now: datetime) -> datetime:
    """At what waits, though no time ends it: it was judged while other data were just being told."""
    return _whole(_next(now, LOOK_AGAIN))


def _whole(at: datetime) -> datetime:
    """The next whole second: Scheduler knows no parts of one, and what comes a moment too early is refused again."""
    return at.replace(microsecond=0) + timedelta(seconds=1)


def moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else "never"


def _accepted(entries: Sequence[Entry], *, besides: frozenset[str]) -> list[Entry]:
    """Accepted datasets that a training would use: without labels of a day that later ones of that day hold too."""
    accepted = [entry for entry in entries if entry.kind is Kind.DATASET_ACCEPTED]
    old = superseded(_key(entry) for entry in accepted if entry.details.get("origin") == LABELS)
    return [entry for entry in accepted if entry.subject not in besides and _key(entry) not in old]


def _key(accepted: Entry) -> str:
    return str(accepted.details.get("key", ""))


def _day(accepted: Entry) -> str:
    """What joined labels of one day have in common; empty for an upload."""
    return _key(accepted).rpartition("/")[0] if accepted.details.get("origin") == LABELS else ""


def _rows_of(accepted: Entry) -> int:
    return int(_number(accepted.details.get("rows")))


def _seen(entries: Sequence[Entry], *, learnt: bool = False) -> frozenset[str]:
    """Datasets that some training began with; `learnt`: unless it broke before it came to a model."""
    broke = {e.subject for e in entries if e.kind is Kind.TRAINING_FAILED and not e.details.get("refused")}
    broke -= {e.subject for e in entries if e.kind is Kind.TRAINING_SUCCEEDED}  # SageMaker was told to retry it
    started = (e for e in entries if e.kind is Kind.TRAINING_STARTED)
    return frozenset(
        sha
        for entry in started
        if not (learnt and entry.details["execution"] in broke)
        for sha in _texts(entry.details["datasets"])
    )


def _texts(value: object) -> list[str]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
