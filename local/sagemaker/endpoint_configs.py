"""Endpoint configs: which models an endpoint runs, on what, and what it captures."""

import threading
from typing import Any

from local.sagemaker.api import Document, invalid
from local.sagemaker.cloud import Cloud
from local.sagemaker.listing import listed, summary
from local.sagemaker.models import Models
from local.sagemaker.tags import Tags

# What a variant without instances counts as where instances are counted.
SERVERLESS_INSTANCES = 1

_STORED = (
    "EndpointConfigName",
    "ProductionVariants",
    "ShadowProductionVariants",
    "DataCaptureConfig",
    "KmsKeyId",
    "AsyncInferenceConfig",
    "ExplainerConfig",
    "VpcConfig",
)


class EndpointConfigs:
    def __init__(self, cloud: Cloud, tags: Tags, models: Models) -> None:
        self._cloud = cloud
        self._tags = tags
        self._models = models
        self._records: dict[str, Document] = {}
        self._lock = threading.RLock()

    def create_endpoint_config(self, request: Document) -> Document:
        name = request["EndpointConfigName"]
        arn = self._cloud.arn("endpoint-config", name)
        self._check(request)
        with self._lock:
            if name in self._records:
                raise invalid(f'Cannot create already existing endpoint configuration "{arn}".')
            for variant in all_variants(request):
                self._models.model(variant["ModelName"])
            now = self._cloud.now()
            self._records[name] = summary(request, *_STORED) | {"EndpointConfigArn": arn, "CreationTime": now}
            self._tags.put(arn, request.get("Tags"))
        return {"EndpointConfigArn": arn}

    def describe_endpoint_config(self, request: Document) -> Document:
        return dict(self.config(request["EndpointConfigName"]))

    def list_endpoint_configs(self, request: Document) -> Document:
        with self._lock:
            page, token = listed(self._records.values(), request, name="EndpointConfigName")
        members = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
        return {"EndpointConfigs": [summary(record, *members) for record in page], "NextToken": token}

    def delete_endpoint_config(self, request: Document) -> Document:
        """As on AWS, whether an endpoint uses it or not."""
        with self._lock:
            record = self.config(request["EndpointConfigName"])
            del self._records[record["EndpointConfigName"]]
            self._tags.forget(record["EndpointConfigArn"])
        return {}

    def config(self, name: str) -> Document:
        """Raises `Problem` if there is none."""
        with self._lock:
            if name not in self._records:
                arn = self._cloud.arn("endpoint-config", name)
                raise invalid(f'Could not find endpoint configuration "{arn}".')
            return self._records[name]

    def _check(self, request: Document) -> None:
        production, shadow = request["ProductionVariants"], request.get("ShadowProductionVariants", [])
        names = [variant["VariantName"] for variant in all_variants(request)]
        if len(set(names)) != len(names):
            raise invalid("Variant names must be unique within an endpoint configuration.")
        if shadow and (len(shadow) > 1 or len(production) > 1):
            raise invalid("With a shadow variant there must be exactly one production variant and one shadow variant.")
        for variant in all_variants(request):
            if "ModelName" not in variant:
                raise invalid(f"Variant {variant['VariantName']} needs a ModelName.")
            serverless = "ServerlessConfig" in variant
            instances = {"InstanceType", "InitialInstanceCount"} & set(variant)
            if len(instances) != (0 if serverless else 2):
                raise invalid(
                    f"Variant {variant['VariantName']} needs either a ServerlessConfig, or an InstanceType and an "
                    "InitialInstanceCount."
                )
        if is_serverless(request):
            self._check_serverless(request)
        if is_asynchronous(request):
            if len(production) > 1 or shadow:
                raise invalid("Asynchronous inference supports exactly one production variant and no shadow variant.")
            if not request["AsyncInferenceConfig"]["OutputConfig"].get("S3OutputPath"):
                raise invalid("The local SageMaker has no bucket of its own: give S3OutputPath in OutputConfig.")

    def _check_serverless(self, request: Document) -> None:
        """Guide, `serverless-endpoints`: feature exclusions, and memory sizes."""
        variant, *more = all_variants(request)
        model = self._models.model(variant["ModelName"])
        excluded = {
            "multiple production variants": bool(more) and not request.get("ShadowProductionVariants"),
            "shadow variants": bool(request.get("ShadowProductionVariants")),
            "data capture": request.get("DataCaptureConfig", {}).get("EnableCapture", False),
            "asynchronous inference": is_asynchronous(request),
            "network isolation": model.isolated,
            "inference pipelines": len(model.containers) > 1,
        }
        if found := [feature for feature, used in excluded.items() if used]:
            raise invalid(f"Serverless endpoints do not support {', '.join(found)}.")
        memory = variant["ServerlessConfig"]["MemorySizeInMB"]
        if memory % 1024:
            raise invalid(f"MemorySizeInMB must be 1024, 2048, 3072, 4096, 5120 or 6144; not {memory}.")


def all_variants(config: Document) -> list[dict[str, Any]]:
    return [*config["ProductionVariants"], *(config.get("ShadowProductionVariants") or [])]


def instance_count(variant: dict[str, Any]) -> int:
    return int(variant.get("InitialInstanceCount", SERVERLESS_INSTANCES))


def is_serverless(config: Document) -> bool:
    return any("ServerlessConfig" in variant for variant in config["ProductionVariants"])


def is_asynchronous(config: Document) -> bool:
    return bool(config.get("AsyncInferenceConfig"))
