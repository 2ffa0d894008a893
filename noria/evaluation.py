"""What a candidate did on the newest slice, and the gate's verdict: the typed form of `evaluation.json`."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from noria.spec import Metric

SEGMENT_ROWS = 50
"""Segment values with fewer rows than this have no metrics of their own: they would say more about chance."""

SEGMENT_VALUES = 100
"""No more values of one segment have metrics of their own: the most frequent ones."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Estimate(Part):
    """A value and its 95 % interval. The interval covers the chance of which rows were seen, and nothing else."""

    value: float
    low: float
    high: float


class Bin(Part):
    """Rows of about one probability: the mean of what was predicted, and the share of them in which it happened."""

    rows: int
    predicted: float
    happened: float


class Calibration(Part):
    """Whether probabilities are the shares of what then happens: of the positive label, or of the label predicted.

    `error` is the expected calibration error over `bins`, as it was found; `chance` is what a perfectly calibrated
    model would show on average on these rows. `value` is the error without that chance, and 0 where chance explains
    it. `noria.calibration` says how.
    """

    rows: int
    error: float
    chance: float
    value: float
    bins: tuple[Bin, ...]


class Rates(Part):
    """How the rows that share one value of a segment are treated. Without labels only `rows` and `selected` are known.

    Selected are the rows predicted positive, `positives` those that were; rates of no rows are None.
    """

    rows: int
    selected: int
    positives: int | None = None
    true_positives: int | None = None

    @property
    def selection_rate(self) -> float | None:
        return self.selected / self.rows if self.rows else None

    @property
    def true_positive_rate(self) -> float | None:
        if self.true_positives is None or not self.positives:
            return None
        return self.true_positives / self.positives

    @property
    def false_positive_rate(self) -> float | None:
        if self.positives is None or self.true_positives is None or self.rows == self.positives:
            return None
        return (self.selected - self.true_positives) / (self.rows - self.positives)


class Fairness(Part):
    """How unequally a model treats the values of one segment, by fairlearn's definitions; None where undefined.

    `disparate_impact` is the smallest selection rate over the largest, `equal_opportunity` the largest difference of
    true positive rates, `equalized_odds` the larger of that and of the same of false positive rates.
    `values` has those of at least `SEGMENT_ROWS` rows; `left_out` the most frequent of the others, with their rows.
    """

    values: dict[str, Rates]
    left_out: dict[str, int] = Field(default_factory=dict)
    disparate_impact: Estimate | None = None
    equal_opportunity: Estimate | None = None
    equalized_odds: Estimate | None = None


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


class Training(Served):
    """`training.json`: what a model learnt from, and how. `iterations` is None where the estimator counts none."""

    rows: Slice
    estimator: str
    iterations: int | None
    hyperparameters: dict[str, int | float | str | bool | None]


class Measurements(Served):
    """A candidate measured on rows newer than all it was trained on, through what will serve it, in `image`.

    Metrics that are undefined there (AUC where only one class occurs) are left out. `champion` is None when there is
    none, or when it cannot answer these rows: `champion_problem` then says why. `calibration` is of classifications,
    `fairness` (by segment) of binary ones.
    """

    model: str
    slice: Slice
    trained_on: Slice
    metrics: dict[Metric, Estimate]
    segments: dict[str, dict[str, SegmentScore]] = Field(default_factory=dict)
    calibration: Calibration | None = None
    fairness: dict[str, Fairness] = Field(default_factory=dict)
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
