"""How unequally a model treats the values of a segment.

| measure           | of                                                         | equal |
|-------------------|------------------------------------------------------------|-------|
| disparate impact  | selection rates: the smallest over the largest             | 1     |
| equal opportunity | true positive rates: the largest less the smallest         | 0     |
| equalized odds    | the larger of that and of the same of false positive rates | 0     |

Definitions are fairlearn's (`demographic_parity_ratio`, `equal_opportunity_difference`,
`equalized_odds_difference`). Selection needs no labels, so disparate impact is known of every window.

The smallest and the largest of several rates are apart by chance alone, the more so the more values there are and the
fewer rows each has. So every measure has a 95 % interval that holds for all pairs of values at once (Bonferroni). A
monitor, which looks again and again, reads the end nearest to equality of an interval that is as sure as those of the
other monitors (`noria.intervals.SURE`). Rows are taken for independent.
"""
# ruff: noqa: S608 -- SQL is built from names of our own

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Protocol

import duckdb

from noria.evaluation import SEGMENT_ROWS, SEGMENT_VALUES, Estimate, Fairness, Rates
from noria.intervals import SURE, difference, ratio, wilson
from noria.monitors import Monitor, Reading, Unknown

LEFT_OUT = 20
"""Values with too few rows that are named."""


class Selected(Protocol):
    """Rows that share one value of a segment, and how many of them are predicted positive, where that is known."""

    @property
    def rows(self) -> int: ...
    @property
    def selected(self) -> int | None: ...


def by_selection(counts: Mapping[str, Selected]) -> Fairness:
    """Of predictions alone, as profiles count them."""
    return measure({v: Rates(rows=c.rows, selected=c.selected) for v, c in counts.items() if c.selected is not None})


def by_labels(db: duckdb.DuckDBPyConnection, segment: str) -> Fairness:
    """Of all rows of table `matched` (noria.quality), `segment` being a column of it."""
    counted = db.execute(
        f"SELECT {segment}, count(*), count_if(score >= 0.5), count_if(truth), count_if(truth AND score >= 0.5) "
        f"FROM matched WHERE {segment} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {SEGMENT_VALUES + LEFT_OUT}"
    ).fetchall()
    return measure(
        {
            str(value): Rates(rows=rows, selected=selected, positives=positives, true_positives=hits)
            for value, rows, selected, positives, hits in counted
        }
    )


def measure(rates: Mapping[str, Rates], *, confidence: float = 0.95) -> Fairness:
    """The measures over the most frequent values that have rows enough; None of fewer than two such rates."""
    frequent = sorted(rates, key=lambda value: (-rates[value].rows, value))
    judged = [value for value in frequent if rates[value].rows >= SEGMENT_ROWS][:SEGMENT_VALUES]
    selection, hits, false_alarms = (
        [counts for value in judged if (counts := count(rates[value])) and counts[1]]
        for count in (_selection, _hits, _false_alarms)
    )
    return Fairness(
        values={value: rates[value] for value in sorted(judged)},
        left_out={value: rates[value].rows for value in [v for v in frequent if v not in judged][:LEFT_OUT]},
        disparate_impact=_smallest_ratio(selection, confidence),
        equal_opportunity=_largest_difference(hits, confidence=confidence),
        equalized_odds=_largest_difference(hits, false_alarms, confidence=confidence)
        if len(false_alarms) > 1
        else None,
    )


# --- rates, as counts: how many of how many

Share = tuple[int, int]


def _selection(rates: Rates) -> Share | None:
    return rates.selected, rates.rows


def _hits(rates: Rates) -> Share | None:
    if rates.true_positives is None or rates.positives is None:
        return None
    return rates.true_positives, rates.positives


def _false_alarms(rates: Rates) -> Share | None:
    if rates.true_positives is None or rates.positives is None:
        return None
    return rates.selected - rates.true_positives, rates.rows - rates.positives


def _estimates(shares: Sequence[Share], comparisons: int, confidence: float) -> list[Estimate]:
    """With intervals so wide that all of so many comparisons hold at once."""
    return [wilson(n / of, of, confidence=1 - (1 - confidence) / comparisons) for n, of in shares]


def _smallest_ratio(shares: Sequence[Share], confidence: float) -> Estimate | None:
    if len(shares) < 2 or not any(n for n, _ in shares):
        return None
    estimates = _estimates(shares, math.comb(len(shares), 2), confidence)
    ratios = [ratio(one, other) for one, other in permutations(estimates, 2) if other.value > 0]
    return Estimate(
        value=min(r.value for r in ratios), low=min(r.low for r in ratios), high=min(1.0, *(r.high for r in ratios))
    )


def _largest_difference(*kinds: Sequence[Share], confidence: float) -> Estimate | None:
    if any(len(shares) < 2 for shares in kinds):
        return None
    comparisons = sum(math.comb(len(shares), 2) for shares in kinds)
    differences = [
        difference(one, other)
        for shares in kinds
        for one, other in permutations(_estimates(shares, comparisons, confidence), 2)
    ]
    return Estimate(
        value=max(d.value for d in differences),
        low=max(0.0, *(d.low for d in differences)),
        high=max(d.high for d in differences),
    )


# --- what a monitor reads


def reading(monitor: Monitor, found: Fairness | None) -> Reading | Unknown:
    """Of a bias monitor: what is sure, beyond the 95 % that are shown. `found` is of the monitor's segment."""
    name = _MEASURES[monitor.metric]
    estimate: Estimate | None = getattr(found, name) if found else None
    if found is None or estimate is None:
        return Unknown(reason=_lacking(monitor, found))
    sure: Estimate = getattr(measure(found.values, confidence=SURE), name)
    value, most = (sure.high, "at most") if monitor.breaches == "below" else (sure.low, "at least")
    told = f"{monitor.title}: {estimate.value:.3g}, surely {most} {value:.3g}"
    return Reading(value, f"{told}, over {len(found.values)} values.", low=estimate.low, high=estimate.high)


def _lacking(monitor: Monitor, found: Fairness | None) -> str:
    if found is None or len(found.values) < 2:
        known = len(found.values) if found else 0
        return f"{known} values of {monitor.segment} have {SEGMENT_ROWS} rows or more, and two are needed to compare"
    return f"fewer than two values of {monitor.segment} have rows that {monitor.title.split(': ')[-1]} is a share of"


_MEASURES = {
    "DisparateImpact": "disparate_impact",
    "EqualOpportunityDifference": "equal_opportunity",
    "EqualizedOddsDifference": "equalized_odds",
}
"""By a monitor's metric."""
