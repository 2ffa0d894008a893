"""Predictions from a model's endpoint, with SageMaker's ways to fail told apart.

| what SageMaker says                                     | status | whose matter                |
|---------------------------------------------------------|--------|-----------------------------|
| the model answered 4XX                                  | 400    | the request's               |
| the model answered 5XX, or SageMaker failed             | 502    | the model's, or SageMaker's |
| no endpoint, not ready, throttled, unreachable          | 503    | nobody's: send it again     |
| no answer in time                                       | 504    | the model's                 |

Source: InvokeEndpoint, errors (SageMaker Runtime API).
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, ReadTimeoutError
from botocore.exceptions import ConnectionError as NotConnectedError

from noria.aws.telemetry import own_request
from noria.flags import Variant

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_sagemaker_runtime.type_defs import InvokeEndpointOutputTypeDef

# API Gateway gives up after 30 seconds. Nobody but the caller knows whether a second try still helps.
PATIENT = Config(connect_timeout=2, read_timeout=25, retries={"total_max_attempts": 1})

BUNDLE = re.compile(r"(?:^|[\s,;])noria-bundle=([0-9a-f]{64})")

UNAVAILABLE = {
    "ModelNotReadyException": "the model is starting",
    "ServiceUnavailable": "SageMaker is not available",
    "ServiceUnavailableException": "SageMaker is not available",
    "ThrottlingException": "the endpoint is busy",
}

ABSENT_SECONDS = 30.0
"""How long a variant that was not there is not asked for again."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """`bundle` is the SHA-256 of the served model file; None where the model's server does not tell."""

    predictions: list[Any]
    variant: str
    bundle: str | None


class CannotPredictError(Exception):
    """`status` is the HTTP status for the caller; `problems` are the model's own words about rows and fields."""

    def __init__(self, status: int, detail: str, problems: list[Any] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.problems = problems or []


class NothingLiveError(CannotPredictError):
    """There is no endpoint."""

    def __init__(self) -> None:
        super().__init__(503, "no version of the model is live")


def _client() -> "SageMakerRuntimeClient":
    return boto3.client("sagemaker-runtime", config=PATIENT)


@dataclass(kw_only=True)
class Predictor:
    """One endpoint, asked again and again; `own` says that it is not by clients."""

    endpoint: str
    own: bool = False
    client: "SageMakerRuntimeClient" = field(default_factory=_client, repr=False)
    clock: Callable[[], float] = time.monotonic
    _absent_until: dict[str, float] = field(default_factory=dict, init=False)

    def predict(self, body: bytes, *, inference_id: str, variant: Variant | None) -> Answered:
        """Answers to the rows of `body` from `variant`, or from any where it is not there.

        Raises `CannotPredictError`; what no request can cause, such as a missing permission, rises as it is.
        """
        try:
            answer = self._ask(body, inference_id, variant)
        except ReadTimeoutError as error:
            raise CannotPredictError(504, "the model did not answer in time") from error
        except (NotConnectedError, HTTPClientError) as error:
            raise CannotPredictError(503, "SageMaker could not be reached") from error
        except ClientError as error:
            raise _meaning(error) from error
        content = answer["Body"].read()
        try:
            predictions = json.loads(content)["predictions"]
        except (ValueError, TypeError, KeyError) as error:
            raise CannotPredictError(502, "the model's answer could not be read") from error
        told = BUNDLE.search(answer.get("CustomAttributes", ""))
        return Answered(
            predictions=predictions,
            variant=answer.get("InvokedProductionVariant", ""),
            bundle=told[1] if told else None,
        )

    def _ask(self, body: bytes, inference_id: str, variant: Variant | None) -> "InvokeEndpointOutputTypeDef":
        ask = partial(
            self.client.invoke_endpoint,
            EndpointName=self.endpoint,
            Body=body,
            ContentType="application/json",
            Accept="application/json",
            InferenceId=inference_id,
        )
        if variant and self._absent_until.get(variant, 0.0) <= self.clock():
            try:
                return self._send(partial(ask, TargetVariant=variant))
            except ClientError as error:
                # SageMaker has one code for all that it finds wrong with a request: ask without the variant and see.
                if _code(error) not in {"ValidationError", "ValidationException"}:
                    raise
                self._absent_until[variant] = self.clock() + ABSENT_SECONDS
        return self._send(ask)

    def _send(self, ask: "Callable[[], InvokeEndpointOutputTypeDef]") -> "InvokeEndpointOutputTypeDef":
        return own_request(self.endpoint, ask) if self.own else ask()


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _meaning(error: ClientError) -> Exception:
    """What a caller is told of an error; the error itself where no request can cause it."""
    code = _code(error)
    if code == "ModelError":
        return _of_model(dict(error.response))
    if code in UNAVAILABLE:
        return CannotPredictError(503, UNAVAILABLE[code])
    if code in {"InternalFailure", "InternalDependencyException"}:
        return CannotPredictError(502, "SageMaker failed")
    if code in {"ValidationError", "ValidationException"}:
        # Everything else that SageMaker validates was checked before: there is no endpoint.
        return NothingLiveError()
    return error


def _of_model(response: dict[str, Any]) -> CannotPredictError:
    status = int(response.get("OriginalStatusCode", 0))
    if status == 0:
        return CannotPredictError(504, "the model did not answer in time")
    if status >= 500:
        return CannotPredictError(502, f"the model failed ({status})")
    try:
        problems = json.loads(response.get("OriginalMessage", ""))["problems"]
    except (ValueError, TypeError, KeyError):
        problems = []
    return CannotPredictError(400, "the model did not understand the request", problems)
