"""A short game day on the cloud of the other tests: two breaks and a small flood, scored as by `make gameday`."""

from datetime import timedelta

import pytest

from local.demo import flights
from local.demo.control import Control
from local.demo.scenes import YEAR, Play
from local.demo.world import World
from local.gameday.breaks import BREAKS, Day
from local.gameday.flood import Flood, mixed
from local.gameday.score import Score

UPLOADS = 44
AT_ONCE = 5


@pytest.fixture(scope="module")
def day(play: Play, control: Control) -> Day:
    return Day(play=play, control=control, lines=mixed(flights.month(YEAR + 2).decode().splitlines(), play.spec.target))


@pytest.mark.parametrize("name", ["a denied call", "a killed function"])
def test_a_break_is_told_or_mended_as_promised(name: str, day: Day) -> None:
    action, quiet = BREAKS[name]
    score = Score(name, quiet=quiet)
    action(day, score)
    assert score.problems == []


def test_a_flood_loses_nothing_and_stays_within_its_bounds(day: Day, world: World, control: Control) -> None:
    flood = Flood(loud=world, quiet=control.world, lines=day.lines, uploads=UPLOADS)
    flood.send()
    outcome = flood.outcome(patience=timedelta(minutes=3).total_seconds())
    assert outcome.problems == []
    assert outcome.accepted + outcome.quarantined == UPLOADS
    assert outcome.most_at_once <= AT_ONCE
