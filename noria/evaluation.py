"""What a candidate did on the newest slice, and the gate's verdict: the typed form of `evaluation.json`."""

from datetime import datetime

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


class Measurements(Part):
    """A candidate measured on rows newer than all it was trained on.

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


class Gate(Part):
    """The verdict. `reasons` lists every failure; `reason` is all of them in one text that a pipeline can show."""

    passed: bool
    reasons: tuple[str, ...] = ()
    reason: str = ""


class Evaluation(Measurements):
    """`evaluation.json`."""

    gate: Gate
