"""What an endpoint is at a moment, as DescribeEndpoint describes it and as its events tell it."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from local.sagemaker.api import Document
from local.sagemaker.deployments import Counts
from local.sagemaker.endpoint_configs import instance_count
from local.sagemaker.events import milliseconds
from local.sagemaker.fleet import Fleet, Variant
from local.sagemaker.traffic import Router

IN_PROGRESS = ("Creating", "Updating", "Deleting")
_EVENT_STATUS = {
    "Creating": "CREATING",
    "InService": "IN_SERVICE",
    "Updating": "UPDATING",
    "Deleting": "DELETING",
    "Failed": "FAILED",
}


@dataclass(frozen=True)
class Pending:
    """A deployment under way: to which config, on how many green instances, and what it is doing (a VariantStatus)."""

    config: Document
    started: datetime
    active: Counts
    status: Document


@dataclass
class Endpoint:
    """`router` is None until a fleet has come up, `leaving` the VariantStatus of a fleet that ends."""

    name: str
    arn: str
    config: Document
    created: datetime
    modified: datetime
    status: str = "Creating"
    failure: str | None = None
    deployment_config: Document | None = None
    router: Router | None = None
    pending: Pending | None = None
    leaving: Document | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def in_progress(self) -> bool:
        return self.status in IN_PROGRESS

    @property
    def fleet(self) -> Fleet | None:
        return self.router.fleet if self.router else None


def description(endpoint: Endpoint) -> Document:
    """The answer of DescribeEndpoint."""
    fleet = endpoint.fleet
    return {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": endpoint.config["EndpointConfigName"],
        "ProductionVariants": fleet and list(_summaries(endpoint, fleet.variants)),
        "ShadowProductionVariants": (fleet and list(_summaries(endpoint, fleet.shadows))) or None,
        "DataCaptureConfig": _capture_summary(fleet.capture.config) if fleet and fleet.capture else None,
        "EndpointStatus": endpoint.status,
        "FailureReason": endpoint.failure,
        "CreationTime": endpoint.created,
        "LastModifiedTime": endpoint.modified,
        "LastDeploymentConfig": endpoint.deployment_config,
        "AsyncInferenceConfig": endpoint.config.get("AsyncInferenceConfig"),
        "PendingDeploymentSummary": endpoint.pending and _pending_summary(endpoint.pending),
    }


def state_event(endpoint: Endpoint, tags: list[dict[str, str]]) -> Document:
    """The detail of `SageMaker Endpoint State Change`.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
    """
    fleet = endpoint.fleet
    failure = {"FailureReason": endpoint.failure} if endpoint.failure else {}
    return milliseconds(
        {
            "EndpointName": endpoint.name,
            "EndpointArn": endpoint.arn,
            "EndpointConfigName": endpoint.config["EndpointConfigName"],
            "ProductionVariants": list(_summaries(endpoint, fleet.variants)) if fleet else [],
            "EndpointStatus": _EVENT_STATUS[endpoint.status],
            **failure,
            "CreationTime": endpoint.created,
            "LastModifiedTime": endpoint.modified,
            "Tags": {tag["Key"]: tag["Value"] for tag in tags},
        }
    )


def deployment_event(endpoint: Endpoint, tags: list[dict[str, str]]) -> Document:
    """The detail of `SageMaker Endpoint Deployment State Change`."""
    detail = state_event(endpoint, tags)
    if endpoint.pending:
        detail["PendingDeploymentSummary"] = milliseconds(_pending_summary(endpoint.pending))
    return detail


def _summaries(endpoint: Endpoint, variants: Mapping[str, Variant]) -> Iterator[Document]:
    for name, variant in variants.items():
        images = [
            {"SpecifiedImage": spec.image, "ResolvedImage": spec.image, "ResolutionTime": endpoint.modified}
            for spec in variant.spec.containers
        ]
        yield {
            "VariantName": name,
            "DeployedImages": images,
            "CurrentWeight": variant.weight,
            "DesiredWeight": variant.weight,
            "CurrentInstanceCount": variant.running,
            "DesiredInstanceCount": variant.instance_count,
            **({"VariantStatus": [endpoint.leaving]} if endpoint.leaving else {}),
        }


def _pending_summary(pending: Pending) -> Document:
    def variants(member: str) -> list[Document]:
        return [
            {
                "VariantName": variant["VariantName"],
                "CurrentWeight": variant.get("InitialVariantWeight", 1.0),
                "DesiredWeight": variant.get("InitialVariantWeight", 1.0),
                "CurrentInstanceCount": pending.active.get(variant["VariantName"], 0),
                "DesiredInstanceCount": instance_count(variant),
                **({"InstanceType": variant["InstanceType"]} if "InstanceType" in variant else {}),
                "VariantStatus": [pending.status],
            }
            for variant in pending.config.get(member) or []
        ]

    shadows = variants("ShadowProductionVariants")
    return {
        "EndpointConfigName": pending.config["EndpointConfigName"],
        "StartTime": pending.started,
        "ProductionVariants": variants("ProductionVariants"),
        **({"ShadowProductionVariants": shadows} if shadows else {}),
    }


def _capture_summary(config: Mapping[str, Any]) -> Document:
    return {
        "EnableCapture": True,
        "CaptureStatus": "Started",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }
