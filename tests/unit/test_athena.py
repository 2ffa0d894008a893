"""The profile of captured requests on Athena is the one that DuckDB makes, number by number.

Queries run as Trino's on the engine of the local Athena; what real Trino does differently from DuckDB has a test each.
"""

# ruff: noqa: S608 -- SQL of constants

import base64
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.athena import Answer, AthenaError, Table, run
from noria import athena
from noria.athena import COLUMNS, Aggregate, CapturedScan, Rows, translated
from noria.profile import ColumnProfile, Cut, Edges, Profile, Source, edges, profile
from noria.sketch import BOUND
from noria.spec import ModelSpec, Task
from noria.sql import number
from tests.unit.engine_data import NOW, ODD, SMALL, record, spec_of, write
from tests.unit.test_capture import CSV_IN, CSV_OUT, INSTANCES, MALFORMED, PREDICTIONS

DAY = timedelta(days=1)
HOUR = "2026/11/21/10"
ROWS = Rows(database="noria_local", table="example", variant="champion", since=NOW - DAY, until=NOW, late=timedelta())
TABLE = Table(
    location="s3://bucket/example/captured/endpoint/",
    columns=COLUMNS,
    partitions=["variant", "hour"],
    properties={
        "projection.enabled": "true",
        "projection.variant.type": "injected",
        "projection.hour.type": "date",
        "projection.hour.format": "yyyy/MM/dd/HH",
        "projection.hour.range": "NOW-30DAYS,NOW",
        "storage.location.template": "s3://bucket/example/captured/endpoint/${variant}/${hour}/",
    },
    serde={"ignore.malformed.json": "TRUE"},
)


@dataclass(frozen=True)
class Captured:
    """Lines of one hour, described by both engines."""

    folder: Path

    def both(
        self, *lines: str, spec: ModelSpec | None = None, cut: Edges | None = None, hour: str = HOUR
    ) -> tuple[Profile, Profile]:
        spec = spec or spec_of()
        file = write(self.folder / "captured.jsonl", lines)
        source = Source.captured(file, since=ROWS.since, until=ROWS.until)
        cut = cut or edges(source, spec, resources=SMALL)
        objects = {f"s3://bucket/example/captured/endpoint/champion/{hour}/file.jsonl": file.read_bytes}
        return profile(source, spec, cut, resources=SMALL), described(spec, cut, objects)


@pytest.fixture
def captured(tmp_path: Path) -> Captured:
    return Captured(tmp_path)


def described(spec: ModelSpec, cut: Edges, objects: Mapping[str, Callable[[], bytes]]) -> Profile:
    def rows(query: str) -> list[list[str | None]]:
        return [[None if v is None else str(v) for v in row] for row in answered(query, objects).rows]

    scan = CapturedScan(ROWS, spec, cut)
    found = scan.read([rows(query)[0] for query in scan.queries])
    return scan.named(found, [row for query in scan.naming(found) for row in rows(query)])


def answered(query: str, objects: Mapping[str, Callable[[], bytes]] | None = None, table: Table = TABLE) -> Answer:
    return run(
        query,
        database="noria_local",
        catalog=lambda database, name: table if (database, name) == ("noria_local", "example") else None,
        objects=lambda start: [(uri, read) for uri, read in (objects or {}).items() if uri.startswith(start)],
        now=NOW,
    )


def scalar(trino: str) -> Any:
    ((value,),) = answered(f"SELECT {trino}").rows
    return value


def same(ours: Profile, theirs: Profile) -> None:
    """Every number is equal: sums but for the order of additions, sketches within the bound of both."""
    for one, other in zip(_columns(ours), _columns(theirs), strict=True):
        assert math.isclose(one.sum, other.sum, rel_tol=1e-12, abs_tol=1e-9)
        if one.distinct is not None and other.distinct is not None:
            assert abs(one.distinct - other.distinct) <= max(1, 2 * BOUND * max(one.distinct, other.distinct))
        assert (one.distinct is None) == (other.distinct is None)
    assert _bare(ours) == _bare(theirs)


def _columns(found: Profile) -> list[ColumnProfile]:
    return [*found.features.values(), *(c for c in (found.prediction, found.confidence) if c)]


def _bare(found: Profile) -> Profile:
    def bare(column: ColumnProfile | None) -> ColumnProfile | None:
        return column and column.model_copy(update={"sum": 0.0, "sketch": None})

    features = {name: bare(column) for name, column in found.features.items()}
    update = {"features": features, "prediction": bare(found.prediction), "confidence": bare(found.confidence)}
    return found.model_copy(update=update)


# --- both engines


def test_every_form_of_a_request_and_every_malformed_one_counts_the_same(captured: Captured) -> None:
    forms = [
        record(f"{n}", rows, answer, binary=binary)
        for n, (rows, answer, binary) in enumerate(
            (rows, answer, binary)
            for rows in (INSTANCES, CSV_IN, CSV_IN.replace("\n", "\r\n"))
            for answer in (PREDICTIONS, CSV_OUT, None)
            for binary in (False, True)
        )
    ]
    ours, theirs = captured.both(*forms, *MALFORMED.values(), spec=spec_of(segments=["color"]))
    assert (ours.rows, ours.malformed) == (2 * len(forms), len(MALFORMED))
    assert theirs.segments["color"]
    same(ours, theirs)


def test_json_lines_and_media_types_with_parameters_count_the_same(captured: Captured) -> None:
    sent, told = ("".join(json.dumps(each) + "\n" for each in rows) for rows in (INSTANCES, PREDICTIONS))
    document = json.loads(record("event", INSTANCES, PREDICTIONS))
    for name, body in (("endpointInput", sent), ("endpointOutput", told)):
        document["captureData"][name] = {
            "observedContentType": "Application/JsonLines; charset=utf-8",
            "mode": "INPUT",
            "encoding": "BASE64",
            "data": base64.b64encode(body.encode()).decode(),
        }
    ours, theirs = captured.both(json.dumps(document))
    assert ours.rows == 2
    same(ours, theirs)


@pytest.mark.parametrize("task", Task)
def test_predictions_of_every_task_count_the_same(captured: Captured, task: Task) -> None:
    answers: list[dict[str, Any]] = [
        {"prediction": "a", "score": 0.75, "scores": {"a": 0.75, "b": 0.25}},
        {"prediction": 2.5, "score": 0.1, "scores": {"a": 0.1, "b": None}},
        {"prediction": None, "score": None, "scores": {}},
        {"prediction": "1e999", "score": "0.5", "scores": {"a": "warm", "b": 0.9}},
        {"prediction": -1},
    ]
    rows = [INSTANCES[0]] * len(answers)
    same(*captured.both(record("e", rows, answers), record("f", CSV_IN, CSV_OUT), spec=spec_of(task)))


def test_values_that_are_not_of_their_type_are_missing_in_both(captured: Captured) -> None:
    nothing = ["", "NaN", "inf", "-Infinity", "1e999", "warm", "1,5", "1f", "0x1p3", "1e", True, [1], {"a": 1}, None]
    numbers = [0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308, 2**53 + 1, " 7 ", "+5", ".5", "5.", "1E3", "007"]
    rows = [{"x": value, "size": value, "color": "red"} for value in (*nothing, *numbers)]
    ours, theirs = captured.both(record("e", rows, [PREDICTIONS[0]] * len(rows)))
    assert ours.features["x"].missing == len(nothing)
    same(ours, theirs)


def test_features_and_categories_may_be_called_anything(captured: Captured) -> None:
    spec = spec_of(features={name: {"type": "category"} for name in ODD}, segments=[ODD[2]])
    lines = [record(f"{n}", [dict.fromkeys(ODD, odd)], PREDICTIONS[:1]) for n, odd in enumerate(ODD)]
    ours, theirs = captured.both(*lines, spec=spec)
    assert {*theirs.features[ODD[2]].categories} == {*ODD}
    same(ours, theirs)


def test_categories_that_the_edges_do_not_know_are_named(captured: Captured) -> None:
    names = [f"new {n:02}" for n in range(25)] + ["x" * 200, "größe", "🙂"]
    known = {"x": Cut(kind="number"), "color": Cut(kind="category", categories=("red",), complete=True)}
    lines = [record(name, [{"x": 1, "color": name}], PREDICTIONS[:1]) for name in [*names, "red"]]
    ours, theirs = captured.both(*lines, cut=Edges(features=known))
    assert theirs.features["color"].new == tuple(sorted(names)[:20])
    assert theirs.outliers == len(names)
    same(ours, theirs)


def test_no_requests_are_a_profile_too(captured: Captured) -> None:
    cut = Edges(features={"x": Cut(kind="number", edges=(1.0,)), "color": Cut(kind="category", categories=("red",))})
    ours, theirs = captured.both(cut=cut)
    assert theirs.rows == 0
    same(ours, theirs)


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.fixed_dictionaries({"x": VALUES, "size": VALUES, "color": st.text()})), max_size=4))
def test_any_values_count_the_same(captured: Captured, requests: Sequence[list[dict[str, Any]]]) -> None:
    lines = [record(f"{n}", rows, [PREDICTIONS[0]] * len(rows)) for n, rows in enumerate(requests)]
    same(*captured.both(*lines))


def test_many_different_values_are_estimated_within_the_bound(captured: Captured) -> None:
    rows = [{"x": n / 7, "size": n % 50, "color": f"{n % 1000}"} for n in range(5000)]
    ours, theirs = captured.both(record("e", rows, [PREDICTIONS[0]] * len(rows)))
    for name, truth in {"x": 5000, "size": 50, "color": 1000}.items():
        assert theirs.features[name].distinct == pytest.approx(truth, rel=BOUND)
    same(ours, theirs)


# --- the window


def test_only_the_windows_requests_count(captured: Captured) -> None:
    times = [
        "2026-11-20T11:59:59.999999Z",
        "2026-11-20T12:00:00Z",
        "2026-11-21T11:59:59.999999Z",
        "2026-11-21T12:00:00Z",
    ]
    lines = [record(f"{n}", "1,2,red", "1,0.5", time=time) for n, time in enumerate(times)]
    probe = record("p", "1,2,red", "1,0.5", inference_id="noria-probe-1")
    ours, theirs = captured.both(*lines, probe)
    assert ours.rows == 2
    same(ours, theirs)


def test_files_of_other_hours_and_variants_are_not_read() -> None:
    cut = Edges(features={})
    line = record("e", "1,2,red", "1,0.5").encode()
    read: list[str] = []

    def content(name: str) -> bytes:
        read.append(name)
        return line

    places = [f"champion/{HOUR}", "champion/2026/11/20/11", "champion/2026/11/21/13", f"challenger/{HOUR}"]
    start = "s3://bucket/example/captured/endpoint/"
    found = described(spec_of(), cut, {f"{start}{p}/f.jsonl": lambda p=p: content(p) for p in places})  # type: ignore[misc]
    assert (found.rows, {*read}) == (1, {places[0]})


def test_a_partition_beyond_the_tables_range_does_not_exist() -> None:
    uri = "s3://bucket/example/captured/endpoint/champion/{}/f.jsonl"
    body = record("e", "1,2,red", "1,0.5").encode
    query = "SELECT count(*) FROM example WHERE variant = 'champion'"
    for hour, rows in (("2026/10/21/11", 0), ("2026/10/23/11", 1), ("2026/11/21/12", 1), ("2026/11/21/13", 0)):
        assert answered(query, {uri.format(hour): body}).rows == [[rows]], hour


def test_a_query_must_say_of_which_variant() -> None:
    with pytest.raises(AthenaError, match="injected projected partition column variant"):
        answered("SELECT count(*) FROM example WHERE hour = '2026/11/21/10'")


# --- what the dialects say differently


def test_numbers_are_cast_from_texts_as_a_literal_is_a_decimal_in_trino() -> None:
    for value in (0.1, 0.30000000000000004, -2.5, 1e16, 5e-324, 1.7976931348623157e308, -0.0):
        sql = translated(f"x <= {number(value)}").sql("athena")
        assert "'" in sql
        assert scalar(sql.removeprefix("x <= ")) == value
    assert translated("p >= 0.5").sql("athena") == "p >= CAST('0.5' AS DOUBLE)"


def test_a_place_that_is_none_is_0_in_trino_and_null_in_duckdb() -> None:
    assert [scalar(f"array_position(ARRAY['a', 'b'], {x})") for x in ("'b'", "'c'", "NULL")] == [2, 0, None]


def test_counting_no_rows_is_0_in_both() -> None:
    sql = Aggregate.of("coalesce(count_if(x > 1.5::DOUBLE), 0)").sql
    assert sql == "COALESCE(COUNT_IF(x > CAST('1.5' AS DOUBLE)), 0)"
    assert answered(f"SELECT {sql} FROM (SELECT 1e0 AS x WHERE false)").rows == [[0]]


def test_a_histogram_comes_as_json_as_athena_writes_maps_in_no_format_of_anybodys() -> None:
    aggregate = Aggregate.of("histogram_exact(array_position(['a', 'it''s'], f1), [1, 2])")
    assert aggregate.sql == "JSON_FORMAT(CAST(HISTOGRAM(ARRAY_POSITION(ARRAY['a', 'it''s'], f1)) AS JSON))"
    ((text,),) = answered(f"SELECT {aggregate.sql} FROM (VALUES ('a'), ('b'), ('it''s'), ('a'), (NULL)) AS t(f1)").rows
    assert aggregate.read(text) == {0: 1, 1: 2, 2: 1}


def test_a_sketch_is_the_places_of_its_bits_hashed_by_md5() -> None:
    cut = Edges(features={"color": Cut(kind="category")})
    scan = CapturedScan(ROWS, spec_of(), cut)
    (query,) = scan.queries
    assert "BITSTRING_AGG" not in query
    assert " HASH(" not in query
    assert "MAP_KEYS(HISTOGRAM(" in query
    assert "BIT_COUNT(" in query
    assert query.count("BIT_COUNT(") == query.count(", 64)")  # Trino's bit_count asks of how many bits
    # The first 8 bytes of md5('a') without their sign; DuckDB would take bytes beyond 2^63 for negative.
    assert scalar("bitwise_and(from_big_endian_64(substr(md5(to_utf8('a')), 1, 8)), 9223372036854775807)") == int(
        "0cc175b9c0f1b6a8", 16
    )


def test_what_is_no_utf8_is_replaced_in_trino_and_fails_in_duckdb(captured: Captured) -> None:
    assert scalar("from_utf8(from_base64('/w=='))") == "\ufffd"
    line = json.loads(record("e", "1,2,red", "1,0.5", binary=True))
    line["captureData"]["endpointInput"]["data"] = base64.b64encode(b"1,2,\xff").decode()
    ours, theirs = captured.both(json.dumps(line))
    assert (ours.rows, ours.malformed) == (0, 1)
    same(ours, theirs)


def test_json_has_no_nan_in_trino_and_has_in_duckdb(captured: Captured) -> None:
    assert scalar("TRY(json_parse('[NaN]'))") is None
    rows = [{"x": math.nan, "size": -math.inf, "color": "x: NaN, y"}, {"x": 1, "size": math.inf, "color": "red"}]
    line = record("e", rows, PREDICTIONS)
    assert "NaN" in line
    ours, theirs = captured.both(line, cut=Edges(features={"x": Cut(kind="number"), "color": Cut(kind="category")}))
    assert (theirs.malformed, theirs.features["x"].missing, theirs.features["size"].missing) == (0, 1, 2)
    # Only there, a text with a bare NaN after a comma or colon is told with null in its place.
    assert theirs.features["color"].new == ("red", "x: null, y")
    assert ours.features["color"].new == ("red", "x: NaN, y")


def test_a_number_as_a_category_is_written_anew(captured: Captured) -> None:
    line = record("e", [{"x": 1, "size": 1, "color": 0}], PREDICTIONS[:1]).replace(": 0}", ": 1.10}")
    assert "1.10" in line
    _, theirs = captured.both(line, cut=Edges(features={"color": Cut(kind="category")}))
    assert theirs.features["color"].new == ("1.1",)


def test_an_underscore_in_a_number_is_duckdbs_alone(captured: Captured) -> None:
    ours, theirs = captured.both(record("e", "1_000,2,red", "1,0.5"))
    assert (ours.features["x"].missing, theirs.features["x"].missing) == (0, 1)


# --- texts


@pytest.mark.parametrize("value", [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1e16])
def test_a_double_is_read_to_its_last_bit(value: float) -> None:
    # Java writes 1.0E16, DuckDB 1e+16.
    for text in (repr(value), f"{value!r}".replace("e", "E").replace("+", "")):
        read = Aggregate.of("sum(f0)").read(text)
        assert (read, math.copysign(1, read)) == (value, math.copysign(1, value))


def test_a_query_means_the_same_when_trino_reads_it() -> None:
    for task in Task:
        for query in CapturedScan(ROWS, spec_of(task, segments=["color"]), Edges(features={})).queries:
            read = sqlglot.parse_one(query, dialect="trino")
            assert read == sqlglot.parse_one(read.sql("trino"), dialect="trino")
            assert "::" not in query


def test_more_aggregates_than_one_query_takes_are_asked_in_several(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(athena, "AT_ONCE", 7)
    assert len(CapturedScan(ROWS, spec_of(), Edges(features={})).queries) > 1
    same(*captured.both(*(record(f"{n}", INSTANCES, PREDICTIONS) for n in range(3))))


def test_the_queries_of_hundreds_of_features_are_as_long_as_athena_takes() -> None:
    features = {f"{'number' * 4}{n}": {"type": "number"} for n in range(300)}
    cut = Edges(features={name: Cut(kind="number", edges=(0.5, 1.5)) for name in features})
    queries = CapturedScan(ROWS, spec_of(features=features, segments=[]), cut).queries
    assert max(len(query.encode()) for query in queries) <= athena.LONGEST
    assert len(queries) < 20


def test_who_asks_athena_nothing_does_not_wait_for_the_translator() -> None:
    handlers = "lambdas.validate_upload.handler, lambdas.monitor_model.handler"
    asked = f"import sys, {handlers}; print('sqlglot' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_queries_that_are_too_long_are_split_and_say_the_same(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(features={**spec_of().model_dump(mode="json")["features"], "shape": {"type": "category"}})
    rows = [{"x": n, "size": n, "color": f"new {n}", "shape": f"new {n}"} for n in range(40)]
    known = {"color": Cut(kind="category", categories=("red",)), "shape": Cut(kind="category", categories=("o",))}
    lines = [record("e", rows, [PREDICTIONS[0]] * len(rows))]
    whole = CapturedScan(ROWS, spec, Edges(features=known))
    monkeypatch.setattr(athena, "LONGEST", max(len(query.encode()) for query in whole.queries) - 1)
    split = CapturedScan(ROWS, spec, Edges(features=known))
    assert len(split.queries) > 1
    same(*captured.both(*lines, spec=spec, cut=Edges(features=known)))


def test_a_query_that_is_too_long_by_itself_is_refused_with_a_remedy() -> None:
    categories = tuple("x" * 3000 + str(n) for n in range(100))
    scan = CapturedScan(ROWS, spec_of(), Edges(features={"color": Cut(kind="category", categories=categories)}))
    with pytest.raises(ValueError, match=r"longer than the 262,144 that Athena takes; a shorter monitor\.every"):
        _ = scan.queries


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("SELECT 1::DOUBLE", "SYNTAX_ERROR"),
        ("SELECT FROM WHERE", "SYNTAX_ERROR"),
        ("SELECT list_transform([1], x -> x)", "FUNCTION_NOT_FOUND"),
        ("SELECT bitstring_agg(1)", "FUNCTION_NOT_FOUND"),
        ("DROP TABLE example", "NOT_SUPPORTED"),
        ("SELECT * FROM elsewhere", "TABLE_NOT_FOUND"),
        ("SELECT json_parse('{')", "GENERIC_USER_ERROR"),
    ],
)
def test_the_local_athena_refuses_what_is_no_trino(statement: str, problem: str) -> None:
    with pytest.raises(AthenaError, match=problem):
        answered(statement)


def test_a_row_that_is_no_json_fails_a_query_unless_the_table_says_otherwise() -> None:
    strict = Table(**{**TABLE.__dict__, "serde": {}})
    objects = {f"s3://bucket/example/captured/endpoint/champion/{HOUR}/f.jsonl": lambda: b"cut of"}
    query = "SELECT count(*) FROM example WHERE variant = 'champion'"
    assert answered(query, objects).rows == [[1]]
    with pytest.raises(AthenaError, match="HIVE_CURSOR_ERROR"):
        answered(query, objects, strict)


def test_times_are_utc_whatever_the_machines_zone() -> None:
    rows = Rows(**{**ROWS.__dict__, "since": datetime(2026, 11, 21, 1, tzinfo=UTC).astimezone()})
    assert "'2026/11/21/01'" in athena.relation(rows, spec_of(), [])
    assert "TIMESTAMP '2026-11-21 01:00:00 UTC'" in athena.relation(rows, spec_of(), [])
