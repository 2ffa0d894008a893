"""What an endpoint really answers with: its live config, the models in it, and the packages they came from."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import boto3
from botocore.exceptions import ClientError

from noria.deployment import Desired, percent

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker.type_defs import DescribeEndpointConfigOutputTypeDef, DescribeEndpointOutputTypeDef

CHAMPION: Final = "champion"
CHALLENGER = "challenger"
SHADOW = "shadow"
_ANSWERING = frozenset({"InService", "Updating", "SystemUpdating", "RollingBack", "UpdateRollbackFailed"})
_CHANGING = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})


@dataclass(frozen=True, kw_only=True)
class EndpointState:
    """`models`, `packages`, `weights` and `instances`, type and number, by variant, shadows too.

    `config` is the live one: during an update still the old one.
    """

    status: str
    config: str
    failure: str | None
    models: dict[str, str]
    packages: dict[str, str | None]
    weights: dict[str, float]
    instances: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def changing(self) -> bool:
        return self.status in _CHANGING

    @property
    def package(self) -> str | None:
        """The champion's package, None when the endpoint answers nobody."""
        return self.desired.package

    @property
    def desired(self) -> Desired:
        """What answers, as one would ask for it; nothing where the endpoint answers nobody."""
        if self.status not in _ANSWERING:
            return Desired(package=None)
        challenger = self.packages.get(CHALLENGER)
        weighs = self.weights.get(CHALLENGER, 0) / (self.weights.get(CHAMPION) or 1)
        return Desired(
            package=self.packages.get(CHAMPION),
            challenger=challenger,
            percent=percent(weighs) if challenger else 0,
            shadow=self.packages.get(SHADOW),
        )


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    name: str
    client: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker"), repr=False)

    def state(self) -> EndpointState | None:
        """None when there is no endpoint."""
        try:
            endpoint = self.client.describe_endpoint(EndpointName=self.name)
        except ClientError as error:
            if _missing(error):
                return None
            raise
        config = endpoint["EndpointConfigName"]
        described = self.client.describe_endpoint_config(EndpointConfigName=config)
        variants = [*described["ProductionVariants"], *described.get("ShadowProductionVariants", [])]
        models = {v["VariantName"]: v["ModelName"] for v in variants if "ModelName" in v}
        return EndpointState(
            status=endpoint["EndpointStatus"],
            config=config,
            failure=endpoint.get("FailureReason"),
            models=models,
            packages={variant: self.package_of(model) for variant, model in models.items()},
            weights={v["VariantName"]: v.get("InitialVariantWeight", 1) for v in variants},
            instances=instances(endpoint, described),
        )

    def package_of(self, model: str) -> str | None:
        """The package that a SageMaker model was made of."""
        answer = self.client.describe_model(ModelName=model)
        containers = answer.get("Containers") or [answer.get("PrimaryContainer", {})]
        return containers[0].get("ModelPackageName")

    def delete_config(self, name: str) -> None:
        """Delete a config that is no longer used; one that is gone is fine."""
        try:
            self.client.delete_endpoint_config(EndpointConfigName=name)
        except ClientError as error:
            if not _missing(error):
                raise

    def delete_model(self, name: str) -> None:
        try:
            self.client.delete_model(ModelName=name)
        except ClientError as error:
            if not _missing(error):
                raise


def instances(
    endpoint: "DescribeEndpointOutputTypeDef", config: "DescribeEndpointConfigOutputTypeDef"
) -> dict[str, tuple[str, int]]:
    """Type and number of the instances that run now, by variant; serverless ones have none."""
    types = {
        variant["VariantName"]: variant["InstanceType"]
        for variant in [*config["ProductionVariants"], *config.get("ShadowProductionVariants", [])]
        if "InstanceType" in variant
    }
    running = [*endpoint.get("ProductionVariants", []), *endpoint.get("ShadowProductionVariants", [])]
    return {
        variant["VariantName"]: (types[variant["VariantName"]], variant.get("CurrentInstanceCount", 0))
        for variant in running
        if variant["VariantName"] in types
    }


def _missing(error: ClientError) -> bool:
    # SageMaker has no code of its own for endpoints, configs and models that do not exist.
    details = error.response["Error"]
    return details["Code"] == "ValidationException" and "could not find" in details["Message"].lower()
