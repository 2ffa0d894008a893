"""The difference of two versions: what they were made of, by what, and what came of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from noria import drift
from noria.evaluation import Estimate
from noria.intervals import difference
from noria.names import version
from noria.record import Record
from noria.report.numbers import figure
from noria.spec import Metric

CERTAIN = 2.0
"""Standard errors beyond which a difference of two shares is more than chance: about 1 in 20 is."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Data(Part):
    """A dataset that one of the two was trained on, and the other was not."""

    sha256: str
    file: str
    rows: int


class Change(Part):
    """A parameter as it was for either; None where there was none."""

    name: str
    before: str | None
    after: str | None


class Measured(Part):
    """A metric of either on its own newer rows, and how much larger the second's is; None where nothing tells."""

    metric: Metric
    before: Estimate | None
    after: Estimate | None
    difference: Estimate | None
    same_rows: bool

    @property
    def beyond_chance(self) -> bool | None:
        if self.difference is None:
            return None
        return self.difference.low > 0 or self.difference.high < 0


class Weighed(Part):
    """A feature's share of what predictions rest on; None where it has none."""

    feature: str
    before: float | None
    after: float | None
    beyond_chance: bool | None


class Number(Part):
    name: str
    before: float | None
    after: float | None


class Difference(Part):
    """From version `before` to version `after`. `drift` is of the rows that they were trained on; else `no_drift`."""

    model: str
    before: str
    after: str
    added: tuple[Data, ...]
    removed: tuple[Data, ...]
    rows: Number
    drift: drift.Report | None
    no_drift: str | None
    code: Change
    parameters: tuple[Change, ...]
    metrics: tuple[Measured, ...]
    weights: tuple[Weighed, ...]
    numbers: tuple[Number, ...]
    unknown: tuple[str, ...]


def compare(before: Record, after: Record, *, found: drift.Report | None, no_drift: str | None) -> Difference:
    """A pure function. ValueError where they are versions of two models."""
    if before.model != after.model:
        raise ValueError(f"{before.model} and {after.model} are two models: compare versions of one")
    mine, theirs = _datasets(before), _datasets(after)
    return Difference(
        model=before.model,
        before=version(before.package.arn),
        after=version(after.package.arn),
        added=tuple(data for sha, data in theirs.items() if sha not in mine),
        removed=tuple(data for sha, data in mine.items() if sha not in theirs),
        rows=Number(name="rows trained on", before=_rows(before), after=_rows(after)),
        drift=found,
        no_drift=no_drift,
        code=Change(name="code", before=before.code, after=after.code),
        parameters=tuple(_changes(_parameters(before), _parameters(after))),
        metrics=tuple(_metrics(before, after)),
        weights=tuple(_weights(before, after)),
        numbers=tuple(_numbers(before, after)),
        unknown=tuple(
            f"{version(record.package.arn)}: {part}: {why}"
            for record in (before, after)
            for part, why in sorted(record.unknown.items())
        ),
    )


def _datasets(of: Record) -> dict[str, Data]:
    return {
        each.told.sha256: Data(
            sha256=each.told.sha256,
            file=each.manifest.filename if each.manifest else each.told.source_key or each.told.key,
            rows=each.told.rows,
        )
        for each in of.datasets
    }


def _rows(of: Record) -> int | None:
    return of.evaluation.trained_on.rows if of.evaluation else None


def _parameters(of: Record) -> dict[str, str]:
    """What the training was told and did, by name; of nested parts the path."""
    told: dict[str, str] = dict(_flat(of.spec.model_dump(mode="json"))) if of.spec else {}
    if of.training:
        made = of.training.model_dump(mode="json", include={"estimator", "iterations", "serves"})
        told |= {f"training.{name}": value for name, value in _flat(made)}
    if of.request:
        told["request.cause"] = of.request.cause.text
    if of.package.image:
        told["image of the server"] = of.package.image
    return told


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _flat(each, f"{path}.{name}" if path else str(name))
    elif value is not None and value != []:
        yield path, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield Change(name=name, before=before.get(name), after=after.get(name))


def _metrics(before: Record, after: Record) -> Iterator[Measured]:
    """Where one was measured beside the other, on the same rows, that counts; else both count as independent, which
    is careful: what the two sets of rows share makes the true difference surer than is said."""
    mine = before.evaluation.metrics if before.evaluation else {}
    theirs = after.evaluation.metrics if after.evaluation else {}
    rival = after.evaluation.champion if after.evaluation else None
    beside = rival if rival and rival.package == before.package.arn else None
    for metric in dict.fromkeys([*mine, *theirs]):
        one, other = mine.get(metric), theirs.get(metric)
        gap, same = None, False
        if beside and metric in beside.margins and other:
            one, gap, same = beside.metrics.get(metric, one), _larger(beside.margins[metric], metric), True
        elif one and other:
            gap = difference(other, one)
        yield Measured(metric=metric, before=one, after=other, difference=gap, same_rows=same)


def _larger(margin: Estimate, metric: Metric) -> Estimate:
    """A margin, above zero where it is better, as how much larger the value is."""
    if metric.higher_is_better:
        return margin
    return Estimate(value=-margin.value, low=-margin.high, high=-margin.low)


def _weights(before: Record, after: Record) -> Iterator[Weighed]:
    mine = before.attribution.weights if before.attribution else {}
    theirs = after.attribution.weights if after.attribution else {}

    def moved(feature: str) -> float:
        if feature not in mine or feature not in theirs:
            return 1.0
        return abs(theirs[feature].share - mine[feature].share)

    for feature in sorted({*mine, *theirs}, key=lambda name: (-moved(name), name)):
        one, other = mine.get(feature), theirs.get(feature)
        beyond = None
        if one and other:
            error = (one.share_error**2 + other.share_error**2) ** 0.5
            beyond = abs(other.share - one.share) > CERTAIN * error
        yield Weighed(
            feature=feature,
            before=one.share if one else None,
            after=other.share if other else None,
            beyond_chance=beyond,
        )


def _numbers(before: Record, after: Record) -> Iterator[Number]:
    def hours(of: Record) -> float | None:
        took = of.registered.details.get("hours") if of.registered else None
        return took if isinstance(took, int | float) else None

    def latency(of: Record) -> float | None:
        return of.evaluation.latency_p95_ms if of.evaluation else None

    def error(of: Record) -> float | None:
        return of.evaluation.calibration.error if of.evaluation and of.evaluation.calibration else None

    yield Number(name="latency p95, ms", before=latency(before), after=latency(after))
    yield Number(name="bundle, bytes", before=before.package.bytes, after=after.package.bytes)
    yield Number(name="training, instance-hours", before=hours(before), after=hours(after))
    yield Number(name="calibration error", before=error(before), after=error(after))


def text(of: Difference) -> str:
    """For people, in a terminal."""
    return "\n".join(_lines(of))


def _lines(of: Difference) -> Iterator[str]:
    yield f"{of.model}: from {of.before} to {of.after}"
    yield "\nData"
    for sign, data in (*(("+", d) for d in of.added), *(("−", d) for d in of.removed)):
        yield f"  {sign} {data.file}  {data.rows:,} rows  {data.sha256[:12]}"
    if not of.added and not of.removed:
        yield "  the same datasets"
    yield f"  {of.rows.name}: {_pair(of.rows)}"
    yield f"  drift: {of.drift.summary if of.drift else of.no_drift}"
    yield "\nCode"
    same = of.code.before == of.code.after
    yield f"  {'the same, ' if same else ''}{_short(of.code.before)}{'' if same else f' → {_short(of.code.after)}'}"
    yield "\nParameters"
    yield from _table([[c.name, c.before or "·", "→", c.after or "·"] for c in of.parameters], "  the same")
    yield "\nMetrics"
    rows = [
        [m.metric.value, _between(m.before), "→", _between(m.after), _between(m.difference, signed=True), _verdict(m)]
        for m in of.metrics
    ]
    yield from _table(rows, "  none is known")
    yield "\nWhat predictions rest on"
    moved = [w for w in of.weights if w.beyond_chance is not False]
    rows = [
        [w.feature, _share(w.before), "→", _share(w.after), "beyond chance" if w.beyond_chance else "only one has it"]
        for w in moved
    ]
    yield from _table(rows, "  no feature's share differs beyond chance" if of.weights else "  not known")
    yield "\nSize and speed"
    yield from _table([[n.name, _pair(n)] for n in of.numbers], "")
    if of.unknown:
        yield "\nNot known"
        yield from (f"  {each}" for each in of.unknown)


def _table(rows: list[list[str]], empty: str) -> Iterator[str]:
    if not rows:
        yield empty
        return
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _verdict(of: Measured) -> str:
    if of.difference is None or of.beyond_chance is None:
        return "only one has it"
    where = "on the same rows" if of.same_rows else "each on its own rows"
    if not of.beyond_chance:
        return f"chance explains it, {where}"
    better = (of.difference.value > 0) == of.metric.higher_is_better
    return f"{'better' if better else 'worse'} beyond chance, {where}"


def _between(of: Estimate | None, *, signed: bool = False) -> str:
    if of is None:
        return "·"
    sign = "+" if signed and of.value > 0 else ""
    return f"{sign}{figure(of.value)} ({figure(of.low)} to {figure(of.high)})"


def _share(value: float | None) -> str:
    return "·" if value is None else f"{100 * value:.1f}%"


def _pair(of: Number) -> str:
    one, other = (("·" if value is None else figure(value)) for value in (of.before, of.after))
    return one if one == other else f"{one} → {other}"


def _short(code: str | None) -> str:
    return code[:12] if code else "not known"
