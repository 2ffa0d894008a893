"""A card as one self-contained HTML page, in the style of Noria's reports."""

from typing import Literal

from noria.card.document import Block, Card, Cell, Facts, Histogram, Histograms, Interval, Said, Table
from noria.report import charts, page
from noria.report.charts import Scale, Slot
from noria.report.html import Html, join, tag
from noria.report.numbers import figure, percent
from noria.report.page import Column, Section, Verdict, name, table, tiles


def render(card: Card) -> str:
    """One HTML document without anything beside it. A pure function: the same card gives the same bytes."""
    kind: Literal["ok", "breach", "not"] = "not" if card.good is None else "ok" if card.good else "breach"
    return page.page(
        kind="Model card",
        subject=card.model,
        about=card.about,
        verdict=Verdict(kind=kind, word=card.standing, said=card.said, more=join(card.more)),
        figures=tiles(*card.figures),
        sections=[Section(each.id, each.title, join(*map(_block, each.blocks))) for each in card.sections],
        end=f"Noria, of {card.package}. This page fetches nothing and runs no script.",
    )


def _block(block: Block) -> Html:
    match block:
        case Said():
            return tag("p", block.text, class_="note" if block.aside else None)
        case Facts():
            return tag(
                "dl", *(tag("div", tag("dt", t), tag("dd", name(v, 400))) for t, v in block.pairs), class_="terms"
            )
        case Table():
            columns = [Column(each.title, figures=each.figures, words=each.words) for each in block.columns]
            rows = [[_cell(cell, place) for place, cell in enumerate(row)] for row in block.rows]
            return tag("div", table(block.caption, columns, rows), class_="part")
        case Histograms():
            return tag("div", *map(_histogram, block.of), class_="cards")


def _cell(cell: Cell, place: int) -> Html | None:
    if isinstance(cell, Interval):
        reference = f"; champion {figure(cell.reference)}" if cell.reference is not None else ""
        low, high = figure(cell.estimate.low), figure(cell.estimate.high)
        title = f"{figure(cell.estimate.value)}, {low} to {high}{reference}"
        return charts.interval(cell.estimate, cell.reference, Scale(low=cell.low, high=cell.high), title=title)
    if cell is None:
        return None
    return name(cell) if place == 0 else name(cell, 2000)


def _histogram(of: Histogram) -> Html:
    slots = [Slot(label=label, baseline=share, window=0) for label, share in of.shares]
    if of.missing:
        slots.append(Slot(label="missing", baseline=of.missing, window=0, apart=True))
    title = f"Shares of the training's rows: {', '.join(f'{label} {percent(share)}' for label, share in of.shares)}"
    return tag(
        "article",
        tag("header", tag("h3", name(of.name))),
        charts.overlay(slots, [], title=title[:500]),
        page.facts(*((name(term), value) for term, value in of.facts)),
        class_="card",
    )
