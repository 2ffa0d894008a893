"""Times in options: one way to write them, whatever the command."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.main import get_command

from noria.cli.commands import app
from noria.cli.output import Refused
from noria.cli.times import COMING, PAST, coming, past

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
Reading = Callable[..., datetime]


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("90m", -1.5),
        ("24h", -24),
        ("7d", -168),
        ("2026-11-21T11:00:00Z", -1),
        ("2026-11-21T12:00:00+01:00", -1),
        ("2026-11-21T11:59:59.640000+00:00", -0.0001),
        ("2026-11-21 11:00", -1),
        ("2026-11-21", -12),
        ("0s", 0),
    ],
)
def test_a_time_that_was_is_written_as_iso_or_as_how_long_ago(text: str, hours: float) -> None:
    assert past(text, now=NOON, option="--since") == NOON + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("text", "hours"), [("4h", 4), ("1d", 24), ("2026-11-22", 12), ("2026-11-21T13:30:00+01:00", 0.5)]
)
def test_a_time_to_come_likewise(text: str, hours: float) -> None:
    assert coming(text, now=NOON, option="--until") == NOON + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("read", "text", "told"),
    [
        (past, "yesterday", "--x 'yesterday' is no time: write 2026-"),
        (past, "1w", "--x '1w' is no time"),
        (past, "99999999999d", "--x '99999999999d' is no time"),
        (past, "1h30m", "--x '1h30m' is no time"),
        (past, "", "--x '' is no time"),
        (past, "2026-11-21T12:00:01Z", "--x 2026-11-21T12:00:01Z is still to come"),
        (coming, "2026-11-21T12:00:00Z", "--x 2026-11-21T12:00:00Z is over"),
        (coming, "0s", "--x 0s is over"),
    ],
)
def test_what_is_no_such_time_is_refused_by_the_name_of_its_option(read: Reading, text: str, told: str) -> None:
    with pytest.raises(Refused) as refused:
        read(text, now=NOON, option="--x")
    assert str(refused.value).startswith(told)


def options(command: Any) -> Iterator[tuple[str, Any]]:
    """Every option and argument, with its command's name."""
    for child in getattr(command, "commands", {}).values():
        yield from options(child)
    for option in command.params:
        yield command.name, option


def test_every_option_that_takes_a_time_says_how_it_is_written() -> None:
    every = list(options(get_command(app)))
    told = {(command, option.name): option.help for command, option in every if option.name in {"since", "until", "at"}}
    assert {command for command, _ in told} >= {"monitor", "logs", "replay", "live", "pause"}
    for where, text in told.items():
        assert PAST in text or COMING in text, where
