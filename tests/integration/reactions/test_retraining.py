"""Alarms, data, schedules and people ask; the answer is in the ledger, on the bus, and in a booked look later."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from lambdas.request_retraining.handler import handler as request_retraining
from local.cloud import ACCOUNT, REGION
from noria.cli.commands import app
from noria.ledger import Fact, Kind
from noria.spec import ModelSpec
from noria.training import training_token
from tests.integration.reactions.place import BUCKET, Place

QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:noria-local-request-retraining"


@pytest.fixture(scope="module", autouse=True)
def _schedules(place: Place) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "NORIA_QUEUE_ARN": QUEUE,
            "NORIA_DEAD_LETTERS_ARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:noria-local-dead-letters",
        }.items():
            patch.setenv(name, value)
        yield


def alarm(
    place: Place,
    spec: ModelSpec,
    at: str = "2026-11-21T10:00:00.000+0000",
    value: str = "ALARM",
    monitor: str = "drift",
) -> Any:
    state = {"value": value, "reason": "Threshold Crossed", "timestamp": at}
    detail = {"alarmName": place.names.monitor_alarm(spec.model, monitor), "state": state}
    return place.event("aws.cloudwatch", "CloudWatch Alarm State Change", detail)


def record(place: Place, spec: ModelSpec, kind: Kind, subject: str, **details: Any) -> None:
    at = datetime.now(UTC)
    place.ledger.record(
        Fact(model=spec.model, kind=kind, subject=subject, at=at, summary="It is said.", details=details)
    )


def accept(place: Place, spec: ModelSpec, sha: str, rows: int = 1000) -> dict[str, Any]:
    """A dataset that is accepted; returns the event that tells it."""
    record(place, spec, Kind.DATASET_ACCEPTED, sha, rows=rows, key=f"{spec.model}/incoming/{sha}.csv")
    detail = {
        "model": spec.model,
        "dataset": sha,
        "key": f"{spec.model}/incoming/{sha}.csv",
        "version": "v",
        "rows": rows,
    }
    return place.event("noria", "Dataset Accepted", detail)


def begin(place: Place, spec: ModelSpec, request: str, *datasets: str) -> str:
    """A granted training begins; returns its execution."""
    execution = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/{spec.model}/execution/{request[:12]}"
    token = training_token(spec.model, request)
    record(place, spec, Kind.TRAINING_STARTED, token, execution=execution, datasets=list(datasets))
    return execution


def end(place: Place, spec: ModelSpec, execution: str, outcome: str = "succeeded") -> dict[str, Any]:
    """A training ends; returns the event that tells it."""
    kind = Kind.TRAINING_SUCCEEDED if outcome == "succeeded" else Kind.TRAINING_FAILED
    record(place, spec, kind, execution, refused=outcome == "refused", hours=0.1)
    detail = {"model": spec.model, "execution": execution, "outcome": outcome, "package": None}
    return place.event("noria", "Training Ended", detail)


def wanted(place: Place, spec: ModelSpec, *, force: bool = False, request: str = "wish-1") -> dict[str, Any]:
    detail = {"model": spec.model, "reason": "a new airport", "by": "arn:aws:iam::1:user/ana", "force": force}
    detail |= {"requested_at": "2026-11-21T10:00:00Z", "request": request}
    return place.event("noria", "Retraining Wanted", detail)


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
    assert entry.summary.startswith(
        "Drift alarm: trains: Data drift is beyond its limit; no training has learnt from 1"
    )
    assert (entry.details["new_rows"], entry.details["runs"], entry.details["budget_runs"]) == (1000, 0, 4)
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
    assert entry.details["rules"] == ["rows"]
    (schedule,) = booked(spec)
    again = datetime.fromisoformat(str(entry.details["again_at"]))
    assert schedule["ScheduleExpression"] == f"at({again:%Y-%m-%dT%H:%M:%S})"
    assert schedule["ActionAfterCompletion"] == "DELETE"
    assert schedule["Target"]["Arn"] == QUEUE
    message = json.loads(schedule["Target"]["Input"])
    assert message["detail-type"] == "Recheck Alarm"
    assert message["detail"]["correlation"] == entry.correlation == alarm(place, spec)["id"]
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
    for name in (
        "somebody-elses-drift",
        place.names.monitor_alarm(spec.model, "endpoint-errors"),
        place.names.monitor_alarm(spec.model, "invalid"),
        f"{place.names.challenger_alarms(spec.model)}shift",
        f"{place.names.model(spec.model)}-rollback-golden",
    ):
        event = alarm(place, spec)
        event["detail"]["alarmName"] = name
        place.deliver(request_retraining, event)
    assert place.kinds(spec.model) == []


def test_a_never_books_nothing(place: Place) -> None:
    spec = place.model(retrain={"after": ["upload"]})
    place.deliver(request_retraining, alarm(place, spec))
    assert place.kinds(spec.model) == [Kind.RETRAINING_DECLINED]
    assert booked(spec) == []


@pytest.mark.parametrize(
    ("monitor", "cause"),
    [("prediction-drift", "drift"), ("quality", "quality"), ("bias-disparate-impact-carrier", "bias")],
)
def test_each_alarm_that_may_ask_is_decided_on_by_its_own_word(place: Place, monitor: str, cause: str) -> None:
    watch = place.model().monitor.model_dump(mode="json") | {"bias": {"carrier": {"disparate_impact": 0.8}}}
    spec = place.model(monitor=watch, segments=["carrier"], retrain={"after": [cause]})
    accept(place, spec, "february")
    place.deliver(request_retraining, alarm(place, spec, monitor=monitor))
    (entry,) = place.entries(spec.model, Kind.RETRAINING_REQUESTED)
    assert entry.details["cause"] == cause


# --- data


def test_the_first_dataset_trains_whatever_the_policy_says(place: Place) -> None:
    spec = place.model(retrain={"after": []})
    event = accept(place, spec, "january")
    for _ in range(2):
        place.deliver(request_retraining, event)
    (entry,) = place.entries(spec.model, Kind.RETRAINING_REQUESTED)
    assert entry.subject == "january"
    assert [told["cause"] for told in place.events(spec.model, "Retraining Requested")] == ["first", "first"]
    assert booked(spec) == []


def test_many_datasets_at_once_are_one_training(place: Place) -> None:
    spec = place.model(retrain={"after": ["upload"], "cooldown": "1s", "budget": "9 per day"})
    events = [accept(place, spec, f"dataset-{number}") for number in range(4)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda event: place.deliver(request_retraining, event), events))
    kinds = place.kinds(spec.model)
    assert (kinds.count(Kind.RETRAINING_REQUESTED), kinds.count(Kind.TRAINING_HELD)) == (1, 3)
    held = place.entries(spec.model, Kind.TRAINING_HELD)
    assert all(entry.details["rules"] == ["flight"] for entry in held)


def test_a_dataset_that_waits_for_an_alarm_is_named_with_its_file_and_its_reason(place: Place) -> None:
    spec = place.model(retrain={"after": ["drift", "bias"], "new_rows": 50_000, "schedule": "rate(7 days)"})
    accept(place, spec, "january")
    execution = begin(place, spec, "january", "january")
    place.deliver(request_retraining, end(place, spec, execution))
    event = accept(place, spec, "february", rows=24_000)
    for _ in range(2):
        place.deliver(request_retraining, event)
    (held,) = place.entries(spec.model, Kind.TRAINING_HELD)
    assert held.summary == (
        "february.csv (24,000 rows) is held: by the policy they wait for an alarm of drift or bias, or 50,000 new rows "
        "(24,000 have come), or the schedule rate(7 days), or a person who asks (retrain)."
    )
    place.deliver(request_retraining, accept(place, spec, "march", rows=26_000))
    (entry,) = place.entries(spec.model, Kind.RETRAINING_REQUESTED)
    assert (entry.details["cause"], entry.details["new_rows"]) == ("rows", 50_000)


def test_what_came_while_a_training_ran_is_looked_at_when_it_ends(place: Place) -> None:
    spec = place.model(retrain={"after": []})
    place.deliver(request_retraining, accept(place, spec, "january"))
    execution = begin(place, spec, "january", "january")
    place.deliver(request_retraining, accept(place, spec, "february"))
    (held,) = place.entries(spec.model, Kind.TRAINING_HELD)
    assert held.details["rules"] == ["flight"]
    assert json.loads(booked(spec)[0]["Target"]["Input"])["detail-type"] == "Recheck Data"
    event = end(place, spec, execution, "failed")
    for _ in range(2):
        place.deliver(request_retraining, event)
    entries = place.entries(spec.model, Kind.RETRAINING_REQUESTED)
    assert [entry.subject for entry in entries] == ["january", f"data#after {execution}"]
    assert entries[-1].details["cause"] == "first"


def test_a_training_that_ends_asks_for_nothing_where_nothing_waits(place: Place) -> None:
    spec = place.model(retrain={"after": ["upload"]})
    place.deliver(request_retraining, accept(place, spec, "january"))
    execution = begin(place, spec, "january", "january")
    place.deliver(request_retraining, end(place, spec, execution, "refused"))
    kinds = place.kinds(spec.model)
    assert kinds[-1] is Kind.TRAINING_FAILED
    assert kinds.count(Kind.RETRAINING_REQUESTED) == 1


# --- a schedule, a person, a dry run


def test_a_schedule_asks_the_same_policy_and_is_asked_again_after_it(place: Place) -> None:
    spec = place.model(retrain={"after": [], "schedule": "rate(7 days)"})
    accept(place, spec, "january")
    record(place, spec, Kind.RETRAINING_REQUESTED, "before", cause="hand")
    begin(place, spec, "before")
    detail = {"model": spec.model, "time": "2026-11-21T10:00:00Z"}
    tick = {"source": "noria.schedule", "detail-type": "Start Training", "detail": detail}
    place.deliver(request_retraining, tick)
    (entry,) = place.entries(spec.model, Kind.RETRAINING_DECLINED)
    assert entry.details["rules"] == ["flight", "cooldown"]
    (schedule,) = booked(spec)
    assert json.loads(schedule["Target"]["Input"])["detail-type"] == "Start Training"


def test_a_person_is_recorded_with_their_reason_and_may_insist(place: Place) -> None:
    spec = place.model(retrain={"budget": "0 per week"})
    accept(place, spec, "january")
    for _ in range(2):
        place.deliver(request_retraining, wanted(place, spec))
    (declined,) = place.entries(spec.model, Kind.RETRAINING_DECLINED)
    assert declined.details["rules"] == ["runs"]
    assert booked(spec) == []
    place.deliver(request_retraining, wanted(place, spec, force=True, request="wish-2"))
    (entry,) = place.entries(spec.model, Kind.RETRAINING_REQUESTED)
    assert (entry.details["by"], entry.details["because"]) == ("arn:aws:iam::1:user/ana", "a new airport")
    assert entry.summary.startswith("By hand (arn:aws:iam::1:user/ana: a new airport): trains: ")


def test_a_dry_run_says_what_it_would_do_and_asks_nobody_to_train(place: Place) -> None:
    spec = place.model(retrain={"after": ["drift"], "dry_run": True})
    event = accept(place, spec, "january")
    place.deliver(request_retraining, event)
    place.deliver(request_retraining, alarm(place, spec))
    assert place.events(spec.model, "Retraining Requested") == []
    (held,), (declined,) = (place.entries(spec.model, kind) for kind in (Kind.TRAINING_HELD, Kind.RETRAINING_DECLINED))
    assert held.summary.startswith("january.csv (1,000 rows) would be trained on: ")
    assert declined.summary.startswith("Drift alarm: would train: ")
    assert held.details["would"] is declined.details["would"] is True


# --- the command


@pytest.fixture
def noria(place: Place, tmp_path: Path) -> Callable[..., Any]:
    """Runs the command for a model's spec; its answer, or why it refused."""
    places = {"data-bucket": BUCKET, "event-bus": "noria-local", "ledger-table": "ledger"}
    for name, value in places.items():
        parameter = f"/noria/local/{name}"
        boto3.client("ssm").put_parameter(Name=parameter, Value=value, Type="String", Overwrite=True)

    def run(spec: ModelSpec, command: str, *options: str) -> Any:
        (tmp_path / f"{spec.model}.yaml").write_text(spec.model_dump_json())
        place.sagemaker.create_model_package_group(ModelPackageGroupName=place.names.model(spec.model))
        arguments = [command, spec.model, *options, "--env", "local", "--models", str(tmp_path), "--json"]
        answer = CliRunner().invoke(app, arguments)
        place.sagemaker.delete_model_package_group(ModelPackageGroupName=place.names.model(spec.model))
        return json.loads(answer.stdout) if answer.exit_code == 0 else str(answer.exception)

    return run


def test_a_person_asks_by_command_and_may_look_first(place: Place, noria: Callable[..., Any]) -> None:
    spec = place.model(retrain={"after": []})
    accept(place, spec, "january")
    looked = noria(spec, "retrain", "--dry-run")
    assert (looked["request"], looked["decision"]["retrain"]) == (None, True)
    assert place.events(spec.model, "Retraining Wanted") == []
    asked = noria(spec, "retrain", "--reason", "a new airport")
    (told,) = place.events(spec.model, "Retraining Wanted")
    assert told["request"] == asked["request"]
    place.deliver(request_retraining, place.event("noria", "Retraining Wanted", told))
    (entry,) = place.entries(spec.model, Kind.RETRAINING_REQUESTED)
    assert entry.details["because"] == "a new airport"
    assert str(entry.details["by"]).startswith("arn:aws:")
    assert "a training is under way" in noria(spec, "retrain", "--reason", "once more", "--force")


def test_what_the_policy_refuses_is_refused_at_once_and_named(place: Place, noria: Callable[..., Any]) -> None:
    spec = place.model(retrain={"budget": "0 per week"})
    assert "there is no data: noria upload" in noria(spec, "retrain", "--reason", "a test")
    accept(place, spec, "january")
    assert noria(spec, "retrain", "--reason", "a test").endswith("Go over the budget with --force.")
    assert "Give a reason" in noria(spec, "retrain", "--reason", " ")
    assert "Give a reason" in noria(spec, "retrain")
    assert noria(spec, "retrain", "--reason", "a test", "--force")["forced"] is True


def test_the_policy_says_what_would_come_of_each_that_may_ask(place: Place, noria: Callable[..., Any]) -> None:
    spec = place.model(retrain={"after": ["drift"], "schedule": "rate(7 days)", "cooldown": "5h"})
    first = {row["asks"]: row for row in noria(spec, "policy")}
    assert {asks: row["answer"] for asks, row in first.items()} == dict.fromkeys(
        ("data", "drift alarm", "schedule", "by hand"), "no"
    )
    accept(place, spec, "january")
    assert noria(spec, "policy")[0]["asks"] == "first data"
    record(place, spec, Kind.RETRAINING_REQUESTED, "before", cause="drift")
    end(place, spec, begin(place, spec, "before", "january"))
    accept(place, spec, "february")
    rows = {row["asks"]: row for row in noria(spec, "policy")}
    assert "an alarm of drift, or the schedule rate(7 days), or a person" in rows["data"]["because"]
    assert "the cooldown of 5h ends" in rows["drift alarm"]["because"]
    assert rows["drift alarm"]["again_at"]
    assert rows["by hand"]["answer"] == "yes"
    assert place.kinds(spec.model)[-1] is Kind.DATASET_ACCEPTED, "looking changes nothing"
