"""Stands in for AWS's scikit-learn serving container: one model behind `GET /ping` and `POST /invocations`.

    python serve.py --socket PATH

Listens on a Unix socket, which a container without network can be reached by; the socket is there once the model is
loaded. Runs under the interpreter that stands for the image, so it uses the standard library alone (and numpy for the
container's default encodings). The environment is the container's: `SAGEMAKER_PROGRAM`, `SAGEMAKER_SUBMIT_DIRECTORY`,
`SM_MODEL_DIR`, `SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT`. The contract with user code is the one of
aws/sagemaker-scikit-learn-container (`serving.py`) on aws/sagemaker-containers (`_transformer.py`, `_worker.py`):

    model_fn(model_dir)                                  once, before the first ping succeeds
    transform_fn(model, content, content_type, accept)   or, instead of it,
    input_fn(content, content_type) → predict_fn(data, model) → output_fn(prediction, accept)

`content` is text for `application/json` and `text/csv`, else bytes. What is returned becomes the answer by Flask's
rules:

    (body, media type)     200 (the container turns the pair into a response itself)
    a WSGI application     its own status: any Flask or Werkzeug `Response` is one, and so is any
                           callable(environ, start_response). The only way to answer 4xx on purpose.
    str or bytes           200, text/html
    dict or list           200, application/json
    an error raised        500, whatever its type
"""

import argparse
import importlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

logger = logging.getLogger("serve")

JSON = "application/json"
CSV = "text/csv"
NPY = "application/x-npy"
TEXT_TYPES = (JSON, CSV)
Transform = Callable[[Any, Any, str, str], Any]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class UnsupportedFormatError(Exception):
    """A media type that the container's default encoders do not know."""


# --- user code


def load_model() -> tuple[Any, Transform]:
    """The model and the function that serves it, from the user's script; its requirements are installed first."""
    script = Path(os.environ["SAGEMAKER_PROGRAM"])
    code = Path(os.environ["SAGEMAKER_SUBMIT_DIRECTORY"])
    if (code / "requirements.txt").exists():
        install = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-r", "requirements.txt"]
        subprocess.run(install, cwd=code, check=True)
        importlib.invalidate_caches()
    sys.path.insert(0, str(code))
    module = importlib.import_module(script.stem)
    steps = [getattr(module, name, None) for name in ("input_fn", "predict_fn", "output_fn")]
    transform: Transform | None = getattr(module, "transform_fn", None)
    if transform and any(steps):
        raise ValueError("Cannot use transform_fn implementation with input_fn, predict_fn, and/or output_fn")
    return module.model_fn(os.environ["SM_MODEL_DIR"]), transform or _in_steps(*steps)


def _in_steps(input_fn: Any, predict_fn: Any, output_fn: Any) -> Transform:
    def transform(model: Any, content: Any, content_type: str, accept: str) -> Any:
        try:
            data = (input_fn or decode)(content, content_type)
        except UnsupportedFormatError as error:
            return _refusal(error, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        prediction = (predict_fn or _predict)(data, model)
        try:
            return (output_fn or _encoded)(prediction, accept)
        except UnsupportedFormatError as error:
            return _refusal(error, HTTPStatus.NOT_ACCEPTABLE)

    return transform


def _predict(data: Any, model: Any) -> Any:
    return model.predict(data)


def _encoded(prediction: Any, accept: str) -> tuple[bytes, str]:
    return encode(prediction, accept), accept


def _refusal(error: UnsupportedFormatError, status: HTTPStatus) -> Answer:
    body = {"error": type(error).__name__, "error-message": str(error)}
    return Answer(status, [("Content-Type", JSON)], json.dumps(body).encode())


def decode(content: Any, content_type: str) -> Any:
    """The default `input_fn`: an array; one CSV row gives one dimension, which scikit-learn refuses."""
    import numpy as np  # noqa: PLC0415 - a script with its own functions may serve without numpy

    if content_type == JSON:
        return np.array(json.loads(content)).astype(np.float32)
    if content_type == CSV:
        return np.genfromtxt(io.StringIO(content), dtype=np.float32, delimiter=",")
    if content_type == NPY:
        return np.load(io.BytesIO(content), allow_pickle=False)
    raise UnsupportedFormatError(f"Content type {content_type} is not supported by this framework.")


def encode(prediction: Any, accept: str) -> bytes:
    """The default `output_fn`."""
    import numpy as np  # noqa: PLC0415

    array, buffer = np.asarray(prediction), io.BytesIO()
    if accept == JSON:
        return json.dumps(array.tolist()).encode()
    if accept == CSV:
        np.savetxt(buffer, array, delimiter=",", fmt="%s")
    elif accept == NPY:
        np.save(buffer, array)
    else:
        raise UnsupportedFormatError(f"Accept type {accept} is not supported by this framework.")
    return buffer.getvalue()


# --- answers


def answer(result: Any, environ: dict[str, Any]) -> Answer:
    """What Flask would send for a view's result."""
    match result:
        case Answer():
            return result
        case tuple():
            body, media_type = result[:2]
            return Answer(HTTPStatus.OK, [("Content-Type", _with_charset(media_type))], _bytes(body))
        case str() | bytes() | bytearray():
            return Answer(HTTPStatus.OK, [("Content-Type", "text/html; charset=utf-8")], _bytes(result))
        case dict() | list():
            return Answer(HTTPStatus.OK, [("Content-Type", JSON)], json.dumps(result).encode())
    if not callable(result):
        raise TypeError(f"the script returned {type(result).__name__}, which is not a valid response")
    return _run_wsgi(result, environ)


def _run_wsgi(application: Callable[..., Any], environ: dict[str, Any]) -> Answer:
    started: list[tuple[int, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        started.append((int(status.split(maxsplit=1)[0]), headers))
        return lambda _: None

    body = b"".join(application(environ, start_response))
    status, headers = started[-1]
    return Answer(status, [(name, value) for name, value in headers if name.lower() != "content-length"], body)


def _with_charset(media_type: str) -> str:
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") and ";" not in media_type else media_type


def _bytes(body: str | bytes | bytearray) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)


INTERNAL_ERROR = Answer(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    [("Content-Type", "text/html; charset=utf-8")],
    b"<!doctype html>\n<html lang=en>\n<title>500 Internal Server Error</title>\n<h1>Internal Server Error</h1>\n",
)


# --- server


def handler(model: Any, transform: Transform) -> type[BaseHTTPRequestHandler]:
    default_accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", JSON)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one write an answer

        def do_GET(self) -> None:
            found = self.path == "/ping"
            self.reply(Answer(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND, [("Content-Type", JSON)], b""))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path != "/invocations":
                self.reply(Answer(HTTPStatus.NOT_FOUND, [], b""))
                return
            content_type = self.headers.get("Content-Type") or JSON
            accept = self.headers.get("Accept")
            accept = default_accept if accept in (None, "", "*/*") else accept
            try:
                content = body.decode(errors="replace") if content_type in TEXT_TYPES else body
                result = answer(transform(model, content, content_type, accept), self.environ(body))
            except Exception:  # user code: its error is the client's 500 and this log's traceback
                logger.exception("Exception on /invocations [POST]")
                result = INTERNAL_ERROR
            self.reply(result)

        def environ(self, body: bytes) -> dict[str, Any]:
            headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()}
            return {
                "REQUEST_METHOD": "POST",
                "PATH_INFO": "/invocations",
                "SERVER_NAME": "model.aws.local",
                "SERVER_PORT": "8080",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.version": (1, 0),
                "wsgi.url_scheme": "http",
                "wsgi.input": io.BytesIO(body),
                "wsgi.errors": sys.stderr,
                "wsgi.multithread": True,
                "wsgi.multiprocess": False,
                "wsgi.run_once": False,
                **headers,
            }

        def reply(self, result: Answer) -> None:
            self.send_response(result.status)
            for name, value in result.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(result.body)))
            self.end_headers()
            self.wfile.write(result.body)
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
            """Errors are logged where they happen; a line a request would drown them."""

    return Handler


class Server(ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", required=True)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s - %(name)s - %(message)s", level=logging.INFO)
    Server(options.socket, handler(*load_model())).serve_forever()


if __name__ == "__main__":
    main()
