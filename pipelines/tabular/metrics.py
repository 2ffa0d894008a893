"""Metrics as functions of row weights, so that one piece of code gives values, segments and bootstrap intervals.

A scorer is made once from truth and predictions: it sorts and takes logarithms. Called with weights, (rows,), it gives
the metrics of the rows counted that often: ones for the value, a mask for a segment, resampling counts for the
bootstrap. Metrics that are undefined for the weights (AUC of a single class) are left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.evaluation import Estimate
from noria.spec import Metric

Vector = NDArray[np.float64]
Scorer = Callable[[Vector], dict[Metric, float]]
Samples = list[dict[Metric, float]]

RESAMPLES = 200
_SMALLEST = 1e-15  # a probability of zero for what happened would cost infinitely much


# --- bootstrap


@dataclass(frozen=True)
class Bootstrap:
    """Values and their resampled distribution; two of the same rows and seed are paired."""

    values: dict[Metric, float]
    samples: Samples

    @classmethod
    def of(cls, scorer: Scorer, rows: int, *, seed: int, resamples: int = RESAMPLES) -> "Bootstrap":
        random = np.random.default_rng(seed)
        draws = (random.integers(0, rows, rows, dtype=np.int32) for _ in range(resamples))
        samples = [scorer(np.bincount(draw, minlength=rows).astype(np.float64)) for draw in draws]
        return cls(values=scorer(np.ones(rows)), samples=samples)

    @property
    def estimates(self) -> dict[Metric, Estimate]:
        return {
            metric: _estimate(value, [sample[metric] for sample in self.samples if metric in sample])
            for metric, value in self.values.items()
        }

    def margins(self, other: "Bootstrap") -> dict[Metric, Estimate]:
        """How much better this is than `other` on the same rows, resample by resample."""
        return {
            metric: _estimate(
                _better(metric, value, other.values[metric]),
                [
                    _better(metric, mine[metric], theirs[metric])
                    for mine, theirs in zip(self.samples, other.samples, strict=True)
                    if metric in mine and metric in theirs
                ],
            )
            for metric, value in self.values.items()
            if metric in other.values
        }


def _better(metric: Metric, value: float, other: float) -> float:
    return value - other if metric.higher_is_better else other - value


def _estimate(value: float, samples: Sequence[float]) -> Estimate:
    low, high = np.percentile(samples, [2.5, 97.5]).tolist() if samples else (value, value)
    return Estimate(value=value, low=low, high=high)


# --- scorers


def binary_scorer(truth: NDArray[np.bool_], scores: Vector) -> Scorer:
    """`truth` (rows,): is it the positive class; `scores` (rows,): the probability that it is."""
    predicted = scores >= 0.5
    correct = (predicted == truth).astype(np.float64)
    hits = (predicted & truth).astype(np.float64)
    marked = predicted.astype(np.float64) + truth
    loss = -np.log(np.clip(np.where(truth, scores, 1 - scores), _SMALLEST, 1.0))
    squares = (scores - truth) ** 2
    area = _area(truth, scores)

    def score(weights: Vector) -> dict[Metric, float]:
        total, marks = weights.sum(), weights @ marked
        return _defined(
            {
                Metric.AUC: area(weights),
                Metric.ACCURACY: weights @ correct / total,
                Metric.F1: 2 * (weights @ hits) / marks if marks else 0.0,
                Metric.LOG_LOSS: weights @ loss / total,
                Metric.BRIER: weights @ squares / total,
            }
        )

    return score


def multiclass_scorer(truth: NDArray[np.intp], probabilities: NDArray[np.float64]) -> Scorer:
    """`truth` (rows,): position of the label; `probabilities` (rows, labels). Macro-average F1, one-vs-rest AUC."""
    rows, labels = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    is_true = np.eye(labels)[truth]
    is_predicted = np.eye(labels)[predicted]
    correct = (predicted == truth).astype(np.float64)
    loss = -np.log(np.clip(probabilities[np.arange(rows), truth], _SMALLEST, 1.0))
    areas = [_area(is_true[:, label] == 1, probabilities[:, label]) for label in range(labels)]

    def score(weights: Vector) -> dict[Metric, float]:
        total = weights.sum()
        marks = weights @ (is_true + is_predicted)
        hits = weights @ (is_true * is_predicted)
        values = [value for area in areas if (value := area(weights)) is not None]
        return _defined(
            {
                Metric.ACCURACY: weights @ correct / total,
                Metric.F1: float(np.mean(2 * hits[marks > 0] / marks[marks > 0])),
                Metric.LOG_LOSS: weights @ loss / total,
                Metric.AUC: float(np.mean(values)) if values else None,
            }
        )

    return score


def regression_scorer(truth: Vector, predictions: Vector) -> Scorer:
    """`truth` and `predictions` (rows,), in the target's unit."""
    errors = predictions - truth
    squares, absolute = errors**2, np.abs(errors)

    def score(weights: Vector) -> dict[Metric, float]:
        total = weights.sum()
        spread = weights @ (truth - weights @ truth / total) ** 2
        return _defined(
            {
                Metric.RMSE: float(np.sqrt(weights @ squares / total)),
                Metric.MAE: weights @ absolute / total,
                Metric.R2: 1 - weights @ squares / spread if spread else None,
            }
        )

    return score


def _area(truth: NDArray[np.bool_], scores: Vector) -> Callable[[Vector], float | None]:
    """Area under the ROC curve by weighted ranks; ties count half. One sort, then two sums per call."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    ties = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    positive = truth[order].astype(np.float64)

    def area(weights: Vector) -> float | None:
        weighed = weights[order]
        positives = np.add.reduceat(weighed * positive, ties)
        negatives = np.add.reduceat(weighed, ties) - positives
        pairs = positives.sum() * negatives.sum()
        if not pairs:
            return None
        return float(positives @ (negatives.cumsum() - negatives / 2) / pairs)

    return area


def _defined(values: Mapping[Metric, Any]) -> dict[Metric, float]:
    return {metric: float(value) for metric, value in values.items() if value is not None}
