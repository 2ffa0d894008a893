"""A flood of uploads: most of one model, some of another, some of them broken; and what became of each.

Flood.send()      the uploads, from several threads, as fast as they go
Flood.outcome()   what each acknowledged one ended as, and how the platform bore it
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from local.demo.story import Unexpected
from local.demo.world import World
from noria.ledger import Entry, Kind

ROWS = 20
SENDERS = 8
BROKEN = 100
"""One upload in so many is broken."""
LOUD = 10
"""So many uploads of the loud model come before one of the quiet model."""

_ENDS = (Kind.DATASET_ACCEPTED, Kind.DATASET_QUARANTINED)


def mixed(lines: Sequence[str], target: str) -> list[str]:
    """The header, and rows that take turns in their outcome and lack no value: the contract refuses a file that has
    but one outcome, and one that has too many gaps."""
    column = lines[0].split(",").index(target)
    rows = [(line, values) for line in lines[1:] if "" not in (values := line.split(","))]
    late, early = ([line for line, values in rows if (values[column] == "1") is wanted] for wanted in (True, False))
    return [lines[0], *(line for pair in zip(late, early, strict=False) for line in pair)]


@dataclass(frozen=True)
class Outcome:
    """`lost` and `twice` are keys. `waited` are seconds from an upload to its outcome, the longest by model."""

    accepted: int
    quarantined: int
    lost: Sequence[str]
    twice: Sequence[str]
    wrong: Sequence[str]
    waited: dict[str, float]
    seconds: float
    most_at_once: int
    most_memory: int

    @property
    def problems(self) -> list[str]:
        return [
            *(f"{key} ended as nothing" for key in self.lost),
            *(f"{key} ended more than once" for key in self.twice),
            *(f"{key} ended otherwise than it should" for key in self.wrong),
        ]

    @property
    def text(self) -> str:
        waited = ", ".join(f"{model} {seconds:.0f} s" for model, seconds in sorted(self.waited.items()))
        return (
            f"{self.accepted} accepted, {self.quarantined} in quarantine, {len(self.lost)} lost, {self.seconds:.0f} s; "
            f"the longest wait: {waited}; {self.most_at_once} at once at most; "
            f"{self.most_memory / 2**20:.0f} MiB in the cloud's processes at most"
        )


@dataclass
class Flood:
    """`lines` are a CSV of the models' contract, header first. No two uploads have the same rows: each is a dataset."""

    loud: World
    quiet: World
    lines: Sequence[str]
    uploads: int
    _sent: dict[str, tuple[bool, float]] = field(default_factory=dict)
    _marks: dict[str, int] = field(default_factory=dict)
    _began: float = 0.0

    def __post_init__(self) -> None:
        if self.uploads > len(self.lines) - ROWS:
            raise ValueError(f"{self.uploads} uploads of {ROWS} rows each need more than {len(self.lines) - 1} rows")

    def send(self) -> None:
        """Put every file; what S3 acknowledged counts."""
        self._began = time.time()
        self._marks = {world.model: world.last_entry() for world in (self.loud, self.quiet)}
        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(self._put, range(self.uploads)))

    def outcome(self, *, patience: float, progress: Callable[[str], None] = lambda _: None) -> Outcome:
        """Once every acknowledged upload has ended, or `patience` (seconds) is over."""
        deadline = time.time() + patience
        queue = self.loud.names.queue("validate-upload")
        most_at_once = most_memory = 0
        while True:
            flying = self._in_flight(queue)
            most_at_once, most_memory = max(most_at_once, flying), max(most_memory, memory(self.loud.cloud.pid))
            ended = self._ended()
            progress(f"{len(ended)} of {len(self._sent)} ended")
            if set(self._sent) <= set(ended) or time.time() > deadline:
                break
            time.sleep(1)
        return self._judge(ended, most_at_once, most_memory)

    def _judge(self, ended: dict[str, list[Entry]], most_at_once: int, most_memory: int) -> Outcome:
        kinds = Counter(entry.kind for entries in ended.values() for entry in entries)
        waited: dict[str, float] = {}
        for key, entries in ended.items():
            model = key.partition("/")[0]
            waited[model] = max(waited.get(model, 0.0), entries[0].at.timestamp() - self._sent[key][1])
        return Outcome(
            accepted=kinds[Kind.DATASET_ACCEPTED],
            quarantined=kinds[Kind.DATASET_QUARANTINED],
            lost=sorted(set(self._sent) - set(ended)),
            twice=sorted(key for key, entries in ended.items() if len(entries) > 1),
            wrong=sorted(
                key for key, entries in ended.items() if (entries[0].kind is _ENDS[1]) is not self._sent[key][0]
            ),
            waited=waited,
            seconds=time.time() - self._began,
            most_at_once=most_at_once,
            most_memory=most_memory,
        )

    def _put(self, number: int) -> None:
        world = self.quiet if number % (LOUD + 1) == LOUD else self.loud
        broken = number % BROKEN == BROKEN // 2
        header = self.lines[0] + ("_renamed" if broken else "")
        body = "\n".join([header, *self.lines[1 + number : 1 + number + ROWS]]) + "\n"
        key = world.upload(f"flood/{self._began:.0f}-{number:05}.csv", body.encode())
        self._sent[key] = (broken, time.time())

    def _ended(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        for world in (self.loud, self.quiet):
            for entry in world.entries():
                if entry.number > self._marks[world.model] and entry.kind in _ENDS:
                    key = str(entry.details["key"])
                    if key in self._sent:
                        found.setdefault(key, []).append(entry)
        return found

    def _in_flight(self, queue: str) -> int:
        sqs = self.loud.client("sqs")
        name = "ApproximateNumberOfMessagesNotVisible"
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


def memory(session: int | None) -> int:
    """Bytes that a cloud and what it started hold. Source: proc(5), `stat` and `statm`."""
    if session is None:
        raise Unexpected("the cloud has ended")
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                total += int((process / "statm").read_text().split()[1]) * 4096
        except OSError:
            continue  # it has ended meanwhile
    return total
