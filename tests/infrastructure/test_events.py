"""Which events start which reactions: the rules of the templates, on the events of tests/events."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import pytest

from noria.monitors import monitors
from noria.names import EVENT_SOURCE, Area, Names
from noria.spec import load_all
from stacks.bundles import reactions
from stacks.reactions import LANES, lanes
from tests.infrastructure.assembly import ACCOUNT, REGION, REPOSITORY, Assembly, Resource, Template
from tests.infrastructure.patterns import complexity, matches

EVENTS = REPOSITORY / "tests" / "events"

MEANT = {
    "validate-upload-flight-delay": {"aws.s3-object-created"},
    "validate-upload-house-prices": set[str](),  # the same of another model: below
    "validate-upload-uploads": set[str](),  # and of what is no model's
    "join-labels-labels": set[str](),  # the same event, of another area: below
    "join-labels-told": {"noria-labels-told"},
    "predict-batch-uploads": set[str](),  # so is this
    "predict-batch-jobs": {"aws.sagemaker-transform-job-state-change"},
    "start-training-grants": {"noria-retraining-requested"},
    "record-training-executions": {"aws.sagemaker-model-building-pipeline-execution-status-change"},
    "write-card-packages": {"aws.sagemaker-model-package-state-change"},
    "write-card-outcomes": {"noria-training-ended", "noria-model-deployed", "noria-model-rolled-back"},
    "approve-package-trainings": {"noria-training-ended"},
    "deploy-model-packages": {"aws.sagemaker-model-package-state-change"},
    "deploy-model-stacks": {"aws.cloudformation-stack-status-change"},
    "deploy-model-requests": {"noria-serving-requested"},
    "deploy-model-challengers": {"aws.cloudwatch-alarm-state-change-challenger"},
    "confirm-deployment-endpoints": {"aws.sagemaker-endpoint-state-change"},
    "confirm-deployment-deployments": {"aws.sagemaker-endpoint-deployment-state-change"},
    "probe-deployment-endpoints": {"aws.sagemaker-endpoint-state-change"},
    "probe-deployment-deployments": {"aws.sagemaker-endpoint-deployment-state-change"},
    "confirm-deployment-stacks": {"aws.cloudformation-stack-status-change"},
    "request-retraining-alarms": {"aws.cloudwatch-alarm-state-change"},
    "request-retraining-causes": {"noria-dataset-accepted", "noria-retraining-wanted", "noria-training-ended"},
    "reconcile-wishes": {"noria-events-sent-again", "noria-pause-requested"},
}
"""What each rule is for, by its name after the environment's."""


def event(name: str, *, env: str = "local") -> dict[str, Any]:
    """A captured event as it would come to this environment."""
    text = (EVENTS / f"{name}.json").read_text()
    text = text.replace("noria-local-data", "noria-local-data-123456789012-us-east-1").replace(
        "noria-local", f"noria-{env}"
    )
    captured: dict[str, Any] = json.loads(text)
    del captured["_source"]
    return captured


def reactions_stack(assembly: Assembly) -> Template:
    return assembly[f"noria-{assembly.env}-reactions"]


def rules(assembly: Assembly) -> dict[str, Resource]:
    start = f"noria-{assembly.env}-"
    return {rule.properties["Name"].removeprefix(start): rule for rule in assembly.all("AWS::Events::Rule")}


def matched(assembly: Assembly, happened: dict[str, Any]) -> set[str]:
    return {name for name, rule in rules(assembly).items() if matches(rule.properties["EventPattern"], happened)}


def test_every_rule_matches_what_it_is_for_and_nothing_else(assembly: Assembly) -> None:
    captured = {path.stem: event(path.stem, env=assembly.env) for path in EVENTS.glob("*.json")}
    found = {
        name: {stem for stem, happened in captured.items() if matches(rule.properties["EventPattern"], happened)}
        for name, rule in rules(assembly).items()
    }
    assert found == MEANT


def test_an_object_starts_a_reaction_by_the_area_it_is_put_into(assembly: Assembly) -> None:
    def into(key: str) -> set[str]:
        happened = event("aws.s3-object-created", env=assembly.env)
        happened["detail"]["object"]["key"] = key
        return matched(assembly, happened)

    assert into("flight-delay/incoming/2013/january.csv") == {"validate-upload-flight-delay"}
    assert into("house-prices/incoming/2013.csv") == {"validate-upload-house-prices"}
    assert into("unheard-of/quarantine/1/2013.csv") == set()
    assert into("unheard-of/incoming/2013.csv") == {"validate-upload-uploads"}, (
        "somebody must be told that it is refused"
    )
    assert into("flight-delay/labels/2013-01.csv") == {"join-labels-labels"}
    assert into("flight-delay/batch/2013/week.csv") == {"predict-batch-uploads"}
    assert into("flight-delay/batch/week.jsonl") == {"predict-batch-uploads"}
    assert into("flight-delay/batch/WEEK.CSV") == {"predict-batch-uploads"}
    assert into("flight-delay/batch/week.xlsx") == {"predict-batch-uploads"}, "somebody must be told that it is refused"
    for area in (
        "transforms",
        "async",
        "datasets",
        "quarantine",
        "captured",
        "reports",
        "baselines",
        "trainings",
        "runs",
    ):
        assert into(f"flight-delay/{area}/x.csv") == set(), area


@pytest.mark.parametrize("count", [0, 1, LANES, LANES + 1, 3 * LANES])
def test_every_upload_has_one_lane_and_what_is_written_for_a_model_has_none(count: int) -> None:
    models = [f"model-{number:03}".ljust(32, "x") for number in range(count)]
    rules = lanes(models)

    def into(key: str) -> list[str]:
        return [lane for lane, wanted in rules.items() if matches({"key": [wanted]}, {"key": key})]

    for model in models:
        assert into(f"{model}/incoming/2013/january.csv") == [model if count <= LANES else "uploads"]
        for area in set(get_args(Area)) - {"incoming"}:
            assert into(f"{model}/{area}/2013/january.csv") == [], area
    assert into("unheard-of/incoming/2013.csv") == ["uploads"], "somebody must be told that it is refused"
    for area in ("captured", "quarantine", "transforms"):  # what comes with each request, or with each refusal
        assert into(f"unheard-of/{area}/2013.csv") == [], area
    assert all(len(json.dumps(wanted)) < 1800 for wanted in rules.values()), "a pattern has 2,048 characters"


def test_no_rule_is_more_complex_than_eventbridge_takes(assembly: Assembly) -> None:
    def of_stacks(*names: str) -> int:
        return complexity({"stack-id": [{"wildcard": f"*:stack/{name}/*"} for name in names]})

    assert complexity({"key": [{"anything-but": {"wildcard": ["*/lib/*", "*/bin/*", "*/etc/*", "*/opt/*"]}}]}) == 7
    # EventBridge took the first of these and refused the second: vals-ai/Valkyrie, pull request 278.
    taken, refused = of_stacks("Shared", "Api", "Data"), of_stacks("Shared", "Api", "Data", "Monitoring")
    assert (taken, refused) == (9, 12)
    for name, rule in rules(assembly).items():
        assert complexity(rule.properties["EventPattern"]) <= taken, name
    assert {complexity({"key": [lane]}) for lane in lanes(["a", "captured", "a-b"]).values()} == {0, 7}


def test_queues_are_fair_between_models_wherever_many_events_of_one_can_come(assembly: Assembly) -> None:
    groups = {
        name: target["SqsParameters"]["MessageGroupId"]
        for name, rule in rules(assembly).items()
        for target in rule.properties["Targets"]
        if "SqsParameters" in target
    }
    assert groups == {
        "validate-upload-flight-delay": "flight-delay",
        "validate-upload-house-prices": "house-prices",
        "request-retraining-causes": "$.detail.model",
        "start-training-grants": "$.detail.model",
    }
    for name in ("request-retraining-causes", "start-training-grants"):
        assert rules(assembly)[name].properties["EventPattern"]["detail"]["model"] == [{"exists": True}]


def test_the_alarms_that_may_ask_for_a_training_do_and_no_others(assembly: Assembly, models: Path) -> None:
    names = Names(env=assembly.env)
    asking = {
        names.monitor_alarm(spec.model, monitor.name)
        for spec in load_all(models)
        for monitor in monitors(spec)
        if monitor.trigger
    }
    heard = set()
    for alarm in assembly.all("AWS::CloudWatch::Alarm"):
        if isinstance(name := alarm.properties["AlarmName"], str):
            happened = event("aws.cloudwatch-alarm-state-change", env=assembly.env)
            happened["detail"]["alarmName"] = name
            heard |= {name} if "request-retraining-alarms" in matched(assembly, happened) else set()
    assert {"drift", "quality"} <= {name.rsplit("-", 1)[-1] for name in asking}
    assert any("-bias-" in name for name in asking)
    assert heard == asking


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("aws.s3-object-created", "detail/bucket/name", "somebody-elses"),
        ("aws.s3-object-created", "detail-type", "Object Deleted"),
        # Each mark that confirm_deployment makes on a package is such an event: it must not deploy the package again.
        ("aws.sagemaker-model-package-state-change", "detail/UpdatedModelPackageFields", ["CustomerMetadata"]),
        ("aws.sagemaker-model-package-state-change", "detail/ModelPackageGroupName", "other-local-group"),
        (
            "aws.sagemaker-model-building-pipeline-execution-status-change",
            "detail/currentPipelineExecutionStatus",
            "Executing",
        ),
        ("aws.sagemaker-endpoint-state-change", "detail/EndpointStatus", "UPDATING"),
        ("aws.sagemaker-endpoint-state-change", "detail/EndpointName", "somebody-elses"),
        ("aws.cloudformation-stack-status-change", "detail/status-details/status", "UPDATE_IN_PROGRESS"),
        (
            "aws.cloudformation-stack-status-change",
            "detail/stack-id",
            "arn:aws:cloudformation:us-east-1:123456789012:stack/noria-local-reactions/5c2d",
        ),
        ("aws.cloudwatch-alarm-state-change", "detail/state/value", "OK"),
        ("aws.cloudwatch-alarm-state-change", "detail/state/value", "INSUFFICIENT_DATA"),
        ("aws.cloudwatch-alarm-state-change", "detail/alarmName", "noria-local-flight-delay-endpoint-errors"),
        ("noria-dataset-accepted", "source", "somebody"),
    ],
)
def test_what_is_not_ours_or_not_settled_starts_nothing(name: str, path: str, value: object, local: Assembly) -> None:
    happened = event(name)
    assert matched(local, happened), "the event as captured starts something"
    *parents, field = path.split("/")
    inner = happened
    for parent in parents:
        inner = inner[parent]
    inner[field] = value
    assert matched(local, happened) == set()


def test_an_environment_does_not_react_to_another_one(local: Assembly, prod: Assembly) -> None:
    of_aws = [path.stem for path in EVENTS.glob("aws.*.json")]
    for name in of_aws:
        assert matched(prod, event(name, env="local")) == set(), name
        assert matched(local, event(name, env="prod")) == set(), name


def test_our_own_events_are_looked_for_on_our_own_bus_and_those_of_aws_on_the_default_one(assembly: Assembly) -> None:
    for name, rule in rules(assembly).items():
        (source,) = rule.properties["EventPattern"]["source"]
        bus = rule.properties.get("EventBusName")
        if source == EVENT_SOURCE:
            found = assembly.target(reactions_stack(assembly), bus)
            assert (found.type, found.properties["Name"]) == ("AWS::Events::EventBus", f"noria-{assembly.env}"), name
        else:
            assert bus is None, name


def triggers(assembly: Assembly) -> Iterator[tuple[str, Resource, Resource, Resource]]:
    """Name, rule, queue and dead-letter queue of each rule's only target."""
    template = reactions_stack(assembly)
    for name, rule in rules(assembly).items():
        (target,) = rule.properties["Targets"]
        yield name, rule, template.target(target["Arn"]), template.target(target["DeadLetterConfig"]["Arn"])


def test_each_rule_delivers_to_its_reactions_queue_patiently_and_what_it_cannot_deliver_is_kept(
    assembly: Assembly,
) -> None:
    for name, rule, queue, dead_letters in triggers(assembly):
        reaction = next(r.replace("_", "-") for r in reactions() if name.startswith(f"{r.replace('_', '-')}-"))
        assert queue.properties["QueueName"] == f"noria-{assembly.env}-{reaction}"
        assert dead_letters.properties["QueueName"] == f"noria-{assembly.env}-dead-letters"
        (target,) = rule.properties["Targets"]
        assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] >= 3600, name
        assert target["RetryPolicy"]["MaximumRetryAttempts"] > 0, name
        assert rule.properties["State"] == "ENABLED", name


def test_a_queue_takes_events_from_the_rules_that_target_it_and_from_no_other(assembly: Assembly) -> None:
    template = reactions_stack(assembly)
    aimed: dict[str, set[str]] = {}
    for _, rule, queue, _ in triggers(assembly):
        aimed.setdefault(queue.id, set()).add(rule.id)
    for queue in template.of("AWS::SQS::Queue"):
        if queue.properties["QueueName"] == f"noria-{assembly.env}-dead-letters":
            continue
        allowed = [s for s in template.queue_policy(queue) if s["Effect"] == "Allow"]
        assert all(s["Principal"] == {"Service": "events.amazonaws.com"} for s in allowed), queue.path
        assert all(s["Action"] == ["sqs:SendMessage"] for s in allowed), queue.path
        sources = [template.target(arn).id for s in allowed for arn in _listed(s["Condition"]["ArnEquals"])]
        assert set(sources) == aimed.get(queue.id, set()), queue.path
        assert len(allowed) == bool(sources), "a policy has room for twenty statements, and models for forty rules"


def _listed(condition: dict[str, Any]) -> list[Any]:
    arns = condition["aws:SourceArn"]
    return arns if isinstance(arns, list) else [arns]


def test_dead_letters_are_taken_from_the_rules_of_this_environment_alone(assembly: Assembly) -> None:
    template, name = reactions_stack(assembly), f"noria-{assembly.env}"
    queue = template.one("AWS::SQS::Queue", QueueName=f"{name}-dead-letters")
    (allowed,) = (s for s in template.queue_policy(queue) if s["Effect"] == "Allow")
    assert (allowed["Principal"], allowed["Action"]) == ({"Service": "events.amazonaws.com"}, ["sqs:SendMessage"])
    patterns = [assembly.flat(arn) for arn in allowed["Condition"]["ArnLike"]["aws:SourceArn"]]
    assert all(f":events:{REGION}:{ACCOUNT}:rule/{name}" in pattern for pattern in patterns), patterns
    for _, rule, _, _ in triggers(assembly):
        own = f"{name}/" if "EventBusName" in rule.properties else ""
        arn = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{own}{rule.properties['Name']}"
        assert any(fnmatchcase(arn, pattern) for pattern in patterns), arn
    foreign = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/else"
    assert not any(fnmatchcase(foreign, pattern) for pattern in patterns)


def test_each_queue_feeds_the_function_of_its_name_one_event_at_a_time(assembly: Assembly) -> None:
    template = reactions_stack(assembly)
    fed = {}
    for mapping in template.of("AWS::Lambda::EventSourceMapping"):
        if "StartingPosition" in mapping.properties:  # a stream: tests/infrastructure/test_ledger.py
            continue
        assert mapping.properties["BatchSize"] == 1
        queue = template.target(mapping.properties["EventSourceArn"])
        function = template.target(mapping.properties["FunctionName"])
        fed[queue.properties["QueueName"]] = function.properties["FunctionName"]
    names = {f"noria-{assembly.env}-{reaction.replace('_', '-')}" for reaction in reactions()}
    assert fed == {name: name for name in names}


def test_what_schedules_send_is_what_the_captured_ticks_look_like(assembly: Assembly) -> None:
    """The shape of a tick: its detail names the model where there is one, and the time it was due."""
    ticks = {path.stem: json.loads(path.read_text()) for path in EVENTS.glob("noria.schedule-*.json")}
    shapes = {tick["detail-type"]: set(tick["detail"]) for tick in ticks.values()}
    for schedule in assembly.all("AWS::Scheduler::Schedule"):
        sent = json.loads(schedule.properties["Target"]["Input"])
        assert sent["source"] == "noria.schedule"
        assert set(sent["detail"]) == shapes[sent["detail-type"]], schedule.path
        assert sent["detail"]["time"] == "<aws.scheduler.scheduled-time>"
