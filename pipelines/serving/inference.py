"""What a model takes and answers, and the functions with which AWS's scikit-learn container serves it.

This one file travels in every bundle (code/inference.py), and Noria's own server (server.py) is built on it, so that
both servers take the same requests and give the same answers.

| media type              | request                                       | answer                                    |
|-------------------------|-----------------------------------------------|-------------------------------------------|
| `application/json`      | `{"instances": [{"feature": value, …}, …]}`   | `{"predictions": [{"prediction": …}, …]}` |
| `application/jsonlines` | `{"feature": value, …}` a line                | `{"prediction": …}` a line                |
| `text/csv`              | no header, features in the signature's order  | `prediction,score`, or `prediction`       |

A value is missing where JSON says null and CSV nothing. A category that training did not see counts as missing.
`score` is the probability of the positive class (binary classification only); multiclass answers `scores`, one per
label; regression the prediction alone.

A client's mistake is answered 4XX, naming row (from 0) and field: an error raised in AWS's container would be a 500,
and so could roll a deployment back. That container gives no other way to choose a status, or to send a header, than
to return a WSGI application (aws/sagemaker-containers, `_transformer.py`: what is not a pair is handed to Flask as it
is). Its published source ignores `transform_fn` (aws/sagemaker-scikit-learn-container, `serving.py`, issues 40 and
172), hence three functions.

Imports only what either container has: nothing is installed when one starts.
"""

import base64
import csv
import fcntl
import hashlib
import io
import json
import math
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

JSON, JSON_LINES, CSV = "application/json", "application/jsonlines", "text/csv"
MEDIA_TYPES = (JSON, JSON_LINES, CSV)
SIGNATURE = "signature.json"
PROBLEMS_TOLD = 20
KINDS_KEPT = TEXTS_KEPT = 4096
LONGEST_TEXT_KEPT = 32

LONGEST_LINE = 1_000_000
"""Bytes; CloudWatch Logs takes events up to 1 MB (`PutLogEvents`). Longer ones are told of, and not captured."""

Matrix = NDArray[np.float64]
Document = Any
Row = Any
Answer = dict[str, Any]
Convert = Callable[[Any], float]
Predict = Callable[[Matrix], NDArray[Any]]
"""From encoded rows (rows, features) to values (rows,) of a regression, probabilities of the positive class (rows,) of
a binary and probabilities (rows, labels) of a multiclass classification."""

Loads = Callable[[bytes], Document]
"""From JSON to a document without NaN or infinities; raises ValueError."""
Dumps = Callable[[Document], bytes]


class Refused(Exception):
    """A request that is not answered, and why: `status` is an HTTP status between 400 and 499."""

    def __init__(self, status: int, problems: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(problems)
        self.status = status
        self.document = {"error": "the request was not understood", "problems": problems}


def refused(problem: str, status: int = 400, **where: Any) -> Refused:
    return Refused(status, [{**where, "problem": problem}])


# --- a model


@dataclass(frozen=True)
class Model:
    """What predicts, behind the signature of its bundle; `bundle` is the SHA-256 of the file that it came from."""

    contract: "Contract"
    predict: Predict
    bundle: str

    @property
    def attributes(self) -> str:
        """What every answer says of its origin (see noria.golden)."""
        return f"noria-bundle={self.bundle}"

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The one header that SageMaker hands on."""
        return [("X-Amzn-SageMaker-Custom-Attributes", self.attributes)]

    def answer(self, rows: Matrix) -> list[Answer]:
        return self.contract.answers(self.predict(rows))


def read_signature(bundle: Path) -> Mapping[str, Any]:
    signature: Mapping[str, Any] = json.loads((bundle / SIGNATURE).read_text(encoding="utf-8"))
    return signature


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- signature.json: from values to numbers, and back to answers


class Contract:
    """What a bundle's signature says of requests and answers."""

    def __init__(self, signature: Mapping[str, Any]) -> None:
        self.task: str = signature["task"]
        self.labels: list[Any] = signature["labels"]
        self.features = [_feature(feature) for feature in signature["features"]]
        self.names = tuple(feature.name for feature in self.features)
        self._values = itemgetter(*self.names) if len(self.names) > 1 else lambda row: (row[self.names[0]],)
        self._codes = [
            (index, feature.codes) for index, feature in enumerate(self.features) if feature.codes is not None
        ]
        self._plain: set[tuple[type, ...]] = set()

    def encode(self, rows: Sequence[Row]) -> Matrix:
        """Rows as the model takes them, (rows, features). Raises `Refused`, which tells all mistakes up to a limit.

        Rows are dicts by feature name (JSON) or tuples of texts in order (CSV). Most rows hold the same types:
        a combination that was found right needs no look at the single values any more.
        """
        numbers: list[Any] = []
        problems: list[dict[str, Any]] = []
        for index, row in enumerate(rows):
            try:
                if row.__class__ is not dict:
                    numbers += self._from_texts(row)
                    continue
                values = self._values(row)
                kinds = tuple(map(type, values))
                if kinds in self._plain or self._are_plain(kinds):
                    values = list(values)
                    for position, codes in self._codes:
                        values[position] = codes[values[position]]
                    numbers += values
                else:
                    numbers += [feature.from_json(value) for feature, value in zip(self.features, values, strict=True)]
            except (KeyError, TypeError, ValueError, OverflowError):
                problems += self._problems(index, row)
                if len(problems) >= PROBLEMS_TOLD:
                    break
        if problems:
            raise Refused(400, problems[:PROBLEMS_TOLD])
        # numpy writes None as NaN.
        return np.array(numbers, dtype=np.float64).reshape(len(rows), len(self.features))

    def answers(self, output: NDArray[Any]) -> list[Answer]:
        """One answer per row, from what `Predict` gave."""
        labels = self.labels
        if self.task == "regression":
            return [{"prediction": value} for value in output.tolist()]
        if self.task == "binary_classification":
            return [{"prediction": labels[score >= 0.5], "score": score} for score in output.tolist()]
        names = [str(label) for label in labels]
        best = output.argmax(axis=1).tolist()
        return [
            {"prediction": labels[index], "scores": dict(zip(names, scores, strict=True))}
            for index, scores in zip(best, output.tolist(), strict=True)
        ]

    def _are_plain(self, kinds: tuple[type, ...]) -> bool:
        """Whether values of these types need no other conversion than numpy's and a category's code."""
        plain = all(kind in feature.plain for feature, kind in zip(self.features, kinds, strict=True))
        if plain and len(self._plain) < KINDS_KEPT:
            self._plain.add(kinds)
        return plain

    def _from_texts(self, row: Row) -> list[float]:
        if row.__class__ is not tuple:
            raise TypeError
        return [feature.from_text(text) for feature, text in zip(self.features, row, strict=True)]

    def _problems(self, index: int, row: Row) -> list[dict[str, Any]]:
        """The slow way through a row that has a mistake: which fields, and why."""
        if isinstance(row, tuple) and len(row) != len(self.features):
            names = ", ".join(self.names)
            return [{"row": index, "problem": f"{len(row)} fields instead of {len(self.features)}: {names}"}]
        if not isinstance(row, dict | tuple):
            return [{"row": index, "problem": "an instance is an object of feature names and values"}]
        found = []
        for position, feature in enumerate(self.features):
            try:
                _ = feature.from_json(row[feature.name]) if isinstance(row, dict) else feature.from_text(row[position])
            except KeyError:
                found.append({"row": index, "field": feature.name, "problem": "the feature is missing"})
            except (TypeError, ValueError, OverflowError) as error:
                found.append({"row": index, "field": feature.name, "problem": str(error)})
        return found


class _Codes(dict[Any, float]):
    """Positions of a feature's categories; NaN, as for a missing value, of any other."""

    def __missing__(self, category: Any) -> float:
        return math.nan


@dataclass(frozen=True)
class Feature:
    """One input: how a value becomes the number that the model was trained on.

    Values of the types in `plain` are numbers already, None, or keys of `codes`.
    """

    name: str
    from_json: Convert
    from_text: Convert
    plain: frozenset[type]
    codes: Mapping[Any, float] | None = None


def _feature(signature: Mapping[str, Any]) -> Feature:
    nullable, kind = bool(signature["nullable"]), signature["type"]
    missing = frozenset({type(None)} if nullable else ())
    if kind == "category":
        codes = _Codes({category: float(code) for code, category in enumerate(signature["categories"])})
        plain, from_json, from_text = frozenset({str}), _category(codes), codes.__getitem__
        return Feature(signature["name"], *_or_missing(nullable, from_json, from_text), plain | missing, codes)
    if kind == "integer":
        return Feature(signature["name"], *_or_missing(nullable, _integer, _integer_text), missing | {int})
    return Feature(signature["name"], *_or_missing(nullable, _number, _number_text), missing | {int, float})


def _or_missing(nullable: bool, from_json: Convert, from_text: Convert) -> tuple[Convert, Convert]:
    def missing() -> float:
        if not nullable:
            raise ValueError("a value is required")
        return math.nan

    return (
        lambda value: from_json(value) if value is not None else missing(),
        _Texts(lambda text: from_text(text) if text != "" else missing()).__getitem__,
    )


class _Texts(dict[str, float]):
    """Texts and their numbers: the same come again and again, and to look one up takes a tenth of the time.

    Clients choose them, so only short ones are kept, and not many.
    """

    def __init__(self, convert: Convert) -> None:
        super().__init__()
        self._convert = convert

    def __missing__(self, text: str) -> float:
        number = self._convert(text)
        if len(text) <= LONGEST_TEXT_KEPT:
            if len(self) >= TEXTS_KEPT:
                self.clear()
            self[text] = number
        return number


def _category(codes: Mapping[Any, float]) -> Convert:
    def convert(value: Any) -> float:
        if isinstance(value, str):
            return codes[value]
        if isinstance(value, bool):
            return codes[str(value).lower()]
        if isinstance(value, int):
            return codes[str(value)]
        raise ValueError(f"{value!r} is not a category: send text")

    return convert


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _integer(value: Any) -> float:
    number = _number(value)
    if not number.is_integer():
        raise ValueError(f"{value!r} is not a whole number")
    return number


def _number_text(text: str) -> float:
    try:
        return _number(float(text))
    except ValueError:
        raise ValueError(f"{text!r} is not a finite number") from None


def _integer_text(text: str) -> float:
    try:
        return _integer(float(text))
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a whole number") from None


# --- bodies: from bytes to rows, and from answers to bytes


@lru_cache(maxsize=128)
def media_type_of(content_type: str, known: tuple[str, ...] = MEDIA_TYPES) -> str:
    """The media type of a Content-Type header, JSON where there is none. Raises `Refused` (415) if it is not known."""
    media_type = content_type.partition(";")[0].strip().lower() or JSON
    if media_type not in known:
        raise refused(f"content type {content_type!r} is not known: send {', '.join(known)}", 415)
    return media_type


@lru_cache(maxsize=128)
def accepted(accept: str) -> str:
    """The media type to answer with: the one that an Accept header likes best. Raises `Refused` (406)."""
    choices = []
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((float(p[2:]) for p in parameters if p.startswith("q=") and _is_number(p[2:])), 1.0)
        choices.append((quality, name))
    for quality, name in sorted(choices, key=lambda choice: -choice[0]):
        found = next((known for known in MEDIA_TYPES if name in (known, "", "*/*", known.split("/")[0] + "/*")), None)
        if found and quality > 0:
            return found
    raise refused(f"accept {accept!r} cannot be answered: ask for {', '.join(MEDIA_TYPES)}", 406)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def parse(body: bytes, media_type: str, loads: Loads) -> list[Row]:
    """The rows of a request. Raises `Refused`."""
    try:
        if media_type == JSON:
            return _instances(loads(body))
        if media_type == JSON_LINES:
            rows = [loads(line) for line in body.splitlines() if line.strip()]
        else:
            rows = [tuple(row) for row in csv.reader(io.StringIO(body.decode())) if row]
    except UnicodeDecodeError:
        raise refused("the body is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise refused(f"the body is not JSON: {error}") from None
    except csv.Error as error:
        raise refused(f"the body is not CSV: {error}") from None
    if not rows:
        raise refused("the body has no rows")
    return rows


def _instances(document: Document) -> list[Row]:
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list) or not instances:
        raise refused('the body must be {"instances": [{...}, ...]} with at least one instance')
    return instances


def render(answers: Sequence[Answer], media_type: str, dumps: Dumps) -> bytes:
    """The body of an answer."""
    if media_type == JSON:
        return dumps({"predictions": answers})
    if media_type == JSON_LINES:
        return b"".join(dumps(answer) + b"\n" for answer in answers)
    lines = io.StringIO()
    fields = ([each["prediction"], each["score"]] if "score" in each else [each["prediction"]] for each in answers)
    csv.writer(lines, lineterminator="\n").writerows(fields)
    return lines.getvalue().encode()


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _whole(text: str) -> int | float:
    return int(text) if len(text) < 18 else _finite(text)


_DECODER = json.JSONDecoder(parse_float=_finite, parse_int=_whole, parse_constant=_finite)


def _loads(body: bytes) -> Document:
    return _DECODER.decode(body.decode())


def _dumps(document: Document) -> bytes:
    return json.dumps(document).encode()


# --- what is kept of requests where SageMaker keeps nothing


@dataclass(frozen=True)
class Exchange:
    """One request that was answered; `attributes` say by what, `inference_id` is empty where the client gave none."""

    content_type: str
    body: bytes
    answer_type: str
    answer: bytes
    attributes: str
    inference_id: str = ""

    def record(self) -> dict[str, Any]:
        """`{"noria": "capture", …}`: the rest are the members of a data-capture record.

        What reads the one reads the other (SageMaker guide, "Capture data from real-time endpoint").
        """
        metadata: dict[str, Any] = {
            "eventId": str(uuid.uuid4()),
            "customAttributes": [self.attributes],
            "inferenceTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        if self.inference_id:
            metadata["inferenceId"] = self.inference_id
        return {
            "noria": "capture",
            "captureData": {
                "endpointInput": _side("INPUT", self.content_type, self.body),
                "endpointOutput": _side("OUTPUT", self.answer_type, self.answer),
            },
            "eventMetadata": metadata,
            "eventVersion": "0",
        }


_printing = threading.Lock()


def capture(exchange: Exchange, dumps: Dumps, descriptor: int = 1) -> None:
    """Print an exchange as one line, with which no other thread's or process' line mixes.

    Processes lock the output itself: that takes no semaphore, for which a sandbox may have no /dev/shm, and the lock of
    a process that was killed is free.
    """
    line = dumps(exchange.record()) + b"\n"
    if len(line) > LONGEST_LINE:
        line = dumps({"noria": "not captured", "bytes": len(line)}) + b"\n"
    with _printing:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        try:
            while line:
                line = line[os.write(descriptor, line) :]
        finally:
            fcntl.lockf(descriptor, fcntl.LOCK_UN)


def _side(mode: str, content_type: str, data: bytes) -> dict[str, str]:
    encoding = {JSON: "JSON", CSV: "CSV"}.get(content_type.partition(";")[0].strip().lower(), "BASE64")
    text = base64.b64encode(data).decode() if encoding == "BASE64" else data.decode(errors="replace")
    return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}


# --- the functions that AWS's container calls


class Request(NamedTuple):
    body: bytes
    content_type: str


class Prediction(NamedTuple):
    """What a request led to: answers, or why there are none."""

    model: Model
    request: Request
    result: list[Answer] | Refused


@dataclass(frozen=True)
class Response:
    """A WSGI application that gives one answer, and prints a line where `exchange` is to be captured.

    The container calls it with the request's own environment (Flask, `make_response`): nowhere else does it show the
    client's inference id, by which labels are joined.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    exchange: Exchange | None = None

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self.exchange:
            inference_id = environ.get("HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID", "")
            capture(replace(self.exchange, inference_id=inference_id), _dumps)
        start_response(
            f"{self.status} {HTTPStatus(self.status).phrase}", [*self.headers, ("Content-Length", str(len(self.body)))]
        )
        return [self.body]


def model_fn(model_dir: str) -> Model:
    """The scikit-learn model of an unpacked bundle."""
    import joblib  # noqa: PLC0415 - Noria's server has neither joblib nor scikit-learn, and must not
    from sklearn import config_context  # noqa: PLC0415

    bundle = Path(model_dir)
    contract = Contract(read_signature(bundle))
    estimator = joblib.load(bundle / "model.joblib")

    def predict(rows: Matrix) -> NDArray[Any]:
        with config_context(assume_finite=True, skip_parameter_validation=True):
            if contract.task == "regression":
                return np.asarray(estimator.predict(rows))
            probabilities = np.asarray(estimator.predict_proba(rows))
            return probabilities[:, 1] if contract.task == "binary_classification" else probabilities

    return Model(contract, predict, digest(bundle / "model.joblib"))


def input_fn(body: str | bytes, content_type: str) -> Request:
    """The request as it came: what is wrong with it can be said only by `output_fn`."""
    return Request(body.encode() if isinstance(body, str) else body, content_type)


def predict_fn(request: Request, model: Model) -> Prediction:
    try:
        rows = parse(request.body, media_type_of(request.content_type), _loads)
        return Prediction(model, request, model.answer(model.contract.encode(rows)))
    except Refused as refusal:
        return Prediction(model, request, refusal)


def output_fn(prediction: Prediction, accept: str) -> Response:
    """With `NORIA_CAPTURE=stdout`, also a line of the log for each request that was answered."""
    model, request, result = prediction
    try:
        if isinstance(result, Refused):
            raise result
        media_type = accepted(accept)
    except Refused as refusal:
        return Response(refusal.status, [("Content-Type", JSON), *model.headers], _dumps(refusal.document))
    body = render(result, media_type, _dumps)
    captured = os.environ.get("NORIA_CAPTURE") == "stdout"
    exchange = Exchange(request.content_type, request.body, media_type, body, model.attributes) if captured else None
    return Response(200, [("Content-Type", media_type), *model.headers], body, exchange)
