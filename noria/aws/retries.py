"""A message that a handler failed on comes again in minutes."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError

from noria.aws.queues import Queues
from noria.aws.telemetry import logger

Handler = Callable[[dict[str, Any], LambdaContext], None]


def retried_soon(handler: Handler) -> Handler:
    """A handler whose messages are tried again minutes after it failed on them.

    Otherwise they stay hidden for the queue's visibility timeout, which must be many times as long as the function may
    run: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """

    @wraps(handler)
    def handle(event: dict[str, Any], context: LambdaContext) -> None:
        try:
            handler(event, context)
        except Exception:
            for record in event.get("Records", []):
                if "receiptHandle" in record:
                    _retry(record)
            raise

    return handle


def _retry(record: Mapping[str, Any]) -> None:
    try:
        Queues().retry(record)
    except ClientError as error:
        # What the handler failed on is what people should hear of; the message comes again anyway, only later.
        logger.warning("A message could not be put back", error=str(error))
