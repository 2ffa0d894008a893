"""A model for each way to answer and to go live: flight-delay's spec with another `serve`."""

from pathlib import Path
from typing import Any

import yaml

from local.cloud import REPOSITORY
from local.demo.control import write_models

MODEL = "flight-delay"

WAYS: dict[str, dict[str, Any]] = {
    "linear": {"count": 4, "strategy": "linear", "step": 2, "bake": "5m", "front_door": {"rate": 50, "burst": 50}},
    "rolling": {"count": 4, "strategy": "rolling", "step": "50%", "bake": "5m"},
    "progressive": {"count": 1, "strategy": "progressive", "weights": [20, 50], "bake": "5m", "min_requests": 5},
    "serverless": {"mode": "serverless", "serverless": {"memory_mb": 2048, "concurrency": 5}},
    "queued": {"mode": "async", "count": 1, "scale": {"min": 1, "max": 2, "target": 5}},
    "batch": {"mode": "batch"},
}


def write(folder: Path) -> Path:
    """The specs of the demo and those of every way, in `folder`."""
    write_models(folder)
    spec = yaml.safe_load((REPOSITORY / "models" / f"{MODEL}.yaml").read_text())
    del spec["objectives"]  # of requests, which files are not
    for name, serve in WAYS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**spec, "model": name, "serve": serve}, sort_keys=False))
    return folder
