"""What a serverless endpoint's container prints of requests and answers becomes data-capture files.

log lines ─ those that are captures ─ a file for each hour, named after its lines: the same ones again change nothing

CloudWatch Logs calls the function itself, without a rule and a queue before it; what it could not do goes into its
queue and comes again from there.

Calls: s3:PutObject on */captured/*; kms:Decrypt, kms:DescribeKey, kms:Encrypt and kms:GenerateDataKey; sqs:SendMessage
on its own queue, by Lambda.
"""

from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.aws.endpoints import CHAMPION
from noria.aws.environment import Environment
from noria.aws.retries import retried_soon
from noria.aws.storage import Storage
from noria.aws.telemetry import reaction, tell
from noria.logged import LogBatch, capture_files, parse_batch
from noria.names import key


class Outcome(StrEnum):
    KEPT = "PredictionsKept"
    NOTHING = "NothingCaptured"
    OTHER = "OtherEndpoint"


@retried_soon
@reaction
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    batch = parse_batch(event)
    model = env.names.model_of(batch.endpoint)
    if model is None or env.spec(model) is None:
        tell(Outcome.OTHER, model="none", group=batch.group)
        return
    outcome, lines = keep_predictions(batch=batch, model=model, storage=Storage(bucket=env.data_bucket))
    tell(outcome, model=model, stream=batch.stream, captured=lines, lines=len(batch.events))


def keep_predictions(*, batch: LogBatch, model: str, storage: Storage) -> tuple[Outcome, int]:
    """Write the files of one batch, and say how many captures are in them. A serverless endpoint has one variant."""
    files = capture_files(batch)
    for file in files:
        storage.write_once(
            key(model, "captured", f"{batch.endpoint}/{CHAMPION}/{file.name}"),
            file.text,
            content_type="application/jsonlines",
        )
    return (Outcome.KEPT if files else Outcome.NOTHING), sum(len(file.lines) for file in files)
