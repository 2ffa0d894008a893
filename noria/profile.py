"""A profile describes a set of rows in a few kilobytes; profiles of parts merge to the profile of the whole.

files, captured requests ─ Source ─ edges() ─ Edges        once, from the reference rows
                                  ─ profile() ─ Profile    one scan, on fixed edges
                                                Profile + Profile → merge()
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from noria.spec import ModelSpec
from noria.sql import MODEST, Resources


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows to describe: CSV and Parquet files with a column per feature, or SageMaker data-capture files.

    Predictions are described too where they are given: binary classification in a column `score` (probability of the
    positive class), regression and multiclass in a column `prediction`. `since` (inclusive) and `until` (exclusive)
    keep captured requests by their inference time.
    """

    kind: Literal["files", "captured"]
    paths: tuple[Path, ...]
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def files(cls, *paths: Path) -> Self:
        return cls(kind="files", paths=paths)

    @classmethod
    def captured(cls, *paths: Path, since: datetime | None = None, until: datetime | None = None) -> Self:
        return cls(kind="captured", paths=paths, since=since, until=until)


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class ColumnProfile(Part):
    """One column. `rows` counts all rows, `missing` those without a (finite) value.

    Numbers: `counts[i]` values x with edges[i-1] < x <= edges[i]; the first and last bins are open.
    Categories: `categories` holds the count of each category named by the edges, `other` the rows of all others, and
    `new` at most 20 of their names.
    """

    kind: Literal["number", "category"]
    rows: int
    missing: int
    min: float | None = None
    max: float | None = None
    sum: float = 0.0
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    categories: dict[str, int] = Field(default_factory=dict)
    other: int = 0
    new: tuple[str, ...] = ()

    @property
    def mean(self) -> float | None:
        present = self.rows - self.missing
        return self.sum / present if self.kind == "number" and present else None

    def merge(self, other: Self) -> Self:
        raise NotImplementedError


class Profile(Part):
    """What a set of rows looks like. `malformed` counts captured records that could not be read and are in no count."""

    model: str
    rows: int
    malformed: int = 0
    features: dict[str, ColumnProfile]
    prediction: ColumnProfile | None = None
    segments: dict[str, dict[str, int]] = Field(default_factory=dict)

    def merge(self, other: Self) -> Self:
        """The profile of both sets of rows together; ValueError when models or edges differ."""
        raise NotImplementedError

    @property
    def edges(self) -> "Edges":
        """The edges this profile was made on: what a window to compare with it must use."""
        raise NotImplementedError


class Edges(Part):
    """Where each column is cut: inner bin edges of numbers, names of the categories counted one by one."""

    numbers: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    categories: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    prediction: tuple[float, ...] | tuple[str, ...] | None = None


def edges(source: Source, spec: ModelSpec, *, resources: Resources = MODEST) -> Edges:
    """Cut points from reference rows: at most 10 bins of equal share, or one per value where values are few."""
    raise NotImplementedError


def profile(source: Source, spec: ModelSpec, edges: Edges | None = None, *, resources: Resources = MODEST) -> Profile:
    """Describe all rows of `source` in one scan (two when `edges` must be found first)."""
    raise NotImplementedError
