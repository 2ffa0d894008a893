"""Writes a model folder for MLServer: `python -m … BUNDLE OUT PORT WORKERS`; the ports after PORT too."""

import json
import sys
from pathlib import Path

import joblib

from benchmarks.serving.peers.tabular import Tabular


def main() -> None:
    bundle, out, port, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    out.mkdir(parents=True, exist_ok=True)
    joblib.dump(Tabular(bundle), out / "model.joblib")
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": workers,
        "debug": False,
    }
    model = {
        "name": "flights",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "content_type": "pd"},
    }
    (out / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (out / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")


if __name__ == "__main__":
    main()
