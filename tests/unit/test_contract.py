"""A file keeps the contract, or the report names what does not, and where."""

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from noria.contract import Report, check
from noria.spec import ModelSpec, Task
from noria.sql import LONGEST_LINE, connect
from noria.violations import Violation
from tests.unit.engine_data import NOW, ODD, SMALL, spec_of

FEATURES: dict[str, Any] = {
    "x": {"type": "number", "min": -10, "max": 10, "missing": 0.25},
    "size": {"type": "integer"},
    "color": {"type": "category", "values": ["red", "blue"]},
}
SPEC = spec_of(features=FEATURES, id="key", min_rows=2, max_rows=8)
GOOD: list[dict[str, Any]] = [
    {"key": f"k{n}", "at": f"2026-01-0{n + 1}T00:00:00", "x": n, "size": n, "color": "red", "y": n % 2}
    for n in range(4)
]
Change = dict[str, Any]


def text(rows: Sequence[Change], end: str = "\n") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def changed(*changes: Change) -> str:
    """The good file, each row with its change, if it has one."""
    return text([row | change for row, change in zip(GOOD, [*changes, *[{}] * len(GOOD)], strict=False)])


def checked(folder: Path, content: str | bytes, name: str = "january.csv", spec: ModelSpec = SPEC) -> Report:
    path = folder / "upload"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return check(path, spec, filename=name, now=NOW, resources=SMALL)


def parquet(folder: Path, select: str) -> bytes:
    path = folder / "made.parquet"
    with connect(SMALL) as db:
        db.sql(select).write_parquet(str(path))
    return path.read_bytes()


def found(report: Report, rule: str) -> Violation:
    """The violation of a rule, which must be the only one that refuses the file."""
    (violation,) = [violation for violation in report.violations if violation.severity == "reject"]
    assert not report.accepted
    assert violation.rule == rule
    return violation


# --- good files


def good_files() -> dict[str, Callable[[], bytes]]:
    return {
        "csv": lambda: text(GOOD).encode(),
        "crlf": lambda: text(GOOD, end="\r\n").encode(),
        "byte order mark": lambda: text(GOOD).encode("utf-8-sig"),
        "no newline at the end": lambda: text(GOOD).rstrip().encode(),
        "blank lines": lambda: text(GOOD).replace("\n", "\n\n").encode(),
        "spaces in the header": lambda: text(GOOD).replace("size,", " size ,", 1).encode(),
        "columns in another order": lambda: text([dict(reversed(row.items())) for row in GOOD]).encode(),
        "all values quoted": lambda: "".join(
            ",".join(f'"{field}"' for field in line.split(",")) + "\n" for line in text(GOOD).splitlines()
        ).encode(),
    }


@pytest.mark.parametrize("name", good_files())
def test_a_good_file_is_accepted(name: str, tmp_path: Path) -> None:
    report = checked(tmp_path, good_files()[name]())
    assert (report.accepted, report.violations, report.rows) == (True, (), 4)
    assert set(report.columns) == set(GOOD[0])
    assert (report.first_event, report.last_event) == (
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 4, tzinfo=UTC),
    )


def test_parquet_is_judged_as_csv_is(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(text(GOOD))
    content = parquet(tmp_path, f"FROM read_csv('{tmp_path / 'good.csv'}')")
    as_csv, as_parquet = checked(tmp_path, text(GOOD)), checked(tmp_path, content, "january.parquet")
    assert as_parquet.accepted
    same = ("rows", "columns", "first_event", "last_event", "violations")
    assert as_parquet.model_dump(include={*same}) == as_csv.model_dump(include={*same})


def test_times_with_an_offset_are_brought_to_utc(tmp_path: Path) -> None:
    report = checked(tmp_path, changed({"at": "2025-12-31T23:30:00-01:00"}))
    assert report.first_event == datetime(2026, 1, 1, 0, 30, tzinfo=UTC)


def test_quoted_newlines_commas_and_quotes_are_part_of_a_value(tmp_path: Path) -> None:
    report = checked(tmp_path, changed({"note": 'a\nb, "c"'}, {"note": "="}, {"note": "x"}, {"note": "y"}))
    (warning,) = report.violations
    assert (report.accepted, report.rows, warning.rule, warning.column) == (True, 4, "unexpected", "note")


def test_columns_and_values_may_be_called_anything(tmp_path: Path) -> None:
    spec = spec_of(features={name: {"type": "category", "values": [name]} for name in ODD})
    rows = [{"at": f"2026-01-0{n}", **{name: name for name in ODD}, "y": n % 2} for n in (1, 2)]
    assert checked(tmp_path, text(rows), spec=spec).violations == ()
    wrong = checked(tmp_path, text([*rows, {**rows[0], ODD[0]: "=cmd|' /C calc'!A0"}]), spec=spec)
    assert found(wrong, "category").samples == ("=cmd|' /C calc'!A0",)


# --- each rule

BROKEN = {
    "no finite number": ("x", ["warm", "NaN", "-inf", "1e999", "1,5"], "type"),
    "no number in disguise": ("x", ["0x10", "=1+1", "1 000", "--1", "one"], "type"),
    "no whole number": ("size", ["2.5", "1e17", "x"], "type"),
    "below the range": ("x", ["-10.5", "-11"], "range"),
    "above the range": ("x", ["10.5", "11"], "range"),
    "no known category": ("color", ["green", "RED", " red"], "category"),
    "no time": ("at", ["yesterday", "2026-02-30", "infinity", "290000-01-01", ""], "time"),
    "a time to come": ("at", ["2026-11-23", "9999-12-31"], "future"),
    "no outcome": ("y", ["", " "], "target"),
}


@pytest.mark.parametrize(("column", "values", "rule"), BROKEN.values(), ids=BROKEN)
def test_a_rule_that_is_broken_is_named_with_its_rows(
    column: str, values: list[str], rule: str, tmp_path: Path
) -> None:
    bad = [{**GOOD[n % 2], "key": f"bad{n}", column: value} for n, value in enumerate(values)]
    violation = found(checked(tmp_path, text([*GOOD[:2], *bad])), rule)
    assert (violation.column, violation.count) == (column, len(values))
    assert violation.rows == tuple(range(3, 3 + len(values)))
    assert violation.samples == tuple(sorted(value for value in values if value))


def test_only_the_first_rows_are_named_and_all_are_counted(tmp_path: Path) -> None:
    rows = [{**GOOD[0], "key": n, "size": "a" * 200, "y": n % 2} for n in range(8)]
    violation = found(checked(tmp_path, text(rows)), "type")
    assert (violation.count, violation.rows, violation.samples) == (8, (1, 2, 3, 4, 5), ("a" * 80,))


def test_missing_values_are_allowed_up_to_their_share(tmp_path: Path) -> None:
    assert checked(tmp_path, changed({"x": ""})).accepted
    violation = found(checked(tmp_path, changed({"x": ""}, {"x": '""'.strip('"')})), "missing")
    assert (violation.column, violation.count) == ("x", 2)
    assert "50.0% of rows lack a value, 25.0% may" in violation.message


def test_a_missing_column_names_the_one_it_may_be(tmp_path: Path) -> None:
    report = checked(tmp_path, text(GOOD).replace("color", "colour", 1))
    assert found(report, "column").message == "column 'color' is missing: rename 'colour' to it"
    assert [v.samples for v in report.violations if v.severity == "warn"] == [("colour",)]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    for twice in ("size", "Size"):
        content = text(GOOD).replace("color", twice, 1)
        assert f"'size' and '{twice}'" in found(checked(tmp_path, content), "header").message


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_another_separator_is_named(separator: str, tmp_path: Path) -> None:
    found(checked(tmp_path, text(GOOD).replace(",", separator)), "separator")


def test_lines_that_are_no_rows_are_named(tmp_path: Path) -> None:
    lines = text(GOOD).splitlines()
    lines[2] += ",one too many"
    lines[3] = lines[3].rsplit(",", 2)[0]
    violation = found(checked(tmp_path, "\n".join(lines)), "fields")
    assert (violation.count, violation.lines) == (2, (3, 4))


def test_a_quote_that_never_closes_is_named_by_its_line(tmp_path: Path) -> None:
    violation = found(checked(tmp_path, text(GOOD) + 'k9,2026-01-01,1,1,"red,1\nk10,2026-01-01,1,1,red,1\n'), "fields")
    assert violation.lines == (6,)


def test_ids_are_unique(tmp_path: Path) -> None:
    violation = found(checked(tmp_path, changed({}, {"key": "k0"}, {"key": "k0"})), "unique")
    assert (violation.column, violation.count) == ("key", 2)


def test_the_number_of_rows_has_bounds(tmp_path: Path) -> None:
    found(checked(tmp_path, text(GOOD[:1])), "min_rows")
    found(checked(tmp_path, text([{**GOOD[0], "key": n, "y": n % 2} for n in range(9)])), "max_rows")


@pytest.mark.parametrize(
    ("outcomes", "rule"),
    [(["1", "1.0", "1", "1"], "constant"), (["1", "0", "1", "2"], "classes")],
    ids=["one class", "three classes"],
)
def test_a_binary_outcome_has_two_values(outcomes: list[str], rule: str, tmp_path: Path) -> None:
    assert found(checked(tmp_path, changed(*({"y": outcome} for outcome in outcomes))), rule).column == "y"


def test_labels_of_a_multiclass_model_may_be_many(tmp_path: Path) -> None:
    content = changed(*({"y": label} for label in "abcd"))
    assert checked(tmp_path, content, spec=spec_of(Task.MULTICLASS, features=FEATURES)).accepted


def test_the_outcome_of_a_regression_is_a_number(tmp_path: Path) -> None:
    spec = spec_of(Task.REGRESSION, features=FEATURES)
    assert checked(tmp_path, changed({"y": "0.5"}), spec=spec).accepted
    violation = found(checked(tmp_path, changed({"y": "late"}, {"y": "nan"}), spec=spec), "target")
    assert (violation.rows, violation.samples) == ((1, 2), ("late", "nan"))


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    lines = changed({}, {"x": "warm"}, {"x": "mild", "size": "2.5"}, {"color": "green"}).splitlines()
    lines[0] = lines[0].replace("at", "att")
    report = checked(tmp_path, "\n".join([*lines, lines[-1].rsplit(",", 2)[0]]))
    told = {violation.rule: (violation.column, violation.rows, violation.lines) for violation in report.violations}
    assert told == {
        "column": ("at", (), ()),
        "unexpected": ("att", (), ()),
        "type": ("size", (3,), ()),
        "category": ("color", (4,), ()),
        "fields": (None, (), (6,)),
    }
    assert len(report.violations) == len(told) + 1  # two columns break rule type
    shown = report.to_text()
    assert all(violation.message in shown for violation in report.violations)
    assert "(rows 2, 3)" in shown


# --- files that are no tables


def no_tables(folder: Path) -> dict[str, tuple[bytes, str, str]]:
    table = parquet(folder, "SELECT 1 AS x")
    good = text(GOOD).encode()
    return {
        "empty": (b"", "f.csv", "empty"),
        "empty parquet": (b"", "f.parquet", "empty"),
        "another kind": (good, "f.xlsx", "format"),
        "no kind": (good, "f", "format"),
        "gzip under csv": (gzip.compress(good), "f.csv", "format"),
        "zip under csv": (b"PK\x03\x04" + good, "f.csv", "format"),
        "parquet under csv": (table, "f.csv", "format"),
        "csv under parquet": (good, "f.parquet", "format"),
        "truncated parquet": (table[:-20], "f.parquet", "truncated"),
        "parquet of a few bytes": (b"PAR1PAR1", "f.parquet", "readable"),
        "damaged parquet": (table[:-60] + b"\xff" * 40 + table[-20:], "f.parquet", "readable"),
        "zeros": (good + b"\0" * 8, "f.csv", "format"),
        "UTF-16": (text(GOOD).encode("utf-16"), "f.csv", "encoding"),
        "latin 1": (good.replace(b"red", b"r\xe9d"), "f.csv", "encoding"),
        "a character cut at the end": (good + "é".encode()[:1], "f.csv", "encoding"),
        "blank first line": (b"\n" + good, "f.csv", "header"),
        "a quote and nothing else": (b'"', "f.csv", "header"),
        "header only": (good.splitlines()[0], "f.csv", "min_rows"),
        "mixed line ends": (good.replace(b"\n", b"\r\n", 2), "f.csv", "readable"),
        "a line too long": (good + b"x" * 2 * LONGEST_LINE, "f.csv", "format"),
        "a line that a buffer ends in": (
            good + b"k9,2026-01-01,1,1,red," + b"1" * 3 * LONGEST_LINE + b"\n",
            "f.csv",
            "format",
        ),
    }


def test_what_is_no_table_is_refused_with_its_reason(tmp_path: Path) -> None:
    for name, (content, filename, rule) in no_tables(tmp_path).items():
        report = checked(tmp_path, content, filename)
        assert [v.rule for v in report.violations] == [rule], name
        assert not report.accepted, name
        assert report.bytes == len(content), name


def test_the_byte_that_is_not_utf_8_is_named_wherever_it_is(tmp_path: Path) -> None:
    start = text(GOOD).encode() + b"k9,2026-01-01,1,1,red,"
    for length in (10, 2**20 - len(start) - 1, 2**20 - len(start), 2**20):
        content = start + b"1" * length + b"\xe9\n"
        assert f"byte {len(content) - 2:,} " in found(checked(tmp_path, content), "encoding").message


def test_thousands_of_columns_are_no_harm(tmp_path: Path) -> None:
    more = {f"c{n}": n for n in range(3000)}
    report = checked(tmp_path, text([row | more for row in GOOD]))
    (warning,) = report.violations
    assert (report.accepted, warning.count, len(warning.samples)) == (True, 3000, 5)


def test_parquet_columns_of_other_types_are_told(tmp_path: Path) -> None:
    odd = ["{'a': 1}", "[1.5]", "'\\xAA'::BLOB", "now()", "uuid()", "INTERVAL 1 DAY"]
    spec = spec_of(features={f"x{n}": {"type": "number"} for n in range(len(odd))})
    columns = ", ".join(f"{value} AS x{n}" for n, value in enumerate(odd))
    content = parquet(tmp_path, f"SELECT '2026-01-01' AS at, {columns}, i % 2 AS y FROM range(2) t(i)")  # noqa: S608
    report = checked(tmp_path, content, "f.parquet", spec)
    assert [(v.column, v.rule, v.rows) for v in report.violations] == [(name, "type", (1, 2)) for name in spec.features]


# --- anything at all

LINES = st.text(alphabet='a1,";\n\r\t #\\é\ufeff', max_size=60)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["f.csv", "f.csv", "f.parquet"]),
    start=st.sampled_from([b"", text(GOOD).encode(), b"PAR1"]),
    rest=st.binary(max_size=200) | LINES.map(str.encode),
)
@example(name="f.csv", start=b"", rest=b",,,\n")
@example(name="f.parquet", start=b"PAR1", rest=b"\x08\0\0\0PAR1")
def test_whatever_a_file_holds_the_answer_is_a_report(name: str, start: bytes, rest: bytes, tmp_path: Path) -> None:
    report = checked(tmp_path, start + rest, name)
    assert report.accepted == (not [v for v in report.violations if v.severity == "reject"])
    assert report.to_text()
    assert Report.model_validate_json(report.model_dump_json()) == report
