"""Who may let a version go live, and that nobody else does; and a model that is to answer nobody any more."""

import json
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lambdas.approve_package.handler import handler as approve_package
from lambdas.deploy_model.handler import handler as deploy_model
from local.cloud import ACCOUNT
from noria.ledger import Kind
from tests.integration.reactions.place import Context, Place
from tests.integration.reactions.served import SCRIPT, Served
from tests.integration.test_local_endpoints import archive

ANA, BEN, ROOT = f"arn:aws:iam::{ACCOUNT}:user/ana", f"arn:aws:iam::{ACCOUNT}:user/ben", f"arn:aws:iam::{ACCOUNT}:root"

Make = Callable[..., Served]


@pytest.fixture
def make(place: Place, everything: None) -> Make:
    return lambda **approval: Served(place, place.model(approval=approval).model).create()


def asks(
    by: str,
    package: str,
    reason: str = "looked at it",
    path: str | None = None,
    authorizer: dict[str, Any] | None = None,
) -> tuple[int, dict[str, Any]]:
    """What the function answers to a person, as API Gateway hands it on. Shape: `tests/unit/test_front_door.py`."""
    event = {
        "version": "2.0",
        "routeKey": "POST /approvals/{model}",
        "pathParameters": {"model": path or package.split("/")[-2].removeprefix("noria-local-")},
        "headers": {"content-type": "application/json"},
        "requestContext": {
            "authorizer": {"iam": {"userArn": by, "accountId": ACCOUNT}} if authorizer is None else authorizer,
            "domainName": "api",
            "requestId": "r",
        },
        "body": json.dumps({"package": package, "reason": reason}),
        "isBase64Encoded": False,
    }
    answer = approve_package(event, Context())
    assert answer
    return answer["statusCode"], json.loads(answer["body"])


def word(served: Served, package: str) -> str:
    status: str = served.place.sagemaker.describe_model_package(ModelPackageName=package)["ModelApprovalStatus"]
    return status


def replace(served: Served, package: str) -> None:
    """Put another model where a package has its own."""
    data = served.place.sagemaker.describe_model_package(ModelPackageName=package)["InferenceSpecification"]
    key = data["Containers"][0]["ModelDataUrl"].split("/", 3)[3]
    served.place.put(key, archive({"version": "9", "code/inference.py": SCRIPT}))


def hears(served: Served, package: str) -> dict[str, Any]:
    """deploy_model hears that a package is approved; returns the event."""
    described = served.place.sagemaker.describe_model_package(ModelPackageName=package)
    detail = {
        "ModelPackageGroupName": served.name,
        "ModelPackageArn": package,
        "ModelApprovalStatus": "Approved",
        "UpdatedModelPackageFields": ["ModelApprovalStatus", "ApprovalDescription"],
        "LastModifiedTime": described["LastModifiedTime"].isoformat(),
    }
    event = served.place.event("aws.sagemaker", "SageMaker Model Package State Change", detail)
    served.place.deliver(deploy_model, event)
    return event


def test_two_people_who_did_not_make_a_version_let_it_go_live_and_the_record_names_both(make: Make) -> None:
    served = make(mode="strict", approvers=2)
    package = served.register()
    assert asks(ROOT, package)[0] == 409, "who registered it does not approve it"
    assert asks(ANA, package, reason=" ")[0] == 400
    assert asks(ANA, package, path="another-model")[0] == 404, "IAM let her ask about another model alone"
    for _ in range(2):
        status, told = asks(ANA, package)
        assert (status, told["approved"], told["because"]) == (200, False, "1 of 2 approved")
    assert word(served, package) == "PendingManualApproval"
    assert asks(BEN, package)[1]["approved"] is True
    assert word(served, package) == "Approved"
    hears(served, package)
    served.confirm()
    assert served.answers() == "1"
    kinds = [Kind.APPROVAL_GIVEN, Kind.APPROVAL_GIVEN, Kind.PACKAGE_APPROVED, Kind.DEPLOYMENT_REQUESTED, Kind.DEPLOYED]
    assert served.kinds() == kinds
    (approved,) = served.place.entries(served.model, Kind.PACKAGE_APPROVED)
    assert approved.details["approver"] == f"{ANA}, {BEN}"
    assert served.place.told(served.model) == []


def test_who_asks_is_whom_iam_names_and_nobody_else(make: Make) -> None:
    served = make(mode="strict")
    package = served.register()
    claims = {"jwt": {"claims": {"sub": BEN}}}
    for authorizer in ({}, claims, {"iam": {"userArn": BEN}}, {"iam": {"userArn": BEN, "accountId": "210987654321"}}):
        assert asks(ANA, package, authorizer=authorizer)[0] == 403
    assert served.kinds() == []


def test_what_another_hand_approves_is_put_back_recorded_and_paged_once(make: Make) -> None:
    served = make(mode="strict")
    package = served.register()
    event = served.approve(package)  # as root, whom no policy holds back here
    assert word(served, package) == "PendingManualApproval"
    served.place.sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    served.place.deliver(deploy_model, event)
    assert word(served, package) == "PendingManualApproval"
    assert served.kinds() == [Kind.APPROVAL_VOIDED]
    assert served.wanted() == "none"
    (page,) = served.place.notices(served.model)
    assert ROOT in page
    assert "0 of 1 approved" in page


@pytest.mark.parametrize("mode", ["open", "strict"])
def test_an_approval_is_void_once_something_else_lies_where_the_model_was(make: Make, mode: str) -> None:
    served = make(mode=mode)
    one = served.register()
    if mode == "strict":
        assert asks(ANA, one)[1]["approved"] is True
        event = hears(served, one)
    else:
        event = served.approve(one)
    served.confirm()
    replace(served, one)
    event["detail"]["UpdatedModelPackageFields"] = ["InferenceSpecification"]
    for _ in range(2):
        served.place.deliver(deploy_model, event)
    assert word(served, one) == "PendingManualApproval"
    assert served.kinds()[-1] is Kind.APPROVAL_VOIDED
    (page,) = served.place.pages(served.model)
    assert "it was changed" in page
    assert "It answers" in page


@pytest.mark.parametrize("mode", ["open", "strict"])
def test_what_waited_its_turn_is_looked_at_again_before_it_begins(make: Make, mode: str) -> None:
    served = make(mode=mode)
    one, two = served.register(), served.register()
    for package in (one, two):
        if mode == "strict":
            assert asks(ANA, package)[1]["approved"] is True
            hears(served, package)
        else:
            served.approve(package)
    assert Kind.DEPLOYMENT_WAITING in served.kinds(), "the stack is busy with the first"
    replace(served, two)
    served.confirm()
    assert word(served, two) == "PendingManualApproval"
    assert [kind for kind in served.kinds() if kind in {Kind.APPROVAL_VOIDED, Kind.DEPLOYMENT_SUPERSEDED}] == [
        Kind.APPROVAL_VOIDED,
        Kind.DEPLOYMENT_SUPERSEDED,
    ]
    assert served.wanted() == one
    assert served.answers() == "1"
    assert sum("it was changed" in page for page in served.place.told(served.model)) == 1


def test_in_mode_open_too_nobody_approves_another_file_than_was_registered(make: Make) -> None:
    served = make()
    package = served.register()
    time.sleep(1)  # S3 tells times to the second
    replace(served, package)
    served.approve(package)
    assert word(served, package) == "PendingManualApproval"
    assert served.wanted() == "none"
    (page,) = served.place.notices(served.model)
    assert "its model file was replaced" in page


def test_a_retired_model_has_no_endpoint_keeps_its_record_and_comes_back_with_an_approval(make: Make) -> None:
    served = make()
    one = served.register()
    served.approve(one)
    served.confirm()
    served.ask("retire")
    served.confirm()
    served.confirm()
    assert served.wanted() == "none"
    with pytest.raises(ClientError, match="Could not find endpoint"):
        boto3.client("sagemaker").describe_endpoint(EndpointName=served.name)
    assert served.kinds()[-3:] == [Kind.MODEL_RETIRED, Kind.DEPLOYMENT_REQUESTED, Kind.DEPLOYED]
    assert served.place.told(served.model) == []
    served.approve(one)
    served.confirm()
    assert served.answers() == "1"
