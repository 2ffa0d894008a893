"""DuckDB, opened the same way everywhere: no network, bounded memory, spill files that vanish."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb


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
    with tempfile.TemporaryDirectory(prefix="noria-", dir=resources.temp_directory) as spill:
        threads = resources.threads or min(os.cpu_count() or 1, max(1, resources.memory_mb // 256))
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": f"{resources.memory_mb}MB",
            "temp_directory": spill,
        }
        with duckdb.connect(config=config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection


def identifier(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """`value` as a SQL string."""
    return "'" + value.replace("'", "''") + "'"


def number(value: float) -> str:
    """`value` as a SQL double, to the last bit."""
    return f"{value!r}::DOUBLE"


def listing(values: Iterable[str]) -> str:
    """SQL expressions as one SQL list."""
    return "[" + ", ".join(values) + "]"


def paths(files: Iterable[Path]) -> str:
    """File names as a SQL list in which `*`, `?` and `[` stand for themselves."""
    return listing(literal("".join(f"[{c}]" if c in "*?[" else c for c in str(file))) for file in files)


_CSV = "header = true, delim = ',', quote = '\"', escape = '\"', comment = '', skip = 0, buffer_size = 8388608"
"""Our dialect, RFC 4180; left to itself DuckDB would guess comments and preambles, and skip them without a word.

Buffers of 8 MiB instead of DuckDB's 32 read as fast and take half the memory.
"""


def parquet(files: Iterable[Path]) -> str:
    """A relation of Parquet files; columns are matched by name."""
    return f"read_parquet({paths(files)}, union_by_name = true)"


def csv(files: Iterable[Path]) -> str:
    """A relation of CSV files, every column as text, matched by name."""
    return f"read_csv({paths(files)}, {_CSV}, all_varchar = true, union_by_name = true)"


def csv_with_rejects(file: Path) -> str:
    """A relation of one CSV file; lines that do not fit are set aside in DuckDB's table `reject_errors`."""
    return f"read_csv({paths([file])}, {_CSV}, all_varchar = true, store_rejects = true)"


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
