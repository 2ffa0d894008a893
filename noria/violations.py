"""What is wrong with a file that somebody has put into the bucket."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

FIRST = 5
"""Rows and values named for each violation."""
LONGEST_SAMPLE = 80
MASK = "***"
"""What stands for a value of a sensitive column."""


class Violation(BaseModel):
    """One thing that is wrong. `lines` are the first lines of the file, counted by `\\n`, that are no rows; `rows` the
    first rows, from 1 after the header, lines that are no rows not counted."""

    model_config = ConfigDict(frozen=True)

    column: str | None = None
    rule: str
    severity: Literal["reject", "warn"] = "reject"
    count: int = 1
    rows: tuple[int, ...] = ()
    lines: tuple[int, ...] = ()
    samples: tuple[str, ...] = ()
    message: str


def shortened(text: str) -> str:
    """A name or value as it is shown, cut where it is longer than a sample may be."""
    return text if len(text) <= LONGEST_SAMPLE else text[: LONGEST_SAMPLE - 1] + "…"
