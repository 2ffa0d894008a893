"""The `AWS/SageMaker` metrics of invocations.

Each metric goes out twice: per endpoint and variant, and per endpoint, variant and endpoint config, which tells the
green fleet of a deployment from the blue one.
https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-configuration.html
"""

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from local import ministack
from local.sagemaker.cloud import Cloud

logger = logging.getLogger("noria.metrics")

NAMESPACE = "AWS/SageMaker"

Measured = dict[str, tuple[str, Counter[float]]]
"""Unit and values, each with how often it was seen, by metric."""


@dataclass(frozen=True)
class Invocation:
    """What became of one request; latencies in microseconds. `status` is the container's, None if it gave none.

    Of serverless variants only: `setup`, how long a cold start took, and `utilization`, the share of the requests
    allowed at once that were under way.
    """

    endpoint: str
    variant: str
    config: str
    instances: int
    status: int | None
    model_latency: float
    overhead_latency: float
    setup: float | None = None
    utilization: float | None = None


def interval(cloud: Cloud) -> float:
    """Seconds between two publications: four a minute of the cloud's, and neither hectic nor slow.

    AWS publishes once a minute. Whoever counts the minutes of a scaled cloud needs the parts to arrive in time.
    """
    return min(max(cloud.scaled(15), 0.05), 5.0)


class Metrics:
    """Collects invocations and publishes their metrics."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._collected: defaultdict[tuple[str, str, str], list[Invocation]] = defaultdict(list)
        self._measured: defaultdict[tuple[str, str, str], Measured] = defaultdict(dict)
        self._lock = threading.Lock()

    def start(self) -> None:
        self._cloud.run(self._keep_publishing, "invocation metrics")

    def record(self, invocation: Invocation) -> None:
        key = (invocation.endpoint, invocation.variant, invocation.config)
        with self._lock:
            self._collected[key].append(invocation)

    def add(self, endpoint: str, variant: str, config: str, values: Mapping[str, tuple[str, float]]) -> None:
        """One value of each of these metrics, with its unit."""
        with self._lock:
            measured = self._measured[endpoint, variant, config]
            for name, (unit, value) in values.items():
                measured.setdefault(name, (unit, Counter()))[1][_rounded(value)] += 1

    def _keep_publishing(self) -> None:
        while self._cloud.sleep(interval(self._cloud) * self._cloud.time_scale):
            with self._lock:
                collected, self._collected = self._collected, defaultdict(list)
                measured, self._measured = self._measured, defaultdict(dict)
            found = [*((key, metrics_of(invocations)) for key, invocations in collected.items()), *measured.items()]
            if not found:
                continue
            try:
                self._cloud.on_loop(lambda found=found: _publish(found))  # type: ignore[misc]
            except Exception:
                logger.exception("metrics of %d variants are lost", len(found))  # those of the next seconds need not be


def _publish(found: Iterable[tuple[tuple[str, str, str], Measured]]) -> None:
    for (endpoint, variant, config), measured in found:
        by_variant = {"EndpointName": endpoint, "VariantName": variant}
        for dimensions in (by_variant, {**by_variant, "EndpointConfigName": config}):
            for name, (unit, values) in measured.items():
                ministack.put_metric(NAMESPACE, name, values, unit=unit, dimensions=dimensions)


def metrics_of(invocations: list[Invocation]) -> Measured:
    """Errors are 1 or 0 for every request."""
    statuses = [invocation.status for invocation in invocations]
    found: Measured = {
        "Invocations": ("None", Counter({1.0: len(invocations)})),
        # The last requests of a fleet may end when it has no instance left that counts.
        "InvocationsPerInstance": ("None", Counter(1 / max(each.instances, 1) for each in invocations)),
        "Invocation4XXErrors": ("None", Counter(float(s is not None and 400 <= s < 500) for s in statuses)),
        "Invocation5XXErrors": ("None", Counter(float(s is None or s >= 500) for s in statuses)),
        "InvocationModelErrors": ("None", Counter(float(s is None or not 200 <= s < 300) for s in statuses)),
        "ModelLatency": ("Microseconds", Counter(_rounded(i.model_latency) for i in invocations)),
        "OverheadLatency": ("Microseconds", Counter(_rounded(i.overhead_latency) for i in invocations)),
        "ModelSetupTime": ("Microseconds", Counter(_rounded(i.setup) for i in invocations if i.setup is not None)),
        "ServerlessConcurrentExecutionsUtilization": (
            "None",
            Counter(i.utilization for i in invocations if i.utilization is not None),
        ),
    }
    return {name: (unit, values) for name, (unit, values) in found.items() if values}


def _rounded(microseconds: float) -> float:
    """To three significant digits: percentiles stay true to half a percent, and thousands of values become hundreds."""
    return float(f"{microseconds:.3g}")
