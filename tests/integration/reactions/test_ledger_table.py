"""The ledger in its table: each fact once, numbered without gaps, however many write at a time."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from noria.ledger import Fact, Kind, verify
from tests.integration.reactions.place import Place

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def fact(model: str, subject: str, summary: str = "It happened.") -> Fact:
    return Fact(
        model=model,
        kind=Kind.MONITORED,
        subject=subject,
        at=AT,
        summary=summary,
        details={"rows": 3, "psi": 0.25, "drifted": ["temp"], "report": None, "enough": True},
    )


def test_a_fact_is_recorded_once(place: Place) -> None:
    model = place.model().model
    assert place.ledger.record(fact(model, "window 1"))
    assert not place.ledger.record(fact(model, "window 1", "It happened, said differently."))
    (entry,) = place.entries(model)
    assert (entry.number, entry.summary, entry.details) == (1, "It happened.", fact(model, "window 1").details)
    assert place.ledger.knows(model, Kind.MONITORED, "window 1")
    assert not place.ledger.knows(model, Kind.MONITORED, "window 2")


def test_writers_at_the_same_time_make_one_chain(place: Place) -> None:
    model = place.model().model
    subjects = [f"window {number % 12}" for number in range(36)]
    with ThreadPoolExecutor(max_workers=6) as pool:
        recorded = list(pool.map(lambda subject: place.ledger.record(fact(model, subject)), subjects))
    entries = place.entries(model)
    assert sum(recorded) == len(entries) == 12
    assert {entry.subject for entry in entries} == set(subjects)
    assert verify(entries) == []


def test_models_are_told_together_newest_first(place: Place) -> None:
    one, two = place.model().model, place.model().model
    place.ledger.record(fact(one, "early"))
    place.ledger.record(fact(two, "late").model_copy(update={"at": AT.replace(hour=13)}))
    assert [entry.subject for entry in place.ledger.newest([one, two])] == ["late", "early"]
    place.ledger.record(fact(two, "heard late").model_copy(update={"at": AT.replace(hour=1)}))
    assert [entry.subject for entry in place.ledger.newest([one, two])] == ["late", "early", "heard late"]
    assert [entry.subject for entry in place.ledger.newest([one, two], limit=2)] == ["late", "early"]
    assert [entry.subject for entry in place.ledger.newest([two], limit=1)] == ["heard late"], "it was written last"


def test_a_table_that_was_put_back_is_read_anew(place: Place) -> None:
    """What a process has read already is a part of what it says next, but only as long as the table agrees."""
    model, table = place.model().model, place.client("dynamodb")
    for subject in ("one", "two", "three"):
        place.ledger.record(fact(model, subject))
    assert [entry.subject for entry in place.entries(model)] == ["one", "two", "three"]
    items = table.query(
        TableName="ledger",
        KeyConditionExpression="model = :model",
        ExpressionAttributeValues={":model": {"S": model}},
    )["Items"]
    for item in items:
        table.delete_item(TableName="ledger", Key={"model": item["model"], "sk": item["sk"]})
    assert place.entries(model) == []
    for subject in ("four", "two", "five", "six"):
        place.ledger.record(fact(model, subject))
    assert [entry.subject for entry in place.entries(model)] == ["four", "two", "five", "six"]


def test_models_with_more_entries_than_are_kept_read_anew_only_what_is_too_much(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.aws.ledger._READ", {})
    monkeypatch.setattr("noria.aws.ledger._MOST_READ", 12)
    one, two = place.model().model, place.model().model
    subjects = [str(number) for number in range(8)]
    for model in (one, two):
        for subject in subjects:
            place.ledger.record(fact(model, subject))
    read: list[int] = []
    ledger = place.ledger
    ledger.client.meta.events.register(
        "after-call.dynamodb.Query", lambda parsed, **_: read.append(len(parsed["Items"]))
    )
    for model in (one, two, one, two, two):
        assert [entry.subject for entry in ledger.entries(model)] == subjects
    # The last that is kept is always read again.
    assert read == [8, 8, 5, 5, 1]
