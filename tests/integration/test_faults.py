"""Faults of the local cloud: real functions behind real queues are ended, refused and kept waiting at their calls."""

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.cloud import ACCOUNT, REGION, LocalCloud
from local.faults import Fault, Kind
from tests.integration.test_local_endpoints import World, eventually

PORT = 4711
WRITER = """
import json, boto3
from botocore.config import Config

clients = {
    name: boto3.client(name, config=Config(retries={"max_attempts": 0}, read_timeout=2 if name == "sns" else 60))
    for name in ("s3", "dynamodb", "sns", "sagemaker", "cloudwatch")
}

def handler(event, context):
    for record in event["Records"]:
        clients["s3"].put_object(Bucket="data", Key=record["messageId"] + "/" + context.aws_request_id, Body=b"1")
        clients["dynamodb"].update_item(
            TableName="done", Key={"id": {"S": record["messageId"]}},
            UpdateExpression="ADD seen :one", ExpressionAttributeValues={":one": {"N": "1"}},
        )

def ask(event, context):
    def do(name):
        return {
            "s3": lambda c: c.get_object(Bucket="data", Key="there")["Body"].read().decode(),
            "dynamodb": lambda c: c.get_item(TableName="done", Key={"id": {"S": "x"}}),
            "sns": lambda c: c.publish(TopicArn="arn:aws:sns:eu-west-1:123456789012:pages", Message="1"),
            "sagemaker": lambda c: c.list_endpoints(),
            "cloudwatch": lambda c: c.put_metric_data(Namespace="N", MetricData=[{"MetricName": "m", "Value": 1}]),
        }[name](clients[name])
    try:
        return do(event["service"])
    except Exception as error:
        told = getattr(error, "response", None) or {}
        return [told.get("Error", {}).get("Code", type(error).__name__),
                told.get("ResponseMetadata", {}).get("HTTPStatusCode")]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=PORT) as cloud:
        world = World(cloud)
        world.client("s3").create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": REGION})
        world.client("s3").put_object(Bucket="data", Key="there", Body=b"first")
        world.client("sns").create_topic(Name="pages")
        world.client("dynamodb").create_table(
            TableName="done",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )
        _function(world, "writer", "faulty.handler")
        _function(world, "asker", "faulty.ask")
        yield world


def _function(world: World, name: str, handler: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("faulty.py", WRITER)
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam = world.client("iam")
    role = iam.create_role(RoleName=f"{name}-role", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=f"{name}-role", PolicyName="all", PolicyDocument=json.dumps(policy))
    world.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.11",
        Handler=handler,
        Role=role,
        Code={"ZipFile": packed.getvalue()},
        Timeout=30,
    )


def ask(world: World, service: str) -> Any:
    answer = world.client("lambda").invoke(FunctionName="asker", Payload=json.dumps({"service": service}))
    return json.loads(answer["Payload"].read())


def counted(world: World, function: str, metric: str) -> float:
    now = datetime.now(UTC)
    found = world.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/Lambda",
        MetricName=metric,
        Dimensions=[{"Name": "FunctionName", "Value": function}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=1),
        Period=3600,
        Statistics=["Sum"],
    )
    return float(sum(point["Sum"] for point in found["Datapoints"]))


@pytest.mark.parametrize(("kind", "written"), [(Kind.KILL_BEFORE, "1"), (Kind.KILL_AFTER, "2")])
def test_a_function_that_dies_at_a_call_gets_its_message_again(world: World, kind: Kind, written: str) -> None:
    sqs = world.client("sqs")
    url = sqs.create_queue(QueueName=kind.replace("_", "-"), Attributes={"VisibilityTimeout": "2"})["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{kind.replace('_', '-')}"
    mapping = world.client("lambda").create_event_source_mapping(EventSourceArn=arn, FunctionName="writer", BatchSize=1)
    world.cloud.faults.set(Fault(kind=kind, caller="writer", service="dynamodb", operation="UpdateItem"))
    message = sqs.send_message(QueueUrl=url, MessageBody="{}")["MessageId"]

    def outcomes() -> list[tuple[str, str]]:
        return [(call.what, call.outcome) for call in world.cloud.faults.calls() if call.session == "writer"]

    failed = counted(world, "writer", "Errors")
    done = [("s3:PutObject", "200"), ("dynamodb:UpdateItem", kind), ("s3:PutObject", "200")]
    eventually(lambda: outcomes() == [*done, ("dynamodb:UpdateItem", "200")])
    item = world.client("dynamodb").get_item(TableName="done", Key={"id": {"S": message}})["Item"]
    assert item["seen"] == {"N": written}
    listed = world.client("s3").list_objects_v2(Bucket="data", Prefix=message)["Contents"]
    assert len(listed) == 2, "each of the two invocations wrote its own"
    eventually(lambda: counted(world, "writer", "Errors") == failed + 1)
    assert counted(world, "writer", "Invocations") == 2 * counted(world, "writer", "Errors")
    world.client("lambda").delete_event_source_mapping(UUID=mapping["UUID"])
    world.cloud.faults.clear()


@pytest.mark.parametrize(
    ("service", "throttled", "denied"),
    [
        ("s3", ["SlowDown", 503], ["AccessDenied", 403]),
        ("dynamodb", ["ProvisionedThroughputExceededException", 400], ["AccessDeniedException", 403]),
        ("sns", ["Throttled", 429], ["AuthorizationError", 403]),
        ("sagemaker", ["ThrottlingException", 400], ["AccessDeniedException", 400]),
        ("cloudwatch", ["Throttling", 400], ["AccessDeniedException", 403]),
    ],
)
def test_sdks_read_what_a_refused_call_says(
    world: World, service: str, throttled: list[Any], denied: list[Any]
) -> None:
    world.cloud.faults.set(
        Fault(kind=Kind.THROTTLE, caller="asker-role"),
        Fault(kind=Kind.DENY, caller="ask*", nth=2),
        Fault(kind=Kind.SERVER_ERROR, caller="asker", service=service, nth=3),
    )
    assert ask(world, service) == throttled
    assert ask(world, service) == denied
    assert ask(world, service)[1] == 500
    assert ask(world, service) != throttled
    assert [call.outcome for call in world.cloud.faults.calls()] == ["throttle", "deny", "server_error", "200"]
    world.cloud.faults.clear()


def test_who_is_invoked_directly_is_counted_once(world: World) -> None:
    before = counted(world, "asker", "Invocations")
    for _ in range(3):
        ask(world, "s3")
    eventually(lambda: counted(world, "asker", "Invocations") == before + 3)
    assert counted(world, "asker", "Errors") == 0


def test_a_call_that_times_out_was_done(world: World) -> None:
    world.cloud.faults.set(Fault(kind=Kind.TIMEOUT, caller="asker", service="sns", seconds=4))
    assert ask(world, "sns")[0] == "ReadTimeoutError"
    assert ask(world, "sns")["MessageId"]
    world.cloud.faults.clear()


def test_a_stale_answer_is_what_was_answered_before(world: World) -> None:
    put = world.client("s3").put_object
    world.cloud.faults.set(Fault(kind=Kind.STALE, caller="asker", service="s3", nth=2))
    assert ask(world, "s3") == "first"
    put(Bucket="data", Key="there", Body=b"second")
    assert ask(world, "s3") == "first"
    assert ask(world, "s3") == "second"
    world.cloud.faults.clear()
