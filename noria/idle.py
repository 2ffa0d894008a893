"""An endpoint that costs money and answers nobody."""

from datetime import datetime, timedelta

IDLE_AFTER = timedelta(days=7)
"""A week has the quiet days of every business in it; `monitor.silence` tells of less."""


def looks_idle(*, since: datetime, now: datetime) -> bool:
    """Whether the version that answers has had a week to be asked."""
    return now - since >= IDLE_AFTER


def idle(model: str, *, requests: float, usd: float | None) -> str | None:
    """The sentence about an endpoint of which nobody asked anything for `IDLE_AFTER`; `usd` a month, if that is known.

    None where somebody did, or where it has no instance, and so costs nothing.
    """
    if requests > 0 or usd == 0:
        return None
    costs = f"costs {usd:,.0f} USD a month" if usd is not None else "has instances that cost by the hour"
    return (
        f"Nobody has asked it anything for {IDLE_AFTER.days} days, and it {costs}: noria retire {model} takes it away, "
        "and an approval brings it back"
    )
