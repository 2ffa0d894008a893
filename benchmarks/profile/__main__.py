"""Runs the comparison: `python -m benchmarks.profile [--rounds N] [--only NAME …] [--out FILE]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.profile import data, measure, report, window
from benchmarks.profile.contenders import BARE, HOME, NORIA, OTHERS, STARTS, Contender
from benchmarks.profile.report import CASES, Case
from benchmarks.serving.report import Machine
from local.cloud import REPOSITORY

FILES = HOME / "profile-data"
LIMIT = 1200.0
GROWING = (1_000_000, 3_000_000, 30_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.profile", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of the quick programs; the slow ones run once")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these, beside Noria and the bare scan")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    options = parser.parse_args()
    others = [one for one in OTHERS if options.only is None or one.name in options.only]
    failures: list[str] = []
    for one in list(others):
        try:
            one.install()
        except OSError as problem:
            others.remove(one)
            failures.append(f"{one.name} could not be installed: {problem}")
    for case in CASES:
        _files(case)
    growing = {rows: data.file(FILES, "current", rows=rows) for rows in GROWING}
    machine = Machine.now()
    results: dict[str, dict[str, list[measure.Run]]] = {}
    for case in CASES:
        # Libraries read either format with pandas: one is enough to compare with.
        chosen = [BARE, NORIA, *(one for one in others if case is CASES[0] or not one.slow)]
        results[case.name] = _compare(case, chosen, options.rounds, failures)
    starts = _starts(options.rounds, failures)
    reference = data.file(FILES, "reference", rows=data.REFERENCE)
    memory = {
        rows: run
        for rows, file in growing.items()
        if (run := _run(NORIA, (reference, file), f"{rows:,} rows", failures))
    }
    warm = window.seconds(reference, FILES)
    options.out.write_text(
        report.markdown(results, memory, warm, machine, failures=failures, starts=starts), encoding="utf-8"
    )
    print(f"· {options.out}")


def _files(case: Case) -> tuple[Path, Path]:
    reference, current = (
        data.file(FILES, name, rows=rows, kind=case.kind, continuous=case.continuous)
        for name, rows in (("reference", data.REFERENCE), ("current", data.CURRENT))
    )
    return reference, current


def _compare(case: Case, chosen: Sequence[Contender], rounds: int, failures: list[str]) -> dict[str, list[measure.Run]]:
    """Every program once a round, so that what others do to the machine meets all of them."""
    runs: dict[str, list[measure.Run]] = {one.name: [] for one in chosen}
    for turn in range(rounds):
        for one in chosen:
            if turn and (one.slow or not runs[one.name]):
                continue
            if run := _run(one, _files(case), case.name, failures):
                runs[one.name].append(run)
    return runs


def _starts(rounds: int, failures: list[str]) -> dict[str, list[measure.Run]]:
    runs: dict[str, list[measure.Run]] = {name: [] for name in STARTS}
    for _ in range(rounds):
        for name, one in STARTS.items():
            if run := _run(one, (), "start", failures):
                runs[name].append(run)
    return runs


def _run(one: Contender, files: tuple[Path, ...], where: str, failures: list[str]) -> measure.Run | None:
    command = [*one.command, *(file.resolve() for file in files)]
    try:
        run = measure.run(command, folder=REPOSITORY, says="17", limit=LIMIT)
    except measure.Failed as problem:
        failures.append(f"{one.name}, {where}: {problem}")
        print(f"  {failures[-1]}", flush=True)
        return None
    print(f"  {where}, {one.name}: {run.wall:.2f} s, {run.processor:.2f} s, {run.memory / 1e6:.0f} MB", flush=True)
    return run


if __name__ == "__main__":
    main()
