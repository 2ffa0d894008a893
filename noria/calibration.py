"""Whether probabilities are the shares of what then happens: reliability bins and the expected calibration error.

Bins hold equal numbers of rows, not equal ranges of probability: most scores of most models lie close together, so that
bins of equal width are nearly all empty or full, and the error depends on where their borders happen to fall (Roelofs,
Cain, Shlens and Mozer, Mitigating bias in calibration error estimation, AISTATS 2022).

The error that is found is never 0: in each bin, what happened differs from what was predicted by chance too, the more
the fewer the rows. What chance does is known from the spread of the differences, and taken off in two ways. Where a
perfectly calibrated model would show as much once in 1,000 times, the value is 0. Else it is the root of the squares'
difference, as one takes a measurement's own spread from what was measured: of a difference d that is found with
standard error s, d² is on average what is true, squared, plus s² (Bröcker, Estimating reliability and resolution of
probability forecasts through decomposition of the empirical score, Climate Dynamics 39, 2012).
"""
# ruff: noqa: S608 -- SQL is built from names of our own

import math
from collections.abc import Sequence

import duckdb

from noria.evaluation import SEGMENT_ROWS, Bin, Calibration
from noria.intervals import SURE, quantile
from noria.spec import Task

BINS = 10
"""Fewer where there are not `SEGMENT_ROWS` rows for each."""

_FORECAST = {
    # Of multiclass answers, the label that is predicted (Guo, Pleiss, Sun and Weinberger, On calibration of modern
    # neural networks, ICML 2017); those in CSV have no probabilities.
    Task.BINARY: "score AS p, truth::INTEGER AS y FROM matched WHERE p BETWEEN 0 AND 1",
    Task.MULTICLASS: "list_filter(scores, lambda s: s.label = prediction)[1].p AS p, "
    "(prediction = truth)::INTEGER AS y FROM matched WHERE p BETWEEN 0 AND 1",
}

_BINNED = f"""
    WITH forecast AS ({{forecast}}), ties AS (
        SELECT p, count(*) AS n FROM forecast GROUP BY p
    ), total AS (
        SELECT sum(n) AS rows, greatest(1, least({BINS}, rows // {SEGMENT_ROWS})) AS bins FROM ties
    ), placed AS (
        -- Equal probabilities are in one bin: that of the middle one of them.
        SELECT p, floor(bins * (sum(n) OVER (ORDER BY p) - n / 2) / rows)::INTEGER AS bin FROM ties, total
    ), request AS (
        SELECT bin, inference_id, count(*) AS n, sum(p) AS p, sum(y) AS y, sum(greatest(p * (1 - p), 0)) AS trials
        FROM forecast JOIN placed USING (p) GROUP BY bin, inference_id
    ), told AS (
        SELECT bin, sum(n) AS rows, sum(p) / sum(n) AS predicted, sum(y) / sum(n) AS happened, sum(trials) AS chance,
            count(*) / greatest(count(*) - 1, 1) AS correction
        FROM request GROUP BY bin
    )
    SELECT any_value(rows)::BIGINT, any_value(predicted), any_value(happened), greatest(
        any_value(chance), any_value(correction) * sum((p - y - n * (predicted - happened)) ** 2)
    ) / any_value(rows) ** 2
    FROM request JOIN told USING (bin) GROUP BY bin ORDER BY bin"""
"""SQL: rows of each bin, what was predicted and what happened, and the variance of their difference.

That is the variance of as many independent trials as there are rows, or of the sums over requests where these differ
more than that: rows of one request are alike.
"""


def by_labels(db: duckdb.DuckDBPyConnection, task: Task) -> Calibration | None:
    """Of all rows of table `matched` (noria.quality); None where no row has a probability, as in regression."""
    return of_forecasts(db, f"SELECT inference_id, {_FORECAST[task]}") if task in _FORECAST else None


def of_forecasts(db: duckdb.DuckDBPyConnection, query: str) -> Calibration | None:
    """Of a query of inference_id, p (a probability) and y (1 where it happened, else 0); None of no rows."""
    found = db.execute(_BINNED.format(forecast=query)).fetchall()
    rows = sum(n for n, *_ in found)
    if not rows:
        return None
    bins = [Bin(rows=n, predicted=predicted, happened=happened) for n, predicted, happened, _ in found]
    error = sum(b.rows / rows * abs(b.predicted - b.happened) for b in bins)
    chance, most = of_chance([n / rows * math.sqrt(variance) for n, *_, variance in found])
    value = math.sqrt(error**2 - chance**2) if error > most else 0.0
    return Calibration(rows=rows, error=error, chance=chance, value=value, bins=tuple(bins))


def of_chance(spreads: Sequence[float]) -> tuple[float, float]:
    """Mean of the sum of the absolute values of normal variables with such spreads, and what it surely stays below.

    Of one of spread 1, mean, variance and third central moment are √(2/π), 1 - 2/π and √(2/π) (4/π - 1). The sum leans
    to the right the more the fewer there are (Cornish and Fisher, Moments and cumulants in the specification of
    distributions, Revue de l'Institut International de Statistique 5, 1938).
    """
    first = math.sqrt(2 / math.pi)
    mean = first * sum(spreads)
    deviation = math.sqrt((1 - 2 / math.pi) * sum(s**2 for s in spreads))
    if not deviation:
        return mean, mean
    skewness = first * (4 / math.pi - 1) * sum(s**3 for s in spreads) / deviation**3
    z = quantile(SURE)
    return mean, mean + deviation * (z + (z * z - 1) * skewness / 6)
