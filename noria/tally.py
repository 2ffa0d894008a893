"""The different values of a column, and how often each comes: of few values, everything else follows.

Parquet keeps such a column as places in a dictionary, and DuckDB groups by those places: that takes hardly longer than
adding the values up, and a quarter of what it takes to ask each row for its bin. CSV is read once, and grouped by all
of its columns, each for itself: that takes less than reading each value as a number and asking for its bin.
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from noria.sql import one_row, paths

MOST = 16_384
"""Different values that are few."""

WIDEST = 24
"""Columns of CSV that are counted at once: for each, every thread keeps a table of some megabytes."""

_FIRST_ROWS = 20_480

VALUE, ROWS = "value", "n"
"""Columns of `values`."""

_BYTES = 3
"""Of a value, uncompressed: a place in a dictionary of few values takes at most two."""

WHOLE = frozenset({"BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER", "USMALLINT", "UTINYINT"})
"""Types in SQL, all values of which are finite numbers."""


def likely(db: duckdb.DuckDBPyConnection, files: Iterable[Path]) -> frozenset[str]:
    """The columns that may have few values, as the files' metadata let hope."""
    found = db.execute(
        f"SELECT path_in_schema FROM parquet_metadata({paths(files)}) GROUP BY path_in_schema "
        f"HAVING sum(total_uncompressed_size) < {_BYTES} * sum(num_values) OR sum(num_values) <= {MOST}"
    ).fetchall()
    return frozenset(name for (name,) in found)


def all_likely(db: duckdb.DuckDBPyConnection, reader: str, columns: Sequence[str]) -> bool:
    """Whether those columns of CSV all may have few values, as the first rows let hope, and are not too many."""
    if not 0 < len(columns) <= WIDEST:
        return False
    first = f"(SELECT {', '.join(columns)} FROM {reader} LIMIT {_FIRST_ROWS})"
    distinct = one_row(db, f"SELECT {', '.join(f'approx_count_distinct({column})' for column in columns)} FROM {first}")
    return all(values <= MOST // 2 for values in distinct)


def count(
    db: duckdb.DuckDBPyConnection, reader: str, columns: Sequence[str], beside: Mapping[str, str] | None = None
) -> bool:
    """Count the values of columns, as texts, in one scan of a relation, for `counted`; False where memory is too small.

    Aggregates `beside`, by name, are found for the rows of each value; those of the first column are all rows.
    """
    # Columns of a file may be called as what is found is called here: nothing is named twice.
    place = "CASE " + " ".join(f"WHEN grouping({column}) = 0 THEN {i}" for i, column in enumerate(columns)) + " END"
    value = (
        "CASE " + " ".join(f"WHEN grouping({column}) = 0 THEN CAST({column} AS VARCHAR)" for column in columns) + " END"
    )
    more = "".join(f", {aggregate} AS {name}" for name, aggregate in (beside or {}).items())
    try:
        db.execute(
            f"CREATE OR REPLACE TEMP TABLE tally AS "
            f"SELECT {place} AS place, {value} AS {VALUE}, count(*) AS {ROWS}{more} "
            f"FROM {reader} GROUP BY GROUPING SETS ({', '.join(f'({column})' for column in columns)})"
        )
    except duckdb.OutOfMemoryException:
        return False  # the first rows were unlike the others
    return True


def counted(place: int) -> str:
    """SQL of what `count` found of the column at that place, as `values` has it."""
    return f"(SELECT * FROM tally WHERE place = {place} LIMIT {MOST + 1})"


def values(reader: str, column: str, sql_type: str, *, text: bool) -> str:
    """SQL of the different values of a column of that type in Parquet, NULL included, and in how many rows each is.

    They are wanted as a `text`, or as a number. Whole numbers come as doubles: DuckDB 2.0.0 groups its own by their
    range, which takes twice as long.
    """
    number = f"TRY_CAST({column} AS DOUBLE)" if sql_type in WHOLE else column
    value = f"CAST({column} AS VARCHAR)" if text else number
    return f"(SELECT {value} AS {VALUE}, count(*) AS {ROWS} FROM {reader} GROUP BY ALL LIMIT {MOST + 1})"


def few(db: duckdb.DuckDBPyConnection, query: str) -> Sequence[tuple[Any, ...]] | None:
    """The answer to a query with one row for each of `values`; None where they are more, or memory too small."""
    try:
        found = db.execute(query).fetchall()
    except duckdb.OutOfMemoryException:
        return None  # few, but long
    return found if len(found) <= MOST else None
