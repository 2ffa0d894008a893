"""A container's output in CloudWatch Logs, where AWS puts it: one group for a kind of job, or for an endpoint."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from botocore.exceptions import ClientError

from local.sagemaker.cloud import Cloud

logger = logging.getLogger("noria.sagemaker")

# PutLogEvents takes 10,000 events and 1 MiB, 26 bytes of it for each event.
BATCH_EVENTS = 10_000
BATCH_BYTES = 1_000_000
OVERHEAD = 26
LINE_LENGTH = 100_000


def ship(cloud: Cloud, log: Path, *, group: str, stream: str, role_arn: str) -> None:
    """Send what a container wrote, as its role; as on AWS, one that may not leaves no log and raises no error.

    The stream's name gets the moment at its end.
    """
    logs = cloud.client("logs", role_arn)
    moment = int(cloud.now().timestamp() * 1000)
    stream = f"{stream}-{moment // 1000}"
    try:
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        for batch in _batches(log):
            events = [{"timestamp": moment, "message": line} for line in batch]
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    except ClientError as error:
        logger.warning("no log in CloudWatch for %s: %s", stream, error)


def _batches(log: Path) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    if not log.exists():
        return
    with log.open(errors="replace") as lines:
        for line in lines:
            text = line.rstrip("\n")[:LINE_LENGTH] or " "
            cost = len(text.encode()) + OVERHEAD
            if batch and (len(batch) == BATCH_EVENTS or size + cost > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(text)
            size += cost
    if batch:
        yield batch
