"""Labels that arrive late: files that name predictions by inference id and row, and what came of each."""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from noria import contract
from noria.spec import ModelSpec, Task
from noria.sql import HeaderError, csv_with_rejects, identifier, label, parquet


class LabelsError(ValueError):
    """A file that is no labels file; each of `problems` names the file, the field, the value and the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class LabelsFile(NamedTuple):
    path: Path
    name: str


def read_labels(db: duckdb.DuckDBPyConnection, files: Sequence[LabelsFile], spec: ModelSpec) -> None:
    """Fill table `label` (inference_id, row, target) from files, oldest first: a later label replaces an earlier one.

    Raises `LabelsError` with everything that is wrong with the first file in which something is.
    """
    kind = "DOUBLE" if spec.task is Task.REGRESSION else "VARCHAR"
    db.execute(f"CREATE TEMP TABLE label (inference_id VARCHAR, row BIGINT, target {kind})")
    for file in files:
        _read_file(db, file.path, spec, file.name)
        db.execute(
            "DELETE FROM label USING new_label n WHERE (label.inference_id, label.row) = (n.inference_id, n.row)"
        )
        db.execute("INSERT INTO label FROM new_label")


def _read_file(db: duckdb.DuckDBPyConnection, path: Path, spec: ModelSpec, name: str) -> None:
    """Fill table `new_label`."""
    kind = contract.format_of(name)
    if unreadable := contract.unreadable(path, name):
        raise LabelsError([f"{name}: {violation.message}" for violation in unreadable])
    try:
        reader = csv_with_rejects(path) if kind == "csv" else parquet([path])
        columns = {str(column) for column, *_ in db.execute(f"DESCRIBE FROM {reader}").fetchall()}
        absent = [column for column in ("inference_id", spec.target) if column not in columns]
        if absent:
            found = ", ".join(map(repr, sorted(columns)[:20]))
            raise LabelsError([f"{name}: column {column!r} is missing among {found}: add it" for column in absent])
        place = "CAST(row AS VARCHAR)" if "row" in columns else "'0'"
        db.execute(
            "CREATE OR REPLACE TEMP TABLE told AS SELECT "
            f"CAST(inference_id AS VARCHAR) AS inference_id, {place} AS row, "
            f"CAST({identifier(spec.target)} AS VARCHAR) AS target FROM {reader}"
        )
        refused = contract.refused_lines(db) if kind == "csv" else []
    except HeaderError as error:
        raise LabelsError([f"{name}: {error}"]) from error
    except duckdb.Error as error:
        # Whatever a file does to the reader is a finding about the file.
        raise LabelsError([f"{name}: {contract.cannot_read(kind, error)}"]) from error
    problems = [f"{name}: lines {', '.join(map(str, v.lines))}: {v.message}" for v in refused]
    problems += _wrong(db, spec, name)
    if problems:
        raise LabelsError(problems)
    db.execute(
        "CREATE OR REPLACE TEMP TABLE new_label AS SELECT "
        "inference_id, CAST(TRY_CAST(row AS DOUBLE) AS BIGINT) AS row, "
        f"{outcome('target', spec.task)} AS target FROM told"
    )


def _wrong(db: duckdb.DuckDBPyConnection, spec: ModelSpec, name: str) -> Iterator[str]:
    place = "TRY_CAST(row AS DOUBLE)"
    what = "is no finite number" if spec.task is Task.REGRESSION else "is empty"
    for column, shown, broken, problem in (
        ("inference_id", "inference_id", "coalesce(inference_id, '') = ''", "is empty: name the request it belongs to"),
        (
            "row",
            "row",
            f"NOT coalesce({place} >= 0 AND {place} < 1e15 AND {place} = floor({place}), false)",
            "is no whole number from 0: number the predictions of each request from 0, or leave the column out",
        ),
        (
            spec.target,
            "target",
            f"{outcome('target', spec.task)} IS NULL",
            f"{what}: leave out rows whose outcome is not known yet",
        ),
    ):
        count, samples = _one(db, f"SELECT count(*), min({shown}, 3) FROM told WHERE {broken}")
        if count:
            yield f"{name}: column {column!r}: in {count:,} rows {_quoted(samples)} {problem}"
    count, samples = _one(
        db,
        "SELECT count(*), min(inference_id || ' row ' || row, 3) "
        "FROM (SELECT inference_id, row FROM told GROUP BY ALL HAVING count(*) > 1)",
    )
    if count:
        yield (
            f"{name}: columns 'inference_id' and 'row': {count:,} pairs occur more than once, as in "
            f"{_quoted(samples)}: give each prediction one label"
        )


def _quoted(samples: Sequence[str] | None) -> str:
    return ", ".join(repr(sample[:80]) for sample in samples or [""])


def outcome(column: str, task: Task) -> str:
    """SQL: a finite number or a label; NULL for what is neither."""
    if task is not Task.REGRESSION:
        return label(column)
    return f"CASE WHEN isfinite(TRY_CAST({column} AS DOUBLE)) THEN TRY_CAST({column} AS DOUBLE) END"


def _one(db: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    (row,) = db.execute(query).fetchall()
    return tuple(row)
