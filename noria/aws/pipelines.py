"""Training pipelines and their executions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker.type_defs import PipelineExecutionStepMetadataTypeDef

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
    job: str | None
    """ARN of the processing or training job that it ran; None where it ran none, or took an earlier one's result."""


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
                job=None if "CacheHitResult" in item else _job(item.get("Metadata", {})),
            )
            for page in pages
            for item in page["PipelineExecutionSteps"]
        ]

    def instance_hours(self, steps: Iterable[Step]) -> float:
        """What the jobs of these steps took: billed time times instances. Of a step that was tried again, the last job.

        Billed is the time from a job's start to its end on its instances, not the wait for them.
        Source: DescribeTrainingJob, DescribeProcessingJob.
        """
        return sum(self._seconds(step.job) for step in steps if step.job) / 3600

    def _seconds(self, job: str) -> float:
        kind, _, name = job.rpartition(":")[2].partition("/")
        if kind == "training-job":
            trained = self.client.describe_training_job(TrainingJobName=name)
            return trained.get("BillableTimeInSeconds", 0) * trained["ResourceConfig"].get("InstanceCount", 1)
        processed = self.client.describe_processing_job(ProcessingJobName=name)
        if "ProcessingStartTime" not in processed or "ProcessingEndTime" not in processed:
            return 0  # it never ran
        took = processed["ProcessingEndTime"] - processed["ProcessingStartTime"]
        return took.total_seconds() * processed["ProcessingResources"]["ClusterConfig"]["InstanceCount"]


def _job(metadata: "PipelineExecutionStepMetadataTypeDef") -> str | None:
    return metadata.get("TrainingJob", {}).get("Arn") or metadata.get("ProcessingJob", {}).get("Arn")
