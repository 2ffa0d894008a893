"""train/, test/ → model bundle."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.tabular.checkpoints import EVERY, Checkpoints
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
    parser.add_argument("--checkpoints", type=Path, help="where SageMaker keeps them; on Spot")
    parser.add_argument("--checkpoint-seconds", type=float, default=EVERY, help="of work between two of them")
    options = parser.parse_args(arguments)
    checkpoints = Checkpoints(options.checkpoints, options.checkpoint_seconds) if options.checkpoints else None
    training = train(
        options.train / ROWS,
        options.test / ROWS,
        read_spec(options.spec),
        options.model,
        resources=half_of_this_machine(),
        checkpoints=checkpoints,
    )
    print(f"trained {training.estimator} on {training.rows.rows} rows; {training.serves} is served")  # noqa: T201
    if training.serves_because:
        print(training.serves_because)  # noqa: T201
