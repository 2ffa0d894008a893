"""Gates: each failure is told with its number, its limit and a remedy, and none hides another."""

from datetime import UTC, datetime
from typing import Any

import pytest

from noria.evaluation import Bin, Calibration, ChampionScore, Estimate, Form, Measurements, SegmentScore, Slice
from noria.gates import judge
from noria.spec import Metric, ModelSpec

DAY = datetime(2013, 1, 1, tzinfo=UTC)


def spec(task: str = "binary_classification", **gates: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "model": "m",
            "task": task,
            "target": "y",
            "time": "t",
            "features": {"origin": {"type": "category"}},
            "segments": ["origin"],
            "gates": gates,
            "owner": {"team": "team"},
        }
    )


def measured(
    *,
    champion: dict[Metric, tuple[float, float]] | None = None,
    segments: dict[str, float] | None = None,
    latency: float = 2.0,
    **metrics: float,
) -> Measurements:
    """`champion` gives value and margin of each metric, `segments` the AUC of each origin."""
    values = {Metric(name): Estimate(value=value, low=value, high=value) for name, value in metrics.items()}
    return Measurements(
        model="m",
        slice=Slice(rows=1000, first_event=DAY, last_event=DAY),
        trained_on=Slice(rows=4000, first_event=DAY, last_event=DAY),
        metrics=values,
        segments={
            "origin": {
                name: SegmentScore(rows=100, metrics={Metric.AUC: auc}) for name, auc in (segments or {}).items()
            }
        },
        champion=champion
        and ChampionScore(
            package="arn",
            metrics={name: Estimate(value=value, low=value, high=value) for name, (value, _) in champion.items()},
            margins={name: Estimate(value=margin, low=margin, high=margin) for name, (_, margin) in champion.items()},
        ),
        latency_p95_ms=latency,
    )


def test_a_candidate_that_reaches_everything_passes() -> None:
    gate = judge(measured(auc=0.61), spec(auc={"min": 0.6, "beats_champion_by": 0.0}, latency_p95_ms=50))
    assert gate.passed
    assert gate.reasons == ()
    assert gate.reason == ""


def test_a_model_without_gates_passes() -> None:
    assert judge(measured(auc=0.1), spec()).passed


@pytest.mark.parametrize(
    ("gates", "measurements", "words"),
    [
        ({"auc": {"min": 0.6}}, measured(auc=0.59), ["auc", "0.5900", "0.6"]),
        ({"log_loss": {"max": 0.4}}, measured(log_loss=0.45), ["log_loss", "0.4500", "0.4"]),
        ({"latency_p95_ms": 50}, measured(auc=0.6, latency=60.04), ["latency_p95_ms", "60.0", "50"]),
        (
            {"auc": {"beats_champion_by": 0.01}},
            measured(auc=0.605, champion={Metric.AUC: (0.6, 0.005)}),
            ["auc", "0.6050", "0.6000", "+0.0050", "0.01"],
        ),
        (
            {"bias": {"origin": 0.1}},
            measured(auc=0.6, segments={"JFK": 0.7, "EWR": 0.65, "LGA": 0.55}),
            ["auc", "0.1500", "JFK", "LGA", "0.1"],
        ),
        ({"auc": {"min": 0.6}}, measured(accuracy=0.9), ["auc", "cannot be computed", "1000"]),
    ],
    ids=["minimum", "maximum", "latency", "champion", "bias", "undefined"],
)
def test_a_failure_names_its_number_and_its_limit(
    gates: dict[str, Any], measurements: Measurements, words: list[str]
) -> None:
    gate = judge(measurements, spec(**gates))
    assert not gate.passed
    (reason,) = gate.reasons
    for word in words:
        assert word in reason
    assert ": " in reason, "what is wrong, then what to do"


def test_every_failure_is_told() -> None:
    gate = judge(
        measured(auc=0.5, accuracy=0.5, latency=100),
        spec(auc={"min": 0.6}, accuracy={"min": 0.7}, latency_p95_ms=50),
    )
    assert len(gate.reasons) == 3
    assert all(reason in gate.reason for reason in gate.reasons)


def test_exactly_at_the_limit_passes() -> None:
    candidate = measured(auc=0.6, latency=50, champion={Metric.AUC: (0.6, 0.0)}, segments={"JFK": 0.6, "LGA": 0.5})
    gates = spec(auc={"min": 0.6, "beats_champion_by": 0.0}, latency_p95_ms=50, bias={"origin": 0.11})
    assert judge(candidate, gates).passed


def test_without_a_champion_there_is_nothing_to_beat() -> None:
    assert judge(measured(auc=0.6), spec(auc={"beats_champion_by": 0.5})).passed


@pytest.mark.parametrize(
    ("serve", "form", "passes"),
    [
        ({"instance": "ml.c7g.large"}, "sklearn", False),
        ({"instance": "ml.c7g.large"}, "onnx", True),
        ({"instance": "ml.c7i.large"}, "sklearn", True),
        ({"instance": "ml.c7g.large", "mode": "serverless"}, "sklearn", True),  # has no instance
    ],
)
def test_what_nothing_can_serve_on_its_instances_is_not_registered(
    serve: dict[str, Any], form: Form, passes: bool
) -> None:
    served = measured(auc=0.6).model_copy(update={"serves": form, "serves_because": "there is no ONNX form of it: why"})
    gate = judge(served, ModelSpec.model_validate({**spec().model_dump(), "serve": serve}))
    assert gate.passed is passes
    assert passes or "there is no ONNX form of it: why" in gate.reason


def test_a_reason_fits_where_sagemaker_keeps_it() -> None:
    names = [f"segment value {number}" * 40 for number in range(2)]
    gate = judge(measured(auc=0.6, segments=dict(zip(names, (0.9, 0.1), strict=True))), spec(bias={"origin": 0.1}))
    assert len(gate.reason) <= 1024
    assert len(gate.reasons[0]) > 1024, "the report has all of it"


@pytest.mark.parametrize(("value", "limit", "passed"), [(0.08, 0.05, False), (0.05, 0.05, True), (0.0, 0.05, True)])
def test_probabilities_must_hold_where_that_is_asked(value: float, limit: float, passed: bool) -> None:
    bins = (Bin(rows=500, predicted=0.1, happened=0.1), Bin(rows=500, predicted=0.4, happened=0.56))
    found = Calibration(rows=1000, error=0.08, chance=0.02, value=value, bins=bins)
    gate = judge(measured(auc=0.7).model_copy(update={"calibration": found}), spec(calibration=limit))
    assert gate.passed == passed
    assert passed or "0.400 is predicted on average, it happens in 0.560 of 500 rows" in gate.reason
    assert judge(measured(auc=0.7), spec(calibration=limit)).passed


def test_a_regression_has_no_probabilities_to_gate() -> None:
    with pytest.raises(ValueError, match="gate 'calibration' is about probabilities"):
        spec("regression", calibration=0.1)
