"""How right the predictions were, once the labels are known."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from noria.profile import Source
from noria.spec import Metric, ModelSpec
from noria.sql import MODEST, Resources


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Score(Part):
    """Metrics over `rows` labelled predictions; one that is undefined there (AUC of a single class) is left out."""

    rows: int
    metrics: dict[Metric, float]


class Quality(Part):
    """Predictions of a source joined with late labels. `coverage` is the share of predictions that have a label."""

    model: str
    predictions: int
    labels: int
    matched: int
    unmatched_labels: int
    malformed: int
    coverage: float
    overall: Score
    segments: dict[str, dict[str, Score]]


def join(source: Source, labels: Path, spec: ModelSpec, *, resources: Resources = MODEST) -> Quality:
    """Join captured predictions with a labels file: columns inference_id, row (0 when absent), and the target."""
    raise NotImplementedError
