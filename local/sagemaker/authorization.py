"""Which IAM permissions a SageMaker request needs: the action on each resource that the request names."""

import os
from collections.abc import Iterator
from typing import Any

from local.ministack import Permission

# The member that names a resource, and the resource type in its ARN.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html
_NAMES = {
    "EndpointName": "endpoint",
    "EndpointConfigName": "endpoint-config",
    "ModelName": "model",
    "ModelPackageName": "model-package",
    "ModelPackageGroupName": "model-package-group",
    "PipelineName": "pipeline",
    "ProcessingJobName": "processing-job",
    "TrainingJobName": "training-job",
}
_ARNS = ("PipelineExecutionArn", "ModelPackageArn", "ResourceArn")
_PASSED_ROLES = ("RoleArn", "ExecutionRoleArn")


def permissions(operation: str, request: dict[str, Any]) -> list[Permission]:
    action = f"sagemaker:{operation}"
    resources = [] if operation.startswith("List") and operation != "ListTags" else list(_resources(request))
    needed = [Permission(action, resource) for resource in resources] or [Permission(action)]
    if operation.startswith(("Create", "Update")):
        needed += [
            Permission("iam:PassRole", request[member], {"iam:PassedToService": "sagemaker.amazonaws.com"})
            for member in _PASSED_ROLES
            if isinstance(request.get(member), str)
        ]
    return needed


def _resources(request: dict[str, Any]) -> Iterator[str]:
    for member, kind in _NAMES.items():
        if isinstance(name := request.get(member), str):
            yield name if name.startswith("arn:") else arn(kind, name)
    for member in _ARNS:
        if isinstance(name := request.get(member), str):
            yield name


def arn(kind: str, name: str) -> str:
    # MiniStack's own environment says which account and region this is.
    region, account = os.environ["MINISTACK_REGION"], os.environ["MINISTACK_ACCOUNT_ID"]
    return f"arn:aws:sagemaker:{region}:{account}:{kind}/{name}"
