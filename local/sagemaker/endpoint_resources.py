"""AWS::SageMaker::Model, ::EndpointConfig and ::Endpoint, provisioned with the stack's own service role.

Ref gives the ARN of each, `Fn::GetAtt` its name. An endpoint's update lasts until its deployment has ended. What the
stack reports when SageMaker rolled that back is not documented, so `Settings` chooses it, at any time.
"""

import json
import os
from typing import Any, Literal

from botocore.model import StructureShape
from pydantic import BaseModel, ConfigDict

from local.ministack import Change, Request, Resource, Response
from local.sagemaker.api import service_model
from local.sagemaker.cloud import Cloud
from local.sagemaker.cloudformation import Provisioner, typed
from local.sagemaker.endpoint_state import Endpoint
from local.sagemaker.endpoints import Endpoints

SETTINGS_PATH = "/_noria/settings"
ROLLBACK_REPORTS = "NORIA_LOCAL_ROLLBACK_REPORTS"


class Settings(BaseModel):
    """What can be changed while the cloud runs.

    `rollback_reports`: how a stack's update ends when SageMaker rolled the endpoint back, `success` or `failure`.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    rollback_reports: Literal["success", "failure"] = "failure"

    @classmethod
    def from_environment(cls) -> "Settings":
        chosen = os.environ.get(ROLLBACK_REPORTS)
        return cls.model_validate({"rollback_reports": chosen} if chosen else {})

    def answer(self, request: Request) -> Response:
        """GET tells the settings; PUT changes those that its JSON body names."""
        try:
            if request.method == "PUT":
                for name, value in json.loads(request.body).items():
                    setattr(self, name, value)
        except ValueError as error:
            return Response(400, str(error).encode(), {"Content-Type": "text/plain"})
        return Response(200, self.model_dump_json().encode(), {"Content-Type": "application/json"})


class _Named(Provisioner):
    """A resource whose properties are its Create operation's members, and whose changes replace it (but for tags)."""

    type: str
    name_property: str
    operation: str
    create_only: frozenset[str]

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.create_only = frozenset(self._members()) - {"Tags"}

    def create(self, change: Change) -> Resource:
        name = change.properties.get(self.name_property, change.generated_name)
        self.call(change, f"create_{self._kind}", **{**self._request(change, self.operation), self.name_property: name})
        return self._resource(name)

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource:  # noqa: A002
        self._retag(id, change, previous)
        return self._resource(_name(id))

    def delete(self, id: str, change: Change) -> None:  # noqa: A002
        self.call(change, f"delete_{self._kind}", **{self.name_property: _name(id)})

    @property
    def _kind(self) -> str:
        return self.name_property.removesuffix("Name").replace("tC", "t_c").lower()

    def _resource(self, name: str) -> Resource:
        return Resource(self._cloud.arn(self._kind.replace("_", "-"), name), {self.name_property: name})

    def _members(self) -> set[str]:
        return set(_input(self.operation).members)

    def _request(self, change: Change, operation: str) -> dict[str, Any]:
        shape = _input(operation)
        if unknown := set(change.properties) - self._permitted():
            raise ValueError(
                f"Properties validation failed for resource {change.logical_id} with message: "
                f"#: extraneous key [{', '.join(sorted(unknown))}] is not permitted"
            )
        known = {name: value for name, value in change.properties.items() if name in shape.members}
        request: dict[str, Any] = typed(known, shape)
        return request

    def _permitted(self) -> set[str]:
        return self._members()

    def _retag(self, arn: str, change: Change, previous: dict[str, Any]) -> None:
        tags, before = (_tags(properties) for properties in (change.properties, previous))
        if removed := sorted(set(before) - set(tags)):
            self.call(change, "delete_tags", ResourceArn=arn, TagKeys=removed)
        if added := {key: value for key, value in tags.items() if before.get(key) != value}:
            listed = [{"Key": key, "Value": value} for key, value in added.items()]
            self.call(change, "add_tags", ResourceArn=arn, Tags=listed)


class ModelType(_Named):
    type = "AWS::SageMaker::Model"
    name_property = "ModelName"
    operation = "CreateModel"


class EndpointConfigType(_Named):
    type = "AWS::SageMaker::EndpointConfig"
    name_property = "EndpointConfigName"
    operation = "CreateEndpointConfig"


class EndpointType(_Named):
    type = "AWS::SageMaker::Endpoint"
    name_property = "EndpointName"
    operation = "CreateEndpoint"

    def __init__(self, cloud: Cloud, endpoints: Endpoints, settings: Settings) -> None:
        super().__init__(cloud)
        self.create_only = frozenset({"EndpointName"})
        self._endpoints = endpoints
        self._settings = settings

    def create(self, change: Change) -> Resource:
        resource = super().create(change)
        endpoint = self._settled(change, resource)
        if endpoint.status != "InService":
            self.delete(resource.id, change)
            raise _not_stabilized(endpoint)
        return resource

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource:  # noqa: A002
        resource = self._resource(_name(id))
        self._retag(id, change, previous)
        request = {**self._request(change, "UpdateEndpoint"), "EndpointName": _name(id)}
        # The way back from a failed update asks for what SageMaker already went back to.
        if self._endpoints.endpoint(_name(id)).config["EndpointConfigName"] == request["EndpointConfigName"]:
            return resource
        self.call(change, "update_endpoint", **request)
        endpoint = self._settled(change, resource)
        live = endpoint.status == "InService" and endpoint.config["EndpointConfigName"] == request["EndpointConfigName"]
        if not live and (endpoint.status != "InService" or self._settings.rollback_reports == "failure"):
            raise _not_stabilized(endpoint)
        return resource

    def delete(self, id: str, change: Change) -> None:  # noqa: A002
        if self._endpoints.settled(_name(id)) is None:
            return
        super().delete(id, change)
        self._endpoints.settled(_name(id))

    def _permitted(self) -> set[str]:
        only_updates = {"RetainAllVariantProperties", "ExcludeRetainedVariantProperties", "RetainDeploymentConfig"}
        return self._members() | only_updates

    def _settled(self, change: Change, resource: Resource) -> Endpoint:
        endpoint = self._endpoints.settled(_name(resource.id))
        # AWS's handler polls with this, which the service role must be allowed.
        self.call(change, "describe_endpoint", EndpointName=_name(resource.id))
        if endpoint is None:
            raise RuntimeError(f"Endpoint {resource.id} was deleted while it was being provisioned.")
        return endpoint


def _not_stabilized(endpoint: Endpoint) -> RuntimeError:
    return RuntimeError(f'Resource handler returned message: "{endpoint.failure}" (HandlerErrorCode: NotStabilized)')


def _input(operation: str) -> StructureShape:
    shape = service_model().operation_model(operation).input_shape
    if shape is None:
        raise ValueError(f"{operation} takes no input")
    return shape


def _name(arn: str) -> str:
    return arn.rpartition("/")[2]


def _tags(properties: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in properties.get("Tags", [])}
