"""What is approved in the environment with the registry is registered here too, and approved if that is enough here.

approved there ─ rule ─ this environment's bus ─ its objects are copied ─ package ─ approved, or waits for people here

Where the spec's approval is strict, people approve it here once more. A rejection there takes back nothing that is live
here: `noria rollback` does. Where something else than the original lies under a key, nothing is imported: who put it
there before the package would otherwise decide what is served (noria.approval knows of later files alone).

Calls: sagemaker:DescribeModelPackage on the registry's packages and its own; sagemaker:CreateModelPackage and
sagemaker:UpdateModelPackage on its own; s3:GetObject on the registry's */runs/* and */baselines/*, and on its own, with
s3:PutObject; kms:Decrypt and kms:DescribeKey with the registry's key; kms:Encrypt and kms:GenerateDataKey;
dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
While the model is paused: s3:PutObject on */held/*.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import Field

from noria.approval import decisions
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.pauses import pausable
from noria.aws.registry import DESCRIPTION, Registry
from noria.aws.retries import retried_soon
from noria.aws.storage import Storage
from noria.aws.telemetry import reaction, tell
from noria.events import ModelPackageStateChange, parse
from noria.ledger import Fact, Kind
from noria.names import Names, version
from noria.promotion import Place, copy, token
from noria.spec import ModelSpec


class PromotionEnvironment(Environment):
    """Which environment has the registry, and where it is."""

    registry_env: str = Field(min_length=1)
    registry_account: str = Field(pattern=r"^\d{12}$")
    registry_bucket: str = Field(min_length=1)


class Outcome(StrEnum):
    IMPORTED = "PackageImported"
    KNOWN = "PackageKnown"
    NOT_APPROVED = "PackageNotApproved"  # any more
    OTHER = "OtherResource"


@retried_soon
@reaction
@pausable
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = PromotionEnvironment.from_os()
    change = parse(event, ModelPackageStateChange)
    model = Names(env=env.registry_env).model_of(change.detail.group)
    spec = env.spec(model) if model else None
    if spec is None:
        tell(Outcome.OTHER, model="none")
        return
    outcome = import_package(
        origin=change.detail.package,
        spec=spec,
        group=env.names.model(spec.model),
        there=Place(account=env.registry_account, bucket=env.registry_bucket),
        here=Place(account=env.account, bucket=env.data_bucket),
        registry=Registry(),
        storage=Storage(bucket=env.data_bucket),
        ledger=Ledger(table=env.ledger_table),
        now=datetime.now(UTC),
    )
    tell(outcome, model=spec.model, origin=change.detail.package)


def import_package(
    *,
    origin: str,
    spec: ModelSpec,
    group: str,
    there: Place,
    here: Place,
    registry: Registry,
    storage: Storage,
    ledger: Ledger,
    now: datetime,
) -> Outcome:
    """Each step is done again after a crash, and comes to the same: copies, the registration, the record, the word."""
    approved = registry.describe(origin)
    # What counts is what the registry says now, not what the event said when it was sent.
    if approved.approval != "Approved":
        return Outcome.NOT_APPROVED
    entries = ledger.entries(spec.model)
    known = next((e for e in entries if e.kind is Kind.PACKAGE_IMPORTED and e.subject == origin), None)
    if known:
        package = str(known.details["package"])
    else:
        promoted = copy(approved.described, model=spec.model, origin=there, here=here)
        for key in promoted.objects:
            # Once: a file that is newer than its package counts as replaced (noria.approval).
            storage.bring(key, source=there.bucket)
        package = registry.register(group, promoted.registration, token=token(origin))
        ledger.record(
            Fact(
                model=spec.model,
                kind=Kind.PACKAGE_IMPORTED,
                subject=origin,
                at=now,
                summary=f"{version(origin).capitalize()} of account {there.account} was approved there, "
                f"and is {version(package)} here.",
                details={"package": package, "account": there.account, "approved_by": approved.decided_by},
            )
        )
    # What was decided here once, and waits again, waits for people here.
    undecided = not decisions(entries, package) and registry.describe(package).approval == "PendingManualApproval"
    if undecided and not spec.approval.strict:
        # Asked again: to copy takes a while, and whoever put it back there meanwhile would not be heard here.
        if registry.describe(origin).approval != "Approved":
            return Outcome.NOT_APPROVED
        who = f" by {approved.decided_by}" if approved.decided_by else ""
        reason = f"Approved in account {there.account}{who}: {approved.reason or 'no reason given'}"
        registry.decide(package, "Approved", reason=reason[:DESCRIPTION])
    return Outcome.KNOWN if known else Outcome.IMPORTED
