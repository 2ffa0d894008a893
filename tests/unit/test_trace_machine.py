"""Who answered, by the ledger, held to who did: random histories of a serving stack, as in test_serving_machine."""

from datetime import datetime

import pytest
from hypothesis.stateful import invariant

from noria.deployment import Desired
from noria.trace import answering, of_variant
from tests.unit.histories import live_through
from tests.unit.serving_world import Ending
from tests.unit.test_serving_machine import ServingMachine

VARIANTS = ("champion", "challenger", "shadow")


class Watched(ServingMachine):
    """Keeps what might have answered at each moment: what is live, and what an update of Noria's brings.

    What a person's own update (`cdk deploy`) brings counts once it answers: before, only that person knows of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[datetime, tuple[Desired, ...]]] = []

    @invariant()
    def look(self) -> None:
        if hasattr(self, "functions"):
            world = self.world
            coming = (world.desired(world.operation.parameters),) if world.operation and world.operation.token else ()
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


@pytest.mark.parametrize("ending", ["success", "quota", "lie about an alarm"])
def test_what_a_person_deploys_by_hand_is_named_if_it_comes_to_answer(
    monkeypatch: pytest.MonkeyPatch, ending: Ending
) -> None:
    """The stack says that version 2 is live, cannot be brought back, and a person deploys it as it says."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    machine = Watched()
    machine.begin("canary", "open", answering=True)
    world, (one, two) = machine.world, machine.world.packages
    world.decide(two, "Approved", heard=True)
    machine.hear()
    machine.finish_and_hear("lie about an alarm")
    world.finish("alarm", heard=False)  # of what was to bring the stack back
    world.redeploy()
    machine.look()
    world.finish(ending, heard=True)
    machine.look()
    moment = world.now
    machine.teardown()
    assert (two in answering(machine.functions.entries(), "champion", moment).packages) == (ending == "success")
    assert world.live == Desired(package=one)
