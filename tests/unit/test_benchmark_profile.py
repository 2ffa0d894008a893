"""The page of the profile benchmark: the best run of each, ratios to the bare scan, goals met and missed."""

from datetime import UTC, datetime

import pytest

from benchmarks.profile.measure import Run
from benchmarks.profile.report import markdown
from benchmarks.serving.report import Machine

MACHINE = Machine("a processor", 2, 16.0, 0.1, "Linux", datetime(2026, 1, 1, tzinfo=UTC))


def runs(*seconds: float, memory: int = 10**8) -> list[Run]:
    return [Run(wall=wall, processor=2 * wall, memory=memory) for wall in seconds]


@pytest.fixture
def page() -> str:
    parquet = {
        "bare DuckDB scan": runs(0.4, 0.2, 0.3),
        "Noria": runs(0.5, 0.28),
        "frouros": runs(5.6),
        "Evidently": runs(28.0),
        "pandas with scipy, by hand": runs(0.3),
    }
    csv = {"bare DuckDB scan": runs(1.0), "Noria": runs(1.4)}
    memory = {3_000_000: runs(0.3, memory=150 * 10**6)[0], 30_000_000: runs(3, memory=250 * 10**6)[0]}
    starts = {"bare DuckDB scan": runs(0.12, 0.1), "Noria": runs(0.2, 0.18)}
    failures = ["whylogs: did not install"]
    return markdown({"Parquet": parquet, "CSV": csv}, memory, 0.08, MACHINE, failures=failures, starts=starts)


def test_ratios_are_of_the_fastest_runs(page: str) -> None:
    assert "| Noria | 0.28 s | 1.4 | 0.56 s | 1.4 | 100 MB | 2 |" in page


def test_goals_say_what_was_reached_and_whether_that_is_enough(page: str) -> None:
    assert "| Parquet: at most 1.5 × the bare scan | 1.4 | yes |" in page
    assert "| CSV: at most 1.3 × the bare scan | 1.4 | no |" in page
    assert "| at least 15 × faster than the fastest library | 20.0 | yes |" in page
    assert "| at least 150 × faster than Evidently | 100.0 | no |" in page
    assert "| under 200 MB for 30,000,000 rows | 250.0 | no |" in page
    assert "| a window of 10,000 rows in under 100 ms, warm | 80.0 | yes |" in page


def test_what_a_start_takes_is_told_apart(page: str) -> None:
    assert "The bare scan's start takes 0.10 s, Noria's 0.18 s." in page
    assert "| Parquet | 1.5 | 1.4 | 1.4 | 1.0 |" in page
    assert "| CSV | 1.3 | 1.1 | 1.4 | 1.4 |" in page


def test_what_could_not_be_measured_is_said(page: str) -> None:
    assert "- whylogs: did not install" in page
