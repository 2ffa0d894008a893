"""A granted training starts the pipeline, once; whether one is granted is decided by request_retraining.

grant ─ token ─ request.json (once) ─ manifests ─ StartPipelineExecution(token) ─ ledger

Calls: s3:ListBucket on */datasets/*; s3:GetObject on */datasets/*/manifest.json and */trainings/*; s3:PutObject on
*/trainings/*; kms:Decrypt, kms:DescribeKey, kms:Encrypt and kms:GenerateDataKey; sagemaker:DescribeModelPackage on the
model's packages; sagemaker:StartPipelineExecution on its pipeline; dynamodb:GetItem, dynamodb:Query and
dynamodb:PutItem on the ledger.
While the model is paused: s3:PutObject on */held/*.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.pauses import pausable
from noria.aws.pipelines import Pipelines
from noria.aws.registry import Registry
from noria.aws.retries import retried_soon
from noria.aws.storage import Storage
from noria.aws.telemetry import reaction, tell
from noria.deployment import live_package
from noria.events import Retraining, RetrainingRequested, parse
from noria.ledger import Entry, Fact, Kind
from noria.names import key
from noria.retraining import in_words
from noria.spec import ModelSpec
from noria.training import (
    REQUEST,
    Cause,
    Champion,
    TrainingDataset,
    TrainingRequest,
    trained_on,
    training_token,
)
from noria.units import count


class Outcome(StrEnum):
    STARTED = "TrainingStarted"
    KNOWN = "TrainingKnown"


@retried_soon
@reaction
@pausable
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    granted = parse(event, RetrainingRequested).detail
    outcome = start_training(
        spec=env.required_spec(granted.model),
        granted=granted,
        pipeline=env.names.model(granted.model),
        storage=Storage(bucket=env.data_bucket),
        pipelines=Pipelines(),
        registry=Registry(),
        ledger=Ledger(table=env.ledger_table),
        now=datetime.now(UTC),
    )
    tell(outcome, model=granted.model, cause=granted.cause, request=granted.request)


def start_training(
    *,
    spec: ModelSpec,
    granted: Retraining,
    pipeline: str,
    storage: Storage,
    pipelines: Pipelines,
    registry: Registry,
    ledger: Ledger,
    now: datetime,
) -> Outcome:
    """Train on all accepted data, against the package that is live. The same grant again changes nothing.

    Raises LookupError where the ledger knows no such grant, or no dataset is there: nothing trains by another door.
    """
    model, token = spec.model, training_token(spec.model, granted.request)
    if ledger.knows(model, Kind.TRAINING_STARTED, token):
        return Outcome.KNOWN
    if not ledger.knows(model, Kind.RETRAINING_REQUESTED, granted.request):
        raise LookupError(f"{model}: the ledger has no grant {granted.request!r}; ask with noria retrain {model}")
    entries = ledger.entries(model)
    datasets = _datasets(model, entries, storage)
    if not datasets:
        raise LookupError(f"{model}: {granted.request!r} was granted, but no dataset lies under {model}/datasets/")
    cause = Cause(kind=granted.cause, identity=granted.request, text=in_words(granted.cause))
    champion = _champion(live_package(entries), registry, storage)
    request = _write_once(
        TrainingRequest.of(
            model=model,
            cause=cause,
            datasets=datasets,
            champion=champion,
            seen=trained_on(entries, champion.package) if champion else frozenset(),
            now=now,
        ),
        storage,
    )
    execution = pipelines.start(pipeline, token=token, parameters=request.parameters())
    ledger.record(
        Fact(
            model=model,
            kind=Kind.TRAINING_STARTED,
            subject=token,
            at=now,
            summary=f"A training started on {count(len(request.datasets), 'dataset')} "
            f"({sum(d.rows for d in request.datasets):,} rows), because of: {cause.text}.",
            details={
                "execution": execution,
                "cause": cause.kind,
                "dataset": request.dataset_hash,
                "datasets": [dataset.sha256 for dataset in request.datasets],
                "champion": request.champion.package if request.champion else None,
            },
        )
    )
    return Outcome.STARTED


def _datasets(model: str, entries: Sequence[Entry], storage: Storage) -> list[TrainingDataset]:
    """All accepted datasets. A manifest is read only where the ledger does not tell its dataset yet: most are told."""
    told = {entry.subject: entry for entry in entries if entry.kind is Kind.DATASET_ACCEPTED}
    files: dict[str, dict[str, str]] = {}
    for item in storage.list(key(model, "datasets", "")):
        folder, _, name = item.key.rpartition("/")
        files.setdefault(folder.rpartition("/")[2], {})[name.partition(".")[0]] = item.key
    return [
        TrainingDataset.of(told[sha256], there["data"])
        if sha256 in told and "data" in there
        else TrainingDataset.model_validate_json(storage.read(there["manifest"]))
        for sha256, there in files.items()
        if "manifest" in there  # which is written last
    ]


def _champion(package: str | None, registry: Registry, storage: Storage) -> Champion | None:
    if package is None:
        return None
    model_data = registry.describe(package).model_data
    if model_data is None:
        raise ValueError(f"{package} is live but names no model data, so nothing can be compared with it")
    return Champion(package=package, model_key=storage.key_of(model_data))


def _write_once(request: TrainingRequest, storage: Storage) -> TrainingRequest:
    """The request as it is stored: this one, or the one that an earlier delivery of the same cause has written."""
    if not storage.write_once(request.key(REQUEST), request.model_dump_json(indent=1)):
        request = TrainingRequest.model_validate_json(storage.read(request.key(REQUEST)))
    storage.write_once(request.key("datasets.manifest"), request.datasets_manifest(storage.bucket))
    storage.write_once(request.key("champion.manifest"), request.champion_manifest(storage.bucket))
    return request
