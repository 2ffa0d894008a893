"""The front-door stack: there when a spec asks for one, open to nobody unproved, its flags left to people."""

import json
from pathlib import Path

import aws_cdk
import pytest
from cdk_nag import AwsSolutionsChecks

from noria.aws.flags import FlagStore
from noria.flags import json_schema
from noria.serve import FrontDoor as Door
from noria.serve import Jwt
from noria.spec import load
from stacks.foundation import Foundation
from stacks.front_door import FrontDoor
from stacks.settings import settings_for
from tests.infrastructure.assembly import ACCOUNT, CONTEXT, REGION, REPOSITORY, Assembly, Resource, Template
from tests.infrastructure.test_reactions import OF_EVERY_FUNCTION, actions, calls

MODEL = "house-prices"  # whose spec, in the tests' models, asks for a front door


@pytest.fixture
def name(assembly: Assembly) -> str:
    return f"noria-{assembly.env}-{MODEL}-front-door"


@pytest.fixture
def door(assembly: Assembly, name: str) -> Template:
    return assembly[name]


@pytest.fixture(scope="module")
def with_tokens(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """A front door for bearers of tokens."""
    app = aws_cdk.App(context=CONTEXT, outdir=str(tmp_path_factory.mktemp("tokens")))
    place = aws_cdk.Environment(account=ACCOUNT, region=REGION)
    spec = load(REPOSITORY / "models" / "flight-delay.yaml")
    settings = settings_for("prod")
    foundation = Foundation(app, "Foundation", env=place, settings=settings, specs=[spec])
    auth = Jwt(issuer="https://id.example.com", audience=("flights",))
    stack = FrontDoor(app, "Door", env=place, settings=settings, spec=spec, door=Door(auth=auth), foundation=foundation)
    aws_cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, write_suppressions_to_cloud_formation=True))
    app.synth()
    assert stack.stack_name == "noria-prod-flight-delay-front-door"
    return Assembly(Path(app.outdir))


# --- the API


def test_a_model_that_asks_for_no_front_door_has_none(assembly: Assembly) -> None:
    doors = [stack for stack in assembly.templates if stack.endswith("-front-door")]
    assert doors == [f"noria-{assembly.env}-{MODEL}-front-door"]
    apis = [template.name for template in assembly.templates.values() if template.of("AWS::ApiGatewayV2::Api")]
    # The other one is where people approve versions.
    assert set(apis) == {*doors, f"noria-{assembly.env}-reactions"}


def routes(template: Template) -> dict[str, Resource]:
    return {route.properties["RouteKey"]: route for route in template.of("AWS::ApiGatewayV2::Route")}


def test_its_routes_are_predictions_and_their_description(door: Template) -> None:
    assert set(routes(door)) == {"POST /predict", "GET /openapi.json"}


def test_callers_are_proved_by_iam_unless_the_spec_names_an_issuer(door: Template) -> None:
    assert {route.properties["AuthorizationType"] for route in routes(door).values()} == {"AWS_IAM"}
    assert door.of("AWS::ApiGatewayV2::Authorizer") == []


def test_with_an_issuer_tokens_prove_them(with_tokens: Assembly) -> None:
    door = with_tokens["noria-prod-flight-delay-front-door"]
    (authorizer,) = door.of("AWS::ApiGatewayV2::Authorizer")
    assert authorizer.properties["JwtConfiguration"] == {"Issuer": "https://id.example.com", "Audience": ["flights"]}
    for route in routes(door).values():
        assert route.properties["AuthorizationType"] == "JWT"
        assert door.target(route.properties["AuthorizerId"]) == authorizer
    assert with_tokens.findings == []


def test_the_stage_throttles_as_the_spec_says(door: Template) -> None:
    (stage,) = door.of("AWS::ApiGatewayV2::Stage")
    assert stage.properties["DefaultRouteSettings"] == {"ThrottlingRateLimit": 20, "ThrottlingBurstLimit": 40}
    assert (stage.properties["StageName"], stage.properties["AutoDeploy"]) == ("$default", True)


def test_access_is_logged_encrypted_and_without_what_was_asked(assembly: Assembly, door: Template, name: str) -> None:
    (stage,) = door.of("AWS::ApiGatewayV2::Stage")
    settings = stage.properties["AccessLogSettings"]
    group = door.target(settings["DestinationArn"])
    assert group.properties["LogGroupName"] == f"/aws/vendedlogs/{name}"
    assert assembly.target(door, group.properties["KmsKeyId"]).type == "AWS::KMS::Key"
    assert group.properties["RetentionInDays"] == {"local": 7, "prod": 365}[assembly.env]
    logged = json.loads(settings["Format"])
    assert {"$context.status", "$context.requestId", "$context.identity.userArn"} <= set(logged.values())
    assert not [value for value in logged.values() if "body" in value.lower() or "header" in value.lower()]


def test_who_calls_too_slowly_is_told_before_api_gateway_gives_up(door: Template) -> None:
    (function,) = door.of("AWS::Lambda::Function")
    (integration,) = door.of("AWS::ApiGatewayV2::Integration")
    assert function.properties["Timeout"] * 1000 <= integration.properties["TimeoutInMillis"] < 30_000


# --- the function


def test_it_may_do_what_its_handler_says_it_calls(assembly: Assembly, door: Template) -> None:
    (function,) = door.of("AWS::Lambda::Function")
    allowed = door.allowed(door.target(function.properties["Role"]))
    assert actions(allowed) - OF_EVERY_FUNCTION == calls("front_door")
    (asking,) = (s for s in allowed if "sagemaker:InvokeEndpoint" in s["Action"])
    assert asking["Resource"] == [f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/noria-{assembly.env}-{MODEL}"]
    (reading,) = (s for s in allowed if "appconfig:GetLatestConfiguration" in s["Action"])
    (configuration,) = (assembly.flat(resource) for resource in reading["Resource"])
    application, environment, profile = (
        door.one(f"AWS::AppConfig::{type_}").id for type_ in ("Application", "Environment", "ConfigurationProfile")
    )
    path = f"application/<{application}>/environment/<{environment}>/configuration/<{profile}>"
    assert configuration == f"arn:aws:appconfig:{REGION}:{ACCOUNT}:{path}"


def test_it_stands_on_nothing_that_another_stack_must_change(assembly: Assembly, door: Template) -> None:
    """An export in use cannot change; layers change with each release."""
    (function,) = door.of("AWS::Lambda::Function")
    assert {door.target(layer).type for layer in function.properties["Layers"]} == {"AWS::Lambda::LayerVersion"}
    imported = {assembly.target(door, {"Fn::ImportValue": name}).type for name in _imports(door.body)}
    assert imported == {"AWS::KMS::Key"}


def _imports(value: object) -> set[str]:
    match value:
        case {"Fn::ImportValue": str(name)}:
            return {name}
        case dict():
            return {name for inner in value.values() for name in _imports(inner)}
        case list():
            return {name for inner in value for name in _imports(inner)}
    return set()


# --- the flags


def test_the_first_flags_have_no_rule_and_no_later_template_deploys_them_again(door: Template) -> None:
    first = door.one("AWS::AppConfig::HostedConfigurationVersion")
    assert json.loads(first.properties["Content"]) == {}
    deployment = door.one("AWS::AppConfig::Deployment")
    assert door.target(deployment.properties["ConfigurationVersion"]) == first
    # All but references to what is never replaced: any change of a deployment's properties is a new deployment.
    assert all(set(value) == {"Ref"} for value in deployment.properties.values())
    assert "Tags" not in deployment.properties


def test_flags_are_checked_before_they_are_deployed(door: Template) -> None:
    profile = door.one("AWS::AppConfig::ConfigurationProfile")
    assert (profile.properties["Type"], profile.properties["LocationUri"]) == ("AWS.Freeform", "hosted")
    (validator,) = profile.properties["Validators"]
    assert (validator["Type"], json.loads(validator["Content"])) == ("JSON_SCHEMA", json_schema())


def test_a_change_of_flags_spreads_step_by_step_and_alarms_bring_it_back(door: Template, name: str) -> None:
    environment = door.one("AWS::AppConfig::Environment")
    watched = {
        door.target(monitor["AlarmArn"]).properties["AlarmName"] for monitor in environment.properties["Monitors"]
    }
    assert watched == {f"{name}-errors", f"{name}-latency"}
    gradual = door.one("AWS::AppConfig::DeploymentStrategy", Name=f"{name}-gradual").properties
    assert (gradual["GrowthType"], gradual["GrowthFactor"], gradual["DeploymentDurationInMinutes"]) == (
        "LINEAR",
        20,
        10,
    )
    assert gradual["FinalBakeTimeInMinutes"] == 4  # the spec's bake
    at_once = door.one("AWS::AppConfig::DeploymentStrategy", Name=f"{name}-atonce").properties
    assert (at_once["GrowthFactor"], at_once["DeploymentDurationInMinutes"], at_once["FinalBakeTimeInMinutes"]) == (
        100,
        0,
        0,
    )


def test_an_alarm_speaks_before_the_next_step_of_flags(door: Template, name: str) -> None:
    for what in ("errors", "latency"):
        alarm = door.one("AWS::CloudWatch::Alarm", AlarmName=f"{name}-{what}").properties
        periods = {part["MetricStat"]["Period"] for part in alarm["Metrics"] if "MetricStat" in part}
        assert periods == {60}
        assert alarm["DatapointsToAlarm"] <= 2  # minutes, as long as a step


def test_the_outputs_say_where_the_door_and_its_flags_are(
    assembly: Assembly, door: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    outputs = {key: assembly.flat(output["Value"]) for key, output in door.body["Outputs"].items()}
    api = door.one("AWS::ApiGatewayV2::Api").id
    assert outputs["ApiUrl"] == f"<{api}.ApiEndpoint>"
    store = FlagStore.of(outputs)
    assert store.profile == f"<{door.one('AWS::AppConfig::ConfigurationProfile').id}>"
