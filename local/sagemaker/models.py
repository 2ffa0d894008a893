"""SageMaker models: containers with their artifacts and role, checked as CreateModel checks them."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from local import ministack
from local.sagemaker.api import Document, invalid
from local.sagemaker.cloud import Cloud
from local.sagemaker.fleet import ContainerSpec
from local.sagemaker.listing import listed, summary
from local.sagemaker.storage import Location, TransferFailed
from local.sagemaker.tags import Tags


@dataclass(frozen=True)
class Model:
    """What a variant needs to know of its model."""

    role_arn: str
    isolated: bool
    containers: tuple[ContainerSpec, ...]


class Models:
    """`package` describes a model package by name or ARN, raising `Problem` if there is none."""

    def __init__(self, cloud: Cloud, tags: Tags, package: Callable[[Document], Document]) -> None:
        self._cloud = cloud
        self._tags = tags
        self._package = package
        self._records: dict[str, Document] = {}
        self._models: dict[str, Model] = {}
        self._lock = threading.RLock()

    def create_model(self, request: Document) -> Document:
        name = request["ModelName"]
        arn = self._cloud.arn("model", name)
        if ("PrimaryContainer" in request) == ("Containers" in request):
            raise invalid("Specify either PrimaryContainer or Containers.")
        definitions = request.get("Containers") or [request["PrimaryContainer"]]
        if "ExecutionRoleArn" not in request:
            raise invalid("ExecutionRoleArn is required to host a model.")
        model = Model(
            role_arn=request["ExecutionRoleArn"],
            isolated=request.get("EnableNetworkIsolation", False),
            containers=tuple(spec for definition in definitions for spec in self._specs(definition)),
        )
        for spec in model.containers:
            self._check_artifacts(spec, model.role_arn)
        members = ("PrimaryContainer", "Containers", "InferenceExecutionConfig", "ExecutionRoleArn", "VpcConfig")
        with self._lock:
            if name in self._records:
                raise invalid(f'Cannot create already existing model "{arn}".')
            self._models[name] = model
            self._records[name] = summary(request, "ModelName", *members) | {
                "ModelArn": arn,
                "CreationTime": self._cloud.now(),
                "EnableNetworkIsolation": model.isolated,
            }
            self._tags.put(arn, request.get("Tags"))
        return {"ModelArn": arn}

    def describe_model(self, request: Document) -> Document:
        with self._lock:
            return dict(self._record(request["ModelName"]))

    def list_models(self, request: Document) -> Document:
        with self._lock:
            page, token = listed(self._records.values(), request, name="ModelName")
        return {
            "Models": [summary(record, "ModelName", "ModelArn", "CreationTime") for record in page],
            "NextToken": token,
        }

    def delete_model(self, request: Document) -> Document:
        with self._lock:
            record = self._record(request["ModelName"])
            del self._records[record["ModelName"]], self._models[record["ModelName"]]
            self._tags.forget(record["ModelArn"])
        return {}

    def model(self, name: str) -> Model:
        """Raises `Problem` if there is none."""
        with self._lock:
            self._record(name)
            return self._models[name]

    def _record(self, name: str) -> Document:
        if name not in self._records:
            raise invalid(f'Could not find model "{self._cloud.arn("model", name)}".')
        return self._records[name]

    # --- containers

    def _specs(self, definition: Document) -> Iterator[ContainerSpec]:
        environment = definition.get("Environment", {})
        if package_name := definition.get("ModelPackageName"):
            package = self._package({"ModelPackageName": package_name})
            if package.get("ModelApprovalStatus", "Approved") != "Approved":
                raise invalid(
                    f"Model package {package['ModelPackageArn']} cannot be deployed: its approval status is "
                    f"{package['ModelApprovalStatus']}."
                )
            for container in package["InferenceSpecification"]["Containers"]:
                yield _spec(container, {**container.get("Environment", {}), **environment})
        elif "Image" in definition:
            yield _spec(definition, environment)
        else:
            raise invalid("A container needs an Image or a ModelPackageName.")

    def _check_artifacts(self, spec: ContainerSpec, role_arn: str) -> None:
        if spec.artifacts is None:
            return
        try:
            location = Location.parse(spec.artifacts)
            s3 = self._cloud.client("s3", role_arn)
            if spec.packed:
                s3.head_object(Bucket=location.bucket, Key=location.key)
            else:
                s3.list_objects_v2(Bucket=location.bucket, Prefix=location.key, MaxKeys=1)
        except (ClientError, TransferFailed, ministack.CannotAssumeRole) as error:
            raise invalid(
                f'Could not access model data at {spec.artifacts}. Please ensure that the role "{role_arn}" exists and '
                'that its trust relationship policy allows the action "sts:AssumeRole" for the service principal '
                '"sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" permissions and that the '
                f"object is located in {self._cloud.region}."
            ) from error


def _spec(container: dict[str, Any], environment: dict[str, str]) -> ContainerSpec:
    """From a ContainerDefinition or a ModelPackageContainerDefinition."""
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    if source is None:
        return ContainerSpec(container["Image"], environment, container.get("ModelDataUrl"))
    return ContainerSpec(container["Image"], environment, source["S3Uri"], packed=source["CompressionType"] == "Gzip")
