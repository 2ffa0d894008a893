"""Distances between profiles are those of the books, and a report says what moved."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from noria.drift import compare, jensen_shannon, psi
from noria.profile import ColumnProfile, Profile
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
    smooth_p, smooth_q = ((c + 1) / (c.sum() + len(c)) for c in (p, q))
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


def test_a_window_without_rows_is_no_distance() -> None:
    assert jensen_shannon(number(5, 5), number(0, 0)) == 0
    assert psi(number(0, 0), number(0, 0)) == 0


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
    for measure in (psi, jensen_shannon):
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
