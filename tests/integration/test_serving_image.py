"""The files of the model server's image and its locked packages are enough to serve: nothing of this repository."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from noria.spec import Task
from pipelines.serving import __file__ as package
from tests.unit.pipelines.conftest import Trained

SERVING = Path(package).parent
"""The build's context, of which the Dockerfile copies the modules and the lock."""


def test_the_files_of_the_image_serve_a_bundle(tmp_path: Path) -> None:
    installed = tmp_path / "opt" / "noria"
    install = [sys.executable, "-m", "uv", "pip", "install", "-q", "--require-hashes", "--only-binary", ":all:"]
    subprocess.run([*install, "--target", installed, "-r", SERVING / "requirements.lock"], check=True)
    (installed / "pipelines" / "serving").mkdir(parents=True)
    for module in SERVING.glob("*.py"):
        shutil.copy(module, installed / "pipelines" / "serving")
    bundle = Trained(tmp_path / "trained", Task.BINARY).bundle
    (bundle / "model.joblib").unlink()  # no pickle is loaded

    path = tmp_path / "8080"
    # Without `site` there is nothing of the environment that these tests run in.
    command = [sys.executable, "-S", "-m", "pipelines.serving", "serve", "--socket", str(path)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "SM_MODEL_DIR": str(bundle)}
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as server:
        try:
            while server.poll() is None and not path.exists():
                time.sleep(0.01)
            rows = [{"x": 0.5, "color": "red", "size": 2}]
            assert len(_ask(path, json.dumps({"instances": rows}).encode(), "application/json")) == 1
            assert len(_ask(path, b"0.5,red,2\n,blue,1\n", "text/csv")) == 2
        finally:
            server.terminate()
    assert server.returncode == 0


def _ask(path: Path, body: bytes, content_type: str) -> Any:
    connection = http.client.HTTPConnection("model.aws.local")
    connection.sock = socket.socket(socket.AF_UNIX)
    for _ in range(1000):
        try:
            connection.sock.connect(str(path))
            break
        except ConnectionRefusedError:  # bound, and not yet listening
            time.sleep(0.01)
    connection.request("POST", "/invocations", body, {"Content-Type": content_type})
    response = connection.getresponse()
    answer = json.loads(response.read())
    assert response.status == 200, answer
    return answer["predictions"]
