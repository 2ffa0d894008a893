"""How far the answers of a new version are from those of the one before it, to the same requests."""

# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from noria import capture
from noria.drift import psi
from noria.profile import Kind, column
from noria.spec import ModelSpec, Task
from noria.sql import MODEST, cursor

MIN_ROWS = 50
"""Fewer answers put too few into each of ten bins: chance alone would look like a shift."""

MOST_ROWS = 200

Value = float | str | None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Rows that clients asked for, and what they were answered, in one order."""

    rows: list[dict[str, Any]]
    answers: list[Value]


def asked(files: Sequence[Path], spec: ModelSpec, *, since: datetime | None, until: datetime) -> Asked:
    """The newest of the captured rows of that time, at most `MOST_ROWS`, that were answered with a value."""
    predicted = "score" if spec.task is Task.BINARY else "prediction"
    columns = ", ".join(f"f{place}" for place in range(len(spec.features)))
    kind = "VARCHAR" if spec.task is Task.MULTICLASS else "DOUBLE"
    with cursor(MODEST) as db:
        found = db.execute(
            f"SELECT TRY_CAST({predicted} AS {kind}) AS answer, {columns} "
            f"FROM {capture.relation(files, spec, since=since, until=until)} "
            f"WHERE NOT malformed AND answer IS NOT NULL ORDER BY time DESC, inference_id, row LIMIT {MOST_ROWS}"
        ).fetchall()
    rows = [capture.instance(values, spec) for _, *values in found]
    return Asked(rows=rows, answers=[answer for answer, *_ in found])


def answer_value(answer: Mapping[str, Any], task: Task) -> Value:
    """What is compared of one answer: the score of a binary model, the number or the label of any other."""
    value = answer.get("score" if task is Task.BINARY else "prediction")
    if task is Task.MULTICLASS:
        return value if value is None or isinstance(value, str) else json.dumps(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def shift(before: Sequence[Value], after: Sequence[Value], task: Task) -> float:
    """PSI of the answers, cut where those before are: deciles of numbers, a bin for each label, one for no answer."""
    kind: Kind = "category" if task is Task.MULTICLASS else "number"
    baseline = column(before, kind)
    return psi(baseline, column(after, kind, baseline.cut))
