"""What went wrong is tried again: a call within seconds, a message that a handler failed on by `noria.patience`."""

import random
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, TypeVar

import boto3
import botocore.session
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from noria.aws.queues import Queues
from noria.aws.telemetry import logger
from noria.patience import wait

Answer = TypeVar("Answer")

TRIES = 3
"""How often a call is made."""

PATIENCE = Config(connect_timeout=3, read_timeout=15, retries={"mode": "standard", "total_max_attempts": TRIES})
"""For every call that says nothing else: throttled, refused with 5xx or unanswered, it is made again after a second or
two, drawn at random. The worst of them ends before the shortest function does, so that its handler lives to say what
failed; botocore's own, a minute for each of five attempts, would outlast it.
https://docs.aws.amazon.com/boto3/latest/guide/retries.html
"""

_THROTTLED = {"Throttled", "KMSThrottling"}
_DENIED = {"AuthorizationError", "AuthorizationErrorException", "UnauthorizedOperation"}
"""Besides those that say AccessDenied."""


def retried_soon(
    handler: Callable[[dict[str, Any], LambdaContext], Answer],
) -> Callable[[dict[str, Any], LambdaContext], Answer]:
    """A handler whose calls have `PATIENCE`, and whose messages are tried again soon after it failed on them.

    Otherwise they stay hidden for the queue's visibility timeout, which must be many times as long as the function may
    run: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    patiently()

    @wraps(handler)
    def handle(event: dict[str, Any], context: LambdaContext) -> Answer:
        try:
            return handler(event, context)
        except Exception as error:
            for record in event.get("Records", []):
                if "receiptHandle" in record:
                    _retry(record, error)
            raise

    return handle


def patiently() -> None:
    """Give `PATIENCE` to every client that is made from now on, and make each but once.

    A client is made in some 20 ms, and its first call takes a connection of its own; who keeps it, keeps that too:
    https://docs.aws.amazon.com/lambda/latest/dg/best-practices.html
    """
    patient = botocore.session.Session()
    patient.set_default_client_config(PATIENCE)
    patient.register("needs-retry.sns", _throttled)  # type: ignore[arg-type]  # what it answers is heard
    session = boto3.Session(botocore_session=patient)
    session.client = cache(session.client)  # type: ignore[method-assign]
    boto3.DEFAULT_SESSION = session


def _throttled(*, response: tuple[Any, Mapping[str, Any]] | None, attempts: int, **_: Any) -> float | None:
    """Seconds to wait: SNS's own words for too many calls are none that botocore knows.

    https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
    """
    refused = response is not None and response[1].get("Error", {}).get("Code") in _THROTTLED
    return random.uniform(0, 2 ** (attempts - 1)) if refused and attempts < TRIES else None  # noqa: S311 - no secret


def hopeless(error: Exception) -> bool:
    """Whether only a change by somebody can mend it: an unreadable event, missing rights, what is in the way."""
    if not isinstance(error, ClientError):
        return isinstance(error, ValidationError | FileExistsError)
    code = error.response.get("Error", {}).get("Code", "")
    return "AccessDenied" in code or code in _DENIED


def _retry(record: Mapping[str, Any], error: Exception) -> None:
    failures = int(record["attributes"]["ApproximateReceiveCount"])
    try:
        Queues().show_again(record, after=wait(failures, hopeless=hopeless(error)))
    except (BotoCoreError, ClientError) as refused:
        # What the handler failed on is what people should hear of; the message comes again anyway, only later.
        logger.warning("A message could not be put back", error=str(refused))
