"""Which fleet and which variant a request goes to.

A variant gets its weight's share of the requests. While a deployment shifts traffic, each request to a variant goes
to the green fleet with the probability that the share of activated green instances gives: one canary instance of three
takes a third. Who picks a variant also enters it, so a fleet that left the traffic ends when its last request does.
"""

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from local.sagemaker.fleet import Fleet, Variant


class UnroutableError(Exception):
    """No variant of that name, or none with a weight."""


@dataclass(frozen=True)
class Route:
    fleet: Fleet
    variant: Variant


class Router:
    """The traffic of one endpoint."""

    def __init__(self, fleet: Fleet, chance: random.Random | None = None) -> None:
        self._blue = fleet
        self._green: Fleet | None = None
        self._shares: Mapping[str, float] = {}
        self._chance = chance or random.Random()  # noqa: S311 - a share of traffic is no secret
        self._lock = threading.Lock()

    @property
    def fleet(self) -> Fleet:
        """The fleet that serves what no deployment has taken."""
        return self._blue

    def shift(self, green: Fleet, shares: Mapping[str, float]) -> None:
        """Send that share (0 to 1) of each variant's requests to the green fleet."""
        with self._lock:
            self._green, self._shares = green, shares

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Change the weights of variants, all at once for whoever asks."""
        with self._lock:
            for name, weight in weights.items():
                self._blue.variants[name].weight = weight

    def settle(self, fleet: Fleet) -> None:
        """Send everything to one fleet."""
        with self._lock:
            self._blue, self._green, self._shares = fleet, None, {}

    @contextmanager
    def route(self, target_variant: str | None = None) -> Iterator[Route]:
        """The way of one request. Raises `UnroutableError`."""
        with self._lock:
            route = self._pick(target_variant)
            route.variant.enter()
        try:
            yield route
        finally:
            route.variant.leave()

    def _pick(self, target: str | None) -> Route:
        variants = self._blue.variants
        if self._green and all(self._shares.get(name, 0) >= 1 for name in self._green.variants):
            return _in(self._green, target or self._weighted(self._green))
        name = target or self._weighted(self._blue)
        if self._green and name in variants and self._chance.random() < self._shares.get(name, 0):
            return _in(self._green, name)
        return _in(self._blue, name)

    def _weighted(self, fleet: Fleet) -> str:
        weights = [variant.weight for variant in fleet.variants.values()]
        if not any(weights):
            raise UnroutableError("No production variant has a weight above zero.")
        return self._chance.choices(list(fleet.variants), weights)[0]


def _in(fleet: Fleet, name: str) -> Route:
    if name not in fleet.variants:
        raise UnroutableError(f"Variant {name} not found.")
    return Route(fleet, fleet.variants[name])
