"""Random histories: messages wait in a world and are delivered in any order, twice, two at a time, to functions that
may die at any call. What each machine adds is what happens in its world, and what must hold."""

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from noria.aws import schedules
from tests.unit.serving_world import HIDDEN, Died, Message, World


class Functions(Protocol):
    """Whatever hears the messages of a world."""

    def receive(self, message: Message) -> None: ...


class History(RuleBasedStateMachine):
    """`calls`: about as many as a function makes for one message, so that a death or another function falls between."""

    calls: ClassVar[int]
    world: World
    functions: Functions

    def visible(self) -> Sequence[Message]:
        return [message for message in self.world.messages if message.visible <= self.world.now]

    @rule(data=st.data(), again=st.booleans(), dies=st.booleans())
    @precondition(lambda self: len(self.visible()) > 0)
    def deliver(self, data: st.DataObject, *, again: bool, dies: bool) -> None:
        message = data.draw(st.sampled_from(self.visible()))
        dies_after = data.draw(st.integers(1, self.calls)) if dies and message.received < 3 else None
        self.receive(message, dies_after=dies_after, again=again)

    @rule(data=st.data())
    @precondition(lambda self: len(self.visible()) > 1)
    def deliver_two(self, data: st.DataObject) -> None:
        first, second = data.draw(st.permutations(self.visible()))[:2]
        self.at_once(first, second, data.draw(st.integers(0, self.calls)))

    def at_once(self, first: Message, second: Message, calls: int) -> None:
        """Two functions at the same time: one runs while the other is between two calls."""
        self.world.meanwhile = (calls, lambda: self.receive(second))
        self.receive(first)
        if self.world.meanwhile:
            self.world.meanwhile = None
            self.receive(second)

    def receive(self, message: Message, *, dies_after: int | None = None, again: bool = False) -> None:
        world = self.world
        world.dies_after, world.dead = dies_after, False
        message.received += 1
        try:
            self.functions.receive(message)
        except Died:
            message.visible = world.now + HIDDEN
        else:
            if not again or message.received > 3:
                world.messages.remove(message)
        finally:
            world.dies_after, world.dead = None, False


def live_through(machine: type[History], monkeypatch: pytest.MonkeyPatch, *, histories: int, steps: int) -> None:
    """The same histories each time, so that a change is judged by itself; HISTORIES=500 tries as many others."""

    class Past(datetime):
        """Scheduler takes no time that has passed; here time is the world's."""

        @classmethod
        def now(cls, tz: Any = None) -> "Past":
            return cls(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr(schedules, "datetime", Past)
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    others = int(os.environ.get("HISTORIES", "0"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=others or histories,
            derandomize=not others,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
