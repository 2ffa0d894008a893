"""An endpoint that nobody asks, as CloudWatch and SageMaker tell of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from noria.aws.endpoints import Endpoint
from noria.aws.traffic import TrafficMetrics
from noria.cli.idle import idle_warning
from tests.integration.moto_cloud import in_memory

NAME = "noria-dev-fares"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with in_memory(monkeypatch, "eu-west-1"):
        _endpoint()
        yield


def _endpoint() -> None:
    sagemaker = boto3.client("sagemaker")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/r", PrimaryContainer={})
    sagemaker.create_endpoint_config(
        EndpointConfigName="c",
        ProductionVariants=[
            {"VariantName": "champion", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 3}
        ],
    )
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName="c")


def asked(*, days_ago: float) -> None:
    boto3.client("cloudwatch").put_metric_data(
        Namespace="AWS/SageMaker",
        MetricData=[
            {
                "MetricName": "Invocations",
                "Dimensions": [
                    {"Name": "EndpointName", "Value": NAME},
                    {"Name": "VariantName", "Value": "champion"},
                ],
                "Value": 5,
                "Timestamp": NOW - timedelta(days=days_ago),
            }
        ],
    )


def warning(*, days: float = 30) -> str | None:
    state = Endpoint(name=NAME).state()
    assert state is not None
    return idle_warning(
        "fares", state=state, since=NOW - timedelta(days=days), now=NOW, traffic=TrafficMetrics(endpoint=NAME)
    )


def test_an_endpoint_that_nobody_asked_for_a_week_is_told_with_its_price() -> None:
    asked(days_ago=8)
    told = warning()
    assert told is not None
    assert f"{3 * 730 * 0.128:.0f} USD a month" in told


def test_one_that_was_asked_or_is_new_is_not() -> None:
    assert warning(days=6) is None
    asked(days_ago=6)
    assert warning() is None
