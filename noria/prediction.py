"""A request for predictions, checked against what a model's spec says of its features before anything is asked.

    {"instances": [{"hour": 7, "carrier": "UA", "temp": null}, ...]}

Each instance has every feature and nothing else; null where a value is missing, which the spec must allow.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from noria.spec import Feature, FeatureType, ModelSpec

MOST_BYTES = 4_000_000
"""Of a body. SageMaker takes 4 MB on serverless endpoints, Lambda 6 MB; base64 on the way there adds a third."""

MOST_ROWS = 1000

CORRELATION_ID = r"^(?!noria-probe-)[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
"""Ids that can be SageMaker's InferenceId, which is ASCII of 64 characters at most. What Noria's own probes ask of an
endpoint is in no window: nobody else may look like them."""

PROBLEMS_TOLD = 20
LARGEST = sys.float_info.max
SHOWN = 40
"""Characters of a wrong value that a problem repeats."""


@dataclass(frozen=True, kw_only=True)
class RowProblem:
    """What is wrong with a request: in which row (from 0) and field, where it is in one."""

    problem: str
    row: int | None = None
    field: str | None = None

    def document(self) -> dict[str, Any]:
        found = {"row": self.row, "field": self.field, "problem": self.problem}
        return {name: value for name, value in found.items() if value is not None}


class NotUnderstoodError(ValueError):
    """A request that the model cannot answer; it holds the first mistakes."""

    def __init__(self, problems: Sequence[RowProblem]) -> None:
        super().__init__("; ".join(problem.problem for problem in problems))
        self.problems = tuple(problems)


class TooLargeError(ValueError):
    """A body or a number of rows beyond the limits."""


Check = Callable[[Any], str | None]
"""What is wrong with a value; None when nothing is."""


class RequestCheck:
    """The check of one model's requests, compiled from its spec once."""

    def __init__(self, spec: ModelSpec) -> None:
        self._checks = {name: _check(feature) for name, feature in spec.features.items()}

    def instances(self, body: bytes) -> list[dict[str, Any]]:
        """The rows of a request. Raises `NotUnderstoodError` and `TooLargeError`."""
        if len(body) > MOST_BYTES:
            raise TooLargeError(f"the body has {len(body)} bytes, of {MOST_BYTES} at most: send fewer rows at a time")
        try:
            document = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise NotUnderstoodError([RowProblem(problem=f"the body is not JSON: {error}")]) from error
        if not isinstance(document, dict) or list(document) != ["instances"]:
            raise NotUnderstoodError([RowProblem(problem='the body must be {"instances": [{...}, ...]}')])
        rows = document["instances"]
        if not isinstance(rows, list) or not rows:
            raise NotUnderstoodError([RowProblem(problem="instances must be a list of at least one row")])
        if len(rows) > MOST_ROWS:
            raise TooLargeError(f"there are {len(rows)} rows, of {MOST_ROWS} at most: send fewer at a time")
        problems: list[RowProblem] = []
        for index, row in enumerate(rows):
            if self._is_good(row):
                continue
            problems += self._problems(index, row)
            if len(problems) >= PROBLEMS_TOLD:
                break
        if problems:
            raise NotUnderstoodError(problems[:PROBLEMS_TOLD])
        return rows

    def _is_good(self, row: Any) -> bool:
        return (
            isinstance(row, dict)
            and row.keys() == self._checks.keys()
            and all(check(row[name]) is None for name, check in self._checks.items())
        )

    def _problems(self, index: int, row: Any) -> Iterator[RowProblem]:
        if not isinstance(row, dict):
            yield RowProblem(row=index, problem="a row is an object of feature names and values")
            return
        for name, check in self._checks.items():
            if name not in row:
                yield RowProblem(row=index, field=name, problem="the feature is missing; send null where it is unknown")
            elif problem := check(row[name]):
                yield RowProblem(row=index, field=name, problem=problem)
        for name in sorted(row.keys() - self._checks.keys()):
            yield RowProblem(row=index, field=name[:SHOWN], problem="the model has no such feature")


def _check(feature: Feature) -> Check:
    of_value = _category(feature) if feature.type is FeatureType.CATEGORY else _number(feature)
    if feature.missing:
        return lambda value: None if value is None else of_value(value)
    return lambda value: "a value is required" if value is None else of_value(value)


def _category(feature: Feature) -> Check:
    allowed = frozenset(feature.values or ())

    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return f"{_short(value)} is not a category: send text"
        if allowed and value not in allowed:
            return f"{_short(value)} is not among the values that the model knows"
        return None

    return check


def _number(feature: Feature) -> Check:
    whole = feature.type is FeatureType.INTEGER
    low = -math.inf if feature.min is None else feature.min
    high = math.inf if feature.max is None else feature.max

    def check(value: Any) -> str | None:
        # A comparison, because a whole number can be too large to become a float; false for NaN too.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            return f"{_short(value)} is not a finite number"
        if whole and value != int(value):
            return f"{_short(value)} is not a whole number"
        if value < low:
            return f"{_short(value)} is less than {low:g}"
        if value > high:
            return f"{_short(value)} is more than {high:g}"
        return None

    return check


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
