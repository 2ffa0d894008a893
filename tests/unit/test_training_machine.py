"""Whatever asks for a training, in whatever order it is heard, and wherever a function dies: the policy is kept.

A random history of uploads, alarms, labels, schedules and people, and of trainings that end well or badly, against AWS
in memory. Never two trainings at once, over budget, in quiet hours by itself, or in a dry run; each alarm is decided
on; a no that time ends is looked at again; and when all is quiet, nothing waits that could train.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

import lambdas.reconcile.handler as reconcile
from lambdas.record_training.handler import record_training
from lambdas.request_retraining.handler import Question, request_retraining, understand
from lambdas.start_training.handler import start_training
from noria.alarms import Severity
from noria.aws.bus import Bus
from noria.aws.endpoints import Endpoint
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.metrics import Measurements
from noria.aws.pages import Pages
from noria.aws.pipelines import Pipelines
from noria.aws.queues import Queues
from noria.aws.registry import Registry
from noria.aws.schedules import Schedules
from noria.aws.serving import ServingStack
from noria.aws.storage import Storage
from noria.aws.transforms import Transforms
from noria.events import (
    AlarmStateChange,
    DatasetAccepted,
    PipelineExecutionStatusChange,
    RetrainingRequested,
    RetrainingWanted,
    Tick,
    TrainingEnded,
    parse,
)
from noria.ledger import Entry, Fact, Kind, verify
from noria.retraining import data_asks, decide, unstarted
from noria.spec import ModelSpec, load
from noria.training import training_token, unfinished
from tests.unit.histories import History, live_through
from tests.unit.serving_world import ACCOUNT, GROUP, MODEL, REGION, STACK, Message
from tests.unit.training_world import BUCKET, End, TrainingWorld

SHIPPED = load(Path(__file__).parents[2] / "models" / "flight-delay.yaml").model_dump(mode="json")
ENDS = {Kind.TRAINING_SUCCEEDED, Kind.TRAINING_FAILED}
MONITORS = ("drift", "prediction-drift", "quality")

POLICIES: dict[str, dict[str, Any]] = {
    "alarms": {"after": ["drift", "quality"], "cooldown": "2h", "budget": "2 per day"},
    "uploads": {"after": ["upload"], "cooldown": "1h", "budget": "2 per day"},
    "hours": {"after": ["upload", "drift"], "cooldown": "5m", "budget": "9 per day", "hours": 0.3},
    "rows": {"after": [], "new_rows": 300, "min_new_rows": 150, "cooldown": "1h", "budget": "3 per week"},
    "days": {"after": ["upload", "quality"], "cooldown": "5m", "budget": "9 per day", "quiet": "09:00-17:30"},
    "nights": {"after": ["upload", "drift"], "cooldown": "5m", "budget": "9 per day", "quiet": "20:00-08:00"},
    "dry": {"after": ["upload", "drift", "quality"], "cooldown": "1h", "dry_run": True},
}


def spec(policy: str) -> ModelSpec:
    train = SHIPPED["train"] | {"timeout": "12m"}
    return ModelSpec.model_validate(SHIPPED | {"model": MODEL, "train": train, "retrain": POLICIES[policy]})


class Training:
    """The functions, wired to a world."""

    def __init__(self, world: TrainingWorld, model: ModelSpec, models: Path) -> None:
        self.world, self.spec = world, model
        self.aws = aws = world.client(world)
        self.ledger = Ledger(table="ledger", client=world.client(world.table))
        self.storage, self.pipelines = Storage(bucket=BUCKET, client=aws), Pipelines(client=aws)
        self.registry, self.bus = Registry(client=aws), Bus(name="bus", client=aws)
        self.schedules = Schedules(
            group="g", role_arn="r", queue_arn="request-retraining", dead_letters_arn="d", client=aws
        )
        self.env = Environment(
            env="local",
            data_bucket=BUCKET,
            event_bus="bus",
            pages_topic=f"arn:aws:sns:{REGION}:{ACCOUNT}:pages",
            notices_topic=f"arn:aws:sns:{REGION}:{ACCOUNT}:notices",
            ledger_table="ledger",
            models_dir=models,
        )

    def entries(self) -> list[Entry]:
        return Ledger(table="ledger", client=self.world.table).entries(MODEL)  # type: ignore[arg-type]

    def receive(self, message: Message) -> None:
        event = {"Records": [{"body": json.dumps(message.body)}]}
        match message.queue:
            case "request-retraining":
                said = parse(event, AlarmStateChange, DatasetAccepted, RetrainingWanted, TrainingEnded, Tick)
                question = understand(said, env=self.env, measurements=Measurements(client=self.aws))
                if isinstance(question, Question):
                    request_retraining(
                        asked=question.asked,
                        spec=question.spec,
                        ledger=self.ledger,
                        bus=self.bus,
                        schedules=self.schedules,
                        now=self.world.now,
                    )
                if isinstance(said, Tick):
                    self.world.looked.add((said.detail.alarm or said.detail_type, said.detail.time.isoformat()))
            case "start-training":
                start_training(
                    spec=self.spec,
                    granted=parse(event, RetrainingRequested).detail,
                    pipeline=GROUP,
                    storage=self.storage,
                    pipelines=self.pipelines,
                    registry=self.registry,
                    ledger=self.ledger,
                    now=self.world.now,
                )
            case "record-training":
                change = parse(event, PipelineExecutionStatusChange).detail
                record_training(
                    spec=self.spec,
                    execution=change.execution_arn,
                    status=change.status,
                    storage=self.storage,
                    pipelines=self.pipelines,
                    registry=self.registry,
                    ledger=self.ledger,
                    pages=Pages(topics={severity: severity.value for severity in Severity}, client=self.aws),
                    bus=self.bus,
                    now=self.world.now,
                )

    def reconcile(self) -> None:
        search = reconcile.Search(
            model=MODEL,
            env=self.env,
            entries=self.entries(),
            copied=range(10**6),
            given_back=None,
            held=False,
            storage=self.storage,
            pipelines=self.pipelines,
            transforms=Transforms(client=self.aws),
            registry=self.registry,
            stack=ServingStack(name=STACK, client=self.aws),
            endpoint=Endpoint(name=GROUP, client=self.aws),
            now=self.world.now,
        )
        room = reconcile.Room(queues=Queues(client=self.aws))
        reconcile.reconcile(search=search, ledger=self.ledger, room=room)


class TrainingMachine(History):
    calls = 10

    def __init__(self) -> None:
        super().__init__()
        self.world: TrainingWorld = TrainingWorld()
        self.folder = TemporaryDirectory()
        self.count = 0
        self.checked: list[Entry] = []
        self.functions: Training

    @initialize(policy=st.sampled_from(sorted(POLICIES)), hour=st.integers(0, 23))
    def begin(self, policy: str, hour: int) -> None:
        model = spec(policy)
        self.world.now = self.world.now.replace(hour=hour)
        (Path(self.folder.name) / f"{MODEL}.json").write_text(model.model_dump_json())
        self.functions = Training(self.world, model, Path(self.folder.name))

    def teardown(self) -> None:
        try:
            if hasattr(self, "functions"):
                self.settle()
                self.check_quiet()
        finally:
            self.folder.cleanup()

    def number(self) -> int:
        self.count += 1
        return self.count

    # --- what happens

    @rule(rows=st.sampled_from([50, 100, 200]), labels=st.booleans(), told=st.sampled_from(["first", "after", "lost"]))
    def data(self, rows: int, told: str, *, labels: bool) -> None:
        """Told before the ledger has it, as validate_upload does, or after; or nobody tells."""
        sha = f"{self.number():064x}"
        detail = self.world.accept(sha, rows=rows)
        if told == "first":
            self.world.say("request-retraining", "noria", "Dataset Accepted", detail)
            self.hear()
        self.record(
            Kind.DATASET_ACCEPTED, sha, rows=rows, key=detail["key"], **({"origin": "labels"} if labels else {})
        )
        if told == "after":
            self.world.say("request-retraining", "noria", "Dataset Accepted", detail)

    @rule(monitor=st.sampled_from(MONITORS))
    def alarm(self, monitor: str) -> None:
        self.world.raise_alarm(monitor)

    @rule()
    @precondition(lambda self: self.world.raised)
    def calm(self) -> None:
        self.world.raised.clear()

    @rule(breached=st.lists(st.sampled_from(MONITORS), unique=True), labels=st.booleans())
    def window(self, breached: list[str], *, labels: bool) -> None:
        kind = Kind.LABELS_JOINED if labels else Kind.MONITORED
        self.record(kind, f"window {self.number()}", breached=breached, not_enough=[])

    @rule()
    def schedule(self) -> None:
        detail = {"model": MODEL, "time": self.world.now.isoformat()}
        self.world.say("request-retraining", "noria.schedule", "Start Training", detail)

    @rule(force=st.booleans())
    def person(self, *, force: bool) -> None:
        detail = {"model": MODEL, "reason": "a test", "by": "ana", "force": force, "request": f"r{self.number()}"}
        detail["requested_at"] = self.world.now.isoformat()
        self.world.say("request-retraining", "noria", "Retraining Wanted", detail)

    @rule(end=st.sampled_from(get_args(End)), heard=st.booleans(), minutes=st.sampled_from([3, 6, 12]))
    @precondition(lambda self: self.world.running)
    def finish(self, end: End, minutes: int, *, heard: bool) -> None:
        self.world.finish(end, heard=heard, minutes=minutes)

    @rule(end=st.sampled_from(get_args(End)))
    @precondition(lambda self: self.world.running)
    def finish_and_hear(self, end: End) -> None:
        self.world.finish(end, heard=True)
        self.hear()

    @rule(minutes=st.sampled_from([1, 20, 60, 300]))
    def wait(self, minutes: int) -> None:
        self.world.pass_time(timedelta(minutes=minutes))

    @rule()
    def tend(self) -> None:
        self.functions.reconcile()

    @rule()
    @precondition(lambda self: self.world.messages)
    def hear(self) -> None:
        """All that is there is received, and all that comes of it, as on a good day."""
        while visible := [message for message in self.world.messages if message.visible <= self.world.now]:
            for message in visible:
                self.receive(message)

    @rule()
    @precondition(lambda self: self.world.schedules)
    def come(self) -> None:
        """What is booked next comes at its very second."""
        self.world.come()
        self.hear()

    def lose(self) -> None:
        """A grant goes to the dead letters."""
        self.world.messages = [message for message in self.world.messages if message.queue != "start-training"]

    @rule(end=st.sampled_from(get_args(End)), rows=st.sampled_from([100, 200]), minutes=st.sampled_from([5, 60]))
    @precondition(lambda self: self.world.running)
    def turn(self, end: End, rows: int, minutes: int) -> None:
        """A training ends, some time passes, and new data and an alarm come at once."""
        self.world.finish(end, heard=True)
        self.hear()
        self.world.pass_time(timedelta(minutes=minutes))
        self.alarm("drift")
        self.data(rows, "after", labels=False)
        self.hear()

    @rule(calls=st.sampled_from([1, 1, 2]), swapped=st.booleans(), lost=st.sampled_from([False, False, True]))
    def two_ask_at_once(self, calls: int, *, swapped: bool, lost: bool) -> None:
        """A person and an upload."""
        self.hear()
        self.data(200, "after", labels=False)
        self.person(force=True)
        first, second = self.world.messages[-2:][:: -1 if swapped else 1]
        self.at_once(first, second, calls)
        if lost:
            self.lose()

    def record(self, kind: Kind, subject: str, **details: Any) -> None:
        self.functions.ledger.record(
            Fact(model=MODEL, kind=kind, subject=subject, at=self.world.now, summary="It is said.", details=details)
        )

    # --- what holds at any time

    @invariant()
    def the_policy_is_kept(self) -> None:
        entries = self.functions.entries() if hasattr(self, "functions") else []
        if entries == self.checked:
            return
        assert verify(entries) == []
        assert len(unstarted(entries)) + len(unfinished(entries)) <= 1, "two are under way"
        for entry in entries[len(self.checked) :]:
            if entry.kind is Kind.RETRAINING_REQUESTED:
                self.check_grant(entry, entries[: entry.number - 1])
        self.checked = entries

    def check_grant(self, grant: Entry, before: Sequence[Entry]) -> None:
        policy, cause = self.functions.spec.retrain, grant.details["cause"]
        assert not policy.dry_run, "a dry run trains"
        if cause != "hand" and policy.quiet:
            assert not self.quiet(grant.at), "it begins by itself in quiet hours"
        ended = next((e.number for e in before if e.kind in ENDS), len(before) + 1)
        if (cause == "first" and ended > len(before)) or grant.details["forced"]:
            return
        since = grant.at - policy.budget.period
        granted = [e for e in before if e.kind is Kind.RETRAINING_REQUESTED]
        retrainings = [e for e in granted if e.details["cause"] != "first" or e.number > ended]
        assert sum(e.at > since for e in retrainings) < policy.budget.count, "over the budget of runs"
        if cause != "hand":
            assert all(e.at <= grant.at - policy.cooldown for e in retrainings), "it did not cool down"
        if policy.hours is not None:
            ran = [(entry, self.world.executions[entry.subject]) for entry in before if entry.kind in ENDS]
            spent = sum(execution.hours for entry, execution in ran if entry.at > since)
            whole = [execution.hours for _, execution in ran if execution.end != "failed"]
            assert spent + max(whole[-5:], default=0.2) <= policy.hours + 0.001, "over the budget of hours"

    def quiet(self, at: datetime) -> bool:
        quiet = self.functions.spec.retrain.quiet
        assert quiet
        minute = at.astimezone(UTC).time()
        if quiet.start < quiet.end:
            return quiet.start <= minute < quiet.end
        return minute >= quiet.start or minute < quiet.end

    # --- when all is quiet

    def settle(self) -> None:
        world, quiet = self.world, 0
        world.raised.clear()
        for _ in range(200):
            before = len(self.functions.entries())
            for message in [message for message in world.messages if message.visible <= world.now]:
                self.receive(message)
            if world.running:
                world.finish("succeeded", heard=True)
                continue
            if world.schedules and not world.messages:
                world.come()
            else:
                world.pass_time(timedelta(minutes=20))
            self.functions.reconcile()
            still = not world.messages and not world.schedules and len(self.functions.entries()) == before
            quiet = quiet + 1 if still else 0
            if quiet == 4:  # more than an hour: what the reconciler tells again, it tells once an hour
                return
        pytest.fail("it never comes to rest")

    def check_quiet(self) -> None:
        world, entries, model = self.world, self.functions.entries(), self.functions.spec
        self.the_policy_is_kept()
        decided = {Kind.RETRAINING_REQUESTED, Kind.RETRAINING_DECLINED, Kind.TRAINING_HELD}
        decisions = [entry for entry in entries if entry.kind in decided]
        assert len({entry.subject for entry in decisions}) == len(decisions), "decided on twice"
        assert set(world.transitions) <= {entry.subject for entry in decisions}, "an alarm without a decision"
        assert unstarted(entries) == [], "a granted training did not begin"
        assert unfinished(entries) == [], "a training without an end"
        granted = [entry.subject for entry in entries if entry.kind is Kind.RETRAINING_REQUESTED]
        assert len(world.executions) == len(granted), "not one training for each grant"
        assert {e.token for e in world.executions.values()} == {training_token(MODEL, request) for request in granted}
        seen = {times for _, times in world.looked}
        booked = {entry.details["again_at"] for entry in decisions} - {None}
        assert booked <= seen, "a no that time ends was not looked at again"
        if ask := data_asks(model, entries):
            decision = decide(model, entries, ask, now=world.now)
            assert not decision.retrain, f"data wait that could train: {decision.sentence}"


def test_whatever_happens_the_policy_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    live_through(TrainingMachine, monkeypatch, histories=60, steps=30)
