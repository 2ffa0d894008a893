"""What is known of labels, in the data bucket; everything here is made from what lies under labels/ and captured/.

| object                                  | holds                                                                     |
|-----------------------------------------|---------------------------------------------------------------------------|
| `<model>/labelled/told/<day>.parquet`   | every word that arrived that day (noria.labels.words)                     |
| `<model>/labelled/joined/<day>.parquet` | the predictions of that day that have a label, of every variant           |

Both only ever grow, by union, and are replaced only where nobody else did meanwhile: whoever writes, in whichever
order and however often, ends with the same. Days are UTC.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from noria.aws.captures import LATE, Captures
from noria.aws.storage import Storage, StoredObject
from noria.labels import Coverage, coverage
from noria.names import key
from noria.profile import Source
from noria.spec import ModelSpec

MOST_TOLD_BYTES = 2**30
"""Of words that are read at once, the newest first; about twenty million."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    spec: ModelSpec
    captures: Captures
    storage: Storage

    def coverage(self, *, until: datetime, folder: Path) -> Coverage:
        """Of the champion's predictions that have lately become old enough to have a label, how many have one.

        Old enough is `monitor.labels.within` before `until`; lately, the length of the windows that an alarm looks at
        (`monitor.every` times those of `monitor.when`). `folder` takes what is downloaded; the caller clears it.
        """
        watch = self.spec.monitor
        end = until.astimezone(UTC) - watch.labels.within
        start = end - watch.every * watch.when.of
        here = _folder(folder, "coverage")
        captured = self.captures.fetch(self.captures.between(start, end), _folder(here, "captured"))
        told = self.words(start, _folder(here, "told"))
        predictions, labelled, p50, p95 = coverage(Source.captured(*captured, since=start, until=end), told, self.spec)
        return Coverage(
            since=start,
            until=end,
            predictions=predictions,
            labelled=labelled,
            delay_p50_hours=p50,
            delay_p95_hours=p95,
        )

    def words(self, since: datetime, folder: Path) -> list[Path]:
        """All words that arrived on the day of `since` or later: a label comes after what it is about."""
        found = {day_of(file): file for file in self.storage.list(key(self.spec.model, "labelled", "told/"))}
        # A clock of a server that answers may be a little ahead of S3's.
        first = (since.astimezone(UTC) - LATE).date()
        paths, total = [], 0
        for day in sorted((day for day in found if day >= first), reverse=True):
            total += found[day].size
            if total > MOST_TOLD_BYTES:
                break
            paths.append(folder / f"{day}.parquet")
            self.storage.download(found[day].key, paths[-1])
        return paths


def day_of(file: StoredObject) -> date:
    """The day in the name of an object of one day."""
    return date.fromisoformat(Path(file.key).stem)


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


ONE_DAY = timedelta(days=1)
