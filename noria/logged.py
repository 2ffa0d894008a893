"""Captured requests as lines of a log: a serverless endpoint's container prints them, as SageMaker captures none there.

CloudWatch Logs gives a function batches of lines: `{"awslogs": {"data": gzip and base64 of a LogBatch}}`; what the
function could not do comes again through its queue, inside of Lambda's record of a failed invocation.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html#LambdaFunctionExample
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

import gzip
import hashlib
import json
import zlib
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from noria.events import EventError

LOG_GROUP = "/aws/sagemaker/Endpoints/"
"""Where SageMaker writes what an endpoint's containers print; the endpoint's name follows."""


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LogEvent(_Shape):
    id: str
    at: datetime = Field(alias="timestamp", description="milliseconds since 1970")
    message: str


class LogBatch(_Shape):
    """Lines of one stream. A control message only asks whether there is somebody."""

    kind: Literal["DATA_MESSAGE", "CONTROL_MESSAGE"] = Field(alias="messageType")
    group: str = Field(alias="logGroup")
    stream: str = Field(alias="logStream")
    events: tuple[LogEvent, ...] = Field(alias="logEvents")

    @property
    def endpoint(self) -> str:
        if self.kind == "DATA_MESSAGE" and not self.group.startswith(LOG_GROUP):
            raise EventError(f"log group {self.group!r} is not an endpoint's: {LOG_GROUP}<endpoint>")
        return self.group.removeprefix(LOG_GROUP)


class _Record(_Shape):
    """A line that is a capture: the members of a data-capture record (`noria.capture`), and a word that tells it."""

    noria: Literal["capture"]
    captureData: dict[str, Any]  # noqa: N815 - SageMaker's name
    eventMetadata: dict[str, Any]  # noqa: N815
    eventVersion: str = "0"  # noqa: N815


@dataclass(frozen=True, kw_only=True)
class CaptureFile:
    """Lines of one hour as a data-capture file; `name` follows the variant, and is the same for the same lines."""

    name: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


def parse_batch(message: Mapping[str, Any]) -> LogBatch:
    """The batch in a function's event: from CloudWatch Logs itself, or from the queue of what failed before.

    Raises `EventError` naming what was wrong.
    """
    try:
        if "Records" in message:
            (record,) = message["Records"]
            message = json.loads(record["body"])["requestPayload"]
        text = gzip.decompress(b64decode(message["awslogs"]["data"], validate=True))
        return LogBatch.model_validate_json(text)
    except (KeyError, TypeError, ValueError, EOFError, OSError, zlib.error) as error:
        raise EventError(f"not a batch of log lines: {error!r}") from error


def capture_files(batch: LogBatch) -> list[CaptureFile]:
    """The captures among the lines, by the hour in which they were printed, as SageMaker files them."""
    captured = sorted(_captured(batch), key=lambda pair: pair[0].at)
    hours = groupby(captured, key=lambda pair: f"{pair[0].at.astimezone(UTC):%Y/%m/%d/%H}")
    return [_file(hour, list(pairs)) for hour, pairs in hours]


def _captured(batch: LogBatch) -> Iterator[tuple[LogEvent, str]]:
    for event in batch.events:
        try:
            record = _Record.model_validate_json(event.message)
        except ValidationError:
            continue  # whatever else the container prints
        yield event, record.model_dump_json(exclude={"noria"})


def _file(hour: str, pairs: Sequence[tuple[LogEvent, str]]) -> CaptureFile:
    first = pairs[0][0].at.astimezone(UTC)
    ids = hashlib.sha256("\n".join(event.id for event, _ in pairs).encode()).hexdigest()
    name = f"{hour}/{first:%M-%S}-{first.microsecond // 1000:03d}-{ids[:32]}.jsonl"
    return CaptureFile(name=name, lines=tuple(line for _, line in pairs))
