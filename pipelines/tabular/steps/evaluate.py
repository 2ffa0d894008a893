"""Model bundle, test/, champion → evaluation.json; and from the bundle what others read beside it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from noria import explain, golden
from pipelines.tabular.evaluate import Champion, evaluate, texts_of
from pipelines.tabular.prepare import ROWS
from pipelines.tabular.steps import half_of_this_machine, read_spec

ARCHIVE = "model.tar.gz"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="evaluate")
    for name in ("model", "test", "champion", "spec", "evaluation", "baseline"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--champion-package", required=True, help="ARN, or none")
    for form in ("onnx", "sklearn"):
        parser.add_argument(f"--{form}-image", required=True, help=f"what serves a bundle's {form} form")
    options = parser.parse_args(arguments)
    candidate = options.model / ARCHIVE
    evaluation = evaluate(
        options.test / ROWS,
        read_spec(options.spec),
        candidate,
        champion=_champion(options.champion, options.champion_package),
        images={"onnx": options.onnx_image, "sklearn": options.sklearn_image},
        resources=half_of_this_machine(),
    )
    kept = texts_of(candidate, "baseline.json", golden.FILE, explain.FILE, "spec.json", "training.json")
    for folder, name, text in (
        (options.evaluation, "evaluation.json", evaluation.model_dump_json(indent=1)),
        *((options.baseline, name, text) for name, text in kept.items()),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    print(evaluation.gate.reason or "every gate passed")  # noqa: T201


def _champion(folder: Path, package: str) -> Champion | None:
    """The manifest brings the request of the training, and the champion's bundle where there is a champion."""
    archive = next(iter(sorted(folder.rglob(ARCHIVE))), None)
    if archive is None and package != "none":
        raise FileNotFoundError(f"champion {package} has no {ARCHIVE} among the inputs: its manifest must name one")
    return Champion(package=package, archive=archive) if archive else None
