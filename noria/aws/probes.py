"""A new version on an endpoint, asked by Noria itself.

While a deployment shifts traffic, the old fleet and the new one answer under one name; a model server says in a header
which bundle it serves (`noria.golden`), and so which of the two has answered.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_PendingDeploymentSummary.html
"""

import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from pydantic import BaseModel, ValidationError

from noria.aws.telemetry import own_request
from noria.capture import PROBE
from noria.golden import attributes

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

ASKING = Config(read_timeout=45, retries={"total_max_attempts": 1})
"""A serverless endpoint that nobody has asked for a while starts first; a call that is made again starts another."""

Packages = dict[str, str | None]
"""The package of each production variant."""

_STARTING = "Creating"
_BAKING = "Baking"
_BUNDLE = re.compile(attributes("([0-9a-f]{64})"))


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What an endpoint answers with, and what it is moving to; `to` is the same where it moves to nothing else.

    `starting`: no instance of what it moves to takes traffic yet. `baking`: it has its share of it, and is watched.
    """

    config: str
    packages: Packages
    to: str
    to_packages: Packages
    began: datetime | None
    starting: bool
    baking: bool

    @property
    def moving(self) -> bool:
        return self.to != self.config


class _Answers(BaseModel):
    predictions: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`predictions` is None when the model answered with an error, or with something else than predictions.

    `bundle` is what the server says it serves, None where it says nothing, as with an error.
    """

    predictions: list[dict[str, Any]] | None
    bundle: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProbedEndpoint:
    name: str
    client: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker"), repr=False)
    runtime: "SageMakerRuntimeClient" = field(
        default_factory=lambda: boto3.client("sagemaker-runtime", config=ASKING), repr=False
    )

    def deployment(self) -> Deployment | None:
        """None when the endpoint does not exist, or answers nobody."""
        try:
            endpoint = self.client.describe_endpoint(EndpointName=self.name)
        except ClientError as error:
            if "could not find" in error.response["Error"]["Message"].lower():
                return None
            raise
        if endpoint["EndpointStatus"] in {"Creating", "Deleting", "Failed", "OutOfService"}:
            return None
        config = endpoint["EndpointConfigName"]
        pending = endpoint.get("PendingDeploymentSummary")
        to = pending["EndpointConfigName"] if pending else config
        packages = self._packages(config)
        states = [
            s["Status"] for v in (pending or {}).get("ProductionVariants", []) for s in v.get("VariantStatus", [])
        ]
        return Deployment(
            config=config,
            packages=packages,
            to=to,
            to_packages=packages if to == config else self._packages(to),
            began=pending.get("StartTime") if pending else None,
            starting=_STARTING in states,
            baking=_BAKING in states,
        )

    def ask(self, rows: Sequence[dict[str, Any]], *, variant: str | None) -> Answer:
        """One request of all rows, which says that it is Noria's; of a variant, where there are several."""
        ask = partial(
            self.runtime.invoke_endpoint,
            EndpointName=self.name,
            ContentType="application/json",
            Accept="application/json",
            Body=json.dumps({"instances": rows}).encode(),
            InferenceId=f"{PROBE}{uuid.uuid4()}",
        )
        try:
            answer = own_request(self.name, partial(ask, TargetVariant=variant) if variant else ask)
        except self.runtime.exceptions.ModelError:
            return Answer(predictions=None)
        said = _BUNDLE.search(answer.get("CustomAttributes", ""))
        bundle = said[1] if said else None
        try:
            predictions = _Answers.model_validate_json(answer["Body"].read()).predictions
        except ValidationError:
            return Answer(predictions=None, bundle=bundle)
        return Answer(predictions=predictions if len(predictions) == len(rows) else None, bundle=bundle)

    def _packages(self, config: str) -> Packages:
        described = self.client.describe_endpoint_config(EndpointConfigName=config)
        return {v["VariantName"]: self._package(v["ModelName"]) for v in described["ProductionVariants"]}

    def _package(self, model: str) -> str | None:
        answer = self.client.describe_model(ModelName=model)
        containers = answer.get("Containers") or [answer.get("PrimaryContainer", {})]
        return containers[0].get("ModelPackageName")
