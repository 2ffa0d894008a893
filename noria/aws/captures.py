"""Captured requests of one variant of an endpoint, brought to a folder.

`<model>/captured/<endpoint>/<variant>/yyyy/mm/dd/hh/….jsonl`, by the hour in which SageMaker wrote the file.
https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count, islice
from pathlib import Path

from noria.aws.endpoints import CHAMPION
from noria.aws.predictor import BUNDLE
from noria.aws.storage import Storage, StoredObject
from noria.names import key

LATE = timedelta(minutes=10)
"""How long after a request its file may still be written; AWS says within a couple of minutes."""

_AT_ONCE = 8


MOST_BYTES = 2**30
"""Of a variant's captured files, newest first, in which a request is looked for."""

_FETCHED = 64


@dataclass(frozen=True, kw_only=True)
class Captured:
    """One captured request. `bundle` is the SHA-256 of the file that answered, where the record tells it."""

    variant: str
    key: str
    event: str
    inference_id: str | None
    at: datetime
    bundle: str | None


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

    def days(self, first: date, last: date) -> frozenset[date]:
        """UTC days of that time of which there may be requests."""
        months = {(day.year, day.month) for day in _days(first, last + timedelta(days=1))}
        written = {
            date(year, month, int(day))
            for year, month in months
            for day in self.storage.folders(self._prefix(f"{year:04}/{month:02}/"))
        }
        # What is asked just before midnight is written after it.
        return frozenset(day for day in _days(first, last) if day in written or day + timedelta(days=1) in written)

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

    def find(self, id_: str, *, now: datetime, days: int) -> Captured | None:
        """The newest request of that inference id, as the client sent it, or of that event's id; in the last days."""
        files = iter(self.newest(now=now, days=days, most_bytes=MOST_BYTES))
        while batch := list(islice(files, _FETCHED)):
            with tempfile.TemporaryDirectory(prefix="noria-captured-") as folder:
                paths = zip(batch, self.fetch(batch, Path(folder)), strict=True)
                found = [hit for file, path in paths for hit in _hits(path, file.key, self.variant, id_)]
            if found:
                return max(found, key=lambda captured: captured.at)
        return None

    def within(self, keys: Iterable[str], start: datetime, end: datetime) -> list[str]:
        """Of the keys of files those that `between` would find."""
        first, last = (self._prefix(f"{moment.astimezone(UTC):%Y/%m/%d/%H}/") for moment in (start, end + LATE))
        return [name for name in keys if first <= name and name[: len(last)] <= last]

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


def _hits(path: Path, key: str, variant: str, id_: str) -> Iterator[Captured]:
    with path.open("rb") as lines:
        for line in lines:
            if id_.encode() not in line:
                continue  # most do not hold it, and need not be parsed
            about = json.loads(line)["eventMetadata"]
            if id_ not in {about.get("inferenceId"), about["eventId"]}:
                continue
            bundle = BUNDLE.search(" ".join(about.get("customAttributes", [])))
            yield Captured(
                variant=variant,
                key=key,
                event=about["eventId"],
                inference_id=about.get("inferenceId"),
                at=datetime.fromisoformat(about["inferenceTime"]),
                bundle=bundle[1] if bundle else None,
            )


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=after) for after in range((last - first).days + 1))


def _up_to(most_bytes: int, files: Iterable[StoredObject]) -> Iterator[StoredObject]:
    total = 0
    for file in files:
        total += file.size
        if total > most_bytes:
            return
        yield file
