"""A proposed spec says what a file holds, why, and keeps the file that it was made from."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from noria.cli.commands import app
from noria.contract import check
from noria.infer import InferError, Proposal, infer
from noria.spec import FeatureType, Task, parse
from noria.sql import cursor
from tests.unit.engine_data import NOW, SMALL
from tests.unit.test_contract import text

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS: list[dict[str, Any]] = [
    {
        "flight_id": f"F{n:04}",
        "departed": (START + timedelta(hours=n)).isoformat(),
        "booked": (START + timedelta(minutes=n)).isoformat(),
        "hour": n % 24,
        "temp": "" if n % 10 == 0 else round(n / 7 - 5, 2),
        "carrier": "ABC"[n % 3],
        "dest": f"D{n % 60}",
        "zip": f"0{n % 90 + 1000}",
        "mixed": "NA" if n == 7 else n,
        "note": f"text of row {n}",
        "empty": "",
        "same": "x",
        'o"d: {k}': ["yes", "no", "a#b"][n % 3],
        "late": n % 2,
    }
    for n in range(400)
]


def proposed(folder: Path, rows: list[dict[str, Any]], **asked: Any) -> Proposal:
    path = folder / "flights 2026.csv"
    path.write_text(text(rows))
    proposal = infer(path, **{"target": "late", "resources": SMALL, **asked})
    assert parse(proposal.text, name="it") == proposal.spec
    return proposal


def test_roles_types_and_limits_are_those_of_the_data(tmp_path: Path) -> None:
    proposal = proposed(tmp_path, ROWS)
    spec = proposal.spec
    assert (spec.model, spec.task, spec.target, spec.time, spec.id) == (
        "flights-2026", Task.BINARY, "late", "departed", "flight_id",
    )  # fmt: skip
    assert {name: feature.type for name, feature in spec.features.items()} == {
        "hour": FeatureType.INTEGER,
        "temp": FeatureType.NUMBER,
        "carrier": FeatureType.CATEGORY,
        "dest": FeatureType.CATEGORY,
        "zip": FeatureType.CATEGORY,
        'o"d: {k}': FeatureType.CATEGORY,
    }
    features = spec.features
    assert features["carrier"].values == ("A", "B", "C")
    assert features["dest"].values is None
    assert features['o"d: {k}'].values == ("a#b", "no", "yes")
    assert (features["hour"].min, features["hour"].missing) == (0, 0)
    assert features["hour"].max is not None
    assert 23 < features["hour"].max < 40
    assert features["temp"].min is not None
    assert features["temp"].min < -5
    assert 0.1 < features["temp"].missing <= 0.2
    for reason in (
        "'empty' is left out: it is empty",
        "'same' is left out",
        "'note' is left out",
        "leading zeros",
        "10.0% missing",
    ):
        assert reason in proposal.text
    assert "'booked' is left out: it holds times" in proposal.text
    assert spec.min_rows == 40


def test_the_proposal_keeps_its_own_file(tmp_path: Path) -> None:
    spec = proposed(tmp_path, ROWS).spec
    report = check(tmp_path / "flights 2026.csv", spec, filename="f.csv", now=NOW, resources=SMALL)
    assert report.accepted
    assert [v.rule for v in report.violations] == ["unexpected"]


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    of_csv = proposed(tmp_path, ROWS).spec
    with cursor(SMALL) as db:
        db.sql(f"FROM read_csv('{tmp_path / 'flights 2026.csv'}', all_varchar = true)").write_parquet(
            str(tmp_path / "flights 2026.parquet")
        )
    assert infer(tmp_path / "flights 2026.parquet", target="late", resources=SMALL).spec == of_csv


@pytest.mark.parametrize(
    ("targets", "task"),
    [
        (["1", "1.0", "0"], Task.BINARY),
        (["True", "false"], Task.BINARY),
        (["a", "b", "c"], Task.MULTICLASS),
        (["1", "2", "3"], Task.MULTICLASS),
        ([f"{n / 7:.3f}" for n in range(60)], Task.REGRESSION),
    ],
)
def test_the_task_is_that_of_the_target(targets: list[str], task: Task, tmp_path: Path) -> None:
    rows = [row | {"late": targets[n % len(targets)]} for n, row in enumerate(ROWS)]
    assert proposed(tmp_path, rows).spec.task is task


@pytest.mark.parametrize(
    ("asked", "rows", "problem"),
    [
        ({"target": "delay"}, ROWS, "no column is called 'delay', the target"),
        ({"time": "when"}, ROWS, "no column is called 'when', the time"),
        ({}, [{"x": n, "late": n % 2} for n in range(9)], "no column holds times"),
        ({}, [{"at": "2026-01-01", "late": n % 2} for n in range(9)], "no column can be a feature"),
    ],
)
def test_what_is_lacking_is_said(
    asked: dict[str, str], rows: list[dict[str, Any]], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(InferError, match=problem):
        proposed(tmp_path, rows, **asked)


VALUES = st.sampled_from(
    ["", "1", "-2.5", "1e300", "nan", "x", "=1", "07", "true", "a, b", "é\u2028", "2026-01-01", "null"]
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns=st.lists(st.lists(VALUES, min_size=12, max_size=12), min_size=1, max_size=4))
def test_whatever_the_columns_hold_the_proposal_keeps_its_own_file(columns: list[list[str]], tmp_path: Path) -> None:
    rows = [
        {"ts": f"2026-01-{n + 1:02}", **{f"c{i}": column[n] for i, column in enumerate(columns)}, "late": n % 2}
        for n in range(12)
    ]
    try:
        spec = proposed(tmp_path, rows, time="ts").spec
    except InferError as error:
        assert "no column can be a feature" in str(error)  # noqa: PT017
        return
    report = check(tmp_path / "flights 2026.csv", spec, filename="f.csv", now=NOW, resources=SMALL)
    assert report.accepted, report.to_text()


def test_the_command_prints_yaml_and_the_check_80_columns(tmp_path: Path) -> None:
    path = tmp_path / "flights.csv"
    path.write_text(text(ROWS))
    told = CliRunner().invoke(app, ["contract", "infer", str(path), "--target", "late"])
    assert told.exit_code == 0
    spec = parse(told.stdout, name="stdout")
    (tmp_path / "flights.yaml").write_text(told.stdout)
    path.write_text(text([row | {"hour": 99, "carrier": "=A" * 90} for row in ROWS]))
    checked = CliRunner().invoke(app, ["validate", str(path), "--model", spec.model, "--models", str(tmp_path)])
    assert checked.exit_code == 1
    assert "Refused because of (2):" in checked.stdout
    assert "rows 1, 2, 3, 4, 5, …" in " ".join(checked.stdout.split())
    assert max(map(len, checked.stdout.splitlines())) <= 80
