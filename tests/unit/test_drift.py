"""Distances between profiles are those of the books, and a report says what moved."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

from noria.drift import chi_squared, compare, jensen_shannon, kolmogorov_smirnov, psi, vanished, wasserstein
from noria.profile import ColumnProfile, Profile, column
from tests.unit.engine_data import spec_of


def number(*counts: int, missing: int = 0, edges: Sequence[float] | None = None) -> ColumnProfile:
    return ColumnProfile(
        kind="number",
        rows=sum(counts) + missing,
        missing=missing,
        edges=tuple(range(1, len(counts))) if edges is None else tuple(edges),
        counts=counts,
    )


def category(counts: dict[str, int], *, missing: int = 0, other: int = 0, new: Sequence[str] = ()) -> ColumnProfile:
    return ColumnProfile(
        kind="category",
        rows=sum(counts.values()) + missing + other,
        missing=missing,
        categories=counts,
        other=other,
        new=tuple(new),
    )


# --- statistics

COUNTS = st.lists(st.integers(0, 5000), min_size=4, max_size=4)
PAIRS = st.tuples(COUNTS, COUNTS).filter(lambda pair: any(pair[0]) and any(pair[1]))


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_distances_agree_with_an_independent_computation(pair: tuple[list[int], list[int]]) -> None:
    (*before, missing_before), (*after, missing_after) = pair
    baseline, window = number(*before, missing=missing_before), number(*after, missing=missing_after)
    both = np.array(pair)
    p, q = both[:, both.any(axis=0)]
    pooled = (p + q) / (p + q).sum()
    smooth_p, smooth_q = ((c + len(c) * pooled) / (c.sum() + len(c)) for c in (p, q))
    assert psi(baseline, window) == pytest.approx(
        np.sum((smooth_q - smooth_p) * np.log(smooth_q / smooth_p)), abs=1e-12
    )
    expected = jensenshannon(p / p.sum(), q / q.sum(), base=2)
    assert jensen_shannon(baseline, window) == pytest.approx(expected, abs=1e-7)


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_distances_are_distances(pair: tuple[list[int], list[int]]) -> None:
    one, two = (number(*counts[:3], missing=counts[3]) for counts in pair)
    assert psi(one, two) >= 0
    assert 0 <= jensen_shannon(one, two) <= 1
    assert psi(one, two) == pytest.approx(psi(two, one), abs=1e-12)
    assert jensen_shannon(one, two) == pytest.approx(jensen_shannon(two, one), abs=1e-12)
    assert psi(one, one) == 0
    assert jensen_shannon(one, one) == 0


@given(PAIRS)
@settings(max_examples=30, deadline=None)
def test_moving_further_from_the_baseline_is_further(pair: tuple[list[int], list[int]]) -> None:
    before, after = pair
    baseline = number(*before)
    near, far = number(*(b + a for b, a in zip(before, after, strict=True))), number(*after)
    assume(jensen_shannon(baseline, far) > 0)
    assert jensen_shannon(baseline, near) < jensen_shannon(baseline, far)


def test_nothing_in_common_is_the_largest_distance_and_yet_finite() -> None:
    one, two = number(1000, 0), number(0, 1000)
    assert jensen_shannon(one, two) == 1
    assert 5 < psi(one, two) < 50


def test_missing_values_are_a_bin() -> None:
    assert psi(number(500, 500), number(500, 500, missing=1000)) > 0.25
    assert psi(number(500, 500, missing=100), number(500, 500, missing=100)) == 0
    assert jensen_shannon(category({"a": 10}), category({"a": 0}, missing=10)) == 1


def test_categories_are_compared_by_name_whatever_their_order() -> None:
    assert psi(category({"a": 30, "b": 70}), category({"b": 70, "a": 30})) == 0
    assert psi(category({"a": 30, "b": 70}), category({"a": 70, "b": 30})) > 0.25
    assert psi(category({"a": 100}), category({"a": 50}, other=50, new=["b"])) > 0.25


def test_rare_categories_count_as_one_so_that_chance_does_not_add_up() -> None:
    random = np.random.default_rng(1)
    shares = np.concatenate([np.full(20, 0.045), np.full(80, 0.1 / 80)])
    draws = (random.multinomial(1000, shares) for _ in range(2))
    one, two = (category({f"c{n:03}": int(count) for n, count in enumerate(draw)}) for draw in draws)
    assert psi(one, two) < 0.1
    moved = {f"c{n:03}": 0 for n in range(20)} | {f"c{n:03}": 12 for n in range(20, 100)}
    assert psi(one, category(moved)) > 0.25


def test_a_rare_bin_that_few_rows_miss_is_no_change() -> None:
    rare = {f"c{n}": 2 for n in range(10)}
    baseline, window = category(rare | {"a": 19_980}), category(dict.fromkeys(rare, 0) | {"a": 500})
    assert psi(baseline, window) < 0.005


def test_a_window_without_rows_is_no_distance() -> None:
    for measure in (psi, jensen_shannon, kolmogorov_smirnov, wasserstein):
        for one in (number(5, 5), number(0, 0)):
            assert measure(one, number(0, 0)) == 0
    assert chi_squared(number(5, 5), number(0, 0)) == (0.0, 1.0)


# --- against the exact statistics of the values

SAMPLE = st.lists(st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float), min_size=1, max_size=60)


def shares(described: ColumnProfile) -> np.ndarray:
    return np.array(described.counts) / sum(described.counts)


def held_to_scipy(before: Sequence[float], after: Sequence[float]) -> None:
    """Both statistics on the edges are as near to the exact ones as their docstrings promise."""
    one = column(before, "number")
    two = column(after, "number", one.cut)
    exact = ks_2samp(before, after).statistic
    largest = max(shares(one).max(), shares(two).max())
    assert exact - largest - 1e-9 <= kolmogorov_smirnov(one, two) <= exact + 1e-9
    low, high = min(*before, *after), max(*before, *after)
    widths = np.diff([low, *(min(max(edge, low), high) for edge in one.edges), high])
    widths[1:-1] /= 2
    bound = float(widths @ (shares(one) + shares(two)))
    assert wasserstein(one, two) == pytest.approx(wasserstein_distance(before, after), abs=bound + 1e-6)


@given(SAMPLE, SAMPLE)
@settings(max_examples=8, deadline=None)
def test_distances_on_the_edges_are_within_their_bounds_of_any_values(before: list[float], after: list[float]) -> None:
    held_to_scipy(before, after)


@pytest.mark.parametrize("moved", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("draw", ["normal", "lognormal"])
def test_distances_on_the_edges_are_near_those_of_the_values(draw: str, moved: float) -> None:
    random = np.random.default_rng(7)
    before, after = (getattr(random, draw)(size=size) + by for size, by in ((4000, 0.0), (2000, moved)))
    held_to_scipy(before.tolist(), after.tolist())
    one = column(before.tolist(), "number")
    two = column(after.tolist(), "number", one.cut)
    assert wasserstein(one, two) == pytest.approx(wasserstein_distance(before, after), abs=0.06)
    assert kolmogorov_smirnov(one, two) == pytest.approx(ks_2samp(before, after).statistic, abs=0.1)


@pytest.mark.parametrize("bins", [2, 3, 4, 7, 20])
@pytest.mark.parametrize("change", [0.0, 0.05, 0.3])
def test_chi_squared_is_that_of_the_table_of_counts(bins: int, change: float) -> None:
    random = np.random.default_rng(bins)
    table = np.array([random.integers(40, 200, bins), random.integers(40, 200, bins)])
    table[1] += (table[1] * change * random.random(bins)).astype(int)
    names = [f"c{n}" for n in range(bins)]
    one, two = (category(dict(zip(names, map(int, row), strict=True))) for row in table)
    exact = chi2_contingency(table, correction=False)
    assert chi_squared(one, two) == pytest.approx((exact.statistic, exact.pvalue), rel=1e-9)


def test_chance_makes_as_many_small_probabilities_as_it_should() -> None:
    random = np.random.default_rng(3)
    zipf = 1 / np.arange(1, 22) ** 1.5
    draws = [random.multinomial(rows, zipf / zipf.sum()) for rows in (20_000, *[500] * 2000)]
    baseline, *windows = (number(*map(int, draw)) for draw in draws)
    small = sum(chi_squared(baseline, window).p_value < 0.01 for window in windows)
    assert 8 <= small <= 36  # 20 are expected; further off is rarer than once in 1,000


def test_categories_vanish_where_chance_does_not_explain_it() -> None:
    baseline = category({"a": 900, "b": 95, "c": 5})
    assert vanished(baseline, category({"a": 100, "b": 0, "c": 0})) == ("b",)
    assert vanished(baseline, category({"a": 10_000, "b": 1, "c": 0})) == ("c",)
    assert vanished(baseline, category({"a": 0, "b": 0, "c": 0})) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (number(5, 5), number(5, 5, edges=[9])),
        (number(5, 5), number(5, 5, 5)),
        (number(5, 5), category({"a": 5})),
        (category({"a": 5}), category({"b": 5})),
    ],
    ids=["edges", "bins", "kind", "categories"],
)
def test_columns_cut_elsewhere_are_refused(one: ColumnProfile, other: ColumnProfile) -> None:
    for measure in (psi, jensen_shannon, chi_squared, kolmogorov_smirnov):
        with pytest.raises(ValueError, match="cut at different edges"):
            measure(one, other)


# --- the report

SPEC = spec_of(monitor={"min_rows": 100, "psi": 0.25})
STABLE = {"x": number(500, 500), "size": number(100, 900), "color": category({"red": 300, "blue": 700})}


def profile_of(prediction: ColumnProfile | None = None, malformed: int = 0, **features: ColumnProfile) -> Profile:
    columns = STABLE | features
    rows = max(column.rows for column in columns.values())
    return Profile(model=SPEC.model, rows=rows, malformed=malformed, features=columns, prediction=prediction)


def test_what_did_not_change_has_not_drifted() -> None:
    report = compare(profile_of(), profile_of(), SPEC)
    assert (report.enough, report.drifted, report.max_psi, report.prediction) == (True, (), 0.0, None)
    assert {*report.features} == {*STABLE}
    assert report.summary.startswith("No feature drifted in 1,000 rows")


def test_drifted_features_are_named_most_drifted_first() -> None:
    window = profile_of(x=number(900, 100), color=category({"red": 990, "blue": 10}), malformed=3)
    report = compare(profile_of(), window, SPEC)
    assert report.drifted == ("color", "x")
    assert report.max_psi == report.features["color"].psi == psi(STABLE["color"], window.features["color"])
    assert (report.features["color"].js, report.features["size"].drifted) == (
        jensen_shannon(STABLE["color"], window.features["color"]),
        False,
    )
    assert "2 of 3 features drifted" in report.summary
    assert "3 captured records could not be read" in report.summary


@pytest.mark.parametrize(
    ("before", "after", "drifted"),
    [((50, 50), (30, 70), False), ((5000, 5000), (3000, 7000), True), ((50_000, 50_000), (45_000, 55_000), False)],
    ids=["large, and may be chance", "large, and not by chance", "not by chance, and small"],
)
def test_a_change_must_be_large_and_not_by_chance(
    before: tuple[int, int], after: tuple[int, int], drifted: bool
) -> None:
    spec = spec_of(monitor={"min_rows": 100, "psi": 0.1})
    rows = {"size": number(sum(before), 0), "color": category({"red": sum(before), "blue": 0})}
    baseline, window = (
        Profile(model=spec.model, rows=sum(before), features={"x": number(*counts), **rows})
        for counts in (before, after)
    )
    found = compare(baseline, window, spec)
    assert (found.features["x"].drifted, found.drifted) == (drifted, ("x",) if drifted else ())


def test_numbers_and_categories_have_the_statistics_of_their_kind() -> None:
    window = profile_of(x=number(900, 100), color=category({"red": 990, "blue": 10}))
    report = compare(profile_of(), window, SPEC)
    x, color = report.features["x"], report.features["color"]
    assert x.ks == kolmogorov_smirnov(STABLE["x"], window.features["x"])
    assert (x.chi2, x.p_value) == chi_squared(STABLE["x"], window.features["x"])
    assert (color.chi2, color.p_value) == chi_squared(STABLE["color"], window.features["color"])
    assert (color.ks, color.wasserstein) == (None, None)
    gone = compare(profile_of(), profile_of(color=category({"red": 1000, "blue": 0})), SPEC)
    assert gone.features["color"].vanished_categories == ("blue",)


def test_a_feature_that_stops_arriving_has_drifted() -> None:
    report = compare(profile_of(), profile_of(x=number(0, 0, missing=1000)), SPEC)
    x = report.features["x"]
    assert (x.missing_baseline, x.missing_window, x.missing_change, x.drifted) == (0.0, 1.0, 1.0, True)


def test_new_categories_are_named_where_the_baseline_knew_all() -> None:
    window = profile_of(color=category({"red": 300, "blue": 699}, other=1, new=["green"]))
    report = compare(profile_of(), window, SPEC)
    assert report.features["color"].new_categories == ("green",)
    assert not report.features["color"].drifted
    assert "New in color: green." in report.summary
    knew_not_all = profile_of(color=category({"red": 300, "blue": 699}, other=1))
    assert compare(knew_not_all, window, SPEC).features["color"].new_categories == ()


@pytest.mark.parametrize(("rows", "enough"), [(99, False), (100, True)])
def test_few_rows_say_nothing(rows: int, enough: bool) -> None:
    few = Profile(
        model=SPEC.model,
        rows=rows,
        features={"x": number(rows, 0), "size": number(rows, 0), "color": category({"red": rows, "blue": 0})},
    )
    report = compare(profile_of(), few, SPEC)
    assert report.enough == enough
    assert bool(report.features) == enough
    assert (report.max_psi is None) != enough
    if not enough:
        assert report.drifted == ()
        assert report.summary.startswith("Not enough data: 99 rows were captured and 100 are needed")


def test_predictions_are_compared_beside_the_features_and_raise_no_alarm() -> None:
    report = compare(profile_of(prediction=number(500, 500)), profile_of(prediction=number(999, 1)), SPEC)
    assert report.prediction is not None
    assert report.prediction.drifted
    assert report.drifted == ()
    assert "The predictions' PSI is" in report.summary
    assert compare(profile_of(), profile_of(prediction=number(1, 1)), SPEC).prediction is None


def test_what_only_one_side_has_is_said_and_not_compared() -> None:
    window = profile_of(wind=number(500, 500), color=number(500, 500))
    report = compare(profile_of(gone=number(1, 1)), window, SPEC)
    assert set(report.uncompared) == {"wind", "color", "gone"}
    assert {*report.features} == {"x", "size"}
    assert "Not compared" in report.summary


def test_a_window_on_other_edges_is_refused() -> None:
    with pytest.raises(ValueError, match="cut at different edges"):
        compare(profile_of(), profile_of(x=number(500, 500, edges=[7])), SPEC)
