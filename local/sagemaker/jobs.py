"""Jobs: what processing, training and transform have in common.

create ─▶ InProgress: work ─▶ Completed
                 │       └──▶ Failed     (with SageMaker's reason)
                 └─▶ Stopping ─▶ Stopped
"""

import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from local.ministack import CannotAssumeRole
from local.sagemaker.api import Document, Problem, invalid
from local.sagemaker.cloud import Cloud
from local.sagemaker.container import NoImage
from local.sagemaker.events import milliseconds
from local.sagemaker.listing import listed, summary
from local.sagemaker.storage import TransferFailed
from local.sagemaker.tags import Tags

# A laptop's share: AWS gives each job machines of its own.
AT_ONCE = 2

REASON_LENGTH = 1024


class JobFailed(Exception):
    """The reason that the job's description will give."""


class Kind(Protocol):
    """What tells one kind of job from another. `noun` is `Processing`, `Training` or `Transform`."""

    noun: str

    def refuse(self, request: Document) -> None:
        """Raise ValidationException for what this machine cannot do."""

    def role(self, request: Document) -> str:
        """The ARN of the role that the job acts as. Raises `Problem`."""

    def initial(self, request: Document) -> Document:
        """What a new job's description says beyond its request."""

    def work(self, job: "Job", s3: Any) -> None:
        """Do the job, until it is done or is stopping; `s3` acts as its role. Raises `JobFailed`, `TransferFailed`."""

    def phase(self, job: "Job", name: str, message: str) -> None:
        """Describe what the job is at."""


@dataclass
class Job:
    name: str
    arn: str
    role_arn: str
    kind: Kind
    root: Path
    description: Document
    changed: threading.Condition = field(default_factory=threading.Condition)
    process: "subprocess.Popen[bytes] | None" = None
    stopping: bool = False
    interrupted: bool = False
    seconds: float = 0.0  # of a training, on instances that it no longer has

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def status(self) -> str:
        return str(self.description[f"{self.kind.noun}JobStatus"])

    @property
    def ended(self) -> bool:
        return self.status in ("Completed", "Failed", "Stopped")

    @property
    def isolated(self) -> bool:
        network = self.description.get("NetworkConfig", {})
        return bool(self.description.get("EnableNetworkIsolation") or network.get("EnableNetworkIsolation"))


class Jobs:
    """Runs jobs of one kind, and describes them."""

    def __init__(self, kind: Kind, cloud: Cloud, tags: Tags, slots: threading.Semaphore) -> None:
        self._kind = kind
        self._cloud = cloud
        self._tags = tags
        self._slots = slots
        self._jobs: dict[str, Job] = {}
        self._lock = threading.RLock()

    # --- operations

    def create(self, request: Document) -> Document:
        noun = self._kind.noun
        name = request[f"{noun}JobName"]
        arn = self._cloud.arn(f"{noun.lower()}-job", name)
        self._kind.refuse(request)
        role_arn = self._kind.role(request)
        self._check_role(role_arn)
        with self._lock:
            if name in self._jobs:
                raise Problem("ResourceInUse", f"{noun} job names must be unique: {arn} already exists.")
            now = self._cloud.now()
            description = {
                **{key: value for key, value in request.items() if key != "Tags"},
                f"{noun}JobArn": arn,
                f"{noun}JobStatus": "InProgress",
                "CreationTime": now,
                "LastModifiedTime": now,
                **self._kind.initial(request),
            }
            job = Job(name, arn, role_arn, self._kind, self._cloud.root / "jobs" / name, description)
            self._jobs[name] = job
            self._tags.put(arn, request.get("Tags"))
        self._announce(job)
        self._cloud.run(lambda: self._run(job), name)
        return {f"{noun}JobArn": arn}

    def describe(self, request: Document) -> Document:
        return dict(self._job(request[f"{self._kind.noun}JobName"]).description)

    def list_(self, request: Document) -> Document:
        noun = self._kind.noun
        with self._lock:
            descriptions = [job.description for job in self._jobs.values()]
        page, token = listed(descriptions, request, name=f"{noun}JobName", status=f"{noun}JobStatus")
        members = (f"{noun}JobName", f"{noun}JobArn", f"{noun}JobStatus", f"{noun}EndTime")
        summaries = [summary(description, *members, "CreationTime", "LastModifiedTime") for description in page]
        return {f"{noun}JobSummaries": summaries, "NextToken": token}

    def stop(self, request: Document) -> Document:
        job = self._job(request[f"{self._kind.noun}JobName"])
        with job.changed:
            if job.ended:
                raise invalid(f"The request was rejected because the {self._kind.noun.lower()} job is {job.status}.")
            job.stopping = True
            process = job.process
        self._change(job, "Stopping")
        if process is not None:
            self._cloud.run(lambda: _end(self._cloud, process), f"{job.name}-stop")
        return {}

    def interrupt(self, name: str, *, grace: float) -> None:
        """Take the instance away on which a job's program runs, which has `grace` seconds left. Raises `Problem`."""
        job = self._job(name)
        with job.changed:
            process = job.process
            if process is None or process.poll() is not None or job.stopping or job.interrupted:
                raise invalid(f"The {self._kind.noun.lower()} job {name} runs on no instance.")
            job.interrupted = True
        self._cloud.run(lambda: _end(self._cloud, process, grace), f"{job.name}-interrupt")

    def wait(self, name: str) -> Document:
        """Wait until a job has ended; returns its description."""
        job = self._job(name)
        with job.changed:
            job.changed.wait_for(lambda: job.ended)
        return dict(job.description)

    # --- running

    def _run(self, job: Job) -> None:
        try:
            with self._slots:
                self._kind.work(job, self._cloud.client("s3", job.role_arn))
        except (JobFailed, TransferFailed) as failure:
            self._end(job, "Failed", str(failure)[:REASON_LENGTH])
        except NoImage as problem:
            self._end(job, "Failed", f"InternalServerError: {problem}")
        except Exception as error:
            self._end(job, "Failed", f"InternalServerError: {error}")
            raise
        else:
            self._end(job, "Stopped" if job.stopping else "Completed")

    def _end(self, job: Job, status: str, reason: str | None = None) -> None:
        now = self._cloud.now()
        job.description.setdefault(f"{self._kind.noun}EndTime", now)
        if reason is not None:
            job.description["FailureReason"] = reason
        self._kind.phase(job, status, reason or status)
        self._change(job, status)

    def _change(self, job: Job, status: str) -> None:
        with job.changed:
            if job.ended:
                return
            job.description[f"{self._kind.noun}JobStatus"] = status
            job.description["LastModifiedTime"] = self._cloud.now()
        self._announce(job)
        with job.changed:
            job.changed.notify_all()

    # --- small parts

    def _job(self, name: str) -> Job:
        with self._lock:
            if name not in self._jobs:
                noun = self._kind.noun
                raise Problem("ResourceNotFound", f"Could not find requested job with name: {name} ({noun}).")
            return self._jobs[name]

    def _check_role(self, role_arn: str) -> None:
        try:
            self._cloud.credentials(role_arn)
        except CannotAssumeRole as error:
            raise invalid(
                f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
                "'sagemaker.amazonaws.com' to assume the role."
            ) from error

    def _announce(self, job: Job) -> None:
        tags = {tag["Key"]: tag["Value"] for tag in self._tags.of(job.arn)}
        detail = milliseconds(job.description) | {"Tags": tags}
        self._cloud.emit(f"SageMaker {self._kind.noun} Job State Change", detail, [job.arn])


def _end(cloud: Cloud, process: "subprocess.Popen[bytes]", grace: float = 2.0) -> None:
    cloud.end(process, grace=grace)
