"""A card as plain values: what it says, before anybody says how it looks. Its pages and its JSON are made from this."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from noria.evaluation import Estimate


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Interval(Part):
    """A value with its interval, to be drawn between `low` and `high`; `reference` is what it is held against."""

    estimate: Estimate
    reference: float | None
    low: float
    high: float


Cell = str | Interval | None


class Heading(Part):
    """Of a column. `figures` stand to the right, one under the other; `words` want the room of a line."""

    title: str
    figures: bool = False
    words: bool = False


class Said(Part):
    """A paragraph; what is an `aside` is small print."""

    kind: Literal["said"] = "said"
    text: str
    aside: bool = False


class Facts(Part):
    """Terms and what they are."""

    kind: Literal["facts"] = "facts"
    pairs: tuple[tuple[str, str], ...]


class Table(Part):
    kind: Literal["table"] = "table"
    caption: str
    columns: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Histogram(Part):
    """Shares of the rows of one column, from 0 to 1, by what they are called; those that lack a value are `missing`."""

    name: str
    shares: tuple[tuple[str, float], ...]
    missing: float
    facts: tuple[tuple[str, str], ...] = ()


class Histograms(Part):
    kind: Literal["histograms"] = "histograms"
    of: tuple[Histogram, ...]


Block = Annotated[Said | Facts | Table | Histograms, Field(discriminator="kind")]


class Section(Part):
    id: str
    title: str
    blocks: tuple[Block, ...]


class Card(Part):
    """One version of one model. `good` is None where it is not decided yet; `said` and `more` say what it is about."""

    model: str
    version: int
    package: str
    about: tuple[str, ...]
    standing: str
    good: bool | None
    said: str
    more: str
    figures: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
