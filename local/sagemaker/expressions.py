"""The expressions of a pipeline definition: Get, Std:Join, Std:JsonGet, and conditions.

https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# One segment of a path: `.name`, `['name']` or `[3]`.
_SEGMENT = re.compile(r"""\.?([^.\[\]'"]+)|\[(?:'([^']*)'|"([^"]*)"|(\d+))\]""")


class Unresolvable(Exception):
    """An expression that has no value; the message says which and why."""


@dataclass(frozen=True)
class Scope:
    """What expressions refer to.

    `properties` gives a finished step's properties, `property_file` the S3 URI of a step's property file, `read_json`
    the document at an S3 URI; each raises `Unresolvable`.
    """

    parameters: Mapping[str, Any]
    execution: Mapping[str, str]
    properties: Callable[[str], Any]
    property_file: Callable[[str, str], str]
    read_json: Callable[[str], Any]


def evaluate(value: Any, scope: Scope) -> Any:
    """The value with every expression in it replaced by what it stands for."""
    match value:
        case {"Get": str(reference), **rest} if not rest:
            return _get(reference, scope)
        case {"Std:Join": {"On": str(separator), "Values": list(values)}, **rest} if not rest:
            return separator.join(text(evaluate(member, scope)) for member in values)
        case {"Std:JsonGet": dict(lookup), **rest} if not rest:
            return _json_get(lookup, scope)
        case dict():
            return {key: evaluate(member, scope) for key, member in value.items()}
        case list():
            return [evaluate(member, scope) for member in value]
    return value


def text(value: Any) -> str:
    """A value as SageMaker writes it into a string."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def referenced_steps(value: Any) -> Iterator[str]:
    """The names of the steps whose properties or files a value refers to; those of a condition's branches left out."""
    match value:
        case {"Get": str(reference), **rest} if not rest:
            if reference.startswith("Steps."):
                yield _step_of(reference)
        case dict():
            for key, member in value.items():
                if key not in ("IfSteps", "ElseSteps"):
                    yield from referenced_steps(member)
        case list():
            for member in value:
                yield from referenced_steps(member)


def holds(condition: Mapping[str, Any], scope: Scope) -> bool:
    """Whether a condition is true. Raises `Unresolvable`, also for values that cannot be compared."""
    match condition["Type"]:
        case "Not":
            return not holds(condition["Expression"], scope)
        case "Or":
            return any(holds(member, scope) for member in condition["Conditions"])
        case "In":
            return bool(evaluate(condition["QueryValue"], scope) in evaluate(condition["Values"], scope))
        case kind if kind in _COMPARISONS:
            left, right = (evaluate(condition[side], scope) for side in ("LeftValue", "RightValue"))
            if not _comparable(left, right):
                raise Unresolvable(f"{left!r} and {right!r} cannot be compared by {kind}")
            return _COMPARISONS[kind](left, right)
        case kind:
            raise Unresolvable(f"Unknown condition type {kind}")


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": lambda left, right: bool(left == right),
    "GreaterThan": lambda left, right: bool(left > right),
    "GreaterThanOrEqualTo": lambda left, right: bool(left >= right),
    "LessThan": lambda left, right: bool(left < right),
    "LessThanOrEqualTo": lambda left, right: bool(left <= right),
}


def _comparable(left: Any, right: Any) -> bool:
    def kind(value: Any) -> type:
        return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)

    return kind(left) is kind(right)


def lookup(document: Any, path: str) -> Any:
    """The value at a path such as `Outputs['train'].S3Output.S3Uri` or `auc[0].value`.

    A quoted name in a list finds the element that carries that name (`OutputName`, `InputName`, `ChannelName`, …).
    """
    if path in ("", "$"):
        return document
    position = 0
    path = path.removeprefix("$")
    for match in _SEGMENT.finditer(path):
        if match.start() != position:
            break
        position = match.end()
        plain, single, double, index = match.groups()
        document = _member(document, plain or single or double or int(index))
    if position != len(path):
        raise Unresolvable(f"{path} is not a path")
    return document


def _member(document: Any, key: str | int) -> Any:
    match document, key:
        case dict(), str() if key in document:
            return document[key]
        case list(), int() if key < len(document):
            return document[key]
        case list(), str():
            for element in document:
                if isinstance(element, dict) and key in (v for k, v in element.items() if k.endswith("Name")):
                    return element
    raise Unresolvable(f"there is no {key!r}")


def _get(reference: str, scope: Scope) -> Any:
    namespace, _, rest = reference.partition(".")
    try:
        match namespace:
            case "Parameters":
                return scope.parameters[rest]
            case "Execution":
                return scope.execution[rest]
            case "Steps":
                step = _step_of(reference)
                return lookup(scope.properties(step), rest.removeprefix(step).removeprefix("."))
    except (KeyError, Unresolvable) as error:
        raise Unresolvable(f"Cannot resolve {reference}: {error}") from error
    raise Unresolvable(f"Cannot resolve {reference}: unknown namespace {namespace}")


def _step_of(reference: str) -> str:
    return re.split(r"[.\[]", reference.removeprefix("Steps."), maxsplit=1)[0]


def _json_get(expression: Mapping[str, Any], scope: Scope) -> Any:
    path = expression["Path"]
    if "PropertyFile" in expression:
        # {"Get": "Steps.<step>.PropertyFiles.<name>"}
        _, step, _, name = expression["PropertyFile"]["Get"].split(".", 3)
        uri = scope.property_file(step, name)
    else:
        uri = evaluate(expression["S3Uri"], scope)
    try:
        return lookup(scope.read_json(uri), path)
    except Unresolvable as error:
        raise Unresolvable(f"Cannot read {path} of {uri}: {error}") from error
