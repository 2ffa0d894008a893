"""AWS::ApplicationAutoScaling::ScalableTarget and ::ScalingPolicy, provisioned with the stack's own service role.

Ref gives a target's `resource id|dimension|namespace`, and a policy's ARN.
"""

from typing import Any

from botocore.model import StructureShape

from local.ministack import Change, Resource
from local.sagemaker.api import service_model
from local.sagemaker.cloudformation import Provisioner, typed

SERVICE = "application-autoscaling"
_KEY = ("ServiceNamespace", "ResourceId", "ScalableDimension")


class _Scaling(Provisioner):
    service = SERVICE
    service_name = "ApplicationAutoScaling"


class ScalableTargetType(_Scaling):
    type = "AWS::ApplicationAutoScaling::ScalableTarget"
    name_property = ""
    create_only = frozenset(_KEY)

    def create(self, change: Change) -> Resource:
        self._register(change)
        return self._resource(change)

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource:  # noqa: A002
        self._register(change)
        kept = _actions(change.properties)
        for name in _actions(previous):
            if name not in kept:
                self.call(change, "delete_scheduled_action", ScheduledActionName=name, **_key(change.properties))
        return self._resource(change)

    def delete(self, id: str, change: Change) -> None:  # noqa: A002
        resource_id, dimension, namespace = id.split("|")
        key = {"ServiceNamespace": namespace, "ResourceId": resource_id, "ScalableDimension": dimension}
        found = self.call(change, "describe_scalable_targets", ServiceNamespace=namespace, ResourceIds=[resource_id])
        if found["ScalableTargets"]:  # whoever deletes the endpoint takes this with it
            self.call(change, "deregister_scalable_target", **key)

    def _register(self, change: Change) -> None:
        properties = change.properties
        own = {
            name: properties[name]
            for name in (*_KEY, "MinCapacity", "MaxCapacity", "RoleARN", "SuspendedState")
            if name in properties
        }
        self.call(change, "register_scalable_target", **_typed(own, "RegisterScalableTarget"))
        for action in _actions(properties).values():
            request = {**action, **_key(properties)}
            self.call(change, "put_scheduled_action", **_typed(request, "PutScheduledAction"))

    @staticmethod
    def _resource(change: Change) -> Resource:
        properties = change.properties
        name = "|".join(properties[member] for member in ("ResourceId", "ScalableDimension", "ServiceNamespace"))
        return Resource(name, {"Id": name})


class ScalingPolicyType(_Scaling):
    type = "AWS::ApplicationAutoScaling::ScalingPolicy"
    name_property = "PolicyName"
    create_only = frozenset({*_KEY, "PolicyName", "ScalingTargetId"})

    def create(self, change: Change) -> Resource:
        return self._put(change)

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource:  # noqa: A002
        return self._put(change)

    def delete(self, id: str, change: Change) -> None:  # noqa: A002
        key, name = _key_of_policy(change.properties), change.properties["PolicyName"]
        if self._policy(change)["ScalingPolicies"]:  # whoever deregisters the target takes this with it
            self.call(change, "delete_scaling_policy", PolicyName=name, **key)

    def _policy(self, change: Change) -> dict[str, Any]:
        key, name = _key_of_policy(change.properties), change.properties["PolicyName"]
        return self.call(change, "describe_scaling_policies", PolicyNames=[name], **key)

    def _put(self, change: Change) -> Resource:
        properties = change.properties
        configs = (name for name in properties if name.endswith("PolicyConfiguration"))
        own = {name: properties[name] for name in ("PolicyName", "PolicyType", *configs)}
        request = _typed({**own, **_key_of_policy(properties)}, "PutScalingPolicy")
        arn = self.call(change, "put_scaling_policy", **request)["PolicyARN"]
        self._policy(change)  # AWS's handler reads what it has written, which the service role must be allowed
        return Resource(arn, {"Arn": arn})


def _actions(properties: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {action["ScheduledActionName"]: action for action in properties.get("ScheduledActions") or []}


def _key(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: properties[name] for name in _KEY}


def _key_of_policy(properties: dict[str, Any]) -> dict[str, Any]:
    """A policy names its target by what Ref gives of it, or by the three parts of that."""
    if (target := properties.get("ScalingTargetId")) is None:
        return _key(properties)
    resource_id, dimension, namespace = target.split("|")
    return {"ServiceNamespace": namespace, "ResourceId": resource_id, "ScalableDimension": dimension}


def _typed(properties: dict[str, Any], operation: str) -> dict[str, Any]:
    shape = service_model(SERVICE).operation_model(operation).input_shape
    if not isinstance(shape, StructureShape):
        raise TypeError(f"{operation} takes no input")
    request: dict[str, Any] = typed(properties, shape)
    return request
