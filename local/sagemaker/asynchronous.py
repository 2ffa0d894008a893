"""Asynchronous endpoints: InvokeEndpointAsync queues a request; its answer becomes an object, and a notification tells.

    request ─▶ queue ─▶ download ─▶ container ─▶ upload ─▶ success topic
                            └───────────┴──────────┴─────▶ failure object, error topic

A queue belongs to its endpoint, not to a fleet: it outlasts updates, and waits while there is no instance.
https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpointAsync.html
"""

import base64
import json
import logging
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import StructureShape

from local import ministack
from local.ministack import Request, Response
from local.sagemaker.api import Document, Problem, check
from local.sagemaker.capture import Exchange
from local.sagemaker.cloud import Cloud
from local.sagemaker.endpoint_configs import is_asynchronous
from local.sagemaker.endpoint_state import Endpoint
from local.sagemaker.endpoints import Endpoints
from local.sagemaker.fleet import Answer, NoAnswerError, Variant
from local.sagemaker.metrics import NAMESPACE, Metrics, interval
from local.sagemaker.storage import Location
from local.sagemaker.traffic import Route

logger = logging.getLogger("noria.async")

PATH = re.compile(r"/endpoints/([^/]+)/async-invocations")
# Seconds that a request may wait and an answer may take: guide, `async-inference-invoke-endpoint`, and the API.
TIME_TO_LIVE = 6 * 3600
INVOCATION_TIMEOUT = 15 * 60
# Requests at once for each instance where the configuration says nothing: SageMaker's own choice is not documented.
AT_ONCE = 4
# A laptop's share.
MOST_AT_ONCE = 16
LARGEST_NOTIFIED = 128 * 1024
MICROSECONDS = 1e6

Failures = (ClientError, BotoCoreError, ministack.CannotAssumeRole)


@dataclass(frozen=True)
class Asked:
    """One request; `payload` where it came with the request instead of an `InputLocation`."""

    id: str
    endpoint: str
    source: str | None
    payload: bytes
    content_type: str
    accept: str
    custom_attributes: str | None
    output: str
    failure: str | None
    expires_after: float
    timeout: float
    received: datetime
    queued: float = field(default_factory=time.perf_counter)


class _FailedError(Exception):
    """Why a request has no answer; `metric` counts its kind."""

    def __init__(self, reason: str, *, metric: str | None = None, status: str = "Failed") -> None:
        super().__init__(reason)
        self.metric = metric
        self.status = status


@dataclass
class _Queue:
    waiting: deque[Asked] = field(default_factory=deque)
    under_way: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def size(self) -> int:
        return len(self.waiting) + self.under_way


class Asynchronous:
    """The part of `sagemaker-runtime` that queues requests, and what works them off."""

    def __init__(self, cloud: Cloud, endpoints: Endpoints, metrics: Metrics) -> None:
        self._cloud = cloud
        self._endpoints = endpoints
        self._metrics = metrics
        self._queues: dict[str, _Queue] = {}  # by the endpoint's ARN and creation: a new one of that name starts anew
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE, "async")
        self._lock = threading.Lock()

    def start(self) -> None:
        self._cloud.run(self._keep_publishing, "backlog metrics")

    # --- asking

    def invoke(self, request: Request) -> Response:
        """Queue a request. Raises `Problem`."""
        asked = self._asked(request)
        endpoint = self._endpoints.endpoint(asked.endpoint)
        queue = self._queue(endpoint)
        with queue.changed:
            queue.waiting.append(asked)
            queue.changed.notify_all()
        headers = {"Content-Type": "application/json", "X-Amzn-SageMaker-OutputLocation": asked.output}
        if asked.failure:
            headers["X-Amzn-SageMaker-FailureLocation"] = asked.failure
        return Response(202, json.dumps({"InferenceId": asked.id}).encode(), headers)

    def _asked(self, request: Request) -> Asked:
        members = _members(request)
        endpoint = self._in_service(endpoint_name(request))
        if bool(request.body) == ("InputLocation" in members):
            raise _refused("Provide exactly one of InputLocation and Body.")
        for unknown in ("S3OutputPathExtension", "Filename"):
            if unknown in members:
                raise _refused(f"The local SageMaker names outputs itself: leave {unknown} out.")
        output = endpoint.config["AsyncInferenceConfig"]["OutputConfig"]
        name = uuid.uuid4()
        return Asked(
            id=members.get("InferenceId", str(uuid.uuid4())),
            endpoint=endpoint.name,
            source=members.get("InputLocation"),
            payload=request.body,
            content_type=members.get("ContentType", ""),
            accept=members.get("Accept", ""),
            custom_attributes=members.get("CustomAttributes"),
            output=f"{output['S3OutputPath'].rstrip('/')}/{name}.out",
            failure=f"{output['S3FailurePath'].rstrip('/')}/{name}-error.out" if "S3FailurePath" in output else None,
            expires_after=members.get("RequestTTLSeconds", TIME_TO_LIVE),
            timeout=members.get("InvocationTimeoutSeconds", INVOCATION_TIMEOUT),
            received=self._cloud.now(),
        )

    def _in_service(self, name: str) -> Endpoint:
        endpoint, _ = self._endpoints.in_service(name)
        if not is_asynchronous(endpoint.config):
            raise _refused(f"Endpoint {name} has no AsyncInferenceConfig: invoke it with InvokeEndpoint.")
        return endpoint

    # --- working it off

    def _queue(self, endpoint: Endpoint) -> _Queue:
        key = f"{endpoint.arn} {endpoint.created.isoformat()}"
        with self._lock:
            if key not in self._queues:
                queue = self._queues[key] = _Queue()
                self._cloud.run(lambda: self._work_off(endpoint, queue), f"queue of {endpoint.name}")
            return self._queues[key]

    def _work_off(self, endpoint: Endpoint, queue: _Queue) -> None:
        """Begin requests in their order, as many at a time as the instances take, until the endpoint is gone."""
        while self._exists(endpoint):
            with queue.changed:
                if not queue.waiting or queue.under_way >= _capacity(endpoint):
                    queue.changed.wait(0.2)  # instances come and go without a word
                    continue
                asked = queue.waiting.popleft()
                queue.under_way += 1
            self._pool.submit(self._answer, endpoint, queue, asked)

    def _exists(self, endpoint: Endpoint) -> bool:
        try:
            return self._endpoints.endpoint(endpoint.name) is endpoint
        except Problem:
            return False

    def _answer(self, endpoint: Endpoint, queue: _Queue, asked: Asked) -> None:
        try:
            if endpoint.router is not None:
                with endpoint.router.route() as route:
                    self._carry_out(endpoint, route, asked)
        except Exception:
            logger.exception("request %s of %s", asked.id, endpoint.name)
        finally:
            with queue.changed:
                queue.under_way -= 1
                queue.changed.notify_all()

    def _carry_out(self, endpoint: Endpoint, route: Route, asked: Asked) -> None:
        began, variant = time.perf_counter(), route.variant
        measured: dict[str, tuple[str, float]] = {
            "TimeInBacklog": ("Microseconds", (began - asked.queued) * MICROSECONDS),
            "InvocationsProcessed": ("Count", 1),
        }
        answer: Answer | None = None
        reason: _FailedError | None = None
        output = endpoint.config["AsyncInferenceConfig"]["OutputConfig"]
        try:
            self._check_age(asked)
            with _timed(measured, "RequestDownloadLatency"):
                body = self._download(asked, variant)
            answer = self._ask(asked, variant, body, measured)
            self._capture(route, asked, body, answer)
            with _timed(measured, "ResponseUploadLatency"):
                self._upload(asked.output, answer.body, answer.headers.get("content-type", ""), output, variant)
        except _FailedError as failure:
            reason = failure
            measured["InvocationFailures"] = ("Count", 1)
            if failure.metric:
                measured[failure.metric] = ("Count", 1)
            self._tell_failure(asked, failure, output, variant)
        try:
            self._notify(asked, answer, reason, output.get("NotificationConfig", {}), variant)
        except Failures as error:
            logger.warning("no notification of %s: %s", asked.id, error)
            measured["NotificationFailures"] = ("Count", 1)
        measured["TotalProcessingTime"] = ("Milliseconds", (time.perf_counter() - asked.queued) * 1000)
        self._metrics.add(endpoint.name, variant.spec.name, route.fleet.config_name, measured)

    def _check_age(self, asked: Asked) -> None:
        if (time.perf_counter() - asked.queued) * self._cloud.time_scale > asked.expires_after:
            raise _FailedError("The request expired in the queue", metric="ExpiredRequests", status="Expired")

    def _download(self, asked: Asked, variant: Variant) -> bytes:
        if asked.source is None:
            return asked.payload
        try:
            location = Location.parse(asked.source)
            s3 = self._cloud.client("s3", variant.spec.role_arn)
            body: bytes = s3.get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
        except Failures as error:
            reason = f"ClientError: Unable to download the request from {asked.source}: {error}"
            raise _FailedError(reason, metric="RequestDownloadFailures") from error
        return body

    @staticmethod
    def _ask(asked: Asked, variant: Variant, body: bytes, measured: dict[str, tuple[str, float]]) -> Answer:
        headers = {
            "Content-Type": asked.content_type,
            "Accept": asked.accept,
            "X-Amzn-SageMaker-Custom-Attributes": asked.custom_attributes or "",
            "X-Amzn-SageMaker-Inference-Id": asked.id,
        }
        status: int | None = None
        try:
            with _timed(measured, "ModelLatency"):
                answer = variant.invoke({name: text for name, text in headers.items() if text}, body, asked.timeout)
            status = answer.status
        except NoAnswerError as error:
            raise _FailedError("ClientError: The model gave no answer in time") from error
        finally:
            measured["Invocation4XXErrors"] = ("None", float(status is not None and 400 <= status < 500))
            measured["Invocation5XXErrors"] = ("None", float(status is None or status >= 500))
        if not 200 <= answer.status < 300:
            side = "client" if answer.status < 500 else "server"
            text = answer.body.decode(errors="replace")[:1024]
            raise _FailedError(
                f'ClientError: Received {side} error ({answer.status}) from model with message "{text}". See the '
                "SageMaker Endpoint logs in your account for more information."
            )
        return answer

    @staticmethod
    def _capture(route: Route, asked: Asked, body: bytes, answer: Answer) -> None:
        if route.fleet.capture is None:
            return
        exchange = Exchange(
            variant=route.variant.spec.name,
            role_arn=route.variant.spec.role_arn,
            content_type=asked.content_type,
            body=body,
            answer_type=answer.headers.get("content-type", ""),
            answer=answer.body,
            inference_id=asked.id,
            custom_attributes=asked.custom_attributes,
        )
        route.fleet.capture.record(exchange)

    def _upload(self, uri: str, body: bytes, media_type: str, output: Document, variant: Variant) -> None:
        target = Location.parse(uri)
        key = output.get("KmsKeyId")
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
        try:
            s3 = self._cloud.client("s3", variant.spec.role_arn)
            s3.put_object(
                Bucket=target.bucket,
                Key=target.key,
                Body=body,
                ContentType=media_type or "application/octet-stream",
                **encryption,
            )
        except Failures as error:
            reason = f"ClientError: Unable to upload the response to {uri}: {error}"
            raise _FailedError(reason, metric="ResponseUploadFailures") from error

    def _tell_failure(self, asked: Asked, failure: _FailedError, output: Document, variant: Variant) -> None:
        if asked.failure is None:
            return
        try:
            self._upload(asked.failure, str(failure).encode(), "text/plain", output, variant)
        except _FailedError as error:
            logger.warning("no failure object for %s: %s", asked.id, error)

    def _notify(
        self, asked: Asked, answer: Answer | None, failure: _FailedError | None, config: Document, variant: Variant
    ) -> None:
        """https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-check-predictions.html"""
        kind = "SUCCESS_NOTIFICATION_TOPIC" if failure is None else "ERROR_NOTIFICATION_TOPIC"
        topic = config.get("SuccessTopic" if failure is None else "ErrorTopic")
        if not topic:
            return
        parameters = {
            "accept": asked.accept,
            "contentType": asked.content_type,
            "endpointName": asked.endpoint,
            "inputLocation": asked.source,
        }
        message: Document = {
            "awsRegion": self._cloud.region,
            "eventTime": _written(self._cloud.now()),
            "receivedTime": _written(asked.received),
            "invocationStatus": "Completed" if failure is None else failure.status,
            "requestParameters": {name: value for name, value in parameters.items() if value},
            "inferenceId": asked.id,
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        }
        if failure is not None:
            message["failureReason"] = str(failure)
            message["responseParameters"] = {"failureLocation": asked.failure} if asked.failure else {}
        elif answer is not None:
            media_type = answer.headers.get("content-type", "")
            message["responseParameters"] = {"contentType": media_type, "outputLocation": asked.output}
        if answer is not None and kind in config.get("IncludeInferenceResponseIn", []):
            message["responseBody"] = _response_body(answer.body)
        self._cloud.client("sns", variant.spec.role_arn).publish(TopicArn=topic, Message=json.dumps(message))

    # --- what the queues tell of themselves

    def _keep_publishing(self) -> None:
        while self._cloud.sleep(interval(self._cloud) * self._cloud.time_scale):
            backlogs = {endpoint.name: self._backlog(endpoint) for endpoint in self._endpoints.asynchronous()}
            if backlogs:
                self._cloud.on_loop(lambda backlogs=backlogs: _publish(backlogs))  # type: ignore[misc]

    def _backlog(self, endpoint: Endpoint) -> dict[str, tuple[str, float]]:
        queue, instances = self._queue(endpoint), _instances(endpoint)
        with queue.changed:
            size, oldest = queue.size, queue.waiting[0].queued if queue.waiting else None
        age = 0.0 if oldest is None else (time.perf_counter() - oldest) * self._cloud.time_scale
        found = {
            "ApproximateBacklogSize": ("Count", float(size)),
            "HasBacklogWithoutCapacity": ("Count", float(size > 0 and instances == 0)),
            "ApproximateAgeOfOldestRequest": ("Seconds", age),
        }
        if instances:
            found["ApproximateBacklogSizePerInstance"] = ("Count", size / instances)
        return found


def endpoint_name(request: Request) -> str:
    match = PATH.fullmatch(request.path)
    return unquote(match[1]) if match else ""


def _instances(endpoint: Endpoint) -> int:
    return sum(variant.running for variant in endpoint.fleet.variants.values()) if endpoint.fleet else 0


def _capacity(endpoint: Endpoint) -> int:
    """How many requests its instances take at once."""
    client = endpoint.config.get("AsyncInferenceConfig", {}).get("ClientConfig", {})
    return _instances(endpoint) * int(client.get("MaxConcurrentInvocationsPerInstance", AT_ONCE))


def _publish(backlogs: Mapping[str, Mapping[str, tuple[str, float]]]) -> None:
    for endpoint, metrics in backlogs.items():
        for name, (unit, value) in metrics.items():
            ministack.put_metric(NAMESPACE, name, {value: 1}, unit=unit, dimensions={"EndpointName": endpoint})


@cache
def _shape() -> StructureShape:
    shape = (
        botocore.session.get_session()
        .get_service_model("sagemaker-runtime")
        .operation_model("InvokeEndpointAsync")
        .input_shape
    )
    if shape is None:
        raise ValueError("InvokeEndpointAsync takes no input")
    return shape


def _members(request: Request) -> dict[str, Any]:
    """What the request's headers say, checked against the API's model. Raises `Problem`."""
    found: dict[str, Any] = {"EndpointName": endpoint_name(request)}
    convert: dict[str, Callable[[str], Any]] = {"integer": int}
    for name, shape in _shape().members.items():
        header = request.headers.get(str(shape.serialization.get("name", "")).lower())
        if shape.serialization.get("location") == "header" and header is not None:
            try:
                found[name] = convert.get(shape.type_name, str)(header)
            except ValueError as error:
                raise _refused(f"{name} must be a number, not {header!r}.") from error
    if request.body:
        found["Body"] = request.body
    try:
        check(found, _shape())
    except Problem as problem:
        raise _refused(problem.message) from problem
    return found


def _refused(message: str) -> Problem:
    return Problem("ValidationError", message)


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _response_body(body: bytes) -> Document:
    hint = "Check S3 path location(if configured) or Cloudwatch for additional details."
    if len(body) > LARGEST_NOTIFIED:
        return {"message": hint}
    return {"content": base64.b64encode(body).decode(), "message": hint, "encoding": "BASE64"}


@contextmanager
def _timed(measured: dict[str, tuple[str, float]], metric: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        measured[metric] = ("Microseconds", (time.perf_counter() - began) * MICROSECONDS)
