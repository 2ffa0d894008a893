"""Databases that are kept for the next who asks."""

from pathlib import Path

import duckdb
import pytest

from noria.sql import connect, cursor
from tests.unit.engine_data import SMALL


def test_who_comes_next_sees_no_table_of_who_came_before() -> None:
    with cursor(SMALL) as db:
        db.execute("CREATE TEMP TABLE mine AS SELECT 1")
    with cursor(SMALL) as db, pytest.raises(duckdb.CatalogException):
        db.execute("FROM mine")


def test_a_database_that_raised_an_error_is_not_used_again() -> None:
    def opened() -> bool:
        """Whether the database is new, and marked from now on."""
        with cursor(SMALL) as db:
            ((marked,),) = db.execute("SELECT current_setting('user') = 'marked'").fetchall()
            db.execute("SET GLOBAL user = 'marked'")
        return not marked

    opened()
    assert not opened()
    with pytest.raises(RuntimeError), cursor(SMALL):
        raise RuntimeError
    assert opened()


def test_both_ways_to_ask_are_settled_alike() -> None:
    # The progress bar is shown by the first connection of a process on a terminal, and asked for by nobody.
    of_itself = "'temp_directory', 'user', 'username', 'enable_progress_bar'"
    wanted = f"SELECT name, value FROM duckdb_settings() WHERE name NOT IN ({of_itself})"  # noqa: S608
    with connect(SMALL) as own, cursor(SMALL) as kept:
        assert own.execute(wanted).fetchall() == kept.execute(wanted).fetchall()


def test_a_file_that_is_written_anew_under_its_name_is_read_anew(tmp_path: Path) -> None:
    """Also within the tick of its time: what a kept database knows of a file must not outlive it."""
    path, versions = tmp_path / "rows.parquet", []
    with connect(SMALL) as db:
        for number in range(8):
            db.sql(f"SELECT {number} AS n FROM range({1 + 5 * number})").write_parquet(str(path))  # noqa: S608
            versions.append((number, 1 + 5 * number, path.read_bytes()))
    for attempt in range(80):
        number, rows, content = versions[attempt * 5 % 8]
        path.write_bytes(content)
        with cursor(SMALL) as db:
            assert db.sql(f"SELECT max(n), count(*) FROM '{path}'").fetchall() == [(number, rows)]  # noqa: S608
