"""Batches of log lines become captured data once, whatever is delivered twice."""

import json
from datetime import UTC, datetime

import pytest

from lambdas.keep_predictions.handler import handler as keep_predictions
from noria.aws.captures import Captures
from noria.aws.storage import Storage
from noria.events import EventError
from tests.integration.reactions.place import BUCKET, Context, Place
from tests.unit.test_logged import event, printed


def test_captures_in_log_lines_are_found_where_sagemaker_would_have_put_them(place: Place) -> None:
    model = place.model().model
    endpoint, now = place.names.model(model), datetime.now(UTC)
    lines = [printed("a", inference_id="mine"), "INFO: listening", printed("b")]
    sent = event(*lines, at=now, logGroup=f"/aws/sagemaker/Endpoints/{endpoint}")
    failed = {"Records": [{"messageId": "1", "body": json.dumps({"requestPayload": sent})}]}
    for message in (sent, sent, failed):
        keep_predictions(message, Context())
    captures = Captures(model=model, endpoint=endpoint, storage=Storage(bucket=BUCKET))
    (file,) = captures.between(now, now)
    records = [json.loads(line) for line in place.read(file.key).splitlines()]
    assert [record["eventMetadata"]["eventId"] for record in records] == ["a", "b"]
    assert set(records[0]) == {"captureData", "eventMetadata", "eventVersion"}
    assert len(list(captures.storage.versions(file.key))) == 1


def test_lines_without_captures_and_of_other_endpoints_leave_nothing(place: Place) -> None:
    model = place.model().model
    group = f"/aws/sagemaker/Endpoints/{place.names.model(model)}"
    keep_predictions(event("INFO: listening", logGroup=group), Context())
    keep_predictions(event("CONTROL", messageType="CONTROL_MESSAGE", logGroup="", logStream=""), Context())
    keep_predictions(event(printed("a"), logGroup="/aws/sagemaker/Endpoints/noria-local-nobodys"), Context())
    assert place.keys(f"{model}/captured/") == []
    assert place.keys("nobodys/") == []


def test_what_is_no_batch_fails_so_that_it_is_kept(place: Place) -> None:
    with pytest.raises(EventError):
        keep_predictions({"awslogs": {"data": "?"}}, Context())
