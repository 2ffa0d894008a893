"""What lies in a reaction's queue, or among dead letters: which event it is, what it is about, whence it comes."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from noria.names import Names


def event_in(body: str) -> dict[str, Any]:
    """A message's body as an event; empty where it is none."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):  # deep JSON
        return {}
    return event if isinstance(event, dict) else {}


def what(event: Mapping[str, Any]) -> str:
    """What happened, in the sender's words.

    >>> what({"source": "aws.s3", "detail-type": "Object Created"})
    'Object Created'
    """
    if "DDBStreamBatchInfo" in event:
        return "entries of the ledger that got no locked copy"
    if "requestPayload" in event:
        return "a call that failed"  # of a function without a queue; Lambda guide, `invocation-async-retain-records`
    return str(event.get("detail-type") or "no event")


def origin(body: str, *, source: str | None, attributes: Mapping[str, str]) -> str | None:
    """The name of the queue, function or rule that a dead letter comes from; None of one that does not say so.

    | who gave up           | says what it gave up in                                                               |
    |-----------------------|---------------------------------------------------------------------------------------|
    | SQS                   | `source`: the system attribute DeadLetterQueueSourceArn                               |
    | EventBridge           | TARGET_ARN, a queue; else RULE_ARN (EventBridge guide, `rule-dlq`)                    |
    | Scheduler             | TARGET_ARN, a queue (Scheduler guide, `configuring-schedule-dlq`)                     |
    | Lambda, with a stream | the body's requestContext.functionArn (Lambda guide, `services-dynamodb-errors`)      |
    """
    for arn in (source or "", attributes.get("TARGET_ARN", "")):
        if arn.split(":")[2:3] == ["sqs"]:
            return arn.rpartition(":")[2]
    if rule := attributes.get("RULE_ARN"):
        return rule.rpartition("/")[2]
    function = _at(event_in(body), "requestContext", "functionArn").partition(":function:")[2]
    return function.partition(":")[0] or None


def model_of(event: Mapping[str, Any], *, names: Sequence[Names], models: Collection[str]) -> str | None:
    """The model of `models` that an event is about; None for one about no model, or another.

    `names` are of the environments whose models these are called after: an event may come from a registry's.
    """
    detail = event.get("detail")
    if not isinstance(detail, Mapping):
        return None
    if (told := _at(detail, "model")) in models:
        return told
    if (folder := key_of(detail).partition("/")[0]) in models:
        return folder
    for name in _resources(detail):
        for own in names:
            # No model's name begins another's (`noria.names.mixed_up`), so the first that fits is the one.
            rest = own.model_of(name)
            found = next((model for model in models if rest == model or (rest or "").startswith(f"{model}-")), None)
            if found:
                return found
    return None


def key_of(detail: Mapping[str, Any]) -> str:
    """Of the object in the data bucket that was created, or that a transform job reads."""
    if key := _at(detail, "object", "key"):
        return key
    uri = _at(detail, "TransformInput", "DataSource", "S3DataSource", "S3Uri")
    return uri.removeprefix("s3://").partition("/")[2]


def _resources(detail: Mapping[str, Any]) -> Iterator[str]:
    """Names that begin with a model's: of its package group, endpoint, alarms, pipeline, stacks."""
    for field in ("ModelPackageGroupName", "EndpointName", "alarmName"):
        yield _at(detail, field)
    yield _at(detail, "pipelineArn").rpartition("/")[2]
    yield _at(detail, "stack-id").partition("/")[2].partition("/")[0]


def _at(detail: Mapping[str, Any], *path: str) -> str:
    value: Any = detail
    for field in path:
        value = value.get(field) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""
