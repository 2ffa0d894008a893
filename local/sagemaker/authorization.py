"""Which IAM permissions a SageMaker request needs: the action on each resource that the request names.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html
"""

import os
from collections.abc import Iterator
from typing import Any

from local import ministack
from local.ministack import Permission

# The member that names a resource, and the resource type in its ARN.
_NAMES = {
    "ActionName": "action",
    "EndpointName": "endpoint",
    "EndpointConfigName": "endpoint-config",
    "ModelCardName": "model-card",
    "ModelName": "model",
    "ModelPackageName": "model-package",
    "ModelPackageGroupName": "model-package-group",
    "PipelineName": "pipeline",
    "ProcessingJobName": "processing-job",
    "TrainingJobName": "training-job",
    "TransformJobName": "transform-job",
}
# What a request names without needing a permission on it.
_NOT_ASKED = {("CreateTransformJob", "ModelName")}
_ARNS = ("PipelineExecutionArn", "ModelPackageArn", "ResourceArn", "ArtifactArn", "SourceArn", "DestinationArn")
_PASSED_ROLES = ("RoleArn", "ExecutionRoleArn")

# The only List operations that are granted on a resource; the others are granted on everything or not at all.
_LISTS_OF_A_RESOURCE = {
    "ListTags",
    "ListPipelineExecutions",
    "ListPipelineExecutionSteps",
    "ListPipelineParametersForExecution",
}


def permissions(operation: str, request: dict[str, Any]) -> list[Permission]:
    """Every permission that is needed; all of them must be granted."""
    action = f"sagemaker:{operation}"
    listing = operation.startswith("List") and operation not in _LISTS_OF_A_RESOURCE
    resources = [] if listing else list(_resources(operation, request))
    context = _context(operation, request)
    needed = [Permission(action, resource, context) for resource in resources] or [Permission(action)]
    if operation.startswith("Create") and request.get("Tags"):
        needed += [Permission("sagemaker:AddTags", resource) for resource in resources[:1]]
    if operation.startswith(("Create", "Update")):
        needed += [
            Permission("iam:PassRole", request[member], {"iam:PassedToService": "sagemaker.amazonaws.com"})
            for member in _PASSED_ROLES
            if isinstance(request.get(member), str)
        ]
    if operation in {"CreateEndpoint", "UpdateEndpoint"}:
        needed += [Permission("cloudwatch:DescribeAlarms", alarm) for alarm in _alarms(request)]
    return needed


def _context(operation: str, request: dict[str, Any]) -> dict[str, str]:
    """The condition keys of SageMaker's own that a request sets."""
    status = request.get("ModelApprovalStatus")
    if operation in {"CreateModelPackage", "UpdateModelPackage"} and isinstance(status, str):
        return {"sagemaker:ModelApprovalStatus": status}
    return {}


def _alarms(request: dict[str, Any]) -> Iterator[str]:
    """The ARNs of the alarms that a deployment is to roll back on; SageMaker checks that they exist."""
    config = request.get("DeploymentConfig")
    rollback = config.get("AutoRollbackConfiguration") if isinstance(config, dict) else None
    alarms = rollback.get("Alarms") if isinstance(rollback, dict) else None
    for alarm in alarms if isinstance(alarms, list) else []:
        if isinstance(alarm, dict) and isinstance(name := alarm.get("AlarmName"), str):
            yield _arn("cloudwatch", f"alarm:{name}")


def _resources(operation: str, request: dict[str, Any]) -> Iterator[str]:
    for member, kind in _NAMES.items():
        if (operation, member) in _NOT_ASKED:
            continue
        if isinstance(name := request.get(member), str):
            yield name if name.startswith("arn:") else arn(kind, name)
    for member in _ARNS:
        if isinstance(name := request.get(member), str):
            yield name
    if operation == "CreateModelPackage" and isinstance(group := request.get("ModelPackageGroupName"), str):
        yield arn("model-package", f"{group}/*")  # a version that has no number yet
    if operation == "CreateArtifact":
        yield arn("artifact", "*")  # SageMaker gives it its name
    if operation == "QueryLineage" and isinstance(starts := request.get("StartArns"), list):
        yield from (start for start in starts if isinstance(start, str))


def arn(kind: str, name: str) -> str:
    return _arn("sagemaker", f"{kind}/{name}")


def _arn(service: str, resource: str) -> str:
    # What is named without an ARN is the caller's; MiniStack's own environment says which region this is.
    account = ministack.account(os.environ["MINISTACK_ACCOUNT_ID"])
    return f"arn:aws:{service}:{os.environ['MINISTACK_REGION']}:{account}:{resource}"
