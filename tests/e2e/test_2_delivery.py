"""Events come twice and at once; files are large: nothing is lost and nothing happens twice."""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local.demo import flights
from local.demo.scenes import YEAR, Play
from local.demo.world import World
from noria.ledger import Kind


def _object_created(world: World, key: str) -> dict[str, object]:
    """The event that S3 sent for `key`, to be delivered once more."""
    head = world.s3.head_object(Bucket=world.bucket, Key=key)
    return {
        "version": "0",
        "id": "5e1f0b8e-7c5a-4f5e-9c9e-000000000001",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "123456789012",
        "time": "2026-01-01T00:00:00Z",
        "region": "eu-west-1",
        "resources": [f"arn:aws:s3:::{world.bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": world.bucket},
            "object": {
                "key": key,
                "size": head["ContentLength"],
                "etag": head["ETag"].strip('"'),
                "version-id": head["VersionId"],
                "sequencer": "0061E1F0B8E7C5A4F5",
            },
            "request-id": "REQUEST",
            "requester": "123456789012",
            "reason": "PutObject",
        },
    }


def test_the_same_upload_event_twice_changes_nothing(play: Play, world: World) -> None:
    mark = world.last_entry()
    key = world.upload("october.csv", flights.month(YEAR + 10))
    world.wait_for(Kind.TRAINING_HELD, after=mark)
    before = world.entries()
    objects = _of_uploads(world)
    sqs = world.client("sqs")
    queue = sqs.get_queue_url(QueueName=world.names.queue("validate-upload"))["QueueUrl"]
    for _ in range(2):
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(_object_created(world, key)))
    world.wait_until("empty queue", lambda: _idle(world, "validate-upload") and _idle(world, "request-retraining"))
    assert [entry.number for entry in world.entries()] == [entry.number for entry in before]
    assert _of_uploads(world) == objects


def _of_uploads(world: World) -> list[str]:
    """Everything that uploads and trainings left; captures of earlier traffic are still being written meanwhile."""
    return sorted(key for key in world.keys(f"{world.model}/") if not key.startswith(f"{world.model}/captured/"))


def test_two_uploads_at_once_both_arrive(world: World) -> None:
    mark = world.last_entry()
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(lambda month: world.upload(f"at-once-{month}.csv", flights.month(YEAR + month)), (11, 12)))
    first = world.wait_for(Kind.DATASET_ACCEPTED, after=mark)
    second = world.wait_for(Kind.DATASET_ACCEPTED, after=first.number)
    assert first.subject != second.subject


def test_a_300_megabyte_file_passes_through_validation(world: World) -> None:
    header, _, body = flights.month(YEAR + 1).partition(b"\n")
    copies = 300_000_000 // len(body) + 1
    mark = world.last_entry()
    world.upload("large.csv", b"\n".join([header, *[body.rstrip(b"\n")] * copies]) + b"\n")
    accepted = world.wait_for(Kind.DATASET_ACCEPTED, after=mark, never=[Kind.DATASET_QUARANTINED], patience=240)
    assert accepted.details["bytes"] > 300_000_000  # type: ignore[operator]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_validation_of_a_large_file_stays_within_its_functions_memory(world: World) -> None:
    function = world.names.function("validate-upload")
    allowed = world.client("lambda").get_function_configuration(FunctionName=function)["MemorySize"]
    workers = [p for p in Path("/proc").glob("[0-9]*") if function in _read(p / "cmdline")]
    peaks = [int(found[1]) // 1024 for p in workers if (found := re.search(r"VmHWM:\s+(\d+) kB", _read(p / "status")))]
    assert peaks, "the function that validated the large file is gone"
    assert max(peaks) < allowed, f"{max(peaks)} MB were used, the function has {allowed}"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process ended while we looked
        return ""


def _idle(world: World, reaction: str) -> bool:
    sqs = world.client("sqs")
    url = sqs.get_queue_url(QueueName=world.names.queue(reaction))["QueueUrl"]
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return not any(int(value) for name, value in counts.items() if name.startswith("ApproximateNumberOfMessages"))
