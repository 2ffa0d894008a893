"""What all pages of Noria have in common: one HTML file that fetches nothing, runs nothing, reads well anywhere."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from noria.monitors import State
from noria.report.html import Html, join, tag

_LONGEST_NAME = 60


@cache
def _style() -> Html:
    return Html(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Section:
    """`id` is what links name it by. Without a body it is left out."""

    id: str
    title: str
    body: Html | None

    @property
    def html(self) -> Html:
        heading = f"{self.id}-title"
        return tag("section", tag("h2", self.title, id=heading), self.body, id=self.id, aria_labelledby=heading)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What matters, first: `said` in one sentence, `more` in others. Kind `not` is not known."""

    kind: Literal["ok", "breach", "not"]
    word: str
    said: str
    more: Html | None = None

    @property
    def html(self) -> Html:
        return tag(
            "div",
            badge(self.word, symbol=_SYMBOLS[self.kind], kind=self.kind),
            tag("p", self.said, class_="said"),
            tag("p", self.more) if self.more else None,
            class_=f"verdict {self.kind}",
        )


def page(
    *,
    kind: str,
    subject: str,
    about: Sequence[str],
    verdict: Verdict,
    figures: Html,
    sections: Sequence[Section],
    end: str,
) -> str:
    """The whole document: what `kind` of page it is, of what (`subject`), `about` when and what, and its sections.

    Its policy lets a browser load nothing but its own style, whatever else it holds.
    """
    shown = [section for section in sections if section.body]
    links = [tag("li", tag("a", section.title, href=f"#{section.id}")) for section in shown]
    main = tag(
        "main",
        tag(
            "header",
            tag("p", kind, class_="over"),
            tag("h1", name(subject)),
            tag("p", *(tag("span", part) for part in about), class_="meta"),
        ),
        verdict.html,
        figures,
        tag("nav", tag("ul", *links), aria_label="Sections"),
        *(section.html for section in shown),
        tag("footer", end),
    )
    head = _head(f"{subject}: {verdict.word.lower()}, {about[-1]}")
    return f"<!doctype html>\n{tag('html', head, tag('body', main), lang='en')}\n"


def _head(title: str) -> Html:
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", style),
    )


def name(given: str, length: int = _LONGEST_NAME) -> Html:
    """What somebody else has named, a feature or a category: set apart from the text around it."""
    short = shortened(given, length)
    return tag("bdi", short, title=given[: 2 * length] if short != given else None)


def names(given: Sequence[str], *, most: int) -> Html:
    more = f" and {len(given) - most:,} more" if len(given) > most else None
    return join(*(join(", " if place else None, name(each)) for place, each in enumerate(given[:most])), more)


def shortened(given: str, length: int = _LONGEST_NAME) -> str:
    return given if len(given) <= length else f"{given[: length - 1]}…"


@dataclass(frozen=True)
class Column:
    """A column of a table. `figures` stand to the right, one under the other; `words` want the room of a line, and
    `tight` cells are not broken."""

    title: str
    figures: bool = False
    words: bool = False
    tight: bool = False

    @property
    def css(self) -> str | None:
        return "n" if self.figures else "words" if self.words else "tight" if self.tight else None


def table(
    caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str | None]], *, class_: str = "sheet"
) -> Html:
    """A table whose rows begin with a heading; on a phone each row of a `sheet` is a card that names its columns."""
    head = tag(
        "tr",
        *(tag("th", c.title, scope="col", role="columnheader", class_=c.css) for c in columns),
    )
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", role="rowheader", class_=columns[0].css),
            *(
                tag("td", tag("span", cell), role="cell", data_of=c.title, class_=c.css)
                if cell
                else tag("td", role="cell", class_="none")
                for c, cell in zip(columns[1:], row[1:], strict=True)
            ),
            role="row",
        )
        for row in rows
    ]
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", head, role="rowgroup"),
        tag("tbody", *body, role="rowgroup"),
        role="table",
        class_=class_,
    )


_SYMBOLS = {"breach": "▲", "ok": "✓", "not": "?"}
_WORDS: dict[State, str] = {"breach": "beyond limit", "ok": "ok", "not enough data": "not enough data"}


def pill(state: State) -> Html:
    """A state by symbol, word and colour: by the first two for whoever does not see the third."""
    kind = state.split()[0]
    return badge(_WORDS[state], symbol=_SYMBOLS[kind], kind=kind)


def badge(word: str, *, symbol: str = "", kind: str = "plain") -> Html:
    mark = tag("span", symbol, aria_hidden="true") if symbol else None
    return tag("span", mark, word, class_=f"badge {kind}")


def tiles(*of: tuple[str, str]) -> Html:
    """Figures worth a glance: each a number and what it is of."""
    return tag("dl", *(tag("div", tag("dt", what), tag("dd", value)) for value, what in of), class_="tiles")


def aside(*children: str) -> Html | None:
    """What was left out, or what a number cannot say; nothing where there is nothing to say."""
    return tag("p", *children, class_="note") if children else None


def commands(*lines: str) -> Html:
    return tag("pre", tag("code", "\n".join(lines).strip()), tabindex=0)


def facts(*pairs: tuple[str, str]) -> Html:
    """Small print: terms and what they are."""
    return tag(
        "p", *(join(tag("span", join(term, " ", tag("b", value))), " ") for term, value in pairs), class_="facts"
    )
