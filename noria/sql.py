"""DuckDB, opened the same way everywhere: no network, bounded memory, spill files that vanish."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a scan may use: one thread per processor, and the system's temp directory for spills, where None."""

    memory_mb: int = 256
    threads: int | None = None
    temp_directory: Path | None = None


MODEST = Resources()


@contextmanager
def connect(resources: Resources) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database that reads local files only and never asks a network for an extension."""
    with tempfile.TemporaryDirectory(prefix="noria-", dir=resources.temp_directory) as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": f"{resources.memory_mb}MB",
            "temp_directory": spill,
        }
        if resources.threads is not None:
            config["threads"] = resources.threads
        with duckdb.connect(config=config) as connection:
            yield connection


def identifier(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """`value` as a SQL string."""
    return "'" + value.replace("'", "''") + "'"


def listing(values: Iterable[str]) -> str:
    """SQL expressions as one SQL list."""
    return "[" + ", ".join(values) + "]"
