"""How far the answers of a new version are from those of the one before it, to the same requests."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from noria.drift import psi
from noria.profile import column
from noria.spec import Task

MIN_ROWS = 50
"""Fewer answers put too few into each of ten bins: chance alone would look like a shift."""

Value = float | str | None


def answer_value(answer: Mapping[str, Any], task: Task) -> Value:
    """What is compared of one answer: the score of a binary model, the number or the label of any other."""
    value = answer.get("score" if task is Task.BINARY else "prediction")
    if task is Task.MULTICLASS:
        return value if value is None or isinstance(value, str) else json.dumps(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def shift(before: Sequence[Value], after: Sequence[Value], task: Task) -> float:
    """PSI of the answers, cut where those before are: deciles of numbers, a bin for each label, one for no answer."""
    kind = "category" if task is Task.MULTICLASS else "number"
    baseline = column(before, kind)
    return psi(baseline, column(after, kind, baseline.cut))
