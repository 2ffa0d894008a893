"""The front door of one model: checks what is asked, picks the variant by flags, asks the endpoint.

request ─ correlation id ─ check against the spec ─ flags ─ InvokeEndpoint ┬ predictions, variant, bundle
                 └──────────────────┴───────────────────────────┴────────── └ problem details (RFC 9457)

Who asks has been proved by API Gateway. No value of a request or of an answer is logged.

Calls: sagemaker:InvokeEndpoint on the model's endpoint; appconfig:StartConfigurationSession and
appconfig:GetLatestConfiguration on its flags.
"""

import json
import math
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import Field

from noria.aws.environment import Variables
from noria.aws.flag_reader import LatestFlags
from noria.aws.predictor import CannotPredictError, NothingLiveError, Predictor
from noria.aws.telemetry import logger, outside_hours
from noria.flags import evaluate
from noria.http import HttpRequest
from noria.openapi import openapi
from noria.prediction import CORRELATION_ID, NotUnderstoodError, RequestCheck, TooLargeError
from noria.spec import ModelSpec

CORRELATION_HEADER = "x-correlation-id"
RETRY_SECONDS = 2


class Environment(Variables):
    """What this function is told: its model, where people reach it, and where the model's flags are."""

    model: str = Field(min_length=1)
    url: str = Field(min_length=1)
    flags_application: str = Field(min_length=1)
    flags_environment: str = Field(min_length=1)
    flags_profile: str = Field(min_length=1)


class Outcome(StrEnum):
    """What a log line says came of a request."""

    ANSWERED = "PredictionAnswered"
    REFUSED = "PredictionRefused"
    FAILED = "PredictionFailed"


@dataclass(frozen=True, kw_only=True)
class Door:
    """What lives as long as the function's process does."""

    spec: ModelSpec
    url: str
    check: RequestCheck
    flags: LatestFlags
    predictor: Predictor


@cache
def door() -> Door:
    env = Environment.from_os()
    spec = env.required_spec(env.model)
    return Door(
        spec=spec,
        url=env.url,
        check=RequestCheck(spec),
        flags=LatestFlags(
            application=env.flags_application,
            environment=env.flags_environment,
            profile=env.flags_profile,
            warn=logger.warning,
        ),
        predictor=Predictor(endpoint=env.names.model(env.model)),
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return answer(request=HttpRequest.parse(event), door=door(), now=datetime.now(UTC))


def answer(*, request: HttpRequest, door: Door, now: datetime) -> dict[str, Any]:
    """The response to one request, in API Gateway's payload format 2.0."""
    if request.route_key.startswith("GET "):
        return _response(200, openapi(door.spec, url=door.url))
    began = time.perf_counter()
    given = request.headers.get(CORRELATION_HEADER)
    correlation_id = given if given and re.fullmatch(CORRELATION_ID, given) else uuid.uuid4().hex
    logger.set_correlation_id(correlation_id)
    told: dict[str, Any] = {"caller": request.caller.id}
    wait = timedelta(seconds=RETRY_SECONDS)
    try:
        status, body = 200, _predict(request, door, correlation_id, told)
    except CannotPredictError as problem:
        status, detail, hours = problem.status, problem.detail, door.spec.serve.hours
        excuse = hours.excuse(now) if hours and isinstance(problem, NothingLiveError) else None
        if hours and excuse:
            outside_hours(door.spec.model)
            wait, detail = excuse, f"the model answers {hours} alone: it is off, or starts"
        body = _problem(status, detail, problem.problems, correlation_id)
    outcome = Outcome.ANSWERED if status < 400 else Outcome.REFUSED if status < 500 else Outcome.FAILED
    told |= {"status": status, "milliseconds": round((time.perf_counter() - began) * 1000, 1)}
    logger.info(outcome.value, model=door.spec.model, **told)
    return _response(status, body, correlation_id, wait=wait)


def _predict(request: HttpRequest, door: Door, correlation_id: str, told: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request for predictions; what may be logged of it goes into `told`."""
    if request.headers.get(CORRELATION_HEADER, correlation_id) != correlation_id:
        raise CannotPredictError(400, f"{CORRELATION_HEADER} must match {CORRELATION_ID}")
    if request.media_type not in {"", "application/json"}:
        raise CannotPredictError(415, "send application/json")
    body = request.content
    try:
        told["rows"] = len(door.check.instances(body))
    except TooLargeError as error:
        raise CannotPredictError(413, str(error)) from error
    except NotUnderstoodError as error:
        problems = [problem.document() for problem in error.problems]
        raise CannotPredictError(400, "the request was not understood", problems) from error
    wanted = evaluate(door.flags.get(), request.caller)
    told["wanted"] = wanted
    answered = door.predictor.predict(body, inference_id=correlation_id, variant=wanted)
    told |= {"variant": answered.variant, "bundle": answered.bundle}
    return {
        "predictions": answered.predictions,
        "variant": answered.variant,
        "bundle": answered.bundle,
        "correlation_id": correlation_id,
    }


def _problem(status: int, detail: str, problems: Sequence[Any], correlation_id: str) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "correlation_id": correlation_id,
        **({"errors": list(problems)} if problems else {}),
    }


def _response(
    status: int, body: Mapping[str, Any], correlation_id: str | None = None, *, wait: timedelta | None = None
) -> dict[str, Any]:
    headers = {"content-type": "application/json" if status < 400 else "application/problem+json"}
    if correlation_id:
        headers[CORRELATION_HEADER] = correlation_id
    if wait and status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = str(math.ceil(wait.total_seconds()))
    return {"statusCode": status, "headers": headers, "body": json.dumps(body)}
