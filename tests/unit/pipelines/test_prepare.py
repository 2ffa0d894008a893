"""Preparing: one table from many files, split where time says."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from noria.spec import Task
from pipelines.tabular.prepare import ROWS, Split, Unusable, prepare


def read(folder: Path, columns: str = "*") -> list[tuple[Any, ...]]:
    with duckdb.connect() as db:
        return db.execute(f"SELECT {columns} FROM read_parquet('{folder / ROWS}')").fetchall()  # noqa: S608


def split(tables: Any, folder: Path, files: Sequence[Path], **spec: Any) -> Split:
    task = spec.pop("task", Task.BINARY)
    return prepare(
        files,
        tables.spec(task, **spec),
        train=folder / "train",
        test=folder / "test",
        resources=tables.resources,
    )


def test_the_newest_share_of_the_rows_is_the_test_set(tables: Any, tmp_path: Path) -> None:
    rows = tables.rows(Task.BINARY, 100)
    done = split(tables, tmp_path, [tables.csv(tmp_path / "d.csv", rows[::-1])], train={"holdout": 0.25})
    assert (done.train, done.test) == (75, 25)
    train, test = ([at for (at,) in read(tmp_path / part, '"at"')] for part in ("train", "test"))
    assert train == sorted(train)
    assert test == sorted(test)
    assert max(train) < done.boundary == min(test)


@pytest.mark.parametrize(
    ("fresh_rows", "test"),
    [(0, 1000), (1600, 800), (10_000, 1000), (10, 500)],
    ids=["no champion", "half of what is new", "the share is less", "enough to judge by"],
)
def test_at_most_half_of_what_the_champion_has_not_seen_is_held_out(
    tables: Any, tmp_path: Path, fresh_rows: int, test: int
) -> None:
    done = prepare(
        [tables.csv(tmp_path / "d.csv", tables.rows(Task.BINARY, 4000))],
        tables.spec(Task.BINARY, train={"holdout": 0.25}),
        train=tmp_path / "train",
        test=tmp_path / "test",
        resources=tables.resources,
        fresh_rows=fresh_rows,
    )
    assert done.test == test


def test_rows_of_one_time_stay_together(tables: Any, tmp_path: Path) -> None:
    rows = tables.rows(Task.BINARY, 100)
    for row in rows[70:]:
        row["at"] = rows[70]["at"]
    done = split(tables, tmp_path, [tables.csv(tmp_path / "d.csv", rows)], train={"holdout": 0.1})
    assert (done.train, done.test) == (70, 30)


def test_csv_and_parquet_make_one_table_without_duplicates(tables: Any, tmp_path: Path) -> None:
    rows = tables.rows(Task.BINARY, 100)
    first = tables.csv(tmp_path / "first" / "data.csv", rows[:60])
    later = tables.csv(tmp_path / "later.csv", rows[50:])
    with duckdb.connect() as db:
        query = f"""SELECT y, "at", size, color, x, 'more' AS more FROM read_csv('{later}')"""  # noqa: S608
        db.sql(query).write_parquet(str(tmp_path / "data.parquet"))
    done = split(tables, tmp_path, [first, tmp_path / "data.parquet"])
    assert (done.read, done.duplicates, done.train + done.test) == (110, 10, 100)
    types = read(tmp_path / "train", 'typeof("at"), typeof(x), typeof(color), typeof(size), typeof(y)')[0]
    assert types == ("TIMESTAMP", "DOUBLE", "VARCHAR", "BIGINT", "VARCHAR")


@pytest.mark.parametrize(
    ("labels", "written"),
    [(("0", "1"), {"0", "1"}), (("0.0", "1.0"), {"0", "1"}), (("True", "false"), {"true", "false"})],
)
def test_a_label_is_written_one_way(tables: Any, tmp_path: Path, labels: tuple[str, str], written: set[str]) -> None:
    rows = tables.rows(Task.BINARY, 50)
    for row in rows:
        row["y"] = labels[row["y"]]
    split(tables, tmp_path, [tables.csv(tmp_path / "d.csv", rows)])
    assert {label for (label,) in read(tmp_path / "train", "y")} == written


def test_rows_without_a_target_are_left_out_and_counted(tables: Any, tmp_path: Path) -> None:
    rows = tables.rows(Task.REGRESSION, 50)
    for row in rows[:5]:
        row["y"] = None
    done = split(tables, tmp_path, [tables.csv(tmp_path / "d.csv", rows)], task=Task.REGRESSION)
    assert (done.read, done.unlabelled, done.train + done.test) == (50, 5, 45)
    assert "5 without a target" in str(done)


def test_times_with_an_offset_are_brought_to_utc(tables: Any, tmp_path: Path) -> None:
    rows = tables.rows(Task.BINARY, 50)
    rows[0]["at"] = "2026-01-01T00:00:00+02:00"
    split(tables, tmp_path, [tables.csv(tmp_path / "d.csv", rows)])
    assert read(tmp_path / "train", 'min("at")') == [(tables.start - timedelta(hours=2),)]


def test_what_cannot_be_split_by_time_is_refused(tables: Any, tmp_path: Path) -> None:
    rows = tables.rows(Task.BINARY, 50)
    for row in rows:
        row["at"] = rows[0]["at"]
    with pytest.raises(Unusable, match="no earlier time left"):
        split(tables, tmp_path, [tables.csv(tmp_path / "same.csv", rows)])
    with pytest.raises(Unusable, match="names no CSV or Parquet"):
        split(tables, tmp_path, [])
    rows[0]["at"] = None
    with pytest.raises(Unusable, match="1 rows have no at"):
        split(tables, tmp_path, [tables.csv(tmp_path / "none.csv", rows)])


def test_what_is_empty_in_a_column_of_texts_is_missing(tables: Any, tmp_path: Path) -> None:
    rows = tables.rows(Task.BINARY, 60)
    file = tables.csv(tmp_path / "d.csv", [{name: "" if v is None else v for name, v in row.items()} for row in rows])
    with duckdb.connect() as db:
        texts = db.sql(f"SELECT coalesce(COLUMNS(*), '') FROM read_csv('{file}', all_varchar = true)")  # noqa: S608
        texts.write_parquet(str(tmp_path / "texts.parquet"))
    split(tables, tmp_path, [tmp_path / "texts.parquet"])
    split(tables, tmp_path / "csv", [file])
    assert read(tmp_path / "train") == read(tmp_path / "csv" / "train")
