"""Requests for predictions, checked against the spec: each mistake is named by row and field."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.prediction import MOST_BYTES, MOST_ROWS, PROBLEMS_TOLD, NotUnderstoodError, RequestCheck, TooLargeError
from noria.spec import ModelSpec

SPEC = ModelSpec.model_validate(
    {
        "model": "flights",
        "task": "binary_classification",
        "target": "late",
        "time": "ts",
        "features": {
            "hour": {"type": "integer", "min": 0, "max": 23},
            "carrier": {"type": "category", "values": ["AA", "UA"]},
            "origin": {"type": "category"},
            "temp": {"type": "number", "missing": 0.2, "max": 140.5},
        },
        "owner": {"team": "operations"},
    }
)
GOOD: dict[str, Any] = {"hour": 7, "carrier": "UA", "origin": "JFK", "temp": 50.5}
check = RequestCheck(SPEC)


def body(*rows: Any) -> bytes:
    return json.dumps({"instances": list(rows)}).encode()


def problems(content: bytes) -> list[dict[str, Any]]:
    with pytest.raises(NotUnderstoodError) as refused:
        check.instances(content)
    return [problem.document() for problem in refused.value.problems]


@pytest.mark.parametrize("row", [GOOD, GOOD | {"temp": None}, GOOD | {"hour": 7.0}, GOOD | {"temp": 50}])
def test_rows_that_keep_to_the_spec_pass(row: dict[str, Any]) -> None:
    assert check.instances(body(row, GOOD)) == [row, GOOD]


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"hour": 24}, "hour", "24 is more than 23"),
        ({"hour": -1}, "hour", "-1 is less than 0"),
        ({"hour": 7.5}, "hour", "7.5 is not a whole number"),
        ({"hour": True}, "hour", "true is not a finite number"),
        ({"hour": "7"}, "hour", '"7" is not a finite number'),
        ({"hour": None}, "hour", "a value is required"),
        ({"hour": 10**400}, "hour", "is not a finite number"),
        ({"temp": 140.6}, "temp", "140.6 is more than 140.5"),
        ({"carrier": "XX"}, "carrier", '"XX" is not among the values'),
        ({"carrier": 5}, "carrier", "5 is not a category"),
        ({"origin": ["JFK"]}, "origin", "is not a category"),
        ({"gate": 5}, "gate", "no such feature"),
    ],
)
def test_a_mistake_is_named_by_row_and_field(change: dict[str, Any], field: str, problem: str) -> None:
    (found,) = problems(body(GOOD, GOOD | change))
    assert (found["row"], found["field"]) == (1, field)
    assert problem in found["problem"]


def test_a_feature_that_is_left_out_is_named() -> None:
    (found,) = problems(body({name: value for name, value in GOOD.items() if name != "temp"}))
    assert found == {"row": 0, "field": "temp", "problem": "the feature is missing; send null where it is unknown"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"instances": [{"hour": NaN}]}', "NaN is not JSON"),
        (b"[]", "the body must be"),
        (b'{"instances": [], "more": 1}', "the body must be"),
        (b'{"instances": []}', "at least one row"),
        (b'{"instances": {}}', "at least one row"),
        (b'{"instances": [7]}', "a row is an object"),
    ],
)
def test_a_body_of_another_form_is_refused(content: bytes, problem: str) -> None:
    assert problem in problems(content)[0]["problem"]


def test_problems_are_told_up_to_a_limit_and_values_in_short() -> None:
    found = problems(body(*[GOOD | {"carrier": "x" * 1000}] * (PROBLEMS_TOLD + 5)))
    assert len(found) == PROBLEMS_TOLD
    assert len(found[0]["problem"]) < 100


def test_more_than_the_limits_is_too_large() -> None:
    with pytest.raises(TooLargeError, match="1001 rows, of 1000"):
        check.instances(body(*[GOOD] * (MOST_ROWS + 1)))
    with pytest.raises(TooLargeError, match="4000001 bytes"):
        check.instances(b" " * (MOST_BYTES + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*GOOD, "instances", "x"]), inner),
)


@given(document=JSON | st.builds(lambda rows: {"instances": rows}, st.lists(JSON, max_size=3)))
def test_whatever_is_sent_is_understood_or_refused(document: Any) -> None:
    try:
        rows = check.instances(json.dumps(document).encode())
    except (NotUnderstoodError, TooLargeError):
        return
    assert rows == document["instances"]
