"""What came of a training goes to the ledger and to people: a package to approve, or why there is none.

Calls: sagemaker:ListPipelineExecutionSteps and sagemaker:DescribePipelineExecution on the model's pipeline;
sagemaker:DescribeTrainingJob and sagemaker:DescribeProcessingJob on its jobs; sagemaker:DescribeModelPackage on its
packages; events:PutEvents; s3:GetObject on */runs/*; s3:ListBucket; kms:Decrypt, kms:DescribeKey,
kms:Encrypt and kms:GenerateDataKey; sns:Publish; dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria import review
from noria.aws.bus import Bus
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.pages import Matter, Page, Pages
from noria.aws.pipelines import FINISHED, Pipelines, Step
from noria.aws.registry import Registry
from noria.aws.retries import retried_soon
from noria.aws.storage import Storage
from noria.aws.telemetry import follow, reaction, tell
from noria.evaluation import Evaluation
from noria.events import PipelineExecutionStatusChange, Training, TrainingEnded, parse
from noria.ledger import Fact, Kind, correlation_of
from noria.names import key
from noria.spec import ModelSpec

REFUSED_BY = "Refuse"
"""The pipeline's step that ends it when the gate does not let a candidate pass."""


class Outcome(StrEnum):
    SUCCEEDED = "TrainingSucceeded"
    REFUSED = "CandidateRefused"
    FAILED = "TrainingFailed"
    RUNNING = "TrainingRunning"


@retried_soon
@reaction
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    change = parse(event, PipelineExecutionStatusChange).detail
    model = env.names.model_of(change.pipeline)
    if model is None:
        raise LookupError(f"pipeline {change.pipeline!r} is none of {env.names.prefix}'s")
    outcome = record_training(
        spec=env.required_spec(model),
        execution=change.execution_arn,
        status=change.status,
        storage=Storage(bucket=env.data_bucket),
        pipelines=Pipelines(),
        registry=Registry(),
        ledger=Ledger(table=env.ledger_table),
        pages=Pages(topics=env.topics),
        bus=Bus(name=env.event_bus),
        now=datetime.now(UTC),
    )
    tell(outcome, model=model, execution=change.execution_arn)


def record_training(
    *,
    spec: ModelSpec,
    execution: str,
    status: str,
    storage: Storage,
    pipelines: Pipelines,
    registry: Registry,
    ledger: Ledger,
    pages: Pages,
    bus: Bus,
    now: datetime,
) -> Outcome:
    if status not in FINISHED:
        return Outcome.RUNNING
    follow(correlation_of(ledger.entries(spec.model), execution))
    steps = pipelines.steps(execution)
    if status == "Succeeded":
        outcome, fact, page = _success(spec, execution, steps, storage=storage, registry=registry, now=now)
    else:
        outcome, fact, page = _failure(spec, execution, status, steps, storage=storage, pipelines=pipelines, now=now)
    if not ledger.knows(fact.model, fact.kind, fact.subject):
        hours = {"hours": round(pipelines.instance_hours(steps), 4)}
        pages.send(page)
        ledger.record(fact.model_copy(update={"details": fact.details | hours}))
    # After the ledger, because whoever hears it decides on what the ledger says.
    bus.publish(TrainingEnded.of(_ended(spec, execution, outcome, fact)))
    return outcome


def _ended(spec: ModelSpec, execution: str, outcome: Outcome, fact: Fact) -> Training:
    package = fact.details.get("package")
    return Training.model_validate(
        {
            "model": spec.model,
            "execution": execution,
            "outcome": {Outcome.SUCCEEDED: "succeeded", Outcome.REFUSED: "refused"}.get(outcome, "failed"),
            "package": package,
        }
    )


def _success(
    spec: ModelSpec, execution: str, steps: list[Step], *, storage: Storage, registry: Registry, now: datetime
) -> tuple[Outcome, Fact, Page]:
    arn = next((step.package for step in steps if step.package), None)
    if arn is None:
        raise LookupError(f"{execution} succeeded but no step of it registered a package")
    package = registry.describe(arn)
    evaluation = Evaluation.model_validate_json(storage.read(storage.key_of(package.metadata["noria:evaluation"])))
    metric = spec.primary_metric
    mine = evaluation.metrics.get(metric)
    champion = evaluation.champion.metrics.get(metric) if evaluation.champion else None
    what = review.headline(spec, package.version, evaluation)
    awaits = "It awaits approval." if not spec.approval.automatic else "It is approved by that."
    fact = Fact(
        model=spec.model,
        kind=Kind.TRAINING_SUCCEEDED,
        subject=execution,
        at=now,
        summary=f"{what} {awaits}",
        details={
            "package": arn,
            "version": package.version,
            "metric": metric.value,
            "value": mine.value if mine else None,
            "champion": champion.value if champion else None,
        },
    )
    page = review.request(
        spec, arn, package.version, evaluation, report=package.metadata["noria:evaluation"], now=package.created
    )
    return Outcome.SUCCEEDED, fact, page


def _failure(
    spec: ModelSpec,
    execution: str,
    status: str,
    steps: list[Step],
    *,
    storage: Storage,
    pipelines: Pipelines,
    now: datetime,
) -> tuple[Outcome, Fact, Page]:
    failed = next((step for step in steps if step.status == "Failed"), None)
    evaluation = _evaluation(spec, execution, storage)
    refused = failed is not None and failed.name == REFUSED_BY
    look = f"aws sagemaker list-pipeline-execution-steps --pipeline-execution-arn {execution}"
    command = f"noria retrain {spec.model} --reason '…'"
    if refused and evaluation:
        reasons = list(evaluation.gate.reasons)
        what = f"The candidate did not pass the gates of {spec.model}: {'; '.join(reasons)}."
        do = "Nothing has to be done: what is live stays live. Look at the data and the gates before training again."
        command = look
    elif status == "Stopped":
        reasons = ["it was stopped"]
        what = f"A training of {spec.model} was stopped before it ended."
        do = "Nothing, if that was meant. Otherwise ask for another training."
    else:
        said = (failed.failure if failed else None) or pipelines.failure(execution) or "SageMaker gives no reason"
        reasons = [f"step {failed.name}: {said}" if failed else said]
        what = f"A training of {spec.model} failed at {reasons[0]}"
        # Not for a retry of the execution: what has an outcome is over, and another training could run beside it.
        do = f"Read the step's log ({look}), mend the cause, then ask for another training."
    fact = Fact(
        model=spec.model,
        kind=Kind.TRAINING_FAILED,
        subject=execution,
        at=now,
        summary=what,
        details={"status": status, "step": failed.name if failed else None, "refused": refused, "reasons": reasons},
    )
    page = Page(
        matter=Matter.CANDIDATE_REFUSED if refused else Matter.TRAINING_FAILED,
        subject=f"{spec.model}: {'candidate refused' if refused else f'training {status.lower()}'}",
        what=what,
        where=execution,
        do=do,
        command=command,
    )
    return Outcome.REFUSED if refused else Outcome.FAILED, fact, page


def _evaluation(spec: ModelSpec, execution: str, storage: Storage) -> Evaluation | None:
    run = key(spec.model, "runs", f"{execution.rsplit('/', 1)[-1]}/evaluation/evaluation.json")
    return Evaluation.model_validate_json(storage.read(run)) if storage.exists(run) else None
