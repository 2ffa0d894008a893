"""What failed is sent again, what happened is replayed without effect, what is paused waits; and nothing is lost."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from typer.testing import CliRunner

import lambdas.reconcile.handler as reconciler
from lambdas.monitor_model.handler import handler as monitor_model
from lambdas.request_retraining.handler import handler as request_retraining
from lambdas.start_training.handler import handler as start_training
from lambdas.validate_upload.handler import handler as validate_upload
from local.cloud import ACCOUNT, REGION
from noria.aws.ledger import Ledger
from noria.aws.pauses import Held, Pauses, held
from noria.aws.queues import Count, Queues
from noria.aws.storage import Storage
from noria.cli.commands import app
from noria.cli.output import Refused
from noria.cli.recovery import Recovery
from noria.cli.state import Deployed
from noria.events import PauseRequest, Tick
from noria.ledger import Kind
from noria.spec import ModelSpec
from tests.integration.reactions.place import BUCKET, Context, Place, ship
from tests.integration.reactions.served import Served
from tests.integration.reactions.test_reconcile import run, served  # noqa: F401 - a fixture
from tests.integration.reactions.test_training import executions, pipeline
from tests.integration.reactions.test_uploads import table

EVENTS = Path(__file__).parents[2] / "events"
TRIES = 2
DEAD = "dead-letters"
HANDLERS: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "validate-upload": validate_upload,
    "request-retraining": request_retraining,
    "start-training": start_training,
    "monitor-model": monitor_model,
    "reconcile": reconciler.handler,
}


@dataclass
class Room:
    """An environment whose queues have one of dead letters, and are worked on when a test says so."""

    place: Place
    sqs: Any = field(default_factory=lambda: boto3.client("sqs"))

    def url(self, queue: str) -> str:
        return str(self.sqs.get_queue_url(QueueName=self.place.names.queue(queue))["QueueUrl"])

    def arn(self, queue: str) -> str:
        return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.place.names.queue(queue)}"

    def work(self, *reactions: str, twice: bool = False) -> int:
        """Hand the messages of queues to their functions as Lambda does, until none is left; how many were done.

        What fails comes again, until it is dead. With `twice`, each is delivered again before it is thrown away.
        """
        done = 0
        for reaction in reactions:
            url = self.url(reaction)
            while messages := self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"]
            ).get("Messages"):
                for message in messages:
                    record = {
                        "messageId": message["MessageId"],
                        "body": message["Body"],
                        "attributes": message["Attributes"],
                        "messageAttributes": message.get("MessageAttributes", {}),
                        "eventSource": "aws:sqs",
                        "eventSourceARN": self.arn(reaction),
                    }
                    try:
                        for _ in range(2 if twice else 1):
                            HANDLERS[reaction]({"Records": [record]}, Context())
                    except Exception:  # noqa: BLE001 - as Lambda does
                        self.sqs.change_message_visibility(
                            QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                        )
                        continue
                    self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                    done += 1
        return done

    @contextmanager
    def working(self, *reactions: str) -> Iterator[None]:
        """The same in the background, while a command waits for what comes of it."""
        end = threading.Event()

        def loop() -> None:
            while not end.is_set():
                self.work(*reactions)
                time.sleep(0.05)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def send(self, queue: str, event: dict[str, Any], **attributes: str) -> None:
        told = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        self.sqs.send_message(QueueUrl=self.url(queue), MessageBody=json.dumps(event), MessageAttributes=told)

    def undelivered(self, reaction: str, event: dict[str, Any], error: str = "NO_PERMISSIONS") -> None:
        """What EventBridge leaves of an event that a reaction's queue does not take."""
        rule = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{self.place.names.queue(reaction)}-upload"
        told = {"RULE_ARN": rule, "TARGET_ARN": self.arn(reaction)}
        self.send(DEAD, event, **told, ERROR_CODE=error, ERROR_MESSAGE="sqs:SendMessage")

    def upload(self, spec: ModelSpec, name: str, body: bytes) -> dict[str, Any]:
        key = f"{spec.model}/incoming/{name}"
        return self.place.uploaded(key, self.place.put(key, body), len(body))

    def told(self, model: str) -> None:
        """Have the reconciler hear what commands told it of a model."""
        for detail in self.place.events(model, "Events Sent Again"):
            self.place.deliver(reconciler.handler, self.place.event("noria", "Events Sent Again", detail))


def noria(*arguments: str) -> Any:
    """What a command answers, as JSON."""
    answer = CliRunner().invoke(app, [*arguments, "--json", "--env", "local"], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    # Functions that work beside the command count what they do on the same stream.
    return json.loads("".join(line for line in answer.stdout.splitlines() if not line.startswith('{"_aws"')))


def printed(*arguments: str) -> str:
    """What a command tells people."""
    answer = CliRunner().invoke(app, [*arguments, "--env", "local"], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def said(*arguments: str) -> str:
    """What a redrive of at most twenty letters tells people."""
    return " ".join(printed("redrive", "--all", "--limit", "20", *arguments).split())


@pytest.fixture(scope="module")
def room(place: Place) -> Iterator[Room]:
    sqs, ssm, events = boto3.client("sqs"), boto3.client("ssm"), boto3.client("events")
    room = Room(place)
    for name, value in {"data-bucket": BUCKET, "event-bus": "noria-local", "ledger-table": "ledger"}.items():
        ssm.put_parameter(Name=f"/noria/local/{name}", Value=value, Type="String", Overwrite=True)
    sqs.create_queue(QueueName=place.names.dead_letters)
    for reaction in HANDLERS:
        sqs.create_queue(QueueName=place.names.queue(reaction))
        redrive = {"deadLetterTargetArn": room.arn(DEAD), "maxReceiveCount": TRIES}
        sqs.set_queue_attributes(QueueUrl=room.url(reaction), Attributes={"RedrivePolicy": json.dumps(redrive)})
    name = place.names.queue("reconcile-wishes")
    wishes = {"source": ["noria"], "detail-type": ["Pause Requested"]}
    events.put_rule(Name=name, EventBusName="noria-local", EventPattern=json.dumps(wishes))
    targets: Any = [{"Id": "queue", "Arn": room.arn("reconcile")}]
    events.put_targets(Rule=name, EventBusName="noria-local", Targets=targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("noria.aws.queues._WAIT", 0)  # a local queue tells all it has at once
        yield room
    events.remove_targets(Rule=name, EventBusName="noria-local", Ids=["queue"])
    events.delete_rule(Name=name, EventBusName="noria-local")
    for reaction in HANDLERS:
        sqs.set_queue_attributes(QueueUrl=room.url(reaction), Attributes={"RedrivePolicy": ""})
    sqs.delete_queue(QueueUrl=room.url(DEAD))


@pytest.fixture
def empty(room: Room) -> Room:
    for queue in (*HANDLERS, DEAD):
        room.sqs.purge_queue(QueueUrl=room.url(queue))
    return room


def known(room: Room) -> ModelSpec:
    """A model that is deployed, as far as commands look."""
    spec = room.place.model()
    room.place.sagemaker.create_model_package_group(ModelPackageGroupName=room.place.names.model(spec.model))
    return spec


# --- dead letters


def test_dead_letters_are_seen_where_they_lie_and_brought_back_once_the_cause_is_mended(
    empty: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a reaction could not handle, and those that EventBridge could not deliver; one model's alone."""
    room, spec, other = empty, known(empty), known(empty)
    failing = room.upload(spec, "a.csv", table(spec, rows=40))
    undelivered = room.upload(spec, "b.csv", table(spec, rows=41))
    theirs = room.upload(other, "c.csv", table(other))
    failing["id"] = "11111111-2222-4333-8444-555555555555"
    with monkeypatch.context() as broken:
        broken.setenv("NORIA_LEDGER_TABLE", "no-such-table")
        room.send("validate-upload", failing)
        room.send("validate-upload", theirs)
        assert room.work("validate-upload") == 0
    room.undelivered("validate-upload", undelivered)
    log(room, "validate-upload", failing["id"], "botocore.errorfactory.ResourceNotFoundException: no such table")

    for _ in range(2):  # looking takes nothing away
        (row,) = noria("queues", "validate-upload")
        assert (row["waiting"], row["dead"]) == (0, 3)
        mine = {letter["error"]: letter for letter in row["letters"] if letter["model"] == spec.model}
        assert set(mine) == {
            "botocore.errorfactory.ResourceNotFoundException: no such table",
            "NO_PERMISSIONS: sqs:SendMessage",
        }
        assert {(letter["event"], letter["sent_again"]) for letter in mine.values()} == {("Object Created", 0)}
        assert all(
            datetime.fromisoformat(letter["since"]) > datetime.now(UTC) - timedelta(minutes=5)
            for letter in mine.values()
        )

    would = noria("redrive", "validate-upload", "--model", spec.model, "--dry-run")
    assert noria("queues", "validate-upload")[0]["dead"] == 3
    did = noria("redrive", "validate-upload", "--model", spec.model)
    row = {"reaction": "validate-upload", "model": spec.model, "events": ["2 × Object Created"], "count": 2}
    assert would == did == [row]
    assert room.work("validate-upload") == 2
    assert len(room.place.entries(spec.model, Kind.DATASET_ACCEPTED)) == 2
    (left,) = noria("queues", "validate-upload")
    assert [letter["model"] for letter in left["letters"]] == [other.model]

    room.told(spec.model)
    room.told(spec.model)  # heard twice
    (entry,) = room.place.entries(spec.model, Kind.EVENT_REDRIVEN)
    assert entry.details["count"] == 2
    assert entry.summary.startswith("2 dead letters of validate-upload were sent again by ")
    assert entry.details["reactions"] == ["validate-upload"]
    assert str(entry.details["by"]).startswith("arn:aws:")
    assert room.place.entries(other.model, Kind.EVENT_REDRIVEN) == []


def test_queues_that_are_empty_are_counted_and_listed_where_asked_for(empty: Room) -> None:
    def listed(*arguments: str) -> list[str]:
        return [line.split()[0] for line in printed("queues", *arguments).splitlines()[2:]]

    rows = noria("queues")
    full = [row["reaction"] for row in rows if row["waiting"] or row["in_flight"] or row["delayed"] or row["dead"]]
    assert "monitor-model" not in full
    empty.send("monitor-model", {"detail-type": "Monitor Model"})
    left_out = len(rows) - len(full) - 1
    assert sorted(listed()) == sorted([*full, "monitor-model", str(left_out)])
    assert printed("queues").endswith(f"\n{left_out} queues are empty (noria queues --all lists them).\n")
    assert sorted(listed("--all")) == sorted(row["reaction"] for row in rows)
    assert listed("reconcile") == ["reconcile"]


def test_what_fails_again_is_dead_again_and_is_said_to_be(empty: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room, spec = empty, known(empty)
    room.send("validate-upload", room.upload(spec, "a.csv", table(spec)))
    with monkeypatch.context() as broken:
        broken.setenv("NORIA_LEDGER_TABLE", "no-such-table")
        room.work("validate-upload")
        for times in (1, 2):
            assert noria("redrive", "--all")[0]["count"] == 1
            room.work("validate-upload")
            (letter,) = noria("queues", "validate-upload")[0]["letters"]
            assert letter["sent_again"] == times
    room.told(spec.model)
    for entry in room.place.entries(spec.model, Kind.EVENT_REDRIVEN):
        assert entry.summary.startswith("1 dead letter of validate-upload was sent again by ")


def test_who_dies_between_sending_and_throwing_away_leaves_a_letter_twice_and_it_counts_once(empty: Room) -> None:
    room, spec = empty, known(empty)
    room.undelivered("validate-upload", room.upload(spec, "a.csv", table(spec)))
    sqs: Any = Dying(room.sqs, "delete_message")
    with pytest.raises(KeyboardInterrupt):
        Recovery(Deployed("local"), Queues(client=sqs)).redrive("validate-upload", None, most=10, dry_run=False)
    assert noria("redrive", "validate-upload")[0]["count"] == 1
    assert room.work("validate-upload") == 2
    assert len(room.place.entries(spec.model, Kind.DATASET_ACCEPTED)) == 1


def test_dead_letters_are_received_by_tens_and_each_is_looked_at_once(
    empty: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are where looking takes longer than they are hidden: those that were left show again meanwhile."""
    room, calls = empty, []
    for number in range(25):
        room.sqs.send_message(QueueUrl=room.url(DEAD), MessageBody=str(number))
    monkeypatch.setattr("noria.aws.queues._LOOKED_AT", 1)
    sqs = boto3.client("sqs")
    sqs.meta.events.register("before-call.sqs", lambda model, **_: calls.append(model.name))
    with Queues(client=sqs).dead_letters(room.place.names.dead_letters, most=60) as letters:
        seen = []
        for number, letter in enumerate(letters):
            seen.append(letter.body)
            assert calls.count("ReceiveMessage") >= 1 + number // 10
            if number < 10:
                assert calls.count("ReceiveMessage") == 1
                letters.bring_back(letter, to=room.place.names.queue("monitor-model"))
            if number == 19:
                time.sleep(1.2)
    assert sorted(seen, key=int) == [str(number) for number in range(25)]
    assert calls.count("GetQueueUrl") == 2
    assert Queues().count(room.place.names.dead_letters).waiting == 15


def test_what_is_no_event_goes_back_to_its_queue_too_and_is_nobodys(empty: Room) -> None:
    room = empty
    room.sqs.send_message(QueueUrl=room.url("monitor-model"), MessageBody="no event")
    room.work("monitor-model")
    (row,) = noria("redrive", "monitor_model")
    assert (row["model"], row["events"]) == (None, ["1 × no event"])
    assert room.sqs.receive_message(QueueUrl=room.url("monitor-model"))["Messages"][0]["Body"] == "no event"


def test_one_reactions_letters_are_found_among_all_and_the_others_stay(empty: Room) -> None:
    """However they got there: by SQS, EventBridge, Scheduler and Lambda, each of which says so in its own way."""
    room, spec = empty, known(empty)
    theirs = json.loads(Tick.message("Monitor Model", model=spec.model, time=datetime.now(UTC)))
    for number in range(25):
        room.send(DEAD, theirs | {"number": number}, SCHEDULE_ARN="…", TARGET_ARN=room.arn("monitor-model"))
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{room.place.names.function('reconcile')}"
    room.send(DEAD, {"requestContext": {"functionArn": function}, "DDBStreamBatchInfo": {}})
    room.undelivered("validate-upload", room.upload(spec, "a.csv", table(spec)))
    room.send(DEAD, {"detail-type": "Nobody's"})
    room.undelivered("track-training", {"detail-type": "Training Ended"})  # a reaction that was taken out

    rows = {row["reaction"]: row["dead"] for row in noria("queues")}
    assert {of: dead for of, dead in rows.items() if dead} == {
        "monitor-model": 25,
        "reconcile": 1,
        "validate-upload": 1,
        "track-training": 1,
        "unknown": 1,
    }
    (taken_out, _) = noria("queues", "track-training")
    assert (taken_out["waiting"], [letter["event"] for letter in taken_out["letters"]]) == (None, ["Training Ended"])
    with pytest.raises(Refused, match=r"No reaction 'track-training' is deployed here.*removed: docs/runbooks/dead-"):
        noria("redrive", "track-training")
    assert [row["count"] for row in noria("redrive", "validate-upload")] == [1]
    assert room.work("validate-upload") == 1
    assert Queues().count(room.place.names.dead_letters).waiting == 28
    with Queues().dead_letters(room.place.names.dead_letters) as somebody_looks:
        assert len(list(somebody_looks)) == 28
        assert [(row["reaction"], row["dead"]) for row in noria("queues", "reconcile")] == [
            ("reconcile", 0),
            ("unknown", 28),
        ]
    assert "20 dead letters would be sent again. 8 dead letters of all reactions would be left." in said("--dry-run")
    assert "20 dead letters were sent again. 8 dead letters of all reactions are left." in said()
    assert {row["reaction"]: row["count"] for row in noria("redrive", "--all")} == {"monitor-model": 5, "reconcile": 1}
    assert "nothing to send again. 2 dead letters of all reactions are left." in said()
    assert {row["reaction"] for row in noria("queues") if row["dead"]} == {"track-training", "unknown"}


def test_a_redrive_goes_on_until_none_is_found_whatever_sqs_counts(
    empty: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS counts seconds late: letters that have just come are sent again, too."""
    room, spec = empty, known(empty)
    for number in range(12):
        room.undelivered("validate-upload", room.upload(spec, f"{number}.csv", table(spec, rows=40 + number)))
    monkeypatch.setattr(Queues, "count", lambda *_: Count(waiting=0, in_flight=0, delayed=0))
    assert Recovery(Deployed("local")).redrive(None, None, most=11, dry_run=True)[1] == 1
    (sent,), left = Recovery(Deployed("local")).redrive(None, None, most=1000, dry_run=False)
    assert (sent.count, left) == (12, 0)


def test_who_is_killed_while_letters_are_sent_again_has_told_of_it_before(
    empty: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of as many as were to be sent: those that were not lie there still."""
    room, spec = empty, known(empty)
    monkeypatch.setattr("noria.cli.recovery.LOT", 2)
    for number in range(3):
        room.undelivered("validate-upload", room.upload(spec, f"{number}.csv", table(spec, rows=40 + number)))
    sqs: Any = Dying(room.sqs, "send_message")
    with pytest.raises(KeyboardInterrupt):
        Recovery(Deployed("local"), Queues(client=sqs)).redrive("validate-upload", None, most=10, dry_run=False)
    room.told(spec.model)
    (entry,) = room.place.entries(spec.model, Kind.EVENT_REDRIVEN)
    assert entry.summary.startswith("2 dead letters of validate-upload were sent again by ")
    assert noria("redrive", "validate-upload")[0]["count"] == 3
    room.told(spec.model)
    assert [e.details["count"] for e in room.place.entries(spec.model, Kind.EVENT_REDRIVEN)] == [2, 2, 1]


def test_a_redrive_says_of_which_reaction_or_of_all(empty: Room) -> None:
    for arguments in ([], ["validate-upload", "--all"]):
        with pytest.raises(Refused, match="or say --all"):
            noria("redrive", *arguments)
    with pytest.raises(Refused, match="No reaction 'validate-uplaod' is deployed here: known are "):
        noria("redrive", "validate-uplaod")
    assert noria("redrive", "--all") == []


# --- pauses


def test_while_a_model_is_paused_its_events_wait_and_others_go_on_and_none_is_lost(empty: Room, tmp_path: Path) -> None:
    room, spec, other = empty, known(empty), known(empty)
    with room.working("reconcile"):
        paused = noria("pause", spec.model, "--reason", "we move the data")
    assert paused["recorded"]
    for number in range(3):
        room.send("validate-upload", room.upload(spec, f"{number}.csv", table(spec, rows=40 + number)))
    room.send("validate-upload", room.upload(other, "a.csv", table(other)))
    room.send("monitor-model", json.loads(Tick.message("Monitor Model", model=spec.model, time=datetime.now(UTC))))
    assert room.work("validate-upload", "monitor-model", twice=True) == 5

    waiting = list(held(Storage(bucket=BUCKET), spec.model))
    assert [each.reaction for each in waiting] == ["validate-upload"] * 3  # and the monitor's tick lapsed
    assert room.place.kinds(spec.model) == [Kind.MODEL_PAUSED]
    assert room.place.kinds(other.model) == [Kind.DATASET_ACCEPTED]
    summary = noria("events", spec.model)[0]["summary"]
    assert summary.endswith(": we move the data")
    package = room.place.sagemaker.create_model_package(
        ModelPackageGroupName=room.place.names.model(spec.model), ModelApprovalStatus="PendingManualApproval"
    )["ModelPackageArn"]
    paused = f"{spec.model} is paused: {{}} when that ends (noria resume {spec.model}).\n"
    assert printed("approve", package, "--reason", "it is good").endswith(paused.format("it goes live"))
    (tmp_path / "rows.csv").write_bytes(table(spec))
    for command, happens in {"upload": "it is checked", "predict": "it is answered"}.items():
        assert printed(command, spec.model, str(tmp_path / "rows.csv")).endswith(paused.format(happens))
    assert noria("upload", other.model, str(tmp_path / "rows.csv"))["waits"] is None
    told = printed("events", spec.model)
    assert f"{spec.model} is paused since" in told
    assert f"3 events wait for noria resume {spec.model} (3 for validate-upload)" in told
    assert told.strip().endswith("; approved, to go live when that ends: version 1")
    (tmp_path / f"{spec.model}.yaml").write_text(spec.model_dump_json())
    answers = {row["asks"]: row for row in noria("policy", spec.model, "--models", str(tmp_path))}
    assert answers["by hand"]["answer"] == "no", "there are no data"
    assert {row["answer"] for asks, row in answers.items() if "alarm" in asks} == {"waits"}, answers
    assert "we move the data. What asks waits for its end" in answers["drift alarm"]["because"], answers

    with room.working("reconcile"):
        resumed = noria("resume", spec.model, "--reason", "it is moved")
    assert (resumed["recorded"], resumed["waiting"]) == (True, 3)
    assert room.work("validate-upload") == 3
    assert room.place.kinds(spec.model) == [Kind.MODEL_PAUSED, Kind.MODEL_RESUMED, *[Kind.DATASET_ACCEPTED] * 3]
    keys = [entry.details["key"] for entry in room.place.entries(spec.model, Kind.DATASET_ACCEPTED)]
    assert keys == [f"{spec.model}/incoming/{number}.csv" for number in range(3)]
    assert list(held(Storage(bucket=BUCKET), spec.model)) == []


def test_who_dies_between_giving_back_and_removing_gives_back_twice_and_it_counts_once(empty: Room) -> None:
    room, spec = empty, known(empty)
    decide(room, spec, "pause", at=0)
    room.send("validate-upload", room.upload(spec, "a.csv", table(spec)))
    room.work("validate-upload")
    decide(room, spec, "resume", at=1)
    s3: Any = Dying(boto3.client("s3"), "delete_object")
    with pytest.raises(KeyboardInterrupt):
        pauses(room, Storage(bucket=BUCKET, client=s3)).give_back(spec.model)
    assert pauses(room).give_back(spec.model) == 1
    assert room.work("validate-upload") == 2
    assert len(room.place.entries(spec.model, Kind.DATASET_ACCEPTED)) == 1


def test_two_that_give_back_at_once_give_back_once_and_what_is_gone_keeps_nobody(empty: Room) -> None:
    room, spec = empty, known(empty)
    wait(room, spec, 3)
    first = next(held(Storage(bucket=BUCKET), spec.model)).key

    @dataclass(frozen=True, kw_only=True)
    class Late(Storage):
        """Before it reads the first another one gives back, and somebody removes it."""

        def read(self, key: str, *, version: str | None = None) -> bytes:
            if key == first:
                others.append(pauses(room).give_back(spec.model))
                self.remove(key)
            return super().read(key, version=version)

    others: list[int] = []
    assert pauses(room, Late(bucket=BUCKET)).give_back(spec.model) == 2
    assert others == [0]
    assert pauses(room).give_back(spec.model) == 0
    given_back = pauses(room).given_back(spec.model)
    assert given_back
    assert datetime.now(UTC) - timedelta(minutes=1) < given_back <= datetime.now(UTC)
    wait(room, spec, 1)
    assert pauses(room).give_back(spec.model) == 1  # the turn ended with its work


def test_what_nobody_can_read_or_hears_keeps_no_other_event_waiting_and_no_other_model(
    empty: Room,
    served: Served,  # noqa: F811 - the fixture
) -> None:
    room = empty
    spec = ModelSpec.model_validate_json((room.place.models / f"{served.model}.json").read_bytes())
    other = room.place.model()
    room.place.put(f"{spec.model}/held/1/2/3/4.json", "{}")
    room.place.put(f"{spec.model}/held/notes.txt", "")
    room.place.put(f"{spec.model}/held/0000000000001/no-such-reaction/m.json", "{}")
    for each in (spec, other):
        decide(room, each, "pause", at=0)
        wait(room, each, 1)
        decide(room, each, "resume", at=1)
    assert sum(1 for _ in held(Storage(bucket=BUCKET), spec.model)) == 2
    for _ in range(2):
        with pytest.raises(Exception, match=r"ListPipelineExecutions|several models"):  # others have no pipeline here
            room.place.deliver(reconciler.handler, json.loads(Tick.message("Reconcile", time=datetime.now(UTC))))
    assert [each.reaction for each in held(Storage(bucket=BUCKET), spec.model)] == ["no-such-reaction"]
    assert list(held(Storage(bucket=BUCKET), other.model)) == []
    (told,) = room.place.entries(spec.model, Kind.EVENTS_UNHEARD)
    assert told.summary.startswith("1 event waits for no-such-reaction, which has no queue")
    (notice,) = (notice for notice in room.place.notices(spec.model) if "no-such-reaction" in notice)
    assert f"s3://{BUCKET}/{spec.model}/held/" in notice
    assert room.place.entries(other.model, Kind.EVENTS_UNHEARD) == []

    wait(room, spec, 1)
    assert pauses(room).waiting(spec.model)
    assert pauses(room).give_back(spec.model, most=1) == 1, "the oldest, which nobody hears, takes no share"
    assert not pauses(room).waiting(spec.model)
    room.sqs.create_queue(QueueName=room.place.names.queue("no-such-reaction"))  # it is deployed again
    assert pauses(room).give_back(spec.model) == 1
    room.sqs.delete_queue(QueueUrl=room.url("no-such-reaction"))
    assert list(held(Storage(bucket=BUCKET), spec.model)) == []


def test_while_anything_waits_or_was_given_back_just_now_nothing_is_missed(empty: Room) -> None:
    now = datetime.now(UTC)
    missed = reconciler.Missed(reaction="validate-upload", subject="s", why="w", event={"detail-type": "x"})

    def waits(*, held: bool = False, given_back: datetime | None = None) -> bool:
        nothing: Any = None
        search = reconciler.Search(
            model="m",
            env=nothing,
            entries=[],
            given_back=given_back,
            held=held,
            copied=(),
            storage=nothing,
            pipelines=nothing,
            transforms=nothing,
            registry=nothing,
            stack=nothing,
            endpoint=nothing,
            now=now,
        )
        return search.waits(missed)

    assert not waits()
    assert waits(held=True)
    assert waits(given_back=now - timedelta(minutes=5))
    assert not waits(given_back=now - timedelta(minutes=20))


def test_a_turn_gives_back_so_many_and_the_next_one_the_others(empty: Room) -> None:
    room, spec = empty, known(empty)
    wait(room, spec, 3)
    assert [pauses(room).give_back(spec.model, most=2) for _ in range(3)] == [2, 1, 0]


def test_a_pause_with_an_end_is_ended_by_the_reconciler_which_tells_nothing_again_that_waits(
    empty: Room,
    served: Served,  # noqa: F811 - the fixture
) -> None:
    room = empty
    spec = ModelSpec.model_validate_json((room.place.models / f"{served.model}.json").read_bytes())
    decide(room, spec, "pause", at=0, until=datetime.now(UTC) + timedelta(seconds=8))
    room.send("validate-upload", room.upload(spec, "a.csv", table(spec)))
    room.work("validate-upload")
    assert run(served).get("validate-upload") is None  # an upload without a verdict, that nobody has missed
    assert room.place.entries(spec.model, Kind.MODEL_RESUMED) == []
    while Ledger(table="ledger").pauses(spec.model, datetime.now(UTC)):
        time.sleep(0.2)
    tick = json.loads(Tick.message("Reconcile", time=datetime.now(UTC)))
    room.place.deliver(reconciler.handler, tick)
    assert room.place.entries(spec.model, Kind.MODEL_RESUMED)[0].summary.startswith("Resumed: the pause was until ")
    assert room.work("validate-upload") >= 1
    assert len(room.place.entries(spec.model, Kind.DATASET_ACCEPTED)) == 1


def test_a_pause_is_refused_that_would_be_over_and_an_end_of_none(empty: Room) -> None:
    spec = known(empty)
    with pytest.raises(Refused, match="is not paused"):
        noria("resume", spec.model, "--reason", "why not")
    with pytest.raises(Refused, match="--until 2020-01-01 is over"):
        noria("pause", spec.model, "--reason", "why not", "--until", "2020-01-01")
    with pytest.raises(Refused, match="Give a reason"):
        noria("pause", spec.model, "--reason", " ")
    with pytest.raises(Refused, match="No model 'nobody'"):
        noria("pause", "nobody", "--reason", "why not")


@pytest.mark.parametrize("name", ["pause-requested", "events-sent-again"])
def test_what_is_asked_of_a_model_that_does_not_exist_is_let_be_and_leaves_nothing(empty: Room, name: str) -> None:
    event = json.loads((EVENTS / f"noria-{name}.json").read_text())
    model = event["detail"]["model"] = "fligth-delay"
    empty.place.deliver(reconciler.handler, event)
    assert empty.place.entries(model) == []


# --- archives


@pytest.fixture
def archived(empty: Room) -> Iterator[Room]:
    """Both buses with archives, and rules that start reactions; and one on the default bus that is somebody else's."""
    events, s3 = boto3.client("events"), boto3.client("s3")
    names = empty.place.names
    heard = {
        "validate-upload-uploads": (
            "default",
            {"source": ["aws.s3"], "detail": {"object": {"key": [{"wildcard": "*/incoming/*"}]}}},
        ),
        "request-retraining-causes": ("noria-local", {"detail-type": ["Dataset Accepted"]}),
        "start-training-grants": ("noria-local", {"detail-type": ["Retraining Requested"]}),
    }
    for name, (bus, pattern) in heard.items():
        reaction = name.rpartition("-")[0]
        events.put_rule(Name=names.queue(name), EventBusName=bus, EventPattern=json.dumps(pattern))
        targets: Any = [{"Id": "queue", "Arn": empty.arn(reaction)}]
        events.put_targets(Rule=names.queue(name), EventBusName=bus, Targets=targets)
    foreign = empty.sqs.create_queue(QueueName="foreign")["QueueUrl"]
    events.put_rule(Name="foreign", EventPattern=json.dumps({"source": ["aws.s3"]}))
    foreigner: Any = [{"Id": "queue", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:foreign"}]
    events.put_targets(Rule="foreign", Targets=foreigner)
    for name, bus in (("noria-local-default", "default"), ("noria-local-own", "noria-local")):
        events.create_archive(ArchiveName=name, EventSourceArn=f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{bus}")
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={"EventBridgeConfiguration": {}})
    yield empty
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={})
    for name, (bus, _) in heard.items():
        events.remove_targets(Rule=names.queue(name), EventBusName=bus, Ids=["queue"])
        events.delete_rule(Name=names.queue(name), EventBusName=bus)
    events.remove_targets(Rule="foreign", Ids=["queue"])
    events.delete_rule(Name="foreign")
    for name in ("noria-local-default", "noria-local-own"):
        events.delete_archive(ArchiveName=name)
    empty.sqs.delete_queue(QueueUrl=foreign)


def test_a_replay_of_a_whole_history_changes_nothing(archived: Room) -> None:
    room, spec = archived, archived.place.model()
    pipeline(room.place, spec)
    reactions = ("validate-upload", "request-retraining", "start-training")
    began = datetime.now(UTC)
    for name, body in (
        ("good.csv", table(spec)),
        ("broken.csv", b"no,table\n1,2\n"),
        ("again.csv", table(spec, rows=50)),
    ):
        room.place.put(f"{spec.model}/incoming/{name}", body)
    settle(room, *reactions)
    before = history(room, spec)
    assert {Kind.DATASET_ACCEPTED, Kind.DATASET_QUARANTINED, Kind.TRAINING_STARTED} <= set(room.place.kinds(spec.model))
    foreign = room.sqs.get_queue_url(QueueName="foreign")["QueueUrl"]
    room.sqs.purge_queue(QueueUrl=foreign)

    since = (began - timedelta(seconds=1)).isoformat()
    planned = noria("replay", "--since", since, "--dry-run")
    assert planned["reactions"] == ["reconcile", "request-retraining", "start-training", "validate-upload"]
    assert planned["replays"] == []
    assert settle(room, *reactions) == 0
    replayed = noria("replay", "--since", since)
    assert replayed["states"] == ["COMPLETED", "COMPLETED"]
    body = json.loads(
        room.sqs.receive_message(QueueUrl=room.url("validate-upload"), VisibilityTimeout=0)["Messages"][0]["Body"]
    )
    assert body["replay-name"] == replayed["replays"][0]
    assert body["detail"]["object"]["version-id"]
    assert settle(room, *reactions) >= 3 + 2 + 1  # uploads, datasets, a grant; and what the first two told again
    assert history(room, spec) == before
    assert "Messages" not in room.sqs.receive_message(QueueUrl=foreign)

    room.told(spec.model)
    (entry,) = room.place.entries(spec.model, Kind.EVENT_REPLAYED)
    assert entry.details["reactions"] == planned["reactions"]


def test_what_could_not_be_told_to_another_account_is_heard_again_by_the_rule_that_tells_it(archived: Room) -> None:
    """Its target is a bus elsewhere; here a queue stands for it."""
    room, spec, events = archived, known(archived), boto3.client("events")
    name, queue = room.place.names.queue("promotion"), room.sqs.create_queue(QueueName="elsewhere")["QueueUrl"]
    rule = events.put_rule(Name=name, EventPattern=json.dumps({"source": ["aws.s3"]}))["RuleArn"]
    targets: Any = [{"Id": "bus", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:elsewhere"}]
    events.put_targets(Rule=name, Targets=targets)
    room.place.put(f"{spec.model}/incoming/a.csv", table(spec))
    told = taken(room, queue)
    bus = f"arn:aws:events:{REGION}:222222222222:event-bus/noria-prod"
    room.send(DEAD, told, RULE_ARN=rule, TARGET_ARN=bus, ERROR_CODE="NO_PERMISSIONS", ERROR_MESSAGE="events:PutEvents")

    (row,) = noria("queues", "promotion")
    assert (row["waiting"], row["dead"]) == (None, 1)
    assert row["letters"][0]["error"] == "NO_PERMISSIONS: events:PutEvents"
    (sent,) = noria("redrive", "--all")
    assert (sent["reaction"], sent["model"], sent["count"]) == ("promotion", spec.model, 1)
    again = taken(room, queue)
    assert again.pop("replay-name").startswith("noria-local-default-")
    assert (again["id"], again["detail"]) == (told["id"], told["detail"])
    assert noria("redrive", "promotion") == []
    events.remove_targets(Rule=name, Ids=["bus"])
    events.delete_rule(Name=name)
    room.send(DEAD, told, RULE_ARN=rule, TARGET_ARN=bus)
    with pytest.raises(Refused, match="There is no rule noria-local-promotion any more"):
        noria("redrive", "promotion")
    room.sqs.delete_queue(QueueUrl=queue)


def test_a_replay_goes_to_the_rules_that_are_named(archived: Room) -> None:
    room, spec = archived, archived.place.model()
    began = datetime.now(UTC) - timedelta(seconds=1)
    room.place.put(f"{spec.model}/incoming/a.csv", table(spec))
    settle(room, "validate-upload", "request-retraining")
    for rule in ("request_retraining", "noria-local-request-retraining-causes"):
        told = noria("replay", "--since", began.isoformat(), "--rule", rule)
        assert told["rules"] == ["noria-local-request-retraining-causes"]
        assert settle(room, "validate-upload") == 0
        assert settle(room, "request-retraining") >= 1
    with pytest.raises(Refused, match="Nothing lies between"):
        noria("replay", "--since", "1h", "--until", "2h")
    with pytest.raises(Refused, match="export-ledger: neither a rule nor a reaction that has one"):
        noria("replay", "--since", "1h", "--rule", "export-ledger")
    with pytest.raises(Refused, match="--since 'yesterday' is no time"):
        noria("replay", "--since", "yesterday")


# --- parts


@dataclass
class Dying:
    """A client of AWS whose process is killed right before one of its calls."""

    client: Any
    at: str

    def __getattr__(self, name: str) -> Any:
        if name == self.at:
            raise KeyboardInterrupt
        return getattr(self.client, name)


def taken(room: Room, queue: str) -> dict[str, Any]:
    """The only event that a queue has, or gets within seconds; it is thrown away."""
    (message,) = room.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=20)["Messages"]
    room.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    event: dict[str, Any] = json.loads(message["Body"])
    return event


def pauses(room: Room, storage: Storage | None = None) -> Pauses:
    return Pauses(
        names=room.place.names,
        ledger=room.place.ledger,
        storage=storage or Storage(bucket=BUCKET),
        queues=Queues(),
    )


def wait(room: Room, spec: ModelSpec, number: int) -> None:
    """Set events of a model aside."""
    for _ in range(number):
        event = Held(model=spec.model, sent=time.time_ns() // 10**6, reaction="validate-upload", message=str(uuid4()))
        room.place.put(event.key, "{}")


def decide(room: Room, spec: ModelSpec, action: str, *, at: int, until: datetime | None = None) -> None:
    asked = {
        "model": spec.model,
        "action": action,
        "until": until,
        "reason": "a test",
        "by": "arn:aws:iam::123456789012:user/ann",
        "requested_at": datetime.now(UTC) + timedelta(milliseconds=at),
        "request": f"{spec.model}-{action}",
    }
    assert pauses(room).decide(PauseRequest.model_validate(asked), datetime.now(UTC))


def log(room: Room, reaction: str, event: str, error: str) -> None:
    """A line as a reaction writes it."""
    line = {"level": "ERROR", "message": "Failed", "event_id": event, "exception": f"Traceback\n  File\n{error}"}
    ship(json.dumps(line), f"/aws/lambda/{room.place.names.function(reaction)}", stream="of recovery")


def settle(room: Room, *reactions: str) -> int:
    """Work until nothing has come for a while; how many messages that were."""
    done, quiet = 0, 0
    while quiet < 5:
        worked = room.work(*reactions)
        done, quiet = done + worked, 0 if worked else quiet + 1
        time.sleep(0.1)
    return done


def history(room: Room, spec: ModelSpec) -> dict[str, Any]:
    """All that is known of a model: its objects with their versions, its record, its trainings, its pages."""
    versions = Storage(bucket=BUCKET).versions(f"{spec.model}/")
    return {
        "objects": {(each.key, each.version) for each in versions},
        "ledger": [entry.hash for entry in room.place.entries(spec.model)],
        "executions": executions(room.place, spec),
        "pages": room.place.told(spec.model),
    }
