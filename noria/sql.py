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


CSV = "header = true, delim = ',', quote = '\"', escape = '\"', buffer_size = 8388608"
"""Our dialect, RFC 4180. Buffers of 8 MiB instead of DuckDB's 32 read as fast and take half the memory."""


def tables(files: Iterable[Path]) -> Iterator[str]:
    """One relation for the Parquet files, one for the CSV files (every column as text); columns are matched by name."""
    parquet: list[Path] = []
    csv: list[Path] = []
    for file in files:
        (parquet if file.suffix.lower() == ".parquet" else csv).append(file)
    if parquet:
        yield f"read_parquet({paths(parquet)}, union_by_name = true)"
    if csv:
        yield f"read_csv({paths(csv)}, {CSV}, all_varchar = true, union_by_name = true)"
