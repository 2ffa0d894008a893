"""What is kept of sensitive features (`Feature.sensitive`) where people may look: how many, how much, but no value.

Values become `value 1`, `value 2` … by their rows, the same in a baseline and its window; numbers keep the counts of
their bins, whose edges become 1, 2, 3 …
"""

from collections.abc import Collection, Mapping
from typing import TypeVar

from noria.evaluation import Measurements
from noria.profile import ColumnProfile, Profile
from noria.quality import Quality
from noria.spec import ModelSpec

T = TypeVar("T")
Measured = TypeVar("Measured", Quality, Measurements)


def sensitive(spec: ModelSpec) -> tuple[str, ...]:
    """Features whose values are shown nowhere."""
    return tuple(name for name, feature in spec.features.items() if feature.sensitive)


def profiles(baseline: Profile, window: Profile, sensitive: Collection[str]) -> tuple[Profile, Profile]:
    """Both without values of these features; they still compare with each other, and with nothing else."""
    names = {name: _ranked(column.categories) for name, column in baseline.features.items() if name in sensitive}
    segments = {
        name: _ranked({value: count.rows for value, count in values.items()})
        for name, values in baseline.segments.items()
        if name in sensitive
    }
    before, after = (
        side.model_copy(
            update={
                "features": {
                    name: _column(column, names.get(name, {})) if name in sensitive else column
                    for name, column in side.features.items()
                },
                "segments": {name: _renamed(values, segments.get(name, {})) for name, values in side.segments.items()},
            }
        )
        for side in (baseline, window)
    )
    return before, after


def quality(found: Measured, sensitive: Collection[str]) -> Measured:
    """What late labels or an evaluation said, without the values of these segments."""
    rows = {
        name: {value: score.rows for value, score in found.segments.get(name, {}).items()}
        | {value: rates.rows for value, rates in fairness.values.items()}
        for name, fairness in found.fairness.items()
    } | {
        name: {value: score.rows for value, score in scores.items()}
        for name, scores in found.segments.items()
        if name not in found.fairness
    }
    ranks = {name: _ranked(of) for name, of in rows.items() if name in sensitive}
    return found.model_copy(
        update={
            "segments": {name: _renamed(scores, ranks.get(name, {})) for name, scores in found.segments.items()},
            "fairness": {
                name: fairness.model_copy(
                    update={
                        "values": _renamed(fairness.values, ranks[name]),
                        "left_out": _renamed(fairness.left_out, _ranked(fairness.left_out, after=len(ranks[name]))),
                    }
                )
                if name in ranks
                else fairness
                for name, fairness in found.fairness.items()
            },
        }
    )


def _column(column: ColumnProfile, names: Mapping[str, str]) -> ColumnProfile:
    return column.model_copy(
        update={
            "min": None,
            "max": None,
            "low": None,
            "high": None,
            "sum": 0.0,
            "edges": tuple(float(place) for place, _ in enumerate(column.edges, start=1)),
            "categories": _renamed(column.categories, names),
            "new": (),
            "sketch": None,  # of hashes, by which anybody could ask whether a value was there
        }
    )


def _ranked(rows: Mapping[str, int], *, after: int = 0) -> dict[str, str]:
    ordered = sorted(rows, key=lambda value: (-rows[value], value))
    return {value: f"value {place}" for place, value in enumerate(ordered, start=1 + after)}


def _renamed(values: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    return {names.get(value, value): of for value, of in values.items()}
