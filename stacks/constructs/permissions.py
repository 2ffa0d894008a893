"""Permissions written by hand, in which a wildcard cannot be written without its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aws_cdk import Acknowledgment, App, Stack, Validations
from aws_cdk import aws_iam as iam
from constructs import IConstruct

OF_ONE_ROLE = (
    "A policy of one role alone comes and goes with it: a managed one could be attached to others, and would outlive "
    "what it is for."
)


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Actions on resources. `because` is why a resource has a wildcard: then required, and kept with the finding."""

    actions: Sequence[str]
    resources: Sequence[str]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    because: str = ""


def allow(to: iam.Role | iam.ManagedPolicy, *grants: Grant) -> None:
    """Give a role, or put into a policy, the permissions.

    Raises ValueError for a wildcard among actions, or one without a reason.
    """
    for grant in grants:
        if any("*" in action for action in grant.actions):
            raise ValueError(f"{to.node.path}: list the actions instead of {', '.join(grant.actions)}")
        for resource in grant.resources:
            resolved = Stack.of(to).resolve(resource)
            if "*" in str(resolved):
                name = _flatten(resolved)
                if not grant.because:
                    raise ValueError(f"{to.node.path}: say why {name} needs a wildcard")
                acknowledge(to, f"AwsSolutions-IAM5[Resource::{name}]", grant.because)
        statement = iam.PolicyStatement(
            actions=list(grant.actions), resources=list(grant.resources), conditions=dict(grant.conditions)
        )
        if isinstance(to, iam.ManagedPolicy):
            to.add_statements(statement)
        else:
            to.add_to_policy(statement)
            answer(to, "IAMNoInlinePolicy", OF_ONE_ROLE)


def deny(to: iam.ManagedPolicy, *actions: str, resources: Sequence[str]) -> None:
    """Refuse these actions to whoever has the policy, whatever other policies they have."""
    to.add_statements(iam.PolicyStatement(effect=iam.Effect.DENY, actions=list(actions), resources=list(resources)))


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Accept one finding of cdk-nag on `construct` and what is under it; `reason` is one sentence of its own."""
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))


def answer(construct: IConstruct, control: str, reason: str) -> None:
    """The same for a control of NIST 800-53 and PCI DSS, as cdk-nag reads them."""
    for pack in ("NIST.800.53.R5", "PCI.DSS.321"):
        acknowledge(construct, f"{pack}-{control}", reason)


def bound(app: App, policy: str | None) -> None:
    """Put a permissions boundary on every role of every stack, those included that the CDK makes; None puts none.

    `policy` is the name of a managed policy that is in the account before anything is deployed.
    """
    if policy is None:
        return
    for stack in (child for child in app.node.children if isinstance(child, Stack)):
        boundary = iam.ManagedPolicy.from_managed_policy_name(stack, "PermissionsBoundary", policy)
        iam.PermissionsBoundary.of(stack).apply(boundary)


def _flatten(value: Any) -> str:
    """A resolved ARN as cdk-nag names it: references, and IAM's variables, in angle brackets."""
    match value:
        case str():
            return value.replace("${", "<").replace("}", ">")
        case {"Fn::Join": [delimiter, parts]}:
            return str(delimiter).join(_flatten(part) for part in parts)
        case {"Fn::GetAtt": [resource, attribute]}:
            return f"<{resource}.{attribute}>"
        case {"Fn::Sub": str(template)}:
            return _flatten(template)
        case {"Ref": name}:
            return f"<{name}>"
    raise ValueError(f"cannot name {value!r}: a wildcard belongs after a plain name, not after another stack's output")
