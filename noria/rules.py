"""The spec's rules about single rows, as SQL: asked first whether anything breaks one, which costs next to nothing,
and only then how often, where and how.

They speak of a relation with columns named by place, so that a file may call its columns anything: `r0` … `rn` are the
features as they came, NULL where missing, `f0` … `fn` the same in their types, NULL where they are not of them; `at` is
the event time, `event_raw` as it came; `y` is the outcome, as it came.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from noria.spec import Feature, FeatureType, ModelSpec, Severity, Task
from noria.sql import label, literal, number, timestamp
from noria.violations import LONGEST_SAMPLE, MASK, shortened

LARGEST = 2.0**53
"""Whole numbers beyond this are not exact in a double, which is what models calculate with."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a value begins that a spreadsheet would run: https://owasp.org/www-community/attacks/CSV_Injection"""

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Rows for which `broken` holds break the rule; where the aggregate `suspect` is not true, there are none."""

    column: str
    rule: str
    severity: Severity
    broken: str
    suspect: str
    raw: str
    remedy: str
    sensitive: bool = False

    @property
    def sample(self) -> str:
        """SQL: what a row holds, for people."""
        return literal(MASK) if self.sensitive else f"left(CAST({self.raw} AS VARCHAR), {LONGEST_SAMPLE})"


def of_features(spec: ModelSpec, present: Iterable[str]) -> Iterator[Rule]:
    """Types, ranges and categories of those features."""
    known = {*present}
    for place, (name, feature) in enumerate(spec.features.items()):
        if name in known:
            yield from (
                _category(spec, name, feature, place)
                if feature.type is FeatureType.CATEGORY
                else _number(spec, name, feature, place)
            )


def of_time(spec: ModelSpec, now: datetime) -> Iterator[Rule]:
    earliest, latest = spec.contract.earliest, now + spec.contract.ahead
    for rule, broken, suspect, remedy in (
        ("time", "event IS NULL", "count(event) < count(*)", "write ISO 8601 times, as in 2013-01-31T17:00:00"),
        (
            "early",
            f"event < {timestamp(earliest)}",
            f"min(event) < {timestamp(earliest)}",
            f"nothing happened before {earliest:%Y-%m-%d}; correct the clock or the unit, or contract.earliest",
        ),
        (
            "future",
            f"event > {timestamp(latest)}",
            f"max(event) > {timestamp(latest)}",
            "an event cannot be in the future; correct the clock or the time zone (times are UTC)",
        ),
    ):
        yield Rule(
            column=spec.time,
            rule=rule,
            severity=spec.severity(rule),
            broken=broken,
            suspect=suspect,
            raw="event_raw",
            remedy=remedy,
        )


def of_target(spec: ModelSpec) -> Iterator[Rule]:
    wanted = " (a number)" if spec.task is Task.REGRESSION else ""
    broken = f"{outcome(spec)} IS NULL"
    # What is blank sorts before anything else, and reading every label would be slow.
    blank = "count(y) < count(*) OR left(min(y), 1) <= ' '"
    yield Rule(
        column=spec.target,
        rule="target",
        severity="reject",
        broken=broken,
        suspect=f"count_if({broken}) > 0" if spec.task is Task.REGRESSION else blank,
        raw="y",
        remedy=f"every row needs its outcome{wanted}; leave out rows whose outcome is not known yet",
    )


def outcome(spec: ModelSpec) -> str:
    """SQL: a finite number or a class label, as training reads it; NULL for what is neither."""
    if spec.task is not Task.REGRESSION:
        return label("y")
    return "CASE WHEN isfinite(try_cast(y AS DOUBLE)) THEN try_cast(y AS DOUBLE) END"


def _number(spec: ModelSpec, name: str, feature: Feature, place: int) -> Iterator[Rule]:
    raw, value = f"r{place}", f"f{place}"
    wrong, suspect = f"({raw} IS NOT NULL AND {value} IS NULL)", f"count({raw}) > count({value})"
    what = "a number"
    if feature.type is FeatureType.INTEGER:
        what, largest = "a whole number", number(LARGEST)
        wrong += f" OR {value} <> floor({value}) OR abs({value}) > {largest}"
        suspect += (
            f" OR count_if({value} <> floor({value})) > 0 OR max({value}) > {largest} OR min({value}) < -{largest}"
        )
    told: list[tuple[str, str, str, str]] = [("type", wrong, suspect, f"it must be {what}, or empty")]
    for bound, operator, extreme, words in (
        (feature.min, "<", "min", "at least"),
        (feature.max, ">", "max", "at most"),
    ):
        if bound is not None:
            limit = number(bound)
            remedy = f"it must be {words} {bound:g}; correct the rows, or the spec"
            told.append(("range", f"{value} {operator} {limit}", f"{extreme}({value}) {operator} {limit}", remedy))
    for rule, broken, suspected, remedy in told:
        yield Rule(
            column=name,
            rule=rule,
            severity=spec.severity(rule, name),
            broken=broken,
            suspect=suspected,
            raw=raw,
            remedy=remedy,
            sensitive=feature.sensitive,
        )


def _category(spec: ModelSpec, name: str, feature: Feature, place: int) -> Iterator[Rule]:
    raw = f"r{place}"
    told: list[tuple[str, str, str, str]] = []
    unlisted = f"{raw} IS NOT NULL"
    if feature.values:
        # Looking a name up in an enumeration is a hundred times as fast as comparing it with each of a hundred.
        listed = ", ".join(literal(value) for value in dict.fromkeys(feature.values))
        unlisted += f" AND TRY_CAST({raw} AS ENUM({listed})) IS NULL"
    if feature.values is not None:
        shown = ", ".join(map(shortened, feature.values[:_SHOWN])) + (" …" if len(feature.values) > _SHOWN else "")
        allowed = "allowed are those of the spec" if feature.sensitive else f"allowed are {shown or 'none'}"
        told.append(("category", unlisted, unlisted, f"{allowed}; correct the rows, or add the value to the spec"))
    begins = ", ".join(map(literal, _FORMULA))
    # The first comparison alone settles nearly every row: all of these sort before the letters. The casts are left to
    # the second look: DuckDB would make them of every row, whatever the comparisons say.
    begun = f"{raw} < 'A' AND left({raw}, 1) IN ({begins})"
    formula = f"{begun} AND TRY_CAST({raw} AS DOUBLE) IS NULL AND {unlisted}"
    told.append(("formula", formula, begun, "a spreadsheet would run it as a formula; remove what it begins with"))
    for rule, broken, suspected, remedy in told:
        yield Rule(
            column=name,
            rule=rule,
            severity=spec.severity(rule, name),
            broken=broken,
            suspect=f"count_if({suspected}) > 0",
            raw=raw,
            remedy=remedy,
            sensitive=feature.sensitive,
        )
