"""A message that a handler failed on is hidden for minutes, and longer each time."""

import boto3
import pytest
from botocore.stub import Stubber

from noria.aws.queues import Queues


@pytest.mark.parametrize(("received", "seconds"), [(1, 60), (2, 240), (3, 960), (4, 3840), (9, 43200)])
def test_a_message_is_shown_again_after_a_wait_that_grows(received: int, seconds: int) -> None:
    client = boto3.client("sqs", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as aws:
        aws.add_response("get_queue_url", {"QueueUrl": "https://queue"}, {"QueueName": "noria-dev-validate-upload"})
        aws.add_response(
            "change_message_visibility",
            {},
            {"QueueUrl": "https://queue", "ReceiptHandle": "r", "VisibilityTimeout": seconds},
        )
        Queues(client=client).retry(
            {
                "receiptHandle": "r",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:noria-dev-validate-upload",
                "attributes": {"ApproximateReceiveCount": str(received)},
            }
        )
        aws.assert_no_pending_responses()
