"""How far a window is from the baseline: pure functions of two profiles.

PSI and Jensen-Shannon see a column as counts per bin, with missing values as a bin of their own: a feature that stops
arriving has changed. The other statistics are about the values that are there. Bins that are empty on both sides say
nothing and are left out.

A column has drifted when the change matters, its PSI is above the limit, and is none of chance, the probability of the
chi-squared test is below what a run may get wrong: docs/decisions/0015-drift-is-large-and-not-by-chance.md.
"""

from collections.abc import Iterable
from itertools import accumulate, pairwise
from math import erfc, exp, lgamma, log, log2, sqrt
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from noria.profile import ColumnProfile, Profile
from noria.spec import ModelSpec
from noria.violations import MASK

_CATEGORY_BINS = 20
_RUN_ODDS = 1 / 2000
"""How often chance may let any column of a run look changed, whatever its PSI."""
_EXPECTED = 5
"""Rows that a bin is expected to hold for Pearson's test (Cochran, Biometrics 10(4), 1954)."""
_VANISHED_ODDS = 1 / 1000
_CUT_ELSEWHERE = "columns cut at different edges cannot be compared: profile the window on the baseline's edges"


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Drift(Part):
    """One column of the window against the baseline. `missing_*` are shares of rows, from 0 to 1.

    `p_value` is the probability that chance alone makes two samples of one distribution differ as much (`chi2`). `ks`
    and `wasserstein` are those of numbers, the latter in the column's unit.
    """

    psi: float
    js: float
    chi2: float
    p_value: float
    ks: float | None = None
    wasserstein: float | None = None
    missing_baseline: float
    missing_window: float
    missing_change: float
    new_categories: tuple[str, ...] = ()
    vanished_categories: tuple[str, ...] = ()
    drifted: bool


class Report(Part):
    """A monitored window; `drifted` names features, most drifted first.

    When there are not enough rows to say anything, `features` and `drifted` are empty, `prediction` and `max_psi` None.
    `uncompared` names features that only the spec or only the baseline has, or that changed their type between them.
    """

    model: str
    enough: bool
    rows: int
    baseline_rows: int
    malformed: int
    threshold: float
    features: dict[str, Drift]
    prediction: Drift | None
    drifted: tuple[str, ...]
    max_psi: float | None
    uncompared: tuple[str, ...] = ()
    summary: str


def psi(baseline: ColumnProfile, current: ColumnProfile) -> float:
    """Population stability index, 0 and up; below 0.1 is commonly read as stable, above 0.25 as changed.

    The sum over bins of (q - p) ln(q / p), the symmetric Kullback-Leibler divergence (Siddiqi, Credit Risk Scorecards,
    2006). Both sides get as many rows more as there are bins, spread as both together are, so that an empty bin is no
    infinity, and a rare one that few rows happen to miss is no change.
    """
    before, after = _aligned(baseline, current)
    bins, n, m = len(before), sum(before), sum(after)
    pooled = [(b + a) / (n + m) for b, a in zip(before, after, strict=True)]
    shares = (
        ((b + bins * r) / (n + bins), (a + bins * r) / (m + bins))
        for b, a, r in zip(before, after, pooled, strict=True)
    )
    return sum((q - p) * log(q / p) for p, q in shares)


def jensen_shannon(baseline: ColumnProfile, current: ColumnProfile) -> float:
    """Jensen-Shannon distance, from 0 (equal) to 1 (nothing in common): the root of the divergence in bits.

    Lin, Divergence measures based on the Shannon entropy, IEEE Transactions on Information Theory 37(1), 1991. 0 when
    one side has no rows.
    """
    before, after = _aligned(baseline, current)
    n, m = sum(before), sum(after)
    if not n or not m:
        return 0.0
    shares = [(b / n, a / m) for b, a in zip(before, after, strict=True)]
    divergence = sum(_bits(p, (p + q) / 2) + _bits(q, (p + q) / 2) for p, q in shares) / 2
    return sqrt(min(max(divergence, 0.0), 1.0))


def kolmogorov_smirnov(baseline: ColumnProfile, current: ColumnProfile) -> float:
    """Largest distance of the distribution functions at the edges, from 0 to 1; 0 when one side has no values.

    At most the exact statistic of the values, and less than that by at most the largest share that a bin has on either
    side: inside a bin each function goes from its value at the lower edge to that at the upper, so that their distance
    is larger than at an edge by no more than one of them gains there.
    """
    before, after = _numbers(baseline, current)
    if not sum(before) or not sum(after):
        return 0.0
    return max(abs(f - g) for f, g in zip(_cumulated(before), _cumulated(after), strict=True))


def wasserstein(baseline: ColumnProfile, current: ColumnProfile) -> float:
    """Earth mover's distance in the column's unit, as if all values of a bin lay at one place; 0 of no values.

    That place is the middle. The first and the last bin end at the least and the largest value of both, and their place
    is no further from the edge than the next bin is wide, as tails are long and thin. The exact distance differs by at
    most the sum over bins of (share before + share after) x half the width, the whole width of the first and the last:
    no value is moved further to the place of its bin, and distances obey the triangle inequality. Where the means are
    further apart than that distance, it is theirs: no plan moves the mean for less.
    """
    before, after = _numbers(baseline, current)
    ends = [m for m in (baseline.min, current.min, baseline.max, current.max) if m is not None]
    if not sum(before) or not sum(after) or not ends:
        return 0.0
    # Edges outside of the values bound empty bins, whose width is of no matter.
    edges = [min(max(edge, min(ends)), max(ends)) for edge in baseline.edges]
    places = [low / 2 + high / 2 for low, high in pairwise([min(ends), *edges, max(ends)])]
    if len(edges) > 1:
        places[0] = max(places[0], edges[0] - (edges[1] - edges[0]))
        places[-1] = min(places[-1], edges[-1] + (edges[-1] - edges[-2]))
    moved = (abs(f - g) for f, g in zip(_cumulated(before), _cumulated(after), strict=True))
    distance = sum((right - left) * share for (left, right), share in zip(pairwise(places), moved, strict=False))
    return max(distance, abs((baseline.mean or 0.0) - (current.mean or 0.0)))


class ChiSquared(NamedTuple):
    statistic: float
    p_value: float


def chi_squared(baseline: ColumnProfile, current: ColumnProfile) -> ChiSquared:
    """Pearson's test that both samples have the same shares of bins; (0, 1) when one side has no rows.

    Bins that would hold fewer than five rows of either side, had both the same shares, are counted as one: with fewer
    the statistic is not distributed as chi-squared. Where there are none it is that of the table of raw counts.
    """
    pairs = [*zip(*_aligned(baseline, current), strict=True)]
    n, m = sum(b for b, _ in pairs), sum(a for _, a in pairs)
    if not n or not m:
        return ChiSquared(0.0, 1.0)
    large = [pair for pair in pairs if sum(pair) * min(n, m) / (n + m) >= _EXPECTED]
    rare = (n - sum(b for b, _ in large), m - sum(a for _, a in large))
    tested = [*large, rare] if any(rare) else large
    expected = ((sum(pair) * n / (n + m), sum(pair) * m / (n + m)) for pair in tested)
    statistic = sum((b - e) ** 2 / e + (a - f) ** 2 / f for (b, a), (e, f) in zip(tested, expected, strict=True))
    return ChiSquared(statistic, _chi_squared_above(statistic, len(tested) - 1))


def vanished(baseline: ColumnProfile, current: ColumnProfile) -> tuple[str, ...]:
    """Categories of the baseline that are missing from so many rows not by chance (less than once in 1,000 times)."""
    n, m = baseline.rows, current.rows
    gone = (name for name, count in baseline.categories.items() if count and not current.categories[name])
    return tuple(sorted(name for name in gone if (1 - baseline.categories[name] / n) ** m < _VANISHED_ODDS))


def compare(baseline: Profile, window: Profile, spec: ModelSpec) -> Report:
    """The window against the baseline, on the baseline's edges; ValueError when it was cut elsewhere."""
    enough = window.rows >= spec.monitor.min_rows
    threshold = spec.monitor.psi
    names = [*window.features, *(name for name in baseline.features if name not in window.features)]
    pairs = {name: (baseline.features.get(name), window.features.get(name)) for name in names}
    comparable = {name: (b, w) for name, (b, w) in pairs.items() if b and w and b.kind == w.kind}
    odds = _RUN_ODDS / (len(comparable) + 1)
    features = {name: _drift(b, w, threshold, odds) for name, (b, w) in comparable.items()} if enough else {}
    features |= {name: _masked(found) for name, found in features.items() if _sensitive(name, spec)}
    before, after = baseline.prediction, window.prediction
    both = before and after and before.kind == after.kind
    limit = spec.monitor.prediction_psi or threshold
    drifted = sorted((name for name in features if features[name].drifted), key=lambda name: -features[name].psi)
    report = Report(
        model=spec.model,
        enough=enough,
        rows=window.rows,
        baseline_rows=baseline.rows,
        malformed=window.malformed,
        threshold=threshold,
        features=features,
        prediction=_drift(before, after, limit, odds) if enough and both and before and after else None,
        drifted=tuple(drifted),
        max_psi=max((drift.psi for drift in features.values()), default=None),
        uncompared=tuple(name for name in names if name not in comparable),
        summary="",
    )
    return report.model_copy(update={"summary": " ".join(_sentences(report, spec))})


def _drift(baseline: ColumnProfile, window: ColumnProfile, limit: float, odds: float) -> Drift:
    index, test = psi(baseline, window), chi_squared(baseline, window)
    before, after = _missing(baseline), _missing(window)
    numbers = baseline.kind == "number"
    return Drift(
        psi=index,
        js=jensen_shannon(baseline, window),
        chi2=test.statistic,
        p_value=test.p_value,
        ks=kolmogorov_smirnov(baseline, window) if numbers else None,
        wasserstein=wasserstein(baseline, window) if numbers else None,
        missing_baseline=before,
        missing_window=after,
        missing_change=after - before,
        # Where the baseline itself has categories without a name, an unknown name need not be new.
        new_categories=() if baseline.other else window.new,
        vanished_categories=vanished(baseline, window),
        drifted=index > limit and test.p_value < odds,
    )


def _sensitive(name: str, spec: ModelSpec) -> bool:
    return name in spec.features and spec.features[name].sensitive


def _masked(found: Drift) -> Drift:
    """How many categories came and went, and not which."""
    new, gone = ((MASK,) * len(names) for names in (found.new_categories, found.vanished_categories))
    return found.model_copy(update={"new_categories": new, "vanished_categories": gone})


def _missing(column: ColumnProfile) -> float:
    return column.missing / column.rows if column.rows else 0.0


def _aligned(baseline: ColumnProfile, current: ColumnProfile) -> tuple[list[int], list[int]]:
    """Counts of both columns in the same bins."""
    if not baseline.cut_like(current):
        raise ValueError(_CUT_ELSEWHERE)
    if baseline.kind == "number":
        before, after = [*baseline.counts], [*current.counts]
    else:
        # Many rare categories would drown a change in chance: the frequent are compared one by one, the rest as one.
        frequent = sorted(baseline.categories, key=lambda name: (-baseline.categories[name], name))[:_CATEGORY_BINS]
        before, after = (
            [*(column.categories[name] for name in frequent), _rest(column, frequent)] for column in (baseline, current)
        )
    pairs = zip([*before, baseline.missing], [*after, current.missing], strict=True)
    kept = [pair for pair in pairs if any(pair)]
    return [b for b, _ in kept], [a for _, a in kept]


def _numbers(baseline: ColumnProfile, current: ColumnProfile) -> tuple[list[int], list[int]]:
    if baseline.kind != "number" or not baseline.cut_like(current):
        raise ValueError(_CUT_ELSEWHERE)
    return [*baseline.counts], [*current.counts]


def _cumulated(counts: list[int]) -> list[float]:
    total = sum(counts)
    return [count / total for count in accumulate(counts)]


def _chi_squared_above(statistic: float, degrees: int) -> float:
    """Probability that a chi-squared variable is larger: the incomplete gamma function, a finite sum for whole degrees.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, 26.4.4 and 26.4.5.
    """
    half = statistic / 2
    if degrees <= 0 or half <= 0:
        return 1.0
    first = degrees % 2 / 2
    terms = (exp((first + k) * log(half) - half - lgamma(first + k + 1)) for k in range(degrees // 2))
    return min(1.0, sum(terms) + (erfc(sqrt(half)) if degrees % 2 else 0.0))


def _rest(column: ColumnProfile, named: Iterable[str]) -> int:
    return column.rows - column.missing - sum(column.categories[name] for name in named)


def _bits(p: float, q: float) -> float:
    return p * log2(p / q) if p else 0.0


def _sentences(report: Report, spec: ModelSpec) -> Iterable[str]:
    features, rows = report.features, f"{report.rows:,} rows"
    if not report.enough:
        yield f"Not enough data: {rows} were captured and {spec.monitor.min_rows:,} are needed to compare."
    elif report.drifted:
        most = ", ".join(f"{name} {features[name].psi:.2f}" for name in report.drifted[:3])
        yield f"{len(report.drifted)} of {len(features)} features drifted in {rows}: PSI above {report.threshold:g},"
        yield f"{'most of all' if len(report.drifted) > 3 else 'namely'} {most}."
    elif features:
        name = max(features, key=lambda name: features[name].psi)
        yield f"No feature drifted in {rows}: the largest PSI is {features[name].psi:.2f} ({name}),"
        yield f"the limit {report.threshold:g}."
    if report.prediction:
        yield f"The predictions' PSI is {report.prediction.psi:.2f}."
    for name, drift in features.items():
        if drift.new_categories:
            yield f"New in {name}: {', '.join(drift.new_categories[:5])}."
    if report.uncompared:
        yield f"Not compared, because baseline and spec differ: {', '.join(report.uncompared)}."
    if report.malformed:
        yield f"{report.malformed:,} captured records could not be read and were left out."
