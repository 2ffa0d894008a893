"""Transform jobs: a model's answers to a file of rows."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, cast

import boto3
from botocore.exceptions import ClientError

from noria.batch import MEDIA_TYPES, Batch

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker.literals import TransformInstanceTypeType
    from mypy_boto3_sagemaker.type_defs import TransformOutputTypeDef

FINISHED = frozenset({"Completed", "Failed", "Stopped"})


class RefusedError(RuntimeError):
    """SageMaker does not take a job as it is asked for; the message says why."""


@dataclass(frozen=True, kw_only=True)
class TransformJob:
    """`changed`: when it ended, or began where it has not."""

    name: str
    status: str
    failure: str | None
    input: str
    changed: datetime

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


@dataclass(frozen=True, kw_only=True)
class Transforms:
    client: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker"), repr=False)

    def describe(self, name: str) -> TransformJob | None:
        """None when there is no such job."""
        try:
            job = self.client.describe_transform_job(TransformJobName=name)
        except ClientError as error:
            details = error.response["Error"]
            if details["Code"] == "ResourceNotFound" or "could not find" in details["Message"].lower():
                return None
            raise
        return TransformJob(
            name=name,
            status=job["TransformJobStatus"],
            failure=job.get("FailureReason"),
            input=job["TransformInput"]["DataSource"]["S3DataSource"].get("S3Uri", ""),
            changed=job.get("TransformEndTime", job["CreationTime"]),
        )

    def start(
        self,
        name: str,
        batch: Batch,
        *,
        source: str,
        target: str,
        key: str | None,
    ) -> None:
        """Answer the rows under the S3 URI `source`; `<file>.out` comes to lie under `target`.

        A job of that name is no error. Raises `RefusedError` for one that can never be.
        """
        media_type = MEDIA_TYPES[batch.format]
        output: TransformOutputTypeDef = {"S3OutputPath": target, "Accept": media_type, "AssembleWith": "Line"}
        if key:
            output["KmsKeyId"] = key
        try:
            self.client.create_transform_job(
                TransformJobName=name,
                ModelName=batch.model_name,
                BatchStrategy="MultiRecord",
                TransformInput={
                    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
                    "ContentType": media_type,
                    "SplitType": "Line",
                },
                TransformOutput=output,
                TransformResources={
                    "InstanceType": cast("TransformInstanceTypeType", batch.instance),
                    "InstanceCount": 1,
                },
                DataProcessing={"InputFilter": batch.input_filter, "JoinSource": "Input"},
            )
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
            if code == "ResourceInUse":
                return
            # A model that was replaced a moment ago is another one the next time.
            if code == "ValidationException" and "could not find model" not in message.lower():
                raise RefusedError(message) from error
            raise
