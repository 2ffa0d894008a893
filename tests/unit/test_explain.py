"""Explanations: contributions are Shapley values, shares add up, and drift is told from chance.

Oracles: Shapley values summed over all coalitions, the closed form of linear models, scipy and scikit-learn.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

import pytest
from scipy import stats
from sklearn.metrics import ndcg_score

from noria import explain
from noria.explain import UnexplainedError, Weight, compare, correlation, local, ndcg, spearman, weights
from noria.spec import Task

Row = dict[str, Any]
Predict = Callable[[Mapping[str, Any]], float]

COLORS = ("red", "green", "blue")


def answering(predict: Predict) -> explain.Ask:
    return lambda rows: [{"prediction": predict(row)} for row in rows]


def linear(*by: float) -> Predict:
    return lambda row: sum(weight * row[f"f{place}"] for place, weight in enumerate(by))


def normal(count: int, *spread: float, seed: int = 1) -> list[Row]:
    chance = random.Random(seed)  # noqa: S311
    return [{f"f{place}": chance.gauss(0, by) for place, by in enumerate(spread)} for _ in range(count)]


def mixed(count: int, seed: int = 1) -> list[Row]:
    chance = random.Random(seed)  # noqa: S311
    return [
        {
            "age": chance.randrange(20, 60),
            "color": chance.choice(COLORS),
            "income": None if chance.random() < 0.2 else chance.gauss(3, 1),
            "size": chance.random(),
        }
        for _ in range(count)
    ]


def crooked(row: Mapping[str, Any]) -> float:
    """Features that interact, a category and a missing value."""
    income = 1.0 if row["income"] is None else row["income"]
    bonus = 2.0 if row["color"] == "red" and row["age"] > 40 else 0.0
    return float(bonus + income * row["size"] + math.sin(row["age"]) * (row["color"] == "blue"))


def shapley(row: Row, background: Sequence[Row], predict: Predict) -> dict[str, float]:
    """By the definition: all coalitions, absent features from every background row."""
    names = list(row)

    def value(present: Sequence[str]) -> float:
        return fmean(predict({**start, **{name: row[name] for name in present}}) for start in background)

    found = {}
    for name in names:
        others = [other for other in names if other != name]
        found[name] = sum(
            (value([*present, name]) - value(present)) / (len(names) * math.comb(len(names) - 1, size))
            for size in range(len(names))
            for present in combinations(others, size)
        )
    return found


# --- one prediction


@pytest.mark.parametrize("seed", range(3))
def test_contributions_are_shapley_values(seed: int) -> None:
    background, row = mixed(12), mixed(1, seed=100 + seed)[0]
    exact = shapley(row, background, crooked)
    found = local(row, background, answering(crooked), Task.REGRESSION, seed="any", rounds=150)
    assert found.average == pytest.approx(fmean(map(crooked, background)))
    for name, contribution in found.contributions.items():
        assert contribution.value == pytest.approx(exact[name], abs=max(0.02, 4 * contribution.standard_error))
        assert contribution.value == pytest.approx(exact[name], abs=0.05)


def test_contributions_to_a_linear_model_have_a_closed_form() -> None:
    background, row = normal(100, 1, 2, 3), normal(1, 1, 2, 3, seed=7)[0]
    found = local(row, background, answering(linear(3, -2, 0.5)), Task.REGRESSION, seed="any")
    for place, by in enumerate((3, -2, 0.5)):
        name = f"f{place}"
        of_background = [start[name] for start in background]
        assert found.contributions[name].value == pytest.approx(by * (row[name] - fmean(of_background)))
        error = abs(by) * stdev(of_background) / math.sqrt(100)
        assert found.contributions[name].standard_error == pytest.approx(error)


@pytest.mark.parametrize("seed", range(5))
def test_average_and_contributions_add_up_to_the_prediction_whatever_was_drawn(seed: int) -> None:
    background, row = mixed(5, seed=seed), mixed(1, seed=50 + seed)[0]
    found = local(row, background, answering(crooked), Task.REGRESSION, seed=f"{seed}")
    contributed = sum(contribution.value for contribution in found.contributions.values())
    assert found.average + contributed == pytest.approx(found.prediction, abs=1e-12)
    assert found.prediction == crooked(row)


def test_a_feature_that_the_model_does_not_read_contributes_nothing() -> None:
    row = {**mixed(1, seed=9)[0], "noise": 1.0}
    background = [{**start, "noise": float(place)} for place, start in enumerate(mixed(10))]
    found = local(row, background, answering(crooked), Task.REGRESSION, seed="any").contributions["noise"]
    assert (found.value, found.standard_error) == (0, 0)


def test_the_same_question_has_the_same_answer_and_another_seed_another() -> None:
    def ask(seed: str) -> explain.Local:
        return local(mixed(1, seed=3)[0], mixed(10), answering(crooked), Task.REGRESSION, seed=seed)

    assert ask("one") == ask("one")
    assert ask("one") != ask("other")


def test_a_binary_model_is_explained_by_its_score_and_a_multiclass_one_by_that_of_the_rows_own_class() -> None:
    row, background = {"f0": 1.0}, [{"f0": 0.0}, {"f0": -1.0}]

    def binary(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
        return [{"prediction": row["f0"] > 0, "score": 0.5 + row["f0"] / 4} for row in rows]

    def multiclass(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
        high = [0.5 + row["f0"] / 4 for row in rows]
        return [{"prediction": 7 if p > 0.5 else 3, "scores": {"3": 1 - p, "7": p}} for p in high]

    for ask, task in ((binary, Task.BINARY), (multiclass, Task.MULTICLASS)):
        found = local(row, background, ask, task, seed="any")
        assert (found.prediction, found.average) == (0.75, 0.375)
        assert found.contributions["f0"].value == 0.375
    low = local({"f0": -1.0}, [{"f0": 0.0}], multiclass, Task.MULTICLASS, seed="any")
    assert (low.prediction, low.average) == (0.75, 0.5), "the class of this row is 3"


@pytest.mark.parametrize("answer", [{"prediction": "yes"}, {"score": None}, {"scores": {}}])
def test_answers_without_a_number_are_not_explained(answer: Row) -> None:
    for task in (Task.BINARY, Task.MULTICLASS):
        with pytest.raises(UnexplainedError, match="hold no number to explain"):
            local({"f0": 1.0}, [{"f0": 0.0}], lambda rows: [answer for _ in rows], task, seed="any")


# --- many predictions


def test_weights_of_a_linear_model_follow_its_coefficients() -> None:
    rows, background, ask = normal(200, 1, 1, 1, seed=2), normal(100, 1, 1, 1), answering(linear(4, 2, 0))
    found = weights(rows, background, ask, Task.REGRESSION, pairs=4, seed="any")
    assert found["f0"].share == pytest.approx(2 / 3, abs=0.06)
    assert found["f1"].share == pytest.approx(1 / 3, abs=0.06)
    assert found["f2"] == Weight(value=0, standard_error=0, share=0, share_error=0)
    assert sum(weight.share for weight in found.values()) == pytest.approx(1)


def test_standard_errors_are_what_other_rows_would_have_changed() -> None:
    background, ask = normal(100, 1, 1), answering(linear(3, 1))
    samples = [
        weights(normal(60, 1, 1, seed=seed), background, ask, Task.REGRESSION, pairs=2, seed=f"{seed}")["f0"]
        for seed in range(150)
    ]
    for number, error in (("value", "standard_error"), ("share", "share_error")):
        told = fmean(getattr(sample, error) for sample in samples)
        assert told == pytest.approx(stdev(getattr(sample, number) for sample in samples), rel=0.2)


@pytest.mark.parametrize("features", [1, 2, 14, 30, 99, 199, 399, 2000])
def test_no_model_is_asked_more_than_the_limit(features: int) -> None:
    asked: list[int] = []

    def ask(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
        asked.append(len(rows))
        return [{"prediction": 1.0} for _ in rows]

    for limit, most in (
        (explain.MOST_ASKED, explain.WINDOW_ROWS),
        (explain.MOST_ASKED_AT_TRAINING, explain.TRAINING_ROWS),
    ):
        rows = explain.rows_for(features, most=most, asked=limit)
        asks = explain.pairs_for(features) * 2 * (features + 1)
        assert rows * asks <= limit
        assert explain.FEWEST_ROWS <= rows <= most or (rows == 0 and explain.FEWEST_ROWS * asks > limit)
    spread = [1.0] * min(features, 99)
    weights(normal(2, *spread, seed=2), normal(9, *spread), ask, Task.REGRESSION, pairs=3, seed="any")
    assert sum(asked) == 2 * 3 * 2 * (len(spread) + 1)


def test_nothing_explained_has_no_weights() -> None:
    assert weights([], normal(9, 1), answering(linear(1)), Task.REGRESSION, pairs=4, seed="any") == {}


# --- training against a window


def exactly(shares: Sequence[float]) -> dict[str, Weight]:
    """Weights without any chance."""
    return {
        f"f{place}": Weight(value=share, standard_error=0, share=share, share_error=0)
        for place, share in enumerate(shares)
    }


def shares_of(count: int, seed: int) -> list[float]:
    chance = random.Random(seed)  # noqa: S311
    values = [chance.expovariate(1) for _ in range(count)]
    return [value / sum(values) for value in values]


@pytest.mark.parametrize("seed", range(8))
def test_the_correlation_without_chance_is_a_weighted_tau_of_scipys(seed: int) -> None:
    before, after = shares_of(9, seed), shares_of(9, 100 + seed)
    means = [a + b for a, b in zip(before, after, strict=True)]
    oracle = stats.weightedtau(before, after, rank=list(range(9)), weigher=lambda place: means[place], additive=False)
    assert correlation(exactly(before), exactly(after)) == pytest.approx(oracle.statistic)


def test_the_same_order_is_one_and_the_reverse_minus_one() -> None:
    shares = [0.5, 0.3, 0.15, 0.05]
    assert correlation(exactly(shares), exactly([0.4, 0.35, 0.2, 0.05])) == 1
    assert correlation(exactly(shares), exactly(shares[::-1])) == pytest.approx(-1)
    assert correlation(exactly([1.0]), exactly([1.0])) == 1


def test_features_without_weight_change_places_unheard() -> None:
    small = [0.001 * place for place in range(1, 11)]
    assert correlation(exactly([0.6, 0.4, *small]), exactly([0.6, 0.4, *small[::-1]])) > 0.99


@pytest.mark.parametrize("seed", range(8))
def test_spearman_and_ndcg_are_those_of_scipy_and_scikit_learn(seed: int) -> None:
    before, after = ([round(share, 1) for share in shares_of(8, seed + by)] for by in (0, 100))
    assert spearman(before, after) == pytest.approx(stats.spearmanr(before, after).statistic)
    clear, window = shares_of(8, seed), shares_of(8, 200 + seed)
    assert ndcg(clear, window) == pytest.approx(ndcg_score([clear], [window]))


def test_ranks_that_are_all_ties_have_no_correlation() -> None:
    assert spearman([0.5, 0.5], [0.7, 0.3]) is None


def test_a_side_that_is_answered_alike_is_not_compared() -> None:
    with pytest.raises(UnexplainedError, match="of the window are answered alike"):
        compare(exactly([0.5, 0.5]), exactly([0.0, 0.0]), rows=100)


class Model:
    """A linear model, attributed at training; windows of rows whose spread may have changed."""

    def __init__(self, *by: float, pairs: int = 4) -> None:
        self._ask, self._pairs = answering(linear(*by)), pairs
        self._even = [1.0] * len(by)
        self._background = normal(100, *self._even, seed=1)
        self._training = self._weights(normal(explain.TRAINING_ROWS, *self._even, seed=2), "training")

    def window(self, *spread: float, seed: int) -> explain.WindowAttribution:
        rows = normal(explain.WINDOW_ROWS, *(spread or self._even), seed=1000 + seed)
        return compare(self._training, self._weights(rows, f"window {seed}"), rows=len(rows))

    def _weights(self, rows: Sequence[Row], seed: str) -> dict[str, Weight]:
        return weights(rows, self._background, self._ask, Task.REGRESSION, pairs=self._pairs, seed=seed)


LIMIT = 0.5


@pytest.mark.parametrize("by", [(1, 1, 1), (1, 0.95), (5, 3, 1, 0.5, 0.1, 0.1)])
def test_windows_of_an_unchanged_model_do_not_fall_below_the_limit(by: tuple[float, ...]) -> None:
    model = Model(*by)
    found = [model.window(seed=seed) for seed in range(25)]
    assert min(window.correlation for window in found) > LIMIT
    assert sum(bool(window.changed) for window in found) <= 1


def test_two_main_features_that_exchange_their_roles_are_found() -> None:
    model = Model(4, 2.2, 1, 0.6, 0.3)
    found = [model.window(2.2 / 4, 4 / 2.2, 1, 1, 1, seed=seed) for seed in range(15)]
    assert sum(window.correlation < LIMIT for window in found) >= 14
    assert all(set(window.changed) >= {"f0"} for window in found)


def test_a_small_feature_that_comes_to_rule_is_found() -> None:
    model = Model(4, 2, 1, 0.5)
    found = model.window(1, 1, 1, 20, seed=1)
    assert found.correlation < LIMIT
    assert found.changed[0] == "f3"
    assert found.features["f3"].training < 0.1
    assert found.features["f3"].window > 0.5
    assert found.rows == explain.WINDOW_ROWS
