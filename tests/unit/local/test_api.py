"""Requests that SageMaker would refuse are refused, and answers have the shapes that botocore knows."""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

from local.ministack import Request
from local.sagemaker.api import Api, Problem, check, service_model
from local.sagemaker.authorization import permissions

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Groups:
    """A part with three operations, one of which answers wrongly."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def describe_model_package_group(self, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "ModelPackageGroupName": request["ModelPackageGroupName"],
            "ModelPackageGroupArn": "arn:aws:sagemaker:eu-west-1:123456789012:model-package-group/g",
            "ModelPackageGroupDescription": None,
            "CreationTime": NOW,
            "CreatedBy": {},
            "ModelPackageGroupStatus": "Completed",
        }

    def list_model_package_groups(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked = request
        return {"ModelPackageGroupSummaryList": []}

    def create_model_package_group(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"WrongMember": request}


@pytest.fixture
def groups() -> Groups:
    return Groups()


@pytest.fixture
def api(groups: Groups) -> Api:
    return Api([object(), groups])


def refused(api: Api, operation: str, request: dict[str, Any]) -> Problem:
    with pytest.raises(Problem) as problem:
        api.call(operation, request)
    return problem.value


def test_an_answer_is_what_aws_json_says(api: Api) -> None:
    answer = api.call("DescribeModelPackageGroup", {"ModelPackageGroupName": "g"})
    assert answer["CreationTime"] == NOW.timestamp()
    assert "ModelPackageGroupDescription" not in answer
    json.dumps(answer)


def test_timestamps_arrive_as_moments(api: Api, groups: Groups) -> None:
    api.call("ListModelPackageGroups", {"CreationTimeAfter": NOW.timestamp()})
    assert groups.asked["CreationTimeAfter"] == NOW


def test_an_operation_without_a_part_is_unknown(api: Api) -> None:
    problem = refused(api, "CreateNotebookInstance", {})
    assert problem.code == "UnknownOperationException"
    assert "CreateNotebookInstance" in problem.message


def test_a_wrong_answer_is_an_internal_failure(api: Api) -> None:
    problem = refused(api, "CreateModelPackageGroup", {"ModelPackageGroupName": "g"})
    assert (problem.code, problem.status) == ("InternalFailure", 500)


@pytest.mark.parametrize(
    ("operation", "request_", "message"),
    [
        ("DescribeModelPackageGroup", {}, 'Missing required parameter in input: "ModelPackageGroupName"'),
        ("DescribeModelPackageGroup", {"ModelPackageGroupName": 3}, "Invalid type"),
        ("DescribeModelPackageGroup", {"ModelPackageGroupName": "g", "Other": 1}, "Unknown parameter"),
        ("CreateModelPackageGroup", {"ModelPackageGroupName": "two words"}, "regular expression pattern"),
        ("CreateModelPackageGroup", {"ModelPackageGroupName": "g" * 64}, "less than or equal to 63"),
        ("ListModelPackageGroups", {"SortBy": "Size"}, r"enum value set: \[Name, CreationTime\]"),
        ("ListModelPackageGroups", {"MaxResults": 101}, "value less than or equal to 100"),
    ],
)
def test_requests_are_held_to_their_shapes(api: Api, operation: str, request_: dict[str, Any], message: str) -> None:
    problem = refused(api, operation, request_)
    assert problem.code == "ValidationException"
    assert re.search(message, problem.message)


@pytest.mark.parametrize(
    ("metadata", "accepted"),
    [
        ({"noria:dataset": "0" * 64}, True),
        ({"noria:cause": "drift in dewp, temp"}, False),
        ({"noria:reasons": '{"a": 1}'}, False),
        ({"k" * 129: "v"}, False),
        ({"k": "v" * 257}, False),
        ({f"k{number}": "v" for number in range(51)}, False),
    ],
)
def test_package_metadata_is_plain_words(metadata: dict[str, str], accepted: bool) -> None:
    shape = service_model().operation_model("CreateModelPackage").input_shape
    assert isinstance(shape, StructureShape)
    if accepted:
        check(metadata, shape.members["CustomerMetadataProperties"])
    else:
        with pytest.raises(Problem):
            check(metadata, shape.members["CustomerMetadataProperties"])


def test_every_pattern_of_the_model_can_be_checked() -> None:
    def strings(shape: Shape, seen: set[str]) -> None:
        if shape.name in seen:
            return
        seen.add(shape.name)
        match shape:
            case StringShape() if "pattern" in shape.metadata:
                with suppress(Problem):  # but no error of the expression itself
                    check("x", shape)
            case StructureShape():
                for member in shape.members.values():
                    strings(member, seen)
            case ListShape():
                strings(shape.member, seen)
            case MapShape():
                strings(shape.key, seen)
                strings(shape.value, seen)

    seen: set[str] = set()
    for operation in ("CreateModelPackage", "CreatePipeline", "CreateTrainingJob", "CreateProcessingJob"):
        shape = service_model().operation_model(operation).input_shape
        assert shape is not None
        strings(shape, seen)


def test_the_wire_has_errors_in_aws_json(api: Api) -> None:
    headers = {"x-amz-target": "SageMaker.DescribeModelPackageGroup"}
    response = api.handle(Request("POST", "/", headers, b"{}", {}))
    assert response.status == 400
    assert response.headers["Content-Type"] == "application/x-amz-json-1.1"
    assert json.loads(response.body)["__type"] == "ValidationException"


ARN = "arn:aws:sagemaker:eu-west-1:123456789012"


@pytest.fixture(autouse=True)
def _somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISTACK_REGION", "eu-west-1")
    monkeypatch.setenv("MINISTACK_ACCOUNT_ID", "123456789012")


@pytest.mark.parametrize(
    ("operation", "request_", "needed"),
    [
        ("ListPipelines", {}, {("sagemaker:ListPipelines", "*")}),
        ("ListPipelineExecutions", {"PipelineName": "p"}, {("sagemaker:ListPipelineExecutions", f"{ARN}:pipeline/p")}),
        ("ListModelPackages", {"ModelPackageGroupName": "g"}, {("sagemaker:ListModelPackages", "*")}),
        ("DescribeEndpoint", {"EndpointName": "e"}, {("sagemaker:DescribeEndpoint", f"{ARN}:endpoint/e")}),
        (
            "UpdateEndpoint",
            {"EndpointName": "e", "EndpointConfigName": "c"},
            {
                ("sagemaker:UpdateEndpoint", f"{ARN}:endpoint/e"),
                ("sagemaker:UpdateEndpoint", f"{ARN}:endpoint-config/c"),
            },
        ),
        (
            "CreateModelPackage",
            {"ModelPackageGroupName": "g", "Tags": [{"Key": "a", "Value": "b"}]},
            {
                ("sagemaker:CreateModelPackage", f"{ARN}:model-package-group/g"),
                ("sagemaker:CreateModelPackage", f"{ARN}:model-package/g/*"),
                ("sagemaker:AddTags", f"{ARN}:model-package-group/g"),
            },
        ),
        (
            "CreatePipeline",
            {"PipelineName": "p", "RoleArn": "arn:aws:iam::123456789012:role/r"},
            {
                ("sagemaker:CreatePipeline", f"{ARN}:pipeline/p"),
                ("iam:PassRole", "arn:aws:iam::123456789012:role/r"),
            },
        ),
        (
            "UpdateModelPackage",
            {"ModelPackageArn": f"{ARN}:model-package/g/1"},
            {("sagemaker:UpdateModelPackage", f"{ARN}:model-package/g/1")},
        ),
    ],
)
def test_a_request_needs_its_action_on_what_it_names(
    operation: str, request_: dict[str, Any], needed: set[tuple[str, str]]
) -> None:
    assert {(permission.action, permission.resource) for permission in permissions(operation, request_)} == needed
