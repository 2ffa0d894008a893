"""Where scenes are played: before the event, the calls of its reaction, and what there is in the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from local.cloud import LocalCloud
from local.faults import Call
from tests.breaking.delivery import Ending, Lambda
from tests.breaking.scenes import Moment, Scene
from tests.breaking.world import State, World

SOON = timedelta(hours=8)
"""When whatever is bound to follow an event has come, however often that had to be delivered."""


@dataclass(frozen=True)
class Stage:
    cloud: LocalCloud
    functions: Lambda

    def before(self, scene: Scene) -> tuple[Moment, World]:
        """A world of its own, at the moment before the event."""
        moment = scene.before(self.functions.place)
        world = World(self.functions.place, moment.model)
        world.forget()
        return moment, world

    def call(self, scene: Scene, moment: Moment, message: dict[str, Any], later: timedelta = timedelta(0)) -> Ending:
        """Deliver a message once, so much later than it would have come."""
        return self.functions.call(scene.reaction, message, model=moment.model, later=scene.age + later)

    def call_at_once(self, scene: Scene, moment: Moment, messages: Sequence[dict[str, Any]]) -> list[Ending]:
        """Deliver each message once, all at the same instant."""
        begun = [
            self.functions.begin(scene.reaction, message, model=moment.model, later=scene.age) for message in messages
        ]
        return [self.functions.wait(process) for process in begun]

    def calls(self, scene: Scene) -> list[Call]:
        """What the reaction called since faults were set."""
        own = self.functions.function(scene.reaction)
        return [call for call in self.cloud.faults.calls() if call.session == own]

    def after(self, scene: Scene, moment: Moment, world: World) -> State:
        """What there is once nothing goes wrong any more, and all has come that was bound to."""
        self.cloud.faults.clear()
        moment.settle()
        for message in moment.afterwards:
            assert self.call(scene, moment, message, SOON) is Ending.DONE, f"see {self.functions.log}"
        moment.settle()
        state = world.state()
        world.stop_answering()
        return state
