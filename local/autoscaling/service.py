"""The local Application Auto Scaling put together: its service and its CloudFormation types."""

from local import ministack
from local.autoscaling.operations import Operations
from local.autoscaling.resources import SERVICE, ScalableTargetType, ScalingPolicyType
from local.autoscaling.scaler import Scaler
from local.autoscaling.state import State
from local.sagemaker.api import Api
from local.sagemaker.cloud import Cloud


def install(cloud: Cloud) -> "Scaled":
    """Add Application Auto Scaling to MiniStack; once a process, before it serves."""
    state = State()
    operations = Operations(cloud, state)
    ministack.register_service(Api([operations], service=SERVICE, permissions=operations.permissions))
    for resource in (ScalableTargetType(cloud), ScalingPolicyType(cloud)):
        ministack.register_resource(resource)
    Scaler(cloud, state, operations).start()
    return Scaled(state, operations)


class Scaled:
    """What SageMaker asks of Application Auto Scaling when an endpoint changes."""

    def __init__(self, state: State, operations: Operations) -> None:
        self._state = state
        self._operations = operations

    def variants(self, endpoint: str) -> set[str]:
        """The variants of an endpoint that are scalable targets."""
        return {target.variant for target in self._state if target.endpoint == endpoint}

    def forget(self, endpoint: str) -> None:
        """Deregister them all: the endpoint is gone."""
        for target in self._state:
            if target.endpoint == endpoint:
                self._operations.remove(target)
