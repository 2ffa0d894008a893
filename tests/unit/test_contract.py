"""A file keeps the contract, or the report names what does not, and where."""

import csv
import gzip
import io
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from noria import tally
from noria.cli.contracts import told
from noria.contract import MOST, SAMPLED, Report, check, moment
from noria.profile import Source, profile
from noria.spec import Contract, ModelSpec, Task
from noria.sql import LONGEST_LINE, Resources, connect, cursor
from noria.violations import MASK, Violation
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
    with cursor(SMALL) as db:
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


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_of_few_values_are_judged_as_those_of_many(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where values are few they are counted first and judged then; else each row is."""
    names = ("value", "n", "place", "tally")
    values = ["", "3", "3.0", "7.5", "-11", "1e400", "NaN", "x", "=1+1", "+1", "red", " 5 ", "9007199254740993", "ünï"]
    spec = spec_of(
        features={**FEATURES, **{name: {"type": "category"} for name in names}},
        contract={"severity": {"range": "warn"}},
    )
    rows = [
        {"at": f"2026-01-{n + 1:02}T00:00:00.5", **dict.fromkeys([*FEATURES, *names], value), "y": n % 2}
        for n, value in enumerate(values)
    ]
    (tmp_path / "rows.csv").write_text(text([*rows, rows[3], rows[3]]))
    (tmp_path / "good.csv").write_text(
        text([{**dict.fromkeys(spec.columns, "red"), "x": n, "size": n} for n in range(9)])
    )
    baseline = profile(Source.files(tmp_path / "good.csv"), spec, resources=SMALL)
    content = (tmp_path / "rows.csv").read_bytes()
    if kind == "parquet":
        content = parquet(tmp_path, f"FROM read_csv('{tmp_path / 'rows.csv'}', all_varchar = true)")
    path = tmp_path / "upload"
    path.write_bytes(content)

    def judged() -> Report:
        return check(path, spec, filename=f"rows.{kind}", now=NOW, baseline=baseline, resources=SMALL)

    counted = judged()
    monkeypatch.setattr(tally, "MOST", 0)
    assert judged() == counted
    assert {"type", "range", "category", "formula", "duplicates"} <= {v.rule for v in counted.violations}


def test_numbers_that_name_categories_and_classes_are_judged_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet may hold both as whole numbers, and those beyond 2^53 differ too."""
    features = {"code": {"type": "category", "values": ["1", "2.0"]}}
    spec = spec_of(Task.MULTICLASS, features=features, contract={"severity": {"constant": "reject"}})
    select = "SELECT DATE '2026-01-01' AS at, i::INTEGER AS code, i + 9007199254740991 AS y FROM range(1, 3) t(i)"
    (tmp_path / "good.csv").write_text("code\n1\n2\n")
    baseline = profile(Source.files(tmp_path / "good.csv"), spec, resources=SMALL)
    (tmp_path / "upload").write_bytes(parquet(tmp_path, select))

    def judged() -> Report:
        return check(tmp_path / "upload", spec, filename="f.parquet", now=NOW, baseline=baseline, resources=SMALL)

    counted = judged()
    monkeypatch.setattr(tally, "MOST", 0)
    assert judged() == counted
    assert found(counted, "category").samples == ("2",)


def test_a_sum_beyond_all_doubles_does_not_keep_a_file_from_its_verdict(tmp_path: Path) -> None:
    spec = spec_of(features={"x": {"type": "number"}})
    good, path = tmp_path / "good.csv", tmp_path / "upload"
    good.write_text(text([{"at": "2026-01-01", "x": n, "y": n % 2} for n in range(9)]))
    baseline = profile(Source.files(good), spec, resources=SMALL)
    for extremes in (["1e308", "9e307"], ["1e308", "-1e308"]):
        path.write_text(text([{"at": "2026-01-01", "x": x, "y": n} for x in extremes for n in (0, 1)]))
        report = check(path, spec, filename="f.csv", now=NOW, baseline=baseline, resources=SMALL)
        assert (report.accepted, report.rows) == (True, 4)


def test_values_too_long_to_be_counted_in_memory_are_judged_row_by_row(tmp_path: Path) -> None:
    spec, path = spec_of(features={"note": {"type": "category"}}), tmp_path / "upload.parquet"
    with connect(SMALL) as db:
        long = "SELECT DATE '2026-01-01' AS at, i || repeat('x', 10000) AS note, i % 2 AS y FROM range(8000) t(i)"
        db.sql(long).write_parquet(str(path), row_group_size=2048)
    little = Resources(memory_mb=64, threads=1)
    report = check(path, spec, filename="f.parquet", now=NOW, resources=little)
    assert (report.accepted, report.rows, report.violations) == (True, 8_000, ())


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
    "no time with its zone": (
        "at",
        ["2026-01-01T17:00:00.1 +", "2026-01-01T17:00:00.1 1", "2026-01-01T17:00:00.1 Z"],
        "time",
    ),
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


@pytest.mark.parametrize(("time", "rule"), [("1969-12-31T23:59:59", "early"), ("2026-11-22T12:00:01", "future")])
def test_times_outside_of_what_is_plausible_are_named(time: str, rule: str, tmp_path: Path) -> None:
    assert found(checked(tmp_path, changed({"at": time})), rule).rows == (1,)
    later = SPEC.model_copy(update={"contract": Contract(ahead="2d", earliest="1960-01-01")})
    assert checked(tmp_path, changed({"at": time}), spec=later).accepted


def test_a_rule_may_be_made_milder_or_stricter_for_all_and_for_one_column(tmp_path: Path) -> None:
    content = changed({"x": 11, "color": "green", "note": "n"})
    rules = {v.rule: v.severity for v in checked(tmp_path, content).violations}
    assert rules == {"range": "reject", "category": "reject", "unexpected": "warn"}
    features = {**FEATURES, "x": {**FEATURES["x"], "severity": {"range": "reject"}}}
    severity = {"range": "warn", "category": "warn", "unexpected": "reject"}
    told = checked(tmp_path, content, spec=spec_of(features=features, id="key", contract={"severity": severity}))
    assert {v.rule: v.severity for v in told.violations} == severity | {"range": "reject"}
    mild = checked(
        tmp_path,
        content,
        spec=spec_of(features=FEATURES, id="key", contract={"severity": dict.fromkeys(rules, "warn")}),
    )
    assert (mild.accepted, len(mild.violations)) == (True, 3)


def test_no_rows_are_refused_whatever_a_spec_says(tmp_path: Path) -> None:
    spec = spec_of(features=FEATURES, id="key", contract={"severity": {"min_rows": "warn"}})
    assert found(checked(tmp_path, text(GOOD).splitlines()[0], spec=spec), "min_rows")


FORMULAS = ["=1+1", "+A1", "-cmd", "@SUM(A1)", "\tx"]
PLAIN = ["-1", "+5.5", "a=1", " =1", "A", "1e9"]


def test_values_that_a_spreadsheet_would_run_are_warned_of(tmp_path: Path) -> None:
    spec = spec_of(features={"color": {"type": "category"}})
    rows = [{"at": f"2026-01-01T00:00:{n:02}", "color": v, "y": n % 2} for n, v in enumerate(PLAIN + FORMULAS)]
    report = checked(tmp_path, text(rows), spec=spec)
    (warning,) = report.violations
    assert (report.accepted, warning.rule, warning.column) == (True, "formula", "color")
    assert (warning.count, warning.rows) == (len(FORMULAS), tuple(range(len(PLAIN) + 1, len(rows) + 1)))
    listed = spec_of(features={"color": {"type": "category", "values": FORMULAS + PLAIN}})
    assert checked(tmp_path, text(rows), spec=listed).violations == ()


def test_rows_that_repeat_another_are_counted_and_may_be_some(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "key"} for row in GOOD]
    content = text([*rows, rows[1], rows[3], rows[1]])
    for share, warned in ((0.0, True), (0.4, True), (3 / 7, False)):
        report = checked(tmp_path, content, spec=spec_of(features=FEATURES, contract={"duplicates": share}))
        assert report.accepted
        assert [(v.rule, v.count, v.rows) for v in report.violations] == (
            [("duplicates", 3, (5, 6, 7))] if warned else []
        )


def test_repeated_rows_of_a_large_file_are_found_in_a_sample_and_then_all_counted(tmp_path: Path) -> None:
    rows, repeated = 3 * SAMPLED, 300
    values = f"TIMESTAMP '2026-01-01' + to_seconds(i % {rows}) AS at, i % {rows} AS x, i % 2 AS y"
    select = f"SELECT {values} FROM range({rows + repeated}) t(i)"  # noqa: S608
    report = checked(tmp_path, parquet(tmp_path, select), "f.parquet", spec_of(features={"x": {"type": "number"}}))
    first = tuple(range(rows + 1, rows + 6))
    assert [(v.rule, v.count, v.rows) for v in report.violations] == [("duplicates", repeated, first)]


def test_a_repeated_id_is_shown_and_rows_that_repeat_all_of_another_too(tmp_path: Path) -> None:
    report = checked(tmp_path, text([*GOOD, GOOD[2], {**GOOD[3], "x": 9}]))
    assert [(v.rule, v.count, v.rows, v.samples) for v in report.violations] == [
        ("unique", 2, (5, 6), ("k2", "k3")),
        ("duplicates", 1, (5,), ()),
    ]


SECRET = "Ashgabat"


def test_values_of_sensitive_columns_are_shown_nowhere(tmp_path: Path) -> None:
    hidden = {name: {**feature, "sensitive": True} for name, feature in FEATURES.items()}
    spec = spec_of(features=hidden, id="key", monitor={"min_rows": 1})
    (tmp_path / "base.csv").write_text(changed({"color": "blue"}))
    baseline = profile(Source.files(tmp_path / "base.csv"), spec, resources=SMALL)
    content = changed({"x": SECRET, "color": SECRET}, {"size": SECRET}) + f"k9,{SECRET}\n"
    path = tmp_path / "upload"
    path.write_text(content)
    report = check(path, spec, filename="f.csv", now=NOW, baseline=baseline, resources=SMALL)
    assert {v.rule for v in report.violations} >= {"type", "category", "fields"}
    assert report.shift
    assert report.shift.features["color"].new_categories == (MASK,)
    for shown in (report.model_dump_json(), report.to_text(), told(report)):
        assert SECRET not in shown
        assert "'red'" not in shown
    assert MASK in report.model_dump_json()


# --- shift


def test_a_file_that_is_like_the_baseline_has_not_shifted_and_another_has(tmp_path: Path) -> None:
    spec = spec_of(features={"x": {"type": "number"}, "color": {"type": "category"}}, monitor={"min_rows": 100})

    def rows(start: float, color: str) -> str:
        days = [
            {"at": f"2026-01-01T{n // 60:02}:{n % 60:02}:00", "x": start + n, "color": color, "y": n % 2}
            for n in range(1000)
        ]
        return text(days)

    (tmp_path / "base.csv").write_text(rows(0, "red"))
    baseline = profile(Source.files(tmp_path / "base.csv"), spec, resources=SMALL)
    for start, color, drifted in ((0, "red", set()), (5000, "red", {"x"}), (0, "blue", {"color"})):
        path = tmp_path / "upload"
        path.write_text(rows(start, color))
        report = check(path, spec, filename="f.csv", now=NOW, baseline=baseline, resources=SMALL)
        assert report.accepted
        path.rename(tmp_path / "f.csv")
        alone = profile(Source.files(tmp_path / "f.csv"), spec, baseline.edges, resources=SMALL)
        assert report.profile
        assert {n: c.counts for n, c in report.profile.features.items()} == {
            n: c.counts for n, c in alone.features.items()
        }
        assert report.shift
        warned = {v.column: v.message for v in report.violations if v.rule == "shift"}
        assert set(warned) == set(report.shift.drifted) == drifted
        assert all(f"PSI {report.shift.features[name or ''].psi:.2f}" in message for name, message in warned.items())
        assert [v.severity for v in report.violations] == ["warn"] * len(drifted)


def test_why_there_is_no_shift_is_said(tmp_path: Path) -> None:
    (tmp_path / "base.csv").write_text(text(GOOD))
    baseline = profile(Source.files(tmp_path / "base.csv"), SPEC, resources=SMALL)
    few = check(tmp_path / "base.csv", SPEC, filename="f.csv", now=NOW, baseline=baseline, resources=SMALL)
    assert few.accepted
    assert few.shift is None
    assert few.no_shift
    assert "500 are needed" in few.no_shift
    assert few.no_shift in few.to_text()


# --- many columns, long names


def test_a_spec_of_thousands_of_features_is_checked_and_told_in_few_words(tmp_path: Path) -> None:
    features = {f"c{n}": {"type": "number", "min": 0, "max": 1} for n in range(300)}
    spec = spec_of(features=features)
    good = [{"at": f"2026-01-0{n}", **dict.fromkeys(features, "0.5"), "y": n % 2} for n in (1, 2)]
    assert checked(tmp_path, text(good), spec=spec).violations == ()
    worse = checked(tmp_path, text([row | dict.fromkeys(features, "7") for row in good]), spec=spec)
    assert len(worse.violations) == MOST
    assert (worse.violations[-1].rule, worse.violations[-1].count) == ("more", 300 - MOST + 1)
    none = checked(tmp_path, "at,y\n2026-01-01,1\n", spec=spec)
    assert (none.accepted, len(none.violations)) == (False, MOST)
    assert len(none.model_dump_json()) < 50_000


def test_names_are_shown_cut_where_they_are_long(tmp_path: Path) -> None:
    report = checked(tmp_path, text([row | {"n" * 50_000: 1} for row in GOOD]), "f" * 300 + ".csv")
    assert report.accepted
    assert len(report.model_dump_json()) < 2_000
    assert len(report.to_text()) < 600


def test_a_file_of_nothing_but_broken_lines_is_refused_in_little_memory(tmp_path: Path) -> None:
    content = text(GOOD) + "1,2\n" * 200_000
    violation = found(checked(tmp_path, content), "fields")
    assert violation.lines == (6,)
    assert "line 6 and more" in violation.message


def test_a_parquet_file_of_too_many_rows_is_not_read(tmp_path: Path) -> None:
    content = parquet(
        tmp_path, "SELECT 'a' AS y, 'x' AS at, 1 AS x, 1 AS size, 'red' AS color, i AS key FROM range(9) t(i)"
    )
    report = checked(tmp_path, content, "f.parquet")
    assert found(report, "max_rows").message.startswith("9 rows, at most 8")


# --- counts, by another way


def oracle(rows: Sequence[Change]) -> dict[tuple[str, str | None], int]:
    """What `FUZZED` allows, counted in Python by hand."""
    counts: Counter[tuple[str, str | None]] = Counter()
    for row in rows:
        x, size, color = row["x"], row["size"], row["color"]
        number = _finite(x)
        if x and number is None:
            counts["type", "x"] += 1
        if number is not None and number < -10:
            counts["range", "x"] += 1
        whole = _finite(size)
        if size and (whole is None or whole != int(whole)):
            counts["type", "size"] += 1
        if color and color not in ("red", "blue"):
            counts["category", "color"] += 1
    for column in ("x", "size", "color"):
        if missing := sum(not row[column] for row in rows):
            counts["missing", column] = missing
    repeated = len(rows) - len({tuple(sorted(row.items())) for row in rows})
    if repeated:
        counts["duplicates", None] = repeated
    return dict(counts)


def _finite(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) else None


FUZZED = spec_of(
    Task.MULTICLASS,
    features={
        "x": {"type": "number", "min": -10},
        "size": {"type": "integer"},
        "color": {"type": "category", "values": ["red", "blue"]},
    },
)
ROWS = st.fixed_dictionaries(
    {
        "at": st.just("2026-01-01"),
        "x": st.sampled_from(["", "1", "-11", "10.5", "warm", "nan", "inf", "1e3"]),
        "size": st.sampled_from(["", "1", "2.5", "-3", "3.0", "x"]),
        "color": st.sampled_from(["", "red", "blue", "green", "RED"]),
        "y": st.sampled_from(["a", "b"]),
    }
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=2, max_size=30), as_parquet=st.booleans())
def test_counts_are_those_of_a_count_by_hand(rows: list[Change], as_parquet: bool, tmp_path: Path) -> None:
    content: str | bytes = text(rows)
    if as_parquet:
        (tmp_path / "rows.csv").write_text(text(rows))
        content = parquet(tmp_path, f"FROM read_csv('{tmp_path / 'rows.csv'}', all_varchar = true, delim = ',')")
    report = checked(tmp_path, content, "f.parquet" if as_parquet else "f.csv", FUZZED)
    told = {(v.rule, v.column): v.count for v in report.violations if v.rule not in {"constant", "formula"}}
    assert told == oracle(rows)


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
        "UTF-16 without a mark": (text(GOOD).encode("utf-16-le"), "f.csv", "encoding"),
        "UTF-32": (text(GOOD).encode("utf-32"), "f.csv", "encoding"),
        "zstd under csv": (b"\x28\xb5\x2f\xfd" + good, "f.csv", "format"),
        "a page under csv": (b"\n <!DOCTYPE html><html>", "f.csv", "format"),
        "JSON under csv": (b'{"at": 1}', "f.csv", "format"),
        "encrypted parquet": (b"PARE" + table[4:], "f.parquet", "format"),
        "too many columns": (b"," * 30_000 + b"\n", "f.csv", "header"),
        "a name that is too long": (b"a" * 2**20 + b",b\n1,2\n", "f.csv", "header"),
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


def test_a_time_is_read_as_one_with_a_zone_whatever_it_looks_like() -> None:
    dates = ("2013-01-31", "2013-1-1", "2013-02-30", "0000-01-01", "9999-12-31", "12345-01-01", "-123-01-01")
    times = ("17:00:00", "7:00:00", "24:00:00", "17:00", "17:60:00", "17:00:00 ", "17:0:00")
    fractions = ("", ".1", ".12", ".123", ".123456", ".", ".1 ", ".-1", ".+1", ",1", ".12a")
    zones = ("", "Z", "+02", "-02", "+2", "+02:30", " UTC", " +02", " -2", " 1", "1", " Europe/Berlin")
    texts = ["".join(parts) for parts in product(dates, " T", times, fractions, zones)]
    zoned = "try_cast(x AS TIMESTAMPTZ)::TIMESTAMP"
    expected = f"CASE WHEN {zoned} BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31' THEN {zoned} END"
    with cursor(SMALL) as db:
        wrong = db.execute(
            f"SELECT x FROM (SELECT unnest(?::VARCHAR[]) AS x) "  # noqa: S608 -- of the lines above
            f"WHERE ({moment('x', 'VARCHAR')}) IS DISTINCT FROM ({expected})",
            [texts],
        ).fetchall()
    assert not wrong
