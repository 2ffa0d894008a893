"""A trial is as long as nothing but the shares of the requests changes."""

from datetime import timedelta
from itertools import accumulate

from noria.deployment import Desired
from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.trial import Trial, champion_since
from tests.unit.engine_data import NOW


def seen(*states: Desired | Kind) -> list[Entry]:
    """Entries a minute apart: what was seen to answer, or that something else happened."""

    def fact(minute: int, state: Desired | Kind) -> Fact:
        told = (Kind.DEPLOYED, state.details) if isinstance(state, Desired) else (state, {})
        at = NOW + timedelta(minutes=minute)
        return Fact(model="example", kind=told[0], subject=f"{minute}", at=at, summary="so it is", details=told[1])

    facts = [fact(minute, state) for minute, state in enumerate(states)]
    first = Entry.after(facts[0], number=1, previous=GENESIS)
    return list(
        accumulate(
            facts[1:],
            lambda before, fact: Entry.after(fact, number=before.number + 1, previous=before.hash),
            initial=first,
        )
    )


def minutes(count: int) -> timedelta:
    return timedelta(minutes=count)


def test_a_challenger_is_on_trial_since_it_answers_whatever_its_share() -> None:
    entries = seen(
        Desired(package="p/1"),
        Desired(package="p/1", challenger="p/2", percent=5),
        Kind.MONITORED,
        Desired(package="p/1", challenger="p/2", percent=25),
    )
    assert Trial.of(entries) == Trial(kind="challenger", champion="p/1", rival="p/2", since=NOW + minutes(1))
    assert champion_since(entries) == NOW


def test_another_rival_another_champion_and_a_break_begin_anew() -> None:
    shadow = Desired(package="p/1", shadow="p/3")
    assert Trial.of(seen(shadow)) == Trial(kind="shadow", champion="p/1", rival="p/3", since=NOW)
    again = Trial.of(seen(shadow, Desired(package="p/1"), shadow))
    assert again is not None
    assert again.since == NOW + minutes(2)
    other = Trial.of(seen(shadow, Desired(package="p/2", shadow="p/3")))
    assert other is not None
    assert other.since == NOW + minutes(1)
    assert champion_since(seen(shadow, Desired(package="p/2"), Desired(package="p/2"))) == NOW + minutes(1)


def test_a_package_that_was_champion_more_than_once_became_it_last() -> None:
    one, two = Desired(package="p/1"), Desired(package="p/2")
    entries = seen(one, two, one, Desired(package="p/1", shadow="p/3"), two)
    assert champion_since(entries, "p/1") == NOW + minutes(2)
    assert champion_since(entries, "p/2") == NOW + minutes(4)
    assert champion_since(entries, "p/3") is None


def test_a_champion_alone_or_nobody_is_no_trial() -> None:
    assert Trial.of([]) is None
    assert Trial.of(seen(Desired(package="p/1", challenger="p/2", percent=5), Desired(package="p/1"))) is None
    assert Trial.of(seen(Desired(package=None))) is None
    assert champion_since([]) is None
