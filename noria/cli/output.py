"""One way to answer: a table for a person, the same facts as JSON for a program."""

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

DRY_RUN = "a dry run"
"""The reason of who gives none and only looks."""

_HASH = re.compile(r"[0-9a-f]{64}")


class Refused(Exception):
    """The command cannot do what was asked; the message says why and what to do. Exit code 1."""


def require_reason(reason: str, *, dry_run: bool = False) -> None:
    """What is asked for is asked for with a reason; who only looks needs none."""
    if not dry_run and not reason.strip():
        raise Refused("Give a reason: whoever reads the ledger in a year will ask for it.")


def show(
    rows: Sequence[BaseModel], *, columns: Sequence[str], as_json: bool, empty: str, below: Sequence[str] = ()
) -> None:
    """Print `rows`: all their fields as JSON, or `columns` of them as a table, in UTC; `empty` where there is none.

    `below` the table are sentences for people.
    """
    if as_json:
        write_json([row.model_dump(mode="json") for row in rows])
        return
    console = Console()
    if not rows:
        console.print(empty)
        return
    table = Table(show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        values = row.model_dump()
        table.add_row(*(_cell(values[column]) for column in columns))
    console.print(table)
    for sentence in below:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def say(fact: BaseModel, sentence: str, *, as_json: bool) -> None:
    """One fact: as JSON, or as a sentence."""
    if as_json:
        write_json(fact.model_dump(mode="json"))
    else:
        Console().print(sentence, markup=False, highlight=False, soft_wrap=True)


def write_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _cell(value: object) -> str:
    if value is None or value == []:
        return "·"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:12] if _HASH.fullmatch(text) else text
