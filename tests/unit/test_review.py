"""What a person reads who is asked to approve: enough to decide, and what to type."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from noria.evaluation import ChampionScore, Estimate, Evaluation, Gate, Slice
from noria.review import request
from noria.spec import Metric, ModelSpec, load

SHIPPED = load(Path(__file__).parents[2] / "models" / "flight-delay.yaml").model_dump(mode="json")
PACKAGE = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/noria-local-flight-delay/3"
DAY = datetime(2013, 2, 1, tzinfo=UTC)


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01)


def evaluation(*, champion: bool) -> Evaluation:
    metrics = {Metric.AUC: estimate(0.651), Metric.BRIER: estimate(0.17)}
    rival = ChampionScore(
        package=PACKAGE.replace("/3", "/2"),
        metrics={Metric.AUC: estimate(0.64)},
        margins={Metric.AUC: estimate(0.011)},
    )
    return Evaluation(
        model="flight-delay",
        slice=Slice(rows=4900, first_event=DAY, last_event=DAY),
        trained_on=Slice(rows=22000, first_event=DAY, last_event=DAY),
        metrics=metrics,
        champion=rival if champion else None,
        latency_p95_ms=12.34,
        gate=Gate(passed=True),
    )


def page(*, champion: bool = True, **approval: Any) -> str:
    gates = {"auc": {"min": 0.6, "beats_champion_by": 0.0}, "latency_p95_ms": 50}
    spec = ModelSpec.model_validate(SHIPPED | {"approval": approval, "gates": gates})
    asked = request(spec, PACKAGE, 3, evaluation(champion=champion), report="s3://data/evaluation.json", now=DAY)
    return f"{asked.subject}\n{asked.message}"


def test_the_candidate_stands_beside_the_champion_with_intervals_gates_and_both_commands() -> None:
    told = page(mode="strict", approvers=2, within="14d", risk="high")
    assert told.startswith("flight-delay: version 3 awaits approval\n")
    rows = [" ".join(line.split()) for line in told.splitlines()]
    assert "candidate champion better by" in rows
    assert "auc 0.651 (0.641 to 0.661) 0.640 (0.630 to 0.650) 0.011 (0.001 to 0.021)" in rows
    assert "brier 0.170 (0.160 to 0.180) · ·" in rows
    assert "Gate: auc at least 0.6, and is 0.651 (0.641 to 0.661)." in told
    assert "Gate: auc better than the champion's by at least 0, and does by 0.011 (0.001 to 0.021)." in told
    assert "Gate: latency p95 at most 50 ms, and is 12.3 ms." in told
    assert "Risk high. Who approves: 2 people who did not make it before 2013-02-15 00:00 UTC." in told
    for line in (f"    noria approve {PACKAGE} --reason '…'", f"    noria reject {PACKAGE} --reason '…'"):
        assert line in told.splitlines()
    assert "Report: s3://data/evaluation.json" in told


def test_without_a_champion_there_is_nothing_beside_it_and_where_nobody_is_asked_that_is_said() -> None:
    told = page(champion=False, risk="low", automatic_below="high")
    assert told.startswith("flight-delay: version 3 passed its gates\n")
    assert "there is no champion to compare with" in told
    assert "better by" not in told
    assert "automatic: risk low is below high" in told
    assert "it goes live by itself" in told
