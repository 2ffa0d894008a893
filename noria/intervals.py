"""Intervals of shares, and of what is made of two independent estimates, from their own intervals."""

import math
from statistics import NormalDist

from noria.evaluation import Estimate

REQUESTS = 20
"""Rows of one request are alike, so what varies are requests; the spread of fewer than this says little."""

SURE = 0.999
"""How sure a monitor must be that it is not looking at chance: every hour is another occasion to err."""


def quantile(confidence: float) -> float:
    """Standard deviations on either side of the mean between which a normal variable is with that probability."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(share: float, rows: float, *, confidence: float = 0.95) -> Estimate:
    """A share of so many independent rows, above 0; the ends lie within [0, 1], also where the share is 0 or 1.

    Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
    """
    z = quantile(confidence)
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    return Estimate(value=share, low=max(0.0, min(share, middle - half)), high=min(1.0, max(share, middle + half)))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """`one` - `other`, independent of each other.

    Zou and Donner, Construction of confidence limits about effect measures: a general approach, Statistics in Medicine
    27, 2008; of Wilson's intervals it is Newcombe's method 10 (Statistics in Medicine 17, 1998).
    """
    value = one.value - other.value
    return Estimate(
        value=value,
        low=value - math.hypot(one.value - one.low, other.high - other.value),
        high=value + math.hypot(one.high - one.value, other.value - other.low),
    )


def ratio(one: Estimate, other: Estimate) -> Estimate:
    """`one` / `other`, independent of each other and not below 0; `other` and its low end are above 0.

    Donner and Zou, Closed-form confidence intervals for functions of the normal mean and standard deviation,
    Statistical Methods in Medical Research 21, 2012.
    """
    product = one.value * other.value

    def end(mine: float, theirs: float, sign: int) -> float:
        slope = theirs * (2 * other.value - theirs)
        root = math.sqrt(max(0.0, product**2 - mine * (2 * one.value - mine) * slope))
        return (product + sign * root) / slope

    # An upper end of more than twice the value says only that the ratio may be as small as one likes.
    low = end(one.low, other.high, -1) if other.high < 2 * other.value else 0.0
    return Estimate(value=one.value / other.value, low=max(0.0, low), high=end(one.high, other.low, 1))
