"""Each version's model card in SageMaker says what is known of it now.

package, training, deployment changed ─ record of each version that it is about ─ card: created, updated, or known

A card follows from the record alone, so events may come twice and in any order. Whatever is written is read anew
afterwards: a slower function with an older record cannot have the last word.

Calls: sagemaker:DescribeModelPackage on the model's packages; s3:GetObject on */baselines/*, */datasets/*, */runs/* and
*/trainings/*; s3:ListBucket; sagemaker:DescribeModelCard, sagemaker:CreateModelCard, sagemaker:UpdateModelCard and
sagemaker:AddTags on its cards; kms:Decrypt, kms:DescribeKey and kms:GenerateDataKey; dynamodb:Query on the ledger.
"""

from collections.abc import Sequence
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError

from noria.aws.cards import Cards, Written
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.record import Records
from noria.aws.retries import retried_soon
from noria.aws.storage import Storage
from noria.aws.telemetry import follow, reaction, tell
from noria.card.sagemaker import STATUS, content, name
from noria.deployment import Desired
from noria.events import ModelDeployed, ModelPackageStateChange, ModelRolledBack, TrainingEnded, parse
from noria.ledger import Entry, Kind, correlation_of

ATTEMPTS = 5
"""How often a record may change while its card is written."""


class CardBusyError(RuntimeError):
    """The record changed each time; the message comes again."""


class CardEnvironment(Environment):
    key_arn: str


@retried_soon
@reaction
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = CardEnvironment.from_os()
    said = parse(event, ModelPackageStateChange, TrainingEnded, ModelDeployed, ModelRolledBack)
    ledger = Ledger(table=env.ledger_table)
    if isinstance(said, ModelPackageStateChange):
        model, packages = env.names.model_of(said.detail.group), [said.detail.package]
        follow(correlation_of(ledger.entries(model), said.detail.package) if model else None)
    elif isinstance(said, TrainingEnded):
        model, packages = said.detail.model, [said.detail.package] if said.detail.package else []
    else:
        model = said.detail.model
        packages = concerned(ledger.entries(model), said.detail.deployment)
    records = Records(names=env.names, storage=Storage(bucket=env.data_bucket), ledger=ledger)
    for package in packages:
        written = write_card(package=package, records=records, cards=Cards(), key=env.key_arn)
        tell(written, model=model or "none", package=package)


def write_card(*, package: str, records: Records, cards: Cards, key: str) -> Written:
    """Have the card of a package say what is known of it. Raises `CardBusyError`."""
    first: Written | None = None
    for _ in range(ATTEMPTS):
        try:
            record = records.of(package)
        except ClientError as error:
            # SageMaker has no code of its own for packages that do not exist: this one was deleted since.
            if error.response["Error"]["Code"] == "ValidationException":
                return Written.SAME
            raise
        written = cards.write(
            name(records.names.model(record.model), record.package.version),
            content(record).text,
            STATUS[record.standing],
            tags={"noria:env": records.names.env, "noria:model": record.model},
            key=key,
        )
        if written is Written.SAME:
            return first or written
        first = first or written
    raise CardBusyError(f"{package}: its record changed {ATTEMPTS} times while its card was written")


def concerned(entries: Sequence[Entry], deployment: str) -> list[str]:
    """The packages that a deployment was about, and those that answered before it, in one order."""
    of_it = [entry for entry in entries if entry.subject == deployment]
    live = [e for e in entries if e.kind in {Kind.DEPLOYED, Kind.SERVING_DIFFERS}]
    before = [e for e in live if e.subject != deployment and (not of_it or e.number < of_it[-1].number)][-1:]
    packages: dict[str, None] = {}
    for entry in (*of_it, *before):
        desired = Desired.of(entry.details)
        blamed = entry.details.get("blamed")
        for package in (desired.package, desired.challenger, desired.shadow, blamed):
            if package:
                packages[str(package)] = None
    return list(packages)
