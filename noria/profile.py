"""A profile describes a set of rows in a few kilobytes; profiles of parts merge to the profile of the whole.

files, captured requests ─ Source ─ edges() ─ Edges        once, from the reference rows
                                  ─ profile() ─ Profile    one scan, on fixed edges
                                                Profile, Profile ─ merge() ─ Profile
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import duckdb
from pydantic import BaseModel, ConfigDict, Field

from noria import capture
from noria.spec import FeatureType, ModelSpec, Task
from noria.sql import MODEST, Resources, connect, identifier, listing, literal, number, tables

Kind = Literal["number", "category"]

_BINS = 10
_FEW_VALUES = 8  # with a bin below and one above them they make 10
_CATEGORIES = 100
_NEW = 20
_SAMPLE = 200_000


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
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")


class Cut(Part):
    """Where one column is cut: inner bin edges of a number, or the names of the categories counted one by one."""

    kind: Kind
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()


class Edges(Part):
    """Where all columns are cut."""

    features: dict[str, Cut]
    prediction: Cut | None = None


class ColumnProfile(Part):
    """One column. `rows` counts all rows, `missing` those without a finite value of the column's kind.

    Numbers: `counts[i]` values x with edges[i-1] < x <= edges[i]; the first and the last bin are open.
    Categories: `categories` holds the count of each category named by the edges, `other` the rows of all others, and
    `new` the alphabetically first names of those, at most 20.
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

    @property
    def mean(self) -> float | None:
        present = self.rows - self.missing
        return self.sum / present if self.kind == "number" and present else None

    @property
    def cut(self) -> Cut:
        return Cut(kind=self.kind, edges=self.edges, categories=tuple(self.categories))

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
        return (self.kind, self.edges, {*self.categories}) == (other.kind, other.edges, {*other.categories})

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
            }
        )


class Profile(Part):
    """What a set of rows looks like. `malformed` counts captured records that could not be read and are in no count."""

    model: str
    rows: int
    malformed: int = 0
    features: dict[str, ColumnProfile]
    prediction: ColumnProfile | None = None

    @property
    def edges(self) -> Edges:
        """Where this profile was cut: what a window that is to be compared with it must use."""
        return Edges(
            features={name: column.cut for name, column in self.features.items()},
            prediction=self.prediction.cut if self.prediction else None,
        )

    def merge(self, other: Self) -> Self:
        """Both sets of rows together; ValueError when models, columns or edges differ."""
        if (self.model, {*self.features}) != (other.model, {*other.features}):
            raise ValueError(f"profiles of {self.model} and {other.model} with different columns do not merge")
        if (self.prediction is None) != (other.prediction is None):
            raise ValueError("a profile with predictions does not merge with one without")
        predictions = self.prediction and other.prediction and self.prediction.merge(other.prediction)
        return self.model_copy(
            update={
                "rows": self.rows + other.rows,
                "malformed": self.malformed + other.malformed,
                "features": {name: column.merge(other.features[name]) for name, column in self.features.items()},
                "prediction": predictions,
            }
        )


def edges(source: Source, spec: ModelSpec, *, resources: Resources = MODEST) -> Edges:
    """Where to cut, found in reference rows; the same rows give the same edges, in memory that does not grow with them.

    Numbers: deciles of at most 200,000 rows, or one bin per value where there are at most 8. Categories: the 100 most
    frequent.
    """
    with connect(resources) as db:
        relation = _read(db, source, spec)
        cuts = {
            column: Cut(kind=kind, categories=_frequent(db, relation, column))
            for column, kind in relation.columns.items()
            if kind == "category"
        }
        cuts |= _deciles(db, relation, [column for column, kind in relation.columns.items() if kind == "number"])
    return Edges(
        features={name: cuts[_feature(index)] for index, name in enumerate(spec.features)},
        prediction=cuts.get(_PREDICTION),
    )


def profile(source: Source, spec: ModelSpec, cut: Edges | None = None, *, resources: Resources = MODEST) -> Profile:
    """Describe all rows of `source` in one scan.

    Without `cut`, edges are found first. A column that `cut` does not know is counted in one bin. Where there are
    categories that it does not know, naming them costs another scan.
    """
    cut = cut or edges(source, spec, resources=resources)
    with connect(resources) as db:
        relation = _read(db, source, spec)
        scan = Scan(spec, cut, predicted=_PREDICTION in relation.columns)
        wanted = [_count("malformed"), *scan.expressions]
        malformed, total, *values = _row(db, f"SELECT {', '.join(wanted)} FROM {relation.sql}")
        return scan.name(db, relation.sql, scan.read([total - malformed, *values], malformed=malformed))


class Scan:
    """What a profile asks of a relation, so that other questions are asked in the same scan:

        scan = Scan(spec, baseline.edges, present=names)
        values = SELECT {scan.expressions}, … FROM (SELECT {scan.columns}, … FROM file)
        found = scan.read(values)

    `present` are the features that the relation has (all, when left out); the profile describes those alone.
    `predicted` tells whether it has a column of predictions, `p`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        cut: Edges | None = None,
        *,
        present: Collection[str] | None = None,
        predicted: bool = False,
    ) -> None:
        self._spec = spec
        self._places = {name: _feature(i) for i, name in enumerate(spec.features) if present is None or name in present}
        kinds = _kinds(spec)
        cuts = {_feature(i): cut.features.get(name) if cut else None for i, name in enumerate(spec.features)}
        self._counters = {column: _Counter(column, kinds[column], cuts[column]) for column in self._places.values()}
        if predicted:
            kind = _prediction_kind(spec)
            self._counters[_PREDICTION] = _Counter(_PREDICTION, kind, cut.prediction if cut else None)

    @property
    def columns(self) -> list[str]:
        """SQL that selects `f0` … `fn`, typed, from a relation whose columns have the features' names."""
        kinds = _kinds(self._spec)
        return [f"{typed(identifier(name), kinds[column])} AS {column}" for name, column in self._places.items()]

    @property
    def expressions(self) -> list[str]:
        """SQL aggregates over `f0` … `fn` (and `p`)."""
        return ["count(*)", *(e for counter in self._counters.values() for e in counter.expressions)]

    def read(self, values: Sequence[Any], *, malformed: int = 0) -> Profile:
        """The profile, from the values of `expressions` in their order."""
        rows, *counts = values
        rest = iter(counts)
        columns = {column: counter.read(rows, rest) for column, counter in self._counters.items()}
        return Profile(
            model=self._spec.model,
            rows=rows,
            malformed=malformed,
            features={name: columns[column] for name, column in self._places.items()},
            prediction=columns.get(_PREDICTION),
        )

    def name(self, db: duckdb.DuckDBPyConnection, relation: str, found: Profile) -> Profile:
        """The same profile with the names of categories that the edges do not know: a second scan, where any are."""
        features = {
            name: column.model_copy(update={"new": _new(db, relation, self._places[name], column)})
            for name, column in found.features.items()
            if column.other
        }
        prediction = found.prediction
        if prediction and prediction.other:
            prediction = prediction.model_copy(update={"new": _new(db, relation, _PREDICTION, prediction)})
        return found.model_copy(update={"features": found.features | features, "prediction": prediction})


def typed(expression: str, kind: Kind) -> str:
    """SQL of a text, or of a finite double; NULL for what is neither."""
    cast = f"TRY_CAST({expression} AS {_SQL_TYPES[kind]})"
    return cast if kind == "category" else f"CASE WHEN isfinite({cast}) THEN {cast} END"


def column(values: Sequence[float | str | None], kind: Kind, cut: Cut | None = None) -> ColumnProfile:
    """Describe one column that is in memory: floats or texts, None where missing. Without `cut`, edges are found."""
    with connect(MODEST) as db:
        texts = [value if value is None else str(value) for value in values]
        db.execute("CREATE TEMP TABLE given AS SELECT unnest(?::VARCHAR[]) AS x", [texts])
        return column_of(db, "SELECT x FROM given", kind, cut)


def column_of(db: duckdb.DuckDBPyConnection, query: str, kind: Kind, cut: Cut | None = None) -> ColumnProfile:
    """Describe column `x` of a query."""
    relation = _Relation(_select(f"({query})", "false", {_PREDICTION: "x"}, {_PREDICTION: kind}), {_PREDICTION: kind})
    if cut is None and kind == "category":
        cut = Cut(kind=kind, categories=_frequent(db, relation, _PREDICTION))
    elif cut is None:
        cut = _deciles(db, relation, [_PREDICTION])[_PREDICTION]
    counter = _Counter(_PREDICTION, kind, cut)
    total, *counts = _row(db, f"SELECT {', '.join(['count(*)', *counter.expressions])} FROM {relation.sql}")
    return counter.read(total, iter(counts))


@dataclass(frozen=True)
class _Relation:
    """SQL of rows whose columns have plain names, so that features may be called anything."""

    sql: str
    columns: Mapping[str, Kind]


_PREDICTION = "p"
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
    """Rows that meet a condition; DuckDB's count_if says NULL when there are no rows at all."""
    return f"coalesce(count_if({condition}), 0)"


@dataclass(frozen=True)
class _Counter:
    """The aggregates that describe one column, and how to read them back, in the same order."""

    column: str
    kind: Kind
    cut: Cut | None

    @property
    def edges(self) -> tuple[float, ...]:
        return self.cut.edges if self.cut and self.cut.kind == self.kind else ()

    @property
    def categories(self) -> tuple[str, ...]:
        return self.cut.categories if self.cut and self.cut.kind == self.kind else ()

    @property
    def expressions(self) -> list[str]:
        x = self.column
        if self.kind == "category":
            return [f"count({x})", *(_count(f"{x} = {literal(name)}") for name in self.categories)]
        # Counting what is at most an edge, for each edge, is three times as fast as DuckDB's histogram().
        return [f"count({x})", f"min({x})", f"max({x})", f"sum({x})"] + [
            _count(f"{x} <= {number(edge)}") for edge in self.edges
        ]

    def read(self, rows: int, values: Iterator[Any]) -> ColumnProfile:
        present = next(values)
        if self.kind == "category":
            categories = {name: next(values) for name in self.categories}
            other = present - sum(categories.values())
            return ColumnProfile(kind="category", rows=rows, missing=rows - present, categories=categories, other=other)
        low, high, total = next(values), next(values), next(values)
        at_most = [0, *(next(values) for _ in self.edges), present]
        return ColumnProfile(
            kind="number",
            rows=rows,
            missing=rows - present,
            min=low,
            max=high,
            sum=total or 0.0,
            edges=self.edges,
            counts=tuple(high - low for low, high in pairwise(at_most)),
        )


def _read(db: duckdb.DuckDBPyConnection, source: Source, spec: ModelSpec) -> _Relation:
    features = {_feature(index): name for index, name in enumerate(spec.features)}
    columns = _kinds(spec)
    predicted = "score" if spec.task is Task.BINARY else "prediction"
    prediction = {_PREDICTION: _prediction_kind(spec)}
    if source.kind == "captured":
        columns |= prediction
        captured = capture.relation(source.paths, spec, since=source.since, until=source.until)
        places = {column: column for column in features} | {_PREDICTION: predicted}
        return _Relation(_select(captured, "malformed", places, columns), columns)
    found = {table: _names(db, table) for table in tables(source.paths)}
    for table, names in found.items():
        if absent := [name for name in spec.features if name not in names]:
            raise ValueError(f"no column {', '.join(absent)} in {table}: describe files that have all features")
    if found and all(predicted in names for names in found.values()):
        columns |= prediction
    places = {column: identifier(name) for column, name in [*features.items(), (_PREDICTION, predicted)]}
    parts = [_select(table, "false", places, columns) for table in found] or [_nothing(columns)]
    return _Relation(f"({' UNION ALL '.join(parts)})", columns)


def _select(table: str, malformed: str, places: Mapping[str, str], columns: Mapping[str, Kind]) -> str:
    """Typed columns by their plain names."""
    clean = (f"{typed(places[column], kind)} AS {column}" for column, kind in columns.items())
    return f"(SELECT {malformed} AS malformed, {', '.join(clean)} FROM {table})"


def _nothing(columns: Mapping[str, Kind]) -> str:
    return _select("(SELECT 1 WHERE false)", "false", dict.fromkeys(columns, "NULL"), columns)


def _names(db: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    return {name for name, *_ in db.execute(f"DESCRIBE FROM {table}").fetchall()}


def _deciles(db: duckdb.DuckDBPyConnection, relation: _Relation, columns: list[str]) -> dict[str, Cut]:
    shares = listing(str(i / _BINS) for i in range(1, _BINS))
    wanted = ", ".join(
        f"quantile_disc({c}, {shares}), "
        f"CASE WHEN count(DISTINCT {c}) <= {_FEW_VALUES} THEN list(DISTINCT {c}) FILTER ({c} IS NOT NULL) END"
        for c in columns
    )
    if not columns:
        return {}
    sample = f"(FROM {relation.sql} USING SAMPLE reservoir({_SAMPLE} ROWS) REPEATABLE (0))"
    found = _row(db, f"SELECT {wanted} FROM {sample}")
    return {
        column: Cut(kind="number", edges=_around(values) if values else tuple(sorted({*(deciles or ())})))
        for column, deciles, values in zip(columns, found[::2], found[1::2], strict=True)
    }


def _around(values: list[float]) -> tuple[float, ...]:
    """Edges that give each value a bin, and one to what is below all of them and one to what is above."""
    ordered = sorted(values)
    gap = min((high - low for low, high in pairwise(ordered)), default=max(1.0, abs(ordered[0])))
    return (ordered[0] - gap, *ordered)


def _frequent(db: duckdb.DuckDBPyConnection, relation: _Relation, column: str) -> tuple[str, ...]:
    rows = db.execute(
        f"SELECT {column} FROM {relation.sql} WHERE {column} IS NOT NULL "
        f"GROUP BY {column} ORDER BY count(*) DESC, {column} LIMIT {_CATEGORIES}"
    ).fetchall()
    return tuple(name for (name,) in rows)


def _new(db: duckdb.DuckDBPyConnection, relation: str, column: str, described: ColumnProfile) -> tuple[str, ...]:
    """Names of the categories that the edges do not know, cut to 100 characters."""
    known = ", ".join(map(literal, described.categories))
    rows = db.execute(
        f"SELECT DISTINCT left({column}, 100) AS name FROM {relation} "
        f"WHERE {column} IS NOT NULL {f'AND {column} NOT IN ({known})' if known else ''} ORDER BY name LIMIT {_NEW}"
    ).fetchall()
    return tuple(name for (name,) in rows)


def _row(db: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    (row,) = db.execute(query).fetchall()
    return tuple(row)
