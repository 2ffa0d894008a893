"""Each event comes twice, twice at the same instant, hours late; neighbours come in the other order, and at once.

What comes twice or late must leave all as it would have been. What comes in another order leaves the same of whatever
is said to be the same whichever came first (`Scene.parts`); the ledger then tells the same in another order.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from tests.breaking.delivery import Ending
from tests.breaking.report import Report
from tests.breaking.scenes import NEIGHBOURS, SCENES, Moment, Scene, drawn
from tests.breaking.stage import Stage
from tests.breaking.world import State, differences

HOURS = timedelta(hours=5)
DELIVERIES = 4
FEW = 3
"""Scenes, and pairs of neighbours, that are drawn where not all are played."""
Way = Callable[[Stage, Scene, Moment], None]


def in_order(stage: Stage, scene: Scene, moment: Moment) -> None:
    for message in moment.messages:
        assert stage.call(scene, moment, message) is Ending.DONE, f"see {stage.functions.log}"


def twice(stage: Stage, scene: Scene, moment: Moment) -> None:
    for message in moment.messages:
        for again in range(2):
            assert stage.call(scene, moment, message, again * scene.hidden) is Ending.DONE, f"see {stage.functions.log}"


def twice_at_once(stage: Stage, scene: Scene, moment: Moment) -> None:
    for message in moment.messages:
        at_once(stage, scene, moment, (message, message))


def hours_late(stage: Stage, scene: Scene, moment: Moment) -> None:
    for message in moment.messages:
        assert stage.call(scene, moment, message, HOURS) is Ending.DONE, f"see {stage.functions.log}"


def the_other_way_round(stage: Stage, scene: Scene, moment: Moment) -> None:
    for number, message in enumerate(reversed(moment.messages)):
        delivered(stage, scene, moment, message, number * scene.hidden)


def all_at_once(stage: Stage, scene: Scene, moment: Moment) -> None:
    at_once(stage, scene, moment, moment.messages)


def at_once(stage: Stage, scene: Scene, moment: Moment, messages: Sequence[dict[str, Any]]) -> None:
    """In a process each, at the same instant; who fails gets its message again, as from a queue."""
    endings = stage.call_at_once(scene, moment, messages)
    for message, ending in zip(messages, endings, strict=True):
        if ending is not Ending.DONE:
            delivered(stage, scene, moment, message, scene.hidden)


def delivered(stage: Stage, scene: Scene, moment: Moment, message: dict[str, Any], first: timedelta) -> None:
    tried = (stage.call(scene, moment, message, first + again * scene.hidden) for again in range(DELIVERIES))
    assert any(ending is Ending.DONE for ending in tried), f"see {stage.functions.log}"


def played(stage: Stage, scene: Scene, way: Way) -> State:
    moment, world = stage.before(scene)
    way(stage, scene, moment)
    return stage.after(scene, moment, world)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wanted, seed = metafunc.config.getoption("points"), metafunc.config.getoption("seed")
    for name, there in (("scene", SCENES), ("neighbours", NEIGHBOURS)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, drawn(there, wanted, FEW, seed), ids=lambda scene: scene.name)


def test_an_event_may_come_twice_and_late(scene: Scene, stage: Stage, report: Report) -> None:
    expected, wrong = played(stage, scene, in_order), []
    for way in (twice, twice_at_once, hours_late):
        how = way.__name__.replace("_", " ")
        differs = differences(expected, played(stage, scene, way))
        report.add(scene.name, how, differs)
        wrong += [f"{how}: {line}" for line in differs]
    assert not wrong, "\n".join(wrong)


def test_neighbours_may_come_in_any_order(neighbours: Scene, stage: Stage, report: Report) -> None:
    expected, wrong = of_any_order(neighbours, played(stage, neighbours, in_order)), []
    for way in (the_other_way_round, all_at_once):
        how = way.__name__.replace("_", " ")
        differs = differences(expected, of_any_order(neighbours, played(stage, neighbours, way)))
        report.add(neighbours.name, how, differs)
        wrong += [f"{how}: {line}" for line in differs]
    assert not wrong, "\n".join(wrong)


def of_any_order(scene: Scene, state: State) -> State:
    """The parts that must be the same whatever came first; the ledger without the order of its entries."""
    entries = sorted(state["ledger"]["entries"], key=str)
    objects = {
        key: contents
        for key, contents in state["objects"].items()
        if not scene.folders or key.partition("/")[2].startswith(scene.folders)
    }
    state = {**state, "objects": objects, "ledger": {**state["ledger"], "entries": entries}}
    return {part: what for part, what in state.items() if not scene.parts or part in scene.parts}
