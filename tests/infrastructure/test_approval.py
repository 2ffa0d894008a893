"""Who may set a package to Approved: in mode strict one function's role, asked through an API that proves who asks."""

from typing import Any

import pytest

from noria.spec import ModelSpec
from tests.infrastructure.assembly import Assembly, Resource, Template, statements


@pytest.fixture
def reactions(assembly: Assembly) -> Template:
    return assembly[f"noria-{assembly.env}-reactions"]


@pytest.fixture
def function(reactions: Template, assembly: Assembly) -> Resource:
    return reactions.one("AWS::Lambda::Function", FunctionName=f"noria-{assembly.env}-approve-package")


def test_in_mode_strict_alone_the_group_denies_approval_to_all_but_the_function_s_role(
    assembly: Assembly, reactions: Template, function: Resource, spec: ModelSpec
) -> None:
    training = assembly[f"noria-{assembly.env}-{spec.model}-training"]
    (group,) = training.of("AWS::SageMaker::ModelPackageGroup")
    policy: dict[str, Any] | None = group.find("ModelPackageGroupPolicy")
    assert (policy is not None) is spec.approval.strict
    if policy is None:
        return
    (statement,) = policy["Statement"]
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Action"] == ["sagemaker:CreateModelPackage", "sagemaker:UpdateModelPackage"]
    name = f"noria-{assembly.env}-{spec.model}"
    assert [resource.rpartition(":")[2] for resource in statement["Resource"]] == [
        f"model-package-group/{name}",
        f"model-package/{name}/*",
    ]
    # Marking a package, and rejecting it, say nothing of Approved: the denial is of that word alone.
    assert statement["Condition"]["StringEquals"] == {"sagemaker:ModelApprovalStatus": "Approved"}
    excepted = assembly.target(training, statement["Condition"]["ArnNotEquals"]["aws:PrincipalArn"])
    assert excepted == reactions.target(function.properties["Role"])


def test_its_api_takes_approvals_from_iam_identities_alone(reactions: Template, function: Resource) -> None:
    (route,) = reactions.of("AWS::ApiGatewayV2::Route")
    assert route.properties["RouteKey"] == "POST /approvals/{model}"
    assert route.properties["AuthorizationType"] == "AWS_IAM"
    (stage,) = reactions.of("AWS::ApiGatewayV2::Stage")
    assert "$context.identity.userArn" in stage.properties["AccessLogSettings"]["Format"]
    (permission,) = (
        p for p in reactions.of("AWS::Lambda::Permission") if reactions.target(p.properties["FunctionName"]) == function
    )
    assert permission.properties["Principal"] == "apigateway.amazonaws.com"
    assert "/approvals" in str(permission.properties["SourceArn"])


def test_no_role_may_invoke_it_so_that_the_api_alone_says_who_asks(assembly: Assembly, function: Resource) -> None:
    for policy in (*assembly.all("AWS::IAM::Policy"), *assembly.all("AWS::IAM::ManagedPolicy")):
        for statement in statements(policy.properties["PolicyDocument"]):
            invoking = [action for action in statement["Action"] if action.startswith("lambda:Invoke")]
            assert not invoking or statement["Effect"] == "Deny", policy.path
    name = function.properties["FunctionName"]
    for policy in assembly.all("AWS::IAM::ManagedPolicy"):
        denied = [s for s in statements(policy.properties["PolicyDocument"]) if s["Effect"] == "Deny"]
        assert any(
            "lambda:InvokeFunction" in statement["Action"]
            and any(assembly.flat(resource).endswith(f":function:{name}") for resource in statement["Resource"])
            for statement in denied
        ), policy.path


def test_people_find_it_for_models_in_mode_strict_alone(
    assembly: Assembly, reactions: Template, spec: ModelSpec
) -> None:
    name = f"/noria/{assembly.env}/approvals/{spec.model}"
    found = [p for p in reactions.of("AWS::SSM::Parameter") if p.properties["Name"] == name]
    assert len(found) == spec.approval.strict
