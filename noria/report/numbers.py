"""Numbers as people read them."""

from datetime import datetime, timedelta
from math import isfinite, isnan

from noria.units import format_duration


def figure(value: float | None) -> str:
    """Three digits that count.

    >>> figure(0.25), figure(12345.6), figure(0.00001234), figure(None)
    ('0.25', '12,346', '1.23e-05', '–')
    """
    if value is None or isnan(value):
        return "–"
    if not isfinite(value):
        return "∞" if value > 0 else "−∞"
    if value and abs(value) < 0.001:
        return f"{value:.2e}".replace("-", "−", 1) if value < 0 else f"{value:.2e}"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def distance(value: float | None) -> str:
    """How far two distributions are apart, where what is below a thousandth is nothing.

    >>> distance(9.2912), distance(0.2512), distance(0.000012)
    ('9.29', '0.251', '0.000')
    """
    return "–" if value is None else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def chance(probability: float) -> str:
    """
    >>> chance(0.2512), chance(1e-30)
    ('0.251', '< 0.001')
    """
    return "< 0.001" if probability < 0.001 else f"{probability:.3f}"


def percent(share: float | None) -> str:
    """A share of rows; what is there is never said to be none, nor what is not all to be all.

    >>> percent(0.5), percent(0.034), percent(0.0001), percent(0.99999), percent(0)
    ('50%', '3.4%', '< 0.1%', '> 99.9%', '0%')
    """
    if share is None or isnan(share):
        return "–"
    if 0 < share < 0.001:
        return "< 0.1%"
    if 0.999 < share < 1:
        return "> 99.9%"
    return f"{100 * share:.3g}%" if share >= 0.1 else f"{100 * share:.2g}%"


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def span(start: datetime, end: datetime) -> str:
    """A window; what is the same on both ends is said once."""
    if start.date() == end.date():
        return f"{start:%Y-%m-%d %H:%M} to {end:%H:%M} UTC"
    return f"{start:%Y-%m-%d %H:%M} to {moment(end)}"


def hours(number: float | None) -> str:
    """
    >>> hours(0.5), hours(3.04), hours(72), hours(None)
    ('30 min', '3.0 h', '3.0 days', '–')
    """
    if number is None:
        return "–"
    if number < 1:
        return f"{number * 60:.0f} min"
    return f"{number:.1f} h" if number < 48 else f"{number / 24:.1f} days"


def length(value: timedelta) -> str:
    """
    >>> length(timedelta(hours=1)), length(timedelta(seconds=90, microseconds=5))
    ('1h', '90s')
    """
    return format_duration(timedelta(seconds=round(value.total_seconds())))
