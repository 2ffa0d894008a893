"""Small tables that a model can learn from, one for each task."""

import csv
import math
import random
import tarfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from noria.spec import ModelSpec, Task
from noria.sql import Resources
from pipelines.tabular.prepare import ROWS, prepare
from pipelines.tabular.train import train

SMALL = Resources(memory_mb=256, threads=1)
START = datetime(2026, 1, 1)  # noqa: DTZ001 - prepared times are UTC and say so nowhere
COLORS = ("red", "green", "blue")

Row = dict[str, Any]


def spec_for(task: Task, **changes: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "model": "example",
            "task": task,
            "target": "y",
            "time": "at",
            "features": {
                "x": {"type": "number", "missing": 0.2},
                "color": {"type": "category", "missing": 0.1},
                "size": {"type": "integer"},
            },
            "segments": ["color"],
            "owner": {"team": "team"},
            "train": {"hyperparameters": {"max_iter": 20}},
            **changes,
        }
    )


def rows_for(task: Task, count: int = 600, seed: int = 1) -> list[Row]:
    """Rows a minute apart; the target follows from `x` and `color`, with noise."""
    chance = random.Random(seed)  # noqa: S311
    rows = []
    for minute in range(count):
        x, color, size = chance.gauss(0, 1), chance.choice(COLORS), chance.randrange(5)
        signal = x + COLORS.index(color) + chance.gauss(0, 0.3)
        target: Any = signal
        if task is Task.BINARY:
            target = int(signal > 1)
        elif task is Task.MULTICLASS:
            target = "low" if signal < 0.5 else "high" if signal > 1.5 else "middle"
        rows.append(
            {
                "at": (START + timedelta(minutes=minute)).isoformat(sep=" "),
                "x": None if chance.random() < 0.1 else round(x, 3),
                "color": None if chance.random() < 0.05 else color,
                "size": size,
                "y": target,
            }
        )
    return rows


def write_csv(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def pack(bundle: Path, archive: Path) -> Path:
    """A folder as SageMaker packs a model."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(bundle.iterdir()):
            tar.add(path, arcname=path.name)
    return archive


class Trained:
    """A model of each task, trained once: prepared rows, bundle folder and archive."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.task = task
        self.spec = spec_for(task)
        data = write_csv(folder / "data.csv", rows_for(task))
        prepare([data], self.spec, train=folder / "train", test=folder / "test", resources=SMALL)
        self.train_rows, self.test_rows = folder / "train" / ROWS, folder / "test" / ROWS
        self.bundle = folder / "bundle"
        self.training = train(self.train_rows, self.test_rows, self.spec, self.bundle, resources=SMALL)
        self.archive = pack(self.bundle, folder / "model.tar.gz")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Task], Trained]:
    made: dict[Task, Trained] = {}

    def make(task: Task) -> Trained:
        if task not in made:
            made[task] = Trained(tmp_path_factory.mktemp(task.value), task)
        return made[task]

    return make


@pytest.fixture(scope="session")
def tables() -> Any:
    """The helpers above, for tests that make tables of their own."""

    class Tables:
        spec = staticmethod(spec_for)
        rows = staticmethod(rows_for)
        csv = staticmethod(write_csv)
        pack = staticmethod(pack)
        resources = SMALL
        start = START
        missing = math.nan

    return Tables
