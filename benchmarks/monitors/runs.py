"""Monitor runs over rows that were drawn at random: the functions are those that monitor_model calls.

baseline ─ rows drawn from the world ─┐
window   ─ rows drawn from the world ─┴ captured file, labels file ─ profile, compare, contract, quality,
                                        attribution ─ findings
"""
# ruff: noqa: S608 -- SQL is built from numbers and identifiers that noria.sql quotes

import csv
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.monitors.worlds import WORLDS, Row, World
from noria import drift, explain, quality
from noria.contract import check_captured
from noria.evaluation import Evaluation, Gate, Slice
from noria.labels import LabelsFile
from noria.monitoring import Evidence, few, findings
from noria.monitors import Finding, Unknown
from noria.profile import Profile, Source, profile
from noria.sql import Resources, identifier

AT = datetime(2026, 1, 1, tzinfo=UTC)

REGISTERED = 5_000
"""Rows that quality was measured on at registration."""

ROOMY = Resources(memory_mb=4000, threads=2)

LABELLED, EXPLAINED = 5, 25
"""Every so many windows have labels, as they come seldom, and their contract checked, which knows no chance; every so
many are explained, which takes more than ten thousand answers."""


@dataclass(frozen=True)
class Task:
    """Windows of so many rows, one after another, of one baseline."""

    world: str
    baseline_rows: int
    rows: int
    windows: int
    seed: int


@dataclass(frozen=True)
class Said:
    """Of each window, by monitor: whether it breached; None where there was not enough data."""

    task: Task
    windows: Sequence[dict[str, bool | None]]

    def of(self, monitor: str) -> list[bool]:
        """Of the windows in which there was enough data."""
        return [said for window in self.windows if (said := window[monitor]) is not None]


class Bench:
    """A world with one baseline, and with quality and attribution registered; all drawn from its rows."""

    def __init__(self, world: str, *, baseline_rows: int, seed: int, folder: Path) -> None:
        self.world: World = WORLDS[world]()
        self._folder, self._chance = folder, np.random.default_rng(seed)
        self._db = duckdb.connect()
        self._db.execute("CREATE TABLE pool AS FROM read_parquet(?)", [str(self.world.table)])
        spec, drawn = self.world.spec, self._draw(baseline_rows)
        self.baseline: Profile = profile(self._files(drawn, "baseline"), spec, resources=ROOMY)
        registered = self._draw(REGISTERED)
        measured = quality.join(self._captured(registered, "registered"), [self._labels(registered)], spec)
        time = Slice(rows=REGISTERED, first_event=AT, last_event=AT)
        self._registered = Evaluation(
            model=spec.model,
            slice=time,
            trained_on=time,
            metrics=measured.overall.metrics,
            latency_p95_ms=1,
            gate=Gate(passed=True),
        )
        self._background = [self.world.rows[n] for n in self._draw(explain.BACKGROUND_ROWS)]
        self._pairs = explain.pairs_for(len(spec.features))
        most = explain.rows_for(len(spec.features), most=explain.TRAINING_ROWS, asked=explain.MOST_ASKED_AT_TRAINING)
        self._weights = self._explained(self._draw(most)) if most else {}

    def window(self, rows: int, *, labelled: bool = True, explained: bool = True) -> tuple[Finding, ...]:
        """What the monitors say of a window of rows that are drawn as the baseline was.

        Without labels it is read from a file of rows, which is several times as fast as from captured requests.
        """
        spec, drawn = self.world.spec, self._draw(rows)
        source = self._captured(drawn, "window") if labelled else self._files(drawn, "window")
        found = profile(source, spec, self.baseline.edges)
        lacking = Unknown(reason="not asked in this run")
        joined = quality.join(source, [self._labels(drawn)], spec, registered=self._registered) if labelled else None
        return findings(
            Evidence(
                spec=spec,
                report=drift.compare(self.baseline, found, spec),
                baseline=self.baseline,
                window=found,
                few=few(spec, found),
                live=check_captured(source, spec) if labelled else lacking,
                attribution=self._attribution(drawn) if explained and self._weights else lacking,
                silent=timedelta(),
                quality=joined or lacking,
                labels=lacking,
            )
        )

    def shifted(self, rows: int, feature: str, by: float) -> drift.Report:
        """A window whose rows were drawn alike, but for one feature that is larger in each of them."""
        source = self._files(
            self._draw(rows), "shifted", f"REPLACE ({identifier(feature)} + {by} AS {identifier(feature)})"
        )
        return drift.compare(self.baseline, profile(source, self.world.spec, self.baseline.edges), self.world.spec)

    def _draw(self, rows: int) -> list[int]:
        return [int(n) for n in self._chance.integers(len(self.world.rows), size=rows)]

    def _files(self, drawn: Sequence[int], name: str, changed: str = "") -> Source:
        path = self._folder / f"{name}.parquet"
        rows = f"SELECT pool.* EXCLUDE (n) {changed} FROM (SELECT unnest({list(drawn)}) AS n) JOIN pool USING (n)"
        self._db.sql(rows).write_parquet(str(path))
        return Source.files(path)

    def _captured(self, drawn: Sequence[int], name: str) -> Source:
        path = self._folder / f"{name}.jsonl"
        with path.open("w") as file:
            file.writelines(
                _line(place, self.world.rows[n], self.world.answers[n]) + "\n" for place, n in enumerate(drawn)
            )
        return Source.captured(path)

    def _labels(self, drawn: Sequence[int]) -> LabelsFile:
        path = self._folder / "labels.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["inference_id", "row", self.world.spec.target])
            writer.writerows((place, 0, self.world.truths[n]) for place, n in enumerate(drawn))
        return LabelsFile(path, path.name)

    def _explained(self, drawn: Sequence[int]) -> dict[str, explain.Weight]:
        return explain.weights(
            [self.world.rows[n] for n in drawn],
            self._background,
            self.world.ask,
            self.world.spec.task,
            pairs=self._pairs,
            seed="benchmark",
        )

    def _attribution(self, drawn: Sequence[int]) -> explain.WindowAttribution:
        most = explain.rows_for(len(self.world.spec.features), most=explain.WINDOW_ROWS, asked=explain.MOST_ASKED)
        return explain.compare(self._weights, self._explained(drawn[:most]), rows=most)


def watch(task: Task) -> Said:
    """All windows of a task, one baseline for all."""
    with tempfile.TemporaryDirectory(prefix="noria-benchmark-") as folder:
        bench = Bench(task.world, baseline_rows=task.baseline_rows, seed=task.seed, folder=Path(folder))
        said = [
            {
                finding.monitor: None if finding.state == "not enough data" else finding.state == "breach"
                for finding in bench.window(
                    task.rows, labelled=number % LABELLED == 0, explained=number % EXPLAINED == 0
                )
            }
            for number in range(task.windows)
        ]
    return Said(task, said)


@dataclass(frozen=True)
class Found:
    """In how many of the trials a feature that was shifted was found: in a window, and in both of two."""

    task: Task
    trials: dict[str, int]
    once: dict[str, int]
    both: dict[str, int]


def search(task: Task, deviations: float = 0.5) -> Found:
    """Shift each feature in turn by so many of its standard deviations; `windows` pairs of windows of each."""
    once, both, trials = {}, {}, {}
    with tempfile.TemporaryDirectory(prefix="noria-benchmark-") as folder:
        bench = Bench(task.world, baseline_rows=task.baseline_rows, seed=task.seed, folder=Path(folder))
        for feature, deviation in bench.world.numbers.items():
            seen = [
                [feature in bench.shifted(task.rows, feature, deviations * deviation).drifted for _ in range(2)]
                for _ in range(task.windows)
            ]
            trials[feature] = len(seen)
            once[feature], both[feature] = sum(map(any, seen)), sum(map(all, seen))
    return Found(task, trials, once, both)


def raised(windows: Sequence[bool], *, breaching: int, of: int) -> int:
    """How often an alarm of these windows is raised anew: when so many of the last so many breach."""
    alarmed = [sum(windows[max(0, end - of) : end]) >= breaching for end in range(len(windows) + 1)]
    return sum(now and not before for before, now in pairwise(alarmed))


def _line(place: int, row: Row, answer: dict[str, Any]) -> str:
    form = {"observedContentType": "application/json", "encoding": "JSON"}
    return json.dumps(
        {
            "captureData": {
                "endpointInput": {**form, "data": json.dumps({"instances": [row]})},
                "endpointOutput": {**form, "data": json.dumps({"predictions": [answer]})},
            },
            "eventMetadata": {"eventId": str(place), "inferenceId": str(place), "inferenceTime": AT.isoformat()},
        }
    )
