"""What no event told is found and told again, once, in the shape that AWS gives it."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import lambdas.reconcile.handler as reconcile
from lambdas.confirm_deployment.handler import handler as confirm_deployment
from lambdas.deploy_model.handler import handler as deploy_model
from lambdas.export_ledger.handler import handler as export_ledger
from lambdas.record_training.handler import handler as record_training
from lambdas.request_retraining.handler import handler as request_retraining
from lambdas.start_training.handler import handler as start_training
from lambdas.write_card.handler import handler as write_card
from local.cloud import ACCOUNT
from noria.aws.ledger import Copies
from noria.batch import batch_token
from noria.events import TransformJobStateChange, parse
from noria.ledger import Fact, Kind
from noria.spec import ModelSpec
from tests.integration.reactions.place import BUCKET, COPIES, Place
from tests.integration.reactions.served import Served
from tests.integration.reactions.test_hours import keep_hours, set_hours
from tests.integration.reactions.test_training import dataset, ended, evaluation, executions, granted, pipeline


@pytest.fixture
def served(place: Place, monkeypatch: pytest.MonkeyPatch, everything: None) -> Served:
    """A model with all its parts, in an environment that has no other; nothing is too young to be missed."""
    for other in place.models.glob("*.json"):
        other.unlink()
    spec = place.model()
    pipeline(place, spec, group=False)
    place.put(f"{spec.model}/runs/one/evaluation.json", evaluation(passed=True))
    monkeypatch.setattr(reconcile, "GRACE", timedelta(seconds=-5))
    return Served(place, spec.model).create()


def run(served: Served) -> dict[str, list[dict[str, Any]]]:
    """One reconciliation; returns what it told, by reaction."""
    tick = {"source": "noria.schedule", "detail-type": "Reconcile", "detail": {"time": "2026-11-21T10:00:00Z"}}
    served.place.deliver(reconcile.handler, tick)
    reactions = (
        "validate-upload",
        "request-retraining",
        "start-training",
        "record-training",
        "deploy-model",
        "confirm-deployment",
        "predict-batch",
        "join-labels",
        "write-card",
    )
    # Other tests' schedules and reactions send to these queues too.
    told = {
        reaction: [event for event in served.place.waiting(reaction) if event.get("id", "").startswith("replayed-")]
        for reaction in reactions
    }
    return {reaction: events for reaction, events in told.items() if events}


def told_once(served: Served, reaction: str, handler: Callable[[dict[str, Any], Any], None]) -> None:
    """Exactly this is told, the reaction takes it, and it is not told again."""
    told = run(served)
    assert list(told) == [reaction]
    (event,) = told[reaction]
    served.place.deliver(handler, event)
    assert reaction not in run(served)
    assert Kind.REPLAYED in served.kinds()


def spec_of(served: Served) -> ModelSpec:
    return ModelSpec.model_validate_json((served.place.models / f"{served.model}.json").read_text())


def test_where_nothing_happened_nothing_is_missed(served: Served) -> None:
    assert run(served) == {}
    assert served.kinds() == []


def test_a_model_whose_stack_is_not_deployed_yet_misses_nothing_and_keeps_nobody_waiting(served: Served) -> None:
    cloudformation = served.place.client("cloudformation")
    stack = served.place.names.stack(served.model, "serving")
    cloudformation.delete_stack(StackName=stack)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
    served.place.put(f"{served.model}/incoming/a.csv", "x")
    assert list(run(served)) == ["validate-upload"]


def test_entries_without_a_locked_copy_get_one_once(served: Served) -> None:
    model, place = served.model, served.place
    for name in ("one", "two"):
        fact = Fact(model=model, kind=Kind.MONITORED, subject=name, at=datetime.now(UTC), summary=f"Window {name}.")
        place.ledger.record(fact)
    run(served)
    (event,) = (event for event in place.waiting("export-ledger") if event["detail"]["model"] == model)
    for _ in range(2):  # an event may come twice
        place.deliver(export_ledger, event)
    assert Copies.of(COPIES).read(model) == {entry.number: entry.body for entry in place.entries(model)}
    assert served.kinds() == [Kind.MONITORED, Kind.MONITORED, Kind.REPLAYED]
    assert place.told(model) == []
    run(served)
    assert place.waiting("export-ledger") == []
    assert len(place.entries(model)) == 3


def test_an_upload_without_a_verdict(served: Served) -> None:
    first = served.place.put(f"{served.model}/incoming/a.csv", "x")
    second = served.place.put(f"{served.model}/incoming/a.csv", "y")
    served.place.put(f"{served.model}/incoming/folder/", "")
    served.place.ledger.record(
        Fact(
            model=served.model,
            kind=Kind.DATASET_QUARANTINED,
            subject=first,
            at=datetime.now(UTC),
            summary="It is in quarantine.",
        )
    )
    (event,) = run(served)["validate-upload"]
    assert event["detail"]["object"]["version-id"] == second
    assert run(served) == {}


def test_of_what_waits_behind_a_hundred_others_little_is_told_again(served: Served) -> None:
    sqs, queue = served.place.client("sqs"), served.place.names.queue("validate-upload")
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    sqs.purge_queue(QueueUrl=url)
    for _ in range(10):
        entries = [{"Id": str(number), "MessageBody": "{}"} for number in range(10)]
        sqs.send_message_batch(QueueUrl=url, Entries=entries)
    for number in range(7):
        served.place.put(f"{served.model}/incoming/{number}.csv", "x")
    assert len(run(served)["validate-upload"]) == 5  # it takes what waits
    assert served.kinds() == [Kind.REPLAYED] * 5
    assert len(run(served)["validate-upload"]) == 2


def test_labels_that_were_neither_joined_nor_refused(served: Served) -> None:
    place, model = served.place, served.model
    versions = [place.put(f"{model}/labels/{name}.csv", "x") for name in ("joined", "kept", "refused", "lost")]
    place.put(f"{model}/labels/folder/", "")
    for kind, subject, details in (
        (Kind.LABELS_JOINED, versions[0], {"versions": versions[:2]}),
        (Kind.LABELS_REFUSED, versions[2], {}),
    ):
        fact = Fact(
            model=model, kind=kind, subject=subject, at=datetime.now(UTC), summary="Labels came.", details=details
        )
        place.ledger.record(fact)
    (event,) = run(served)["join-labels"]
    assert event["detail"]["object"]["version-id"] == versions[3]
    assert run(served) == {}


def test_a_file_of_rows_without_an_answer_and_a_job_whose_end_nobody_heard(served: Served) -> None:
    place = served.place
    version = place.put(f"{served.model}/batch/week.csv", "hour\n7\n")
    place.put(f"{served.model}/batch/week.csv.out", "x")
    place.put(f"{served.model}/batch/folder/", "")
    other = place.put(f"{served.model}/batch/week.parquet", "x")
    versions = {event["detail"]["object"]["version-id"] for event in run(served)["predict-batch"]}
    assert versions == {version, other}
    package = served.register()
    place.sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    role = f"arn:aws:iam::{ACCOUNT}:role/everything"
    place.sagemaker.create_model(
        ModelName=served.name, ExecutionRoleArn=role, PrimaryContainer={"ModelPackageName": package}
    )
    source = f"s3://{BUCKET}/{served.model}/transforms/token/rows.csv"
    data = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}
    place.sagemaker.create_transform_job(
        TransformJobName=served.name,
        ModelName=served.name,
        TransformInput={"DataSource": data},
        TransformOutput={"S3OutputPath": f"s3://{BUCKET}/{served.model}/transforms/token/"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    token = batch_token(f"{served.model}/batch/week.csv", version)
    place.ledger.record(
        Fact(
            model=served.model,
            kind=Kind.BATCH_STARTED,
            subject=token,
            at=datetime.now(UTC),
            summary="It is being answered.",
            details={"job": served.name},
        )
    )
    deadline = time.monotonic() + 30
    while not (told := run(served).get("predict-batch")):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    (event,) = told
    assert parse({"Records": [{"body": json.dumps(event)}]}, TransformJobStateChange).detail.status == "Failed"
    assert run(served) == {}


def test_a_dataset_that_nobody_trained_on(served: Served) -> None:
    spec = spec_of(served)
    dataset(served.place, spec, 1)
    told_once(served, "request-retraining", request_retraining)
    assert Kind.RETRAINING_REQUESTED in served.kinds()


def test_a_granted_training_that_never_began(served: Served) -> None:
    spec = spec_of(served)
    dataset(served.place, spec, 1)
    granted(served.place, spec, request=f"{1:064x}")
    told_once(served, "start-training", start_training)
    assert Kind.TRAINING_STARTED in served.kinds()


def test_an_execution_whose_end_was_not_heard(served: Served) -> None:
    spec = spec_of(served)
    dataset(served.place, spec, 1)
    served.place.deliver(start_training, granted(served.place, spec))
    ended(served.place, executions(served.place, spec)[0]["PipelineExecutionArn"])
    told_once(served, "record-training", record_training)
    assert Kind.TRAINING_SUCCEEDED in served.kinds()


def test_an_approval_that_was_not_heard(served: Served) -> None:
    served.decide(served.register(), "Approved")
    told = run(served)
    assert list(told) == ["deploy-model"]
    served.place.deliver(deploy_model, told["deploy-model"][0])
    served.confirm()
    assert run(served) == {}
    assert Kind.DEPLOYED in served.kinds()


def test_a_version_that_was_registered_by_hand_gets_its_card_before_it_is_decided(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORIA_KEY_ARN", "alias/cards")
    served.register()
    told = run(served)
    assert list(told) == ["write-card"]
    for _ in range(2):
        served.place.deliver(write_card, told["write-card"][0])
    card = served.place.sagemaker.describe_model_card(ModelCardName=f"{served.name}-1")
    assert card["ModelCardStatus"] == "PendingReview"
    assert card["ModelCardVersion"] == 1
    assert run(served) == {}


def test_a_deployment_whose_end_was_not_heard(served: Served) -> None:
    served.approve(served.register())
    served.stack()
    told_once(served, "confirm-deployment", confirm_deployment)
    assert Kind.DEPLOYED in served.kinds()
    start = f"{served.place.names.model(served.model)}-"
    actions = served.place.sagemaker.list_actions(MaxResults=100)["ActionSummaries"]
    written = {(a["ActionType"], a["Status"]) for a in actions if a["ActionName"].startswith(start)}
    assert written == {("Approval", "Completed"), ("Deployment", "Completed")}


def test_what_is_young_is_left_to_its_event(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "GRACE", timedelta(minutes=15))
    dataset(served.place, spec_of(served), 1)
    served.place.put(f"{served.model}/incoming/a.csv", "x")
    served.decide(served.register(), "Approved")
    assert run(served) == {}


def test_what_is_told_again_is_an_event(served: Served) -> None:
    served.place.put(f"{served.model}/incoming/a.csv", "x")
    (event,) = run(served)["validate-upload"]
    assert json.loads(json.dumps(event)) == event
    assert {"id", "time", "account", "region", "resources", "version"} <= event.keys()


def test_hours_of_which_nobody_heard_are_told_and_those_that_are_kept_are_not(served: Served) -> None:
    served.approve(served.register())
    served.confirm()
    set_hours(served, within=True)
    assert "deploy-model" not in run(served)
    set_hours(served, within=False)
    (told,) = run(served)["deploy-model"]
    assert (told["detail-type"], told["detail"]["model"]) == ("Keep Hours", served.model)
    keep_hours(served)
    served.confirm()
    assert served.wanted() == "none"
    assert "deploy-model" not in run(served)
