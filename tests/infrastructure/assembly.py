"""The synthesised cloud, as tests look at it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from app import TRACELESS

REPOSITORY = Path(__file__).resolve().parents[2]
CONTEXT = json.loads((REPOSITORY / "cdk.json").read_text())["context"] | TRACELESS

ACCOUNT = "123456789012"
REGION = "us-east-1"  # as in the events of AWS's documentation


@dataclass(frozen=True)
class Resource:
    id: str
    type: str
    properties: dict[str, Any]
    body: dict[str, Any] = field(repr=False)

    @property
    def path(self) -> str:
        return str(self.body.get("Metadata", {}).get("aws:cdk:path", self.id))

    def find(self, *names: str) -> Any:
        """The property at a path of names; None when there is no such."""
        found: Any = self.properties
        for name in names:
            if not isinstance(found, dict) or name not in found:
                return None
            found = found[name]
        return found


@dataclass(frozen=True)
class Template:
    name: str
    body: dict[str, Any] = field(repr=False)

    @cached_property
    def resources(self) -> list[Resource]:
        return [
            Resource(id_, body["Type"], body.get("Properties", {}), body)
            for id_, body in self.body.get("Resources", {}).items()
        ]

    def of(self, type_: str) -> list[Resource]:
        return [resource for resource in self.resources if resource.type == type_]

    def one(self, type_: str, **properties: Any) -> Resource:
        """The only resource of a type, or the only one with these properties."""
        (found,) = (r for r in self.of(type_) if all(r.properties.get(k) == v for k, v in properties.items()))
        return found

    def __getitem__(self, id_: str) -> Resource:
        return next(resource for resource in self.resources if resource.id == id_)

    def target(self, reference: Any) -> Resource:
        """What a Ref or a GetAtt in this template points to."""
        match reference:
            case {"Ref": id_}:
                return self[id_]
            case {"Fn::GetAtt": [id_, _]}:
                return self[id_]
        raise AssertionError(f"{reference!r} does not point into {self.name}")

    def allowed(self, role: Resource) -> list[dict[str, Any]]:
        """Every statement that the policies of a role in this template have."""
        policies = (p for p in self.of("AWS::IAM::Policy") if {"Ref": role.id} in p.properties["Roles"])
        return [statement for policy in policies for statement in statements(policy.properties["PolicyDocument"])]

    def queue_policy(self, queue: Resource) -> list[dict[str, Any]]:
        """Every statement about who may use a queue."""
        policies = (p for p in self.of("AWS::SQS::QueuePolicy") if {"Ref": queue.id} in p.properties["Queues"])
        return [statement for policy in policies for statement in statements(policy.properties["PolicyDocument"])]


@dataclass(frozen=True)
class Assembly:
    """A cloud assembly: all templates by stack name, and what cdk-nag and the CDK's own rules found."""

    directory: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.directory / "manifest.json").read_text())
        return manifest

    @cached_property
    def _stacks(self) -> dict[str, dict[str, Any]]:
        stacks = (a for a in self.manifest["artifacts"].values() if a["type"] == "aws:cloudformation:stack")
        return {stack["properties"]["stackName"]: stack["properties"] for stack in stacks}

    @cached_property
    def templates(self) -> dict[str, Template]:
        return {
            name: Template(name, json.loads((self.directory / properties["templateFile"]).read_text()))
            for name, properties in self._stacks.items()
        }

    def __getitem__(self, stack: str) -> Template:
        return self.templates[stack]

    def is_protected(self, stack: str) -> bool:
        return bool(self._stacks[stack].get("terminationProtection", False))

    def all(self, type_: str) -> list[Resource]:
        return [resource for template in self.templates.values() for resource in template.of(type_)]

    def target(self, template: Template, reference: Any) -> Resource:
        """What a reference in a template points to, also when it is exported by another one."""
        match reference:
            case {"Fn::ImportValue": str(name)}:
                for exporting in self.templates.values():
                    for output in exporting.body.get("Outputs", {}).values():
                        if output.get("Export", {}).get("Name") == name:
                            return exporting.target(output["Value"])
        return template.target(reference)

    def one(self, type_: str, **properties: Any) -> tuple[Template, Resource]:
        """The only resource with these properties in all templates, and where it is."""
        (found,) = (
            (template, resource)
            for template in self.templates.values()
            for resource in template.of(type_)
            if all(resource.properties.get(name) == value for name, value in properties.items())
        )
        return found

    @property
    def env(self) -> str:
        return next(name for name in self.templates if name.endswith("-foundation")).split("-")[1]

    @property
    def findings(self) -> list[Any]:
        report = json.loads((self.directory / "validation-report.json").read_text())
        return [violation for plugin in report["pluginReports"] for violation in plugin["violations"]]

    def flat(self, value: Any) -> str:
        """A value with its joins done and its references in angle brackets; what is exported is looked up."""
        match value:
            case str(text) | {"Fn::Sub": str(text)}:
                return text
            case {"Fn::Join": [str(delimiter), list(parts)]}:
                return delimiter.join(self.flat(part) for part in parts)
            case {"Ref": str(name)} | {"Fn::ImportValue": str(name)}:
                return f"<{name}>"
            case {"Fn::GetAtt": [str(name), str(attribute)]}:
                return f"<{name}.{attribute}>"
        return json.dumps(value)


def statements(policy: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Statements of a policy document, with actions and resources as lists."""
    for statement in policy["Statement"]:
        listed = dict(statement)
        for name in ("Action", "Resource"):
            if name in listed and not isinstance(listed[name], list):
                listed[name] = [listed[name]]
        yield listed
