"""While a model is paused, nothing begins for it by itself; what ends, takes back or is asked for goes on."""

import ast
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from noria.events import PauseRequest, PauseRequested
from noria.ledger import GENESIS, Entry, Fact
from noria.messages import event_in, model_of, origin, what
from noria.names import Area, Names
from noria.pause import Turn, decide, ended_by_time, held_until, last_pause, paused, resumed, turn

REPOSITORY = Path(__file__).parents[2]
FIXTURES = {path.stem: json.loads(path.read_text()) for path in (REPOSITORY / "tests" / "events").glob("*.json")}
MODEL = "flight-delay"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

GOES_ON = {
    "aws.cloudformation-stack-status-change",
    "aws.cloudwatch-alarm-state-change-challenger",
    "aws.sagemaker-endpoint-deployment-state-change",
    "aws.sagemaker-endpoint-state-change",
    "aws.sagemaker-model-building-pipeline-execution-status-change",
    "aws.sagemaker-transform-job-state-change",
    "noria-retraining-wanted",
    "noria-serving-requested",
    "noria.schedule-confirm-deployment",
    "noria.schedule-export-ledger",
    "noria.schedule-probe-deployment",
}
WAITS = {
    "aws.cloudwatch-alarm-state-change",
    "aws.s3-object-created",
    "aws.sagemaker-model-package-state-change",
    "noria-dataset-accepted",
    "noria-labels-told",
    "noria-retraining-requested",
    "noria-training-ended",
    "noria.schedule-advance-challenger",
    "noria.schedule-join-labels",
    "noria.schedule-look-at-package",
    "noria.schedule-recheck-alarm",
    "noria.schedule-recheck-data",
    "noria.schedule-start-training",
}
DOORLESS = {
    "confirm_deployment": "ends what was begun, and a rollback",
    "export_ledger": "locks the record",
    "front_door": "answers callers; it is no reaction",
    "keep_predictions": "keeps what was answered",
    "probe_deployment": "protects a deployment under way",
    "reconcile": "ends pauses, and asks the same rule before it tells anything again",
    "record_training": "records the end of a training",
    "track_training": "writes a training's end down elsewhere",
    "write_card": "writes down what is known",
}


@pytest.mark.parametrize("name", sorted(GOES_ON))
def test_what_ends_takes_back_or_was_asked_for_goes_on(name: str) -> None:
    assert turn(FIXTURES[name]) is Turn.GOES_ON


@pytest.mark.parametrize("name", sorted(WAITS))
def test_what_would_begin_something_waits(name: str) -> None:
    assert turn(FIXTURES[name]) is Turn.WAITS


def test_what_takes_a_version_back_goes_on_and_an_approval_waits() -> None:
    event = FIXTURES["aws.sagemaker-model-package-state-change"]
    for status, becomes in (
        ("Approved", Turn.WAITS),
        ("Rejected", Turn.GOES_ON),
        ("PendingManualApproval", Turn.GOES_ON),
    ):
        assert turn(event | {"detail": event["detail"] | {"ModelApprovalStatus": status}}) is becomes


@pytest.mark.parametrize("area", get_args(Area))
def test_of_objects_only_uploads_wait(area: str) -> None:
    """What is set aside is an object too: were its event set aside, there would be no end of it."""
    event = FIXTURES["aws.s3-object-created"]
    for key in (f"{MODEL}/{area}/2013.csv", f"{MODEL}/{area}/incoming/2013.csv"):
        detail = event["detail"] | {"object": event["detail"]["object"] | {"key": key}}
        waits = area in {"incoming", "labels", "batch"}
        assert turn(event | {"detail": detail}) is (Turn.WAITS if waits else Turn.GOES_ON)


def test_a_training_that_a_person_asked_for_begins() -> None:
    event = FIXTURES["noria-retraining-requested"]
    assert turn(event | {"detail": event["detail"] | {"cause": "hand"}}) is Turn.GOES_ON


def test_a_tick_of_the_monitor_lapses_unless_a_person_asks_for_the_window() -> None:
    tick = FIXTURES["noria.schedule-monitor-model"]
    assert turn(tick) is Turn.LAPSES
    assert turn(tick | {"detail": tick["detail"] | {"by": "arn:aws:iam::123456789012:user/ann"}}) is Turn.GOES_ON


def test_an_event_that_nobody_has_thought_of_waits() -> None:
    assert turn({"source": "noria", "detail-type": "Something New", "detail": {"model": MODEL}}) is Turn.WAITS
    assert turn({"detail-type": ["Something New"], "detail": 7}) is Turn.WAITS


def test_every_reaction_has_the_door_or_a_reason_to_have_none() -> None:
    doors = {}
    for path in (REPOSITORY / "lambdas").glob("*/handler.py"):
        (handler,) = (
            node
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name == "handler"
        )
        doors[path.parent.name] = "pausable" in map(ast.unparse, handler.decorator_list)
    assert {name for name, door in doors.items() if not door} == set(DOORLESS)


# --- whose event it is


@pytest.mark.parametrize("name", sorted(set(FIXTURES) - {"noria.schedule-reconcile"}))
def test_every_event_says_which_model_it_is_about(name: str) -> None:
    models = {"delay", "flights", MODEL, "flight-delayed"}
    event = json.loads(json.dumps(FIXTURES[name]).replace("noria-local-flight", "noria-dev-flight"))
    assert model_of(event, names=[Names(env="dev")], models=models) == MODEL
    assert model_of(event, names=[Names(env="dev")], models={"prices"}) is None


ARN = "arn:aws:{}:eu-west-1:123456789012:{}"
OF_STREAM = {"requestContext": {"functionArn": ARN.format("lambda", "function:noria-dev-export-ledger:$LATEST")}}


@pytest.mark.parametrize(
    ("source", "attributes", "body", "name"),
    [
        (ARN.format("sqs", "noria-dev-join-labels"), {}, "{}", "noria-dev-join-labels"),
        (None, {"TARGET_ARN": ARN.format("sqs", "noria-dev-reconcile")}, "{}", "noria-dev-reconcile"),
        (
            None,
            {
                "TARGET_ARN": ARN.format("events", "event-bus/noria-prod"),
                "RULE_ARN": ARN.format("events", "rule/noria-dev/noria-dev-promotion"),
            },
            "{}",
            "noria-dev-promotion",
        ),
        (None, {}, json.dumps(OF_STREAM), "noria-dev-export-ledger"),
        (None, {}, json.dumps({"requestContext": "functionArn"}), None),
        (None, {"TARGET_ARN": "no arn"}, "no event", None),
    ],
    ids=["SQS", "EventBridge or Scheduler", "another account", "Lambda", "no context", "nobody"],
)
def test_a_dead_letter_says_what_it_comes_from(
    source: str | None, attributes: dict[str, str], body: str, name: str | None
) -> None:
    assert origin(body, source=source, attributes=attributes) == name


def test_an_event_of_another_environment_is_about_no_model_of_this_one() -> None:
    event = FIXTURES["aws.sagemaker-endpoint-state-change"]
    assert model_of(event, names=[Names(env="prod")], models={MODEL}) is None
    assert model_of(event, names=[Names(env="prod"), Names(env="local")], models={MODEL}) == MODEL


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[" * 100_000,
        "[]",
        "7",
        "{}",
        '{"detail": 7}',
        '{"detail": {"object": 7, "model": ["a"], "pipelineArn": 1}}',
    ],
)
def test_a_message_that_is_no_event_is_about_no_model(body: str) -> None:
    event = event_in(body)
    assert model_of(event, names=[Names(env="local")], models={MODEL}) is None
    assert what(event) == "no event"
    assert turn(event) is Turn.WAITS


# --- who asked last


def wish(action: str, *, minutes: int, request: str | None = None, until: datetime | None = None) -> PauseRequest:
    return PauseRequest.model_validate(
        {
            "model": MODEL,
            "action": action,
            "until": until,
            "reason": "we move the data",
            "by": "arn:aws:sts::123456789012:assumed-role/ops/ann",
            "requested_at": NOW + timedelta(minutes=minutes),
            "request": request or f"{action}-{minutes}",
        }
    )


def after(entries: list[Entry], fact: Fact | None) -> list[Entry]:
    if fact is None:
        return entries
    previous = entries[-1].hash if entries else GENESIS
    return [*entries, Entry.after(fact, number=len(entries) + 1, previous=previous)]


def told(*wishes: PauseRequest) -> list[Entry]:
    entries: list[Entry] = []
    for number, asked in enumerate(wishes):
        entries = after(entries, decide(entries, asked, NOW + timedelta(hours=number)))
    return entries


def test_a_pause_lasts_until_somebody_ends_it() -> None:
    entries = told(wish("pause", minutes=0))
    pause = paused(entries, NOW + timedelta(days=900))
    assert pause
    assert str(pause) == (
        "paused since 2026-11-21 12:00 UTC by arn:aws:sts::123456789012:assumed-role/ops/ann: we move the data"
    )
    assert entries[0].summary == "Paused by ann: we move the data"
    ended = told(wish("pause", minutes=0), wish("resume", minutes=5))
    assert paused(ended, NOW + timedelta(days=900)) is None
    assert resumed(ended) == ended[-1].at


def test_a_pause_until_a_time_ends_then_by_itself_and_is_told_to_have_ended_once() -> None:
    until = NOW + timedelta(hours=4)
    entries = told(wish("pause", minutes=0, until=until))
    assert paused(entries, until - timedelta(seconds=1))
    assert paused(entries, until) is None
    assert ended_by_time(entries, MODEL, until - timedelta(seconds=1)) is None
    entries = after(entries, ended_by_time(entries, MODEL, until + timedelta(minutes=3)))
    assert entries[-1].summary == "Resumed: the pause was until 2026-11-21 16:00 UTC."
    assert ended_by_time(entries, MODEL, until + timedelta(minutes=8)) is None


def test_of_two_wishes_the_one_that_was_asked_later_counts_whichever_is_heard_first() -> None:
    pause, resume, again = wish("pause", minutes=0), wish("resume", minutes=5), wish("pause", minutes=9)
    assert paused(told(pause, again, resume), NOW + timedelta(days=1))
    assert not paused(told(pause, resume, pause), NOW + timedelta(days=1))
    assert len(told(pause, pause, pause)) == 1


def test_who_asked_last_is_told_by_the_clock_of_eventbridge_not_by_peoples_own() -> None:
    event = FIXTURES["noria-pause-requested"]
    ahead = PauseRequested.model_validate(
        event | {"detail": event["detail"] | {"requested_at": "2026-11-21T19:00:00Z"}}
    )
    detail = event["detail"] | {"action": "resume", "request": "resume", "until": None}
    then = PauseRequested.model_validate(event | {"time": "2026-11-21T14:11:00Z", "detail": detail})
    assert paused(told(ahead.asked), NOW)
    assert not paused(told(ahead.asked, then.asked), NOW)


def test_what_time_ended_outranks_no_wish_that_was_asked_before_and_heard_after() -> None:
    until = NOW + timedelta(minutes=30)
    entries = told(wish("pause", minutes=0, until=until))
    entries = after(entries, ended_by_time(entries, MODEL, until))
    longer = wish("pause", minutes=29, until=until + timedelta(hours=9))
    assert paused(after(entries, decide(entries, longer, until + timedelta(minutes=1))), until + timedelta(minutes=2))


def test_nothing_is_resumed_that_is_not_paused() -> None:
    assert told(wish("resume", minutes=0)) == []


def test_a_newer_pause_replaces_the_one_before() -> None:
    until = NOW + timedelta(hours=2)
    entries = told(wish("pause", minutes=0), wish("pause", minutes=1, until=until))
    pause = last_pause(entries)
    assert pause
    assert pause.until == until


def test_the_ledger_says_until_when_events_wait() -> None:
    until = NOW + timedelta(hours=2)
    (pause,) = told(wish("pause", minutes=0, until=until))
    assert held_until(pause) == until
    (forever,) = told(wish("pause", minutes=0))
    end = held_until(forever)
    assert end
    assert end > NOW + timedelta(days=365_000)
    *_, resume = told(wish("pause", minutes=0), wish("resume", minutes=1))
    assert held_until(resume) == resume.at


def test_other_entries_change_no_pause() -> None:
    fact: dict[str, Any] = {"model": MODEL, "kind": "deployed", "subject": "d", "at": NOW, "summary": "s"}
    entries = after(told(wish("pause", minutes=0)), Fact.model_validate(fact))
    assert paused(entries, NOW)
    assert held_until(entries[-1]) is None
