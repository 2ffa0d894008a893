"""The page that a benchmark writes: medians, ratios to the best peer, goals met and missed."""

from datetime import UTC, datetime

import pytest

from benchmarks.serving.measure import Load, Memory
from benchmarks.serving.report import Machine, Measured, markdown
from noria.spec import Task

MACHINE = Machine("a processor", 2, 16.0, 0.1, "Linux", datetime(2026, 1, 1, tzinfo=UTC))


def measured(name: str, per_second: float, *, hundred: float = 10, p95: float = 1, ready: float = 0.2) -> Measured:
    def load(rate: float) -> Load:
        return Load(per_second=rate, p50_ms=p95 / 2, p95_ms=p95, server_us=50, client_cores=0.3)

    return Measured(name, ready, load(per_second), load(hundred), load(100), Memory(worker=60, server=90))


@pytest.fixture
def page() -> str:
    rounds = [
        measured("empty handler", 20000, p95=0.5),
        *(measured("Noria", rate, hundred=rate / 10, p95=0.9, ready=0.7) for rate in (9000, 5000, 10000)),
        *(measured("MLflow", rate, hundred=30) for rate in (80, 90, 100)),
        measured("BentoML", 40, hundred=95),
        measured("MLflow, tuned", 450, hundred=45),
    ]
    return markdown({Task.BINARY: rounds}, MACHINE)


def test_a_ratio_is_of_medians_over_the_rounds(page: str) -> None:
    noria = next(line for line in page.splitlines() if line.startswith("| Noria |"))
    assert "9,000/s | 5,000 to 10,000 | 100.00" in noria


def test_the_best_peer_is_another_for_each_measure_and_never_a_tuned_one(page: str) -> None:
    assert "one row, 16 connections (best: MLflow) | 100.00 × | met" in page
    assert "100 rows, 16 connections (best: BentoML) | 9.47 × | **missed**" in page


def test_a_missed_goal_says_by_how_much(page: str) -> None:
    assert "ready in half a second | 0.70 s | **missed**" in page
    assert "p95 alone at most twice the empty handler's | 1.80 × | met" in page


def test_tuned_peers_are_told_beside_the_goals(page: str) -> None:
    assert "tuned by hand: 20.00 × MLflow, tuned with one row and 20.00 × MLflow, tuned with 100 rows" in page
