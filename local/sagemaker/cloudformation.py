"""AWS::SageMaker::Pipeline and AWS::SageMaker::ModelPackageGroup, provisioned with the stack's own service role."""

import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.ministack import Change, Resource
from local.sagemaker.cloud import Cloud


class Provisioner:
    """What our CloudFormation types have in common: they call SageMaker as the stack's service role would."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def call(self, change: Change, operation: str, **request: Any) -> dict[str, Any]:
        """Call SageMaker; an error of it fails the resource, in CloudFormation's words."""
        client = self._cloud.client("sagemaker", change.role_arn, service_principal="cloudformation.amazonaws.com")
        try:
            answer: dict[str, Any] = getattr(client, operation)(**request)
        except ClientError as error:
            detail, metadata = error.response["Error"], error.response["ResponseMetadata"]
            raise RuntimeError(
                f'Resource handler returned message: "{detail["Message"]} (Service: SageMaker, '
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
    "ResourceInUse": "AlreadyExists",
    "ResourceLimitExceeded": "ServiceLimitExceeded",
}


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
        return self._resource(change, answer["ModelPackageGroupArn"])

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource:  # noqa: A002
        return self._resource(change, id)

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
