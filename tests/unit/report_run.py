"""Runs to render: everything a run can hold, from the engine's own functions where they are about rows."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from noria.contract import Live
from noria.drift import compare
from noria.evaluation import Bin, Calibration, Estimate, Fairness, Rates
from noria.explain import Change, WindowAttribution
from noria.labels import Coverage
from noria.monitoring import Point, Run
from noria.monitors import Finding, State, monitors
from noria.profile import ColumnProfile, Profile, SegmentCount, column
from noria.quality import Quality, QualityLoss, Score
from noria.spec import Metric, ModelSpec
from noria.violations import Violation
from tests.unit.engine_data import spec_of

END = datetime(2026, 11, 21, 12, tzinfo=UTC)
ROWS = 2000
HOSTILE = (
    "<script>document.title = 'owned'</script>",
    '"><img src=x onerror="document.title = \'owned\'">',
    "'); DROP TABLE x; --",
    "</style></svg></title><b>",
    "&lt;b&gt; &amp; &nosuch;",
    "\u202egnirts a sdrawkcab",
    "عربى ועברית",
    "ünï cödé 🙂 👩‍👩‍👧",
    "\x00\x1b[31m control",
    "javascript:alert(1)",
    "w" * 3000,
)
"""Names of columns, categories and whatever else a user may name."""


def estimate(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def spec(names: Sequence[str] = ("x", "size", "color"), **changes: Any) -> ModelSpec:
    kinds = ("number", "integer", "category")
    features = {name: {"type": kinds[place % 3], "missing": 0.5} for place, name in enumerate(names)}
    return spec_of(
        features=features,
        segments=[names[2]],
        monitor={
            "labels": {"coverage": 0.5},
            "bias": {names[2]: {"disparate_impact": 0.8, "equal_opportunity": 0.1}},
            "business": {"late-revenue": {"sql": "SELECT 1", "max": 10}},
        },
        **changes,
    )


@cache
def drawn(categories: tuple[str, ...]) -> dict[str, tuple[ColumnProfile, ColumnProfile]]:
    """A baseline and a window of each kind: numbers become larger, the first category goes, and another comes."""
    chance = random.Random(7)  # noqa: S311 -- no secret
    numbers = [chance.gauss(0, 1) for _ in range(ROWS)]
    scores = [chance.betavariate(2, 5) for _ in range(ROWS)]
    integers = [float(chance.randrange(5)) for _ in range(ROWS)]
    names = [chance.choice(categories) for _ in range(ROWS)]

    def shifted(values: list[float]) -> list[float | None]:
        return [value + 1 if chance.random() > 0.1 else None for value in values]

    sides: dict[str, tuple[Sequence[float | str | None], Sequence[float | str | None]]] = {
        "number": (numbers, shifted(numbers)),
        "integer": (integers, shifted(integers)),
        "score": (scores, [score**0.5 for score in scores]),
        "confidence": ([max(score, 1 - score) for score in scores], [max(score, 0.5) for score in scores]),
        "category": (names, [chance.choice([*categories[1:], "brand-new"]) for _ in range(ROWS)]),
    }
    found = {}
    for kind, (before, after) in sides.items():
        reference = column(before, "category" if kind == "category" else "number")
        found[kind] = reference, column(after, reference.kind, reference.cut)
    return found


def profiles(of: ModelSpec, categories: Sequence[str]) -> tuple[Profile, Profile]:
    columns = drawn(tuple(categories))
    before, after = (
        Profile(
            model=of.model,
            rows=ROWS,
            malformed=3 * side,
            features={name: columns[feature.type.value][side] for name, feature in of.features.items()},
            prediction=columns["score"][side],
            confidence=columns["confidence"][side],
            segments={
                name: {
                    value: SegmentCount(rows=count, selected=count // (4 - side))
                    for value, count in columns["category"][side].categories.items()
                }
                for name in of.segments
            },
        )
        for side in (0, 1)
    )
    return before, after


def quality(of: ModelSpec, categories: Sequence[str]) -> Quality:
    scores = {name: Score(rows=200, metrics={Metric.AUC: estimate(0.6)}) for name in categories}
    rates = {name: Rates(rows=200, selected=40, positives=50, true_positives=20) for name in categories}
    return Quality(
        model=of.model,
        predictions=ROWS,
        labels=1510,
        matched=1500,
        unmatched_labels=10,
        malformed=0,
        coverage=0.75,
        overall=Score(rows=1500, metrics={Metric.AUC: estimate(0.61), Metric.BRIER: estimate(0.19)}),
        segments=dict.fromkeys(of.segments, scores),
        calibration=Calibration(
            rows=1500,
            error=0.06,
            chance=0.01,
            value=0.05,
            bins=tuple(Bin(rows=300, predicted=0.1 + 0.2 * i, happened=0.05 + 0.19 * i) for i in range(5)),
        ),
        fairness={
            name: Fairness(values=rates, left_out={"rare": 12}, disparate_impact=estimate(0.7)) for name in of.segments
        },
        registration=QualityLoss.of(Metric.AUC, estimate(0.71), estimate(0.61)),
    )


def live(of: ModelSpec) -> Live:
    return Live(
        model=of.model,
        rows=ROWS,
        malformed=3,
        invalid=40,
        violations=tuple(
            Violation(
                column=name,
                rule="range",
                severity="reject" if place % 2 else "warn",
                count=40 - place,
                samples=HOSTILE[:3],
                message=f"{name}: what must be at most 1 is more: {HOSTILE[0]}",
            )
            for place, name in enumerate(of.features)
        ),
    )


def run(
    of: ModelSpec | None = None,
    categories: Sequence[str] = ("red", "green", "blue"),
    state: State | None = None,
    **changes: Any,
) -> Run:
    """A run of everything. Each finding is of `state`; without it they take turns."""
    of = of or spec()
    before, after = profiles(of, categories)
    report = compare(before, after, of)
    turns: tuple[State, ...] = (state,) if state else ("breach", "ok", "not enough data")
    watched = monitors(of)
    states = {monitor.name: turns[place % len(turns)] for place, monitor in enumerate(watched)}
    findings = tuple(
        Finding(
            monitor=monitor.name,
            state=states[monitor.name],
            value=None if states[monitor.name] == "not enough data" else 0.125,
            limit=monitor.limit,
            reason=f"Reason of {monitor.name}.",
        )
        for monitor in watched
    )
    weights = {name: Change(training=0.5, window=0.1, standard_error=0.01) for name in of.features}
    values = {
        "model": of.model,
        "package": f"arn:aws:sagemaker:eu-central-1:123456789012:model-package/noria-dev-{of.model}/3",
        "start": END - timedelta(hours=1),
        "end": END,
        "at": END + timedelta(minutes=7),
        "own_rows": ROWS,
        "summary": report.summary,
        "monitors": watched,
        "findings": findings,
        "drift": report,
        "baseline": before,
        "window": after,
        "live": live(of),
        "explained": END - timedelta(hours=5),
        "attribution": WindowAttribution(rows=50, features=weights, correlation=0.4, spearman=0.5, ndcg=0.9),
        "quality": quality(of, categories),
        "labels": Coverage(
            since=END - timedelta(days=9),
            until=END - timedelta(days=7),
            predictions=4000,
            labelled=3000,
            delay_p50_hours=20.0,
            delay_p95_hours=70.0,
        ),
        "business": {"late-revenue": 12.5},
        "decision": "Retraining requested: 2 datasets arrived since the last training.",
        "trend": tuple(
            Point(end=END - timedelta(hours=hour), rows=ROWS, values={m.name: 0.01 * hour for m in watched})
            for hour in range(12, 0, -1)
        ),
        "sensitive": tuple(name for name, feature in of.features.items() if feature.sensitive),
    }
    return Run.model_validate(values | changes)
