"""A profile describes a set of rows in a few kilobytes; profiles of parts merge to the profile of the whole.

files, captured requests ─ Source ─ edges() ─ Edges        once, from the reference rows
                                  ─ profile() ─ Profile    one scan, on fixed edges
                                                Profile, Profile ─ merge() ─ Profile

Merging is associative and commutative, to the last bit for all counts, minima, maxima and sketches. A `sum` is one of
floats: where additions round, sums of n values in another order differ by at most n x 2^-53 of the sum of the absolute
values (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 4.2), which no statistic here can see.
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import accumulate, pairwise
from math import fsum
from pathlib import Path
from typing import Any, Literal, Self

import duckdb
from pydantic import BaseModel, ConfigDict, Field

from noria import capture, sketch, tally
from noria.sketch import BUCKETS, LEVELS, Sketch, index
from noria.spec import FeatureType, ModelSpec, Task
from noria.sql import MODEST, Resources, cursor, identifier, listing, literal, number, one_row, tables

Kind = Literal["number", "category"]

TOGETHER = 4
"""Columns of Parquet with many values that are asked for at once; each is read once.

What is asked of more leaves the processor's cache: 170 aggregates of 17 columns take twice as long as by fours.
"""

_BINS = 10
_FEW_VALUES = 8  # with a bin below and one above them they make 10
_CATEGORIES = 100
_NEW = 20
_NAME = 100
_SAMPLE = 200_000


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows to describe: CSV and Parquet files with a column per feature, or SageMaker data-capture files.

    Predictions are described too where they are given: binary classification in a column `score` (probability of the
    positive class), regression and multiclass in a column `prediction`, multiclass with `confidence` (probability of
    the predicted label) beside it, where files have it. `since` (inclusive) and `until` (exclusive) keep captured
    requests by their inference time.
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
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")


class Cut(Part):
    """Where one column is cut: inner bin edges of a number, or the names of the categories counted one by one.

    `low` and `high` are the least and the largest number of the reference rows, and `complete` tells that they have no
    other categories: a value beyond is an outlier. None and False where that is not known.
    """

    kind: Kind
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    complete: bool = False


class Edges(Part):
    """Where all columns are cut. `segments`: the values of each segment that are counted one by one, at most 100."""

    features: dict[str, Cut]
    prediction: Cut | None = None
    segments: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class ColumnProfile(Part):
    """One column. `rows` counts all rows, `missing` those without a finite value of the column's kind.

    Numbers: `counts[i]` values x with edges[i-1] < x <= edges[i]; the first and the last bin are open.
    Categories: `categories` holds the count of each category named by the edges, `other` the rows of all others, and
    `new` the alphabetically first names of those, at most 20. `low`, `high` and `complete` are those of its `Cut`.
    """

    kind: Kind
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
    low: float | None = None
    high: float | None = None
    complete: bool = False
    sketch: Sketch | None = None

    @property
    def distinct(self) -> int | None:
        """How many different values there are, estimated (`noria.sketch`); None where nobody asked."""
        return self.sketch.estimate if self.sketch else None

    @property
    def mean(self) -> float | None:
        present = self.rows - self.missing
        return self.sum / present if self.kind == "number" and present else None

    @property
    def beyond(self) -> bool:
        """Whether any value is beyond all of the reference rows."""
        below = self.low is not None and self.min is not None and self.min < self.low
        above = self.high is not None and self.max is not None and self.max > self.high
        return below or above or (self.complete and self.other > 0)

    @property
    def cut(self) -> Cut:
        return Cut(
            kind=self.kind,
            edges=self.edges,
            categories=tuple(self.categories),
            low=self.low,
            high=self.high,
            complete=self.complete,
        )

    def bins(self) -> dict[str, int]:
        """Counts of the values that are there, in order, by a label for people."""
        if self.kind == "category":
            return self.categories | ({"(other)": self.other} if self.other else {})
        if not self.edges:
            return {"any": self.rows - self.missing}
        between = [f"{low:g} < x ≤ {high:g}" for low, high in pairwise(self.edges)]
        labels = [f"x ≤ {self.edges[0]:g}", *between, f"x > {self.edges[-1]:g}"]
        return dict(zip(labels, self.counts, strict=True))

    def cut_like(self, other: Self) -> bool:
        """Whether both were cut at the same edges, or count the same categories one by one."""
        ours, theirs = (column.cut.model_copy(update={"categories": ()}) for column in (self, other))
        return ours == theirs and {*self.categories} == {*other.categories}

    def merge(self, other: Self) -> Self:
        """Both sets of rows together; ValueError when they were not cut at the same edges."""
        if not self.cut_like(other):
            raise ValueError("columns cut at different edges do not merge: profile both on the edges of one")
        return self.model_copy(
            update={
                "rows": self.rows + other.rows,
                "missing": self.missing + other.missing,
                "min": min((m for m in (self.min, other.min) if m is not None), default=None),
                "max": max((m for m in (self.max, other.max) if m is not None), default=None),
                "sum": self.sum + other.sum,
                "counts": tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
                "categories": {name: count + other.categories[name] for name, count in self.categories.items()},
                "other": self.other + other.other,
                # The first 20 of a union are among the first 20 of its parts, so the order of merging does not matter.
                "new": tuple(sorted({*self.new, *other.new})[:_NEW]),
                "sketch": self.sketch.merge(other.sketch) if self.sketch and other.sketch else None,
            }
        )


class SegmentCount(Part):
    """Rows of one value of a segment; `selected` of them have a positive prediction (binary classification)."""

    rows: int
    selected: int | None = None

    def merge(self, other: Self) -> Self:
        both = self.selected is not None and other.selected is not None
        selected = (self.selected or 0) + (other.selected or 0) if both else None
        return self.model_copy(update={"rows": self.rows + other.rows, "selected": selected})


class Profile(Part):
    """What a set of rows looks like. `malformed` counts captured records that could not be read and are in no count.

    `confidence` is the probability of what was predicted, of a classification. `outliers` counts rows with a feature
    beyond all of the reference rows: a number outside their range, a category that none of them has. Both are None, as
    are the columns' `distinct`, and `segments` is empty, where only the distributions were asked for.
    """

    model: str
    rows: int
    malformed: int = 0
    features: dict[str, ColumnProfile]
    prediction: ColumnProfile | None = None
    confidence: ColumnProfile | None = None
    outliers: int | None = None
    segments: dict[str, dict[str, SegmentCount]] = Field(default_factory=dict)

    @property
    def edges(self) -> Edges:
        """Where this profile was cut: what a window that is to be compared with it must use."""
        return Edges(
            features={name: column.cut for name, column in self.features.items()},
            prediction=self.prediction.cut if self.prediction else None,
            segments={name: tuple(values) for name, values in self.segments.items()},
        )

    def merge(self, other: Self) -> Self:
        """Both sets of rows together; ValueError when models, columns or edges differ."""
        if (self.model, {*self.features}) != (other.model, {*other.features}):
            raise ValueError(f"profiles of {self.model} and {other.model} with different columns do not merge")
        if (self.prediction is None) != (other.prediction is None):
            raise ValueError("a profile with predictions does not merge with one without")
        segments, others = ({name: {*of} for name, of in one.segments.items()} for one in (self, other))
        if segments != others:
            raise ValueError("profiles that count different segments do not merge: profile both on the edges of one")
        return self.model_copy(
            update={
                "rows": self.rows + other.rows,
                "malformed": self.malformed + other.malformed,
                "features": {name: column.merge(other.features[name]) for name, column in self.features.items()},
                "prediction": self.prediction and other.prediction and self.prediction.merge(other.prediction),
                "confidence": self.confidence and other.confidence and self.confidence.merge(other.confidence),
                "outliers": None if self.outliers is None or other.outliers is None else self.outliers + other.outliers,
                "segments": {
                    name: {value: count.merge(other.segments[name][value]) for value, count in values.items()}
                    for name, values in self.segments.items()
                },
            }
        )


def edges(source: Source, spec: ModelSpec, *, resources: Resources = MODEST) -> Edges:
    """Where to cut, found in reference rows; the same rows give the same edges, in memory that does not grow with them.

    Numbers: deciles, of a sample of 200,000 rows where there are more rows and not few values, or one bin per value
    where there are at most 8. Categories: the 100 most frequent; values of a segment the same.
    """
    with cursor(resources) as db:
        relation = _read(db, source, spec)
        return _edges(db, relation, spec, _tallies(db, relation))


def _edges(db: duckdb.DuckDBPyConnection, relation: "_Relation", spec: ModelSpec, tallies: "_Tallies") -> Edges:
    cuts = {column: _cut_of(relation.columns[column], values) for column, values in tallies.items()}
    columns = {c: kind for c, kind in relation.columns.items() if c != _CONFIDENCE and c not in tallies}
    cuts |= {column: _categories(db, relation.sql, column) for column, kind in columns.items() if kind == "category"}
    cuts |= _deciles(db, relation.sql, [column for column, kind in columns.items() if kind == "number"])
    places = {name: _feature(index) for index, name in enumerate(spec.features)}

    def frequent(column: str) -> Sequence[str]:
        return _ranked(tallies[column]) if column in tallies else _frequent(db, relation.sql, column)

    segments = {
        name: cuts[places[name]].categories or tuple(frequent(places[name])[:_CATEGORIES]) for name in spec.segments
    }
    return Edges(
        features={name: cuts[place] for name, place in places.items()},
        prediction=cuts.get(_PREDICTION),
        segments=segments,
    )


def profile(source: Source, spec: ModelSpec, cut: Edges | None = None, *, resources: Resources = MODEST) -> Profile:
    """Describe all rows of `source` in one scan, of Parquet in one scan of each column.

    Without `cut`, edges are found first. A column that `cut` does not know is counted in one bin. Where there are
    categories that it does not know, naming them costs another scan, unless the column is of Parquet with few values.
    """
    with cursor(resources) as db:
        relation = _read(db, source, spec)
        tallies = _tallies(db, relation)
        cut = cut or _edges(db, relation, spec, tallies)
        if not relation.columnar:
            return _asked(db, relation.sql, Scan(spec, cut, predicted=relation.columns, distinct=True, across=True))
        features = {
            name: tallied(relation.columns[place], cut.features.get(name), tallies[place], distinct=True)
            for name, place in ((name, _feature(index)) for index, name in enumerate(spec.features))
            if place in tallies
        }
        rest = [name for name in spec.features if name not in features]
        for start in range(0, len(rest), TOGETHER):
            scan = Scan(spec, cut, present=rest[start : start + TOGETHER], distinct=True)
            features |= _asked(db, relation.sql, scan).features
        within = [name for name, column in features.items() if not column.beyond]
        scan = Scan(spec, cut, present=(), predicted=relation.columns, across=True, within=within)
        if _PREDICTION not in relation.columns and not cut.segments and len(within) == len(features):
            rows = next(iter(features.values())).rows
            found = Profile(model=spec.model, rows=rows, features={}, outliers=0)
        else:
            found = _asked(db, relation.sql, scan)
    return found.model_copy(update={"features": {name: features[name] for name in spec.features}})


def tallied(kind: Kind, cut: Cut | None, values: Sequence[Sequence[Any]], *, distinct: bool = False) -> ColumnProfile:
    """Describe a column of which (value, rows, hash) are known for each of its values, NULL included."""
    return _Counter("", kind, cut, distinct=distinct).tallied(values)


def _asked(db: duckdb.DuckDBPyConnection, relation: str, scan: "Scan") -> Profile:
    wanted = [_count("malformed"), *scan.expressions]
    unread, total, *values = one_row(db, f"SELECT {', '.join(wanted)} FROM {relation}")
    malformed = unread or 0
    return scan.name(db, relation, scan.read([total - malformed, *values], malformed=malformed))


class Scan:
    """What a profile asks of a relation, so that other questions are asked in the same scan:

        scan = Scan(spec, baseline.edges, present=names)
        values = SELECT {scan.expressions}, … FROM (SELECT {scan.columns}, … FROM file)
        found = scan.read(values)

    `present` are the features that the relation has (all, when left out); the profile describes those alone.
    `predicted` names the columns of predictions that it has: `p`, and of a classification `c`, the confidence. What
    comparing distributions does not need is asked where it is wanted: `distinct` values of each feature, and `across`
    all features of the spec outliers and segments; no row is an outlier by a feature that is known to be `within`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        cut: Edges | None = None,
        *,
        present: Collection[str] | None = None,
        predicted: Collection[str] = (),
        distinct: bool = False,
        across: bool = False,
        within: Collection[str] = (),
    ) -> None:
        cut = cut or Edges(features={})
        self._spec, self._across, self._within, self._cut = spec, across, frozenset(within), cut
        self._places = {name: _feature(i) for i, name in enumerate(spec.features) if present is None or name in present}
        kinds = _kinds(spec)
        self._counters = [
            _Counter(column, kinds[column], cut.features.get(name), distinct=distinct)
            for name, column in self._places.items()
        ]
        self._prediction = (
            _Counter(_PREDICTION, _prediction_kind(spec), cut.prediction) if _PREDICTION in predicted else None
        )
        self._confidence = _Counter(_CONFIDENCE, "number", _CONFIDENCE_CUT) if _CONFIDENCE in predicted else None
        self._selected = f"{_PREDICTION} >= 0.5" if self._prediction and spec.task is Task.BINARY else None
        known = {name for name, _, kind in self._all if name in cut.features and cut.features[name].kind == kind}
        self._segments = {name: values for name, values in cut.segments.items() if across and name in known}

    @property
    def columns(self) -> list[str]:
        """SQL that selects `f0` … `fn`, typed, from a relation whose columns have the features' names."""
        kinds = _kinds(self._spec)
        return [f"{typed(identifier(name), kinds[column])} AS {column}" for name, column in self._places.items()]

    @property
    def expressions(self) -> list[str]:
        """SQL aggregates over `f0` … `fn` (and `p`, `c`)."""
        described = [counter for counter in (*self._counters, self._prediction, self._confidence) if counter]
        return [
            "count(*)",
            *(expression for counter in described for expression in counter.expressions),
            *([self._outliers] if self._across else []),
            *(
                _count(condition)
                for name, values in self._segments.items()
                for value in values
                for condition in self._conditions(name, value)
            ),
        ]

    def read(self, values: Sequence[Any], *, malformed: int = 0) -> Profile:
        """The profile, from the values of `expressions` in their order."""
        rows, *counts = values
        rest = iter(counts)
        features = [counter.read(rows, rest) for counter in self._counters]
        prediction = self._prediction.read(rows, rest) if self._prediction else None
        confidence = self._confidence.read(rows, rest) if self._confidence else None
        return Profile(
            model=self._spec.model,
            rows=rows,
            malformed=malformed,
            features=dict(zip(self._places, features, strict=True)),
            prediction=prediction,
            confidence=confidence,
            outliers=_number_of(rest) if self._across else None,
            segments={
                name: {
                    value: SegmentCount(rows=_number_of(rest), selected=_number_of(rest) if self._selected else None)
                    for value in values
                }
                for name, values in self._segments.items()
            },
        )

    def naming(self, found: Profile, relation: str) -> dict[str, str]:
        """By column (`f0` …, `p`): SQL of the names of the categories that the edges do not know, where any are."""
        described = {self._places[name]: column for name, column in found.features.items()}
        if found.prediction:
            described[_PREDICTION] = found.prediction
        return {place: _new(relation, place, column) for place, column in described.items() if column.other}

    def named(self, found: Profile, names: Mapping[str, Sequence[str]]) -> Profile:
        """The same profile with the names that answer `naming`, by column."""
        features = {
            name: column.model_copy(update={"new": tuple(names.get(self._places[name], ()))})
            for name, column in found.features.items()
        }
        new = tuple(names.get(_PREDICTION, ()))
        prediction = found.prediction and found.prediction.model_copy(update={"new": new})
        return found.model_copy(update={"features": features, "prediction": prediction})

    def name(self, db: duckdb.DuckDBPyConnection, relation: str, found: Profile) -> Profile:
        """The same profile with the names of categories that the edges do not know: a second scan, where any are."""
        asked = self.naming(found, relation).items()
        return self.named(found, {place: [name for (name,) in db.execute(sql).fetchall()] for place, sql in asked})

    @property
    def _outliers(self) -> str:
        counters = (
            _Counter(place, kind, self._cut.features.get(name))
            for name, place, kind in self._all
            if name not in self._within
        )
        return _count(" OR ".join(condition for counter in counters for condition in counter.beyond) or "false")

    @property
    def _all(self) -> list[tuple[str, str, Kind]]:
        kinds = _kinds(self._spec).items()
        return [(name, place, kind) for name, (place, kind) in zip(self._spec.features, kinds, strict=False)]

    def _conditions(self, segment: str, value: str) -> Iterator[str]:
        place, kind = next((place, kind) for name, place, kind in self._all if name == segment)
        equal = f"{place} = {literal(value) if kind == 'category' else number(float(value))}"
        yield equal
        if self._selected:
            yield f"{equal} AND {self._selected}"


def typed(expression: str, kind: Kind, given: str = "VARCHAR") -> str:
    """SQL of a text, or of a finite double; NULL for what is neither. `given` is the type in SQL, where it is known."""
    cast = f"TRY_CAST({expression} AS {_SQL_TYPES[kind]})"
    if kind == "category" or given in tally.WHOLE:
        return cast
    return f"CASE WHEN isfinite({cast}) THEN {cast} END"


def column(values: Sequence[float | str | None], kind: Kind, cut: Cut | None = None) -> ColumnProfile:
    """Describe one column that is in memory: floats or texts, None where missing. Without `cut`, edges are found."""
    with cursor(MODEST) as db:
        texts = [value if value is None else str(value) for value in values]
        db.execute("CREATE TEMP TABLE given AS SELECT unnest(?::VARCHAR[]) AS x", [texts])
        return column_of(db, "SELECT x FROM given", kind, cut)


def column_of(db: duckdb.DuckDBPyConnection, query: str, kind: Kind, cut: Cut | None = None) -> ColumnProfile:
    """Describe column `x` of a query."""
    relation = f"(SELECT {typed('x', kind)} AS x FROM ({query}))"
    if cut is None:
        cut = _categories(db, relation, "x") if kind == "category" else _deciles(db, relation, ["x"])["x"]
    counter = _Counter("x", kind, cut, distinct=True)
    total, *counts = one_row(db, f"SELECT {', '.join(['count(*)', *counter.expressions])} FROM {relation}")
    return counter.read(total, iter(counts))


@dataclass(frozen=True)
class _Relation:
    """SQL of rows whose columns have plain names, so that features may be called anything."""

    sql: str
    columns: Mapping[str, Kind]
    columnar: bool = False
    """Whether columns are asked for apart from each other."""
    tallies: Mapping[str, str] = field(default_factory=dict)
    """By column: SQL of its values, the rows of each, and its hash; of those that may have few."""


_Tallies = Mapping[str, Sequence[Sequence[Any]]]


_PREDICTION, _CONFIDENCE = "p", "c"
_CONFIDENCE_CUT = Cut(kind="number", edges=tuple(twentieth / 20 for twentieth in range(1, 20)))
_SQL_TYPES: Mapping[Kind, str] = {"number": "DOUBLE", "category": "VARCHAR"}


def _kinds(spec: ModelSpec) -> dict[str, Kind]:
    return {
        _feature(index): "category" if feature.type is FeatureType.CATEGORY else "number"
        for index, feature in enumerate(spec.features.values())
    }


def _prediction_kind(spec: ModelSpec) -> Kind:
    return "category" if spec.task is Task.MULTICLASS else "number"


def _feature(index: int) -> str:
    return f"f{index}"


def _count(condition: str) -> str:
    """Rows that meet a condition; NULL of no rows at all, which `_number_of` reads: hundreds of coalesce take time."""
    return f"count_if({condition})"


def _number_of(values: Iterator[Any]) -> int:
    return int(next(values) or 0)


@dataclass(frozen=True)
class _Counter:
    """The aggregates that describe one column, and how to read them back, in the same order."""

    column: str
    kind: Kind
    asked: Cut | None
    distinct: bool = False

    @property
    def cut(self) -> Cut:
        """A column that changed its type is counted in one bin."""
        return self.asked if self.asked and self.asked.kind == self.kind else Cut(kind=self.kind)

    @property
    def expressions(self) -> list[str]:
        x = self.column
        sketch = [_sketch(x)] if self.distinct else []
        if self.kind == "category":
            # One histogram of places is five times as fast as a count for each name, and holds no others. Of given
            # places: DuckDB 2.0.0 groups others in a query of its own, for which it keeps all that is asked for beside.
            places = listing(map(str, range(1, len(self.cut.categories) + 1)))
            named = f"histogram_exact({_place(x, self.cut)}, {places})" if self.cut.categories else "NULL"
            return [f"count({x})", named, *sketch]
        # Counting what is at most an edge, for each edge, is three times as fast as DuckDB's histogram() with bins.
        at_most = (_count(f"{x} <= {number(edge)}") for edge in self.cut.edges)
        return [f"count({x})", f"min({x})", f"max({x})", f"sum({x})", *at_most, *sketch]

    @property
    def beyond(self) -> Iterator[str]:
        """SQL conditions of which one holds for an outlier."""
        x = self.column
        for operator, bound in (("<", self.cut.low), (">", self.cut.high)):
            if bound is not None:
                yield f"{x} {operator} {number(bound)}"
        if self.cut.complete and self.cut.categories:
            yield f"({x} IS NOT NULL AND coalesce({_place(x, self.cut)}, 0) = 0)"

    def tallied(self, values: Sequence[Sequence[Any]]) -> ColumnProfile:
        """What `read` makes of rows with these values: value, rows, and hash of each."""
        present = [(x, n) for x, n, *_ in values if x is not None]
        places = {sketch.place(hashed) for x, _, hashed in values if x is not None} if self.distinct else {}
        answers: list[Any] = [sum(n for _, n in present)]
        new: list[str] = []
        if self.kind == "category":
            known = {name: place for place, name in enumerate(self.cut.categories, start=1)}
            answers.append({known[x]: n for x, n in present if x in known})
            new = sorted({x[:_NAME] for x, _ in present if x not in known})[:_NEW]
        else:
            numbers = [x for x, _ in present]
            answers += [min(numbers, default=None), max(numbers, default=None), _sum([x * n for x, n in present])]
            answers += (sum(n for x, n in present if x <= edge) for edge in self.cut.edges)
        answers += [sketch.text(places)] if self.distinct else []
        column = self.read(sum(n for _, n, *_ in values), iter(answers))
        return column.model_copy(update={"new": tuple(new)})

    def read(self, rows: int, values: Iterator[Any]) -> ColumnProfile:
        present, cut = next(values), self.cut
        described = ColumnProfile(
            kind=self.kind, rows=rows, missing=rows - present, low=cut.low, high=cut.high, complete=cut.complete
        )
        found: dict[str, Any]
        if self.kind == "category":
            places = next(values) or {}
            categories = {name: places.get(place, 0) for place, name in enumerate(cut.categories, start=1)}
            found = {"categories": categories, "other": present - sum(categories.values())}
        else:
            low, high, total = next(values), next(values), next(values)
            at_most = [0, *(_number_of(values) for _ in cut.edges), present]
            counts = tuple(high - low for low, high in pairwise(at_most))
            found = {"min": low, "max": high, "sum": total or 0.0, "edges": cut.edges, "counts": counts}
        if self.distinct:
            found["sketch"] = _sketched(next(values))
        return described.model_copy(update=found)


def _sum(numbers: Sequence[float]) -> float:
    """As exact as can be; beyond the largest double it is infinite or no number, as DuckDB's is."""
    try:
        return fsum(numbers)
    except (OverflowError, ValueError):
        return sum(numbers)


def _place(column: str, cut: Cut) -> str:
    """SQL: the position of a category among those counted one by one, from 1; else NULL, or 0 in other dialects."""
    return f"array_position({listing(map(literal, cut.categories))}, {column})"


def _sketch(column: str) -> str:
    """SQL of a column's sketch: what no other engine has in this form, as `hash` differs from one to the next.

    The bits from 0 as a text; NULL of no values. Elsewhere it is an aggregate of the distinct values of `sketch.index`.
    """
    bit = f"CASE WHEN {column} IS NOT NULL THEN {index(f'hash({column})')} END"
    return f"bitstring_agg(({bit})::SMALLINT, 0::SMALLINT, {BUCKETS * LEVELS - 1}::SMALLINT)"


def _sketched(bits: str | None) -> Sketch:
    return Sketch(bits=f"{int(bits[::-1], 2):x}") if bits else Sketch()


def _read(db: duckdb.DuckDBPyConnection, source: Source, spec: ModelSpec) -> _Relation:
    features = {_feature(index): name for index, name in enumerate(spec.features)}
    answered = {_PREDICTION: "score" if spec.task is Task.BINARY else "prediction"}
    if source.kind == "captured":
        places = {column: column for column in features} | answered
        if spec.task is Task.MULTICLASS:
            places[_CONFIDENCE] = "list_max(map_values(scores))"
        captured = capture.relation(source.paths, spec, since=source.since, until=source.until)
        return _relation(spec, places, [_Table(captured, "malformed")])
    if spec.task is Task.MULTICLASS:
        answered[_CONFIDENCE] = "confidence"
    found = [_Table(table, types=_types(db, table)) for table in tables(source.paths)]
    for table in found:
        if absent := [name for name in spec.features if name not in table.types]:
            raise ValueError(f"no column {', '.join(absent)} in {table.sql}: describe files that have all features")
    everywhere = {
        column: name
        for column, name in answered.items()
        if found and name not in spec.features and all(name in table.types for table in found)
    }
    places = {column: identifier(name) for column, name in (features | everywhere).items()}
    relation = _relation(spec, places, found)
    if len(found) != 1:
        return relation
    ((table,), names) = found, [identifier(name) for name in spec.features]
    if table.sql.startswith("read_parquet"):
        likely = tally.likely(db, source.paths)
        values = {
            column: tally.values(
                table.sql, identifier(name), table.types[name], text=relation.columns[column] == "category"
            )
            for column, name in features.items()
            if name in likely
        }
    elif tally.all_likely(db, table.sql, names) and tally.count(db, table.sql, names):
        values = {column: tally.counted(place) for place, column in enumerate(features)}
    else:
        return relation
    tallies = {column: _tally(of, relation.columns[column]) for column, of in values.items()}
    return replace(relation, columnar=True, tallies=tallies)


def _tally(values: str, kind: Kind) -> str:
    return f"SELECT x, n, hash(x) FROM (SELECT {typed(tally.VALUE, kind)} AS x, {tally.ROWS} AS n FROM {values})"


def _tallies(db: duckdb.DuckDBPyConnection, relation: _Relation) -> _Tallies:
    """The values of the columns that have few."""
    found = ((column, tally.few(db, query)) for column, query in relation.tallies.items())
    return {column: _merged(values) for column, values in found if values is not None}


def _merged(values: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """The same, each value once: 1 and 1.0 are two texts, but one number."""
    merged: dict[Any, tuple[int, int]] = {}
    for x, n, hashed in values:
        merged[x] = (merged.get(x, (0, hashed))[0] + n, hashed)
    return [(x, n, hashed) for x, (n, hashed) in merged.items()]


@dataclass(frozen=True)
class _Table:
    """SQL of a table, of whether a row of it is malformed, and its columns' types where they are known."""

    sql: str
    malformed: str = "false"
    types: Mapping[str, str] = field(default_factory=dict)


def _relation(spec: ModelSpec, places: Mapping[str, str], found: Sequence[_Table]) -> _Relation:
    """Columns by their plain names, from where they are in each table."""
    kinds = _kinds(spec) | {_PREDICTION: _prediction_kind(spec), _CONFIDENCE: "number"}
    columns: dict[str, Kind] = {column: kinds[column] for column in places}
    if not found:
        places, found = dict.fromkeys(places, "NULL"), [_Table("(SELECT 1 WHERE false)")]
    sql = f"({' UNION ALL '.join(_select(table, places, columns) for table in found)})"
    if spec.task is Task.BINARY and _PREDICTION in columns:
        columns[_CONFIDENCE] = "number"
        likelier = f"CASE WHEN {_PREDICTION} >= 0.5 THEN {_PREDICTION} ELSE 1 - {_PREDICTION} END"
        sql = f"(SELECT *, {likelier} AS {_CONFIDENCE} FROM {sql})"
    return _Relation(sql, columns)


def _select(table: _Table, places: Mapping[str, str], columns: Mapping[str, Kind]) -> str:
    types = {identifier(name): given for name, given in table.types.items()}
    clean = (f"{typed(places[c], kind, types.get(places[c], '?'))} AS {c}" for c, kind in columns.items())
    return f"(SELECT {table.malformed} AS malformed, {', '.join(clean)} FROM {table.sql})"


def _types(db: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    return {name: given for name, given, *_ in db.execute(f"DESCRIBE FROM {table}").fetchall()}


def _cut_of(kind: Kind, values: Sequence[Sequence[Any]]) -> Cut:
    """Where a column is cut of which all values are known, and the rows of each."""
    if kind == "category":
        return _named(_ranked(values))
    numbers = sorted((x, n) for x, n, *_ in values if x is not None)
    if len(numbers) <= _FEW_VALUES:
        edges = _around([x for x, _ in numbers]) if numbers else ()
    else:
        at_most = [*accumulate(n for _, n in numbers)]
        # The place of a decile as DuckDB's quantile_disc has it.
        places = (at_most[-1] - at_most[-1] * (_BINS - i) // _BINS for i in range(1, _BINS))
        edges = tuple(sorted({numbers[bisect_left(at_most, max(1, place))][0] for place in places}))
    low, high = (numbers[0][0], numbers[-1][0]) if numbers else (None, None)
    return Cut(kind="number", edges=edges, low=low, high=high)


def _ranked(values: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    """The most frequent values as texts, as `_frequent` has them."""
    ranked = sorted((-n, x) for x, n, *_ in values if x is not None)
    return tuple(str(x) for _, x in ranked[: _CATEGORIES + 1])


def _deciles(db: duckdb.DuckDBPyConnection, relation: str, columns: list[str]) -> dict[str, Cut]:
    if not columns:
        return {}
    shares = listing(str(i / _BINS) for i in range(1, _BINS))
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE sampled AS SELECT {', '.join(columns)} FROM {relation} "
        f"USING SAMPLE reservoir({_SAMPLE} ROWS) REPEATABLE (0)"
    )
    asked = (f"quantile_disc({c}, {shares}), approx_count_distinct({c})" for c in columns)
    found = one_row(db, f"SELECT {', '.join(asked)} FROM sampled")
    few = {column for column, about in zip(columns, found[1::2], strict=True) if about <= 2 * _FEW_VALUES}
    values = {column: _values(db, column) for column in few}
    db.execute("DROP TABLE sampled")
    ends = one_row(db, f"SELECT {', '.join(f'min({c}), max({c})' for c in columns)} FROM {relation}")
    return {
        column: Cut(
            kind="number",
            edges=_around(values[column]) if values.get(column) else tuple(sorted({*(deciles or ())})),
            low=low,
            high=high,
        )
        for column, deciles, low, high in zip(columns, found[::2], ends[::2], ends[1::2], strict=True)
    }


def _values(db: duckdb.DuckDBPyConnection, column: str) -> list[float]:
    """The different values of the sample; none where they are too many for a bin each."""
    query = f"SELECT DISTINCT {column} FROM sampled WHERE {column} IS NOT NULL LIMIT {_FEW_VALUES + 1}"
    values = [value for (value,) in db.execute(query).fetchall()]
    return values if len(values) <= _FEW_VALUES else []


def _around(values: list[float]) -> tuple[float, ...]:
    """Edges that give each value a bin, and one to what is below all of them and one to what is above."""
    ordered = sorted(values)
    gap = min((high - low for low, high in pairwise(ordered)), default=max(1.0, abs(ordered[0])))
    return (ordered[0] - gap, *ordered)


def _categories(db: duckdb.DuckDBPyConnection, relation: str, column: str) -> Cut:
    return _named(_frequent(db, relation, column))


def _named(names: Sequence[str]) -> Cut:
    names = tuple(names)
    return Cut(kind="category", categories=names[:_CATEGORIES], complete=len(names) <= _CATEGORIES)


def _frequent(db: duckdb.DuckDBPyConnection, relation: str, column: str) -> tuple[str, ...]:
    """The most frequent values as texts, one more than are counted one by one where there are more."""
    rows = db.execute(
        f"SELECT {column} FROM {relation} WHERE {column} IS NOT NULL "
        f"GROUP BY {column} ORDER BY count(*) DESC, {column} LIMIT {_CATEGORIES + 1}"
    ).fetchall()
    return tuple(str(name) for (name,) in rows)


def _new(relation: str, column: str, described: ColumnProfile) -> str:
    """SQL of the names of the categories that the edges do not know, cut to `_NAME` characters."""
    known = ", ".join(map(literal, described.categories))
    return (
        f"SELECT DISTINCT left({column}, {_NAME}) AS name FROM {relation} "
        f"WHERE {column} IS NOT NULL {f'AND {column} NOT IN ({known})' if known else ''} ORDER BY name LIMIT {_NEW}"
    )
