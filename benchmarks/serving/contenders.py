"""Who is compared: how each server is started for a bundle, what it is asked, and where the scores are in its answer.

Each is set up as its documentation says for production on this many cores, which is that many workers. No peer's
documentation or image limits scikit-learn's own threads, so that workers wait for each other's; "tuned" peers do.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.serving.models import CONTAINER, Row, Trained
from local.cloud import REPOSITORY, WORK
from noria.spec import Task

HOME = WORK / "benchmarks"
PINS = Path(__file__).parent / "peers"
CORES = len(os.sched_getaffinity(0))
PACKAGE = "benchmarks.serving.peers"
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY)}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Scores = list[Any]


@dataclass(frozen=True)
class Start:
    """A server's process: what is run, where, and what is added to the environment."""

    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path = REPOSITORY


@dataclass(frozen=True)
class Contender:
    """One server. `prepare` makes in a folder of its own what it needs and says how it is started on a port."""

    name: str
    path: str
    prepare: Callable[[Trained, Path, int], Start]
    body: Callable[[Sequence[Row], Task], Any]
    scores: Callable[[Any, Task], Scores] | None
    """From an answer, per row: the positive class's probability, all labels' probabilities, or a value."""
    setup: str
    """How it was set up, in a few words for the report."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def tuned(self) -> bool:
        return bool(self.environment)

    @property
    def slug(self) -> str:
        return self.name.lower().replace(" ", "-").replace("'", "")

    def request(self, rows: Sequence[Row], task: Task) -> bytes:
        return json.dumps(self.body(rows, task)).encode()


def python(peer: str) -> Path:
    return HOME / peer / "bin" / "python"


def installed(peer: str) -> None:
    """The environment of a peer, made from its pinned packages unless it is there already."""
    pins, made = PINS / f"{peer}.txt", HOME / peer / ".ready"
    if made.exists() and made.read_bytes() == pins.read_bytes():
        return
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, HOME / peer], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--compile-bytecode", "--python", python(peer), "-r", pins], check=True)
    shutil.copyfile(pins, made)


# --- Noria and the floor


def _noria(model: Trained, folder: Path, port: int) -> Start:
    environment = {"SM_MODEL_DIR": str(model.bundle), "SAGEMAKER_BIND_TO_PORT": str(port)}
    return Start([CONTAINER, "-m", "pipelines.serving", "serve", "--host", "127.0.0.1"], environment)


def _floor(model: Trained, folder: Path, port: int) -> Start:
    return Start([CONTAINER, "-m", f"{PACKAGE}.floor", str(port), str(CORES)])


def _instances(rows: Sequence[Row], task: Task) -> Any:
    return {"instances": rows}


def _noria_scores(answer: Any, task: Task) -> Scores:
    def of(prediction: Any) -> Any:
        if task is Task.MULTICLASS:
            return list(prediction["scores"].values())
        return prediction["prediction" if task is Task.REGRESSION else "score"]

    return [of(prediction) for prediction in answer["predictions"]]


# --- peers


def _aws(model: Trained, folder: Path, port: int) -> Start:
    installed("aws")
    base = folder / "ml"
    base.mkdir(exist_ok=True)
    (base / "model").unlink(missing_ok=True)
    (base / "model").symlink_to(model.bundle.resolve())
    environment = {
        "SAGEMAKER_BASE_DIR": str(base),
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": str(model.bundle.resolve() / "code"),
    }
    return Start(
        [python("aws"), "-m", f"{PACKAGE}.aws_stack", str(port), str(CORES), folder, tool("nginx")], environment
    )


def _mlflow(model: Trained, folder: Path, port: int) -> Start:
    installed("mlflow")
    saved, example = folder / "model", folder / "example.json"
    shutil.rmtree(saved, ignore_errors=True)
    example.write_text(json.dumps(model.rows[:100]), encoding="utf-8")
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    _run([python("mlflow"), "-m", f"{PACKAGE}.mlflow_model", model.bundle, saved, example], quiet)
    serve = ("models", "serve", "-m", saved, "-h", "127.0.0.1", "-p", str(port), "--workers", str(CORES))
    path = f"{python('mlflow').parent}:{os.environ['PATH']}"  # it looks for uvicorn there
    return Start([python("mlflow").with_name("mlflow"), *serve, "--env-manager", "local"], {**quiet, "PATH": path})


def _mlflow_body(rows: Sequence[Row], task: Task) -> Any:
    columns = list(rows[0])
    return {"dataframe_split": {"columns": columns, "data": [[row[name] for name in columns] for row in rows]}}


def _bentoml(model: Trained, folder: Path, port: int) -> Start:
    installed("bentoml")
    environment = {
        "BUNDLE": str(model.bundle.resolve()),
        "WORKERS": str(CORES),
        "BATCHABLE": "1",
        "BENTOML_HOME": str(folder),
        "BENTOML_DO_NOT_TRACK": "true",
    }
    serve = ("serve", f"{PACKAGE}.bentoml_service:Flights", "--host", "127.0.0.1", "--port", str(port))
    return Start([python("bentoml").with_name("bentoml"), *serve], environment)


def _mlserver(model: Trained, folder: Path, port: int) -> Start:
    installed("mlserver")
    written = folder / "flights"
    _run([python("mlserver"), "-m", f"{PACKAGE}.mlserver_model", model.bundle, written, str(port), str(CORES)])
    return Start([python("mlserver").with_name("mlserver"), "start", written], folder=folder)


def _mlserver_body(rows: Sequence[Row], task: Task) -> Any:
    def column(name: str) -> Any:
        values = [row[name] for row in rows]
        text = isinstance(values[0], str)
        kind = "BYTES" if text else "INT64" if isinstance(values[0], int) else "FP64"
        tensor = {"name": name, "shape": [len(rows), 1], "datatype": kind, "data": values}
        return {**tensor, "parameters": {"content_type": "str"}} if text else tensor

    wanted = "predict" if task is Task.REGRESSION else "predict_proba"
    inputs = [column(name) for name in rows[0]]
    return {"parameters": {"content_type": "pd"}, "inputs": inputs, "outputs": [{"name": wanted}]}


def _mlserver_scores(answer: Any, task: Task) -> Scores:
    output = answer["outputs"][0]
    width = 1 if task is Task.REGRESSION else output["shape"][1]
    rows = [output["data"][start : start + width] for start in range(0, len(output["data"]), width)]
    if task is Task.MULTICLASS:
        return rows
    return [row[-1] for row in rows]


def _fastapi(model: Trained, folder: Path, port: int) -> Start:
    installed("fastapi")
    serve = (
        "-m",
        "uvicorn",
        f"{PACKAGE}.fastapi_app:app",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        str(CORES),
    )
    environment = {"BUNDLE": str(model.bundle.resolve())}
    return Start([python("fastapi"), *serve, "--no-access-log"], environment)


def _predictions(answer: Any, task: Task) -> Scores:
    return list(answer["predictions"])


FLOOR = Contender("empty handler", "/invocations", _floor, _instances, None, f"granian, RSGI, {CORES} workers")
NORIA = Contender(
    "Noria", "/invocations", _noria, _instances, _noria_scores, f"pipelines/serving as it is deployed: {CORES} workers"
)
PEERS = (
    Contender(
        "AWS's stack",
        "/invocations",
        _aws,
        _instances,
        _noria_scores,
        f"nginx, gunicorn with gevent and Flask as sagemaker-containers starts them, {CORES} workers, our inference.py",
    ),
    Contender(
        "MLflow",
        "/invocations",
        _mlflow,
        _mlflow_body,
        _predictions,
        f"`mlflow models serve --workers {CORES}`, pyfunc model with a signature, dataframe_split",
    ),
    Contender(
        "MLServer",
        "/v2/models/flights/infer",
        _mlserver,
        _mlserver_body,
        _mlserver_scores,
        f"scikit-learn runtime, parallel_workers {CORES}, a tensor a column, decoded by pandas",
    ),
    Contender(
        "BentoML",
        "/predict",
        _bentoml,
        lambda rows, task: {"rows": rows},
        lambda answer, task: list(answer),
        f"service with {CORES} workers, adaptive batching",
    ),
    Contender(
        "FastAPI",
        "/invocations",
        _fastapi,
        _instances,
        _predictions,
        f"uvicorn with uvloop and httptools, {CORES} workers, rows into a pandas data frame",
    ),
)
# Its documentation leaves adaptive batching off, since its values are to be found by trying; these were.
BATCHING = {"MLSERVER_MODEL_MAX_BATCH_SIZE": "16", "MLSERVER_MODEL_MAX_BATCH_TIME": "0.002"}
TUNED = tuple(
    replace(
        peer, name=f"{peer.name}, tuned", environment={**ONE_THREAD, **(BATCHING if peer.name == "MLServer" else {})}
    )
    for peer in PEERS
)
CONTENDERS = (FLOOR, NORIA, *PEERS, *TUNED)


def _run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    """What a peer needs done before it starts; its output is shown if it fails."""
    ran = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{ran.stdout}")


# --- tools of Debian


def tool(name: str) -> Path:
    """wrk or nginx: this machine's, or else unpacked from its Debian packages, which needs no root."""
    if found := shutil.which(name):
        return Path(found)
    unpacked = HOME / "tools"
    binary = unpacked / "usr" / ("sbin" if name == "nginx" else "bin") / name
    if not binary.exists():
        unpacked.mkdir(parents=True, exist_ok=True)
        packages = {"wrk": ["wrk", "libluajit-5.1-2", "libluajit-5.1-common"], "nginx": ["nginx"]}[name]
        subprocess.run(["apt-get", "download", "-qq", *packages], cwd=unpacked, check=True)
        for package in unpacked.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, unpacked], check=True)
            package.unlink()
    return binary


LIBRARIES = {"LD_LIBRARY_PATH": str(HOME / "tools" / "usr" / "lib" / f"{os.uname().machine}-linux-gnu")}
"""For wrk, where it was unpacked."""
