"""Two environments in two accounts: what the registry's lets the other do, what that may do, and nothing without."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stacks.settings import ENVIRONMENTS, Follower, Registry
from tests.infrastructure.assembly import ACCOUNT, REGION, Assembly, Resource, Template, statements
from tests.infrastructure.conftest import synthesise
from tests.infrastructure.patterns import matches
from tests.infrastructure.test_events import event
from tests.infrastructure.test_reactions import OF_EVERY_FUNCTION, actions, calls

THERE, HERE = "111111111111", "222222222222"
"""The accounts of the registry (dev) and of the follower (prod)."""

KEY = f"arn:aws:kms:{REGION}:{THERE}:key/0f1e2d3c"
IMPORTER = f"arn:aws:iam::{HERE}:role/noria-prod-reactions-ImportPackageRole0A1B2C3D-9Z8Y7X"


def _of(env: str, account: str, models: Path, out: Path, **settings: Any) -> Assembly:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, env, replace(ENVIRONMENTS[env], **settings))
        patch.setattr("tests.infrastructure.conftest.ACCOUNT", account)
        return synthesise(env, models=models, out=out)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "flight-delay.yaml").write_text((Path("models") / "flight-delay.yaml").read_text())
    return folder


@pytest.fixture(scope="module")
def registry(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    followers = (Follower(env="prod", account=HERE),)
    return _of("dev", THERE, shipped, tmp_path_factory.mktemp("registry"), promotes_to=followers)


@pytest.fixture(scope="module")
def follower(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    origin = Registry(env="dev", account=THERE, key=KEY)
    return _of("prod", HERE, shipped, tmp_path_factory.mktemp("follower"), registry=origin)


def test_nothing_of_it_is_there_unless_asked_for(local: Assembly, prod: Assembly) -> None:
    for assembly in (local, prod):
        text = "".join(json.dumps(template.body) for template in assembly.templates.values())
        assert "Promot" not in text
        assert "ImportPackage" not in text
        assert set(re.findall(r"arn:aws:iam::(\d{12}):", text)) <= {ACCOUNT}


def test_the_scanners_find_nothing_in_either(registry: Assembly, follower: Assembly) -> None:
    assert registry.findings == []
    assert follower.findings == []


# --- what the registry's account lets the other do: three policies that belong together


def test_package_group_bucket_and_key_name_the_same_one_role(registry: Assembly) -> None:
    triple = list(_of_the_other(registry))
    assert sorted((kind, sorted(statement["Action"])) for kind, statement in triple) == [
        ("AWS::KMS::Key", ["kms:Decrypt", "kms:DescribeKey"]),
        ("AWS::S3::BucketPolicy", ["s3:GetObject"]),
        ("AWS::SageMaker::ModelPackageGroup", ["sagemaker:DescribeModelPackage"]),
    ]
    for _, statement in triple:
        assert statement["Principal"] == {"AWS": f"arn:aws:iam::{HERE}:root"}
        pattern = statement["Condition"]["ArnLike"]["aws:PrincipalArn"]
        assert re.fullmatch(pattern.replace("*", ".*"), IMPORTER)
        assert not re.fullmatch(pattern.replace("*", ".*"), IMPORTER.replace("ImportPackage", "DeployModel"))


def test_the_bucket_gives_what_packages_are_made_of_and_no_data(registry: Assembly) -> None:
    (given,) = (statement for kind, statement in _of_the_other(registry) if kind == "AWS::S3::BucketPolicy")
    assert [registry.flat(resource).partition("/")[2] for resource in given["Resource"]] == [
        "*/baselines/*",
        "*/runs/*",
    ]


def test_the_key_decrypts_for_it_through_s3_alone(registry: Assembly) -> None:
    (given,) = (statement for kind, statement in _of_the_other(registry) if kind == "AWS::KMS::Key")
    assert given["Condition"]["StringEquals"] == {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}


def test_an_approval_there_is_told_to_the_others_bus(registry: Assembly) -> None:
    stack = registry["noria-dev-reactions"]
    rule = stack.one("AWS::Events::Rule", Name="noria-dev-promotion")
    assert "EventBusName" not in rule.properties  # SageMaker speaks on the default one
    assert matches(rule.properties["EventPattern"], _approval("dev"))
    marked = _approval("dev")
    marked["detail"]["UpdatedModelPackageFields"] = ["CustomerMetadataProperties"]
    assert not matches(rule.properties["EventPattern"], marked)
    assert not matches(rule.properties["EventPattern"], _approval("prod"))
    (target,) = rule.properties["Targets"]
    bus = f"arn:aws:events:{REGION}:{HERE}:event-bus/noria-prod"
    assert target["Arn"] == bus
    (may,) = stack.allowed(stack.target(target["RoleArn"]))
    assert (may["Action"], may["Resource"]) == (["events:PutEvents"], [bus])
    dead = stack.target(target["DeadLetterConfig"]["Arn"])
    assert dead.properties["QueueName"] == "noria-dev-dead-letters"


# --- what the other account does with it


def test_the_others_bus_hears_that_rules_role_alone(follower: Assembly, registry: Assembly) -> None:
    (statement,) = statements(follower["noria-prod-foundation"].one("AWS::Events::EventBus").properties["Policy"])
    assert (statement["Principal"], statement["Action"]) == (
        {"AWS": f"arn:aws:iam::{THERE}:root"},
        ["events:PutEvents"],
    )
    pattern = statement["Condition"]["ArnLike"]["aws:PrincipalArn"]
    stack = registry["noria-dev-reactions"]
    (role,) = (r for r in stack.of("AWS::IAM::Role") if r.id.startswith("Promotion"))
    named = f"arn:aws:iam::{THERE}:role/{stack.name}-{role.id}-ABCDEF"
    assert re.fullmatch(pattern.replace("*", ".*"), named)


def test_the_import_starts_from_an_approval_there_and_from_none_here(follower: Assembly) -> None:
    stack, queue = follower["noria-prod-reactions"], "noria-prod-import-package"
    (rule,) = (r for r in stack.of("AWS::Events::Rule") if _leads_to(stack, r, queue))
    assert follower.target(stack, rule.properties["EventBusName"]).type == "AWS::Events::EventBus"
    assert matches(rule.properties["EventPattern"], _approval("dev"))
    assert not matches(rule.properties["EventPattern"], _approval("prod", account=HERE))


def test_what_the_importer_may_do_is_what_it_calls_and_on_the_other_side_only_reading(follower: Assembly) -> None:
    stack = follower["noria-prod-reactions"]
    function = stack.one("AWS::Lambda::Function", FunctionName="noria-prod-import-package")
    role = stack.target(function.properties["Role"])
    allowed = stack.allowed(role)
    assert f"{stack.name}-{role.id}".startswith("noria-prod-reactions-ImportPackage")
    assert actions(allowed) - OF_EVERY_FUNCTION == calls("import_package") - OF_EVERY_FUNCTION
    there = {
        action: follower.flat(resource)
        for statement in allowed
        for resource in statement["Resource"]
        for action in statement["Action"]
        if THERE in follower.flat(resource)
    }
    assert there.keys() == {"sagemaker:DescribeModelPackage", "s3:GetObject", "kms:Decrypt", "kms:DescribeKey"}
    assert there["kms:Decrypt"] == KEY


def test_both_sides_agree_on_what_is_read(registry: Assembly, follower: Assembly) -> None:
    """An identity's policy and the resource's must both allow, when the accounts differ."""
    stack = follower["noria-prod-reactions"]
    role = stack.target(stack.one("AWS::Lambda::Function", FunctionName="noria-prod-import-package").properties["Role"])
    asked = {(a, follower.flat(r)) for s in stack.allowed(role) for r in s["Resource"] for a in s["Action"]}
    for kind, statement in _of_the_other(registry):
        for action in statement["Action"]:
            if kind == "AWS::SageMaker::ModelPackageGroup":
                (resource,) = map(registry.flat, statement["Resource"])
                wanted = next(r for a, r in asked if a == action and THERE in r)
                assert resource.startswith(wanted.rstrip("*"))
            elif kind == "AWS::S3::BucketPolicy":
                bucket = f"arn:aws:s3:::noria-dev-data-{THERE}-{REGION}"
                given = {f"{bucket}/{registry.flat(r).partition('/')[2]}" for r in statement["Resource"]}
                assert given == {r for a, r in asked if a == action and r.startswith(bucket)}
            else:
                assert (action, KEY) in asked


def _of_the_other(registry: Assembly) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of a resource's policy that speaks of the other account, and the resource's type."""
    policies = {
        "AWS::KMS::Key": "KeyPolicy",
        "AWS::S3::BucketPolicy": "PolicyDocument",
        "AWS::SageMaker::ModelPackageGroup": "ModelPackageGroupPolicy",
    }
    for template in registry.templates.values():
        for resource in template.resources:
            policy = resource.properties.get(policies.get(resource.type, ""))
            for statement in statements(policy) if policy else ():
                if HERE in json.dumps(statement):
                    yield resource.type, statement


def _approval(env: str, account: str = THERE) -> dict[str, Any]:
    sample = json.dumps(event("aws.sagemaker-model-package-state-change", env=env))
    told: dict[str, Any] = json.loads(re.sub(r"(arn:aws:sagemaker:[a-z0-9-]+:)\d{12}", rf"\g<1>{account}", sample))
    told["detail"]["ModelApprovalStatus"] = "Approved"
    told["detail"]["UpdatedModelPackageFields"] = ["ModelApprovalStatus"]
    return told


def _leads_to(stack: Template, rule: Resource, queue: str) -> bool:
    targets = (target["Arn"] for target in rule.properties.get("Targets", []))
    return any(
        "Fn::GetAtt" in arn and stack[arn["Fn::GetAtt"][0]].properties.get("QueueName") == queue for arn in targets
    )


def _sources(statement: dict[str, Any]) -> list[Any]:
    return list(statement.get("Condition", {}).get("ArnEquals", {}).values())
