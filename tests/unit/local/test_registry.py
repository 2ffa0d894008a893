"""Model packages: versions, approval, metadata, pages and events."""

from typing import Any

import pytest

from local.sagemaker.api import Problem
from local.sagemaker.registry import Registry
from local.sagemaker.tags import Tags

GROUP = "noria-local-flight-delay"


@pytest.fixture
def registry(cloud: Any) -> Registry:
    registry = Registry(cloud, Tags())
    registry.create_model_package_group({"ModelPackageGroupName": GROUP})
    return registry


def register(registry: Registry, **members: Any) -> str:
    arn: str = registry.create_model_package({"ModelPackageGroupName": GROUP, **members})["ModelPackageArn"]
    return arn


def describe(registry: Registry, arn: str) -> dict[str, Any]:
    return registry.describe_model_package({"ModelPackageName": arn})


def test_versions_count_up_and_never_return(registry: Registry) -> None:
    first, second = register(registry), register(registry)
    assert first.endswith(f"model-package/{GROUP}/1")
    assert second.endswith(f"model-package/{GROUP}/2")
    registry.delete_model_package({"ModelPackageName": second})
    assert register(registry).endswith(f"model-package/{GROUP}/3")


def test_the_same_token_is_the_same_package(registry: Registry) -> None:
    assert register(registry, ClientToken="t") == register(registry, ClientToken="t")
    assert register(registry, ClientToken="u") != register(registry, ClientToken="t")


def test_a_version_waits_for_approval(registry: Registry) -> None:
    assert describe(registry, register(registry))["ModelApprovalStatus"] == "PendingManualApproval"


def test_an_update_without_a_status_keeps_it(registry: Registry) -> None:
    arn = register(registry)
    registry.update_model_package({"ModelPackageArn": arn, "ModelApprovalStatus": "Approved"})
    registry.update_model_package({"ModelPackageArn": arn, "CustomerMetadataProperties": {"noria:outcome": "live"}})
    assert describe(registry, arn)["ModelApprovalStatus"] == "Approved"


def test_metadata_is_merged_and_removed(registry: Registry) -> None:
    arn = register(registry, CustomerMetadataProperties={"a": "1", "b": "2"})
    change = {"CustomerMetadataProperties": {"c": "3"}, "CustomerMetadataPropertiesToRemove": ["a"]}
    registry.update_model_package({"ModelPackageArn": arn, **change})
    assert describe(registry, arn)["CustomerMetadataProperties"] == {"b": "2", "c": "3"}


def test_a_package_has_at_most_fifty_metadata_entries(registry: Registry) -> None:
    arn = register(registry, CustomerMetadataProperties={f"k{number}": "v" for number in range(50)})
    with pytest.raises(Problem, match="at most 50"):
        registry.update_model_package({"ModelPackageArn": arn, "CustomerMetadataProperties": {"one": "more"}})


def test_events_name_what_was_updated(registry: Registry, cloud: Any) -> None:
    arn = register(registry)
    registry.update_model_package(
        {"ModelPackageArn": arn, "ModelApprovalStatus": "Approved", "ApprovalDescription": "good"}
    )
    registry.update_model_package({"ModelPackageArn": arn, "CustomerMetadataProperties": {"noria:outcome": "live"}})
    details = [detail for kind, detail in cloud.events if kind == "SageMaker Model Package State Change"]
    assert "UpdatedModelPackageFields" not in details[0]
    assert details[1]["UpdatedModelPackageFields"] == ["ModelApprovalStatus", "ApprovalDescription"]
    assert details[2]["UpdatedModelPackageFields"] == ["CustomerMetadataProperties"]
    assert details[2]["ModelApprovalStatus"] == "Approved"
    assert details[2]["CreationTime"].endswith("Z")


def test_lists_by_group_and_status_in_pages(registry: Registry) -> None:
    arns = [register(registry) for _ in range(5)]
    for arn in arns[:3]:
        registry.update_model_package({"ModelPackageArn": arn, "ModelApprovalStatus": "Approved"})
    request = {"ModelPackageGroupName": GROUP, "ModelApprovalStatus": "Approved", "SortOrder": "Descending"}
    first = registry.list_model_packages({**request, "MaxResults": 2})
    second = registry.list_model_packages({**request, "MaxResults": 2, "NextToken": first["NextToken"]})
    listed = first["ModelPackageSummaryList"] + second["ModelPackageSummaryList"]
    assert [package["ModelPackageArn"] for package in listed] == arns[2::-1]
    assert second["NextToken"] is None


def test_refuses_what_does_not_exist(registry: Registry) -> None:
    with pytest.raises(Problem, match="does not exist"):
        registry.create_model_package({"ModelPackageGroupName": "other"})
    with pytest.raises(Problem, match="does not exist"):
        registry.describe_model_package({"ModelPackageName": "arn:aws:sagemaker:x:1:model-package/other/1"})
    with pytest.raises(Problem, match="Invalid pagination token"):
        registry.list_model_packages({"ModelPackageGroupName": GROUP, "NextToken": "%"})


def test_a_group_with_packages_stays(registry: Registry) -> None:
    arn = register(registry)
    with pytest.raises(Problem, match="has packages"):
        registry.delete_model_package_group({"ModelPackageGroupName": GROUP})
    registry.delete_model_package({"ModelPackageName": arn})
    registry.delete_model_package_group({"ModelPackageGroupName": GROUP})
