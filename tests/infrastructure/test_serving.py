"""The serving stack: what exists for which parameters, how a deployment goes, and who may carry it out."""

import fnmatch
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.infrastructure.assembly import Assembly, Resource, Template
from tests.infrastructure.deployed import Deployed

PACKAGE = "arn:aws:sagemaker:us-east-1:123456789012:model-package/noria-local-flight-delay"
CHAMPION, CHALLENGER, SHADOW = f"{PACKAGE}/1", f"{PACKAGE}/2", f"{PACKAGE}/3"


@pytest.fixture
def stack(assembly: Assembly) -> Template:
    """The stack of the model that is served by canary."""
    return assembly[f"noria-{assembly.env}-flight-delay-serving"]


@pytest.fixture
def at_once(assembly: Assembly) -> Template:
    """The stack of the model that is served otherwise."""
    return assembly[f"noria-{assembly.env}-house-prices-serving"]


SAGEMAKER = ("AWS::SageMaker::Model", "AWS::SageMaker::EndpointConfig", "AWS::SageMaker::Endpoint")


def variants(deployed: Deployed, property_: str = "ProductionVariants") -> dict[str, Any]:
    """Weight and package of each variant, by name."""
    found = deployed.properties("AWS::SageMaker::EndpointConfig").get(property_, [])
    packages = {
        m.id: deployed.decided(m.find("PrimaryContainer", "ModelPackageName")) for m in deployed.of(SAGEMAKER[0])
    }
    return {v["VariantName"]: (v["InitialVariantWeight"], packages[v["ModelName"]["Fn::GetAtt"][0]]) for v in found}


def test_without_a_package_there_is_nothing_that_costs_and_nothing_to_mend(stack: Template) -> None:
    deployed = Deployed(stack)
    assert not [type_ for type_ in SAGEMAKER if type_ in deployed]
    assert deployed.accepted
    # The alarms are there, so that the first deployment finds them; what they look at isn't, and they stay silent.
    for alarm in deployed.of("AWS::CloudWatch::Alarm"):
        text = json.dumps(deployed.decided(alarm.properties))
        assert '"EndpointConfigName", "Value": "none"' in text
        assert "Fn::GetAtt" not in text


def test_a_challenger_or_a_shadow_alone_is_nothing_without_a_champion(stack: Template) -> None:
    for alone in ({"ChallengerPackageArn": CHALLENGER}, {"ShadowPackageArn": SHADOW}):
        deployed = Deployed(stack, **alone)
        assert not [type_ for type_ in SAGEMAKER if type_ in deployed]


def test_a_package_is_served_as_the_champion(stack: Template) -> None:
    deployed = Deployed(stack, ModelPackageArn=CHAMPION)
    assert variants(deployed) == {"champion": (1, CHAMPION)}
    assert variants(deployed, "ShadowProductionVariants") == {}
    endpoint = deployed.properties("AWS::SageMaker::Endpoint")
    assert stack.target(endpoint["EndpointConfigName"]).type == "AWS::SageMaker::EndpointConfig"
    (model,) = deployed.of("AWS::SageMaker::Model")
    assert model.find("EnableNetworkIsolation") is True


def test_a_challenger_gets_its_share_beside_the_champion(stack: Template) -> None:
    deployed = Deployed(stack, ModelPackageArn=CHAMPION, ChallengerPackageArn=CHALLENGER, ChallengerWeight="0.25")
    assert variants(deployed) == {"champion": (1, CHAMPION), "challenger": ("0.25", CHALLENGER)}
    assert deployed.accepted


def test_a_shadow_gets_a_copy_of_every_request(stack: Template) -> None:
    deployed = Deployed(stack, ModelPackageArn=CHAMPION, ShadowPackageArn=SHADOW)
    assert variants(deployed) == {"champion": (1, CHAMPION)}
    assert variants(deployed, "ShadowProductionVariants") == {"shadow": (1, SHADOW)}
    assert deployed.accepted


def test_a_challenger_and_a_shadow_at_once_are_refused_before_sagemaker_does(stack: Template) -> None:
    both = Deployed(stack, ModelPackageArn=CHAMPION, ChallengerPackageArn=CHALLENGER, ShadowPackageArn=SHADOW)
    assert not both.accepted


@pytest.mark.parametrize("value", ["", "None", "flight-delay/1", f"{CHAMPION} ", PACKAGE])
def test_a_parameter_that_names_no_package_is_refused(stack: Template, value: str) -> None:
    # CloudFormation compares the whole value with the pattern.
    for name in ("ModelPackageArn", "ChallengerPackageArn", "ShadowPackageArn"):
        pattern = stack.body["Parameters"][name]["AllowedPattern"]
        assert not re.fullmatch(pattern, value)
        assert re.fullmatch(pattern, CHAMPION)
        assert re.fullmatch(pattern, "none")


# --- a deployment


def guardrails(stack: Template, **parameters: str) -> dict[str, Any] | None:
    deployed = Deployed(stack, ModelPackageArn=CHAMPION, **parameters)
    found: dict[str, Any] | None = deployed.properties("AWS::SageMaker::Endpoint").get("DeploymentConfig")
    return found


def test_a_canary_of_one_instance_bakes_before_the_rest_follows(stack: Template) -> None:
    found = guardrails(stack)
    assert found
    policy = found["BlueGreenUpdatePolicy"]
    routing = policy["TrafficRoutingConfiguration"]
    assert routing["Type"] == "CANARY"
    assert routing["CanarySize"] == {"Type": "INSTANCE_COUNT", "Value": 1}
    assert routing["WaitIntervalInSeconds"] == 600  # bake: 10m
    # The way back must stay open while the new fleet bakes, and the deployment must not run out of time by waiting.
    assert policy["TerminationWaitInSeconds"] > 0
    waits = 2 * routing["WaitIntervalInSeconds"] + policy["TerminationWaitInSeconds"]
    assert waits < policy["MaximumExecutionTimeoutInSeconds"] <= 28800  # AWS's largest


def test_a_model_may_be_deployed_all_at_once_and_bakes_too(at_once: Template) -> None:
    found = guardrails(at_once)
    assert found
    routing = found["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing == {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 240}
    assert found["BlueGreenUpdatePolicy"]["TerminationWaitInSeconds"] >= 240


def test_a_deployment_goes_back_on_what_the_new_fleet_alone_does(stack: Template, at_once: Template) -> None:
    for template in (stack, at_once):
        found = guardrails(template)
        assert found
        alarms = [template.target(a["AlarmName"]) for a in found["AutoRollbackConfiguration"]["Alarms"]]
        looked_at = {m["MetricName"] for a in alarms for m, _, _ in metrics(a)}
        assert looked_at == {
            "Invocations",
            "Invocation5XXErrors",
            "ModelLatency",
            "GoldenRowsWrong",
            "PredictionShift",
        }
        for alarm in alarms:
            for metric, statistic, period in metrics(alarm):
                assert statistic == STATISTICS[metric["MetricName"]]
                dimensions = {d["Name"]: d["Value"] for d in metric["Dimensions"]}
                config = dimensions["EndpointConfigName"]["Fn::If"][1]
                assert template.target(config).type == "AWS::SageMaker::EndpointConfig"
                # Its minutes must fit inside the bake.
                assert period * alarm.properties["EvaluationPeriods"] <= 120
            assert alarm.properties["TreatMissingData"] == "notBreaching"


STATISTICS = {
    "Invocations": "Sum",
    "Invocation5XXErrors": "Sum",
    "ModelLatency": "p95",
    "GoldenRowsWrong": "Maximum",
    "PredictionShift": "Maximum",
}


def metrics(alarm: Resource) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Metric, statistic and period of all that an alarm looks at."""
    for part in alarm.properties.get("Metrics", []):
        if stat := part.get("MetricStat"):
            yield stat["Metric"], stat["Stat"], stat["Period"]
    if "MetricName" in alarm.properties:
        yield alarm.properties, alarm.properties["Statistic"], alarm.properties["Period"]


def test_the_limits_are_those_of_the_spec_and_say_nothing_on_little_traffic(stack: Template) -> None:
    rolls_back = {
        a.properties["AlarmName"].rsplit("-", 1)[-1]: a
        for a in stack.of("AWS::CloudWatch::Alarm")
        if "-rollback-" in a.properties["AlarmName"]
    }
    limits = {what: alarm.properties["Threshold"] for what, alarm in rolls_back.items()}
    assert limits == {"errors": 0.01, "latency": 500, "golden": 0, "shift": 0.6}
    for what in ("errors", "latency"):
        (expression,) = (m["Expression"] for m in rolls_back[what].properties["Metrics"] if "Expression" in m)
        assert expression.startswith("IF(requests >= 10, ")


AB = {"ChallengerPackageArn": CHALLENGER, "ChallengerWeight": "0.25"}


@pytest.mark.parametrize("change", [AB, {}], ids=["begin", "end"])
def test_an_ab_begins_and_ends_without_guardrails_because_sagemaker_refuses_them_then(
    stack: Template, change: dict[str, str]
) -> None:
    assert guardrails(stack, **change, Guardrails="off") is None


def test_while_an_ab_runs_a_new_champion_is_guarded_as_ever(stack: Template) -> None:
    assert guardrails(stack, **AB) == guardrails(stack)


def test_a_shadow_is_no_production_variant_and_needs_no_exception(stack: Template) -> None:
    assert guardrails(stack, ShadowPackageArn=SHADOW) == guardrails(stack)


def test_where_nothing_scales_a_deployment_brings_all_that_the_spec_says(stack: Template) -> None:
    """A count or a weight that somebody changed by hand gives way, and so does what was captured before."""
    endpoint = Deployed(stack, ModelPackageArn=CHAMPION).properties("AWS::SageMaker::Endpoint")
    assert not {"RetainAllVariantProperties", "ExcludeRetainedVariantProperties"} & endpoint.keys()


def test_sagemaker_can_go_back_to_what_the_stack_has_replaced(stack: Template) -> None:
    for type_ in ("AWS::SageMaker::Model", "AWS::SageMaker::EndpointConfig"):
        for resource in stack.of(type_):
            assert resource.body["UpdateReplacePolicy"] == "Retain", resource.path
            assert resource.body["DeletionPolicy"] == "Delete", resource.path
            # A fixed name could not be replaced while the one before it is still there.
            assert not {"ModelName", "EndpointConfigName"} & resource.properties.keys()


def test_requests_are_captured_as_the_spec_says(stack: Template, at_once: Template) -> None:
    captured = Deployed(stack, ModelPackageArn=CHAMPION).properties("AWS::SageMaker::EndpointConfig")
    assert captured["DataCaptureConfig"]["InitialSamplingPercentage"] == 100
    assert captured["DataCaptureConfig"]["DestinationS3Uri"].endswith("/flight-delay/captured")
    without = Deployed(at_once, ModelPackageArn=CHAMPION).properties("AWS::SageMaker::EndpointConfig")
    assert "DataCaptureConfig" not in without


# --- who carries it out


def test_the_stack_names_its_deployer_and_needs_no_bootstrap_version(assembly: Assembly, stack: Template) -> None:
    role = assembly.target(stack, stack.body["Outputs"]["DeployerRoleArn"]["Value"])
    assert role.properties["Path"] == f"/noria/{assembly.env}/deployer/"
    (trust,) = role.properties["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "cloudformation.amazonaws.com"}
    # UpdateStack with the previous template would ask SSM for it, as a role that may not.
    assert "BootstrapVersion" not in stack.body["Parameters"]


def test_no_role_is_made_by_an_update_of_a_serving_stack(stack: Template) -> None:
    assert not [r for r in stack.resources if r.type.startswith("AWS::IAM::")]


def deployer(assembly: Assembly) -> list[dict[str, Any]]:
    training = assembly[f"noria-{assembly.env}-flight-delay-training"]
    (role,) = (r for r in training.of("AWS::IAM::Role") if "Path" in r.properties)
    return training.allowed(role)


def may(allowed: list[dict[str, Any]], action: str, arn: str) -> bool:
    return any(
        action in s["Action"] and any(isinstance(r, str) and fnmatch.fnmatchcase(arn, r) for r in s["Resource"])
        for s in allowed
    )


def test_the_deployer_may_do_all_that_any_condition_switches_on(assembly: Assembly, stack: Template) -> None:
    allowed = deployer(assembly)
    arn = "arn:aws:sagemaker:us-east-1:123456789012"
    begins = stack.name.replace("-serving", "")
    for kind, type_ in (("model", "Model"), ("endpoint-config", "EndpointConfig")):
        for resource in stack.of(f"AWS::SageMaker::{type_}"):
            # CloudFormation begins a made-up name with the stack's name or with the logical id; SageMaker may write
            # it in small letters.
            for made_up in (f"{stack.name}-1A2B", f"{resource.id}-1A2B", f"{resource.id}-1A2B".lower()):
                for verb in ("Create", "Describe", "Delete"):
                    assert may(allowed, f"sagemaker:{verb}{type_}", f"{arn}:{kind}/{made_up}")
    for verb in ("Create", "Describe", "Update", "Delete"):
        assert may(allowed, f"sagemaker:{verb}Endpoint", f"{arn}:endpoint/{begins}")
    for alarm in stack.of("AWS::CloudWatch::Alarm"):
        name = alarm.properties["AlarmName"]
        for action in ("PutMetricAlarm", "DeleteAlarms", "DescribeAlarms"):
            assert may(allowed, f"cloudwatch:{action}", f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}")


def test_the_deployer_may_touch_nothing_of_another_model_or_of_the_environment(assembly: Assembly) -> None:
    allowed, env = deployer(assembly), assembly.env
    arn = "arn:aws:sagemaker:us-east-1:123456789012"
    assert not may(allowed, "sagemaker:DeleteEndpoint", f"{arn}:endpoint/noria-{env}-house-prices")
    assert not may(allowed, "sagemaker:DeleteModel", f"{arn}:model/noria-{env}-house-prices-serving-1A2B")
    assert not may(allowed, "sagemaker:DeleteModel", f"{arn}:model/Noria{env.capitalize()}HousePricesModel-1A2B")
    alarm = f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:noria-{env}-flight-delay"
    assert not may(allowed, "cloudwatch:DeleteAlarms", f"{alarm}-drift")
    assert not may(allowed, "cloudwatch:DeleteAlarms", f"{alarm}-endpoint-errors")
    services = {action.split(":")[0] for statement in allowed for action in statement["Action"]}
    assert services == {"sagemaker", "cloudwatch", "iam"}


def test_the_deployer_passes_on_the_models_role_and_only_to_sagemaker(assembly: Assembly, stack: Template) -> None:
    training = assembly[f"noria-{assembly.env}-flight-delay-training"]
    (passing,) = (s for s in deployer(assembly) if "iam:PassRole" in s["Action"])
    (role,) = (training.target(resource) for resource in passing["Resource"])
    used = {assembly.target(stack, m.properties["ExecutionRoleArn"]).id for m in stack.of("AWS::SageMaker::Model")}
    assert used == {role.id}
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
