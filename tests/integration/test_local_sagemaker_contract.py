"""The local SageMaker as a client sees it: every operation, real jobs, permissions, events, and CloudFormation."""

import io
import json
import os
import signal
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError

import boto3
import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError

from local.cloud import ACCOUNT, WORK, CannotStart, LocalCloud
from local.container import build
from local.sagemaker.api import service_model
from local.sagemaker.pipelines import Pipelines
from local.sagemaker.processing import Processing
from local.sagemaker.registry import Registry
from local.sagemaker.tags import Tags
from local.sagemaker.training import Training

T = TypeVar("T")

REGION = "eu-west-1"
BUCKET = "noria-contract-data"
GROUP = "noria-contract"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/pipeline"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/scikit-learn:1.9-0"

PREPARE = """
import json, os, pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:])
files = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
secrets = [name for name in os.environ if name.startswith("AWS_") and "REGION" not in name]
(target / "train.csv").write_text("x,y\\n1,0\\n")
(target / "report.json").write_text(json.dumps({"files": files, "secrets": secrets, "gate": {"passed": True}}))
"""
TRAIN = """
import argparse, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--depth", type=int)
options, _ = parser.parse_known_args()
assert (pathlib.Path(os.environ["SM_CHANNEL_TRAIN"]) / "train.csv").exists()
if options.depth == 13:
    raise ValueError("an unlucky depth")
print(f"auc={options.depth / 10};")
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text(str(options.depth))
"""
SPOT = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
lives = folder / "lives"
lived = int(lives.read_text()) if lives.exists() else 0
print(f"life {lived + 1}", sorted(path.name for path in folder.iterdir()), flush=True)
if lived:
    (folder / "first").unlink()
lives.write_text(str(lived + 1))
if not lived:
    (folder / "half.sagemaker-ignore").write_text("x")
    (folder / "first").write_text("x")
    time.sleep(600)
"""
WAIT = "import time\nprint('waiting', flush=True)\ntime.sleep(600)\n"


@dataclass
class Account:
    """A running cloud, its clients, and which SageMaker operations they were asked for."""

    cloud: LocalCloud
    asked: set[str] = field(default_factory=set)

    def client(self, service: str, key: tuple[str, str] = ("test", "test")) -> Any:
        session: Any = boto3.Session(region_name=REGION, aws_access_key_id=key[0], aws_secret_access_key=key[1])
        client = session.client(
            service,
            endpoint_url=self.cloud.endpoint,
            verify=str(self.cloud.certificate),
            config=Config(retries={"total_max_attempts": 1}),
        )
        client.meta.events.register("before-call", lambda model, **_: self.asked.add(xform_name(model.name)))
        return client

    def user(self, name: str, *statements: dict[str, Any]) -> tuple[str, str]:
        iam = self.client("iam")
        iam.create_user(UserName=name)
        if statements:
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy(*statements))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def role(self, name: str, service: str, *statements: dict[str, Any]) -> str:
        trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        iam = self.client("iam")
        arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(*statements))
        return arn


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def allow(action: str | list[str], resource: str | list[str] = "*") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def python() -> Path:
    return build(WORK / "container")


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Iterator[Account]:
    root = tmp_path_factory.mktemp("cloud")
    with LocalCloud(root=root, port=free_port(), time_scale=60, python=python) as cloud:
        account = Account(cloud)
        fill(account)
        yield account


def fill(account: Account) -> None:
    """A bucket with code and data, the pipeline's role, a package group, and a queue that hears SageMaker's events."""
    s3 = account.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    source = io.BytesIO()
    with tarfile.open(fileobj=source, mode="w:gz") as archive:
        entry = tarfile.TarInfo("train.py")
        entry.size = len(TRAIN)
        archive.addfile(entry, io.BytesIO(TRAIN.encode()))
    objects = {
        "code/sourcedir.tar.gz": source.getvalue(),
        "code/prepare.py": PREPARE,
        "code/wait.py": WAIT,
        "code/spot.py": SPOT,
        "raw/a/1.csv": b"1",
        "raw/b/2.csv": b"2",
        "raw.manifest": json.dumps([{"prefix": f"s3://{BUCKET}/raw/"}, "a/1.csv", "b/2.csv"]),
    }
    for key, body in objects.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    prefix = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
    account.role(
        "pipeline",
        "sagemaker.amazonaws.com",
        allow("s3:ListBucket", f"arn:aws:s3:::{BUCKET}"),
        allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], f"arn:aws:s3:::{BUCKET}/*"),
        allow("sagemaker:Create*Job", [f"{prefix}:processing-job/pipelines-*", f"{prefix}:training-job/pipelines-*"]),
        allow(
            "sagemaker:CreateModelPackage",
            [f"{prefix}:model-package-group/{GROUP}", f"{prefix}:model-package/{GROUP}/*"],
        ),
        allow("iam:PassRole", ROLE),
        allow("logs:*"),
    )
    account.client("sagemaker").create_model_package_group(ModelPackageGroupName=GROUP)
    queue = account.client("sqs").create_queue(QueueName="events")["QueueUrl"]
    assert queue
    events = account.client("events")
    events.put_rule(Name="sagemaker", EventPattern=json.dumps({"source": ["aws.sagemaker", "aws.cloudformation"]}))
    events.put_targets(Rule="sagemaker", Targets=[{"Id": "q", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:events"}])


@pytest.fixture(scope="module")
def sagemaker(account: Account) -> Any:
    return account.client("sagemaker")


def events(account: Account) -> list[dict[str, Any]]:
    """The events since the last look."""
    sqs = account.client("sqs")
    url = sqs.get_queue_url(QueueName="events")["QueueUrl"]
    heard: list[dict[str, Any]] = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        heard += [json.loads(message["Body"]) for message in messages]
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return heard


def until(look: Callable[[], T | None], *, seconds: float = 30) -> T:
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return seen


def has_ended(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "zombie" in status.read_text()


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as error:
        call()
    return str(error.value.response["Error"]["Code"])


# --- a pipeline


def processing(name: str, program: str, arguments: list[str], **members: Any) -> dict[str, Any]:
    run = {"Std:Join": {"On": "/", "Values": [f"s3://{BUCKET}/runs", {"Get": "Execution.PipelineExecutionId"}]}}
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5}
    return {
        "Name": name,
        "Type": "Processing",
        "Arguments": {
            "RoleArn": ROLE,
            "ProcessingResources": {"ClusterConfig": cluster},
            "AppSpecification": {
                "ImageUri": IMAGE,
                "ContainerEntrypoint": ["python3", f"/opt/ml/processing/input/code/{program}"],
                **({"ContainerArguments": arguments} if arguments else {}),
            },
            "NetworkConfig": {"EnableNetworkIsolation": True},
            "ProcessingInputs": [
                source("code", f"s3://{BUCKET}/code/{program}", "S3Prefix"),
                source("raw", f"s3://{BUCKET}/raw.manifest", "ManifestFile"),
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "out",
                        "S3Output": {
                            "S3Uri": run,
                            "LocalPath": "/opt/ml/processing/out",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ]
            },
        },
        **members,
    }


def source(name: str, uri: str, data_type: str) -> dict[str, Any]:
    local = f"/opt/ml/processing/input/{name}"
    data = {"S3Uri": uri, "LocalPath": local, "S3DataType": data_type, "S3InputMode": "File"}
    return {"InputName": name, "S3Input": data}


def channel(name: str, uri: Any) -> dict[str, Any]:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}


def json_get(path: str) -> dict[str, Any]:
    return {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Prepare.PropertyFiles.Report"}, "Path": path}}


def definition() -> str:
    out = {"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri"}
    report = {"PropertyFileName": "Report", "OutputName": "out", "FilePath": "report.json"}
    paths = ["/opt/ml/processing/input/raw", "/opt/ml/processing/out"]
    train = {
        "Name": "Train",
        "Type": "Training",
        "Arguments": {
            "RoleArn": ROLE,
            "EnableNetworkIsolation": True,
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "auc", "Regex": "auc=(.*?);"}],
            },
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models"},
            "InputDataConfig": [channel("train", out), channel("code", f"s3://{BUCKET}/code/sourcedir.tar.gz")],
            "HyperParameters": {
                "depth": {"Std:Join": {"On": "", "Values": [{"Get": "Parameters.Depth"}]}},
                "sagemaker_program": "train.py",
                "sagemaker_submit_directory": "/opt/ml/input/data/code/sourcedir.tar.gz",
            },
        },
    }
    register = {
        "Name": "Register",
        "Type": "RegisterModel",
        "Arguments": {
            "ModelPackageGroupName": GROUP,
            "InferenceSpecification": {
                "Containers": [
                    {"Image": IMAGE, "ModelDataUrl": {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}}
                ],
                "SupportedContentTypes": ["text/csv"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            "CustomerMetadataProperties": {"noria:execution": {"Get": "Execution.PipelineExecutionArn"}},
        },
    }
    passed = {"Type": "Equals", "LeftValue": json_get("gate.passed"), "RightValue": True}
    refuse = {"Name": "Refuse", "Type": "Fail", "Arguments": {"ErrorMessage": "refused"}}
    gate = {
        "Name": "Gate",
        "Type": "Condition",
        "DependsOn": ["Train"],
        "Arguments": {"Conditions": [passed], "IfSteps": [register], "ElseSteps": [refuse]},
    }
    steps = [processing("Prepare", "prepare.py", paths, PropertyFiles=[report]), train, gate]
    return document(steps, [{"Name": "Depth", "Type": "Integer", "DefaultValue": 3}])


def document(steps: list[Any], parameters: list[Any] | None = None) -> str:
    return json.dumps({"Version": "2020-12-01", "Parameters": parameters or [], "Steps": steps})


def create_pipeline(sagemaker: Any, name: str, definition: str) -> None:
    sagemaker.create_pipeline(PipelineName=name, RoleArn=ROLE, PipelineDefinition=definition)


def finish(sagemaker: Any, arn: str) -> dict[str, Any]:
    def ended() -> Any:
        execution = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        return None if execution["PipelineExecutionStatus"] in ("Executing", "Stopping") else execution

    execution: dict[str, Any] = until(ended)
    return execution


def steps_of(sagemaker: Any, arn: str) -> dict[str, dict[str, Any]]:
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    return {step["StepName"]: step for step in steps}


@pytest.fixture(scope="module")
def execution(account: Account, sagemaker: Any) -> str:
    """A finished execution of the whole pipeline, started twice with one token."""
    create_pipeline(sagemaker, "whole", definition())
    events(account)
    request = {"PipelineName": "whole", "ClientRequestToken": "w" * 32, "PipelineExecutionDisplayName": "first"}
    arn: str = sagemaker.start_pipeline_execution(**request)["PipelineExecutionArn"]
    assert sagemaker.start_pipeline_execution(**request)["PipelineExecutionArn"] == arn
    assert finish(sagemaker, arn)["PipelineExecutionStatus"] == "Succeeded"
    return arn


def test_a_pipeline_prepares_trains_and_registers(account: Account, sagemaker: Any, execution: str) -> None:
    heard = events(account)
    package = steps_of(sagemaker, execution)["Register"]["Metadata"]["RegisterModel"]["Arn"]
    described = sagemaker.describe_model_package(ModelPackageName=package)
    assert described["CustomerMetadataProperties"] == {"noria:execution": execution}
    assert described["MetadataProperties"] == {"GeneratedBy": execution}
    assert described["ModelApprovalStatus"] == "PendingManualApproval"

    url = described["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    key = url.removeprefix(f"s3://{BUCKET}/")
    body = account.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        member = archive.extractfile("model.txt")
        assert member is not None
        assert member.read() == b"3"

    kinds = [event["detail-type"] for event in heard]
    for kind in ("Processing Job State Change", "Training Job State Change", "Model Package State Change"):
        assert f"SageMaker {kind}" in kinds
    statuses = [
        event["detail"]["currentPipelineExecutionStatus"]
        for event in heard
        if event["detail-type"] == "SageMaker Model Building Pipeline Execution Status Change"
    ]
    assert statuses == ["Executing", "Succeeded"], "one execution, though it was started twice"
    assert all(event["source"] == "aws.sagemaker" and event["account"] == ACCOUNT for event in heard)


def test_a_job_sees_its_files_and_no_credentials(account: Account, execution: str) -> None:
    key = f"runs/{execution.rsplit('/', 1)[-1]}/report.json"
    report = json.loads(account.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read())
    assert report["files"] == ["a/1.csv", "b/2.csv"]
    assert report["secrets"] == []


def test_jobs_describe_themselves(account: Account, sagemaker: Any, execution: str) -> None:
    steps = steps_of(sagemaker, execution)
    training = steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rsplit("/", 1)[-1]
    job = sagemaker.describe_training_job(TrainingJobName=training)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Completed", "Completed")
    assert [(metric["MetricName"], round(metric["Value"], 2)) for metric in job["FinalMetricDataList"]] == [
        ("auc", 0.3)
    ]
    assert training in [job["TrainingJobName"] for job in sagemaker.list_training_jobs()["TrainingJobSummaries"]]

    prepare = steps["Prepare"]["Metadata"]["ProcessingJob"]["Arn"].rsplit("/", 1)[-1]
    assert sagemaker.describe_processing_job(ProcessingJobName=prepare)["ProcessingJobStatus"] == "Completed"
    completed = sagemaker.list_processing_jobs(StatusEquals="Completed", NameContains="Prepare")
    assert prepare in [job["ProcessingJobName"] for job in completed["ProcessingJobSummaries"]]

    logs = account.client("logs")
    streams = logs.describe_log_streams(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=training)
    stream = streams["logStreams"][0]["logStreamName"]
    lines = logs.get_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=stream)["events"]
    assert any("auc=0.3" in line["message"] for line in lines)


def test_a_failure_is_told_in_the_program_s_words(sagemaker: Any, execution: str) -> None:
    unlucky = [{"Name": "Depth", "Value": "13"}]
    arn = sagemaker.start_pipeline_execution(PipelineName="whole", PipelineParameters=unlucky)["PipelineExecutionArn"]
    assert finish(sagemaker, arn)["FailureReason"] == "Step failure: One or multiple steps failed."
    reason = steps_of(sagemaker, arn)["Train"]["FailureReason"]
    assert "AlgorithmError" in reason
    assert "ExecuteUserScriptError" in reason
    assert "exit code: 1" in reason
    parameters = sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)["PipelineParameters"]
    assert parameters == unlucky


def test_a_pipeline_acts_as_its_role(account: Account, sagemaker: Any) -> None:
    narrow = account.role("narrow", "sagemaker.amazonaws.com", allow("sagemaker:CreateProcessingJob"))
    steps = json.loads(definition())["Steps"][:1]
    sagemaker.create_pipeline(PipelineName="narrow", RoleArn=narrow, PipelineDefinition=document(steps))
    arn = sagemaker.start_pipeline_execution(PipelineName="narrow")["PipelineExecutionArn"]
    assert finish(sagemaker, arn)["PipelineExecutionStatus"] == "Failed"
    reason = steps_of(sagemaker, arn)["Prepare"]["FailureReason"]
    assert "Failed to invoke sagemaker:CreateProcessingJob" in reason
    assert f"iam:PassRole on resource: {ROLE}" in reason


def test_a_role_that_does_not_trust_sagemaker_is_refused(account: Account, sagemaker: Any) -> None:
    for role in (account.role("other", "lambda.amazonaws.com"), f"arn:aws:iam::{ACCOUNT}:role/missing"):
        create = partial(sagemaker.create_pipeline, PipelineName="untrusted", PipelineDefinition=definition())
        assert code_of(partial(create, RoleArn=role)) == "ValidationException"


def test_a_stopped_execution_ends_its_job(account: Account, sagemaker: Any) -> None:
    create_pipeline(sagemaker, "waiting", document([processing("Wait", "wait.py", [])]))
    arn = sagemaker.start_pipeline_execution(PipelineName="waiting")["PipelineExecutionArn"]
    job = until(lambda: steps_of(sagemaker, arn).get("Wait", {}).get("Metadata", {}).get("ProcessingJob"))
    log = account.cloud.root / "jobs" / job["Arn"].rsplit("/", 1)[-1] / "log.txt"
    until(lambda: log.exists() and "waiting" in log.read_text())
    sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert finish(sagemaker, arn)["PipelineExecutionStatus"] == "Stopped"
    stopped = sagemaker.describe_processing_job(ProcessingJobName=job["Arn"].rsplit("/", 1)[-1])
    assert stopped["ProcessingJobStatus"] == "Stopped"
    assert steps_of(sagemaker, arn)["Wait"]["StepStatus"] == "Stopped"
    sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn)
    until(lambda: steps_of(sagemaker, arn).get("Wait", {}).get("StepStatus") == "Executing")
    sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    finish(sagemaker, arn)


# --- the operations


def job_request(kind: str, name: str) -> dict[str, Any]:
    arguments = {"Processing": processing("x", "wait.py", [])["Arguments"], "Training": training_arguments()}[kind]
    return {f"{kind}JobName": name, **arguments}


def training_arguments() -> dict[str, Any]:
    arguments: dict[str, Any] = json.loads(definition())["Steps"][1]["Arguments"]
    train = channel("train", f"s3://{BUCKET}/raw/")
    code = channel("code", f"s3://{BUCKET}/code/")
    program = {"ContainerEntrypoint": ["python3"], "ContainerArguments": ["/opt/ml/input/data/code/wait.py"]}
    arguments["AlgorithmSpecification"] |= program
    return arguments | {"InputDataConfig": [train, code], "HyperParameters": {}}


def test_only_a_job_on_spot_may_wait_and_at_least_as_long_as_it_may_run(sagemaker: Any) -> None:
    request = job_request("Training", "on-spot") | {"StoppingCondition": {"MaxRuntimeInSeconds": 60}}
    waiting = request | {"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120}}
    with pytest.raises(ClientError, match="only supported when EnableManagedSpotTraining"):
        sagemaker.create_training_job(**waiting)
    on_spot = {"EnableManagedSpotTraining": True}
    short = {"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 59}}
    with pytest.raises(ClientError, match="equal to or greater than MaxRuntimeInSeconds"):
        sagemaker.create_training_job(**(waiting | on_spot | short))
    sagemaker.create_training_job(**(waiting | on_spot))
    described = sagemaker.describe_training_job(TrainingJobName="on-spot")
    assert described["EnableManagedSpotTraining"] is True
    sagemaker.stop_training_job(TrainingJobName="on-spot")


def ended(sagemaker: Any, job: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        described: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=job)
        return described if described["TrainingJobStatus"] in {"Completed", "Failed", "Stopped"} else None

    return until(look)


def test_an_interrupted_job_begins_again_with_nothing_but_its_checkpoints(account: Account, sagemaker: Any) -> None:
    request = job_request("Training", "interrupted") | {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 600},
        "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/checkpoints/one", "LocalPath": "/opt/ml/checkpoints"},
    }
    request["AlgorithmSpecification"]["ContainerArguments"] = ["/opt/ml/input/data/code/spot.py", "/opt/ml/checkpoints"]
    s3 = account.client("s3")

    def kept() -> set[str]:
        found = s3.list_objects_v2(Bucket=BUCKET, Prefix="checkpoints/").get("Contents", [])
        return {each["Key"].removeprefix("checkpoints/") for each in found}

    s3.put_object(Bucket=BUCKET, Key="checkpoints/one-too-many/lives", Body=b"9")  # another's, of a similar name
    sagemaker.create_training_job(**request)
    until(lambda: {"one/lives", "one/first"} <= kept())
    account.cloud.faults.interrupt("interrupted")
    job = ended(sagemaker, "interrupted")
    assert [transition["Status"] for transition in job["SecondaryStatusTransitions"]] == [
        *("Starting", "Downloading", "Training", "Interrupted"),
        *("Starting", "Downloading", "Training", "Uploading", "Completed"),
    ]
    assert all("EndTime" in transition for transition in job["SecondaryStatusTransitions"][:-1])
    log = (account.cloud.root / "jobs" / "interrupted" / "log.txt").read_text()
    assert log.splitlines() == ["life 1 []", "life 2 ['first', 'lives']"]
    assert kept() == {"one/lives", "one-too-many/lives"}
    assert s3.get_object(Bucket=BUCKET, Key="checkpoints/one/lives")["Body"].read() == b"2"
    assert 1 <= job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]
    with pytest.raises(HTTPError, match="400"):
        account.cloud.faults.interrupt("interrupted")  # it has ended


def test_only_a_job_on_spot_is_interrupted_and_none_takes_longer_than_it_may_wait(
    account: Account, sagemaker: Any
) -> None:
    sagemaker.create_training_job(**job_request("Training", "on-demand"))
    log = account.cloud.root / "jobs" / "on-demand" / "log.txt"
    until(lambda: log.exists() and "waiting" in log.read_text())
    with pytest.raises(HTTPError, match="400"):
        account.cloud.faults.interrupt("on-demand")
    sagemaker.stop_training_job(TrainingJobName="on-demand")
    limits = {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1}
    request = job_request("Training", "too-long") | {"StoppingCondition": limits, "EnableManagedSpotTraining": True}
    sagemaker.create_training_job(**request)
    job = ended(sagemaker, "too-long")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")


@pytest.mark.parametrize("kind", ["Processing", "Training"])
def test_jobs_run_alone_and_are_stopped(sagemaker: Any, kind: str) -> None:
    noun = kind.lower()
    request = job_request(kind, f"alone-{noun}")
    if kind == "Processing":
        request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"] = f"s3://{BUCKET}/alone"
    getattr(sagemaker, f"create_{noun}_job")(**request)
    assert code_of(lambda: getattr(sagemaker, f"create_{noun}_job")(**request)) == "ResourceInUse"
    named = {f"{kind}JobName": f"alone-{noun}"}
    getattr(sagemaker, f"stop_{noun}_job")(**named)
    describe = getattr(sagemaker, f"describe_{noun}_job")
    assert until(lambda: describe(**named)[f"{kind}JobStatus"] == "Stopped")
    assert code_of(lambda: getattr(sagemaker, f"stop_{noun}_job")(**named)) == "ValidationException"
    assert code_of(lambda: describe(**{f"{kind}JobName": "missing"})) == "ResourceNotFound"


def test_callback_steps_are_answered_through_the_api(account: Account, sagemaker: Any) -> None:
    sqs = account.client("sqs")
    url = sqs.create_queue(QueueName="callbacks")["QueueUrl"]
    role = account.role("asking", "sagemaker.amazonaws.com", allow("sqs:SendMessage"))
    step = {"Name": "Ask", "Type": "Callback", "SqsQueueUrl": url, "Arguments": {}, "OutputParameters": []}
    sagemaker.create_pipeline(PipelineName="asking", RoleArn=role, PipelineDefinition=document([step]))
    for answer, status in (("success", "Succeeded"), ("failure", "Failed")):
        arn = sagemaker.start_pipeline_execution(PipelineName="asking")["PipelineExecutionArn"]
        message = until(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))[0]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        token = json.loads(message["Body"])["token"]
        getattr(sagemaker, f"send_pipeline_execution_step_{answer}")(CallbackToken=token)
        assert finish(sagemaker, arn)["PipelineExecutionStatus"] == status


def test_pipelines_are_kept(sagemaker: Any, execution: str) -> None:
    create_pipeline(sagemaker, "kept", definition())
    assert code_of(lambda: create_pipeline(sagemaker, "kept", definition())) == "ValidationException"
    sagemaker.update_pipeline(PipelineName="kept", PipelineDescription="better")
    described = sagemaker.describe_pipeline(PipelineName="kept")
    assert described["PipelineDescription"] == "better"
    assert described["PipelineDefinition"] == definition()
    assert "kept" in [pipeline["PipelineName"] for pipeline in sagemaker.list_pipelines()["PipelineSummaries"]]
    sagemaker.delete_pipeline(PipelineName="kept")
    assert code_of(lambda: sagemaker.describe_pipeline(PipelineName="kept")) == "ResourceNotFound"
    assert code_of(lambda: create_pipeline(sagemaker, "wrong", "{}")) == "ValidationException"
    listed = sagemaker.list_pipeline_executions(PipelineName="whole", SortOrder="Ascending")
    assert listed["PipelineExecutionSummaries"][0]["PipelineExecutionArn"] == execution
    used = sagemaker.describe_pipeline_definition_for_execution(PipelineExecutionArn=execution)
    assert used["PipelineDefinition"] == definition()


def test_a_registry_is_kept(account: Account, sagemaker: Any, execution: str) -> None:
    sagemaker.create_model_package_group(ModelPackageGroupName="other", Tags=[{"Key": "a", "Value": "b"}])
    group = sagemaker.describe_model_package_group(ModelPackageGroupName="other")["ModelPackageGroupArn"]
    assert sagemaker.list_tags(ResourceArn=group)["Tags"] == [{"Key": "a", "Value": "b"}]
    sagemaker.add_tags(ResourceArn=group, Tags=[{"Key": "c", "Value": "d"}])
    sagemaker.delete_tags(ResourceArn=group, TagKeys=["a"])
    assert sagemaker.list_tags(ResourceArn=group)["Tags"] == [{"Key": "c", "Value": "d"}]
    package = sagemaker.create_model_package(ModelPackageGroupName="other")["ModelPackageArn"]
    events(account)
    sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    (event,) = events(account)
    assert event["detail"]["UpdatedModelPackageFields"] == ["ModelApprovalStatus"]
    assert event["resources"] == [package]
    approved = sagemaker.list_model_packages(ModelPackageGroupName="other", ModelApprovalStatus="Approved")
    assert [p["ModelPackageArn"] for p in approved["ModelPackageSummaryList"]] == [package]
    assert len(sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]) >= 2
    sagemaker.delete_model_package(ModelPackageName=package)
    sagemaker.delete_model_package_group(ModelPackageGroupName="other")


def test_unknown_operations_and_wrong_shapes_are_named(sagemaker: Any) -> None:
    with pytest.raises(ClientError, match="ListNotebookInstances") as error:
        sagemaker.list_notebook_instances()
    assert error.value.response["Error"]["Code"] == "UnknownOperationException"
    with pytest.raises(ClientError, match="regular expression pattern") as error:
        sagemaker.create_model_package_group(ModelPackageGroupName="two words")
    assert error.value.response["Error"]["Code"] == "ValidationException"


def test_permissions_hold_for_one_resource_only(account: Account) -> None:
    group = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package-group/{GROUP}"
    one = account.client("sagemaker", account.user("reader", allow("sagemaker:DescribeModelPackageGroup", group)))
    assert one.describe_model_package_group(ModelPackageGroupName=GROUP)["ModelPackageGroupArn"] == group
    with pytest.raises(ClientError, match=r"sagemaker:DescribeModelPackageGroup on resource: .*/other ") as error:
        one.describe_model_package_group(ModelPackageGroupName="other")
    assert error.value.response["Error"]["Code"] == "AccessDeniedException"
    assert code_of(one.list_model_package_groups) == "AccessDeniedException"


def test_a_group_s_policy_denies_approval_to_all_but_one_whatever_they_are_allowed(account: Account) -> None:
    """Source: SageMaker guide, "Set up cross-account discoverability"; condition key sagemaker:ModelApprovalStatus."""
    root = account.client("sagemaker")
    prefix = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
    image = {"Containers": [{"Image": IMAGE}], "SupportedContentTypes": ["text/csv"]}
    specification = {"InferenceSpecification": image | {"SupportedResponseMIMETypes": ["text/csv"]}}
    root.create_model_package_group(ModelPackageGroupName="strict")
    package = root.create_model_package(ModelPackageGroupName="strict", **specification)["ModelPackageArn"]
    admin = account.client("sagemaker", account.user("admin", allow("sagemaker:*")))
    role = account.role("approver", "sagemaker.amazonaws.com", allow("sagemaker:*"))
    document = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["sagemaker:CreateModelPackage", "sagemaker:UpdateModelPackage"],
            "Resource": [f"{prefix}:model-package-group/strict", f"{prefix}:model-package/strict/*"],
            "Condition": {
                "StringEquals": {"sagemaker:ModelApprovalStatus": "Approved"},
                "ArnNotEquals": {"aws:PrincipalArn": role},  # of a session of that role, too
            },
        },
    }
    with pytest.raises(ClientError, match="Cannot find resource policy"):
        admin.get_model_package_group_policy(ModelPackageGroupName="strict")
    with pytest.raises(ClientError, match="is not of model package group"):
        admin.put_model_package_group_policy(ModelPackageGroupName=GROUP, ResourcePolicy=json.dumps(document))
    admin.put_model_package_group_policy(ModelPackageGroupName="strict", ResourcePolicy=json.dumps(document))
    kept = admin.get_model_package_group_policy(ModelPackageGroupName="strict")["ResourcePolicy"]
    assert json.loads(kept) == document
    with pytest.raises(ClientError, match="explicit deny"):
        admin.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    with pytest.raises(ClientError, match="explicit deny"):
        admin.create_model_package(ModelPackageGroupName="strict", ModelApprovalStatus="Approved", **specification)
    admin.update_model_package(ModelPackageArn=package, CustomerMetadataProperties={"x": "1"})
    admin.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Rejected", ApprovalDescription="no")
    described = root.describe_model_package(ModelPackageName=package)
    assert described["LastModifiedBy"]["IamIdentity"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/admin"
    assert described["CreatedBy"]["IamIdentity"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/assumer"},
        "Action": "sts:AssumeRole",
    }
    account.client("iam").update_assume_role_policy(RoleName="approver", PolicyDocument=policy(trust))
    assumer = account.client("sts", account.user("assumer", allow("sts:AssumeRole", role)))
    session = assumer.assume_role(RoleArn=role, RoleSessionName="anybody")["Credentials"]
    boto: Any = boto3.Session(
        region_name=REGION,
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    )
    approver = boto.client("sagemaker", endpoint_url=account.cloud.endpoint, verify=str(account.cloud.certificate))
    approver.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    admin.delete_model_package_group_policy(ModelPackageGroupName="strict")
    admin.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")


def test_invocations_are_authorised_by_endpoint(account: Account) -> None:
    allowed = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/mine"
    runtime = account.client("sagemaker-runtime", account.user("caller", allow("sagemaker:InvokeEndpoint", allowed)))
    with pytest.raises(ClientError, match=r"sagemaker:InvokeEndpoint on resource: .*endpoint/yours") as error:
        runtime.invoke_endpoint(EndpointName="yours", Body=b"1")
    assert error.value.response["Error"]["Code"] == "AccessDeniedException"
    assert code_of(lambda: runtime.invoke_endpoint(EndpointName="mine", Body=b"1")) != "AccessDeniedException"


# --- CloudFormation


def template(**changes: Any) -> str:
    pipeline = {
        "PipelineName": {"Ref": "Name"},
        "PipelineDescription": {"Ref": "Description"},
        "RoleArn": {"Ref": "Role"},
        "PipelineDefinition": {"PipelineDefinitionBody": {"Fn::Join": ["", [definition()]]}},
    }
    group = {"ModelPackageGroupName": "from-a-stack", "Tags": [{"Key": "a", "Value": "b"}], **changes}
    return json.dumps(
        {
            "Parameters": {
                "Name": {"Type": "String", "Default": "from-a-stack"},
                "Description": {"Type": "String", "Default": "none"},
                "Role": {"Type": "String", "Default": ROLE},
            },
            "Conditions": {"Described": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Description"}, "none"]}]}},
            "Resources": {
                "Group": {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": group},
                "Pipeline": {
                    "Type": "AWS::SageMaker::Pipeline",
                    "UpdateReplacePolicy": "Retain",
                    "Properties": pipeline,
                },
                "Extra": {"Type": "AWS::SageMaker::ModelPackageGroup", "Condition": "Described", "Properties": {}},
            },
            "Outputs": {"Group": {"Value": {"Fn::GetAtt": ["Group", "ModelPackageGroupArn"]}}},
        }
    )


@dataclass
class Stack:
    """The stack under test, and its events."""

    account: Account
    name: str = "sagemaker"

    def __post_init__(self) -> None:
        self.cloudformation = self.account.client("cloudformation")

    def update(self, token: str, **parameters: str) -> dict[str, Any]:
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        kept = {"Name", "Description", "Role"} - parameters.keys()
        self.cloudformation.update_stack(
            StackName=self.name,
            UsePreviousTemplate=True,
            Parameters=given + [{"ParameterKey": key, "UsePreviousValue": True} for key in kept],
            ClientRequestToken=token,
        )
        return self.settled()

    def settled(self) -> dict[str, Any]:
        def end() -> Any:
            stack = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"][0]
            return None if stack["StackStatus"].endswith("IN_PROGRESS") else stack

        stack: dict[str, Any] = until(end)
        return stack

    def told(self) -> list[tuple[str, str | None]]:
        return [
            (event["detail"]["status-details"]["status"], event["detail"].get("client-request-token"))
            for event in events(self.account)
            if event["detail-type"] == "CloudFormation Stack Status Change"
        ]


@pytest.fixture(scope="module")
def stack(account: Account) -> Stack:
    role = account.role("deployer", "cloudformation.amazonaws.com", allow("sagemaker:*"), allow("iam:PassRole", ROLE))
    stack = Stack(account)
    events(account)
    stack.cloudformation.create_stack(
        StackName=stack.name, TemplateBody=template(), RoleARN=role, ClientRequestToken="create"
    )
    assert stack.settled()["StackStatus"] == "CREATE_COMPLETE"
    assert stack.told() == [("CREATE_IN_PROGRESS", "create"), ("CREATE_COMPLETE", "create")]
    return stack


def test_a_stack_brings_resources_with_tags(stack: Stack, sagemaker: Any) -> None:
    (output,) = stack.settled()["Outputs"]
    assert output["OutputValue"].endswith("model-package-group/from-a-stack")
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=output["OutputValue"])["Tags"]}
    assert tags["a"] == "b"
    assert tags["aws:cloudformation:stack-name"] == stack.name
    assert sagemaker.describe_pipeline(PipelineName="from-a-stack")["PipelineDefinition"] == definition()


def test_parameters_alone_update_a_stack(stack: Stack, sagemaker: Any) -> None:
    assert stack.update("described", Description="better")["StackStatus"] == "UPDATE_COMPLETE"
    assert sagemaker.describe_pipeline(PipelineName="from-a-stack")["PipelineDescription"] == "better"
    assert stack.told() == [
        ("UPDATE_IN_PROGRESS", "described"),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "described"),
        ("UPDATE_COMPLETE", "described"),
    ]
    with pytest.raises(ClientError, match="No updates are to be performed"):
        stack.update("again")


def test_an_update_beyond_the_service_role_rolls_back(stack: Stack, account: Account, sagemaker: Any) -> None:
    stack.update("before", Description="before")
    other = account.role("not-to-be-passed", "sagemaker.amazonaws.com")
    stack.told()
    rolled_back = stack.update("beyond", Description="after", Role=other)
    assert rolled_back["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert [status for status, _ in stack.told()] == [
        "UPDATE_IN_PROGRESS",
        "UPDATE_ROLLBACK_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE",
    ]
    parameters = {p["ParameterKey"]: p["ParameterValue"] for p in rolled_back["Parameters"]}
    assert parameters["Description"] == "before"
    assert sagemaker.describe_pipeline(PipelineName="from-a-stack")["PipelineDescription"] == "before"
    failed = [
        event
        for event in stack.cloudformation.describe_stack_events(StackName=stack.name)["StackEvents"]
        if event["ResourceStatus"] == "UPDATE_FAILED"
    ]
    assert "iam:PassRole" in failed[0]["ResourceStatusReason"]


def test_a_new_name_replaces_and_a_retained_resource_stays(stack: Stack, sagemaker: Any) -> None:
    assert stack.update("renamed", Name="renamed")["StackStatus"] == "UPDATE_COMPLETE"
    for name in ("renamed", "from-a-stack"):
        assert sagemaker.describe_pipeline(PipelineName=name)["PipelineName"] == name


def test_a_named_resource_cannot_be_replaced_under_its_name(stack: Stack) -> None:
    stack.cloudformation.update_stack(StackName=stack.name, TemplateBody=template(ModelPackageGroupDescription="new"))
    assert stack.settled()["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"


# --- the process


def test_every_operation_was_asked(account: Account) -> None:
    """Keeps this file complete: it must come after the tests above."""
    nothing: Any = None
    tags = Tags()
    parts = [tags, Registry(nothing, tags), Pipelines(nothing, tags, {})]
    parts += [part(nothing, tags, nothing) for part in (Processing, Training)]
    operations = {xform_name(name) for name in service_model().operation_names}
    implemented = {name for name in operations if any(hasattr(part, name) for part in parts)}
    assert implemented - account.asked == set()


def test_two_clouds_do_not_share_a_root_or_a_port(account: Account, tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="already runs"):
        LocalCloud(root=account.cloud.root, port=free_port()).start()
    with pytest.raises(CannotStart, match="is in use"):
        LocalCloud(root=tmp_path, port=account.cloud.port).start()


@pytest.mark.parametrize("ending", ["asked", "killed"])
def test_nothing_is_left_behind(tmp_path: Path, python: Path, ending: str) -> None:
    cloud = LocalCloud(root=tmp_path, port=free_port(), python=python)
    cloud.start()
    try:
        account = Account(cloud)
        fill(account)
        account.client("iam").put_role_policy(
            RoleName="pipeline", PolicyName="q", PolicyDocument=policy(allow("sagemaker:*"))
        )
        account.client("sagemaker").create_training_job(**job_request("Training", "running"))
        log = tmp_path / "jobs" / "running" / "log.txt"
        until(lambda: log.exists() and "waiting" in log.read_text())
        (record,) = (tmp_path / "processes").iterdir()
        server = cloud.pid
        assert server is not None
        if ending == "killed":
            os.kill(server, signal.SIGKILL)
    finally:
        cloud.stop()
    for pid in (server, int(record.name)):
        until(partial(has_ended, pid))
    assert not cloud.environment_file.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", cloud.port)) != 0
