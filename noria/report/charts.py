"""Charts as inline SVG: each has a title for screen readers, and colours and type from the page's style.

Two sets of rows are told apart by shape as well as by colour: the baseline is a wide, outlined bar, the window a narrow
solid one in front of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

from noria.evaluation import Estimate
from noria.report.html import Html, join, short, tag
from noria.report.numbers import figure, percent

_WIDTH = 320
_DOTS = 60
_BOTH = (("baseline", 0.86), ("window", 0.44))
"""The two sets of rows, and how much of a slot their bars take."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A pair of bars: shares of rows, from 0 to 1. `apart` sets them off from the others, with their label below."""

    label: str
    baseline: float
    window: float
    apart: bool = False


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where values fall: `left`, `right`, `top` and `base` in pixels; the base is `low`, the top is `high`."""

    left: float
    right: float
    top: float
    base: float
    low: float
    high: float

    def y(self, value: float) -> float:
        return self.base - (value - self.low) / (self.high - self.low) * (self.base - self.top)

    def x(self, part: float) -> float:
        """`part` runs from 0 to 1."""
        return self.left + part * (self.right - self.left)


def svg(title: str, *parts: str, width: float, height: float, class_: str = "chart") -> Html:
    return tag(
        "svg",
        tag("title", title),
        *parts,
        viewBox=f"0 0 {short(width)} {short(height)}",
        role="img",
        class_=class_,
    )


def overlay(slots: Sequence[Slot], ticks: Sequence[tuple[float, str]], *, title: str) -> Html:
    """Bars of the window before those of the baseline. `ticks`: places in slots, 0 being the left end, and texts."""
    height = 132
    highest = max((max(slot.baseline, slot.window) for slot in slots), default=0.0) or 1.0
    grid = _between(0.0, highest)
    frame = _Frame(left=40, right=_WIDTH - 1, top=6, base=height - 20, low=0, high=grid[-1])
    starts, slots_wide = _starts(slots)
    lines = [_gridline(frame, share, percent(share)) for share in grid]
    marks = [(place, label) for place, label in ticks]
    marks += [(start + 0.5, slot.label) for slot, start in zip(slots, starts, strict=True) if slot.apart]
    labels = [_below(frame.x(place / slots_wide), height - 6, label) for place, label in marks]
    return svg(title, *lines, *_bars(slots, frame), *labels, width=_WIDTH, height=height)


def mini(slots: Sequence[Slot], *, title: str) -> Html:
    """The same for a line of a table: shapes alone."""
    highest = max((max(slot.baseline, slot.window) for slot in slots), default=0.0) or 1.0
    frame = _Frame(left=0, right=132, top=2, base=29, low=0, high=highest)
    return svg(title, *_bars(slots, frame), width=132, height=30, class_="mini")


def pair(baseline: float | None, window: float, highest: float) -> Html:
    """One lying bar each, as long as the cell at `highest`; figures beside it say the same."""
    scale = 100 / (highest or 1.0)
    return tag(
        "svg",
        tag("rect", x=0, y=1, width=baseline * scale, height=12, class_="baseline") if baseline else None,
        tag("rect", x=0, y=4, width=window * scale, height=6, class_="window") if window else None,
        viewBox="0 0 100 14",
        preserveAspectRatio="none",
        class_="pair",
        aria_hidden="true",
    )


@dataclass(frozen=True, kw_only=True)
class Line:
    """Values over time, oldest first, each with what it is called; None where nothing was measured."""

    values: Sequence[float | None]
    labels: Sequence[str]
    limit: float | None
    breaches: str = "above"

    def beyond(self, value: float) -> bool:
        if self.limit is None:
            return False
        return value > self.limit if self.breaches == "above" else value < self.limit


def trend(line: Line, *, title: str) -> Html:
    """A line with its limit dashed; what is beyond it is a larger, square mark. Many points are no dots."""
    height = 120
    known = [value for value in line.values if value is not None]
    bounds = [*known, *([line.limit] if line.limit is not None else [])]
    grid = _between(min(0.0, *bounds), max(bounds))
    frame = _Frame(left=44, right=_WIDTH - 8, top=10, base=height - 22, low=grid[0], high=grid[-1])
    places = _places(line, frame)
    return svg(
        title,
        *(_gridline(frame, value, figure(value)) for value in grid),
        *_limit(line, frame),
        tag("path", d=_path([(x, y) for x, y, _ in places]), class_="line"),
        *_marks(line, [p for p in places if len(places) <= _DOTS or p is places[-1] or line.beyond(p[2])]),
        tag("text", line.labels[0], x=frame.left, y=height - 6),
        tag("text", line.labels[-1], x=frame.right + 7, y=height - 6, text_anchor="end"),
        width=_WIDTH,
        height=height,
    )


def spark(line: Line, *, title: str) -> Html:
    """The same for a line of a table: its shape, its limit, and where it ends."""
    bounds = [value for value in (*line.values, line.limit) if value is not None]
    low, high = min(bounds), max(bounds)
    frame = _Frame(left=2, right=116, top=4, base=26, low=low, high=high if high > low else low + 1)
    places = _places(line, frame)
    return svg(
        title,
        *_limit(line, frame),
        tag("path", d=_path([(x, y) for x, y, _ in places]), class_="line"),
        *_marks(line, places[-1:]),
        width=120,
        height=30,
        class_="mini",
    )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the left and the right end of a chart stand for."""

    low: float
    high: float


def around(estimates: Sequence[Estimate]) -> Scale:
    """A scale that all intervals fit on."""
    low = min((estimate.low for estimate in estimates), default=0.0)
    high = max((estimate.high for estimate in estimates), default=1.0)
    margin = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
    return Scale(low=low - margin, high=high + margin)


def interval(estimate: Estimate, reference: float | None, scale: Scale, *, title: str) -> Html:
    """A value with its interval; the reference as an upright line."""

    def x(of: float) -> float:
        return (of - scale.low) / (scale.high - scale.low) * 200

    upright = reference is not None and tag("line", x1=x(reference), x2=x(reference), y1=2, y2=24, class_="reference")
    return svg(
        title,
        upright or "",
        tag("line", x1=x(estimate.low), x2=x(estimate.high), y1=13, y2=13, class_="whisker"),
        tag("circle", cx=x(estimate.value), cy=13, r=5, class_="dot"),
        width=200,
        height=26,
        class_="interval",
    )


@dataclass(frozen=True, kw_only=True)
class Reach:
    """From where to where values go, and their mean."""

    low: float
    mean: float
    high: float


def reaches(baseline: Reach, window: Reach, *, title: str) -> Html:
    """Both on one true scale: where the bars above, each as wide as the next, do not show how far apart values are."""
    low, high = min(baseline.low, window.low), max(baseline.high, window.high)
    frame = _Frame(left=40, right=_WIDTH - 1, top=0, base=1, low=0, high=1)

    def x(value: float) -> float:
        return frame.x((value - low) / (high - low) if high > low else 0.5)

    lines = [
        join(
            tag("line", x1=x(reach.low), x2=x(reach.high), y1=y, y2=y, class_=f"{side} reach"),
            tag("circle", cx=x(reach.mean), cy=y, r=4, class_=side),
        )
        for side, reach, y in (("baseline", baseline, 6), ("window", window, 18))
    ]
    return svg(title, *lines, width=_WIDTH, height=24)


def diagonal(points: Sequence[tuple[float, float, float]], *, title: str, across: str, up: str) -> Html:
    """Shares that happened against probabilities that were said, both from 0 to 1; the third number is a share of rows,
    as the area of the dot. On the dashed diagonal both agree."""
    size, left, bottom = 300, 40, 36
    frame = _Frame(left=left, right=size - 12, top=12, base=size - bottom, low=0, high=1)
    grid = [
        join(
            _gridline(frame, value, figure(value)),
            tag("line", x1=frame.x(value), x2=frame.x(value), y1=frame.top, y2=frame.base, class_="grid"),
            tag("text", figure(value), x=frame.x(value), y=frame.base + 14, text_anchor="middle"),
        )
        for value in (0, 0.25, 0.5, 0.75, 1)
    ]
    places = [(frame.x(said), frame.y(happened)) for said, happened, _ in points]
    dots = [
        tag(
            "circle",
            tag("title", f"said {percent(said)}, happened {percent(happened)}, {percent(share)} of rows"),
            cx=x,
            cy=y,
            r=3 + 14 * share**0.5,
            class_="bubble",
        )
        for (x, y), (said, happened, share) in zip(places, points, strict=True)
    ]
    middle = (frame.top + frame.base) / 2
    return svg(
        title,
        *grid,
        tag("line", x1=frame.x(0), x2=frame.x(1), y1=frame.y(0), y2=frame.y(1), class_="limit"),
        tag("path", d=_path(places), class_="line"),
        *dots,
        tag("text", across, x=frame.x(0.5), y=size - 6, text_anchor="middle"),
        tag("text", up, x=0, y=0, text_anchor="middle", transform=f"translate(10 {short(middle)}) rotate(-90)"),
        width=size,
        height=size,
        class_="chart square",
    )


# --- parts


def _bars(slots: Sequence[Slot], frame: _Frame) -> list[Html]:
    """Each side as one path, which is a third of the bytes of a rectangle for each bar."""
    starts, slots_wide = _starts(slots)
    across = (frame.right - frame.left) / slots_wide
    paths = []
    for side, wide in _BOTH:
        shares = [(start, getattr(slot, side)) for slot, start in zip(slots, starts, strict=True)]
        drawn = "".join(
            f"M{short(frame.left + (start + (1 - wide) / 2) * across)} {short(frame.base)}"
            f"V{short(min(frame.y(share), frame.base - 1))}h{short(wide * across)}V{short(frame.base)}z"
            for start, share in shares
            if share > 0
        )
        paths.append(tag("path", d=drawn, class_=side))
    return paths


def _starts(slots: Sequence[Slot]) -> tuple[list[float], float]:
    """Where each slot begins, and where the last ends; one that is apart has a gap before it."""
    starts, at = [], 0.0
    for slot in slots:
        at += 0.6 if slot.apart else 0.0
        starts.append(at)
        at += 1.0
    return starts, max(at, 1.0)


def _gridline(frame: _Frame, value: float, label: str) -> Html:
    y = frame.y(value)
    return join(
        tag("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="grid"),
        tag("text", label, x=frame.left - 5, y=y + 3.5, text_anchor="end"),
    )


def _below(x: float, y: float, label: str) -> Html:
    """A text in the middle under `x`; at the right end it ends there, or it would be cut."""
    near_end = x + 3 * len(label) > _WIDTH
    return tag("text", label, x=_WIDTH if near_end else x, y=y, text_anchor="end" if near_end else "middle")


def _limit(line: Line, frame: _Frame) -> list[Html]:
    if line.limit is None:
        return []
    y = frame.y(line.limit)
    return [tag("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="limit")]


def _places(line: Line, frame: _Frame) -> list[tuple[float, float, float]]:
    """x, y and value of what was measured."""
    last = max(len(line.values) - 1, 1)
    return [
        (frame.x(index / last), frame.y(value), value) for index, value in enumerate(line.values) if value is not None
    ]


def _marks(line: Line, places: Sequence[tuple[float, float, float]]) -> list[Html]:
    """Dots, and squares of what is beyond the limit: a path each. A dot is a line of no length with round ends."""
    dots = "".join(f"M{short(x)} {short(y)}h0" for x, y, value in places if not line.beyond(value))
    squares = "".join(f"M{short(x - 4)} {short(y - 4)}h8v8h-8z" for x, y, value in places if line.beyond(value))
    return [tag("path", d=d, class_=kind) for kind, d in (("dots", dots), ("beyond", squares)) if d]


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{short(x)} {short(y)}" for x, y in places) if places else ""


def _step(spread: float, pieces: int) -> float:
    """1, 2, 2.5 or 5 times a power of ten, so that `spread` has at most about so many of it."""
    rough = spread / pieces
    power = 10.0 ** floor(log10(rough))
    return next(step for times in (1, 2, 2.5, 5, 10) if (step := times * power) >= rough * 0.999)


def _between(low: float, high: float) -> list[float]:
    """Round values around all there is."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = (low, low + 1) if not low else (low - abs(low) * 0.1, high + abs(high) * 0.1)
    step = _step(high - low, 3)
    first, last = floor(low / step + 1e-9), -floor(-high / step + 1e-9)
    return [step * i for i in range(first, last + 1)]
