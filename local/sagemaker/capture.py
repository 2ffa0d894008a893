"""Data capture: what went into an endpoint's variants and came out, as JSON lines in S3.

Files are `{destination}/{endpoint}/{variant}/yyyy/mm/dd/hh/MM-SS-mmm-uuid.jsonl`, one line an invocation, written with
the model's execution role. https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html
"""

import base64
import json
import logging
import random
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local import ministack
from local.sagemaker.cloud import Cloud
from local.sagemaker.events import instant
from local.sagemaker.storage import Location

logger = logging.getLogger("noria.capture")

# AWS writes within a couple of minutes; here at least every two seconds, however slow the cloud's time.
FLUSH_SECONDS = 60
LONGEST_WAIT = 2.0


@dataclass(frozen=True)
class Exchange:
    """One invocation as it is captured."""

    variant: str
    role_arn: str
    content_type: str
    body: bytes
    answer_type: str
    answer: bytes
    inference_id: str | None = None
    custom_attributes: str | None = None


@dataclass
class _Buffer:
    """Lines of one variant that are not written yet, and when the first was captured."""

    role_arn: str
    began: datetime
    lines: list[str] = field(default_factory=list)


class Capture:
    """Captures one fleet's invocations, from its start to `close`; `config` is a DataCaptureConfig."""

    def __init__(self, cloud: Cloud, endpoint: str, config: Mapping[str, Any]) -> None:
        self.config = config
        self._cloud = cloud
        self._destination = Location.parse(config["DestinationS3Uri"]) / endpoint
        modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        self._input = bool(modes & {"Input", "InputAndOutput"})
        self._output = bool(modes & {"Output", "InputAndOutput"})
        types = config.get("CaptureContentTypeHeader", {})
        self._encodings = {media_type.lower(): "CSV" for media_type in types.get("CsvContentTypes", [])} | {
            media_type.lower(): "JSON" for media_type in types.get("JsonContentTypes", [])
        }
        self._chance = random.Random()  # noqa: S311 - a sample of traffic is no secret
        self._buffers: dict[str, _Buffer] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        cloud.run(self._keep_writing, f"data capture of {endpoint}")

    def record(self, exchange: Exchange) -> None:
        """Capture an invocation that the model answered well, if the sample takes it."""
        if self._chance.random() * 100 >= self.config["InitialSamplingPercentage"]:
            return
        now = self._cloud.now()
        line = json.dumps(self._line(exchange, now), separators=(",", ":"))
        with self._lock:
            self._buffers.setdefault(exchange.variant, _Buffer(exchange.role_arn, now)).lines.append(line)

    def close(self) -> None:
        """Write what is left and stop."""
        self._closed.set()
        self._write()

    def _line(self, exchange: Exchange, now: datetime) -> dict[str, Any]:
        captured = {
            "endpointInput": self._side("INPUT", exchange.content_type, exchange.body) if self._input else None,
            "endpointOutput": self._side("OUTPUT", exchange.answer_type, exchange.answer) if self._output else None,
        }
        metadata = {
            "eventId": str(uuid.uuid4()),
            **({"customAttributes": [exchange.custom_attributes]} if exchange.custom_attributes else {}),
            **({"inferenceId": exchange.inference_id} if exchange.inference_id else {}),
            "inferenceTime": instant(now),
        }
        present = {side: data for side, data in captured.items() if data is not None}
        return {"captureData": present, "eventMetadata": metadata, "eventVersion": "0"}

    def _side(self, mode: str, content_type: str, data: bytes) -> dict[str, str]:
        encoding = self._encodings.get(content_type.partition(";")[0].strip().lower(), "BASE64")
        text = base64.b64encode(data).decode() if encoding == "BASE64" else data.decode(errors="replace")
        return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}

    def _keep_writing(self) -> None:
        interval = min(self._cloud.scaled(FLUSH_SECONDS), LONGEST_WAIT)
        while not self._closed.wait(interval):
            self._write()

    def _write(self) -> None:
        with self._lock:
            buffers, self._buffers = self._buffers, {}
        for variant, buffer in buffers.items():
            began = buffer.began
            name = f"{began:%M-%S}-{began.microsecond // 1000:03d}-{uuid.uuid4()}.jsonl"
            target = self._destination / f"{variant}/{began:%Y/%m/%d/%H}/{name}"
            key = self.config.get("KmsKeyId")
            encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
            body = "".join(f"{line}\n" for line in buffer.lines).encode()
            try:
                s3 = self._cloud.client("s3", buffer.role_arn)
                s3.put_object(Bucket=target.bucket, Key=target.key, Body=body, **encryption)
            except (ClientError, BotoCoreError, ministack.CannotAssumeRole):
                logger.exception("%d captured invocations of %s are lost", len(buffer.lines), variant)
