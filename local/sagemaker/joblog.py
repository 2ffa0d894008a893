"""A container's output in CloudWatch Logs, where AWS puts it: one group for a kind of job, or for an endpoint."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from local import ministack
from local.sagemaker.cloud import Cloud

logger = logging.getLogger("noria.sagemaker")

# PutLogEvents takes 10,000 events and 1 MiB, 26 bytes of it for each event.
BATCH_EVENTS = 10_000
BATCH_BYTES = 1_048_576
OVERHEAD = 26
LONGEST_LINE = BATCH_BYTES - OVERHEAD
# Seconds here between two looks at what a container has written.
INTERVAL = 0.5


def ship(cloud: Cloud, log: Path, *, group: str, stream: str, role_arn: str) -> None:
    """Send all that a container has written. The stream's name gets the moment at its end."""
    Shipping(cloud, log, group=group, stream=f"{stream}-{int(cloud.now().timestamp())}", role_arn=role_arn).finish()


class Shipping:
    """Sends what a container writes to `log`, as its role; one that may not leaves no log and raises no error."""

    def __init__(self, cloud: Cloud, log: Path, *, group: str, stream: str, role_arn: str) -> None:
        self._cloud = cloud
        self._log = log
        self._group = group
        self._stream = stream
        self._role_arn = role_arn
        self._sent = 0
        self._began = False
        self._finished = threading.Event()
        self._lock = threading.Lock()

    def follow(self) -> None:
        """Send what is written from now on, as it is written, until `finish`."""
        self._sent = self._log.stat().st_size if self._log.exists() else 0
        self._cloud.run(self._keep_sending, f"log {self._stream}")

    def finish(self) -> None:
        """Send what is left."""
        self._finished.set()
        self._send(ended=True)

    def _keep_sending(self) -> None:
        while not self._finished.wait(INTERVAL):
            self._send(ended=False)

    def _send(self, *, ended: bool) -> None:
        with self._lock:
            lines = self._new_lines(ended=ended)
            if not lines and (self._began or not ended):
                return
            try:
                self._put(lines)
            except (ClientError, BotoCoreError, ministack.CannotAssumeRole) as error:
                logger.warning("no log in CloudWatch for %s: %s", self._stream, error)

    def _new_lines(self, *, ended: bool) -> list[str]:
        """Whole lines, and what is behind the last one when no more comes."""
        if not self._log.exists():
            return []
        with self._log.open("rb") as log:
            log.seek(self._sent)
            text = log.read()
        if not ended:
            text = text[: text.rfind(b"\n") + 1]
        self._sent += len(text)
        return [line.decode(errors="replace") for line in text.splitlines()]

    def _put(self, lines: Sequence[str]) -> None:
        logs = self._cloud.client("logs", self._role_arn)
        if not self._began:
            try:
                logs.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
            except logs.exceptions.ResourceNotFoundException:
                with suppress(logs.exceptions.ResourceAlreadyExistsException):
                    logs.create_log_group(logGroupName=self._group)
                logs.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
            self._began = True
        moment = int(self._cloud.now().timestamp() * 1000)
        for batch in _batches(lines):
            events = [{"timestamp": moment, "message": line} for line in batch]
            logs.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=events)


def _batches(lines: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for line in lines:
        text = line[:LONGEST_LINE] or " "
        cost = len(text.encode()) + OVERHEAD
        if batch and (len(batch) == BATCH_EVENTS or size + cost > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += cost
    if batch:
        yield batch
