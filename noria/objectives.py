"""Service levels: what a model's service promises, how well it kept that, and how much may still go wrong.

| objective        | an event is          | it is good when                                   | told by    |
|------------------|----------------------|---------------------------------------------------|------------|
| `availability`   | a request            | it was not answered with 5XX                      | CloudWatch |
| `latency_p95_ms` | a request            | the model took no longer                          | CloudWatch |
| `upload_to_live` | an upload, gone live | it was live so soon, without the wait for people  | ledger     |
| `detect`         | an alarm about data  | it was decided on so soon after the data changed  | ledger     |
| `roll_back`      | a way back           | what was before answered so soon after a decision | ledger     |

The budget is the share of events that may be bad: what availability leaves, and one in twenty of the others. Terms:
https://sre.google/workbook/implementing-slos/ and https://sre.google/workbook/alerting-on-slos/.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field, model_validator

from noria.deployment import BY_HOURS, WAY_BACK, Request, turned_off
from noria.ledger import Entry, Kind
from noria.units import Duration, Part, format_duration

Objective = Literal["availability", "latency_p95_ms", "upload_to_live", "detect", "roll_back"]

OF_REQUESTS: tuple[Objective, ...] = ("availability", "latency_p95_ms")
"""Those that CloudWatch counts, and alarms watch; the ledger tells the others."""

OFTEN = 0.95
"""How often what has no share of its own must be good: 95 % is what a 95th percentile says of latency."""


class Objectives(Part):
    """The `objectives:` part of a spec. What is left out is not promised; what is promised of requests has alarms."""

    days: int = Field(
        28,
        ge=7,
        le=60,
        description="rolling period over which each is kept, in days; CloudWatch counts for 63",
    )
    availability: float | None = Field(
        None, ge=90, lt=100, description="percent of requests answered without an error of the server (5XX)"
    )
    latency_p95_ms: float | None = Field(
        None, gt=0, description="95 in 100 requests are answered by the model within so many milliseconds"
    )
    upload_to_live: Duration | None = Field(
        None, description="from an upload to the model that learnt from it being live, without the wait for approval"
    )
    detect: Duration | None = Field(
        None, description="from the start of the first window that is beyond a limit to the decision on its alarm"
    )
    roll_back: Duration | None = Field(
        None,
        description="from the decision to go back until what was before answers; where SageMaker goes back by itself, "
        "from when the deployment was asked for",
    )

    @model_validator(mode="before")
    @classmethod
    def _percent(cls, value: object) -> object:
        """`99.9%` is how people write it."""
        if isinstance(value, dict) and isinstance(told := value.get("availability"), str):
            return {**value, "availability": told.strip().removesuffix("%").strip()}
        return value

    @property
    def period(self) -> timedelta:
        return timedelta(days=self.days)

    def target(self, objective: Objective) -> float:
        """The share of events that are to be good, between 0 and 1."""
        return (self.availability or 0) / 100 if objective == "availability" else OFTEN

    @property
    def promised(self) -> tuple[Objective, ...]:
        every: tuple[Objective, ...] = ("availability", "latency_p95_ms", "upload_to_live", "detect", "roll_back")
        return tuple(objective for objective in every if getattr(self, objective) is not None)

    @property
    def of_requests(self) -> bool:
        """Whether anything is promised of requests."""
        return any(objective in OF_REQUESTS for objective in self.promised)

    def text(self, objective: Objective) -> str:
        """As `99.9 % answered`."""
        limit = getattr(self, objective)
        if objective == "availability":
            return f"{limit:g} % answered"
        within = f"{limit:g} ms" if objective == "latency_p95_ms" else format_duration(limit)
        return f"{OFTEN:.0%} within {within}"


def within(milliseconds: float) -> str:
    """CloudWatch's trimmed count of latencies, which are in microseconds: how many requests took no longer.

    >>> within(1500)
    'TC(:1500000)'
    """
    # Its bounds are plain decimals: no exponent.
    return f"TC(:{f'{milliseconds * 1000:.6f}'.rstrip('0').rstrip('.')})"


# --- how fast a budget goes


@dataclass(frozen=True, kw_only=True)
class Burn:
    """An alarm on the speed at which the budget goes: `rate` times as fast as would use it up in the whole period.

    Both windows must say so: the long one, that it matters; the short one, that it is not over.
    """

    name: Literal["fast", "slow"]
    rate: float
    long: timedelta
    short: timedelta


BURNS = (
    Burn(name="fast", rate=14.4, long=timedelta(hours=1), short=timedelta(minutes=5)),
    Burn(name="slow", rate=6, long=timedelta(hours=6), short=timedelta(minutes=30)),
)
"""Two hundredths of a month's budget in an hour, and five in six: the workbook's table 5-8."""


# --- what was kept


class Served(NamedTuple):
    """Requests of a while: how many, how many were answered with 5XX, how many took longer than the objective says."""

    requests: float
    failed: float
    slow: float | None

    def without(self, others: "Served") -> "Served":
        """The same but for some of them; never fewer than none, for two clocks and counts are not quite one."""
        return Served(
            requests=max(0.0, self.requests - others.requests),
            failed=max(0.0, self.failed - others.failed),
            slow=None if self.slow is None else max(0.0, self.slow - (others.slow or 0.0)),
        )


class Kept(BaseModel):
    """How one objective was kept. `left`: share of the budget, negative where more went wrong than may; None without
    events. `burn`: how fast it went in the last hour, 1 being just as fast as it may; of requests alone, as `own`: how
    many of Noria's own are left out."""

    model: str
    objective: Objective
    promised: str
    events: int
    bad: int
    share: float | None
    left: float | None
    burn: float | None = None
    own: int = 0
    worst: str | None = None

    @property
    def exhausted(self) -> bool:
        return self.left is not None and self.left < 0


def by_requests(model: str, asked: Objectives, period: Served, hour: Served, *, own: float = 0) -> Iterator[Kept]:
    """Availability and latency of clients' requests, where they are promised; `own` are Noria's, not among them."""
    for objective in asked.promised:
        if objective not in OF_REQUESTS:
            continue
        bad, lately = _bad(objective, period), _bad(objective, hour)
        allowed = 1 - asked.target(objective)
        yield Kept(
            model=model,
            objective=objective,
            promised=asked.text(objective),
            events=round(period.requests),
            bad=round(bad),
            share=1 - bad / period.requests if period.requests else None,
            left=1 - bad / (period.requests * allowed) if period.requests else None,
            burn=lately / hour.requests / allowed if hour.requests else None,
            own=round(own),
        )


def _bad(objective: Objective, served: Served) -> float:
    return served.failed if objective == "availability" else served.slow or 0.0


class Took(NamedTuple):
    """Something that took so long, and what it was."""

    long: timedelta
    what: str


def by_ledger(model: str, asked: Objectives, entries: Sequence[Entry], *, now: datetime) -> Iterator[Kept]:
    """What the ledger tells of uploads, alarms and ways back. One that is late is forgiven: few happen in a period."""
    since = now - asked.period
    told: dict[Objective, Iterator[Took]] = {
        "upload_to_live": uploads_to_live(entries, since),
        "detect": detections(entries, since),
        "roll_back": ways_back(entries, since),
    }
    for objective in asked.promised:
        if objective not in told:
            continue
        limit: timedelta = getattr(asked, objective)
        took = sorted(told[objective], reverse=True)
        late = sum(each.long > limit for each in took)
        yield Kept(
            model=model,
            objective=objective,
            promised=asked.text(objective),
            events=len(took),
            bad=late,
            share=1 - late / len(took) if took else None,
            left=1 - late / max(1.0, (1 - OFTEN) * len(took)) if took else None,
            worst=f"{took[0].what}: {_rough(took[0].long)}" if took else None,
        )


def uploads_to_live(entries: Sequence[Entry], since: datetime) -> Iterator[Took]:
    """Of each upload that led to a version that went live: how long that took, without the wait for approval."""
    for live in entries:
        if live.kind is not Kind.DEPLOYED or _by_the_clock(live) or live.at < since or live.correlation is None:
            continue
        chain = [e for e in entries[: live.number] if e.correlation == live.correlation and not _by_the_clock(e)]
        accepted = next((entry for entry in chain if entry.kind is Kind.DATASET_ACCEPTED), None)
        first = next(entry for entry in chain if entry.kind is Kind.DEPLOYED)
        if accepted is None or first.number != live.number:
            continue
        trained = next((entry for entry in chain if entry.kind is Kind.TRAINING_SUCCEEDED), accepted)
        approved = next((e for e in chain if e.kind is Kind.PACKAGE_APPROVED and e.number > trained.number), trained)
        yield Took(
            live.at - accepted.at - (approved.at - trained.at), str(accepted.details.get("key", accepted.subject))
        )


def _by_the_clock(entry: Entry) -> bool:
    """Whether it says that an endpoint went or came back by the model's hours, whatever was done before it."""
    return entry.kind is Kind.DEPLOYED and entry.details.get("cause") in BY_HOURS


def detections(entries: Sequence[Entry], since: datetime) -> Iterator[Took]:
    """Of each alarm about windows that was decided on: how long before the first of the windows that raised it began.

    A later decision about the same windows, such as one that was booked by a "no", is not another detection.
    """
    known: set[tuple[str, str]] = set()
    for decision in entries:
        alarm = str(decision.details.get("alarm") or "")
        if decision.kind not in {Kind.RETRAINING_REQUESTED, Kind.RETRAINING_DECLINED} or not alarm:
            continue
        windows = [entry for entry in entries[: decision.number] if entry.kind is Kind.MONITORED]
        first: Entry | None = None
        for window in reversed(windows):
            breached = window.details.get("breached")
            if not isinstance(breached, list) or not any(
                alarm.endswith(f"-{decision.model}-{name}") for name in breached
            ):
                break
            first = window
        if first is None or (alarm, first.subject) in known:
            continue
        known.add((alarm, first.subject))
        if decision.at >= since:
            began = datetime.fromisoformat(first.subject.partition("/")[0])
            yield Took(decision.at - began, alarm)


def ways_back(entries: Sequence[Entry], since: datetime) -> Iterator[Took]:
    """Of each way back: by a decision until it answers, by SageMaker since the deployment was asked for.

    One from a version that was off by the model's hours keeps nobody waiting.
    """
    asked = {entry.subject: entry for entry in entries if entry.kind is Kind.DEPLOYMENT_REQUESTED}
    for ended in entries:
        entry = asked.get(ended.subject)
        if entry is None or ended.at < since or turned_off(entries[: entry.number]):
            continue
        request = Request.of(entry)
        if ended.kind is Kind.ROLLED_BACK:
            yield Took(ended.at - request.at, f"{request.desired}, by an alarm")
        elif ended.kind is Kind.DEPLOYED and request.cause in WAY_BACK:
            yield Took(ended.at - request.decided_at, f"{request.desired}, {request.cause.value}")


def _rough(long: timedelta) -> str:
    """As `2h 05m`, and below an hour `5m 30s`."""
    seconds = max(0, round(long.total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds:02}s"
