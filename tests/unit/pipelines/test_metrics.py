"""Metrics agree with scikit-learn's for any weights, and their intervals with what they promise."""

import numpy as np
import pytest
from sklearn import metrics as sk

from noria.spec import METRICS, Metric, Task
from pipelines.tabular.metrics import (
    Bootstrap,
    Scorer,
    binary_scorer,
    multiclass_scorer,
    regression_scorer,
)

ROWS = 500
random = np.random.default_rng(1)
weights = random.integers(0, 4, ROWS).astype(float)
scores = random.random(ROWS).round(2)  # with ties
positive = random.random(ROWS) < scores
probabilities = random.dirichlet([1, 2, 3], ROWS)
labels = random.integers(0, 3, ROWS)
values = random.normal(size=ROWS)
predictions = values + random.normal(size=ROWS)


def test_binary_metrics() -> None:
    found = binary_scorer(positive, scores)(weights)
    assert set(found) == set(METRICS[Task.BINARY])
    assert found == pytest.approx(
        {
            Metric.AUC: sk.roc_auc_score(positive, scores, sample_weight=weights),
            Metric.ACCURACY: sk.accuracy_score(positive, scores >= 0.5, sample_weight=weights),
            Metric.F1: sk.f1_score(positive, scores >= 0.5, sample_weight=weights),
            Metric.LOG_LOSS: sk.log_loss(positive, scores, sample_weight=weights),
            Metric.BRIER: sk.brier_score_loss(positive, scores, sample_weight=weights),
        }
    )


def test_multiclass_metrics() -> None:
    found = multiclass_scorer(labels, probabilities)(weights)
    assert set(found) == set(METRICS[Task.MULTICLASS])
    best = probabilities.argmax(axis=1)
    assert found == pytest.approx(
        {
            Metric.AUC: sk.roc_auc_score(labels, probabilities, sample_weight=weights, multi_class="ovr"),
            Metric.ACCURACY: sk.accuracy_score(labels, best, sample_weight=weights),
            Metric.F1: sk.f1_score(labels, best, sample_weight=weights, average="macro"),
            Metric.LOG_LOSS: sk.log_loss(labels, probabilities, sample_weight=weights),
        }
    )


def test_regression_metrics() -> None:
    found = regression_scorer(values, predictions)(weights)
    assert set(found) == set(METRICS[Task.REGRESSION])
    assert found == pytest.approx(
        {
            Metric.RMSE: np.sqrt(sk.mean_squared_error(values, predictions, sample_weight=weights)),
            Metric.MAE: sk.mean_absolute_error(values, predictions, sample_weight=weights),
            Metric.R2: sk.r2_score(values, predictions, sample_weight=weights),
        }
    )


def test_what_is_undefined_is_left_out() -> None:
    only_one_class = binary_scorer(np.ones(ROWS, dtype=bool), scores)(weights)
    assert Metric.AUC not in only_one_class
    assert Metric.ACCURACY in only_one_class
    assert Metric.R2 not in regression_scorer(np.ones(ROWS), predictions)(weights)


def test_intervals_hold_the_value_and_narrow_with_more_rows() -> None:
    def width(rows: int) -> float:
        chosen = slice(rows)
        estimate = Bootstrap.of(binary_scorer(positive[chosen], scores[chosen]), rows, seed=7).estimates[Metric.AUC]
        assert estimate.low < estimate.value < estimate.high
        return estimate.high - estimate.low

    assert width(500) < width(100)


def test_the_same_seed_gives_the_same_interval() -> None:
    first, second = (Bootstrap.of(regression_scorer(values, predictions), ROWS, seed=7).estimates for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("metric", "better", "worse"),
    [
        (Metric.AUC, binary_scorer(positive, scores), binary_scorer(positive, 1 - scores)),
        (Metric.RMSE, regression_scorer(values, values), regression_scorer(values, predictions)),
    ],
    ids=["higher is better", "lower is better"],
)
def test_a_margin_is_above_zero_for_the_better_one(metric: Metric, better: Scorer, worse: Scorer) -> None:
    good, bad = (Bootstrap.of(scorer, ROWS, seed=7) for scorer in (better, worse))
    assert good.margins(bad)[metric].low > 0
    assert bad.margins(good)[metric].high < 0
    assert good.margins(good)[metric].value == 0
