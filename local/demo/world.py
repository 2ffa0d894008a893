"""What the demo does to the cloud and sees of it: through AWS's own doors and the `noria` command, as a user would."""

import io
import json
import os
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.cloud import ACCOUNT, REPOSITORY, LocalCloud
from local.demo.story import Story, Unexpected
from noria.aws.ledger import Ledger
from noria.ledger import Entry, Kind
from noria.names import Names

PATIENCE = 120.0
"""Seconds to wait for what the cloud should do by itself."""


@dataclass(frozen=True)
class World:
    """One deployed local cloud and one model in it."""

    cloud: LocalCloud
    model: str
    story: Story

    # --- doors

    @cached_property
    def names(self) -> Names:
        return Names(env="local")

    @property
    def endpoint(self) -> str:
        return self.names.model(self.model)

    @cached_property
    def session(self) -> boto3.Session:
        environment = self.cloud.environment
        return boto3.Session(
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_REGION"],
        )

    def client(self, service: str) -> Any:
        return self.session.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.cloud.endpoint,
            verify=str(self.cloud.certificate),
            # A retry would hide a failed request from the count.
            config=Config(max_pool_connections=32, retries={"total_max_attempts": 1}),
        )

    @cached_property
    def s3(self) -> Any:
        return self.client("s3")

    @cached_property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    @cached_property
    def bucket(self) -> str:
        return self.parameter("data-bucket")

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(table=self.parameter("ledger-table"), client=self.client("dynamodb"))

    def parameter(self, name: Any) -> str:
        value = self.client("ssm").get_parameter(Name=self.names.parameter(name))
        return str(value["Parameter"]["Value"])

    # --- what a person does

    def upload(self, name: str, body: bytes) -> str:
        """Put a file where uploads go; returns its key."""
        key = f"{self.model}/incoming/{name}"
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return key

    def noria(self, *arguments: str) -> Any:
        """Run the `noria` command as a person does, and read what it answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        ran = subprocess.run(
            [sys.executable, "-m", "noria.cli", *arguments, "--json"],
            cwd=REPOSITORY,
            env=environment | self.cloud.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise Unexpected(f"`noria {' '.join(arguments)}` failed: {(ran.stderr or ran.stdout).strip()}")
        return json.loads(ran.stdout)

    def set_rollback_reports(self, ending: str) -> None:
        """What a stack reports when SageMaker rolls an update back: nobody documents it, so both are played."""
        request = urllib.request.Request(  # noqa: S310 - the local cloud's own door
            f"{self.cloud.endpoint}/_noria/settings",
            data=json.dumps({"rollback_reports": ending}).encode(),
            headers={"Content-Type": "application/json"},
            method="PUT",
        )
        context = ssl.create_default_context(cafile=str(self.cloud.certificate))
        with urllib.request.urlopen(request, context=context) as response:  # noqa: S310
            response.read()

    # --- what a person sees

    def entries(self) -> list[Entry]:
        """The ledger of the model, oldest first."""
        return self.ledger.entries(self.model)

    def wait_for(
        self,
        *kinds: Kind,
        after: int,
        where: Callable[[Entry], bool] = lambda _: True,
        never: Sequence[Kind] = (),
        patience: float = PATIENCE,
    ) -> Entry:
        """The first ledger entry of one of `kinds` past number `after`; one of `never` in its place is a failure."""
        wanted = " or ".join(kinds)
        self.story.waiting_for(f"waiting for {wanted.replace('_', ' ')}")
        deadline = time.monotonic() + patience
        while True:
            fresh = [entry for entry in self.entries() if entry.number > after]
            for entry in fresh:
                if entry.kind in kinds and where(entry):
                    return entry
                if entry.kind in never:
                    raise Unexpected(f"expected {wanted}, the ledger says {entry.kind.value}: {entry.summary}")
            if time.monotonic() > deadline:
                seen = "; ".join(f"{entry.kind.value}: {entry.summary}" for entry in fresh) or "nothing"
                raise Unexpected(f"no {wanted} within {patience:.0f} s; the ledger says: {seen}")
            time.sleep(0.2)

    def wait_until(self, what: str, probe: Callable[[], Any], *, patience: float = PATIENCE) -> Any:
        """Whatever `probe` answers, once it is true."""
        self.story.waiting_for(f"waiting for {what}")
        deadline = time.monotonic() + patience
        while not (answer := probe()):
            if time.monotonic() > deadline:
                raise Unexpected(f"no {what} within {patience:.0f} s")
            time.sleep(0.2)
        return answer

    def last_entry(self) -> int:
        entries = self.entries()
        return entries[-1].number if entries else 0

    def read_json(self, key: str) -> Any:
        return json.loads(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def read_uri(self, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def wait_for_captured(self, since: datetime, *, records: int) -> None:
        """Until so many requests from `since` on are in files: data capture is written within a couple of minutes."""
        first = since.strftime("%Y-%m-%dT%H:%M:%SZ")

        def captured() -> bool:
            pages = self.s3.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{self.model}/captured/{self.endpoint}/"
            )
            fresh = [i["Key"] for page in pages for i in page.get("Contents", []) if i["LastModified"] >= since]
            bodies = (self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in fresh)
            lines = [json.loads(line) for body in bodies for line in body.splitlines()]
            return sum(str(line["eventMetadata"]["inferenceTime"]) >= first for line in lines) >= records

        self.wait_until("captured requests", captured)

    def serving_parameters(self) -> dict[str, str]:
        stack = self.client("cloudformation").describe_stacks(StackName=self.names.stack(self.model, "serving"))[
            "Stacks"
        ][0]
        return {item["ParameterKey"]: item["ParameterValue"] for item in stack["Parameters"]}

    def package(self, arn: str) -> Mapping[str, Any]:
        package: Mapping[str, Any] = self.sagemaker.describe_model_package(ModelPackageName=arn)
        return package

    def job_seconds(self, execution: str) -> float:
        """Seconds that the steps of an execution took, jobs' own start included."""
        steps = self.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)["PipelineExecutionSteps"]
        return float(sum((step["EndTime"] - step["StartTime"]).total_seconds() for step in steps if "EndTime" in step))

    def endpoint_seconds(self, since: float) -> float:
        """Seconds that CloudFormation waited for the endpoint (start, canary, bake) after the Unix time `since`."""
        events = self.client("cloudformation").describe_stack_events(StackName=self.names.stack(self.model, "serving"))[
            "StackEvents"
        ]
        total, started = 0.0, None
        for event in sorted(events, key=lambda event: event["Timestamp"]):
            if event["ResourceType"] != "AWS::SageMaker::Endpoint" or event["Timestamp"].timestamp() < since:
                continue
            if event["ResourceStatus"].endswith("IN_PROGRESS"):
                started = started or event["Timestamp"]
            elif started:
                total += (event["Timestamp"] - started).total_seconds()
                started = None
        return total


class Pager:
    """Receives what both topics send: what wakes whoever is on duty, and what waits for the morning."""

    def __init__(self, world: World) -> None:
        self._sqs = world.client("sqs")
        name = "noria-demo-pager"
        arn = f"arn:aws:sqs:{world.cloud.environment['AWS_REGION']}:{ACCOUNT}:{name}"
        topics = [world.parameter(name) for name in ("pages-topic", "notices-topic")]
        allow = {
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": topics}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        self._queue = self._sqs.create_queue(QueueName=name, Attributes={"Policy": policy})["QueueUrl"]
        for topic in topics:
            world.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        self._received: list[str] = []

    def pages(self) -> list[str]:
        """Subjects and texts of all that was told so far."""
        while messages := self._sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                body = json.loads(message["Body"])
                self._received.append(f"{body.get('Subject', '')}\n{body['Message']}")
                self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
        return self._received


def unpacked(archive: Path) -> dict[str, bytes]:
    """The files of a model bundle by name."""
    with tarfile.open(archive) as source:
        files = ((member.name, source.extractfile(member)) for member in source.getmembers())
        return {name.removeprefix("./"): content.read() for name, content in files if content is not None}


def repack(archive: Path, target: Path, *, replace: Mapping[str, bytes]) -> None:
    """Copy a model bundle with other content in some of its files."""
    with tarfile.open(target, "w:gz") as sink:
        for name, content in {**unpacked(archive), **replace}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            sink.addfile(member, io.BytesIO(content))
