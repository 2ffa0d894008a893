"""What failed is tried again: calls within seconds, messages later each time, and hopeless ones soon given up."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.stub import Stubber
from pydantic import BaseModel, ValidationError

from noria.aws.queues import Queues
from noria.aws.retries import PATIENCE, hopeless, patiently
from noria.patience import ATTEMPTS, wait


def test_waits_grow_are_spread_over_their_second_half_and_end_with_none() -> None:
    assert [(wait(n, chance=0), wait(n, chance=1)) for n in range(1, ATTEMPTS + 1)] == [
        (30, 60),
        (120, 240),
        (480, 960),
        (1920, 3840),
        (0, 0),
    ]
    assert len({wait(4) for _ in range(20)}) > 1


def test_what_waiting_does_not_mend_is_among_the_dead_letters_within_half_a_minute() -> None:
    assert sum(wait(n, hopeless=True, chance=1) for n in range(1, ATTEMPTS + 1)) == 30


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": ""}}, "PutObject")


def malformed() -> ValidationError:
    class Door(BaseModel):
        name: str

    with pytest.raises(ValidationError) as raised:
        Door.model_validate({})
    return raised.value


@pytest.mark.parametrize(
    ("error", "given_up"),
    [
        (refused("AccessDenied"), True),
        (refused("KMS.AccessDeniedException"), True),
        (refused("AuthorizationError"), True),
        (malformed(), True),
        (FileExistsError("something else lies there"), True),
        (refused("ThrottlingException"), False),
        (refused("InternalServerError"), False),
        (refused("ValidationException"), False),  # SageMaker's word for an endpoint that is just being updated
        (ReadTimeoutError(endpoint_url="https://s3"), False),
        (LookupError("not yet"), False),
    ],
)
def test_only_what_somebody_must_change_is_hopeless(error: Exception, given_up: bool) -> None:
    assert hopeless(error) is given_up


ANYWHERE: Any = {"region_name": "eu-west-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}


@pytest.fixture(name="patient")
def a_patient_session() -> Iterator[None]:
    patiently()
    yield
    boto3.setup_default_session()


@pytest.mark.usefixtures("patient")
def test_a_process_makes_each_client_once() -> None:
    made = boto3.client("s3", **ANYWHERE)
    assert boto3.client("s3", **ANYWHERE) is made
    assert boto3.client("s3", **ANYWHERE | {"region_name": "eu-central-1"}) is not made
    patiently()
    assert boto3.client("s3", **ANYWHERE) is not made


@pytest.mark.usefixtures("patient")
def test_every_client_has_our_patience_but_for_what_it_says_itself() -> None:
    config: Any = boto3.client("s3", **ANYWHERE).meta.config
    expected: Any = PATIENCE
    assert config.retries == expected.retries
    assert (config.read_timeout, config.connect_timeout) == (expected.read_timeout, expected.connect_timeout)
    own: Any = boto3.client("s3", **ANYWHERE, config=Config(read_timeout=1)).meta.config
    assert (own.read_timeout, own.connect_timeout) == (1, expected.connect_timeout)


def test_a_message_is_shown_again_after_so_many_seconds() -> None:
    client = boto3.client("sqs", **ANYWHERE)
    with Stubber(client) as aws:
        aws.add_response("get_queue_url", {"QueueUrl": "https://queue"}, {"QueueName": "noria-dev-validate-upload"})
        aws.add_response(
            "change_message_visibility",
            {},
            {"QueueUrl": "https://queue", "ReceiptHandle": "r", "VisibilityTimeout": 7},
        )
        Queues(client=client).show_again(
            {"receiptHandle": "r", "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:noria-dev-validate-upload"},
            after=7,
        )
        aws.assert_no_pending_responses()
