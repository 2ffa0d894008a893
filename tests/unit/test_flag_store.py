"""Which flags a rollback brings back: AppConfig's answers are stubbed, since none of its clocks can be turned."""

from collections.abc import Sequence
from datetime import UTC, datetime

import boto3
from botocore.stub import Stubber

from noria.aws.flags import FlagStore

PLACE = {"ApplicationId": "abcd123", "EnvironmentId": "env1234"}


def test_going_back_twice_goes_back_further_and_never_to_the_flags_that_were_left() -> None:
    """The first way back was too late for a revert, so version 2 was deployed anew: before it are the bad flags."""
    stubbed, flags = store([(4, 2), (3, 3), (2, 2), (1, 1)])
    deploys(stubbed, version=1, number=5, reason="further")
    assert flags.roll_back(reason="further").version == 1
    stubbed.assert_no_pending_responses()


def test_what_came_just_before_is_brought_back_by_a_revert() -> None:
    stubbed, flags = store([(3, 3), (2, 2), (1, 1)])
    stubbed.add_response("stop_deployment", {}, PLACE | {"DeploymentNumber": 3, "AllowRevert": True})
    stubbed.add_response("get_deployment", deployment(3, 3, "REVERTED"), PLACE | {"DeploymentNumber": 3})
    assert flags.roll_back(reason="bad").state == "REVERTED"


def test_what_is_too_old_to_be_reverted_is_deployed_anew() -> None:
    stubbed, flags = store([(3, 3), (2, 2), (1, 1)])
    stubbed.add_client_error("stop_deployment", "BadRequestException", "more than 72 hours ago")
    deploys(stubbed, version=2, number=4, reason="bad")
    assert flags.roll_back(reason="bad").version == 2


def store(deployments: Sequence[tuple[int, int]]) -> tuple[Stubber, FlagStore]:
    """Of completed deployments: number and version, newest first."""
    client = boto3.client("appconfig", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    stubbed = Stubber(client)
    items = [deployment(number, version, "COMPLETE") for number, version in deployments]
    stubbed.add_response("list_deployments", {"Items": items}, PLACE)
    stubbed.activate()
    return stubbed, FlagStore(
        application="abcd123",
        environment="env1234",
        profile="prof123",
        gradual="slow123",
        at_once="fast123",
        client=client,
    )


def deploys(stubbed: Stubber, *, version: int, number: int, reason: str) -> None:
    described = {"ConfigurationProfileId": "prof123", "DeploymentStrategyId": "fast123"}
    asked = PLACE | described | {"ConfigurationVersion": str(version), "Description": reason}
    stubbed.add_response("start_deployment", deployment(number, version, "DEPLOYING"), asked)
    stubbed.add_response(
        "get_deployment", deployment(number, version, "DEPLOYING"), PLACE | {"DeploymentNumber": number}
    )


def deployment(number: int, version: int, state: str) -> dict[str, object]:
    started = datetime(2026, 1, number, tzinfo=UTC)
    return {
        "DeploymentNumber": number,
        "ConfigurationVersion": str(version),
        "State": state,
        "PercentageComplete": 100.0,
        "StartedAt": started,
    }
