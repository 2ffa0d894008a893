"""Measures of unequal treatment are fairlearn's; what small groups show by chance alarms nobody."""

from dataclasses import dataclass

import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from numpy.typing import NDArray

from noria.evaluation import SEGMENT_ROWS, Fairness, Rates
from noria.fairness import LEFT_OUT, by_labels, by_selection, measure, reading
from noria.intervals import wilson
from noria.monitors import Monitor, Reading, Unknown, monitors
from noria.sql import cursor
from tests.unit.engine_data import SMALL, spec_of

Flags = NDArray[np.bool_]
GROUPS = np.array(["a", "b", "c d", 'it\'s "x"'])
MEASURES = ("disparate_impact", "equal_opportunity", "equalized_odds")


@dataclass
class Count:
    rows: int
    selected: int


def drawn(seed: int, rows: int = 2000) -> tuple[NDArray[np.str_], Flags, Flags]:
    """Groups, truth and whether selected; groups differ."""
    random = np.random.default_rng(seed)
    place = random.integers(0, len(GROUPS), rows)
    truth = random.random(rows) < 0.3 + 0.1 * place
    selected = random.random(rows) < np.where(truth, 0.5, 0.2) + 0.08 * place
    return GROUPS[place], truth, selected


def labelled(groups: NDArray[np.str_], truth: Flags, selected: Flags) -> Fairness:
    with cursor(SMALL) as db:
        db.execute("CREATE TEMP TABLE matched (s0 VARCHAR, truth BOOLEAN, score DOUBLE)")
        columns = [groups.tolist(), truth.tolist(), np.where(selected, 0.5, 0.4).tolist()]
        db.execute("INSERT INTO matched SELECT unnest(?), unnest(?), unnest(?)", columns)
        return by_labels(db, "s0")


def counted(**groups: tuple[int, int]) -> Fairness:
    return by_selection({value: Count(rows=rows, selected=selected) for value, (rows, selected) in groups.items()})


def values(found: Fairness) -> dict[str, float]:
    estimates = {name: getattr(found, name) for name in MEASURES}
    assert all(e.low <= e.value <= e.high for e in estimates.values() if e)
    return {name: estimate.value for name, estimate in estimates.items() if estimate}


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_those_of_fairlearn(seed: int) -> None:
    groups, truth, selected = drawn(seed)
    found = labelled(groups, truth, selected)
    told = {"y_true": truth, "y_pred": selected, "sensitive_features": groups}
    assert values(found) == pytest.approx(
        {
            "disparate_impact": fairlearn.demographic_parity_ratio(**told),
            "equal_opportunity": fairlearn.equal_opportunity_difference(**told),
            "equalized_odds": fairlearn.equalized_odds_difference(**told),
        },
        rel=1e-12,
    )
    by_group = fairlearn.MetricFrame(
        metrics={
            "selection_rate": fairlearn.selection_rate,
            "true_positive_rate": fairlearn.true_positive_rate,
            "false_positive_rate": fairlearn.false_positive_rate,
            "rows": fairlearn.count,
        },
        **told,
    ).by_group.to_dict("index")
    assert {value: {name: getattr(rates, name) for name in by_group["a"]} for value, rates in found.values.items()} == {
        value: pytest.approx(expected, rel=1e-12) for value, expected in by_group.items()
    }


def test_predictions_alone_tell_the_disparate_impact() -> None:
    groups, truth, selected = drawn(0)
    counts = {value: Count(int((groups == value).sum()), int(selected[groups == value].sum())) for value in GROUPS}
    found = by_selection(counts)
    assert found.disparate_impact == labelled(groups, truth, selected).disparate_impact
    assert (found.equal_opportunity, found.equalized_odds) == (None, None)


def test_values_with_few_rows_are_left_out_and_named() -> None:
    few = {f"few{n:02}": (SEGMENT_ROWS - 1 - n, 0) for n in range(LEFT_OUT + 5)}
    found = counted(a=(SEGMENT_ROWS, 25), b=(100, 40), **few)
    assert list(found.values) == ["a", "b"]
    assert found.disparate_impact
    assert found.disparate_impact.value == pytest.approx(0.8)
    assert found.left_out == {name: rows for name, (rows, _) in list(few.items())[:LEFT_OUT]}


@pytest.mark.parametrize(
    "groups",
    [{}, {"a": (100, 50)}, {"a": (100, 50), "b": (SEGMENT_ROWS - 1, 9)}, {"a": (100, 0), "b": (100, 0)}],
    ids=["none", "one", "one with rows", "nobody selected"],
)
def test_nothing_to_compare_is_no_measure(groups: dict[str, tuple[int, int]]) -> None:
    assert counted(**groups).disparate_impact is None


def test_a_value_that_is_never_selected_has_an_impact_of_nothing() -> None:
    found = counted(a=(200, 100), b=(200, 0)).disparate_impact
    assert found
    assert (found.value, found.low) == (0, 0)
    assert 0 < found.high < 0.1


def test_rates_of_no_rows_are_no_rates() -> None:
    """Nobody of b was positive: there is no true positive rate of b to compare."""
    found = measure(
        {
            "a": Rates(rows=100, selected=50, positives=40, true_positives=30),
            "b": Rates(rows=100, selected=20, positives=0, true_positives=0),
        }
    )
    assert found.equal_opportunity is None
    assert found.equalized_odds is None
    assert found.values["b"].true_positive_rate is None
    assert found.values["b"].false_positive_rate == 0.2


def rates(random: np.random.Generator, rows: NDArray[np.int64], p: NDArray[np.float64]) -> dict[str, Rates]:
    """Groups of so many rows, half of them positive, selected with probability `p`."""
    return {
        str(n): Rates(
            rows=size,
            selected=(hits := int(random.binomial(size // 2, chance))) + int(random.binomial(size - size // 2, chance)),
            positives=size // 2,
            true_positives=hits,
        )
        for n, (size, chance) in enumerate(zip(rows.tolist(), p.tolist(), strict=True))
    }


@pytest.mark.parametrize("groups", [2, 12])
def test_intervals_hold_the_truth(groups: int) -> None:
    """In 95 % of all cases at least, also where the largest of many differences is looked at."""
    random = np.random.default_rng(groups)
    p = np.linspace(0.3, 0.5, groups)
    truth = dict(zip(MEASURES, (0.6, 0.2, 0.2), strict=True))
    held = dict.fromkeys(MEASURES, 0)
    runs = 200
    for _ in range(runs):
        found = measure(rates(random, random.integers(100, 2000, groups), p))
        for name in MEASURES:
            estimate = getattr(found, name)
            held[name] += estimate.low <= truth[name] <= estimate.high
    assert all(count / runs >= 0.93 for count in held.values()), held


def monitor(metric: str) -> Monitor:
    limits = {"disparate_impact": 0.8, "equal_opportunity": 0.1, "equalized_odds": 0.1}
    spec = spec_of(segments=["color"], monitor={"bias": {"color": limits}})
    (found,) = (m for m in monitors(spec) if m.metric == metric)
    return found


BIAS = ("DisparateImpact", "EqualOpportunityDifference", "EqualizedOddsDifference")


@pytest.mark.parametrize("metric", BIAS)
def test_chance_between_many_small_groups_alarms_nobody(metric: str) -> None:
    """Equal treatment; by what is found, the limits would be passed nearly always."""
    random = np.random.default_rng(1)
    watched = monitor(metric)
    breaches = looked = 0
    for _ in range(100):
        found = measure(rates(random, random.integers(SEGMENT_ROWS, 200, 12), np.full(12, 0.3)))
        read = reading(watched, found)
        assert isinstance(read, Reading)
        breaches += watched.breached(read.value)
        looked += watched.breached(values(found)[dict(zip(BIAS, MEASURES, strict=True))[metric]])
    assert looked > 90
    assert breaches <= 1


def test_two_small_groups_that_are_treated_alike_alarm_hardly_ever() -> None:
    """A monitor looks again and again: one in 1,000 is its share of chance, not an interval's 5 %."""
    random = np.random.default_rng(4)
    watched = monitor("EqualOpportunityDifference")
    breaches = 0
    for _ in range(1000):
        read = reading(watched, measure(rates(random, np.array([60, 60]), np.full(2, 0.3))))
        breaches += isinstance(read, Reading) and watched.breached(read.value)
    assert breaches <= 2


@pytest.mark.parametrize("metric", BIAS)
def test_unequal_treatment_is_found(metric: str) -> None:
    random = np.random.default_rng(2)
    watched = monitor(metric)
    for _ in range(50):
        read = reading(watched, measure(rates(random, np.array([4000, 2000, 1000]), np.array([0.5, 0.25, 0.4]))))
        assert isinstance(read, Reading)
        assert watched.breached(read.value)
        assert "surely" in read.reason


def test_too_little_to_compare_is_told() -> None:
    watched = monitor("EqualOpportunityDifference")
    for found, told in (
        (None, "0 values of color"),
        (counted(a=(100, 5)), "1 values of color"),
        (counted(a=(100, 5), b=(100, 5)), "fewer than two values of color"),
    ):
        read = reading(watched, found)
        assert isinstance(read, Unknown)
        assert told in read.reason


def test_no_more_values_are_compared_than_a_person_can_look_at() -> None:
    found = counted(**{f"v{n:03}": (1000 + n, 300) for n in range(150)})
    assert [*found.values] == [f"v{n:03}" for n in range(50, 150)]
    assert [*found.left_out] == [f"v{n:03}" for n in range(49, 29, -1)]


def test_an_interval_for_many_comparisons_is_wider() -> None:
    assert wilson(0.3, 100, confidence=0.999).low < wilson(0.3, 100).low < 0.3
