"""Training jobs: channels under /opt/ml/input/data, the model in /opt/ml/model, through AWS's own training toolkit.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import json
import math
import re
import tarfile
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from local.faults import Interruption
from local.ministack import Request, Response
from local.sagemaker.api import Document, Problem, invalid
from local.sagemaker.checkpoints import Checkpoints, kept
from local.sagemaker.cloud import Cloud
from local.sagemaker.container import Container
from local.sagemaker.jobs import Job, Jobs
from local.sagemaker.programs import DEFAULT_SECONDS, Program
from local.sagemaker.storage import download, upload
from local.sagemaker.tags import Tags

# Seconds between SIGTERM and SIGKILL: two minutes are what EC2 announces an interruption before (EC2 guide,
# `spot-instance-termination-notices`).
GRACE = 120

TOOLKIT = ["python3", "-m", "sagemaker_training.cli.train"]


class Training:
    """The operations on training jobs."""

    def __init__(self, cloud: Cloud, tags: Tags, slots: threading.Semaphore) -> None:
        self.jobs = Jobs(_Training(cloud), cloud, tags, slots)
        self.create_training_job = self.jobs.create
        self.describe_training_job = self.jobs.describe
        self.list_training_jobs = self.jobs.list_
        self.stop_training_job = self.jobs.stop
        self._cloud = cloud

    def interrupt(self, request: Request) -> Response:
        """POST takes the Spot instance away on which the job runs that the body names."""
        try:
            job = Interruption.model_validate_json(request.body).job
            described = self.jobs.describe({"TrainingJobName": job})
            if not described.get("EnableManagedSpotTraining"):
                raise invalid(f"The training job {job} is not on Spot: nothing takes its instance away.")
            self.jobs.interrupt(job, grace=self._cloud.scaled(GRACE))
        except (ValidationError, Problem) as problem:
            return Response(400, str(problem).encode(), {"Content-Type": "text/plain"})
        return Response(200, b"{}", {"Content-Type": "application/json"})


class _Training(Program):
    noun = "Training"

    def refuse(self, request: Document) -> None:
        for channel in request.get("InputDataConfig", []):
            if "S3DataSource" not in channel["DataSource"]:
                raise invalid(f"The local SageMaker reads S3DataSource only: channel {channel['ChannelName']}.")
            mode = channel.get("InputMode", request["AlgorithmSpecification"]["TrainingInputMode"])
            if mode == "Pipe" or channel.get("CompressionType", "None") != "None":
                raise invalid(f"The local SageMaker reads files, not compressed: channel {channel['ChannelName']}.")
        limits = request.get("StoppingCondition", {})
        if "MaxWaitTimeInSeconds" in limits:
            if not request.get("EnableManagedSpotTraining"):
                raise invalid(
                    "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
                )
            if limits["MaxWaitTimeInSeconds"] < limits.get("MaxRuntimeInSeconds", DEFAULT_SECONDS):
                raise invalid("Invalid MaxWaitTimeInSeconds. It must be equal to or greater than MaxRuntimeInSeconds.")

    def initial(self, request: Document) -> Document:
        now = self._cloud.now()
        first = {"Status": "Starting", "StartTime": now, "StatusMessage": "Starting the training job"}
        return {
            "SecondaryStatus": "Starting",
            "SecondaryStatusTransitions": [first],
            "ModelArtifacts": {"S3ModelArtifacts": f"{_output(request)}/model.tar.gz"},
            "EnableNetworkIsolation": request.get("EnableNetworkIsolation", False),
        }

    def prepare(self, job: Job, container: Container, s3: Any) -> None:
        for directory in ("input/config", "input/data", "model", "output/data", "code"):
            container.path(f"/opt/ml/{directory}").mkdir(parents=True, exist_ok=True)
        channels = job.description.get("InputDataConfig", [])
        for channel in channels:
            source = channel["DataSource"]["S3DataSource"]
            target = container.path(f"/opt/ml/input/data/{channel['ChannelName']}")
            download(s3, source["S3Uri"], target, data_type=source["S3DataType"])
        hyperparameters = {
            name: container.translated(value) for name, value in job.description.get("HyperParameters", {}).items()
        }
        files = {
            "hyperparameters": hyperparameters,
            "inputdataconfig": {channel["ChannelName"]: _channel(channel) for channel in channels},
            "resourceconfig": _resources(job.description["ResourceConfig"]),
        }
        for name, content in files.items():
            container.path(f"/opt/ml/input/config/{name}.json").write_text(json.dumps(content))

    def run(self, job: Job, container: Container, s3: Any) -> int:
        """A job on Spot whose instance is taken away begins again on another, with nothing but its checkpoints."""
        while True:
            began = time.monotonic()
            with self._checkpoints(job, container, s3) as checkpoints:
                exit_code = super().run(job, container, s3)
                if job.interrupted and checkpoints:
                    checkpoints.lose()
            job.seconds += time.monotonic() - began
            with job.changed:
                if not job.interrupted or job.stopping:
                    return exit_code
                job.interrupted, job.process = False, None
            self.phase(job, "Interrupted", "The managed spot training instances were interrupted")
            container.clear()
            self.phase(job, "Starting", "Starting the training job")

    def _checkpoints(self, job: Job, container: Container, s3: Any) -> AbstractContextManager[Checkpoints | None]:
        config = job.description.get("CheckpointConfig")
        if config is None:
            return nullcontext()
        return kept(self._cloud, s3, container.path(config.get("LocalPath", "/opt/ml/checkpoints")), config["S3Uri"])

    def limit(self, job: Job) -> tuple[float, str]:
        """What is left of the time on all instances together, or of that from the beginning on, waits and all."""
        limits = job.description.get("StoppingCondition", {})
        since = (self._cloud.now() - job.description["CreationTime"]).total_seconds()
        left = [
            (limits.get("MaxRuntimeInSeconds", DEFAULT_SECONDS) - job.seconds, "MaxRuntimeExceeded"),
            (limits.get("MaxWaitTimeInSeconds", math.inf) - since, "MaxWaitTimeExceeded"),
        ]
        seconds, exceeded = min(left)
        return max(seconds, 0), exceeded

    def command(self, job: Job) -> tuple[list[str], dict[str, str]]:
        algorithm = job.description["AlgorithmSpecification"]
        argv = [*algorithm.get("ContainerEntrypoint", TOOLKIT), *algorithm.get("ContainerArguments", [])]
        return argv, {
            "TRAINING_JOB_NAME": job.name,
            "TRAINING_JOB_ARN": job.arn,
            "SAGEMAKER_REGION": self._cloud.region,
            **job.description.get("Environment", {}),
        }

    def collect(self, job: Job, container: Container, s3: Any) -> None:
        key = job.description["OutputDataConfig"].get("KmsKeyId")
        for name, directory in (("model", "/opt/ml/model"), ("output", "/opt/ml/output/data")):
            content = container.path(directory)
            if name == "model" or any(content.iterdir()):
                archive = container.root / f"{name}.tar.gz"
                _pack(content, archive)
                upload(s3, archive, f"{_output(job.description)}/{name}.tar.gz", kms_key=key)
        job.description["FinalMetricDataList"] = _metrics(job)
        job.description["TrainingTimeInSeconds"] = job.description["BillableTimeInSeconds"] = max(int(job.seconds), 1)

    def phase(self, job: Job, name: str, message: str) -> None:
        if job.description["SecondaryStatus"] in {"MaxRuntimeExceeded", "MaxWaitTimeExceeded"}:
            return
        now = self._cloud.now()
        transitions = job.description["SecondaryStatusTransitions"]
        transitions[-1]["EndTime"] = now
        transitions.append({"Status": name, "StartTime": now, "StatusMessage": message})
        job.description["SecondaryStatus"] = name


def _output(request: Document) -> str:
    return f"{request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{request['TrainingJobName']}/output"


def _channel(channel: Document) -> Document:
    return {
        "TrainingInputMode": "File",
        "S3DistributionType": channel["DataSource"]["S3DataSource"].get("S3DataDistributionType", "FullyReplicated"),
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
    }


def _resources(resources: Document) -> Document:
    instance = resources.get("InstanceType", "local")
    group = {"instance_group_name": "homogeneousCluster", "instance_type": instance, "hosts": ["algo-1"]}
    return {
        "current_host": "algo-1",
        "current_instance_type": instance,
        "current_group_name": group["instance_group_name"],
        "hosts": ["algo-1"],
        "instance_groups": [group],
        "network_interface_name": "lo",
    }


def _pack(directory: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(directory.iterdir()):
            tar.add(path, arcname=path.name)


def _metrics(job: Job) -> list[Document]:
    """The last value that each metric's expression finds in the log."""
    definitions = job.description["AlgorithmSpecification"].get("MetricDefinitions", [])
    log = job.log.read_text(errors="replace") if definitions else ""
    found = [(definition["Name"], re.findall(definition["Regex"], log)) for definition in definitions]
    moment = job.description["TrainingEndTime"]
    return [{"MetricName": name, "Value": float(values[-1]), "Timestamp": moment} for name, values in found if values]
