"""Application Auto Scaling of the local cloud, through boto3 and CloudFormation: endpoints really grow and shrink.

One minute of the cloud is one second here.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local import load
from local.cloud import ACCOUNT, REGION, LocalCloud
from tests.integration.test_local_endpoints import World, eventually

PORT = 4692
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
BODIES = [b"[1, 2]"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=PORT, time_scale=60) as cloud:
        world = World(cloud)
        world.client("s3").create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": REGION})
        world.role_arn = world.role(
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"], "Resource": "*"},
            {"Effect": "Allow", "Action": ["cloudwatch:DescribeAlarms", "logs:*"], "Resource": "*"},
        )
        yield world


@pytest.fixture(scope="module")
def model(world: World) -> str:
    return world.model("v1")


@pytest.fixture
def endpoint(world: World, model: str) -> str:
    """An endpoint of two instances."""
    return world.endpoint(world.config(model, instances=2))


def target(endpoint: str) -> dict[str, str]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/champion",
        "ScalableDimension": DIMENSION,
    }


def register(world: World, endpoint: str, least: int = 1, most: int = 6) -> None:
    world.client("application-autoscaling").register_scalable_target(
        **target(endpoint), MinCapacity=least, MaxCapacity=most
    )


def instances(world: World, endpoint: str) -> int:
    described = world.client("sagemaker").describe_endpoint(EndpointName=endpoint)
    count: int = described["ProductionVariants"][0]["DesiredInstanceCount"]
    return count


def activities(world: World, endpoint: str, **members: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.client("application-autoscaling").describe_scaling_activities(
        **target(endpoint), **members
    )["ScalingActivities"]
    return found


def track(world: World, endpoint: str, value: float, **config: Any) -> dict[str, Any]:
    metric = {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}
    answer: dict[str, Any] = world.client("application-autoscaling").put_scaling_policy(
        **target(endpoint),
        PolicyName="load",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"TargetValue": value, **metric, **config},
    )
    return answer


def alarms(world: World, endpoint: str) -> list[dict[str, Any]]:
    prefix = f"TargetTracking-endpoint/{endpoint}/"
    found: list[dict[str, Any]] = world.client("cloudwatch").describe_alarms(AlarmNamePrefix=prefix)["MetricAlarms"]
    return found


def test_endpoint_grows_and_shrinks_with_its_traffic(world: World, endpoint: str) -> None:
    register(world, endpoint)
    answer = track(world, endpoint, 10, ScaleOutCooldown=60, ScaleInCooldown=60)
    assert answer["PolicyARN"].endswith(f":resource/sagemaker/endpoint/{endpoint}/variant/champion:policyName/load")
    high, low = sorted(alarms(world, endpoint), key=lambda alarm: alarm["AlarmName"])
    assert (high["Threshold"], high["EvaluationPeriods"], high["ComparisonOperator"]) == (10, 3, "GreaterThanThreshold")
    assert (low["Threshold"], low["EvaluationPeriods"], low["ComparisonOperator"]) == (9, 15, "LessThanThreshold")
    assert {alarm["AlarmName"] for alarm in answer["Alarms"]} == {high["AlarmName"], low["AlarmName"]}

    with load.steady(world.cloud.environment, endpoint, BODIES, per_second=40, connections=4) as busy:
        eventually(lambda: instances(world, endpoint) == 4, 30)
    with load.steady(world.cloud.environment, endpoint, BODIES, per_second=10, connections=2) as calm:
        eventually(lambda: instances(world, endpoint) in (1, 2), 45)
    assert busy.result.failures == calm.result.failures == []
    done = [each for each in activities(world, endpoint) if each["StatusCode"] == "Successful"]
    assert done[-1]["Description"] == "Setting desired instance count to 4."
    assert done[-1]["Cause"] == f"monitor alarm {high['AlarmName']} in state ALARM triggered policy load"
    assert low["AlarmName"] in done[0]["Cause"]

    world.client("application-autoscaling").delete_scaling_policy(PolicyName="load", **target(endpoint))
    assert alarms(world, endpoint) == []
