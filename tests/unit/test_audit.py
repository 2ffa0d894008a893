"""Whatever somebody writes into a ledger by hand shows, and nothing shows where nobody did."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from noria.audit import Holdings, Written, audit
from noria.ledger import GENESIS, Entry, Fact, Kind, Problem, digest

START = datetime(2026, 11, 21, 10, tzinfo=UTC)
MODEL = "flight-delay"


def written(number: int, previous: str, summary: str = "It happened.") -> Written:
    fact = Fact(
        model=MODEL,
        kind=Kind.DEPLOYED,
        subject=f"deploy-{number}",
        at=START + timedelta(hours=number),
        summary=summary,
        details={"share": 0.1 * number, "names": ["a", "é"], "none": None, "worst": float("nan")},
    )
    entry = Entry.after(fact, number=number, previous=previous)
    return Written(number=number, body=entry.body, hash=entry.hash)


def ledger(*summaries: str, copied: int | None = None) -> Holdings:
    entries: list[Written] = []
    for number, summary in enumerate(summaries, start=1):
        entries.append(written(number, entries[-1].hash if entries else GENESIS, summary))
    return holdings(entries, {entry.number: entry.body for entry in entries[:copied]})


def holdings(entries: list[Written], copies: Mapping[int, str]) -> Holdings:
    """As the table would have them: head and meanings are of these entries."""
    return Holdings(
        model=MODEL,
        written=entries,
        head=(entries[-1].number, entries[-1].hash) if entries else None,
        meanings={f"deployed#deploy-{entry.number}": entry.number for entry in entries},
        copies=copies,
    )


WHOLE = ledger("one", "two", "three", "four")


def edit(number: int, *, with_hash: bool) -> Holdings:
    """Change an entry's words; `with_hash`: and what is written beside it."""
    entries = list(WHOLE.written)
    body = json.dumps(json.loads(entries[number - 1].body) | {"summary": "Nothing happened."})
    hash_ = digest(body) if with_hash else entries[number - 1].hash
    entries[number - 1] = Written(number=number, body=body, hash=hash_)
    return replace(WHOLE, written=entries)


def swap() -> Holdings:
    one, two, three, four = WHOLE.written
    return replace(WHOLE, written=[one, replace(three, number=2), replace(two, number=3), four])


def rewritten() -> Holdings:
    """A whole chain, head and meanings, as good as new."""
    return replace(ledger("one", "no", "three", "four"), copies=WHOLE.copies)


def found(held: Holdings) -> set[tuple[int, Problem]]:
    return {(broken.entry, broken.problem) for broken in audit(held)}


def test_nothing_shows_where_nobody_wrote() -> None:
    assert audit(WHOLE) == []
    assert audit(Holdings(model=MODEL, written=[], head=None, meanings={})) == []


@pytest.mark.parametrize(
    ("tampered", "shows"),
    [
        (lambda: edit(2, with_hash=False), {(2, Problem.EDITED), (3, Problem.UNCHAINED), (2, Problem.REWRITTEN)}),
        (lambda: edit(2, with_hash=True), {(3, Problem.UNCHAINED), (2, Problem.REWRITTEN)}),
        (lambda: edit(4, with_hash=True), {(4, Problem.HEAD), (4, Problem.REWRITTEN)}),
        (lambda: replace(WHOLE, written=[*WHOLE.written[:1], *WHOLE.written[2:]]), {(2, Problem.MISSING)}),
        (lambda: replace(WHOLE, written=WHOLE.written[:3]), {(4, Problem.CUT)}),
        (swap, {(2, Problem.REORDERED), (3, Problem.REORDERED)}),
        (rewritten, {(2, Problem.REWRITTEN), (3, Problem.REWRITTEN), (4, Problem.REWRITTEN)}),
        (lambda: replace(WHOLE, head=(3, WHOLE.written[2].hash)), {(4, Problem.HEAD)}),
        (lambda: replace(WHOLE, head=None), {(4, Problem.HEAD)}),
        (lambda: replace(WHOLE, meanings={**WHOLE.meanings, "deployed#never": 9}), {(9, Problem.MEANING)}),
        (lambda: replace(WHOLE, meanings={"deployed#deploy-1": 1}), {(n, Problem.MEANING) for n in (2, 3, 4)}),
        (
            lambda: replace(WHOLE, written=[replace(WHOLE.written[0], body="{}"), *WHOLE.written[1:]]),
            {(1, Problem.EDITED)},
        ),
        (lambda: ledger("one", "two", copied=1), {(2, Problem.UNLOCKED)}),
    ],
    ids=[
        "a word",
        "a word and its hash",
        "the last word and its hash",
        "an entry taken out",
        "the newest taken away",
        "two swapped",
        "a chain written anew",
        "the head put back",
        "no head",
        "a fact that was never said",
        "meanings taken away",
        "no entry",
        "no copy yet",
    ],
)
def test_what_was_done_shows_where_it_was_done(
    tampered: Callable[[], Holdings], shows: set[tuple[int, Problem]]
) -> None:
    assert found(tampered()) >= shows


def test_a_cut_tail_shows_although_head_and_meanings_were_put_back() -> None:
    kept = list(WHOLE.written[:2])
    assert found(holdings(kept, WHOLE.copies)) == {(3, Problem.CUT), (4, Problem.CUT)}
    assert audit(holdings(kept, {1: kept[0].body, 2: kept[1].body})) == []  # without the copies nobody would know


def test_an_emptied_table_shows() -> None:
    assert found(Holdings(model=MODEL, written=[], head=None, meanings={}, copies=WHOLE.copies)) == {
        (number, Problem.CUT) for number in (1, 2, 3, 4)
    }


def test_the_text_names_the_entry_and_what_its_locked_copy_says() -> None:
    texts = [broken.text for broken in audit(edit(2, with_hash=True)) if broken.problem is Problem.REWRITTEN]
    assert texts == [f"entry 2 is not what its locked copy says: {WHOLE.copies[2]}"]
