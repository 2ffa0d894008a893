"""`noria doctor` against moto: an environment in which all is well, and each thing that can be wrong, provoked."""

import io
import json
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.cloudwatch.models import cloudwatch_backends
from moto.core import DEFAULT_ACCOUNT_ID
from typer.testing import CliRunner

from noria.alarms import Severity, Told
from noria.aws.health import Health
from noria.aws.ledger import Ledger
from noria.cli.commands import app
from noria.doctor import Stack
from noria.ledger import Fact, Kind
from tests.integration.moto_cloud import in_memory

REGION = "eu-west-1"
MODEL, NAME = "prices", "noria-dev-prices"
PACKAGE = f"arn:aws:sagemaker:{REGION}:123456789012:model-package/{NAME}/1"
NOW = datetime.now(UTC)


@dataclass
class World:
    """An environment with one model, one reaction, and nothing wrong."""

    ledger: Ledger

    def tell(self, kind: Kind, subject: str, *, hours: float = 1, **details: Any) -> None:
        at = NOW - timedelta(hours=hours)
        self.ledger.record(Fact(model=MODEL, kind=kind, subject=subject, at=at, summary=f"{kind}.", details=details))

    def findings(self) -> list[dict[str, Any]]:
        answer = CliRunner().invoke(app, ["doctor", "--env", "dev", "--json"])
        told = json.loads(answer.stdout)
        assert answer.exit_code == bool(told["findings"])
        assert told["denied"] == []
        found: list[dict[str, Any]] = told["findings"]
        return found

    def finding(self) -> dict[str, Any]:
        (found,) = self.findings()
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with in_memory(monkeypatch, REGION):
        yield World(ledger=_environment())


def _environment() -> Ledger:
    ssm = boto3.client("ssm")
    for name, value in (("data-bucket", "data"), ("ledger-table", "ledger"), ("event-bus", "noria-dev")):
        ssm.put_parameter(Name=f"/noria/dev/{name}", Value=value, Type="String")
    boto3.client("dynamodb").create_table(
        TableName="ledger",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "model", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("model", "sk")],
    )
    boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName=NAME)
    template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": {"Mode": {"Value": "realtime"}}}
    boto3.client("cloudformation").create_stack(StackName=f"{NAME}-serving", TemplateBody=json.dumps(template))
    kms = boto3.client("kms")
    kms.create_alias(AliasName="alias/noria-dev", TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    sqs, events = boto3.client("sqs"), boto3.client("events")
    for queue in ("noria-dev-validate-upload", "noria-dev-dead-letters"):
        sqs.create_queue(QueueName=queue)
    events.create_event_bus(Name="noria-dev")
    events.put_rule(Name="noria-dev-validate-upload-upload", EventPattern='{"source": ["aws.s3"]}')
    boto3.client("scheduler").create_schedule_group(Name="noria-dev")
    _log("noria-dev-reconcile", "Heard")
    return Ledger(table="ledger")


def _log(function: str, message: str) -> None:
    logs, group = boto3.client("logs"), f"/aws/lambda/{function}"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="1")
    event: Any = {"timestamp": int(time.time() * 1000), "message": json.dumps({"message": message})}
    logs.put_log_events(logGroupName=group, logStreamName="1", logEvents=[event])


def _measure(namespace: str, metric: str, value: float, **dimensions: str) -> None:
    named: Any = [{"Name": name, "Value": told} for name, told in dimensions.items()]
    at = datetime.now(UTC) - timedelta(minutes=2)
    data: Any = [{"MetricName": metric, "Dimensions": named, "Value": value, "Timestamp": at}]
    boto3.client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=data)


def _function() -> str:
    iam = boto3.client("iam")
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("handler.py", "")
    arn: str = boto3.client("lambda").create_function(
        FunctionName="noria-dev-validate-upload",
        Runtime="python3.13",
        Role=role,
        Handler="handler.handler",
        Code={"ZipFile": packed.getvalue()},
    )["FunctionArn"]
    return arn


def test_a_healthy_environment_says_what_was_looked_at(world: World) -> None:
    began = time.monotonic()
    answer = CliRunner().invoke(app, ["doctor", "--env", "dev"])
    assert answer.exit_code == 0, answer.stdout
    assert time.monotonic() - began < 10
    assert answer.stdout == (
        "Nothing is wrong in 'dev'. Looked at: alarms, dead letters, queues, stacks, rules, schedules, event sources, "
        "functions, reconciler, key, budget, prices.\n"
    )


def test_a_raised_alarm(world: World) -> None:
    description = Told(severity=Severity.WARNING, runbook="drift").describe("prices: the inputs changed.")
    for name, told in ((f"{NAME}-drift", description), (f"{NAME}-scale-from-zero", "Starts an instance.")):
        boto3.client("cloudwatch").put_metric_alarm(
            AlarmName=name,
            AlarmDescription=told,
            Namespace="Noria",
            MetricName="m",
            Statistic="Sum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=0,
            ComparisonOperator="GreaterThanThreshold",
        )
        boto3.client("cloudwatch").set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="psi 0.4 > 0.25")
    found = world.finding()
    assert found["what"] == f"Alarm {NAME}-drift: psi 0.4 > 0.25"
    assert (found["severity"], found["means"], found["runbook"]) == ("warning", "prices: the inputs changed.", "drift")
    assert found["command"] == "noria events prices --env dev"
    assert datetime.now(UTC) - datetime.fromisoformat(found["since"]) < timedelta(minutes=5)


def test_a_dead_letter_says_whose_it_is_and_stays(world: World) -> None:
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName="noria-dev-dead-letters")["QueueUrl"]
    event = {"source": "noria", "detail-type": "Dataset Accepted", "detail": {"model": MODEL}}
    queue = f"arn:aws:sqs:{REGION}:123456789012:noria-dev-validate-upload"
    told: Any = {"TARGET_ARN": {"DataType": "String", "StringValue": queue}}
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(event), MessageAttributes=told)
    sqs.send_message(QueueUrl=url, MessageBody="of nobody")
    for _ in range(2):
        unknown, found = sorted(world.findings(), key=lambda finding: finding["command"])
        assert unknown["what"] == "1 dead letter of which it is not known whose"
        assert unknown["command"] == "noria queues --env dev"
        assert found["what"] == "1 dead letter of validate-upload, about prices"
        assert (found["severity"], found["runbook"]) == ("critical", "dead-letters")
        assert found["command"] == "noria queues validate-upload --env dev"


def test_letters_of_a_reaction_that_was_removed_keep_nothing_waiting(world: World) -> None:
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName="noria-dev-dead-letters")["QueueUrl"]
    event = json.dumps({"source": "noria", "detail-type": "Dataset Accepted", "detail": {"model": MODEL}})
    rules = f"arn:aws:events:{REGION}:123456789012:rule/noria-dev-promotion"
    queue = f"arn:aws:sqs:{REGION}:123456789012:noria-dev-track-training"
    for attribute, arn in (("RULE_ARN", rules), ("TARGET_ARN", queue)):
        told: Any = {attribute: {"DataType": "String", "StringValue": arn}}
        sqs.send_message(QueueUrl=url, MessageBody=event, MessageAttributes=told)
    promotion, removed = world.findings()
    assert (promotion["severity"], promotion["what"]) == ("critical", "1 dead letter of promotion, about prices")
    assert removed["severity"] == "warning"
    assert removed["what"] == "1 dead letter of track-training, which was removed, about prices"
    assert "Nothing waits for them" in removed["means"]
    assert removed["command"] == "noria queues track-training --env dev"


def test_a_queue_that_grows_old(world: World) -> None:
    _measure("AWS/SQS", "ApproximateAgeOfOldestMessage", 3600, QueueName="noria-dev-validate-upload")
    assert world.finding()["what"] == "The oldest of 0 events of validate-upload has waited for 1h"


def test_an_endpoint_that_is_not_what_the_ledger_says(world: World) -> None:
    live: Any = {"package": PACKAGE, "challenger": "none", "percent": 0, "shadow": "none"}
    world.tell(Kind.DEPLOYMENT_REQUESTED, "d1", **live)
    world.tell(Kind.DEPLOYED, "d1", **live)
    found = world.finding()
    assert found["what"] == "prices has no endpoint, and the ledger says that it answers"
    assert (found["severity"], found["runbook"]) == ("critical", "endpoint-errors")
    sagemaker = boto3.client("sagemaker")
    sagemaker.create_model(
        ModelName="m",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/r",
        PrimaryContainer={"ModelPackageName": PACKAGE.replace("/1", "/2")},
    )
    variant: Any = {"VariantName": "champion", "ModelName": "m", "InstanceType": "ml.m5.large"}
    variant |= {"InitialInstanceCount": 1, "InitialVariantWeight": 1.0}
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName="c")
    assert world.finding()["what"] == "prices is answered by version 2, and the ledger says version 1"


def test_trainings_that_fail_in_a_row(world: World) -> None:
    for number in (1, 2):
        execution = f"arn:execution/{number}"
        world.tell(Kind.TRAINING_STARTED, f"t{number}", execution=execution)
        world.tell(Kind.TRAINING_FAILED, execution, status="Failed", refused=False)
    found = world.finding()
    assert found["what"].startswith("prices: the last 2 trainings failed")
    assert found["command"] == "noria logs arn:execution/2 --env dev"


def test_a_ledger_whose_entry_was_edited(world: World) -> None:
    world.tell(Kind.DATASET_ACCEPTED, "a")
    item = {"model": {"S": MODEL}, "sk": {"S": "entry#000000000001"}}
    dynamodb = boto3.client("dynamodb")
    stored = dynamodb.get_item(TableName="ledger", Key=item)["Item"]
    edited: Any = stored | {"body": {"S": stored["body"]["S"].replace("dataset_accepted.", "nothing.")}}
    dynamodb.put_item(TableName="ledger", Item=edited)
    found = world.finding()
    assert "its head names another entry" in found["what"]
    assert found["command"] == "noria ledger verify prices --env dev"


def test_a_rule_that_is_off(world: World) -> None:
    boto3.client("events").disable_rule(Name="noria-dev-validate-upload-upload")
    found = world.finding()
    assert found["what"] == "The rule noria-dev-validate-upload-upload is disabled"
    assert found["command"] == (
        "aws events enable-rule --event-bus-name default --name noria-dev-validate-upload-upload"
    )


def test_a_schedule_that_is_off(world: World) -> None:
    boto3.client("scheduler").create_schedule(
        Name="noria-dev-reconcile",
        GroupName="noria-dev",
        ScheduleExpression="rate(5 minutes)",
        FlexibleTimeWindow={"Mode": "OFF"},
        State="DISABLED",
        Target={"Arn": "arn:aws:sqs:eu-west-1:123456789012:q", "RoleArn": "arn:aws:iam::123456789012:role/r"},
    )
    assert world.finding()["what"] == "The schedule noria-dev-reconcile is disabled"


def test_an_event_source_that_is_off_and_a_function_that_fails(world: World) -> None:
    arn = f"arn:aws:sqs:{REGION}:123456789012:noria-dev-validate-upload"
    source = boto3.client("lambda").create_event_source_mapping(
        EventSourceArn=arn, FunctionName=_function(), Enabled=False
    )
    _measure("AWS/Lambda", "Errors", 2, FunctionName="noria-dev-validate-upload")
    _measure("AWS/Lambda", "Throttles", 1, FunctionName="noria-dev-validate-upload")
    off, failed = world.findings()
    assert off["what"] == "The event source of noria-dev-validate-upload is disabled"
    assert off["command"] == f"aws lambda update-event-source-mapping --enabled --uuid {source['UUID']}"
    assert failed["what"] == "validate-upload failed 2 times and was throttled 1 time within the last hour"


def test_a_reconciler_that_is_silent(world: World) -> None:
    boto3.client("logs").delete_log_group(logGroupName="/aws/lambda/noria-dev-reconcile")
    found = world.finding()
    assert (found["what"], found["severity"]) == ("The reconciler is silent", "critical")
    template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    boto3.client("cloudformation").create_stack(StackName="noria-dev-reactions", TemplateBody=json.dumps(template))
    assert world.findings() == [], "it was deployed a moment ago, and its first turn is to come"


def test_a_key_that_is_about_to_go(world: World) -> None:
    kms = boto3.client("kms")
    key = kms.describe_key(KeyId="alias/noria-dev")["KeyMetadata"]["KeyId"]
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    found = world.finding()
    assert f"The key {key} is PendingDeletion, on " in found["what"]
    assert found["command"] == f"aws kms cancel-key-deletion --key-id {key}"


def test_a_window_of_a_budget_is_told_of_by_its_composite_alone(world: World) -> None:
    name = f"{NAME}-availability-fast"
    for window in ("1h", "5m"):
        _raise(f"{name}-{window}", None)
    assert world.findings() == []
    _raise(name, Severity.CRITICAL)
    # moto answers with composite alarms, and makes none.
    made = cloudwatch_backends[DEFAULT_ACCOUNT_ID][REGION].alarms[name]
    made.rule = f'ALARM("{name}-1h") AND ALARM("{name}-5m")'
    assert boto3.client("cloudwatch").describe_alarms(AlarmNamePrefix=NAME)["CompositeAlarms"]
    found = world.finding()
    assert (found["severity"], found["what"]) == ("critical", f"Alarm {name}: too many")


def _raise(name: str, severity: Severity | None) -> None:
    cloudwatch = boto3.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        AlarmDescription=Told(severity=severity, runbook="error-budget").describe("prices fails."),
        Namespace="Noria",
        MetricName="m",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="too many")


def test_of_the_stacks_that_may_be_seen_what_is_wrong_is_told_and_which_may_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Health.stack

    def allowed(health: Health, name: str) -> Stack | None:
        if name == "noria-dev-reactions":
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DescribeStacks")
        return (
            Stack(name=name, status="UPDATE_ROLLBACK_FAILED", changed=NOW) if "serving" in name else look(health, name)
        )

    monkeypatch.setattr(Health, "stack", allowed)
    told = json.loads(CliRunner().invoke(app, ["doctor", "--env", "dev", "--json"]).stdout)
    assert told["denied"] == ["stack noria-dev-reactions"]
    assert told["looked_at"].count("stacks") == 1
    assert [found["what"] for found in told["findings"]] == [f"Stack {NAME}-serving is UPDATE_ROLLBACK_FAILED"]


def test_what_cannot_be_looked_at_is_said(world: World) -> None:
    boto3.client("kms").delete_alias(AliasName="alias/noria-dev")
    assert world.finding()["what"].startswith("key could not be looked at: ")
