"""Which pipeline definitions are accepted, and what an execution's parameters become."""

import json
from datetime import timedelta
from typing import Any

import pytest

from local.sagemaker.definition import Definition, InvalidDefinition


def definition(*steps: dict[str, Any], parameters: list[dict[str, Any]] | None = None) -> str:
    return json.dumps({"Version": "2020-12-01", "Parameters": parameters or [], "Steps": steps})


def fail(name: str, **members: Any) -> dict[str, Any]:
    return {"Name": name, "Type": "Fail", "Arguments": {"ErrorMessage": "no"}, **members}


def condition(name: str, if_steps: list[Any], else_steps: list[Any]) -> dict[str, Any]:
    arguments = {"Conditions": [], "IfSteps": if_steps, "ElseSteps": else_steps}
    return {"Name": name, "Type": "Condition", "Arguments": arguments}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "Unable to parse pipeline definition"),
        (json.dumps({"Version": "2019-01-01", "Steps": []}), "Version"),
        (definition({"Name": "A", "Type": "Tuning"}), "Steps.0.Type"),
        (definition(fail("two words")), "Steps.0.Name"),
        (definition(fail("A"), fail("A")), "must be unique: A"),
        (definition(fail("A"), condition("C", [fail("A")], [])), "must be unique: A"),
        (definition(fail("A", DependsOn=["B"])), "Step A refers to steps that do not exist: B"),
        (definition(fail("A", Arguments={"ErrorMessage": {"Get": "Steps.B.x"}})), "do not exist: B"),
        (definition(fail("A", DependsOn=["B"]), fail("B", DependsOn=["A"])), "depend on each other"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(InvalidDefinition, match=message):
        Definition.parse(text)


def test_a_step_waits_for_what_it_names_refers_to_and_is_under() -> None:
    inner = fail("D", DependsOn=["A"], Arguments={"ErrorMessage": {"Get": "Steps.B.x"}})
    parsed = Definition.parse(definition(fail("A"), fail("B"), condition("C", [inner], [fail("E")])))
    assert parsed.dependencies == {"A": set(), "B": set(), "C": set(), "D": {"A", "B", "C"}, "E": {"C"}}
    assert parsed.branches["D"] == ("C", "IfSteps")
    assert parsed.branches["E"] == ("C", "ElseSteps")


PARAMETERS: list[dict[str, Any]] = [
    {"Name": "Depth", "Type": "Integer", "DefaultValue": 3},
    {"Name": "Rate", "Type": "Float", "DefaultValue": 0.1},
    {"Name": "Verbose", "Type": "Boolean", "DefaultValue": False},
    {"Name": "Mode", "Type": "String", "DefaultValue": "fast", "EnumValues": ["fast", "exact"]},
    {"Name": "Token", "Type": "String"},
]


def test_an_execution_gives_text_and_gets_types() -> None:
    parsed = Definition.parse(definition(fail("A"), parameters=PARAMETERS))
    given = {"Depth": "5", "Rate": "0.5", "Verbose": "True", "Mode": "exact", "Token": "t"}
    assert parsed.values(given) == {"Depth": 5, "Rate": 0.5, "Verbose": True, "Mode": "exact", "Token": "t"}
    assert parsed.values({"Token": "t"})["Depth"] == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "without a value: Token"),
        ({"Token": "t", "Width": "1"}, "Unknown parameters: Width"),
        ({"Token": "t", "Depth": "deep"}, "Depth must be of type Integer, not 'deep'"),
        ({"Token": "t", "Verbose": "maybe"}, "Verbose must be of type Boolean"),
        ({"Token": "t", "Mode": "slow"}, "Mode must be one of"),
    ],
)
def test_refuses_parameters(given: dict[str, str], message: str) -> None:
    parsed = Definition.parse(definition(fail("A"), parameters=PARAMETERS))
    with pytest.raises(InvalidDefinition, match=message):
        parsed.values(given)


@pytest.mark.parametrize(
    ("text", "lifetime"),
    [("P30D", timedelta(days=30)), ("PT1H30M", timedelta(minutes=90)), ("p1wt5s", timedelta(weeks=1, seconds=5))],
)
def test_caches_live_for_iso_durations(text: str, lifetime: timedelta) -> None:
    cache = {"Enabled": True, "ExpireAfter": text}
    step = Definition.parse(definition(fail("A", CacheConfig=cache))).by_name["A"]
    assert step.cache_config is not None
    assert step.cache_config.lifetime == lifetime
