"""Each training is a run in MLflow, whatever came of it. Deployed where `tracking` is set (stacks/settings.py).

training ended ─ request, spec, training, evaluation of its execution ─ run: parameters, metrics, inputs, artifacts

A run is found by its execution, so the same event again changes nothing, and a run that was only begun is ended.

Calls: sagemaker-mlflow:GetExperimentByName, sagemaker-mlflow:CreateExperiment, sagemaker-mlflow:GetExperiment,
sagemaker-mlflow:SearchRuns, sagemaker-mlflow:CreateRun, sagemaker-mlflow:GetRun, sagemaker-mlflow:LogBatch,
sagemaker-mlflow:LogInputs and sagemaker-mlflow:UpdateRun on the tracking server; s3:GetObject on */baselines/*,
*/runs/* and */trainings/*; s3:PutObject on */tracking/*; s3:ListBucket; sagemaker:DescribeModelPackage on the model's
packages; kms:Decrypt, kms:DescribeKey and kms:GenerateDataKey; dynamodb:Query and dynamodb:PutItem on the ledger.
"""

import os
from datetime import UTC, datetime
from typing import Any

# MLflow looks for git and writes beside what it is run in, where a function has neither.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from aws_lambda_powertools.utilities.typing import LambdaContext
from mlflow import MlflowClient

from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.record import Records
from noria.aws.retries import retried_soon
from noria.aws.storage import Storage
from noria.aws.telemetry import reaction, tell
from noria.aws.tracking import Tracked, Tracking
from noria.events import Training, TrainingEnded, parse
from noria.names import key
from noria.tracking import run


class TrackingEnvironment(Environment):
    tracking_uri: str


class TrackingBusyError(RuntimeError):
    """Another delivery of this event is at it; this one comes again, and finds what that one left."""


@retried_soon
@reaction
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = TrackingEnvironment.from_os()
    ended = parse(event, TrainingEnded).detail
    ledger = Ledger(table=env.ledger_table)
    written = track_training(
        ended=ended,
        experiment=env.names.model(ended.model),
        records=Records(names=env.names, storage=Storage(bucket=env.data_bucket), ledger=ledger),
        ledger=ledger,
        tracking=Tracking(client=MlflowClient(tracking_uri=env.tracking_uri)),
        now=datetime.now(UTC),
    )
    tell(written, model=ended.model, execution=ended.execution)


def track_training(
    *, ended: Training, experiment: str, records: Records, ledger: Ledger, tracking: Tracking, now: datetime
) -> Tracked:
    """Two deliveries at once would begin two runs: MLflow has no conditional write, the ledger's table has."""
    with ledger.claim(ended.model, f"tracking#{ended.execution}", now=now) as mine:
        if not mine:
            raise TrackingBusyError(f"{ended.execution} is being tracked by another delivery")
        attempt = records.attempt(ended.model, ended.execution, outcome=ended.outcome, package=ended.package)
        bucket = records.storage.bucket
        told = run(attempt, experiment=experiment, bucket=bucket, ended=round(now.timestamp() * 1000))
        return tracking.write(told, artifacts=records.storage.uri(key(ended.model, "tracking", "runs")))
