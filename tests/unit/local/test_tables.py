"""Tables of the local cloud read only what a range selects, and answer as if they had read all."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from ministack.services import dynamodb

from local import ministack

TABLE = "in-order"


def asked(operation: str, **request: Any) -> dict[str, Any]:
    status, _, body = getattr(dynamodb, f"_{operation}")({"TableName": TABLE, **request})
    answer: dict[str, Any] = json.loads(body)
    assert status == 200, answer
    return answer


@pytest.fixture(name="keys")
def a_table_with_these_keys() -> Iterator[list[str]]:
    key = {"model": "HASH", "sk": "RANGE"}
    asked(
        "create_table",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in key.items()],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in key],
    )
    keys = [f"{kind}#{number:03}" for kind in ("entry", "meaning") for number in range(40)]
    for sk in random.Random(1).sample(keys, len(keys)):  # noqa: S311 - an order, no secret
        asked("put_item", Item={"model": {"S": "m"}, "sk": {"S": sk}, "seen": {"N": "1"}})
    for sk in keys[::7]:
        asked("delete_item", Key={"model": {"S": "m"}, "sk": {"S": sk}})
    for sk in keys[::14]:
        asked("put_item", Item={"model": {"S": "m"}, "sk": {"S": sk}})
    assert isinstance(dynamodb._tables[TABLE]["items"]["m"], ministack._Partition)
    yield [sk for at, sk in enumerate(keys) if at % 7 or not at % 14]
    asked("delete_table")


def found(first: str, last: str, *, model: str = "m", **more: Any) -> list[str]:
    """By pages, as a paginator asks."""
    keys: list[str] = []
    start: dict[str, Any] = {}
    while True:
        answer = asked(
            "query",
            KeyConditionExpression="model = :model AND #sk BETWEEN :first AND :last",
            ExpressionAttributeNames={"#sk": "sk"},
            ExpressionAttributeValues={":model": {"S": model}, ":first": {"S": first}, ":last": {"S": last}},
            **start,
            **more,
        )
        keys += [item["sk"]["S"] for item in answer["Items"]]
        if not (last_seen := answer.get("LastEvaluatedKey")):
            return keys
        start = {"ExclusiveStartKey": last_seen}


def test_a_range_has_all_that_lies_in_it_and_nothing_else(keys: list[str]) -> None:
    for first, last in (("entry#", "entry$"), ("entry#005", "entry#021"), ("a", "z"), ("n", "z")):
        assert found(first, last) == [sk for sk in keys if first <= sk <= last]
    assert found("entry#", "entry$", model="other") == []


def test_pages_and_the_other_direction_are_as_without_a_range(keys: list[str]) -> None:
    entries = [sk for sk in keys if sk.startswith("entry#")]
    assert found("entry#", "entry$", Limit=4) == entries
    assert found("entry#", "entry$", Limit=4, ScanIndexForward=False) == entries[::-1]


def test_what_is_no_range_of_the_table_s_key_is_answered_by_ministack_itself(keys: list[str]) -> None:
    answer = asked(
        "query",
        KeyConditionExpression="model = :model AND begins_with(sk, :start)",
        ExpressionAttributeValues={":model": {"S": "m"}, ":start": {"S": "meaning#"}},
    )
    assert [item["sk"]["S"] for item in answer["Items"]] == [sk for sk in keys if sk.startswith("meaning#")]
    status, _, body = dynamodb._query(
        {
            "TableName": TABLE,
            "KeyConditionExpression": "model = :model AND sk BETWEEN :first AND :last",
            "ExpressionAttributeValues": {":model": {"S": "m"}, ":first": {"S": "z"}, ":last": {"S": "a"}},
        }
    )
    assert (status, json.loads(body)["__type"]) == (400, "ValidationException")
