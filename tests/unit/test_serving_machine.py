"""Whatever is decided, in whatever order it is heard, and wherever a function dies: what answers is what was decided.

A random history of approvals, rejections, rollbacks, A/Bs, shadows, alarms, retirements and deployments that end well,
badly or with a lie, against AWS in memory. When all is quiet: every deployment has ended, the ledger and the stack say
what answers, and nothing answers that was decided against, nor in mode strict what nobody approved by the rule.
"""

import json
from dataclasses import replace
from datetime import timedelta
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
from lambdas.confirm_deployment.handler import confirm_deployment
from lambdas.deploy_model.handler import deploy_model
from noria import approval
from noria.alarms import Severity
from noria.aws.approvals import Approvals
from noria.aws.bus import Bus
from noria.aws.endpoints import Endpoint
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.metrics import Measurements
from noria.aws.pages import Pages
from noria.aws.pipelines import Pipelines
from noria.aws.queues import Queues
from noria.aws.registry import Registry
from noria.aws.rollout import Rollout
from noria.aws.schedules import Schedules
from noria.aws.serving import ServingStack
from noria.aws.storage import Storage
from noria.aws.transforms import Transforms
from noria.decisions import NEED_NOT_COME, NEED_NOT_GO
from noria.deployment import (
    BY_HOURS,
    SETTLED,
    WAY_BACK,
    Cause,
    Desired,
    Request,
    asked_for,
    by_hours,
    live,
    predecessors,
    rollback_of,
    turned_off,
    under_way,
    unsettled,
)
from noria.events import (
    AlarmStateChange,
    EndpointStateChange,
    ModelPackageStateChange,
    ServingRequested,
    StackStatusChange,
    Tick,
    parse,
)
from noria.hours import Hours
from noria.ledger import Entry, Fact, Kind, latest, verify
from noria.spec import ModelSpec, load
from tests.unit.histories import History, live_through
from tests.unit.serving_world import ACCOUNT, GROUP, MODEL, NAMES, REGION, STACK, Ending, Message, World

SHIPPED = load(Path(__file__).parents[2] / "models" / "flight-delay.yaml").model_dump(mode="json")


def newest(entries: list[Entry], kind: Kind) -> Entry:
    found = latest(entries, kind)
    assert found
    return found


DAY = timedelta(days=1)
HOURS = Hours.model_validate({"days": "MON-SUN", "from": "06:00", "to": "18:00"})


def spec(strategy: str, mode: str, *, hours: bool = False) -> ModelSpec:
    serve = SHIPPED["serve"] | {"strategy": strategy, "weights": [5, 25], "bake": "10m"}
    serve |= {"hours": HOURS.model_dump()} if hours else {}
    return ModelSpec.model_validate(SHIPPED | {"model": MODEL, "serve": serve, "approval": {"mode": mode}})


class Serving:
    """The functions, wired to a world."""

    def __init__(self, world: World, model: ModelSpec) -> None:
        self.world, self.spec = world, model
        self.aws = aws = world.client(world)
        self.ledger = Ledger(table="ledger", client=world.client(world.table))
        self.rollout = Rollout(
            spec=model,
            names=NAMES,
            stack=ServingStack(name=STACK, client=aws),
            ledger=self.ledger,
            approvals=Approvals(registry=Registry(client=aws), storage=Storage(bucket="b", client=aws)),
            pages=Pages(topics={severity: severity.value for severity in Severity}, client=aws),
            queues=Queues(client=aws),
        )
        self.registry = Registry(client=aws)
        self.endpoint = Endpoint(name=GROUP, client=aws)
        self.bus = Bus(name="bus", client=aws)
        self.schedules = Schedules(group="g", role_arn="r", queue_arn="deploy-model", dead_letters_arn="d", client=aws)
        self.measurements = Measurements(client=aws)
        self.storage, self.pipelines = Storage(bucket="b", client=aws), Pipelines(client=aws)

    def entries(self) -> list[Entry]:
        return Ledger(table="ledger", client=self.world.table).entries(MODEL)  # type: ignore[arg-type]

    def receive(self, message: Message) -> None:
        event = {"Records": [{"body": json.dumps(message.body)}]}
        now = self.world.now
        if message.queue == "deploy-model":
            deploy_model(
                trigger=parse(
                    event, ModelPackageStateChange, ServingRequested, AlarmStateChange, Tick, StackStatusChange
                ),
                spec=self.spec,
                rollout=self.rollout,
                measurements=self.measurements,
                bus=self.bus,
                now=now,
            )
        else:
            parse(event, EndpointStateChange, StackStatusChange, Tick)
            confirm_deployment(
                spec=self.spec,
                rollout=self.rollout,
                endpoint=self.endpoint,
                registry=self.registry,
                bus=self.bus,
                schedules=self.schedules,
                now=now,
            )

    def reconcile(self, models: Path) -> None:
        env = Environment(
            env="local",
            data_bucket="b",
            event_bus="bus",
            pages_topic=f"arn:aws:sns:{REGION}:{ACCOUNT}:pages",
            notices_topic=f"arn:aws:sns:{REGION}:{ACCOUNT}:notices",
            ledger_table="ledger",
            models_dir=models,
        )
        search = reconcile.Search(
            model=MODEL,
            env=env,
            entries=self.entries(),
            copied=range(10**6),
            given_back=None,
            held=False,
            storage=self.storage,
            pipelines=self.pipelines,
            transforms=Transforms(client=self.aws),
            registry=self.registry,
            stack=self.rollout.stack,
            endpoint=self.endpoint,
            now=self.world.now,
        )
        room = reconcile.Room(queues=self.rollout.queues)
        reconcile.reconcile(search=search, ledger=self.ledger, room=room)


class ServingMachine(History):
    calls = 25

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.folder = TemporaryDirectory()
        self.requests = 0
        self.checked: list[Entry] = []
        self.functions: Serving

    @initialize(
        strategy=st.sampled_from(["canary", "progressive"]),
        mode=st.sampled_from(["open", "open", "strict"]),
        answering=st.sampled_from([True, True, False]),
        hours=st.booleans(),
    )
    def begin(self, strategy: str, mode: str, *, answering: bool, hours: bool = False) -> None:
        self.functions = Serving(self.world, spec(strategy, mode, hours=hours))
        (Path(self.folder.name) / f"{MODEL}.json").write_text(self.functions.spec.model_dump_json())
        self.world.before_update = self.check_update
        for _ in range(2):
            self.world.register()
        first = next(iter(self.world.packages))
        self.approved_by_rule(first)
        self.world.decide(first, "Approved", heard=True)
        if answering:
            self.settle()

    def teardown(self) -> None:
        try:
            if hasattr(self, "functions"):
                self.settle()
                self.check_quiet()
                if self.hours:
                    self.settle(within=True)
                    self.check_quiet()
        finally:
            self.folder.cleanup()

    # --- what happens

    @rule()
    @precondition(lambda self: len(self.world.packages) < 5)
    def register(self) -> None:
        self.world.register()

    @rule(
        data=st.data(),
        decision=st.sampled_from(["Approved", "Approved", "Rejected", "PendingManualApproval"]),
        by_rule=st.sampled_from([True, True, False]),
        heard=st.booleans(),
    )
    def decide(self, data: st.DataObject, decision: Any, *, by_rule: bool, heard: bool) -> None:
        package = data.draw(st.sampled_from(sorted(self.world.packages)))
        if decision == "Approved" and by_rule:
            self.approved_by_rule(package)
        self.world.decide(package, decision, heard=heard)

    def approved_by_rule(self, package: str) -> None:
        """What approve_package records before it sets a package to Approved: no word on a file that was replaced."""
        functions = self.functions
        candidate = functions.rollout.approvals.candidate(functions.registry.describe(package))
        if approval.replaced(functions.entries(), candidate):
            return
        content = self.content(package)
        details = {"package": package, "approver": "arn:aws:iam::123456789012:user/ben", "content": content}
        self.say(Kind.APPROVAL_GIVEN, f"{package}#ben#{content}#{len(self.functions.entries())}", details)

    def content(self, package: str) -> str:
        return approval.content(self.world.packages[package], self.world.etags(package))

    @rule(data=st.data(), etag=st.sampled_from(["forged", "forged", "trained"]))
    def replace(self, data: st.DataObject, etag: str) -> None:
        self.world.replace(data.draw(st.sampled_from(sorted(self.world.packages))), etag)

    @rule(
        data=st.data(),
        action=st.sampled_from(["traffic", "traffic", "shadow", "promote", "abandon", "rollback", "retire"]),
        share=st.sampled_from([10, 10, 50, 0]),
    )
    def ask(self, data: st.DataObject, action: str, share: int) -> None:
        named = action in {"traffic", "shadow"} or data.draw(st.booleans())
        package = data.draw(st.sampled_from(sorted(self.world.packages, reverse=True))) if named else None
        self.requests += 1
        self.world.ask(action=action, package=package, percent=share, request=f"r{self.requests}")

    @rule()
    @precondition(lambda self: self.world.live.challenger is not None)
    def alarm(self) -> None:
        self.world.alarm()

    @rule(data=st.data())
    @precondition(lambda self: self.world.live.challenger is not None)
    def alarm_while_a_change_waits(self, data: st.DataObject) -> None:
        """Another challenger is asked for and heard of; before it can begin, the old one's alarm is raised."""
        if self.world.operation is None:
            self.world.redeploy()
        package = data.draw(st.sampled_from(sorted(self.world.packages, reverse=True)))
        self.requests += 1
        self.world.ask(action="traffic", package=package, percent=10, request=f"r{self.requests}")
        self.receive(self.world.messages[-1], dies_after=data.draw(st.one_of(st.none(), st.integers(1, 30))))
        self.world.alarm()
        self.receive(self.world.messages[-1])

    @rule(wrong=st.sampled_from([0, 0, 1]))
    @precondition(lambda self: self.world.live.challenger is not None)
    def probe(self, wrong: int) -> None:
        live = self.world.live
        details = {"package": live.challenger, "variant": "challenger", "wrong": wrong, "shift": None}
        self.say(Kind.PROBED, f"{self.world.live_config}#challenger#{len(self.functions.entries())}", details)
        if wrong:
            self.world.suspects.add(live.challenger or "nobody")

    @rule(verdict=st.sampled_from(["promote", "promote", "abandon"]))
    @precondition(lambda self: self.world.live.challenger is not None)
    def judge(self, verdict: str) -> None:
        live = self.world.live
        details = {"verdict": verdict, "rival": live.challenger, "champion": live.package}
        self.say(Kind.EXPERIMENT_JUDGED, f"{live.challenger}#{len(self.functions.entries())}", details)
        if verdict == "abandon":
            self.world.suspects.add(live.challenger or "nobody")

    def say(self, kind: Kind, subject: str, details: dict[str, Any]) -> None:
        self.functions.ledger.record(
            Fact(model=MODEL, kind=kind, subject=subject, at=self.world.now, summary="It is said.", details=details)
        )

    @rule(ending=st.sampled_from(["success", "success", *get_args(Ending)]), heard=st.booleans())
    @precondition(lambda self: self.world.operation is not None)
    def finish(self, ending: Ending, *, heard: bool) -> None:
        self.world.finish(ending, heard=heard)

    @rule()
    @precondition(lambda self: self.world.operation is None and self.world.live_config is not None)
    def redeploy(self) -> None:
        self.world.redeploy()

    @rule(data=st.data())
    @precondition(lambda self: self.world.operation is None and self.world.live_config is not None)
    def meddle(self, data: st.DataObject) -> None:
        self.world.meddle(data.draw(st.sampled_from(sorted(self.world.packages))))

    @rule(minutes=st.sampled_from([1, 7, 20]))
    def wait(self, minutes: int) -> None:
        self.world.pass_time(timedelta(minutes=minutes))

    @property
    def hours(self) -> Hours | None:
        return self.functions.spec.serve.hours

    @rule(late=st.sampled_from([-1, 0, 1, 40]))
    @precondition(lambda self: hasattr(self, "functions") and self.hours)
    def wait_until_hours_turn(self, late: int) -> None:
        turn = min((at - self.of_day) % DAY for at in (HOURS.start, HOURS.end))
        self.world.pass_time(max(timedelta(), turn + timedelta(minutes=late)))

    @property
    def of_day(self) -> timedelta:
        now = self.world.now
        return now - now.replace(hour=0, minute=0, second=0, microsecond=0)

    @rule()
    @precondition(lambda self: hasattr(self, "functions") and self.hours)
    def clock(self) -> None:
        """A schedule's event, which comes when it comes."""
        self.world.put(
            "deploy-model", "noria.schedule", "Keep Hours", {"model": MODEL, "time": self.world.now.isoformat()}
        )

    @rule()
    def tend(self) -> None:
        self.functions.reconcile(Path(self.folder.name))

    @rule()
    @precondition(lambda self: self.world.messages)
    def hear(self) -> None:
        """All that is there is received, as on a good day."""
        for message in [message for message in self.world.messages if message.visible <= self.world.now]:
            self.receive(message)

    @rule(ending=st.sampled_from(get_args(Ending)))
    @precondition(lambda self: self.world.operation is not None)
    def finish_and_hear(self, ending: Ending) -> None:
        self.world.finish(ending, heard=True)
        self.hear()

    # --- what holds at any time

    def check_update(self, desired: Desired) -> None:
        """Nothing begins to answer that was decided against, nor in the place of what the ledger does not know."""
        entries, now = self.functions.entries(), self.world.live
        assert (live(entries) or Desired(package=None)) == now, "what another hand did is replaced unsaid"
        cause = (by_hours(entries) or Request.of(newest(entries, Kind.DEPLOYMENT_REQUESTED))).cause
        back = desired == now or cause in WAY_BACK
        for package in desired.packages - (now.packages if back else set()):
            words = [entry for entry in entries if entry.details.get("package") == package]
            approved = latest(words, Kind.PACKAGE_APPROVED)
            if approved:
                assert approved.details["content"] == self.content(package), f"{package} is not what was approved"
            else:
                assert self.world.etags(package).popitem()[1] == "trained", f"{package} is not what was registered"
        for package in desired.packages - {desired.shadow, now.package, now.challenger}:
            assert rollback_of(entries, package) is None, f"{package} was rolled back"
            words = [entry for entry in entries if entry.details.get("package") == package]
            word = latest(words, Kind.PACKAGE_APPROVED, Kind.PACKAGE_REJECTED, Kind.APPROVAL_VOIDED)
            assert word is None or word.kind is Kind.PACKAGE_APPROVED, f"{package} was decided against"
            if self.functions.spec.approval.strict:
                assert latest(words, Kind.APPROVAL_GIVEN), f"nobody approved {package} by the rule"
        if desired.package is None and now.package:
            assert cause in {Cause.RETIRED, Cause.OFF}, "the endpoint would go"
        if self.hours:
            within = self.hours.include(self.world.now)
            assert desired == now or not (within and cause is Cause.OFF), "the endpoint would go within its hours"
            assert within or not desired.package or now.package, "an endpoint would come outside of its hours"

    @invariant()
    def the_ledger_holds_and_says_each_end_once(self) -> None:
        entries = self.functions.entries() if hasattr(self, "functions") else []
        if entries == self.checked:
            return
        assert verify(entries) == []
        ended = [entry.subject for entry in entries if entry.kind in SETTLED]
        assert len(ended) == len(set(ended))
        back = [entry for entry in entries if entry.kind is Kind.ROLLED_BACK and entry.details["cause"] in WAY_BACK]
        assert all(entry.details["blamed"] is None for entry in back), "the way back bars a good version"
        blamed = {entry.details["blamed"] for entry in entries if entry.kind is Kind.ROLLED_BACK} - {None}
        assert blamed <= self.world.alarming, "a version is barred though no alarm spoke against it"
        barred = {entry.subject for entry in entries if entry.kind is Kind.CHALLENGER_ROLLED_BACK}
        assert barred <= self.world.suspects, "an alarm of another bars it"
        for entry in entries[len(self.checked) :]:
            if entry.kind is Kind.DEPLOYMENT_REQUESTED and str(entry.details["decision"]).startswith("advance "):
                self.check_step(entry, entries[: entry.number - 1])
        self.checked = entries

    def check_step(self, step: Entry, before: list[Entry]) -> None:
        """Who goes on by itself is approved and was probed, and nothing that the last probe found speaks against it."""
        if step.details["cause"] not in {"progressive", "promote"}:
            return
        package = step.details["challenger" if step.details["cause"] == "progressive" else "package"]
        probes = [e for e in before if e.kind is Kind.PROBED and e.details["package"] == package]
        assert probes, "a step goes on without a proof"
        assert not probes[-1].details["wrong"], "a step goes on against its proof"
        words = [entry for entry in before if entry.details.get("package") == package]
        word = latest(words, Kind.PACKAGE_APPROVED, Kind.APPROVAL_VOIDED)
        assert word is None or word.kind is Kind.PACKAGE_APPROVED, "a step goes on without its approval"

    # --- when all is quiet

    def settle(self, *, within: bool = False) -> None:
        """Until nothing happens any more; `within` the model's hours, from their beginning on."""
        world, quiet = self.world, 0
        if within:
            world.pass_time((HOURS.start - self.of_day) % DAY + timedelta(minutes=1))
        for _ in range(80):
            before = len(self.functions.entries())
            for message in [message for message in world.messages if message.visible <= world.now]:
                self.receive(message)
            if world.operation:
                world.finish("success", heard=False)
                continue
            world.pass_time(timedelta(minutes=20))
            self.functions.reconcile(Path(self.folder.name))
            still = not world.messages and not world.schedules and len(self.functions.entries()) == before
            if self.hours:  # who missed their turn is told a while later
                still &= self.hours.include(world.now) == self.hours.include(world.now - timedelta(minutes=20))
            quiet = quiet + 1 if still else 0
            if quiet == 4:
                return
        pytest.fail("it never comes to rest")

    def check_quiet(self) -> None:
        world, entries = self.world, self.functions.entries()
        off = self.hours and not self.hours.include(world.now)
        waiting = [request for request in unsettled(entries) if request.cause in BY_HOURS or not off]
        assert waiting == [], "a deployment has not ended"
        assert (live(entries) or Desired(package=None)) == world.live, (
            "the ledger says something else than what answers"
        )
        assert world.desired(world.parameters) == world.live, "the stack says something else than what answers"
        if world.live_config != world.stack_config:
            assert entries[-1].kind is Kind.SERVING_DIFFERS or any(e.kind is Kind.SERVING_DIFFERS for e in entries)
        ended = [entry for entry in entries if entry.kind in SETTLED - {Kind.DEPLOYMENT_SUPERSEDED}]
        if ended and ended[-1].kind is not Kind.DEPLOYED:
            self.check_pages(entries)
            return  # AWS refused the last change, and a person knows: what should have gone may still be there
        if self.hours and not self.hours.include(world.now):
            assert world.live.package is None, "it answers outside of its hours"
        elif gone := turned_off(entries):
            since = entries[gone.number :]
            refused = [e for e in since if e.kind is Kind.DEPLOYMENT_SUPERSEDED and "will not go live" in e.summary]
            assert refused, "it does not answer in its hours, and nobody knows why"
        if self.functions.spec.approval.strict:
            for known, described in world.packages.items():
                given = approval.given(entries, known, approval.TAKEN_BACK)
                assert given or described["ModelApprovalStatus"] != "Approved", "another hand's approval is left"
        for package in (world.live.challenger, world.live.shadow):
            if package:
                assert world.packages[package]["ModelApprovalStatus"] != "Rejected", "a rejected package is left"
        if world.live.challenger:
            assert rollback_of(entries, world.live.challenger) is None, "a challenger that was rolled back is left"
            step = asked_for(entries)[-1]
            if step.cause is Cause.PROGRESSIVE:
                told = [entry.subject for entry in entries if entry.kind is Kind.DEPLOYMENT_REFUSED]
                assert f"advance {step.id}" in told, "a step stays for ever, and nobody knows"
        self.check_pages(entries)

    def check_pages(self, entries: list[Entry]) -> None:
        """Everything that a person must know was paged, and hardly anything twice."""
        paged = {
            Kind.ROLLED_BACK: "was rolled back\n",
            Kind.DEPLOYMENT_FAILED: "could not be deployed\n",
            Kind.CHALLENGER_ROLLED_BACK: "was rolled back as challenger\n",
            Kind.DEPLOYMENT_REFUSED: "is refused\n",
            Kind.APPROVAL_VOIDED: "does not hold\n",
            Kind.DEPLOYMENT_SUPERSEDED: "will not go live\n",
        }
        for kind, words in paged.items():
            told = sum(words in page for page in self.world.pages)
            hourly = (NEED_NOT_COME, NEED_NOT_GO, "Nothing answers")
            untold = [e for e in entries if e.kind is kind and e.summary.startswith(hourly)]
            assert told + len(untold) >= sum(entry.kind is kind for entry in entries), f"{kind} was not paged"
        silent = {e.summary for e in entries if e.summary.startswith("Nothing answers: ")}
        assert all(any(summary in page for page in self.world.pages) for summary in silent), "nobody knows"


def test_in_mode_strict_a_request_approves_nothing_and_one_for_what_waits_again_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    machine = ServingMachine()
    machine.begin("canary", "strict", answering=True)
    world, (one, two) = machine.world, machine.world.packages
    machine.approved_by_rule(two)
    world.packages[two]["ModelApprovalStatus"] = "Approved"
    world.redeploy()
    world.ask(action="traffic", package=two, percent=10, request="r1")
    machine.hear()
    assert "waits for its turn" in machine.functions.entries()[-1].summary
    world.packages[two]["ModelApprovalStatus"] = "PendingManualApproval"  # in the registry, by another hand
    machine.finish_and_hear("success")
    machine.teardown()
    assert world.packages[two]["ModelApprovalStatus"] == "PendingManualApproval"
    assert world.live == Desired(package=one)
    said = newest(machine.functions.entries(), Kind.DEPLOYMENT_SUPERSEDED).summary
    assert "version 2 waits for approval again" in said


@pytest.mark.parametrize("mode", ["open", "strict"])
def test_who_approves_a_file_that_was_replaced_and_asks_for_it_serves_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    machine = ServingMachine()
    machine.begin("canary", mode, answering=True)
    world, (one, two) = machine.world, machine.world.packages
    world.replace(two, "forged")
    world.ask(action="traffic", package=two, percent=10, request="r1")
    machine.approved_by_rule(two)
    world.decide(two, "Approved", heard=False)
    machine.teardown()
    assert world.live == Desired(package=one)
    assert world.packages[two]["ModelApprovalStatus"] == "PendingManualApproval"
    assert any("its model file was replaced" in page for page in world.pages)


@pytest.mark.parametrize("first", ["deploy-model", "confirm-deployment"])
def test_what_another_hand_put_live_while_a_request_waited_is_said_before_it_is_replaced(
    monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    machine = ServingMachine()
    machine.begin("canary", "open", answering=True)
    world, (_, two) = machine.world, machine.world.packages
    three = world.register()
    for package in (two, three):
        world.packages[package]["ModelApprovalStatus"] = "Approved"
    world.meddle(two)
    world.decide(three, "Approved", heard=True)
    machine.hear()
    assert "waits for its turn" in machine.functions.entries()[-1].summary
    world.finish("success", heard=False)
    world.messages.sort(key=lambda message: message.queue != first)
    machine.teardown()
    entries = machine.functions.entries()
    differs, deployed = newest(entries, Kind.SERVING_DIFFERS), newest(entries, Kind.DEPLOYED)
    assert differs.summary.startswith("Version 2 answers, of which the ledger knows nothing: it has version 1")
    assert differs.number < deployed.number
    assert deployed.summary == "Version 3 is live, after version 2."
    assert world.live == Desired(package=three)
    assert sum("what answers is not what was asked for" in page for page in world.pages) == 1


def test_another_hand_that_follows_a_deployment_bars_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    machine = ServingMachine()
    machine.begin("canary", "open", answering=True)
    world, (one, two) = machine.world, machine.world.packages
    world.decide(two, "Approved", heard=True)
    machine.hear()
    world.finish("success", heard=False)
    world.meddle(one)  # before anybody has looked what came of it
    machine.finish_and_hear("success")
    failed = newest(machine.functions.entries(), Kind.DEPLOYMENT_FAILED)
    assert failed.summary.endswith("version 1 answers. another hand has changed the serving stack since")
    world.decide(two, "Approved", heard=True)
    machine.teardown()
    assert world.live == Desired(package=two)


def strict_of_two(monkeypatch: pytest.MonkeyPatch) -> tuple[ServingMachine, str]:
    """A model in mode strict whose first version answers, and its second, which its rule has approved just now."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    machine = ServingMachine()
    machine.begin("canary", "strict", answering=True)
    _, two = machine.world.packages
    machine.approved_by_rule(two)
    machine.world.decide(two, "Approved", heard=True)
    return machine, two


def test_what_is_taken_back_before_its_approval_was_heard_waits_for_new_words(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, two = strict_of_two(monkeypatch)
    world = machine.world
    world.decide(two, "PendingManualApproval", heard=True)
    machine.settle()
    assert machine.functions.entries()[-1].kind is Kind.APPROVAL_VOIDED
    assert sum("it was taken back" in page for page in world.pages) == 1
    assert approval.given(machine.functions.entries(), two) == []
    world.decide(two, "Approved", heard=True)  # by another hand
    machine.teardown()
    assert world.packages[two]["ModelApprovalStatus"] == "PendingManualApproval"
    assert world.live.package != two


@pytest.mark.parametrize("heard", [True, False])
def test_the_words_that_led_to_an_approval_are_gone_once_it_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, *, heard: bool
) -> None:
    machine, two = strict_of_two(monkeypatch)
    machine.settle()
    assert machine.world.live.package == two
    machine.world.decide(two, "PendingManualApproval", heard=heard)
    machine.settle()
    machine.world.decide(two, "Approved", heard=True)  # by another hand
    machine.settle()
    assert machine.world.packages[two]["ModelApprovalStatus"] == "PendingManualApproval"
    machine.approved_by_rule(two)
    machine.world.decide(two, "Approved", heard=True)
    machine.teardown()
    assert machine.world.packages[two]["ModelApprovalStatus"] == "Approved"


@pytest.fixture
def open_for_business(monkeypatch: pytest.MonkeyPatch) -> ServingMachine:
    """A model with hours, in them, and its first version answers; another one is registered."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    machine = ServingMachine()
    machine.begin("canary", "open", answering=False, hours=True)
    machine.hear()
    machine.finish_and_hear("success")
    assert machine.world.live == Desired(package=next(iter(machine.world.packages)))
    return machine


def turn(machine: ServingMachine) -> None:
    """The end or the beginning of the hours comes, and all that follows from it."""
    machine.wait_until_hours_turn(late=1)
    machine.clock()
    machine.hear()
    if machine.world.operation:
        machine.finish_and_hear("success")


def said(machine: ServingMachine) -> str:
    return machine.functions.entries()[-1].summary


def test_an_endpoint_goes_with_its_hours_and_comes_back_as_it_was(open_for_business: ServingMachine) -> None:
    machine, world = open_for_business, open_for_business.world
    world.ask(action="shadow", package=list(world.packages)[1], request="r1")
    machine.hear()
    machine.finish_and_hear("success")
    before = world.live
    assert before.shadow
    turn(machine)
    assert world.live == Desired(package=None)
    assert said(machine) == "Version 1 is off until Sun 22 Nov 06:00 UTC."
    turn(machine)
    assert world.live == before
    assert said(machine).endswith("is live again.")
    assert world.pages == []
    machine.teardown()


@pytest.mark.parametrize(
    ("turns", "severity"),
    [
        (1, "warning, because it answers on, outside of its hours, and costs what it need not"),
        (2, "critical, because callers get no answer in the model's hours"),
    ],
)
def test_an_endpoint_that_does_not_go_or_come_is_tried_again(
    open_for_business: ServingMachine, turns: int, severity: str
) -> None:
    machine, world = open_for_business, open_for_business.world
    for _ in range(turns - 1):
        turn(machine)
    machine.wait_until_hours_turn(late=1)
    machine.clock()
    machine.hear()
    machine.finish_and_hear("quota")
    (page,) = world.pages
    assert "it is tried again every hour" in page
    assert f"Severity: {severity}." in page
    machine.teardown()


def test_the_end_of_hours_that_is_heard_hours_late_or_twice_takes_nothing_away(
    open_for_business: ServingMachine,
) -> None:
    machine, world = open_for_business, open_for_business.world
    machine.wait_until_hours_turn(late=0)
    machine.clock()
    late = world.messages[-1]
    world.pass_time(timedelta(hours=12, minutes=5))  # it is morning, and nobody has heard it
    before = machine.functions.entries()
    machine.receive(late, again=True)
    machine.receive(late)
    assert world.operation is None
    assert machine.functions.entries() == before
    machine.teardown()


def test_a_deployment_is_finished_before_the_endpoint_goes(open_for_business: ServingMachine) -> None:
    machine, world = open_for_business, open_for_business.world
    two = list(world.packages)[1]
    machine.wait_until_hours_turn(late=-1)
    world.decide(two, "Approved", heard=True)
    machine.hear()
    machine.wait_until_hours_turn(late=1)
    machine.clock()
    machine.hear()
    machine.finish_and_hear("success")
    assert latest(machine.functions.entries(), Kind.DEPLOYED).details["package"] == two  # type: ignore[union-attr]
    machine.finish_and_hear("success")
    assert world.live == Desired(package=None)
    assert said(machine).startswith("Version 2 is off until")
    machine.teardown()


def test_what_is_approved_outside_of_hours_follows_what_answered_before_by_its_strategy(
    open_for_business: ServingMachine,
) -> None:
    machine, world = open_for_business, open_for_business.world
    one, two = world.packages
    turn(machine)
    world.decide(two, "Approved", heard=True)
    machine.hear()
    assert world.operation is None
    waits = "ersion 2 waits for its turn: flight-delay is off until Sun 22 Nov 06:00 UTC"
    assert said(machine) == f"V{waits}."
    assert under_way(machine.functions.entries()) == f"v{waits}"
    machine.wait_until_hours_turn(late=1)
    machine.clock()
    machine.hear()
    machine.finish_and_hear("success")
    assert world.live == Desired(package=one)
    assert world.operation
    assert world.operation.parameters["Guardrails"] == "on"
    machine.finish_and_hear("success")
    assert world.live == Desired(package=two)
    assert world.pages == []


def test_what_waits_goes_live_at_once_where_what_answered_before_may_not(open_for_business: ServingMachine) -> None:
    machine, world = open_for_business, open_for_business.world
    one, two = world.packages
    turn(machine)
    world.decide(two, "Approved", heard=True)
    machine.hear()
    world.decide(one, "Rejected", heard=True)
    machine.hear()
    assert world.pages == []
    turn(machine)
    assert world.live == Desired(package=two)
    (page,) = world.pages
    assert "version 1 will not go live" in page
    assert "Severity: warning, because a newer decision goes live in its place." in page
    machine.teardown()


@pytest.mark.parametrize("strategy", ["canary", "progressive"])
def test_that_nothing_comes_back_is_told_once_until_another_version_is_approved(
    monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    machine = ServingMachine()
    machine.begin(strategy, "open", answering=False, hours=True)
    machine.hear()
    machine.finish_and_hear("success")
    world = machine.world
    one, two = world.packages
    turn(machine)
    world.decide(one, "Rejected", heard=True)
    machine.hear()
    turn(machine)
    for _ in range(4):
        world.pass_time(timedelta(hours=1))
        machine.clock()
        machine.hear()
    assert world.live == Desired(package=None)
    at_night, in_the_morning = world.pages
    assert "nothing will answer from Sun 22 Nov 06:00 UTC" in at_night
    assert "Nothing answers: version 1 will not go live, for version 1 was decided against" in in_the_morning
    assert "Severity: warning, because nobody asks it before the model's hours begin" in at_night
    assert "Severity: critical, because callers get no answer in the model's hours." in in_the_morning
    world.decide(two, "Approved", heard=True)
    machine.hear()
    machine.finish_and_hear("success")
    assert world.live == Desired(package=two)
    machine.teardown()


def test_who_goes_back_outside_of_hours_is_not_answered_by_the_version_that_they_left(
    open_for_business: ServingMachine,
) -> None:
    machine, world = open_for_business, open_for_business.world
    one, two = world.packages
    world.decide(two, "Approved", heard=True)
    machine.hear()
    machine.finish_and_hear("success")
    turn(machine)
    world.ask(action="rollback", package=None, request="r1")
    machine.hear()
    brought: list[Desired] = []
    world.before_update = brought.append
    turn(machine)
    assert brought == [Desired(package=one)]
    assert world.live == Desired(package=one)
    machine.hear()
    assert unsettled(machine.functions.entries()) == []
    assert predecessors(machine.functions.entries(), one) == []
    asked = len(machine.functions.entries())
    world.ask(action="rollback", package=None, request="r2")
    machine.hear()
    assert machine.functions.entries()[asked].kind is Kind.DEPLOYMENT_REFUSED


def test_a_model_that_is_retired_outside_of_hours_does_not_come_back(open_for_business: ServingMachine) -> None:
    machine, world = open_for_business, open_for_business.world
    turn(machine)
    world.ask(action="retire", package=None, request="r1")
    machine.hear()
    machine.hear()
    assert said(machine) == "Nothing answers any more, after version 1: flight-delay is retired."
    turn(machine)
    assert world.operation is None
    assert world.live == Desired(package=None)


def test_the_endpoint_of_a_model_whose_spec_has_no_hours_any_more_comes_back(
    open_for_business: ServingMachine,
) -> None:
    machine, world = open_for_business, open_for_business.world
    before = world.live
    turn(machine)
    machine.functions.spec = spec("canary", "open")
    machine.functions.rollout = replace(machine.functions.rollout, spec=machine.functions.spec)
    (Path(machine.folder.name) / f"{MODEL}.json").write_text(machine.functions.spec.model_dump_json())
    machine.tend()
    machine.hear()
    machine.finish_and_hear("success")
    assert world.live == before


def test_whatever_happens_serving_comes_to_rest_as_it_was_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    live_through(ServingMachine, monkeypatch, histories=60, steps=40)
