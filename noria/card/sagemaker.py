"""A record as SageMaker's own model card: content by its JSON schema, a name and a status.

The schema is SageMaker's, version 0.1.0, written down from the guide's "model card JSON schema"
(https://docs.aws.amazon.com/sagemaker/latest/dg/model-cards.html) and the resource type AWS::SageMaker::ModelCard:
only the parts that Noria fills, each as narrow as there. A card of a package, beside the version's own in the registry,
because that one may change only while nobody has decided, and what is told here goes on.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from noria.card.facts import between, card, limits, masked, primary
from noria.evaluation import Estimate
from noria.record import Record, Standing
from noria.report.numbers import figure, moment
from noria.spec import Metric
from noria.units import count

Status = Literal["Draft", "PendingReview", "Approved", "Archived"]

STATUS: Mapping[Standing, Status] = {
    "live": "Approved",
    "approved": "Approved",
    "rolled back": "Approved",  # as in the registry, so that it can be gone back to; the card says that it was
    "pending": "PendingReview",
    "rejected": "Draft",  # and not archived, after which a card should not change: a rejected version can be approved
    "retired": "Archived",
}

LARGEST = 100_000
"""Characters of a card's content: CreateModelCard."""

_SEGMENT_VALUES, _GROUPS = 50, 20

Text63 = Annotated[str, Field(max_length=63)]
Text256 = Annotated[str, Field(max_length=256)]
Text1024 = Annotated[str, Field(max_length=1024)]
Text2048 = Annotated[str, Field(max_length=2048)]
Name63 = Annotated[str, Field(min_length=1, max_length=63)]
Name255 = Annotated[str, Field(min_length=1, max_length=255)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InferenceEnvironment(Part):
    container_image: list[Text1024] | None = Field(None, max_length=15)


class ModelOverview(Part):
    model_description: Text1024 | None = None
    model_id: Text1024 | None = None
    model_name: Text1024 | None = None
    model_version: float | None = Field(None, ge=1)
    problem_type: str | None = None
    algorithm_type: Text1024 | None = None
    model_creator: Text1024 | None = None
    model_owner: Text1024 | None = None
    model_artifact: list[Text1024] | None = Field(None, max_length=15)
    inference_environment: InferenceEnvironment | None = None


class IntendedUses(Part):
    purpose_of_model: Text2048 | None = None
    intended_uses: Text2048 | None = None
    factors_affecting_model_efficiency: Text2048 | None = None
    risk_rating: Literal["High", "Medium", "Low", "Unknown"] | None = None
    explanations_for_risk_rating: Text2048 | None = None


class BusinessDetails(Part):
    business_problem: Text2048 | None = None
    business_stakeholders: Text2048 | None = None
    line_of_business: Text2048 | None = None


class Function(Part):
    function: Literal["Maximize", "Minimize"] | None = None
    facet: Text63 | None = None
    condition: Text63 | None = None


class ObjectiveFunction(Part):
    function: Function | None = None
    notes: Text1024 | None = None


class TrainingMetric(Part):
    name: Name255
    notes: Text1024 | None = None
    value: float


class HyperParameter(Part):
    name: Name255
    value: Name255


class TrainingEnvironment(Part):
    container_image: list[Text1024] | None = Field(None, max_length=15)


class TrainingJobDetails(Part):
    training_arn: Text1024 | None = None
    training_datasets: list[Text1024] | None = Field(None, max_length=15)
    training_environment: TrainingEnvironment | None = None
    training_metrics: list[TrainingMetric] | None = Field(None, max_length=50)
    user_provided_training_metrics: list[TrainingMetric] | None = Field(None, max_length=50)
    hyper_parameters: list[HyperParameter] | None = Field(None, max_length=100)
    user_provided_hyper_parameters: list[HyperParameter] | None = Field(None, max_length=100)


class TrainingDetails(Part):
    objective_function: ObjectiveFunction | None = None
    training_observations: Text1024 | None = None
    training_job_details: TrainingJobDetails | None = None


class SimpleMetric(Part):
    name: Name255
    notes: Text1024 | None = None
    type: Literal["number", "string", "boolean"]
    value: float | Text63 | bool
    x_axis_name: Text63 | None = None
    y_axis_name: Text63 | None = None


class BarChart(Part):
    name: Name255
    notes: Text1024 | None = None
    type: Literal["bar_chart"]
    value: list[float] = Field(min_length=1)
    x_axis_name: list[Text63] | None = None
    y_axis_name: Text63 | None = None


class LinearGraph(Part):
    name: Name255
    notes: Text1024 | None = None
    type: Literal["linear_graph"]
    value: list[tuple[float, float]] = Field(min_length=1)
    x_axis_name: Text63 | None = None
    y_axis_name: Text63 | None = None


class Matrix(Part):
    name: Name255
    notes: Text1024 | None = None
    type: Literal["matrix"]
    value: list[Annotated[list[float], Field(min_length=1, max_length=20)]] = Field(min_length=1, max_length=20)
    x_axis_name: list[Text63] | None = None
    y_axis_name: list[Text63] | None = None


class MetricGroup(Part):
    name: Name63
    metric_data: list[SimpleMetric | BarChart | LinearGraph | Matrix]


class EvaluationDetail(Part):
    name: Name63
    evaluation_observation: Annotated[str, Field(max_length=2096)] | None = None
    evaluation_job_arn: Text256 | None = None
    datasets: list[Text1024] | None = Field(None, max_length=10)
    metadata: dict[str, Text1024] | None = None
    metric_groups: list[MetricGroup] = Field(default_factory=list)


class AdditionalInformation(Part):
    ethical_considerations: Text2048 | None = None
    caveats_and_recommendations: Text2048 | None = None
    custom_details: dict[str, Text1024] | None = None


class Content(Part):
    model_overview: ModelOverview | None = None
    intended_uses: IntendedUses | None = None
    business_details: BusinessDetails | None = None
    training_details: TrainingDetails | None = None
    evaluation_details: list[EvaluationDetail] | None = None
    additional_information: AdditionalInformation | None = None

    @property
    def text(self) -> str:
        """As SageMaker takes it; the same content is the same text."""
        return self.model_dump_json(exclude_none=True)


def name(group: str, version: int) -> str:
    """Of a package's card: at most 63 letters, digits and hyphens. `group` is the package's."""
    return f"{group}-{version}"


def content(record: Record) -> Content:
    """A pure function: the same record gives the same content. What has no room is cut, and ends in an ellipsis."""
    record = masked(record)
    made = Content(
        model_overview=_overview(record),
        intended_uses=_uses(record),
        business_details=BusinessDetails(business_stakeholders=record.spec.owner.team) if record.spec else None,
        training_details=_training(record),
        evaluation_details=list(_evaluations(record)) or None,
        additional_information=_additional(record),
    )
    while len(made.text) > LARGEST and made.evaluation_details and made.evaluation_details[0].metric_groups:
        # Segments come last: what speaks of all rows stays.
        (first, *others) = made.evaluation_details
        fewer = first.model_copy(update={"metric_groups": first.metric_groups[:-1]})
        made = made.model_copy(update={"evaluation_details": [fewer, *others]})
    return made


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 2]} …"


def _overview(record: Record) -> ModelOverview:
    package, spec, training = record.package, record.spec, record.training
    told = card(record)
    return ModelOverview(
        model_description=_cut(f"{told.said} {told.more}", 1024),
        model_id=package.arn,
        model_name=record.model,
        model_version=package.version,
        problem_type=spec.task.value if spec else None,
        algorithm_type=training.estimator if training else None,
        model_creator=_cut(package.author, 1024) if package.author else None,
        model_owner=spec.owner.team if spec else None,
        model_artifact=[package.model_data] if package.model_data else None,
        inference_environment=InferenceEnvironment(container_image=[package.image]) if package.image else None,
    )


def _uses(record: Record) -> IntendedUses | None:
    spec = record.spec
    if spec is None:
        return None
    return IntendedUses(
        purpose_of_model=spec.purpose,
        intended_uses=f"To predict {spec.target} ({spec.task.value.replace('_', ' ')}) "
        f"from {count(len(spec.features), 'feature')}.",
        factors_affecting_model_efficiency=_cut(" ".join(limits(record)), 2048) or None,
        risk_rating=_RISKS[spec.approval.risk.value],
    )


_RISKS: Mapping[str, Literal["High", "Medium", "Low"]] = {"high": "High", "medium": "Medium", "low": "Low"}


def _training(record: Record) -> TrainingDetails:
    evaluation, training, metric = record.evaluation, record.training, primary(record)
    datasets = [f"{dataset.told.key} ({dataset.told.sha256})" for dataset in record.datasets]
    observed = None
    if evaluation:
        rows = evaluation.trained_on
        observed = (
            f"{count(rows.rows, 'row')} from {moment(rows.first_event)} to {moment(rows.last_event)}, of "
            f"{count(len(datasets), 'dataset')}."
        )
    best: Function | None = None
    if metric:
        best = Function(function="Maximize" if metric.higher_is_better else "Minimize", condition=metric.value)
    given = training.hyperparameters if training else {}
    return TrainingDetails(
        objective_function=ObjectiveFunction(function=best, notes="What its gates judge first.") if best else None,
        training_observations=observed,
        training_job_details=TrainingJobDetails(
            training_arn=record.execution,
            training_datasets=[_cut(dataset, 1024) for dataset in datasets[-15:]] or None,
            user_provided_hyper_parameters=[
                HyperParameter(name=_cut(name, 255), value=_cut(str(value), 255) or "(empty)")
                for name, value in sorted(given.items())[:100]
            ],
        ),
    )


def _evaluations(record: Record) -> Iterator[EvaluationDetail]:
    evaluation = record.evaluation
    if evaluation is None:
        return
    held = evaluation.slice
    yield EvaluationDetail(
        name="Newer rows than those of the training",
        evaluation_observation=_cut(
            "It passed every gate." if evaluation.gate.passed else "; ".join(evaluation.gate.reasons), 2096
        ),
        metadata={
            "rows": str(held.rows),
            "first_event": moment(held.first_event),
            "last_event": moment(held.last_event),
            "evaluation": record.package.metadata.get("noria:evaluation", "not known"),
        },
        metric_groups=[group for group in _groups(record) if group.metric_data][:_GROUPS],
    )


def _groups(record: Record) -> Iterator[MetricGroup]:
    evaluation = record.evaluation
    if evaluation is None:
        return
    quality = [_number(metric.value, found, _better(metric)) for metric, found in evaluation.metrics.items()]
    quality.append(SimpleMetric(name="latency_p95_ms", type="number", value=evaluation.latency_p95_ms))
    if found := evaluation.calibration:
        quality.append(SimpleMetric(name="calibration_error", type="number", value=found.error))
    yield MetricGroup(name="Quality", metric_data=[*quality])
    if rival := evaluation.champion:
        margins = [_number(m.value, e, f"better than {rival.package}") for m, e in rival.margins.items()]
        yield MetricGroup(name="Better than the champion by", metric_data=[*margins])
    if found := evaluation.calibration:
        points = [(each.predicted, each.happened) for each in found.bins if each.rows]
        if points:
            graph = LinearGraph(
                name="reliability", type="linear_graph", value=points, x_axis_name="said", y_axis_name="happened"
            )
            yield MetricGroup(name="Calibration", metric_data=[graph])
    if record.attribution and record.attribution.weights:
        heaviest = sorted(record.attribution.weights.items(), key=lambda each: (-each[1].share, each[0]))[:20]
        chart = BarChart(
            name="share of the mean absolute Shapley values",
            type="bar_chart",
            value=[weight.share for _, weight in heaviest],
            x_axis_name=[_cut(feature, 63) for feature, _ in heaviest],
        )
        yield MetricGroup(name="What predictions rest on", metric_data=[chart])
    for segment, fairness in evaluation.fairness.items():
        measures = {
            "disparate_impact": fairness.disparate_impact,
            "equal_opportunity_difference": fairness.equal_opportunity,
            "equalized_odds_difference": fairness.equalized_odds,
        }
        told = [_number(name, found) for name, found in measures.items() if found]
        yield MetricGroup(name=_cut(f"Bias by {segment}", 63), metric_data=[*told])
    for segment, scores in evaluation.segments.items():
        frequent = sorted(scores.items(), key=lambda each: (-each[1].rows, each[0]))[:_SEGMENT_VALUES]
        found_of = [
            SimpleMetric(
                name=_cut(f"{metric.value}, {value}", 255), notes=f"{score.rows:,} rows", type="number", value=found
            )
            for value, score in frequent
            for metric, found in score.metrics.items()
        ]
        yield MetricGroup(name=_cut(f"Quality by {segment}", 63), metric_data=[*found_of])


def _number(named: str, of: Estimate, notes: str = "") -> SimpleMetric:
    told = f"95% interval {between(of)}{f'; {notes}' if notes else ''}"
    return SimpleMetric(name=named, notes=_cut(told, 1024), type="number", value=of.value)


def _better(metric: Metric) -> str:
    return "higher is better" if metric.higher_is_better else "lower is better"


def _additional(record: Record) -> AdditionalInformation:
    """The chain from this version to where it came from, and the newest that was said and done."""
    details: dict[str, Any] = {
        "package": record.package.arn,
        "registry": record.package.approval,
        "execution": record.execution,
        "code": record.code,
        "datasets": record.dataset_hash,
        "training": record.request.token if record.request else None,
        "cause": record.request.cause.text if record.request else None,
        "champion_then": record.champion,
        "served_file": record.golden.bundle if record.golden else None,
        "bundle_bytes": record.package.bytes,
    }
    for place, entry in enumerate(record.decisions[-10:], start=1):
        details[f"decision_{place}"] = f"{moment(entry.at)}: {entry.summary}"
    for place, entry in enumerate(record.deployments[-10:], start=1):
        details[f"deployment_{place}"] = f"{moment(entry.at)}: {entry.summary}"
    for place, (part, why) in enumerate(sorted(record.unknown.items())[:20], start=1):
        details[f"unknown_{place}"] = f"{part}: {why}"
    spec = record.spec
    return AdditionalInformation(
        ethical_considerations=_cut(" ".join(_unequal(record)), 2048) or None,
        caveats_and_recommendations=_cut(" ".join(spec.limits), 2048) or None if spec else None,
        custom_details={term: _cut(str(value), 1024) for term, value in details.items() if value is not None},
    )


def _unequal(record: Record) -> Iterator[str]:
    for segment, fairness in (record.evaluation.fairness if record.evaluation else {}).items():
        if fairness.disparate_impact:
            yield (
                f"The least selected value of {segment} is selected {figure(fairness.disparate_impact.value)} times as "
                f"often as the most selected ({between(fairness.disparate_impact)})."
            )
