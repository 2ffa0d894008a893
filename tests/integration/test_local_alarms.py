"""Composite alarms in a template, as CloudFormation makes, changes and removes them; one cause tells once."""

import json
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.cloud import LocalCloud
from tests.integration.test_local_endpoints import World, eventually

PORT = 4731
STACK = "alarms"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=PORT, time_scale=60) as cloud:
        yield World(cloud)


def template(*children: str) -> str:
    alarms: dict[str, Any] = {
        name: {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "AlarmName": name.lower(),
                "Namespace": "Test",
                "MetricName": name,
                "Statistic": "Sum",
                "Period": 60,
                "EvaluationPeriods": 1,
                "Threshold": 1,
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                "TreatMissingData": "ignore",  # so that a drill lasts
            },
        }
        for name in children
    }
    rule = [part for name in children for part in (' OR ALARM("', {"Fn::GetAtt": [name, "Arn"]}, '")')]
    composite = {
        "Type": "AWS::CloudWatch::CompositeAlarm",
        "Properties": {
            "AlarmName": "cause",
            "AlarmDescription": "one cause",
            "AlarmRule": {"Fn::Join": ["", ["FALSE", *rule]]},
            "AlarmActions": [{"Ref": "Topic"}],
        },
    }
    people = [{"Protocol": "email", "Endpoint": "oncall@example.com"}]
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "told", "Subscription": people}}
    outputs = {"Arn": {"Value": {"Fn::GetAtt": ["Cause", "Arn"]}}, "Topic": {"Value": {"Ref": "Topic"}}}
    return json.dumps({"Resources": {**alarms, "Cause": composite, "Topic": topic}, "Outputs": outputs})


def state(world: World, name: str) -> str:
    found = world.client("cloudwatch").describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    ((alarm),) = found["MetricAlarms"] + found["CompositeAlarms"]
    return str(alarm["StateValue"])


def alarms(world: World) -> list[str]:
    found = world.client("cloudwatch").describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    return [alarm["AlarmName"] for alarm in found["MetricAlarms"] + found["CompositeAlarms"]]


def settled(world: World) -> str | None:
    """The status of the stack when nothing moves any more; fails when it could not be made as asked."""
    cloudformation = world.client("cloudformation")
    (stack,) = cloudformation.describe_stacks(StackName=STACK)["Stacks"]
    status = str(stack["StackStatus"])
    failed = [
        event.get("ResourceStatusReason")
        for event in cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]
        if event["ResourceStatus"].endswith("_FAILED")
    ]
    assert not failed, failed
    return None if status.endswith("_IN_PROGRESS") else status


def raise_alarm(world: World, name: str, value: str = "ALARM") -> None:
    world.client("cloudwatch").set_alarm_state(AlarmName=name, StateValue=value, StateReason="a drill")


def told(world: World, queue: str) -> list[dict[str, Any]]:
    found = world.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(json.loads(message["Body"])["Message"]) for message in found]


def test_alarms_of_one_cause_tell_once_and_go_with_their_stack(world: World) -> None:
    cloudformation, sqs = world.client("cloudformation"), world.client("sqs")
    cloudformation.create_stack(StackName=STACK, TemplateBody=template("First", "Second"))
    eventually(lambda: settled(world) == "CREATE_COMPLETE")
    (stack,) = cloudformation.describe_stacks(StackName=STACK)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    assert outputs["Arn"].endswith(":alarm:cause")
    assert state(world, "cause") == "OK"
    queue = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    world.client("sns").subscribe(TopicArn=outputs["Topic"], Protocol="sqs", Endpoint=arn)

    raise_alarm(world, "first")
    raise_alarm(world, "second")
    heard = eventually(lambda: told(world, queue))
    assert [(message["AlarmName"], message["NewStateValue"]) for message in heard] == [("cause", "ALARM")]
    assert ":alarm:first transitioned to ALARM" in heard[0]["NewStateReason"]
    assert told(world, queue) == [], "the second of the same cause told again"
    (path,) = world.cloud.mail.iterdir()
    mail = message_from_bytes(path.read_bytes(), policy=default)
    assert (mail["To"], "cause" in mail["Subject"]) == ("oncall@example.com", True)
    assert json.loads(mail.get_content())["AlarmName"] == "cause"

    # A child cannot go while the rule names it, and goes with the rule.
    with pytest.raises(ClientError, match="depending on it"):
        world.client("cloudwatch").delete_alarms(AlarmNames=["second"])
    cloudformation.update_stack(StackName=STACK, TemplateBody=template("First"))
    eventually(lambda: settled(world) == "UPDATE_COMPLETE")
    assert world.client("cloudwatch").describe_alarms(AlarmNames=["second"])["MetricAlarms"] == []
    raise_alarm(world, "first", "OK")
    eventually(lambda: state(world, "cause") == "OK")
    cloudformation.delete_stack(StackName=STACK)
    eventually(lambda: not alarms(world))
