"""What is said of an endpoint that runs and that nobody asks."""

from datetime import datetime

from noria.aws.endpoints import CHAMPION, EndpointState
from noria.aws.traffic import TrafficMetrics
from noria.idle import IDLE_AFTER, idle, looks_idle
from noria.prices import HOURS, NoPrice, prices


def idle_warning(
    model: str, *, state: EndpointState, since: datetime, now: datetime, traffic: TrafficMetrics
) -> str | None:
    """`since`: when the version that answers became the champion. None where there is nothing to say."""
    if not looks_idle(since=since, now=now):
        return None
    asked = traffic.served(CHAMPION, since=now - IDLE_AFTER, until=now, within_ms=None)
    return idle(model, requests=asked.requests, usd=_monthly(state, traffic.client.meta.region_name))


def _monthly(state: EndpointState, region: str) -> float | None:
    """None where the region or an instance has no price."""
    paid = [(instance, float(HOURS * count)) for instance, count in state.instances.values() if count]
    try:
        return prices(region).cost(paid) if paid else 0.0
    except NoPrice:
        return None
