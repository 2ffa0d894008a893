"""Runs against a real MLflow server: `make tracking-test`, which installs one in an environment of its own."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.tracking import ENVIRONMENT, REPOSITORY, TrackingServer
from noria.tracking import Run, run
from tests.unit.test_tracking import attempt

WRITE = """
import sys
from mlflow import MlflowClient
from noria.aws.tracking import Tracking
from noria.tracking import Run
run = Run.model_validate_json(sys.stdin.read())
print(Tracking(client=MlflowClient(tracking_uri=sys.argv[1])).write(run, artifacts=sys.argv[2]))
"""

BEGIN = """
import sys
from mlflow import MlflowClient
from noria.tracking import Run
run = Run.model_validate_json(sys.stdin.read())
client = MlflowClient(tracking_uri=sys.argv[1])
experiment = client.create_experiment(run.experiment, artifact_location=sys.argv[2])
client.create_run(experiment, run.started, run.tags, run.name)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = TrackingServer(root=tmp_path_factory.mktemp("mlflow"), port=port)
    with server.running({}):
        yield server


def script(text: str, of: Run, server: TrackingServer) -> str:
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-c", text, server.url, (server.root / "artifacts").as_uri()],
        input=of.model_dump_json(),
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "GIT_PYTHON_REFRESH": "quiet"},
        cwd=server.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def ask(server: TrackingServer, path: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(  # noqa: S310
        f"{server.url}/api/2.0/mlflow/{path}", data=data, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.loads(answer.read())


def runs(server: TrackingServer, experiment: str) -> list[Any]:
    found = ask(server, f"experiments/get-by-name?experiment_name={experiment}")["experiment"]
    answer = ask(server, "runs/search", {"experiment_ids": [found["experiment_id"]]})
    return list(answer.get("runs", []))


def told(experiment: str, outcome: str = "succeeded") -> Run:
    return run(attempt(outcome), experiment=experiment, bucket="b", ended=round(time.time() * 1000))


def test_a_training_becomes_one_run_that_says_what_it_was_however_often_it_is_told(server: TrackingServer) -> None:
    of = told("once")
    assert script(WRITE, of, server) == "TrainingTracked"
    assert script(WRITE, told("once"), server) == "TrainingKnown"
    (found,) = runs(server, "once")
    assert found["info"]["status"] == "FINISHED"
    assert found["info"]["run_name"] == of.name
    assert {p["key"]: p["value"] for p in found["data"]["params"]} == of.parameters
    assert {m["key"]: m["value"] for m in found["data"]["metrics"]} == pytest.approx(of.metrics)
    assert {t["key"]: t["value"] for t in found["data"]["tags"]}.items() >= of.tags.items()
    inputs = found["inputs"]["dataset_inputs"]
    assert [(i["dataset"]["name"], i["dataset"]["digest"]) for i in inputs] == [(e.name, e.digest) for e in of.inputs]
    folder = Path(found["info"]["artifact_uri"].removeprefix("file://"))
    assert {file.name: file.read_text() for file in folder.iterdir()} == of.artifacts


def test_a_run_that_was_only_begun_is_ended_and_not_begun_again(server: TrackingServer) -> None:
    """As after a crash between any two calls."""
    of = told("begun")
    script(BEGIN, of, server)
    (begun,) = runs(server, "begun")
    assert begun["info"]["status"] == "RUNNING"
    assert script(WRITE, of, server) == "TrainingTracked"
    (found,) = runs(server, "begun")
    assert (found["info"]["run_id"], found["info"]["status"]) == (begun["info"]["run_id"], "FINISHED")
    assert {p["key"]: p["value"] for p in found["data"]["params"]} == of.parameters


def test_a_training_that_failed_is_a_run_too(server: TrackingServer) -> None:
    of = told("failed", "failed")
    assert script(WRITE, of, server) == "TrainingTracked"
    (found,) = runs(server, "failed")
    assert found["info"]["status"] == "FAILED"
