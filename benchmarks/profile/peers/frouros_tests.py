"""frouros: its Kolmogorov-Smirnov test of numbers, its chi-squared test of categories."""

from frouros.detectors.data_drift import ChiSquareTest, KSTest

from benchmarks.profile.peers.columns import CATEGORIES, NUMBERS
from benchmarks.profile.peers.frames import frames

reference, current = frames()
found = {}
for names, test in ((NUMBERS, KSTest), (CATEGORIES, ChiSquareTest)):
    for name in names:
        detector = test()
        detector.fit(X=reference[name].dropna().to_numpy())
        found[name], _ = detector.compare(X=current[name].dropna().to_numpy())
print(len(found))
