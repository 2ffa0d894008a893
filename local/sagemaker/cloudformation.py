"""AWS::SageMaker::Pipeline and AWS::SageMaker::ModelPackageGroup, provisioned with the stack's own service role."""

import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import ListShape, MapShape, Shape, StructureShape

from local.ministack import Change, Resource
from local.sagemaker.cloud import Cloud


class Provisioner:
    """What our CloudFormation types have in common: they call their service as the stack's service role would.

    `service` is its name for botocore, `service_name` in CloudFormation's messages.
    """

    service = "sagemaker"
    service_name = "SageMaker"

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def call(self, change: Change, operation: str, **request: Any) -> dict[str, Any]:
        """Call the service; an error of it fails the resource, in CloudFormation's words."""
        client = self._cloud.client(self.service, change.role_arn, service_principal="cloudformation.amazonaws.com")
        try:
            answer: dict[str, Any] = getattr(client, operation)(**request)
        except ClientError as error:
            detail, metadata = error.response["Error"], error.response["ResponseMetadata"]
            raise RuntimeError(
                f'Resource handler returned message: "{detail["Message"]} (Service: {self.service_name}, '
                f'Status Code: {metadata["HTTPStatusCode"]}, Request ID: {metadata.get("RequestId", "")})" '
                f"(HandlerErrorCode: {_HANDLER_ERRORS.get(detail['Code'], 'GeneralServiceException')})"
            ) from error
        except BotoCoreError as error:
            raise RuntimeError(
                f'Resource handler returned message: "{error}" (HandlerErrorCode: InvalidRequest)'
            ) from error
        return answer


_HANDLER_ERRORS = {
    "AccessDeniedException": "AccessDenied",
    "ValidationException": "InvalidRequest",
    "ResourceNotFound": "NotFound",
    "ObjectNotFoundException": "NotFound",
    "ResourceInUse": "AlreadyExists",
    "ResourceLimitExceeded": "ServiceLimitExceeded",
}


# --- values of templates


def typed(value: Any, shape: Shape) -> Any:
    """Template values as the API wants them: parameters and conditions give numbers and truths as text."""
    match shape:
        case StructureShape() if isinstance(value, dict):
            members = shape.members
            return {k: typed(v, members[k]) if k in members else v for k, v in value.items()}
        case ListShape() if isinstance(value, list):
            return [typed(each, shape.member) for each in value]
        case MapShape() if isinstance(value, dict):
            return {key: typed(each, shape.value) for key, each in value.items()}
    convert = _SCALARS.get(shape.type_name)
    return convert(value) if convert and isinstance(value, str | int | float) else value


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "integer": int,
    "long": int,
    "float": float,
    "double": float,
    "boolean": lambda value: str(value).lower() == "true",
    "string": lambda value: str(value).lower() if isinstance(value, bool) else str(value),
}


# --- types


class PipelineType(Provisioner):
    """Ref gives the pipeline's name."""

    type = "AWS::SageMaker::Pipeline"
    name_property = "PipelineName"
    create_only = frozenset({"PipelineName"})

    def create(self, change: Change) -> Resource:
        name = change.properties.get("PipelineName", change.generated_name)
        self.call(change, "create_pipeline", **self._request(change, name), Tags=change.properties.get("Tags", []))
        return Resource(name)

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource:  # noqa: A002
        self.call(change, "update_pipeline", **self._request(change, id))
        return Resource(id)

    def delete(self, id: str, change: Change) -> None:  # noqa: A002
        self.call(change, "delete_pipeline", PipelineName=id)

    @staticmethod
    def _request(change: Change, name: str) -> dict[str, Any]:
        properties = change.properties
        same = ("PipelineDisplayName", "PipelineDescription", "RoleArn", "ParallelismConfiguration")
        request = {"PipelineName": name, **{key: properties[key] for key in same if key in properties}}
        definition = properties["PipelineDefinition"]
        if "PipelineDefinitionBody" in definition:
            body = definition["PipelineDefinitionBody"]
            request["PipelineDefinition"] = body if isinstance(body, str) else json.dumps(body)
        else:
            location = definition["PipelineDefinitionS3Location"]
            names = {"Bucket": "Bucket", "Key": "ObjectKey", "Version": "VersionId"}
            request["PipelineDefinitionS3Location"] = {
                names[key]: value for key, value in location.items() if key in names
            }
        return request


class ModelPackageGroupType(Provisioner):
    """Ref gives the group's ARN."""

    type = "AWS::SageMaker::ModelPackageGroup"
    name_property = "ModelPackageGroupName"
    create_only = frozenset({"ModelPackageGroupName", "ModelPackageGroupDescription"})

    def create(self, change: Change) -> Resource:
        properties = change.properties
        request = {"ModelPackageGroupName": properties.get("ModelPackageGroupName", change.generated_name)}
        if "ModelPackageGroupDescription" in properties:
            request["ModelPackageGroupDescription"] = properties["ModelPackageGroupDescription"]
        answer = self.call(change, "create_model_package_group", **request, Tags=properties.get("Tags", []))
        self._put_policy(change, request["ModelPackageGroupName"])
        return self._resource(change, answer["ModelPackageGroupArn"])

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource:  # noqa: A002
        name = id.rsplit("/", 1)[-1]
        if not self._put_policy(change, name) and previous.get("ModelPackageGroupPolicy"):
            self.call(change, "delete_model_package_group_policy", ModelPackageGroupName=name)
        return self._resource(change, id)

    def _put_policy(self, change: Change, name: str) -> bool:
        policy = change.properties.get("ModelPackageGroupPolicy")
        if policy:
            text = policy if isinstance(policy, str) else json.dumps(policy)
            self.call(change, "put_model_package_group_policy", ModelPackageGroupName=name, ResourcePolicy=text)
        return bool(policy)

    def delete(self, id: str, change: Change) -> None:  # noqa: A002
        self.call(change, "delete_model_package_group", ModelPackageGroupName=id)

    def _resource(self, change: Change, arn: str) -> Resource:
        group = self.call(change, "describe_model_package_group", ModelPackageGroupName=arn)
        attributes = {
            "ModelPackageGroupArn": arn,
            "ModelPackageGroupStatus": group["ModelPackageGroupStatus"],
            "CreationTime": group["CreationTime"].isoformat(),
        }
        return Resource(arn, attributes)
