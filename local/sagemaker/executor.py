"""Runs a pipeline's definition: steps as soon as what they need is there, side by side where they can.

Each step calls the cloud with the pipeline's role, as on AWS, so its permissions are checked there.
"""

import hashlib
import json
import logging
import random
import secrets
import string
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from graphlib import TopologicalSorter
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from local.sagemaker.api import Document, Problem
from local.sagemaker.cloud import Cloud
from local.sagemaker.definition import Definition, RetryPolicy, Step
from local.sagemaker.events import instant
from local.sagemaker.expressions import Scope, Unresolvable, evaluate, holds, lookup, text
from local.sagemaker.storage import Location

logger = logging.getLogger("noria.sagemaker")

MAX_PARALLEL_STEPS = 50
NAME_LENGTH = 63
ALPHABET = string.ascii_lowercase + string.digits


class StepFailed(Exception):
    """Why a step failed; `kind` is the exception type that a retry policy may name."""

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.kind = kind


class StepStopped(Exception):
    """The execution was stopped while the step ran."""


class JobService(Protocol):
    """Jobs of one kind: `wait` for one to end, or `stop` it."""

    def wait(self, name: str) -> Document: ...

    def stop(self, request: Document) -> Document: ...


@dataclass
class StepRun:
    """One step in one execution."""

    step: Step
    start: datetime
    status: str = ""
    end: datetime | None = None
    attempts: int = 0
    failure: str | None = None
    metadata: Document = field(default_factory=dict)
    properties: Document = field(default_factory=dict)
    cached_from: str | None = None

    def describe(self) -> Document:
        return {
            "StepName": self.step.name,
            "StepDisplayName": self.step.display_name,
            "StepDescription": self.step.description,
            "StartTime": self.start,
            "EndTime": self.end,
            "StepStatus": self.status,
            "AttemptCount": self.attempts,
            "FailureReason": self.failure,
            "Metadata": self.metadata,
            "CacheHitResult": {"SourcePipelineExecutionArn": self.cached_from} if self.cached_from else None,
        }


@dataclass
class Cache:
    """What steps with caching gave, by what they were asked."""

    _entries: dict[str, tuple[datetime, str, StepRun]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, fingerprint: str, *, since: datetime) -> tuple[str, StepRun] | None:
        with self._lock:
            entry = self._entries.get(fingerprint)
        return entry[1:] if entry is not None and entry[0] >= since else None

    def put(self, fingerprint: str, moment: datetime, execution_arn: str, run: StepRun) -> None:
        with self._lock:
            self._entries[fingerprint] = (moment, execution_arn, run)


@dataclass
class Execution:
    """One execution of a pipeline. `announce` hears of each change of it, or of one of its steps."""

    cloud: Cloud
    pipeline_name: str
    pipeline_arn: str
    arn: str
    role_arn: str
    definition_text: str
    parameters: dict[str, Any]
    jobs: dict[str, JobService]
    cache: Cache
    announce: "Callable[[Execution, StepRun | None, str], None]"
    display_name: str | None = None
    description: str | None = None
    max_parallel: int = MAX_PARALLEL_STEPS
    created: datetime = field(init=False)
    modified: datetime = field(init=False)
    ended: datetime | None = None
    status: str = ""
    failure: str | None = None
    runs: dict[str, StepRun] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.created = self.modified = self.cloud.now()
        self.definition = Definition.parse(self.definition_text)

    @property
    def id(self) -> str:
        return self.arn.rsplit("/", 1)[-1]

    # --- life

    def start(self) -> None:
        """Run in the background; again after a failure, it takes up where it failed."""
        with self._lock:
            self._stop.clear()
            self.ended = self.failure = None
            self.runs = {name: run for name, run in self.runs.items() if run.status == "Succeeded"}
        self._become("Executing")
        self.cloud.run(self._run, f"execution-{self.id}")

    def stop(self) -> None:
        self._become("Stopping")
        self._stop.set()
        for run in list(self.runs.values()):
            if run.status == "Executing":
                self.stop_job(run)

    def stop_job(self, run: StepRun) -> None:
        for kind, service in self.jobs.items():
            if arn := run.metadata.get(f"{kind}Job", {}).get("Arn"):
                with suppress(Problem):  # it ended meanwhile
                    service.stop({f"{kind}JobName": arn.rsplit("/", 1)[-1]})

    def _run(self) -> None:
        sorter = TopologicalSorter(self.definition.dependencies)
        sorter.prepare()
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(self.max_parallel, thread_name_prefix=f"steps-{self.id}") as pool:
            while sorter.is_active():
                for name in sorter.get_ready():
                    if self._is_due(name):
                        running[pool.submit(self._run_step, self.definition.by_name[name])] = name
                    else:
                        sorter.done(name)
                if running:
                    for finished in wait(running, return_when=FIRST_COMPLETED).done:
                        sorter.done(running.pop(finished))
                        finished.result()
        self.ended = self.cloud.now()
        statuses = {run.status for run in self.runs.values()}
        if self._stop.is_set():
            self._become("Stopped")
        elif "Failed" in statuses:
            self.failure = "Step failure: One or multiple steps failed."
            self._become("Failed")
        else:
            self._become("Succeeded")

    def _is_due(self, name: str) -> bool:
        """Whether a step that is ready is to run: nothing failed, all it needs succeeded, and its branch was taken."""
        if self._stop.is_set() or name in self.runs or any(run.status == "Failed" for run in self.runs.values()):
            return False
        parent = self.definition.branches[name]
        if parent is not None:
            condition, branch = parent
            outcome = self.runs[condition].properties.get("Outcome") if condition in self.runs else None
            if outcome != ("True" if branch == "IfSteps" else "False"):
                return False
        return all(
            needed in self.runs and self.runs[needed].status == "Succeeded"
            for needed in self.definition.dependencies[name]
        )

    def _become(self, status: str) -> None:
        with self._lock:
            previous, self.status = self.status, status
            self.modified = self.cloud.now()
        self.announce(self, None, previous)

    # --- one step

    def _run_step(self, step: Step) -> None:
        run = StepRun(step, self.cloud.now())
        with self._lock:
            self.runs[step.name] = run
        self._step_becomes(run, "Starting")
        try:
            self._fulfil(step, run)
        except StepStopped:
            run.failure, outcome = None, "Stopped"
        except (StepFailed, Unresolvable) as failure:
            run.failure, outcome = str(failure), "Failed"
        except Exception as error:
            logger.exception("step %s of %s", step.name, self.arn)
            run.failure, outcome = f"InternalServerError: {error}", "Failed"
        else:
            outcome = "Succeeded"
        run.end = self.cloud.now()
        self._step_becomes(run, outcome)

    def _fulfil(self, step: Step, run: StepRun) -> None:
        if step.type == "Condition":
            self._step_becomes(run, "Executing")
            outcome = all(holds(condition, self.scope) for condition in step.arguments["Conditions"])
            run.properties = {"Outcome": str(outcome)}
            run.metadata = {"Condition": run.properties}
            return
        arguments = evaluate(step.arguments, self.scope)
        caching = step.cache_config if step.cache_config and step.cache_config.enabled else None
        fingerprint = _fingerprint(step, arguments)
        if caching and (hit := self.cache.find(fingerprint, since=self.cloud.now() - caching.lifetime)):
            run.cached_from, earlier = hit
            run.properties, run.metadata = earlier.properties, earlier.metadata
            return
        self._step_becomes(run, "Executing")
        run.properties = self._attempt(step, arguments, run)
        if caching:
            self.cache.put(fingerprint, self.cloud.now(), self.arn, run)

    def _attempt(self, step: Step, arguments: Document, run: StepRun) -> Document:
        started = self.cloud.now()
        perform = _STEPS[step.type]
        while True:
            run.attempts += 1
            try:
                return perform(self, step, arguments, run)
            except StepFailed as failure:
                policy = retry_policy(step, failure.kind, attempts=run.attempts, elapsed=self.cloud.now() - started)
                if policy is None:
                    raise
                pause = policy.interval_seconds * policy.backoff_rate ** (run.attempts - 1)
                if self._stop.wait(self.cloud.scaled(pause)):
                    raise StepStopped from failure

    def _step_becomes(self, run: StepRun, status: str) -> None:
        with self._lock:
            previous, run.status = run.status, status
            self.modified = self.cloud.now()
        self.announce(self, run, previous)

    # --- what expressions see

    @property
    def scope(self) -> Scope:
        return Scope(
            parameters=self.parameters,
            execution={
                "PipelineName": self.pipeline_name,
                "PipelineArn": self.pipeline_arn,
                "PipelineExecutionId": self.id,
                "PipelineExecutionArn": self.arn,
                "StartDateTime": instant(self.created),
                "CurrentDateTime": instant(self.cloud.now()),
            },
            properties=self._properties,
            property_file=self._property_file,
            read_json=self._read_json,
        )

    def _properties(self, name: str) -> Document:
        run = self.runs.get(name)
        if run is None or run.status != "Succeeded":
            raise Unresolvable(f"step {name} {'did not run' if run is None else f'is {run.status}'}")
        return run.properties

    def _property_file(self, step: str, name: str) -> str:
        files = {file.property_file_name: file for file in self.definition.by_name[step].property_files}
        if name not in files:
            raise Unresolvable(f"step {step} has no property file {name}")
        file = files[name]
        path = f"ProcessingOutputConfig.Outputs['{file.output_name}'].S3Output.S3Uri"
        return f"{lookup(self._properties(step), path).rstrip('/')}/{file.file_path}"

    def _read_json(self, uri: str) -> Any:
        location = Location.parse(uri)
        try:
            answer = self.client("s3").get_object(Bucket=location.bucket, Key=location.key)
            return json.loads(answer["Body"].read())
        except (ClientError, ValueError) as error:
            raise Unresolvable(str(error)) from error

    # --- the cloud, with the pipeline's role

    def client(self, service: str) -> Any:
        return self.cloud.client(service, self.role_arn)

    def call(self, service: str, operation: str, **request: Any) -> Document:
        """Call an operation; an error of it becomes the step's."""
        try:
            answer: Document = getattr(self.client(service), operation)(**request)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            raise StepFailed(_call_failed(service, operation, error), _kind_of_error(code, status)) from error
        except BotoCoreError as error:
            raise StepFailed(_call_failed(service, operation, error)) from error
        answer.pop("ResponseMetadata", None)
        return answer

    @property
    def stopped(self) -> threading.Event:
        return self._stop


# --- the kinds of steps: each performs one and returns its properties


def _job(kind: str) -> "Perform":
    def perform(execution: Execution, step: Step, arguments: Document, run: StepRun) -> Document:
        suffix = "".join(random.choices(ALPHABET, k=10))  # noqa: S311 - a name, not a secret
        name = f"pipelines-{execution.id}-{step.name}"[: NAME_LENGTH - 11] + f"-{suffix}"
        operation = f"create_{kind.lower()}_job"
        answer = execution.call("sagemaker", operation, **{f"{kind}JobName": name}, **arguments)
        run.metadata = {f"{kind}Job": {"Arn": answer[f"{kind}JobArn"]}}
        if execution.stopped.is_set():  # while the job was made: whoever stopped the execution did not see it
            execution.stop_job(run)
        description = execution.jobs[kind].wait(name)
        match description[f"{kind}JobStatus"]:
            case "Completed":
                return description
            case "Stopped" if execution.stopped.is_set():
                raise StepStopped
            case status:
                reason = description.get("FailureReason", f"The job was {status}.")
                raise StepFailed(f"ClientError: {reason}", _kind_of_reason(reason))

    return perform


def _register_model(execution: Execution, step: Step, arguments: Document, run: StepRun) -> Document:
    origin = {"GeneratedBy": execution.arn} | arguments.get("MetadataProperties", {})
    request = {**arguments, "MetadataProperties": origin, "ClientToken": secrets.token_hex(16)}
    arn = execution.call("sagemaker", "create_model_package", **request)["ModelPackageArn"]
    run.metadata = {"RegisterModel": {"Arn": arn}}
    return {**request, "ModelPackageArn": arn}


def _create_model(execution: Execution, step: Step, arguments: Document, run: StepRun) -> Document:
    name = f"pipelines-{execution.id}-{step.name}"[: NAME_LENGTH - 5] + f"-{secrets.token_hex(2)}"
    arn = execution.call("sagemaker", "create_model", ModelName=name, **arguments)["ModelArn"]
    run.metadata = {"Model": {"Arn": arn}}
    return {**arguments, "ModelName": name, "ModelArn": arn}


def _lambda(execution: Execution, step: Step, arguments: Document, run: StepRun) -> Document:
    payload = json.dumps(arguments).encode()
    answer = execution.call("lambda", "invoke", FunctionName=step.function_arn, Payload=payload)
    body = answer["Payload"].read()
    if "FunctionError" in answer:
        raise StepFailed(
            f"ClientError: The Lambda function {step.function_arn} failed: {body.decode(errors='replace')}"
        )
    result = json.loads(body or b"null") or {}
    outputs = _outputs(step, result)
    run.metadata = {"Lambda": {"Arn": step.function_arn, "OutputParameters": outputs}}
    return {"OutputParameters": {output["Name"]: result[output["Name"]] for output in outputs}}


def _callback(execution: Execution, step: Step, arguments: Document, run: StepRun) -> Document:
    token = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(10))
    callback = Callback(token)
    run.metadata = {"Callback": {"CallbackToken": token, "SqsQueueUrl": step.sqs_queue_url}}
    message = {
        "token": token,
        "pipelineExecutionArn": execution.arn,
        "stepName": step.name,
        "status": "Executing",
        "arguments": arguments,
    }
    callbacks[token] = callback
    try:
        execution.call("sqs", "send_message", QueueUrl=step.sqs_queue_url, MessageBody=json.dumps(message))
        while not callback.answered.wait(0.1):
            if execution.stopped.is_set():
                raise StepStopped
    finally:
        del callbacks[token]
    if callback.failure is not None:
        raise StepFailed(callback.failure)
    outputs = _outputs(step, callback.outputs)
    run.metadata["Callback"]["OutputParameters"] = outputs
    return {"OutputParameters": callback.outputs}


def _fail(execution: Execution, step: Step, arguments: Document, run: StepRun) -> Document:
    message = text(arguments["ErrorMessage"])
    run.metadata = {"Fail": {"ErrorMessage": message}}
    raise StepFailed(message)


Perform = Callable[[Execution, Step, Document, StepRun], Document]

_STEPS: dict[str, Perform] = {
    "Processing": _job("Processing"),
    "Training": _job("Training"),
    "RegisterModel": _register_model,
    "Model": _create_model,
    "Lambda": _lambda,
    "Callback": _callback,
    "Fail": _fail,
}


def _outputs(step: Step, values: Document) -> list[Document]:
    """A step's declared output parameters, with their values as text."""
    names = [output["OutputName"] for output in step.output_parameters]
    if missing := [name for name in names if name not in values]:
        raise StepFailed(f"ClientError: Missing output parameters: {', '.join(missing)}")
    return [{"Name": name, "Value": text(values[name])} for name in names]


@dataclass
class Callback:
    """A callback step that waits for its answer."""

    token: str
    outputs: Document = field(default_factory=dict)
    failure: str | None = None
    answered: threading.Event = field(default_factory=threading.Event)


callbacks: dict[str, Callback] = {}  # by token, those that wait


# --- retries


def retry_policy(step: Step, kind: str, *, attempts: int, elapsed: timedelta) -> RetryPolicy | None:
    """The policy by which a step that failed so is tried again, if it still is."""
    for policy in step.retry_policies:
        if kind not in policy.exception_type:
            continue
        tries_left = policy.max_attempts is None or attempts < policy.max_attempts
        in_time = policy.expire_after_min is None or elapsed < timedelta(minutes=policy.expire_after_min)
        return policy if tries_left and in_time else None
    return None


def _kind_of_error(code: str, status: int) -> str:
    if "Throttl" in code or code == "TooManyRequestsException":
        return "Step.THROTTLING"
    if code == "ResourceLimitExceeded":
        return "SageMaker.RESOURCE_LIMIT"
    return "Step.SERVICE_FAULT" if status >= 500 else ""


def _kind_of_reason(reason: str) -> str:
    kinds = {"CapacityError": "SageMaker.CAPACITY_ERROR", "InternalServerError": "SageMaker.JOB_INTERNAL_ERROR"}
    return next((kind for start, kind in kinds.items() if reason.startswith(start)), "")


def _call_failed(service: str, operation: str, error: Exception) -> str:
    action = "".join(word.capitalize() for word in operation.split("_"))
    return f"ClientError: Failed to invoke {service}:{action}. Error Details: {error}"


def _fingerprint(step: Step, arguments: Document) -> str:
    """What makes two runs of a step the same to the cache."""
    identity = json.dumps([step.name, step.type, step.function_arn, arguments], sort_keys=True, default=str)
    return hashlib.sha256(identity.encode()).hexdigest()
