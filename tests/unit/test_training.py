"""A training is named by its cause, whatever order its datasets come in."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.training import (
    MOST_DATASETS,
    Cause,
    Champion,
    TrainingDataset,
    TrainingRequest,
    trained_on,
    training_token,
)

AT = datetime(2013, 1, 1, tzinfo=UTC)
CAUSE = Cause(kind="upload", identity="a" * 64, text="dataset aaaa accepted")


def dataset(number: int) -> TrainingDataset:
    sha = f"{number:064x}"
    return TrainingDataset(
        sha256=sha,
        key=f"flight-delay/datasets/{sha}/data.csv",
        rows=10,
        first_event=AT + timedelta(days=30 * number),
        last_event=AT + timedelta(days=30 * number + 29),
    )


def request(*numbers: int, champion: Champion | None = None, now: datetime = AT) -> TrainingRequest:
    return TrainingRequest.of(
        model="flight-delay", cause=CAUSE, datasets=[dataset(n) for n in numbers], champion=champion, now=now
    )


def test_the_token_is_the_causes() -> None:
    token = training_token("flight-delay", CAUSE.identity)
    assert request(1).token == request(1, 2, now=AT + timedelta(days=1)).token == token
    assert len(token) == 64
    others = [
        training_token("other", CAUSE.identity),
        training_token("flight-delay", "b" * 64),
    ]
    assert token not in others


def test_the_hash_of_a_set_does_not_know_order() -> None:
    assert request(1, 2).dataset_hash == request(2, 1).dataset_hash
    assert request(1, 2).dataset_hash != request(1).dataset_hash


def test_manifests_are_relative_to_the_models_folder() -> None:
    asked = request(2, 1, champion=Champion(package="arn:p", model_key="flight-delay/runs/x/model/model.tar.gz"))
    head, *keys = json.loads(asked.datasets_manifest("data"))
    assert head == {"prefix": "s3://data/flight-delay/"}
    assert keys == [f"trainings/{asked.token}/request.json", *(f"datasets/{n:064x}/data.csv" for n in (1, 2))]
    _, *champion = json.loads(asked.champion_manifest("data"))
    assert champion == [f"trainings/{asked.token}/request.json", "runs/x/model/model.tar.gz"]


def test_without_a_champion_the_request_is_there_still() -> None:
    asked = request(1)
    assert json.loads(asked.champion_manifest("data"))[1:] == [f"trainings/{asked.token}/request.json"]
    assert asked.parameters()["ChampionPackage"] == "none"


def test_a_champion_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="a manifest has one prefix"):
        request(1, champion=Champion(package="arn:p", model_key="other/model.tar.gz")).champion_manifest("data")


def test_parameters_hold_no_comma() -> None:
    assert all("," not in value for value in request(1).parameters().values())


def test_rows_are_fresh_that_the_champion_was_not_trained_on() -> None:
    champion = Champion(package="arn:p/1", model_key="flight-delay/runs/x/model/model.tar.gz")
    asked = request(1, 2, 3, champion=champion)
    seen = [dataset.sha256 for dataset in asked.datasets[:1]]
    again = TrainingRequest.of(
        model=asked.model, cause=asked.cause, datasets=asked.datasets, champion=champion, seen=seen, now=AT
    )
    assert again.fresh_rows == sum(dataset.rows for dataset in asked.datasets[1:])
    assert asked.fresh_rows == sum(dataset.rows for dataset in asked.datasets)
    assert request(1, 2).fresh_rows == 0


def test_a_training_takes_as_many_datasets_as_an_entry_of_the_ledger_can_name() -> None:
    most = request(*range(MOST_DATASETS))
    named = json.dumps([dataset.sha256 for dataset in most.datasets])
    assert len(named) < 400_000 - 10_000  # DynamoDB's limit of an item, and room for all else
    with pytest.raises(ValueError, match="flight-delay has 5,001 datasets, and a training takes 5,000 at most: upload"):
        request(*range(MOST_DATASETS + 1))


def test_the_ledger_knows_what_a_package_was_trained_on() -> None:
    facts = [
        Fact(
            model="flight-delay",
            kind=kind,
            subject=subject,
            at=AT,
            summary="…",
            details=details,
        )
        for kind, subject, details in (
            (Kind.TRAINING_STARTED, "t1", {"execution": "e1", "datasets": ["a"]}),
            (Kind.TRAINING_STARTED, "t2", {"execution": "e2", "datasets": ["a", "b"]}),
            (Kind.TRAINING_SUCCEEDED, "e2", {"package": "p2"}),
        )
    ]
    entries = [Entry.after(fact, number=number, previous=GENESIS) for number, fact in enumerate(facts, start=1)]
    assert trained_on(entries, "p2") == {"a", "b"}
    assert trained_on(entries, "p1") == frozenset()
