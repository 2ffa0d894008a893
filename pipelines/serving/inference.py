"""Answers prediction requests inside AWS's scikit-learn container; it travels in the model bundle it serves.

    application/json   {"instances": [{"feature": value, ...}, ...]}; null where a value is missing
    text/csv           rows without a header, fields in the order of signature.json; empty where a value is missing

    application/json   {"predictions": [{"prediction": ..., "score": ...}, ...]}
    text/csv           prediction,score

`score` is the probability of the positive class (binary classification only); multiclass answers `scores`, one per
label; regression the prediction alone. A category that training did not see counts as missing.

A client's mistake is answered 400, naming row (from 0) and field: an error raised here would be a 500, and so could
roll a deployment back. The container gives no other way to choose a status than to return a WSGI application
(aws/sagemaker-containers, `_transformer.py`: what is not a pair is handed to Flask as it is). Its published source
ignores `transform_fn` (aws/sagemaker-scikit-learn-container, `serving.py`, issues 40 and 172), hence three functions.

Standard library, numpy, joblib and scikit-learn only: nothing is installed when a container starts.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn import config_context

JSON = "application/json"
CSV = "text/csv"
PROBLEMS_TOLD = 20

Matrix = NDArray[np.float64]
Convert = Callable[[Any], float]


@dataclass(frozen=True)
class BadRequest:
    """An answer 400, and a WSGI application that gives it."""

    problems: Sequence[Mapping[str, Any]]

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = json.dumps({"error": "the request was not understood", "problems": self.problems}).encode()
        start_response("400 Bad Request", [("Content-Type", JSON), ("Content-Length", str(len(body)))])
        return [body]


def refuse(problem: str, **where: Any) -> BadRequest:
    return BadRequest([{**where, "problem": problem}])


@dataclass(frozen=True)
class Feature:
    """One input: where it is in a row, and how a value becomes the number that the model was trained on."""

    name: str
    nullable: bool
    from_json: Convert
    from_text: Convert


class Model:
    """An estimator with its signature (`signature.json`)."""

    def __init__(self, signature: Mapping[str, Any], estimator: Any) -> None:
        self.task: str = signature["task"]
        self.labels: list[Any] = signature["labels"]
        self.features = [_feature(feature) for feature in signature["features"]]
        self._estimator = estimator

    def predict(self, rows: Matrix) -> NDArray[Any]:
        """Probabilities, (rows, labels), of a classifier; values, (rows,), of a regressor."""
        with config_context(assume_finite=True, skip_parameter_validation=True):
            if self.task == "regression":
                return np.asarray(self._estimator.predict(rows))
            return np.asarray(self._estimator.predict_proba(rows))

    def answer(self, rows: Matrix) -> list[dict[str, Any]]:
        """One prediction per row, as it is sent in JSON."""
        output = self.predict(rows)
        if self.task == "regression":
            return [{"prediction": value} for value in output.tolist()]
        if self.task == "binary_classification":
            scores = output[:, 1].tolist()
            return [{"prediction": self.labels[score >= 0.5], "score": score} for score in scores]
        names = [str(label) for label in self.labels]
        best = output.argmax(axis=1).tolist()
        return [
            {"prediction": self.labels[index], "scores": dict(zip(names, scores, strict=True))}
            for index, scores in zip(best, output.tolist(), strict=True)
        ]


# --- the container's functions


def model_fn(model_dir: str) -> Model:
    """The model of an unpacked bundle."""
    bundle = Path(model_dir)
    signature = json.loads((bundle / "signature.json").read_text(encoding="utf-8"))
    return Model(signature, joblib.load(bundle / "model.joblib"))


def input_fn(body: str | bytes, content_type: str) -> Any:
    """Rows as the client sent them: of mappings (JSON) or of texts (CSV)."""
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        text = body.decode() if isinstance(body, bytes) else body
    except UnicodeDecodeError:
        return refuse("the body is not UTF-8 text")
    if media_type == CSV:
        return [row for row in csv.reader(io.StringIO(text)) if row] or refuse("the body has no rows")
    if media_type != JSON:
        return refuse(f"content type {content_type!r} is not known: send {JSON} or {CSV}")
    try:
        document = json.loads(text)
    except ValueError as error:
        return refuse(f"the body is not JSON: {error}")
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list) or not instances:
        return refuse('the body must be {"instances": [{...}, ...]} with at least one instance')
    return instances


def predict_fn(rows: Any, model: Model) -> Any:
    """Predictions, or the refusal of a request with mistakes."""
    if isinstance(rows, BadRequest):
        return rows
    matrix = encode(rows, model.features)
    return matrix if isinstance(matrix, BadRequest) else model.answer(matrix)


def output_fn(predictions: Any, accept: str) -> Any:
    """A body and its media type, or a refusal."""
    if isinstance(predictions, BadRequest):
        return predictions
    media_types = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    for media_type in media_types:
        if media_type in (JSON, "*/*", "application/*"):
            return json.dumps({"predictions": predictions}), JSON
        if media_type == CSV:
            lines = io.StringIO()
            fields = [[p["prediction"], p["score"]] if "score" in p else [p["prediction"]] for p in predictions]
            csv.writer(lines, lineterminator="\n").writerows(fields)
            return lines.getvalue(), CSV
    return refuse(f"accept {accept!r} cannot be answered: ask for {JSON} or {CSV}")


# --- values


def encode(rows: Sequence[Any], features: Sequence[Feature]) -> Matrix | BadRequest:
    """Rows as the model takes them, (rows, features); all mistakes, up to a limit, where there are any."""
    matrix = np.empty((len(rows), len(features)))
    problems: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        try:
            matrix[index] = _row(row, features)
        except (KeyError, TypeError, ValueError, OverflowError):
            problems += _problems(index, row, features)
            if len(problems) >= PROBLEMS_TOLD:
                break
    return BadRequest(problems[:PROBLEMS_TOLD]) if problems else matrix


def _row(row: Any, features: Sequence[Feature]) -> list[float]:
    if isinstance(row, dict):
        values = [
            feature.from_json(value) if (value := row[feature.name]) is not None else _missing(feature)
            for feature in features
        ]
    elif isinstance(row, list):
        values = [
            feature.from_text(text) if text != "" else _missing(feature)
            for feature, text in zip(features, row, strict=True)
        ]
    else:
        raise TypeError
    return values


def _missing(feature: Feature) -> float:
    if not feature.nullable:
        raise ValueError("a value is required")
    return math.nan


def _problems(index: int, row: Any, features: Sequence[Feature]) -> list[dict[str, Any]]:
    """The slow way through a row that has a mistake: which fields, and why."""
    if isinstance(row, list) and len(row) != len(features):
        names = ", ".join(feature.name for feature in features)
        return [{"row": index, "problem": f"{len(row)} fields instead of {len(features)}: {names}"}]
    if not isinstance(row, dict | list):
        return [{"row": index, "problem": "an instance is an object of feature names and values"}]
    found = []
    for position, feature in enumerate(features):
        try:
            _row({feature.name: row[feature.name]} if isinstance(row, dict) else [row[position]], [feature])
        except KeyError:
            found.append({"row": index, "field": feature.name, "problem": "the feature is missing"})
        except (TypeError, ValueError, OverflowError) as error:
            found.append({"row": index, "field": feature.name, "problem": str(error)})
    return found


def _feature(signature: Mapping[str, Any]) -> Feature:
    kind = signature["type"]
    if kind == "category":
        codes = {category: float(code) for code, category in enumerate(signature["categories"])}
        from_json, from_text = _category(codes), lambda text: codes.get(text, math.nan)
    else:
        from_json, from_text = (_integer, _integer_text) if kind == "integer" else (_number, _number_text)
    return Feature(
        name=signature["name"], nullable=bool(signature["nullable"]), from_json=from_json, from_text=from_text
    )


def _category(codes: Mapping[str, float]) -> Convert:
    def convert(value: Any) -> float:
        if isinstance(value, str):
            return codes.get(value, math.nan)
        if isinstance(value, bool):
            return codes.get(str(value).lower(), math.nan)
        if isinstance(value, int):
            return codes.get(str(value), math.nan)
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
