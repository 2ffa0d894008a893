"""What stays after `noria destroy` is found in the account and told with its price: deployed, destroyed, looked at."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from local.cloud import LocalCloud
from noria.cli.commands import app

PORT = 4741
TAGS = [{"Key": "noria:env", "Value": "local"}]
KEPT = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
METRIC = {
    "Namespace": "Noria",
    "MetricName": "Lost",
    "Period": 60,
    "EvaluationPeriods": 1,
    "Statistic": "Sum",
    "Threshold": 1,
    "ComparisonOperator": "GreaterThanThreshold",
}
FOUNDATION = {
    "Gone": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "noria-local-gone", "Tags": TAGS}},
    "Data": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "noria-local-data", "Tags": TAGS}, **KEPT},
    "Ledger": {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "TableName": "noria-local-ledger",
            "KeySchema": [{"AttributeName": "model", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "model", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
        },
        **KEPT,
    },
    "Key": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {}, "Tags": TAGS}},
    "KeptKey": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {}, "Tags": TAGS}, **KEPT},
    "Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"AlarmName": "noria-local-lost", **METRIC}, **KEPT},
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with (
        LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=PORT) as cloud,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in cloud.environment.items():
            patch.setenv(name, value)
        yield cloud


def ask(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--env", "local", "--json"])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def deploy(name: str, resources: dict[str, Any]) -> None:
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources}))
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})


def test_what_stays_is_named_with_its_price_and_nothing_else_is(cloud: LocalCloud) -> None:
    deploy("noria-local-foundation", FOUNDATION)
    s3 = boto3.client("s3")
    s3.put_object(Bucket="noria-local-gone", Key="rows.csv", Body=b"1")
    s3.put_object(Bucket="noria-local-data", Key="rows.csv", Body=b"0" * 5_000_000)
    s3.create_bucket(Bucket="noria-localised", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    removed = ask("destroy", "--yes")
    assert removed["stacks"] == ["noria-local-foundation"]
    assert removed["objects"] == 1
    assert removed["scan"]["unseen"] == []
    left = {row["name"].rpartition("/")[-1]: row for row in removed["scan"]["left"]}
    keys = {row["note"]: row["usd"] for row in left.values() if row["type"] == "AWS::KMS::Key"}
    names = {name for name, row in left.items() if row["type"] != "AWS::KMS::Key"}
    assert names == {"noria-local-data", "noria-local-ledger", "noria-local-lost"}
    assert left["noria-local-data"]["usd"] == pytest.approx(0.005 * 0.023)  # five million bytes
    assert left["noria-local-lost"]["usd"] == pytest.approx(0.10)
    assert sorted(keys.values()) == [0, 1]
    assert any("free until then" in note for note, usd in keys.items() if usd == 0)
    assert removed["scan"]["usd"] == pytest.approx(1 + 0.10 + 0.005 * 0.023)


def test_it_can_be_asked_for_at_any_time_and_for_a_model_alone(cloud: LocalCloud) -> None:
    alarm = {"Type": "AWS::CloudWatch::Alarm"}
    deploy("noria-local-fares-training", {"Topic": {"Type": "AWS::SNS::Topic"}})
    deploy("noria-local-fares-night-training", {"Topic": {"Type": "AWS::SNS::Topic"}})
    names = ("noria-local-fares-drift", "noria-local-fares-night-drift")
    deploy("others", {f"A{n}": {**alarm, "Properties": {"AlarmName": each, **METRIC}} for n, each in enumerate(names)})
    found = ask("leftovers", "--model", "fares")
    assert {row["name"] for row in found["left"]} == {"noria-local-fares-training", "noria-local-fares-drift"}
    assert found["usd"] == pytest.approx(0.10)


def test_nothing_left_is_said_so(cloud: LocalCloud) -> None:
    told = CliRunner().invoke(app, ["leftovers", "--env", "staging"])
    assert told.exit_code == 0, told.output
    assert "found nothing" in told.stdout
