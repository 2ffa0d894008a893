"""The local SageMaker put together: its parts, its services and its CloudFormation types."""

from local import ministack
from local.sagemaker.api import Api
from local.sagemaker.cloud import Cloud
from local.sagemaker.registry import Registry
from local.sagemaker.tags import Tags


def install(cloud: Cloud) -> None:
    """Add SageMaker to MiniStack; once a process, before it serves."""
    tags = Tags()
    ministack.register_service(Api([tags, Registry(cloud, tags)]))
