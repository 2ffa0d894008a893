"""Starts a step of the pipeline in a job's container. At the root of the code archive, with `noria` and `pipelines`.

    python3 run.py --step prepare --wheels DIRECTORY --failure FILE [arguments of the step]

Jobs have no network: the packages that the image lacks are in an archive under DIRECTORY, laid out as they are
installed, and are put before the image's own. A failed step leaves its reason in FILE, which SageMaker shows: `message`
for a processing job, `failure` for a training job, which has both paths from the environment of sagemaker-training.

Standard library only.
"""

import argparse
import importlib
import os
import sys
import tarfile
import tempfile
from pathlib import Path

# Read when numpy and scikit-learn are loaded. Threads that spin while they wait, and threads for vectors, make things
# slow where processors are shared: with two busy neighbours a fit of 8 s takes 1 s, 200 resamples of 16 s take 1 s.
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}


def main() -> None:
    environment = os.environ
    environment.update(QUIET_THREADS)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", choices=("prepare", "train", "evaluate"), required=True)
    parser.add_argument("--wheels", type=Path, default=environment.get("SM_CHANNEL_WHEELS"))
    parser.add_argument("--failure", type=Path, default=Path(environment.get("SM_OUTPUT_DIR", "."), "failure"))
    options, arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="packages-") as packages:
        for archive in sorted(options.wheels.glob("*.tar.gz")):
            with tarfile.open(archive) as tar:
                tar.extractall(packages, filter="data")
        sys.path.insert(0, packages)
        try:
            importlib.import_module(f"pipelines.tabular.steps.{options.step}").main(arguments)
        except Exception as error:
            options.failure.parent.mkdir(parents=True, exist_ok=True)
            options.failure.write_text(f"{options.step}: {error or type(error).__name__}"[:1000], encoding="utf-8")
            raise


if __name__ == "__main__":
    main()
