"""All that is kept of a model's ledger, held against itself: what somebody else than Noria has written shows.

| what was done                     | what shows it                                         |
|-----------------------------------|-------------------------------------------------------|
| a word of an entry changed        | its own hash                                          |
| … and the hash beside it          | the next entry's `previous`, or the head              |
| an entry taken out, or two swapped | numbers and hashes                                   |
| the newest ones taken away        | the head; where that was put back too, the locked copies |
| the whole chain written anew      | the locked copies                                     |
| a fact made to count as recorded  | meanings that no entry says                           |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import ValidationError

from noria.ledger import GENESIS, Break, Entry, Problem, chain, digest


@dataclass(frozen=True, kw_only=True)
class Written:
    """An entry as the table has it: the number that it lies under, its JSON, and the hash written beside it."""

    number: int
    body: str
    hash: str

    @cached_property
    def entry(self) -> Entry | None:
        """None where the JSON is no entry."""
        try:
            return Entry.model_validate_json(self.body)
        except ValidationError:
            return None


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """What is kept of one model's ledger, as it is found.

    `written` is in the order of numbers. `head` is the number and hash that the table says are the newest, `meanings`
    has the number of the entry that says each, `copies` the JSON of each entry as it was locked, by number.
    """

    model: str
    written: Sequence[Written]
    head: tuple[int, str] | None
    meanings: Mapping[str, int]
    copies: Mapping[int, str] = field(default_factory=dict)


def audit(held: Holdings) -> list[Break]:
    """Whatever does not hold, in the order of the entries; an empty list means that all does."""
    links = (
        (held.model, written.number, written.entry.previous, digest(written.body))
        if written.entry
        else (held.model, written.number, "", "")  # it follows from nothing, and nothing from it
        for written in held.written
    )
    found = [*_entries(held), *chain(links), *_end(held), *_meanings(held), *_copies(held)]
    order = list(Problem)
    return sorted(dict.fromkeys(found), key=lambda broken: (broken.entry, order.index(broken.problem)))


def _entries(held: Holdings) -> Iterator[Break]:
    for written in held.written:
        entry, number = written.entry, written.number
        if entry is None:
            yield _break(held, number, Problem.EDITED, f"entry {number} cannot be read")
            continue
        if entry.number != number or entry.model != held.model:
            yield _break(held, number, Problem.REORDERED, f"entry {number} is entry {entry.number} of {entry.model}")
        if digest(written.body) != written.hash:
            yield _break(held, number, Problem.EDITED, f"entry {number} is not what its hash says: {entry.summary}")


def _end(held: Holdings) -> Iterator[Break]:
    last = held.written[-1] if held.written else None
    number, hash_ = (last.number, last.hash) if last else (0, GENESIS)
    named, named_hash = held.head or (0, GENESIS)
    for cut in range(number + 1, max(named, *held.copies, 0) + 1):
        yield _break(held, cut, Problem.CUT, f"entry {cut} is gone from the end of the table")
    if named < number:
        yield _break(held, number, Problem.HEAD, f"the head names entry {named}, the last one is {number}")
    elif named == number and named_hash != hash_:
        yield _break(held, number, Problem.HEAD, f"the head has another hash of entry {number}")


def _meanings(held: Holdings) -> Iterator[Break]:
    said = {written.entry.meaning: written.number for written in held.written if written.entry}
    for meaning, number in said.items():
        if held.meanings.get(meaning) != number:
            yield _break(held, number, Problem.MEANING, f"nothing keeps {meaning} from being recorded again")
    for meaning, number in held.meanings.items():
        if meaning not in said:
            text = f"{meaning} counts as recorded by entry {number}, which does not say it"
            yield _break(held, number, Problem.MEANING, text)


def _copies(held: Holdings) -> Iterator[Break]:
    for written in held.written:
        number, copy = written.number, held.copies.get(written.number)
        if copy is None:
            yield _break(held, number, Problem.UNLOCKED, f"entry {number} has no locked copy")
        elif copy != written.body:
            text = f"entry {number} is not what its locked copy says: {copy}"
            yield _break(held, number, Problem.REWRITTEN, text)


def _break(held: Holdings, entry: int, problem: Problem, text: str) -> Break:
    return Break(model=held.model, entry=entry, problem=problem, text=text)
