"""Feature flags: which variant of a model a caller gets. The first rule that fits decides.

    rules:
      - {name: staff, when: {callers: ["arn:aws:sts::123456789012:assumed-role/Staff/*"]}, variant: challenger}
      - {name: acme, when: {headers: {x-tenant: [acme]}, percent: 20, by: x-user}, variant: challenger}
      - {name: everybody, variant: champion}

Where no rule fits, the endpoint's weights decide. A caller gets the same answer each time: a percentage is a share of
callers, not of requests. A rule whose percentage grows keeps whom it had, and two rules choose independently.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from noria.units import Part

Variant = Literal["champion", "challenger"]
Claims = Mapping[str, Sequence[str]]

HEADER = r"^[a-z0-9-]+$"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks: `id` as the authoriser proved it, headers (names in lower case) as sent, claims of a verified token."""

    id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    claims: Claims = field(default_factory=dict)


class When(Part):
    """What must be true of a caller: all that is given. Headers are the caller's word, and no proof of anything."""

    callers: tuple[str, ...] | None = Field(
        None, min_length=1, description="ids: the ARN of an IAM caller, the subject of a token; * stands for any text"
    )
    claims: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="claims of the token, each with the values of which it must have one"
    )
    headers: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="request headers in lower case, each with the values that fit"
    )
    percent: float | None = Field(None, ge=0, le=100, description="share of callers, chosen once and for all")
    by: str | None = Field(
        None,
        pattern=HEADER,
        description="request header that names whom the percentage is of, where one caller asks for many people; "
        "the caller when left out",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.by is not None and self.percent is None:
            raise ValueError("by says whom a percentage is of: give percent, or remove by")
        if upper := [name for name in self.headers if name != name.lower()]:
            raise ValueError(f"write the names of headers in lower case: {', '.join(upper)}")
        return self


class Rule(Part):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="says which callers a percentage chooses")
    when: When = When()
    variant: Variant


class Flags(Part):
    """A model's flags. Without rules, all is as if there were none."""

    rules: tuple[Rule, ...] = Field((), max_length=100)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [rule.name for rule in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules have one name, and so choose the same callers: {', '.join(twice)}")
        return self


def evaluate(flags: Flags, caller: Caller) -> Variant | None:
    """The variant that `caller` gets; None where the endpoint's weights decide."""
    return next((rule.variant for rule in flags.rules if _fits(rule, caller)), None)


def _fits(rule: Rule, caller: Caller) -> bool:
    when = rule.when
    return (
        (when.callers is None or any(fnmatchcase(caller.id, pattern) for pattern in when.callers))
        and all(set(values).intersection(caller.claims.get(name, ())) for name, values in when.claims.items())
        and all(caller.headers.get(name) in values for name, values in when.headers.items())
        and _chosen(rule, caller)
    )


def _chosen(rule: Rule, caller: Caller) -> bool:
    if rule.when.percent is None:
        return True
    who = caller.headers.get(rule.when.by) if rule.when.by else caller.id
    return who is not None and position(rule.name, who) < rule.when.percent


def position(rule: str, who: str) -> float:
    """Where `who` stands between 0 and 100 in the eyes of a rule: evenly spread, and the same everywhere for ever."""
    digest = hashlib.sha256(f"{rule}\0{who}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100


def json_schema() -> dict[str, Any]:
    """What AppConfig checks flags with before it deploys them: JSON Schema draft 4, the only one that it knows.

    Source: AppConfig guide, `appconfig-creating-configuration-and-profile-validators`.
    """
    return {"$schema": "http://json-schema.org/draft-04/schema#", **Flags.model_json_schema()}
