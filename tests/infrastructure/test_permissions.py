"""What every policy of every template must be, whoever's it is."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aws_cdk
import pytest
from aws_cdk import aws_iam as iam

from local.privileges import Deployment, measure, reasons
from stacks.constructs.permissions import Grant, allow
from stacks.settings import ENVIRONMENTS
from tests.infrastructure.assembly import ACCOUNT, CONTEXT, Assembly, Resource, statements
from tests.infrastructure.conftest import synthesise

POLICIES = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
LARGEST = 6144  # characters of a managed policy: IAM guide, `reference_iam-quotas`


@pytest.fixture(params=["local", "prod", "ways"])
def every(request: pytest.FixtureRequest) -> Assembly:
    assembly: Assembly = request.getfixturevalue(request.param)
    return assembly


def policies(assembly: Assembly) -> Iterator[Resource]:
    for type_ in POLICIES:
        yield from assembly.all(type_)


def allowed(assembly: Assembly) -> Iterator[tuple[Resource, dict[str, Any]]]:
    for policy in policies(assembly):
        for statement in statements(policy.properties["PolicyDocument"]):
            if statement["Effect"] == "Allow":
                yield policy, statement
            else:
                assert policy.type == "AWS::IAM::ManagedPolicy", f"{policy.path}: roles are given less"


def test_no_action_has_a_wildcard_and_none_is_left_out(every: Assembly) -> None:
    for policy, statement in allowed(every):
        assert "NotAction" not in statement, policy.path
        assert "NotResource" not in statement, policy.path
        assert [action for action in statement["Action"] if "*" in action] == [], policy.path


def test_no_role_has_a_policy_that_aws_keeps(every: Assembly) -> None:
    """AWS may add to its own policies at any time: AmazonSageMakerFullAccess, AWSLambdaBasicExecutionRole, …"""
    for role in every.all("AWS::IAM::Role"):
        assert role.properties.get("ManagedPolicyArns", []) == [], role.path
        assert role.properties.get("Policies", []) == [], role.path


def test_every_wildcard_in_a_resource_has_its_reason_beside_it(every: Assembly) -> None:
    for policy, statement in allowed(every):
        told = suppressions(policy)
        for resource in statement["Resource"]:
            name = every.flat(resource).replace("${", "<").replace("}", ">")
            if "*" in name:
                reason = told.get(f"AwsSolutions-IAM5[Resource::{name}]", "")
                assert re.fullmatch(r"[A-Z].{20,}\.", reason), f"{policy.path}: {name}"


def test_every_suppression_says_why_in_a_sentence(every: Assembly) -> None:
    found = 0
    for template in every.templates.values():
        for resource in template.resources:
            for rule, reason in suppressions(resource).items():
                found += 1
                assert re.fullmatch(r"[A-Z].{20,}\.", reason), f"{resource.path}: {rule}: {reason!r}"
    assert found


SECRET = re.compile(r"secret|password|passwd|api_?key|credential|private_?key", re.IGNORECASE)


def test_there_is_no_secret_to_be_found(every: Assembly) -> None:
    """Nor a place for one: the day there is one, docs/security.md says where it goes."""
    assert every.all("AWS::SecretsManager::Secret") == []
    for function in every.all("AWS::Lambda::Function"):
        variables = function.find("Environment", "Variables") or {}
        assert [name for name in variables if SECRET.search(name)] == [], function.path
    for template in every.templates.values():
        for parameter in template.body.get("Parameters", {}):
            assert not SECRET.search(parameter), f"{template.name}: {parameter}"


def test_what_people_may_do_fits_into_a_policy(every: Assembly) -> None:
    for policy in every.all("AWS::IAM::ManagedPolicy"):
        text = "".join(every.flat(policy.properties["PolicyDocument"]).split())
        assert len(text) < LARGEST * 0.9, policy.path


def suppressions(resource: Resource) -> dict[str, str]:
    told = resource.body.get("Metadata", {}).get("cdk_nag", {}).get("rules_to_suppress", [])
    return {each["id"]: each["reason"] for each in told}


# --- the permissions boundary


def test_without_a_boundary_no_role_has_one(every: Assembly) -> None:
    assert {"PermissionsBoundary" in role.properties for role in every.all("AWS::IAM::Role")} == {False}


def test_a_boundary_is_on_every_role_and_on_nothing_else(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENTS, "dev", replace(ENVIRONMENTS["dev"], permissions_boundary="developers"))
    assembly = synthesise("dev", models=models, out=tmp_path)
    roles = assembly.all("AWS::IAM::Role")
    assert len(roles) > 20
    expected = f"arn:<AWS::Partition>:iam::{ACCOUNT}:policy/developers"
    for role in roles:
        assert (
            assembly.flat(role.properties["PermissionsBoundary"]).replace("arn:aws:", "arn:<AWS::Partition>:")
            == expected
        ), role.path
    assert assembly.findings == []


# --- what is granted and not used by the end-to-end tests


def test_every_reason_for_an_unused_action_is_about_one_that_is_granted(local: Assembly, ways: Assembly) -> None:
    granted = {
        action
        for assembly in (local, ways)
        for role in measure(Deployment({t.name: t.body for t in assembly.templates.values()}, {}), {})
        for action in role.granted
    }
    for reason in reasons():
        assert re.fullmatch(r"[A-Z].{20,}\.", reason.because), reason
        assert set(reason.actions) <= granted, reason


# --- the construct that writes them


def test_a_wildcard_cannot_be_written_without_its_reason() -> None:
    role = iam.Role(aws_cdk.Stack(aws_cdk.App(context=CONTEXT), "Stack"), "Role", assumed_by=iam.AccountRootPrincipal())
    with pytest.raises(ValueError, match="Stack/Role: list the actions instead of s3:Get"):
        allow(role, Grant(actions=["s3:Get*"], resources=["arn:aws:s3:::bucket"], because="It is easier."))
    with pytest.raises(ValueError, match=r"Stack/Role: say why arn:aws:s3:::bucket/\* needs a wildcard"):
        allow(role, Grant(actions=["s3:GetObject"], resources=["arn:aws:s3:::bucket/*"]))
