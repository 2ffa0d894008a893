"""The contract on captured requests: what is counted, and that a row counts once however wrong it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.contract import Live, check_captured
from noria.profile import Source
from noria.spec import ModelSpec
from noria.violations import MASK
from tests.unit.engine_data import SMALL, record, spec_of, write

SPEC = spec_of(
    features={
        "x": {"type": "number", "min": 0, "max": 5, "missing": 0.25},
        "size": {"type": "integer"},
        "color": {"type": "category", "values": ["red", "blue"], "missing": 0.5},
    }
)
GOOD: dict[str, Any] = {"x": 1, "size": 2, "color": "red"}


def live(folder: Path, *lines: str, spec: ModelSpec = SPEC) -> Live:
    return check_captured(Source.captured(write(folder / "captured.jsonl", lines)), spec, resources=SMALL)


def counts(found: Live) -> dict[tuple[str, str | None], int]:
    return {(violation.rule, violation.column): violation.count for violation in found.violations}


def test_good_requests_break_nothing(tmp_path: Path) -> None:
    found = live(tmp_path, record("a", [GOOD, GOOD], None), record("b", "1.5,3,blue\n2,4,\n", None))
    assert (found.rows, found.invalid, found.malformed, found.violations) == (4, 0, 0, ())
    assert found.share == 0.0


@pytest.mark.parametrize("as_csv", [False, True])
def test_each_rule_is_counted_and_each_row_once(as_csv: bool, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        GOOD,
        GOOD | {"x": "warm"},
        GOOD | {"x": 9, "size": 2.5, "color": "green"},
        GOOD | {"x": -1},
        GOOD | {"size": None},
        GOOD | {"x": None},
        GOOD | {"size": "NaN"},
        GOOD,
    ]
    as_text = "".join(",".join("" if v is None else str(v) for v in row.values()) + "\n" for row in rows)
    found = live(tmp_path, record("a", as_text if as_csv else rows, None))
    assert [(v.rule, v.column, v.count) for v in found.violations] == [
        ("type", "x", 1),
        ("range", "x", 1),
        ("range", "x", 1),
        ("type", "size", 2),
        ("category", "color", 1),
        ("missing", "size", 1),
    ]
    assert (found.rows, found.invalid) == (8, 5)
    assert found.share == 5 / 8


def test_missing_values_are_against_the_contract_where_too_many_are(tmp_path: Path) -> None:
    few = live(tmp_path, record("a", [GOOD | {"x": None}, *[GOOD] * 3], None))
    assert (few.invalid, few.violations) == (0, ())
    many = live(tmp_path, record("a", [GOOD | {"x": None}, GOOD | {"x": None, "size": None}, GOOD, GOOD], None))
    assert counts(many) == {("missing", "x"): 2, ("missing", "size"): 1}
    assert many.invalid == 2


def test_a_rule_that_only_warns_makes_no_row_invalid(tmp_path: Path) -> None:
    spec = spec_of(
        features={"x": {"type": "number", "max": 5, "severity": {"range": "warn"}}, "size": {"type": "integer"}},
        contract={"severity": {"missing": "warn"}},
    )
    found = live(
        tmp_path, record("a", [{"x": 9, "size": 1}, {"x": 1, "size": None}, {"x": "a", "size": 1}], None), spec=spec
    )
    assert {v.rule: v.severity for v in found.violations} == {"range": "warn", "type": "reject", "missing": "warn"}
    assert (found.rows, found.invalid) == (3, 1)


def test_malformed_records_are_counted_apart_and_nothing_is_no_share(tmp_path: Path) -> None:
    found = live(tmp_path, "no json", record("a", "1,2\n", None))
    assert (found.rows, found.malformed, found.invalid, found.share) == (0, 2, 0, None)
    assert live(tmp_path).share is None


def test_values_of_sensitive_columns_are_shown_nowhere(tmp_path: Path) -> None:
    hidden = {n: f.model_dump(exclude_none=True) | {"sensitive": True} for n, f in SPEC.features.items()}
    found = live(
        tmp_path, record("a", [GOOD | {"x": "secret", "color": "secret"}], None), spec=spec_of(features=hidden)
    )
    assert {v.samples for v in found.violations} == {(MASK,)}
    assert "secret" not in found.model_dump_json()


VALUES = st.sampled_from([None, 1, 2.5, -1, 9, "warm", "1", True, [1], {"a": 1}])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries({"x": VALUES, "size": VALUES, "color": VALUES}), min_size=1, max_size=20))
def test_invalid_rows_are_those_of_a_count_by_hand(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    spec = spec_of(
        features={
            "x": {"type": "number", "min": 0, "max": 5, "missing": 1},
            "size": {"type": "integer", "missing": 0},
            "color": {"type": "category", "values": ["1", "warm"], "missing": 1},
        }
    )
    found = live(tmp_path, record("a", rows, None), spec=spec)
    assert (found.rows, found.invalid) == (len(rows), sum(_broken(row) for row in rows))
    assert Live.model_validate_json(found.model_dump_json()) == found


def _broken(row: dict[str, Any]) -> bool:
    x, size, color = (_number(row["x"]), _number(row["size"]), row["color"])
    text = color if color is None or isinstance(color, str) else json.dumps(color, separators=(",", ":"))
    return (
        (row["x"] is not None and (x is None or not 0 <= x <= 5))
        or row["size"] is None
        or size is None
        or size != int(size)
        or (text is not None and text not in ("1", "warm"))
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
