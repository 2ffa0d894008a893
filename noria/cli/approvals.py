"""What `noria approve` and `noria reject` do: decide in the registry, or in mode strict ask the function that may."""

import json

import boto3
import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from pydantic import BaseModel

from noria.approval import Answer
from noria.aws.registry import Decision
from noria.cli.output import Refused
from noria.cli.state import Deployed


class Decided(BaseModel):
    """`because` says in mode strict who has approved so far."""

    package: str
    decision: str
    reason: str
    because: str = ""


def decide(deployed: Deployed, reference: str, decision: Decision, reason: str) -> Decided:
    """Approve or reject a package. Raises `Refused` where the rule of its model does not let it."""
    if not reason.strip():
        raise Refused("Give a reason: whoever reads the ledger in a year will ask for it.")
    arn = deployed.package_arn(reference)
    if decision == "Approved" and (url := _strict(deployed, arn)):
        answer = _ask(url, arn, reason)
        state = decision if answer.approved else "PendingManualApproval"
        return Decided(package=arn, decision=state, reason=reason, because=answer.because)
    if deployed.registry.describe(arn).approval == decision:
        # Only a change is sure to be told as a decision.
        deployed.registry.decide(arn, "PendingManualApproval", reason=reason)
    deployed.registry.decide(arn, decision, reason=reason)
    return Decided(package=arn, decision=decision, reason=reason)


def _strict(deployed: Deployed, package: str) -> str | None:
    """Where versions of that model are approved; None where the registry is the place."""
    model = deployed.names.model_of(package.split("/")[-2])
    try:
        name = deployed.names.approvals(model or "")
        return boto3.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise
        return None


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
