"""Whatever comes through a door: an answer, or an error that its callers know. `make fuzz` tries for longer."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.doors import Door, doors
from tests.fuzz.hostile import NASTY, hostile

DOORS = doors()


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_what_comes_on_good_days_comes_in(door: Door) -> None:
    for seed in door.seeds:
        door.enter(seed)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_nothing_that_comes_in_breaks_the_door(door: Door) -> None:
    tries = int(os.environ.get("TRIES", "0"))

    @settings(
        max_examples=tries or (6 if door.slow else 40),
        derandomize=not tries,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def enter(data: st.DataObject) -> None:
        door.enter(data.draw(hostile(door.seeds)))

    enter()


@pytest.mark.parametrize("nasty", NASTY, ids=lambda nasty: repr(nasty[:40]))
def test_nothing_nasty_instead_of_a_file_breaks_a_door(nasty: bytes) -> None:
    for door in DOORS:
        if not door.slow:
            door.enter(nasty)
