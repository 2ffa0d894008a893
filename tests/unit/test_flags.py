"""Flags: the first rule that fits decides, the same each time, and a percentage is a share of callers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator
from pydantic import ValidationError

from noria.flags import Caller, Flags, evaluate, json_schema

ANN = "arn:aws:iam::123456789012:user/ann"


def flags(*rules: dict[str, Any]) -> Flags:
    named = [{"name": f"rule-{number}", "variant": "challenger", **rule} for number, rule in enumerate(rules)]
    return Flags.model_validate({"rules": named})


def share(percent: float, *, rule: str = "canary") -> Flags:
    return flags({"name": rule, "when": {"percent": percent}})


def test_without_a_rule_the_weights_decide() -> None:
    assert evaluate(Flags(), Caller(id=ANN)) is None
    assert evaluate(flags({"when": {"callers": ["somebody-else"]}}), Caller(id=ANN)) is None


def test_the_first_rule_that_fits_decides() -> None:
    rules = flags({"when": {"callers": [ANN]}}, {"variant": "champion"})
    assert evaluate(rules, Caller(id=ANN)) == "challenger"
    assert evaluate(rules, Caller(id="another")) == "champion"


@pytest.mark.parametrize(
    ("when", "fits"),
    [
        ({}, True),
        ({"callers": [ANN]}, True),
        ({"callers": ["arn:aws:iam::123456789012:user/*"]}, True),
        ({"callers": ["arn:aws:iam::999999999999:user/*"]}, False),
        ({"headers": {"x-tenant": ["acme", "other"]}}, True),
        ({"headers": {"x-tenant": ["Acme"]}}, False),
        ({"headers": {"x-absent": ["acme"]}}, False),
        ({"claims": {"groups": ["staff"]}}, True),
        ({"claims": {"groups": ["guests"]}}, False),
        ({"claims": {"absent": ["staff"]}}, False),
        ({"percent": 100}, True),
        ({"percent": 0}, False),
        ({"percent": 100, "by": "x-tenant"}, True),
        ({"percent": 100, "by": "x-absent"}, False),
        ({"callers": [ANN], "headers": {"x-tenant": ["other"]}}, False),
    ],
)
def test_a_rule_fits_when_all_that_it_says_is_true(when: dict[str, Any], fits: bool) -> None:
    caller = Caller(id=ANN, headers={"x-tenant": "acme"}, claims={"groups": ["admin", "staff"]})
    assert (evaluate(flags({"when": when}), caller) == "challenger") is fits


@given(who=st.text(), percent=st.floats(0, 100))
def test_a_caller_gets_the_same_each_time(who: str, percent: float) -> None:
    assert len({evaluate(share(percent), Caller(id=who)) for _ in range(3)}) == 1


@given(who=st.text(), percents=st.tuples(st.floats(0, 100), st.floats(0, 100)))
def test_whom_a_smaller_percentage_chose_a_larger_one_keeps(who: str, percents: tuple[float, float]) -> None:
    small, large = sorted(percents)
    if evaluate(share(small), Caller(id=who)) == "challenger":
        assert evaluate(share(large), Caller(id=who)) == "challenger"


@pytest.mark.parametrize("percent", [1, 10, 50, 90])
def test_a_percentage_is_a_share_of_callers(percent: int) -> None:
    callers = 20_000
    chosen = sum(evaluate(share(percent), Caller(id=f"user-{n}")) is not None for n in range(callers))
    # Four standard deviations of a binomial share.
    tolerance = 4 * (percent / 100 * (1 - percent / 100) / callers) ** 0.5
    assert chosen / callers == pytest.approx(percent / 100, abs=tolerance)


def test_two_rules_choose_independently() -> None:
    users = [Caller(id=f"user-{n}") for n in range(10_000)]
    first = [evaluate(share(50), user) is not None for user in users]
    second = [evaluate(share(50, rule="other"), user) is not None for user in users]
    both = sum(a and b for a, b in zip(first, second, strict=True)) / len(users)
    assert both == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ([{"name": "a", "variant": "loser"}], "champion"),
        ([{"name": "a", "variant": "champion"}, {"name": "a", "variant": "challenger"}], "one name"),
        ([{"name": "A rule", "variant": "champion"}], "pattern"),
        ([{"name": "a", "variant": "champion", "when": {"percent": 101}}], "100"),
        ([{"name": "a", "variant": "champion", "when": {"by": "x-user"}}], "give percent"),
        ([{"name": "a", "variant": "champion", "when": {"headers": {"X-Tenant": ["a"]}}}], "lower case: X-Tenant"),
        ([{"name": "a", "variant": "champion", "wenn": {}}], "Extra inputs"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(rules: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Flags.model_validate({"rules": rules})


# --- what AppConfig checks them with


def test_the_schema_is_one_that_appconfig_takes() -> None:
    schema = json_schema()
    Draft4Validator.check_schema(schema)
    assert len(json.dumps(schema)) <= 32_768  # API reference of AppConfig, `Validator`
    # Newer than draft 4, where they would be passed over in silence, or mean something else.
    newer = {"const", "exclusiveMinimum", "exclusiveMaximum", "prefixItems", "if", "propertyNames", "contains"}
    assert not newer & set(_keywords(schema))


def test_the_schema_accepts_what_is_deployed_and_refuses_what_cannot_be_read() -> None:
    validator = Draft4Validator(json_schema())
    deployed = flags({"when": {"percent": 5, "by": "x-user"}}, {"variant": "champion"})
    assert validator.is_valid(json.loads(deployed.model_dump_json(exclude_defaults=True)))
    assert validator.is_valid({})
    assert not validator.is_valid({"rules": [{"name": "a", "variant": "loser"}]})
    assert not validator.is_valid({"rules": [{"name": "a", "variant": "champion", "when": {"percent": 101}}]})


def _keywords(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        return [*schema, *(found for value in schema.values() for found in _keywords(value))]
    return [found for value in schema for found in _keywords(value)] if isinstance(schema, list) else []
