"""What the parts of a spec are made of: a base that knows no extra field, and durations as people write them."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Part(BaseModel):
    """A part of the spec: unknown fields are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, defer_build=True)


def _parse_duration(value: object) -> object:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+)([smhd])", value.strip())):
        return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
    if isinstance(value, timedelta):
        return value
    raise ValueError("write a whole number and a unit of s, m, h or d, for example 10m or 24h")


def count(number: int, noun: str, nouns: str | None = None) -> str:
    """
    >>> count(1, "row"), count(12345, "row")
    ('1 row', '12,345 rows')
    """
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def format_duration(value: timedelta) -> str:
    """As a spec writes it: the largest unit that divides it.

    >>> format_duration(timedelta(minutes=90))
    '90m'
    """
    seconds = int(value.total_seconds())
    unit = next(u for u in "dhms" if seconds % _SECONDS[u] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+[smhd]$", "examples": ["10m", "24h"]}),
]
