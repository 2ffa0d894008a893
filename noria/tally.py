"""The different values of a column of Parquet, and how often each comes: of few values, everything else follows.

Parquet keeps such a column as places in a dictionary, and DuckDB groups by those places: that takes hardly longer than
adding the values up, and a quarter of what it takes to ask each row for its bin.
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from noria.sql import paths

MOST = 16_384
"""Different values that are few."""

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


def values(reader: str, column: str, sql_type: str) -> str:
    """SQL of the different values of a column of that type in Parquet, NULL included, and in how many rows each is.

    Whole numbers come as doubles: DuckDB 2.0.0 groups its own by their range, which takes twice as long.
    """
    value = f"TRY_CAST({column} AS DOUBLE)" if sql_type in WHOLE else column
    return f"(SELECT {value} AS {VALUE}, count(*) AS {ROWS} FROM {reader} GROUP BY {VALUE} LIMIT {MOST + 1})"


def few(db: duckdb.DuckDBPyConnection, query: str) -> Sequence[tuple[Any, ...]] | None:
    """The answer to a query with one row for each of `values`; None where they are more than few."""
    found = db.execute(query).fetchall()
    return found if len(found) <= MOST else None
