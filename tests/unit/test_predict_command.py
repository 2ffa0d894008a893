"""Rows of a file or of the command line, as `noria predict` asks an endpoint for them."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from noria.aws.ledger import Ledger
from noria.cli.output import Refused
from noria.cli.predictions import at_once, first_of, typed
from noria.cli.state import Deployed
from noria.deployment import Desired
from noria.ledger import Fact, Kind
from noria.spec import ModelSpec
from tests.unit.serving_world import Table, error

SPEC = ModelSpec.model_validate(
    {
        "model": "late",
        "task": "binary_classification",
        "target": "late",
        "time": "ts",
        "features": {
            "hour": {"type": "integer"},
            "gate": {"type": "category", "missing": 0.5},
            "temp": {"type": "number", "missing": 0.5},
        },
        "owner": {"team": "flights", "page": "oncall@example.com"},
    }
)


def rows(folder: Path, name: str, text: str, most: int = 10) -> list[dict[str, object]]:
    file = folder / name
    file.write_text(text)
    return first_of(file, most, SPEC)


def test_cells_become_values_by_the_types_of_the_features_and_other_columns_stay_here(tmp_path: Path) -> None:
    text = "\ufefftemp,late,gate,hour\n3.5,1,07,6\n,0,,7.0\n1,0,B,8\n"
    assert rows(tmp_path, "week.csv", text, most=2) == [
        {"hour": 6, "gate": "07", "temp": 3.5},
        {"hour": 7, "gate": None, "temp": None},
    ]


@pytest.mark.parametrize("cell", ["noon", "nan", "inf"])
def test_what_is_no_number_goes_to_the_model_as_it_is_which_says_so(tmp_path: Path, cell: str) -> None:
    assert rows(tmp_path, "week.csv", f"hour\n{cell}\n") == [{"hour": cell}]


def test_json_lines_are_asked_as_they_are_without_what_is_no_feature(tmp_path: Path) -> None:
    text = '{"hour": 6, "temp": null, "order": "a"}\n\n{"hour": "x"}\n'
    assert rows(tmp_path, "week.jsonl", text) == [{"hour": 6, "temp": None}, {"hour": "x"}]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("week.xlsx", "hour\n6\n", "week.xlsx is neither .csv nor .jsonl: export it as one of them."),
        ("week.csv", "hour\n", "week.csv has no rows."),
        ("week.csv", 'hour\n"6', "week.csv cannot be read (unexpected end of data): export it again, as UTF-8 text."),
        ("week.jsonl", '{"hour": 6}\n[6]\n', "week.jsonl, line 2 is not an object of features and values."),
    ],
)
def test_a_file_that_cannot_be_asked_is_refused_with_what_to_do(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    with pytest.raises(Refused, match=re.escape(told)):
        rows(tmp_path, name, text)


def test_typed_rows_are_objects() -> None:
    assert typed(['{"hour": 6}', "{}"], SPEC) == [{"hour": 6}, {}]
    with pytest.raises(Refused, match="is not JSON"):
        typed(["hour=6"], SPEC)


def test_what_is_no_feature_in_a_typed_row_is_named_with_what_was_meant() -> None:
    with pytest.raises(Refused) as refused:
        typed(['{"hour": 6, "gaet": "B"}', '{"hour": 7, "houre": 8, "wind": null}'], SPEC)
    assert str(refused.value).splitlines() == [
        '--row: gaet = "B": late has no such feature; write gate.',
        "--row: houre = 8: late has no such feature; leave it out.",
        "--row: wind = null: late has no such feature; leave it out.",
        "Features of late: hour, gate, temp.",
    ]


class Deserted:
    """An environment with the model's package group and without an endpoint."""

    def get_parameter(self, **_: Any) -> Any:
        return {"Parameter": {"Value": "ledger"}}

    def get_paginator(self, _: str) -> Any:
        return self

    def paginate(self, **_: Any) -> Any:
        yield {"ModelPackageGroupSummaryList": [{"ModelPackageGroupName": "noria-local-late"}]}

    def invoke_endpoint(self, **_: Any) -> Any:
        raise error("InvokeEndpoint", "ValidationError", "Endpoint noria-local-late not found")


ALWAYS_OFF = {"days": "MON-SUN", "from": "00:00", "to": "01:00", "timezone": f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"}
"""Midnight to one, where it is noon."""

APPROVED = (Kind.DEPLOYMENT_REQUESTED, "arn:model-package/late/1", "approved")
ANSWERED = (Kind.DEPLOYED, "arn:model-package/late/1", "approved")
OFF = (Kind.DEPLOYED, None, "off")


@pytest.mark.parametrize(
    ("hours", "happened", "told"),
    [
        (None, [], "Approve a version: noria packages late"),
        (ALWAYS_OFF, [], "Approve a version: noria packages late"),
        (
            ALWAYS_OFF,
            [ANSWERED, OFF],
            f"late answers on MON-SUN 00:00 to 01:00 {ALWAYS_OFF['timezone']}: it is back on ",
        ),
        (
            None,
            [ANSWERED, OFF],
            "It is coming back, which takes minutes, for it has no hours any more: noria status late",
        ),
        (None, [APPROVED], "A deployment is under way, from nothing to version 1: noria status late"),
        (None, [ANSWERED], "The endpoint is gone, though nobody asked for that: noria status late"),
    ],
)
def test_where_nobody_answers_it_is_said_why_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, hours: Any, happened: list[tuple[Kind, str | None, str]], told: str
) -> None:
    table = Table()
    monkeypatch.setattr(boto3, "client", lambda service, **_: table if service == "dynamodb" else Deserted())
    for number, (kind, package, cause) in enumerate(happened):
        details = {**Desired(package=package).details, "cause": cause}
        fact = Fact(
            model="late", kind=kind, subject=f"deploy-{number}", at=datetime.now(UTC), summary="so", details=details
        )
        Ledger(table="ledger").record(fact)
    spec = ModelSpec.model_validate({**SPEC.model_dump(mode="json"), "serve": {"hours": hours}})
    with pytest.raises(Refused) as refused:
        at_once(Deployed("local"), spec, [{"hour": 6}])
    assert str(refused.value).startswith(f"No answer (503): no version of the model is live.\n{told}")
