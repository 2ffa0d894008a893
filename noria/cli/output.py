"""One way to answer: a table for a person, the same facts as JSON for a program.

A table's last column says what happened, in words; the others are names, numbers and times, of which none is ever
broken or cut, so that each can be copied. In a terminal:

| what fits                          | the table                                                    |
|------------------------------------|--------------------------------------------------------------|
| all, with room for the words       | a line a row; the words go on beneath themselves             |
| all but the words                  | a line a row, and the words beneath it                       |
| not even these                     | a block a row, with a line for each thing that it says       |

Where it is too narrow, columns that say nothing of any row are left out first. In a file or a pipe each row is a line.
"""

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

DRY_RUN = "a dry run"
"""The reason of who gives none and only looks."""

_HASH = re.compile(r"[0-9a-f]{64}")
_NOTHING = "·"
_BETWEEN = "  "
_INDENT = "    "
_WORDS = 30
"""Columns that words need to be read beside others."""


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
    if not rows:
        _print([empty])
        return
    told = [row.model_dump() for row in rows]
    cells = [[_cell(each[column]) for column in columns] for each in told]
    _print([*table([column.replace("_", " ") for column in columns], cells, width=_width()), *below])


def say(fact: BaseModel, sentence: str, *, as_json: bool) -> None:
    """One fact: as JSON, or as a sentence."""
    if as_json:
        write_json(fact.model_dump(mode="json"))
    else:
        _print([sentence])


def told(*lines: str | None) -> str:
    """What there is to say, a line each."""
    return "\n".join(line for line in lines if line)


def write_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None) -> Iterator[str]:
    """The lines of a table in a terminal of so many columns; None where there is no terminal."""
    if width is not None and _needed(heads, rows) > width:
        empty = [all(cell in {"", _NOTHING} for cell in column) for column in zip(*rows, strict=True)]
        said = [place for place, nothing in enumerate(empty) if not nothing] or [0]
        heads, *rows = [[row[place] for place in said] for row in [heads, *rows]]
    *sizes, last = _sizes(heads, rows)
    if width is None or _needed(heads, rows) <= width:
        yield from _beside(heads, rows, last if width is None else min(last, width - _sum(sizes) - len(_BETWEEN)))
    elif sizes and last > _WORDS and _sum(sizes) <= width:
        yield from _beneath(heads, rows, width)
    else:
        yield from _blocks(heads, rows, width)


def _sizes(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(heads, *rows, strict=True)]


def _sum(sizes: Sequence[int]) -> int:
    return sum(sizes) + len(_BETWEEN) * (len(sizes) - 1)


def _needed(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Columns of a terminal in which words can be read beside the rest, and none is broken."""
    *sizes, last = _sizes(heads, rows)
    longest = max(len(word) for row in [heads, *rows] for word in row[-1].split() or [""])
    return _sum([*sizes, min(last, max(longest, _WORDS))])


def _beside(heads: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> Iterator[str]:
    sizes = [*_sizes(heads, rows)[:-1], room]
    yield _line(heads, sizes)
    yield _line(["─" * size for size in sizes], sizes)
    for *names, words in rows:
        first, *more = _wrapped(words, room)
        yield _line([*names, first], sizes)
        yield from (_line([*("" for _ in names), line], sizes) for line in more)


def _beneath(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    sizes = _sizes(heads, rows)[:-1]
    for place, (*names, words) in enumerate([heads, *rows]):
        yield _line(names, sizes)
        yield from (f"{_INDENT}{line}" for line in _wrapped(words, width - len(_INDENT)) if line != _NOTHING)
        if place == 0:
            yield _line(["─" * size for size in sizes], sizes)


def _blocks(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    size = max(map(len, heads))
    for place, row in enumerate(rows):
        if place:
            yield ""
        for head, cell in zip(heads, row, strict=True):
            if cell not in {"", _NOTHING}:
                first, *more = _wrapped(cell, width - size - 2)
                yield f"{head:<{size}}  {first}"
                yield from (f"{'':<{size}}  {line}" for line in more)


def _line(cells: Sequence[str], sizes: Sequence[int]) -> str:
    return _BETWEEN.join(f"{cell:<{size}}" for cell, size in zip(cells, sizes, strict=True)).rstrip()


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of whole words: a word that is longer than the room, as an ARN, stays in one piece."""
    return textwrap.wrap(text, max(room, 1), break_long_words=False, break_on_hyphens=False) or [""]


def _width() -> int | None:
    """Of the terminal, or what COLUMNS says; None where a file or a program reads."""
    return shutil.get_terminal_size().columns if os.environ.get("COLUMNS") or sys.stdout.isatty() else None


def _print(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _cell(value: object) -> str:
    if value is None or value == []:
        return _NOTHING
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    # What a name or a reason holds must not move a terminal's cursor.
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable[:12] if _HASH.fullmatch(printable) else printable
