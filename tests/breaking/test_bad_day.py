"""AWS has a bad day: calls of reactions are throttled, fail, get no answer, are denied, or see what was before.

A moment of it is mended by the call's own retries, and nobody hears of it. What lasts fails the reaction after a
bounded number of calls; once it is over, the event from the dead-letter queue makes all as if nothing had been.

With `--points all` every call of every scene has every kind of bad day; otherwise so many of each of a few scenes.
"""

import random
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby

import pytest
from botocore.config import Config

from local.cloud import LocalCloud
from local.faults import Call, Fault, Kind
from noria.aws import retries
from noria.ledger import Kind as Entry
from tests.breaking.delivery import Ending, Lambda, queued
from tests.breaking.report import Report
from tests.breaking.scenes import SCENES, Moment, Scene
from tests.breaking.stage import Stage
from tests.breaking.world import State, differences
from tests.integration.reactions import test_retraining as retraining

EVENTUALLY = ("sagemaker", "cloudformation")
"""What may answer with what was before. S3 never does, nor the ledger's table, which is asked consistently."""
READS = ("Describe", "List", "Search", "Get")
FEW = 3
"""Scenes that are drawn where not all are played."""
ONCE = {"sagemaker:InvokeEndpoint"}
"""Made again when its message comes again, not at once: it may be that it only takes long (noria/aws/probes.py)."""
ASKED = "request_retraining"
LATE = 3.0
"""Seconds: longer than a call waits in these tests."""


@dataclass(frozen=True)
class Disturbance:
    """A fault at the `number`-th call; `lasts` to the end of the delivery."""

    number: int
    kind: Kind
    lasts: bool

    def told(self, calls: list[Call]) -> str:
        much = "from" if self.lasts else "once at"
        return f"{self.kind} {much} call {self.number} of {len(calls)}, {calls[self.number - 1].what}"


def disturbances(calls: list[Call]) -> list[Disturbance]:
    """All that can be done to a reaction which makes these calls."""
    return [
        Disturbance(number, kind, lasts)
        for number, call in enumerate(calls, start=1)
        for kind, lasts in (
            (Kind.THROTTLE, False),
            (Kind.SERVER_ERROR, False),
            (Kind.TIMEOUT, False),
            (Kind.THROTTLE, True),
            (Kind.SERVER_ERROR, True),
            (Kind.DENY, True),
            *([(Kind.STALE, True)] if call.service in EVENTUALLY and call.operation.startswith(READS) else []),
        )
    ]


@dataclass(frozen=True)
class Day(Stage):
    def undisturbed(self, scene: Scene) -> tuple[list[Call], State]:
        moment, world = self.before(scene)
        self.cloud.faults.set()
        endings = self._deliver(scene, moment)
        calls = self.calls(scene)
        assert set(endings) == {Ending.DONE}
        return calls, self.after(scene, moment, world)

    def disturbed(self, scene: Scene, disturbance: Disturbance) -> tuple[list[Ending], list[list[Call]], State]:
        """How the deliveries of the bad day ended, what each called, and what there is once it is over."""
        moment, world = self.before(scene)
        own = self.functions.function(scene.reaction)
        if disturbance.kind is Kind.STALE:
            self.cloud.faults.set(Fault(kind=Kind.STALE, caller=own, service="sagemaker", times=None))
            self._deliver(scene, moment)  # what it reads now, it reads again
        else:
            self.cloud.faults.set(
                Fault(
                    kind=disturbance.kind,
                    caller=own,
                    nth=disturbance.number,
                    times=None if disturbance.lasts else 1,
                    seconds=LATE,
                )
            )
        endings: list[Ending] = []
        calls: list[list[Call]] = []
        for message in moment.messages:
            endings.append(self.call(scene, moment, message))
            calls.append(self.calls(scene)[sum(map(len, calls)) :])
        self.cloud.faults.clear()
        if Ending.DONE not in endings or disturbance.lasts:
            assert set(self._deliver(scene, moment, again=True)) == {Ending.DONE}
        return endings, calls, self.after(scene, moment, world)

    def _deliver(self, scene: Scene, moment: Moment, *, again: bool = False) -> list[Ending]:
        """Each message once; of what is delivered from the dead letters, as late as it comes from there."""
        later = scene.hidden if again else 0 * scene.hidden
        return [self.call(scene, moment, message, later) for message in moment.messages]


@pytest.fixture(name="day")
def a_day(cloud: LocalCloud, functions: Lambda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Day]:
    """Functions with their own patience, but for how long they wait for an answer."""
    monkeypatch.setattr(retries, "PATIENCE", retries.PATIENCE.merge(Config(read_timeout=LATE / 2)))
    yield Day(cloud, functions)
    cloud.faults.clear()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "scene" in metafunc.fixturenames:
        every = metafunc.config.getoption("points") == "all"
        drawn = random.Random(metafunc.config.getoption("seed")).sample(SCENES, min(FEW, len(SCENES)))  # noqa: S311
        metafunc.parametrize("scene", SCENES if every else drawn, ids=lambda scene: scene.name)


def test_a_bad_day_ends_as_if_it_had_not_been(
    scene: Scene, day: Day, report: Report, pytestconfig: pytest.Config
) -> None:
    calls, expected = day.undisturbed(scene)
    tried = disturbances(calls)
    if (wanted := pytestconfig.getoption("points")) != "all":
        chosen = random.Random(f"{pytestconfig.getoption('seed')} {scene.name}")  # noqa: S311 - no secret
        tried = chosen.sample(tried, min(int(wanted), len(tried)))
    wrong = []
    for disturbance in tried:
        how = disturbance.told(calls)
        endings, seen, found = day.disturbed(scene, disturbance)
        # A look that was booked for later comes when it is due, which may be before the day is over.
        differs = [line for line in differences(expected, found) if "noria.schedule" not in line]
        call = calls[disturbance.number - 1]
        if not disturbance.lasts and call.what not in ONCE and set(endings) != {Ending.DONE}:
            differs = [f"a moment's fault was not mended by trying again: {endings}", *differs]
        differs += [
            f"{what} was tried {often} times, of at most {retries.TRIES}"
            for what, often in chain(*(_in_a_row(each, disturbance.kind).items() for each in seen))
            if often > retries.TRIES and disturbance.kind is not Kind.STALE
        ]
        report.add(scene.name, how, differs)
        wrong += [f"{how}: {line}" for line in differs]
    assert not wrong, "\n".join(wrong)


def test_a_page_that_is_throttled_is_sent_by_the_call_s_own_retries(day: Day) -> None:
    scene = next(each for each in SCENES if each.name == "validate_upload: a broken file")
    calls, expected = day.undisturbed(scene)
    number = next(number for number, call in enumerate(calls, start=1) if call.what == "sns:Publish")
    endings, seen, found = day.disturbed(scene, Disturbance(number, Kind.THROTTLE, lasts=False))
    assert [call.outcome for call in chain(*seen) if call.what == "sns:Publish"] == [Kind.THROTTLE, "200"]
    assert (endings, differences(expected, found)) == ([Ending.DONE], [])


def test_a_claim_of_which_the_caller_did_not_hear_is_the_caller_s_own(day: Day) -> None:
    scene = next(each for each in SCENES if each.name == "join_labels: a labels file")
    calls, expected = day.undisturbed(scene)
    number = next(number for number, call in enumerate(calls, start=1) if call.what == "dynamodb:PutItem")
    endings, _, found = day.disturbed(scene, Disturbance(number, Kind.TIMEOUT, lasts=False))
    assert (endings, differences(expected, found)) == ([Ending.DONE], [])


def test_other_files_that_are_accepted_meanwhile_disturb_no_word_that_data_wait(day: Day) -> None:
    place, functions = day.functions.place, day.functions
    spec = place.model(retrain={"after": ["drift"]})
    retraining.begin(place, spec, "january", "january")
    message = queued(retraining.accept(place, spec, "february"))
    # What it reads, it hears of later than the next file is accepted.
    day.cloud.faults.set(
        Fault(kind=Kind.TIMEOUT, caller=functions.function(ASKED), operation="Query", times=None, seconds=LATE / 6)
    )
    process = functions.begin(ASKED, message, model=spec.model)
    with ThreadPoolExecutor(max_workers=1) as pool:
        ending = pool.submit(functions.wait, process)
        while not ending.done():
            retraining.accept(place, spec, uuid.uuid4().hex, rows=1)
            time.sleep(LATE / 30)
    assert ending.result() is Ending.DONE
    (held,) = place.entries(spec.model, Entry.TRAINING_HELD)
    assert held.subject == "february"


def _in_a_row(calls: list[Call], kind: Kind) -> dict[str, int]:
    """Calls that met the fault, by how often the same one did without another between."""
    met = ((call.what, call.request) for call in calls if call.outcome == kind)
    found: dict[str, int] = {}
    for (what, _), same in groupby(met):
        found[what] = max(found.get(what, 0), len(list(same)))
    return found
