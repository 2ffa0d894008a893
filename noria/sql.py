"""DuckDB, opened the same way everywhere: no network, bounded memory, spill files that vanish."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from csv import Error as CSVError
from csv import reader
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb

from noria.violations import shortened


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a scan may use; where None: a thread per processor and per 256 MB, spills in the system's temp directory.

    256 MB a thread: DuckDB reads JSON lines in buffers of 32 MiB, and each is decoded and parsed before the next.
    """

    memory_mb: int = 512
    threads: int | None = None
    temp_directory: Path | None = None


MODEST = Resources()


@contextmanager
def connect(resources: Resources) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database, in UTC, that reads local files only and never asks a network for an extension."""
    with _opened(resources) as connection:
        yield connection


@contextmanager
def cursor(resources: Resources) -> Iterator[duckdb.DuckDBPyConnection]:
    """The same, but of a database that is kept for the next who asks, as it takes 20 ms to open one.

    For those who set nothing, and whose tables are temporary. After an error it is not kept, as a fatal one spoils it.
    """
    try:
        with _kept(resources).cursor() as connection:
            yield connection
    except BaseException:
        _kept.cache_clear()
        raise


def _opened(resources: Resources) -> duckdb.DuckDBPyConnection:
    # DuckDB makes the directory when it spills, and removes it when it is closed.
    spill = Path(resources.temp_directory or tempfile.gettempdir()) / f"noria-{uuid4().hex}"
    threads = resources.threads or min(os.cpu_count() or 1, max(1, resources.memory_mb // 256))
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "memory_limit": f"{resources.memory_mb}MB",
        "temp_directory": str(spill),
    }
    connection = duckdb.connect(config=config)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    # DuckDB 2.0.0 moves TRY_CAST of a CSV's column into the reader, where what does not fit is an error.
    connection.execute("SET GLOBAL disabled_optimizers = 'type_pushdown'")
    return connection


_kept = lru_cache(maxsize=2)(_opened)


def identifier(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """`value` as a SQL string."""
    return "'" + value.replace("'", "''") + "'"


def number(value: float) -> str:
    """`value` as a SQL double, to the last bit."""
    return f"{value!r}::DOUBLE"


def timestamp(moment: datetime) -> str:
    """`moment` as a SQL time without a zone, in UTC, as which one without a zone is taken."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"TIMESTAMP '{moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}'"


def listing(values: Iterable[str]) -> str:
    """SQL expressions as one SQL list."""
    return "[" + ", ".join(values) + "]"


def one_row(db: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The only row that a query finds."""
    (row,) = db.execute(query).fetchall()
    return tuple(row)


def paths(files: Iterable[Path]) -> str:
    """File names as a SQL list in which `*`, `?` and `[` stand for themselves."""
    return listing(literal("".join(f"[{c}]" if c in "*?[" else c for c in str(file))) for file in files)


LONGEST_LINE = 8 * 2**20
"""Bytes of a CSV line, and of DuckDB's buffers: 8 MiB instead of 32 read as fast and take half the memory.

DuckDB 2.0.0 leaves lines of more than two buffers out and says nothing, so look for them before reading.
"""
_CSV = f"auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"', buffer_size = {LONGEST_LINE}"
"""Our dialect, RFC 4180; left to itself DuckDB guesses comments and preambles too, and skips them without a word."""
_LONGEST_HEADER = 2**20


class HeaderError(ValueError):
    """A CSV file whose first line names no columns, or one twice."""


def parquet(files: Iterable[Path]) -> str:
    """A relation of Parquet files; columns are matched by name."""
    return f"read_parquet({paths(files)}, union_by_name = true)"


def csv(files: Iterable[Path]) -> str:
    """A relation of CSV files, every column as text, matched by name. Raises `HeaderError`."""
    return f"({' UNION ALL BY NAME '.join(f'FROM {_csv(file)}' for file in files)})"


def csv_with_rejects(file: Path) -> str:
    """One CSV file; lines that do not fit are set aside in DuckDB's table `reject_errors`. Raises `HeaderError`.

    Each such line takes some 3 KB of memory, which no limit holds down (DuckDB 2.0.0).
    """
    return _csv(file, ", store_rejects = true")


def csv_without_rejects(file: Path) -> str:
    """One CSV file; lines that do not fit are left out. Raises `HeaderError`."""
    return _csv(file, ", ignore_errors = true")


def _csv(file: Path, options: str = "") -> str:
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in header(file))
    return f"read_csv({paths([file])}, {_CSV}, columns = {{{columns}}}{options})"


def header(file: Path) -> list[str]:
    """The column names of a CSV file, without the spaces around them; one that has none is called by its place."""
    with file.open(encoding="utf-8-sig", newline="") as text:
        start = StringIO(text.read(_LONGEST_HEADER), newline="")
    try:
        fields = next(reader(start, strict=True), [])
    except CSVError as error:
        raise HeaderError(f"the first line cannot be read ({error}): close its quotes") from error
    if not fields:
        raise HeaderError("the first line is empty: it must name the columns")
    names = [field.strip() or f"column {place}" for place, field in enumerate(fields, start=1)]
    seen: dict[str, str] = {}
    for name in names:
        if other := seen.get(name.lower()):
            raise HeaderError(
                f"the first line names both {shortened(other)!r} and {shortened(name)!r}, "
                "which are one column: rename one"
            )
        seen[name.lower()] = name
    return names


def tables(files: Iterable[Path]) -> Iterator[str]:
    """One relation for the Parquet files, one for the CSV files; columns are matched by name."""
    binary: list[Path] = []
    text: list[Path] = []
    for file in files:
        (binary if file.suffix.lower() == ".parquet" else text).append(file)
    if binary:
        yield parquet(binary)
    if text:
        yield csv(text)


def label(text: str) -> str:
    r"""SQL of a class label written one way: 1.0 and 1 are one label, and so are True and true; NULL where empty."""
    trimmed = f"trim({text})"
    return (
        f"CASE WHEN lower({trimmed}) IN ('true', 'false') THEN lower({trimmed}) "
        rf"ELSE nullif(regexp_replace({trimmed}, '^(-?\d+)\.0+$', '\1'), '') END"
    )
