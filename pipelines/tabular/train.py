"""Training rows become a model bundle: what goes to S3 as model.tar.gz, and what the endpoint loads.

model.joblib       the estimator
signature.json     what it takes and answers (signature.Signature)
spec.json          the spec it was trained for
training.json      what it was trained on, and how (Training)
baseline.json      profile of the training rows and of the predictions for them (noria.profile.Profile)
code/inference.py  answers requests
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import joblib
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from noria import profile
from noria.evaluation import Slice
from noria.spec import FeatureType, ModelSpec, Task
from noria.sql import Resources, connect, identifier, literal
from pipelines.serving import inference
from pipelines.tabular.signature import Input, Signature, signature

MAX_BINS = 255
"""HistGradientBoosting has at most so many bins for a feature, and so many categories."""

EARLY_STOPPING_ROWS = 10_000
"""From so many rows on, scikit-learn stops early unless told otherwise (HistGradientBoosting, `early_stopping`)."""

Matrix = NDArray[np.float64]


class Training(BaseModel):
    """`training.json`."""

    model_config = ConfigDict(frozen=True)

    rows: Slice
    iterations: int
    hyperparameters: dict[str, int | float | str | bool | None]


@dataclass(frozen=True)
class Table:
    """Rows as the estimator takes them, in order of time: `inputs` (rows, features); `target` (rows,)."""

    inputs: Matrix
    target: NDArray[Any]
    time: NDArray[np.datetime64]


class Untrainable(Exception):
    """The rows cannot train the model of the spec; the message says why."""


def train(rows: Path, spec: ModelSpec, bundle: Path, *, resources: Resources) -> Training:
    """Fit a model to prepared rows and write its bundle. Raises `Untrainable`."""
    with connect(resources) as db:
        known = describe(db, rows, spec)
        table = read(db, rows, spec, known)
    estimator = fit(table, spec, known)
    training = Training(
        rows=_slice(table), iterations=int(estimator.n_iter_), hyperparameters=dict(spec.train.hyperparameters)
    )
    (bundle / "code").mkdir(parents=True, exist_ok=True)
    joblib.dump(estimator, bundle / "model.joblib")
    documents: dict[str, BaseModel] = {"signature": known, "spec": spec, "training": training}
    for name, document in documents.items():
        (bundle / f"{name}.json").write_text(document.model_dump_json(indent=1), encoding="utf-8")
    shutil.copyfile(inference.__file__, bundle / "code" / "inference.py")
    baseline = _baseline(rows, table, spec, bundle, resources)
    (bundle / "baseline.json").write_text(baseline.model_dump_json(), encoding="utf-8")
    return training


def describe(db: duckdb.DuckDBPyConnection, rows: Path, spec: ModelSpec) -> Signature:
    """The signature that these rows teach: categories by frequency, as many as a feature may have, and labels."""
    limit = spec.train.hyperparameters.get("max_bins", MAX_BINS)
    source = f"read_parquet({literal(str(rows))})"
    categories = {
        name: _texts(
            db,
            f"SELECT {identifier(name)} FROM {source} WHERE {identifier(name)} IS NOT NULL "  # noqa: S608
            f"GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {limit}",
        )
        for name, feature in spec.features.items()
        if feature.type is FeatureType.CATEGORY
    }
    target = identifier(spec.target)
    regression = spec.task is Task.REGRESSION
    labels = () if regression else _texts(db, f"SELECT DISTINCT {target} FROM {source}")  # noqa: S608
    if not regression and len(labels) < 2:
        raise Untrainable(
            f"the training rows hold one value of {spec.target} only, {labels}: upload rows of the others"
        )
    if spec.task is Task.BINARY and len(labels) > 2:
        raise Untrainable(
            f"{spec.target} has {len(labels)} values ({', '.join(labels[:5])} …) and a binary classification two: "
            "correct the data, or give the model task multiclass_classification"
        )
    return signature(spec, {name: tuple(sorted(found)) for name, found in categories.items()}, labels)


def read(db: duckdb.DuckDBPyConnection, rows: Path, spec: ModelSpec, known: Signature) -> Table:
    """Prepared rows as numbers: categories and labels as their positions in the signature, NaN where missing."""
    target = identifier(spec.target)
    if spec.task is not Task.REGRESSION:
        target = _position(target, known.label_texts)
    columns = [f"{_number(feature)} AS {identifier(feature.name)}" for feature in known.features]
    result = db.execute(
        f"SELECT {', '.join(columns)}, CAST({target} AS DOUBLE) AS {identifier(spec.target)}, "  # noqa: S608
        f"{identifier(spec.time)} FROM read_parquet({literal(str(rows))})"
    ).fetchnumpy()
    inputs = np.column_stack([np.ma.filled(result[feature.name], np.nan) for feature in known.features])
    return Table(inputs=inputs, target=np.ma.filled(result[spec.target], np.nan), time=result[spec.time])


def fit(table: Table, spec: ModelSpec, known: Signature) -> Any:
    """A fitted HistGradientBoosting of the spec's task. Early stopping watches the newest rows, never random ones."""
    chosen = dict(spec.train.hyperparameters)
    wished = chosen.pop("early_stopping", "auto")
    older, newer = _parted(table, float(chosen.get("validation_fraction") or 0.1))
    # Labels that only the newest rows hold cannot be learnt, and scikit-learn refuses to validate on them.
    possible = older.any() and (spec.task is Task.REGRESSION or set(table.target[newer]) <= set(table.target[older]))
    stop = bool(possible and (len(table.target) >= EARLY_STOPPING_ROWS if wished == "auto" else wished))
    estimator_class = HistGradientBoostingRegressor if spec.task is Task.REGRESSION else HistGradientBoostingClassifier
    estimator = estimator_class(
        **chosen, early_stopping=stop, categorical_features=known.categorical or None, random_state=spec.train.seed
    )
    if not stop:
        return estimator.fit(table.inputs, table.target)
    return estimator.fit(table.inputs[older], table.target[older], X_val=table.inputs[newer], y_val=table.target[newer])


def _parted(table: Table, share: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of the older and the newest rows; rows of one time stay together."""
    boundary = table.time[int(len(table.time) * (1 - share))]
    return table.time < boundary, table.time >= boundary


def _slice(table: Table) -> Slice:
    return Slice(
        rows=len(table.time), first_event=table.time.min().astype(object), last_event=table.time.max().astype(object)
    )


def _baseline(rows: Path, table: Table, spec: ModelSpec, bundle: Path, resources: Resources) -> profile.Profile:
    """Profile the training rows beside what the finished bundle predicts for them."""
    model = inference.model_fn(str(bundle))
    answers = model.answer(table.inputs)
    column = "score" if spec.task is Task.BINARY else "prediction"
    values = np.array([answer[column] for answer in answers])
    with tempfile.TemporaryDirectory(dir=resources.temp_directory) as folder, connect(resources) as db:
        path = Path(folder) / "predicted.parquet"
        db.register("predictions", {column: values})
        db.sql(f"FROM read_parquet({literal(str(rows))}) POSITIONAL JOIN predictions").write_parquet(str(path))
        source = profile.Source.files(path)
        return profile.profile(source, spec, profile.edges(source, spec, resources=resources), resources=resources)


def _number(feature: Input) -> str:
    name = identifier(feature.name)
    return f"CAST({_position(name, feature.categories) if feature.type is FeatureType.CATEGORY else name} AS DOUBLE)"


def _position(column: str, values: list[str] | tuple[str, ...]) -> str:
    """SQL for the position (from 0) of a text in a list; NULL when it isn't in it."""
    return f"list_position([{', '.join(literal(value) for value in values)}]::VARCHAR[], {column}) - 1"


def _texts(db: duckdb.DuckDBPyConnection, query: str) -> tuple[str, ...]:
    return tuple(text for (text,) in db.execute(query).fetchall())
