"""The difference of two versions, held against the records that it is of."""

import json
import math

import pytest

from noria import drift
from noria.compare import Change, Data, Difference, compare, text
from noria.evaluation import ChampionScore, Estimate
from noria.record import Record
from noria.spec import Metric
from tests.unit.card_world import CATEGORIES, arn, estimate, record, spec
from tests.unit.report_run import profiles


def of(before: Record, after: Record) -> Difference:
    return compare(before, after, found=None, no_drift="not asked")


def without_champion(of: Record) -> Record:
    assert of.evaluation
    return of.model_copy(update={"evaluation": of.evaluation.model_copy(update={"champion": None})})


def test_a_version_differs_from_itself_in_nothing() -> None:
    same = of(without_champion(record()), without_champion(record()))
    assert (same.added, same.removed, same.parameters) == ((), (), ())
    assert [m.beyond_chance for m in same.metrics] == [False, False]
    assert [w.beyond_chance for w in same.weights] == [False, False, False]
    assert all(number.before == number.after for number in same.numbers)
    assert "the same datasets" in text(same)


def test_datasets_code_and_parameters_that_changed_are_named() -> None:
    before = record(version=2)
    slower = spec(train={"hyperparameters": {"learning_rate": 0.01}}, min_rows=7)
    after = record(slower, version=3)
    after = after.model_copy(
        update={
            "package": after.package.model_copy(update={"metadata": after.package.metadata | {"noria:code": "e" * 64}})
        }
    )
    found = of(before, after)
    assert found.added == (Data(sha256=f"{3:0>64}", file="january.csv", rows=6000),)
    assert found.removed == (Data(sha256=f"{2:0>64}", file="january.csv", rows=6000),)
    assert (found.code.before, found.code.after) == ("c" * 64, "e" * 64)
    assert found.parameters == (
        Change(name="min_rows", before="1", after="7"),
        Change(name="train.hyperparameters.learning_rate", before=None, after="0.01"),
    )
    assert "cccccccccccc → eeeeeeeeeeee" in text(found)


def test_measured_beside_each_other_the_margin_on_the_same_rows_decides() -> None:
    before, after = record(version=1), record(version=2)
    (auc, brier) = of(before, after).metrics
    assert after.evaluation
    assert after.evaluation.champion
    assert (auc.metric, auc.same_rows, auc.beyond_chance) == (Metric.AUC, True, True)
    assert auc.difference == after.evaluation.champion.margins[Metric.AUC]
    assert auc.before == after.evaluation.champion.metrics[Metric.AUC]
    assert (brier.metric, brier.same_rows, brier.beyond_chance) == (Metric.BRIER, False, False)
    assert "better beyond chance, on the same rows" in text(of(before, after))


def test_a_margin_of_a_loss_is_turned_into_how_much_larger_the_loss_is() -> None:
    before, after = record(version=1), record(version=2)
    assert after.evaluation
    margins = {Metric.BRIER: Estimate(value=0.02, low=0.01, high=0.04)}
    rival = ChampionScore(package=arn(1), metrics={Metric.BRIER: estimate(0.2)}, margins=margins)
    better = after.model_copy(update={"evaluation": after.evaluation.model_copy(update={"champion": rival})})
    brier = of(before, better).metrics[1]
    assert brier.difference == Estimate(value=-0.02, low=-0.04, high=-0.01)
    assert "better beyond chance, on the same rows" in text(of(before, better))


@pytest.mark.parametrize(("value", "beyond"), [(0.7123, False), (0.735, False), (0.745, True), (0.68, True)])
def test_apart_from_each_other_both_intervals_count(value: float, beyond: bool) -> None:
    """Two independent estimates, both 0.02 to either side: their difference is within 0.02 times the root of two."""
    before, after = without_champion(record(version=2)), without_champion(record(version=3))
    assert after.evaluation
    metrics = {Metric.AUC: estimate(value)}
    after = after.model_copy(update={"evaluation": after.evaluation.model_copy(update={"metrics": metrics})})
    auc, brier = of(before, after).metrics
    assert auc.difference
    assert auc.difference.value == pytest.approx(value - 0.7123)
    assert auc.difference.high - auc.difference.value == pytest.approx(0.02 * math.sqrt(2))
    assert auc.beyond_chance is beyond is (abs(value - 0.7123) > 0.02 * math.sqrt(2))
    assert (brier.after, brier.beyond_chance) == (None, None)


def test_weights_beyond_two_standard_errors_of_their_difference_are_told() -> None:
    before, after = record(version=2), record(version=3)
    assert after.attribution
    moved = {
        name: weight.model_copy(update={"share": share})
        for (name, weight), share in zip(after.attribution.weights.items(), (0.49, 0.31, 0.2), strict=True)
    }
    after = after.model_copy(update={"attribution": after.attribution.model_copy(update={"weights": moved})})
    found = {w.feature: (w.before, w.after, w.beyond_chance) for w in of(before, after).weights}
    # 0.06 > 2 * 0.02 * sqrt(2) = 0.0566 > 0.05
    assert found == {"x": (0.55, 0.49, True), "color": (0.15, 0.2, False), "size": (0.3, 0.31, False)}


def test_the_drift_between_what_they_were_trained_on_is_told() -> None:
    baseline, window = profiles(spec(), CATEGORIES)
    found = drift.compare(baseline, window, spec())
    told = compare(record(version=2), record(version=3), found=found, no_drift=None)
    assert told.drift == found
    assert found.summary in text(told)


def test_what_is_not_known_of_one_is_said_and_nothing_is_made_up() -> None:
    bare = Record(package=record().package, unknown={"evaluation": "registered by hand"})
    found = of(bare, record(version=3))
    assert [m.beyond_chance for m in found.metrics] == [None, None]
    assert found.rows.before is None
    assert "version 2: evaluation: registered by hand" in text(found)
    assert json.loads(found.model_dump_json())["metrics"][0]["before"] is None


def test_versions_of_two_models_are_not_compared() -> None:
    other = record().model_copy(update={"package": record().package.model_copy(update={"model": "other"})})
    with pytest.raises(ValueError, match="other and example are two models"):
        of(other, record())
