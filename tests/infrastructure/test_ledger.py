"""The ledger only grows, and each entry of it has a copy that nobody can change: AWS sees to both."""

import json
from typing import Any

import pytest

from tests.infrastructure.assembly import Assembly, Resource, Template, statements
from tests.infrastructure.patterns import matches


@pytest.fixture
def stack(assembly: Assembly) -> Template:
    return assembly[f"noria-{assembly.env}-foundation"]


@pytest.fixture
def copies(assembly: Assembly, stack: Template) -> Resource:
    return stack.one("AWS::S3::Bucket", BucketName=f"noria-{assembly.env}-ledger-123456789012-us-east-1")


@pytest.fixture
def exporter(assembly: Assembly) -> Template:
    return assembly[f"noria-{assembly.env}-reactions"]


@pytest.fixture
def stream(exporter: Template) -> Resource:
    (mapping,) = (m for m in exporter.of("AWS::Lambda::EventSourceMapping") if "StartingPosition" in m.properties)
    return mapping


WRITES = {
    # Service Authorization Reference, DynamoDB: what changes or removes items of a table that is there.
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
    "dynamodb:BatchWriteItem",
    "dynamodb:PartiQLInsert",
    "dynamodb:PartiQLUpdate",
    "dynamodb:PartiQLDelete",
    "dynamodb:UpdateTimeToLive",
}


def test_nobody_may_change_or_delete_what_the_ledger_says(stack: Template) -> None:
    (denial,) = statements(stack.one("AWS::DynamoDB::Table").find("ResourcePolicy", "PolicyDocument"))
    assert (denial["Effect"], denial["Principal"], denial["Resource"]) == ("Deny", {"AWS": "*"}, ["*"])
    assert set(denial["Action"]) == WRITES
    assert "Condition" not in denial


def test_no_role_is_granted_what_the_ledger_denies(assembly: Assembly) -> None:
    for template in assembly.templates.values():
        for policy in template.of("AWS::IAM::Policy"):
            for statement in statements(policy.properties["PolicyDocument"]):
                assert not WRITES & set(statement["Action"]), policy.path


def test_copies_are_locked_by_default_and_for_everybody_where_data_is_kept(
    assembly: Assembly, copies: Resource
) -> None:
    assert copies.find("ObjectLockEnabled") is True
    rule = copies.find("ObjectLockConfiguration", "Rule", "DefaultRetention")
    assert (
        rule == {"local": {"Mode": "GOVERNANCE", "Days": 1}, "prod": {"Mode": "COMPLIANCE", "Days": 365}}[assembly.env]
    )
    assert copies.find("VersioningConfiguration", "Status") == "Enabled"
    assert copies.find("LifecycleConfiguration") is None  # nothing expires them


def test_a_copy_is_written_once(stack: Template, copies: Resource) -> None:
    (policy,) = (p for p in stack.of("AWS::S3::BucketPolicy") if p.find("Bucket", "Ref") == copies.id)
    (once,) = (s for s in statements(policy.properties["PolicyDocument"]) if s.get("Sid") == "WriteOnce")
    assert (once["Effect"], once["Action"], once["Principal"]) == ("Deny", ["s3:PutObject"], {"AWS": "*"})
    assert once["Condition"] == {"Null": {"s3:if-none-match": "true"}}


def record(sort_key: str) -> dict[str, Any]:
    return {"eventName": "INSERT", "dynamodb": {"Keys": {"model": {"S": "m"}, "sk": {"S": sort_key}}}}


def test_entries_are_exported_and_nothing_else(stack: Template, stream: Resource) -> None:
    assert stack.one("AWS::DynamoDB::Table").find("StreamSpecification", "StreamViewType") == "NEW_IMAGE"
    (kept,) = stream.find("FilterCriteria", "Filters")
    pattern = json.loads(kept["Pattern"])
    assert matches(pattern, record("entry#000000000001"))
    for other in ("head", "meaning#deployed#deploy-1", "claim#page"):
        assert not matches(pattern, record(other)), other


def test_what_cannot_be_exported_goes_to_the_dead_letters(
    assembly: Assembly, exporter: Template, stream: Resource
) -> None:
    function = exporter.target(stream.properties["FunctionName"])
    assert function.properties["FunctionName"] == f"noria-{assembly.env}-export-ledger"
    queue = exporter.target(stream.find("DestinationConfig", "OnFailure", "Destination"))
    assert queue.properties["QueueName"] == f"noria-{assembly.env}-dead-letters"
    assert stream.properties["BisectBatchOnFunctionError"] is True
    assert 0 < stream.properties["MaximumRetryAttempts"] < 100  # else one entry holds up all after it for a day
    assert stream.properties["StartingPosition"] == "TRIM_HORIZON"


def test_who_copies_may_neither_write_to_the_ledger_nor_get_around_the_lock(
    exporter: Template, stream: Resource
) -> None:
    role = exporter.target(exporter.target(stream.properties["FunctionName"]).properties["Role"])
    granted = {action for statement in exporter.allowed(role) for action in statement["Action"]}
    assert "dynamodb:PutItem" not in granted
    assert {action for action in granted if action.startswith("s3:")} == {
        "s3:GetObject",
        "s3:PutObject",
        "s3:ListBucket",
    }
