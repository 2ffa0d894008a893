"""The local SageMaker put together: its parts, its services and its CloudFormation types."""

import threading

from local import ministack
from local.alarms import Alarms
from local.faults import INTERRUPTIONS
from local.sagemaker.api import Api
from local.sagemaker.asynchronous import Asynchronous
from local.sagemaker.cards import Cards
from local.sagemaker.cloud import Cloud
from local.sagemaker.cloudformation import ModelPackageGroupType, PipelineType
from local.sagemaker.endpoint_configs import EndpointConfigs
from local.sagemaker.endpoint_resources import SETTINGS_PATH, EndpointConfigType, EndpointType, ModelType, Settings
from local.sagemaker.endpoints import Endpoints, Scaled
from local.sagemaker.jobs import AT_ONCE
from local.sagemaker.lineage import Lineage
from local.sagemaker.metrics import Metrics
from local.sagemaker.models import Models
from local.sagemaker.pipelines import Pipelines
from local.sagemaker.processing import Processing
from local.sagemaker.registry import Registry
from local.sagemaker.runtime import Runtime
from local.sagemaker.tags import Tags
from local.sagemaker.training import Training
from local.sagemaker.transform import Transform


def install(cloud: Cloud, scaled: Scaled) -> None:
    """Add SageMaker to MiniStack, with endpoints that something scales; once a process, before it serves."""
    slots = threading.Semaphore(AT_ONCE)
    tags = Tags()
    ministack.register_tags("sagemaker", tags.compared)
    lineage = Lineage(cloud, tags)
    registry = Registry(cloud, tags, lineage.package_registered)
    cards = Cards(cloud, tags)
    processing = Processing(cloud, tags, slots)
    training = Training(cloud, tags, slots)
    pipelines = Pipelines(cloud, tags, {"Processing": processing.jobs, "Training": training.jobs})
    models = Models(cloud, tags, registry.describe_model_package)
    transform = Transform(cloud, tags, models, slots)
    configs = EndpointConfigs(cloud, tags, models)
    endpoints = Endpoints(cloud, tags, models, configs, scaled)
    metrics = Metrics(cloud)
    settings = Settings.from_environment()
    ministack.register_service(
        Api([tags, registry, lineage, cards, processing, training, transform, pipelines, models, configs, endpoints]),
    )
    asynchronous = Asynchronous(cloud, endpoints, metrics)
    ministack.register_service(Runtime(cloud, endpoints, metrics, asynchronous), busy=True)
    ministack.register_door(SETTINGS_PATH, settings.answer)
    ministack.register_door(INTERRUPTIONS, training.interrupt)
    ministack.scale_time(cloud.time_scale)
    for resource in (
        PipelineType(cloud),
        ModelPackageGroupType(cloud),
        ModelType(cloud),
        EndpointConfigType(cloud),
        EndpointType(cloud, endpoints, settings),
    ):
        ministack.register_resource(resource)
    metrics.start()
    asynchronous.start()
    Alarms(cloud).start()
