"""NannyML: univariate drift of one chunk, Kolmogorov-Smirnov and Wasserstein, chi-squared and Jensen-Shannon."""

import nannyml

from benchmarks.profile.peers.columns import CATEGORIES, FEATURES
from benchmarks.profile.peers.frames import frames

nannyml.disable_usage_logging() if hasattr(nannyml, "disable_usage_logging") else None
reference, current = frames()
calculator = nannyml.UnivariateDriftCalculator(
    column_names=FEATURES,
    treat_as_categorical=CATEGORIES,
    continuous_methods=["kolmogorov_smirnov", "wasserstein"],
    categorical_methods=["chi2", "jensen_shannon"],
    chunk_number=1,
)
calculator.fit(reference)
found = calculator.calculate(current).to_df(multilevel=False)
print(sum(any(column.startswith(f"{name}_") for column in found.columns) for name in FEATURES))
