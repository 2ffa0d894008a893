"""`noria preflight` against moto: what it makes of stacks and endpoints that are up."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from noria.cli.commands import app
from noria.cli.output import Refused
from tests.integration.moto_cloud import in_memory

PACKAGE = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/noria-dev-prices/1"
SPEC = """
model: prices
task: regression
target: price
time: sold
features: {{rooms: {{type: integer}}}}
serve: {serve}
owner: {{team: estates}}
"""


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with in_memory(monkeypatch, "eu-west-1"):
        yield


LOG_GROUP = "/aws/sagemaker/Endpoints/noria-dev-prices"


def deployed(*, package: str = PACKAGE, logs: bool = False, **outputs: str) -> None:
    """A serving stack with these outputs, as far as preflight looks at it; `logs`: with its endpoint's log group."""
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": LOG_GROUP}}
    template = {
        "Parameters": {"ModelPackageArn": {"Type": "String", "Default": "none"}},
        "Resources": {"Anything": {"Type": "AWS::SNS::Topic"}} | ({"Logs": group} if logs else {}),
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    boto3.client("cloudformation").create_stack(
        StackName="noria-dev-prices-serving",
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": "ModelPackageArn", "ParameterValue": package}],
    )


def answering(*, instances: int) -> None:
    sagemaker = boto3.client("sagemaker")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/r", PrimaryContainer={})
    variant: Any = {
        "VariantName": "champion",
        "ModelName": "m",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="noria-dev-prices", EndpointConfigName="c")
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="noria-dev-prices",
        DesiredWeightsAndCapacities=[{"VariantName": "champion", "DesiredInstanceCount": instances}],
    )


def preflight(tmp_path: Path, serve: str, *more: str) -> str:
    """What it says; raises `Refused`."""
    (tmp_path / "prices.yaml").write_text(SPEC.format(serve=serve))
    result = CliRunner().invoke(app, ["preflight", "--env", "dev", "--models", str(tmp_path), *more])
    if isinstance(result.exception, Refused):
        raise result.exception
    assert result.exception is None, result.exception
    return result.stdout


@pytest.mark.parametrize("mode", ["realtime", "serverless", "async", "batch"])
def test_a_first_deployment_may_be_anything(tmp_path: Path, mode: str) -> None:
    assert "Every spec can be deployed to 'dev'" in preflight(tmp_path, f"{{mode: {mode}}}")


@pytest.mark.parametrize("mode", ["realtime", "serverless", "async", "batch"])
def test_where_nothing_is_live_nothing_stands_in_the_way(tmp_path: Path, mode: str) -> None:
    deployed(package="none", Mode="serverless")
    answer = json.loads(preflight(tmp_path, f"{{mode: {mode}}}", "--json"))
    assert answer == {"env": "dev", "models": ["prices"], "running": []}


@pytest.mark.parametrize(
    ("before", "after"),
    [(a, b) for a in ("realtime", "serverless", "async") for b in ("realtime", "serverless", "async") if a != b],
)
def test_an_endpoint_that_is_up_keeps_its_mode(tmp_path: Path, before: str, after: str) -> None:
    deployed(Mode=before)
    answering(instances=1)
    with pytest.raises(Refused, match=f"prices: serve: mode cannot change from {before} to {after}: SageMaker refuses"):
        preflight(tmp_path, f"{{mode: {after}}}")


@pytest.mark.parametrize(("before", "after"), [("realtime", "batch"), ("batch", "serverless"), ("async", "async")])
def test_an_endpoint_may_stay_end_or_be_the_first(tmp_path: Path, before: str, after: str) -> None:
    deployed(Mode=before)
    if before != "batch":
        answering(instances=1)
    assert json.loads(preflight(tmp_path, f"{{mode: {after}}}", "--json"))["running"] == ["prices"]


def test_a_stack_from_before_there_were_modes_is_real_time(tmp_path: Path) -> None:
    deployed()
    answering(instances=1)
    assert preflight(tmp_path, "{mode: realtime}")
    with pytest.raises(Refused, match="from realtime to async"):
        preflight(tmp_path, "{mode: async}")


def test_scaling_cannot_be_removed_from_a_fleet_of_none(tmp_path: Path) -> None:
    deployed(Mode="async", ScalingTarget="endpoint/noria-dev-prices/variant/champion")
    answering(instances=0)
    with pytest.raises(Refused, match="scale cannot be removed while the endpoint has no instance"):
        preflight(tmp_path, "{mode: async}")
    assert preflight(tmp_path, "{mode: async, count: 1, scale: {min: 1, max: 2, target: 3}}")


def test_scaling_can_be_removed_from_a_fleet_that_answers(tmp_path: Path) -> None:
    deployed(Mode="async", ScalingTarget="endpoint/noria-dev-prices/variant/champion")
    answering(instances=2)
    assert preflight(tmp_path, "{mode: async}")


@pytest.mark.parametrize("before", [None, "none", PACKAGE])
def test_a_log_group_that_no_stack_has_made_is_in_the_way(tmp_path: Path, before: str | None) -> None:
    """Of an environment from before stacks made it, or of an endpoint that spoke once more after its stack had gone."""
    if before:
        deployed(package=before)
    boto3.client("logs").create_log_group(logGroupName=LOG_GROUP)
    with pytest.raises(Refused) as refused:
        preflight(tmp_path, "{mode: realtime}")
    assert f"prices: log group {LOG_GROUP} is there" in str(refused.value)
    assert f"aws logs delete-log-group --log-group-name {LOG_GROUP}" in str(refused.value)


def test_the_log_group_of_the_stack_itself_is_not_in_the_way(tmp_path: Path) -> None:
    deployed(logs=True)
    assert preflight(tmp_path, "{mode: realtime}")


def test_a_log_group_is_in_the_way_of_its_own_endpoint_only(tmp_path: Path) -> None:
    boto3.client("logs").create_log_group(logGroupName=f"{LOG_GROUP}-of-houses")
    assert preflight(tmp_path, "{mode: realtime}")
    boto3.client("logs").create_log_group(logGroupName=LOG_GROUP)
    assert preflight(tmp_path, "{mode: batch}")


def test_every_reason_is_told_at_once(tmp_path: Path) -> None:
    deployed(Mode="serverless")
    (tmp_path / "other.yaml").write_text(SPEC.format(serve="{mode: batch}").replace("model: prices", "model: other"))
    with pytest.raises(Refused) as refused:
        preflight(tmp_path, "{mode: async}")
    assert str(refused.value).count("\n") == 0
    assert "Remove the model (noria destroy --model)" in str(refused.value)
