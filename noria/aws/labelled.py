"""What is known of labels, in the data bucket; everything here is made from what lies under labels/ and captured/.

| object                                     | holds                                                                  |
|--------------------------------------------|------------------------------------------------------------------------|
| `<model>/labelled/told/<day>.parquet`      | every word that arrived that day (noria.labels.words)                  |
| `<model>/labelled/joined/<day>.parquet`    | the predictions of that day that have a label, of every variant        |
| `<model>/labelled/waiting.parquet`         | the words that are not joined yet, or whose predictions may come late  |
| `<model>/labelled/classes.json`            | what labels of a binary classification are called, as far as is known  |
| `<model>/labelled/looked.json`             | how far back the words that wait were looked for, where a join stopped |
| `<model>/incoming/labelled/<day>/….parquet`| these as training data, again as they grow (noria.feedback)            |

The first two only ever grow, by union, and are replaced only where nobody else did meanwhile: whoever writes, in
whichever order and however often, ends with the same. A word leaves those that wait only after a join that saw it, so
that whoever dies leaves nothing unjoined. Days are UTC.
"""

import filecmp
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from noria import feedback, labelled
from noria.aws.captures import LATE, Captures
from noria.aws.endpoints import CHAMPION
from noria.aws.storage import Storage, StoredObject
from noria.evaluation import Evaluation
from noria.labelled import HardCases, Joined
from noria.labels import (
    Coverage,
    Foreign,
    LabelsError,
    LabelsFile,
    arrived_since,
    coverage,
    disagreement,
    last_words,
    merge,
    other_class,
    predictions_of,
    sift,
    still_waiting,
)
from noria.monitors import Unknown
from noria.names import key
from noria.profile import Source
from noria.quality import Quality, join
from noria.spec import ModelSpec, Task
from noria.units import format_duration
from noria.watch import LOOK_BACK

VARIANTS = (CHAMPION, "challenger", "shadow")

MOST_CAPTURED_BYTES = 2 * 2**30
"""Of captured requests, the newest days first: more would not fit beside the rest onto a function's disk."""

MOST_TOLD_BYTES = 2**30
"""Of words that are read at once, the newest first; about twenty million."""

MOST_COVERED_BYTES = 2**30
"""Of captured requests whose coverage is looked at: what comes after the first gigabyte has labels as it has."""

MOST_DISK_BYTES = 5 * 2**30
"""Of all that a join has on disk when it looks at one more day: half of a function's, since DuckDB writes aside too."""

LOOKING = timedelta(minutes=5)
"""How long a join looks back for what words are about, of a function's 15; the next goes on where it stopped."""

WAITING, CLASSES, LOOKED = "waiting.parquet", "classes.json", "looked.json"

_ATTEMPTS = 8
_JOINED = "joined"
_DAY, _INSTANT = timedelta(days=1), timedelta(microseconds=1)


class LabelledBusyError(RuntimeError):
    """Others wrote faster each time; the caller's message comes again."""


class Told(NamedTuple):
    """Files of words: all that are about predictions of `since` or later; and which objects told of other classes."""

    files: Sequence[Path]
    since: datetime
    foreign: Sequence[Foreign] = ()

    def all_of(self, since: datetime) -> Sequence[Path]:
        """Raises `LabelsError` where words about predictions of that time are missing."""
        if self.since > since:
            problem = (
                f"more than {MOST_TOLD_BYTES:,} bytes of labels came since {since:%Y-%m-%d}, and those before "
                f"{self.since:%Y-%m-%d} cannot be read with them: tell each outcome once"
            )
            raise LabelsError([problem])
        return self.files


class Due(NamedTuple):
    """Captured predictions of [since, until), whose labels should all be known by now, and files of words.

    Not `complete`: these are the first of them.
    """

    predicted: Source
    told: Sequence[Path]
    since: datetime
    until: datetime
    folder: Path
    complete: bool


@dataclass(frozen=True, kw_only=True)
class Labelled:
    spec: ModelSpec
    captures: Captures
    storage: Storage

    def due(self, *, until: datetime, folder: Path) -> "Due":
        """The champion's predictions that have lately become old enough to have a label, and what labels say.

        Old enough is `monitor.labels.within` before `until`; lately, the length of the windows that an alarm looks at
        (`monitor.every` times those of `monitor.when`). `folder` takes what is downloaded; the caller clears it. Raises
        `LabelsError` where there are more labels than can be read.
        """
        watch = self.spec.monitor
        end = until.astimezone(UTC) - watch.labels.within
        start = end - watch.every * watch.when.of
        here = subfolder(folder, "due")
        files, complete = self.captures.first(start, end, most_bytes=MOST_COVERED_BYTES)
        captured = self.captures.fetch(files, subfolder(here, "captured"))
        told = self.words(start, subfolder(here, "told")).all_of(start)
        source = Source.captured(*captured, since=start, until=end)
        return Due(source, told, start, end, here, complete)

    def coverage(self, due: "Due") -> Coverage:
        """How many of those predictions have a label."""
        predictions, labelled, p50, p95 = coverage(due.predicted, due.told, self.spec)
        return Coverage(
            since=due.since,
            until=due.until,
            predictions=predictions,
            labelled=labelled,
            delay_p50_hours=p50,
            delay_p95_hours=p95,
        )

    def words(self, since: datetime, folder: Path, *, sifted: bool = True) -> Told:
        """All words that arrived on the day of `since` or later, newest first: a label comes after its prediction.

        What `folder` has already is not fetched again. Where the two classes of the labels are known, words of others
        are left out, if `sifted`: they came before anybody could know.
        """
        found = {_day_of(file): file for file in self.storage.list(key(self.spec.model, "labelled", "told/"))}
        paths: list[Path] = []
        foreign: list[Foreign] = []
        total, classes = 0, self.classes() if sifted else ()
        for day in sorted((day for day in found if day >= _earliest(since)), reverse=True):
            total += found[day].size
            if total > MOST_TOLD_BYTES:
                return Told(paths, max(since, _midnight(day + _DAY) + LATE), foreign)
            paths.append(folder / f"told-{day}.parquet")
            if not paths[-1].exists():
                self.storage.download(found[day].key, paths[-1])
                foreign += sift(paths[-1], classes, self.spec) if len(classes) == 2 else []
        return Told(paths, since, foreign)

    def labels(self, since: datetime, folder: Path) -> LabelsFile:
        """The label of each prediction of `since` or later, as far as it is known; and some of earlier ones.

        Raises `LabelsError` where there are more labels than can be read.
        """
        return last_words(self.words(since, folder).all_of(since), self.spec, to=folder / "labels.parquet")

    def classes(self) -> Sequence[str]:
        """What the labels of a binary classification are called, as far as the last join knew."""
        return tuple(self.known())

    def known(self) -> dict[str, bool]:
        """Those classes, and whether the champion was seen to predict each: one that is merely told of is a guess."""
        target = key(self.spec.model, "labelled", CLASSES)
        if self.spec.task is not Task.BINARY or not self.storage.exists(target):
            return {}
        known: dict[str, bool] = json.loads(self.storage.read(target))
        return known

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
    """What was predicted on a day: by every variant as a table, and the champion's captured files by their keys."""

    predicted: Path
    champion: Mapping[str, Path]


class Looked(NamedTuple):
    """Where a look back stopped: days from `before` on were looked at for all words that arrived before `at`.

    `cut`: of one of them more was captured than could be read.
    """

    before: date
    at: datetime
    cut: bool = False


@dataclass(kw_only=True)
class Session:
    """Days of predictions, fetched as they are needed, newest first, as far as `MOST_CAPTURED_BYTES` go.

    Not `complete`: there was more than could be looked at. `given_up`: of how many predictions the labels are looked
    for no more, though some day of which more was captured than can be read may hold them. `foreign`: objects that told
    of classes which the model does not have.
    """

    labelled: Labelled
    folder: Path
    now: datetime
    complete: bool = True
    given_up: int = 0
    foreign: dict[str, Foreign] = field(default_factory=dict)
    _left: int = field(default_factory=lambda: MOST_CAPTURED_BYTES)
    _ends: float = field(default_factory=lambda: time.monotonic() + LOOKING.total_seconds())
    _goes_on: bool = False
    _cut: bool = False
    _days: dict[date, Day] = field(default_factory=dict)
    _there: dict[str, frozenset[date]] = field(default_factory=dict)
    _joined: dict[date, tuple[Path, Joined]] = field(default_factory=dict)

    @property
    def spec(self) -> ModelSpec:
        return self.labelled.spec

    def find(self, said: Path, count: int) -> int:
        """How many of the `count` predictions that words speak of were captured.

        Today's and yesterday's are looked at in any case, since labels may wait that came before what they are about
        was captured; then the days before, until all are found. That takes no longer than `LOOKING` and no more than
        there is room for: the next join goes on where this one stopped.
        """
        today, looked = self.now.date(), self._looked()
        days = [today - back * _DAY for back in range(LOOK_BACK.days + 1)]
        earlier = [day for day in days[2:] if looked is None or day < looked.before]
        self._cut |= looked is not None and looked.cut
        before = self._cut
        found, rest = self._look(days[:2], said)
        self._left = max(self._left, MOST_CAPTURED_BYTES // 2)  # however much these two were
        for place, day in enumerate(earlier):
            if found >= count:
                break
            # One day at least, so that it comes to an end; another that was too large for the rest is looked at anew.
            if place and self._spent():
                anew = self._left <= 0 and place > 1
                cut = before if anew else self._cut
                self._stop(Looked(earlier[place - anew] + _DAY, looked.at if looked else self.now, cut))
                return found
            before = self._cut
            more, rest = self._look([day], rest)
            found += more
        # What came while others were looked for has its own look back.
        missed = looked is not None and found < count and arrived_since(rest, looked.at)
        self._stop(Looked(days[1], self.now, self._cut) if missed else None)
        if self._cut and not missed:
            self.given_up = count - found
            self.complete &= not self.given_up
        return found

    def waiting(self) -> Path | None:
        """The words that no join has seen, or none that had to find what they are about; None when there are none."""
        target, path = key(self.spec.model, "labelled", WAITING), self.folder / WAITING
        if not self.labelled.storage.exists(target):
            return None
        self.labelled.storage.download(target, path)
        return path if predictions_of(path) else None

    def settle(self, seen: Path) -> None:
        """Let words wait no more that were joined, or were looked for when what they are about had been captured."""
        joined = [path for path, _ in self._joined.values()]
        since = _midnight(date.min) if self._goes_on else self.now - LATE

        def drop(waiting: Path | None, to: Path) -> bool:
            if waiting:
                still_waiting(waiting, seen, joined, self.spec, since=since, to=to)
            return waiting is not None

        self.labelled.grow(key(self.spec.model, "labelled", WAITING), drop, self._place("settled"))

    def disagreement(self, said: Path, *, name: str) -> str | None:
        """Why words cannot be about what the champion predicts.

        What that is the last join knows; captured files, which may be many, are asked where it speaks against them.
        """
        if self.spec.task is not Task.BINARY:
            return None
        known = self.labelled.classes()
        if known and not disagreement(said, known, self.spec, name=name):
            return None
        for back in range(LOOK_BACK.days + 1):
            if len(self.classes) > 1 or self._spent():
                break
            self._fetch(self.now.date() - back * _DAY)
        return disagreement(said, self.classes, self.spec, name=name)

    @property
    def classes(self) -> frozenset[str]:
        """Some of the labels that the champion predicted."""
        return labelled.classes([day.predicted for day in self._days.values()], variant=CHAMPION)

    def join(self) -> None:
        """Join all days that were fetched with all words."""
        if self.spec.task is Task.BINARY and (classes := self._both(self.classes)):
            text = json.dumps(classes, sort_keys=True)
            self.labelled.storage.write(key(self.spec.model, "labelled", CLASSES), text)
        for day in sorted(self._days):
            self._join(day)

    def quality(self, *, live: datetime | None, registered: Evaluation | None) -> Quality | Unknown:
        """Of the champion's labelled predictions since it went `live` that can be judged.

        They are those of twice `monitor.labels.within`, to the newest that has a label, but for those that are younger
        than it and came after one that still waits for its label (`noria.labelled.judged_until`).
        """
        newest = self._newest(live)
        if newest is None:
            return Unknown(reason="no label belongs to a captured prediction of the live version")
        end, within = newest + _INSTANT, self.spec.monitor.labels.within
        start = max(filter(None, (newest - self.spec.monitor.labels.reach, live)))
        days = self._between(start, end)
        for day in days:
            self._join(day)
        told = self._words(start)
        start, made = max(start, told.since), [self._days[day].predicted for day in days]
        until = labelled.judged_until(
            made, told.files, self.spec, variant=CHAMPION, since=start, settled=self.now - within
        )
        end = min(end, until or end)
        champion: dict[str, Path] = {}
        for day in days:
            champion |= self._days[day].champion
        files = self.labelled.captures.within(champion, start, end)
        source = Source.captured(*(champion[file] for file in sorted(files)), since=start, until=end)
        labels = labelled.labels_about(
            made,
            told.files,
            self.spec,
            variant=CHAMPION,
            since=start,
            until=end,
            to=self.folder / "labels.parquet",
        )
        quality = join(source, [labels], self.spec, registered=registered)
        if until and not quality.matched:
            return Unknown(
                reason=f"all predictions that have a label are younger than {format_duration(within)} "
                "(monitor.labels.within) and came after others that still wait for theirs: outcomes that are known "
                "early must not speak for those that are known late"
            )
        return quality

    def hard_cases(self, *, live: datetime | None) -> HardCases:
        """Of what was fetched of the live champion."""
        since = max(live, _midnight(min(self._days))) if live and self._days else live or self.now - 2 * _DAY
        paths = [day.predicted for day in self._days.values()]
        told = self._words(since).files
        return labelled.hard_cases(paths, told, self.spec, variant=CHAMPION, since=since, until=self.now)

    def publish(self) -> list[str]:
        """Upload the joined rows of each day as training data, where they are not what they were; the keys of all.

        A day's change with those of the day before, from which is learnt what was asked on both.
        """
        published, storage = [], self.labelled.storage
        for day in sorted({*self._joined, *(day + _DAY for day in self._joined)}):
            table, earlier = self._table(day), self._table(day - _DAY)
            if table is None:
                continue
            path, before = earlier or (None, Joined(rows=0, number=0, state=""))
            made, number = self._place(str(day)) / "dataset.parquet", table[1].number + before.number
            rows, state = labelled.dataset(table[0], path, self.spec, number=number, to=made)
            last = max((file.key for file in storage.list(feedback.folder_of(self.spec.model, day))), default="")
            target = feedback.dataset_key(self.spec.model, day, number=number, state=state)
            if rows and last.endswith(f"-{state}.parquet"):
                published.append(last)
            elif rows and target > last:
                storage.replace(target, made, etag=None)
                published.append(target)
        return published

    # --- words

    def _words(self, since: datetime) -> Told:
        told = self.labelled.words(since, self._place("told"))
        self.complete &= told.since <= since
        self.foreign |= {each.version: each for each in told.foreign}
        return told

    def _both(self, predicted: frozenset[str]) -> dict[str, bool]:
        """The classes that labels may be of, as `Labelled.known`: where one was predicted, the other may be guessed."""
        seen = dict.fromkeys(predicted, True)
        if len(predicted) != 1:
            return seen
        known = self.labelled.known()
        if predicted < {*known} and all(known[name] for name in {*known} - predicted):
            return known | seen
        told = self.labelled.words(_midnight(min(self._days)), self._place("unsifted"), sifted=False)
        (only,) = predicted
        if other := other_class(told.files, only, self.spec):
            return seen | {other: False}
        return known | seen if predicted < {*known} and len(known) == 2 else seen

    # --- days

    def _look(self, days: Sequence[date], said: Path) -> tuple[int, Path]:
        """How many predictions of `said` were made on those days, and the words about others."""
        found = 0
        for day in days:
            made = self._fetch(day)
            if made is None:
                continue
            joined, rest = self._before(day), self._place("rest") / f"{day}.parquet"
            more = labelled.found_of(made.predicted, joined, said, self.spec, rest=rest)
            found, said = found + more, rest
            if joined:
                joined.unlink()
            if not more and self.now - _midnight(day) > self.spec.monitor.labels.reach + _DAY:
                self._forget(day)
        return found, said

    def _looked(self) -> Looked | None:
        target = key(self.spec.model, "labelled", LOOKED)
        stored = json.loads(self.labelled.storage.read(target)) if self.labelled.storage.exists(target) else None
        if not stored:
            return None
        return Looked(date.fromisoformat(stored["before"]), datetime.fromisoformat(stored["at"]), stored["cut"])

    def _stop(self, looked: Looked | None) -> None:
        """Note where the next look back begins; None: at the newest day, which is also where the first began."""
        self._goes_on = looked is not None
        self.complete &= looked is None
        target = key(self.spec.model, "labelled", LOOKED)
        if looked or self.labelled.storage.exists(target):
            stored = {"before": str(looked.before), "at": looked.at.isoformat(), "cut": looked.cut} if looked else None
            self.labelled.storage.write(target, json.dumps(stored))

    def _spent(self) -> bool:
        """Whether a look back has taken its time, or its room on disk."""
        used = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        return time.monotonic() > self._ends or used > MOST_DISK_BYTES or self._left <= 0

    def _fetch(self, day: date) -> Day | None:
        """None when nothing was captured on that day, or ever joined."""
        if day in self._days:
            return self._days[day]
        start, end = _midnight(day), _midnight(day + _DAY)
        paths: dict[str, dict[str, Path]] = {}
        known = {file: path for other in self._days.values() for file, path in other.champion.items()}
        for variant in VARIANTS:
            if day not in self._made(variant):
                continue
            captures = replace(self.labelled.captures, variant=variant)
            listed = captures.of_day(day)
            files = list(self._affordable([file for file in listed if file.key not in known]))
            fetched = captures.fetch(files, self._place(f"{day}-{variant}"))
            found = {file.key: path for file, path in zip(files, fetched, strict=True)}
            found |= {file.key: known[file.key] for file in listed if file.key in known}
            if found:
                paths[variant] = found
        if not paths and day not in self._made(_JOINED):
            return None
        predicted = self._place(str(day)) / "predicted.parquet"
        sources = {
            variant: Source.captured(*found.values(), since=start, until=end) for variant, found in paths.items()
        }
        labelled.predictions(sources, self.spec, to=predicted)
        for variant, found in paths.items():
            for path in found.values() if variant != CHAMPION else ():
                path.unlink()
        self._days[day] = Day(predicted=predicted, champion=paths.get(CHAMPION, {}))
        return self._days[day]

    def _made(self, kind: str) -> frozenset[date]:
        """Days of which there may be requests of a variant, or are joined ones, as the session found them."""
        if kind not in self._there:
            if kind == _JOINED:
                tables = self.labelled.storage.list(key(self.spec.model, "labelled", "joined/"))
                self._there[kind] = frozenset(_day_of(file) for file in tables)
            else:
                # Quality looks back from what was found, as far again.
                today, captures = self.now.date(), replace(self.labelled.captures, variant=kind)
                self._there[kind] = captures.days(today - 2 * LOOK_BACK, today)
        return self._there[kind]

    def _forget(self, day: date) -> None:
        """Take a day from the disk, but files that another needs."""
        gone = self._days.pop(day)
        needed = {path for other in self._days.values() for path in other.champion.values()}
        for path in {*gone.champion.values()} - needed:
            path.unlink()
        shutil.rmtree(self._place(str(day)))

    def _affordable(self, files: Sequence[StoredObject]) -> Iterator[StoredObject]:
        for file in sorted(files, key=lambda file: file.key, reverse=True):
            if file.size > self._left:
                self.complete, self._cut, self._left = False, True, 0
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

    def _table(self, day: date) -> tuple[Path, Joined] | None:
        """The joined table of a day, as it is in the bucket now; None where nothing is joined."""
        if day not in self._joined and (path := self._before(day)):
            return path, labelled.state_of(path)
        return self._joined.get(day)

    def _join(self, day: date) -> None:
        if day in self._joined:
            return
        told = self._words(_midnight(day)).files
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
        return subfolder(self.folder, name)


def _earliest(since: datetime) -> date:
    """The day on which labels of that time's predictions may first have come: clocks differ a little."""
    return (since.astimezone(UTC) - LATE).date()


def _day_of(file: StoredObject) -> date:
    return date.fromisoformat(Path(file.key).stem)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def subfolder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(exist_ok=True)
    return folder
