"""Datasets become a training and a test set: typed, without duplicates, split by time and never at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from noria.spec import FeatureType, ModelSpec, Task
from noria.sql import Resources, connect, identifier, label, literal, tables

ROWS = "rows.parquet"
"""Name of the prepared rows in the folders of the training and the test set."""

_LEAST_TEST = 500
"""Rows; fewer say too little about which of two models is the better one."""

_TYPES = {FeatureType.INTEGER: "BIGINT", FeatureType.NUMBER: "DOUBLE", FeatureType.CATEGORY: "VARCHAR"}


class Unusable(Exception):
    """The data cannot be split; the message says why."""


@dataclass(frozen=True)
class Split:
    """How many rows there were, and where time parts them: `test` starts at `boundary`."""

    read: int
    unlabelled: int
    duplicates: int
    train: int
    test: int
    boundary: datetime

    def __str__(self) -> str:
        return (
            f"{self.read} rows read, {self.unlabelled} without a target and {self.duplicates} duplicates left out; "
            f"{self.train} rows before {self.boundary} to train on, {self.test} rows since then to test on"
        )


def prepare(
    files: Sequence[Path], spec: ModelSpec, *, train: Path, test: Path, resources: Resources, fresh_rows: int = 0
) -> Split:
    """Write `train`/rows.parquet and `test`/rows.parquet, both in order of time.

    The newest share `spec.train.holdout` of the rows is the test set, but at most half of `fresh_rows`, the rows that
    the champion was not trained on (0: there is no champion): in a long history all that is new would be held out, and
    the new model would know nothing that the old one does not. Rows of one time stay together. Raises `Unusable`.
    """
    if not files:
        raise Unusable("the manifest names no CSV or Parquet file: check the request of this training")
    with connect(resources) as db:
        db.execute(f"CREATE TABLE every AS {' UNION ALL '.join(_select(table, spec) for table in tables(files))}")
        target, time = identifier(spec.target), identifier(spec.time)
        db.execute(f"CREATE TABLE kept AS SELECT DISTINCT * FROM every WHERE {target} IS NOT NULL")  # noqa: S608
        read, labelled = _pair(db, f"SELECT count(*), count({target}) FROM every")  # noqa: S608
        kept, timed = _pair(db, f"SELECT count(*), count({time}) FROM kept")  # noqa: S608
        if timed < kept:
            raise Unusable(f"{kept - timed} rows have no {spec.time}, and rows are split by it: correct the data")
        boundary = _boundary(db, spec, kept, fresh_rows)
        counts = {}
        for folder, side in ((train, "<"), (test, ">=")):
            folder.mkdir(parents=True, exist_ok=True)
            rows = db.sql(f"SELECT * FROM kept WHERE {time} {side} ? ORDER BY ALL", params=[boundary])  # noqa: S608
            rows.write_parquet(str(folder / ROWS))
            counts[side] = _pair(db, f"SELECT count(*), 0 FROM read_parquet({literal(str(folder / ROWS))})")[0]  # noqa: S608
    return Split(
        read=read,
        unlabelled=read - labelled,
        duplicates=labelled - kept,
        train=counts["<"],
        test=counts[">="],
        boundary=boundary,
    )


def _boundary(db: duckdb.DuckDBPyConnection, spec: ModelSpec, rows: int, fresh_rows: int) -> datetime:
    """The time of the first test row; earlier rows must remain."""
    time = identifier(spec.time)
    share = int(rows * (1 - spec.train.holdout))
    offset = max(share, rows - max(fresh_rows // 2, _LEAST_TEST)) if fresh_rows else share
    found = db.execute(
        f"SELECT {time}, (SELECT min({time}) FROM kept) FROM kept ORDER BY {time} LIMIT 1 OFFSET {offset}"  # noqa: S608
    ).fetchall()
    if not found or found[0][0] == found[0][1]:
        raise Unusable(
            f"{rows} rows cannot be split by {spec.time} with a holdout of {spec.train.holdout:g}: "
            "there is no earlier time left to train on; upload rows of more points in time"
        )
    boundary: datetime = found[0][0]
    return boundary


def _select(table: str, spec: ModelSpec) -> str:
    """The spec's columns of a relation in the spec's types; time first, so that ordering by all columns is by time."""
    time = identifier(spec.time)
    # Without an offset a time is UTC; with one it is brought there.
    moment = f"CAST(CAST({time} AS TIMESTAMPTZ) AS TIMESTAMP) AS {time}"
    columns = [(name, _TYPES[feature.type]) for name, feature in spec.features.items()]
    columns += [(spec.id, "VARCHAR")] if spec.id else []
    # What is empty is missing: in CSV it is NULL already, in a column of texts of Parquet it need not be.
    casts = [f"CAST(nullif(CAST({c} AS VARCHAR), '') AS {kind}) AS {c}" for c, kind in _quoted(columns)]
    return f"SELECT {', '.join([moment, *casts, _target(spec)])} FROM {table}"  # noqa: S608


def _quoted(columns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(identifier(name), kind) for name, kind in columns]


def _target(spec: ModelSpec) -> str:
    target = identifier(spec.target)
    if spec.task is Task.REGRESSION:
        return f"CAST({target} AS DOUBLE) AS {target}"
    return f"{label(f'CAST({target} AS VARCHAR)')} AS {target}"


def _pair(db: duckdb.DuckDBPyConnection, query: str) -> tuple[int, int]:
    ((first, second),) = db.execute(query).fetchall()
    return first, second
