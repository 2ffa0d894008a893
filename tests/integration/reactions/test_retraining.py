"""A drift alarm asks; the answer is in the ledger, on the bus, and, when it is no, in a booked re-check."""

import json
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from lambdas.request_retraining.handler import handler as request_retraining
from local.cloud import ACCOUNT, REGION
from noria.ledger import Fact, Kind
from noria.spec import ModelSpec
from tests.integration.reactions.place import Place

QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:noria-local-request-retraining"


@pytest.fixture(scope="module", autouse=True)
def _schedules(place: Place) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "NORIA_QUEUE_ARN": QUEUE,
            "NORIA_DEAD_LETTERS_ARN": f"{QUEUE}-dlq",
        }.items():
            patch.setenv(name, value)
        yield


def alarm(place: Place, spec: ModelSpec, at: str = "2026-11-21T10:00:00.000+0000", value: str = "ALARM") -> Any:
    state = {"value": value, "reason": "Threshold Crossed", "timestamp": at}
    detail = {"alarmName": place.names.monitor_alarm(spec.model, "drift"), "state": state}
    return place.event("aws.cloudwatch", "CloudWatch Alarm State Change", detail)


def accept(place: Place, spec: ModelSpec, sha: str) -> None:
    at = datetime.now(UTC)
    place.ledger.record(
        Fact(model=spec.model, kind=Kind.DATASET_ACCEPTED, subject=sha, at=at, summary="A dataset.", details={})
    )


def booked(spec: ModelSpec) -> list[Any]:
    scheduler = boto3.client("scheduler")
    names = [
        item["Name"]
        for item in scheduler.list_schedules(GroupName="noria-local")["Schedules"]
        if spec.model in item["Name"]
    ]
    return [scheduler.get_schedule(GroupName="noria-local", Name=name) for name in names]


def set_alarm(place: Place, spec: ModelSpec, value: Any) -> None:
    cloudwatch = boto3.client("cloudwatch")
    name = place.names.monitor_alarm(spec.model, "drift")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="Test",
        MetricName=name,
        Statistic="Sum",
        Period=86400,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="ignore",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=value, StateReason="the test says so")


def test_a_yes_is_recorded_and_told_again_with_the_same_message(place: Place) -> None:
    spec = place.model()
    accept(place, spec, "february")
    for _ in range(2):
        place.deliver(request_retraining, alarm(place, spec))
    (entry,) = place.entries(spec.model, Kind.RETRAINING_REQUESTED)
    assert "1 dataset arrived" in entry.summary
    told = place.events(spec.model, "Retraining Requested")
    assert len(told) == 2
    assert told[0] == told[1]
    assert told[0]["request"] == entry.subject
    (schedule,) = booked(spec)  # in case the training comes to nothing
    again = datetime.fromisoformat(str(entry.details["again_at"]))
    assert schedule["ScheduleExpression"] == f"at({again:%Y-%m-%dT%H:%M:%S})"


def test_a_no_books_one_look_later_and_says_when(place: Place) -> None:
    spec = place.model()
    for _ in range(2):
        place.deliver(request_retraining, alarm(place, spec))
    (entry,) = place.entries(spec.model, Kind.RETRAINING_DECLINED)
    assert "no data has arrived" in entry.summary
    (schedule,) = booked(spec)
    again = datetime.fromisoformat(str(entry.details["again_at"]))
    assert schedule["ScheduleExpression"] == f"at({again:%Y-%m-%dT%H:%M:%S})"
    assert schedule["ActionAfterCompletion"] == "DELETE"
    assert schedule["Target"]["Arn"] == QUEUE
    message = json.loads(schedule["Target"]["Input"])
    assert message["detail-type"] == "Recheck Alarm"
    told = place.events(spec.model, "Retraining Declined")
    assert datetime.fromisoformat(told[0]["again_at"]) == again


def test_the_look_later_finds_the_alarm_still_on_and_new_data(place: Place) -> None:
    spec = place.model()
    set_alarm(place, spec, "ALARM")
    place.deliver(request_retraining, alarm(place, spec))
    accept(place, spec, "march")
    place.deliver(request_retraining, json.loads(booked(spec)[0]["Target"]["Input"]))
    assert place.kinds(spec.model)[-1] is Kind.RETRAINING_REQUESTED


def test_the_look_later_finds_the_alarm_over(place: Place) -> None:
    spec = place.model()
    set_alarm(place, spec, "OK")
    place.deliver(request_retraining, alarm(place, spec))
    place.deliver(request_retraining, json.loads(booked(spec)[0]["Target"]["Input"]))
    assert place.kinds(spec.model) == [Kind.RETRAINING_DECLINED]


def test_an_alarm_that_ends_asks_for_nothing(place: Place) -> None:
    spec = place.model()
    place.deliver(request_retraining, alarm(place, spec, value="OK"))
    assert place.kinds(spec.model) == []


def test_an_alarm_of_nobody_is_left_alone(place: Place) -> None:
    spec = place.model()
    event = alarm(place, spec)
    event["detail"]["alarmName"] = "somebody-elses-drift"
    place.deliver(request_retraining, event)
    assert place.kinds(spec.model) == []


def test_a_never_books_nothing(place: Place) -> None:
    spec = place.model(retrain={"after": ["upload"]})
    place.deliver(request_retraining, alarm(place, spec))
    assert place.kinds(spec.model) == [Kind.RETRAINING_DECLINED]
    assert booked(spec) == []
