"""train/, test/ → model bundle."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.tabular.prepare import ROWS
from pipelines.tabular.steps import half_of_this_machine, read_spec
from pipelines.tabular.train import train


def main(arguments: Sequence[str]) -> None:
    """Channels and the model's folder are where sagemaker-training says."""
    parser = argparse.ArgumentParser(prog="train")
    parser.add_argument("--train", type=Path, default=os.environ.get("SM_CHANNEL_TRAIN"))
    parser.add_argument("--test", type=Path, default=os.environ.get("SM_CHANNEL_TEST"))
    parser.add_argument("--spec", type=Path, default=os.environ.get("SM_CHANNEL_SPEC"))
    parser.add_argument("--model", type=Path, default=os.environ.get("SM_MODEL_DIR"))
    options = parser.parse_args(arguments)
    training = train(
        options.train / ROWS,
        options.test / ROWS,
        read_spec(options.spec),
        options.model,
        resources=half_of_this_machine(),
    )
    print(f"trained {training.estimator} on {training.rows.rows} rows; {training.serves} is served")  # noqa: T201
    if training.serves_because:
        print(training.serves_because)  # noqa: T201
