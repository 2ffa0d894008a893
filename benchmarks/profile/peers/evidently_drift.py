"""Evidently: its data drift preset, on all columns."""

from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

from benchmarks.profile.peers.columns import CATEGORIES, FEATURES, NUMBERS
from benchmarks.profile.peers.frames import frames

definition = DataDefinition(numerical_columns=NUMBERS, categorical_columns=CATEGORIES)
reference, current = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames())
found = Report([DataDriftPreset()]).run(current, reference).dict()
print(
    sum(
        any(
            f"column={name}" in metric["metric_name"]
            or f"column={name}," in str(metric.get("config", ""))
            or f"'column': '{name}'" in str(metric)
            for metric in found["metrics"]
        )
        for name in FEATURES
    )
)
