"""What is known of labels, in the data bucket; everything here is made from what lies under labels/ and captured/.

| object                                     | holds                                                                  |
|--------------------------------------------|------------------------------------------------------------------------|
| `<model>/labelled/told/<day>.parquet`      | every word that arrived that day (noria.labels.words)                  |
| `<model>/labelled/joined/<day>.parquet`    | the predictions of that day that have a label, of every variant        |
| `<model>/labelled/waiting.parquet`         | the words that are not joined yet, or whose predictions may come late  |
| `<model>/labelled/classes.json`            | labels that the champion predicts, as the last join saw them           |
| `<model>/incoming/labelled/<day>/….parquet`| these as training data, again as they grow (noria.feedback)            |

The first two only ever grow, by union, and are replaced only where nobody else did meanwhile: whoever writes, in
whichever order and however often, ends with the same. A word leaves those that wait only after a join that saw it, so
that whoever dies leaves nothing unjoined. Days are UTC.
"""

import filecmp
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Protocol

from noria import feedback, labelled
from noria.aws.captures import LATE, Captures
from noria.aws.endpoints import CHAMPION
from noria.aws.storage import Storage, StoredObject
from noria.evaluation import Evaluation
from noria.labelled import HardCases, Joined
from noria.labels import (
    Coverage,
    LabelsFile,
    coverage,
    disagreement,
    last_words,
    merge,
    predictions_of,
    still_waiting,
)
from noria.names import key
from noria.profile import Source
from noria.quality import Quality, join
from noria.spec import ModelSpec, Task
from noria.watch import LOOK_BACK

VARIANTS = (CHAMPION, "challenger", "shadow")

MOST_CAPTURED_BYTES = 2 * 2**30
"""Of captured requests, the newest days first: more would not fit beside the rest onto a function's disk."""

MOST_TOLD_BYTES = 2**30
"""Of words that are read at once, the newest first; about twenty million."""

MOST_COVERED_BYTES = 2**30
"""Of captured requests whose coverage is looked at: what comes after the first gigabyte has labels as it has."""

WAITING, CLASSES = "waiting.parquet", "classes.json"

_ATTEMPTS = 8
_DAY = timedelta(days=1)


class LabelledBusyError(RuntimeError):
    """Others wrote faster each time; the caller's message comes again."""


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
        files, _ = self.captures.first(start, end, most_bytes=MOST_COVERED_BYTES)
        captured = self.captures.fetch(files, _folder(here, "captured"))
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
        """All words that arrived on the day of `since` or later, newest first: a label comes after its prediction.

        What `folder` has already is not fetched again.
        """
        found = {_day_of(file): file for file in self.storage.list(key(self.spec.model, "labelled", "told/"))}
        paths, total = [], 0
        for day in sorted((day for day in found if day >= _earliest(since)), reverse=True):
            total += found[day].size
            if total > MOST_TOLD_BYTES:
                break
            paths.append(folder / f"told-{day}.parquet")
            if not paths[-1].exists():
                self.storage.download(found[day].key, paths[-1])
        return paths

    def labels(self, since: datetime, folder: Path) -> LabelsFile:
        """The label of each prediction of `since` or later, as far as it is known; and some of earlier ones."""
        return last_words(self.words(since, folder), self.spec, to=folder / "labels.parquet")

    def keep(self, said: Path, day: date, folder: Path) -> None:
        """Add words that arrived on a day to what is kept, and to what waits for a join."""

        def add(before: Path | None, to: Path) -> bool:
            merge([said] if before is None else [before, said], self.spec, to=to)
            return True

        for name in (f"told/{day}.parquet", WAITING):
            self.grow(key(self.spec.model, "labelled", name), add, folder)

    def session(self, folder: Path, *, now: datetime) -> "Session":
        """One join; `folder` takes what it downloads and makes, and the caller clears it."""
        return Session(labelled=self, folder=folder, now=now.astimezone(UTC))

    def grow(self, target: str, change: "Change", folder: Path) -> Path | None:
        """Replace an object by what `change` makes of it, unless that is the same; its content, None where nothing is.

        `change` takes what is there (None: nothing) and where to write, and says whether that is worth keeping.
        """
        before, after = folder / "before.parquet", folder / "after.parquet"
        for _ in range(_ATTEMPTS):
            etag = self.storage.download(target, before).etag if self.storage.exists(target) else None
            if not change(before if etag else None, after):
                return None
            same = etag is not None and filecmp.cmp(before, after, shallow=False)
            if same or self.storage.replace(target, after, etag=etag):
                return after
        raise LabelledBusyError(f"{target} was replaced by others {_ATTEMPTS} times meanwhile")


class Change(Protocol):
    def __call__(self, before: Path | None, to: Path, /) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Day:
    """What was predicted on a day: by every variant as a table, and the champion's captured files."""

    predicted: Path
    champion: Sequence[Path]


@dataclass(kw_only=True)
class Session:
    """Days of predictions, fetched as they are needed, newest first, as far as `MOST_CAPTURED_BYTES` go.

    Not `complete`: there were more of them.
    """

    labelled: Labelled
    folder: Path
    now: datetime
    complete: bool = True
    _left: int = MOST_CAPTURED_BYTES
    _days: dict[date, Day] = field(default_factory=dict)
    _joined: dict[date, tuple[Path, Joined]] = field(default_factory=dict)

    @property
    def spec(self) -> ModelSpec:
        return self.labelled.spec

    def find(self, said: Path, count: int) -> int:
        """How many of the `count` predictions that words speak of were captured, looking back until all are found."""
        found, today = 0, self.now.date()
        for back in range(LOOK_BACK.days + 1):
            # Yesterday too, whatever is found: labels may wait that came before what they are about was captured.
            if back > 1 and found >= count:
                break
            if day := self._fetch(today - back * _DAY):
                joined = self._before(today - back * _DAY)
                found += labelled.told_of(day.predicted, joined, said, self.spec)
        return min(found, count)

    def waiting(self) -> Path | None:
        """The words that no join has seen, or none that had to find what they are about; None when there are none."""
        target, path = key(self.spec.model, "labelled", WAITING), self.folder / WAITING
        if not self.labelled.storage.exists(target):
            return None
        self.labelled.storage.download(target, path)
        return path if predictions_of(path) else None

    def settle(self, seen: Path) -> None:
        """Let words wait no more that were joined, or whose predictions would have been captured by now."""
        joined = [path for path, _ in self._joined.values()]

        def drop(waiting: Path | None, to: Path) -> bool:
            if waiting:
                still_waiting(waiting, seen, joined, since=self.now - LATE, to=to)
            return waiting is not None

        self.labelled.grow(key(self.spec.model, "labelled", WAITING), drop, self._place("settled"))

    def disagreement(self, said: Path, count: int, *, name: str) -> str | None:
        """Why words cannot be about what the champion predicts.

        What that is the last join knows; captured files, which may be many, are asked where it speaks against them.
        """
        if self.spec.task is not Task.BINARY:
            return None
        storage, target = self.labelled.storage, key(self.spec.model, "labelled", CLASSES)
        known = json.loads(storage.read(target)) if storage.exists(target) else []
        if known and not disagreement(said, known, self.spec, name=name):
            return None
        self.find(said, count)
        return disagreement(said, self.classes, self.spec, name=name)

    @property
    def classes(self) -> frozenset[str]:
        """Some of the labels that the champion predicted."""
        return labelled.classes([day.predicted for day in self._days.values()], variant=CHAMPION)

    def join(self) -> None:
        """Join all days that were fetched with all words."""
        for day in sorted(self._days):
            self._join(day)
        if self.spec.task is Task.BINARY and (classes := sorted(self.classes)):
            self.labelled.storage.write(key(self.spec.model, "labelled", CLASSES), json.dumps(classes))

    def quality(self, *, live: datetime | None, registered: Evaluation | None) -> Quality | None:
        """Of the champion's newest labelled predictions since it went `live`; None when it has none.

        They are those of twice `monitor.labels.within`, to the newest that has a label: in the older half all should
        have one, so that what is labelled quickly does not speak for all.
        """
        end = self._newest(live)
        if end is None:
            return None
        start = end - self.spec.monitor.labels.reach
        start = max(start, live) if live else start
        days = self._between(start, end)
        for day in days:
            self._join(day)
        champion = [path for day in days for path in self._days[day].champion]
        source = Source.captured(*champion, since=start, until=end + timedelta(microseconds=1))
        labels = labelled.labels_about(
            [self._days[day].predicted for day in days],
            self.labelled.words(start, self._place("told")),
            self.spec,
            variant=CHAMPION,
            to=self.folder / "labels.parquet",
        )
        return join(source, [labels], self.spec, registered=registered)

    def hard_cases(self, *, live: datetime | None) -> HardCases:
        """Of what was fetched of the live champion."""
        since = max(live, _midnight(min(self._days))) if live and self._days else live or self.now - 2 * _DAY
        paths = [day.predicted for day in self._days.values()]
        told = self.labelled.words(since, self._place("told"))
        return labelled.hard_cases(paths, told, self.spec, variant=CHAMPION, since=since, until=self.now)

    def publish(self) -> list[str]:
        """Upload the joined rows of each day as training data, where they are not what they were; their keys."""
        published, storage = [], self.labelled.storage
        for day, (path, joined) in sorted(self._joined.items()):
            made = self._place(str(day)) / "dataset.parquet"
            rows, state = labelled.dataset(path, self.spec, number=joined.number, to=made)
            last = max((file.key for file in storage.list(feedback.folder_of(self.spec.model, day))), default="")
            target = feedback.dataset_key(self.spec.model, day, number=joined.number, state=state)
            if rows and target > last and not last.endswith(f"-{state}.parquet"):
                storage.replace(target, made, etag=None)
                published.append(target)
        return published

    # --- days

    def _fetch(self, day: date) -> Day | None:
        """None when nothing was captured on that day, or ever joined."""
        if day in self._days:
            return self._days[day]
        start, end = _midnight(day), _midnight(day + _DAY)
        paths: dict[str, list[Path]] = {}
        for variant in VARIANTS:
            captures = replace(self.labelled.captures, variant=variant)
            files = list(self._affordable(captures.of_day(day)))
            if files:
                paths[variant] = captures.fetch(files, self._place(f"{day}-{variant}"))
        if not paths and not self.labelled.storage.exists(self._key(day)):
            return None
        predicted = self._place(str(day)) / "predicted.parquet"
        sources = {variant: Source.captured(*found, since=start, until=end) for variant, found in paths.items()}
        labelled.predictions(sources, self.spec, to=predicted)
        for variant, found in paths.items():
            for path in found if variant != CHAMPION else ():
                path.unlink()
        self._days[day] = Day(predicted=predicted, champion=paths.get(CHAMPION, []))
        return self._days[day]

    def _affordable(self, files: Sequence[StoredObject]) -> Iterator[StoredObject]:
        for file in sorted(files, key=lambda file: file.key, reverse=True):
            if file.size > self._left:
                self.complete = False
                return
            self._left -= file.size
            yield file

    def _between(self, start: datetime, end: datetime) -> list[date]:
        """Days of that time on which something was predicted."""
        days = ((end - back * _DAY).date() for back in range((end.date() - start.date()).days + 1))
        return [day for day in days if self._fetch(day)]

    def _before(self, day: date) -> Path | None:
        target, path = self._key(day), self._place(str(day)) / "joined-before.parquet"
        if not self.labelled.storage.exists(target):
            return None
        self.labelled.storage.download(target, path)
        return path

    def _join(self, day: date) -> None:
        if day in self._joined:
            return
        told = self.labelled.words(_midnight(day), self._place("told"))
        after: Joined | None = None

        def change(known: Path | None, to: Path) -> bool:
            nonlocal after
            after = labelled.join_day(self._days[day].predicted, told, known, self.spec, to=to)
            return after.rows > 0

        path = self.labelled.grow(self._key(day), change, self._place(str(day)))
        if path and after:
            self._joined[day] = path, after

    def _newest(self, live: datetime | None) -> datetime | None:
        """When the newest of the champion's predictions that have a label was made."""
        paths = [path for path, _ in self._joined.values()]
        return labelled.newest(paths, variant=CHAMPION, since=live)

    def _key(self, day: date) -> str:
        return key(self.spec.model, "labelled", f"joined/{day}.parquet")

    def _place(self, name: str) -> Path:
        return _folder(self.folder, name)


def _earliest(since: datetime) -> date:
    """The day on which labels of that time's predictions may first have come: clocks differ a little."""
    return (since.astimezone(UTC) - LATE).date()


def _day_of(file: StoredObject) -> date:
    return date.fromisoformat(Path(file.key).stem)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(exist_ok=True)
    return folder
