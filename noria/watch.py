"""The `monitor:` part of a spec: what is watched of a live model, and how far it may go before somebody is told."""

import re
from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, WithJsonSchema, model_validator

from noria.units import Duration, Part, format_duration

LOOK_BACK = timedelta(days=90)
"""What was predicted earlier than this is joined with no label."""


class Threshold(Part):
    """`2 of 3`: datapoints that must breach, of the last so many."""

    breaching: int = Field(ge=1)
    of: int = Field(ge=1, le=24)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, str):
            if not (found := re.fullmatch(r"\s*(\d+)\s+of\s+(\d+)\s*", value)):
                raise ValueError("write it as in: 2 of 3")
            return {"breaching": int(found[1]), "of": int(found[2])}
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.breaching > self.of:
            raise ValueError(f"{self.breaching} of {self.of} can never happen: the first must not be larger")
        return self


class ExpectedLabels(Part):
    """Outcomes become known later: how much later, and for how many predictions."""

    within: Duration = Field(timedelta(days=7), description="after this long a prediction should have its label")
    coverage: float | None = Field(
        None, gt=0, le=1, description="share of those predictions that must have one; nobody is told when left out"
    )
    train: bool = Field(True, description="joined rows become a dataset that the next training uses")

    @property
    def reach(self) -> timedelta:
        """How far back quality looks, so that half of what it looks at should have its label."""
        return 2 * self.within

    @model_validator(mode="after")
    def _within_reach(self) -> Self:
        if self.reach > LOOK_BACK:
            raise ValueError(
                f"within {format_duration(self.within)} is too long: quality looks back twice as far, and what was "
                f"predicted more than {format_duration(LOOK_BACK)} ago is joined with no label; use "
                f"{format_duration(LOOK_BACK / 2)} at most"
            )
        return self


class BiasLimits(Part):
    """How unequally a model may treat the values of one segment; what is left out is reported and alarms nobody.

    Selection is the positive prediction of a binary classification. Definitions are fairlearn's: `disparate_impact` is
    the smallest selection rate over the largest, the others are largest differences (of true positive rates, and of
    true or false positive rates, whichever is larger).
    """

    disparate_impact: float | None = Field(
        None, gt=0, le=1, description="the ratio must be at least this; 0.8 is usual"
    )
    equal_opportunity: float | None = Field(None, gt=0, le=1)
    equalized_odds: float | None = Field(None, gt=0, le=1)


class BusinessMetric(Part):
    """A number of the user's own, by SQL over table `predictions`, which has one row for each prediction of the window.

    Of a query that asks for `label`, the window is one of predictions that have become older than `labels.within`.
    Columns: inference_id, row, time (UTC), each feature by its name, prediction, score (binary), label (NULL while
    it is not known). Predictions and labels of a classification are texts: label = 'late', label::INTEGER. The query is
    one SELECT in DuckDB's SQL, gives one row of one number within 30 seconds, and can reach nothing but the table.
    """

    sql: str = Field(min_length=1)
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is larger than max {self.max:g}: exchange them")
        return self


class Monitor(Part):
    every: Duration = Field(timedelta(hours=1), description="length of a window, and how often one is compared")
    min_rows: int = Field(500, ge=1, description="fewer rows than this are not compared")
    when: Annotated[Threshold, WithJsonSchema({"type": "string", "pattern": r"^\d+ of \d+$"})] = Field(
        Threshold(breaching=2, of=3), description="windows that must breach, of the last so many, to raise an alarm"
    )
    psi: float = Field(
        0.1,
        gt=0,
        description="population stability index above which a feature has drifted, if chance does not explain it",
    )
    prediction_psi: float | None = Field(None, gt=0, description="the same of the predictions; `psi` when left out")
    invalid: float = Field(0.05, gt=0, le=1, description="share of requested rows that may break the data contract")
    outliers: float = Field(
        0.1, gt=0, le=1, description="share of rows that may hold a value beyond all of the training data"
    )
    confidence: float = Field(
        0.1, gt=0, le=1, description="by how much the mean confidence may fall (probability of what is predicted)"
    )
    attribution: float = Field(
        0.5, ge=-1, le=1, description="rank correlation of the features' weight, now and at training, at the least"
    )
    quality: float = Field(
        0.1, gt=0, description="by what share the first metric may be worse than at registration, by late labels"
    )
    calibration: float = Field(
        0.1, gt=0, le=1, description="expected calibration error of a classification, by late labels, at most"
    )
    silence: Duration = Field(
        timedelta(days=1), description="after this long without a request somebody is told; longer than a usual weekend"
    )
    labels: ExpectedLabels = ExpectedLabels()
    bias: dict[str, BiasLimits] = Field(default_factory=dict, description="limits per segment")
    business: dict[str, BusinessMetric] = Field(default_factory=dict, description="numbers of your own, by name")

    @model_validator(mode="after")
    def _fits_an_alarm(self) -> Self:
        # CloudWatch: periods are multiples of a minute, and EvaluationPeriods x Period is at most a day below one hour,
        # at most seven days from one hour on.
        if self.every % timedelta(minutes=1) or not timedelta(minutes=5) <= self.every <= timedelta(days=1):
            raise ValueError(f"every {format_duration(self.every)} must be whole minutes between 5m and 1d")
        if self.every * self.when.of > timedelta(days=7 if self.every >= timedelta(hours=1) else 1):
            raise ValueError(
                f"{self.when.of} windows of {format_duration(self.every)} are longer than an alarm may look back"
            )
        return self

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.business:
            if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
                raise ValueError(f"business metric {name!r}: use small letters, digits and hyphens, as in late-revenue")
        return self
