"""Tables for people: names, numbers and times are never broken, words fill what is left."""

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from noria.cli.output import show, table

HEADS = ["at", "kind", "", "what happened"]
ROWS = [
    ["08:13", "training_started", "·", "A training started on one dataset, because of first data."],
    ["08:14", "deployed", "·", "·"],
]


def lines(width: int | None) -> list[str]:
    return list(table(HEADS, ROWS, width=width))


def test_words_go_on_beneath_themselves_where_names_leave_room_for_them() -> None:
    assert lines(62) == [
        "at     kind                 what happened",
        "─────  ────────────────  ─  ──────────────────────────────────",
        "08:13  training_started  ·  A training started on one dataset,",
        "                            because of first data.",
        "08:14  deployed          ·  ·",
    ]


def test_columns_that_say_nothing_go_first_and_then_the_words_go_beneath() -> None:
    assert lines(56)[0] == "at     kind              what happened"
    assert lines(48) == [
        "at     kind",
        "    what happened",
        "─────  ────────────────",
        "08:13  training_started",
        "    A training started on one dataset, because",
        "    of first data.",
        "08:14  deployed",
    ]


def test_a_row_is_a_block_where_not_even_names_fit() -> None:
    assert lines(22) == [
        "at             08:13",
        "kind           training_started",
        "what happened  A",
        "               training",
        "               started",
        "               on one",
        "               dataset,",
        "               because",
        "               of",
        "               first",
        "               data.",
        "",
        "at             08:14",
        "kind           deployed",
    ]


def test_a_program_gets_a_line_a_row() -> None:
    assert lines(None)[2:] == [
        "08:13  training_started  ·  A training started on one dataset, because of first data.",
        "08:14  deployed          ·  ·",
    ]


@pytest.mark.parametrize("width", [None, 5, 20, 40, 80])
def test_what_is_copied_is_in_one_piece(width: int | None) -> None:
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/noria-prod-flight-delay/17"
    told = "\n".join(
        table(["package", "since", "why"], [[arn, "2026-11-22 08:14:28", f"{arn} is better"]], width=width)
    )
    assert told.count(arn) == 2
    assert "2026-11-22" in told


class Event(BaseModel):
    at: datetime | None
    summary: str
    dataset: str


def test_cells_are_told_as_they_are_and_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    event = Event(at=datetime(2026, 11, 22, 8, tzinfo=UTC), summary="[/b] [red]\x1b[2J\nnext", dataset="ab" * 32)
    show([event], columns=["at", "dataset", "summary"], as_json=False, empty="", below=["Newest: [/i]"])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "2026-11-22 08:00:00  abababababab  [/b] [red] [2J next",
        "Newest: [/i]",
    ]
