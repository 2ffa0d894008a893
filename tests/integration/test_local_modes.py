"""Serverless and asynchronous endpoints and transform jobs of the local SageMaker, through boto3.

One minute of the cloud is one second here.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.cloud import REGION, LocalCloud
from tests.integration.test_local_endpoints import BROKEN, World, capture_to, eventually

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
    with LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=PORT, time_scale=60) as cloud:
        world = World(cloud)
        world.client("s3").create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": REGION})
        world.role_arn = world.role(
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"], "Resource": "*"},
            {"Effect": "Allow", "Action": ["cloudwatch:DescribeAlarms", "logs:*", "sns:Publish"], "Resource": "*"},
        )
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
