"""Saves the model for MLflow: `python -m … BUNDLE OUT EXAMPLE`, the example being rows in JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import infer_signature

from benchmarks.serving.peers.tabular import Tabular


class Served(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.model = Tabular(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[Any]:
        return self.model.scores(model_input)


def main() -> None:
    bundle, out, example = map(Path, sys.argv[1:])
    frame = pd.DataFrame(json.loads(example.read_text(encoding="utf-8")))
    mlflow.pyfunc.save_model(
        out,
        python_model=Served(),
        artifacts={"bundle": str(bundle)},
        signature=infer_signature(frame, Tabular(bundle).scores(frame)),
        pip_requirements=[],
    )


if __name__ == "__main__":
    main()
