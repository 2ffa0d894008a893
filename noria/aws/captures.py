"""Captured requests of one variant of an endpoint, brought to a folder.

`<model>/captured/<endpoint>/<variant>/yyyy/mm/dd/hh/….jsonl`, by the hour in which SageMaker wrote the file.
https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count, islice
from pathlib import Path

from noria.aws.endpoints import CHAMPION
from noria.aws.storage import Storage, StoredObject
from noria.names import key

LATE = timedelta(minutes=10)
"""How long after a request its file may still be written; AWS says within a couple of minutes."""

_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Captures:
    model: str
    endpoint: str
    storage: Storage
    variant: str = CHAMPION

    def between(self, start: datetime, end: datetime) -> list[StoredObject]:
        """Files that may hold requests of that time; and others, so look at each request's own time."""
        hour = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        found: list[StoredObject] = []
        while hour <= end + LATE:
            found += self.storage.list(self._prefix(f"{hour:%Y/%m/%d/%H}/"))
            hour += timedelta(hours=1)
        return found

    def of_day(self, day: date) -> list[StoredObject]:
        """Files that may hold requests of a UTC day; and others, so look at each request's own time."""
        after = day + timedelta(days=1)
        spans = (self._prefix(f"{day:%Y/%m/%d}/"), self._prefix(f"{after:%Y/%m/%d}/00/"))
        return [file for span in spans for file in self.storage.list(span)]

    def first(self, start: datetime, end: datetime, *, most_bytes: int) -> tuple[list[StoredObject], bool]:
        """As `between`, oldest first, until they would be more than `most_bytes`; and whether these are all."""
        files = sorted(self.between(start, end), key=lambda file: file.key)
        found = list(_up_to(most_bytes, files))
        return found, len(found) == len(files)

    def latest(self, files: Iterable[StoredObject], *, most_bytes: int) -> list[StoredObject]:
        """Those that were written last, until they would be more than `most_bytes`."""
        return list(_up_to(most_bytes, sorted(files, key=lambda file: file.key, reverse=True)))

    def newest(self, *, now: datetime, days: int, most_bytes: int) -> list[StoredObject]:
        """Files of the last days, newest day first, until they would be more than `most_bytes`."""
        return list(_up_to(most_bytes, self._by_day(now, days)))

    def last(self, *, before: datetime, hours: int, files: int) -> list[StoredObject]:
        """At most so many files of the hours before that time, newest first; the newest may hold later requests."""
        hour = before.astimezone(UTC)
        spans = (self._prefix(f"{hour - timedelta(hours=back):%Y/%m/%d/%H}/") for back in range(hours + 1))
        found = (file for span in spans for file in sorted(self.storage.list(span), key=lambda f: f.key, reverse=True))
        return list(islice(found, files))

    def fetch(self, files: Iterable[StoredObject], folder: Path) -> list[Path]:
        numbered = [(file.key, folder / f"{number:06}.jsonl") for number, file in zip(count(), files, strict=False)]
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            for _ in pool.map(lambda pair: self.storage.download(*pair), numbered):
                pass
        return [path for _, path in numbered]

    def _by_day(self, now: datetime, days: int) -> Iterator[StoredObject]:
        for back in range(days + 1):
            day = now.astimezone(UTC) - timedelta(days=back)
            yield from sorted(self.storage.list(self._prefix(f"{day:%Y/%m/%d}/")), key=lambda f: f.key, reverse=True)

    def _prefix(self, rest: str) -> str:
        return key(self.model, "captured", f"{self.endpoint}/{self.variant}/{rest}")


def _up_to(most_bytes: int, files: Iterable[StoredObject]) -> Iterator[StoredObject]:
    total = 0
    for file in files:
        total += file.size
        if total > most_bytes:
            return
        yield file
