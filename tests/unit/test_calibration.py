"""Calibration is what scikit-learn's reliability curve says; what chance does to a perfect model is no error."""

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve

from noria.calibration import BINS, by_labels, of_chance
from noria.evaluation import SEGMENT_ROWS, Calibration
from noria.spec import Task
from noria.sql import cursor
from tests.unit.engine_data import SMALL

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]


@pytest.fixture
def db() -> Iterator[duckdb.DuckDBPyConnection]:
    with cursor(SMALL) as opened:
        yield opened


def binary(db: duckdb.DuckDBPyConnection, scores: Vector, truth: Flags, requests: Any = None) -> Calibration:
    columns = [list(range(len(scores))) if requests is None else requests.tolist(), scores.tolist(), truth.tolist()]
    db.execute(
        "CREATE OR REPLACE TEMP TABLE matched AS "
        "SELECT unnest(?::BIGINT[]) AS inference_id, unnest(?::DOUBLE[]) AS score, unnest(?::BOOLEAN[]) AS truth",
        columns,
    )
    found = by_labels(db, Task.BINARY)
    assert found
    return found


def forecasts(random: np.random.Generator, rows: int) -> Vector:
    return random.beta(2, 5, rows)


def test_bins_are_scikit_learns(db: duckdb.DuckDBPyConnection) -> None:
    random = np.random.default_rng(0)
    p = forecasts(random, 1000)
    y = random.random(1000) < p**1.5
    found = binary(db, p, y)
    happened, predicted = calibration_curve(y, p, n_bins=BINS, strategy="quantile")
    assert [b.predicted for b in found.bins] == pytest.approx(predicted.tolist(), rel=1e-12)
    assert [b.happened for b in found.bins] == pytest.approx(happened.tolist(), rel=1e-12)
    assert {b.rows for b in found.bins} == {1000 // BINS}
    assert found.error == pytest.approx(np.abs(happened - predicted).mean(), rel=1e-12)
    assert found.rows == 1000


def test_equal_probabilities_are_in_one_bin(db: duckdb.DuckDBPyConnection) -> None:
    """By brute force: each row goes where the middle row of those with its probability would go."""
    random = np.random.default_rng(1)
    p = np.minimum(forecasts(random, 777).round(1), 0.4)
    y = random.random(777) < p
    ordered = np.sort(p)
    middle = [(np.searchsorted(ordered, v) + np.searchsorted(ordered, v, side="right")) / 2 for v in p]
    place = np.floor(np.array(middle) / 777 * BINS).astype(int)
    expected = [(int((place == b).sum()), p[place == b].mean(), y[place == b].mean()) for b in np.unique(place)]
    found = binary(db, p, y)
    told = [(b.rows, b.predicted, b.happened) for b in found.bins]
    assert [value for row in told for value in row] == pytest.approx([value for row in expected for value in row])
    assert found.error == pytest.approx(sum(rows / 777 * abs(a - b) for rows, a, b in expected))


def test_multiclass_is_about_the_label_that_is_predicted(db: duckdb.DuckDBPyConnection) -> None:
    random = np.random.default_rng(2)
    p = random.dirichlet([2, 3, 4], 1000)
    truth = random.integers(0, 3, 1000)
    rows = [{"label": label, "p": value} for row in p.tolist() for label, value in zip("abc", row, strict=True)]
    db.execute(
        "CREATE TEMP TABLE matched AS SELECT unnest(range(1000)) AS inference_id, unnest(?) AS prediction, "
        "unnest(?) AS truth, unnest(?::STRUCT(label VARCHAR, p DOUBLE)[][]) AS scores",
        [
            ["abc"[n] for n in p.argmax(axis=1)],
            ["abc"[n] for n in truth],
            [rows[n : n + 3] for n in range(0, 3000, 3)],
        ],
    )
    found = by_labels(db, Task.MULTICLASS)
    happened, predicted = calibration_curve(p.argmax(axis=1) == truth, p.max(axis=1), n_bins=BINS, strategy="quantile")
    assert found
    assert [b.predicted for b in found.bins] == pytest.approx(predicted.tolist(), rel=1e-12)
    assert found.error == pytest.approx(np.abs(happened - predicted).mean(), rel=1e-12)
    assert found.value > 0.1
    db.execute("UPDATE matched SET scores = NULL")  # as of answers in CSV
    assert by_labels(db, Task.MULTICLASS) is None
    assert by_labels(db, Task.REGRESSION) is None


@pytest.mark.parametrize("rows", [SEGMENT_ROWS - 1, 300, 4000])
def test_what_chance_does_to_a_calibrated_model_is_no_error(rows: int, db: duckdb.DuckDBPyConnection) -> None:
    random = np.random.default_rng(rows)
    found = []
    for _ in range(25):
        p = forecasts(random, rows)
        found.append(binary(db, p, random.random(rows) < p))
    assert [c.value for c in found] == [0] * 25
    # What is foretold of chance is what chance did.
    assert np.mean([c.error for c in found]) == pytest.approx(np.mean([c.chance for c in found]), rel=0.2)


@pytest.mark.parametrize(("rows", "shift", "tolerance"), [(500, 0.2, 0.02), (4000, 0.05, 0.015), (4000, 0.1, 0.01)])
def test_an_error_is_found_as_large_as_it_is(
    rows: int, shift: float, tolerance: float, db: duckdb.DuckDBPyConnection
) -> None:
    random = np.random.default_rng(rows)
    found = []
    for _ in range(20):
        p = forecasts(random, rows) * 0.8
        found.append(binary(db, p, random.random(rows) < p + shift).value)
    assert np.mean(found) == pytest.approx(shift, abs=tolerance)


@pytest.mark.parametrize("bins", [1, 3, 10])
def test_the_boundof_chance_is_passed_less_than_once_in_1_000(bins: int) -> None:
    random = np.random.default_rng(bins)
    spreads = random.uniform(0.5, 1.5, bins)
    sums = np.abs(random.normal(size=(200_000, bins)) * spreads).sum(axis=1)
    mean, most = of_chance(spreads.tolist())
    assert mean == pytest.approx(sums.mean(), rel=0.01)
    assert 0.0001 < (sums > most).mean() < 0.001


def test_rows_of_one_request_are_one_chance(db: duckdb.DuckDBPyConnection) -> None:
    """A calibrated model, but what happens to one row of a request happens to all of it."""
    random = np.random.default_rng(3)
    found, alone = [], []
    for _ in range(25):
        p, requests = forecasts(random, 100).repeat(20), np.arange(100).repeat(20)
        y = random.random(100).repeat(20) < p
        found.append(binary(db, p, y, requests).value)
        alone.append(binary(db, p, y).value)
    assert sum(value > 0 for value in found) <= 2
    assert sum(value > 0 for value in alone) > 18


def test_few_rows_make_few_bins(db: duckdb.DuckDBPyConnection) -> None:
    random = np.random.default_rng(4)
    for rows, bins in ((1, 1), (SEGMENT_ROWS, 1), (3 * SEGMENT_ROWS, 3), (1000, BINS)):
        p = forecasts(random, rows)
        found = binary(db, p, random.random(rows) < p)
        assert len(found.bins) == bins
        assert sum(b.rows for b in found.bins) == found.rows == rows
