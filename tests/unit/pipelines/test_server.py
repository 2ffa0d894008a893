"""Noria's model server: the same answers as in AWS's container, and a process of it under SageMaker's contract."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.golden import ATTRIBUTES_HEADER, Golden, attributes
from noria.spec import Task
from pipelines.serving import inference, server
from pipelines.serving.inference import CSV, JSON, JSON_LINES
from pipelines.serving.server import PARQUET, Invocations

Row = dict[str, Any]

REPOSITORY = Path(server.__file__).parents[2]
GOOD: Row = {"x": 0.5, "color": "red", "size": 2}
ROWS: list[Row] = [GOOD, {"x": None, "color": "blue", "size": 0}, {"x": -3, "color": "mauve", "size": 4}]


@pytest.fixture
def invoke(trained: Callable[[Task], Any]) -> Invocations:
    return Invocations(server.load(trained(Task.BINARY).bundle))


@pytest.fixture
def model(trained: Callable[[Task], Any]) -> Any:
    """The same bundle as AWS's container loads it."""
    return inference.model_fn(str(trained(Task.BINARY).bundle))


def body_of(rows: list[Row], media_type: str) -> bytes:
    if media_type == JSON:
        return json.dumps({"instances": rows}).encode()
    if media_type == JSON_LINES:
        return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    if media_type == CSV:
        return "".join(",".join("" if v is None else str(v) for v in row.values()) + "\n" for row in rows).encode()
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


# --- from body to body


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("accept", [JSON, JSON_LINES, CSV])
@pytest.mark.parametrize("content_type", [JSON, JSON_LINES, CSV])
def test_both_servers_give_the_same_answers(
    trained: Callable[[Task], Any], task: Task, content_type: str, accept: str
) -> None:
    bundle = trained(task).bundle
    body = body_of(ROWS, content_type)
    mine = Invocations(server.load(bundle))(body, content_type, accept)
    model = inference.model_fn(str(bundle))
    theirs = inference.output_fn(inference.predict_fn(inference.input_fn(body, content_type), model), accept)
    assert (mine.status, mine.media_type, mine.rows) == (200, accept, 3)
    assert theirs.status == 200
    numbers = r"-?\d+\.\d+(?:e-?\d+)?"
    assert [float(n) for n in re.findall(numbers, mine.body.decode())] == pytest.approx(
        [float(n) for n in re.findall(numbers, theirs.body.decode())], rel=1e-9
    )
    spaced = theirs.body.decode().replace(": ", ":").replace(", ", ",")
    assert re.sub(numbers, "#", mine.body.decode()) == re.sub(numbers, "#", spaced)


def test_a_category_that_was_always_missing_in_training_counts_as_missing(
    trained: Callable[[Task], Any], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(trained(Task.BINARY).bundle, tmp_path / "bundle"))
    signature = json.loads((bundle / "signature.json").read_text())
    (color,) = (feature for feature in signature["features"] if feature["name"] == "color")
    color["categories"] = []
    (bundle / "signature.json").write_text(json.dumps(signature))
    invoke, model = Invocations(server.load(bundle)), inference.model_fn(str(bundle))
    for kind in (JSON, CSV):
        body = body_of([{**GOOD, "color": color} for color in (None, "UA", "12")], kind)
        theirs = inference.output_fn(inference.predict_fn(inference.input_fn(body, kind), model), JSON)
        for answer in (invoke(body, kind), theirs):
            first, *others = json.loads(answer.body)["predictions"]
            assert answer.status == 200
            assert others == [first, first]


@pytest.mark.parametrize("media_type", PARQUET)
def test_parquet_is_read(invoke: Invocations, media_type: str) -> None:
    shuffled = [{"more": 1, **dict(reversed(row.items()))} for row in ROWS]
    assert invoke(body_of(shuffled, media_type), media_type) == invoke(body_of(ROWS, JSON), JSON)


def test_nan_in_parquet_is_a_missing_value_and_infinity_a_mistake(invoke: Invocations) -> None:
    missing, infinite = (body_of([{**GOOD, "x": float(x)}], PARQUET[0]) for x in ("nan", "inf"))
    assert invoke(missing, PARQUET[0]) == invoke(body_of([{**GOOD, "x": None}], JSON), JSON)
    refused = invoke(infinite, PARQUET[0])
    assert refused.status == 400
    assert json.loads(refused.body)["problems"] == [{"row": 0, "problem": "a value is not a finite number"}]


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "status", "words"),
    [
        (b"{", JSON, "", 400, "not JSON"),
        (b'{"instances": [{"x": 1e999, "color": "red", "size": 1}]}', JSON, "", 400, "not JSON"),
        (b'{"instances": [{"x": 1}]}', JSON, "", 400, "the feature is missing"),
        (b"PAR1", PARQUET[0], "", 400, "not Parquet"),
        (body_of([{"y": 1}], PARQUET[0]), PARQUET[0], "", 400, "none of the features"),
        (body_of([{"x": 1.0, "size": 1}], PARQUET[0]), PARQUET[0], "", 400, "the feature is missing"),
        (body_of([{**GOOD, "size": "2"}], PARQUET[0]), PARQUET[0], "", 400, "not a finite number"),
        (body_of([{**GOOD, "x": [0.5]}], PARQUET[0]), PARQUET[0], "", 400, "a column of list: send numbers or text"),
        (b"<x/>", "application/xml", "", 415, "application/x-parquet"),
        (b"0.5,red,2", CSV, "image/png", 406, "image/png"),
    ],
)
def test_a_clients_mistake_is_told(
    invoke: Invocations, *, body: bytes, content_type: str, accept: str, status: int, words: str
) -> None:
    reply = invoke(body, content_type, accept)
    assert (reply.status, reply.media_type) == (status, JSON)
    assert words in json.loads(reply.body)["problems"][0]["problem"]


@pytest.mark.parametrize(
    ("rows", "color", "words"),
    [
        (200_000, "red", "200000 rows: send 166666 at a time at most, with 3 features"),
        (1000, "red" * 10_000, "30000000 bytes of text: send 16777216 at a time at most"),
    ],
)
def test_little_parquet_that_holds_a_lot_is_refused_before_it_is_read(
    invoke: Invocations, rows: int, color: str, words: str
) -> None:
    table = {
        "x": pa.nulls(rows, pa.float64()),
        "color": pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int32()).fill_null(0), [color]),
        "size": pa.nulls(rows, pa.int64()).fill_null(2),
    }
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(table), buffer, compression="zstd")
    assert buffer.tell() < 10_000
    tracemalloc.start()
    reply = invoke(buffer.getvalue(), PARQUET[0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reply.status == 400
    assert words in json.loads(reply.body)["problems"][0]["problem"]
    assert peak < 10_000_000


ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.none(), max_size=1)
)
LIKELY = {
    "x": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    "color": st.none() | st.sampled_from(["red", "green", "blue", "mauve", ""]),
    "size": st.integers(0, 5) | st.sampled_from([2.0, 2.5]),
}
SENT = st.fixed_dictionaries({name: st.one_of(likely, likely, likely, ANYTHING) for name, likely in LIKELY.items()})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(SENT | ANYTHING, min_size=1, max_size=4))
def test_whatever_is_sent_both_servers_answer_it_alike_or_refuse_it(
    model: Any, invoke: Invocations, rows: list[Any]
) -> None:
    body = json.dumps({"instances": rows}).encode()
    theirs = inference.output_fn(inference.predict_fn(inference.input_fn(body, JSON), model), JSON)
    mine = invoke(body, JSON, JSON)
    assert mine.status == theirs.status
    assert mine.status in (200, 400)
    if mine.status == 200:
        scores, expected = ([p["score"] for p in json.loads(b)["predictions"]] for b in (mine.body, theirs.body))
        assert scores == pytest.approx(expected, abs=1e-12)


# --- a process


class Process:
    """A running server, and connections to its socket."""

    def __init__(self, process: "subprocess.Popen[bytes]", path: Path) -> None:
        self.process, self._path = process, path

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("model.aws.local", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        for _ in range(1000):
            try:
                connection.sock.connect(str(self._path))
                break
            except ConnectionRefusedError:  # bound, and not yet listening
                time.sleep(0.01)
        return connection

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self.connect()
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response, response.read()


SERVER = ("-m", "pipelines.serving")
NO_SEMAPHORES = "import _multiprocessing, runpy; del _multiprocessing.SemLock; runpy.run_module({!r}, None, '__main__')"
NOT_ALMIGHTY = """
import ctypes, os, sys
CAPBSET_DROP, DAC_OVERRIDE, DAC_READ_SEARCH = 24, 1, 2  # prctl(2), capabilities(7): with these root reads any file
for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
    ctypes.CDLL(None).prctl(CAPBSET_DROP, capability)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@contextmanager
def serving(bundle: Path, folder: Path, *, program: Sequence[str] = SERVER, **environment: str) -> Iterator[Process]:
    path = folder / "8080"
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "SM_MODEL_DIR": str(bundle), **environment}
    command = [sys.executable, *program, "serve", "--socket", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=variables, cwd=folder, stdout=pipe, stderr=pipe) as process:
        try:
            while process.poll() is None and not path.exists():
                time.sleep(0.01)
            yield Process(process, path)
        finally:
            process.terminate()


def test_the_contract_of_a_serving_container(trained: Callable[[Task], Any], tmp_path: Path) -> None:
    example = trained(Task.BINARY)
    golden = Golden.model_validate_json((example.bundle / "golden.json").read_text())
    with serving(example.bundle, tmp_path) as running:
        ping, _ = running.ask("GET", "/ping")
        assert ping.status == 200
        body = json.dumps({"instances": golden.rows}).encode()
        answer, predictions = running.ask("POST", "/invocations", body, Content_Type=JSON, Accept=JSON)
        assert (answer.status, answer.headers["Content-Type"]) == (200, JSON)
        assert answer.headers[ATTRIBUTES_HEADER] == attributes(golden.bundle)
        assert list(golden.mistakes(json.loads(predictions)["predictions"])) == []
        refusal, told = running.ask("POST", "/invocations", b'{"instances": [{"x": "much"}]}', Content_Type=JSON)
        assert refusal.status == 400
        assert refusal.headers[ATTRIBUTES_HEADER] == attributes(golden.bundle)
        assert json.loads(told)["problems"][0] == {"row": 0, "field": "x", "problem": "'much' is not a finite number"}
        assert running.ask("GET", "/elsewhere")[0].status == 404
        assert running.ask("GET", "/invocations")[0].status == 405


def test_metrics_are_of_all_workers(trained: Callable[[Task], Any], tmp_path: Path) -> None:
    body = body_of(ROWS, JSON)
    with serving(trained(Task.BINARY).bundle, tmp_path, SAGEMAKER_MODEL_SERVER_WORKERS="2") as running:
        for _ in range(20):  # each a connection, which either worker may take
            running.ask("POST", "/invocations", body, Content_Type=JSON)
        running.ask("POST", "/invocations", b"", Content_Type="image/png")
        answer, text = running.ask("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    metrics = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    assert metrics['noria_requests_total{status="200"}'] == "20"
    assert metrics['noria_requests_total{status="415"}'] == "1"
    assert metrics["noria_rows_total"] == "60"
    assert metrics["noria_request_seconds_count"] == metrics['noria_request_seconds_bucket{le="+Inf"}'] == "21"
    assert 0 < float(metrics["noria_request_seconds_sum"]) < 10


def test_requests_are_printed_where_nothing_else_captures_them(trained: Callable[[Task], Any], tmp_path: Path) -> None:
    csv_body = body_of(ROWS, CSV)
    with serving(trained(Task.BINARY).bundle, tmp_path, NORIA_CAPTURE="stdout") as running:
        _, answer = running.ask(
            "POST", "/invocations", csv_body, Content_Type=CSV, Accept=CSV, X_Amzn_SageMaker_Inference_Id="order-7"
        )
        running.ask("POST", "/invocations", b"wrong", Content_Type=CSV)  # is not captured, as SageMaker does not
        running.ask("POST", "/invocations", body_of(ROWS, PARQUET[0]), Content_Type=PARQUET[0])
        running.process.terminate()
        printed, _ = running.process.communicate()
    records = [json.loads(line) for line in printed.splitlines() if line.startswith(b'{"noria"')]
    assert [record["noria"] for record in records] == ["capture", "capture"]
    sides = records[0]["captureData"]
    assert sides["endpointInput"] == {
        "observedContentType": CSV,
        "mode": "INPUT",
        "data": csv_body.decode(),
        "encoding": "CSV",
    }
    assert sides["endpointOutput"]["data"] == answer.decode()
    assert records[0]["eventMetadata"]["inferenceId"] == "order-7"
    assert records[1]["captureData"]["endpointInput"]["encoding"] == "BASE64"
    assert records[1]["eventMetadata"].keys() == {"eventId", "customAttributes", "inferenceTime"}


def test_it_needs_no_semaphores_and_a_worker_that_is_killed_holds_up_no_other(
    trained: Callable[[Task], Any], tmp_path: Path
) -> None:
    """A sandbox may have no /dev/shm, and then Python no locks between processes."""
    body = body_of(ROWS * 500, JSON)  # longer than a pipe takes at once
    with serving(
        trained(Task.BINARY).bundle,
        tmp_path,
        program=("-c", NO_SEMAPHORES.format(SERVER[1])),
        NORIA_CAPTURE="stdout",
        SAGEMAKER_MODEL_SERVER_WORKERS="2",
    ) as running:
        pid, output = running.process.pid, running.process.stdout
        assert output
        while len(workers := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) < 2:
            time.sleep(0.01)
        printed: list[bytes] = []
        reader = threading.Thread(target=lambda: printed.extend(output))
        reader.start()
        asked = [running.ask("POST", "/invocations", body, Content_Type=JSON)[0].status for _ in range(10)]
        time.sleep(0.5)  # it counts and prints once it has answered
        os.kill(int(workers[0]), signal.SIGKILL)
        time.sleep(0.1)
        asked += [running.ask("POST", "/invocations", body, Content_Type=JSON)[0].status for _ in range(10)]
        time.sleep(0.5)
        _, text = running.ask("GET", "/metrics")
        running.process.terminate()
        reader.join()
    assert asked == [200] * 20
    assert 'noria_requests_total{status="200"} 20' in text.decode()
    assert [json.loads(line)["noria"] for line in printed] == ["capture"] * 20


def test_requests_under_way_are_answered_when_it_is_asked_to_end(
    trained: Callable[[Task], Any], tmp_path: Path
) -> None:
    body = body_of([GOOD] * 20_000, JSON)
    answered: list[int] = []
    with serving(trained(Task.BINARY).bundle, tmp_path) as running:

        def ask() -> None:
            response, told = running.ask("POST", "/invocations", body, Content_Type=JSON)
            answered.append(len(json.loads(told)["predictions"]) if response.status == 200 else -1)

        running.ask("GET", "/ping")
        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        time.sleep(0.1)
        running.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join()
        assert running.process.wait(timeout=30) == 0
    assert answered == [20_000] * 4


def test_a_bundle_without_a_model_does_not_start(tmp_path: Path) -> None:
    with serving(tmp_path, tmp_path) as running:
        _, told = running.process.communicate(timeout=60)
    assert running.process.returncode == 1
    assert "has no signature.json: this bundle is not for Noria's model server" in told.decode()


def test_a_bundle_that_may_not_be_read_says_what_to_do(trained: Callable[[Task], Any], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(trained(Task.BINARY).bundle, tmp_path / "bundle"))
    (bundle / "model.onnx").chmod(0)
    with serving(bundle, tmp_path, program=("-c", NOT_ALMIGHTY, *SERVER)) as running:
        _, told = running.process.communicate(timeout=60)
    assert running.process.returncode == 1
    assert f"may not read {bundle / 'model.onnx'}" in told.decode()
    assert "Remove USER from pipelines/serving/Dockerfile" in told.decode()
