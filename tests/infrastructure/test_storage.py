"""What is kept: encrypted, versioned, private, and in prod still there when its stack is gone."""

import fnmatch
import json
from typing import Any

import pytest

from tests.infrastructure.assembly import Assembly, Resource, Template, statements
from tests.infrastructure.patterns import matches
from tests.infrastructure.test_events import EVENTS, event


@pytest.fixture
def stack(assembly: Assembly) -> Template:
    return assembly[f"noria-{assembly.env}-foundation"]


@pytest.fixture
def key(stack: Template) -> Resource:
    return stack.one("AWS::KMS::Key")


@pytest.fixture
def data(assembly: Assembly, stack: Template) -> Resource:
    return stack.one("AWS::S3::Bucket", BucketName=f"noria-{assembly.env}-data-123456789012-us-east-1")


def test_the_key_changes_every_year(key: Resource) -> None:
    assert key.find("EnableKeyRotation") is True


def test_services_use_the_key_for_this_account_only(key: Resource) -> None:
    for statement in statements(key.properties["KeyPolicy"]):
        if "Service" in statement["Principal"]:
            # EventBridge is not documented to send the account; the queues' own policies name the rules.
            assert "Condition" in statement or statement["Principal"]["Service"] == "events.amazonaws.com"
            assert "kms:*" not in statement["Action"]


@pytest.mark.parametrize("env", ["local", "prod", "ways"])
def test_the_key_encrypts_every_log_group_that_names_it(env: str, request: pytest.FixtureRequest) -> None:
    """Else CloudWatch Logs refuses to make the group. Source: its guide, `encrypt-log-data-kms`."""
    assembly: Assembly = request.getfixturevalue(env)
    folders = set()
    for template in assembly.templates.values():
        for group in template.of("AWS::Logs::LogGroup"):
            key = assembly.target(template, group.properties["KmsKeyId"])
            (logs,) = (s for s in statements(key.properties["KeyPolicy"]) if s.get("Sid") == "EncryptLogs")
            name = group.properties["LogGroupName"]
            arn = f"arn:aws:logs:us-east-1:123456789012:log-group:{name}"
            allowed = logs["Condition"]["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]
            assert any(fnmatch.fnmatchcase(arn, assembly.flat(pattern)) for pattern in allowed), name
            folders.add(name.rpartition("/")[0])
    assert folders == {"/aws/lambda", "/aws/sagemaker/Endpoints", "/aws/vendedlogs"}


def test_every_bucket_is_encrypted_versioned_private_and_refuses_plain_http(assembly: Assembly) -> None:
    for template in assembly.templates.values():
        policies = {p.find("Bucket", "Ref"): p for p in template.of("AWS::S3::BucketPolicy")}
        for bucket in template.of("AWS::S3::Bucket"):
            assert bucket.find("BucketEncryption"), bucket.path
            assert bucket.find("VersioningConfiguration", "Status") == "Enabled", bucket.path
            assert set(bucket.properties["PublicAccessBlockConfiguration"].values()) == {True}, bucket.path
            assert denies_plain_http(policies[bucket.id].properties["PolicyDocument"]), bucket.path


def denies_plain_http(policy: dict[str, Any]) -> bool:
    return any(
        s["Effect"] == "Deny" and s.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        for s in statements(policy)
    )


def test_data_is_encrypted_with_our_key_and_its_accesses_are_logged(
    stack: Template, data: Resource, key: Resource
) -> None:
    (rule,) = data.properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert stack.target(rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]) == key
    assert rule["BucketKeyEnabled"] is True  # else each object costs a request to KMS
    assert stack.target(data.find("LoggingConfiguration", "DestinationBucketName")).type == "AWS::S3::Bucket"


def test_what_happens_to_data_is_told_to_eventbridge(data: Resource) -> None:
    assert data.find("NotificationConfiguration", "EventBridgeConfiguration", "EventBridgeEnabled") is True


def test_captured_requests_end_some_day_and_nothing_that_was_trained_on_does(data: Resource) -> None:
    rules = data.properties["LifecycleConfiguration"]["Rules"]
    assert {r["Prefix"] for r in rules if "ExpirationInDays" in r} == {
        "flight-delay/captured/",
        "flight-delay/checkpoints/",
        "flight-delay/queries/",
        "house-prices/captured/",
        "house-prices/checkpoints/",
        "house-prices/queries/",
    }
    assert any("NoncurrentVersionExpiration" in r and "Prefix" not in r for r in rules)


def test_the_ledger_can_be_brought_back_to_any_second(stack: Template, key: Resource) -> None:
    ledger = stack.one("AWS::DynamoDB::Table")
    assert ledger.find("PointInTimeRecoverySpecification", "PointInTimeRecoveryEnabled") is True
    assert stack.target(ledger.find("SSESpecification", "KMSMasterKeyId")) == key


def test_pages_and_notices_are_encrypted_and_only_this_account_sends_them(stack: Template, key: Resource) -> None:
    topics = {topic.id: topic for topic in stack.of("AWS::SNS::Topic")}
    assert {stack.target(topic.properties["KmsMasterKeyId"]).id for topic in topics.values()} == {key.id}
    policies = stack.of("AWS::SNS::TopicPolicy")
    assert {reference["Ref"] for policy in policies for reference in policy.properties["Topics"]} == set(topics)
    for policy in policies:
        document = policy.properties["PolicyDocument"]
        assert denies_plain_http(document)
        for statement in statements(document):
            if statement["Effect"] == "Allow":
                assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_alarms_and_events_can_use_the_key_that_pages_and_queues_are_encrypted_with(key: Resource) -> None:
    """Without it a page is lost without a trace: SNS tells the sender alone, and the sender is a service."""
    needed = {"kms:Decrypt", "kms:GenerateDataKey"}
    able = {
        s["Principal"]["Service"]
        for s in statements(key.properties["KeyPolicy"])
        if "Service" in s["Principal"] and needed <= set(s["Action"])
    }
    assert able >= {"cloudwatch.amazonaws.com", "events.amazonaws.com", "budgets.amazonaws.com"}


def test_every_queue_is_encrypted_with_our_key_and_refuses_plain_http(assembly: Assembly) -> None:
    for template in assembly.templates.values():
        for queue in template.of("AWS::SQS::Queue"):
            assert assembly.target(template, queue.properties["KmsMasterKeyId"]).type == "AWS::KMS::Key", queue.path
            assert denies_plain_http({"Statement": template.queue_policy(queue)}), queue.path


KEPT = ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::KMS::Key")


def test_in_prod_data_outlives_its_stack(prod: Assembly) -> None:
    for type_ in KEPT:
        for resource in prod.all(type_):
            assert resource.body["DeletionPolicy"] == "Retain", resource.path
            assert resource.body["UpdateReplacePolicy"] == "Retain", resource.path
    assert prod["noria-prod-foundation"].one("AWS::DynamoDB::Table").find("DeletionProtectionEnabled") is True


def test_locally_everything_goes_with_its_stack(local: Assembly) -> None:
    for type_ in KEPT:
        for resource in local.all(type_):
            assert resource.body["DeletionPolicy"] == "Delete", resource.path
    assert not local["noria-local-foundation"].one("AWS::DynamoDB::Table").find("DeletionProtectionEnabled")


def test_both_buses_are_archived_with_every_event_that_starts_a_reaction(assembly: Assembly, stack: Template) -> None:
    own, default = sorted(stack.of("AWS::Events::Archive"), key=lambda a: "EventPattern" in a.properties)
    assert stack.target(own.properties["SourceArn"]) == stack.one("AWS::Events::EventBus")
    assert "EventPattern" not in own.properties
    assert default.properties["SourceArn"] == "arn:aws:events:us-east-1:123456789012:event-bus/default"
    bucket = f"noria-{assembly.env}-data-123456789012-us-east-1"
    data = stack.one("AWS::S3::Bucket", BucketName=bucket)
    text = json.dumps(default.properties["EventPattern"]).replace(json.dumps({"Ref": data.id}), json.dumps(bucket))
    pattern = json.loads(text)
    for path in EVENTS.glob("aws.*.json"):
        assert matches(pattern, event(path.stem, env=assembly.env)), path.stem
    assert {a.properties["RetentionDays"] for a in (own, default)} == {{"local": 7, "prod": 365}[assembly.env]}


def test_functions_and_the_command_find_what_they_need_by_name(assembly: Assembly, stack: Template) -> None:
    published = {
        p.properties["Name"]: stack.target(p.properties["Value"]).type for p in stack.of("AWS::SSM::Parameter")
    }
    assert published == {
        f"/noria/{assembly.env}/data-bucket": "AWS::S3::Bucket",
        f"/noria/{assembly.env}/event-bus": "AWS::Events::EventBus",
        f"/noria/{assembly.env}/pages-topic": "AWS::SNS::Topic",
        f"/noria/{assembly.env}/notices-topic": "AWS::SNS::Topic",
        f"/noria/{assembly.env}/ledger-table": "AWS::DynamoDB::Table",
        f"/noria/{assembly.env}/ledger-bucket": "AWS::S3::Bucket",
    }


@pytest.mark.parametrize("env", ["local", "prod"])
def test_people_are_paged_by_email(env: str, request: pytest.FixtureRequest) -> None:
    assembly: Assembly = request.getfixturevalue(env)
    template = assembly[f"noria-{env}-foundation"]
    reached = {
        (template.target(s.properties["TopicArn"]).properties["TopicName"], s.properties["Endpoint"])
        for s in assembly.all("AWS::SNS::Subscription")
    }
    assert reached == {
        (f"noria-{env}-pages", "oncall@example.com"),
        # house-prices names an address of its own for what can wait.
        (f"noria-{env}-notices", "oncall@example.com"),
        (f"noria-{env}-notices", "estates@example.com"),
    }


def test_money_is_watched_where_it_is_spent(local: Assembly, prod: Assembly) -> None:
    (budget,) = prod.all("AWS::Budgets::Budget")
    assert budget.find("Budget", "BudgetLimit", "Unit") == "USD"
    topic = prod["noria-prod-foundation"].one("AWS::SNS::Topic", TopicName="noria-prod-pages")
    for notification in budget.properties["NotificationsWithSubscribers"]:
        (subscriber,) = notification["Subscribers"]
        assert prod["noria-prod-foundation"].target(subscriber["Address"]) == topic
    assert local.all("AWS::Budgets::Budget") == []
