"""alibi-detect: TabularDrift, Kolmogorov-Smirnov and chi-squared feature by feature. It knows no missing values."""

import pandas
from alibi_detect.cd import TabularDrift

from benchmarks.profile.peers.columns import CATEGORIES, FEATURES
from benchmarks.profile.peers.frames import frames

reference, current = frames()
for name in CATEGORIES:
    known = pandas.CategoricalDtype(sorted({*reference[name].dropna()} | {*current[name].dropna()}))
    for frame in (reference, current):
        frame[name] = frame[name].astype(known).cat.codes
places = {FEATURES.index(name): None for name in CATEGORIES}
before, after = (frame.fillna(-1).to_numpy(dtype="float32") for frame in (reference, current))
found = TabularDrift(before, p_val=0.05, categories_per_feature=places).predict(after, drift_type="feature")
print(len(found["data"]["p_val"]))
