"""A version is approved by the rule of its spec: by enough people who did not make it, or by its gates.

noria approve ─ HTTP API, which proves who asks ─┐
Training Ended, where the rule asks nobody ──────┼─ noria/approval.py ─ ledger ─ the registry's Approved
Look At Package, from the reconciler ────────────┘   or a page: it expired, or is too old

In mode strict the package group's policy denies every other principal to approve. deploy_model reads the same ledger.

Calls: sagemaker:DescribeModelPackage and sagemaker:UpdateModelPackage on the model's packages; s3:GetObject on */runs/*
and s3:ListBucket, for what their model data is now; kms:Decrypt, kms:DescribeKey, kms:Encrypt and kms:GenerateDataKey;
dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger; sns:Publish.
While the model is paused: s3:PutObject on */held/*.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from noria.approval import (
    APPROVED,
    ASKED_AGAIN,
    AUTOMATIC,
    PENDING,
    Answer,
    Candidate,
    Refusal,
    approve,
    expired,
    judge,
    told_by_time,
)
from noria.aws.approvals import Approvals
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.pages import Pages
from noria.aws.pauses import pausable
from noria.aws.registry import DESCRIPTION, Registry
from noria.aws.retries import retried_soon
from noria.aws.storage import Storage
from noria.aws.telemetry import follow, logger, reaction, tell
from noria.events import Tick, TrainingEnded, parse
from noria.http import HttpRequest
from noria.ledger import correlation_of
from noria.spec import ModelSpec


class Outcome(StrEnum):
    APPROVED = "PackageApproved"
    GIVEN = "ApprovalGiven"  # more are asked for
    REFUSED = "ApprovalRefused"
    NOT_ASKED = "ApprovalNotAsked"  # people approve this model's versions
    TOLD = "PackageTold"  # that it expired, or is too old
    NOTHING = "PackageUnchanged"


class Asked(BaseModel):
    """What a person asks: their approval of a version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str = Field(pattern=r"^arn:[\w-]+:sagemaker:[\w-]+:\d{12}:model-package/[\w-]+/\d+$")
    reason: str = Field(pattern=r"\S", max_length=900)


@dataclass(frozen=True, kw_only=True)
class Approver:
    """Approves packages of one environment."""

    approvals: Approvals
    ledger: Ledger
    pages: Pages
    now: datetime

    def approve(self, spec: ModelSpec, group: str, package: str, *, by: str, reason: str) -> Answer:
        """Record an approval, and let it count once there are enough. Raises `Refusal`."""
        candidate = self._candidate(group, package)
        entries = self.ledger.entries(spec.model)
        follow(correlation_of(entries, package))
        for fact in approve(spec, entries, candidate, by=by, reason=reason, now=self.now):
            self.ledger.record(fact)
        return self._complete(spec, candidate, f"{reason.rstrip('.')} ({by})")

    def look(self, spec: ModelSpec, group: str, package: str) -> Outcome:
        """Do what time brings: a version that waits expires, one that answers grows old.

        And approvals count even where whoever recorded the last of them died before they did.
        """
        candidate = self._candidate(group, package)
        entries = self.ledger.entries(spec.model)
        follow(correlation_of(entries, package))
        if due := told_by_time(spec, entries, candidate, self.now):
            fact, page = due
            with self.ledger.claim(spec.model, fact.meaning, now=self.now) as ours:
                if ours and not self.ledger.knows(spec.model, fact.kind, fact.subject):
                    self.pages.send(page)
                    self.ledger.record(fact)
            return Outcome.TOLD
        if candidate.approval != PENDING or expired(spec, entries, candidate, self.now):
            return Outcome.NOTHING
        done = self._complete(spec, candidate, "the approvals that it needs were given")
        return Outcome.APPROVED if done.approved else Outcome.NOTHING

    def _complete(self, spec: ModelSpec, candidate: Candidate, reason: str) -> Answer:
        # Read anew: of two approvals at the same moment, the later one sees both.
        ruling = judge(spec, self.ledger.entries(spec.model), candidate)
        if ruling.approved:
            registry = self.approvals.registry
            if candidate.approval == APPROVED:
                registry.decide(candidate.package, PENDING, reason=ASKED_AGAIN)  # only a change is told as a decision
            registry.decide(candidate.package, APPROVED, reason=reason[:DESCRIPTION])
        return Answer.of(candidate.package, ruling)

    def _candidate(self, group: str, package: str) -> Candidate:
        found = self.approvals.registry.find(group, package)
        if found is None:
            raise Refusal(f"there is no package {package}")
        return self.approvals.candidate(found)


@retried_soon
@reaction
@pausable
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any] | None:
    env = Environment.from_os()
    approver = Approver(
        approvals=Approvals(registry=Registry(), storage=Storage(bucket=env.data_bucket)),
        ledger=Ledger(table=env.ledger_table),
        pages=Pages(topics=env.topics),
        now=datetime.now(UTC),
    )
    if "requestContext" in event:
        return answer(HttpRequest.parse(event), env=env, approver=approver)
    told = parse(event, TrainingEnded, Tick)
    model = told.model if isinstance(told, Tick) else told.detail.model
    package = told.detail.package
    tell(react(told, env.required_spec(model), package, env.names.model(model), approver), model=model, package=package)
    return None


def react(told: TrainingEnded | Tick, spec: ModelSpec, package: str | None, group: str, approver: Approver) -> Outcome:
    """What nobody asks for in person."""
    if package is None or (isinstance(told, TrainingEnded) and not spec.approval.automatic):
        return Outcome.NOT_ASKED
    if isinstance(told, Tick):
        return approver.look(spec, group, package)
    try:
        done = approver.approve(spec, group, package, by=AUTOMATIC, reason="it passed its gates")
    except Refusal as refusal:
        logger.info("not approved", package=package, because=str(refusal))
        return Outcome.REFUSED
    return Outcome.APPROVED if done.approved else Outcome.GIVEN


def answer(request: HttpRequest, *, env: Environment, approver: Approver) -> dict[str, Any]:
    """The response to one request, in API Gateway's payload format 2.0."""
    try:
        asked = Asked.model_validate_json(request.content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        tell(Outcome.REFUSED, model="none", because=problems)
        return _problem(400, f"the request is not understood: {problems}")
    group = asked.package.split("/")[-2]
    model = env.names.model_of(group)
    # IAM looks at the path: it, and not the body, says of which model who asks may approve versions.
    spec = env.spec(model) if model and (request.path_parameters or {}).get("model") == model else None
    by = request.signer
    if spec is None or not by:
        because = f"no model of this path has the package group {group}" if by else "IAM names nobody who asks"
        tell(Outcome.REFUSED, model="none", because=because)
        return _problem(404 if by else 403, because)
    try:
        done = approver.approve(spec, group, asked.package, by=by, reason=asked.reason)
    except Refusal as refusal:
        tell(Outcome.REFUSED, model=spec.model, package=asked.package, by=by, because=str(refusal))
        return _problem(409, str(refusal))
    tell(Outcome.APPROVED if done.approved else Outcome.GIVEN, model=spec.model, package=asked.package, by=by)
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": done.model_dump_json()}


def _problem(status: int, detail: str) -> dict[str, Any]:
    body = {"type": "about:blank", "status": status, "detail": detail}
    headers = {"content-type": "application/problem+json"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body)}
