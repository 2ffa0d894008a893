"""Whose effect something is: read at a function's door, kept in the ledger, told to X-Ray."""

import json
import socket
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_socket import enable_socket

from noria.aws.telemetry import follow, following, logger
from noria.events import Dataset, DatasetAccepted, Heard, Tick, correlated
from noria.ledger import GENESIS, Entry, Fact, Kind, correlation_of, verify

NOW = datetime(2026, 11, 21, tzinfo=UTC)
FACT = Fact(
    model="m",
    kind=Kind.TRAINING_STARTED,
    subject="token",
    at=NOW,
    summary="It began.",
    details={"execution": "an-execution", "champion": None},
)


def queued(body: Any) -> dict[str, Any]:
    return {"Records": [{"messageId": "of-sqs", "body": body if isinstance(body, str) else json.dumps(body)}]}


def entry(correlation: str | None) -> Entry:
    return Entry.after(FACT, number=1, previous=GENESIS, correlation=correlation)


@pytest.mark.parametrize(
    ("message", "heard"),
    [
        (queued({"id": "e1", "detail": {}}), ("e1", "e1")),
        (queued({"id": "e2", "detail": {"correlation": "e1"}}), ("e2", "e1")),
        (queued({"id": "e2", "detail": {"correlation": None}}), ("e2", "e2")),
        (queued({"id": "e2", "detail": {"correlation": 'x" || $.a = "'}}), ("e2", "e2")),
        (queued({"id": "e2", "detail": {"correlation": ["e1"]}}), ("e2", "e2")),
        ({"Records": [{"messageId": "of-sqs", "body": "[" * 100_000}]}, ("of-sqs", "of-sqs")),
        (queued(Tick.message("Reconcile", time=NOW)), ("of-sqs", "of-sqs")),
        (queued(Tick.message("Reconcile", time=NOW, correlation="e1")), ("of-sqs", "e1")),
        (queued("no JSON"), ("of-sqs", "of-sqs")),
        (queued("[1]"), ("of-sqs", "of-sqs")),
        ({"requestContext": {"requestId": "r1"}}, ("r1", "r1")),
        ({"Records": [{"eventID": "s1", "dynamodb": {"NewImage": {"body": {"S": entry("e1").body}}}}]}, ("s1", "e1")),
        ({"Records": [{"eventID": "s1", "dynamodb": {"Keys": {}}}]}, ("s1", "s1")),
        ({"awslogs": {"data": "…"}}, (None, None)),
    ],
)
def test_whose_effect_a_message_is(message: dict[str, Any], heard: tuple[str | None, str | None]) -> None:
    assert Heard.of(message) == heard


def test_an_event_goes_with_what_it_is_an_effect_of() -> None:
    event = DatasetAccepted.of(Dataset(model="m", dataset="d", key="k", version="v", rows=1))
    assert json.loads(event.entry("bus", correlation="e1")["Detail"])["correlation"] == "e1"
    assert "correlation" not in json.loads(event.entry("bus")["Detail"])
    tick = Tick.message("Reconcile", time=NOW)
    assert json.loads(correlated(tick, "e1"))["detail"]["correlation"] == "e1"
    assert correlated(tick, None) == tick
    assert json.loads(correlated('{"detail": {"correlation": null}}', "e1"))["detail"] == {"correlation": None}


def test_an_entry_from_before_there_were_correlations_is_what_it_was() -> None:
    old = FACT.model_dump(mode="json") | {"number": 1, "previous": GENESIS}
    read = Entry.model_validate(old)
    assert json.loads(read.body) == old
    assert read.hash == entry(None).hash != entry("e1").hash
    after = Entry.after(FACT.model_copy(update={"subject": "next"}), number=2, previous=read.hash, correlation="e1")
    assert verify([read, after]) == []


def test_the_first_entry_that_names_something_says_whose_effect_it_is() -> None:
    later = Entry.after(FACT.model_copy(update={"subject": "an-execution"}), number=2, previous="0" * 64)
    assert correlation_of([entry("e1"), later], "an-execution") == "e1"
    assert correlation_of([entry("e1")], "another") is None


def test_xray_finds_a_trace_by_its_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    enable_socket()  # to ourselves
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(5)
        monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", f"127.0.0.1:{daemon.getsockname()[1]}")
        monkeypatch.setenv(
            "_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
        )
        follow("e1")
        head, document = daemon.recv(65536).decode().split("\n")
    assert json.loads(head) == {"format": "json", "version": 1}
    told = json.loads(document)
    assert told["annotations"] == {"correlation": "e1"}
    assert (told["trace_id"], told["parent_id"]) == ("1-5759e988-bd862e3fe1be46a994272793", "53995c3f42cd8ad8")
    assert len(told["id"]) == 16
    assert following() == "e1"
    follow(None)
    assert following() == "e1"
    logger.set_correlation_id(None)
