"""What is wrong with a file that somebody has put into the bucket."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

FIRST = 5
"""Rows and values named for each violation."""
LONGEST_SAMPLE = 80


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
