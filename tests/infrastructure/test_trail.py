"""The optional trail: whose accesses it keeps, that nobody changes what it keeps, and that without it there is none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stacks.settings import ENVIRONMENTS
from tests.infrastructure.assembly import ACCOUNT, REGION, Assembly, Resource, Template, statements
from tests.infrastructure.conftest import synthesise

TRAIL = f"arn:aws:cloudtrail:{REGION}:{ACCOUNT}:trail/noria-prod"


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "prod", replace(ENVIRONMENTS["prod"], trail=True))
        return synthesise("prod", models=tmp_path_factory.mktemp("none"), out=tmp_path_factory.mktemp("audited"))


@pytest.fixture
def stack(audited: Assembly) -> Template:
    return audited["noria-prod-foundation"]


@pytest.fixture
def trail(stack: Template) -> Resource:
    return stack.one("AWS::CloudTrail::Trail")


@pytest.fixture
def files(stack: Template, trail: Resource) -> Resource:
    return stack.target(trail.properties["S3BucketName"])


def test_without_a_trail_there_is_none(local: Assembly, prod: Assembly) -> None:
    for assembly in (local, prod):
        assert "cloudtrail" not in json.dumps(assembly[f"noria-{assembly.env}-foundation"].body).lower()


def test_the_scanners_find_nothing_in_it(audited: Assembly) -> None:
    assert audited.findings == []


def test_it_keeps_every_access_to_data_and_ledger(audited: Assembly, stack: Template, trail: Resource) -> None:
    selected: dict[str, dict[str, Any]] = {
        selector["Name"]: {field["Field"]: field for field in selector["FieldSelectors"]}
        for selector in trail.properties["AdvancedEventSelectors"]
    }
    assert {name: fields["resources.type"]["Equals"] for name, fields in selected.items()} == {
        "Objects": ["AWS::S3::Object"],
        "Ledger": ["AWS::DynamoDB::Table"],
    }
    for fields in selected.values():
        assert fields["eventCategory"]["Equals"] == ["Data"]
        assert fields.keys() == {"eventCategory", "resources.type", "resources.ARN"}  # readOnly would leave half out
    (table,) = selected["Ledger"]["resources.ARN"]["Equals"]
    assert stack.target(table) == stack.one("AWS::DynamoDB::Table")
    begin = {audited.flat(arn) for arn in selected["Objects"]["resources.ARN"]["StartsWith"]}
    ours = {b.id for b in stack.of("AWS::S3::Bucket") if not b.id.startswith(("AccessLogs", "Trail"))}
    assert begin == {f"<{bucket}.Arn>/" for bucket in ours}


def test_its_files_are_signed_encrypted_and_cannot_be_changed(
    stack: Template, trail: Resource, files: Resource
) -> None:
    assert trail.properties["EnableLogFileValidation"] is True
    assert trail.properties["IsLogging"] is True
    assert stack.target(trail.properties["KMSKeyId"]).type == "AWS::KMS::Key"
    assert files.properties["ObjectLockEnabled"] is True
    retention = files.find("ObjectLockConfiguration", "Rule", "DefaultRetention")
    assert retention == {"Mode": "COMPLIANCE", "Days": 365}
    assert files.body["DeletionPolicy"] == "Retain"


def test_only_this_trail_writes_there(audited: Assembly, stack: Template, files: Resource) -> None:
    (policy,) = (p for p in stack.of("AWS::S3::BucketPolicy") if p.properties["Bucket"] == {"Ref": files.id})
    allowed = [s for s in statements(policy.properties["PolicyDocument"]) if s["Effect"] == "Allow"]
    read = [
        (s["Principal"], s["Action"], [audited.flat(r) for r in s["Resource"]], s["Condition"]["StringEquals"])
        for s in allowed
    ]
    service = {"Service": "cloudtrail.amazonaws.com"}
    arn = f"<{files.id}.Arn>"
    assert read == [
        (service, ["s3:GetBucketAcl"], [arn], {"aws:SourceArn": TRAIL}),
        (
            service,
            ["s3:PutObject"],
            [f"{arn}/AWSLogs/{ACCOUNT}/*"],
            {"aws:SourceArn": TRAIL, "s3:x-amz-acl": "bucket-owner-full-control"},
        ),
    ]


def test_cloudtrail_encrypts_for_this_trail_and_decrypts_nothing(stack: Template) -> None:
    key = stack.one("AWS::KMS::Key")
    its = [
        s for s in statements(key.properties["KeyPolicy"]) if s["Principal"] == {"Service": "cloudtrail.amazonaws.com"}
    ]
    assert sorted(action for s in its for action in s["Action"]) == ["kms:DescribeKey", "kms:GenerateDataKey"]
    assert all(s["Condition"]["StringEquals"] == {"aws:SourceArn": TRAIL} for s in its)


def test_without_data_to_keep_the_lock_is_one_that_an_administrator_can_lift(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "dev", replace(ENVIRONMENTS["dev"], trail=True))
        (tmp_path / "models").mkdir()
        audited = synthesise("dev", models=tmp_path / "models", out=tmp_path / "out")
    locked = [
        b.find("ObjectLockConfiguration", "Rule", "DefaultRetention")
        for b in audited["noria-dev-foundation"].of("AWS::S3::Bucket")
        if b.id.startswith("Trail")
    ]
    assert locked == [{"Mode": "GOVERNANCE", "Days": 30}]
