"""The contract between the serving container and a model's script, through the container's socket."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local.sagemaker.fleet import SERVER

ECHO = """
def model_fn(model_dir):
    return "model"

def transform_fn(model, content, content_type, accept):
    return {result}
"""
WSGI = """
def model_fn(model_dir):
    return None

def transform_fn(model, content, content_type, accept):
    def refuse(environ, start_response):
        start_response("422 Unprocessable Entity", [("Content-Type", "application/problem+json"), ("X-Why", "rows")])
        return [f"{environ['CONTENT_TYPE']} of {environ['HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID']}".encode()]
    return refuse
"""
STEPS = """
class Doubler:
    def predict(self, data):
        return data * 2

def model_fn(model_dir):
    return Doubler()
"""


@contextmanager
def serving(directory: Path, script: str) -> Iterator[Path]:
    (directory / "inference.py").write_text(script)
    environment = {
        "PATH": os.environ["PATH"],
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": str(directory),
        "SM_MODEL_DIR": str(directory),
    }
    path = directory / "8080"
    process = subprocess.Popen([sys.executable, SERVER, "--socket", path], env=environment, stderr=subprocess.PIPE)
    try:
        while process.poll() is None and not path.exists():
            time.sleep(0.01)
        yield path
    finally:
        process.kill()
        process.communicate()


def ask(
    path: Path,
    body: bytes,
    content_type: str = "application/json",
    accept: str | None = None,
    url: str = "/invocations",
    **headers: str,
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("model.aws.local")
    connection.sock = socket.socket(socket.AF_UNIX)
    for _ in range(100):
        try:
            connection.sock.connect(str(path))
            break
        except ConnectionRefusedError:  # bound, and not yet listening
            time.sleep(0.01)
    accepted = {"Accept": accept} if accept else {}
    connection.request("POST", url, body, {"Content-Type": content_type, **accepted, **headers})
    return connection.getresponse()


@pytest.mark.parametrize(
    ("result", "status", "media_type", "body"),
    [
        ('(content.upper(), "text/csv")', 200, "text/csv; charset=utf-8", b"ABC"),
        ('(b"raw", "application/octet-stream")', 200, "application/octet-stream", b"raw"),
        ('{"accept": accept}', 200, "application/json", b'{"accept": "application/json"}'),
        ("[type(content).__name__]", 200, "application/json", b'["str"]'),
        ('"plain"', 200, "text/html; charset=utf-8", b"plain"),
        ("None", 500, "text/html; charset=utf-8", None),
        ("1 / 0", 500, "text/html; charset=utf-8", None),
    ],
)
def test_results_become_answers_by_flasks_rules(
    tmp_path: Path, result: str, status: int, media_type: str, body: bytes | None
) -> None:
    with serving(tmp_path, ECHO.format(result=result)) as path:
        answer = ask(path, b"abc")
        assert (answer.status, answer.headers["Content-Type"]) == (status, media_type)
        assert body is None or answer.read() == body


def test_other_media_types_arrive_as_bytes(tmp_path: Path) -> None:
    with serving(tmp_path, ECHO.format(result="[type(content).__name__, accept]")) as path:
        answer = ask(path, b"abc", "application/json; charset=utf-8", accept="text/csv")
        assert answer.read() == b'["bytes", "text/csv"]'


def test_wsgi_application_sees_the_request_and_chooses_its_own_status(tmp_path: Path) -> None:
    with serving(tmp_path, WSGI) as path:
        answer = ask(path, b"[]", "text/csv", **{"X-Amzn-SageMaker-Inference-Id": "order-7"})
        assert (answer.status, answer.headers["X-Why"], answer.read()) == (422, "rows", b"text/csv of order-7")


def test_default_steps_read_and_write_arrays(tmp_path: Path) -> None:
    with serving(tmp_path, STEPS) as path:
        assert ask(path, b"[[1, 2], [3, 4]]").read() == b"[[2.0, 4.0], [6.0, 8.0]]"
        assert ask(path, b"1,2\n3,4", "text/csv", "text/csv").read() == b"2.0,4.0\n6.0,8.0\n"
        assert ask(path, b"x", "image/png").status == 415
        assert ask(path, b"[[1]]", accept="image/png").status == 406
        assert ask(path, b"[[1]]", url="/elsewhere").status == 404


def test_script_without_a_model_does_not_start(tmp_path: Path) -> None:
    with serving(tmp_path, "def transform_fn(*args): ...") as path:
        assert not path.exists()


def test_two_ways_of_transforming_are_one_too_many(tmp_path: Path) -> None:
    script = ECHO.format(result="1") + "def input_fn(content, content_type): ..."
    with serving(tmp_path, script) as path:
        assert not path.exists()
