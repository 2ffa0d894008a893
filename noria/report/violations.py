"""What breaks the data contract, in a file or in requests."""

from collections.abc import Sequence

from noria.report.html import Html, join, tag
from noria.report.numbers import percent
from noria.report.page import Column, aside, badge, name, names, shortened, table
from noria.units import count
from noria.violations import FIRST, Violation

_SHOWN = 50
_LONGEST = 200


def listed(caption: str, found: Sequence[Violation], *, rows: int | None = None) -> Html:
    """A table of violations, those that refuse before those that warn, the most frequent first. `rows`: of which each
    is a share."""
    ordered = sorted(found, key=lambda v: (v.severity != "reject", -v.count, v.column or "", v.rule))
    left_out = len(ordered) - _SHOWN
    head = [Column("column"), Column("rule"), Column("severity", tight=True), Column("count", figures=True)]
    head += [Column("share", figures=True)] if rows else []
    head += [Column("what is wrong", words=True), Column("values", words=True)]
    return join(
        table(caption, head, [_row(violation, rows) for violation in ordered[:_SHOWN]]),
        aside(f"{count(left_out, 'rarer violation')} not listed.") if left_out > 0 else None,
    )


def _row(violation: Violation, rows: int | None) -> list[str | None]:
    reject = violation.severity == "reject"
    return [
        name(violation.column) if violation.column else "the whole",
        violation.rule,
        badge("reject", symbol="▲", kind="breach") if reject else badge("warn"),
        f"{violation.count:,}",
        *([percent(violation.count / rows)] if rows else []),
        join(shortened(violation.message, _LONGEST), _where(violation)),
        names(violation.samples, most=FIRST) or None,
    ]


def _where(violation: Violation) -> Html | None:
    for noun, places in (("row", violation.rows), ("line", violation.lines)):
        if places:
            first = ", ".join(f"{place:,}" for place in places)
            return tag("small", f"{noun}s {first} …" if violation.count > len(places) else f"{noun}s {first}")
    return None
