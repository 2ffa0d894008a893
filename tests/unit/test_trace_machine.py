"""Who answered, by the ledger, held to who did: random histories of a serving stack, as in test_serving_machine."""

import os
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from noria.aws import schedules
from noria.deployment import Desired
from noria.trace import answering, of_variant
from tests.unit.test_serving_machine import ServingMachine

VARIANTS = ("champion", "challenger", "shadow")


class Watched(ServingMachine):
    """Keeps what might have answered at each moment: what is live, and what an update under way brings."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[datetime, tuple[Desired, ...]]] = []

    @invariant()
    def look(self) -> None:
        if hasattr(self, "serving"):
            world = self.world
            coming = (world.desired(world.operation.parameters),) if world.operation else ()
            self.seen.append((world.now, (world.live, *coming)))

    def check_quiet(self) -> None:
        super().check_quiet()
        entries = self.serving.entries()
        for moment, states in self.seen:
            for variant in VARIANTS:
                truly = {package for state in states if (package := of_variant(state, variant))}
                told = answering(entries, variant, moment)
                assert truly <= set(told.packages), f"{variant} at {moment}: {truly}, but told were {told}"
                assert (len(told.packages) == 1) or told.why, "several or none, and it does not say why"
        for variant in VARIANTS:
            package = of_variant(self.world.live, variant)
            told = answering(entries, variant, self.world.now)
            # A change that may have begun when another was asked for, and that nothing has followed, stays in doubt.
            assert told.packages == ((package,) if package else ()) or "if it had begun" in str(told.why)


def test_whoever_answered_is_among_those_that_are_named_and_alone_where_all_is_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Past(datetime):
        """Scheduler takes no time that has passed; here time is the world's."""

        @classmethod
        def now(cls, tz: Any = None) -> "Past":
            return cls(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr(schedules, "datetime", Past)
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    others = int(os.environ.get("HISTORIES", "0"))
    run_state_machine_as_test(
        Watched,
        settings=settings(
            max_examples=others or 12,
            derandomize=not others,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
