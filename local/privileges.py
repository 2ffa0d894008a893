"""Least privilege, measured: what each role of a cloud is granted, against what it was asked for while the cloud ran.

The local cloud authorises every call, and remembers which role was allowed what (`install`). `measure` compares that
with the policies of the templates; local/privileges.yaml says why something is granted that was never used.
"""

import json
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict

from local import ministack
from local.cloud import WORK, LocalCloud

PATH = "/_noria/calls"
RECORD = WORK / "privileges.json"
REASONS = Path(__file__).with_name("privileges.yaml")


def install() -> None:
    """Let whoever runs this cloud ask which role was allowed what."""
    ministack.register_door(PATH, lambda _: ministack.Response(200, json.dumps(ministack.calls()).encode()))


def recorded(cloud: LocalCloud) -> dict[str, frozenset[str]]:
    """By a role's name, the actions that it was asked for and allowed."""
    tls = ssl.create_default_context(cafile=str(cloud.certificate))
    with urllib.request.urlopen(f"{cloud.endpoint}{PATH}", timeout=30, context=tls) as answer:  # noqa: S310 - https
        return {role: frozenset(actions) for role, actions in json.load(answer).items()}


class Reason(BaseModel):
    """Why roles are granted actions that the tests do not use; `role` begins the role's place in its template."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str
    actions: tuple[str, ...]
    because: str


def reasons() -> list[Reason]:
    return [Reason.model_validate(reason) for reason in yaml.safe_load(REASONS.read_text(encoding="utf-8"))]


@dataclass(frozen=True)
class Deployment:
    """What was deployed to a cloud: templates by stack, and names of roles by stack and logical id."""

    templates: Mapping[str, Mapping[str, Any]]
    names: Mapping[tuple[str, str], str]

    @classmethod
    def of(cls, cloud: LocalCloud, client: Any) -> Self:
        """`client` is CloudFormation's. The templates are what the CDK left in the cloud's root."""
        out = cloud.root / "cdk.out"
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        stacks = [
            artifact["properties"]
            for artifact in manifest["artifacts"].values()
            if artifact["type"] == "aws:cloudformation:stack"
        ]
        templates = {
            stack["stackName"]: json.loads((out / stack["templateFile"]).read_text(encoding="utf-8"))
            for stack in stacks
        }
        names = {
            (stack, resource["LogicalResourceId"]): resource["PhysicalResourceId"]
            for stack in templates
            for resource in client.describe_stack_resources(StackName=stack)["StackResources"]
            if resource["ResourceType"] == "AWS::IAM::Role"
        }
        return cls(templates, names)


@dataclass(frozen=True)
class Privileges:
    """Of one role: `place` is its stack's part and its construct, as in `reactions/ValidateUpload/Role`."""

    place: str
    granted: frozenset[str]
    used: frozenset[str]

    @property
    def unused(self) -> frozenset[str]:
        return self.granted - self.used

    @property
    def ungranted(self) -> frozenset[str]:
        return self.used - self.granted

    def unexplained(self, explained: list[Reason]) -> frozenset[str]:
        told = {action for reason in explained if self.place.startswith(reason.role) for action in reason.actions}
        return self.unused - told


def measure(deployment: Deployment, used: Mapping[str, frozenset[str]]) -> list[Privileges]:
    """Every role of the templates, those of the same place in several models' stacks as one."""
    found: dict[str, Privileges] = {}
    for stack, template in deployment.templates.items():
        for id_, role in template["Resources"].items():
            if role["Type"] != "AWS::IAM::Role":
                continue
            place = _place(role, id_)
            own = used.get(deployment.names.get((stack, id_), ""), frozenset())
            known = found.get(place, Privileges(place, frozenset(), frozenset()))
            found[place] = Privileges(place, known.granted | frozenset(_granted(template, id_)), known.used | own)
    return sorted(found.values(), key=lambda privileges: privileges.place)


def write(measured: list[Privileges]) -> None:
    """Leave the record in `.noria/privileges.json`: by role, what is granted, unused, and used without a grant."""
    rows = {
        each.place: {name: sorted(getattr(each, name)) for name in ("granted", "unused", "ungranted")}
        for each in measured
    }
    RECORD.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _place(role: Mapping[str, Any], id_: str) -> str:
    """Where the CDK made it; of a model's stacks the part alone, so that all models' are one."""
    path = str(role.get("Metadata", {}).get("aws:cdk:path", id_)).removesuffix("/Resource")
    stack, _, construct = path.partition("/")
    part = next((part for part in ("front-door", "training", "serving", "monitoring") if stack.endswith(part)), stack)
    return f"{part}/{construct}"


def _granted(template: Mapping[str, Any], role: str) -> Iterator[str]:
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::IAM::Policy" and {"Ref": role} in properties.get("Roles", []):
            for statement in properties["PolicyDocument"]["Statement"]:
                if statement["Effect"] == "Allow":
                    actions = statement["Action"]
                    yield from [actions] if isinstance(actions, str) else actions
