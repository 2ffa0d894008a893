"""Adapters against moto: a second opinion on what AWS answers, from people who did not write the local cloud."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from noria.alarms import Severity
from noria.aws.bus import Bus, BusError
from noria.aws.captures import Captures
from noria.aws.ledger import Ledger
from noria.aws.metrics import Measurement, Measurements
from noria.aws.pages import Matter, Page, Pages
from noria.aws.queues import Queues
from noria.aws.registry import Registry
from noria.aws.schedules import Schedules
from noria.aws.storage import Storage
from noria.events import DatasetAccepted
from noria.ledger import Fact, Kind, Problem, verify
from tests.integration.moto_cloud import in_memory

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with in_memory(monkeypatch, "eu-west-1"):
        yield


@pytest.fixture
def storage() -> Storage:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
    return Storage(bucket="data")


@pytest.fixture
def ledger() -> Ledger:
    boto3.client("dynamodb").create_table(
        TableName="ledger",
        KeySchema=[{"AttributeName": "model", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "model", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    return Ledger(table="ledger")


def fact(subject: str, *, model: str = "m", at: datetime = NOW) -> Fact:
    return Fact(model=model, kind=Kind.DATASET_ACCEPTED, subject=subject, at=at, summary=f"{subject} came")


def test_an_earlier_version_of_an_object_is_read_and_copied(storage: Storage, tmp_path: Path) -> None:
    first = boto3.client("s3").put_object(Bucket="data", Key="m/incoming/a.csv", Body=b"first")["VersionId"]
    storage.write("m/incoming/a.csv", "second")
    got = storage.download("m/incoming/a.csv", tmp_path / "a", version=first)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert (got.sha256, got.size) == (hashlib.sha256(b"first").hexdigest(), 5)
    storage.copy("m/incoming/a.csv", "m/datasets/x/data.csv", version=first)
    assert storage.read("m/datasets/x/data.csv") == b"first"
    assert [v.size for v in storage.versions("m/incoming/")] == [6, 5]


def test_writing_once_leaves_what_is_there(storage: Storage) -> None:
    assert storage.write_once("m/x.json", "1")
    assert not storage.write_once("m/x.json", "2")
    assert storage.read("m/x.json") == b"1"
    assert storage.exists("m/x.json")
    assert not storage.exists("m/x")


def test_a_file_replaces_only_what_was_read(storage: Storage, tmp_path: Path) -> None:
    file, there = tmp_path / "file", tmp_path / "there"
    file.write_bytes(b"first")
    assert storage.replace("m/x", file, etag=None)
    assert not storage.replace("m/x", file, etag=None)
    read = storage.download("m/x", there)
    file.write_bytes(b"second")
    assert storage.replace("m/x", file, etag=read.etag)
    assert not storage.replace("m/x", file, etag=read.etag)
    assert storage.read("m/x") == b"second"


@pytest.mark.parametrize("size", [0, 9, 9 * 1024**2])  # the last in parts
def test_what_was_brought_from_another_bucket_is_brought_once(storage: Storage, size: int) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="there", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_object(Bucket="there", Key="m/runs/1/model.tar.gz", Body=b"1" * size)
    assert storage.bring("m/runs/1/model.tar.gz", source="there")
    first = storage.newest_version("m/runs/1/model.tar.gz")
    assert not storage.bring("m/runs/1/model.tar.gz", source="there")
    assert storage.newest_version("m/runs/1/model.tar.gz") == first
    assert storage.read("m/runs/1/model.tar.gz") == b"1" * size
    storage.write("m/runs/1/model.tar.gz", "what is written otherwise is written as before")
    with pytest.raises(FileExistsError, match=r"s3://data/m/runs/1/model.tar.gz is not what lies in s3://there/m"):
        storage.bring("m/runs/1/model.tar.gz", source="there")
    assert storage.read("m/runs/1/model.tar.gz").startswith(b"what is written otherwise")


def test_a_bucket_is_emptied_of_all_versions_and_markers(storage: Storage) -> None:
    for _ in range(3):
        storage.write("a", "x")
    boto3.client("s3").delete_object(Bucket="data", Key="a")
    assert storage.delete_everything() == 4
    boto3.client("s3").delete_bucket(Bucket="data")


def test_captured_files_are_found_by_hour_and_newest_first(storage: Storage, tmp_path: Path) -> None:
    captures = Captures(model="m", endpoint="e", storage=storage)
    for name in ("2026/11/21/09/a", "2026/11/21/11/b", "2026/11/21/12/c", "2026/11/20/23/d"):
        storage.write(f"m/captured/e/champion/{name}.jsonl", name)
    storage.write("m/captured/e/challenger/2026/11/21/11/z.jsonl", "z")
    found = captures.between(NOW - timedelta(hours=1), NOW)
    assert [file.key[-7:-6] for file in found] == ["b", "c"]
    newest = captures.newest(now=NOW, days=1, most_bytes=3 * len("2026/11/21/09/a"))
    assert [file.key[-7:-6] for file in newest] == ["c", "b", "a"]
    paths = captures.fetch(found, tmp_path)
    assert [path.read_text()[-1] for path in paths] == ["b", "c"]
    assert [file.key[-7:-6] for file in captures.of_day(NOW.date())] == ["a", "b", "c"]
    storage.write("m/captured/e/champion/2026/11/22/00/e.jsonl", "written after midnight")
    assert [file.key[-7:-6] for file in captures.of_day(NOW.date())] == ["a", "b", "c", "e"]


def test_a_fact_is_recorded_once_and_chained(ledger: Ledger) -> None:
    assert ledger.record(fact("one"))
    assert not ledger.record(fact("one", at=NOW + timedelta(hours=1)))
    assert ledger.record(fact("two"))
    assert ledger.record(fact("one", model="other"))
    entries = ledger.entries("m")
    assert [(entry.number, entry.subject, entry.at) for entry in entries] == [(1, "one", NOW), (2, "two", NOW)]
    assert verify(entries) == []
    assert [entry.model for entry in ledger.newest(["m", "other"])] == ["m", "m", "other"]


def test_facts_are_appended_together_and_only_after_what_was_looked_at(ledger: Ledger) -> None:
    assert ledger.append([fact("one"), fact("two")], after=None)
    seen = ledger.entries("m")
    assert ledger.append([fact("three")], after=seen[-1])
    assert not ledger.append([fact("four")], after=seen[-1])
    assert not ledger.append([fact("five")], after=None)
    assert ledger.append([], after=seen[-1])
    entries = ledger.entries("m")
    assert [entry.subject for entry in entries] == ["one", "two", "three"]
    assert verify(entries) == []
    assert ledger.record(fact("four"))


def test_one_tells_at_a_time_and_who_dies_is_replaced(ledger: Ledger) -> None:
    with ledger.claim("m", "page", now=NOW) as ours, ledger.claim("m", "page", now=NOW) as theirs:
        assert (ours, theirs) == (True, False)
    with ledger.claim("m", "page", now=NOW + timedelta(minutes=1)) as soon:
        assert not soon
    with pytest.raises(ZeroDivisionError), ledger.claim("m", "page", now=NOW + timedelta(minutes=3)) as later:
        _ = 1 / (later - 1)
    with ledger.claim("m", "page", now=NOW + timedelta(minutes=3)) as after_the_error:
        assert after_the_error
    assert ledger.entries("m") == []


def test_an_entry_that_someone_removes_or_edits_shows(ledger: Ledger) -> None:
    for subject in ("one", "two", "three"):
        ledger.record(fact(subject))
    table = boto3.resource("dynamodb").Table("ledger")
    table.delete_item(Key={"model": "m", "sk": "entry#000000000002"})
    (missing,) = verify(ledger.entries("m"))
    assert (missing.entry, missing.problem) == (2, Problem.MISSING)


def _queue(name: str) -> tuple[str, str]:
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return url, arn


def _received(url: str) -> list[Any]:
    messages = boto3.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


@pytest.mark.parametrize("matter", [Matter.ROLLED_BACK, Matter.QUARANTINED])
def test_a_page_reaches_those_who_hear_of_its_severity_within_the_limits_of_sns(matter: Matter) -> None:
    sns, topics, queues = boto3.client("sns"), {}, {}
    for severity in Severity:
        topics[severity] = sns.create_topic(Name=severity)["TopicArn"]
        queues[severity], arn = _queue(severity)
        sns.subscribe(TopicArn=topics[severity], Protocol="sqs", Endpoint=arn)
    page = Page(
        matter=matter,
        subject="Überlänge\n" * 30,
        what="It broke.",
        where="here",
        do="Mend it.",
        command="noria status",
    )
    Pages(topics=topics).send(page)
    heard = {severity: _received(url) for severity, url in queues.items()}
    (received,) = heard.pop(matter.severity)
    assert list(heard.values()) == [[]]
    assert f"Severity: {matter.severity}, because {matter.why}." in received["Message"]
    assert len(received["Subject"]) == 100
    assert received["Subject"].isascii()
    assert "It broke." in received["Message"]
    assert "noria status" in received["Message"]


def test_an_event_is_published_on_the_bus_that_is_named() -> None:
    events = boto3.client("events")
    events.create_event_bus(Name="noria-test")
    events.put_rule(Name="all", EventBusName="noria-test", EventPattern=json.dumps({"source": ["noria"]}))
    url, arn = _queue("listener")
    events.put_targets(Rule="all", EventBusName="noria-test", Targets=[{"Id": "q", "Arn": arn}])
    accepted = DatasetAccepted.model_validate(
        json.loads((Path(__file__).parents[1] / "events" / "noria-dataset-accepted.json").read_text())
    )
    Bus(name="noria-test").publish(accepted)
    (received,) = _received(url)
    assert (received["source"], received["detail-type"]) == ("noria", "Dataset Accepted")
    assert received["detail"] == json.loads(accepted.detail.model_dump_json(exclude={"correlation"}))


def test_an_event_that_the_bus_does_not_take_is_an_error() -> None:
    class Refuses:
        def put_events(self, **_: object) -> dict[str, Any]:
            return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException", "ErrorMessage": "slow"}]}

    accepted = DatasetAccepted.model_validate(
        json.loads((Path(__file__).parents[1] / "events" / "noria-dataset-accepted.json").read_text())
    )
    with pytest.raises(BusError, match="ThrottlingException: slow"):
        Bus(name="b", client=Refuses()).publish(accepted)  # type: ignore[arg-type]


def test_measurements_carry_model_feature_and_time() -> None:
    measurements = Measurements()
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    measured = [Measurement(name="Psi", value=0.3, feature="temp"), Measurement(name="Rows", value=7)]
    measurements.publish("m", measured, at=now)
    client = boto3.client("cloudwatch")
    metrics = client.list_metrics(Namespace="Noria")["Metrics"]
    described = {m["MetricName"]: {d["Name"]: d["Value"] for d in m["Dimensions"]} for m in metrics}
    assert described == {"Psi": {"Model": "m", "Feature": "temp"}, "Rows": {"Model": "m"}}
    assert measurements.alarm_state("none") is None


def test_a_message_is_sent_to_a_queue_by_name() -> None:
    url, _ = _queue("noria-test-monitor-model")
    Queues().send("noria-test-monitor-model", '{"a": 1}')
    assert _received(url) == [{"a": 1}]


def test_a_look_booked_twice_is_booked_once() -> None:
    scheduler = boto3.client("scheduler")
    scheduler.create_schedule_group(Name="group")
    _, arn = _queue("q")
    schedules = Schedules(
        group="group", role_arn="arn:aws:iam::123456789012:role/r", queue_arn=arn, dead_letters_arn=arn
    )
    soon = datetime.now(UTC) + timedelta(hours=1)
    for later in (0, 1):
        schedules.once("look", at=soon + timedelta(hours=later), message="{}")
    booked = scheduler.get_schedule(Name="look", GroupName="group")
    assert booked["ScheduleExpression"] == f"at({soon:%Y-%m-%dT%H:%M:%S})"
    assert booked["ActionAfterCompletion"] == "DELETE"


def test_packages_are_listed_and_decided_with_a_reason() -> None:
    sagemaker = boto3.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="g")
    first, second = (
        sagemaker.create_model_package(
            ModelPackageGroupName="g",
            ModelApprovalStatus="PendingManualApproval",
        )["ModelPackageArn"]
        for _ in range(2)
    )
    registry = Registry()
    registry.decide(first, "Approved", reason="passed its gates")
    package = registry.describe(first)
    assert (package.approval, package.reason) == ("Approved", "passed its gates")
    assert {(p.arn, p.version, p.approval) for p in registry.packages("g")} == {
        (second, 2, "PendingManualApproval"),
        (first, 1, "Approved"),
    }


def test_a_look_that_should_have_been_is_booked_for_the_next_minute() -> None:
    scheduler = boto3.client("scheduler")
    scheduler.create_schedule_group(Name="group")
    _, arn = _queue("q")
    schedules = Schedules(
        group="group", role_arn="arn:aws:iam::123456789012:role/r", queue_arn=arn, dead_letters_arn=arn
    )
    schedules.once("late", at=NOW - timedelta(days=365), message="{}")
    booked = scheduler.get_schedule(Name="late", GroupName="group")["ScheduleExpression"]
    moment = datetime.fromisoformat(booked.removeprefix("at(").removesuffix(")")).replace(tzinfo=UTC)
    assert timedelta(0) < moment - datetime.now(UTC) <= timedelta(minutes=1)
