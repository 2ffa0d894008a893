"""A chain of entries shows every edit, gap and reorder."""

from datetime import UTC, datetime, timedelta

from noria.ledger import GENESIS, Entry, Fact, Kind, Problem, latest, since, verify

START = datetime(2026, 11, 21, 10, tzinfo=UTC)


def chain(*kinds: Kind) -> list[Entry]:
    entries: list[Entry] = []
    for number, kind in enumerate(kinds, start=1):
        fact = Fact(
            model="flight-delay",
            kind=kind,
            subject=f"subject {number}",
            at=START + timedelta(hours=number),
            summary=f"{kind} happened.",
            details={"rows": number, "share": 0.1 * number, "names": ["a", "b"]},
        )
        entries.append(Entry.after(fact, number=number, previous=entries[-1].hash if entries else GENESIS))
    return entries


KINDS = (Kind.DATASET_ACCEPTED, Kind.TRAINING_STARTED, Kind.TRAINING_SUCCEEDED, Kind.DATASET_ACCEPTED)


def test_a_whole_chain_holds_and_survives_json() -> None:
    entries = chain(*KINDS)
    assert verify(entries) == []
    assert verify([Entry.model_validate_json(entry.model_dump_json()) for entry in entries]) == []


def test_a_changed_word_shows_at_the_next_entry() -> None:
    entries = chain(*KINDS)
    entries[1] = entries[1].model_copy(update={"summary": "Nothing happened."})
    (broken,) = verify(entries)
    assert (broken.entry, broken.problem) == (3, Problem.UNCHAINED)
    assert broken.text == "entry 3 does not follow from entry 2"


def test_a_removed_entry_shows() -> None:
    entries = chain(*KINDS)
    (missing,) = verify([*entries[:1], *entries[2:]])
    assert (missing.entry, missing.problem) == (2, Problem.MISSING)


def test_two_exchanged_entries_show() -> None:
    first, second, *rest = chain(*KINDS)
    assert verify([second, first, *rest])


def test_latest_and_since_look_at_kinds_and_time() -> None:
    entries = chain(*KINDS)
    newest = latest(entries, Kind.DATASET_ACCEPTED)
    assert newest is not None
    assert newest.number == 4
    assert latest(entries, Kind.ROLLED_BACK) is None
    assert [e.number for e in since(entries, START + timedelta(hours=2), *KINDS)] == [2, 3, 4]
