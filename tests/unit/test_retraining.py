"""The governor says yes or no, always with reasons, and a no says when it ends."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.retraining import LOOK_AGAIN, decide
from noria.spec import ModelSpec, load, parse

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
YAML = (Path(__file__).parents[2] / "models" / "flight-delay.yaml").read_text()


def spec(retrain: str = "{after: [drift], cooldown: 24h, budget: 2 per week}") -> ModelSpec:
    lines = [f"retrain: {retrain}" if line.startswith("retrain:") else line for line in YAML.splitlines()]
    return parse("\n".join(lines), name="test.yaml")


def entry(kind: Kind, subject: str, *, ago: timedelta, **details: str | list[str]) -> Entry:
    fact = Fact(model="flight-delay", kind=kind, subject=subject, at=NOW - ago, summary="…", details=dict(details))
    return Entry.after(fact, number=1, previous=GENESIS)


def trained(ago: timedelta, *datasets: str, execution: str = "execution-1") -> list[Entry]:
    return [
        entry(Kind.TRAINING_STARTED, "token", ago=ago, execution=execution, datasets=list(datasets)),
        entry(Kind.TRAINING_SUCCEEDED, execution, ago=ago - timedelta(minutes=5)),
    ]


def accepted(sha: str, ago: timedelta) -> Entry:
    return entry(Kind.DATASET_ACCEPTED, sha, ago=ago)


def requested(ago: timedelta) -> Entry:
    return entry(Kind.RETRAINING_REQUESTED, f"alarm {ago}", ago=ago)


DAY = timedelta(days=1)
JANUARY = accepted("january", 30 * DAY)
MODEL = [JANUARY, *trained(29 * DAY, "january")]


def test_new_data_and_nothing_in_the_way_is_a_yes() -> None:
    decision = decide(spec(), [*MODEL, accepted("february", DAY), accepted("march", DAY)], now=NOW)
    assert decision.retrain
    assert decision.reasons == ("2 datasets arrived since the last training",)


def test_a_yes_is_looked_at_again_after_the_cooldown_in_case_its_training_comes_to_nothing() -> None:
    decision = decide(spec(), [*MODEL, accepted("february", DAY)], now=NOW)
    assert decision.again_at == NOW + spec().retrain.cooldown


def test_a_dataset_that_came_while_the_last_training_began_is_new() -> None:
    february = accepted("february", 31 * DAY)
    assert decide(spec(), [february, *MODEL], now=NOW).retrain


def test_without_new_data_the_answer_waits_for_the_next_window() -> None:
    decision = decide(spec(), MODEL, now=NOW)
    assert not decision.retrain
    assert "no data has arrived" in decision.reasons[0]
    assert decision.again_at == NOW + spec().monitor.every


def test_one_training_at_a_time() -> None:
    running = entry(Kind.TRAINING_STARTED, "token-2", ago=timedelta(minutes=2), execution="two", datasets=["january"])
    decision = decide(spec(), [*MODEL, running, accepted("february", timedelta(minutes=1))], now=NOW)
    assert not decision.retrain
    assert "under way" in decision.reasons[0]
    assert decision.again_at == NOW + LOOK_AGAIN


def test_a_failed_training_is_over() -> None:
    failed = [
        entry(Kind.TRAINING_STARTED, "token-2", ago=DAY, execution="two", datasets=["january"]),
        entry(Kind.TRAINING_FAILED, "two", ago=DAY),
    ]
    assert decide(spec(), [*MODEL, *failed, accepted("february", timedelta(hours=1))], now=NOW).retrain


def test_cooldown_ends_after_the_last_request() -> None:
    history = [*MODEL, requested(timedelta(hours=4)), accepted("february", timedelta(hours=1))]
    decision = decide(spec(), history, now=NOW)
    assert not decision.retrain
    assert decision.again_at == NOW + timedelta(hours=20)
    assert decide(spec(), history, now=NOW + timedelta(hours=20)).retrain


def test_the_budget_is_free_again_when_the_oldest_request_leaves_the_period() -> None:
    history = [*MODEL, requested(6 * DAY), requested(2 * DAY), accepted("february", timedelta(hours=1))]
    decision = decide(spec(), history, now=NOW)
    assert not decision.retrain
    assert "2 per week" in decision.reasons[0]
    assert decision.again_at == NOW + DAY
    assert decide(spec(), history, now=NOW + DAY + timedelta(seconds=1)).retrain


def test_all_refusals_are_told_and_the_last_to_end_decides() -> None:
    decision = decide(spec(), [*MODEL, requested(3 * DAY), requested(timedelta(hours=4))], now=NOW)
    assert len(decision.reasons) == 3
    assert decision.again_at == NOW + 4 * DAY


@pytest.mark.parametrize("retrain", ["{after: [upload]}", "{budget: 0 per week}"])
def test_a_policy_without_alarms_or_budget_never_ends(retrain: str) -> None:
    decision = decide(spec(retrain), [*MODEL, accepted("february", DAY)], now=NOW)
    assert not decision.retrain
    assert decision.again_at is None
    assert decision.reasons


def test_the_shipped_model_is_governed() -> None:
    shipped = load(Path(__file__).parents[2] / "models" / "flight-delay.yaml")
    assert "drift" in shipped.retrain.after
