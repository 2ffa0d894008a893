"""What the ledger's stream tells is copied once, and what nobody of ours would do is told of."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas.export_ledger.handler import export, export_missing
from noria.audit import Written
from noria.aws.ledger import Copies
from noria.aws.storage import Storage
from noria.events import EventError, is_stream_failure, table_changes


class Bucket:
    """S3, as far as copies need it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, *, Key: str, Body: bytes, IfNoneMatch: str, **_: Any) -> None:  # noqa: N803
        assert IfNoneMatch == "*"
        if Key in self.objects:
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self.objects[Key] = Body

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        return {"Body": Body(self.objects[Key])}

    def get_paginator(self, _: str) -> "Bucket":
        return self

    def paginate(self, *, Prefix: str, **_: Any) -> list[dict[str, Any]]:  # noqa: N803
        found = [key for key in self.objects if key.startswith(Prefix)]
        return [{"Contents": [{"Key": key, "Size": 1, "LastModified": None} for key in found]}]


class Body(bytes):
    def read(self) -> bytes:
        return self


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def copies(bucket: Bucket) -> Copies:
    return Copies(storage=Storage(bucket="copies", client=bucket))  # type: ignore[arg-type]


def stream(*records: tuple[str, int, str | None]) -> dict[str, Any]:
    """A batch as Lambda hands it over. Source: Lambda guide, `with-ddb`."""
    batch = []
    for number, (name, entry, body) in enumerate(records):
        keys = {"model": {"S": "m"}, "sk": {"S": f"entry#{entry:012d}"}}
        image = {"NewImage": {**keys, "body": {"S": body}, "hash": {"S": "h"}}} if body is not None else {}
        batch.append(
            {
                "eventID": str(number),
                "eventName": name,
                "eventVersion": "1.1",
                "eventSource": "aws:dynamodb",
                "awsRegion": "eu-west-1",
                "dynamodb": {
                    "ApproximateCreationDateTime": 1693997155.0,
                    "Keys": keys,
                    **image,
                    "SequenceNumber": str(100 + number),
                    "SizeBytes": 26,
                    "StreamViewType": "NEW_IMAGE",
                },
                "eventSourceARN": "arn:aws:dynamodb:eu-west-1:123456789012:table/t/stream/2026-11-21T00:00:00.000",
            }
        )
    return {"Records": batch}


def told(copies: Copies, *records: tuple[str, int, str | None]) -> list[tuple[str, int, str]]:
    changes = table_changes(stream(*records))
    assert changes is not None
    return export(changes, copies=copies)


def test_new_entries_are_copied_once_however_often_they_come(copies: Copies, bucket: Bucket) -> None:
    for _ in range(2):
        assert told(copies, ("INSERT", 1, "one"), ("INSERT", 2, "two")) == []
    assert bucket.objects == {"m/000000000001.json": b"one", "m/000000000002.json": b"two"}


def test_who_changes_or_removes_an_entry_is_told_of_and_the_copy_stays(copies: Copies, bucket: Bucket) -> None:
    told(copies, ("INSERT", 1, "one"), ("INSERT", 2, "two"))
    found = told(copies, ("MODIFY", 1, "uno"), ("REMOVE", 2, None), ("INSERT", 2, "due"))
    assert found == [("m", 1, "changed"), ("m", 2, "removed"), ("m", 2, "written anew, unlike its locked copy")]
    assert bucket.objects == {"m/000000000001.json": b"one", "m/000000000002.json": b"two"}


def test_what_the_stream_did_not_tell_is_copied_from_the_table(copies: Copies, bucket: Bucket) -> None:
    told(copies, ("INSERT", 1, "one"))
    entries = [Written(number=1, body="uno", hash=""), Written(number=2, body="two", hash="")]
    assert export_missing("m", entries, copies=copies) == []  # what has a copy is for `noria ledger verify` to compare
    assert bucket.objects == {"m/000000000001.json": b"one", "m/000000000002.json": b"two"}


def test_messages_of_other_sources_are_no_changes_and_a_broken_record_is_named() -> None:
    assert table_changes({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}) is None
    broken = stream(("INSERT", 1, "one"))
    broken["Records"][0]["eventName"] = "TRUNCATE"
    with pytest.raises(EventError, match="eventName"):
        table_changes(broken)


def test_lambdas_note_of_what_it_gave_up_is_known() -> None:
    """Source: Lambda guide, `services-dynamodb-errors`: a record without the entries."""
    note = {
        "requestContext": {"condition": "RetryAttemptsExhausted", "approximateInvokeCount": 11},
        "version": "1.0",
        "DDBStreamBatchInfo": {"shardId": "shardId-00000001573689847184-864758bb", "batchSize": 1},
    }
    assert is_stream_failure({"Records": [{"body": json.dumps(note)}]})
    assert not is_stream_failure({"Records": [{"body": json.dumps({"source": "noria.schedule"})}]})
    assert not is_stream_failure({"Records": [{"body": "no JSON"}]})
