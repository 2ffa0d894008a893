"""Transform jobs: a model server answers every object of an input prefix, `<name>` becomes `<name>.out`.

An object is cut into records and these are sent in mini-batches; their answers follow each other in the same order. An
object that the model refuses leaves no output and fails the job, after the others were answered.
https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform.html
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-batch-code.html
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from local.sagemaker.api import Document, invalid
from local.sagemaker.cloud import Cloud
from local.sagemaker.data_processing import DataProcessing, RecordError, batches
from local.sagemaker.fleet import (
    Answer,
    ContainerSpec,
    NoAnswerError,
    Place,
    StartError,
    Variant,
    VariantSpec,
    start_variant,
)
from local.sagemaker.joblog import ship
from local.sagemaker.jobs import Job, JobFailed, Jobs
from local.sagemaker.models import Models
from local.sagemaker.storage import Location, TransferFailed, objects, upload
from local.sagemaker.tags import Tags

LOG_GROUP = "/aws/sagemaker/TransformJobs"
STARTUP_TIMEOUT = 60.0
# Seconds for an answer, and megabytes of a request: guide, `your-algorithms-batch-code`; API, CreateTransformJob.
INVOCATION_TIMEOUT = 600
MAX_PAYLOAD = 6
LARGEST_TOTAL = 100
MEGABYTE = 2**20

T = TypeVar("T")
R = TypeVar("R")


class Transform:
    """The operations on transform jobs."""

    def __init__(self, cloud: Cloud, tags: Tags, models: Models, slots: threading.Semaphore) -> None:
        self.jobs = Jobs(_Transform(cloud, models), cloud, tags, slots)
        self.create_transform_job = self.jobs.create
        self.list_transform_jobs = self.jobs.list_
        self.stop_transform_job = self.jobs.stop

    def describe_transform_job(self, request: Document) -> Document:
        described = self.jobs.describe(request)
        del described["LastModifiedTime"]  # only its summary has one
        return described


class _ObjectFailed(Exception):
    """Why an object has no output; the log says it in full, the job only whose fault it is."""

    def __init__(self, side: str, message: str) -> None:
        super().__init__(message)
        self.side = side


class _Transform:
    noun = "Transform"

    def __init__(self, cloud: Cloud, models: Models) -> None:
        self._cloud = cloud
        self._models = models

    def role(self, request: Document) -> str:
        return self._models.model(request["ModelName"]).role_arn

    def refuse(self, request: Document) -> None:
        source = request["TransformInput"]
        if source.get("CompressionType", "None") != "None":
            raise invalid("The local SageMaker does not decompress the inputs of transform jobs.")
        if source.get("SplitType", "None") not in ("None", "Line"):
            raise invalid("The local SageMaker splits inputs by lines or not at all: SplitType None or Line.")
        if "DataCaptureConfig" in request:
            raise invalid("The local SageMaker captures no data of transform jobs: leave DataCaptureConfig out.")
        at_once, payload = request.get("MaxConcurrentTransforms", 1), request.get("MaxPayloadInMB", MAX_PAYLOAD)
        if at_once * payload > LARGEST_TOTAL:
            raise invalid(f"MaxConcurrentTransforms * MaxPayloadInMB must not exceed {LARGEST_TOTAL}MB.")
        DataProcessing.of(request)

    def initial(self, request: Document) -> Document:
        return {}

    def phase(self, job: Job, name: str, message: str) -> None:
        """A transform job's description has no phases."""

    def work(self, job: Job, s3: Any) -> None:
        request = job.description
        model = self._models.model(request["ModelName"])
        client = request.get("ModelClientConfig", {})
        variant = self._start(
            job,
            VariantSpec(
                name="algo-1",
                role_arn=job.role_arn,
                containers=tuple(_for_batch(container, request) for container in model.containers),
                isolated=model.isolated,
                instance_count=1,
                weight=1.0,
                startup_timeout=STARTUP_TIMEOUT,
                invocation_timeout=client.get("InvocationsTimeoutInSeconds", INVOCATION_TIMEOUT),
            ),
        )
        request["TransformStartTime"] = self._cloud.now()
        failures: list[_ObjectFailed] = []
        try:
            run = _Run(job, variant, _settings(request, variant), s3)
            source = request["TransformInput"]["DataSource"]["S3DataSource"]
            for location, name in objects(s3, source["S3Uri"], data_type=source["S3DataType"]):
                if job.stopping:
                    return
                try:
                    run.transform(location, name)
                except _ObjectFailed as failure:
                    failures.append(failure)
        finally:
            variant.stop()
            for file in ("input", "output"):
                (job.root / file).unlink(missing_ok=True)
            ship(self._cloud, job.log, group=LOG_GROUP, stream=f"{job.name}/algo-1/data-log", role_arn=job.role_arn)
        if failures:
            raise JobFailed(f"{failures[0].side}: See job logs for more information")

    def _start(self, job: Job, spec: VariantSpec) -> Variant:
        # A Unix socket is all that reaches the server, so logs lie beside it, under the job's own directory.
        place = Place(job.root / "server", job.root / job.name, LOG_GROUP)
        job.root.mkdir(parents=True, exist_ok=True)
        try:
            return start_variant(self._cloud, spec, place)
        except StartError as error:
            raise JobFailed(f"AlgorithmError: {error}") from error


@dataclass(frozen=True)
class _Settings:
    """How records are sent; `largest` in bytes, None for no limit."""

    largest: int | None
    at_once: int
    single: bool
    retries: int


def _for_batch(container: ContainerSpec, request: Document) -> ContainerSpec:
    strategies = {"SingleRecord": "SINGLE_RECORD", "MultiRecord": "MULTI_RECORD"}
    given = {
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": request.get("MaxPayloadInMB"),
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": request.get("MaxConcurrentTransforms"),
        "SAGEMAKER_BATCH_STRATEGY": strategies.get(request.get("BatchStrategy", "")),
    }
    environment = {
        **container.environment,
        **request.get("Environment", {}),
        "SAGEMAKER_BATCH": "true",
        **{name: str(value) for name, value in given.items() if value is not None},
    }
    return replace(container, environment=environment)


def _settings(request: Document, variant: Variant) -> _Settings:
    """What the request says, else what the container asks for at `/execution-parameters`, else the defaults."""
    asked: Document = {}
    with suppress(NoAnswerError, ValueError):
        answer = variant.servers[0].ask("GET", "/execution-parameters", {}, b"", variant.spec.invocation_timeout)
        if answer.status == 200 and isinstance(found := json.loads(answer.body), dict):
            asked = found
    wanted: Document = {"MaxPayloadInMB": MAX_PAYLOAD, "BatchStrategy": "MULTI_RECORD", **asked, **request}
    return _Settings(
        largest=wanted["MaxPayloadInMB"] * MEGABYTE or None,
        at_once=wanted.get("MaxConcurrentTransforms") or 1,
        single=wanted["BatchStrategy"] in ("SingleRecord", "SINGLE_RECORD"),
        retries=wanted.get("ModelClientConfig", {}).get("InvocationsMaxRetries", 0),
    )


class _Run:
    """The objects of one job, one after the other."""

    def __init__(self, job: Job, variant: Variant, settings: _Settings, s3: Any) -> None:
        self._job = job
        self._variant = variant
        self._settings = settings
        self._s3 = s3
        self._source = job.description["TransformInput"]
        self._output = job.description["TransformOutput"]
        self._processing = DataProcessing.of(job.description)
        types = {"Content-Type": self._source.get("ContentType"), "Accept": self._output.get("Accept")}
        self._headers = {name: value for name, value in types.items() if value}

    def transform(self, location: Location, name: str) -> None:
        """Answer one object. Raises `_ObjectFailed`, `TransferFailed`."""
        local, result = self._job.root / "input", self._job.root / "output"
        try:
            self._s3.download_file(location.bucket, location.key, str(local))
        except Exception as error:  # boto3 wraps what S3 answers in errors of its own
            raise TransferFailed(f"ClientError: Data download failed for {location}: {error}") from error
        try:
            with result.open("wb") as output:
                for answer in _in_order(self._answer, self._records(local), self._settings.at_once):
                    if self._job.stopping:
                        return
                    output.write(answer)
        except _ObjectFailed as failure:
            self._log(location, failure)
            raise
        uri = f"{self._output['S3OutputPath'].rstrip('/')}/{name}.out"
        upload(self._s3, result, uri, kms_key=self._output.get("KmsKeyId"))

    def _records(self, file: Path) -> Iterator[list[bytes]]:
        """Mini-batches of lines, or the whole file as one."""
        if self._source.get("SplitType", "None") == "None":
            yield [file.read_bytes()]
            return
        with file.open("rb") as lines:
            records = (line for raw in lines if (line := raw.rstrip(b"\r\n")))
            yield from batches(records, self._settings.largest, single=self._settings.single)

    def _answer(self, records: list[bytes]) -> bytes:
        """The output for one mini-batch. Raises `_ObjectFailed`."""
        try:
            sent = records if self._processing is None else [self._processing.record(record) for record in records]
            body = b"\n".join(sent)
            if self._settings.largest is not None and len(body) > self._settings.largest:
                raise _ObjectFailed("ClientError", f"Too much data for max payload size: {len(body)} bytes")
            answer = self._ask(body)
            output = answer.body if self._processing is None else self._processing.answers(records, answer.body)
        except RecordError as error:
            raise _ObjectFailed("ClientError", str(error)) from error
        ends = self._output.get("AssembleWith") == "Line" and not output.endswith(b"\n")
        return output + b"\n" if ends else output

    def _ask(self, body: bytes) -> Answer:
        answer: Answer | None = None
        for _ in range(self._settings.retries + 1):
            with suppress(NoAnswerError):
                answer = self._variant.invoke(self._headers, body)
                if answer.status < 500:
                    break
            time.sleep(0.1)
        if answer is None:
            raise _ObjectFailed("AlgorithmError", "The model gave no answer in time")
        if not 200 <= answer.status < 300:
            side = "ClientError" if answer.status < 500 else "AlgorithmError"
            text = answer.body.decode(errors="replace")
            raise _ObjectFailed(side, f"Bad HTTP status received from algorithm: {answer.status}\n{text}")
        return answer

    def _log(self, location: Location, failure: _ObjectFailed) -> None:
        where = f"[sagemaker logs]: {location.bucket}/{location.key}"
        with self._job.log.open("a") as log:
            log.writelines(f"{where}: {line}\n" for line in [failure.side, *str(failure).splitlines()])


def _in_order(do: Callable[[T], R], items: Iterable[T], at_once: int) -> Iterator[R]:
    """Results in the order of the items, a few of which are worked on at a time."""
    with ThreadPoolExecutor(at_once, "transform") as pool:
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(pool.submit(partial(do, item)))
            if len(pending) >= at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
