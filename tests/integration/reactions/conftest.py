"""Reactions through their handlers, against a local cloud: real S3, DynamoDB, queues, CloudFormation and SageMaker."""

import json
import socket
from collections.abc import Iterator

import boto3
import pytest

from local.cloud import ACCOUNT, REGION, WORK, LocalCloud
from local.container import build
from noria.names import Names
from tests.integration.reactions.place import BUCKET, COPIES, REACTIONS, Place


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    python = build(WORK / "container")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=port, time_scale=60, python=python) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def place(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cloud.environment.items():
            patch.setenv(name, value)
        models = tmp_path_factory.mktemp("models")
        topics = _shared_resources()
        for name, value in {
            "NORIA_ENV": "local",
            "NORIA_DATA_BUCKET": BUCKET,
            "NORIA_EVENT_BUS": "noria-local",
            "NORIA_PAGES_TOPIC": topics["pages"],
            "NORIA_NOTICES_TOPIC": topics["notices"],
            "NORIA_LEDGER_TABLE": "ledger",
            "NORIA_LEDGER_BUCKET": COPIES,
            "NORIA_MODELS_DIR": str(models),
            "NORIA_SCHEDULE_GROUP": "noria-local",
            "NORIA_SCHEDULE_ROLE_ARN": f"arn:aws:iam::{ACCOUNT}:role/schedules",
            "NORIA_QUEUE_ARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:noria-local-deploy-model",
            "NORIA_DEAD_LETTERS_ARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:noria-local-dead-letters",
        }.items():
            patch.setenv(name, value)
        boto3.setup_default_session()
        yield Place(models=models)
    boto3.setup_default_session()


def _shared_resources() -> dict[str, str]:
    """Returns the topics' ARNs."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.create_bucket(Bucket=COPIES, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    boto3.client("scheduler").create_schedule_group(Name="noria-local")
    boto3.client("dynamodb").create_table(
        TableName="ledger",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "model", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("model", "sk")],
    )
    sqs, events, sns = boto3.client("sqs"), boto3.client("events"), boto3.client("sns")
    arns = {}
    for name in ("ear", "pager", *(Names(env="local").queue(reaction) for reaction in REACTIONS)):
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        arns[name] = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        statement = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arns[name]}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    events.create_event_bus(Name="noria-local")
    events.put_rule(Name="ear", EventBusName="noria-local", EventPattern=json.dumps({"source": ["noria"]}))
    events.put_targets(Rule="ear", EventBusName="noria-local", Targets=[{"Id": "ear", "Arn": arns["ear"]}])
    topics = {name: sns.create_topic(Name=name)["TopicArn"] for name in ("pages", "notices")}
    for topic in topics.values():
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arns["pager"])
    return topics


@pytest.fixture(scope="session")
def everything(place: Place) -> None:
    """A role of that name, for models and for CloudFormation, that may do what it is called."""
    iam = boto3.client("iam")
    trust = {"Service": ["sagemaker.amazonaws.com", "cloudformation.amazonaws.com"]}
    for name, statement in (("trust", {"Action": "sts:AssumeRole", "Principal": trust}), ("all", {"Action": "*"})):
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", **statement}]}
        if name == "trust":
            del document["Statement"][0]["Resource"]  # type: ignore[attr-defined]
            iam.create_role(RoleName="everything", AssumeRolePolicyDocument=json.dumps(document))
        else:
            iam.put_role_policy(RoleName="everything", PolicyName="all", PolicyDocument=json.dumps(document))
