"""Pipelines and their executions: the operations, and the events."""

import random
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from local.ministack import CannotAssumeRole
from local.sagemaker.api import Document, Problem, invalid, not_found
from local.sagemaker.cloud import Cloud
from local.sagemaker.definition import Definition, InvalidDefinition
from local.sagemaker.events import instant
from local.sagemaker.executor import (
    ALPHABET,
    MAX_PARALLEL_STEPS,
    Cache,
    Execution,
    JobService,
    StepRun,
    callbacks,
)
from local.sagemaker.expressions import text
from local.sagemaker.listing import listed, summary
from local.sagemaker.tags import Tags


@dataclass
class Pipeline:
    name: str
    arn: str
    role_arn: str
    definition: str
    created: datetime
    modified: datetime
    display_name: str | None = None
    description: str | None = None
    parallelism: Document | None = None
    last_run: datetime | None = None
    executions: dict[str, Execution] = field(default_factory=dict)  # by ARN, oldest first
    tokens: dict[str, str] = field(default_factory=dict)  # ClientRequestToken: execution ARN
    cache: Cache = field(default_factory=Cache)

    def describe(self) -> Document:
        return {
            "PipelineArn": self.arn,
            "PipelineName": self.name,
            "PipelineDisplayName": self.display_name,
            "PipelineDescription": self.description,
            "RoleArn": self.role_arn,
            "PipelineStatus": "Active",
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
            "LastRunTime": self.last_run,
            "CreatedBy": {},
            "LastModifiedBy": {},
            "ParallelismConfiguration": self.parallelism,
        }


class Pipelines:
    """Pipelines by name. `jobs` runs their processing and training steps."""

    def __init__(self, cloud: Cloud, tags: Tags, jobs: dict[str, JobService]) -> None:
        self._cloud = cloud
        self._tags = tags
        self._jobs = jobs
        self._pipelines: dict[str, Pipeline] = {}
        self._lock = threading.RLock()

    # --- pipelines

    def create_pipeline(self, request: Document) -> Document:
        name = request["PipelineName"]
        with self._lock:
            if name in self._pipelines:
                raise invalid(
                    "Pipeline names must be unique within an AWS account and region. "
                    f"Pipeline with name ({name}) already exists."
                )
        definition = self._definition(request, request["RoleArn"])
        if definition is None:
            raise invalid("Either PipelineDefinition or PipelineDefinitionS3Location is required.")
        now = self._cloud.now()
        pipeline = Pipeline(
            name=name,
            arn=self._cloud.arn("pipeline", name),
            role_arn=request["RoleArn"],
            definition=definition,
            created=now,
            modified=now,
            display_name=request.get("PipelineDisplayName"),
            description=request.get("PipelineDescription"),
            parallelism=request.get("ParallelismConfiguration"),
        )
        with self._lock:
            self._pipelines[name] = pipeline
            self._tags.put(pipeline.arn, request.get("Tags"))
        return {"PipelineArn": pipeline.arn}

    def update_pipeline(self, request: Document) -> Document:
        pipeline = self._pipeline(request["PipelineName"])
        role_arn = request.get("RoleArn", pipeline.role_arn)
        definition = self._definition(request, role_arn)
        with self._lock:
            pipeline.role_arn = role_arn
            pipeline.definition = definition or pipeline.definition
            pipeline.display_name = request.get("PipelineDisplayName", pipeline.display_name)
            pipeline.description = request.get("PipelineDescription", pipeline.description)
            pipeline.parallelism = request.get("ParallelismConfiguration", pipeline.parallelism)
            pipeline.modified = self._cloud.now()
        return {"PipelineArn": pipeline.arn}

    def describe_pipeline(self, request: Document) -> Document:
        pipeline = self._pipeline(request["PipelineName"])
        return {**pipeline.describe(), "PipelineDefinition": pipeline.definition}

    def delete_pipeline(self, request: Document) -> Document:
        pipeline = self._pipeline(request["PipelineName"])
        with self._lock:
            del self._pipelines[pipeline.name]
            self._tags.forget(pipeline.arn)
        return {"PipelineArn": pipeline.arn}

    def list_pipelines(self, request: Document) -> Document:
        prefix = request.get("PipelineNamePrefix", "")
        with self._lock:
            pipelines = [pipeline.describe() for name, pipeline in self._pipelines.items() if name.startswith(prefix)]
        wanted = {**request, "CreationTimeAfter": request.get("CreatedAfter")}
        page, token = listed(
            pipelines, wanted | {"CreationTimeBefore": request.get("CreatedBefore")}, name="PipelineName"
        )
        identity = ("PipelineArn", "PipelineName", "PipelineDisplayName", "PipelineDescription", "RoleArn")
        times = ("CreationTime", "LastModifiedTime")
        summaries = [
            {**summary(pipeline, *identity, *times), "LastExecutionTime": pipeline["LastRunTime"]} for pipeline in page
        ]
        return {"PipelineSummaries": summaries, "NextToken": token}

    def _definition(self, request: Document, role_arn: str) -> str | None:
        """The definition that a request brings, checked; None if it brings none."""
        definition: str | None = request.get("PipelineDefinition")
        try:
            s3 = self._cloud.client("s3", role_arn)
            if location := request.get("PipelineDefinitionS3Location"):
                source = {"Bucket": location["Bucket"], "Key": location["ObjectKey"]}
                if "VersionId" in location:
                    source["VersionId"] = location["VersionId"]
                definition = s3.get_object(**source)["Body"].read().decode()
            if definition is not None:
                Definition.parse(definition)
        except CannotAssumeRole as error:
            raise invalid(
                f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
                "'sagemaker.amazonaws.com' to assume the role."
            ) from error
        except (ClientError, InvalidDefinition) as error:
            raise invalid(str(error)) from error
        return definition

    # --- executions

    def start_pipeline_execution(self, request: Document) -> Document:
        pipeline = self._pipeline(request["PipelineName"])
        if "SelectiveExecutionConfig" in request:
            raise invalid("The local SageMaker does not execute single steps of a pipeline.")
        token = request["ClientRequestToken"]
        with self._lock:
            if token in pipeline.tokens:
                return {"PipelineExecutionArn": pipeline.tokens[token]}
            execution = self._new_execution(pipeline, request)
            pipeline.executions[execution.arn] = execution
            pipeline.tokens[token] = execution.arn
            pipeline.last_run = execution.created
        execution.start()
        return {"PipelineExecutionArn": execution.arn}

    def _new_execution(self, pipeline: Pipeline, request: Document) -> Execution:
        given = {parameter["Name"]: parameter["Value"] for parameter in request.get("PipelineParameters", [])}
        try:
            parameters = Definition.parse(pipeline.definition).values(given)
        except InvalidDefinition as error:
            raise invalid(str(error)) from error
        parallelism = request.get("ParallelismConfiguration") or pipeline.parallelism or {}
        id_ = "".join(random.choices(ALPHABET, k=12))  # noqa: S311 - a name, not a secret
        return Execution(
            cloud=self._cloud,
            pipeline_name=pipeline.name,
            pipeline_arn=pipeline.arn,
            arn=f"{pipeline.arn}/execution/{id_}",
            role_arn=pipeline.role_arn,
            definition_text=pipeline.definition,
            parameters=parameters,
            jobs=self._jobs,
            cache=pipeline.cache,
            announce=self._announce,
            display_name=request.get("PipelineExecutionDisplayName"),
            description=request.get("PipelineExecutionDescription"),
            max_parallel=parallelism.get("MaxParallelExecutionSteps", MAX_PARALLEL_STEPS),
        )

    def describe_pipeline_execution(self, request: Document) -> Document:
        execution = self._execution(request)
        return {
            "PipelineArn": execution.pipeline_arn,
            "PipelineExecutionArn": execution.arn,
            "PipelineExecutionDisplayName": execution.display_name,
            "PipelineExecutionDescription": execution.description,
            "PipelineExecutionStatus": execution.status,
            "FailureReason": execution.failure,
            "CreationTime": execution.created,
            "LastModifiedTime": execution.modified,
            "CreatedBy": {},
            "LastModifiedBy": {},
        }

    def describe_pipeline_definition_for_execution(self, request: Document) -> Document:
        execution = self._execution(request)
        return {"PipelineDefinition": execution.definition_text, "CreationTime": execution.created}

    def list_pipeline_executions(self, request: Document) -> Document:
        executions = [
            {
                "PipelineExecutionArn": execution.arn,
                "PipelineExecutionDisplayName": execution.display_name,
                "PipelineExecutionDescription": execution.description,
                "PipelineExecutionStatus": execution.status,
                "PipelineExecutionFailureReason": execution.failure,
                "StartTime": execution.created,
                "CreationTime": execution.created,
            }
            for execution in list(self._pipeline(request["PipelineName"]).executions.values())
        ]
        bounds = {"CreationTimeAfter": request.get("CreatedAfter"), "CreationTimeBefore": request.get("CreatedBefore")}
        page, token = listed(executions, request | bounds, name="PipelineExecutionArn")
        for execution in page:
            del execution["CreationTime"]
        return {"PipelineExecutionSummaries": page, "NextToken": token}

    def list_pipeline_execution_steps(self, request: Document) -> Document:
        steps = [run.describe() for run in list(self._execution(request).runs.values())]
        page, token = listed(steps, request | {"SortBy": "StartTime"}, name="StepName")
        return {"PipelineExecutionSteps": page, "NextToken": token}

    def list_pipeline_parameters_for_execution(self, request: Document) -> Document:
        parameters = self._execution(request).parameters
        return {"PipelineParameters": [{"Name": name, "Value": text(value)} for name, value in parameters.items()]}

    def stop_pipeline_execution(self, request: Document) -> Document:
        execution = self._execution(request)
        if execution.status == "Executing":
            execution.stop()
        elif execution.status != "Stopping":
            raise Problem("ConflictException", f"The execution is {execution.status} and cannot be stopped.")
        return {"PipelineExecutionArn": execution.arn}

    def retry_pipeline_execution(self, request: Document) -> Document:
        execution = self._execution(request)
        if execution.status not in ("Failed", "Stopped"):
            raise Problem("ConflictException", f"The execution is {execution.status} and cannot be retried.")
        execution.start()
        return {"PipelineExecutionArn": execution.arn}

    def send_pipeline_execution_step_success(self, request: Document) -> Document:
        callback = self._callback(request["CallbackToken"])
        callback.outputs = {output["Name"]: output["Value"] for output in request.get("OutputParameters", [])}
        callback.answered.set()
        return {}

    def send_pipeline_execution_step_failure(self, request: Document) -> Document:
        callback = self._callback(request["CallbackToken"])
        callback.failure = request.get("FailureReason", "The callback step was reported as failed.")
        callback.answered.set()
        return {}

    # --- small parts

    def _pipeline(self, name_or_arn: str) -> Pipeline:
        name = name_or_arn.rsplit("/", 1)[-1]
        with self._lock:
            if name not in self._pipelines:
                raise not_found(f"Pipeline '{self._cloud.arn('pipeline', name)}' does not exist.")
            return self._pipelines[name]

    def _execution(self, request: Document) -> Execution:
        arn = request["PipelineExecutionArn"]
        with self._lock:
            for pipeline in self._pipelines.values():
                if arn in pipeline.executions:
                    return pipeline.executions[arn]
        raise not_found(f"Pipeline execution '{arn}' does not exist.")

    @staticmethod
    def _callback(token: str) -> Any:
        if token not in callbacks:
            raise not_found(f"No callback step waits for the token {token}.")
        return callbacks[token]

    def _announce(self, execution: Execution, run: StepRun | None, previous: str) -> None:
        common = {"pipelineArn": execution.pipeline_arn, "pipelineExecutionArn": execution.arn}
        if run is None:
            kind = "SageMaker Model Building Pipeline Execution Status Change"
            detail: Document = {
                "pipelineExecutionDisplayName": execution.display_name,
                "pipelineExecutionDescription": execution.description,
                "currentPipelineExecutionStatus": execution.status,
                "previousPipelineExecutionStatus": previous or None,
                "executionStartTime": instant(execution.created),
                "executionEndTime": instant(execution.ended) if execution.ended else None,
            }
        else:
            kind = "SageMaker Model Building Pipeline Execution Step Status Change"
            detail = {
                "metadata": _lower_camel(run.metadata),
                "stepName": run.step.name,
                "stepType": run.step.type,
                "currentStepStatus": run.status,
                "previousStepStatus": previous or None,
                "stepStartTime": instant(run.start),
                "stepEndTime": instant(run.end) if run.end else None,
                "failureReason": run.failure,
                "cacheHitResult": {"sourcePipelineExecutionArn": run.cached_from} if run.cached_from else None,
            }
        present = {key: value for key, value in (detail | common).items() if value is not None}
        self._cloud.emit(kind, present, [execution.pipeline_arn, execution.arn])


def _lower_camel(value: Any) -> Any:
    match value:
        case dict():
            return {key[:1].lower() + key[1:]: _lower_camel(member) for key, member in value.items()}
        case list():
            return [_lower_camel(member) for member in value]
    return value
