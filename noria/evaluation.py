"""What a candidate did on the newest slice, and the gate's verdict: the typed form of `evaluation.json`."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from noria.spec import Metric

SEGMENT_ROWS = 50
"""Segment values with fewer rows than this have no metrics of their own: they would say more about chance."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Estimate(Part):
    """A value and its 95 % bootstrap interval. The interval covers the chance of which rows were in the slice only."""

    value: float
    low: float
    high: float


class SegmentScore(Part):
    """Metrics of the rows that share one value of a segment."""

    rows: int
    metrics: dict[Metric, float]


class Slice(Part):
    """Rows by event time; both ends included."""

    rows: int
    first_event: datetime
    last_event: datetime


class ChampionScore(Part):
    """The champion on the same rows. `margins` is how much better the candidate is: above zero, whatever the metric."""

    package: str
    metrics: dict[Metric, Estimate]
    margins: dict[Metric, Estimate]


Form = Literal["onnx", "sklearn"]


class Served(Part):
    """Which of a bundle's two forms of the model answers, and how far they are apart.

    `onnx_difference` is the largest difference between them over `onnx_rows` rows, of the training and the holdout: of
    a probability, or of a value as a share of itself where that is above one.
    """

    serves: Form = "sklearn"
    serves_because: str = ""
    onnx_difference: float | None = None
    onnx_rows: int = 0


class Measurements(Served):
    """A candidate measured on rows newer than all it was trained on, through what will serve it, in `image`.

    Metrics that are undefined there (AUC where only one class occurs) are left out. `champion` is None when there is
    none, or when it cannot answer these rows: `champion_problem` then says why.
    """

    model: str
    slice: Slice
    trained_on: Slice
    metrics: dict[Metric, Estimate]
    segments: dict[str, dict[str, SegmentScore]] = Field(default_factory=dict)
    champion: ChampionScore | None = None
    champion_problem: str | None = None
    latency_p95_ms: float
    image: str = ""


class Gate(Part):
    """The verdict. `reasons` lists every failure; `reason` is all of them in one text that a pipeline can show."""

    passed: bool
    reasons: tuple[str, ...] = ()
    reason: str = ""


class Evaluation(Measurements):
    """`evaluation.json`."""

    gate: Gate
