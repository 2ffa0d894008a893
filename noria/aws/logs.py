"""CloudWatch Logs: lines that hold a word, from many groups at once.

FilterLogEvents asks one group, in pages of at most 1 MiB read, 5 to 25 pages a second for an account (CloudWatch Logs
quotas): some twenty groups are asked side by side, and who asks too fast is told to wait. Logs Insights would ask all
in one query, at a price for each GB that it reads, and knows lines only when it has indexed them.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.config import Config

from noria.logs import Line, read

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

_AT_ONCE = 5
_MOST = 10_000
"""Lines of one group: more nobody reads."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to look: a group, or its streams that begin so. `name` is what people call it."""

    group: str
    name: str
    streams: str | None = None

    @classmethod
    def of_job(cls, kind: str, job: str, *, name: str) -> Self:
        """`kind`: Training, Processing or Transform."""
        return cls(group=f"/aws/sagemaker/{kind}Jobs", name=name, streams=job)


_PATIENT = Config(retries={"mode": "adaptive", "total_max_attempts": 10})


@dataclass(frozen=True, kw_only=True)
class Logs:
    client: "CloudWatchLogsClient" = field(default_factory=lambda: boto3.client("logs", config=_PATIENT), repr=False)

    def groups(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
        return [group["logGroupName"] for page in pages for group in page["logGroups"]]

    def lines(self, places: Iterable[Place], *, since: datetime, word: str | None = None) -> list[Line]:
        """Lines of all places, those that hold `word`; a place that is not there has none."""
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            return [line for found in pool.map(lambda place: self._lines(place, since, word), places) for line in found]

    def _lines(self, place: Place, since: datetime, word: str | None) -> list[Line]:
        narrowed: dict[str, Any] = {}
        if place.streams:
            narrowed["logStreamNamePrefix"] = place.streams
        if word:
            narrowed["filterPattern"] = f'"{word}"'
        pages = self.client.get_paginator("filter_log_events").paginate(
            logGroupName=place.group,
            startTime=round(since.timestamp() * 1000),
            PaginationConfig={"MaxItems": _MOST},
            **narrowed,
        )
        try:
            return list(self._read(place, pages))
        except self.client.exceptions.ResourceNotFoundException:
            return []

    def _read(self, place: Place, pages: Iterable[Any]) -> Iterator[Line]:
        for page in pages:
            for event in page["events"]:
                at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
                if line := read(event["message"], at=at, where=place.name):
                    yield line
