"""What was measured, as a page: the best of the runs, ratios to the bare scan, and the goals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.profile.contenders import BARE, NORIA, OTHERS
from benchmarks.profile.measure import Run
from benchmarks.serving.report import Machine

HEAD = """\
# Profiles compared

Written by `make benchmark-profile`; nothing here is set by hand.

{machine.when:%Y-%m-%d %H:%M} UTC, {machine.processor}, {machine.cores} cores, {machine.memory_gb:.0f} GB,
{machine.system}. Load average before the run: {machine.load:.1f}.{busy}

3.0 million current and 0.26 million reference rows, 17 features, of real flights drawn with replacement (`data.py`).
Each program is started anew, reads both files, and says for all features whether they drifted; the time is that of the
whole process, imports included. Noria makes the reference's profile, then checks the current file's contract (types,
ranges, missing values, times, outcomes, equal rows) and compares all distributions. The bare scan adds up every column
of both files. Of several runs the fastest counts, as others can only make one slower. What each of the others is asked
is the program of its name in `peers/`, beside its pinned packages."""
BUSY = """ Others used the machine: these numbers
are preliminary. Processor time suffers less than time on the clock, and so the ratios of both are given."""


FLOOR = """\
## What no scan can change

A program that reads no file takes time too: Python, DuckDB, and of Noria pydantic and the model's spec. "At best" is
Noria's start and then the bare scan's own time after its start: with no statistics at all, Noria could not be faster.
What is left after both starts compares the reading and all statistics with the reading alone."""


@dataclass(frozen=True)
class Case:
    """One pair of files: what it is called, and how many times the bare scan Noria may take."""

    name: str
    kind: str = "parquet"
    continuous: bool = False
    goal: float = 1.5


CASES = (Case("Parquet"), Case("Parquet, continuous", continuous=True, goal=2.0), Case("CSV", kind="csv", goal=1.3))

Results = Mapping[str, Mapping[str, Sequence[Run]]]
"""Runs by case and contender."""


def markdown(
    results: Results,
    memory: Mapping[int, Run],
    window: float,
    machine: Machine,
    *,
    failures: Sequence[str],
    starts: Mapping[str, Sequence[Run]],
) -> str:
    parts = [HEAD.format(machine=machine, busy=BUSY if machine.load > 0.5 else "")]
    parts += [_table(case, results[case.name]) for case in CASES if results.get(case.name)]
    parts.append("## Memory and small windows\n\n" + "\n".join(_rest(memory, window)))
    parts.append("## Goals\n\n| goal | reached | met |\n|---|--:|---|\n" + "\n".join(_goals(results, memory, window)))
    if all(starts.get(one.name) for one in (BARE, NORIA)):
        parts.append(FLOOR + "\n\n" + "\n".join(_floors(results, starts)))
    if failures:
        parts.append("## Not measured\n\n" + "\n".join(f"- {failure}" for failure in failures))
    return "\n\n".join(parts) + "\n"


def _table(case: Case, runs: Mapping[str, Sequence[Run]]) -> str:
    bare = _best(runs[BARE.name])
    rows = [
        f"| {one.name} | {best.wall:.2f} s | {best.wall / bare.wall:.1f} | {best.processor:.2f} s | "
        f"{best.processor / bare.processor:.1f} | {best.memory / 1e6:,.0f} MB | {len(runs[one.name])} |"
        for one in (BARE, NORIA, *OTHERS)
        if runs.get(one.name) and (best := _best(runs[one.name]))
    ]
    head = (
        "| program | time | × bare scan | processor time | × bare scan | memory | runs |\n|---|--:|--:|--:|--:|--:|--:|"
    )
    return "\n".join([f"## {case.name}\n", head, *rows])


def _rest(memory: Mapping[int, Run], window: float) -> Iterator[str]:
    for rows, run in memory.items():
        yield f"- Noria, {rows:,} rows of Parquet: {run.memory / 1e6:,.0f} MB, {run.wall:.1f} s."
    yield f"- A profile of a one-file window of 10,000 captured rows, compared, warm: {window * 1000:,.0f} ms."


def _goals(results: Results, memory: Mapping[int, Run], window: float) -> Iterator[str]:
    for case in CASES:
        runs = results.get(case.name, {})
        if runs.get(NORIA.name) and runs.get(BARE.name):
            ours, bare = _best(runs[NORIA.name]), _best(runs[BARE.name])
            yield _goal(f"{case.name}: at most {case.goal:g} × the bare scan", ours.wall / bare.wall, most=case.goal)
    plain = results[CASES[0].name]
    if plain.get(NORIA.name):
        ours = _best(plain[NORIA.name])
        libraries = [_best(plain[one.name]).wall for one in OTHERS if one.library and plain.get(one.name)]
        if libraries:
            yield _goal("at least 15 × faster than the fastest library", min(libraries) / ours.wall, least=15)
        if plain.get("Evidently"):
            yield _goal("at least 150 × faster than Evidently", _best(plain["Evidently"]).wall / ours.wall, least=150)
    for rows, run in memory.items():
        yield _goal(f"under 200 MB for {rows:,} rows", run.memory / 1e6, most=200)
    yield _goal("a window of 10,000 rows in under 100 ms, warm", window * 1000, most=100)


def _floors(results: Results, starts: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    bare_start, start = (_best(starts[one.name]).wall for one in (BARE, NORIA))
    yield f"The bare scan's start takes {bare_start:.2f} s, Noria's {start:.2f} s.\n"
    yield "| files | goal, × bare scan | at best | reached | after both starts |\n|---|--:|--:|--:|--:|"
    for case in CASES:
        runs = results.get(case.name, {})
        if runs.get(NORIA.name) and runs.get(BARE.name):
            ours, bare = _best(runs[NORIA.name]).wall, _best(runs[BARE.name]).wall
            least = start + bare - bare_start
            after = (ours - start) / (bare - bare_start)
            yield f"| {case.name} | {case.goal:g} | {least / bare:.1f} | {ours / bare:.1f} | {after:.1f} |"


def _goal(name: str, reached: float, *, most: float = float("inf"), least: float = 0.0) -> str:
    return f"| {name} | {reached:,.1f} | {'yes' if least <= reached <= most else 'no'} |"


def _best(runs: Sequence[Run]) -> Run:
    return min(runs, key=lambda run: run.wall)
