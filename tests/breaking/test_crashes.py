"""Each reaction is killed right before and right after each call that it makes; its event comes again; all is the same.

The calls are those that the undisturbed reaction was seen to make.
"""

import random
from dataclasses import dataclass
from typing import Any

import pytest

from local.cloud import LocalCloud
from local.faults import Call, Fault, Kind
from tests.breaking.delivery import Ending, Lambda
from tests.breaking.report import Report
from tests.breaking.scenes import SCENES, Moment, Scene
from tests.breaking.world import State, World, differences


@dataclass(frozen=True)
class Harness:
    """Plays scenes; a message that was not done is delivered so many times in all."""

    cloud: LocalCloud
    functions: Lambda
    deliveries: int = 3

    def undisturbed(self, scene: Scene) -> tuple[list[Call], State]:
        moment, world = self._before(scene)
        self.cloud.faults.set()
        for message in moment.messages:
            assert self.functions.call(scene.reaction, message, model=moment.model) is Ending.DONE
        calls = self._calls(scene)
        self.cloud.faults.clear()
        moment.settle()
        return calls, world.state()

    def killed(self, scene: Scene, kind: Kind, number: int) -> tuple[bool, State]:
        """Whether that point was met, and what there is in the end."""
        moment, world = self._before(scene)
        self.cloud.faults.set(Fault(kind=kind, caller=self.functions.function(scene.reaction), nth=number))
        for message in moment.messages:
            self._deliver(scene, message, moment)
        met = any(call.outcome == kind for call in self._calls(scene))
        self.cloud.faults.clear()
        moment.settle()
        return met, world.state()

    def _deliver(self, scene: Scene, message: dict[str, Any], moment: Moment) -> None:
        """As a queue does: until it is done, each time when it is visible again."""
        for again in range(self.deliveries):
            later = again * scene.hidden
            if self.functions.call(scene.reaction, message, model=moment.model, later=later) is Ending.DONE:
                return

    def _before(self, scene: Scene) -> tuple[Moment, World]:
        moment = scene.before(self.functions.place)
        world = World(self.functions.place, moment.model)
        world.forget()
        return moment, world

    def _calls(self, scene: Scene) -> list[Call]:
        own = self.functions.function(scene.reaction)
        return [call for call in self.cloud.faults.calls() if call.session == own]


def points(calls: list[Call], wanted: str, seed: int) -> list[tuple[int, Kind]]:
    """The calls' numbers, from 1, and sides to die on: all, or so many of them."""
    there = [(number, kind) for number in range(1, len(calls) + 1) for kind in (Kind.KILL_BEFORE, Kind.KILL_AFTER)]
    if wanted == "all":
        return there
    return sorted(random.Random(seed).sample(there, min(int(wanted), len(there))))  # noqa: S311 - no secret


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_death_at_any_call_changes_nothing(
    scene: Scene, cloud: LocalCloud, functions: Lambda, report: Report, pytestconfig: pytest.Config
) -> None:
    harness = Harness(cloud, functions)
    calls, expected = harness.undisturbed(scene)
    assert calls, "it was seen to do nothing"
    wrong = []
    for number, kind in points(calls, pytestconfig.getoption("points"), pytestconfig.getoption("seed")):
        how = f"{kind} call {number} of {len(calls)}, {calls[number - 1].what}"
        met, found = harness.killed(scene, kind, number)
        differs = differences(expected, found) if met else ["the call was not made this time"]
        report.add(scene.name, how, differs)
        wrong += [f"{how}: {line}" for line in differs]
    assert not wrong, "\n".join(wrong)


def test_a_death_that_nothing_heals_is_seen(cloud: LocalCloud, functions: Lambda) -> None:
    """The comparison itself: without another delivery, no point but the last is like the undisturbed run."""
    harness = Harness(cloud, functions, deliveries=1)
    scene = next(scene for scene in SCENES if scene.reaction == "validate_upload")
    calls, expected = harness.undisturbed(scene)
    _, found = harness.killed(scene, Kind.KILL_BEFORE, len(calls))
    assert differences(expected, found)
