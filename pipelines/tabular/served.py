"""Who answers for a bundle: Noria's server where it has model.onnx, else its own code in AWS's container."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.serving import inference, server
from pipelines.serving.inference import JSON, Answer, Model

Ask = Callable[[bytes, str], list[Answer]]
"""From a request's body and media type to the predictions. Raises `CannotPredict`."""


class CannotPredict(Exception):
    """A bundle does not answer the rows it was asked; the message says what it said."""


def load(bundle: Path) -> Model:
    """The form of the model that is served."""
    return server.load(bundle) if (bundle / server.MODEL).exists() else inference.model_fn(str(bundle))


def served(bundle: Path) -> Ask:
    """The server of an unpacked bundle, from body to body, without the network between."""
    respond = _noria(bundle) if (bundle / server.MODEL).exists() else _aws(bundle)

    def ask(body: bytes, content_type: str) -> list[Answer]:
        status, answer = respond(body, content_type)
        if status != 200:
            raise CannotPredict(f"it answered {status}: {answer[:300].decode(errors='replace')}")
        predictions: list[Answer] = json.loads(answer)["predictions"]
        return predictions

    return ask


Respond = Callable[[bytes, str], tuple[int, bytes]]


def _noria(bundle: Path) -> Respond:
    invoke = server.Invocations(server.load(bundle))

    def respond(body: bytes, content_type: str) -> tuple[int, bytes]:
        reply = invoke(body, content_type, JSON)
        return reply.status, reply.body

    return respond


def _aws(bundle: Path) -> Respond:
    code = _import(bundle / "code" / "inference.py")
    model = code.model_fn(str(bundle))

    def respond(body: bytes, content_type: str) -> tuple[int, bytes]:
        # The container gives texts to the script, and takes a pair or a WSGI application from it.
        result: Any = code.output_fn(code.predict_fn(code.input_fn(body.decode(), content_type), model), JSON)
        if isinstance(result, tuple):
            return 200, result[0].encode() if isinstance(result[0], str) else result[0]
        statuses: list[int] = []
        answer = b"".join(result({}, lambda status, headers: statuses.append(int(status.split()[0]))))
        return statuses[0], answer

    return respond


def _import(path: Path) -> ModuleType:
    """A bundle's own code, under a name of its own: candidate and champion may carry different versions."""
    name = f"bundle_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CannotPredict(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module
