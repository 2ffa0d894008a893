"""The optional network: what is in it, what it leads to, who is put into it, and that without it nothing changes."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from noria.spec import ModelSpec, SpecError, load_all
from stacks.network import placed
from stacks.settings import ENVIRONMENTS, ExistingVpc, OwnVpc
from tests.infrastructure.assembly import ACCOUNT, REGION, REPOSITORY, Assembly, Resource, Template, statements
from tests.infrastructure.conftest import WAY, WAYS, synthesise

ACTION = re.compile(r"\b([a-z0-9-]+):[A-Z]\w+")

BEHIND = {
    "s3": {"s3"},
    "dynamodb": {"dynamodb"},
    "sagemaker": {"sagemaker.api", "sagemaker.runtime"},
    "cloudformation": {"cloudformation"},
    "cloudwatch": {"monitoring"},
    "events": {"events"},
    "scheduler": {"scheduler"},
    "sns": {"sns"},
    "sqs": {"sqs"},
    "athena": {"athena"},
    "appconfig": {"appconfigdata"},
    "iam": set(),  # PassRole is no call: who takes a role asks for it
    "kms": set(),  # asked by S3, DynamoDB, SQS and SNS on the caller's behalf
    "glue": set(),  # asked by Athena
    "sagemaker-mlflow": set(),  # an environment with a network has no tracking: stacks/settings.py
}
"""The endpoints that calls of a service go through. Source: PrivateLink guide, `aws-services-privatelink-support`."""


@pytest.fixture(scope="module")
def networked(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "prod", replace(ENVIRONMENTS["prod"], network=OwnVpc()))
        return synthesise("prod", models=models, out=tmp_path_factory.mktemp("networked"))


@pytest.fixture
def network(networked: Assembly) -> Template:
    return networked["noria-prod-network"]


def test_without_a_network_there_is_none(local: Assembly, prod: Assembly) -> None:
    for assembly in (local, prod):
        for template in assembly.templates.values():
            assert not [r.path for r in template.resources if r.type.startswith("AWS::EC2::")]
            assert "VpcConfig" not in json.dumps(template.body)
            assert "ec2:" not in json.dumps(template.body)


def test_with_a_network_nothing_else_is_different(networked: Assembly, prod: Assembly) -> None:
    assert networked.templates.keys() - prod.templates.keys() == {"noria-prod-network"}
    for name, template in prod.templates.items():
        assert _without_network(networked[name].body) == _without_network(template.body), name


def test_the_scanners_find_nothing_in_it(networked: Assembly) -> None:
    assert networked.findings == []


def test_there_is_no_way_in_or_out(network: Template) -> None:
    kinds = {r.type.removeprefix("AWS::EC2::") for r in network.resources if r.type.startswith("AWS::EC2::")}
    assert kinds == {
        "FlowLog",
        "RouteTable",
        "SecurityGroup",
        "Subnet",
        "SubnetRouteTableAssociation",
        "VPC",
        "VPCEndpoint",
    }
    assert all(s.properties["MapPublicIpOnLaunch"] is False for s in network.of("AWS::EC2::Subnet"))


def test_every_subnet_is_in_a_zone_of_its_own_and_has_the_routes_of_the_gateways(network: Template) -> None:
    subnets = network.of("AWS::EC2::Subnet")
    assert [s.find("AvailabilityZone", "Fn::Select")[0] for s in subnets] == [0, 1]
    assert [s.find("CidrBlock", "Fn::Select") for s in subnets] == [
        [number, {"Fn::Cidr": ["10.60.0.0/20", 2, "10"]}] for number in (0, 1)
    ]
    (routes,) = network.of("AWS::EC2::RouteTable")
    routed = {json.dumps(a.properties["SubnetId"]) for a in network.of("AWS::EC2::SubnetRouteTableAssociation")}
    assert routed == {json.dumps({"Ref": subnet.id}) for subnet in subnets}
    gateways = [e for e in _endpoints(network).values() if e.properties["VpcEndpointType"] == "Gateway"]
    assert [e.properties["RouteTableIds"] for e in gateways] == [[{"Ref": routes.id}]] * 2


def test_only_https_comes_in_at_the_endpoints_and_only_from_inside(network: Template) -> None:
    coming = [
        (group, rule)
        for group in network.of("AWS::EC2::SecurityGroup")
        for rule in group.properties.get("SecurityGroupIngress", [])
    ]
    ((endpoints, rule),) = coming
    inside = network.target(rule["SourceSecurityGroupId"])
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 443, 443)
    assert inside != endpoints
    assert not inside.properties.get("SecurityGroupIngress")
    for group in network.of("AWS::EC2::SecurityGroup"):
        assert [(r["FromPort"], r["ToPort"]) for r in group.properties["SecurityGroupEgress"]] == [(443, 443)]
    for endpoint in _endpoints(network).values():
        if endpoint.properties["VpcEndpointType"] == "Interface":
            assert [network.target(g) for g in endpoint.properties["SecurityGroupIds"]] == [endpoints]
            assert endpoint.properties["PrivateDnsEnabled"] is True


def test_it_leads_to_all_that_handlers_call_and_to_nothing_else(network: Template) -> None:
    called = set()
    for handler in (REPOSITORY / "lambdas").glob("*/handler.py"):
        docstring = ast.get_docstring(ast.parse(handler.read_text(encoding="utf-8"))) or ""
        called |= set(ACTION.findall(docstring.partition("Calls:")[2]))
    assert called <= BEHIND.keys()
    assert _endpoints(network).keys() == {name for service in called for name in BEHIND[service]}


def test_endpoints_serve_this_account_and_lead_to_it_alone(network: Template) -> None:
    ours = {"StringEquals": {"aws:PrincipalAccount": ACCOUNT, "aws:ResourceAccount": ACCOUNT}}
    for endpoint in _endpoints(network).values():
        (statement,) = statements(endpoint.properties["PolicyDocument"])
        assert (statement["Effect"], statement["Condition"]) == ("Allow", ours), endpoint.path


def test_every_function_is_in_it_and_its_code_cannot_use_that(networked: Assembly, network: Template) -> None:
    for template in networked.templates.values():
        for function in template.of("AWS::Lambda::Function"):
            where = function.properties["VpcConfig"]
            assert [networked.target(template, s) for s in where["SubnetIds"]] == network.of("AWS::EC2::Subnet")
            (group,) = (networked.target(template, g) for g in where["SecurityGroupIds"])
            assert not group.properties.get("SecurityGroupIngress")
            may = template.allowed(template.target(function.properties["Role"]))
            (denied,) = (s for s in may if s["Effect"] == "Deny")
            assert set(denied["Action"]) == _on_network(may)
            ((name, arn),) = denied["Condition"]["ArnEquals"].items()
            assert name == "lambda:SourceFunctionArn"
            assert arn == f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function.properties['FunctionName']}"


def test_every_job_and_model_is_in_it_and_isolated_too(networked: Assembly, spec: ModelSpec) -> None:
    training = networked[f"noria-prod-{spec.model}-training"]
    definition = json.loads(networked.flat(training.one("AWS::SageMaker::Pipeline").find("PipelineDefinition")[BODY]))
    jobs = [step for step in definition["Steps"] if step["Type"] in {"Processing", "Training"}]
    assert len(jobs) == 3
    for job in jobs:
        arguments = job["Arguments"].get("NetworkConfig", job["Arguments"])
        assert arguments["EnableNetworkIsolation"] is True
        assert (len(arguments["VpcConfig"]["Subnets"]), len(arguments["VpcConfig"]["SecurityGroupIds"])) == (2, 1)
    serving = networked[f"noria-prod-{spec.model}-serving"]
    for model in serving.of("AWS::SageMaker::Model"):
        assert model.properties["EnableNetworkIsolation"] is True
        assert len(model.properties["VpcConfig"]["Subnets"]) == 2
    able = [
        role
        for role in training.of("AWS::IAM::Role")
        if "sagemaker.amazonaws.com" in json.dumps(role.properties["AssumeRolePolicyDocument"])
    ]
    assert len(able) == 2
    for role in able:
        made = {"ec2:CreateNetworkInterface", "ec2:CreateNetworkInterfacePermission"}
        assert made <= _on_network(training.allowed(role))


def test_what_it_refuses_is_logged_with_our_key(networked: Assembly, network: Template) -> None:
    log = network.one("AWS::EC2::FlowLog")
    assert (log.properties["ResourceType"], log.properties["TrafficType"]) == ("VPC", "REJECT")
    group = network.target(log.properties["LogGroupName"])
    assert networked.target(network, group.properties["KmsKeyId"]).type == "AWS::KMS::Key"
    assert group.properties["LogGroupName"] == "/aws/vendedlogs/noria-prod-network"


def test_an_existing_network_is_taken_as_it_is() -> None:
    existing = ExistingVpc(subnets=("subnet-1", "subnet-2"), security_groups=("sg-1",))
    settings = replace(ENVIRONMENTS["prod"], network=existing)
    placement = placed(None, env=None, settings=settings, foundation=None)  # type: ignore[arg-type] # makes nothing
    assert placement is not None
    assert placement.of_jobs() == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}


def test_a_serverless_model_cannot_be_put_into_one(tmp_path: Path) -> None:
    (tmp_path / "idle.yaml").write_text(WAY.format(model="idle", serve=WAYS["idle"]))
    (spec,) = load_all(tmp_path)
    (problem,) = replace(ENVIRONMENTS["prod"], network=OwnVpc()).problems(spec)
    assert "idle: serve.mode = 'serverless'" in problem
    assert "network" in problem
    assert list(ENVIRONMENTS["prod"].problems(spec)) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "prod", replace(ENVIRONMENTS["prod"], network=OwnVpc()))
        with pytest.raises(SpecError, match="serverless"):
            synthesise("prod", models=tmp_path, out=tmp_path / "out")


BODY = "PipelineDefinitionBody"


def _endpoints(network: Template) -> dict[str, Resource]:
    found = {}
    for endpoint in network.of("AWS::EC2::VPCEndpoint"):
        begin, _, name = str(endpoint.properties["ServiceName"]).partition(f".{REGION}.")
        assert begin == "com.amazonaws"
        found[name] = endpoint
    return found


def _on_network(allowed: list[dict[str, Any]]) -> set[str]:
    return {a for s in allowed if s["Effect"] == "Allow" for a in s["Action"] if a.startswith("ec2:")}


def _without_network(value: Any) -> Any:
    """A template without what a network adds to it; the pipelines' definitions have a test of their own."""
    match value:
        case {"Statement": list(policy), **rest}:
            kept = [each for each in map(_permission, policy) if each]
            return {"Statement": sorted(kept, key=json.dumps), **rest}
        case list():
            return [_without_network(each) for each in value]
        case dict():
            apart = {"VpcConfig", "Metadata", "PipelineDefinition"}
            return {name: _without_network(each) for name, each in value.items() if name not in apart}
    return value


def _permission(statement: dict[str, Any]) -> dict[str, Any] | None:
    """A statement without actions on networks; None when nothing else is in it."""
    actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
    kept = [action for action in actions if not action.startswith("ec2:")]
    return {**statement, "Action": kept} if kept else None
