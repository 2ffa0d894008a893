"""Intervals are those that were published, and hold what they promise."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from noria.evaluation import Estimate
from noria.intervals import difference, quantile, ratio, wilson


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_quantiles_are_scipys(confidence: float) -> None:
    assert quantile(confidence) == pytest.approx(norm.ppf((1 + confidence) / 2))


@pytest.mark.parametrize("rows", [1, 7, 50, 4000])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_shares_are_wilsons(share: float, rows: int) -> None:
    hits = round(share * rows)
    for confidence in (0.9, 0.999):
        expected = binomtest(hits, rows).proportion_ci(confidence, method="wilson")
        found = wilson(hits / rows, rows, confidence=confidence)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_differences_of_shares_are_newcombes(
    one: tuple[int, int], other: tuple[int, int], low: float, high: float
) -> None:
    """Method 10 of his table II (Interval estimation for the difference between independent proportions, 1998)."""
    found = difference(*(wilson(hits / rows, rows) for hits, rows in (one, other)))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("p", "q", "rows"), [(0.3, 0.5, 80), (0.05, 0.4, 200), (0.9, 0.9, 300), (0.02, 0.9, 60)])
def test_ratios_hold_the_truth(p: float, q: float, rows: int) -> None:
    random = np.random.default_rng(rows)
    runs, held = 1500, 0
    for ours, theirs in zip(
        random.binomial(rows, p, runs).tolist(), random.binomial(rows, q, runs).tolist(), strict=True
    ):
        found = ratio(wilson(ours / rows, rows), wilson(theirs / rows, rows))
        assert 0 <= found.low <= found.value <= found.high
        held += found.low <= p / q <= found.high
    assert 0.935 <= held / runs <= 0.985


def test_what_is_exact_only_scales() -> None:
    exact, share = Estimate(value=0.5, low=0.5, high=0.5), wilson(0.2, 100)
    found = ratio(share, exact)
    assert (found.low, found.value, found.high) == pytest.approx((2 * share.low, 0.4, 2 * share.high))
    found = difference(share, exact)
    assert (found.low, found.high) == pytest.approx((share.low - 0.5, share.high - 0.5))
