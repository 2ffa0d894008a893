"""The ONNX form of a model answers as the estimator does, whatever was learnt and whatever is asked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from threadpoolctl import threadpool_limits

from noria.spec import FeatureType, Task
from pipelines.tabular.signature import Input, Signature
from pipelines.tabular.trees import INPUT, OUTPUT, NotExportable, export

Matrix = NDArray[np.float64]


def signature(task: Task, categories: list[int]) -> Signature:
    """One number, then a feature of so many categories each, then another number."""

    def named(index: int, count: int) -> Input:
        kind = FeatureType.CATEGORY if count else FeatureType.NUMBER
        return Input(name=f"f{index}", type=kind, nullable=True, categories=tuple(f"c{n}" for n in range(count)))

    features = tuple(named(index, count) for index, count in enumerate([0, *categories, 0]))
    return Signature(model="example", task=task, features=features, output=("prediction",))


def table(known: Signature, rows: int, chance: np.random.Generator, *, missing: float) -> Matrix:
    columns = [
        chance.integers(0, len(feature.categories), rows).astype(float)
        if feature.categories
        else chance.normal(size=rows).round(2)  # so that values meet thresholds
        for feature in known.features
    ]
    inputs = np.column_stack(columns)
    inputs[chance.random(inputs.shape) < missing] = np.nan
    return inputs


def target(task: Task, inputs: Matrix, labels: int, chance: np.random.Generator) -> NDArray[Any]:
    signal = np.nan_to_num(inputs[:, 0]) + np.sin(7 * np.nan_to_num(inputs[:, 1:])).sum(axis=1)
    signal += chance.normal(scale=0.3, size=len(signal))
    if task is Task.REGRESSION:
        return np.asarray(signal * 1000)
    return np.asarray(np.searchsorted(np.quantile(signal, np.arange(1, labels) / labels), signal))


def answers(serialised: bytes, inputs: Matrix) -> Matrix:
    output: Matrix = onnxruntime.InferenceSession(serialised).run([OUTPUT], {INPUT: inputs})[0]
    return output


def expected(estimator: Any, inputs: Matrix) -> Matrix:
    if isinstance(estimator, HistGradientBoostingRegressor):
        return np.asarray(estimator.predict(inputs)).reshape(-1, 1)
    probabilities = np.asarray(estimator.predict_proba(inputs))
    return probabilities[:, 1:] if probabilities.shape[1] == 2 else probabilities


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small fits take longer on many threads, which wait for each other."""
    with threadpool_limits(1):
        yield


@settings(max_examples=25, deadline=None)
@given(
    task=st.sampled_from(list(Task)),
    categories=st.lists(st.integers(1, 100), max_size=3),
    rows=st.integers(30, 300),
    missing=st.sampled_from([0.0, 0.1, 0.5]),
    depth=st.sampled_from([1, 3, None]),
    unseen=st.floats(0, 0.5),
    seed=st.integers(0, 2**16),
)
def test_random_models_answer_alike(
    *, task: Task, categories: list[int], rows: int, missing: float, depth: int | None, unseen: float, seed: int
) -> None:
    """Also rows that hold categories which training did not see, and thresholds themselves."""
    chance = np.random.default_rng(seed)
    known = signature(task, categories)
    learnt, asked = (table(known, rows, chance, missing=missing) for _ in range(2))
    for column in known.categorical:  # the highest categories are in the signature only
        learnt[learnt[:, column] >= len(known.features[column].categories) * (1 - unseen), column] = np.nan
    labels = 2 if task is Task.BINARY else 4
    kind = HistGradientBoostingRegressor if task is Task.REGRESSION else HistGradientBoostingClassifier
    estimator = kind(max_iter=8, max_depth=depth, min_samples_leaf=5, categorical_features=known.categorical or None)
    estimator.fit(learnt, target(task, learnt, labels, chance))
    asked = np.concatenate([asked, learnt, np.full((1, asked.shape[1]), np.nan)])
    np.testing.assert_allclose(answers(export(estimator, known), asked), expected(estimator, asked), rtol=1e-9)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "quantile", "poisson", "gamma"])
def test_every_loss_of_a_regression_has_its_link(loss: str) -> None:
    chance = np.random.default_rng(1)
    known = signature(Task.REGRESSION, [5])
    inputs = table(known, 200, chance, missing=0.1)
    estimator = HistGradientBoostingRegressor(
        loss=loss, quantile=0.8 if loss == "quantile" else None, max_iter=10, categorical_features=[1]
    ).fit(inputs, np.exp(target(Task.REGRESSION, inputs, 0, chance) / 2000))
    np.testing.assert_allclose(answers(export(estimator, known), inputs), expected(estimator, inputs), rtol=1e-12)


def test_a_model_that_learnt_nothing_has_leaves_only() -> None:
    known = signature(Task.REGRESSION, [])
    inputs = table(known, 100, np.random.default_rng(1), missing=0.1)
    estimator = HistGradientBoostingRegressor(max_iter=3).fit(inputs, np.full(100, 7.5))
    np.testing.assert_array_equal(answers(export(estimator, known), inputs), np.full((100, 1), 7.5))


def test_other_estimators_have_no_onnx_form() -> None:
    known = signature(Task.BINARY, [])
    estimator = RandomForestClassifier(n_estimators=2).fit(np.zeros((4, 2)), [0, 1, 0, 1])
    with pytest.raises(NotExportable, match="RandomForestClassifier is none of"):
        export(estimator, known)
