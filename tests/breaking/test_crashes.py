"""Each reaction is killed right before and right after each call that it makes; its event comes again; all is the same.

The calls are those that the undisturbed reaction was seen to make.
"""

import random

import pytest

from local.cloud import REPOSITORY
from local.faults import Call, Fault, Kind
from tests.breaking.delivery import Ending
from tests.breaking.report import Report
from tests.breaking.scenes import SCENES, Scene, drawn
from tests.breaking.stage import Stage
from tests.breaking.world import State, differences

ELSEWHERE = {
    "front_door": "it answers a caller and changes nothing",
    "track_training": "its calls go to MLflow's own server: make tracking-test",
}
DELIVERIES = 3
FEW = 6
"""Scenes that are drawn where not all are played."""


def undisturbed(stage: Stage, scene: Scene) -> tuple[list[Call], State]:
    """What the reaction calls, and what there is in the end."""
    moment, world = stage.before(scene)
    stage.cloud.faults.set()
    for message in moment.messages:
        assert stage.call(scene, moment, message) is Ending.DONE, f"see {stage.functions.log}"
    calls = stage.calls(scene)
    return calls, stage.after(scene, moment, world)


def killed(stage: Stage, scene: Scene, kind: Kind, number: int, deliveries: int = DELIVERIES) -> tuple[bool, State]:
    """Whether that point was met, and what there is in the end."""
    moment, world = stage.before(scene)
    stage.cloud.faults.set(Fault(kind=kind, caller=stage.functions.function(scene.reaction), nth=number))
    for message in moment.messages:
        for again in range(deliveries):  # as a queue does: until it is done, each time when it is visible again
            if stage.call(scene, moment, message, again * scene.hidden) is Ending.DONE:
                break
    met = any(call.outcome == kind for call in stage.calls(scene))
    return met, stage.after(scene, moment, world)


def points(calls: list[Call], wanted: str, seed: int) -> list[tuple[int, Kind]]:
    """The calls' numbers, from 1, and sides to die on: all, or so many of them."""
    there = [(number, kind) for number in range(1, len(calls) + 1) for kind in (Kind.KILL_BEFORE, Kind.KILL_AFTER)]
    if wanted == "all":
        return there
    return sorted(random.Random(seed).sample(there, min(int(wanted), len(there))))  # noqa: S311 - no secret


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "scene" in metafunc.fixturenames:
        wanted, seed = metafunc.config.getoption("points"), metafunc.config.getoption("seed")
        metafunc.parametrize("scene", drawn(SCENES, wanted, FEW, seed), ids=lambda scene: scene.name)


def test_a_death_at_any_call_changes_nothing(
    scene: Scene, stage: Stage, report: Report, pytestconfig: pytest.Config
) -> None:
    calls, expected = undisturbed(stage, scene)
    assert calls, "it was seen to do nothing"
    wrong = []
    for number, kind in points(calls, pytestconfig.getoption("points"), pytestconfig.getoption("seed")):
        how = f"{kind} call {number} of {len(calls)}, {calls[number - 1].what}"
        met, found = killed(stage, scene, kind, number)
        differs = differences(expected, found) if met else ["the call was not made this time"]
        report.add(scene.name, how, differs)
        wrong += [f"{how}: {line}" for line in differs]
    assert not wrong, "\n".join(wrong)


def test_a_death_that_nothing_heals_is_seen(stage: Stage) -> None:
    """The comparison itself: without another delivery, no point but the last is like the undisturbed run."""
    scene = SCENES[0]
    calls, expected = undisturbed(stage, scene)
    _, found = killed(stage, scene, Kind.KILL_BEFORE, len(calls), deliveries=1)
    assert differences(expected, found)


def test_every_reaction_has_a_scene() -> None:
    there = {folder.parent.name for folder in (REPOSITORY / "lambdas").glob("*/handler.py")}
    assert there - {scene.reaction for scene in SCENES} == set(ELSEWHERE)
