"""What an endpoint's containers print is in CloudWatch Logs while they run, and calls whoever subscribed to it; and
metrics are made of what functions print.
"""

import base64
import gzip
import io
import json
import random
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.cloud import ACCOUNT, REGION, LocalCloud
from noria.aws.series import SeriesReader
from noria.boards import Series, of_model
from noria.names import Names
from noria.spec import ModelSpec
from tests.integration.reactions.place import SHIPPED
from tests.integration.test_local_endpoints import World, eventually

PORT = 4671
TALKATIVE = """
import json

def model_fn(model_dir):
    print("ready")
    return None

def transform_fn(model, content, content_type, accept):
    print(json.dumps({"noria": "capture", "rows": json.loads(content)}))
    print(json.dumps({"noria": "something else"}))
    return json.dumps({}), "application/json"
"""
KEEPER = """
import json, os, urllib.request, boto3

def handler(event, context):
    if os.environ.get("FAILS"):
        raise RuntimeError("not today")
    boto3.client("s3").put_object(Bucket="data", Key="heard/" + context.aws_request_id, Body=json.dumps(event))
"""
TELLER = """
from enum import StrEnum

from noria.aws.telemetry import metrics, tell

class Outcome(StrEnum):
    ACCEPTED = "DatasetAccepted"

@metrics.log_metrics
def handler(event, context):
    metrics.add_metric(name="Rows", unit="Count", value=event["rows"])
    tell(Outcome.ACCEPTED, model=event["model"])
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=PORT, time_scale=60) as cloud:
        world = World(cloud)
        world.client("s3").create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": REGION})
        world.role_arn = world.role({"Effect": "Allow", "Action": ["s3:*", "logs:*"], "Resource": "*"})
        yield world


def function(world: World, name: str, *, code: str = KEEPER, **environment: str) -> str:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("main.py", code)
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}
    iam = world.client("iam")
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    allow = {"Effect": "Allow", "Action": ["s3:PutObject", "sqs:SendMessage"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=policy)
    arn: str = world.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.11",
        Handler="main.handler",
        Role=role,
        Code={"ZipFile": packed.getvalue()},
        Environment={"Variables": environment},
        Timeout=30,
    )["FunctionArn"]
    return arn


def subscribe(world: World, endpoint: str, function_arn: str) -> str:
    logs, group = world.client("logs"), f"/aws/sagemaker/Endpoints/{endpoint}"
    logs.put_subscription_filter(
        logGroupName=group, filterName="captured", filterPattern='"noria" "capture"', destinationArn=function_arn
    )
    return group


def unpacked(message: dict[str, Any]) -> dict[str, Any]:
    batch: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(message["awslogs"]["data"])))
    return batch


def lines(world: World, endpoint: str) -> list[dict[str, Any]]:
    logs = world.client("logs")
    try:
        found: list[dict[str, Any]] = logs.filter_log_events(logGroupName=f"/aws/sagemaker/Endpoints/{endpoint}")[
            "events"
        ]
    except logs.exceptions.ResourceNotFoundException:
        return []
    return found


def test_lines_are_there_while_the_container_runs_in_a_stream_of_the_variants_name(world: World) -> None:
    endpoint = world.endpoint(world.config(world.model("v1", TALKATIVE), instances=1))
    (ready,) = eventually(lambda: [line for line in lines(world, endpoint) if line["message"] == "ready"])
    assert ready["logStreamName"].startswith("champion/")


def test_a_group_that_is_there_needs_no_permission_to_make_one(world: World) -> None:
    may = ["s3:*", "logs:CreateLogStream", "logs:PutLogEvents"]
    role = world.role({"Effect": "Allow", "Action": may, "Resource": "*"})
    endpoint = "with-its-group"
    world.client("logs").create_log_group(logGroupName=f"/aws/sagemaker/Endpoints/{endpoint}")
    config = world.config(world.model("v1", TALKATIVE, role), instances=1)
    world.client("sagemaker").create_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    assert eventually(lambda: [line for line in lines(world, endpoint) if line["message"] == "ready"])


def test_a_subscriber_gets_the_lines_that_match_and_only_those(world: World) -> None:
    endpoint = world.endpoint(world.config(world.model("v1", TALKATIVE), instances=1))
    eventually(lambda: lines(world, endpoint))
    group = subscribe(world, endpoint, function(world, "keeper"))
    world.invoke(endpoint, [1, 2])
    s3 = world.client("s3")
    (heard,) = eventually(lambda: s3.list_objects_v2(Bucket="data", Prefix="heard/").get("Contents"))
    batch = unpacked(json.loads(s3.get_object(Bucket="data", Key=heard["Key"])["Body"].read()))
    assert (batch["messageType"], batch["owner"], batch["logGroup"]) == ("DATA_MESSAGE", ACCOUNT, group)
    (line,) = batch["logEvents"]
    assert json.loads(line["message"]) == {"noria": "capture", "rows": [1, 2]}
    assert len(line["id"]) == 56
    assert isinstance(line["timestamp"], int)


def test_what_the_subscriber_cannot_do_goes_where_its_failures_go(world: World) -> None:
    endpoint = world.endpoint(world.config(world.model("v1", TALKATIVE), instances=1))
    eventually(lambda: lines(world, endpoint))
    sqs = world.client("sqs")
    url = sqs.create_queue(QueueName="failures")["QueueUrl"]
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    failing = function(world, "failing", FAILS="yes")
    world.client("lambda").put_function_event_invoke_config(
        FunctionName="failing", MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": queue}}
    )
    subscribe(world, endpoint, failing)
    world.invoke(endpoint, [3])
    (message,) = eventually(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))
    batch = unpacked(json.loads(message["Body"])["requestPayload"])
    assert json.loads(batch["logEvents"][0]["message"])["rows"] == [3]


MODEL = {"Model": "told", "service": "noria"}


def counted(world: World, namespace: str, metric: str, stat: str, dimensions: Mapping[str, str] = MODEL) -> list[float]:
    named: Any = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    asked = {
        "Metric": {"Namespace": namespace, "MetricName": metric, "Dimensions": named},
        "Period": 86400,
        "Stat": stat,
    }
    found = world.client("cloudwatch").get_metric_data(
        MetricDataQueries=[{"Id": "m", "MetricStat": asked}],
        StartTime=datetime.now(UTC) - timedelta(days=2),
        EndTime=datetime.now(UTC) + timedelta(minutes=1),
    )
    values: list[float] = found["MetricDataResults"][0]["Values"]
    return values


def test_what_functions_count_in_their_lines_is_what_cloudwatch_would_have_been_told(world: World) -> None:
    cloudwatch, lambda_ = world.client("cloudwatch"), world.client("lambda")
    metric = {"Namespace": "Noria", "MetricName": "DatasetAccepted", "Statistic": "Sum"}
    cloudwatch.put_metric_alarm(
        AlarmName="told",
        **metric,
        Dimensions=[{"Name": name, "Value": value} for name, value in MODEL.items()],
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="ignore",
    )
    function(world, "teller", code=TELLER, POWERTOOLS_SERVICE_NAME="noria")
    chance = random.Random(3)  # noqa: S311
    rows = [chance.randint(0, 50) for _ in range(8)]
    for number in rows:
        answer = lambda_.invoke(FunctionName="teller", Payload=json.dumps({"model": "told", "rows": number}))
        assert "FunctionError" not in answer, answer["Payload"].read()
        twin = {"MetricName": "Rows", "Value": number, "Unit": "Count"}
        named = [{"Name": name, "Value": value} for name, value in MODEL.items()]
        cloudwatch.put_metric_data(Namespace="Twin", MetricData=[twin | {"Dimensions": named}])
    assert sum(counted(world, "Noria", "DatasetAccepted", "Sum")) == len(rows)
    for stat, told in {"Sum": sum(rows), "Minimum": min(rows), "Maximum": max(rows), "SampleCount": len(rows)}.items():
        assert counted(world, "Noria", "Rows", stat) == counted(world, "Twin", "Rows", stat), stat
        assert told in counted(world, "Noria", "Rows", stat), stat
    eventually(lambda: cloudwatch.describe_alarms(AlarmNames=["told"])["MetricAlarms"][0]["StateValue"] == "ALARM")

    def accepted(model: str) -> Series:
        spec = ModelSpec.model_validate(SHIPPED.model_dump(mode="json") | {"model": model})
        shown = of_model(Names(env="local"), spec).series
        return next(series for series in shown if series.metric == "DatasetAccepted")

    both = [accepted("told"), accepted("nobody")]
    some, none = SeriesReader(client=cloudwatch).newest(both, now=datetime.now(UTC))
    assert some
    assert none == 0


def test_lines_of_which_no_metric_can_be_made_are_counted(world: World) -> None:
    logs = world.client("logs")
    logs.create_log_group(logGroupName="wrong")
    logs.create_log_stream(logGroupName="wrong", logStreamName="1")
    now = int(datetime.now(UTC).timestamp() * 1000)
    metrics = [{"Namespace": "Wrong", "Dimensions": [[]], "Metrics": [{"Name": "Done"}, {"Name": "Gone"}]}]
    wrong = json.dumps({"_aws": {"Timestamp": now, "CloudWatchMetrics": metrics}, "Done": 1})
    lines = ["nothing", wrong, wrong, wrong[:-1]]
    logs.put_log_events(
        logGroupName="wrong", logStreamName="1", logEvents=[{"timestamp": now, "message": line} for line in lines]
    )
    group = {"LogGroupName": "wrong"}
    assert counted(world, "AWS/Logs", "EMFValidationErrors", "Sum", group) == [2]
    assert counted(world, "AWS/Logs", "EMFParsingErrors", "Sum", group) == [1]
    assert counted(world, "Wrong", "Done", "Sum", {}) == []
