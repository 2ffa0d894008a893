"""Training rows become a model bundle: what goes to S3 as model.tar.gz, and what the endpoint loads.

model.joblib       the estimator
model.onnx         the same model for Noria's server, if it answers as the estimator does: then this is what is served
signature.json     what it takes and answers (signature.Signature)
spec.json          the spec it was trained for
training.json      what it was trained on, how, and which form of it is served (Training)
baseline.json      profile of the training rows and of the predictions for them (noria.profile.Profile)
golden.json        training rows with the answers that every server of this bundle must give (noria.golden.Golden)
attribution.json   what the predictions for training rows rest on (noria.explain.Attribution)
code/inference.py  answers requests in AWS's scikit-learn image
"""

import inspect
import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import joblib
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from noria import explain, golden, profile
from noria.evaluation import Served, Slice, Training
from noria.explain import Answer, Attribution, Row
from noria.golden import Golden
from noria.spec import FeatureType, ModelSpec, Task
from noria.sql import Resources, connect, identifier, literal
from pipelines.serving import inference, server
from pipelines.tabular import trees
from pipelines.tabular.checkpoints import Checkpoints
from pipelines.tabular.served import load, served
from pipelines.tabular.signature import Input, Signature, signature

MAX_BINS = 255
"""HistGradientBoosting has at most so many bins for a feature, and so many categories."""

EARLY_STOPPING_ROWS = 10_000
"""From so many rows on, scikit-learn stops early unless told otherwise (HistGradientBoosting, `early_stopping`)."""

LARGEST_DIFFERENCE = 1e-5
"""Between the answers of the two forms of a model; beyond it, scikit-learn's is served."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Rows as the estimator takes them, in order of time: `inputs` (rows, features); `target` (rows,)."""

    inputs: Matrix
    target: NDArray[Any]
    time: NDArray[np.datetime64]


class Untrainable(Exception):
    """The rows cannot train the model of the spec; the message says why."""


def train(
    rows: Path,
    holdout: Path,
    spec: ModelSpec,
    bundle: Path,
    *,
    resources: Resources,
    checkpoints: Checkpoints | None = None,
) -> Training:
    """Fit a model to prepared rows and write its bundle. Raises `Untrainable`.

    `holdout` holds prepared rows too; nothing is learnt from them: on them, as on those of the training, the two forms
    of the model are compared. With `checkpoints`, a fit that was interrupted goes on.
    """
    with connect(resources) as db:
        known = describe(db, rows, spec)
        table, unseen = (read(db, part, spec, known) for part in (rows, holdout))
    estimator = fit(table, spec, known, checkpoints)
    (bundle / "code").mkdir(parents=True, exist_ok=True)
    joblib.dump(estimator, bundle / "model.joblib")
    shutil.copyfile(inference.__file__, bundle / "code" / "inference.py")
    _write(bundle / "signature.json", known)
    _write(bundle / "spec.json", spec)
    form = _exported(estimator, spec, known, bundle, np.concatenate([table.inputs, unseen.inputs]))
    iterations = getattr(estimator, "n_iter_", None)
    training = Training(
        **dict(form),
        rows=_slice(table),
        estimator=f"{type(estimator).__module__.partition('.')[0]}.{type(estimator).__name__}",
        iterations=None if iterations is None else int(np.max(iterations)),
        hyperparameters=dict(spec.train.hyperparameters),
    )
    _write(bundle / "training.json", training)
    _write(bundle / "baseline.json", _baseline(rows, table, spec, bundle, resources))
    _write(bundle / golden.FILE, _golden(rows, spec, known, bundle, resources))
    _write(bundle / explain.FILE, _attribution(rows, spec, known, bundle, resources))
    return training


def _write(path: Path, document: BaseModel) -> None:
    path.write_text(document.model_dump_json(indent=1), encoding="utf-8")


def _exported(estimator: Any, spec: ModelSpec, known: Signature, bundle: Path, inputs: Matrix) -> Served:
    """Write model.onnx, and keep it if Noria's server is wanted and it answers as the estimator does."""
    if spec.server != "noria":
        return Served(serves="sklearn", serves_because="the spec chooses a server that loads model.joblib")
    exported = bundle / server.MODEL
    try:
        exported.write_bytes(trees.export(estimator, known))
    except trees.NotExportable as error:
        return Served(serves="sklearn", serves_because=f"there is no ONNX form of it: {error}")
    theirs, mine = inference.model_fn(str(bundle)).predict(inputs), server.load(bundle).predict(inputs)
    difference = float(np.max(np.abs(theirs - mine) / np.maximum(np.abs(theirs), 1)))
    apart = Served(serves="onnx", onnx_difference=difference, onnx_rows=len(inputs))
    if difference <= LARGEST_DIFFERENCE:
        return apart
    exported.unlink()
    because = f"its ONNX form answers differently, by up to {difference:g}, which is more than {LARGEST_DIFFERENCE:g}"
    return apart.model_copy(update={"serves": "sklearn", "serves_because": because})


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


def fit(table: Table, spec: ModelSpec, known: Signature, checkpoints: Checkpoints | None = None) -> Any:
    """A fitted estimator: the one that the spec names, or HistGradientBoosting of its task."""
    if spec.train.estimator:
        chosen, data = _named(spec.train.estimator, table, spec, known)
    else:
        chosen, data = _boosting(table, spec, known)
    return checkpoints.fit(chosen, *data.rows, **data.more) if checkpoints else chosen.fit(*data.rows, **data.more)


@dataclass(frozen=True)
class _Data:
    """What a fit is given: `rows` are inputs and target; `more` is given by name."""

    rows: tuple[Matrix, NDArray[Any]]
    more: dict[str, Any] = field(default_factory=dict)


def _named(path: str, table: Table, spec: ModelSpec, known: Signature) -> tuple[Any, _Data]:
    """Raises `Untrainable` where the image does not have it."""
    module, _, name = path.rpartition(".")
    try:
        estimator = getattr(import_module(module), name)(**spec.train.hyperparameters)
    except (ImportError, AttributeError, TypeError) as error:
        raise Untrainable(f"the image has no {path} that takes these hyperparameters: {error}") from error
    if "random_state" in estimator.get_params() and "random_state" not in spec.train.hyperparameters:
        estimator.set_params(random_state=spec.train.seed)
    # LightGBM is told in `fit` which columns are categories; to other estimators their positions are numbers.
    told = "categorical_feature" in inspect.signature(estimator.fit).parameters and known.categorical
    return estimator, _Data((table.inputs, table.target), {"categorical_feature": known.categorical} if told else {})


def _boosting(table: Table, spec: ModelSpec, known: Signature) -> tuple[Any, _Data]:
    """Early stopping watches the newest rows, never random ones."""
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
        return estimator, _Data((table.inputs, table.target))
    watched = {"X_val": table.inputs[newer], "y_val": table.target[newer]}
    return estimator, _Data((table.inputs[older], table.target[older]), watched)


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
    answers = load(bundle).answer(table.inputs)
    column = "score" if spec.task is Task.BINARY else "prediction"
    predicted = {column: np.array([answer[column] for answer in answers])}
    if spec.task is Task.MULTICLASS:
        predicted["confidence"] = np.array([max(answer["scores"].values()) for answer in answers])
    with tempfile.TemporaryDirectory(dir=resources.temp_directory) as folder, connect(resources) as db:
        path = Path(folder) / "predicted.parquet"
        db.register("predictions", predicted)
        db.sql(f"FROM read_parquet({literal(str(rows))}) POSITIONAL JOIN predictions").write_parquet(str(path))
        source = profile.Source.files(path)
        return profile.profile(source, spec, profile.edges(source, spec, resources=resources), resources=resources)


def _golden(rows: Path, spec: ModelSpec, known: Signature, bundle: Path, resources: Resources) -> Golden:
    """Rows from the first to the last of the training, at equal distances, and what the bundle answers them."""
    places = np.linspace(0, _count(rows, resources) - 1, spec.serve.golden).round().astype(int).tolist()
    instances = _instances(rows, known, places, resources)
    answers = _asking(bundle)(instances) if instances else []
    return Golden(bundle=load(bundle).bundle, rows=tuple(instances), answers=tuple(answers))


def _attribution(rows: Path, spec: ModelSpec, known: Signature, bundle: Path, resources: Resources) -> Attribution:
    """Explain some of the training rows, asking what will serve the bundle; others are the background."""
    began, features, seed = time.perf_counter(), len(known.features), load(bundle).bundle
    count = _count(rows, resources)
    most = explain.rows_for(features, most=explain.TRAINING_ROWS, asked=explain.MOST_ASKED_AT_TRAINING)
    places = random.Random(seed).sample(range(count), min(count, explain.BACKGROUND_ROWS + most))  # noqa: S311
    background = _instances(rows, known, places[: explain.BACKGROUND_ROWS], resources)
    explained = _instances(rows, known, places[-most:] if most else (), resources)
    pairs = explain.pairs_for(features)
    return Attribution(
        bundle=seed,
        seed=seed,
        rows=len(explained),
        pairs=pairs,
        weights=explain.weights(explained, background, _asking(bundle), spec.task, pairs=pairs, seed=seed),
        background=tuple(background),
        seconds=round(time.perf_counter() - began, 3),
    )


def _asking(bundle: Path) -> explain.Ask:
    """What serves a bundle, asked rows as clients ask them."""
    answering = served(bundle)

    def ask(rows: Sequence[Row]) -> list[Answer]:
        return list(answering(json.dumps({"instances": rows}).encode(), inference.JSON))

    return ask


def _count(rows: Path, resources: Resources) -> int:
    with connect(resources) as db:
        ((count,),) = db.execute(f"SELECT count(*) FROM read_parquet({literal(str(rows))})").fetchall()  # noqa: S608
    return int(count)


def _instances(rows: Path, known: Signature, places: Iterable[int], resources: Resources) -> list[dict[str, Any]]:
    """The rows at these places (from 0), in their order there, as clients send them."""
    names = [feature.name for feature in known.features]
    columns = ", ".join(identifier(name) for name in names)
    with connect(resources) as db:
        found = db.execute(
            f"SELECT {columns} FROM read_parquet({literal(str(rows))}, file_row_number = true) "  # noqa: S608
            "WHERE list_contains(?, file_row_number) ORDER BY file_row_number",
            [sorted(set(places))],
        ).fetchall()
    return [dict(zip(names, row, strict=True)) for row in found]


def _number(feature: Input) -> str:
    name = identifier(feature.name)
    return f"CAST({_position(name, feature.categories) if feature.type is FeatureType.CATEGORY else name} AS DOUBLE)"


def _position(column: str, values: list[str] | tuple[str, ...]) -> str:
    """SQL for the position (from 0) of a text in a list; NULL when it isn't in it."""
    return f"list_position([{', '.join(literal(value) for value in values)}]::VARCHAR[], {column}) - 1"


def _texts(db: duckdb.DuckDBPyConnection, query: str) -> tuple[str, ...]:
    return tuple(text for (text,) in db.execute(query).fetchall())
