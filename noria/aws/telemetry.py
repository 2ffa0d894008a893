"""What every handler tells: structured log lines that carry the event's id, and a count of what came of it."""

from enum import StrEnum
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from noria.names import METRIC_NAMESPACE

EVENT_ID = "powertools_json(Records[0].body).id"
"""Where the id of the EventBridge event is in a function's SQS message: one event, one id on all its log lines."""

logger = Logger(service="noria")
metrics = Metrics(namespace=METRIC_NAMESPACE)


def tell(outcome: StrEnum, *, model: str, **what: Any) -> None:
    """Log an outcome, and count it in the metric of its name. The count travels in the log and costs no call."""
    logger.info(outcome.value, model=model, **what)
    metrics.add_dimension(name="Model", value=model)
    metrics.add_metric(name=outcome.value, unit=MetricUnit.Count, value=1)
