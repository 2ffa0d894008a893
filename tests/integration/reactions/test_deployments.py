"""Decisions become deployments of a real stack with a real endpoint; what is live decides what is said of them."""

import json
from collections.abc import Iterator

import boto3
import pytest
import urllib3

from lambdas.confirm_deployment.handler import handler as confirm_deployment
from lambdas.deploy_model.handler import handler as deploy_model
from local.cloud import LocalCloud
from noria.ledger import Kind, verify
from tests.integration.reactions.place import Place
from tests.integration.reactions.served import BROKEN, SLOW, Served


@pytest.fixture(params=["failure", "success"])
def ending(cloud: LocalCloud, request: pytest.FixtureRequest) -> Iterator[str]:
    """What a stack reports when SageMaker rolls back: nobody documents it, so the local cloud plays both."""
    set_ending(cloud, request.param)
    yield request.param
    set_ending(cloud, "failure")  # as it begins


def set_ending(cloud: LocalCloud, ending: str) -> None:
    url, body = f"{cloud.endpoint}/_noria/settings", json.dumps({"rollback_reports": ending})
    assert urllib3.PoolManager(ca_certs=str(cloud.certificate)).request("PUT", url, body=body).status == 200


@pytest.fixture
def served(place: Place, everything: None) -> Served:
    return Served(place, place.model().model).create()


def test_an_approved_package_goes_live_and_each_event_twice_changes_nothing(served: Served) -> None:
    one = served.register()
    approval = served.approve(one)
    served.place.deliver(deploy_model, approval)
    served.confirm()
    served.confirm()
    served.place.deliver(deploy_model, approval)
    assert served.kinds() == [Kind.PACKAGE_APPROVED, Kind.DEPLOYMENT_REQUESTED, Kind.DEPLOYED]
    assert served.answers() == "1"
    assert served.outcome(one) == "live"
    (event,) = served.place.events(served.model, "Model Deployed")
    assert (event["package"], event["live"]) == (one, one)
    assert served.place.told(served.model) == []
    assert (served.wanted(), served.parameters["Note"]) == (one, "kept")
    assert verify(served.place.entries(served.model)) == []


def test_a_deployment_that_is_still_under_way_is_not_settled(served: Served) -> None:
    served.approve(served.register(SLOW))
    stack = boto3.client("cloudformation").describe_stacks(StackName=served.stack_name)["Stacks"][0]
    assert stack["StackStatus"].endswith("_IN_PROGRESS")
    detail = {"EndpointName": served.name, "EndpointStatus": "CREATING"}
    served.place.deliver(
        confirm_deployment, served.place.event("aws.sagemaker", "SageMaker Endpoint State Change", detail)
    )
    assert Kind.DEPLOYED not in served.kinds()
    served.confirm()
    assert served.kinds()[-1] is Kind.DEPLOYED


def test_marking_a_package_deploys_nothing(served: Served) -> None:
    event = served.decide(served.register(), "Approved")
    event["detail"]["UpdatedModelPackageFields"] = ["CustomerMetadataProperties"]
    served.place.deliver(deploy_model, event)
    assert served.kinds() == []


def test_a_rollback_is_told_remembered_and_undone_in_the_stack(served: Served, ending: str) -> None:
    one, two = served.register(), served.register()
    served.approve(one)
    served.confirm()
    served.alarm("ALARM")
    served.approve(two)
    assert served.stack()["StackStatus"] == ("UPDATE_COMPLETE" if ending == "success" else "UPDATE_ROLLBACK_COMPLETE")
    served.alarm("OK")
    served.confirm()
    served.confirm()
    assert served.wanted() == one
    assert served.answers() == "1"
    assert served.outcome(two) == "rolled-back"
    restored = [Kind.SERVING_RESTORED] if ending == "success" else []
    assert served.kinds()[3:] == [Kind.PACKAGE_APPROVED, Kind.DEPLOYMENT_REQUESTED, Kind.ROLLED_BACK, *restored]
    (event,) = served.place.events(served.model, "Model Rolled Back")
    assert (event["package"], event["live"]) == (two, one)
    (page,) = served.place.pages(served.model)
    assert two.rsplit(":", 1)[-1] in page

    served.approve(two)
    assert served.kinds()[-2:] == [Kind.PACKAGE_APPROVED, Kind.DEPLOYMENT_REFUSED]
    assert served.wanted() == one


def test_the_first_package_that_cannot_start_has_failed_and_may_be_tried_again(served: Served) -> None:
    one = served.register(BROKEN)
    served.approve(one)
    served.confirm()
    assert served.kinds()[-1] is Kind.DEPLOYMENT_FAILED
    assert served.outcome(one) == "failed"
    assert served.wanted() == "none"
    (page,) = served.place.pages(served.model)
    assert "could not be deployed; nothing answers" in page
    served.approve(one)
    assert served.kinds()[-1] is Kind.DEPLOYMENT_REQUESTED


def test_what_is_asked_while_the_stack_is_busy_begins_when_it_is_free_and_the_newest_wins(served: Served) -> None:
    one, two, three = served.register(SLOW), served.register(), served.register()
    for package in (one, two, three):
        served.approve(package)
    assert served.wanted() == one
    served.confirm()
    assert served.wanted() == three
    served.confirm()
    deployed = served.place.entries(served.model, Kind.DEPLOYED, Kind.DEPLOYMENT_SUPERSEDED)
    assert [(e.kind, e.details["package"]) for e in deployed] == [
        (Kind.DEPLOYMENT_SUPERSEDED, two),
        (Kind.DEPLOYED, one),
        (Kind.DEPLOYED, three),
    ]
    assert served.answers() == "3"


def test_a_stack_that_was_busy_for_another_reason_is_used_when_it_is_free(served: Served) -> None:
    event = served.decide(served.register(SLOW), "Approved")
    boto3.client("cloudformation").update_stack(
        StackName=served.stack_name,
        UsePreviousTemplate=True,
        Parameters=[
            {"ParameterKey": "ModelPackageArn", "ParameterValue": event["detail"]["ModelPackageArn"]},
            {"ParameterKey": "Note", "ParameterValue": "by hand"},
        ],
    )
    served.place.deliver(deploy_model, event)
    assert served.kinds()[-1] is Kind.DEPLOYMENT_WAITING
    served.place.deliver(deploy_model, served.settled())
    (told,) = served.place.waiting("confirm-deployment")
    served.place.deliver(confirm_deployment, told)
    assert served.kinds()[-1] is Kind.DEPLOYED


def test_a_rejected_package_that_is_live_gives_way_to_its_predecessor(served: Served) -> None:
    one, two = served.register(), served.register()
    for package in (one, two):
        served.approve(package)
        served.confirm()
    served.place.deliver(deploy_model, served.decide(two, "Rejected", "customers complain"))
    served.confirm()
    assert served.kinds()[-3:] == [Kind.PACKAGE_REJECTED, Kind.DEPLOYMENT_REQUESTED, Kind.DEPLOYED]
    assert served.wanted() == one
    assert served.answers() == "1"


def test_a_rejected_package_without_predecessor_stays_and_somebody_is_told(served: Served) -> None:
    one = served.register()
    served.approve(one)
    served.confirm()
    rejection = served.decide(one, "Rejected")
    for _ in range(2):
        served.place.deliver(deploy_model, rejection)
    assert served.kinds()[-1] is Kind.PACKAGE_REJECTED
    (page,) = served.place.pages(served.model)
    assert "was rejected but stays live" in page
    assert served.answers() == "1"


def test_a_rejected_package_that_is_not_live_is_only_recorded(served: Served) -> None:
    served.place.deliver(deploy_model, served.decide(served.register(), "Rejected"))
    assert served.kinds() == [Kind.PACKAGE_REJECTED]


def test_what_old_deployments_left_behind_is_removed_but_for_the_predecessors(served: Served) -> None:
    configs: list[str] = []
    for _ in range(3):
        served.approve(served.register())
        served.confirm()
        configs.append(served.place.sagemaker.describe_endpoint(EndpointName=served.name)["EndpointConfigName"])
    listed = served.place.sagemaker.list_endpoint_configs(MaxResults=100)["EndpointConfigs"]
    assert {c["EndpointConfigName"] for c in listed} & set(configs) == set(configs[1:])


def test_a_model_for_batches_leaves_its_predecessors_model_only(place: Place, everything: None) -> None:
    served = Served(place, place.model(serve={"mode": "batch"}).model).create_for_batches()
    packages = [served.register() for _ in range(3)]
    models: list[str] = []
    for package in packages:
        served.approve(package)
        served.confirm()
        recorded = place.entries(served.model, Kind.DEPLOYED)[-1].details["models"]
        assert isinstance(recorded, list)
        models += recorded
    left = [m["ModelName"] for m in place.sagemaker.list_models(MaxResults=100)["Models"]]
    assert [model in left for model in models] == [False, True, True]


def test_other_stacks_and_endpoints_are_none_of_its_business(place: Place) -> None:
    detail = {"EndpointName": "somebody-else", "EndpointStatus": "IN_SERVICE"}
    place.deliver(confirm_deployment, place.event("aws.sagemaker", "SageMaker Endpoint State Change", detail))
    stack = {"stack-id": "arn:aws:cloudformation:eu-west-1:1:stack/other/1", "status-details": {"status": "X"}}
    place.deliver(deploy_model, place.event("aws.cloudformation", "CloudFormation Stack Status Change", stack))


def test_an_approval_that_is_heard_after_a_later_one_does_not_take_over(served: Served) -> None:
    early = served.decide(served.register(), "Approved")
    two = served.register()
    served.approve(two)
    served.confirm()
    served.place.deliver(deploy_model, early)
    served.place.deliver(deploy_model, early)
    assert served.wanted() == two
    assert served.answers() == "2"
    assert served.kinds()[-2:] == [Kind.PACKAGE_APPROVED, Kind.DEPLOYMENT_SUPERSEDED]


def test_an_approval_that_is_told_again_after_a_later_one_changes_nothing(served: Served) -> None:
    early = served.approve(served.register())
    served.confirm()
    two = served.register()
    served.approve(two)
    served.confirm()
    before = served.kinds()
    served.place.deliver(deploy_model, early)
    assert served.kinds() == before
    assert served.wanted() == two
