"""How right the predictions were, once the labels are known.

captured requests ─ predictions ┐
labels file ─ checked ─ labels  ┴ joined on (inference_id, row) ─ metrics, overall and by segment
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb
from pydantic import BaseModel, ConfigDict

from noria import capture
from noria.evaluation import SEGMENT_ROWS
from noria.labels import LabelsError, LabelsFile, outcome, read_labels
from noria.profile import Source
from noria.spec import METRICS, FeatureType, Metric, ModelSpec, Task
from noria.sql import MODEST, Resources, connect, label, literal

_SMALLEST = 1e-15  # a probability of zero for what happened would cost infinitely much


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Score(Part):
    """Metrics over `rows` labelled predictions; one that is undefined there (AUC of a single class) is left out.

    Metrics of probabilities are over the rows that carry them: multiclass answers in CSV do not.
    """

    rows: int
    metrics: dict[Metric, float]


class Quality(Part):
    """Predictions of a source joined with late labels. `coverage` is the share of predictions that have a label.

    `malformed` counts captured records, and predictions in them, that could not be read. `segments` has the values of
    the spec's segments that have at least `noria.evaluation.SEGMENT_ROWS` rows.
    """

    model: str
    predictions: int
    labels: int
    matched: int
    unmatched_labels: int
    malformed: int
    coverage: float
    overall: Score
    segments: dict[str, dict[str, Score]]


def join(
    source: Source, labels: Path, spec: ModelSpec, *, filename: str | None = None, resources: Resources = MODEST
) -> Quality:
    """Join captured predictions with a labels file: columns inference_id, row (0 when absent), and the target.

    Metrics are those that a candidate is gated on (pipelines.tabular.metrics). A request that was captured or sent
    twice under one inference_id counts once, by its newest answer. Raises `LabelsError`; `filename` is what it calls
    the file.
    """
    with connect(resources) as db:
        file = LabelsFile(labels, filename or labels.name)
        read_labels(db, [file], spec)
        malformed = match(db, source, spec, name=file.name)
        predictions, known = _one(db, "SELECT (SELECT count(*) FROM predicted), (SELECT count(*) FROM label)")
        overall = score(db, spec.task)
        segments = {
            segment: {
                str(value): score
                for value, score in sorted(_scores(db, f"s{place}", spec.task).items())
                if score.rows >= SEGMENT_ROWS
            }
            for place, segment in enumerate(spec.segments)
        }
    return Quality(
        model=spec.model,
        predictions=predictions,
        labels=known,
        matched=overall.rows,
        unmatched_labels=known - overall.rows,
        malformed=malformed,
        coverage=overall.rows / predictions if predictions else 0.0,
        overall=overall,
        segments=segments,
    )


# --- predictions


def match(db: duckdb.DuckDBPyConnection, source: Source, spec: ModelSpec, *, name: str) -> int:
    """Fill tables `predicted` and `matched`, the latter with each prediction's `truth`. Returns malformed.

    Raises `LabelsError` where labels (of file `name`) and predictions do not speak of the same.
    """
    malformed = _read_predictions(db, source, spec)
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE matched AS SELECT predicted.*, {_truth(db, spec, name)} AS truth "
        "FROM predicted JOIN label USING (inference_id, row)"
    )
    return malformed


def _read_predictions(db: duckdb.DuckDBPyConnection, source: Source, spec: ModelSpec) -> int:
    """Fill table `predicted`: inference_id, row, s0 … sn (segments), prediction, score, scores. Returns malformed."""
    if source.kind != "captured":
        raise ValueError("labels are joined with captured requests: use Source.captured")
    captured = capture.relation(source.paths, spec, since=source.since, until=source.until)
    segments = [f", {_segment(spec, segment)} AS s{place}" for place, segment in enumerate(spec.segments)]
    usable = "isfinite(score)" if spec.task is Task.BINARY else "prediction IS NOT NULL"
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE answer AS SELECT malformed, inference_id, row, time{''.join(segments)}, "
        f"{outcome('prediction', spec.task)} AS prediction, score, "
        f"list_transform(map_entries(scores), lambda e: {{'label': {label('e.key')}, 'p': e.value}}) AS scores "
        f"FROM {captured}"
    )
    db.execute(
        "CREATE OR REPLACE TEMP TABLE predicted AS SELECT * EXCLUDE (malformed, time) FROM answer "
        f"WHERE NOT malformed AND coalesce({usable}, false) "
        "QUALIFY row_number() OVER (PARTITION BY inference_id, row ORDER BY time DESC, prediction, score) = 1"
    )
    (malformed,) = _one(db, f"SELECT count(*) FROM answer WHERE malformed OR NOT coalesce({usable}, false)")
    return int(malformed)


def _segment(spec: ModelSpec, name: str) -> str:
    column = f"f{[*spec.features].index(name)}"
    return f"TRY_CAST({column} AS BIGINT)" if spec.features[name].type is FeatureType.INTEGER else column


def _truth(db: duckdb.DuckDBPyConnection, spec: ModelSpec, name: str) -> str:
    return f"target = {literal(_positive(db, spec, name))}" if spec.task is Task.BINARY else "target"


def _positive(db: duckdb.DuckDBPyConnection, spec: ModelSpec, name: str) -> str:
    """The label that scores are probabilities of: the last of the two in the order of the model's signature."""
    predicted, told = (
        {text for (text,) in db.execute(f"SELECT DISTINCT {column} FROM {table} LIMIT 5").fetchall() if text}
        for column, table in (("prediction", "predicted"), ("target", "label"))
    )
    if len(predicted | told) > 2:
        problem = (
            f"{name}: column {spec.target!r} holds {', '.join(sorted(told))} where the model predicts "
            f"{', '.join(sorted(predicted)) or 'nothing'}: write the labels as the model's training data does"
        )
        raise LabelsError([problem])
    ordered = _ordered(predicted | told)
    if len(ordered) == 1:
        # One label only: how the model scores what it calls by that name tells which of the two it is.
        (score,) = _one(db, "SELECT avg(score) FROM predicted WHERE prediction IS NOT NULL")
        ordered = ["", *ordered] if score is not None and score >= 0.5 else [*ordered, ""]
    return ordered[-1] if ordered else ""


def _ordered(labels: Iterable[str]) -> list[str]:
    found = set(labels)
    whole = all(text.lstrip("-").isdecimal() and str(int(text)) == text for text in found)
    return sorted(found, key=int) if whole else sorted(found)


# --- metrics


def score(db: duckdb.DuckDBPyConnection, task: Task) -> Score:
    """Of all rows of table `matched`."""
    return _scores(db, "0", task).get(0, Score(rows=0, metrics={}))


def _scores(db: duckdb.DuckDBPyConnection, group: str, task: Task) -> dict[Any, Score]:
    """The score of each value of `group`, SQL over table `matched`."""
    grouped = f"(SELECT {group} AS g, * FROM matched WHERE {group} IS NOT NULL)"
    wanted = _METRICS[task]
    rows = db.execute(f"SELECT g, count(*), {', '.join(wanted.values())} FROM {grouped} GROUP BY g").fetchall()
    found = {value: (count, dict(zip(wanted, values, strict=True))) for value, count, *values in rows}
    for metric, query in _FURTHER[task].items():
        for value, measured in db.execute(query.format(grouped=grouped)).fetchall():
            found[value][1][metric] = measured
    return {
        value: Score(rows=count, metrics={m: measured[m] for m in METRICS[task] if measured.get(m) is not None})
        for value, (count, measured) in found.items()
    }


def _loss(probability: str) -> str:
    return f"favg(-ln(greatest(least({probability}, 1.0), {_SMALLEST!r})))"


def _probability(of: str) -> str:
    return f"coalesce(list_filter(scores, lambda s: s.label = {of})[1].p, 0.0)"


def _area(pairs: str) -> str:
    """SQL: area under the ROC curve for each g, ties counting half; the mean over labels, where several are asked.

    `pairs` selects g, of (a label), truth (whether it is that) and score.
    """
    return f"""
        WITH ties AS (
            SELECT g, of, score, count_if(truth)::DOUBLE AS positives, count_if(NOT truth)::DOUBLE AS negatives
            FROM ({pairs}) GROUP BY g, of, score
        ), ranked AS (
            SELECT *, sum(negatives) OVER (PARTITION BY g, of ORDER BY score) - negatives / 2 AS below FROM ties
        ), areas AS (
            SELECT g, sum(positives * below) / nullif(sum(positives) * sum(negatives), 0) AS area
            FROM ranked GROUP BY g, of
        ) SELECT g, avg(area) FROM areas GROUP BY g"""


_ERROR = "(TRY_CAST(prediction AS DOUBLE) - truth)"
_METRICS: Mapping[Task, Mapping[Metric, str]] = {
    Task.BINARY: {
        Metric.ACCURACY: "avg(((score >= 0.5) = truth)::INTEGER)",
        Metric.F1: "coalesce(2 * count_if(score >= 0.5 AND truth)"
        " / nullif(count_if(score >= 0.5) + count_if(truth), 0), 0.0)",
        Metric.LOG_LOSS: _loss("CASE WHEN truth THEN score ELSE 1 - score END"),
        Metric.BRIER: "favg((score - truth::INTEGER) ** 2)",
    },
    Task.MULTICLASS: {
        Metric.ACCURACY: "avg((prediction = truth)::INTEGER)",
        Metric.LOG_LOSS: f"{_loss(_probability('truth'))} FILTER (scores IS NOT NULL)",
    },
    Task.REGRESSION: {
        Metric.RMSE: f"sqrt(favg({_ERROR} ** 2))",
        Metric.MAE: f"favg(abs({_ERROR}))",
        Metric.R2: f"1 - favg({_ERROR} ** 2) / nullif(var_pop(truth), 0)",
    },
}
"""Aggregates over rows of prediction, score, scores and truth (whether positive, the label, or the number)."""

_FURTHER: Mapping[Task, Mapping[Metric, str]] = {
    Task.BINARY: {Metric.AUC: _area("SELECT g, 0 AS of, truth, score FROM {grouped}")},
    Task.MULTICLASS: {
        # Each row names its label twice, once as what was predicted and once as what was true: F1 is the share of
        # hits among these.
        Metric.F1: "SELECT g, avg(f1) FROM (SELECT g, of, avg(hit) AS f1 FROM (SELECT g, unnest([prediction, truth]) "
        "AS of, (prediction = truth)::INTEGER AS hit FROM {grouped}) GROUP BY g, of) GROUP BY g",
        # A label that the model was never taught has probability zero.
        Metric.AUC: _area(
            f"SELECT g, of, truth = of AS truth, {_probability('of')} AS score FROM {{grouped}}, (SELECT DISTINCT "
            "unnest(list_append(list_transform(scores, lambda s: s.label), truth)) AS of FROM matched) "
            "WHERE scores IS NOT NULL"
        ),
    },
    Task.REGRESSION: {},
}
"""Queries of g and the metric, for what takes more than one aggregation."""


def _one(db: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    (row,) = db.execute(query).fetchall()
    return tuple(row)
