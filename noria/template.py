"""CloudFormation templates as they would be deployed: conditions decided, references followed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

_NOTHING = object()


@dataclass(frozen=True)
class Resource:
    stack: str
    id: str
    type: str
    properties: Mapping[str, Any] = field(repr=False)

    def get(self, *path: str) -> Any:
        """The property at a path of names; None where there is none."""
        found: Any = self.properties
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


@dataclass(frozen=True)
class Template:
    stack: str
    body: Mapping[str, Any] = field(repr=False)

    @cached_property
    def model(self) -> str | None:
        """The model that the stack belongs to, by the tags of what is in it; None for those of the environment."""
        for resource in self.body.get("Resources", {}).values():
            tags = resource.get("Properties", {}).get("Tags", [])
            pairs = tags.items() if isinstance(tags, Mapping) else ((tag.get("Key"), tag.get("Value")) for tag in tags)
            for key, value in pairs:
                if key == "noria:model":
                    return str(value)
        return None

    def resources(self, **parameters: str) -> dict[str, Resource]:
        """Those that are there with these parameters, all others at their defaults."""
        decide = _Decision(self.body, parameters)
        return {
            id_: Resource(self.stack, id_, body["Type"], decide(body.get("Properties", {})))
            for id_, body in self.body.get("Resources", {}).items()
            if "Condition" not in body or decide.holds({"Condition": body["Condition"]})
        }


@dataclass(frozen=True)
class Assembly:
    """What `cdk synth` writes: the templates of all stacks."""

    templates: tuple[Template, ...]
    region: str | None = None

    @classmethod
    def read(cls, directory: Path) -> "Assembly":
        """Raises FileNotFoundError where nothing was synthesised."""
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        stacks = [a for a in manifest["artifacts"].values() if a["type"] == "aws:cloudformation:stack"]
        regions = {stack["environment"].rpartition("/")[-1] for stack in stacks} - {"unknown-region"}
        return cls(
            tuple(
                Template(
                    stack["properties"]["stackName"],
                    json.loads((directory / stack["properties"]["templateFile"]).read_text(encoding="utf-8")),
                )
                for stack in stacks
            ),
            region=regions.pop() if len(regions) == 1 else None,
        )

    @cached_property
    def _exported(self) -> dict[str, tuple[Template, Any]]:
        return {
            output["Export"]["Name"]: (template, output["Value"])
            for template in self.templates
            for output in template.body.get("Outputs", {}).values()
            if isinstance(output.get("Export", {}).get("Name"), str)
        }

    def target(self, template: Template, reference: Any) -> tuple[str, str] | None:
        """Stack and logical id of what a Ref, a GetAtt or an import points to; None where that is no resource."""
        match reference:
            case {"Ref": str(id_)} | {"Fn::GetAtt": [str(id_), _]} if id_ in template.body.get("Resources", {}):
                return template.stack, id_
            case {"Fn::ImportValue": str(name)} if name in self._exported:
                return self.target(*self._exported[name])
        return None


class _Decision:
    """A part of a template as CloudFormation would have it with given parameters."""

    def __init__(self, body: Mapping[str, Any], parameters: Mapping[str, str]) -> None:
        defaults = {name: each.get("Default") for name, each in body.get("Parameters", {}).items()}
        self._parameters = defaults | {name: value for name, value in parameters.items() if name in defaults}
        self._conditions = body.get("Conditions", {})

    def __call__(self, value: Any) -> Any:
        match value:
            case {"Ref": "AWS::NoValue"}:
                return _NOTHING
            case {"Ref": str(name)} if name in self._parameters:
                return self._parameters[name]
            case {"Fn::If": [name, then, otherwise]}:
                return self(then if self.holds({"Condition": name}) else otherwise)
            case list():
                return [each for each in map(self, value) if each is not _NOTHING]
            case dict():
                decided = ((name, self(each)) for name, each in value.items())
                return {name: each for name, each in decided if each is not _NOTHING}
        return value

    def holds(self, condition: Any) -> bool:
        match condition:
            case {"Condition": str(name)}:
                return self.holds(self._conditions[name])
            case {"Fn::Equals": [left, right]}:
                return str(self(left)) == str(self(right))
            case {"Fn::Not": [each]}:
                return not self.holds(each)
            case {"Fn::And": [*each]}:
                return all(map(self.holds, each))
            case {"Fn::Or": [*each]}:
                return any(map(self.holds, each))
        raise ValueError(f"{condition} is no condition of CloudFormation that is known here")
