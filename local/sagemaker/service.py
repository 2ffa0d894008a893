"""The local SageMaker put together: its parts, its services and its CloudFormation types."""

import threading

from local import ministack
from local.sagemaker.api import Api
from local.sagemaker.cloud import Cloud
from local.sagemaker.cloudformation import ModelPackageGroupType, PipelineType
from local.sagemaker.jobs import AT_ONCE
from local.sagemaker.pipelines import Pipelines
from local.sagemaker.processing import Processing
from local.sagemaker.registry import Registry
from local.sagemaker.tags import Tags
from local.sagemaker.training import Training


def install(cloud: Cloud) -> None:
    """Add SageMaker to MiniStack; once a process, before it serves."""
    slots = threading.Semaphore(AT_ONCE)
    tags = Tags()
    registry = Registry(cloud, tags)
    processing = Processing(cloud, tags, slots)
    training = Training(cloud, tags, slots)
    pipelines = Pipelines(cloud, tags, {"Processing": processing.jobs, "Training": training.jobs})
    ministack.register_service(Api([tags, registry, processing, training, pipelines]))
    for resource in (PipelineType(cloud), ModelPackageGroupType(cloud)):
        ministack.register_resource(resource)
