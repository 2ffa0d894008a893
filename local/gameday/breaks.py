"""The breaks of a game day: what is done to the cloud, who must notice it, and what must make it well again.

Each is a function of the day and of its score, which it fills in. What it changes it puts back.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.demo.control import Control
from local.demo.faults import Fault as BadVersion
from local.demo.packages import register
from local.demo.scenes import Play
from local.demo.story import Unexpected
from local.demo.traffic import steady
from local.demo.world import World
from local.faults import Fault
from local.faults import Kind as Goes
from local.gameday.flood import ROWS, Flood
from local.gameday.score import Score
from noria.ledger import Kind
from noria.retraining import ENDS

FLOOD = 60
"""Uploads of a flood that is one break among others; `make flood` sends ten thousand."""
DYING = 30.0
"""Seconds for which a model server dies again and again, at most."""


@dataclass
class Day:
    """A deployed cloud with a live model, and what is on its way there."""

    play: Play
    control: Control
    lines: list[str]
    uploads: int = 0

    @property
    def world(self) -> World:
        return self.play.world

    def upload(self, *, broken: bool = False) -> str:
        """A file of new rows; returns its key."""
        self.uploads += 1
        start = len(self.lines) - ROWS * self.uploads  # from the end: a flood takes those from the beginning
        header = self.lines[0] + ("_renamed" if broken else "")
        body = "\n".join([header, *self.lines[start : start + ROWS]]) + "\n"
        return self.world.upload(f"gameday-{self.uploads}.csv", body.encode())

    def page(self, *words: str, after: int) -> str:
        """The first page past number `after` that has all of these words; its headline."""

        def found() -> str | None:
            pages = self.play.pager.pages()[after:]
            return next((page for page in pages if all(word in page for word in words)), None)

        return headline(str(self.world.wait_until(f"page that says {' and '.join(words)}", found)))

    def pages(self) -> int:
        return len(self.play.pager.pages())

    def dead_letters(self) -> int:
        sqs = self.world.client("sqs")
        url = sqs.get_queue_url(QueueName=self.world.names.dead_letters)["QueueUrl"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
        return int(found["ApproximateNumberOfMessages"])

    def accepted(self, key: str, *, after: int, patience: float = 120.0) -> None:
        """Until an upload has become a dataset."""
        self.world.wait_for(
            Kind.DATASET_ACCEPTED, after=after, where=lambda entry: entry.details["key"] == key, patience=patience
        )

    @contextmanager
    def faults(self, *faults: Fault) -> Iterator[None]:
        self.world.cloud.faults.set(*faults)
        try:
            yield
        finally:
            self.world.cloud.faults.clear()

    def redrive(self, reaction: str) -> str:
        """As the runbook says; returns the command."""
        self.world.noria("redrive", reaction)
        return f"noria redrive {reaction}"

    def running(self) -> str:
        """A training that a person asked for and that has begun; its execution's ARN."""
        world, mark = self.world, self.world.last_entry()
        world.noria("retrain", world.model, "--reason", "game day", "--force")
        started = world.wait_for(Kind.TRAINING_STARTED, after=mark)
        return str(started.details["execution"])


def headline(page: str) -> str:
    """What a phone shows of a page: an alarm's name, or the subject."""
    subject, _, text = page.partition("\n")
    with suppress(ValueError):
        alarm = json.loads(text)
        return f"alarm {alarm['AlarmName']}"
    return subject


def poisoned_upload(day: Day, score: Score) -> None:
    """A file that breaks the contract is uploaded; its sender mends it."""
    mark, pages = day.world.last_entry(), day.pages()
    score.begin()
    key = day.upload(broken=True)
    score.was_detected(day.page(key.rpartition("/")[2], after=pages))
    day.world.wait_for(Kind.DATASET_QUARANTINED, after=mark)
    score.begin()
    day.accepted(day.upload(), after=mark)
    score.was_recovered("the mended file is accepted")


def denied_call(day: Day, score: Score) -> None:
    """Somebody takes a permission away: validate-upload may write no object."""
    denied = Fault(kind=Goes.DENY, caller="*validate-upload*", service="s3", operation="PutObject", times=None)
    _dead_letter(day, score, denied)


def throttled_table(day: Day, score: Score) -> None:
    """The ledger's table is throttled for longer than all retries take."""
    throttled = Fault(kind=Goes.THROTTLE, caller="*validate-upload*", service="dynamodb", times=None)
    _dead_letter(day, score, throttled)


def _dead_letter(day: Day, score: Score, fault: Fault) -> None:
    """An upload meets a fault that no retry mends: somebody is to be told as soon as the last of them has failed."""
    mark, pages = day.world.last_entry(), day.pages()
    with day.faults(fault):
        key = day.upload()
        day.world.wait_until("dead letter", day.dead_letters, patience=240)
        score.begin()
        score.was_detected(day.page("dead-letters", after=pages))
    score.begin()
    command = day.redrive("validate-upload")
    day.accepted(key, after=mark)
    score.was_recovered(command)


def brief_throttling(day: Day, score: Score) -> None:
    """The ledger's table is throttled for one call: its own retry mends it."""
    mark = day.world.last_entry()
    with day.faults(Fault(kind=Goes.THROTTLE, caller="*validate-upload*", service="dynamodb")):
        score.begin()
        day.accepted(day.upload(), after=mark)
    score.was_recovered("by itself: the call is made again")


def killed_function(day: Day, score: Score) -> None:
    """A function is killed between two of its calls; the queue shows its message again."""
    mark = day.world.last_entry()
    killed = Fault(kind=Goes.KILL_BEFORE, caller="*request-retraining*", service="dynamodb", operation="TransactWrite*")
    with day.faults(killed):
        score.begin()
        key = day.upload()
        day.accepted(key, after=mark)
        day.world.wait_until(
            "killed function", lambda: any(c.outcome == Goes.KILL_BEFORE for c in day.world.cloud.faults.calls())
        )
        score.begin()
        day.world.wait_for(Kind.TRAINING_HELD, after=mark)
    score.was_recovered("by itself: its message comes again")


def stopped_pipeline(day: Day, score: Score) -> None:
    """Somebody stops a training by hand. It is told, and not begun again until somebody asks."""
    world, pages = day.world, day.pages()
    execution = day.running()
    mark = world.last_entry()
    score.begin()
    world.sagemaker.stop_pipeline_execution(PipelineExecutionArn=execution, ClientRequestToken="game-day-" * 4)
    score.was_detected(day.page(world.model, "training stopped", after=pages))
    world.wait_for(Kind.TRAINING_FAILED, after=mark, where=lambda entry: entry.subject == execution)
    begun = [entry.summary for entry in world.entries() if entry.number > mark and entry.kind is Kind.TRAINING_STARTED]
    if begun:
        raise Unexpected(f"what a person stopped was begun again by itself: {begun}")
    score.begin()
    again = day.running()
    ended = world.wait_for(*ENDS, after=mark, where=lambda entry: entry.subject == again, patience=240)
    if ended.kind is Kind.TRAINING_FAILED and not ended.details["refused"]:  # its gates may say no: that is an end, too
        raise Unexpected(f"the training that was asked for next did not reach its gates: {ended.summary}")
    score.was_recovered(f"noria retrain {world.model}")


def unheard_event(day: Day, score: Score) -> None:
    """SageMaker's event of a training's end reaches nobody: the rule is off.

    The reconciler finds it, after fifteen minutes at the earliest; who is in a hurry has it replayed.
    """
    world = day.world
    rule = {"Name": f"{world.names.queue('record-training')}-executions"}
    events = world.client("events")
    execution = day.running()
    mark = world.last_entry()
    events.disable_rule(**rule)
    try:
        began = time.time()
        world.sagemaker.stop_pipeline_execution(PipelineExecutionArn=execution, ClientRequestToken="game-day-" * 4)
        world.wait_until("end that nobody hears of", lambda: _status(world, execution) == "Stopped")
    finally:
        events.enable_rule(**rule)
    score.begin()
    since = f"{max(1, int(time.time() - began) // 60 + 1)}m"
    world.noria("replay", "--since", since, "--rule", "record-training")
    world.wait_for(Kind.TRAINING_FAILED, after=mark, where=lambda entry: entry.subject == execution)
    score.was_recovered(f"noria replay --since {since} --rule record-training")


def _status(world: World, execution: str) -> str:
    described: Mapping[str, Any] = world.sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
    return str(described["PipelineExecutionStatus"])


def dying_server(day: Day, score: Score) -> None:
    """The live version's server dies again and again, in front of its callers."""
    world, pages = day.world, day.pages()
    rows = [day.play.instance(row) for row in day.play.sample(1)]
    with steady(world, rows, "a server that dies"):
        score.begin()
        deadline = time.monotonic() + DYING
        said: str | None = None
        while said is None and time.monotonic() < deadline:
            for process in _servers(world):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.2)
            fresh = day.play.pager.pages()[pages:]
            said = next((page for page in fresh if f"{world.endpoint}-serving" in headline(page)), None)
        if said is not None:
            score.was_detected(headline(said))
        score.begin()
        world.wait_until("alarm that is over", lambda: not _raised(world, "serving"))
        score.was_recovered("by itself: the server starts again")


def _servers(world: World) -> list[int]:
    """Processes of the endpoint's model servers, of this cloud."""
    place = str(world.cloud.root / "endpoints" / world.endpoint)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if "--socket" in (process / "cmdline").read_text() and place in (process / "environ").read_text():
                found.append(int(process.name))
    return found


def _raised(world: World, alarm: str) -> bool:
    """Whether a composite alarm of the model speaks."""
    found = world.client("cloudwatch").describe_alarms(
        AlarmNames=[f"{world.endpoint}-{alarm}"], AlarmTypes=["CompositeAlarm"]
    )["CompositeAlarms"]
    return any(each["StateValue"] == "ALARM" for each in found)


def bad_version(day: Day, score: Score) -> None:
    """A version that fails on the flights of one carrier is approved; its canary's alarm takes it back."""
    world, pages = day.world, day.pages()
    candidate = register(world, day.play.live, BadVersion.FAILS)
    mark = world.last_entry()
    rows = [day.play.instance(row) for row in day.play.sample(1)]
    with steady(world, rows, "a bad version"):
        score.begin()
        world.noria("approve", candidate, "--reason", "game day")
        world.wait_for(Kind.ROLLED_BACK, after=mark, never=[Kind.DEPLOYED])
        score.was_detected(day.page(candidate.rpartition(":")[2], after=pages))
        score.begin()
        world.wait_until(
            "stack that says what is live",
            lambda: world.serving_parameters()["ModelPackageArn"] == day.play.live,
        )
    score.was_recovered("by itself: the canary is rolled back")


def flood(day: Day, score: Score) -> None:
    """Uploads come by the dozen, most of them of one model, some broken."""
    sent = Flood(loud=day.world, quiet=day.control.world, lines=day.lines, uploads=FLOOD)
    score.begin()
    sent.send()
    outcome = sent.outcome(patience=180, progress=day.world.story.waiting_for)
    score.lost = outcome.problems
    score.was_recovered(outcome.text)


Break = Callable[[Day, Score], None]

BREAKS: Mapping[str, tuple[Break, bool]] = {
    "a poisoned upload": (poisoned_upload, False),
    "a denied call": (denied_call, False),
    "a table throttled for an hour": (throttled_table, False),
    "a table throttled for a moment": (brief_throttling, True),
    "a killed function": (killed_function, True),
    "a pipeline stopped by hand": (stopped_pipeline, False),
    "an event that nobody heard": (unheard_event, True),
    "a server that dies": (dying_server, False),
    "a bad version": (bad_version, False),
    "a flood of uploads": (flood, True),
}
"""Each break, and whether it is mended before anybody need hear of it."""
