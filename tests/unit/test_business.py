"""Business metrics: one number by the user's SQL, or the reason why there is none; and nothing else is in reach."""

from pathlib import Path
from typing import Any

import pytest

from noria import business
from noria.business import measure, problems
from noria.labels import LabelsFile
from noria.monitors import Unknown
from noria.profile import Source
from noria.spec import ModelSpec, Task, load_all
from noria.sql import Resources, connect
from tests.unit.engine_data import ODD, SMALL, record, spec_of, write

ROOT = Path(__file__).parents[2]
ROWS: list[dict[str, Any]] = [{"x": 1.5, "size": 4, "color": "red"}, {"x": 2.5, "color": "blue"}, {"x": 4.0, "size": 1}]
ANSWERS = [{"prediction": p, "score": s} for p, s in ((1, 0.9), (0, 0.2), (1, 0.6))]
REQUEST = record("event", ROWS, ANSWERS, inference_id="mine")
LABELS = "inference_id,row,y\nmine,0,1\nmine,2,0\nnobody,0,1\n"


def spec_with(task: Task = Task.BINARY, *, features: dict[str, Any] | None = None, **queries: str) -> ModelSpec:
    return spec_asking(queries, task, **({"features": features} if features else {}))


def spec_asking(queries: dict[str, str], task: Task = Task.BINARY, **changes: Any) -> ModelSpec:
    return spec_of(task, monitor={"business": {name: {"sql": sql} for name, sql in queries.items()}}, **changes)


def measured(folder: Path, sql: str, *, lines: tuple[str, ...] = (REQUEST,), labels: str = LABELS) -> float | Unknown:
    write(folder / "labels.csv", labels.splitlines())
    source = Source.captured(write(folder / "captured.jsonl", lines))
    files = [LabelsFile(folder / "labels.csv", "labels.csv")]
    return measure(source, files, spec_with(it=sql), resources=SMALL)["it"]


def reason(found: float | Unknown, *, failed: bool = True) -> str:
    assert isinstance(found, Unknown)
    assert found.failed is failed
    return found.reason


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT count(*) FROM predictions", 3),
        ("SELECT count(label) FROM predictions", 2),
        ("SELECT sum(x) FILTER (label = 1) FROM predictions", 1.5),
        ("SELECT avg(size) FROM predictions", 2.5),
        ("SELECT max(score) FROM predictions WHERE color = 'blue'", 0.2),
        ("SELECT sum(CASE WHEN prediction = label THEN 10 ELSE -1 END) FROM predictions WHERE label IS NOT NULL", 9),
        ("SELECT 1.25 -- a decimal, a comment and a semicolon\n;", 1.25),
        ("WITH hour AS (SELECT hour(time) AS h FROM predictions) SELECT max(h) FROM hour", 10),
        ("FROM predictions SELECT sum(row)", 3),
        ("SELECT count(DISTINCT inference_id) FROM predictions", 1),
    ],
)
def test_a_query_gives_a_number(sql: str, expected: float, tmp_path: Path) -> None:
    assert measured(tmp_path, sql) == expected
    assert not problems(spec_with(it=sql))


def test_a_prediction_counts_once_by_its_newest_answer(tmp_path: Path) -> None:
    lines = tuple(
        record("e", [{"x": 1.0}], [{"prediction": 1, "score": s}], time=f"2026-11-21T{hour}:00:00Z", inference_id="i")
        for hour, s in (("10", 0.6), ("12", 0.8), ("11", 0.7))
    )
    assert measured(tmp_path, "SELECT sum(score) FROM predictions", lines=(*lines, "no JSON")) == 0.8


def test_numbers_of_a_regression_are_numbers(tmp_path: Path) -> None:
    spec = spec_with(Task.REGRESSION, error="SELECT sum(abs(prediction - label)) FROM predictions")
    write(tmp_path / "labels.csv", ["inference_id,y", "mine,3.5"])
    source = Source.captured(
        write(tmp_path / "c.jsonl", [record("e", [{"x": 1}], [{"prediction": 5}], inference_id="mine")])
    )
    assert measure(source, [LabelsFile(tmp_path / "labels.csv", "labels.csv")], spec, resources=SMALL) == {"error": 1.5}
    assert not problems(spec)


def test_features_are_called_what_the_spec_calls_them(tmp_path: Path) -> None:
    names = [name for name in ODD if name != "row"]
    total = " + ".join('"' + name.replace('"', '""') + '"' for name in names)
    spec = spec_with(features={name: {"type": "number"} for name in names}, it=f"FROM predictions SELECT sum({total})")
    assert not problems(spec)
    row = {name: 2.0**place for place, name in enumerate(names)}
    source = Source.captured(write(tmp_path / "c.jsonl", [record("e", [row], [{"prediction": 1, "score": 1.0}])]))
    assert measure(source, [], spec, resources=SMALL) == {"it": 2.0 ** len(names) - 1}


def test_without_queries_nothing_is_read(tmp_path: Path) -> None:
    assert measure(Source.captured(tmp_path / "absent"), [], spec_of(), resources=SMALL) == {}


def test_no_number_is_not_enough_data(tmp_path: Path) -> None:
    assert "NULL" in reason(measured(tmp_path, "SELECT sum(x) FROM predictions", lines=()), failed=False)


NO_NUMBER = {
    "SELECT x FROM predictions": "more than one row",
    "SELECT x FROM predictions WHERE false": "no row",
    "SELECT 1, 2": "2 columns",
    "SELECT 'many'": "no number",
    "SELECT true": "no number",
    "SELECT 1e308 * 10": "gives inf",
    "SELECT 'inf'::DOUBLE": "inf",
    "SELECT 1; SELECT 2": "2 statements",
    "-- nothing": "0 statements",
    "selec 1": "syntax error",
    "SELECT nothing FROM predictions": "nothing",
    "SELECT color::INTEGER FROM predictions LIMIT 1": "red",
}


def test_a_query_that_gives_no_number_says_why_and_the_others_are_heard(tmp_path: Path) -> None:
    queries = {f"q{n}": sql for n, sql in enumerate(NO_NUMBER)}
    spec = spec_asking(queries | {"other": "SELECT 7"})
    found = measure(Source.captured(write(tmp_path / "c.jsonl", [REQUEST])), [], spec, resources=SMALL)
    for name, sql in queries.items():
        text = reason(found[name])
        assert NO_NUMBER[sql] in text
        assert "write one SELECT" in text
    assert found["other"] == 7


REACHES = [
    "SELECT count(*) FROM read_text('{file}')",
    "SELECT count(*) FROM read_csv('{file}')",
    "SELECT count(*) FROM '{file}'",
    "SELECT count(*) FROM glob('{folder}/*')",
    "SELECT count(*) FROM 'https://localhost/x.parquet'",
    "SELECT count(*) FROM read_csv('s3://bucket/x.csv')",
    "SELECT count(*) FROM query('SELECT 1 FROM read_text(''{file}'')')",
    "COPY predictions TO '{folder}/out.csv'",
    "ATTACH '{folder}/out.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "PRAGMA enable_profiling",
    "CREATE TABLE kept AS SELECT 1",
    "INSERT INTO predictions SELECT * FROM predictions RETURNING row",
    "DROP TABLE predictions",
    "SELECT count(*) FROM label",
    "SELECT count(*) FROM word",
    "SELECT count(*) FROM rows_of_python",
    "SELECT getenv('PATH')",
]


def test_nothing_but_the_predictions_is_in_reach(tmp_path: Path) -> None:
    rows_of_python = [1]
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    captured = write(tmp_path / "captured.jsonl", [REQUEST])
    labels = LabelsFile(write(tmp_path / "labels.csv", LABELS.splitlines()), "labels.csv")
    there = sorted(tmp_path.iterdir())
    queries = {f"q{n}": sql.format(file=secret, folder=tmp_path) for n, sql in enumerate(REACHES)}
    spec = spec_asking(queries | {"after": "SELECT count(*) FROM predictions"})
    found = measure(Source.captured(captured), [labels], spec, resources=SMALL)
    for name, sql in queries.items():
        assert "its query" in reason(found[name]), sql
    assert len(problems(spec)) == len(queries)
    assert found["after"] == 3
    assert sorted(tmp_path.iterdir()) == there
    assert rows_of_python == [1]


def test_a_query_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(business, "SECONDS", 0.2)
    endless = "SELECT sum(a.range * b.range % 7) FROM range(1000000) a, range(1000000) b"
    assert "not done" in reason(measured(tmp_path, endless))


def test_a_query_that_takes_too_much_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(business, "SPILL_MB", 1)
    assert "fails" in reason(measured(tmp_path, "SELECT len(list(range)) FROM range(100000000)"))


def test_predictions_that_memory_does_not_hold_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(business, "SPILL_MB", 40)
    with connect(Resources(memory_mb=32, threads=1)) as db:
        db.execute("CREATE TABLE predictions AS SELECT repeat(md5(range::VARCHAR), 12) AS x FROM range(200000)")
        business.lock(db)
        assert db.execute("SELECT sum(length(x)) FROM predictions").fetchall() == [(200_000 * 12 * 32,)]


def test_errors_quote_no_value_where_any_is_sensitive(tmp_path: Path) -> None:
    features = {"x": {"type": "number"}, "color": {"type": "category", "sensitive": True}}
    spec = spec_with(features=features, it="SELECT sum(color::INTEGER) FROM predictions")
    line = record("e", [{"x": 1, "color": "Violet"}], [{"prediction": 1, "score": 1.0}])
    found = measure(Source.captured(write(tmp_path / "c.jsonl", [line])), [], spec, resources=SMALL)
    assert "Violet" not in reason(found["it"])


def test_a_spec_is_told_what_is_wrong_before_anything_is_deployed() -> None:
    found = problems(spec_with(good="SELECT avg(x) FROM predictions", bad="SELECT avg(y) FROM predictions"))
    assert len(found) == 1
    assert found[0].startswith("example: monitor.business.bad.sql: ")
    assert '"y"' in found[0]
    assert "VARCHAR" in problems(spec_with(text="SELECT min(color) FROM predictions"))[0]
    assert "write one SELECT" in problems(spec_with(two="SELECT 1, 2"))[0]


def test_a_feature_is_not_called_like_a_column_of_every_prediction() -> None:
    (problem,) = problems(spec_with(features={"Label": {"type": "number"}}, it="SELECT 1"))
    assert "'Label'" in problem
    assert not problems(spec_of(features={"label": {"type": "number"}}))


def test_the_specs_of_this_repository_can_be_asked() -> None:
    for folder in (ROOT / "models", ROOT / "models/examples"):
        for spec in load_all(folder):
            assert problems(spec) == []
