"""HTML and SVG as nested calls. Text is escaped unless it came out of `tag` itself, so nothing can be forgotten.

>>> tag("p", "a < b, ", tag("b", "always"), class_="note")
'<p class="note">a &lt; b, <b>always</b></p>'
"""

import re
from html import escape

_VOID = frozenset({"meta", "br", "hr"})
# What XML and HTML call no characters: controls, and halves of surrogate pairs, which UTF-8 cannot even write.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

Value = str | float | bool | None


class Html(str):
    """Markup, as opposed to text."""

    __slots__ = ()


def printable(value: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", value)


def text(value: str) -> Html:
    return value if isinstance(value, Html) else Html(escape(printable(value)))


def join(*parts: str | None) -> Html:
    return Html("".join(text(part) for part in parts if part))


def tag(name: str, /, *children: str | None, **attributes: Value) -> Html:
    """An element. `class_` is class, `aria_label` is aria-label; what is None or False is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{join(*children)}</{name}>")


def _attribute(value: str | float) -> str:
    if value is True:
        return ""
    return value if isinstance(value, str) else short(value)


def short(value: float) -> str:
    """A coordinate: a tenth of a pixel is as fine as anybody sees.

    >>> short(12.04), short(-0.01), short(3)
    ('12', '0', '3')
    """
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")
