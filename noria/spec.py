"""One YAML per model: what a data scientist writes, checked before anything is built from it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from noria.documents import DocumentError, text_of
from noria.documents import parse as document_of
from noria.names import slug
from noria.objectives import Objectives
from noria.policy import Retrain
from noria.serve import INSTANCE, Mode, Serve
from noria.units import Duration, Part, format_duration
from noria.watch import Monitor


class Task(StrEnum):
    BINARY = "binary_classification"
    MULTICLASS = "multiclass_classification"
    REGRESSION = "regression"


class FeatureType(StrEnum):
    INTEGER = "integer"
    NUMBER = "number"
    CATEGORY = "category"


Severity = Literal["reject", "warn"]
Rule = Literal[
    "unexpected",
    "range",
    "category",
    "missing",
    "early",
    "future",
    "constant",
    "unique",
    "duplicates",
    "formula",
    "min_rows",
]
"""Rules that a spec may make stricter or milder; the others are about files that nothing can be learnt from."""

_MILD = frozenset({"unexpected", "duplicates", "formula"})


class Feature(Part):
    """What one input column may hold."""

    type: FeatureType
    min: float | None = Field(None, description="smallest value allowed")
    max: float | None = Field(None, description="largest value allowed")
    values: tuple[str, ...] | None = Field(None, description="categories allowed; any when left out")
    missing: float = Field(0.0, ge=0, le=1, description="share of rows that may lack a value")
    sensitive: bool = Field(False, description="its values are shown nowhere: no report, page or log holds one")
    severity: dict[Literal["range", "category", "missing", "formula"], Severity] = Field(
        default_factory=dict, description="reject or warn, by rule, for this column"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.type is FeatureType.CATEGORY and (self.min is not None or self.max is not None):
            raise ValueError("a category has no min or max: list its values, or give it type integer or number")
        if self.type is not FeatureType.CATEGORY and self.values is not None:
            raise ValueError("only a category lists values: use min and max, or give it type category")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is larger than max {self.max:g}: exchange them")
        return self


class MetricGate(Part):
    """What the candidate must reach on the newest slice to be registered."""

    min: float | None = Field(None, description="the candidate's value must be at least this")
    max: float | None = Field(None, description="the candidate's value must be at most this")
    beats_champion_by: float | None = Field(
        None, description="how much better than the champion on the same rows; 0.0 means not worse"
    )


class Metric(StrEnum):
    AUC = "auc"
    ACCURACY = "accuracy"
    F1 = "f1"
    LOG_LOSS = "log_loss"
    BRIER = "brier"
    RMSE = "rmse"
    MAE = "mae"
    R2 = "r2"

    @property
    def higher_is_better(self) -> bool:
        return self in {Metric.AUC, Metric.ACCURACY, Metric.F1, Metric.R2}


METRICS: Mapping[Task, tuple[Metric, ...]] = {
    Task.BINARY: (Metric.AUC, Metric.ACCURACY, Metric.F1, Metric.LOG_LOSS, Metric.BRIER),
    Task.MULTICLASS: (Metric.ACCURACY, Metric.F1, Metric.LOG_LOSS, Metric.AUC),
    Task.REGRESSION: (Metric.RMSE, Metric.MAE, Metric.R2),
}
"""Metrics of each task; the first speaks for the model. Multiclass f1 is the macro average, auc one-vs-rest."""


class Gates(Part):
    """Every failure is collected; one is enough to keep a candidate out of the registry."""

    auc: MetricGate | None = None
    accuracy: MetricGate | None = None
    f1: MetricGate | None = None
    log_loss: MetricGate | None = None
    brier: MetricGate | None = None
    rmse: MetricGate | None = None
    mae: MetricGate | None = None
    r2: MetricGate | None = None
    latency_p95_ms: float | None = Field(None, gt=0, description="95th percentile of a one-row prediction")
    calibration: float | None = Field(
        None, gt=0, le=1, description="expected calibration error of a classification, without what chance explains"
    )
    bias: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="per segment, the largest allowed gap of the first metric between its values"
    )

    @property
    def metrics(self) -> dict[Metric, MetricGate]:
        return {metric: gate for metric in Metric if (gate := getattr(self, metric.value)) is not None}


class Train(Part):
    estimator: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$",
        description="class with scikit-learn's fit and predict, as lightgbm.LGBMClassifier; the image must have it. "
        "HistGradientBoosting of the task when left out",
    )
    instance: str = Field("ml.m5.large", pattern=INSTANCE)
    hyperparameters: dict[str, int | float | str | bool | None] = Field(
        default_factory=dict, description="passed to the estimator by name"
    )
    holdout: float = Field(0.2, gt=0, lt=0.9, description="share of rows, the newest, kept for the gates")
    timeout: Duration = timedelta(hours=1)
    spot: bool = Field(
        False,
        description="train on Spot instances, which cost less; an interrupted job waits its turn, and goes on from its "
        "last checkpoint where the estimator can: HistGradientBoosting",
    )
    seed: int = 7


class Contract(Part):
    """What is asked of an uploaded file beyond its columns."""

    severity: dict[Rule, Severity] = Field(
        default_factory=dict,
        description="reject or warn, by rule; `unexpected`, `duplicates` and `formula` warn, the others reject",
    )
    earliest: datetime = Field(
        datetime(1970, 1, 1, tzinfo=UTC), description="an event cannot have happened before this (UTC)"
    )
    ahead: Duration = Field(timedelta(days=1), description="how far in the future an event time may be: zones, clocks")
    duplicates: float = Field(0.0, ge=0, le=1, description="share of rows that may be equal to another in everything")


class Risk(StrEnum):
    """How much harm a wrong model can do; a later one is worse than those before it."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Approval(Part):
    """Who lets a version go live, by which rule, and for how long that may take."""

    mode: Literal["open", "strict"] = Field(
        "open",
        description="open: who may change a package in the registry approves it; strict: the approval function alone "
        "does, when enough people have told it so (noria approve)",
    )
    approvers: int = Field(1, ge=1, le=5, description="how many people must approve a version")
    not_author: bool | None = Field(
        None,
        description="whether nobody approves what the record says they made: asked to be trained, uploaded data for, "
        "or registered; an author known only as an account is not held back; in mode strict true when left out",
    )
    within: Duration | None = Field(None, description="a version that waits longer expires; never when left out")
    risk: Risk = Field(Risk.MEDIUM, description="of the model, told with each request for approval")
    automatic_below: Risk | None = Field(
        None, description="models of a lower risk approve the versions that pass their gates by themselves"
    )
    max_age: Duration | None = Field(None, description="a version that answers and is older is told of; never when out")

    @property
    def strict(self) -> bool:
        return self.mode == "strict"

    @property
    def independent(self) -> bool:
        """Whether authors do not count as approvers."""
        return self.strict and self.not_author is not False

    @property
    def automatic(self) -> bool:
        return self.automatic_below is not None and list(Risk).index(self.risk) < list(Risk).index(self.automatic_below)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.strict and (self.approvers > 1 or self.not_author):
            asked = f"approvers {self.approvers}" if self.approvers > 1 else "not_author true"
            raise ValueError(f"{asked} cannot be kept in mode open, where one person approves alone: use mode strict")
        if self.automatic and (self.approvers > 1 or self.not_author):
            raise ValueError(
                f"risk {self.risk.value} is below {self.automatic_below}, so nobody is asked, but approvers are asked "
                "for: remove approvers and not_author, or automatic_below"
            )
        if self.automatic_below is Risk.LOW:
            raise ValueError("automatic_below low is below every risk, so it does nothing: use medium or high, or none")
        for name, limit in (("within", self.within), ("max_age", self.max_age)):
            if limit is not None and limit < timedelta(hours=1):
                raise ValueError(f"{name} {format_duration(limit)} is too short for people: give 1h or more")
        return self


ADDRESS = r"^[^@\s]+@[^@\s]+\.[^@\s]+$"


class Owner(Part):
    team: str = Field(min_length=1, max_length=128)
    page: str | None = Field(None, pattern=ADDRESS, description="address that pages go to; the topic always gets them")
    notices: str | None = Field(
        None, pattern=ADDRESS, description="address for what can wait for the morning; that of pages when left out"
    )


class ModelSpec(Part):
    """A model: its inputs, what it must reach, how it is served, watched and retrained, and who owns it."""

    model: str = Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=32)
    task: Task
    target: str = Field(min_length=1)
    time: str = Field(min_length=1, description="event time column; splits are by time, never random")
    id: str | None = Field(None, description="column that names a row; unique in a dataset when given")
    features: dict[str, Feature] = Field(min_length=1)
    segments: tuple[str, ...] = Field((), description="quality and bias are reported for each value of these features")
    min_rows: int = Field(1, ge=1, description="fewest rows of a dataset")
    max_rows: int = Field(100_000_000, ge=1, description="most rows of a dataset")
    purpose: str | None = Field(
        None, min_length=1, max_length=1000, description="what the model is for, for its cards: who decides what by it"
    )
    limits: tuple[Annotated[str, Field(min_length=1, max_length=500)], ...] = Field(
        (), max_length=20, description="what it is not to be used for, and where it is known to be wrong, for its cards"
    )
    image: str | None = Field(
        None,
        pattern=r"^\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/[a-z0-9._/-]+(:[\w.-]+|@sha256:[0-9a-f]{64})$",
        description="own image in ECR that trains, evaluates and serves; it must keep the contract of AWS's "
        "scikit-learn image, best by being built on it",
    )
    contract: Contract = Contract()
    train: Train = Train()
    gates: Gates = Gates()
    serve: Serve = Serve()
    monitor: Monitor = Monitor()
    retrain: Retrain = Retrain()
    approval: Approval = Approval()
    objectives: Objectives = Objectives()
    owner: Owner

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        for role, column in (("target", self.target), ("time", self.time), ("id", self.id)):
            if column in self.features:
                yield f"{role} {column!r} is a feature too: a model must not see it; remove it from features"
        yield from self._alike()
        yield from self._image_problems()
        for segment in self.segments:
            if segment not in self.features:
                yield f"segment {segment!r} is not a feature: add it to features, or remove it from segments"
        for metric, gate in self.gates.metrics.items():
            if metric not in METRICS[self.task]:
                known = ", ".join(METRICS[self.task])
                yield f"gate {metric.value!r} does not measure {self.task.value}: use one of {known}"
            if metric.higher_is_better and gate.max is not None:
                yield f"gate {metric.value!r} is better when higher: use min, not max"
            if not metric.higher_is_better and gate.min is not None:
                yield f"gate {metric.value!r} is better when lower: use max, not min"
        if self.gates.calibration is not None and self.task is Task.REGRESSION:
            yield f"gate 'calibration' is about probabilities, and {self.task.value} has none: remove it"
        if self.serve.mode is Mode.BATCH and self.objectives.of_requests:
            yield "objectives of requests are promised, and mode batch answers none: remove availability and latency"
        yield from self._bias_problems()

    def _bias_problems(self) -> Iterator[str]:
        for what, named in (("bias gate", self.gates.bias), ("monitor.bias", self.monitor.bias)):
            for segment in named:
                if segment not in self.segments:
                    yield f"{what} names {segment!r}, which is not among segments: add it there"
        if self.monitor.bias and self.task is not Task.BINARY:
            yield f"monitor.bias is about positive predictions, and {self.task.value} has none: remove it"
        alarms: dict[str, str] = {}
        for segment in self.monitor.bias:
            other = alarms.setdefault(slug(segment), segment)
            if not slug(segment):
                yield f"monitor.bias names {segment!r}, which leaves an alarm no name: give it a letter or digit"
            elif other != segment:
                yield (
                    f"monitor.bias names {other!r} and {segment!r}, whose alarms would have one name, "
                    f"{slug(segment)!r}: rename one by a letter or digit"
                )

    def _image_problems(self) -> Iterator[str]:
        if self.train.estimator and not (self.image or self.train.estimator.startswith("sklearn.")):
            yield (
                f"train.estimator {self.train.estimator!r} is not in AWS's scikit-learn image: name an image that has "
                "it in `image`"
            )
        if self.image and self.serve.server:
            yield f"serve.server {self.serve.server} is another image than `image`: remove one of the two"
        if self.serve.graviton and self.serve.server == "aws":
            yield (
                f"serve.instance {self.serve.instance} is one of Graviton's (arm64), and AWS's scikit-learn image is "
                "for x86 alone: use an instance like ml.m5.large, or serve.server noria"
            )

    def _alike(self) -> Iterator[str]:
        """Columns that SQL, which takes no notice of case, does not tell apart."""
        roles = [column for column in (self.id, self.time, self.target) if column is not None]
        seen: dict[str, str] = {}
        for column in (*roles, *(name for name in self.features if name not in roles)):
            other = seen.get(column.casefold())
            seen[column.casefold()] = column
            if other is not None:
                yield f"columns {other!r} and {column!r} are one to SQL, which takes no notice of case: rename one"

    def severity(self, rule: str, column: str | None = None) -> Severity:
        """What comes of breaking a rule: what the column says of it, else the contract, else the default."""
        feature = self.features.get(column) if column is not None else None
        for told in (feature.severity if feature else {}, self.contract.severity):
            for named, said in told.items():
                if named == rule:
                    return said
        return "warn" if rule in _MILD else "reject"

    def may_lack(self, feature: str) -> bool:
        """Whether a row without that value can be among those that a model learns from, and so must be answered."""
        return self.features[feature].missing > 0 or self.severity("missing", feature) == "warn"

    @property
    def server(self) -> Literal["noria", "aws"]:
        """Whose contract the serving container keeps: that of Noria's model server, or that of AWS's images."""
        return "aws" if self.image else self.serve.server or "noria"

    @property
    def primary_metric(self) -> Metric:
        """The first gated metric in the task's order, else the task's first."""
        ordered = METRICS[self.task]
        return next((metric for metric in ordered if metric in self.gates.metrics), ordered[0])

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a dataset must have, in the order of the spec."""
        return tuple(c for c in (self.id, self.time, *self.features, self.target) if c is not None)


class SpecError(ValueError):
    """A YAML that is not a model spec; the message names file, line, field, value and remedy, a line each."""


def load(path: Path) -> ModelSpec:
    """Read one model spec, or raise `SpecError` with every problem found in it."""
    try:
        return parse(text_of(path), name=str(path))
    except DocumentError as error:
        raise SpecError(str(error)) from error


def load_all(directory: Path) -> tuple[ModelSpec, ...]:
    """All specs of a directory, by name; two files for one model are refused."""
    specs: dict[str, ModelSpec] = {}
    for path in sorted(directory.glob("*.yaml")):
        spec = load(path)
        if spec.model in specs:
            raise SpecError(f"{path}: model: {spec.model!r} is described by another file already; give it its own name")
        specs[spec.model] = spec
    return tuple(specs[name] for name in sorted(specs))


def parse(text: str, *, name: str) -> ModelSpec:
    try:
        root, document = document_of(text, name=name)
    except DocumentError as error:
        raise SpecError(str(error)) from error
    if not isinstance(document, dict):
        told = f"{document!r:.80}"
        raise SpecError(f"{name}:1: a model spec is a mapping that starts with `model: <name>`, not {told}")
    try:
        return ModelSpec.model_validate(document)
    except ValidationError as error:
        lines = [_explain(name, root, problem) for problem in error.errors()]
        raise SpecError("\n".join(lines)) from error


_REMEDIES = {
    "missing": "add this field",
    "extra_forbidden": "no such field: remove it or correct its name (`noria schema` lists them)",
}

_WRITTEN = {
    "model": "flight-delay",
    "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/flight-delay:1",
    "estimator": "lightgbm.LGBMClassifier",
    "instance": "ml.m5.large",
    "issuer": "https://login.example.com",
    "at": "cron(0 7 ? * MON-FRI *)",
    "schedule": "rate(7 days)",
    "page": "oncall@example.com",
    "notices": "team@example.com",
}
"""Fields whose text has a pattern, each as somebody writes it."""


def _explain(name: str, root: yaml.Node | None, problem: Mapping[str, Any]) -> str:
    location: Sequence[str | int] = problem["loc"]
    line, value = _locate(root, location)
    field = ".".join(str(part) for part in location) or "(whole file)"
    shown = "" if problem["type"] == "missing" or value is None else f" = {value}"
    remedy = _REMEDIES.get(problem["type"], str(problem["msg"]).removeprefix("Value error, "))
    if problem["type"] == "string_pattern_mismatch" and (example := _WRITTEN.get(str(location[-1]))):
        remedy = f"write it as in {example}"
    return f"{name}:{line}: {field}{shown}: {remedy}"


def _locate(node: yaml.Node | None, location: Sequence[str | int]) -> tuple[int, str | None]:
    """Line (from 1) of the deepest node on the way to `location`, and its text where it is a scalar."""
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                return line, None
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line, repr(node.value) if isinstance(node, yaml.ScalarNode) else None
