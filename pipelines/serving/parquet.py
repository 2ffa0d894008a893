"""Rows of a Parquet body, read by DuckDB: a third of the size of pyarrow, the other reader that needs no pandas."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from pipelines.serving.inference import Refused, refused

MOST_VALUES, MOST_TEXT = 500_000, 2**24
"""Of the features, in all rows; bytes. A few kilobytes of Parquet can hold any number of repeated ones, where other
formats hold what the body has room for (6 MB at most: InvokeEndpoint)."""

RESOURCES: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "256MB", "threads": 1}

FLOATS = ("float", "double")
NUMBERS = (
    *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "decimal", *FLOATS),
    *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"),
)
TEXT, NOTHING = "varchar", "null"


def rows(body: bytes, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each row as a dict of those features that the file has, None where missing. Raises `Refused`.

    NaN, with which data frames mark what is missing, is None too.
    """
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file, duckdb.connect(config=RESOURCES) as db:
        file.write(body)
        file.flush()
        try:
            relation = db.read_parquet(file.name)
            kinds = {n: k.id for n, k in zip(relation.columns, relation.types, strict=True) if n in names}
            _check(db, relation, kinds, file.name)
            table = relation.select(*map(_selected, kinds, kinds.values())).fetchall() if kinds else []
        except duckdb.OutOfMemoryException:
            raise refused(f"the body needs more than {RESOURCES['memory_limit']} to be read") from None
        except duckdb.Error as error:
            raise refused(f"the body is not Parquet: {error}") from None
    if not table:
        raise refused("the body has no rows, or none of the features")
    if infinite := [i for i, row in enumerate(table) if math.inf in row or -math.inf in row]:
        raise Refused(400, [{"row": i, "problem": "a value is not a finite number"} for i in infinite[:20]])
    return [dict(zip(kinds, row, strict=True)) for row in table]


def _check(
    db: duckdb.DuckDBPyConnection, relation: duckdb.DuckDBPyRelation, kinds: Mapping[str, str], path: str
) -> None:
    """Refuse what would take too long or too much memory, before any of it is a row."""
    if strange := [name for name, kind in kinds.items() if kind not in (*NUMBERS, TEXT, NOTHING)]:
        raise Refused(400, [{"field": n, "problem": f"a column of {kinds[n]}: send numbers or text"} for n in strange])
    ((count,),) = db.execute("SELECT num_rows FROM parquet_file_metadata(?)", [path]).fetchall()
    if count > (most := MOST_VALUES // max(1, len(kinds))):
        raise refused(f"the body has {count} rows: send {most} at a time at most, with {len(kinds)} features")
    lengths = [duckdb.FunctionExpression("strlen", duckdb.ColumnExpression(n)) for n in kinds if kinds[n] == TEXT]
    sums = relation.aggregate([duckdb.FunctionExpression("sum", length) for length in lengths]) if lengths else None
    if sums and (size := sum(total or 0 for total in sums.fetchall()[0])) > MOST_TEXT:
        raise refused(f"the body has {size} bytes of text: send {MOST_TEXT} at a time at most")


def _selected(name: str, kind: str) -> duckdb.Expression:
    column = duckdb.ColumnExpression(name)
    if kind not in FLOATS:
        return column
    nan = duckdb.FunctionExpression("isnan", column)
    return duckdb.CaseExpression(nan, duckdb.ConstantExpression(None)).otherwise(column)
