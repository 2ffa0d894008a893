"""Counts false alarms and what is found: `python -m benchmarks.monitors [--scale N] [--processes N] [--out FILE]`."""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

from benchmarks.monitors.report import Results, markdown
from benchmarks.monitors.runs import Task, search, watch
from benchmarks.monitors.worlds import WORLDS
from benchmarks.serving.report import Machine

BASELINE = 20_000

UNCHANGED = (  # world, rows of a window, windows of each baseline, baselines
    ("flights", 500, 50, 36),
    ("flights", 5_000, 50, 4),
    ("digits", 500, 50, 12),
    ("diabetes", 500, 50, 20),
)
SHIFTED = (("flights", 500, 10), ("digits", 500, 2), ("diabetes", 500, 10))  # world, rows, trials of each feature


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.monitors", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of baselines and trials")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    options = parser.parse_args()
    machine, start = Machine.now(), time.monotonic()
    specs = {name: world().spec for name, world in WORLDS.items()}  # before the processes fork, so that they have them
    print(f"· worlds {time.monotonic() - start:.0f} s", flush=True)
    unchanged = [
        Task(world, BASELINE, rows, windows, seed)
        for world, rows, windows, baselines in UNCHANGED
        for seed in range(max(1, round(baselines * options.scale)))
    ]
    shifted = [
        Task(world, BASELINE, rows, max(1, round(trials * options.scale)), 1_000) for world, rows, trials in SHIFTED
    ]
    with (
        tempfile.TemporaryDirectory(prefix="noria-benchmark-") as tempfile.tempdir,  # also that of killed workers
        multiprocessing.get_context("fork").Pool(options.processes) as pool,
    ):
        said = []
        for one in pool.imap(watch, unchanged):
            said.append(one)
            print(f"· {len(said)} of {len(unchanged)} baselines, {time.monotonic() - start:.0f} s", flush=True)
        found = pool.map(search, shifted, chunksize=1)
    page = markdown(Results(specs, said, found, time.monotonic() - start), machine)
    options.out.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
