"""How a model is served: what a spec's few words come to."""

from datetime import timedelta
from typing import Any

import pytest

from noria.serve import Mode, Running, Serve, impossible

SCALE = {"min": 4, "max": 12, "target": 9}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "3 x ml.m5.large, canary"),
        ({"strategy": "rolling", "count": 4, "step": 2, "scale": SCALE}, "4 to 12 x ml.m5.large, rolling"),
        ({"mode": "async", "count": 1}, "async, 1 x ml.m5.large, all_at_once"),
        ({"mode": "serverless"}, "serverless, 2048 MB, 5 at a time"),
        (
            {"mode": "serverless", "serverless": {"memory_mb": 1024, "concurrency": 9}},
            "serverless, 1024 MB, 9 at a time",
        ),
        ({"mode": "batch"}, "batch"),
    ],
)
def test_it_is_told_in_a_few_words(given: dict[str, Any], told: str) -> None:
    assert str(Serve.model_validate(given)) == told


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"strategy": "all_at_once", "count": 1}, 1),
        ({"strategy": "progressive"}, 1),
        ({"strategy": "canary", "count": 20, "step": 1}, 2),
        ({"strategy": "linear", "count": 4, "step": 1}, 4),
        ({"strategy": "linear", "count": 4, "step": 2}, 2),
        ({"strategy": "linear", "count": 10, "step": "30%"}, 4),
        ({"strategy": "linear", "count": 3, "step": "50%"}, 3),  # a step is whole instances: one of three
        ({"strategy": "rolling", "count": 4, "step": 2, "scale": SCALE}, 6),  # by two, once there are twelve
        ({"strategy": "linear", "count": 4, "step": "25%", "scale": SCALE}, 4),
    ],
)
def test_a_fleet_moves_in_so_many_steps(given: dict[str, Any], steps: int) -> None:
    assert Serve.model_validate(given).steps == steps


@pytest.mark.parametrize("strategy", ["all_at_once", "progressive", "canary", "linear", "rolling"])
def test_a_deployment_may_take_longer_than_it_waits_on_purpose(strategy: str) -> None:
    serve = Serve.model_validate({"strategy": strategy, "count": 4, "step": 2, "bake": "20m", "termination_wait": "1h"})
    waits = serve.steps * serve.bake + (timedelta() if strategy == "rolling" else serve.termination_wait)
    assert waits < serve.timeout <= timedelta(hours=8)


@pytest.mark.parametrize("before", Mode)
@pytest.mark.parametrize("after", Mode)
def test_an_endpoint_keeps_its_mode_while_it_is_up(before: Mode, after: Mode) -> None:
    reasons = list(impossible(Running(mode=before, scaled=False, instances=1), Serve.model_validate({"mode": after})))
    assert bool(reasons) is (before is not after and Mode.BATCH not in {before, after})


@pytest.mark.parametrize(
    ("running", "wanted", "refused"),
    [
        ({"scaled": True, "instances": 0}, {}, True),
        ({"scaled": True, "instances": 2}, {}, False),
        ({"scaled": False, "instances": 0}, {}, False),
        ({"scaled": True, "instances": 0}, {"scale": {"min": 1, "max": 2, "target": 1}, "count": 1}, False),
    ],
)
def test_a_fleet_of_none_keeps_what_would_start_an_instance(
    running: dict[str, Any], wanted: dict[str, Any], refused: bool
) -> None:
    now = Running(mode=Mode.ASYNC, **running)
    assert bool(list(impossible(now, Serve.model_validate({"mode": "async", **wanted})))) is refused
