"""What every handler tells: structured log lines, a count of what came of it, and the one id that all of a chain share.

An upload, a labels file, an alarm, a tick or a person's command begins a chain, and its event's id becomes the
correlation of all that follows: of log lines (`correlation_id`), of Noria's own events, of entries of the ledger, of
pages, and of X-Ray's traces (annotation `correlation`). Where AWS's own event breaks the chain, a handler goes on with
the one that the ledger knows (`follow`). Decision 0030.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import wraps
from typing import Any, TypeVar

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError

from noria.events import Heard
from noria.names import METRIC_NAMESPACE, OUTSIDE_HOURS, OWN_FAILURES, OWN_LATENCY, SERVICE

Answer = TypeVar("Answer")
Handler = Callable[[dict[str, Any], LambdaContext], Answer]

logger = Logger(service=SERVICE)
metrics = Metrics(namespace=METRIC_NAMESPACE)


def reaction(handler: Handler[Answer]) -> Handler[Answer]:
    """What every handler of events is wrapped in: its lines say which event, which chain, and how it failed.

    The first line is written before anything is done: a function that is killed has said what it was about.
    """

    @wraps(handler)
    @logger.inject_lambda_context(clear_state=True)
    @metrics.log_metrics
    def handle(message: dict[str, Any], context: LambdaContext) -> Answer:
        heard = Heard.of(message)
        logger.append_keys(event_id=heard.event)
        follow(heard.correlation)
        logger.info("Heard")
        try:
            return handler(message, context)
        except Exception:
            logger.exception("Failed")
            raise
        finally:
            logger.set_correlation_id(None)  # what the same process does next is no effect of this

    return handle


def following() -> str | None:
    """The correlation of what is being done; None outside of a reaction."""
    return logger.get_correlation_id()


def follow(correlation: str | None) -> None:
    """Go on as an effect of what has this correlation; None, as of old entries of the ledger, changes nothing."""
    before = following()
    if correlation and correlation != before:
        logger.set_correlation_id(correlation)
        _annotate(correlation)
        if before:  # the first line of this invocation says another
            logger.info("Followed")


def _annotate(correlation: str) -> None:
    """Let X-Ray find the trace of this invocation by its correlation.

    Lambda's daemon takes a subsegment of its segment as one datagram; X-Ray's SDK would do the same, and is slow to
    import. https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-daemon
    """
    daemon = os.environ.get("AWS_XRAY_DAEMON_ADDRESS", "")
    trace = dict(part.split("=", 1) for part in os.environ.get("_X_AMZN_TRACE_ID", "").split(";") if "=" in part)
    host, _, port = daemon.rpartition(":")
    if not host or trace.get("Sampled") != "1" or not {"Root", "Parent"} <= trace.keys():
        return
    now = time.time()
    subsegment = {
        "name": "correlation",
        "id": secrets.token_hex(8),
        "trace_id": trace["Root"],
        "parent_id": trace["Parent"],
        "type": "subsegment",
        "start_time": now,
        "end_time": now,
        "annotations": {"correlation": correlation},
    }
    datagram = f'{{"format": "json", "version": 1}}\n{json.dumps(subsegment)}'
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out, suppress(OSError):  # not for this a reaction fails
        out.sendto(datagram.encode(), (host, int(port)))


def tell(outcome: StrEnum, *, model: str, **what: Any) -> None:
    """Log an outcome, and count it in the metric of its name. The count travels in the log and costs no call."""
    logger.info(outcome.value, model=model, **what)
    metrics.add_dimension(name="Model", value=model)
    metrics.add_metric(name=outcome.value, unit=MetricUnit.Count, value=1)


def outside_hours(model: str) -> None:
    """Count a request that found no endpoint because there is none on purpose: alarms take it off what failed."""
    _count(("Model", model), (OUTSIDE_HOURS, MetricUnit.Count, 1))


def own_request(endpoint: str, ask: Callable[[], Answer]) -> Answer:
    """Ask what no client asked; where a model answers it is counted: CloudWatch's counts do not say whose requests."""
    began = time.monotonic()

    def count(*, failed: bool) -> None:
        latency = (OWN_LATENCY, MetricUnit.Microseconds, round((time.monotonic() - began) * 1e6))
        _count(("EndpointName", endpoint), latency, (OWN_FAILURES, MetricUnit.Count, int(failed)))

    try:
        answer = ask()
    except ClientError as error:
        told: dict[str, Any] = dict(error.response)
        if told["Error"]["Code"] == "ModelError":
            count(failed=int(told.get("OriginalStatusCode") or 500) >= 500)
        raise
    count(failed=False)
    return answer


def _count(dimension: tuple[str, str], *values: tuple[str, MetricUnit, int]) -> None:
    """In a line of its own, because who counts may be killed before they end.

    Nothing outside of functions, of whose output nobody makes metrics.
    """
    if "AWS_LAMBDA_FUNCTION_NAME" not in os.environ:
        return
    counted = EphemeralMetrics(namespace=METRIC_NAMESPACE, service=SERVICE)
    counted.add_dimension(*dimension)
    for name, unit, value in values:
        counted.add_metric(name=name, unit=unit, value=value)
    counted.flush_metrics()
