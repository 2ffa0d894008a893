"""How far a window is from the baseline: pure functions of two profiles.

Statistics see a column as counts per bin, with missing values as a bin of their own: a feature that stops arriving has
changed. Bins that are empty on both sides say nothing and are left out.
"""

from collections.abc import Iterable
from math import log, log2, sqrt

from pydantic import BaseModel, ConfigDict

from noria.profile import ColumnProfile, Profile
from noria.spec import ModelSpec

_CATEGORY_BINS = 20


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Drift(Part):
    """One column of the window against the baseline. `missing_*` are shares of rows, from 0 to 1."""

    psi: float
    js: float
    missing_baseline: float
    missing_window: float
    missing_change: float
    new_categories: tuple[str, ...] = ()
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
    2006). Shares are smoothed as (count + 1) / (rows + bins), Laplace's rule of succession, so that an empty bin is no
    infinity. Without a change it is about (bins - 1) (1/n + 1/m) for n and m rows (Yurdakul and Naranjo, Journal of
    Risk Model Validation 14(4), 2020), which is why bins are few.
    """
    before, after = _aligned(baseline, current)
    bins, n, m = len(before), sum(before), sum(after)
    shares = (((b + 1) / (n + bins), (a + 1) / (m + bins)) for b, a in zip(before, after, strict=True))
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


def compare(baseline: Profile, window: Profile, spec: ModelSpec) -> Report:
    """The window against the baseline, on the baseline's edges; ValueError when it was cut elsewhere."""
    enough = window.rows >= spec.monitor.min_rows
    threshold = spec.monitor.psi
    names = [*window.features, *(name for name in baseline.features if name not in window.features)]
    pairs = {name: (baseline.features.get(name), window.features.get(name)) for name in names}
    comparable = {name: (b, w) for name, (b, w) in pairs.items() if b and w and b.kind == w.kind}
    features = {name: _drift(b, w, threshold) for name, (b, w) in comparable.items()} if enough else {}
    before, after = baseline.prediction, window.prediction
    both = before and after and before.kind == after.kind
    drifted = sorted((name for name in features if features[name].drifted), key=lambda name: -features[name].psi)
    report = Report(
        model=spec.model,
        enough=enough,
        rows=window.rows,
        baseline_rows=baseline.rows,
        malformed=window.malformed,
        threshold=threshold,
        features=features,
        prediction=_drift(before, after, threshold) if enough and both and before and after else None,
        drifted=tuple(drifted),
        max_psi=max((drift.psi for drift in features.values()), default=None),
        uncompared=tuple(name for name in names if name not in comparable),
        summary="",
    )
    return report.model_copy(update={"summary": " ".join(_sentences(report, spec))})


def _drift(baseline: ColumnProfile, window: ColumnProfile, threshold: float) -> Drift:
    index = psi(baseline, window)
    before, after = _missing(baseline), _missing(window)
    return Drift(
        psi=index,
        js=jensen_shannon(baseline, window),
        missing_baseline=before,
        missing_window=after,
        missing_change=after - before,
        # Where the baseline itself has categories without a name, an unknown name need not be new.
        new_categories=() if baseline.other else window.new,
        drifted=index > threshold,
    )


def _missing(column: ColumnProfile) -> float:
    return column.missing / column.rows if column.rows else 0.0


def _aligned(baseline: ColumnProfile, current: ColumnProfile) -> tuple[list[int], list[int]]:
    """Counts of both columns in the same bins."""
    if not baseline.cut_like(current):
        raise ValueError(
            "columns cut at different edges cannot be compared: profile the window on the baseline's edges"
        )
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
