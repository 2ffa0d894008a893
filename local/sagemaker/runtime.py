"""The service `sagemaker-runtime`: InvokeEndpoint, from the signed request to the container and back.

InvokeEndpointAsync is in `asynchronous`.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
"""

import json
import random
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

from local.ministack import Permission, Request, Response
from local.sagemaker import asynchronous, serverless
from local.sagemaker.api import Document, Problem
from local.sagemaker.asynchronous import Asynchronous
from local.sagemaker.capture import Exchange
from local.sagemaker.cloud import Cloud
from local.sagemaker.endpoint_configs import is_asynchronous, is_serverless
from local.sagemaker.endpoint_state import Endpoint
from local.sagemaker.endpoints import Endpoints
from local.sagemaker.fleet import Answer, NoAnswerError, StartError, ThrottledError, Variant
from local.sagemaker.metrics import Invocation, Metrics
from local.sagemaker.traffic import Route, UnroutableError

PATH = re.compile(r"/endpoints/([^/]+)/invocations")
# Bytes of a request; botocore's model of the API says so, and 4 MB for serverless endpoints the developer guide.
LARGEST_BODY = 6_291_456
LARGEST_MESSAGE = 2048
SHADOW_THREADS = 8
MICROSECONDS = 1e6

NO_ANSWER = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)

_CONSTRAINTS = {
    "x-amzn-sagemaker-inference-id": ("inferenceId", 64),
    "x-amzn-sagemaker-target-variant": ("targetVariant", 63),
    "x-amzn-sagemaker-custom-attributes": ("customAttributes", 1024),
}


class ModelError(Exception):
    """The container answered other than 2xx, or not at all: HTTP 424 for the client."""

    def __init__(self, body: Document) -> None:
        super().__init__(body["Message"])
        self.body = body


class Runtime:
    name = "sagemaker-runtime"
    signing_name = "sagemaker"

    def __init__(self, cloud: Cloud, endpoints: Endpoints, metrics: Metrics, queued: Asynchronous) -> None:
        self._cloud = cloud
        self._asynchronous = queued
        self._endpoints = endpoints
        self._metrics = metrics
        self._shadows = ThreadPoolExecutor(SHADOW_THREADS, "shadow")
        self._chance = random.Random()  # noqa: S311 - a share of traffic is no secret

    def claims(self, request: Request) -> bool:
        return PATH.fullmatch(request.path) is not None or asynchronous.PATH.fullmatch(request.path) is not None

    def permissions(self, request: Request) -> list[Permission]:
        if queued := asynchronous.endpoint_name(request):
            return [Permission("sagemaker:InvokeEndpointAsync", self._cloud.arn("endpoint", queued))]
        return [Permission("sagemaker:InvokeEndpoint", self._cloud.arn("endpoint", _endpoint_name(request)))]

    def handle(self, request: Request) -> Response:
        try:
            if asynchronous.endpoint_name(request):
                return self._asynchronous.invoke(request)
            answer, variant = self._invoke(request)
        except Problem as problem:
            return _error(problem.status, problem.code, {"Message": problem.message})
        except ModelError as error:
            return _error(424, "ModelError", error.body)
        except ThrottledError:
            return _error(400, "ThrottlingException", {"message": None})  # AWS gives no message either
        headers = {
            "Content-Type": answer.headers.get("content-type", ""),
            "x-Amzn-Invoked-Production-Variant": variant,
        }
        if attributes := answer.headers.get("x-amzn-sagemaker-custom-attributes"):
            headers["X-Amzn-SageMaker-Custom-Attributes"] = attributes
        return Response(200, answer.body, headers)

    def _invoke(self, request: Request) -> tuple[Answer, str]:
        began = time.perf_counter()
        _check(request)
        endpoint, router = self._endpoints.in_service(_endpoint_name(request))
        _check_mode(endpoint, request)
        try:
            with router.route(request.headers.get("x-amzn-sagemaker-target-variant")) as route:
                self._mirror(endpoint, route, request)
                answer = self._ask(endpoint, route, route.variant, request, began)
        except UnroutableError as error:
            raise Problem("ValidationError", str(error)) from error
        name = route.variant.spec.name
        if answer is None:
            raise ModelError(self._model_error(endpoint.name, name, None))
        if not 200 <= answer.status < 300:
            raise ModelError(self._model_error(endpoint.name, name, answer))
        if is_serverless(endpoint.config) and len(answer.body) > serverless.LARGEST_BODY:
            raise _too_large("Response", len(answer.body), serverless.LARGEST_BODY)
        return answer, name

    def _ask(self, endpoint: Endpoint, route: Route, variant: Variant, request: Request, began: float) -> Answer | None:
        """The container's answer, None if it gave none; measured, and captured if it is good."""
        asked, setup = time.perf_counter(), None
        try:
            setup = variant.warm()
            asked = time.perf_counter()
            answer = variant.invoke(_for_container(request.headers), request.body)
        except (NoAnswerError, StartError):
            answer = None
        answered = time.perf_counter()
        if answer is not None and 200 <= answer.status < 300 and route.fleet.capture is not None:
            route.fleet.capture.record(_exchange(variant, request, answer))
        self._metrics.record(
            Invocation(
                endpoint=endpoint.name,
                variant=variant.spec.name,
                config=route.fleet.config_name,
                instances=variant.running,
                status=answer.status if answer else None,
                model_latency=(answered - asked) * MICROSECONDS,
                overhead_latency=(time.perf_counter() - began - (answered - asked)) * MICROSECONDS,
                setup=None if setup is None else setup * MICROSECONDS,
                utilization=variant.utilization,
            )
        )
        return answer

    def _mirror(self, endpoint: Endpoint, route: Route, request: Request) -> None:
        """Send the shadow variant its share of what the production variant gets; nobody waits for its answer.

        The share is its weight in that of the production variant.
        https://docs.aws.amazon.com/sagemaker/latest/dg/shadow-tests.html
        """
        for shadow in route.fleet.shadows.values():
            if self._chance.random() * route.variant.weight < shadow.weight:
                shadow.enter()
                self._shadows.submit(self._ask_shadow, endpoint, route, shadow, request)

    def _ask_shadow(self, endpoint: Endpoint, route: Route, shadow: Variant, request: Request) -> None:
        try:
            self._ask(endpoint, route, shadow, request, time.perf_counter())
        finally:
            shadow.leave()

    def _model_error(self, endpoint: str, variant: str, answer: Answer | None) -> Document:
        region, account = self._cloud.region, self._cloud.account
        group = f"/aws/sagemaker/Endpoints/{endpoint}"
        where = (
            f"See https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group} "
            f"in account {account} for more information."
        )
        status = answer.status if answer else 0
        text = answer.body.decode(errors="replace") if answer else NO_ANSWER
        side = "client" if 400 <= status < 500 else "server"
        message = f'Received {side} error ({status}) from primary with message "{text}". {where}'
        return {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if side == "client" else "INTERNAL_FAILURE_FROM_MODEL",
            "LogStreamArn": f"arn:aws:logs:{region}:{account}:log-group:{group}",
            "Message": message[:LARGEST_MESSAGE],
            "OriginalMessage": text[:LARGEST_MESSAGE],
            "OriginalStatusCode": status,
        }


def _endpoint_name(request: Request) -> str:
    match = PATH.fullmatch(request.path)
    return unquote(match[1]) if match else ""


def _check(request: Request) -> None:
    if len(request.body) > LARGEST_BODY:
        raise _too_large("Request", len(request.body), LARGEST_BODY)
    for header, (member, longest) in _CONSTRAINTS.items():
        value = request.headers.get(header)
        if value is not None and not 1 <= len(value) <= longest:
            raise Problem(
                "ValidationError",
                f"1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have "
                f"length between 1 and {longest}",
            )


def _check_mode(endpoint: Endpoint, request: Request) -> None:
    if is_asynchronous(endpoint.config):
        raise Problem(
            "ValidationError", f"Endpoint {endpoint.name} is asynchronous: invoke it with InvokeEndpointAsync."
        )
    if is_serverless(endpoint.config) and len(request.body) > serverless.LARGEST_BODY:
        raise _too_large("Request", len(request.body), serverless.LARGEST_BODY)


def _too_large(what: str, size: int, largest: int) -> Problem:
    return Problem("ValidationError", f"{what} body of {size} bytes is larger than {largest}.", 413)


def _for_container(headers: Mapping[str, str]) -> dict[str, str]:
    """SageMaker strips all headers but those that InvokeEndpoint knows; these say something to a container.

    https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
    """
    passed = {
        "Content-Type": headers.get("content-type"),
        "Accept": headers.get("accept"),
        "X-Amzn-SageMaker-Custom-Attributes": headers.get("x-amzn-sagemaker-custom-attributes"),
        "X-Amzn-SageMaker-Inference-Id": headers.get("x-amzn-sagemaker-inference-id"),
    }
    return {name: value for name, value in passed.items() if value}


def _exchange(variant: Variant, request: Request, answer: Answer) -> Exchange:
    return Exchange(
        variant=variant.spec.name,
        role_arn=variant.spec.role_arn,
        content_type=request.headers.get("content-type", ""),
        body=request.body,
        answer_type=answer.headers.get("content-type", ""),
        answer=answer.body,
        inference_id=request.headers.get("x-amzn-sagemaker-inference-id"),
        custom_attributes=request.headers.get("x-amzn-sagemaker-custom-attributes"),
    )


def _error(status: int, code: str, body: Document) -> Response:
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
    return Response(status, json.dumps(body).encode(), headers)
