"""Each reaction: what is around its function, and what it may do, compared with what its handler says it calls."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from lambdas.probe_deployment.handler import LONGEST
from noria.alarms import Severity
from noria.aws.probes import ASKING
from noria.aws.retries import PATIENCE
from noria.batch import LARGEST
from noria.page import Matter
from stacks.bundles import LAMBDAS, reactions
from tests.infrastructure.assembly import Assembly, Resource, Template

ACTION = re.compile(r"\b[a-z0-9-]+:[A-Z]\w+")

OF_EVERY_FUNCTION = {
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
    "sqs:ReceiveMessage",
}
"""What Lambda does with the role on its own: write logs and traces, and read the queue."""


@pytest.fixture(params=reactions())
def reaction(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def stack(assembly: Assembly) -> Template:
    return assembly[f"noria-{assembly.env}-reactions"]


@pytest.fixture
def name(assembly: Assembly, reaction: str) -> str:
    return f"noria-{assembly.env}-{reaction.replace('_', '-')}"


@pytest.fixture
def function(stack: Template, name: str) -> Resource:
    return stack.one("AWS::Lambda::Function", FunctionName=name)


@pytest.fixture
def queue(stack: Template, name: str) -> Resource:
    return stack.one("AWS::SQS::Queue", QueueName=name)


def actions(allowed: list[dict[str, Any]]) -> set[str]:
    return {action for statement in allowed for action in statement["Action"]}


def calls(reaction: str) -> set[str]:
    """The actions that the handler's docstring lists after `Calls:`."""
    docstring = ast.get_docstring(ast.parse((LAMBDAS / reaction / "handler.py").read_text())) or ""
    return set(ACTION.findall(docstring.partition("Calls:")[2]))


def test_every_folder_of_lambdas_is_a_function_and_no_function_is_anything_else(assembly: Assembly) -> None:
    deployed = {function.properties["FunctionName"] for function in assembly.all("AWS::Lambda::Function")}
    assert deployed == {f"noria-{assembly.env}-{reaction.replace('_', '-')}" for reaction in reactions()} | {
        f"noria-{assembly.env}-house-prices-front-door"
    }


def test_what_its_role_allows_is_what_the_handler_says_it_calls(
    stack: Template, function: Resource, reaction: str
) -> None:
    granted = actions(stack.allowed(stack.target(function.properties["Role"])))
    assert granted - OF_EVERY_FUNCTION == calls(reaction) - OF_EVERY_FUNCTION
    assert granted >= calls(reaction)
    assert granted >= OF_EVERY_FUNCTION


def matters(module: Path) -> set[Matter]:
    """What a module tells people of, itself and through those modules that it imports for it."""
    source, root = module.read_text(), LAMBDAS.parent
    found = {Matter[name] for name in re.findall(r"\bMatter\.([A-Z_]+)", source)}
    for package, name in re.findall(r"^from (noria[\w.]*) import (\w*)", source, re.MULTILINE):
        named = [root / f"{f'{package}.{name}'.replace('.', '/')}.py", root / f"{package.replace('.', '/')}.py"]
        path = next((path for path in named if path.is_file()), None)
        if path and path.stem in {"rollout", "decisions", "approval", "review"}:
            found |= matters(path)
    return found


def test_a_function_that_tells_people_may_do_so_as_severely_as_it_does_and_no_other_may(
    stack: Template, function: Resource, reaction: str
) -> None:
    handler = LAMBDAS / reaction / "handler.py"
    tells = "env.topics" in handler.read_text() or "Rollout.of(" in handler.read_text()
    variables = function.properties["Environment"]["Variables"]
    topics = {Severity.CRITICAL: variables["NORIA_PAGES_TOPIC"], Severity.WARNING: variables["NORIA_NOTICES_TOPIC"]}
    expected = [topics[severity] for severity in Severity if severity in {m.severity for m in matters(handler)}]
    granted = [
        topic
        for statement in stack.allowed(stack.target(function.properties["Role"]))
        if "sns:Publish" in statement["Action"]
        for topic in statement["Resource"]
    ]
    assert sorted(map(str, granted)) == sorted(map(str, expected if tells else []))


def test_every_matter_is_told_of_by_somebody_and_says_why_it_is_so_severe() -> None:
    told = {matter for reaction in reactions() for matter in matters(LAMBDAS / reaction / "handler.py")}
    assert told == set(Matter)
    assert {matter.severity for matter in Matter} == set(Severity)


def test_no_role_has_a_wildcard_among_its_actions_or_a_denial_in_its_place(assembly: Assembly) -> None:
    for template in assembly.templates.values():
        for role in template.of("AWS::IAM::Role"):
            assert role.find("ManagedPolicyArns") is None, role.path
            allowed = template.allowed(role)
            assert allowed, role.path
            assert all("NotAction" not in s and "NotResource" not in s for s in allowed), role.path
            assert not {action for action in actions(allowed) if "*" in action}, role.path


UNNARROWED = {
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:GetMetricData",
    "cloudwatch:PutMetricData",
    "sagemaker:ListArtifacts",
    "sagemaker:ListAssociations",
    "sagemaker:ListModelPackages",
}
"""Actions for which AWS knows no resource. Source: Service Authorization Reference; PutMetricData knows a condition."""


def test_only_actions_that_know_no_resource_are_allowed_on_all(stack: Template, function: Resource) -> None:
    for statement in stack.allowed(stack.target(function.properties["Role"])):
        if "*" in statement["Resource"]:
            assert set(statement["Action"]) <= UNNARROWED
            if "cloudwatch:PutMetricData" in statement["Action"]:
                assert statement["Condition"] == {"StringEquals": {"cloudwatch:namespace": "Noria"}}


def test_lineage_is_written_by_the_reconciler_alone_and_its_actions_are_this_environments(
    assembly: Assembly, stack: Template, function: Resource
) -> None:
    writing = {
        "sagemaker:CreateAction",
        "sagemaker:UpdateAction",
        "sagemaker:CreateArtifact",
        "sagemaker:AddAssociation",
    }
    allowed = stack.allowed(stack.target(function.properties["Role"]))
    if not str(function.properties["FunctionName"]).endswith("-reconcile"):
        assert not writing & actions(allowed)
        return
    for statement in allowed:
        resource = str(statement["Resource"])
        if "sagemaker:CreateAction" in statement["Action"]:
            assert f":action/noria-{assembly.env}-*" in resource
        elif writing & set(statement["Action"]):
            assert ":artifact/*" in resource


def test_a_role_is_passed_on_to_one_named_service_only(stack: Template, function: Resource) -> None:
    for statement in stack.allowed(stack.target(function.properties["Role"])):
        if "iam:PassRole" in statement["Action"]:
            assert statement["Action"] == ["iam:PassRole"]
            assert list(statement["Condition"]["StringEquals"]) == ["iam:PassedToService"]


def test_its_role_is_its_own_and_only_lambda_assumes_it(stack: Template, function: Resource) -> None:
    role = stack.target(function.properties["Role"])
    users = [f for f in stack.of("AWS::Lambda::Function") if stack.target(f.properties["Role"]) == role]
    assert users == [function]
    (trust,) = role.properties["AssumeRolePolicyDocument"]["Statement"]
    assert (trust["Action"], trust["Principal"]) == ("sts:AssumeRole", {"Service": "lambda.amazonaws.com"})


def test_its_logs_are_its_own_encrypted_and_end_some_day(
    assembly: Assembly, stack: Template, function: Resource, name: str
) -> None:
    logs = stack.target(function.properties["LoggingConfig"]["LogGroup"])
    assert logs.properties["LogGroupName"] == f"/aws/lambda/{name}"
    assert logs.properties["RetentionInDays"] == {"local": 7, "prod": 365}[assembly.env]
    assert assembly.target(stack, logs.properties["KmsKeyId"]).type == "AWS::KMS::Key"
    (writing,) = (
        s for s in stack.allowed(stack.target(function.properties["Role"])) if "logs:PutLogEvents" in s["Action"]
    )
    assert [stack.target(resource) for resource in writing["Resource"]] == [logs]


def test_it_is_traced(function: Resource) -> None:
    assert function.find("TracingConfig", "Mode") == "Active"


def test_what_it_cannot_do_goes_to_the_dead_letters_after_some_tries(
    assembly: Assembly, stack: Template, queue: Resource
) -> None:
    redrive = queue.properties["RedrivePolicy"]
    dead_letters = stack.target(redrive["deadLetterTargetArn"])
    assert dead_letters.properties["QueueName"] == f"noria-{assembly.env}-dead-letters"
    # Fewer than five, and Lambda's own throttling may use them up. Source: Lambda guide, `services-sqs-configure`.
    assert redrive["maxReceiveCount"] >= 5
    # The age of a message counts from its first arrival: the dead-letter queue must keep at least as long.
    assert dead_letters.properties["MessageRetentionPeriod"] >= queue.properties["MessageRetentionPeriod"]


def test_dead_letters_page_somebody_within_a_minute(assembly: Assembly, stack: Template) -> None:
    name = f"noria-{assembly.env}-dead-letters"
    alarm = stack.one("AWS::CloudWatch::Alarm", AlarmName=name)
    (dimension,) = alarm.properties["Dimensions"]
    assert stack.target(dimension["Value"]).properties["QueueName"] == name
    assert alarm.properties["Period"] == 60
    (action,) = alarm.properties["AlarmActions"]
    assert assembly.target(stack, action).properties["TopicName"] == f"noria-{assembly.env}-pages"
    # The first dead letter is one too many, and stays in the alarm until somebody has dealt with it.
    assert alarm.properties["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
    assert (alarm.properties["Threshold"], alarm.properties["EvaluationPeriods"]) == (1, 1)


def test_a_message_stays_hidden_for_six_times_as_long_as_its_function_may_take(
    queue: Resource, function: Resource
) -> None:
    # Source: Lambda guide, `services-sqs-configure`.
    assert queue.properties["VisibilityTimeout"] >= 6 * function.properties["Timeout"]


UPLOADED_BY_THE_THOUSAND = {"validate-upload", "join-labels", "predict-batch", "request-retraining"}


def test_the_worst_call_ends_before_its_function(function: Resource) -> None:
    patience: Any = PATIENCE
    attempts = patience.retries["total_max_attempts"]
    backoff = sum(min(2.0**n, 20.0) for n in range(attempts - 1))  # drawn from zero to this, says botocore
    longest = attempts * (patience.connect_timeout + patience.read_timeout) + backoff
    assert longest < function.properties["Timeout"]


def test_a_prober_outlives_the_longest_answers_of_two_versions(stack: Template, assembly: Assembly) -> None:
    (prober,) = (f for f in stack.of("AWS::Lambda::Function") if "ProbeDeployment" in f.path)
    retries: Any = ASKING.retries  # type: ignore[attr-defined]
    answer = retries["total_max_attempts"] * (PATIENCE.connect_timeout + ASKING.read_timeout)  # type: ignore[attr-defined]
    assert 2 * (LONGEST + answer) + 30 < prober.properties["Timeout"]


def test_of_what_comes_by_the_thousand_so_many_run_at_the_same_time_and_no_more(
    assembly: Assembly, stack: Template, function: Resource, queue: Resource
) -> None:
    """Each bound costs three pollers more of an empty queue: Lambda guide, `services-sqs-scaling`."""
    (mapping,) = (
        m
        for m in stack.of("AWS::Lambda::EventSourceMapping")
        if stack.target(m.properties["FunctionName"]) == function
        and "StartingPosition" not in m.properties  # a stream has no queue before it
    )
    assert stack.target(mapping.properties["EventSourceArn"]) == queue
    name = function.properties["FunctionName"].removeprefix(f"noria-{assembly.env}-")
    assert mapping.find("ScalingConfig", "MaximumConcurrency") == (5 if name in UPLOADED_BY_THE_THOUSAND else None)
    # Reserving would take from the account's share what the event source already limits.
    assert function.find("ReservedConcurrentExecutions") is None


def test_the_largest_batch_and_its_result_fit_on_the_disk_that_they_are_brought_to(
    assembly: Assembly, stack: Template
) -> None:
    """What a job wrote, and the result made of it, each with answers beside the rows."""
    function = stack.one("AWS::Lambda::Function", FunctionName=f"noria-{assembly.env}-predict-batch")
    disk = function.properties["EphemeralStorage"]["Size"] * 2**20
    assert disk >= 2 * 2.5 * LARGEST


def test_schedules_reach_only_the_queues_they_need_and_prove_who_they_are(assembly: Assembly, stack: Template) -> None:
    schedules = [(t, s) for t in assembly.templates.values() for s in t.of("AWS::Scheduler::Schedule")]
    (role,) = {assembly.target(t, s.properties["Target"]["RoleArn"]).id for t, s in schedules}
    sending = (s for s in stack.allowed(stack[role]) if "sqs:SendMessage" in s["Action"])
    reached = {stack.target(arn).properties["QueueName"] for s in sending for arn in s["Resource"]}
    aimed = {
        assembly.target(template, arn).properties["QueueName"]
        for template, schedule in schedules
        for arn in (schedule.properties["Target"]["Arn"], schedule.properties["Target"]["DeadLetterConfig"]["Arn"])
    }
    # What functions book by themselves: a re-check, the next step of a challenger.
    booked = {f"noria-{assembly.env}-{name}" for name in ("request-retraining", "deploy-model")}
    assert reached == aimed | booked | {f"noria-{assembly.env}-dead-letters"}
    (trust,) = stack[role].properties["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert list(trust["Condition"]["StringEquals"]) == ["aws:SourceAccount"]


def test_log_lines_of_endpoints_call_their_function_and_what_fails_goes_to_its_queue(
    assembly: Assembly, stack: Template
) -> None:
    function = stack.one("AWS::Lambda::Function", FunctionName=f"noria-{assembly.env}-keep-predictions")
    allowed = [p for p in stack.of("AWS::Lambda::Permission") if stack.target(p.properties["FunctionName"]) == function]
    (permission,) = allowed
    assert permission.properties["Principal"] == "logs.amazonaws.com"
    assert f":log-group:/aws/sagemaker/Endpoints/noria-{assembly.env}-*:*" in str(permission.properties["SourceArn"])
    assert "SourceAccount" in permission.properties
    (asynchronous,) = stack.of("AWS::Lambda::EventInvokeConfig")
    assert stack.target(asynchronous.properties["FunctionName"]) == function
    queue = stack.target(asynchronous.properties["DestinationConfig"]["OnFailure"]["Destination"])
    assert queue.properties["QueueName"] == f"noria-{assembly.env}-keep-predictions"


def test_the_reconciler_may_count_and_tell_whom_it_names(assembly: Assembly, stack: Template) -> None:
    prefix = f"noria-{assembly.env}-"
    source = (LAMBDAS / "reconcile" / "handler.py").read_text()
    others = {name.replace("_", "-") for name in reactions()} - {"reconcile"}
    named = {prefix + name for name in re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source) if name in others}
    assert len(named) > 9
    role = stack.target(stack.one("AWS::Lambda::Function", FunctionName=f"{prefix}reconcile").properties["Role"])
    for action in ("sqs:GetQueueAttributes", "sqs:SendMessage"):
        allowed = [resource for s in stack.allowed(role) if action in s["Action"] for resource in s["Resource"]]
        assert named <= {stack.target(queue).properties["QueueName"] for queue in allowed}, action
