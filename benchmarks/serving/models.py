"""The models that every server serves: gradient boosting on real flights, one of each task, trained as Noria trains.

The pipeline's own steps run in the local container's interpreter, so a bundle is what a training job would have left.
"""

import csv
import os
import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local.cloud import REPOSITORY, WORK
from local.demo import flights
from noria.spec import FeatureType, ModelSpec, Task
from pipelines.bundle import code_archive, digest

MONTHS = (201301, 201302)
ITERATIONS = 100  # scikit-learn's default; stopping early would leave the small model that is fastest to serve
CONTAINER = WORK / "container" / "bin" / "python"
TARGETS = {Task.BINARY: "late", Task.REGRESSION: "humid", Task.MULTICLASS: "origin"}
"""What is predicted; the month's columns hold no delay in minutes, so two tasks predict what else they hold."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """An unpacked bundle, and rows to ask it."""

    task: Task
    bundle: Path
    rows: Sequence[Row]


def trained(task: Task, folder: Path) -> Trained:
    """The model of a task, trained in `folder` unless this code has trained it there already."""
    spec = spec_of(task)
    bundle, data = folder / "bundle", folder / "datasets" / "flights.csv"
    code = digest(code_archive(folder / "code" / "sourcedir.tar.gz"))
    version = f"{code} {spec.model_dump_json()}"
    done = folder / "done"
    if not done.exists() or done.read_text(encoding="utf-8") != version:
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_bytes(_months())
        (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        train, test = folder / "train", folder / "test"
        _step("prepare", folder, "--datasets", data.parent, "--spec", folder, "--train", train, "--test", test)
        _step("train", folder, "--train", train, "--test", test, "--spec", folder, "--model", bundle)
        done.write_text(version, encoding="utf-8")
    return Trained(task, bundle, _rows(data, spec))


def spec_of(task: Task) -> ModelSpec:
    """flight-delay's spec with a fixed number of trees, and another target where another task is asked for."""
    document = yaml.safe_load((REPOSITORY / "models" / "flight-delay.yaml").read_text(encoding="utf-8"))
    if task is not Task.BINARY:
        for part in ("gates", "segments"):
            del document[part]
        document |= {"task": task.value, "target": TARGETS[task]}
        document["features"].pop(TARGETS[task])
    document["train"] = {"hyperparameters": {"early_stopping": False, "max_iter": ITERATIONS}}
    return ModelSpec.model_validate(document)


def _months() -> bytes:
    first, *others = [flights.month(month) for month in MONTHS]
    return first + b"".join(month.partition(b"\n")[2] for month in others)


def _rows(data: Path, spec: ModelSpec, count: int = 1000) -> list[Row]:
    """Rows of the data as a client sends them, none without a value: a sample."""
    with data.open(newline="", encoding="utf-8") as file:
        records = [record for record in csv.DictReader(file) if all(record[name] for name in spec.features)]
    sample = random.Random(1).sample(records, count)  # noqa: S311 - the same rows each time
    return [{name: _value(record[name], feature.type) for name, feature in spec.features.items()} for record in sample]


def _value(text: str, kind: FeatureType) -> Any:
    if kind is FeatureType.CATEGORY:
        return text
    return int(text) if kind is FeatureType.INTEGER else float(text)


def _step(name: str, folder: Path, *arguments: str | Path) -> None:
    """A step of the training pipeline, in a process of its own as in a job."""
    places = ("--wheels", folder, "--failure", folder / "failure")  # there are no wheels: the interpreter has them
    subprocess.run(
        [CONTAINER, "-m", "pipelines.run", "--step", name, *places, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
