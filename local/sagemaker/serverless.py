"""Serverless variants: nothing runs until a request comes, and nothing runs any more a while after the last one.

The first request waits for the cold start: fetching the model, starting its server, the first ping. Where AWS starts a
container for each request at a time, here one process answers as many at a time as `MaxConcurrency` allows.
https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from local.sagemaker.cloud import Cloud
from local.sagemaker.fleet import (
    ModelServer,
    Place,
    StartError,
    ThrottledError,
    Variant,
    VariantSpec,
    start_servers,
)

# Bytes of a request and of an answer, and seconds for a start: guide, `serverless-endpoints-invoke`.
LARGEST_BODY = 4 * 2**20
STARTUP_TIMEOUT = 180
# AWS seconds without a request after which the server ends; AWS documents none.
IDLE = 300

TOO_SLOW = (
    f"Unable to successfully stand up your model within the allotted {STARTUP_TIMEOUT} second timeout. Please ensure "
    "that downloading your model artifacts, starting your model container and passing the ping health checks can be "
    f"completed within {STARTUP_TIMEOUT} seconds."
)


@dataclass
class ServerlessVariant(Variant):
    """A variant without servers most of the time. `start` starts them, `run` does something in the background."""

    start: Callable[[], list[ModelServer]] = field(kw_only=True)
    run: Callable[[Callable[[], None], str], object] = field(kw_only=True)
    idle_seconds: float = field(kw_only=True)
    concurrency: int = field(kw_only=True)
    _used: float = field(default_factory=time.monotonic, kw_only=True)
    _servers_change: threading.Lock = field(default_factory=threading.Lock, kw_only=True)

    @property
    def utilization(self) -> float:
        return self._in_flight / self.concurrency

    def enter(self) -> None:
        with self._idle:
            if self._in_flight >= self.concurrency:
                raise ThrottledError
            self._in_flight += 1

    def leave(self) -> None:
        self._used = time.monotonic()
        super().leave()

    def warm(self) -> float | None:
        with self._servers_change:
            if self.servers:
                return None
            began = time.perf_counter()
            self.servers = self.start()
            self.run(self._end_when_idle, f"idle variant {self.spec.name}")
            return time.perf_counter() - began

    def stop(self) -> None:
        super().stop()
        self.servers = []

    def _end_when_idle(self) -> None:
        while (servers := self._take_when_idle()) is None:
            time.sleep(min(self.idle_seconds / 4, 1.0))
        for server in servers:
            server.stop()

    def _take_when_idle(self) -> list[ModelServer] | None:
        with self._servers_change, self._idle:
            if self._in_flight or time.monotonic() < self._used + self.idle_seconds:
                return None
            servers, self.servers = self.servers, []
            return servers


def start_serverless(concurrency: int) -> Callable[[Cloud, VariantSpec, Place], ServerlessVariant]:
    """Starts variants for so many requests at once. As AWS does, a start is tried before the variant takes requests."""

    def start_variant(cloud: Cloud, spec: VariantSpec, place: Place) -> ServerlessVariant:
        numbers = count(1)

        def start() -> list[ModelServer]:
            number = next(numbers)
            logs = place.logs.with_name(f"{place.logs.name}-{number}")
            try:
                return start_servers(cloud, quick, Place(place.directory / str(number), logs, place.log_group))
            except StartError as error:
                raise StartError(TOO_SLOW) from error

        quick = replace(spec, startup_timeout=STARTUP_TIMEOUT)
        variant = ServerlessVariant(
            spec,
            [],
            spec.instance_count,
            spec.weight,
            start=start,
            run=cloud.run,
            idle_seconds=cloud.scaled(IDLE),
            concurrency=concurrency,
        )
        variant.warm()
        return variant

    return start_variant
