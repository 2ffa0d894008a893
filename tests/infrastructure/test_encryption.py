"""What is kept is encrypted, what travels is encrypted, and what is logged says nothing of what was asked."""

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest

from stacks.settings import ENVIRONMENTS
from tests.infrastructure.assembly import ACCOUNT, REPOSITORY, Assembly, Resource, Template, statements

HANDLERS = sorted((REPOSITORY / "lambdas").glob("*/handler.py"))

PAYLOADS = {"event", "body", "payload", "request", "requests", "row", "rows", "instances", "record", "records", "line"}
"""What handlers call the things that people's data is in."""


@pytest.fixture(params=["local", "prod", "ways"])
def every(request: pytest.FixtureRequest) -> Assembly:
    assembly: Assembly = request.getfixturevalue(request.param)
    return assembly


# --- the key


def test_the_keys_policy_allows_the_account_and_four_services_and_nobody_else(assembly: Assembly) -> None:
    """A statement for the account gives nobody anything: it lets IAM policies decide (KMS guide, `key-policy-default`).

    So who may decrypt is who has a policy that says so; what services do by themselves is named here.
    """
    (key,) = assembly.all("AWS::KMS::Key")
    read = {
        (assembly.flat(principal), assembly.flat(action) if action == "kms:*" else "data")
        for statement in statements(key.properties["KeyPolicy"])
        for principal in statement["Principal"].values()
        for action in statement["Action"]
    }
    assert read == {
        (f"arn:aws:iam::{ACCOUNT}:root", "kms:*"),
        ("events.amazonaws.com", "data"),
        ("cloudwatch.amazonaws.com", "data"),
        ("budgets.amazonaws.com", "data"),
        ("logs.us-east-1.amazonaws.com", "data"),
    }
    assert all(s["Effect"] == "Allow" for s in statements(key.properties["KeyPolicy"]))


def test_no_role_may_use_every_key_or_do_everything_with_one(every: Assembly) -> None:
    for template in every.templates.values():
        for policy in template.of("AWS::IAM::Policy"):
            for statement in statements(policy.properties["PolicyDocument"]):
                if any(action.startswith("kms:") for action in statement["Action"]):
                    assert not any("*" in action for action in statement["Action"]), policy.path
                    for resource in statement["Resource"]:
                        assert every.target(template, resource).type == "AWS::KMS::Key", policy.path


# --- what is kept, and what travels


def test_every_bucket_is_private_and_refuses_what_is_older_than_tls_1_2(every: Assembly) -> None:
    for template, bucket in _each(every, "AWS::S3::Bucket"):
        assert bucket.properties["PublicAccessBlockConfiguration"] == dict.fromkeys(
            ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
        )
        refused = _refused(template, "AWS::S3::BucketPolicy", "Bucket", bucket)
        assert {"Bool": {"aws:SecureTransport": "false"}} in refused, bucket.path
        assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in refused, bucket.path


def test_every_queue_and_topic_refuses_plain_http(every: Assembly) -> None:
    """Neither has a condition for the version: AWS's own endpoints take TLS 1.2 and later only."""
    for template, queue in _each(every, "AWS::SQS::Queue"):
        refused = _refused(template, "AWS::SQS::QueuePolicy", "Queues", queue)
        assert {"Bool": {"aws:SecureTransport": "false"}} in refused, queue.path
    for template, topic in _each(every, "AWS::SNS::Topic"):
        refused = _refused(template, "AWS::SNS::TopicPolicy", "Topics", topic)
        assert {"Bool": {"aws:SecureTransport": "false"}} in refused, topic.path


def test_every_bucket_is_encrypted_and_with_our_key_through_bucket_keys(every: Assembly) -> None:
    for template, bucket in _each(every, "AWS::S3::Bucket"):
        (rule,) = bucket.properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        how = rule["ServerSideEncryptionByDefault"]
        if how["SSEAlgorithm"] == "aws:kms":
            assert every.target(template, how["KMSMasterKeyID"]).type == "AWS::KMS::Key", bucket.path
            assert rule["BucketKeyEnabled"] is True, bucket.path
        else:
            assert bucket.id.startswith("AccessLogs"), bucket.path  # S3 delivers these logs to no KMS key


def test_accesses_of_every_bucket_are_logged_but_of_the_one_that_has_the_logs(every: Assembly) -> None:
    for template, bucket in _each(every, "AWS::S3::Bucket"):
        if bucket.id.startswith("AccessLogs"):
            continue
        logged_to = every.target(template, bucket.find("LoggingConfiguration", "DestinationBucketName"))
        assert logged_to.id.startswith("AccessLogs"), bucket.path


# --- what is logged


def test_every_log_group_is_encrypted_and_ends(every: Assembly) -> None:
    groups = list(_each(every, "AWS::Logs::LogGroup"))
    assert groups
    for template, group in groups:
        assert every.target(template, group.properties["KmsKeyId"]).type == "AWS::KMS::Key", group.path
        assert group.properties["RetentionInDays"] == ENVIRONMENTS[every.env].log_days, group.path


def test_every_function_logs_to_a_group_of_the_template(every: Assembly) -> None:
    """Else Lambda would make one itself: without our key, and for ever."""
    for template, function in _each(every, "AWS::Lambda::Function"):
        assert template.target(function.find("LoggingConfig", "LogGroup")).type == "AWS::Logs::LogGroup", function.path


def test_no_function_is_told_to_log_its_events(every: Assembly) -> None:
    for _, function in _each(every, "AWS::Lambda::Function"):
        variables = function.find("Environment", "Variables") or {}
        assert not {name for name in variables if "LOG_EVENT" in name or name.endswith("_DEV")}, function.path


def test_access_logs_of_an_api_say_who_and_when_and_nothing_of_what(assembly: Assembly) -> None:
    stages = assembly.all("AWS::ApiGatewayV2::Stage")
    assert stages
    for stage in stages:
        named = set(re.findall(r"\$context\.[A-Za-z.]+", str(stage.find("AccessLogSettings", "Format"))))
        assert named == {
            f"$context.{variable}"
            for variable in (
                *("requestId", "requestTime", "routeKey", "status", "responseLength", "responseLatency"),
                *("integrationLatency", "identity.sourceIp", "identity.userArn", "authorizer.claims.sub"),
                *("authorizer.error", "error.message"),
            )
        }


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda path: path.parent.name)
def test_no_handler_logs_a_payload(handler: Any) -> None:
    """Powertools logs a whole event where it is told to; a name of a payload goes into no line of a log."""
    tree = ast.parse(handler.read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.keyword) and node.arg == "log_event" for node in ast.walk(tree))
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if _logs(call.func):
            said = [*call.args, *(keyword.value for keyword in call.keywords)]
            names = {n.id for value in said for n in ast.walk(value) if isinstance(n, ast.Name)}
            assert not names & PAYLOADS, f"{handler}:{call.lineno}"


def _logs(called: ast.expr) -> bool:
    match called:
        case ast.Attribute(value=ast.Name(id="logger" | "logging")) | ast.Name(id="print" | "tell"):
            return True
    return False


def _each(assembly: Assembly, type_: str) -> Iterator[tuple[Template, Resource]]:
    for template in assembly.templates.values():
        for resource in template.of(type_):
            yield template, resource


def _refused(template: Template, type_: str, of: str, resource: Resource) -> list[dict[str, Any]]:
    """The conditions under which the policies of a resource deny something to everybody."""
    reference = {"Ref": resource.id}
    policies = [p for p in template.of(type_) if reference in (p.properties[of], *_listed(p.properties[of]))]
    return [
        statement["Condition"]
        for policy in policies
        for statement in statements(policy.properties["PolicyDocument"])
        if statement["Effect"] == "Deny" and statement["Principal"] in ("*", {"AWS": "*"})
    ]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
