"""What `noria approve` and `noria reject` do: decide in the registry, or in mode strict ask the function that may."""

import json
from datetime import datetime

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from pydantic import BaseModel

from noria.approval import APPROVED, PENDING, Answer
from noria.aws.account import parameter
from noria.aws.registry import Decision
from noria.cli.output import Refused, require_reason, told
from noria.cli.state import Deployed, became_champion
from noria.deployment import live, taken_back, turned_off, wanted

DENIED = "AccessDeniedException"


class Decided(BaseModel):
    """`because` says in mode strict who has approved so far; `live`, since when it answers: then nothing was done."""

    model: str
    package: str
    decision: str
    reason: str
    because: str = ""
    live: datetime | None = None
    waits: str | None = None

    @property
    def text(self) -> str:
        if self.live:
            return f"{self.package} is live already, since {self.live:%Y-%m-%d %H:%M:%S} UTC: nothing was changed."
        because = f" ({self.because})" if self.because else ""
        recorded = f"Your approval of {self.package} is recorded, and it waits for more"
        return told(
            f"{recorded if self.decision == PENDING else f'{self.decision} {self.package}'}: {self.reason}{because}",
            f"Follow it with: noria events {self.model}",
            self.waits,
        )


def decide(deployed: Deployed, reference: str, decision: Decision, reason: str) -> Decided:
    """Approve or reject a package. Raises `Refused` where the rule of its model does not let it.

    Who may not see where versions are approved goes to the registry, as in mode open: its policy denies it in strict.
    """
    require_reason(reason)
    arn = deployed.package_arn(reference)
    model = deployed.names.model_of(arn.split("/")[-2]) or ""
    decided = Decided(model=model, package=arn, decision=decision, reason=reason)
    if decision == "Approved" and (since := _live_since(deployed, model, arn)):
        return decided.model_copy(update={"live": since})
    place = deployed.names.approvals(model)
    url, hidden = _strict(place) if decision == "Approved" else (None, False)
    waits = _waits(deployed, model) if decision == "Approved" else None
    if url:
        answer = _ask(url, arn, reason)
        outcome = {"waits": waits} if answer.approved else {"decision": PENDING}
        return decided.model_copy(update={**outcome, "because": answer.because})
    try:
        if deployed.registry.describe(arn).approval == decision:
            if hidden:
                # In mode strict this is denied, before anything is taken back.
                deployed.registry.decide(arn, decision, reason=reason)
            # Only a change is sure to be told as a decision.
            deployed.registry.decide(arn, PENDING, reason=reason)
        deployed.registry.decide(arn, decision, reason=reason)
    except ClientError as error:
        if hidden and error.response["Error"]["Code"] == DENIED:
            raise Refused(
                f"{error}\nIf its model is in mode strict, versions are approved where the parameter {place} says, "
                "which you may not read: ask for ssm:GetParameter on it, as approvers have it."
            ) from error
        raise
    return decided.model_copy(update={"waits": waits})


def _waits(deployed: Deployed, model: str) -> str | None:
    if turned_off(deployed.ledger.entries(model)):
        return f"{model} is off by its hours: it goes live when they begin (noria status {model})."
    return deployed.waits(model, "it goes live")


def _live_since(deployed: Deployed, model: str, package: str) -> datetime | None:
    """Since when an approved version answers, where an approval would change nothing; None where it would."""
    entries = deployed.ledger.entries(model)
    now, then = live(entries), wanted(entries)
    if not now or not then or {now.package, then.package} != {package} or taken_back(entries, package):
        return None
    if deployed.registry.describe(package).approval != APPROVED:
        return None
    champion = became_champion(entries, package)
    return champion.at if champion else None


def _strict(place: str) -> tuple[str | None, bool]:
    """Where versions are approved by what that parameter says, if it is there; and whether it is not to be read."""
    try:
        return parameter(place), False
    except ClientError as error:
        if error.response["Error"]["Code"] != DENIED:
            raise
        return None, True


def _ask(url: str, package: str, reason: str) -> Answer:
    session = botocore.session.get_session()
    credentials = session.get_credentials()
    if credentials is None:
        raise Refused("There are no AWS credentials: who approves must be known.")
    body = json.dumps({"package": package, "reason": reason})
    request = AWSRequest("POST", url, data=body, headers={"content-type": "application/json"})
    SigV4Auth(credentials, "execute-api", session.get_config_variable("region")).add_auth(request)
    answer = URLLib3Session(verify=session.get_config_variable("ca_bundle") or True).send(request.prepare())
    if answer.status_code == 200:
        return Answer.model_validate_json(answer.content)
    try:
        told = json.loads(answer.content)
    except ValueError:
        told = {}
    raise Refused(str(told.get("detail") or told.get("message") or f"{url} answered {answer.status_code}"))
