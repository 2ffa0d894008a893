"""pandas and scipy: exact KS and Wasserstein of numbers, chi-squared and Jensen-Shannon of categories, missing."""

from typing import Any

import pandas
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

from benchmarks.profile.peers.columns import CATEGORIES, NUMBERS
from benchmarks.profile.peers.frames import frames

reference, current = frames()
found: dict[str, tuple[Any, ...]] = {}
for name in NUMBERS:
    before, after = reference[name].dropna().to_numpy(), current[name].dropna().to_numpy()
    found[name] = (
        ks_2samp(before, after),
        wasserstein_distance(before, after),
        after.mean(),
        current[name].isna().mean(),
    )
for name in CATEGORIES:
    table = pandas.DataFrame({"b": reference[name].value_counts(), "a": current[name].value_counts()}).fillna(0)
    found[name] = (chi2_contingency(table.T), jensenshannon(table["b"], table["a"]), current[name].isna().mean())
print(len(found))
