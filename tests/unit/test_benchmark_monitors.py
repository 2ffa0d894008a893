"""The page of the monitors' benchmark: alarms as CloudWatch raises them, goals met and missed."""

from datetime import UTC, datetime
from itertools import product

import pytest

from benchmarks.monitors.report import Results, alarms_of, markdown
from benchmarks.monitors.runs import Found, Said, Task, raised
from benchmarks.serving.report import Machine
from noria.monitors import monitors
from noria.spec import ModelSpec

MACHINE = Machine("a processor", 2, 16.0, 0.1, "Linux", datetime(2026, 1, 1, tzinfo=UTC))
SPEC = ModelSpec.model_validate(
    {
        "model": "m",
        "task": "regression",
        "target": "y",
        "time": "at",
        "features": {"x": {"type": "number"}},
        "owner": {"team": "t"},
    }
)


def said(*breached: str, of: int) -> Said:
    """So many windows, of which the first two breach."""
    names = [monitor.name for monitor in monitors(SPEC)]
    windows: list[dict[str, bool | None]] = [{name: n < 2 and name in breached for name in names} for n in range(of)]
    return Said(Task("flights", 1000, 500, of, 0), windows)


def found(once: int) -> Found:
    return Found(Task("flights", 1000, 500, 100, 0), {"x": 1000}, {"x": once}, {"x": once})


def page(*runs: Said, once: int = 1000) -> str:
    return markdown(Results({"flights": SPEC}, runs, [found(once)], 1), MACHINE)


@pytest.mark.parametrize("windows", [*product([False, True], repeat=6)])
def test_an_alarm_is_raised_when_its_windows_begin_to_breach(windows: tuple[bool, ...]) -> None:
    """Two of three, by looking at every three windows in turn."""
    padded = (False, False, *windows)
    states = [sum(padded[n : n + 3]) >= 2 for n in range(len(windows))]
    expected = sum(state and (n == 0 or not states[n - 1]) for n, state in enumerate(states))
    assert raised(windows, breaching=2, of=3) == expected


def test_labels_need_one_word_and_windows_as_many_as_the_spec_says() -> None:
    alarms = alarms_of(said("drift", "quality", of=10), SPEC)
    assert {name for name, count in alarms.items() if count} == {"drift", "quality"}
    single = Said(Task("flights", 1000, 500, 3, 0), said("drift", "quality", of=10).windows[1:4])
    assert {name for name, count in alarms_of(single, SPEC).items() if count} == {"quality"}


def test_a_window_without_enough_data_is_no_window_of_an_alarm() -> None:
    run = Said(Task("flights", 1000, 500, 3, 0), [{"drift": True}, {"drift": None}, {"drift": True}])
    assert run.of("drift") == [True, True]


def test_the_page_says_which_goals_are_met() -> None:
    quiet = page(said(of=2000))
    assert "**0 false alarms in 2,000 runs**" in quiet
    assert quiet.count("**met**") == 2
    assert "**1 false alarm in 1,000 runs**" in page(said("drift", of=1000))
    assert page(said("drift", of=1000)).count("**missed**") == 1
    assert page(said(of=2000), once=900).count("**missed**") == 1
