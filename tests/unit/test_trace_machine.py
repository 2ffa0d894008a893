"""Who answered, by the ledger, held to who did: random histories of a serving stack, as in test_serving_machine."""

from datetime import datetime

import pytest
from hypothesis.stateful import invariant

from noria.deployment import Desired
from noria.trace import answering, of_variant
from tests.unit.histories import live_through
from tests.unit.test_serving_machine import ServingMachine

VARIANTS = ("champion", "challenger", "shadow")


class Watched(ServingMachine):
    """Keeps what might have answered at each moment: what is live, and what an update under way brings."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[datetime, tuple[Desired, ...]]] = []

    @invariant()
    def look(self) -> None:
        if hasattr(self, "functions"):
            world = self.world
            coming = (world.desired(world.operation.parameters),) if world.operation else ()
            self.seen.append((world.now, (world.live, *coming)))

    def check_quiet(self) -> None:
        super().check_quiet()
        entries = self.functions.entries()
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
    live_through(Watched, monkeypatch, histories=12, steps=40)
