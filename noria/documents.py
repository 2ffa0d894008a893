"""YAML that people write, read so that whatever is wrong with it becomes a sentence."""

from pathlib import Path
from typing import Any

import yaml

DEEPEST = 50
"""Levels of a document."""


class DocumentError(ValueError):
    """A file that is no YAML document; the message names file, line and remedy."""


def text_of(path: Path) -> str:
    """What a text file holds."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DocumentError(f"{path}:{line}: not UTF-8 text: save it as UTF-8") from error


def parse(text: str, *, name: str) -> tuple[yaml.Node | None, Any]:
    """A document as nodes, which know their lines, and as plain values. Raises `DocumentError`.

    Anchors and aliases are refused: a few lines of them are gigabytes once they are written out, or have no end.
    """
    try:
        _guard(text, name)
        return yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except DocumentError:
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DocumentError(
            f"{name}:{line}: not YAML: {error.problem}; check indentation, colons and quotes"
        ) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise DocumentError(f"{name}:{line}: not YAML: {error.reason}; remove that character") from error
    except (ValueError, OverflowError) as error:  # of a constructor: a date that there is none, a number too large
        raise DocumentError(f"{name}:1: a value cannot be read: {error}; put it in quotes, or correct it") from error


def _guard(text: str, name: str) -> None:
    """By libyaml, in a moment: what follows takes minutes for thousands of brackets."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"{name}:{line}: *{event.anchor} is an alias: write out what it stands for")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise DocumentError(f"{name}:{line}: more than {DEEPEST} levels: nobody can read that; make it flatter")
