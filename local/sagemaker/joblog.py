"""A job's output in CloudWatch Logs, where AWS puts it: one group a kind, one stream a job and host."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from local.sagemaker.cloud import Cloud

if TYPE_CHECKING:
    from local.sagemaker.jobs import Job

logger = logging.getLogger("noria.sagemaker")

# PutLogEvents takes 10,000 events and 1 MiB, 26 bytes of it for each event.
BATCH_EVENTS = 10_000
BATCH_BYTES = 1_000_000
OVERHEAD = 26
LINE_LENGTH = 100_000


def ship(cloud: Cloud, job: "Job") -> None:
    """Send what a job wrote, as the job's role; as on AWS, one that may not leaves no log and raises no error."""
    logs = cloud.client("logs", job.description["RoleArn"])
    group = f"/aws/sagemaker/{job.kind.noun}Jobs"
    moment = int(cloud.now().timestamp() * 1000)
    stream = f"{job.name}/algo-1-{moment // 1000}"
    try:
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        for batch in _batches(job):
            events = [{"timestamp": moment, "message": line} for line in batch]
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    except ClientError as error:
        logger.warning("no log in CloudWatch for %s: %s", job.name, error)


def _batches(job: "Job") -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    if not job.log.exists():
        return
    with job.log.open(errors="replace") as lines:
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
