"""The model as the peers load it: scikit-learn's estimator behind the codes of its categories.

Leaner than what their tutorials show (a ColumnTransformer costs several milliseconds a request), so that what is
measured is the server and scikit-learn. Imports nothing of this repository: it runs in the peers' environments.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np


class Tabular:
    """An estimator that takes columns as clients send them: a pandas data frame, or a mapping of lists."""

    def __init__(self, bundle: Path) -> None:
        signature = json.loads((bundle / "signature.json").read_text(encoding="utf-8"))
        self.task: str = signature["task"]
        self.features: dict[str, dict[str, float] | None] = {
            feature["name"]: _codes(feature["categories"]) if feature["type"] == "category" else None
            for feature in signature["features"]
        }
        self.estimator: Any = joblib.load(bundle / "model.joblib")

    def predict(self, columns: Any) -> Any:
        """(rows,) values of a regression."""
        return self.estimator.predict(self._matrix(columns))

    def predict_proba(self, columns: Any) -> Any:
        """(rows, labels) probabilities of a classification."""
        return self.estimator.predict_proba(self._matrix(columns))

    def scores(self, columns: Any) -> list[Any]:
        """What is answered: a number a row, or one for each label of several."""
        if self.task == "regression":
            return list(self.predict(columns).tolist())
        probabilities = self.predict_proba(columns)
        return list((probabilities[:, 1] if self.task == "binary_classification" else probabilities).tolist())

    def _matrix(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        return np.column_stack(
            [
                np.asarray(columns[name], float) if codes is None else [codes.get(v, math.nan) for v in columns[name]]
                for name, codes in self.features.items()
            ]
        )


def _codes(categories: Sequence[str]) -> dict[str, float]:
    return {category: float(code) for code, category in enumerate(categories)}
