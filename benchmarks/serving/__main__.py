"""Runs the comparison: `python -m benchmarks.serving [--rounds N] [--only NAME …] [--out FILE]`."""

import argparse
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving import measure, report
from benchmarks.serving.contenders import CONTENDERS, FLOOR, HOME, NORIA, Contender, Start
from benchmarks.serving.models import CONTAINER, Trained, trained
from benchmarks.serving.report import Machine, Measured
from local.cloud import REPOSITORY
from noria.spec import Task

PORT = 4625
ROWS_CHECKED = 100
SINGLE_ROWS, HUNDREDS = 500, 10

EXPECTED = """
import json, sys
from pathlib import Path
from benchmarks.serving.peers.tabular import Tabular
model, rows = Tabular(Path(sys.argv[1])), json.load(sys.stdin)
json.dump(model.scores({name: [row[name] for row in rows] for name in model.features}), sys.stdout)
"""


@dataclass(frozen=True)
class Ready:
    """A contender prepared for one model: its start, and files of requests with one row and with a hundred."""

    contender: Contender
    model: Trained
    start: Start
    folder: Path

    @property
    def single(self) -> Path:
        return self.folder / "single.jsonl"

    @property
    def hundred(self) -> Path:
        return self.folder / "hundred.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of the binary model; one less of the others")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these peers, beside Noria and the floor")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    options = parser.parse_args()
    chosen = [one for one in CONTENDERS if not options.only or one in (FLOOR, NORIA) or one.name in options.only]
    print("· models and environments", flush=True)
    prepared = {
        # Tuning shows with one model as well as with three.
        task: _prepare(model, [one for one in chosen if task is Task.BINARY or not one.tuned])
        for task, model in ((task, trained(task, HOME / "models" / task.value)) for task in Task)
    }
    machine = Machine.now()
    results: dict[Task, list[Measured]] = {}
    failures: list[str] = []
    for task, ready in prepared.items():
        rounds = options.rounds if task is Task.BINARY else max(1, options.rounds - 1)
        results[task] = _compare(ready, rounds, failures)
    options.out.write_text(report.markdown(results, machine, failures), encoding="utf-8")
    print(f"· {options.out}")


def _prepare(model: Trained, contenders: Sequence[Contender]) -> list[Ready]:
    ready = []
    for contender in contenders:
        folder = HOME / "runs" / model.task.value / contender.slug
        folder.mkdir(parents=True, exist_ok=True)
        one = Ready(contender, model, contender.prepare(model, folder, PORT), folder)
        singles = [model.rows[at : at + 1] for at in range(SINGLE_ROWS)]
        hundreds = [model.rows[at : at + 100] for at in range(0, HUNDREDS * 100, 100)]
        for file, requests in ((one.single, singles), (one.hundred, hundreds)):
            file.write_bytes(b"\n".join(contender.request(rows, model.task) for rows in requests))
        ready.append(one)
    return ready


def _compare(contenders: Sequence[Ready], rounds: int, failures: list[str]) -> list[Measured]:
    """Every server once a round, each round beginning with another; what could not be measured goes to `failures`."""
    expected = _scikit_learn(contenders[0].model)
    measured = []
    for turn in range(rounds):
        first = turn * len(contenders) // rounds
        for one in [*contenders[first:], *contenders[:first]]:
            where = f"{one.model.task.value}, round {turn + 1}"
            try:
                measured.append(_measure(one, expected))
                print(f"  {where}: {measured[-1]}", flush=True)
            except measure.Unfair as problem:
                failures.append(f"{where}: {problem}")
                print(f"  {failures[-1]}", flush=True)
    return measured


def _measure(one: Ready, expected: Sequence[object]) -> Measured:
    with measure.running(one.contender, one.start, one.model, PORT, one.folder / "log") as server:
        measure.check(one.contender, server, one.model, expected)
        # Afterwards every worker has loaded its model, and is warm.
        measure.load(one.contender, server, one.single, connections=16, seconds=1)
        return Measured(
            name=one.contender.name,
            ready=server.ready,
            single=measure.load(one.contender, server, one.single, connections=16, seconds=2),
            hundred=measure.load(one.contender, server, one.hundred, connections=16, seconds=1),
            alone=measure.load(one.contender, server, one.single, connections=1, seconds=1),
            memory=server.memory(),
        )


def _scikit_learn(model: Trained) -> list[Any]:
    """What the model itself says to the first rows, in the environment that trained it."""
    ran = subprocess.run(
        [CONTAINER, "-c", EXPECTED, model.bundle.resolve()],
        cwd=REPOSITORY,
        input=json.dumps(model.rows[:ROWS_CHECKED]),
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(ran.stdout))


if __name__ == "__main__":
    main()
