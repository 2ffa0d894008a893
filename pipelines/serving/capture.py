"""Requests and answers as lines on standard output, where SageMaker captures no data itself (serverless endpoints).

A line is `{"noria": "capture", …}` with the members of a data-capture record (SageMaker guide, "Capture data from
real-time endpoint"): what reads the one reads the other.
"""

import base64
import multiprocessing
import os
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

LONGEST_LINE = 1_000_000
"""Bytes; CloudWatch Logs takes events up to 1 MB (`PutLogEvents`). Longer ones are told of, and not captured."""

_ENCODINGS = {"application/json": "JSON", "text/csv": "CSV"}


@dataclass(frozen=True)
class Exchange:
    """One request that was answered."""

    content_type: str
    body: bytes
    answer_type: str
    answer: bytes
    inference_id: str | None


class Capture:
    """Writes lines to a file descriptor. Made before the workers are forked, whose lines must not mix."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._lock = multiprocessing.get_context("fork").Lock()

    def __call__(self, exchange: Exchange) -> None:
        line = orjson.dumps(_record(exchange)) + b"\n"
        if len(line) > LONGEST_LINE:
            line = orjson.dumps({"noria": "not captured", "bytes": len(line)}) + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


def _record(exchange: Exchange) -> dict[str, Any]:
    metadata = {"eventId": str(uuid.uuid4()), "inferenceTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    if exchange.inference_id:
        metadata["inferenceId"] = exchange.inference_id
    return {
        "noria": "capture",
        "captureData": {
            "endpointInput": _side("INPUT", exchange.content_type, exchange.body),
            "endpointOutput": _side("OUTPUT", exchange.answer_type, exchange.answer),
        },
        "eventMetadata": metadata,
        "eventVersion": "0",
    }


def _side(mode: str, content_type: str, data: bytes) -> dict[str, str]:
    encoding = _ENCODINGS.get(content_type.partition(";")[0].strip().lower(), "BASE64")
    text = base64.b64encode(data).decode() if encoding == "BASE64" else data.decode(errors="replace")
    return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}
