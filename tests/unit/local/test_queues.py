"""The local SQS: fair between message groups, as the guide says, and what it tells CloudWatch."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ministack.core.arn import parse_arn
from ministack.core.responses import get_account_id, get_region
from ministack.services import sqs

from local import ministack
from local.ministack import Queue
from local.queues import metrics

URL = "https://localhost/fair"


def message(name: str, group: str | None, *, in_flight: bool = False) -> dict[str, Any]:
    now = time.time()
    return {
        "id": name,
        "group_id": group,
        "visible_at": now + 60 if in_flight else now - 1,
        "receive_count": int(in_flight),
        "sent_at": now,
        "receipt_handle": None,
    }


def received(*messages: dict[str, Any], most: int = 1) -> list[str]:
    queue = {"url": URL, "is_fifo": False, "messages": list(messages)}
    return [each["id"] for each in ministack._collect_fairly(queue, most, 30)]


@pytest.fixture(name="worked")
def what_consumers_did() -> Iterator[Any]:
    """Says that so many seconds of work went to a group just now."""
    yield lambda group, seconds: ministack._busy_with[URL].append((time.time(), group, seconds))
    ministack._busy_with.pop(URL, None)


def test_whoever_took_the_consumers_time_waits_for_the_others(worked: Any) -> None:
    worked("loud", 95.0)
    worked("quiet", 5.0)
    assert received(message("1", "loud"), message("2", "loud"), message("3", "quiet")) == ["3"]


def test_among_noisy_ones_the_one_with_the_fewest_in_flight_comes_first(worked: Any) -> None:
    worked("a", 50.0)
    worked("b", 50.0)
    assert received(message("1", "a", in_flight=True), message("2", "a"), message("3", "b")) == ["3"]


def test_a_message_without_a_group_is_a_quiet_tenant_of_its_own(worked: Any) -> None:
    worked("loud", 100.0)
    assert received(message("1", "loud"), message("2", None)) == ["2"]


def test_a_queue_that_only_one_tenant_uses_is_in_order(worked: Any) -> None:
    worked("loud", 100.0)
    assert received(message("1", "loud"), message("2", "loud")) == ["1"]
    assert received(message("1", None), message("2", None), most=2) == ["1", "2"]


def test_a_group_may_be_a_path_into_the_event() -> None:
    event = '{"detail": {"model": "flight-delay"}}'
    assert ministack._group("flight-delay", event) == "flight-delay"
    assert ministack._group("$.detail.model", event) == "flight-delay"
    assert ministack._group("$.detail.nothing.more", event) is None


def test_of_messages_that_are_sent_at_once_each_has_its_own_group(monkeypatch: pytest.MonkeyPatch) -> None:
    sqs._act_create_queue({"QueueName": "crowded"}, "")
    arn = f"arn:aws:sqs:{get_region()}:{get_account_id()}:crowded"
    target, parameters = parse_arn(arn), {"MessageGroupId": "$.detail.model"}

    append = ministack._send_to_queue

    def append_slowly(*arguments: Any) -> None:
        append(*arguments)
        time.sleep(0)  # others' turn

    monkeypatch.setattr(ministack, "_send_to_queue", append_slowly)

    def send(number: int) -> None:
        ministack._send_with_group(target, json.dumps({"detail": {"model": f"m{number % 7}"}}), parameters)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(3000)))
    messages = sqs._queue_by_arn(arn)["messages"]
    assert len(messages) == 3000
    assert all(message["group_id"] == json.loads(message["body"])["detail"]["model"] for message in messages)


def test_a_queue_tells_what_waits_and_for_how_long() -> None:
    queue = Queue(name="q", account="1", region="r", visible=3, not_visible=2, delayed=1, oldest=61.4)
    assert metrics(queue) == {
        "ApproximateNumberOfMessagesVisible": (3, "Count"),
        "ApproximateNumberOfMessagesNotVisible": (2, "Count"),
        "ApproximateNumberOfMessagesDelayed": (1, "Count"),
        "ApproximateAgeOfOldestMessage": (61, "Seconds"),
    }
