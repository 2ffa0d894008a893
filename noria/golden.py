"""Golden rows: requests whose answers the training run wrote down, asked again of every version that takes traffic.

`golden.json` lies in the model's bundle, and beside baseline.json where a reaction can read it (docs/architecture.md).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

FILE = "golden.json"

TOLERANCE = 1e-4
"""Largest difference of a number in an answer: between machines and formats, rounding makes less than 1e-5."""

ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
"""The one header that SageMaker hands from a container to the caller."""

Answer = Mapping[str, Any]


def attributes(bundle: str) -> str:
    """What a server says in `ATTRIBUTES_HEADER` about the bundle that it serves."""
    return f"noria-bundle={bundle}"


class Golden(BaseModel):
    """Rows with the answers of the bundle's own server, in one order.

    `bundle` is the SHA-256 of the file that is served; each answer to a request carries it in `ATTRIBUTES_HEADER`.
    """

    model_config = ConfigDict(frozen=True)

    bundle: str = Field(pattern=r"^[0-9a-f]{64}$")
    tolerance: float = TOLERANCE
    rows: tuple[dict[str, Any], ...]
    answers: tuple[dict[str, Any], ...]

    def mistakes(self, answers: Sequence[Answer]) -> Iterator[str]:
        """Which answers, one for each row in order, are not those that were written down, and how they differ."""
        for index, (expected, answer) in enumerate(zip(self.answers, answers, strict=True)):
            if differences := list(_differences(expected, answer, self.tolerance)):
                yield f"row {index}: {', '.join(differences)}"


def _differences(expected: Answer, answer: Answer, tolerance: float) -> Iterator[str]:
    """By field; a label may change where its score is within the tolerance of the threshold that decides it."""
    for field in sorted({*expected, *answer}):
        wanted, got = expected.get(field), answer.get(field)
        if isinstance(wanted, Mapping) and isinstance(got, Mapping):
            yield from (f"{field}: {problem}" for problem in _differences(wanted, got, tolerance))
        elif field == "prediction" and _undecided(expected, tolerance):
            continue
        elif not _alike(wanted, got, tolerance):
            yield f"{field} {got!r} instead of {wanted!r}"


def _undecided(expected: Answer, tolerance: float) -> bool:
    """Whether the smallest rounding may decide which label is the answer."""
    if "scores" in expected:
        first, second = sorted(expected["scores"].values(), reverse=True)[:2]
        return bool(first - second <= 2 * tolerance)
    return "score" in expected and abs(expected["score"] - 0.5) <= tolerance


def _alike(wanted: Any, got: Any, tolerance: float) -> bool:
    """Numbers within the tolerance, relative to large ones; anything else equal, true and 1 apart."""
    if _is_number(wanted) and _is_number(got):
        return math.isclose(wanted, got, rel_tol=tolerance, abs_tol=tolerance)
    return type(wanted) is type(got) and bool(wanted == got)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
