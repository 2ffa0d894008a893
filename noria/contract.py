"""The data contract: what a file must be to become a dataset, and everything about it that is not."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from noria.spec import ModelSpec
from noria.sql import MODEST, Resources


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Violation(Part):
    """One thing that is wrong. `rows` are the first data rows, from 1 (the header is not one); `lines` those of the file."""

    column: str | None = None
    rule: str
    severity: Literal["reject", "warn"] = "reject"
    count: int = 1
    rows: tuple[int, ...] = ()
    lines: tuple[int, ...] = ()
    samples: tuple[str, ...] = ()
    message: str


class Report(Part):
    """What the contract says of a file: accepted unless a violation of severity reject was found."""

    model: str
    filename: str
    format: Literal["csv", "parquet"] | None
    sha256: str
    bytes: int
    rows: int
    columns: tuple[str, ...]
    first_event: datetime | None
    last_event: datetime | None
    accepted: bool
    violations: tuple[Violation, ...]

    def to_text(self) -> str:
        raise NotImplementedError


class Manifest(Part):
    """An accepted dataset: its bytes are at `key`; `source_key` and `version_id` name the upload they came from."""

    model: str
    sha256: str
    filename: str
    format: Literal["csv", "parquet"]
    bytes: int
    rows: int
    columns: tuple[str, ...]
    first_event: datetime
    last_event: datetime
    key: str
    source_key: str
    version_id: str | None = None
    accepted_at: datetime


def check(
    path: Path,
    spec: ModelSpec,
    *,
    filename: str,
    now: datetime,
    sha256: str | None = None,
    resources: Resources = MODEST,
) -> Report:
    """Check one CSV or Parquet file. Whatever the file holds, the answer is a report."""
    raise NotImplementedError
