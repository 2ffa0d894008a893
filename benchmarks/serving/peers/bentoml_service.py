"""The model behind BentoML: `bentoml serve benchmarks.serving.peers.bentoml_service:Flights`."""

import os
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.serving.peers.tabular import Tabular


@bentoml.service(workers=int(os.environ["WORKERS"]))
class Flights:
    def __init__(self) -> None:
        self.model = Tabular(Path(os.environ["BUNDLE"]))

    @bentoml.api(batchable=os.environ.get("BATCHABLE") == "1")
    def predict(self, rows: list[dict[str, Any]]) -> list[Any]:
        return self.model.scores({name: [row[name] for row in rows] for name in self.model.features})
