"""A pipeline's definition: its parameters, its steps, and the graph they form."""

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_pascal

from local.sagemaker.expressions import referenced_steps

VERSION = "2020-12-01"

StepType = Literal["Processing", "Training", "Condition", "RegisterModel", "Model", "Lambda", "Callback", "Fail"]


class InvalidDefinition(ValueError):
    """What is wrong with a definition."""


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=AliasGenerator(validation_alias=to_pascal), frozen=True)


class Parameter(_Part):
    name: str
    type: Literal["String", "Integer", "Float", "Boolean"]
    default_value: Any = None
    enum_values: list[Any] | None = None

    def parse(self, value: str) -> Any:
        """An execution's value, which comes as text. Raises `InvalidDefinition`."""
        try:
            parsed = _PARSERS[self.type](value)
        except (KeyError, ValueError) as error:
            raise InvalidDefinition(f"Parameter {self.name} must be of type {self.type}, not {value!r}.") from error
        if self.enum_values and parsed not in self.enum_values:
            raise InvalidDefinition(f"Parameter {self.name} must be one of {self.enum_values}, not {value!r}.")
        return parsed


_PARSERS: dict[str, Any] = {
    "String": str,
    "Integer": int,
    "Float": float,
    "Boolean": lambda value: {"true": True, "false": False}[value.lower()],
}


class CacheConfig(_Part):
    enabled: bool
    expire_after: str = "P365D"

    @cached_property
    def lifetime(self) -> timedelta:
        return _duration(self.expire_after)


class RetryPolicy(_Part):
    exception_type: list[str]
    interval_seconds: float = 1
    backoff_rate: float = 2.0
    max_attempts: int | None = None
    expire_after_min: float | None = None


class PropertyFile(_Part):
    property_file_name: str
    output_name: str
    file_path: str


class Step(_Part):
    name: str = Field(pattern=r"^[A-Za-z0-9\-_]{1,64}$")
    type: StepType
    arguments: dict[str, Any] = {}
    display_name: str | None = None
    description: str | None = None
    depends_on: list[str] = []
    cache_config: CacheConfig | None = None
    retry_policies: list[RetryPolicy] = []
    property_files: list[PropertyFile] = []
    output_parameters: list[dict[str, str]] = []
    function_arn: str | None = None
    sqs_queue_url: str | None = None

    def branch(self, name: str) -> "list[Step]":
        """The steps of a condition's `IfSteps` or `ElseSteps`."""
        return [Step.model_validate(step) for step in self.arguments.get(name, [])]


class Definition(_Part):
    version: Literal["2020-12-01"]
    parameters: list[Parameter] = []
    steps: list[Step]

    @classmethod
    def parse(cls, text: str) -> "Definition":
        """Raises `InvalidDefinition`."""
        try:
            definition = cls.model_validate_json(text)
            definition.check()
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise InvalidDefinition(f"Unable to parse pipeline definition. {problems}") from error
        return definition

    def check(self) -> None:
        names = [step.name for step, _ in self._walk(self.steps, None)]
        if duplicates := {name for name in names if names.count(name) > 1}:
            raise InvalidDefinition(f"Step names must be unique: {', '.join(sorted(duplicates))}.")
        for name, dependencies in self.dependencies.items():
            if missing := dependencies - set(names):
                raise InvalidDefinition(f"Step {name} refers to steps that do not exist: {', '.join(sorted(missing))}.")
        try:
            TopologicalSorter(self.dependencies).prepare()
        except CycleError as error:
            raise InvalidDefinition(f"Steps depend on each other: {' → '.join(error.args[1])}.") from error

    def values(self, given: dict[str, str]) -> dict[str, Any]:
        """Every parameter's value in an execution that was given these. Raises `InvalidDefinition`."""
        parameters = {parameter.name: parameter for parameter in self.parameters}
        if unknown := given.keys() - parameters.keys():
            raise InvalidDefinition(f"Unknown parameters: {', '.join(sorted(unknown))}.")
        values = {name: parameter.default_value for name, parameter in parameters.items()}
        values |= {name: parameters[name].parse(value) for name, value in given.items()}
        if undefined := [name for name, value in values.items() if value is None]:
            raise InvalidDefinition(f"Parameters without a value: {', '.join(undefined)}.")
        return values

    @cached_property
    def by_name(self) -> dict[str, Step]:
        return {step.name: step for step, _ in self._walk(self.steps, None)}

    @cached_property
    def branches(self) -> dict[str, tuple[str, str] | None]:
        """For each step the condition it is under, and which branch of it."""
        return {step.name: parent for step, parent in self._walk(self.steps, None)}

    @cached_property
    def dependencies(self) -> dict[str, set[str]]:
        """For each step those that must have succeeded before it: named, referred to, or the condition it is under."""
        return {
            step.name: {*step.depends_on, *referenced_steps(step.arguments), *(parent[:1] if parent else ())}
            for step, parent in self._walk(self.steps, None)
        }

    def _walk(self, steps: list[Step], parent: tuple[str, str] | None) -> Iterator[tuple[Step, tuple[str, str] | None]]:
        for step in steps:
            yield step, parent
            if step.type == "Condition":
                for branch in ("IfSteps", "ElseSteps"):
                    yield from self._walk(step.branch(branch), (step.name, branch))


_DURATION = re.compile(
    r"P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?",
    re.IGNORECASE,
)


def _duration(text: str) -> timedelta:
    """An ISO 8601 duration of fixed length, such as `P30D` or `PT1H`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidDefinition(f"{text} is not a duration such as P30D or PT1H.")
    return timedelta(**{unit: int(number) for unit, number in match.groupdict().items() if number})
