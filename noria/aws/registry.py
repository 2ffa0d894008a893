"""The model registry: packages of a model, in the group of the model's name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker.type_defs import UserContextTypeDef

OUTCOME = "noria:outcome"
"""Property of a package that says what came of its deployment."""

EXECUTION = "noria:execution"
"""Property of a package that a pipeline registered: the execution that did."""

DESCRIPTION = 1024  # ApprovalDescription: at most so many characters

Decision = Literal["Approved", "Rejected", "PendingManualApproval"]


@dataclass(frozen=True, kw_only=True)
class PackageSummary:
    arn: str
    version: int
    approval: str
    created: datetime


@dataclass(frozen=True, kw_only=True)
class Package(PackageSummary):
    """`author` and `decided_by` are who registered it and who changed it last, where SageMaker tells.

    `described` is the whole answer of DescribeModelPackage.
    """

    group: str
    modified: datetime
    reason: str
    decided_by: str | None
    author: str | None
    image: str | None
    model_data: str | None
    metadata: dict[str, str]
    described: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Registry:
    client: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker"), repr=False)

    def describe(self, arn: str) -> Package:
        answer = self.client.describe_model_package(ModelPackageName=arn)
        containers = answer.get("InferenceSpecification", {}).get("Containers", [])
        return Package(
            arn=answer["ModelPackageArn"],
            group=answer["ModelPackageGroupName"],
            version=answer["ModelPackageVersion"],
            approval=answer.get("ModelApprovalStatus", "PendingManualApproval"),
            created=answer["CreationTime"],
            modified=answer.get("LastModifiedTime", answer["CreationTime"]),
            reason=answer.get("ApprovalDescription", ""),
            decided_by=_who(answer.get("LastModifiedBy", {})),
            author=_who(answer.get("CreatedBy", {})),
            image=containers[0]["Image"] if containers else None,
            model_data=containers[0].get("ModelDataUrl") if containers else None,
            metadata=dict(answer.get("CustomerMetadataProperties", {})),
            described=answer,
        )

    def find(self, group: str, arn: str) -> Package | None:
        """A package of that group; None where it has no such package."""
        try:
            package = self.describe(arn)
        except ClientError as error:
            # SageMaker has no code of its own for packages that do not exist.
            if error.response["Error"]["Code"] == "ValidationException":
                return None
            raise
        return package if package.group == group else None

    def approval(self, group: str, arn: str) -> str | None:
        """The word on a package of that group; None where it has no such package."""
        package = self.find(group, arn)
        return package.approval if package else None

    def groups(self, name: str) -> list[str]:
        """Whose names hold this one."""
        pages = self.client.get_paginator("list_model_package_groups").paginate(NameContains=name)
        return [group["ModelPackageGroupName"] for page in pages for group in page["ModelPackageGroupSummaryList"]]

    def packages(self, group: str) -> list[PackageSummary]:
        """Newest first."""
        pages = self.client.get_paginator("list_model_packages").paginate(
            ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending"
        )
        return [
            PackageSummary(
                arn=item["ModelPackageArn"],
                version=item["ModelPackageVersion"],
                approval=item.get("ModelApprovalStatus", "PendingManualApproval"),
                created=item["CreationTime"],
            )
            for page in pages
            for item in page["ModelPackageSummaryList"]
        ]

    def register(self, group: str, registration: Mapping[str, Any], *, token: str) -> str:
        """The ARN of a new version of that group, which waits for approval; the same one for the same token."""
        answer = self.client.create_model_package(
            ModelPackageGroupName=group,
            ModelApprovalStatus="PendingManualApproval",
            ClientToken=token,
            **registration,
        )
        return answer["ModelPackageArn"]

    def decide(self, arn: str, decision: Decision, *, reason: str) -> None:
        """Approve or reject; the event that SageMaker sends then does the rest."""
        self.client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus=decision, ApprovalDescription=reason)

    def delete(self, arn: str) -> None:
        self.client.delete_model_package(ModelPackageName=arn)

    def mark(self, arn: str, name: str, value: str) -> None:
        """Set one property of a package, leaving the others and its approval as they are."""
        if self.describe(arn).metadata.get(name) != value:
            self.client.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties={name: value})


def _who(by: "UserContextTypeDef") -> str | None:
    return by.get("UserProfileName") or by.get("IamIdentity", {}).get("Arn")
