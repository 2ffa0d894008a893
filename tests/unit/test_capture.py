"""Data-capture files become rows, one per prediction, whatever form the client and the file chose."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.capture import instance, relation
from noria.spec import ModelSpec
from noria.sql import cursor
from tests.unit.engine_data import ODD, SMALL, record, spec_of, write

SPEC = spec_of()
INSTANCES: list[dict[str, Any]] = [
    {"x": 1.5, "size": 2, "color": "red"},
    {"x": None, "size": 3, "color": 'it\'s, "blue"\nü'},
]
PREDICTIONS: list[dict[str, Any]] = [{"prediction": 1, "score": 0.75}, {"prediction": 0, "score": 0.25}]
CSV_IN = '1.5,2,red\n,3,"it\'s, ""blue""\nü"\n'
CSV_OUT = "1,0.75\n0,0.25\n"
READ = [(0, 1.5, 2.0, "red", "1", 0.75), (1, None, 3.0, 'it\'s, "blue"\nü', "0", 0.25)]


def select(what: str) -> list[tuple[Any, ...]]:
    with cursor(SMALL) as db:
        return db.execute(f"SELECT {what}").fetchall()


@dataclass(frozen=True)
class Captured:
    """Reads lines as a data-capture file."""

    folder: Path

    def rows(
        self,
        columns: str,
        *lines: str,
        spec: ModelSpec = SPEC,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[list[tuple[Any, ...]], int]:
        """Columns of the rows of a file, by id and place, and how many records were malformed."""
        sql = relation([write(self.folder / "captured.jsonl", lines)], spec, since=since, until=until)
        found = select(f"malformed, {columns} FROM {sql} ORDER BY inference_id, row")
        return [row[1:] for row in found if not row[0]], sum(row[0] for row in found)


@pytest.fixture
def captured(tmp_path: Path) -> Captured:
    return Captured(tmp_path)


def test_every_form_of_a_request_gives_the_same_rows(captured: Captured) -> None:
    sent: list[Any] = [INSTANCES, CSV_IN, CSV_IN.replace("\n", "\r\n")]
    answers: list[Any] = [PREDICTIONS, CSV_OUT]
    forms = [*product(sent, answers, [False, True])]
    lines = [record(f"{n:02}", rows, answer, binary=binary) for n, (rows, answer, binary) in enumerate(forms)]
    assert captured.rows("row, f0, f1, f2, prediction, score", *lines) == (READ * len(forms), 0)


def test_json_lines_are_rows_too(captured: Captured) -> None:
    sent, answered = ("".join(json.dumps(each) + "\n" for each in rows) for rows in (INSTANCES, PREDICTIONS))
    side = {"observedContentType": "application/jsonlines", "mode": "INPUT", "encoding": "BASE64"}
    document = json.loads(record("event", INSTANCES, PREDICTIONS))
    for name, body in (("endpointInput", sent), ("endpointOutput", answered + "\n")):
        document["captureData"][name] = {**side, "data": base64.b64encode(body.encode()).decode()}
    assert captured.rows("row, f0, f1, f2, prediction, score", json.dumps(document)) == (READ, 0)


def test_a_media_type_may_have_parameters(captured: Captured) -> None:
    line = record("event", INSTANCES, CSV_OUT)
    for plain, full in (
        ("application/json", "Application/JSON; charset=utf-8"),
        ("text/csv", "text/csv; header=absent"),
    ):
        line = line.replace(f'"{plain}"', f'"{full}"')
    assert captured.rows("row, f0, f1, f2, prediction, score", line) == (READ, 0)


def test_the_clients_id_names_a_request_and_else_the_events(captured: Captured) -> None:
    lines = [record("e1", "1,2,red", "1,0.5"), record("e2", "1,2,red", "1,0.5", inference_id="mine")]
    assert captured.rows("inference_id", *lines) == ([("e1",), ("mine",)], 0)


def test_what_noria_itself_asked_is_no_traffic(captured: Captured) -> None:
    lines = [
        record("e1", "1,2,red", "1,0.5", inference_id="noria-probe-0f3a"),
        record("e2", "1,2", "1,0.5", inference_id="noria-probe-malformed"),
        record("e3", "1,2,red", "1,0.5", inference_id="my-noria-probe-1"),
    ]
    assert captured.rows("inference_id", *lines) == ([("my-noria-probe-1",)], 0)


def test_scores_of_classes_are_a_map(captured: Captured) -> None:
    answer = {"prediction": "a", "scores": {"a": 0.75, "b": 0.25}}
    line = record("event", INSTANCES[:1], [answer])
    assert captured.rows("prediction, score, scores", line) == ([("a", None, {"a": 0.75, "b": 0.25})], 0)


def test_a_value_that_is_not_of_its_type_is_null(captured: Captured) -> None:
    read: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
        ({}, (None, None, None)),
        ({"x": "warm", "size": 1, "color": "red"}, (None, 1.0, "red")),
        ({"x": "1.5", "size": "2", "color": 7}, (1.5, 2.0, "7")),
        ({"x": True, "size": [1], "color": True, "more": {"x": 9}}, (None, None, "true")),
    ]
    line = record("event", [instance for instance, _ in read], PREDICTIONS[:1] * len(read))
    assert captured.rows("f0, f1, f2", line) == ([values for _, values in read], 0)


def test_features_may_be_called_anything(captured: Captured) -> None:
    spec = spec_of(features={name: {"type": "category"} for name in ODD})
    line = record("event", [{name: name for name in ODD}], PREDICTIONS[:1])
    columns = ", ".join(f"f{place}" for place in range(len(ODD)))
    assert captured.rows(columns, line, spec=spec) == ([ODD], 0)


GOOD = record("good", "1,2,red", "1,0.5")
MALFORMED = {
    "not JSON": "cut of",
    "cut": GOOD[:-20],
    "JSON of something else": '{"a": 1}',
    "no object": "[1, 2]",
    "no time": record("event", "1,2,red", "1,0.5", time="yesterday"),
    "no id": GOOD.replace('"eventId": "good", ', ""),
    "too few fields": record("event", "1,2\n", "1,0.5"),
    "too many fields": record("event", "1,2,red,3\n", "1,0.5"),
    "more rows than answers": record("event", INSTANCES, PREDICTIONS[:1]),
    "more answers than rows": record("event", INSTANCES[:1], PREDICTIONS),
    "no instances": record("event", INSTANCES, PREDICTIONS).replace("instances", "rows"),
    "an answer that is none": record("event", INSTANCES, PREDICTIONS).replace("predictions", "error"),
    "no base64": GOOD.replace('"CSV"', '"BASE64"'),
    "Parquet, be its bytes text or not": GOOD.replace("text/csv", "application/x-parquet", 1),
    "base64 of no text": json.dumps(
        json.loads(GOOD)
        | {
            "captureData": {
                "endpointInput": {
                    "observedContentType": "text/csv",
                    "data": base64.b64encode(b"\xff\xfe").decode(),
                    "encoding": "BASE64",
                }
            }
        }
    ),
}


def test_records_that_cannot_be_read_are_counted_and_harm_no_other(captured: Captured) -> None:
    assert captured.rows("inference_id", GOOD, *MALFORMED.values(), GOOD) == ([("good",)] * 2, len(MALFORMED))


def test_an_answer_that_was_not_captured_leaves_the_features(captured: Captured) -> None:
    line = record("event", INSTANCES, None)
    assert captured.rows("f0, prediction, score", line) == ([(1.5, None, None), (None, None, None)], 0)


def test_blank_lines_are_no_records_and_a_last_line_may_lack_its_end(captured: Captured) -> None:
    assert captured.rows("row", GOOD, "", GOOD) == ([(0,), (0,)], 0)
    path = captured.folder / "unended.jsonl"
    path.write_text(GOOD)
    assert select(f"count(*) FROM {relation([path], SPEC)}") == [(1,)]


def test_a_window_holds_its_start_and_not_its_end(captured: Captured) -> None:
    start = datetime(2026, 11, 21, 10, tzinfo=UTC)
    moments = [start + timedelta(minutes=minutes) for minutes in (-1, 0, 59, 60)]
    lines = [record(f"{n}", "1,2,red", "1,0.5", time=moment.isoformat()) for n, moment in enumerate(moments)]
    ids, malformed = captured.rows("inference_id", *lines, "cut of", since=start, until=start + timedelta(hours=1))
    assert (ids, malformed) == ([("1",), ("2",)], 1)
    assert captured.rows("inference_id", *lines, since=moments[3]) == ([("3",)], 0)
    assert captured.rows("inference_id", *lines, until=moments[1]) == ([("0",)], 0)


def test_times_are_brought_to_utc(captured: Captured) -> None:
    line = record("event", "1,2,red", "1,0.5", time="2026-11-21T12:00:00.250+02:00")
    expected = datetime(2026, 11, 21, 10, 0, 0, 250_000)  # noqa: DTZ001 - relations hold UTC without a zone
    assert captured.rows("time", line) == ([(expected,)], 0)


def test_a_long_record_is_read_and_a_short_one_beside_it_too(captured: Captured) -> None:
    many = 40_000
    line = record("long", INSTANCES[:1] * many, PREDICTIONS[:1] * many, binary=True)
    assert len(line) > 2**21
    found, malformed = captured.rows("row", GOOD, line, GOOD)
    assert (len(found), malformed) == (many + 2, 0)


def test_several_files_and_none(captured: Captured) -> None:
    paths = [write(captured.folder / name, [GOOD]) for name in ("it's.jsonl", "[a]*?.jsonl")]
    for files, count in ((paths, 2), ([], 0)):
        assert select(f"count(*) FROM {relation(files, SPEC)}") == [(count,)]


def test_a_captured_row_can_be_sent_again_whatever_its_numbers(captured: Captured) -> None:
    sent: list[dict[str, Any]] = [INSTANCES[0], *({"x": n, "size": n, "color": "red"} for n in ("NaN", "-inf"))]
    rows, _ = captured.rows("f0, f1, f2", record("a", sent, PREDICTIONS[:1] * 3))
    found = [instance(row, SPEC) for row in rows]
    assert found == [sent[0], *({"x": None, "size": None, "color": "red"} for _ in range(2))]
    assert json.dumps(found[0]["size"]) == "2"


FIELD = st.text(alphabet="ab1\",\n\r' é", min_size=1, max_size=8).filter(lambda text: "\r\n" not in text)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(colors=st.lists(FIELD, min_size=1, max_size=6))
def test_any_text_survives_in_csv_as_in_json(colors: list[str], captured: Captured) -> None:
    quoted = ['"' + color.replace('"', '""') + '"' for color in colors]
    answers = PREDICTIONS[:1] * len(colors)
    in_csv = record("a", "".join(f"1,2,{color}\n" for color in quoted), answers)
    in_json = record("b", [{"x": 1, "size": 2, "color": color} for color in colors], answers)
    assert captured.rows("f2", in_csv, in_json) == ([(color,) for color in colors] * 2, 0)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.text(max_size=30),
    content=st.sampled_from(["text/csv", "application/json", None]),
    encoding=st.sampled_from(["CSV", "JSON", "BASE64", "?"]),
)
def test_whatever_was_captured_the_other_records_are_read(
    data: str, content: str | None, encoding: str, captured: Captured
) -> None:
    payload = {"observedContentType": content, "data": data, "encoding": encoding}
    line = json.dumps(json.loads(GOOD) | {"captureData": {"endpointInput": payload, "endpointOutput": payload}})
    line = line.replace('"good"', '"odd"')
    found, malformed = captured.rows("inference_id", GOOD, line)
    assert ("good",) in found
    assert malformed == (("odd",) not in found)
