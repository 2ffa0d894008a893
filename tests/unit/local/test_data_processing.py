"""Filters, joins and mini-batches of transform jobs."""

import json
from typing import Any

import pytest

from local.sagemaker.api import Problem
from local.sagemaker.data_processing import CSV, JSON_LINES, DataProcessing, RecordError, batches, path

OBJECT = {"id": "a", "features": [1, 2, 3], "more": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("$", OBJECT),
        ("$.id", "a"),
        ("$.more.x", 1),
        ("$.more.*", [1, 2]),
        ("$['id','features']", {"id": "a", "features": [1, 2, 3]}),
        ("$.more.['x', 'y']", {"x": 1, "y": 2}),
        ("$.features[0]", 1),
        ("$.features[-1]", 3),
        ("$.features[0,2]", [1, 3]),
        ("$.features[1:]", [2, 3]),
        ("$.features[:1]", [1]),
        ("$.features[0:2]", [1, 2]),
        ("$.features[*]", [1, 2, 3]),
    ],
)
def test_a_filter_takes_what_its_path_names(expression: str, found: Any) -> None:
    assert path(expression)(OBJECT) == found


@pytest.mark.parametrize("expression", ["", "id", "$..id", "$.features[?(@ > 1)]", "$['id'", "$.a b"])
def test_other_expressions_are_refused(expression: str) -> None:
    with pytest.raises(Problem, match="JSONPath"):
        path(expression)


@pytest.mark.parametrize("expression", ["$.nothing", "$.features[9]", "$.id.x"])
def test_a_record_without_what_a_path_names_is_an_error(expression: str) -> None:
    with pytest.raises(RecordError):
        path(expression)(OBJECT)


def job(media_type: str, **processing: str) -> dict[str, Any]:
    return {
        "TransformInput": {"ContentType": media_type, "SplitType": "Line"},
        "TransformOutput": {"Accept": media_type, "AssembleWith": "Line"},
        "DataProcessing": processing,
    }


def processing(media_type: str, **members: str) -> DataProcessing:
    found = DataProcessing.of(job(media_type, **members))
    assert found
    return found


def test_csv_answers_follow_the_fields_of_their_records() -> None:
    asked = processing(CSV, InputFilter="$[1:]", JoinSource="Input")
    records = [b'"a,1",1,2', b"b,3,"]
    assert [asked.record(record) for record in records] == [b"1,2", b"3,"]
    assert asked.answers(records, b"0,0.5\n1,0.9\n") == b'"a,1",1,2,0,0.5\nb,3,,1,0.9'


def test_json_answers_become_a_member_of_their_records() -> None:
    asked = processing(JSON_LINES, JoinSource="Input", OutputFilter="$['id','SageMakerOutput']")
    assert json.loads(asked.answers([b'{"id": 1, "x": 2}'], b'{"y": 3}')) == {"id": 1, "SageMakerOutput": {"y": 3}}
    lists = processing(JSON_LINES, JoinSource="Input")
    assert json.loads(lists.answers([b"[1, 2]"], b"3")) == {"SageMakerInput": [1, 2], "SageMakerOutput": 3}


def test_without_a_join_only_answers_are_filtered() -> None:
    assert processing(CSV, OutputFilter="$[0]").answers([b"1,2"], b"7,0.5") == b"7"
    assert DataProcessing.of(job(CSV)) is None
    assert DataProcessing.of(job("text/plain", JoinSource="None", InputFilter="$")) is None


def test_answers_that_are_not_one_a_record_cannot_be_joined() -> None:
    with pytest.raises(RecordError, match="1 answers to 2 records"):
        processing(CSV, JoinSource="Input").answers([b"1", b"2"], b"7\n")


def test_only_lines_of_two_formats_are_processed() -> None:
    with pytest.raises(Problem, match=r"lines of text/csv or application/jsonlines"):
        DataProcessing.of(job("application/json", JoinSource="Input"))


@pytest.mark.parametrize(
    ("largest", "single", "found"),
    [
        (None, False, [[b"aa", b"bb", b"cc"]]),
        (5, False, [[b"aa", b"bb"], [b"cc"]]),
        (1, False, [[b"aa"], [b"bb"], [b"cc"]]),
        (None, True, [[b"aa"], [b"bb"], [b"cc"]]),
    ],
)
def test_a_mini_batch_holds_one_record_or_as_many_as_fit(
    largest: int | None, single: bool, found: list[list[bytes]]
) -> None:
    assert list(batches([b"aa", b"bb", b"cc"], largest, single=single)) == found
