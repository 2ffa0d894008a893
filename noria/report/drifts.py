"""The statistics of a comparison, a line for each feature."""

from collections.abc import Callable, Sequence

from noria.drift import Drift, Report
from noria.report.html import Html, join, tag
from noria.report.numbers import chance, distance, figure, percent
from noria.report.page import Column, aside, badge, name, names, table
from noria.units import count

_FEATURES, _AT_ONCE = 200, 25
_STATISTICS = tuple(Column(title, figures=True) for title in ("PSI", "JS", "KS", "Wasserstein", "p (χ²)", "missing"))


def listed(report: Report, more: Sequence[str] = (), *, shape: Callable[[str], Html | None] | None = None) -> Html:
    """Features, those that changed most first, and what was left out. `more` are some that were not compared; `shape`
    draws the distributions of one."""
    ordered = sorted(
        dict.fromkeys([*report.features, *more]),
        key=lambda feature: (-report.features[feature].psi if feature in report.features else 0.0, feature),
    )
    head = [Column("feature"), *([Column("training and window")] if shape else []), Column("state", tight=True)]
    head += _STATISTICS
    rows = [
        [name(feature), *([shape(feature)] if shape else []), *_statistics(report.features.get(feature))]
        for feature in ordered[:_FEATURES]
    ]
    further, left_out = rows[_AT_ONCE:], len(ordered) - _FEATURES
    return join(
        table("Each feature's distance from training, the largest first", head, rows[:_AT_ONCE]),
        tag(
            "details",
            tag("summary", count(len(further), "more feature")),
            table("Features that changed less", head, further),
        )
        if further
        else None,
        aside(f"{count(left_out, 'feature')} with a smaller PSI are not listed.") if left_out > 0 else None,
        aside("Not compared, because the two sides differ in kind: ", names(report.uncompared, most=20), ".")
        if report.uncompared
        else None,
        aside(
            "PSI: population stability index. JS: Jensen–Shannon distance. KS: Kolmogorov–Smirnov. Wasserstein: in the "
            "feature's unit. p: how likely chance alone makes the two differ as much."
        ),
    )


def _statistics(drift: Drift | None) -> list[str | None]:
    if drift is None:
        return [badge("not compared"), *[None] * len(_STATISTICS)]
    missing = percent(drift.missing_window)
    if drift.missing_change:
        missing = f"{percent(drift.missing_baseline)} → {missing}"
    return [
        badge("drifted", symbol="▲", kind="breach") if drift.drifted else badge("stable", symbol="✓", kind="ok"),
        distance(drift.psi),
        distance(drift.js),
        distance(drift.ks) if drift.ks is not None else None,
        figure(drift.wasserstein) if drift.wasserstein is not None else None,
        chance(drift.p_value),
        missing,
    ]
