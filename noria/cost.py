"""What a cloud costs, counted from its synthesised templates, a load, and list prices.

    templates ── what is there ─┐
    load ─────── what it does ──┴─▶ usages ── prices ──▶ charges, as listed and after what AWS gives for nothing

Nothing is left out silently: a resource type that is neither priced nor known to be free raises `Unpriced`. What
functions do for an event is counted in their code (`Work`), how long they take is a part of the load.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from noria.prices import HOURS, Prices
from noria.template import Assembly, Resource, Template

LIVE = {"ModelPackageArn": "live"}
"""Parameters of a serving stack whose model answers."""

POLLS = HOURS * 60 * 3
"""Receives a month of one poller of an empty queue: each waits for 20 seconds (Lambda guide, `with-sqs`)."""

POLLERS = 5
"""Of a queue with a bound on concurrency."""

POLLERS_UNBOUND = 2
"""Of a queue without a bound, as few as that when there is little to do (Lambda guide, `services-sqs-scaling`)."""

LOG_BYTES = 1500
"""Of one run: what Lambda says of it, and a line or two of its own."""

EVENT_BYTES = 1500
IDLE_METRICS = {"reconcile": 1, "monitor-model": 1}
"""Custom metrics that a function publishes at each tick, though nothing has happened."""

KMS_OF_A_TICK = 3
"""Requests for one run that finds nothing: of queue, ledger and bucket, each of which keeps its data key a while."""

LISTS_OF_A_RECONCILIATION = 5
"""For each model: of incoming, labels, batch and datasets, and of the ledger's copies."""

RECEIVED = 3
"""Requests for one message: send, receive, delete."""

FACT_UNITS = 6
"""Write units of one entry of the ledger: a transaction of three items, two units each."""

GB = 1e9


class Unpriced(ValueError):
    """A template has something that may cost money and that nobody has priced."""


class Occasion(StrEnum):
    """What makes something cost: that it is deployed, that a model answers, or what is done with it."""

    IDLE = "idle"
    LIVE = "live"
    UPLOADS = "uploads"
    TRAININGS = "trainings"
    PREDICTIONS = "predictions"


class Load(BaseModel):
    """What each model is asked in a month; and how long that takes, which no template says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uploads: float = Field(30, ge=0, description="files uploaded, for each model and month")
    trainings: float = Field(4, ge=0, description="trainings, for each model and month")
    predictions: float = Field(100_000, ge=0, description="requests, for each model and month")
    live: bool = Field(True, description="whether models answer, so that there are endpoints")
    data_gb: float = Field(1, ge=0, description="GB in the buckets besides captured requests")
    ledger_gb: float = Field(0.01, ge=0, description="GB in the ledger")
    upload_seconds: float = Field(5, ge=0, description="seconds that checking an upload takes")
    window_seconds: float = Field(15, ge=0, description="seconds that comparing a window takes")
    tick_seconds: float = Field(2, ge=0, description="seconds of a scheduled run that finds nothing to do")
    job_minutes: float = Field(5, ge=0, description="minutes of each of a training's jobs")
    spot_share: float = Field(0.3, ge=0, le=1, description="what a job on Spot costs, as a share of its list price")
    inference_ms: float = Field(50, ge=0, description="milliseconds of one answer of a serverless endpoint")
    prediction_kb: float = Field(2, ge=0, description="kB of one request and its answer, as captured")
    metrics: int = Field(40, ge=0, description="custom metrics of a model that answers, for each model")


@dataclass(frozen=True)
class Usage:
    """So many units of a price in a month."""

    stack: str
    model: str | None
    price: str
    quantity: float
    occasion: Occasion


class Charge(BaseModel):
    """`listed` is without, `usd` after what is free in each account; dollars a month. The two differ by usage, so that
    what is free is shared among all that use it."""

    stack: str
    model: str | None
    service: str
    price: str
    occasion: Occasion
    quantity: float
    unit: str
    listed: float
    usd: float
    verified: bool


@dataclass(frozen=True)
class Work:
    """What one run of a function asks of other services, beyond its own time."""

    function: str
    seconds: float
    writes: int = 0
    reads: int = 0
    facts: int = 0
    events: int = 0


def usages(assembly: Assembly, load: Load) -> list[Usage]:
    """All that is used in a month; raises `Unpriced`."""
    return list(_Counter(assembly, load))


def bill(used: Iterable[Usage], prices: Prices) -> list[Charge]:
    """The charges of a month. What is free is taken off once for all of them; raises `NoPrice`."""
    used = list(used)
    sums: dict[str, float] = defaultdict(float)
    for usage in used:
        sums[usage.price] += usage.quantity
    charges = []
    for usage in used:
        price, total = prices[usage.price], sums[usage.price]
        paid = max(0.0, total - price.free) / total if total else 0.0
        listed = price.cost(usage.quantity)
        charges.append(
            Charge(
                stack=usage.stack,
                model=usage.model,
                service=price.service,
                price=usage.price,
                occasion=usage.occasion,
                quantity=usage.quantity,
                unit=price.unit,
                listed=listed,
                usd=listed * paid,
                verified=price.verified,
            )
        )
    return charges


class _Counter:
    """Goes through all templates once; each usage that it finds is of a stack and an occasion."""

    def __init__(self, assembly: Assembly, load: Load) -> None:
        self.assembly, self.load = assembly, load
        self._idle = {template.stack: template.resources() for template in assembly.templates}
        self._live = {template.stack: template.resources(**LIVE) for template in assembly.templates}
        self._functions = {
            str(resource.get("FunctionName")): (template, resource)
            for template in assembly.templates
            for resource in self._idle[template.stack].values()
            if resource.type == "AWS::Lambda::Function"
        }
        self._behind = dict(self._queues())
        self._models = sorted({template.model for template in assembly.templates if template.model})

    def __iter__(self) -> Iterator[Usage]:
        for template in self.assembly.templates:
            idle, live = self._idle[template.stack], self._live[template.stack]
            for id_, resource in live.items():
                count = self._rule(template, resource)
                occasion = Occasion.IDLE if id_ in idle else Occasion.LIVE
                if occasion is Occasion.LIVE and not self.load.live:
                    continue
                for price, quantity in count(template, resource):
                    yield self._usage(template, price, quantity, occasion)
            yield from self._ticks(template, idle)
            yield from self._trainings(template, idle)
            yield from self._answers(template, live)
        yield from self._stored()
        yield from self._uploads()

    def _rule(
        self, template: Template, resource: Resource
    ) -> Callable[[Template, Resource], Iterator[tuple[str, float]]]:
        if rule := _PRICED.get(resource.type):
            return lambda template, resource: rule(self, template, resource)
        if resource.type in FREE:
            return lambda template, resource: iter(())
        raise Unpriced(
            f"{resource.type} ({resource.id} of {template.stack}) is neither priced nor known to be free: say in "
            "noria/cost.py which it is, and its price in noria/prices.yaml"
        )

    @staticmethod
    def _usage(template: Template, price: str, quantity: float, occasion: Occasion) -> Usage:
        return Usage(template.stack, template.model, price, quantity, occasion)

    # --- what costs by being there

    def _key(self, template: Template, key: Resource) -> Iterator[tuple[str, float]]:
        yield "kms.key", 1

    def _alarm(self, template: Template, alarm: Resource) -> Iterator[tuple[str, float]]:
        metrics = [each["MetricStat"] for each in alarm.get("Metrics") or () if "MetricStat" in each]
        periods = [each["Period"] for each in metrics] or [alarm.get("Period") or 60]
        yield ("alarm.metric.fast" if min(periods) < 60 else "alarm.metric"), len(periods)

    def _composite(self, template: Template, alarm: Resource) -> Iterator[tuple[str, float]]:
        yield "alarm.composite", 1

    def _dashboard(self, template: Template, dashboard: Resource) -> Iterator[tuple[str, float]]:
        yield "dashboard", 1

    def _polling(self, template: Template, mapping: Resource) -> Iterator[tuple[str, float]]:
        target = self.assembly.target(template, mapping.get("EventSourceArn"))
        if (
            target
            and self._idle[target[0]][target[1]].type == "AWS::SQS::Queue"
            and mapping.get("Enabled") is not False
        ):
            bound = mapping.get("ScalingConfig", "MaximumConcurrency")
            yield "sqs.request", POLLS * (POLLERS if bound else POLLERS_UNBOUND)

    def _secret(self, template: Template, secret: Resource) -> Iterator[tuple[str, float]]:
        yield "secret", 1

    def _interface(self, template: Template, endpoint: Resource) -> Iterator[tuple[str, float]]:
        if endpoint.get("VpcEndpointType") == "Interface":
            yield "endpoint.hour", HOURS * len(endpoint.get("SubnetIds"))

    def _endpoint(self, template: Template, config: Resource) -> Iterator[tuple[str, float]]:
        """Where it scales, it is counted at its fewest instances; where it has hours, in these."""
        fewest = {
            str(each.get("ResourceId")).rpartition("/")[-1]: each.get("MinCapacity")
            for each in self._live[template.stack].values()
            if each.type == "AWS::ApplicationAutoScaling::ScalableTarget"
        }
        for variant in [*config.get("ProductionVariants"), *(config.get("ShadowProductionVariants") or ())]:
            if instance := variant.get("InstanceType"):
                count = fewest.get(variant["VariantName"], variant["InitialInstanceCount"])
                yield instance, HOURS * self._share(template.model) * count

    def _share(self, model: str | None) -> float:
        """Of all time, the part in which a model has its endpoint: between the two schedules that keep its hours."""
        turns = {
            str(schedule.get("Name")).rpartition("-")[2]: str(schedule.get("ScheduleExpression"))
            for resources in self._idle.values()
            for schedule in resources.values()
            if schedule.type == "AWS::Scheduler::Schedule"
            and (sent := json.loads(_text(schedule.get("Target", "Input"))))["detail-type"] == "Keep Hours"
            and sent["detail"]["model"] == model
        }
        if not turns:
            return 1.0
        return fires(turns["on"]) * ((_hour(turns["off"]) - _hour(turns["on"])) % 24 or 24) / HOURS

    # --- what the clock does

    def _ticks(self, template: Template, resources: Mapping[str, Resource]) -> Iterator[Usage]:
        for schedule in (each for each in resources.values() if each.type == "AWS::Scheduler::Schedule"):
            times = fires(schedule.get("ScheduleExpression"))
            yield self._usage(template, "schedule", times, Occasion.IDLE)
            target = self.assembly.target(template, schedule.get("Target", "Arn"))
            name = self._behind.get(target) if target else None
            if name is None:
                continue
            tick = json.loads(_text(schedule.get("Target", "Input")))["detail-type"]
            if tick == "Start Training":
                continue  # a training, and counted as one
            yield from self._run(name, times, self.load.tick_seconds, Occasion.IDLE)
            yield self._usage(template, "sqs.request", times * RECEIVED, Occasion.IDLE)
            yield self._usage(template, "kms.request", times * KMS_OF_A_TICK, Occasion.IDLE)
            yield self._usage(template, "metric", IDLE_METRICS.get(_short(name), 0), Occasion.IDLE)
            if _short(name) == "reconcile":
                lists = times * LISTS_OF_A_RECONCILIATION
                for model in self._models:
                    yield Usage(template.stack, model, "s3.write", lists, Occasion.IDLE)
                    yield Usage(template.stack, model, "dynamodb.read", times * 2, Occasion.IDLE)
            if _short(name) == "monitor-model" and self.load.live:
                window = Work("monitor-model", self.load.window_seconds - self.load.tick_seconds, 3, 65, facts=1)
                yield from self._work(template, window, times, Occasion.LIVE)
                yield self._usage(template, "metric", self.load.metrics, Occasion.LIVE)

    # --- what is done with it

    def _uploads(self) -> Iterator[Usage]:
        works = (
            # The upload itself and its copy, the manifest and the report; each is read once.
            Work("validate-upload", self.load.upload_seconds, writes=4, reads=4, facts=1, events=1),
            Work("request-retraining", 1, reads=1, facts=1, events=1),
        )
        for template in (self._first(self._models_of(model)) for model in self._models):
            for work in works:
                yield from self._work(template, work, self.load.uploads, Occasion.UPLOADS)

    def _trainings(self, template: Template, resources: Mapping[str, Resource]) -> Iterator[Usage]:
        for pipeline in (each for each in resources.values() if each.type == "AWS::SageMaker::Pipeline"):
            definition = json.loads(_text(pipeline.get("PipelineDefinition", "PipelineDefinitionBody")))
            hours = self.load.trainings * self.load.job_minutes / 60
            for step in definition["Steps"]:
                arguments = step.get("Arguments", {})
                cluster = arguments.get("ResourceConfig") or arguments.get("ProcessingResources", {}).get(
                    "ClusterConfig"
                )
                if cluster is None:
                    continue
                share = self.load.spot_share if arguments.get("EnableManagedSpotTraining") else 1
                machines = hours * cluster["InstanceCount"]
                yield self._usage(template, cluster["InstanceType"], machines * share, Occasion.TRAININGS)
                disk = machines * cluster["VolumeSizeInGB"] / HOURS
                yield self._usage(template, "sagemaker.disk", disk, Occasion.TRAININGS)
            yield self._usage(template, "logs.in", self.load.trainings * 3 * 100e3 / GB, Occasion.TRAININGS)
            for work in (
                Work("start-training", 2, writes=2, reads=3, facts=1),
                Work("record-training", 1, reads=3, facts=1, events=1),
                Work("write-card", 5, writes=3, reads=5, facts=1),
            ):
                yield from self._work(template, work, self.load.trainings, Occasion.TRAININGS)

    def _answers(self, template: Template, live: Mapping[str, Resource]) -> Iterator[Usage]:
        if not self.load.live:
            return
        asked, occasion = self.load.predictions, Occasion.PREDICTIONS
        passed = asked * self.load.prediction_kb * 1e3 / GB
        for resource in live.values():
            if resource.type == "AWS::SageMaker::EndpointConfig":
                yield self._usage(template, "sagemaker.data", passed, occasion)
                for variant in resource.get("ProductionVariants"):
                    if memory := variant.get("ServerlessConfig", {}).get("MemorySizeInMB"):
                        seconds = asked * self.load.inference_ms / 1e3
                        yield self._usage(template, "sagemaker.serverless", seconds * memory / 1024, occasion)
                if resource.get("DataCaptureConfig", "EnableCapture"):
                    share = resource.get("DataCaptureConfig", "InitialSamplingPercentage") / 100
                    kept = passed * share * self._days_captured(template) / 30
                    yield self._usage(template, "s3.kept", kept, occasion)
            if resource.type == "AWS::Logs::SubscriptionFilter":  # captured by way of the log
                yield self._usage(template, "logs.in", passed, occasion)
                yield self._usage(template, "s3.kept", passed * self._days_captured(template) / 30, occasion)
            if resource.type == "AWS::ApiGatewayV2::Api" and template.model:
                yield self._usage(template, "api.request", asked, occasion)
                for name, (where, _) in self._functions.items():
                    if where is template:
                        yield from self._run(name, asked, (self.load.inference_ms + 20) / 1e3, occasion)

    def _stored(self) -> Iterator[Usage]:
        for type_, kept in (
            ("AWS::S3::Bucket", [("s3.kept", self.load.data_gb)]),
            (
                "AWS::DynamoDB::Table",
                [("dynamodb.kept", self.load.ledger_gb), ("dynamodb.recovery", self.load.ledger_gb)],
            ),
        ):
            for template in [each for each in self.assembly.templates if self._has(each, type_)][:1]:
                for price, quantity in kept:
                    yield self._usage(template, price, quantity, Occasion.IDLE)

    # --- what a function needs

    def _work(self, template: Template, work: Work, times: float, occasion: Occasion) -> Iterator[Usage]:
        """Of the stack and model that ask for it, but for the function's own time, which is of its own stack."""
        name = self._called(work.function)
        if name is None:
            return
        yield from self._run(name, times, work.seconds, occasion, model=template.model)
        for price, quantity in (
            ("sqs.request", RECEIVED),
            ("kms.request", KMS_OF_A_TICK + work.writes + work.reads),
            ("s3.write", work.writes + work.facts),  # each fact has a locked copy
            ("s3.read", work.reads),
            ("dynamodb.write", work.facts * FACT_UNITS),
            ("dynamodb.read", 2),
            ("event", work.events),
            ("archive.in", (work.events + 1) * EVENT_BYTES / GB),
            ("archive.kept", (work.events + 1) * EVENT_BYTES / GB),
        ):
            yield self._usage(template, price, quantity * times, occasion)
        if work.facts and (exports := self._called("export-ledger")):
            yield from self._run(exports, times * work.facts, 1, occasion, model=template.model)

    def _run(
        self, name: str, times: float, seconds: float, occasion: Occasion, *, model: str | None = None
    ) -> Iterator[Usage]:
        template, function = self._functions[name]
        memory, disk = function.get("MemorySize") or 128, function.get("EphemeralStorage", "Size") or 512
        (architecture,) = function.get("Architectures") or ("x86_64",)
        for price, quantity in (
            ("lambda.request", 1.0),
            (f"lambda.{architecture}", seconds * memory / 1024),
            ("lambda.disk", seconds * (disk - 512) / 1024),
            ("logs.in", LOG_BYTES / GB),
            ("logs.kept", LOG_BYTES / GB),
            ("trace", float(function.get("TracingConfig", "Mode") == "Active")),
        ):
            yield Usage(template.stack, model or template.model, price, quantity * times, occasion)

    def _called(self, name: str) -> str | None:
        return next((each for each in self._functions if _short(each) == name), None)

    # --- where things are

    def _queues(self) -> Iterator[tuple[tuple[str, str], str]]:
        """The function behind each queue, by the queue's stack and id."""
        for template in self.assembly.templates:
            for mapping in self._idle[template.stack].values():
                if mapping.type != "AWS::Lambda::EventSourceMapping":
                    continue
                queue = self.assembly.target(template, mapping.get("EventSourceArn"))
                function = self.assembly.target(template, mapping.get("FunctionName"))
                if queue and function:
                    yield queue, str(self._idle[function[0]][function[1]].get("FunctionName"))

    def _has(self, template: Template, type_: str) -> bool:
        return any(resource.type == type_ for resource in self._idle[template.stack].values())

    def _models_of(self, model: str) -> Iterator[Template]:
        return (template for template in self.assembly.templates if template.model == model)

    @staticmethod
    def _first(templates: Iterator[Template]) -> Template:
        return min(templates, key=lambda template: (not template.stack.endswith("-training"), template.stack))

    def _days_captured(self, template: Template) -> int:
        """As the bucket's rule says that is called after the model."""
        for resources in self._idle.values():
            for bucket in (each for each in resources.values() if each.type == "AWS::S3::Bucket"):
                for rule in bucket.get("LifecycleConfiguration", "Rules") or ():
                    if rule.get("Id") == f"captured-{template.model}":
                        return int(rule["ExpirationInDays"])
        return 30


_PRICED: Mapping[str, Callable[[_Counter, Template, Resource], Iterator[tuple[str, float]]]] = {
    "AWS::KMS::Key": _Counter._key,
    "AWS::CloudWatch::Alarm": _Counter._alarm,
    "AWS::CloudWatch::CompositeAlarm": _Counter._composite,
    "AWS::CloudWatch::Dashboard": _Counter._dashboard,
    "AWS::Lambda::EventSourceMapping": _Counter._polling,
    "AWS::SecretsManager::Secret": _Counter._secret,
    "AWS::EC2::VPCEndpoint": _Counter._interface,
    "AWS::SageMaker::EndpointConfig": _Counter._endpoint,
}

FREE = frozenset(
    f"AWS::{name}"
    for name in (
        # Paid by what is done with them, which is counted with who does it.
        *("S3::Bucket", "DynamoDB::Table", "SQS::Queue", "SNS::Topic", "Lambda::Function", "Logs::LogGroup"),
        *("Events::EventBus", "Events::Archive", "Scheduler::Schedule", "SageMaker::Pipeline", "SageMaker::Endpoint"),
        *("ApiGatewayV2::Api", "Athena::WorkGroup", "CloudTrail::Trail", "EC2::FlowLog", "Logs::SubscriptionFilter"),
        *("AppConfig::Application", "AppConfig::Environment", "AppConfig::ConfigurationProfile"),
        *("AppConfig::HostedConfigurationVersion", "AppConfig::DeploymentStrategy", "AppConfig::Deployment"),
        # Free.
        *("IAM::Role", "IAM::Policy", "IAM::ManagedPolicy", "IAM::OIDCProvider", "KMS::Alias", "SSM::Parameter"),
        *("S3::BucketPolicy", "SQS::QueuePolicy", "SNS::TopicPolicy", "SNS::Subscription"),
        *("Events::Rule", "Events::EventBusPolicy", "Scheduler::ScheduleGroup", "Budgets::Budget"),
        *("Lambda::Permission", "Lambda::LayerVersion", "Lambda::EventInvokeConfig", "Lambda::Version"),
        *("Logs::ResourcePolicy", "Glue::Database", "Glue::Table", "CDK::Metadata"),
        *("ApiGatewayV2::Integration", "ApiGatewayV2::Route", "ApiGatewayV2::Stage", "ApiGatewayV2::Authorizer"),
        *("ApplicationAutoScaling::ScalableTarget", "ApplicationAutoScaling::ScalingPolicy"),
        *("SageMaker::Model", "SageMaker::ModelPackageGroup"),
        *("EC2::VPC", "EC2::Subnet", "EC2::RouteTable", "EC2::SubnetRouteTableAssociation", "EC2::SecurityGroup"),
        *("EC2::SecurityGroupIngress", "EC2::SecurityGroupEgress"),
    )
)
"""Types of resources that cost nothing by being there."""

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_MINUTES = {"minute": 1, "hour": 60, "day": 24 * 60}


def fires(expression: str) -> float:
    """How often an EventBridge Scheduler expression fires in a month; a cron by its fields of time and day.

    >>> fires("rate(5 minutes)")
    8760.0
    """
    if rate := _RATE.fullmatch(expression):
        return HOURS * 60 / (int(rate[1]) * _MINUTES[rate[2]])
    if expression.startswith("at("):
        return 0.0
    minute, hour, day, _, weekday, *_ = expression.removeprefix("cron(").removesuffix(")").split()
    days = HOURS / 24
    if weekday not in {"*", "?"}:
        days *= _values(weekday, 7) / 7
    if day not in {"*", "?"}:
        days *= _values(day, 31) / 31
    return _values(minute, 60) * _values(hour, 24) * days


def _hour(cron: str) -> float:
    """Of the day, when a cron fires that does so once a day."""
    minute, hour, *_ = cron.removeprefix("cron(").split()
    return int(hour) + int(minute) / 60


_NAMED = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), start=1)}


def _values(field: str, of: int) -> float:
    """How many values of a cron field's `of` there are."""
    count = 0.0
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if span in {"*", "?"}:
            width = of
        elif last:
            width = (_NAMED.get(last) or int(last)) - (_NAMED.get(first) or int(first)) + 1
        else:
            width = of - int(first) if step else 1
        count += -(-width // int(step)) if step else width
    return count


def _short(function: str) -> str:
    """`validate-upload` of `noria-dev-validate-upload`."""
    return function.split("-", 2)[-1]


def _text(value: Any) -> str:
    """A text with references in it, which stand for words: each becomes `…`."""
    match value:
        case str():
            return value
        case {"Fn::Join": [str(between), list(parts)]}:
            return between.join(_text(part) for part in parts)
    return "…"
