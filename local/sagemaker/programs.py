"""Jobs that are one program in one container, as processing and training are: download ▸ run ▸ upload."""

import subprocess
from abc import ABC, abstractmethod
from typing import Any

from local.sagemaker.api import Document
from local.sagemaker.cloud import Cloud
from local.sagemaker.container import Container
from local.sagemaker.joblog import ship
from local.sagemaker.jobs import REASON_LENGTH, Job, JobFailed

DEFAULT_SECONDS = 24 * 3600


class Program(ABC):
    """A kind of job (`jobs.Kind`) that runs a program."""

    noun: str

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def role(self, request: Document) -> str:
        return str(request["RoleArn"])

    @abstractmethod
    def prepare(self, job: Job, container: Container, s3: Any) -> None:
        """Lay out /opt/ml: inputs, configuration files, empty outputs. Raises `TransferFailed`."""

    @abstractmethod
    def command(self, job: Job) -> tuple[list[str], dict[str, str]]:
        """The program and its variables."""

    @abstractmethod
    def collect(self, job: Job, container: Container, s3: Any) -> None:
        """Send outputs, and describe them. Raises `TransferFailed`."""

    @abstractmethod
    def phase(self, job: Job, name: str, message: str) -> None:
        """Describe what the job is at."""

    def work(self, job: Job, s3: Any) -> None:
        container = Container(self._cloud, job.root)
        exit_code = self.run(job, container, s3)
        if job.process is None:  # stopped before it began: there is nothing to tell or to send
            return
        job.description[f"{self.noun}EndTime"] = self._cloud.now()
        ship(
            self._cloud,
            job.log,
            group=f"/aws/sagemaker/{self.noun}Jobs",
            stream=f"{job.name}/algo-1",
            role_arn=job.role_arn,
        )
        if exit_code and not job.stopping:
            raise JobFailed(f"AlgorithmError: {_explanation(container)}, exit code: {exit_code}")
        self.phase(job, "Uploading", "Uploading generated results")
        self.collect(job, container, s3)

    def run(self, job: Job, container: Container, s3: Any) -> int:
        """Bring the inputs, and run the program to its end; returns its exit code. Raises `TransferFailed`."""
        self.phase(job, "Downloading", "Downloading input data")
        self.prepare(job, container, s3)
        job.description.setdefault(f"{self.noun}StartTime", self._cloud.now())
        self.phase(job, self.noun, f"{self.noun} image download completed. {self.noun} in progress.")
        return self._execute(job, container)

    def limit(self, job: Job) -> tuple[float, str]:
        """After how many seconds from now a program is stopped, and the status that says so."""
        limits = job.description.get("StoppingCondition", {})
        return limits.get("MaxRuntimeInSeconds", DEFAULT_SECONDS), "MaxRuntimeExceeded"

    def _execute(self, job: Job, container: Container) -> int:
        """Run the program to its end, or to the limit of its time, which nothing scales: it computes here as it would
        there.
        """
        limit, exceeded = self.limit(job)
        argv, environment = self.command(job)
        with job.changed:
            if job.stopping:
                return 0
            try:
                process = container.start(argv, environment, log=job.log, role_arn=job.role_arn, isolated=job.isolated)
            except FileNotFoundError as error:
                raise JobFailed(f"AlgorithmError: CannotStartContainerError: {error}, exit code: 127") from error
            job.process = process
        try:
            exit_code = process.wait(limit)
        except subprocess.TimeoutExpired:
            job.stopping = True
            self.phase(job, exceeded, "The job took longer than its StoppingCondition allows.")
            exit_code = 0
        self._cloud.end(process, grace=0.5)
        return exit_code


def _explanation(container: Container) -> str:
    """What the program left to say why it failed: training writes `failure`, processing `message`."""
    for name in ("failure", "message"):
        file = container.path(f"/opt/ml/output/{name}")
        if file.exists() and (text := file.read_text(errors="replace").strip()):
            return text[: REASON_LENGTH - 64]
    return "See job logs for more information"
