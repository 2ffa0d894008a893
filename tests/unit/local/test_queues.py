"""The local SQS: fair between message groups, as the guide says, and what it tells CloudWatch."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

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


def test_a_queue_tells_what_waits_and_for_how_long() -> None:
    queue = Queue(name="q", account="1", region="r", visible=3, not_visible=2, delayed=1, oldest=61.4)
    assert metrics(queue) == {
        "ApproximateNumberOfMessagesVisible": (3, "Count"),
        "ApproximateNumberOfMessagesNotVisible": (2, "Count"),
        "ApproximateNumberOfMessagesDelayed": (1, "Count"),
        "ApproximateAgeOfOldestMessage": (61, "Seconds"),
    }
