"""Events as AWS documents them are read; anything else is refused with what was wrong."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from noria import events
from noria.events import (
    AlarmStateChange,
    DatasetAccepted,
    EndpointDeploymentStateChange,
    EndpointStateChange,
    Event,
    EventError,
    LabelsTold,
    ModelDeployed,
    ModelPackageStateChange,
    ObjectCreated,
    PipelineExecutionStatusChange,
    RetrainingRequested,
    StackStatusChange,
    Tick,
    parse,
)

FIXTURES = sorted((Path(__file__).parent.parent / "events").glob("*.json"))
KINDS: list[type[Event]] = [
    kind for kind in vars(events).values() if isinstance(kind, type) and hasattr(kind, "DETAIL_TYPES")
]


def fixture(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES[0].parent / f"{name}.json").read_text())
    return found


def message(body: object) -> dict[str, Any]:
    return {"Records": [{"messageId": "1", "body": json.dumps(body)}]}


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_every_captured_event_is_read_by_exactly_one_type(path: Path) -> None:
    body = json.loads(path.read_text())
    readers = [k for k in KINDS if body["source"] == k.SOURCE and body["detail-type"] in k.DETAIL_TYPES]
    assert len(readers) == 1
    assert isinstance(parse(message(body), readers[0]), readers[0])


def test_every_type_has_a_captured_event() -> None:
    said = {(body["source"], body["detail-type"]) for body in (json.loads(path.read_text()) for path in FIXTURES)}
    assert {(kind.SOURCE, name) for kind in KINDS for name in kind.DETAIL_TYPES} == said


@pytest.mark.parametrize("told", ["   ", "", "x" * 129, 7, ["e1"], None])
def test_a_correlation_that_is_none_is_ignored_and_the_event_is_not(told: object) -> None:
    body = fixture("noria-labels-told")
    body["detail"]["correlation"] = told
    assert parse(message(body), LabelsTold).detail.correlation is None


def test_an_upload_names_the_exact_version() -> None:
    upload = parse(message(fixture("aws.s3-object-created")), ObjectCreated).detail
    assert upload.bucket == "noria-local-data"
    assert upload.object.key == "flight-delay/incoming/2013-01.csv"
    assert upload.object.version == "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"
    assert (upload.requester, upload.request) == ("123456789012", "N4N7GDK58NMKJ12R")


def test_a_pipeline_execution_names_its_pipeline() -> None:
    body = fixture("aws.sagemaker-model-building-pipeline-execution-status-change")
    change = parse(message(body), PipelineExecutionStatusChange).detail
    assert (change.pipeline, change.status) == ("noria-local-flight-delay", "Succeeded")


@pytest.mark.parametrize(
    ("fields", "decision"),
    [(["ModelApprovalStatus", "ApprovalDescription"], True), (["CustomerMetadataProperties"], False), (None, True)],
)
def test_only_a_changed_approval_is_a_decision(fields: list[str] | None, *, decision: bool) -> None:
    body = fixture("aws.sagemaker-model-package-state-change")
    body["detail"]["UpdatedModelPackageFields"] = fields
    assert parse(message(body), ModelPackageStateChange).is_decision is decision


def test_a_decision_is_told_from_the_next_by_its_time_to_the_second() -> None:
    body = fixture("aws.sagemaker-model-package-state-change")
    body["detail"]["LastModifiedTime"] = 1614186014987
    assert parse(message(body), ModelPackageStateChange).decided_at == datetime(2021, 2, 24, 17, 0, 14, tzinfo=UTC)


def test_endpoint_times_may_be_milliseconds_in_a_string() -> None:
    change = parse(message(fixture("aws.sagemaker-endpoint-state-change")), EndpointStateChange)
    assert change.time == datetime(2020, 3, 10, 9, 18, 9, 50000, tzinfo=UTC)
    assert change.detail.status == "IN_SERVICE"


def test_an_alarm_says_when_it_changed() -> None:
    state = parse(message(fixture("aws.cloudwatch-alarm-state-change")), AlarmStateChange).detail.state
    assert (state.value, state.at) == ("ALARM", datetime(2019, 10, 2, 17, 4, 40, 989000, tzinfo=UTC))


def test_a_stack_event_names_stack_and_operation() -> None:
    change = parse(message(fixture("aws.cloudformation-stack-status-change")), StackStatusChange).detail
    assert (change.stack, change.status, change.token) == (
        "noria-local-flight-delay-serving",
        "UPDATE_COMPLETE",
        "deploy-0123456789abcdef",
    )


def test_one_of_several_types_is_chosen_by_what_the_event_says() -> None:
    body = fixture("aws.sagemaker-endpoint-deployment-state-change")
    change = parse(message(body), EndpointStateChange, EndpointDeploymentStateChange, StackStatusChange)
    assert isinstance(change, EndpointDeploymentStateChange)


@pytest.mark.parametrize(
    ("sent", "wrong"),
    [
        ({}, "not an SQS event of one record"),
        ({"Records": []}, "not an SQS event of one record"),
        ({"Records": [{"body": "{"}]}, "not an SQS event of one record"),
        (message(["no", "event"]), "not an event but list"),
        (message(fixture("noria.schedule-reconcile") | {"source": "aws.s3"}), "which takes: aws.s3 'Object Created'"),
        (message(fixture("aws.s3-object-created") | {"detail": {"bucket": {}}}), "detail.object: Field required"),
    ],
)
def test_what_is_no_such_event_is_refused_with_the_reason(sent: dict[str, Any], wrong: str) -> None:
    with pytest.raises(EventError, match=wrong):
        parse(sent, ObjectCreated)


def test_a_tick_without_a_model_is_refused_only_where_one_is_needed() -> None:
    tick = parse(message(fixture("noria.schedule-reconcile")), Tick)
    with pytest.raises(EventError, match="names no model"):
        _ = tick.model


@pytest.mark.parametrize("kind", [k for k in KINDS if issubclass(k, events.NoriaEvent)], ids=lambda k: k.__name__)
def test_own_events_survive_the_bus(kind: type[Any]) -> None:
    name = f"noria-{kind.DETAIL_TYPES[0].lower().replace(' ', '-')}"
    body = fixture(name)
    told = kind.of(type(parse(message(body), kind).detail).model_validate(body["detail"]))
    entry = told.entry("noria-local")
    assert entry["EventBusName"] == "noria-local"
    sent = {"source": entry["Source"], "detail-type": entry["DetailType"], "detail": json.loads(entry["Detail"])}
    assert parse(message(sent), kind) == told


def test_own_events_name_their_model() -> None:
    for kind in (DatasetAccepted, RetrainingRequested, ModelDeployed):
        assert "model" in kind.model_fields["detail"].annotation.model_fields  # type: ignore[union-attr]


def test_events_do_not_change() -> None:
    tick = parse(message(fixture("noria.schedule-monitor-model")), Tick)
    with pytest.raises(ValueError, match="frozen"):
        tick.__setattr__("source", "elsewhere")
    assert isinstance(tick, Event)
