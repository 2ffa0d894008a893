"""deepchecks: FeatureDrift, all rows (its default would look at 100,000)."""

from deepchecks.tabular import Dataset
from deepchecks.tabular.checks import FeatureDrift

from benchmarks.profile.peers.columns import CATEGORIES
from benchmarks.profile.peers.frames import frames

reference, current = (Dataset(frame, cat_features=CATEGORIES) for frame in frames())
check = FeatureDrift(n_samples=10**9, max_num_categories_for_drift=10**4)
print(len(check.run(reference, current, with_display=False).value))
