"""How far a window is from the baseline: pure functions of two profiles."""

import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from noria.profile import ColumnProfile, Profile
from noria.spec import ModelSpec


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Drift(Part):
    """One column of the window against the baseline. Shares are of rows, from 0 to 1."""

    psi: float
    js: float
    missing_baseline: float
    missing_window: float
    new_categories: tuple[str, ...] = ()
    drifted: bool

    @property
    def missing_change(self) -> float:
        return self.missing_window - self.missing_baseline


class Report(Part):
    """A monitored window; `drifted` names features, most drifted first.

    When there are not enough rows to say anything, `features` and `drifted` are empty, `prediction` and `max_psi` None.
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
    summary: str


def psi(baseline: ColumnProfile, current: ColumnProfile) -> float:
    """Population stability index, 0 and up; missing values are a bin of their own.

    Half a row is added to each bin (Jeffreys), so that an empty one gives a large number and not infinity.
    Source: Siddiqi, Credit Risk Scorecards, 2006; below 0.1 is stable, above 0.25 has shifted.
    """
    expected, actual = _shares(baseline, current)
    return sum((a - e) * math.log(a / e) for e, a in zip(expected, actual, strict=True))


def jensen_shannon(baseline: ColumnProfile, current: ColumnProfile) -> float:
    """Jensen–Shannon distance with base-2 logarithms, from 0 to 1."""
    expected, actual = _shares(baseline, current)

    def divergence(p: Sequence[float], q: Sequence[float]) -> float:
        return sum(a * math.log2(a / b) for a, b in zip(p, q, strict=True))

    middle = [(e + a) / 2 for e, a in zip(expected, actual, strict=True)]
    return math.sqrt(max(0.0, (divergence(expected, middle) + divergence(actual, middle)) / 2))


def compare(baseline: Profile, window: Profile, spec: ModelSpec) -> Report:
    """A window against the baseline; too few rows give a report that says only so."""
    threshold = spec.monitor.psi
    enough = window.rows >= spec.monitor.min_rows and baseline.rows > 0
    features = (
        {name: _drift(baseline.features[name], window.features[name], threshold) for name in spec.features}
        if enough
        else {}
    )
    both = enough and baseline.prediction is not None and window.prediction is not None
    prediction = _drift(baseline.prediction, window.prediction, threshold) if both else None  # type: ignore[arg-type]
    ranked = sorted(features, key=lambda name: -features[name].psi)
    drifted = tuple(name for name in ranked if features[name].drifted)
    return Report(
        model=spec.model,
        enough=enough,
        rows=window.rows,
        baseline_rows=baseline.rows,
        malformed=window.malformed,
        threshold=threshold,
        features=features,
        prediction=prediction,
        drifted=drifted,
        max_psi=features[ranked[0]].psi if ranked else None,
        summary=_summary(spec, window, features, drifted),
    )


def _summary(spec: ModelSpec, window: Profile, features: Mapping[str, Drift], drifted: Sequence[str]) -> str:
    if not features:
        return f"{window.rows:,} rows are fewer than the {spec.monitor.min_rows:,} that a comparison needs."
    if not drifted:
        return f"None of {len(features)} features drifted in {window.rows:,} rows (PSI below {spec.monitor.psi:g})."
    named = ", ".join(f"{name} ({features[name].psi:.2f})" for name in drifted)
    return f"{len(drifted)} of {len(features)} features drifted in {window.rows:,} rows, by PSI: {named}."


def _drift(baseline: ColumnProfile, current: ColumnProfile, threshold: float) -> Drift:
    index = psi(baseline, current)
    return Drift(
        psi=index,
        js=jensen_shannon(baseline, current),
        missing_baseline=baseline.missing / baseline.rows if baseline.rows else 0.0,
        missing_window=current.missing / current.rows if current.rows else 0.0,
        new_categories=current.new,
        drifted=index >= threshold,
    )


def _shares(baseline: ColumnProfile, current: ColumnProfile) -> tuple[list[float], list[float]]:
    """Smoothed shares of all bins, missing values and other categories among them; ValueError when bins differ."""
    if (baseline.kind, baseline.edges, set(baseline.categories)) != (
        current.kind,
        current.edges,
        set(current.categories),
    ):
        raise ValueError("profiles on different edges cannot be compared: profile the window on the baseline's edges")
    pairs = [*zip(baseline.counts, current.counts, strict=True)]
    pairs += [(count, current.categories[name]) for name, count in baseline.categories.items()]
    pairs += [(baseline.other, current.other), (baseline.missing, current.missing)]
    pairs = [pair for pair in pairs if any(pair)] or [(0, 0)]
    expected = [e + 0.5 for e, _ in pairs]
    actual = [a + 0.5 for _, a in pairs]
    return [e / sum(expected) for e in expected], [a / sum(actual) for a in actual]
