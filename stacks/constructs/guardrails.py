"""How a new version takes over an endpoint: the strategy of a spec as SageMaker's DeploymentConfig.

| strategy                 | policy                  | what happens                                                  |
|--------------------------|-------------------------|---------------------------------------------------------------|
| all_at_once, progressive | blue/green, all at once | a whole new fleet takes all traffic, the old one waits        |
| canary                   | blue/green, canary      | a new fleet takes a share of `step`, bakes, then takes all    |
| linear                   | blue/green, linear      | a new fleet takes a further `step`, bakes, and so on          |
| rolling                  | rolling                 | `step` new instances replace as many old ones, bake, so on    |

Source: SageMaker guide, `deployment-guardrails`; its limits are checked when the spec is read (noria.serve).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from noria.serve import Serve, Step, Strategy

EVERYTHING = {"Type": "CAPACITY_PERCENT", "Value": 100}


def guardrails(serve: Serve, *, alarms: Sequence[str]) -> dict[str, Any]:
    """A DeploymentConfig as a template has it, which goes back on any of the alarms named."""
    policy = _rolling(serve) if serve.strategy is Strategy.ROLLING else _blue_green(serve)
    return {**policy, "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]}}


def _rolling(serve: Serve) -> dict[str, Any]:
    return {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": _size(serve.step),
            "WaitIntervalInSeconds": _seconds(serve.bake),
            # Back in one step: old instances are missing already.
            "RollbackMaximumBatchSize": EVERYTHING,
            "MaximumExecutionTimeoutInSeconds": _seconds(serve.timeout),
        }
    }


def _blue_green(serve: Serve) -> dict[str, Any]:
    wait = {"WaitIntervalInSeconds": _seconds(serve.bake)}
    last = serve.termination_wait
    match serve.strategy:
        case Strategy.CANARY:
            routing = {"Type": "CANARY", "CanarySize": _size(serve.step), **wait}
        case Strategy.LINEAR:
            routing = {"Type": "LINEAR", "LinearStepSize": _size(serve.step), **wait}
        case _:
            routing = {"Type": "ALL_AT_ONCE", **wait}
            # Alarms count until the old fleet ends: where there is one step only, that is the bake.
            last = max(serve.bake, serve.termination_wait)
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": _seconds(last),
            "MaximumExecutionTimeoutInSeconds": _seconds(serve.timeout),
        }
    }


def _size(step: Step) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT" if step.unit == "percent" else "INSTANCE_COUNT", "Value": step.value}


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())
