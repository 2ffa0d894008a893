"""A stack as CloudFormation would have it with parameters: our own reading, so that no emulator judges itself."""

from collections.abc import Callable
from typing import Any

from tests.infrastructure.assembly import Resource, Template

NO_VALUE = object()


class Deployed:
    """Conditions are decided, references to resources left as they are."""

    def __init__(self, template: Template, **parameters: str) -> None:
        declared = template.body["Parameters"]
        assert parameters.keys() <= declared.keys()
        self.template = template
        self._parameters = {name: str(parameter["Default"]) for name, parameter in declared.items()} | parameters

    def __contains__(self, type_: str) -> bool:
        return bool(self.of(type_))

    def of(self, type_: str) -> list[Resource]:
        return [r for r in self.template.of(type_) if self._holds(r.body.get("Condition"))]

    def properties(self, type_: str) -> dict[str, Any]:
        (resource,) = self.of(type_)
        decided: dict[str, Any] = self.decided(resource.properties)
        return decided

    @property
    def accepted(self) -> bool:
        rules = self.template.body.get("Rules", {}).values()
        return all(self.decided(a["Assert"]) for rule in rules for a in rule["Assertions"])

    @property
    def outputs(self) -> dict[str, Any]:
        outputs = self.template.body["Outputs"].items()
        return {name: self.decided(body["Value"]) for name, body in outputs if self._holds(body.get("Condition"))}

    def _holds(self, condition: str | None) -> bool:
        return condition is None or bool(self.decided(self.template.body["Conditions"][condition]))

    def decided(self, value: Any) -> Any:
        """A part of the template as CloudFormation would have it with these parameters."""
        if isinstance(value, list):
            return [decided for each in value if (decided := self.decided(each)) is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, operand),) = value.items()
            if name in self._functions:
                return self._functions[name](operand)
        return {name: decided for name, each in value.items() if (decided := self.decided(each)) is not NO_VALUE}

    @property
    def _functions(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "Condition": self._holds,
            "Fn::If": lambda operand: self.decided(operand[1 if self._holds(operand[0]) else 2]),
            "Fn::Equals": lambda operand: self.decided(operand[0]) == self.decided(operand[1]),
            "Fn::Not": lambda operand: not self.decided(operand[0]),
            "Fn::And": lambda operand: all(self.decided(operand)),
            "Fn::Or": lambda operand: any(self.decided(operand)),
            "Ref": lambda name: NO_VALUE if name == "AWS::NoValue" else self._parameters.get(name, {"Ref": name}),
        }
