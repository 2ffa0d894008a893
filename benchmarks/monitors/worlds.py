"""Real data sets, each with a model of its own: rows that are drawn from again and again."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from local.cloud import REPOSITORY
from local.demo import flights
from noria.spec import FeatureType, ModelSpec, Task, load
from noria.watch import Monitor

Row = Mapping[str, Any]
Answer = dict[str, Any]

TRAINED_ON = 0.4
"""Share of the rows that the model is trained on; the others are drawn from."""


@dataclass(frozen=True)
class World:
    """Rows, what the model answers to them, and what was true.

    `table` is a Parquet file of the same rows, numbered in column `n`, with what a baseline has of the answers.
    """

    spec: ModelSpec
    rows: Sequence[Row]
    answers: Sequence[Answer]
    truths: Sequence[Any]
    ask: Callable[[Sequence[Row]], list[Answer]]
    table: Path

    @property
    def numbers(self) -> dict[str, float]:
        """Features that vary, with their standard deviations."""
        columns = {
            name: np.array([row[name] for row in self.rows if row[name] is not None], dtype=float)
            for name, feature in self.spec.features.items()
            if feature.type is not FeatureType.CATEGORY
        }
        return {name: float(values.std()) for name, values in columns.items() if values.std() > 0}


def _flights() -> World:
    """Four months of 2013, one of each season."""
    shipped = load(REPOSITORY / "models" / "flight-delay.yaml")
    spec = shipped.model_copy(update={"monitor": Monitor(), "segments": ()})
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as db:
        for month in (1, 4, 7, 10):
            (Path(folder) / f"{month:02}.csv").write_bytes(flights.month(201300 + month))
        table = db.read_csv(f"{folder}/*.csv", sample_size=-1)
        found = [dict(zip(table.columns, values, strict=True)) for values in table.fetchall()]
    rows = [{name: row[name] for name in spec.features} for row in found]
    return _trained(spec, rows, [int(row[spec.target]) for row in found])


def _digits() -> World:
    """Handwritten digits, 64 features; a few hundred rows, which are drawn many times over."""
    data = load_digits()
    spec = _spec("digits", Task.MULTICLASS, [f"p{n}" for n in range(data.data.shape[1])])
    return _trained(spec, _rows(spec, data.data), [int(y) for y in data.target])


def _diabetes() -> World:
    data = load_diabetes()
    spec = _spec("diabetes", Task.REGRESSION, list(data.feature_names))
    return _trained(spec, _rows(spec, data.data), [float(y) for y in data.target])


WORLDS: Mapping[str, Callable[[], World]] = {
    "flights": cache(_flights),
    "digits": cache(_digits),
    "diabetes": cache(_diabetes),
}


def _spec(model: str, task: Task, features: Sequence[str]) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "model": model,
            "task": task,
            "target": "target",
            "time": "at",
            "features": {name: {"type": "number"} for name in features},
            "owner": {"team": "benchmark"},
        }
    )


def _rows(spec: ModelSpec, values: Any) -> list[Row]:
    return [dict(zip(spec.features, map(float, row), strict=True)) for row in values]


def _trained(spec: ModelSpec, rows: Sequence[Row], truths: Sequence[Any]) -> World:
    order = np.random.default_rng(0).permutation(len(rows))
    cut = int(len(rows) * TRAINED_ON)
    learnt, kept = order[:cut], order[cut:]
    categories = [n for n, (_, f) in enumerate(spec.features.items()) if f.type is FeatureType.CATEGORY]
    encode = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), categories), remainder="passthrough"
    )
    model = make_pipeline(encode, _MODELS[spec.task]())
    model.fit(_table(spec, [rows[n] for n in learnt]), [truths[n] for n in learnt])

    def ask(asked: Sequence[Row]) -> list[Answer]:
        return _answers(spec, model, _table(spec, asked))

    drawn = [rows[n] for n in kept]
    answers = ask(drawn)
    return World(spec, drawn, answers, [truths[n] for n in kept], ask, _written(spec.model, drawn, answers))


@cache
def _folder() -> Path:
    """Gone with the process that asked first."""
    folder = Path(tempfile.mkdtemp(prefix="noria-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _written(name: str, rows: Sequence[Row], answers: Sequence[Answer]) -> Path:
    lines, table = _folder() / f"{name}.jsonl", _folder() / f"{name}.parquet"
    with lines.open("w") as file:
        for n, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            told = {"confidence": max(scores.values())} if (scores := answer.get("scores")) else {}
            told |= {key: answer[key] for key in ("prediction", "score") if key in answer}
            file.write(json.dumps({"n": n, **row, **told}) + "\n")
    duckdb.read_json(str(lines), format="newline_delimited", sample_size=-1).write_parquet(str(table))
    return table


_MODELS: Mapping[Task, Callable[[], Any]] = {
    Task.BINARY: lambda: HistGradientBoostingClassifier(random_state=0, max_iter=50),
    Task.MULTICLASS: lambda: LogisticRegression(C=0.01, max_iter=2000, tol=1e-3),
    Task.REGRESSION: Ridge,
}


def _table(spec: ModelSpec, rows: Sequence[Row]) -> Any:
    table = np.empty((len(rows), len(spec.features)), dtype=object)
    for n, row in enumerate(rows):
        table[n] = [np.nan if row[name] is None else row[name] for name in spec.features]
    return table


def _answers(spec: ModelSpec, model: Any, table: Any) -> list[Answer]:
    if spec.task is Task.REGRESSION:
        return [{"prediction": float(value)} for value in model.predict(table)]
    classes, shares = [str(c) for c in model.classes_], model.predict_proba(table)
    if spec.task is Task.BINARY:
        return [{"prediction": classes[int(p >= 0.5)], "score": float(p)} for _, p in shares]
    return [
        {"prediction": classes[int(row.argmax())], "scores": dict(zip(classes, map(float, row), strict=True))}
        for row in shares
    ]
