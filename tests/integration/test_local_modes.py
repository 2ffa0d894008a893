"""Serverless and asynchronous endpoints and transform jobs of the local SageMaker, through boto3.

One minute of the cloud is one second here.
"""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.cloud import REGION
from tests.integration.test_local_endpoints import BROKEN, CANARY, World, capture_to, captured_lines, eventually, opened

PORT = 4680
SLOW = """
import json, time

def transform_fn(model, content, content_type, accept):
    time.sleep(json.loads(content)[0])
    return json.dumps("done"), "application/json"

def model_fn(model_dir):
    return None
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(tmp_path_factory.mktemp("cloud"), port=PORT, may=["sns:Publish"]) as world:
        world.listen()
        yield world


def metric(world: World, name: str, statistic: str, **dimensions: str) -> float:
    """The metric so far; 0 where there is none yet."""
    now = time.time()
    points = world.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=now - 3600,
        EndTime=now + 3600,
        Period=7200,
        Statistics=[statistic],
    )["Datapoints"]
    return float(points[0][statistic]) if points else 0.0


# --- serverless


def serverless(world: World, model: str, concurrency: int = 2, **members: Any) -> str:
    scale = {"MemorySizeInMB": 2048, "MaxConcurrency": concurrency}
    variant = {"VariantName": "champion", "ModelName": model, "ServerlessConfig": scale}
    return world.config(model, **{"ProductionVariants": [variant], **members})


def servers(world: World) -> int:
    """Processes that the cloud runs now."""
    return sum(1 for _ in (world.cloud.root / "processes").iterdir())


def test_a_serverless_endpoint_runs_only_while_it_is_used(world: World) -> None:
    before = servers(world)
    endpoint = world.endpoint(serverless(world, world.model("v1", isolated=False)))
    eventually(lambda: servers(world) == before)
    assert world.invoke(endpoint, [1])["version"] == "v1"  # a cold start
    assert servers(world) == before + 1
    assert world.invoke(endpoint, [1])["version"] == "v1"
    eventually(lambda: servers(world) == before)
    here = {"EndpointName": endpoint, "VariantName": "champion"}
    assert eventually(lambda: metric(world, "ModelSetupTime", "SampleCount", **here)) == 1
    setup = metric(world, "ModelSetupTime", "Maximum", **here)
    assert metric(world, "OverheadLatency", "Maximum", **here) >= setup * 0.99
    assert metric(world, "ModelLatency", "Maximum", **here) < setup
    assert metric(world, "ServerlessConcurrentExecutionsUtilization", "Maximum", **here) == 0.5
    world.client("sagemaker").delete_endpoint(EndpointName=endpoint)


def test_requests_beyond_its_concurrency_are_throttled(world: World) -> None:
    endpoint = world.endpoint(serverless(world, world.model("slow", SLOW, isolated=False), concurrency=1))
    first = threading.Thread(target=world.invoke, args=(endpoint, [3]))
    first.start()
    time.sleep(1)
    with pytest.raises(ClientError) as throttled:
        world.invoke(endpoint, [0])
    assert throttled.value.response["Error"]["Code"] == "ThrottlingException"
    assert throttled.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    first.join()
    assert world.invoke(endpoint, [0]) == "done"
    with pytest.raises(ClientError, match="4194304"):
        world.invoke(endpoint, "x" * 4_194_304)


def test_a_serverless_update_swaps_models_and_keeps_what_works(world: World) -> None:
    sagemaker = world.client("sagemaker")
    endpoint = world.endpoint(serverless(world, world.model("v1", isolated=False)))
    sagemaker.update_endpoint(
        EndpointName=endpoint, EndpointConfigName=serverless(world, world.model("v2", isolated=False))
    )
    assert world.settled(endpoint)["EndpointStatus"] == "InService"
    assert world.invoke(endpoint, [])["version"] == "v2"
    broken = serverless(world, world.model("broken", BROKEN, isolated=False))
    sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=broken)
    assert "180 second" in world.settled(endpoint)["FailureReason"]
    assert world.invoke(endpoint, [])["version"] == "v2"


def test_what_serverless_endpoints_exclude_is_refused(world: World) -> None:
    open_model, isolated = world.model("v1", isolated=False), world.model("v1")
    with pytest.raises(ClientError, match="network isolation"):
        serverless(world, isolated)
    with pytest.raises(ClientError, match="data capture"):
        serverless(world, open_model, DataCaptureConfig={**capture_to("s3://data/captured"), "EnableCapture": True})
    endpoint = world.endpoint(world.config(isolated))
    with pytest.raises(ClientError, match="cannot be updated to a serverless endpoint"):
        world.client("sagemaker").update_endpoint(
            EndpointName=endpoint, EndpointConfigName=serverless(world, open_model)
        )


# --- transform jobs


DOUBLE = """
import json

def model_fn(model_dir):
    return None

def transform_fn(model, content, content_type, accept):
    lines = [line for line in content.decode().split("\\n") if line] if isinstance(content, bytes) else content.split()
    if content_type == "application/jsonlines":
        return "\\n".join(json.dumps({"twice": 2 * json.loads(line)["x"]}) for line in lines), accept
    if "bad" in content:
        return refuse
    return "\\n".join(str(sum(2 * float(field) for field in line.split(","))) for line in lines), "text/csv"

def refuse(environ, start_response):
    start_response("400 Bad Request", [("Content-Type", "application/json")])
    return [b"row 0: 'bad' is not a number"]
"""


def put(world: World, key: str, body: str) -> str:
    world.client("s3").put_object(Bucket="data", Key=key, Body=body.encode())
    return f"s3://data/{key}"


def read(world: World, key: str) -> str:
    body: bytes = world.client("s3").get_object(Bucket="data", Key=key)["Body"].read()
    return body.decode()


def transform(world: World, model: str, source: str, target: str, **members: Any) -> dict[str, Any]:
    """The description of a job once it has ended."""
    sagemaker, name = world.client("sagemaker"), world.name("job")
    members = {"ContentType": "text/csv", "SplitType": "Line", "Accept": "text/csv"} | members
    output = {"S3OutputPath": target, "AssembleWith": "Line", "Accept": members.pop("Accept")}
    data = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=model,
        TransformInput={"DataSource": data, **{key: members.pop(key) for key in ("ContentType", "SplitType")}},
        TransformOutput=output,
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **members,
    )

    def ended() -> Any:
        found = sagemaker.describe_transform_job(TransformJobName=name)
        return found if found["TransformJobStatus"] not in ("InProgress", "Stopping") else None

    description: dict[str, Any] = eventually(ended, 60)
    return description


def test_a_transform_job_answers_every_object_of_a_prefix(world: World) -> None:
    model = world.model("double", DOUBLE)
    put(world, "batch/in/a.csv", "1,2\n3,4\n5,6\n")
    put(world, "batch/in/more/b.csv", "7\n")
    described = transform(world, model, "s3://data/batch/in/", "s3://data/batch/out")
    assert described["TransformJobStatus"] == "Completed"
    assert described["ModelName"] == model
    assert read(world, "batch/out/a.csv.out") == "6.0\n14.0\n22.0\n"
    assert read(world, "batch/out/more/b.csv.out") == "14.0\n"
    name = described["TransformJobName"]
    told = world.events("SageMaker Transform Job State Change", f"transform-job/{name}")
    assert [event["TransformJobStatus"] for event in told] == ["InProgress", "Completed"]
    assert told[0]["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == "s3://data/batch/in/"
    listed = world.client("sagemaker").list_transform_jobs(NameContains=name)["TransformJobSummaries"]
    assert [job["TransformJobStatus"] for job in listed] == ["Completed"]


def test_answers_are_joined_with_what_was_asked(world: World) -> None:
    model = world.model("double", DOUBLE)
    source = put(world, "join/in.csv", "id-1,1,2\nid-2,3,4\n")
    processing = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    transform(
        world,
        model,
        source,
        "s3://data/join/out",
        DataProcessing=processing,
        BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=2,
    )
    assert read(world, "join/out/in.csv.out") == "id-1,6.0\nid-2,14.0\n"
    lines = put(world, "join/in.jsonl", '{"id": "a", "x": 1}\n{"id": "b", "x": 2}\n')
    kind = "application/jsonlines"
    transform(
        world, model, lines, "s3://data/join/out", ContentType=kind, Accept=kind, DataProcessing={"JoinSource": "Input"}
    )
    assert read(world, "join/out/in.jsonl.out").splitlines() == [
        '{"id":"a","x":1,"SageMakerOutput":{"twice":2}}',
        '{"id":"b","x":2,"SageMakerOutput":{"twice":4}}',
    ]


def test_a_bad_record_leaves_no_output_and_fails_the_job_after_the_others(world: World) -> None:
    model = world.model("double", DOUBLE)
    put(world, "bad/in/a.csv", "1\nbad\n")
    put(world, "bad/in/b.csv", "1\n")
    described = transform(world, model, "s3://data/bad/in/", "s3://data/bad/out")
    assert described["TransformJobStatus"] == "Failed"
    assert described["FailureReason"] == "ClientError: See job logs for more information"
    assert [
        item["Key"] for item in world.client("s3").list_objects_v2(Bucket="data", Prefix="bad/out")["Contents"]
    ] == ["bad/out/b.csv.out"]
    logs = world.client("logs")
    group = "/aws/sagemaker/TransformJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=described["TransformJobName"])
    stream = next(s["logStreamName"] for s in streams["logStreams"] if "data-log" in s["logStreamName"])
    told = logs.get_log_events(logGroupName=group, logStreamName=stream)["events"]
    assert any("row 0: 'bad' is not a number" in event["message"] for event in told)


def test_what_a_transform_job_cannot_do(world: World) -> None:
    model = world.model("double", DOUBLE)
    source = put(world, "none/in.csv", "1\n")
    with pytest.raises(ClientError, match="Could not find model"):
        transform(world, "no-such-model", source, "s3://data/none/out")
    with pytest.raises(ClientError, match="JSONPath"):
        transform(world, model, source, "s3://data/none/out", DataProcessing={"InputFilter": "$..x"})
    nothing = transform(world, model, "s3://data/nowhere/", "s3://data/none/out")
    assert "No S3 objects found" in nothing["FailureReason"]
    narrow = world.role({"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"})
    unable = transform(world, world.model("double", DOUBLE, role_arn=narrow), source, "s3://data/none/out")
    assert "Data upload failed" in unable["FailureReason"]
    broken = transform(world, world.model("broken", BROKEN), source, "s3://data/none/out")
    assert broken["FailureReason"].startswith("AlgorithmError")


def test_a_transform_job_stops_when_it_is_told(world: World) -> None:
    sagemaker, name = world.client("sagemaker"), world.name("job")
    source = put(world, "stop/in.jsonl", "[1]\n" * 60)
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=world.model("slow", SLOW),
        BatchStrategy="SingleRecord",
        TransformInput={
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
            "ContentType": "application/json",
            "SplitType": "Line",
        },
        TransformOutput={"S3OutputPath": "s3://data/stop/out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    with pytest.raises(ClientError, match="ResourceInUse"):
        sagemaker.create_transform_job(
            TransformJobName=name,
            ModelName=world.model("slow", SLOW),
            TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}},
            TransformOutput={"S3OutputPath": "s3://data/stop/out"},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        )
    time.sleep(2)
    sagemaker.stop_transform_job(TransformJobName=name)
    eventually(lambda: sagemaker.describe_transform_job(TransformJobName=name)["TransformJobStatus"] == "Stopped", 20)


# --- asynchronous endpoints


@dataclass
class Hearing:
    """A topic and what was published on it."""

    world: World
    name: str
    arn: str = ""

    def __post_init__(self) -> None:
        sns, sqs = self.world.client("sns"), self.world.client("sqs")
        self.arn = sns.create_topic(Name=self.name)["TopicArn"]
        url = sqs.create_queue(QueueName=self.name)["QueueUrl"]
        queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        allow = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": queue}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        sns.subscribe(TopicArn=self.arn, Protocol="sqs", Endpoint=queue)

    def heard(self) -> list[dict[str, Any]]:
        sqs = self.world.client("sqs")
        url = sqs.get_queue_url(QueueName=self.name)["QueueUrl"]
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(json.loads(message["Body"])["Message"]) for message in messages]


def asynchronous(world: World, model: str, instances: int = 1, *, at_once: int = 2, **members: Any) -> str:
    output = {"S3OutputPath": "s3://data/async-results", "S3FailurePath": "s3://data/async-failures"}
    config = {
        "OutputConfig": {**output, **members.pop("OutputConfig", {})},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": at_once},
    }
    return world.config(model, instances, AsyncInferenceConfig=config, **members)


def ask(world: World, endpoint: str, rows: Any, **members: Any) -> dict[str, Any]:
    source = put(world, f"async/{world.name('rows')}.json", json.dumps(rows))
    answer: dict[str, Any] = world.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=endpoint, InputLocation=source, ContentType="application/json", **members
    )
    return answer


def written(world: World, uri: str, seconds: float = 30) -> str:
    """An object, once it is there."""
    key = uri.removeprefix("s3://data/")

    def there() -> bool:
        return bool(world.client("s3").list_objects_v2(Bucket="data", Prefix=key).get("Contents"))

    eventually(there, seconds)
    return read(world, key)


def test_an_asynchronous_endpoint_writes_answers_and_tells(world: World) -> None:
    good, bad = Hearing(world, "good"), Hearing(world, "bad")
    topics = {"SuccessTopic": good.arn, "ErrorTopic": bad.arn}
    config = asynchronous(
        world,
        world.model("v1"),
        OutputConfig={"NotificationConfig": topics},
        DataCaptureConfig=capture_to("s3://data/captured"),
    )
    endpoint = world.endpoint(config)
    answer = ask(world, endpoint, [1, 2], InferenceId="request-1")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "request-1"
    assert json.loads(written(world, answer["OutputLocation"])) == {"version": "v1", "rows": 2}
    (told,) = eventually(good.heard)
    assert told["invocationStatus"] == "Completed"
    assert told["inferenceId"] == "request-1"
    assert told["requestParameters"]["endpointName"] == endpoint
    assert told["responseParameters"] == {
        "contentType": "application/json",
        "outputLocation": answer["OutputLocation"],
    }
    assert (told["eventSource"], told["eventName"], told["eventVersion"]) == ("aws:sagemaker", "InferenceResult", "1.0")

    failed = ask(world, endpoint, {"not": "a list"})
    assert "Received client error (400) from model" in written(world, failed["FailureLocation"])
    (told,) = eventually(bad.heard)
    assert told["invocationStatus"] == "Failed"
    assert told["failureReason"].startswith("ClientError: Received client error (400)")
    lost = world.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=endpoint, InputLocation="s3://data/async/nothing.json"
    )
    assert "Unable to download the request" in written(world, lost["FailureLocation"])

    (line,) = eventually(lambda: captured_lines(world, f"captured/{endpoint}/champion/"))
    assert line["captureData"]["endpointInput"]["data"] == "[1, 2]"
    assert line["eventMetadata"]["inferenceId"] == "request-1"
    here = {"EndpointName": endpoint, "VariantName": "champion"}
    assert eventually(lambda: metric(world, "InvocationsProcessed", "Sum", **here) == 3)
    assert metric(world, "RequestDownloadFailures", "Sum", **here) == 1
    assert metric(world, "InvocationFailures", "Sum", **here) == 2
    assert metric(world, "Invocation4XXErrors", "Sum", **here) == 1
    assert metric(world, "Invocations", "SampleCount", **here) == 0


def test_what_comes_with_the_request_is_answered_too(world: World) -> None:
    endpoint = world.endpoint(asynchronous(world, world.model("v1")))
    runtime = world.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint_async(EndpointName=endpoint, ContentType="application/json", Body=b"[1]")
    assert json.loads(written(world, answer["OutputLocation"]))["rows"] == 1
    with pytest.raises(ClientError, match="exactly one of InputLocation and Body"):
        runtime.invoke_endpoint_async(EndpointName=endpoint)
    with pytest.raises(ClientError, match="is asynchronous"):
        world.invoke(endpoint, [1])
    with pytest.raises(ClientError, match="has no AsyncInferenceConfig"):
        ask(world, world.endpoint(world.config(world.model("v1"))), [1])
    described = world.client("sagemaker").describe_endpoint(EndpointName=endpoint)
    assert described["AsyncInferenceConfig"]["ClientConfig"]["MaxConcurrentInvocationsPerInstance"] == 2


def test_requests_wait_for_instances_and_say_how_many_wait(world: World) -> None:
    endpoint = world.endpoint(asynchronous(world, world.model("slow", SLOW), at_once=1))
    first, second = ask(world, endpoint, [2]), ask(world, endpoint, [0])
    here = {"EndpointName": endpoint}
    assert eventually(lambda: metric(world, "ApproximateBacklogSize", "Maximum", **here) == 2)
    assert eventually(lambda: metric(world, "ApproximateBacklogSizePerInstance", "Maximum", **here) == 2)
    assert written(world, first["OutputLocation"]) == written(world, second["OutputLocation"]) == '"done"'

    def scale(instances: int) -> None:
        change = {"VariantName": "champion", "DesiredInstanceCount": instances}
        world.client("sagemaker").update_endpoint_weights_and_capacities(
            EndpointName=endpoint, DesiredWeightsAndCapacities=[change]
        )
        world.settled(endpoint)

    scale(0)
    waiting = ask(world, endpoint, [0])
    expiring = ask(world, endpoint, [0], RequestTTLSeconds=60)
    assert eventually(lambda: metric(world, "HasBacklogWithoutCapacity", "Maximum", **here) == 1)
    time.sleep(2)
    scale(1)
    assert written(world, waiting["OutputLocation"]) == '"done"'
    assert "expired" in written(world, expiring["FailureLocation"])


def test_no_request_is_lost_while_an_asynchronous_endpoint_is_updated(world: World) -> None:
    endpoint = world.endpoint(asynchronous(world, world.model("v1"), 3))
    answers = [ask(world, endpoint, [1]) for _ in range(5)]
    world.client("sagemaker").update_endpoint(
        EndpointName=endpoint,
        EndpointConfigName=asynchronous(world, world.model("v2"), 3),
        DeploymentConfig={"BlueGreenUpdatePolicy": CANARY},
    )
    while world.client("sagemaker").describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "Updating":
        answers.append(ask(world, endpoint, [1]))
        time.sleep(0.1)
    answers += [ask(world, endpoint, [1]) for _ in range(5)]
    versions = [json.loads(written(world, answer["OutputLocation"]))["version"] for answer in answers]
    assert set(versions) == {"v1", "v2"}
    assert versions[-1] == "v2"


def test_asking_asynchronously_needs_its_own_permission(world: World) -> None:
    endpoint = world.endpoint(asynchronous(world, world.model("v1")))
    iam, user = world.client("iam"), world.name("user")
    iam.create_user(UserName=user)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    runtime = boto3.client(
        "sagemaker-runtime",
        region_name=REGION,
        endpoint_url=world.cloud.endpoint,
        verify=str(world.cloud.certificate),
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )

    def allow(action: str) -> None:
        statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
        iam.put_user_policy(UserName=user, PolicyName="only", PolicyDocument=json.dumps({"Statement": [statement]}))

    allow("sagemaker:InvokeEndpoint")
    with pytest.raises(ClientError, match="AccessDenied"):
        runtime.invoke_endpoint_async(EndpointName=endpoint, Body=b"[]")
    allow("sagemaker:InvokeEndpointAsync")
    assert runtime.invoke_endpoint_async(EndpointName=endpoint, Body=b"[]")["InferenceId"]
