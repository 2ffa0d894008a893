"""A SageMaker session that authors pipelines without credentials, network or uploads."""

import os
from typing import Any

# The SDK makes clients when it is imported, and asks for a region, instance metadata and the role's permissions.
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["SAGEMAKER_VALIDATE_ROLE"] = "false"

import boto3
from sagemaker.core.workflow.pipeline_context import PipelineSession

_CONFIG = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}


class OfflineSession(PipelineSession):  # type: ignore[misc]
    """Refuses what would need AWS: a definition that uploads something is not the same for everyone."""

    def __init__(self, bucket: str) -> None:
        session = boto3.Session(
            region_name=os.environ["AWS_DEFAULT_REGION"],
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106
        )
        super().__init__(boto_session=session, default_bucket=bucket, sagemaker_config=_CONFIG)
        self._default_bucket = bucket  # else it would be looked up, and made

    def account_id(self) -> str:
        return "000000000000"

    def upload_data(self, *args: Any, **kwargs: Any) -> str:
        raise NotImplementedError(f"the definition names its files by placeholder, and uploads none: {args}")

    upload_string_as_file_body = upload_data
