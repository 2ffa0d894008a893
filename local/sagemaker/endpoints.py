"""Endpoints: created, updated by deployments, scaled and deleted; every change of state is an event.

What takes time runs in a thread of its own, while the endpoint says Creating, Updating or Deleting.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError

from local import ministack
from local.sagemaker import deployments
from local.sagemaker.api import Document, Problem, invalid
from local.sagemaker.capture import Capture
from local.sagemaker.cloud import Cloud
from local.sagemaker.deployments import Counts, Deployment, RollbackError
from local.sagemaker.endpoint_configs import EndpointConfigs, instance_count, is_asynchronous, is_serverless
from local.sagemaker.endpoint_state import Endpoint, Pending, deployment_event, description, state_event
from local.sagemaker.fleet import (
    INVOCATION_TIMEOUT,
    Fleet,
    Place,
    StartError,
    Variant,
    VariantSpec,
    start_fleet,
    start_variant,
)
from local.sagemaker.listing import listed, summary
from local.sagemaker.models import Models
from local.sagemaker.serverless import start_serverless
from local.sagemaker.tags import Tags
from local.sagemaker.traffic import Router

logger = logging.getLogger("noria.endpoints")

# Seconds for a container's first ping; AWS waits longer, but a model server that isn't up by then never will be.
STARTUP_TIMEOUT = 60.0
# Seconds that an asynchronous invocation may take, at most: InvokeEndpointAsync, InvocationTimeoutSeconds.
LONGEST_INVOCATION = 3600.0
# Seconds here between two looks at a deployment's alarms, at least.
SHORTEST_POLL = 0.25


@dataclass(frozen=True)
class Retained:
    """What an update keeps of the running endpoint, by variant, instead of taking it from the new config."""

    instance_counts: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)


class Scaled(Protocol):
    """What Application Auto Scaling says about an endpoint: which variants it scales; and is told when it is gone."""

    def variants(self, endpoint: str) -> set[str]: ...

    def forget(self, endpoint: str) -> None: ...


class Endpoints:
    def __init__(self, cloud: Cloud, tags: Tags, models: Models, configs: EndpointConfigs, scaled: Scaled) -> None:
        self._cloud = cloud
        self._tags = tags
        self._models = models
        self._configs = configs
        self._scaled = scaled
        self._endpoints: dict[str, Endpoint] = {}
        self._lock = threading.RLock()

    # --- operations

    def create_endpoint(self, request: Document) -> Document:
        name = request["EndpointName"]
        arn = self._cloud.arn("endpoint", name)
        config = self._configs.config(request["EndpointConfigName"])
        deployment_config = request.get("DeploymentConfig")
        self._check_deployment(deployment_config, config)
        now = self._cloud.now()
        endpoint = Endpoint(name, arn, config, now, now, deployment_config=deployment_config)
        with self._lock:
            if name in self._endpoints:
                raise invalid(f'Cannot create already existing endpoint "{arn}".')
            self._endpoints[name] = endpoint
            self._tags.put(arn, request.get("Tags"))
        self._move(endpoint, "Creating")
        self._carry_out(endpoint, "creation", lambda: self._create(endpoint))
        return {"EndpointArn": arn}

    def update_endpoint(self, request: Document) -> Document:
        config = self._configs.config(request["EndpointConfigName"])
        deployment_config = request.get("DeploymentConfig")
        endpoint = self._idle(request["EndpointName"])
        _check_conversion(endpoint.config, config)
        if deployment_config is None and request.get("RetainDeploymentConfig"):
            deployment_config = endpoint.deployment_config
        self._check_scaled(endpoint, config)
        self._check_deployment(deployment_config, config, endpoint)
        self._occupy(endpoint, "Updating")
        retained = _retained(endpoint, request)
        self._carry_out(endpoint, "deployment", lambda: self._update(endpoint, config, deployment_config, retained))
        return {"EndpointArn": endpoint.arn}

    def update_endpoint_weights_and_capacities(self, request: Document) -> Document:
        changes = {change["VariantName"]: change for change in request["DesiredWeightsAndCapacities"]}
        endpoint = self._idle(request["EndpointName"])
        router = _running(endpoint)
        variants = router.fleet.variants
        if unknown := set(changes) - set(variants):
            raise invalid(f"Variants not found: {', '.join(sorted(unknown))}.")
        if not is_asynchronous(endpoint.config) and any(c.get("DesiredInstanceCount") == 0 for c in changes.values()):
            raise invalid("Only variants of asynchronous endpoints can have no instance.")
        self._occupy(endpoint, "Updating")

        def apply() -> None:
            router.reweigh({name: each["DesiredWeight"] for name, each in changes.items() if "DesiredWeight" in each})
            for name, change in changes.items():
                variants[name].instance_count = change.get("DesiredInstanceCount", variants[name].instance_count)
            self._move(endpoint, "InService")

        self._carry_out(endpoint, "scaling", apply)
        return {"EndpointArn": endpoint.arn}

    def describe_endpoint(self, request: Document) -> Document:
        with self._lock:
            return description(self.endpoint(request["EndpointName"]))

    def list_endpoints(self, request: Document) -> Document:
        with self._lock:
            records = [description(endpoint) for endpoint in self._endpoints.values()]
        page, token = listed(records, request, name="EndpointName", status="EndpointStatus")
        members = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
        return {"Endpoints": [summary(record, *members) for record in page], "NextToken": token}

    def delete_endpoint(self, request: Document) -> Document:
        endpoint = self._idle(request["EndpointName"])
        self._occupy(endpoint, "Deleting")
        self._carry_out(endpoint, "deletion", lambda: self._delete(endpoint))
        return {}

    # --- for the runtime and for CloudFormation

    def endpoint(self, name: str) -> Endpoint:
        """Raises `Problem` if there is none."""
        with self._lock:
            if name not in self._endpoints:
                raise invalid(f'Could not find endpoint "{self._cloud.arn("endpoint", name)}".')
            return self._endpoints[name]

    def asynchronous(self) -> list[Endpoint]:
        """Those that answer through a queue."""
        with self._lock:
            return [each for each in self._endpoints.values() if each.router and is_asynchronous(each.config)]

    def in_service(self, name: str) -> tuple[Endpoint, Router]:
        """An endpoint that can be invoked, and its traffic. Raises `Problem` if there is none."""
        not_found = Problem("ValidationError", f"Endpoint {name} of account {self._cloud.account} not found.")
        try:
            endpoint = self.endpoint(name)
        except Problem as problem:
            raise not_found from problem
        if endpoint.router is None or endpoint.status == "Deleting":
            raise not_found
        return endpoint, endpoint.router

    def settled(self, name: str) -> Endpoint | None:
        """Wait until nothing changes about an endpoint any more; None if it is gone then."""
        try:
            endpoint = self.endpoint(name)
        except Problem:
            return None
        with endpoint.changed:
            endpoint.changed.wait_for(lambda: not endpoint.in_progress or name not in self._endpoints)
        return endpoint if name in self._endpoints else None

    # --- checks

    def _idle(self, name: str) -> Endpoint:
        endpoint = self.endpoint(name)
        if endpoint.in_progress:
            raise invalid(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        return endpoint

    def _occupy(self, endpoint: Endpoint, status: str) -> None:
        """Take an endpoint for an operation, unless another came first."""
        with self._lock:
            self._idle(endpoint.name)
            endpoint.status = status
        self._move(endpoint, status)

    def _check_scaled(self, endpoint: Endpoint, config: Document) -> None:
        """A variant that is scaled can get another model, but neither go nor get another instance type.

        https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html
        """
        types = [
            {variant["VariantName"]: variant.get("InstanceType") for variant in each["ProductionVariants"]}
            for each in (endpoint.config, config)
        ]
        before, after = types
        if bound := [name for name in sorted(self._scaled.variants(endpoint.name)) if before[name] != after.get(name)]:
            raise invalid(
                f"The variant(s) {', '.join(bound)} must be deregistered as scalable targets with Application Auto "
                "Scaling before they can be removed or have their instance type updated."
            )

    def _check_deployment(
        self, deployment_config: Document | None, config: Document, current: Endpoint | None = None
    ) -> None:
        """Refuse a deployment that AWS would refuse; without a DeploymentConfig anything goes, all at once."""
        if deployment_config is None:
            return
        counts = {variant["VariantName"]: instance_count(variant) for variant in config["ProductionVariants"]}
        before = {v["VariantName"] for v in current.config["ProductionVariants"]} if current else set(counts)
        if set(counts) != before:
            raise invalid(
                "With deployment guardrails the new endpoint configuration must have the same variant names as the old "
                f"one: {', '.join(sorted(before))}; not {', '.join(sorted(counts))}."
            )
        if deployment_config.get("RollingUpdatePolicy") and is_serverless(config):
            raise invalid("Rolling deployments are not supported for serverless endpoints.")
        try:
            deployments.check(deployment_config, counts)
        except ValueError as error:
            raise invalid(str(error)) from error
        named = _alarm_names(deployment_config)
        if missing := set(named) - set(self._alarm_states(named)):
            raise invalid(f"CloudWatch alarms not found: {', '.join(sorted(missing))}.")

    def _alarm_states(self, names: list[str], role_arn: str | None = None) -> dict[str, str]:
        """The state of each named alarm that exists."""
        if not names:
            return {}
        cloudwatch = self._cloud.client("cloudwatch", role_arn)
        found = cloudwatch.describe_alarms(AlarmNames=names, AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        return {alarm["AlarmName"]: alarm["StateValue"] for alarm in found["MetricAlarms"] + found["CompositeAlarms"]}

    # --- what takes time

    def _carry_out(self, endpoint: Endpoint, what: str, action: Callable[[], None]) -> None:
        """Run it in the background; whatever goes wrong, the endpoint must not stay in progress."""

        def guarded() -> None:
            try:
                action()
            except Exception as error:
                status = "Failed" if endpoint.router is None else "InService"
                self._move(endpoint, status, f"InternalError: {error}")
                raise

        self._cloud.run(guarded, f"{what} of {endpoint.name}")

    def _create(self, endpoint: Endpoint) -> None:
        counts = {variant["VariantName"]: instance_count(variant) for variant in endpoint.config["ProductionVariants"]}
        observer = _Observer(self, endpoint, endpoint.config, self._cloud)
        observer.green("Creating", f"Launching {sum(counts.values())} instance(s).", dict.fromkeys(counts, 0))
        try:
            endpoint.router = Router(self._start_fleet(endpoint.name, endpoint.config, Retained()))
        except StartError as error:
            self._move(endpoint, "Failed", str(error))
        else:
            self._move(endpoint, "InService")

    def _update(
        self, endpoint: Endpoint, config: Document, deployment_config: Document | None, retained: Retained
    ) -> None:
        if endpoint.router is None:  # its creation failed: there is nothing to shift from
            with self._lock:
                endpoint.config, endpoint.deployment_config = config, deployment_config
            self._create(endpoint)
            return
        blue = endpoint.router.fleet
        # Serverless endpoints have no instances to shift traffic between.
        guardrails = None if is_serverless(config) else deployment_config
        policy = (guardrails or {}).get("BlueGreenUpdatePolicy") or (guardrails or {}).get("RollingUpdatePolicy") or {}
        specs = [self._instances(variant, retained) for variant in config["ProductionVariants"]]
        deployment = Deployment(
            # A fleet that was scaled to nothing still moves as one instance would.
            stages=deployments.stages(guardrails, {name: max(count, 1) for name, count in specs}),
            rolling=deployments.Rolling.of(guardrails),
            start=lambda: self._start_fleet(endpoint.name, config, retained),
            router=endpoint.router,
            tripped=lambda: self._tripped(_alarm_names(guardrails), blue),
            clock=_Clock(self._cloud),
            observer=_Observer(self, endpoint, config, self._cloud),
            limit=policy.get("MaximumExecutionTimeoutInSeconds"),
            poll=max(deployments.ALARM_POLL, SHORTEST_POLL * self._cloud.time_scale),
        )
        try:
            failure = deployment.run()
        except deployments.Stopped:
            return
        with self._lock:
            endpoint.deployment_config = deployment_config
            if failure is None:
                endpoint.config = config
        self._move(endpoint, "InService", failure)

    def _delete(self, endpoint: Endpoint) -> None:
        if endpoint.router is not None:
            endpoint.router.fleet.stop()
        self._scaled.forget(endpoint.name)
        with self._lock:
            del self._endpoints[endpoint.name]
            self._tags.forget(endpoint.arn)
        with endpoint.changed:
            endpoint.changed.notify_all()

    def _tripped(self, names: list[str], blue: Fleet) -> list[str]:
        """Read with the model's execution role, which the guide on auto-rollback says needs the permission."""
        role_arn = next(iter(blue.variants.values())).spec.role_arn
        try:
            states = self._alarm_states(names, role_arn)
        except (ClientError, ministack.CannotAssumeRole) as error:
            raise RollbackError(f"Deployment was rolled back because its alarms cannot be read: {error}") from error
        except BotoCoreError as error:  # no answer in time, on a busy machine: it looks again soon
            logger.warning("alarms %s cannot be read now: %s", ", ".join(names), error)
            return []
        return [name for name, state in states.items() if state == "ALARM"]

    def _start_fleet(self, endpoint: str, config: Document, retained: Retained) -> Fleet:
        try:
            slow = is_asynchronous(config)
            production = [self._spec(variant, retained, slow) for variant in config["ProductionVariants"]]
            shadows = [self._spec(variant, Retained()) for variant in config.get("ShadowProductionVariants") or []]
        except Problem as problem:  # a model was deleted in the meantime
            raise StartError(problem.message) from problem
        fleet = start_fleet(
            self._cloud,
            endpoint=endpoint,
            config_name=config["EndpointConfigName"],
            variants=production,
            shadows=shadows,
            start=_start_of(config),
        )
        capture = config.get("DataCaptureConfig")
        if capture and capture.get("EnableCapture", True):
            fleet.capture = Capture(self._cloud, endpoint, capture)
        return fleet

    def _spec(self, variant: Document, retained: Retained, asynchronous: bool = False) -> VariantSpec:
        model = self._models.model(variant["ModelName"])
        name, instances = self._instances(variant, retained)
        return VariantSpec(
            name=name,
            role_arn=model.role_arn,
            containers=model.containers,
            isolated=model.isolated,
            instance_count=instances,
            weight=retained.weights.get(name, variant.get("InitialVariantWeight", 1.0)),
            startup_timeout=float(variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_TIMEOUT)),
            invocation_timeout=LONGEST_INVOCATION if asynchronous else INVOCATION_TIMEOUT,
        )

    @staticmethod
    def _instances(variant: Document, retained: Retained) -> tuple[str, int]:
        name = variant["VariantName"]
        return name, retained.instance_counts.get(name, instance_count(variant))

    # --- state and events

    def _move(self, endpoint: Endpoint, status: str, failure: str | None = None) -> None:
        with self._lock:
            endpoint.status = status
            endpoint.failure = failure
            endpoint.modified = self._cloud.now()
            if not endpoint.in_progress:
                endpoint.pending, endpoint.leaving = None, None
            detail = state_event(endpoint, self._tags.of(endpoint.arn))
        self._cloud.emit("SageMaker Endpoint State Change", detail, [endpoint.arn])
        with endpoint.changed:
            endpoint.changed.notify_all()

    def announce_deployment(self, endpoint: Endpoint) -> None:
        with self._lock:
            detail = deployment_event(endpoint, self._tags.of(endpoint.arn))
        self._cloud.emit("SageMaker Endpoint Deployment State Change", detail, [endpoint.arn])


def _check_conversion(before: Document, after: Document) -> None:
    """Guide, `serverless-endpoints`: what an endpoint cannot become."""
    if is_serverless(after) and not is_serverless(before):
        raise invalid("An instance-based endpoint cannot be updated to a serverless endpoint.")


def _start_of(config: Document) -> Callable[[Cloud, VariantSpec, Place], Variant]:
    if not is_serverless(config):
        return start_variant
    return start_serverless(config["ProductionVariants"][0]["ServerlessConfig"]["MaxConcurrency"])


def _running(endpoint: Endpoint) -> Router:
    if endpoint.router is None:
        raise invalid(f'Endpoint "{endpoint.arn}" has no running variants.')
    return endpoint.router


def _retained(endpoint: Endpoint, request: Document) -> Retained:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html"""
    fleet = endpoint.fleet
    if fleet is None or not request.get("RetainAllVariantProperties"):
        return Retained()
    excluded = {each["VariantPropertyType"] for each in request.get("ExcludeRetainedVariantProperties", [])}
    variants = fleet.variants.items()
    return Retained(
        {} if "DesiredInstanceCount" in excluded else {name: variant.instance_count for name, variant in variants},
        {} if "DesiredWeight" in excluded else {name: variant.weight for name, variant in variants},
    )


def _alarm_names(deployment_config: Document | None) -> list[str]:
    rollback = (deployment_config or {}).get("AutoRollbackConfiguration") or {}
    return [alarm["AlarmName"] for alarm in rollback.get("Alarms", [])]


@dataclass
class _Clock:
    """AWS seconds, which pass faster in a scaled cloud."""

    cloud: Cloud

    def now(self) -> float:
        return time.monotonic() * self.cloud.time_scale

    def sleep(self, seconds: float) -> bool:
        return self.cloud.sleep(seconds)


@dataclass
class _Observer:
    """Keeps the endpoint's summary of a deployment, and announces each of its steps."""

    endpoints: Endpoints
    endpoint: Endpoint
    config: Document
    cloud: Cloud

    def green(self, status: str, message: str, active: Counts) -> None:
        started = self.endpoint.pending.started if self.endpoint.pending else self.cloud.now()
        self.endpoint.pending = Pending(self.config, started, active, self._status(status, message))
        self.endpoints.announce_deployment(self.endpoint)

    def blue(self, status: str, message: str) -> None:
        self.endpoint.leaving = self._status(status, message)
        self.endpoints.announce_deployment(self.endpoint)

    def _status(self, status: str, message: str) -> Document:
        return {"Status": status, "StatusMessage": message, "StartTime": self.cloud.now()}
