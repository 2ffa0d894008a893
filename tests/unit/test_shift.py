"""Two versions' answers to the same requests are compared by what they answer, not by how it is written."""

import math
from datetime import timedelta
from pathlib import Path

import pytest

from noria.shift import MOST_ROWS, answer_value, asked, shift
from noria.spec import Task
from tests.unit.engine_data import NOW, record, spec_of, write


def test_the_same_answers_are_no_shift_whatever_the_task() -> None:
    numbers = [n / 100 for n in range(100)]
    assert shift(numbers, numbers, Task.BINARY) == 0
    assert shift(numbers, list(reversed(numbers)), Task.REGRESSION) == 0
    assert shift(["a", "b"] * 50, ["b", "a"] * 50, Task.MULTICLASS) == 0


def test_a_shift_of_labels_is_the_psi_of_their_shares() -> None:
    before, after = ["a"] * 60 + ["b"] * 40, ["a"] * 40 + ["b"] * 60
    p, q = 61 / 102, 41 / 102
    assert shift(before, after, Task.MULTICLASS) == pytest.approx(2 * (q - p) * math.log(q / p))


def test_a_number_moves_as_its_deciles_do() -> None:
    before = [n / 100 for n in range(100)]
    shifted = [shift(before, [x + by for x in before], Task.BINARY) for by in (0.001, 0.05, 0.3)]
    assert shifted == sorted(shifted)
    assert shifted[0] < 0.05
    assert shifted[2] > 0.25


def test_no_answer_is_an_answer_of_its_own() -> None:
    before = [n / 100 for n in range(100)]
    assert shift(before, [*before[:99], None], Task.BINARY) < 0.1
    assert shift(before, [*before[:50], *[None] * 50], Task.BINARY) > 0.25


def test_what_is_compared_of_an_answer_depends_on_the_task() -> None:
    answer = {"prediction": 1, "score": 0.75}
    assert answer_value(answer, Task.BINARY) == 0.75
    assert answer_value(answer, Task.REGRESSION) == 1.0
    assert answer_value(answer, Task.MULTICLASS) == "1"
    assert answer_value({"prediction": True}, Task.MULTICLASS) == "true"
    assert answer_value({"prediction": "a"}, Task.REGRESSION) is None
    assert answer_value({}, Task.BINARY) is None


def test_the_newest_rows_are_asked_again_as_clients_sent_them(tmp_path: Path) -> None:
    spec = spec_of()
    lines = [
        record(f"{n:04}", [{"x": n / 2, "size": n, "color": None}], [{"prediction": 1, "score": 0.5}], time=f"{moment}")
        for n in range(300)
        for moment in [(NOW + timedelta(seconds=n)).isoformat()]
    ]
    lines += ["cut of", record("silent", "1,2,red\n", "no number,no number")]
    found = asked([write(tmp_path / "captured.jsonl", lines)], spec, since=None, until=NOW + timedelta(seconds=299))
    assert len(found.rows) == len(found.answers) == MOST_ROWS
    assert found.rows[0] == {"x": 149.0, "size": 298, "color": None}
    assert isinstance(found.rows[0]["size"], int)
    assert set(found.answers) == {0.5}


def test_answers_in_labels_are_texts(tmp_path: Path) -> None:
    line = record("event", "1,2,red\n3,4,\n", [{"prediction": 1}, {"prediction": "b"}])
    found = asked([write(tmp_path / "captured.jsonl", [line])], spec_of(Task.MULTICLASS), since=None, until=NOW)
    assert found.answers == ["1", "b"]
    assert asked([], spec_of(), since=None, until=NOW).rows == []
