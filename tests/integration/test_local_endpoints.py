"""Endpoints of the local SageMaker, through boto3: real model servers, real deployments, real alarms.

One minute of the cloud is one second here.
"""

import io
import json
import ssl
import tarfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.cloud import ACCOUNT, REGION, LocalCloud

PORT = 4640
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/sagemaker-scikit-learn:1.9-0-cpu-py3"
SCRIPT = """
import json

def model_fn(model_dir):
    with open(model_dir + "/version") as file:
        return file.read()

def transform_fn(model, content, content_type, accept):
    rows = json.loads(content)
    if not isinstance(rows, list):
        return refuse
    if "flaky" in model and 13 in rows:
        raise RuntimeError("this version cannot count to thirteen")
    return json.dumps({"version": model, "rows": len(rows)}), "application/json"

def refuse(environ, start_response):
    start_response("400 Bad Request", [("Content-Type", "application/json")])
    return [b'{"error": "not a list"}']
"""
BROKEN = "raise ImportError('no such library')"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": ["sagemaker.amazonaws.com", "cloudformation.amazonaws.com"]},
            "Action": "sts:AssumeRole",
        }
    ],
}


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            packed.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def eventually(check: Callable[[], Any], seconds: float = 30) -> Any:
    """The first truthy answer of `check`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := check():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {check()}")


@dataclass
class World:
    """A cloud with a bucket, a role for models and an ear on its events."""

    cloud: LocalCloud
    role_arn: str = ""
    _names: Iterator[int] = field(default_factory=lambda: count(1))

    def client(self, service: str) -> Any:
        client: Any = boto3.client  # it is typed per service, and this is for any
        return client(
            service,
            region_name=REGION,
            endpoint_url=self.cloud.endpoint,
            verify=str(self.cloud.certificate),
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def name(self, kind: str) -> str:
        return f"{kind}-{next(self._names)}"

    def role(self, *statements: dict[str, Any]) -> str:
        iam, name = self.client("iam"), self.name("role")
        arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        iam.put_role_policy(RoleName=name, PolicyName="only", PolicyDocument=json.dumps(document))
        return arn

    def artifact(self, version: str, script: str = SCRIPT) -> str:
        key = f"models/{version}/model.tar.gz"
        packed = archive({"version": version, "code/inference.py": script})
        self.client("s3").put_object(Bucket="data", Key=key, Body=packed)
        return f"s3://data/{key}"

    def model(self, version: str, script: str = SCRIPT, role_arn: str | None = None, *, isolated: bool = True) -> str:
        name = self.name("model")
        self.client("sagemaker").create_model(
            ModelName=name,
            ExecutionRoleArn=role_arn or self.role_arn,
            EnableNetworkIsolation=isolated,
            PrimaryContainer={
                "Image": IMAGE,
                "ModelDataUrl": self.artifact(version, script),
                "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
            },
        )
        return name

    def config(self, model: str, instances: int = 3, **members: Any) -> str:
        name = self.name("config")
        variant = {"VariantName": "champion", "ModelName": model, "InstanceType": "ml.m5.large"}
        self.client("sagemaker").create_endpoint_config(
            EndpointConfigName=name,
            **{"ProductionVariants": [{**variant, "InitialInstanceCount": instances}], **members},
        )
        return name

    def endpoint(self, config: str) -> str:
        name = self.name("endpoint")
        self.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=config)
        assert self.settled(name)["EndpointStatus"] == "InService"
        return name

    def settled(self, endpoint: str) -> Any:
        def description() -> Any:
            found = self.client("sagemaker").describe_endpoint(EndpointName=endpoint)
            return found if found["EndpointStatus"] not in ("Creating", "Updating") else None

        return eventually(description, 60)

    def invoke(self, endpoint: str, rows: Any, **members: Any) -> Any:
        answer = self.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=endpoint, ContentType="application/json", Body=json.dumps(rows), **members
        )
        return json.loads(answer["Body"].read())

    def alarm(self, endpoint: str, config: str) -> str:
        name = self.name("alarm")
        dimensions = {"EndpointName": endpoint, "VariantName": "champion", "EndpointConfigName": config}
        metric = {"Namespace": "AWS/SageMaker", "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions.items()]}

        def total(id_: str, of: str) -> dict[str, Any]:
            stat = {"Metric": {**metric, "MetricName": of}, "Period": 60, "Stat": "Sum"}
            return {"Id": id_, "MetricStat": stat, "ReturnData": False}

        self.client("cloudwatch").put_metric_alarm(
            AlarmName=name,
            Metrics=[
                total("errors", "Invocation5XXErrors"),
                total("requests", "Invocations"),
                {"Id": "rate", "Expression": "IF(requests >= 5, errors / requests, 0)", "ReturnData": True},
            ],
            EvaluationPeriods=1,
            Threshold=0.05,
            ComparisonOperator="GreaterThanThreshold",
            TreatMissingData="notBreaching",
        )
        return name

    def events(self, detail_type: str, resource: str) -> list[dict[str, Any]]:
        """The details of what the cloud told about a resource so far, oldest first."""
        self._drain()
        return [
            event["detail"]
            for event in self._heard
            if event["detail-type"] == detail_type and event["resources"][0].endswith(resource)
        ]

    _heard: list[dict[str, Any]] = field(default_factory=list)

    def _drain(self) -> None:
        sqs = self.client("sqs")
        url = sqs.get_queue_url(QueueName="ear")["QueueUrl"]
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self._heard.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        self._heard.sort(key=lambda event: event["time"])

    def listen(self) -> None:
        sqs, events = self.client("sqs"), self.client("events")
        url = sqs.create_queue(QueueName="ear")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        allow = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:*",
            "Resource": arn,
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        events.put_rule(Name="ear", EventPattern=json.dumps({"source": ["aws.sagemaker", "aws.cloudwatch"]}))
        events.put_targets(Rule="ear", Targets=[{"Id": "ear", "Arn": arn}])


@contextmanager
def opened(root: Path, *, port: int, may: Sequence[str] = ()) -> Iterator[World]:
    """A cloud with a bucket and a role for models, which may do so much more."""
    with LocalCloud(root=root, port=port, time_scale=60) as cloud:
        world = World(cloud)
        world.client("s3").create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": REGION})
        world.role_arn = world.role(
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"], "Resource": "*"},
            {"Effect": "Allow", "Action": ["cloudwatch:DescribeAlarms", "logs:*", *may], "Resource": "*"},
        )
        yield world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(tmp_path_factory.mktemp("cloud"), port=PORT) as world:
        world.listen()
        yield world


@dataclass
class Traffic:
    """What a steady stream of requests got: versions that answered, and errors."""

    answers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)


@contextmanager
def traffic(world: World, endpoint: str, rows: Any = (1, 2), clients: int = 3) -> Iterator[Traffic]:
    seen, done = Traffic(), threading.Event()

    def send() -> None:
        runtime = world.client("sagemaker-runtime")
        body = json.dumps(rows)
        while not done.wait(0.01):
            try:
                answer = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=body)
                seen.answers[json.loads(answer["Body"].read())["version"]] += 1
            except Exception as error:  # noqa: BLE001 - whatever goes wrong is what the test is about
                seen.errors.append(str(error))

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join()


CANARY = {
    "TrafficRoutingConfiguration": {
        "Type": "CANARY",
        "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
        "WaitIntervalInSeconds": 240,
    },
    "TerminationWaitInSeconds": 120,
}


def guarded(*alarms: str, policy: dict[str, Any] = CANARY) -> dict[str, Any]:
    return {
        "BlueGreenUpdatePolicy": policy,
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm} for alarm in alarms]},
    }


# --- invocations


def test_model_answers_and_refuses_like_aws(world: World) -> None:
    endpoint = world.endpoint(world.config(world.model("v1")))
    runtime = world.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=b"[1, 2]")
    assert answer["InvokedProductionVariant"] == "champion"
    assert answer["ContentType"] == "application/json"
    assert json.loads(answer["Body"].read()) == {"version": "v1", "rows": 2}

    with pytest.raises(runtime.exceptions.ModelError) as refused:
        world.invoke(endpoint, {"not": "a list"})
    assert refused.value.response["OriginalStatusCode"] == 400
    assert refused.value.response["OriginalMessage"] == '{"error": "not a list"}'
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424

    with pytest.raises(runtime.exceptions.ModelError) as failed:
        runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=b"no json")
    assert failed.value.response["OriginalStatusCode"] == 500


def test_requests_that_aws_refuses(world: World) -> None:
    endpoint = world.endpoint(world.config(world.model("v1")))
    with pytest.raises(ClientError, match=r"ValidationError.*not found"):
        world.invoke("no-such-endpoint", [])
    with pytest.raises(ClientError, match="6291456"):
        world.invoke(endpoint, "x" * 6_291_456)
    with pytest.raises(ClientError, match="Variant challenger not found"):
        world.invoke(endpoint, [], TargetVariant="challenger")


def test_invoking_needs_permission(world: World) -> None:
    endpoint = world.endpoint(world.config(world.model("v1")))
    iam = world.client("iam")
    user = world.name("user")
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
    with pytest.raises(ClientError, match="AccessDenied"):
        runtime.invoke_endpoint(EndpointName=endpoint, Body=b"[]")
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{endpoint}"
    allow = {"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": arn}
    iam.put_user_policy(UserName=user, PolicyName="only", PolicyDocument=json.dumps({"Statement": [allow]}))
    assert runtime.invoke_endpoint(EndpointName=endpoint, Body=b"[]")["Body"].read()


def test_traffic_follows_the_weights(world: World) -> None:
    variants = [
        {
            "VariantName": name,
            "ModelName": world.model(name),
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
            "InitialVariantWeight": weight,
        }
        for name, weight in (("champion", 3.0), ("challenger", 1.0))
    ]
    endpoint = world.endpoint(world.config("", ProductionVariants=variants))
    seen = Counter(world.invoke(endpoint, [])["version"] for _ in range(200))
    assert 20 <= seen["challenger"] <= 80
    assert world.invoke(endpoint, [], TargetVariant="challenger")["version"] == "challenger"

    sagemaker = world.client("sagemaker")
    changes = [{"VariantName": "challenger", "DesiredWeight": 0.0}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName=endpoint, DesiredWeightsAndCapacities=changes)
    world.settled(endpoint)
    assert {world.invoke(endpoint, [])["version"] for _ in range(20)} == {"champion"}


def test_shadow_variant_gets_a_copy_that_nobody_sees(world: World) -> None:
    shadow = {
        "VariantName": "shadow",
        "ModelName": world.model("v2"),
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    config = world.config(
        world.model("v1"), ShadowProductionVariants=[shadow], DataCaptureConfig=capture_to("s3://data/shadowed")
    )
    endpoint = world.endpoint(config)
    assert {world.invoke(endpoint, [])["version"] for _ in range(10)} == {"v1"}
    captured = eventually(lambda: captured_lines(world, f"shadowed/{endpoint}/shadow/"))
    assert all("v2" in line["captureData"]["endpointOutput"]["data"] for line in captured)


# --- capture and metrics


def capture_to(uri: str, **members: Any) -> dict[str, Any]:
    return {
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": uri,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        **members,
    }


def captured_lines(world: World, prefix: str) -> list[dict[str, Any]]:
    s3 = world.client("s3")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="data", Prefix=prefix).get("Contents", [])]
    bodies = [s3.get_object(Bucket="data", Key=key)["Body"].read() for key in keys]
    return [json.loads(line) for body in bodies for line in body.splitlines()]


def test_what_goes_in_and_out_is_captured(world: World) -> None:
    kms = world.client("kms").create_key()["KeyMetadata"]["Arn"]
    config = capture_to("s3://data/captured", KmsKeyId=kms)
    endpoint = world.endpoint(world.config(world.model("v1"), DataCaptureConfig=config))
    world.invoke(endpoint, [1], InferenceId="flight-1", CustomAttributes="trace=1")
    world.client("sagemaker-runtime").invoke_endpoint(EndpointName=endpoint, ContentType="text/plain", Body=b"[1, 2]")
    lines = eventually(lambda: len(found := captured_lines(world, f"captured/{endpoint}/champion/")) == 2 and found)
    assert lines[0]["captureData"] == {
        "endpointInput": {
            "observedContentType": "application/json",
            "mode": "INPUT",
            "data": "[1]",
            "encoding": "JSON",
        },
        "endpointOutput": {
            "observedContentType": "application/json",
            "mode": "OUTPUT",
            "data": '{"version": "v1", "rows": 1}',
            "encoding": "JSON",
        },
    }
    assert lines[0]["eventMetadata"]["inferenceId"] == "flight-1"
    assert lines[0]["eventVersion"] == "0"
    assert lines[1]["captureData"]["endpointInput"]["encoding"] == "BASE64"
    assert "inferenceId" not in lines[1]["eventMetadata"]
    s3 = world.client("s3")
    key = s3.list_objects_v2(Bucket="data", Prefix=f"captured/{endpoint}/")["Contents"][0]["Key"]
    assert datetime.strptime("/".join(key.split("/")[3:7]), "%Y/%m/%d/%H").replace(tzinfo=UTC) <= datetime.now(UTC)
    assert s3.head_object(Bucket="data", Key=key)["ServerSideEncryption"] == "aws:kms"


def test_metrics_tell_configs_apart(world: World) -> None:
    config = world.config(world.model("v1"))
    endpoint = world.endpoint(config)
    for _ in range(6):
        world.invoke(endpoint, [1])
    with pytest.raises(ClientError):
        world.invoke(endpoint, {})

    def values(name: str, stat: str, **dimensions: str) -> float:
        named = {"EndpointName": endpoint, "VariantName": "champion", **dimensions}
        metric = {
            "Namespace": "AWS/SageMaker",
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in named.items()],
        }
        now = datetime.now(UTC)
        answer = world.client("cloudwatch").get_metric_data(
            MetricDataQueries=[{"Id": "m", "MetricStat": {"Metric": metric, "Period": 3600, "Stat": stat}}],
            StartTime=now - timedelta(hours=2),
            EndTime=now + timedelta(hours=2),
        )
        return float(sum(answer["MetricDataResults"][0]["Values"]))

    eventually(lambda: values("Invocations", "Sum") == 7)
    assert values("Invocations", "Sum", EndpointConfigName=config) == 7
    assert values("Invocation4XXErrors", "Sum") == 1
    assert values("Invocation5XXErrors", "Sum") == 0
    assert values("InvocationModelErrors", "Sum") == 1
    assert values("InvocationsPerInstance", "Sum") == pytest.approx(7 / 3)
    assert 100 < values("ModelLatency", "p50") < 1_000_000


# --- creation


def test_container_that_does_not_start_fails_the_endpoint(world: World) -> None:
    sagemaker, name = world.client("sagemaker"), world.name("endpoint")
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=world.config(world.model("broken", BROKEN)))
    failed = world.settled(name)
    assert failed["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in failed["FailureReason"]
    states = [event["EndpointStatus"] for event in world.events("SageMaker Endpoint State Change", name)]
    assert states == ["CREATING", "FAILED"]
    logs = world.client("logs").filter_log_events(logGroupName=f"/aws/sagemaker/Endpoints/{name}")["events"]
    assert any("no such library" in line["message"] for line in logs)


def test_model_server_that_dies_comes_back(world: World) -> None:
    deadly = SCRIPT.replace(
        "rows = json.loads(content)", "import os; rows = json.loads(content); rows == 'die' and os._exit(1)"
    )
    endpoint = world.endpoint(world.config(world.model("deadly", deadly)))
    with pytest.raises(ClientError, match="ModelError"):
        world.invoke(endpoint, "die")

    def answer() -> str | None:
        try:
            return str(world.invoke(endpoint, [])["version"])
        except ClientError:
            return None

    assert eventually(answer) == "deadly"


def test_model_needs_a_role_that_may_read_its_data(world: World) -> None:
    blind = world.role({"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"})
    with pytest.raises(ClientError, match="Could not access model data"):
        world.model("v1", role_arn=blind)


def test_only_an_approved_package_becomes_a_model(world: World) -> None:
    sagemaker, group = world.client("sagemaker"), world.name("group")
    sagemaker.create_model_package_group(ModelPackageGroupName=group)
    container = {
        "Image": IMAGE,
        "ModelDataUrl": world.artifact("v7"),
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    package = sagemaker.create_model_package(
        ModelPackageGroupName=group,
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )["ModelPackageArn"]
    model = {"ExecutionRoleArn": world.role_arn, "PrimaryContainer": {"ModelPackageName": package}}
    with pytest.raises(ClientError, match="PendingManualApproval"):
        sagemaker.create_model(ModelName="from-package", **model)
    sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    sagemaker.create_model(ModelName="from-package", **model)
    assert world.invoke(world.endpoint(world.config("from-package")), [])["version"] == "v7"


# --- deployments


def test_canary_goes_live_without_a_failed_request(world: World) -> None:
    old, new = world.config(world.model("v1")), world.config(world.model("v2"))
    endpoint = world.endpoint(old)
    alarm = world.alarm(endpoint, new)
    sagemaker = world.client("sagemaker")
    with traffic(world, endpoint) as seen:
        sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=new, DeploymentConfig=guarded(alarm))
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
            sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=old)
        pending = eventually(
            lambda: [
                status
                for variant in sagemaker.describe_endpoint(EndpointName=endpoint)
                .get("PendingDeploymentSummary", {})
                .get("ProductionVariants", [])
                for status in variant["VariantStatus"]
                if status["Status"] == "Baking"
            ]
        )
        assert "canary capacity of 1 instance(s)" in pending[0]["StatusMessage"]
        before = Counter(seen.answers)
        time.sleep(2.5)
        during = seen.answers - before
        assert 0.15 < during["v2"] / during.total() < 0.55
        live = world.settled(endpoint)
        assert live["EndpointConfigName"] == new
        assert "FailureReason" not in live
        assert live["LastDeploymentConfig"] == guarded(alarm)
        time.sleep(0.3)
    assert seen.errors == []
    assert world.invoke(endpoint, [])["version"] == "v2"

    states = world.events("SageMaker Endpoint State Change", endpoint)
    assert [s["EndpointStatus"] for s in states] == ["CREATING", "IN_SERVICE", "UPDATING", "IN_SERVICE"]
    assert [s["EndpointConfigName"] for s in states] == [old, old, old, new]
    steps = [
        event["PendingDeploymentSummary"]["ProductionVariants"][0]["VariantStatus"][0]["Status"]
        for event in world.events("SageMaker Endpoint Deployment State Change", endpoint)
        if event.get("PendingDeploymentSummary", {}).get("EndpointConfigName") == new
    ]
    assert [step for index, step in enumerate(steps) if steps[index - 1 : index] != [step]] == [
        *("Creating", "ActivatingTraffic", "Baking", "ActivatingTraffic", "Baking")
    ]


def test_alarm_brings_the_old_version_back(world: World) -> None:
    old, new = world.config(world.model("v1")), world.config(world.model("flaky"))
    endpoint = world.endpoint(old)
    alarm = world.alarm(endpoint, new)
    with traffic(world, endpoint, [12, 13]) as seen:
        world.client("sagemaker").update_endpoint(
            EndpointName=endpoint, EndpointConfigName=new, DeploymentConfig=guarded(alarm)
        )
        after = world.settled(endpoint)
        assert seen.answers["v1"] > len(seen.errors) > 0
        errors = len(seen.errors)
        time.sleep(0.5)
        assert len(seen.errors) - errors <= 3  # those under way when the traffic went back
    assert after["EndpointConfigName"] == old
    assert alarm in after["FailureReason"]
    states = world.events("SageMaker Endpoint State Change", endpoint)
    assert [s["EndpointStatus"] for s in states][-2:] == ["UPDATING", "IN_SERVICE"]
    assert states[-1]["EndpointConfigName"] == old

    change = eventually(lambda: world.events("CloudWatch Alarm State Change", alarm))[-1]
    told = next(c for c in world.events("CloudWatch Alarm State Change", alarm) if c["state"]["value"] == "ALARM")
    assert told["previousState"]["value"] in ("OK", "INSUFFICIENT_DATA")
    assert [m["id"] for m in told["configuration"]["metrics"]] == ["errors", "requests", "rate"]
    assert change["alarmName"] == alarm


def test_deployment_needs_alarms_that_the_model_may_read(world: World) -> None:
    reader = world.role({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"})
    old = world.config(world.model("v1", role_arn=reader))
    endpoint = world.endpoint(old)
    new = world.config(world.model("v2", role_arn=reader))
    world.client("sagemaker").update_endpoint(
        EndpointName=endpoint, EndpointConfigName=new, DeploymentConfig=guarded(world.alarm(endpoint, new))
    )
    after = world.settled(endpoint)
    assert after["EndpointConfigName"] == old
    assert "cloudwatch:DescribeAlarms" in after["FailureReason"]


def test_container_that_does_not_start_leaves_the_old_version(world: World) -> None:
    old = world.config(world.model("v1"))
    endpoint = world.endpoint(old)
    with traffic(world, endpoint) as seen:
        broken = world.config(world.model("broken", BROKEN))
        world.client("sagemaker").update_endpoint(EndpointName=endpoint, EndpointConfigName=broken)
        after = world.settled(endpoint)
    assert after["EndpointStatus"] == "InService"
    assert after["EndpointConfigName"] == old
    assert "did not pass the ping health check" in after["FailureReason"]
    assert seen.errors == []


def test_update_keeps_what_it_is_asked_to_keep(world: World) -> None:
    capture = capture_to("s3://data/kept")
    endpoint = world.endpoint(world.config(world.model("v1"), instances=2, DataCaptureConfig=capture))
    sagemaker = world.client("sagemaker")
    changes = [{"VariantName": "champion", "DesiredInstanceCount": 5, "DesiredWeight": 7.0}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName=endpoint, DesiredWeightsAndCapacities=changes)
    world.settled(endpoint)
    sagemaker.update_endpoint(
        EndpointName=endpoint,
        EndpointConfigName=world.config(
            world.model("v2"), instances=2, DataCaptureConfig=capture | {"InitialSamplingPercentage": 7}
        ),
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
    )
    after = world.settled(endpoint)
    (variant,) = after["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (5, 1.0)
    assert after["DataCaptureConfig"]["CurrentSamplingPercentage"] == 7


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"CanarySize": {"Type": "INSTANCE_COUNT", "Value": 2}}, "50%"),
        ({"CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 51}}, "50%"),
        ({"Type": "LINEAR"}, "CanarySize"),
    ],
)
def test_impossible_deployments_are_refused(world: World, change: dict[str, Any], reason: str) -> None:
    endpoint = world.endpoint(world.config(world.model("v1")))
    routing = {**CANARY["TrafficRoutingConfiguration"], **change}  # type: ignore[dict-item]
    policy = {**CANARY, "TrafficRoutingConfiguration": routing}
    deployment = {"BlueGreenUpdatePolicy": policy}
    with pytest.raises(ClientError, match=reason):
        world.client("sagemaker").update_endpoint(
            EndpointName=endpoint, EndpointConfigName=world.config(world.model("v2")), DeploymentConfig=deployment
        )


def test_guardrails_refuse_renamed_variants_and_unknown_alarms(world: World) -> None:
    endpoint = world.endpoint(world.config(world.model("v1")))
    sagemaker, model = world.client("sagemaker"), world.model("v2")
    renamed = [{"VariantName": "x", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 3}]
    with pytest.raises(ClientError, match="same variant names"):
        sagemaker.update_endpoint(
            EndpointName=endpoint,
            EndpointConfigName=world.config("", ProductionVariants=renamed),
            DeploymentConfig={"BlueGreenUpdatePolicy": CANARY},
        )
    with pytest.raises(ClientError, match="no-such-alarm"):
        sagemaker.update_endpoint(
            EndpointName=endpoint, EndpointConfigName=world.config(model), DeploymentConfig=guarded("no-such-alarm")
        )


def test_deleted_endpoint_is_gone(world: World) -> None:
    endpoint = world.endpoint(world.config(world.model("v1")))
    sagemaker = world.client("sagemaker")
    sagemaker.delete_endpoint(EndpointName=endpoint)

    def gone() -> bool:
        try:
            sagemaker.describe_endpoint(EndpointName=endpoint)
        except ClientError as error:
            return "Could not find endpoint" in str(error)
        return False

    eventually(gone)
    with pytest.raises(ClientError, match="not found"):
        world.invoke(endpoint, [])


# --- alarms


def test_setting_an_alarm_is_told_as_an_event_and_does_not_last(world: World) -> None:
    cloudwatch, name = world.client("cloudwatch"), world.name("alarm")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="Test",
        MetricName="Quiet",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a drill")
    told = eventually(
        lambda: [e for e in world.events("CloudWatch Alarm State Change", name) if e["state"]["reason"] == "a drill"]
    )[0]
    assert told["state"]["value"] == "ALARM"
    assert told["configuration"]["metrics"][0]["metricStat"]["metric"]["name"] == "Quiet"
    eventually(lambda: cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"] == "OK")


# --- CloudFormation

TEMPLATE = {
    "Parameters": {"ModelDataUrl": {"Type": "String"}, "RoleArn": {"Type": "String"}, "Weight": {"Type": "String"}},
    "Conditions": {"Never": {"Fn::Equals": [{"Ref": "Weight"}, "never"]}},
    "Resources": {
        "Model": {
            "Type": "AWS::SageMaker::Model",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "ExecutionRoleArn": {"Ref": "RoleArn"},
                "EnableNetworkIsolation": True,
                "PrimaryContainer": {
                    "Image": IMAGE,
                    "ModelDataUrl": {"Ref": "ModelDataUrl"},
                    "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
                },
            },
        },
        "Config": {
            "Type": "AWS::SageMaker::EndpointConfig",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "ProductionVariants": [
                    {
                        "VariantName": "champion",
                        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
                        "InstanceType": "ml.m5.large",
                        "InitialInstanceCount": 3,
                        "InitialVariantWeight": {"Ref": "Weight"},
                    },
                    {"Fn::If": ["Never", {"VariantName": "challenger"}, {"Ref": "AWS::NoValue"}]},
                ],
                "ShadowProductionVariants": {"Fn::If": ["Never", [], {"Ref": "AWS::NoValue"}]},
            },
        },
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "Metrics": [
                    {
                        "Id": name,
                        "ReturnData": False,
                        "MetricStat": {
                            "Metric": {
                                "Namespace": "AWS/SageMaker",
                                "MetricName": metric,
                                "Dimensions": [
                                    {"Name": "EndpointName", "Value": {"Ref": "AWS::StackName"}},
                                    {"Name": "VariantName", "Value": "champion"},
                                    {
                                        "Name": "EndpointConfigName",
                                        "Value": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                                    },
                                ],
                            },
                            "Period": 60,
                            "Stat": "Sum",
                        },
                    }
                    for name, metric in (("errors", "Invocation5XXErrors"), ("requests", "Invocations"))
                ]
                + [{"Id": "rate", "Expression": "100 * errors / requests"}],
                "EvaluationPeriods": 1,
                "Threshold": 5,
                "ComparisonOperator": "GreaterThanThreshold",
                "TreatMissingData": "notBreaching",
            },
        },
        "Endpoint": {
            "Type": "AWS::SageMaker::Endpoint",
            "Properties": {
                "EndpointName": {"Ref": "AWS::StackName"},
                "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                "RetainAllVariantProperties": True,
                "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredWeight"}],
                "DeploymentConfig": {
                    "BlueGreenUpdatePolicy": CANARY,
                    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": {"Ref": "Alarm"}}]},
                },
            },
        },
    },
    "Outputs": {"Name": {"Value": {"Fn::GetAtt": ["Endpoint", "EndpointName"]}}},
}


@dataclass
class Stack:
    world: World
    name: str
    service_role: str

    def parameters(self, version: str) -> list[dict[str, str]]:
        values = {"ModelDataUrl": self.world.artifact(version), "RoleArn": self.world.role_arn, "Weight": "1"}
        return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]

    def create(self, version: str) -> str:
        self.world.client("cloudformation").create_stack(
            StackName=self.name,
            TemplateBody=json.dumps(TEMPLATE),
            Parameters=self.parameters(version),
            RoleARN=self.service_role,
        )
        return self.end()

    def update(self, version: str) -> str:
        self.world.client("cloudformation").update_stack(
            StackName=self.name, UsePreviousTemplate=True, Parameters=self.parameters(version)
        )
        return self.end()

    def end(self) -> str:
        def status() -> str | None:
            found: str = self.world.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0][
                "StackStatus"
            ]
            return None if found.endswith("IN_PROGRESS") else found

        ended: str = eventually(status, 90)
        return ended

    @property
    def configured(self) -> str:
        """The endpoint config that the stack believes in."""
        found = self.world.client("cloudformation").describe_stack_resource(
            StackName=self.name, LogicalResourceId="Config"
        )
        arn: str = found["StackResourceDetail"]["PhysicalResourceId"]
        return arn.rpartition("/")[2]

    @property
    def live(self) -> str:
        name: str = self.world.client("sagemaker").describe_endpoint(EndpointName=self.name)["EndpointConfigName"]
        return name


@pytest.fixture(scope="module")
def stack(world: World) -> Stack:
    role = world.role(
        {
            "Effect": "Allow",
            "Action": ["sagemaker:*", "iam:PassRole", "cloudwatch:*"],
            "Resource": "*",
        }
    )
    stack = Stack(world, "serving", role)
    assert stack.create("v1") == "CREATE_COMPLETE"
    assert world.invoke(stack.name, [])["version"] == "v1"
    return stack


def reports(world: World, ending: str) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"{world.cloud.endpoint}/_noria/settings", json.dumps({"rollback_reports": ending}).encode(), method="PUT"
    )
    with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=str(world.cloud.certificate))) as a:  # noqa: S310
        assert json.load(a) == {"rollback_reports": ending}


def test_stack_update_is_a_canary(world: World, stack: Stack) -> None:
    before = stack.live
    with traffic(world, stack.name) as seen:
        assert stack.update("v2") == "UPDATE_COMPLETE"
        time.sleep(0.2)
    assert seen.errors == []
    assert set(seen.answers) == {"v1", "v2"}
    assert stack.configured == stack.live != before


@pytest.mark.parametrize(
    ("ending", "status", "truthful"),
    [("success", "UPDATE_COMPLETE", False), ("failure", "UPDATE_ROLLBACK_COMPLETE", True)],
)
def test_stack_can_end_either_way_when_sagemaker_rolls_back(
    world: World, stack: Stack, ending: str, status: str, truthful: bool
) -> None:
    assert stack.update(f"good-{ending}") == "UPDATE_COMPLETE"
    reports(world, ending)
    before = stack.live
    with traffic(world, stack.name, [13]) as seen:
        assert stack.update(f"flaky-{ending}") == status
    assert seen.answers[f"good-{ending}"] > len(seen.errors) > 0
    assert stack.live == before
    assert (stack.configured == before) is truthful
