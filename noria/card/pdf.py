"""A card on paper. Typst sets it: one wheel that needs nothing of the system, by the template `card.typ`."""

import json
from pathlib import Path
from typing import Any

import typst

from noria.card.document import Card
from noria.report.html import printable

_TEMPLATE = Path(__file__).with_name("card.typ")


def render(card: Card) -> bytes:
    """A PDF, tagged for screen readers: the same card gives the same bytes on one machine.

    It has fonts of its own; letters that they lack are taken from the system's, where it has them.
    """
    told = json.dumps(_printable(card.model_dump(mode="json")))
    return typst.compile(_TEMPLATE.read_bytes(), format="pdf", sys_inputs={"card": told}, timestamp=0)


def _printable(value: Any) -> Any:
    match value:
        case str():
            return printable(value)
        case dict():
            return {name: _printable(each) for name, each in value.items()}
        case list():
            return [_printable(each) for each in value]
    return value
