"""An environment's shared resources in a local cloud, and handlers called as Lambda calls them."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import boto3
from aws_lambda_powertools.utilities.typing import LambdaContext

from local.cloud import ACCOUNT, REGION
from noria.aws.ledger import Ledger
from noria.ledger import Entry, Kind
from noria.names import Names
from noria.spec import ModelSpec, load

BUCKET = "noria-local-data"
COPIES = "noria-local-ledger"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/sagemaker-scikit-learn:1.9-0-cpu-py3"
SHIPPED = load(Path(__file__).parents[3] / "models" / "flight-delay.yaml")
REACTIONS = (
    "validate-upload",
    "request-retraining",
    "start-training",
    "record-training",
    "write-card",
    "deploy-model",
    "confirm-deployment",
    "probe-deployment",
    "predict-batch",
    "join-labels",
    "export-ledger",
)


class Context(LambdaContext):
    """What Powertools asks of a function's context."""

    def __init__(self) -> None:
        self._function_name = "function"
        self._memory_limit_in_mb = 512
        self._invoked_function_arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:function"
        self._aws_request_id = "request"


@dataclass
class Place:
    """One environment's shared resources in a local cloud, and what a test hears of it."""

    models: Path
    names: Names = field(default_factory=lambda: Names(env="local"))
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    heard: list[dict[str, Any]] = field(default_factory=list)
    _paged: list[tuple[str, str]] = field(default_factory=list)
    _clients: dict[str, Any] = field(default_factory=dict)

    # --- what there is

    @property
    def s3(self) -> Any:
        return self.client("s3")

    @property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    def client(self, service: str) -> Any:
        """A client of a service, made once."""
        if service not in self._clients:
            self._clients[service] = boto3.client(service)  # type: ignore[call-overload]
        return self._clients[service]

    @property
    def ledger(self) -> Ledger:
        return Ledger(table="ledger")

    def model(self, **changes: Any) -> ModelSpec:
        """A model of its own, described as the shipped one but for `changes`."""
        described = (
            SHIPPED.model_dump(mode="json", exclude={"objectives"}) | {"model": f"m{next(self._numbers)}"} | changes
        )
        spec = ModelSpec.model_validate(described)
        (self.models / f"{spec.model}.json").write_text(spec.model_dump_json())
        return spec

    def put(self, key: str, body: str | bytes) -> str:
        """Put an object; returns its version."""
        version: str = self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)["VersionId"]
        return version

    def read(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str) -> list[str]:
        return [i["Key"] for i in self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]

    # --- what is done and heard

    def deliver(self, handler: Callable[[dict[str, Any], Any], None], event: dict[str, Any]) -> None:
        """Call a handler as Lambda does with one message of its queue."""
        handler({"Records": [{"messageId": "1", "body": json.dumps(event)}]}, Context())

    def kinds(self, model: str) -> list[Kind]:
        return [entry.kind for entry in self.entries(model)]

    def entries(self, model: str, *kinds: Kind) -> list[Entry]:
        return [entry for entry in self.ledger.entries(model) if not kinds or entry.kind in kinds]

    def events(self, model: str, detail_type: str) -> list[dict[str, Any]]:
        """Details of Noria's own events about a model, oldest first, but for whose effect they are."""
        self.heard += [json.loads(body) for body in self.drain("ear")]
        own = [event for event in self.heard if event["source"] == "noria" and event["detail-type"] == detail_type]
        details = [event["detail"] for event in own if event["detail"]["model"] == model]
        return [{name: value for name, value in detail.items() if name != "correlation"} for detail in details]

    def pages(self, model: str) -> list[str]:
        """Subject and text of what wakes somebody about a model."""
        return [page for topic, page in self._told(model) if topic == "pages"]

    def notices(self, model: str) -> list[str]:
        """Subject and text of what waits for the morning."""
        return [page for topic, page in self._told(model) if topic == "notices"]

    def told(self, model: str) -> list[str]:
        """Both."""
        return [page for _, page in self._told(model)]

    def _told(self, model: str) -> list[tuple[str, str]]:
        for body in self.drain("pager"):
            page = json.loads(body)
            self._paged.append((page["TopicArn"].rpartition(":")[2], f"{page['Subject']}\n{page['Message']}"))
        return [(topic, page) for topic, page in self._paged if page.startswith(f"{model}:")]

    def waiting(self, reaction: str) -> list[dict[str, Any]]:
        """Takes what was sent to a reaction's queue."""
        return [json.loads(body) for body in self.drain(self.names.queue(reaction))]

    def drain(self, queue: str) -> list[str]:
        """Takes all that waits in a queue."""
        sqs = self.client("sqs")
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        bodies: list[str] = []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                bodies.append(message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def delayed(self, reaction: str) -> int:
        """How many messages a reaction's queue holds back for later."""
        sqs = self.client("sqs")
        name = "ApproximateNumberOfMessagesDelayed"
        url = sqs.get_queue_url(QueueName=self.names.queue(reaction))["QueueUrl"]
        return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])

    def event(self, source: str, detail_type: str, detail: dict[str, Any]) -> dict[str, Any]:
        return {
            "version": "0",
            "id": "0c2f6a0e-7f0b-4e57-9d0c-0f2f9f1f4c11",
            "source": source,
            "detail-type": detail_type,
            "account": ACCOUNT,
            "region": REGION,
            "time": datetime.now(UTC).isoformat(),
            "resources": [],
            "detail": detail,
        }

    def uploaded(self, key: str, version: str, size: int = 1) -> dict[str, Any]:
        # Larger for each later version of a key, as S3's are.
        described = {"key": key, "size": size, "version-id": version, "sequencer": f"{time.time_ns():018X}"}
        sent = {"requester": ACCOUNT, "request-id": "N4N7GDK58NMKJ12R", "source-ip-address": "127.0.0.1"}
        return self.event("aws.s3", "Object Created", {"bucket": {"name": BUCKET}, "object": described} | sent)


def ship(lines: str, group: str, stream: str = "1") -> None:
    """Put what was logged where Lambda puts it."""
    logs = boto3.client("logs")
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=group)
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    now = int(time.time() * 1000)
    events: Any = [{"timestamp": now, "message": line} for line in lines.splitlines()]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
