"""How right the predictions were, once the labels are known.

captured requests ─ predictions ┐
labels files ─ checked ─ labels ┴ joined on (inference_id, row) ┬ metrics, overall and by segment ─ against registration
                                                                ├ calibration
                                                                └ fairness by segment
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import duckdb
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from noria import calibration, capture, fairness
from noria.evaluation import SEGMENT_ROWS, SEGMENT_VALUES, Calibration, Estimate, Evaluation, Fairness
from noria.intervals import REQUESTS, SURE, difference, quantile, wilson
from noria.labels import LabelsError, LabelsFile, outcome, read_labels, shown
from noria.monitors import Monitor, Reading, Unknown
from noria.profile import Source
from noria.spec import METRICS, FeatureType, Metric, ModelSpec, Task
from noria.sql import MODEST, Resources, cursor, label, literal, one_row

_SMALLEST = 1e-15  # a probability of zero for what happened would cost infinitely much


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Score(Part):
    """Metrics over `rows` labelled predictions in `requests`; undefined ones (AUC of a single class) are left out, and
    those that no double holds.

    Metrics of probabilities are over the rows that carry them: multiclass answers in CSV do not.
    """

    rows: int
    requests: int = 0
    metrics: dict[Metric, Estimate]

    @property
    def values(self) -> dict[Metric, float]:
        return {metric: estimate.value for metric, estimate in self.metrics.items()}


class QualityLoss(Part):
    """How much worse the spec's first metric is than it was at registration.

    `share` is (live - registered) / |registered|, with the sign that makes worse positive; `value` is the share, and 0
    where chance explains it. A registered value within its own uncertainty of zero counts as large as that uncertainty:
    nothing can be told as a share of zero.
    """

    metric: Metric
    registered: Estimate
    live: Estimate
    share: Estimate
    value: float

    @classmethod
    def of(cls, metric: Metric, registered: Estimate, live: Estimate) -> Self:
        """Of two independent estimates."""
        worse = difference(registered, live) if metric.higher_is_better else difference(live, registered)
        half = (registered.high - registered.low) / 2
        scale = max(abs(registered.value), half) or 1.0
        surely = worse.value > (worse.value - worse.low) * quantile(SURE) / quantile(0.95)
        share = Estimate(value=worse.value / scale, low=worse.low / scale, high=worse.high / scale)
        return cls(metric=metric, registered=registered, live=live, share=share, value=share.value if surely else 0.0)


class Quality(Part):
    """Predictions of a source, of [since, until), joined with late labels. `coverage`: the share that has a label.

    `malformed` counts captured records, and predictions in them, that could not be read; those of unknown time where
    their file is of that time. `segments` has the values of the spec's segments that have at least
    `noria.evaluation.SEGMENT_ROWS` rows, at most the `SEGMENT_VALUES` most frequent. `calibration` is of
    classifications that answer with probabilities, `fairness` (by segment) of binary ones. `registration` is None where
    the metric is undefined now, or is not known of then.
    """

    model: str
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    predictions: int
    labels: int
    matched: int
    unmatched_labels: int
    malformed: int
    coverage: float
    overall: Score
    segments: dict[str, dict[str, Score]]
    calibration: Calibration | None = None
    fairness: dict[str, Fairness] = Field(default_factory=dict)
    registration: QualityLoss | None = None


def join(
    source: Source,
    labels: Sequence[LabelsFile],
    spec: ModelSpec,
    *,
    registered: Evaluation | None = None,
    resources: Resources = MODEST,
) -> Quality:
    """Join captured predictions with labels files, oldest first: a later label replaces an earlier one.

    Metrics are those that a candidate is gated on (pipelines.tabular.metrics), and `registered` what it had then. A
    request that was captured or sent twice under one inference_id counts once, by its newest answer. Raises
    `LabelsError`. DuckDB keeps to the memory of `resources`, whatever the number of rows, and spills the rest.
    """
    with cursor(resources) as db:
        read_labels(db, labels, spec)
        malformed = match(db, source, spec, name=labels[-1].name if labels else "labels")
        predictions, known = one_row(db, "SELECT (SELECT count(*) FROM predicted), (SELECT count(*) FROM label)")
        overall = score(db, spec.task)
        segments = {
            segment: {str(value): score for value, score in sorted(_scores(db, column, spec.task).items())}
            for segment, column in _columns(spec).items()
        }
        calibrated = calibration.by_labels(db, spec.task)
        treated = _columns(spec) if spec.task is Task.BINARY else {}
        unequal = {segment: fairness.by_labels(db, column) for segment, column in treated.items()}
    metric = spec.primary_metric
    live, then = overall.metrics.get(metric), registered.metrics.get(metric) if registered else None
    return Quality(
        model=spec.model,
        since=source.since,
        until=source.until,
        predictions=predictions,
        labels=known,
        matched=overall.rows,
        unmatched_labels=known - overall.rows,
        malformed=malformed,
        coverage=overall.rows / predictions if predictions else 0.0,
        overall=overall,
        segments=segments,
        calibration=calibrated,
        fairness=unequal,
        registration=QualityLoss.of(metric, then, live) if then and live else None,
    )


# --- what a monitor reads


def reading(monitor: Monitor, quality: Quality, spec: ModelSpec) -> Reading | Unknown:
    """Of a monitor that needs labels; unknown where too few predictions have one, or none that tells."""
    few = _few(quality.overall.rows, quality.overall.requests, spec)
    if few or monitor.segment:
        return few or fairness.reading(monitor, quality.fairness.get(monitor.segment or ""))
    return _READERS[monitor.metric](quality, spec)


def _few(rows: int, requests: int, spec: ModelSpec) -> Unknown | None:
    wanted = spec.monitor.min_rows
    if rows < wanted:
        return Unknown(reason=f"{rows:,} predictions with a label are fewer than {wanted:,} (monitor.min_rows)")
    if requests < REQUESTS:
        told = f"{rows:,} predictions with a label came in {requests} requests"
        return Unknown(reason=f"{told}: rows of one request are alike, so {REQUESTS} requests are needed")
    return None


def _loss(quality: Quality, spec: ModelSpec) -> Reading | Unknown:
    loss, metric = quality.registration, spec.primary_metric
    if loss is None and metric not in quality.overall.metrics:
        return Unknown(reason=f"{metric.value} is undefined over these labels, as where they are all the same")
    if loss is None:
        return Unknown(reason=f"{metric.value} at registration is not known: the package has no evaluation that tells")
    live, then = loss.live, loss.registered
    told = f"{metric.value} is {live.value:.4g} ({live.low:.4g} to {live.high:.4g}), {then.value:.4g} at registration"
    by = f"{abs(loss.share.value):.1%} {'worse' if loss.share.value > 0 else 'better'}"
    surely = "" if loss.value or loss.share.value <= 0 else ", which chance explains"
    return Reading(loss.value, f"{told}: {by}{surely}.", low=loss.share.low, high=loss.share.high)


def _miscalibration(quality: Quality, spec: ModelSpec) -> Reading | Unknown:
    found = quality.calibration
    if found is None:
        return Unknown(reason="the predictions that have a label carry no probabilities: ask for answers in JSON")
    told = f"Expected calibration error {found.error:.3f} over {found.rows:,} labelled predictions"
    chance = f"chance explains {f'{found.chance:.3f} of it' if found.value else 'all of it'}"
    return _few(found.rows, REQUESTS, spec) or Reading(found.value, f"{told}; {chance}.")


_READERS: Mapping[str, Callable[[Quality, ModelSpec], Reading | Unknown]] = {
    "QualityLoss": _loss,
    "CalibrationError": _miscalibration,
}
"""By a monitor's metric."""


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
    segments = [f", {_segment(spec, segment)} AS {column}" for segment, column in _columns(spec).items()]
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
    (malformed,) = one_row(db, f"SELECT count(*) FROM answer WHERE malformed OR NOT coalesce({usable}, false)")
    return int(malformed)


def _columns(spec: ModelSpec) -> dict[str, str]:
    """The column of each segment."""
    return {segment: f"s{place}" for place, segment in enumerate(spec.segments)}


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
            f"{name}: column {spec.target!r} holds {shown(told)} where the model predicts "
            f"{shown(predicted) or 'nothing'}: write the labels as the model's training data does"
        )
        raise LabelsError([problem])
    ordered = _ordered(predicted | told)
    if len(ordered) == 1:
        # One label only: how the model scores what it calls by that name tells which of the two it is.
        (score,) = one_row(db, "SELECT avg(score) FROM predicted WHERE prediction IS NOT NULL")
        ordered = ["", *ordered] if score is not None and score >= 0.5 else [*ordered, ""]
    return ordered[-1] if ordered else ""


def _ordered(labels: Iterable[str]) -> list[str]:
    found = set(labels)
    whole = all(text.lstrip("-").isdecimal() and str(int(text)) == text for text in found)
    return sorted(found, key=int) if whole else sorted(found)


# --- metrics


def score(db: duckdb.DuckDBPyConnection, task: Task) -> Score:
    """Of all rows of table `matched`."""
    return _scores(db, "0", task, fewest=1).get(0, Score(rows=0, metrics={}))


def _scores(db: duckdb.DuckDBPyConnection, group: str, task: Task, *, fewest: int = SEGMENT_ROWS) -> dict[Any, Score]:
    """The score of each value of `group`, SQL over table `matched`, that has rows enough."""
    db.execute(
        f"CREATE OR REPLACE TEMP VIEW grouped AS SELECT {group} AS g, * FROM matched WHERE {group} IN (SELECT {group} "
        f"FROM matched GROUP BY 1 HAVING count(*) >= {fewest} ORDER BY count(*) DESC, 1 LIMIT {SEGMENT_VALUES})"
    )
    sizes = db.execute("SELECT g, count(*), count(DISTINCT inference_id) FROM grouped GROUP BY g").fetchall()
    found: dict[Any, dict[Metric, Estimate]] = {g: {} for g, *_ in sizes}
    for metric, influence in _METRICS[task].items():
        for g, value, variance, units in db.execute(_VARIANCE.format(influence=influence)).fetchall():
            if value is not None and math.isfinite(value) and math.isfinite(variance):
                found[g][metric] = _estimate(metric, value, variance, units)
    return {
        g: Score(rows=rows, requests=requests, metrics={m: found[g][m] for m in METRICS[task] if m in found[g]})
        for g, rows, requests in sizes
    }


def _estimate(metric: Metric, value: float, variance: float, units: int) -> Estimate:
    """95 %: Wilson's interval of what is between 0 and 1; a normal one of the logarithm of what is only above 0.

    Wilson's is that of as many independent rows as would have this variance (Korn and Graubard, Confidence intervals
    for proportions with small expected number of positive counts estimated from survey data, Survey Methodology 24,
    1998); of `units` rows where the metric is 0 or 1, and there is no variance.
    """
    if metric in {Metric.AUC, Metric.ACCURACY, Metric.F1}:
        return wilson(value, value * (1 - value) / variance if 0 < value < 1 and variance else units)
    if metric is Metric.R2:
        unexplained = _estimate(Metric.RMSE, 1 - value, variance, units)
        return Estimate(value=value, low=1 - unexplained.high, high=1 - unexplained.low)
    factor = math.exp(quantile(0.95) * math.sqrt(variance) / value) if value else 1.0
    return Estimate(value=value, low=value / factor, high=value * factor)


_VARIANCE = f"""
    WITH influence AS ({{influence}}), request AS (
        SELECT g, inference_id, any_value(value) AS value, any_value(fewest) AS fewest,
            count(*) AS n, sum(psi) AS total, sum(psi ** 2) AS squares
        FROM influence GROUP BY g, inference_id
    ), summed AS (
        SELECT g, any_value(value) AS value, any_value(fewest) AS fewest, count(*) AS requests, sum(n) AS n,
            sum(total ** 2) AS clustered, sum(squares) AS independent
        FROM request GROUP BY g
    )
    SELECT g, value, CASE WHEN requests >= {REQUESTS} THEN clustered * requests / (requests - 1)
            ELSE independent * n / greatest(n - 1, 1) END / n ** 2 AS variance,
        least(CASE WHEN requests >= {REQUESTS} THEN requests ELSE n END, fewest)::DOUBLE AS units
    FROM summed"""
"""SQL of a metric and its variance for each g, from the influence of each row.

A metric of n rows moves by psi / n when a row is counted a little more, and its variance is that of the mean of psi
(the infinitesimal jackknife: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 21). Rows of one
request are alike, requests are not: sums of psi over requests are what varies (Cochran, Sampling Techniques, 1977,
chapter 9). `fewest`: of how few rows the metric is a share at the least.
"""


def _of_means(
    columns: Mapping[str, str], means: Mapping[str, str], value: str, influence: str, *, where: str = "true"
) -> str:
    """SQL of g, inference_id, row, value, fewest, psi for a metric that is a function of means (the delta method).

    `columns`: of each row; `means`: aggregates of them; `value` is made of means, `influence` of both and the value.
    """
    of_row = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    of_all = ", ".join(f"{sql} AS {name}" for name, sql in means.items())
    return f"""
        WITH part AS (SELECT g, inference_id, row, {of_row} FROM grouped WHERE {where}),
        told AS (SELECT *, {value} AS value FROM (SELECT g, {of_all} FROM part GROUP BY g))
        SELECT g, inference_id, row, value, NULL AS fewest, {influence} AS psi FROM part JOIN told USING (g)"""


def _mean(of: str, *, where: str = "true") -> str:
    return _of_means({"x": of}, {"mean": "favg(x)"}, "mean", "x - value", where=where)


def _area(pairs: str) -> str:
    """The same of the area under the ROC curve, ties counting half; the mean over labels, where several are asked.

    `pairs` selects g, inference_id, row, of (a label), truth (whether it is that) and score. The influence is by
    DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
    characteristic curves, Biometrics 44, 1988; of requests with several rows by Obuchowski, Biometrics 53, 1997.
    """
    return f"""
        WITH pair AS ({pairs}), ties AS (
            SELECT g, of, score, count_if(truth)::DOUBLE AS p, count_if(NOT truth)::DOUBLE AS n
            FROM pair GROUP BY g, of, score
        ), ranked AS (
            SELECT *, sum(n) OVER up_to - n / 2 AS negatives_below, sum(p) OVER label AS positives,
                positives - sum(p) OVER up_to + p / 2 AS positives_above, sum(n) OVER label AS negatives
            FROM ties WINDOW label AS (PARTITION BY g, of), up_to AS (PARTITION BY g, of ORDER BY score)
        ), area AS (
            SELECT g, of, least(positives, negatives) AS fewer,
                sum(p * negatives_below) / (positives * negatives) AS area
            FROM ranked WHERE positives > 0 AND negatives > 0 GROUP BY g, of, positives, negatives
        ), told AS (
            SELECT g, avg(area) AS value, min(fewer) AS fewest, count(*) AS labels FROM area GROUP BY g
        )
        SELECT g, inference_id, row, any_value(value) AS value, any_value(fewest) AS fewest,
            sum(CASE WHEN truth THEN (negatives_below / negatives - area) / positives
                ELSE (positives_above / positives - area) / negatives END * (positives + negatives) / labels) AS psi
        FROM pair JOIN ranked USING (g, of, score) JOIN area USING (g, of) JOIN told USING (g)
        GROUP BY g, inference_id, row"""


def _logarithm(probability: str) -> str:
    return f"-ln(greatest(least({probability}, 1.0), {_SMALLEST!r}))"


def _probability(of: str) -> str:
    return f"coalesce(list_filter(scores, lambda s: s.label = {of})[1].p, 0.0)"


_ERROR = "(TRY_CAST(prediction AS DOUBLE) - truth)"
_METRICS: Mapping[Task, Mapping[Metric, str]] = {
    Task.BINARY: {
        Metric.AUC: _area("SELECT g, inference_id, row, 0 AS of, truth, score FROM grouped"),
        Metric.ACCURACY: _mean("((score >= 0.5) = truth)::INTEGER"),
        Metric.F1: _of_means(
            {
                "hit": "2 * (score >= 0.5 AND truth)::INTEGER",
                "marked": "(score >= 0.5)::INTEGER + truth::INTEGER",
            },
            {"hits": "avg(hit)", "marks": "avg(marked)"},
            "coalesce(hits / nullif(marks, 0), 0.0)",
            "coalesce((hit - value * marked) / nullif(marks, 0), 0.0)",
        ),
        Metric.LOG_LOSS: _mean(_logarithm("CASE WHEN truth THEN score ELSE 1 - score END")),
        Metric.BRIER: _mean("(score - truth::INTEGER) ** 2"),
    },
    Task.MULTICLASS: {
        Metric.ACCURACY: _mean("(prediction = truth)::INTEGER"),
        # Each row names its label twice, once as what was predicted and once as what was true: F1 of a label is the
        # share of hits among these.
        Metric.F1: """
            WITH named AS (
                SELECT g, inference_id, row, unnest([prediction, truth]) AS of, (prediction = truth)::INTEGER AS hit
                FROM grouped
            ), f AS (
                SELECT g, of, avg(hit) AS f1, count(*) AS marks FROM named GROUP BY g, of
            ), told AS (
                SELECT g, avg(f1) AS value, sum(marks) / 2 AS n, count(*) AS labels FROM f GROUP BY g
            )
            SELECT g, inference_id, row, any_value(value) AS value, NULL AS fewest,
                sum((hit - f1) * n / marks / labels) AS psi
            FROM named JOIN f USING (g, of) JOIN told USING (g) GROUP BY g, inference_id, row""",
        Metric.LOG_LOSS: _mean(_logarithm(_probability("truth")), where="scores IS NOT NULL"),
        # A label that the model was never taught has probability zero.
        Metric.AUC: _area(
            f"SELECT g, inference_id, row, of, truth = of AS truth, {_probability('of')} AS score FROM grouped, "
            "(SELECT DISTINCT unnest(list_append(list_transform(scores, lambda s: s.label), truth)) AS of FROM matched)"
            " WHERE scores IS NOT NULL"
        ),
    },
    Task.REGRESSION: {
        Metric.RMSE: _of_means(
            {"x": f"{_ERROR} ** 2"},
            {"mean": "favg(x)"},
            "sqrt(mean)",
            "coalesce((x - mean) / nullif(2 * value, 0), 0.0)",
        ),
        Metric.MAE: _mean(f"abs({_ERROR})"),
        Metric.R2: _of_means(
            {"x": f"{_ERROR} ** 2", "y": "truth"},
            {"mean": "favg(x)", "middle": "favg(y)", "spread": "nullif(var_pop(y), 0)"},
            "1 - mean / spread",
            "((1 - value) * (y - middle) ** 2 - x) / spread",
        ),
    },
}
"""SQL of the influence of each row of `grouped`: g, inference_id, row, prediction, score, scores and truth.

Truth is whether it was positive, the label, or the number.
"""
