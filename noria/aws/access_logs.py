"""S3's server access logs: who made a request, by its number.

Files are `<prefix>YYYY-mm-DD-HH-MM-SS-<unique>`, by when they were delivered: within a few hours, and best effort. A
line is `owner bucket [time] address requester request operation key …`; the requester is an ARN for IAM's principals.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/LogFormat.html
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import boto3

from noria.aws.storage import Storage

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DELIVERED = timedelta(hours=24)
MOST_FILES = 2_000
_AT_ONCE = 16
_LINE = r"^\S+ \S+ \[[^\]]+\] \S+ (?P<requester>\S+) {request} (?P<operation>\S+) "


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that is in a log: who made it, and the log's S3 URI."""

    by: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class AccessLogs:
    """The logs of one bucket."""

    logs: Storage
    prefix: str

    @classmethod
    def of(cls, bucket: str, client: "S3Client | None" = None) -> "AccessLogs | None":
        """None where the bucket keeps none."""
        client = client or boto3.client("s3")
        kept = client.get_bucket_logging(Bucket=bucket).get("LoggingEnabled")
        return (
            cls(logs=Storage(bucket=kept["TargetBucket"], client=client), prefix=kept["TargetPrefix"]) if kept else None
        )

    def find(self, request: str, *, at: datetime) -> Asked | None:
        """The request of that number, made about then: in the first `MOST_FILES` that were delivered after it."""
        line = re.compile(_LINE.replace("{request}", re.escape(request)), re.MULTILINE)
        files = islice(self._delivered(at), MOST_FILES)
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            while batch := list(islice(files, _AT_ONCE)):
                for name, body in zip(batch, pool.map(self.logs.read, batch), strict=True):
                    if hit := line.search(body.decode(errors="replace")):
                        return Asked(by=hit["requester"], uri=self.logs.uri(name))
        return None

    def _delivered(self, at: datetime) -> Iterator[str]:
        first, last = at.astimezone(UTC), at.astimezone(UTC) + DELIVERED
        for day in {first.date(): None, last.date(): None}:
            for stored in self.logs.list(f"{self.prefix}{day:%Y-%m-%d}-"):
                if stored.key[len(self.prefix) :][:19] >= f"{first:%Y-%m-%d-%H-%M-%S}":
                    yield stored.key
