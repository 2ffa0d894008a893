"""What a container logs of requests becomes files that the engine reads as it reads SageMaker's own."""

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from noria.capture import relation
from noria.events import EventError
from noria.logged import CaptureFile, capture_files, parse_batch
from noria.sql import cursor
from tests.unit.engine_data import SMALL, record, spec_of

AT = datetime(2026, 11, 21, 10, 59, 59, 250_000, tzinfo=UTC)
FIXTURE = Path(__file__).parent.parent / "events" / "logs" / "lambda-awslogs.json"


def event(*lines: str, at: datetime = AT, apart: timedelta = timedelta(0), **changes: Any) -> dict[str, Any]:
    batch = {
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": "/aws/sagemaker/Endpoints/noria-local-example",
        "logStream": "champion/i-1",
        "subscriptionFilters": ["captured"],
        "logEvents": [
            {"id": f"{n:056}", "timestamp": int((at + n * apart).timestamp() * 1000), "message": line}
            for n, line in enumerate(lines)
        ],
    }
    packed = gzip.compress(json.dumps(batch | changes).encode())
    return {"awslogs": {"data": base64.b64encode(packed).decode()}}


def printed(id_: str, **more: Any) -> str:
    return json.dumps({"noria": "capture", **json.loads(record(id_, "1,2,red\n", "1,0.5\n", **more))})


def files(*lines: str, **more: Any) -> list[CaptureFile]:
    return capture_files(parse_batch(event(*lines, **more)))


def test_the_example_of_the_documentation_is_read_and_holds_no_capture() -> None:
    batch = parse_batch({name: value for name, value in json.loads(FIXTURE.read_text()).items() if name != "_source"})
    assert [line.message for line in batch.events] == ["[ERROR] First test message", "[ERROR] Second test message"]
    assert capture_files(batch) == []


def test_captures_are_filed_as_sagemaker_files_them_and_the_rest_is_left(tmp_path: Path) -> None:
    (file,) = files(printed("a", inference_id="mine"), "INFO ready", '{"noria": "not captured"}', printed("b"))
    assert file.name.startswith("2026/11/21/10/59-59-250-")
    assert file.name.endswith(".jsonl")
    path = tmp_path / "file.jsonl"
    path.write_text(file.text)
    with cursor(SMALL) as db:
        sql = f"FROM {relation([path], spec_of())} SELECT malformed, inference_id, f0, score ORDER BY inference_id"
        assert db.execute(sql).fetchall() == [(False, "b", 1.0, 0.5), (False, "mine", 1.0, 0.5)]
    assert "noria" not in file.text


def test_the_same_lines_have_the_same_name_and_others_another() -> None:
    one, two = files(printed("a")), files(printed("a"), printed("b"))
    assert files(printed("a")) == one
    assert one[0].name != two[0].name


def test_lines_of_two_hours_are_two_files() -> None:
    found = files(printed("a"), printed("b"), apart=timedelta(seconds=1))
    assert [file.name[:13] for file in found] == ["2026/11/21/10", "2026/11/21/11"]


def test_what_failed_comes_again_from_the_queue() -> None:
    first = event(printed("a"))
    record_of_failure = {"version": "1.0", "requestContext": {"condition": "RetriesExhausted"}, "requestPayload": first}
    again = {"Records": [{"messageId": "1", "body": json.dumps(record_of_failure)}]}
    assert parse_batch(again) == parse_batch(first)


def test_a_control_message_asks_for_nothing() -> None:
    batch = parse_batch(event("CWL CONTROL MESSAGE", messageType="CONTROL_MESSAGE", logGroup="", logStream=""))
    assert capture_files(batch) == []
    assert batch.endpoint == ""


def test_a_log_group_that_is_no_endpoints_is_refused() -> None:
    with pytest.raises(EventError, match="/aws/lambda/other"):
        parse_batch(event("line", logGroup="/aws/lambda/other")).endpoint  # noqa: B018 - asking is the act


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"awslogs": {"data": "no base64!"}},
        {"awslogs": {"data": base64.b64encode(b"not packed").decode()}},
        {"awslogs": {"data": base64.b64encode(gzip.compress(b"{}")[:-4]).decode()}},
        {"awslogs": {"data": base64.b64encode(gzip.compress(b'{"messageType": "DATA_MESSAGE"}')).decode()}},
        {"Records": []},
        {"Records": [{"body": "{}"}]},
    ],
    ids=["empty", "base64", "gzip", "cut", "fields", "no record", "no payload"],
)
def test_what_is_no_batch_says_so(message: dict[str, Any]) -> None:
    with pytest.raises(EventError, match="not a batch of log lines"):
        parse_batch(message)
