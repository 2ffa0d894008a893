"""Every way to answer and to go live: for each option what the stacks have with it, and what without."""

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from lambdas.predict_batch import handler as predict_batch
from noria.serve import Serve
from noria.spec import load_all
from tests.infrastructure import test_alarms, test_monitoring
from tests.infrastructure.assembly import Assembly, Resource, Template
from tests.infrastructure.conftest import WAYS
from tests.infrastructure.deployed import Deployed

PACKAGE = "arn:aws:sagemaker:us-east-1:123456789012:model-package/noria-dev-any"
LIVE = {"ModelPackageArn": f"{PACKAGE}/1"}
CHALLENGED = LIVE | {"ChallengerPackageArn": f"{PACKAGE}/2", "ChallengerWeight": "0.25"}

REALTIME = ("at-once", "canary", "linear", "rolling", "gradual")
ASYNC = ("queued", "waiting")
SERVERLESS = ("idle", "silent")
SCALED = ("rolling", "queued", "waiting")
WITH_INSTANCES = REALTIME + ASYNC
WITH_ENDPOINT = WITH_INSTANCES + SERVERLESS


@pytest.fixture
def serve(ways: Assembly, twice: Any) -> Mapping[str, Serve]:
    return {spec.model: spec.serve for spec in load_all(twice[0].parent / "models")}


def serving(ways: Assembly, model: str) -> Template:
    return ways[f"noria-dev-{model}-serving"]


def training(ways: Assembly, model: str) -> Template:
    return ways[f"noria-dev-{model}-training"]


def endpoint(ways: Assembly, model: str, **parameters: str) -> dict[str, Any]:
    return Deployed(serving(ways, model), **(parameters or LIVE)).properties("AWS::SageMaker::Endpoint")


def config(ways: Assembly, model: str, **parameters: str) -> dict[str, Any]:
    return Deployed(serving(ways, model), **(parameters or LIVE)).properties("AWS::SageMaker::EndpointConfig")


def policy(ways: Assembly, model: str, **parameters: str) -> dict[str, Any]:
    found: dict[str, Any] = endpoint(ways, model, **parameters)["DeploymentConfig"]
    return found


# --- strategies


def blue_green(type_: str, *, bake: int, last: int, **size: Any) -> dict[str, Any]:
    routing = {"Type": type_, "WaitIntervalInSeconds": bake, **size}
    return {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": last}


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def instances(value: int) -> dict[str, Any]:
    return {"Type": "INSTANCE_COUNT", "Value": value}


EXPECTED = {
    "at-once": {"BlueGreenUpdatePolicy": blue_green("ALL_AT_ONCE", bake=1200, last=1200)},
    "canary": {"BlueGreenUpdatePolicy": blue_green("CANARY", bake=600, last=1800, CanarySize=percent(25))},
    "linear": {"BlueGreenUpdatePolicy": blue_green("LINEAR", bake=300, last=300, LinearStepSize=instances(2))},
    "rolling": {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": percent(25),
            "WaitIntervalInSeconds": 600,
            "RollbackMaximumBatchSize": percent(100),
        }
    },
    "gradual": {"BlueGreenUpdatePolicy": blue_green("ALL_AT_ONCE", bake=600, last=600)},
    "queued": {"BlueGreenUpdatePolicy": blue_green("ALL_AT_ONCE", bake=600, last=600)},
    "waiting": {"BlueGreenUpdatePolicy": blue_green("CANARY", bake=600, last=300, CanarySize=instances(2))},
}


@pytest.mark.parametrize("model", WITH_INSTANCES)
def test_a_new_version_takes_over_as_the_strategy_says(ways: Assembly, model: str) -> None:
    found = policy(ways, model)
    del found["AutoRollbackConfiguration"]
    for timed in found.values():
        del timed["MaximumExecutionTimeoutInSeconds"]
    assert found == EXPECTED[model]


@pytest.mark.parametrize("parameters", [LIVE, CHALLENGED], ids=["alone", "challenged"])
@pytest.mark.parametrize("model", REALTIME)
def test_a_deployment_has_time_for_its_waits_and_is_one_that_sagemaker_accepts(
    ways: Assembly, serve: Mapping[str, Serve], model: str, parameters: dict[str, str]
) -> None:
    found = policy(ways, model, **parameters)
    request = {"EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": plain(found)}
    assert problems("UpdateEndpoint", request) == ""
    (timed,) = (found[kind] for kind in ("BlueGreenUpdatePolicy", "RollingUpdatePolicy") if kind in found)
    each = timed.get("WaitIntervalInSeconds") or timed["TrafficRoutingConfiguration"]["WaitIntervalInSeconds"]
    waits = serve[model].steps * each + timed.get("TerminationWaitInSeconds", 0)
    assert waits < timed["MaximumExecutionTimeoutInSeconds"] <= 28800


def test_a_rolling_deployment_of_two_variants_which_sagemaker_cannot_do_goes_at_once(ways: Assembly) -> None:
    assert "RollingUpdatePolicy" in policy(ways, "rolling")
    beside = policy(ways, "rolling", **CHALLENGED)
    assert "RollingUpdatePolicy" not in beside
    assert beside["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == "ALL_AT_ONCE"
    assert beside["AutoRollbackConfiguration"] == policy(ways, "rolling")["AutoRollbackConfiguration"]


@pytest.mark.parametrize("model", ["at-once", "canary", "linear", "gradual"])
def test_any_other_strategy_stays_as_it_is_beside_a_challenger(ways: Assembly, model: str) -> None:
    assert policy(ways, model, **CHALLENGED) == policy(ways, model)


@pytest.mark.parametrize("model", REALTIME)
def test_the_way_back_is_one_step_and_watched_as_ever(ways: Assembly, serve: Mapping[str, Serve], model: str) -> None:
    back = policy(ways, model, **LIVE, Guardrails="at-once")
    assert back["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == "ALL_AT_ONCE"
    assert back["BlueGreenUpdatePolicy"]["TerminationWaitInSeconds"] >= serve[model].bake.total_seconds()
    assert back["AutoRollbackConfiguration"] == policy(ways, model)["AutoRollbackConfiguration"]


@pytest.mark.parametrize("model", REALTIME)
def test_a_challenger_begins_and_ends_without_guardrails(ways: Assembly, model: str) -> None:
    for parameters in (LIVE, CHALLENGED):
        assert "DeploymentConfig" not in endpoint(ways, model, **parameters, Guardrails="off")


# --- what speaks against a version


def alarms(ways: Assembly, model: str, role: str, **parameters: str) -> dict[str, Resource]:
    start = f"noria-dev-{model}-{role}-"
    found = Deployed(serving(ways, model), **(parameters or LIVE)).of("AWS::CloudWatch::Alarm")
    names = {alarm.properties["AlarmName"]: alarm for alarm in found}
    return {name.removeprefix(start): alarm for name, alarm in names.items() if name.startswith(start)}


def test_alarms_of_every_way_tell_somebody_and_look_at_what_is_published(ways: Assembly) -> None:
    test_alarms.test_every_alarm_says_what_silence_means(ways)
    test_alarms.test_every_alarm_tells_somebody_by_its_severity_or_is_a_child_of_one_that_does_or_acts(ways)
    test_alarms.test_children_are_as_severe_as_what_speaks_for_them(ways)
    test_alarms.test_every_alarm_looks_at_a_metric_that_something_publishes(ways, ways.directory.parent / "models")
    test_alarms.test_every_alarm_names_a_runbook(ways)


ALL = {"errors", "latency", "golden", "shift"}
JUDGED_BY = dict.fromkeys(REALTIME, ALL) | {
    "gradual": {"errors", "latency"},  # golden: 0, prediction_shift: null
    "queued": {"errors", "latency"},  # an asynchronous endpoint cannot be asked while it is deployed
    "waiting": {"errors", "latency"},
}


@pytest.mark.parametrize("model", WITH_INSTANCES)
def test_a_deployment_goes_back_on_each_rollback_alarm(ways: Assembly, model: str) -> None:
    watched = policy(ways, model)["AutoRollbackConfiguration"]["Alarms"]
    named = {serving(ways, model).target(alarm["AlarmName"]).id for alarm in watched}
    judging = alarms(ways, model, "rollback")
    assert set(judging) == JUDGED_BY[model]
    assert named == {alarm.id for alarm in judging.values()}
    assert len(named) <= 10  # AutoRollbackConfig (API)


@pytest.mark.parametrize("model", REALTIME)
def test_a_challenger_is_judged_as_a_new_version_is_while_there_is_one(ways: Assembly, model: str) -> None:
    assert not alarms(ways, model, "challenger")
    judging = alarms(ways, model, "challenger", **CHALLENGED)
    assert set(judging) == JUDGED_BY[model]
    for what, alarm in judging.items():
        same = alarms(ways, model, "rollback")[what]
        assert alarm.properties["Threshold"] == same.properties["Threshold"]
        text = json.dumps(alarm.properties)
        assert '"VariantName", "Value": "challenger"' in text
        assert '"Value": "champion"' not in text
        assert '"EndpointConfigName", "Value": {"Fn::GetAtt"' in text


@pytest.mark.parametrize("model", ASYNC)
def test_requests_of_an_asynchronous_endpoint_are_counted_by_what_it_publishes(ways: Assembly, model: str) -> None:
    """There is no metric Invocations. Source: SageMaker guide, `async-inference-monitor`."""
    watched = [*alarms(ways, model, "rollback").values()]
    watched += ways[f"noria-dev-{model}-monitoring"].of("AWS::CloudWatch::Alarm")
    stats = [part["MetricStat"] for a in watched for part in a.properties.get("Metrics", []) if "MetricStat" in part]
    looked_at = {(stat["Metric"]["MetricName"], stat["Stat"]) for stat in stats}
    assert looked_at == {("Invocation5XXErrors", "Sum"), ("ModelLatency", "SampleCount"), ("ModelLatency", "p95")}


# --- modes


@pytest.mark.parametrize("model", WAYS)
def test_a_stack_says_how_its_model_answers(ways: Assembly, serve: Mapping[str, Serve], model: str) -> None:
    assert Deployed(serving(ways, model)).outputs["Mode"] == serve[model].mode.value


def parameters(model: str) -> set[str]:
    found = {"ModelPackageArn"}
    if model in WITH_INSTANCES:
        found |= {"Guardrails"}
    if model in REALTIME:
        found |= {"ChallengerPackageArn", "ChallengerWeight", "ShadowPackageArn"}
    return found


@pytest.mark.parametrize("model", WAYS)
def test_a_stack_can_be_asked_only_for_what_its_mode_can_do(ways: Assembly, model: str) -> None:
    assert set(serving(ways, model).body["Parameters"]) == parameters(model)


@pytest.mark.parametrize("model", WITH_ENDPOINT)
def test_a_configuration_is_one_that_sagemaker_accepts(ways: Assembly, model: str) -> None:
    request = {"EndpointConfigName": "c", **plain(config(ways, model))}
    assert problems("CreateEndpointConfig", request) == ""


@pytest.mark.parametrize("model", WITH_INSTANCES)
def test_with_instances_a_model_is_isolated_and_sagemaker_captures(ways: Assembly, model: str) -> None:
    (served,) = Deployed(serving(ways, model), **LIVE).of("AWS::SageMaker::Model")
    assert served.properties["EnableNetworkIsolation"] is True
    assert "Environment" not in served.properties["PrimaryContainer"]
    assert config(ways, model)["DataCaptureConfig"]["EnableCapture"] is True
    (variant,) = config(ways, model)["ProductionVariants"]
    assert "ServerlessConfig" not in variant


@pytest.mark.parametrize(("model", "memory", "concurrency"), [("idle", 3072, 20), ("silent", 2048, 5)])
def test_serverless_has_neither_instances_nor_what_sagemaker_refuses_it(
    ways: Assembly, model: str, memory: int, concurrency: int
) -> None:
    """Source: SageMaker guide, `serverless-endpoints`, feature exclusions; `deployment-guardrails`."""
    (variant,) = config(ways, model)["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": memory, "MaxConcurrency": concurrency}
    assert not {"InstanceType", "InitialInstanceCount"} & variant.keys()
    assert config(ways, model).keys() == {"ProductionVariants", "Tags"}
    assert endpoint(ways, model).keys() == {"EndpointName", "EndpointConfigName", "Tags"}
    (served,) = Deployed(serving(ways, model), **LIVE).of("AWS::SageMaker::Model")
    assert "EnableNetworkIsolation" not in served.properties
    assert not alarms(ways, model, "rollback")


def test_what_serverless_answers_goes_from_its_log_to_the_function_that_keeps_it(ways: Assembly) -> None:
    (served,) = Deployed(serving(ways, "idle"), **LIVE).of("AWS::SageMaker::Model")
    assert served.find("PrimaryContainer", "Environment") == {"NORIA_CAPTURE": "stdout"}
    given = serving(ways, "idle").one("AWS::Logs::SubscriptionFilter")
    group = serving(ways, "idle").target(given.properties["LogGroupName"])
    assert group.properties["LogGroupName"] == "/aws/sagemaker/Endpoints/noria-dev-idle"
    assert str(given.properties["DestinationArn"]).endswith(":123456789012:function:noria-dev-keep-predictions")
    # Lambda must allow it, and before.
    allowed = ways["noria-dev-reactions"].one("AWS::Lambda::Permission", Principal="logs.amazonaws.com")
    arn = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/noria-dev-idle:*"
    assert fnmatch.fnmatchcase(arn, ways.flat(allowed.properties["SourceArn"]))
    assert "Reactions" in " ".join(ways.manifest["artifacts"]["idle-serving"]["dependencies"])


def test_nothing_is_kept_of_what_the_spec_does_not_want_captured(ways: Assembly) -> None:
    (served,) = Deployed(serving(ways, "silent"), **LIVE).of("AWS::SageMaker::Model")
    assert served.find("PrimaryContainer", "Environment") is None
    assert not serving(ways, "silent").of("AWS::Logs::SubscriptionFilter")


@pytest.mark.parametrize("model", WITH_INSTANCES)
def test_no_log_is_sent_where_sagemaker_captures(ways: Assembly, model: str) -> None:
    assert not serving(ways, model).of("AWS::Logs::SubscriptionFilter")


@pytest.mark.parametrize("model", WITH_ENDPOINT)
def test_the_log_of_an_endpoint_is_there_before_it_encrypted_and_ends_some_day(ways: Assembly, model: str) -> None:
    stack = serving(ways, model)
    group = stack.one("AWS::Logs::LogGroup")
    assert group.properties["RetentionInDays"] == 30
    key = ways.target(stack, group.properties["KmsKeyId"])
    assert key.type == "AWS::KMS::Key"
    assert "log-group:/aws/sagemaker/Endpoints/noria-dev-*" in json.dumps(key.properties["KeyPolicy"])
    assert group.id in stack.one("AWS::SageMaker::Endpoint").body["DependsOn"]


@pytest.mark.parametrize("model", ASYNC)
def test_an_asynchronous_endpoint_answers_in_the_models_own_areas_and_tells_its_own_topics(
    ways: Assembly, model: str
) -> None:
    bucket = "noria-dev-data-123456789012-us-east-1"
    output = config(ways, model)["AsyncInferenceConfig"]["OutputConfig"]
    assert output["S3OutputPath"] == f"s3://{bucket}/{model}/async-results"
    assert output["S3FailurePath"] == f"s3://{bucket}/{model}/async-failures"
    assert ways.target(serving(ways, model), output["KmsKeyId"]).type == "AWS::KMS::Key"
    told = output["NotificationConfig"]
    topics = {topic.properties["TopicName"]: topic for topic in training(ways, model).of("AWS::SNS::Topic")}
    assert topics.keys() == {f"noria-dev-{model}-async-results", f"noria-dev-{model}-async-failures"}
    assert ways.flat(told["SuccessTopic"]).endswith(f":noria-dev-{model}-async-results")
    assert ways.flat(told["ErrorTopic"]).endswith(f":noria-dev-{model}-async-failures")
    assert all(topic.properties["KmsMasterKeyId"] for topic in topics.values())
    allowed = grants(ways, model, "ModelRole")
    assert {ways.flat(arn) for arn in allowed["sns:Publish"]} == {f"<{topic.id}>" for topic in topics.values()}
    assert reaches(allowed["s3:GetObject"]) >= {f"{model}/async/*"}
    assert reaches(allowed["s3:PutObject"]) >= {f"{model}/async-results/*", f"{model}/async-failures/*"}


def test_a_batch_model_is_all_there_is_and_named_while_it_is_live(ways: Assembly) -> None:
    stack = serving(ways, "nightly")
    assert {resource.type for resource in stack.resources} == {"AWS::SageMaker::Model"}
    live, none = Deployed(stack, **LIVE), Deployed(stack)
    (served,) = live.of("AWS::SageMaker::Model")
    assert served.find("PrimaryContainer", "ModelPackageName") == {"Ref": "ModelPackageArn"}
    assert live.outputs["ChampionModelName"] == {"Fn::GetAtt": [served.id, "ModelName"]}
    assert not none.of("AWS::SageMaker::Model")
    assert "ChampionModelName" not in none.outputs
    allowed = grants(ways, "nightly", "ModelRole")
    assert reaches(allowed["s3:GetObject"]) >= {"nightly/transforms/*"}
    assert reaches(allowed["s3:PutObject"]) >= {"nightly/transforms/*"}


def test_of_a_model_without_an_endpoint_nothing_is_captured_to_compare_and_what_it_answered_is_shown(
    ways: Assembly,
) -> None:
    watching = ways["noria-dev-nightly-monitoring"]
    (dashboard,) = watching.resources  # CloudFormation refuses a stack without any
    widgets = json.loads(ways.flat(dashboard.properties["DashboardBody"]))["widgets"]
    # As `tell` of noria.aws.telemetry counts them.
    shown = list(test_monitoring.shown(widgets))
    assert all((space, of) == ("Noria", {"Model": "nightly", "service": "noria"}) for space, _, of in shown)
    counted = {outcome.value for outcome in predict_batch.Outcome}
    assert {name for _, name, _ in shown} & counted == {"BatchStarted", "BatchPredicted", "BatchFailed", "BatchRefused"}


@pytest.mark.parametrize("model", WITH_INSTANCES)
def test_at_both_ends_of_its_hours_deploy_model_hears_of_it(ways: Assembly, model: str) -> None:
    watching = ways[f"noria-dev-{model}-monitoring"]
    turns = {
        name: schedule.properties
        for schedule in watching.of("AWS::Scheduler::Schedule")
        if (name := schedule.properties["Name"].removeprefix(f"noria-dev-{model}-")) != "monitor"
    }
    if model != "linear":
        assert turns == {}
        return
    said = {name: (turn["ScheduleExpression"], turn["ScheduleExpressionTimezone"]) for name, turn in turns.items()}
    assert said == {
        "on": ("cron(30 6 ? * MON,TUE,WED,THU,FRI,SAT *)", "Europe/Madrid"),
        "off": ("cron(0 20 ? * MON,TUE,WED,THU,FRI,SAT *)", "Europe/Madrid"),
    }
    for turn in turns.values():
        assert ways.target(watching, turn["Target"]["Arn"]).properties["QueueName"] == "noria-dev-deploy-model"
        sent = json.loads(turn["Target"]["Input"])
        assert (sent["detail-type"], sent["detail"]["model"]) == ("Keep Hours", "linear")


@pytest.mark.parametrize("model", WITH_ENDPOINT)
def test_of_every_endpoint_windows_are_compared(ways: Assembly, model: str) -> None:
    watching = ways[f"noria-dev-{model}-monitoring"]
    assert watching.one("AWS::Scheduler::Schedule", Name=f"noria-dev-{model}-monitor")
    assert watching.one("AWS::CloudWatch::Alarm", AlarmName=f"noria-dev-{model}-drift")


@pytest.mark.parametrize("model", sorted(set(WAYS) - set(ASYNC)))
def test_a_role_reaches_bundles_captures_and_transforms_only(ways: Assembly, model: str) -> None:
    allowed = grants(ways, model, "ModelRole")
    assert reaches(allowed["s3:GetObject"]) == {f"{model}/runs/*", f"{model}/transforms/*"}
    assert reaches(allowed["s3:PutObject"]) == {f"{model}/captured/*", f"{model}/transforms/*"}
    assert "sns:Publish" not in allowed
    assert not training(ways, model).of("AWS::SNS::Topic")


# --- scaling


TARGET, POLICY = "AWS::ApplicationAutoScaling::ScalableTarget", "AWS::ApplicationAutoScaling::ScalingPolicy"


def scaling(ways: Assembly, model: str, type_: str) -> Resource:
    (found,) = (p for p in serving(ways, model).of(POLICY) if p.properties["PolicyType"] == type_)
    return found


@pytest.mark.parametrize(("model", "least", "most"), [("rolling", 4, 12), ("queued", 0, 3), ("waiting", 4, 6)])
def test_the_champions_fleet_is_kept_within_the_specs_bounds(ways: Assembly, model: str, least: int, most: int) -> None:
    target = serving(ways, model).one(TARGET)
    assert (target.properties["MinCapacity"], target.properties["MaxCapacity"]) == (least, most)
    assert target.properties["ResourceId"] == f"endpoint/noria-dev-{model}/variant/champion"
    assert target.properties["ScalableDimension"] == "sagemaker:variant:DesiredInstanceCount"
    assert target.properties["ServiceNamespace"] == "sagemaker"


@pytest.mark.parametrize("model", SCALED)
def test_scaling_begins_after_the_endpoint_and_ends_before_it(ways: Assembly, model: str) -> None:
    stack = serving(ways, model)
    target = stack.one(TARGET)
    assert stack.one("AWS::SageMaker::Endpoint").id in target.body["DependsOn"]
    assert Deployed(stack, **LIVE).of(TARGET)
    assert Deployed(stack, **LIVE).outputs["ScalingTarget"] == {"Ref": target.id}
    assert "ScalingTarget" not in Deployed(stack).outputs
    for type_ in (TARGET, POLICY):
        assert not Deployed(stack).of(type_)
    assert all(stack.target(p.properties["ScalingTargetId"]) == target for p in stack.of(POLICY))


def test_bounds_change_by_the_clock_of_the_place_that_the_spec_names(ways: Assembly) -> None:
    morning, evening = serving(ways, "rolling").one(TARGET).properties["ScheduledActions"]
    assert (morning["Schedule"], morning["Timezone"]) == ("cron(0 7 ? * MON-FRI *)", "Europe/Madrid")
    assert morning["ScalableTargetAction"] == {"MinCapacity": 8, "MaxCapacity": 12}
    assert evening["ScalableTargetAction"] == {"MinCapacity": 4, "MaxCapacity": 12}
    assert morning["ScheduledActionName"] != evening["ScheduledActionName"]
    assert not serving(ways, "queued").one(TARGET).properties["ScheduledActions"]


def test_a_real_time_fleet_follows_its_requests(ways: Assembly) -> None:
    followed = scaling(ways, "rolling", "TargetTrackingScaling").properties
    assert followed["TargetTrackingScalingPolicyConfiguration"] == {
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        "TargetValue": 600,
        "ScaleOutCooldown": 60,
        "ScaleInCooldown": 600,
    }


@pytest.mark.parametrize("model", ASYNC)
def test_an_asynchronous_fleet_follows_what_waits(ways: Assembly, model: str) -> None:
    followed = scaling(ways, model, "TargetTrackingScaling").properties["TargetTrackingScalingPolicyConfiguration"]
    assert followed["CustomizedMetricSpecification"] == {
        "Namespace": "AWS/SageMaker",
        "MetricName": "ApproximateBacklogSizePerInstance",
        "Dimensions": [{"Name": "EndpointName", "Value": f"noria-dev-{model}"}],
        "Statistic": "Average",
    }
    assert followed["TargetValue"] == 5


def test_the_first_instance_is_started_by_what_waits_for_it(ways: Assembly) -> None:
    step = scaling(ways, "queued", "StepScaling")
    assert step.properties["StepScalingPolicyConfiguration"]["StepAdjustments"] == [
        {"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}
    ]
    (alarm,) = (a for a in serving(ways, "queued").of("AWS::CloudWatch::Alarm") if "AlarmActions" in a.properties)
    assert alarm.properties["MetricName"] == "HasBacklogWithoutCapacity"
    assert alarm.properties["Dimensions"] == [{"Name": "EndpointName", "Value": "noria-dev-queued"}]
    assert alarm.properties["AlarmActions"] == [{"Ref": step.id}]
    assert not Deployed(serving(ways, "queued")).decided({"Fn::If": [alarm.body["Condition"], True, False]})


def test_a_fleet_that_never_ends_needs_no_first_instance(ways: Assembly) -> None:
    for model in ("rolling", "waiting"):
        assert {p.properties["PolicyType"] for p in serving(ways, model).of(POLICY)} == {"TargetTrackingScaling"}


@pytest.mark.parametrize("model", sorted(set(WAYS) - set(SCALED)))
def test_without_scale_nothing_scales_and_nobody_may(ways: Assembly, model: str) -> None:
    stack = serving(ways, model)
    assert not [r for r in stack.resources if r.type.startswith("AWS::ApplicationAutoScaling::")]
    assert not [action for action in grants(ways, model, "DeployerRole") if action.startswith("application-autoscal")]


@pytest.mark.parametrize("model", WITH_INSTANCES)
def test_a_deployment_keeps_the_count_of_a_fleet_that_scales_and_starts_that_of_any_other(
    ways: Assembly, model: str
) -> None:
    retained = {name: value for name, value in endpoint(ways, model).items() if "Retain" in name}
    # A fleet that can end may have ended: else the new version would be live without ever having started.
    assert retained == (
        {
            "RetainAllVariantProperties": True,
            # DataCaptureConfig is documented as a third one, and as not supported.
            "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredWeight"}],
        }
        if model in {"rolling", "waiting"}
        else {}
    )


@pytest.mark.parametrize("model", SCALED)
def test_the_deployer_may_scale_this_endpoint_and_let_aws_make_the_role_for_it(ways: Assembly, model: str) -> None:
    allowed = grants(ways, model, "DeployerRole")
    for action in ("RegisterScalableTarget", "DeregisterScalableTarget", "PutScalingPolicy", "DeleteScalingPolicy"):
        assert f"application-autoscaling:{action}" in allowed
    role = "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
    assert all(str(arn).endswith(f"/{role}") for arn in allowed["iam:CreateServiceLinkedRole"])
    for alarm in ("noria-dev-{}-scale-from-zero", "TargetTracking-endpoint/noria-dev-{}/variant/champion-AlarmHigh-1"):
        name = f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{alarm.format(model)}"
        assert any(name.startswith(str(arn).removesuffix("*")) for arn in allowed["cloudwatch:PutMetricAlarm"]), name


@pytest.mark.parametrize("model", REALTIME)
def test_the_deployer_may_make_and_remove_the_alarms_of_a_challenger(ways: Assembly, model: str) -> None:
    allowed = grants(ways, model, "DeployerRole")
    for action in ("cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms"):
        assert any(str(arn).endswith(f":alarm:noria-dev-{model}-challenger-*") for arn in allowed[action])


# --- how these tests read


def grants(ways: Assembly, model: str, role: str) -> dict[str, list[Any]]:
    """The resources on which a role of the training stack may do each action."""
    stack = training(ways, model)
    (found,) = (r for r in stack.of("AWS::IAM::Role") if r.id.startswith(role))
    allowed: dict[str, list[Any]] = {}
    for statement in stack.allowed(found):
        for action in statement["Action"]:
            allowed.setdefault(action, []).extend(statement["Resource"])
    return allowed


def reaches(arns: list[Any]) -> set[str]:
    """What of the data bucket the ARNs name."""
    bucket = "arn:aws:s3:::noria-dev-data-123456789012-us-east-1/"
    return {arn.removeprefix(bucket) for arn in arns if isinstance(arn, str) and arn.startswith(bucket)}


def plain(value: Any) -> Any:
    """References replaced by a name, and what parameters give as text by what it stands for."""
    match value:
        case {"Ref": _} | {"Fn::GetAtt": _} | {"Fn::Join": _} | {"Fn::ImportValue": _}:
            return "arn:aws:sns:us-east-1:123456789012:some"
        case dict():
            return {name: plain(each) for name, each in value.items()}
        case list():
            return [plain(each) for each in value]
        case str() if value.replace(".", "", 1).isdigit():
            return float(value)
    return value


def problems(operation: str, request: dict[str, Any]) -> str:
    shape = botocore.session.get_session().get_service_model("sagemaker").operation_model(operation).input_shape
    assert shape is not None
    report: str = ParamValidator().validate(request, shape).generate_report()
    return report
