"""A column of the baseline beside the same of the window. Values of sensitive ones were masked (noria.masking)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from noria.drift import Drift
from noria.profile import ColumnProfile
from noria.report import charts
from noria.report.charts import Reach, Slot
from noria.report.html import Html, join, tag
from noria.report.numbers import distance, figure, percent
from noria.report.page import Column, badge, facts, name, names, shortened, table
from noria.units import count

_CATEGORIES, _COMPARED = 9, 20
_NEW = 5
_TICKS = 5


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One column on both sides, at the same edges. `drift` is None where nothing was compared."""

    name: str
    baseline: ColumnProfile
    window: ColumnProfile
    drift: Drift | None
    sensitive: bool

    @property
    def psi(self) -> float:
        return self.drift.psi if self.drift else 0.0

    @property
    def drifted(self) -> bool:
        return self.drift is not None and self.drift.drifted


def mini(pair: Pair) -> Html:
    return charts.mini(_slots(pair, most=_COMPARED), title=_title(pair))


def card(pair: Pair, title: Html) -> Html:
    """The column's distributions, one over the other, and what sums them up."""
    drawn = _numbers(pair) if pair.baseline.kind == "number" else _categories(pair)
    value = tag("span", tag("small", "PSI "), distance(pair.psi), class_="value") if pair.drift else None
    return tag(
        "article",
        tag("header", tag("h3", title), value),
        drawn,
        facts(*_facts(pair)),
        class_="card breach" if pair.drifted else "card",
    )


def _title(pair: Pair) -> str:
    """What the chart shows, in words."""
    far = _furthest(pair)
    return (
        f"Shares of rows in training and in the window, furthest apart at {shortened(far.label)}: "
        f"{percent(far.baseline)} and {percent(far.window)}"
    )


def _furthest(pair: Pair) -> Slot:
    """Where the two sides are furthest apart."""
    nowhere = Slot(label="no value", baseline=0, window=0)
    slots = _slots(pair)
    if pair.sensitive and pair.baseline.kind == "number":
        slots = [slot if slot.apart else replace(slot, label=f"bin {place}") for place, slot in enumerate(slots, 1)]
    return max(slots, key=lambda slot: abs(slot.window - slot.baseline), default=nowhere)


def _numbers(pair: Pair) -> Html:
    slots = _slots(pair)
    ticks = [] if pair.sensitive else _ticks(pair, slots)
    return join(charts.overlay(slots, ticks, title=_title(pair)), None if pair.sensitive else _reaches(pair))


def _reaches(pair: Pair) -> Html | None:
    before, after = _reach(pair.baseline), _reach(pair.window)
    if before is None or after is None:
        return None
    title = f"From least to most, and the mean: training {_reach_text(before)}, window {_reach_text(after)}"
    return charts.reaches(before, after, title=title)


def _reach(column: ColumnProfile) -> Reach | None:
    if column.min is None or column.max is None or column.mean is None:
        return None
    return Reach(low=column.min, mean=column.mean, high=column.max)


def _reach_text(reach: Reach) -> str:
    return f"{figure(reach.low)} to {figure(reach.high)}, mean {figure(reach.mean)}"


def _categories(pair: Pair) -> Html:
    slots = _slots(pair)
    highest = max((max(slot.baseline, slot.window) for slot in slots), default=1.0)
    rows = [
        [
            join(slot.label if slot.apart else name(slot.label), _fate(slot)),
            charts.pair(slot.baseline, slot.window, highest),
            percent(slot.baseline),
            percent(slot.window),
        ]
        for slot in slots
    ]
    columns = [Column("category"), Column("share"), Column("training", figures=True), Column("window", figures=True)]
    return table(_title(pair), columns, rows, class_="bars")


def _fate(slot: Slot) -> Html | None:
    if bool(slot.baseline) == bool(slot.window):
        return None
    return join(" ", badge("gone" if slot.baseline else "new"))


def _facts(pair: Pair) -> list[tuple[str, str]]:
    before, after = pair.baseline, pair.window
    far = _furthest(pair)
    change = _change(percent(far.baseline), percent(far.window))
    found: list[tuple[str, str]] = [("furthest apart", join(name(far.label), ": ", change))]
    if not pair.sensitive and before.kind == "number":
        found.append(("mean", _change(figure(before.mean), figure(after.mean))))
        if before.min is not None and after.min is not None:
            range_ = (f"{figure(side.min)} to {figure(side.max)}" for side in (before, after))
            found.append(("range", _change(*range_)))
    if before.distinct is not None and after.distinct is not None and before.distinct != after.distinct:
        found.append(("different values, about", _change(f"{before.distinct:,}", f"{after.distinct:,}")))
    if before.missing or after.missing:
        found.append(("missing", _change(*(percent(_share(side.missing, side.rows)) for side in (before, after)))))
    if pair.drift:
        for term, changed in (("new", pair.drift.new_categories), ("gone", pair.drift.vanished_categories)):
            if changed:
                found.append((term, str(len(changed)) if pair.sensitive else names(changed, most=_NEW)))
    if pair.sensitive:
        found.append(("values", "not shown: sensitive"))
    return found


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _share(part: int, of: int) -> float:
    return part / of if of else 0.0


# --- bars


def _slots(pair: Pair, *, most: int = _CATEGORIES) -> list[Slot]:
    slots = _bins(pair) if pair.baseline.kind == "number" else _named(pair, most)
    if pair.baseline.missing or pair.window.missing:
        slots.append(_slot("missing", pair.baseline.missing, pair.window.missing, pair, apart=True))
    return slots


def _slot(label: str, baseline: int, window: int, pair: Pair, *, apart: bool = False) -> Slot:
    shares = _share(baseline, pair.baseline.rows), _share(window, pair.window.rows)
    return Slot(label=label, baseline=shares[0], window=shares[1], apart=apart)


def _bins(pair: Pair) -> list[Slot]:
    before, after = pair.baseline, pair.window
    edges = distinct(before.edges)
    if not edges:
        labels = ["any value"]
    elif _valued(before):
        labels = ["less", *edges[1:], "more"]
    else:
        labels = [f"up to {edges[0]}", *(f"{a} to {b}" for a, b in pairwise(edges)), f"above {edges[-1]}"]
    slots = [_slot(label, b, w, pair) for label, b, w in zip(labels, before.counts, after.counts, strict=True)]
    return slots[_seen(pair)]


def _seen(pair: Pair) -> slice:
    """From the first to the last bin in which either side has something."""
    sums = [b + w for b, w in zip(pair.baseline.counts, pair.window.counts, strict=True)]
    places = [place for place, both in enumerate(sums) if both]
    return slice(places[0], places[-1] + 1) if places else slice(0, len(sums))


def _valued(column: ColumnProfile) -> bool:
    """Whether each bin holds one value, as noria.profile cuts columns of few values: one edge lies below them all."""
    return len(column.edges) > 1 and not column.counts[0] and column.min == column.edges[1]


def _ticks(pair: Pair, slots: Sequence[Slot]) -> list[tuple[float, str]]:
    """Where to write what: edges between bins, or values below their bars; as many as have room."""
    counted = [slot for slot in slots if not slot.apart]
    if _valued(pair.baseline):
        return _some([(place + 0.5, slot.label) for place, slot in enumerate(counted)])
    first = _seen(pair).start
    edges = [(place + 1.0 - first, label) for place, label in enumerate(distinct(pair.baseline.edges))]
    return _some([(place, label) for place, label in edges if 0 <= place <= len(counted)])


def _some(marks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    return marks[:: max(1, -(-len(marks) // _TICKS))]


def distinct(values: Sequence[float]) -> list[str]:
    """Each value in as few digits as tell it from the others.

    >>> distinct([0.1, 40.97, 40.98])
    ['0.1', '40.97', '40.98']
    """
    for digits in range(3, 17):
        texts = [f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}" for value in values]
        if len({*texts}) == len({*values}):
            break
    return [text.replace("-", "−") for text in texts] if values else []


def _named(pair: Pair, most: int) -> list[Slot]:
    """Categories, the most frequent first; what has no room, or no name at the edges, is one bar."""
    before, after = pair.baseline, pair.window
    shares = [_slot(label, count, after.categories[label], pair) for label, count in before.categories.items()]
    shares.sort(key=lambda slot: (-max(slot.baseline, slot.window), slot.label))
    kept = shares[:most]
    rest = shares[most:]
    if rest:
        sums = sum(slot.baseline for slot in rest), sum(slot.window for slot in rest)
        kept.append(Slot(label=count(len(rest), "other"), baseline=sums[0], window=sums[1], apart=True))
    if before.other or after.other:
        # Where training itself had more names than are counted one by one, these need not be new.
        label = "all others" if before.other else "unknown in training"
        kept.append(_slot(label, before.other, after.other, pair, apart=True))
    return kept
