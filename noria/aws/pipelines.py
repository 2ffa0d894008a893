"""Training pipelines and their executions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

FINISHED = frozenset({"Succeeded", "Failed", "Stopped"})


@dataclass(frozen=True, kw_only=True)
class Execution:
    arn: str
    status: str

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


@dataclass(frozen=True, kw_only=True)
class Step:
    name: str
    status: str
    failure: str | None
    package: str | None


@dataclass(frozen=True, kw_only=True)
class Pipelines:
    client: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker"), repr=False)

    def start(self, pipeline: str, *, token: str, parameters: Mapping[str, str]) -> str:
        """Start an execution and return its ARN; the same token again returns the execution that it started."""
        answer = self.client.start_pipeline_execution(
            PipelineName=pipeline,
            ClientRequestToken=token,
            PipelineParameters=[{"Name": name, "Value": value} for name, value in parameters.items()],
        )
        return answer["PipelineExecutionArn"]

    def executions(self, pipeline: str, *, since: datetime) -> list[Execution]:
        """Newest first."""
        pages = self.client.get_paginator("list_pipeline_executions").paginate(
            PipelineName=pipeline, CreatedAfter=since, SortBy="CreationTime", SortOrder="Descending"
        )
        return [
            Execution(arn=item["PipelineExecutionArn"], status=item["PipelineExecutionStatus"])
            for page in pages
            for item in page["PipelineExecutionSummaries"]
        ]

    def failure(self, execution: str) -> str | None:
        return self.client.describe_pipeline_execution(PipelineExecutionArn=execution).get("FailureReason")

    def changed(self, execution: str) -> datetime:
        return self.client.describe_pipeline_execution(PipelineExecutionArn=execution)["LastModifiedTime"]

    def steps(self, execution: str) -> list[Step]:
        pages = self.client.get_paginator("list_pipeline_execution_steps").paginate(PipelineExecutionArn=execution)
        return [
            Step(
                name=item["StepName"],
                status=item["StepStatus"],
                failure=item.get("FailureReason"),
                package=item.get("Metadata", {}).get("RegisterModel", {}).get("Arn"),
            )
            for page in pages
            for item in page["PipelineExecutionSteps"]
        ]
