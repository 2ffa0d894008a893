"""AWS list prices, from `prices.yaml` beside this file, where each has its source and its date."""

from collections.abc import Iterable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

FILE = Path(__file__).with_name("prices.yaml")
HOURS = 730
"""Of a month, as AWS's own calculator counts them."""


class NoPrice(ValueError):
    """Something costs money, and nobody has written down how much; the message says what and where."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Regional(_Strict):
    usd: float = Field(ge=0)
    source: str | None = None


class Price(_Strict):
    """`usd` for `of` units; the first `free` units of a month cost nothing."""

    service: str
    unit: str
    of: int = Field(1, ge=1)
    free: int = Field(0, ge=0)
    usd: float
    verified: bool

    def cost(self, quantity: float) -> float:
        return quantity / self.of * self.usd


class _Entry(_Strict):
    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Regional]

    service: str
    unit: str
    of: int = 1
    free: int = 0


class _File(_Strict):
    read: date
    sources: dict[str, str]
    prices: dict[str, _Entry]

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        for name, entry in self.prices.items():
            for region, regional in entry.__pydantic_extra__.items():
                if regional.source is not None and regional.source not in self.sources:
                    raise ValueError(f"{name}, {region}: source {regional.source!r} is not among `sources`")
        return self


class Prices(_Strict):
    """The prices of one region; `read` is the day on which they were looked up."""

    region: str
    read: date
    by_name: dict[str, Price]

    def __getitem__(self, name: str) -> Price:
        """Raises `NoPrice` with the remedy."""
        if name not in self.by_name:
            raise NoPrice(f"no price of {name!r} in {self.region}: add it to noria/prices.yaml, with its source")
        return self.by_name[name]

    def cost(self, paid: Iterable[tuple[str, float]]) -> float:
        """Of so many units of each price, at list prices."""
        return sum((self[name].cost(quantity) for name, quantity in paid), 0.0)


@cache
def prices(region: str) -> Prices:
    """Raises `NoPrice` with the regions that there are."""
    file = _File.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    known = {region for entry in file.prices.values() for region in entry.__pydantic_extra__}
    if region not in known:
        raise NoPrice(
            f"no prices of region {region!r}: use one of {', '.join(sorted(known))}, or add it to {FILE.name}"
        )
    return Prices(
        region=region,
        read=file.read,
        by_name={
            name: Price(
                service=entry.service,
                unit=entry.unit,
                of=entry.of,
                free=entry.free,
                usd=entry.__pydantic_extra__[region].usd,
                verified=entry.__pydantic_extra__[region].source is not None,
            )
            for name, entry in file.prices.items()
            if region in entry.__pydantic_extra__
        },
    )
