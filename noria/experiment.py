"""Champion against challenger (A/B) or shadow: which is better, judged at any time, as often as one likes.

captured requests of both ─ late labels ─ loss of each request ─ difference ─ always-valid interval ─ verdict

An ordinary interval holds at one look that was planned before; who looks every hour and stops at the first good news is
wrong far more often than it says. These hold at all looks at once.

| verdict | because                                                                                                 |
|---------|---------------------------------------------------------------------------------------------------------|
| promote | the rival's loss is surely not larger by `MARGIN`, nor its share of failures by the spec's `error_rate` |
| abandon | else, its loss or its share of failures is surely larger than the champion's                            |
| wait    | neither is sure                                                                                         |
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

import duckdb
from pydantic import AwareDatetime, BaseModel, ConfigDict

from noria.drift import psi
from noria.labels import LabelsError, LabelsFile, read_labels
from noria.names import version
from noria.profile import Cut, Kind, Source, column_of
from noria.quality import match, score
from noria.spec import Metric, ModelSpec, Task
from noria.sql import MODEST, Resources, cursor

ALPHA = 0.05
"""How often a verdict may be wrong over the whole life of an experiment; half of it for the loss, half for failures."""

MARGIN = 0.05
"""How much larger than the champion's loss a loss may be and still count as not worse: this share of it."""

TIGHTEST = 2000
"""Requests at which the intervals are as narrow as such intervals can be; little is lost some way from there."""

REQUESTS = 200
"""The intervals rest on the central limit theorem: fewer labelled requests of a variant are too few for it."""


class Verdict(StrEnum):
    PROMOTE = "promote"
    ABANDON = "abandon"
    WAIT = "wait"


_ADVICE = {
    Verdict.PROMOTE: "Promote the {rival}",
    Verdict.ABANDON: "Abandon the {rival}",
    Verdict.WAIT: "Wait with the {rival}",
}


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


# --- what may be read at any time


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An estimate from so many rows in so many requests, and the variance of it (not of what it was made from).

    `worth`: as many requests of one sample would tell as much.
    """

    value: float
    variance: float
    rows: int
    requests: int
    worth: float

    def __sub__(self, other: Self) -> "Estimate":
        """The difference of two that are independent; it rests on the fewer rows of the two."""
        return Estimate(
            value=self.value - other.value,
            variance=self.variance + other.variance,
            rows=min(self.rows, other.rows),
            requests=min(self.requests, other.requests),
            worth=1 / (1 / self.worth + 1 / other.worth),
        )

    def interval(self, *, alpha: float) -> tuple[float, float]:
        """Low and high, between which the truth is at all looks at once with probability 1 - `alpha`."""
        half = radius(self.variance, self.worth, alpha=alpha)
        return self.value - half, self.value + half


def radius(variance: float, requests: float, *, alpha: float) -> float:
    """Half the width of an always-valid interval around a mean of so many requests, with that variance of the mean.

    An asymptotic confidence sequence: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit
    theory and asymptotic confidence sequences, Annals of Statistics 52(6), 2024. Underneath is Robbins' mixture of
    likelihood ratios (Annals of Mathematical Statistics 41, 1970), which as an A/B test is the mixture SPRT of Johari,
    Koomen, Pekelis and Walsh (Operations Research 70(3), 2022). It serves two samples too: differences of their means
    move as a Brownian motion does in information time, whatever the samples' shares (Jennison and Turnbull, JASA 92,
    1997), and what two samples are worth is 1 / (1/n + 1/m) requests.
    """
    odds = -2 * math.log(alpha)
    mixed = requests * (odds + math.log(odds + 1)) / TIGHTEST
    return math.sqrt(variance * (1 + 1 / mixed) * math.log((1 + mixed) / alpha**2))


def share(events: int, of: int) -> Estimate:
    """A share of requests; its variance is smoothed by one event and one that is none, so that none is not never."""
    p = (events + 1) / (of + 2)
    return Estimate(value=events / of, variance=p * (1 - p) / of, rows=of, requests=of, worth=of)


# --- the report


class Difference(Part):
    """Rival less champion, of something of which less is better; `low` and `high` hold at all looks at once.

    It rests on `rows` in `requests`, of the side that has fewer, or of pairs.
    """

    champion: float
    rival: float
    value: float
    low: float
    high: float
    margin: float
    rows: int
    requests: int
    paired: bool = False

    @classmethod
    def of(cls, champion: Estimate, rival: Estimate, found: Estimate, *, margin: float, paired: bool = False) -> Self:
        low, high = found.interval(alpha=ALPHA / 2)
        return cls(
            champion=champion.value,
            rival=rival.value,
            value=found.value,
            low=low,
            high=high,
            margin=margin,
            rows=found.rows,
            requests=found.requests,
            paired=paired,
        )

    @property
    def worse(self) -> bool:
        return self.low > 0

    @property
    def not_worse(self) -> bool:
        return self.high < self.margin


class Traffic(Part):
    """What CloudWatch counted of a variant; `latency_p95_ms` is the median of its five-minute values."""

    requests: int = 0
    failures: int = 0
    latency_p95_ms: float | None = None


class Variant(Part):
    """One side. `predictions` were captured, `labelled` of them have a label, which `metrics` are of."""

    package: str
    predictions: int
    labelled: int
    metrics: dict[Metric, float]
    traffic: Traffic


class Experiment(Part):
    """`psi` and `agreement` (the share of paired predictions that are the same label) tell of predictions alone.

    Not `complete`: only the first part of what was captured was looked at. `unusable`: why labels were left out.
    """

    model: str
    kind: Literal["challenger", "shadow"]
    since: AwareDatetime
    until: AwareDatetime
    champion: Variant
    rival: Variant
    loss_name: str
    loss: Difference | None
    errors: Difference | None
    failures: Difference | None
    psi: float | None
    agreement: float | None
    complete: bool
    unusable: str | None = None
    verdict: Verdict
    reason: str

    @property
    def summary(self) -> str:
        return f"{_ADVICE[self.verdict].format(rival=self.kind)}: {self.reason}"

    @property
    def text(self) -> str:
        """All of it, for a person."""
        lines = [
            f"{self.model}: {version(self.champion.package)} as champion, {version(self.rival.package)} as {self.kind}",
            f"from {self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC",
            *([] if self.complete else ["Judged by the first part of what was captured: there is too much of it."]),
            *([f"Judged without labels: {self.unusable}"] if self.unusable else []),
            "",
            _line("", "champion", self.kind, f"difference, sure at {1 - ALPHA / 2:.1%} however often one looks"),
            _line("predictions", f"{self.champion.predictions:,}", f"{self.rival.predictions:,}"),
            _line("with a label", f"{self.champion.labelled:,}", f"{self.rival.labelled:,}"),
        ]
        for name, of, form in (
            (self.loss_name, self.loss, "{:.4g}"),
            ("wrong labels", self.errors, "{:.2%}"),
            ("failed requests", self.failures, "{:.3%}"),
        ):
            if of:
                low, high = form.replace("{:", "{:+").format(of.low), form.replace("{:", "{:+").format(of.high)
                difference = f"{low} to {high}; below {form.format(of.margin)} counts as not worse"
                lines.append(_line(name, form.format(of.champion), form.format(of.rival), difference))
        for metric, value in self.champion.metrics.items():
            if (other := self.rival.metrics.get(metric)) is not None:
                lines.append(_line(metric.value, f"{value:.4g}", f"{other:.4g}"))
        ours, theirs = self.champion.traffic.latency_p95_ms, self.rival.traffic.latency_p95_ms
        if ours is not None and theirs is not None:
            lines.append(_line("latency p95, ms", f"{ours:.3g}", f"{theirs:.3g}"))
        if self.psi is not None:
            lines.append(f"The predictions' PSI is {self.psi:.3f}.")
        if self.agreement is not None:
            lines.append(f"Both predict the same label in {self.agreement:.1%} of the same rows.")
        return "\n".join([*lines, "", self.summary, *self._command()])

    def _command(self) -> Iterator[str]:
        """What to type next, if anything is to be done."""
        if self.verdict is Verdict.WAIT:
            return
        if self.kind == "challenger":
            yield f"\n    noria {self.verdict.value} {self.model} --reason '…'"
        elif self.verdict is Verdict.ABANDON:
            yield f"\n    noria shadow {self.model} --off --reason '…'"
        else:
            yield f"\n    noria approve {self.rival.package} --reason '…'"


def _line(*cells: str) -> str:
    return "".join(f"{cell:<18}" for cell in cells).rstrip()


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one variant was asked, and what CloudWatch counted of it."""

    package: str
    source: Source
    traffic: Traffic


LOSSES = {Task.BINARY: "Brier score", Task.MULTICLASS: "Brier score", Task.REGRESSION: "squared error"}


def compare(
    *,
    spec: ModelSpec,
    kind: Literal["challenger", "shadow"],
    champion: Side,
    rival: Side,
    labels: Sequence[LabelsFile],
    since: datetime,
    until: datetime,
    complete: bool = True,
    resources: Resources = MODEST,
) -> Experiment:
    """Everything since the experiment began. `labels` are oldest first: a later label replaces an earlier one."""
    paired = kind == "shadow"
    variants = (("champion", champion), ("rival", rival))
    unusable = None
    with cursor(resources) as db:
        try:
            read_labels(db, labels, spec)
            sides = [_side(db, name, side, spec) for name, side in variants]
        except LabelsError as error:  # each file was good for itself, but they don't agree on what labels are called
            unusable = str(error)
            db.execute("DELETE FROM label")
            sides = [_side(db, name, side, spec) for name, side in variants]
        loss, errors = (_difference(db, measure, paired=paired) for measure in ("loss", "wrong"))
        distance, agreement = _predictions(db, spec, paired=paired)
    failures = _failures(champion.traffic, rival.traffic, spec)
    verdict, reason = judge(loss, failures, spec=spec)
    return Experiment(
        model=spec.model,
        kind=kind,
        since=since,
        until=until,
        champion=sides[0],
        rival=sides[1],
        loss_name=LOSSES[spec.task],
        loss=loss,
        errors=errors,
        failures=failures,
        psi=distance,
        agreement=agreement,
        complete=complete,
        unusable=unusable,
        verdict=verdict,
        reason=reason,
    )


def judge(loss: Difference | None, failures: Difference | None, *, spec: ModelSpec) -> tuple[Verdict, str]:
    """The stop rule, and why."""
    if failures and failures.worse:
        told = f"{failures.rival:.2%} of its requests fail, of the champion's {failures.champion:.2%}"
        return Verdict.ABANDON, f"{told}; surely {failures.low:.2%} more at least."
    rows, requests = (loss.rows, loss.requests) if loss else (0, 0)
    if loss is None or rows < spec.monitor.min_rows or requests < REQUESTS:
        told = f"{rows:,} labelled predictions in {requests:,} requests are too few to judge by"
        return Verdict.WAIT, f"{told}: {spec.monitor.min_rows:,} in {REQUESTS} are needed of each side."
    name = LOSSES[spec.task]
    told = f"its {name} is {loss.rival:.4g}, the champion's {loss.champion:.4g}"
    told += f"; the difference is between {loss.low:+.3g} and {loss.high:+.3g}"
    if loss.not_worse and failures and not failures.not_worse:
        return Verdict.WAIT, f"{told}, which is not worse; too few requests tell whether more of them fail."
    if loss.not_worse:
        return Verdict.PROMOTE, f"{told}, surely below {loss.margin:.3g}, which counts as not worse."
    if loss.worse:
        return Verdict.ABANDON, f"{told}, surely above nothing."
    return (
        Verdict.WAIT,
        f"{told}: neither surely below {loss.margin:.3g}, which counts as not worse, nor above nothing.",
    )


# --- from captured requests to differences


_LOSS = {
    Task.BINARY: "(score - truth::INTEGER) ** 2",
    # Where the answer has no probabilities, the label it names is taken as certain.
    Task.MULTICLASS: "CASE WHEN scores IS NULL THEN 2.0 * (prediction <> truth)::INTEGER ELSE "
    "list_sum(list_transform(scores, lambda s: (s.p - (s.label = truth)::INTEGER) ** 2)) "
    "+ (NOT list_contains(list_transform(scores, lambda s: s.label), truth))::INTEGER END",
    Task.REGRESSION: "(TRY_CAST(prediction AS DOUBLE) - truth) ** 2",
}
_WRONG = {
    Task.BINARY: "((score >= 0.5) <> truth)::INTEGER",
    Task.MULTICLASS: "(prediction <> truth)::INTEGER",
    Task.REGRESSION: "NULL::INTEGER",
}


def _side(db: duckdb.DuckDBPyConnection, name: str, side: Side, spec: ModelSpec) -> Variant:
    """Fill tables predicted_<name> and matched_<name> (each prediction that has a label, with loss and wrong)."""
    match(db, side.source, spec, name="labels")
    measured = score(db, spec.task)
    ((predictions,),) = db.execute("SELECT count(*) FROM predicted").fetchall()
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE matched_{name} AS "
        f"SELECT inference_id, row, {_LOSS[spec.task]} AS loss, {_WRONG[spec.task]} AS wrong FROM matched"
    )
    db.execute(f"CREATE OR REPLACE TEMP TABLE predicted_{name} AS FROM predicted")
    return Variant(
        package=side.package,
        predictions=predictions,
        labelled=measured.rows,
        metrics=measured.values,
        traffic=side.traffic,
    )


def _difference(db: duckdb.DuckDBPyConnection, measure: str, *, paired: bool) -> Difference | None:
    """Of the mean of a measure over labelled predictions. Shadows are asked what the champion is: pairs differ less."""
    champion, rival = (
        _mean(db, f"SELECT inference_id, {measure} AS x FROM matched_{n}") for n in ("champion", "rival")
    )
    if champion is None or rival is None:
        return None
    found: Estimate | None = rival - champion
    if paired:
        found = _mean(
            db,
            f"SELECT inference_id, r.{measure} - c.{measure} AS x "
            "FROM matched_rival r JOIN matched_champion c USING (inference_id, row)",
        )
    if found is None:
        return None
    return Difference.of(champion, rival, found, margin=MARGIN * champion.value, paired=paired)


def _mean(db: duckdb.DuckDBPyConnection, values: str) -> Estimate | None:
    """The mean of x over rows of (inference_id, x), and its variance; None where it has none.

    Rows of one request are not independent, requests are: the variance is that of a ratio of sums over requests
    (Cochran, Sampling Techniques, 1977, chapter 6).
    """
    ((rows, requests, mean, variance),) = db.execute(
        f"""WITH request AS (
            SELECT sum(x) AS total, count(x) AS n FROM ({values}) WHERE x IS NOT NULL GROUP BY inference_id
        ), overall AS (
            SELECT sum(total) / sum(n) AS mean, sum(n) AS n, count(*) AS requests FROM request
        )
        SELECT any_value(o.n)::BIGINT, any_value(o.requests), any_value(o.mean),
            sum((total - mean * request.n) ** 2) / any_value(o.n) ** 2
                * any_value(o.requests) / nullif(any_value(o.requests) - 1, 0)
        FROM request, overall o"""
    ).fetchall()
    if variance is None:
        return None
    return Estimate(value=mean, variance=variance, rows=rows, requests=requests, worth=requests)


def _failures(champion: Traffic, rival: Traffic, spec: ModelSpec) -> Difference | None:
    """Of the share of requests that were answered 5XX."""
    if not champion.requests or not rival.requests:
        return None
    ours, theirs = share(champion.failures, champion.requests), share(rival.failures, rival.requests)
    return Difference.of(ours, theirs, theirs - ours, margin=spec.serve.error_rate)


def _predictions(db: duckdb.DuckDBPyConnection, spec: ModelSpec, *, paired: bool) -> tuple[float | None, float | None]:
    """PSI of the rival's predictions from the champion's, and the share of pairs that are the same label."""
    kind: Kind = "category" if spec.task is Task.MULTICLASS else "number"
    value = "score" if spec.task is Task.BINARY else "prediction"
    cut: Cut | None = None
    described = []
    for name in ("champion", "rival"):
        described.append(column_of(db, f"SELECT {value} AS x FROM predicted_{name}", kind, cut))
        cut = described[0].cut
    distance = psi(described[0], described[1]) if all(column.rows for column in described) else None
    if not paired or spec.task is Task.REGRESSION:
        return distance, None
    label = "score >= 0.5" if spec.task is Task.BINARY else "prediction"
    ((agreement,),) = db.execute(
        f"SELECT avg((c.label = r.label)::INTEGER) FROM (SELECT inference_id, row, {label} AS label "
        f"FROM predicted_champion) c JOIN (SELECT inference_id, row, {label} AS label FROM predicted_rival) r "
        "USING (inference_id, row)"
    ).fetchall()
    return distance, agreement
