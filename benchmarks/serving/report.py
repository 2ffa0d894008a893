"""What was measured, as a page: medians over the rounds, ratios to the best peer, and the goals."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Self

from benchmarks.serving.contenders import CONTENDERS, FLOOR, NORIA, PEERS, TUNED
from benchmarks.serving.measure import Load, Memory
from noria.spec import Task

HEAD = """\
# Model servers compared

Written by `make benchmark-serving`; nothing here is set by hand.

{machine.when:%Y-%m-%d %H:%M} UTC, {machine.processor}, {machine.cores} cores, {machine.memory_gb:.0f} GB,
{machine.system}. Load average before the run: {machine.load:.1f}. Where it is far above 0 others used the machine too:
absolute numbers would then be higher on a quiet one, while ratios stand, since the servers took turns. The processor
time that a server takes for a request of one row hardly depends on others.

One gradient-boosting model a task (scikit-learn's HistGradientBoosting, 100 iterations) on real flights, trained by
Noria's pipeline. Every server loads what that training wrote, and is measured only if it scores 100 rows as
scikit-learn does and fails no request. Requests are JSON over keep-alive connections, from wrk on the same machine.
Each round starts every server anew; the numbers are medians over the rounds. "Alone" is one connection; ready is the
time to the first right answer; memory of all processes counts once what they share.

wrk is not the limit: it brought {wrk} to the empty handler with {wrk_cores}."""
SETUP = """\
## How each was set up

As the documentation of each says for this many cores. Then again "tuned", with one OpenMP and one BLAS thread a
process, which none of them asks for: scikit-learn's threads make workers wait for each other's. Tuned MLServer batches
requests too, as BentoML always does here. The peers get a thin encoder of categories (`peers/tabular.py`) in place of
scikit-learn's ColumnTransformer, which would cost them more.

"""

Value = Callable[["Measured"], float]


@dataclass(frozen=True)
class Machine:
    processor: str
    cores: int
    memory_gb: float
    load: float
    """Processes that wanted a processor in the minute before the run: above 0, others worked on the machine too."""
    system: str
    when: datetime

    @classmethod
    def now(cls) -> Self:
        processors = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        names = [line.partition(":")[2].strip() for line in processors.splitlines() if line.startswith("model name")]
        return cls(
            processor=names[0] if names else platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
            load=os.getloadavg()[0],
            system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
            when=datetime.now(UTC),
        )


@dataclass(frozen=True)
class Measured:
    """One server in one round."""

    name: str
    ready: float
    single: Load
    hundred: Load
    alone: Load
    memory: Memory

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.single.per_second:,.0f}/s, {self.hundred.per_second:,.0f}/s with 100 rows, alone "
            f"p95 {self.alone.p95_ms:.2f} ms, ready in {self.ready:.2f} s, {self.memory.worker:.0f} MB"
        )


@dataclass(frozen=True)
class Goal:
    text: str
    value: float
    met: bool
    unit: str = ""

    def __str__(self) -> str:
        return f"| {self.text} | {self.value:,.2f}{self.unit} | {'met' if self.met else '**missed**'} |"


class Table:
    """The rounds of one task."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        self.names = list(dict.fromkeys(one.name for one in measured))
        self._measured = measured

    def median(self, name: str, value: Value) -> float:
        return median(self._values(name, value))

    def spread(self, name: str, value: Value) -> str:
        values = self._values(name, value)
        return f"{min(values):,.0f} to {max(values):,.0f}"

    def best_peer(self, value: Value, *, tuned: bool = False) -> tuple[str, float]:
        peers = [peer.name for peer in (TUNED if tuned else PEERS) if peer.name in self.names]
        return max(((name, self.median(name, value)) for name in peers), key=lambda pair: pair[1])

    def _values(self, name: str, value: Value) -> list[float]:
        return [value(one) for one in self._measured if one.name == name]


def single(one: Measured) -> float:
    return one.single.per_second


def hundred(one: Measured) -> float:
    return one.hundred.per_second


def p50(one: Measured) -> float:
    return one.alone.p50_ms


def p95(one: Measured) -> float:
    return one.alone.p95_ms


def processor(one: Measured) -> float:
    return one.single.server_us


def ready(one: Measured) -> float:
    return one.ready


def worker(one: Measured) -> float:
    return one.memory.worker


def server(one: Measured) -> float:
    return one.memory.server


def markdown(results: Mapping[Task, Sequence[Measured]], machine: Machine, failures: Sequence[str] = ()) -> str:
    tables = {task: Table(measured) for task, measured in results.items()}
    floor = [one.single for one in results[Task.BINARY] if one.name == FLOOR.name]
    wrk = f"{median([load.per_second for load in floor]):,.0f} requests a second"
    wrk_cores = f"{median([load.client_cores for load in floor]):.2f} of a core"
    goals = [str(goal) for task, table in tables.items() for goal in _goals(task, table)]
    parts = [
        HEAD.format(machine=machine, wrk=wrk, wrk_cores=wrk_cores),
        *(part for task, table in tables.items() for part in _section(task, table)),
        "## Goals",
        "\n".join(["| goal | measured | |", "|---|--:|---|", *goals]),
        *_beside(tables[Task.BINARY]),
        *(["## Not measured\n\n" + "\n".join(f"- {failure}" for failure in failures)] if failures else []),
        SETUP + "\n".join(f"- **{one.name}**: {one.setup}" for one in CONTENDERS if not one.tuned),
    ]
    return "\n\n".join(parts) + "\n"


def _section(task: Task, table: Table) -> list[str]:
    header = (
        "| server | 1 row, 16 connections | spread | × best peer | processor time | 100 rows | × best peer "
        f"| p50 alone | p95 alone | ready | largest process | all processes |\n|---{'|--:' * 11}|"
    )
    best, most = table.best_peer(single)[1], table.best_peer(hundred)[1]

    def row(name: str) -> str:
        def of(value: Value) -> float:
            return table.median(name, value)

        cells = (
            name,
            f"{of(single):,.0f}/s",
            table.spread(name, single),
            f"{of(single) / best:.2f}",
            f"{of(processor):,.0f} µs",
            f"{of(hundred):,.0f}/s",
            f"{of(hundred) / most:.2f}",
            f"{of(p50):.2f} ms",
            f"{of(p95):.2f} ms",
            f"{of(ready):.2f} s",
            f"{of(worker):.0f} MB",
            f"{of(server):.0f} MB",
        )
        return f"| {' | '.join(cells)} |"

    names = sorted(table.names, key=lambda name: -table.median(name, single))
    return [f"## {task.value.replace('_', ' ').capitalize()}", "\n".join([header, *map(row, names)])]


def _beside(table: Table) -> list[str]:
    """What the goals do not ask: how it stands against peers with one thread."""
    if not any(peer.name in table.names for peer in TUNED):
        return []
    ratios = []
    for value, what in ((single, "one row"), (hundred, "100 rows")):
        peer, best = table.best_peer(value, tuned=True)
        ratios.append(f"{table.median(NORIA.name, value) / best:,.2f} × {peer} with {what}")
    return [f"Beside the goals, against the best peer tuned by hand: {' and '.join(ratios)}."]


def _goals(task: Task, table: Table) -> list[Goal]:
    where = task.value.replace("_", " ")

    def noria(value: Value) -> float:
        return table.median(NORIA.name, value)

    def times(value: Value, text: str, least: float) -> Goal:
        peer, best = table.best_peer(value)
        ratio = noria(value) / best
        goal = f"{where}: at least {least:.0f} × the best peer's throughput, {text} (best: {peer})"
        return Goal(goal, ratio, ratio >= least, " ×")

    latency = noria(p95) / table.median(FLOOR.name, p95)
    return [
        times(single, "one row, 16 connections", 90),
        times(hundred, "100 rows, 16 connections", 10),
        Goal(f"{where}: p95 alone at most twice the empty handler's", latency, latency <= 2, " ×"),
        Goal(f"{where}: ready in half a second", noria(ready), noria(ready) <= 0.5, " s"),
        Goal(f"{where}: a worker under 100 MB", noria(worker), noria(worker) < 100, " MB"),
    ]
