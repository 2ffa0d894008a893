"""Datasets → train/, test/."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from noria.training import REQUEST, TrainingRequest
from pipelines.tabular.prepare import prepare
from pipelines.tabular.steps import half_of_this_machine, read_spec

DATA = (".csv", ".parquet")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="prepare")
    for name in ("datasets", "spec", "train", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args(arguments)
    files = sorted(file for file in options.datasets.rglob("*") if file.suffix in DATA)
    split = prepare(
        files,
        read_spec(options.spec),
        train=options.train,
        test=options.test,
        resources=half_of_this_machine(),
        fresh_rows=_fresh_rows(options.datasets),
    )
    print(split)  # noqa: T201 - what a job prints is its log


def _fresh_rows(datasets: Path) -> int:
    """The manifest brings the request of the training along; without one, nothing is known of a champion."""
    request = next(iter(sorted(datasets.rglob(REQUEST))), None)
    return TrainingRequest.model_validate_json(request.read_text(encoding="utf-8")).fresh_rows if request else 0
