"""Noria's model server: SageMaker's container contract, from model.onnx without pandas, scikit-learn or pickle.

    GET  /ping          200 once the model is loaded
    POST /invocations   what inference.py describes, and Parquet: a column for each feature
    GET  /metrics       Prometheus text, of all workers

Answers to a client's mistake: 400 with row and field, 404, 405, 406, 415. An RSGI application (granian): the event loop
of a worker parses, predicts and writes one request at a time, which takes less than handing it to a thread would.
"""

import logging
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray

from pipelines.serving import inference
from pipelines.serving.inference import JSON, MEDIA_TYPES, Answer, Contract, Exchange, Matrix, Model, Refused
from pipelines.serving.metrics import CONTENT_TYPE, Metrics

logger = logging.getLogger("noria.server")

MODEL = "model.onnx"
PARQUET = ("application/x-parquet", "application/vnd.apache.parquet")
READABLE = (*MEDIA_TYPES, *PARQUET)

Headers = list[tuple[str, str]]


class Scope(Protocol):
    """The head of a request, as RSGI gives it."""

    path: str
    method: str

    @property
    def headers(self) -> Any: ...


class Exchanged(Protocol):
    """The body of a request, and the way for its answer."""

    async def __call__(self) -> bytes: ...

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None: ...


def load(bundle: Path) -> Model:
    """The ONNX model of an unpacked bundle."""
    options = onnxruntime.SessionOptions()
    # One process per core: threads within one request would only wait for each other.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(bundle / MODEL, options, providers=["CPUExecutionProvider"])
    contract = Contract(inference.read_signature(bundle))
    several = contract.task == "multiclass_classification"
    run, given, wanted = session.run, session.get_inputs()[0].name, [session.get_outputs()[0].name]

    def predict(rows: Matrix) -> NDArray[Any]:
        output: NDArray[Any] = run(wanted, {given: rows})[0]
        return output if several else output[:, 0]

    predict(np.zeros((1, len(contract.features))))  # the first run allocates
    return Model(contract, predict, inference.digest(bundle / MODEL))


class Reply(NamedTuple):
    """An answer on its way out; `rows` is how many were predicted."""

    status: int
    media_type: str
    body: bytes
    rows: int = 0


class Invocations:
    """What `/invocations` does, from body to body."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(self, body: bytes, content_type: str = "", accept: str = "") -> Reply:
        try:
            media_type = inference.accepted(accept)
            answers = self._answers(body, inference.media_type_of(content_type, READABLE))
            return Reply(200, media_type, inference.render(answers, media_type, orjson.dumps), len(answers))
        except Refused as refusal:
            return Reply(refusal.status, JSON, orjson.dumps(refusal.document))

    def _answers(self, body: bytes, media_type: str) -> list[Answer]:
        contract = self.model.contract
        if media_type in PARQUET:
            from pipelines.serving import parquet  # noqa: PLC0415 - DuckDB costs 30 MB, and few ever send Parquet

            rows = parquet.rows(body, contract.names)
        else:
            rows = inference.parse(body, media_type, orjson.loads)
        return self.model.answer(contract.encode(rows))


class Application:
    """The RSGI application of one worker."""

    def __init__(self, model: Model, metrics: Metrics, *, capture: bool = False) -> None:
        """With `capture`, requests that were answered and their answers are printed."""
        self._invoke = Invocations(model)
        self._metrics = metrics
        self._capture = capture
        self._headers: dict[str, Headers] = {
            media_type: [("content-type", media_type), *model.headers] for media_type in MEDIA_TYPES
        }

    async def __call__(self, scope: Scope, protocol: Exchanged) -> None:
        if scope.path != "/invocations" or scope.method != "POST":
            other = self._other(scope.path, scope.method)
            protocol.response_bytes(other.status, [("content-type", other.media_type)], other.body)
            return
        body = await protocol()
        began = time.perf_counter()
        header = scope.headers.get
        content_type = header("content-type", "")
        try:
            reply = self._invoke(body, content_type, header("accept", ""))
        except Exception:  # a fault of ours: the client's 500 and this log's traceback
            logger.exception("a request could not be answered")
            reply = Reply(500, JSON, b'{"error": "the server failed: see its log"}')
        protocol.response_bytes(reply.status, self._headers[reply.media_type], reply.body)
        self._metrics.count(reply.status, reply.rows, time.perf_counter() - began)
        if self._capture and reply.status == 200:
            inference_id = header("x-amzn-sagemaker-inference-id", "")
            answered_by = self._invoke.model.attributes
            exchange = Exchange(content_type or JSON, body, reply.media_type, reply.body, answered_by, inference_id)
            inference.capture(exchange, orjson.dumps)

    def _other(self, path: str, method: str) -> Reply:
        match path, method:
            case "/ping", "GET":
                return Reply(200, JSON, b"")
            case "/metrics", "GET":
                return Reply(200, CONTENT_TYPE, self._metrics.text(self._invoke.model.bundle))
            case (("/ping" | "/metrics" | "/invocations"), _):
                return Reply(405, JSON, b'{"error": "GET /ping, POST /invocations, GET /metrics"}')
        return Reply(404, JSON, b'{"error": "there is only /ping, /invocations and /metrics"}')
