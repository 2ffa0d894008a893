"""AWS as far as serving meets it, in memory: a stack with an endpoint, a registry, a ledger's table, queues, schedules.

Clients answer as boto3's do. Any of their calls can be a function's last one; messages come in any order, twice, or
late; a stack's update ends as the test wants, and may say something else than what is true.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from botocore.exceptions import ClientError

from noria.aws.registry import Decision
from noria.deployment import Desired, percent
from noria.names import Names

MODEL = "flight-delay"
NAMES = Names(env="local")
GROUP = NAMES.model(MODEL)
STACK = NAMES.stack(MODEL, "serving")
ACCOUNT, REGION = "123456789012", "eu-west-1"
START = datetime(2026, 11, 21, 12, tzinfo=UTC)

ENDPOINT_TYPE = "AWS::SageMaker::Endpoint"
CONFIG_TYPE = "AWS::SageMaker::EndpointConfig"
MODEL_TYPE = "AWS::SageMaker::Model"

Ending = Literal["success", "alarm", "quota", "lie about an alarm", "lie about capacity"]

HIDDEN = timedelta(minutes=6)
"""How long a queue keeps back a message whose function died."""


class Died(BaseException):
    """The function is gone: no handler of errors runs any more."""


class Client:
    """A client whose calls are counted; once its function has died, none gets through."""

    def __init__(self, world: "World", parts: Any) -> None:
        self._world, self._parts = world, parts

    @property
    def exceptions(self) -> Any:
        return self._parts.exceptions

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._parts, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._world.call(lambda: method(*args, **kwargs))

        return call


def error(operation: str, code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


class Pages:
    def __init__(self, pages: Callable[..., dict[str, Any]]) -> None:
        self._pages = pages

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        yield self._pages(**request)


class Table:
    """DynamoDB, as far as the ledger uses it."""

    class exceptions:  # noqa: N801 (as boto3 has it)
        class TransactionCanceledException(Exception): ...

        class ConditionalCheckFailedException(ClientError): ...

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}

    def get_item(self, *, Key: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: N803
        found = self.items.get(Key["sk"]["S"])
        return {"Item": found} if found else {}

    def put_item(self, **put: Any) -> None:
        if not self._holds(put):
            raise self.exceptions.ConditionalCheckFailedException({"Error": {"Code": "refused"}}, "PutItem")
        self.items[put["Item"]["sk"]["S"]] = put["Item"]

    def transact_write_items(self, *, TransactItems: list[dict[str, Any]]) -> None:  # noqa: N803
        puts = [each["Put"] for each in TransactItems]
        if not all(self._holds(put) for put in puts):
            raise self.exceptions.TransactionCanceledException
        for put in puts:
            self.items[put["Item"]["sk"]["S"]] = put["Item"]

    def get_paginator(self, _: str) -> Pages:
        return Pages(self._query)

    def _query(self, *, ExpressionAttributeValues: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: N803
        first, last = (ExpressionAttributeValues[name]["S"] for name in (":first", ":last"))
        return {"Items": [self.items[sk] for sk in sorted(self.items) if first <= sk <= last]}

    def _holds(self, put: dict[str, Any]) -> bool:
        found = self.items.get(put["Item"]["sk"]["S"])
        values = put.get("ExpressionAttributeValues", {})
        match put.get("ConditionExpression"):
            case None:
                return True
            case "attribute_not_exists(sk)":
                return found is None
            case "attribute_not_exists(sk) OR #hash = :previous":
                return found is None or found["hash"] == values[":previous"]
            case "#hash = :previous":
                return found is not None and found["hash"] == values[":previous"]
            case "attribute_not_exists(sk) OR #until < :now OR #caller = :caller":
                over = found is None or float(found["until"]["N"]) < float(values[":now"]["N"])
                return over or (found is not None and found.get("caller") == values[":caller"])
            case "#caller = :caller":
                return found is not None and found.get("caller") == values[":caller"]
            case other:
                raise NotImplementedError(other)


@dataclass
class Message:
    queue: str
    body: dict[str, Any]
    visible: datetime
    received: int = 0


@dataclass
class Operation:
    """An update of the stack, under way. `packages` are those that it puts where they are not yet."""

    token: str
    parameters: dict[str, str]


@dataclass
class World:
    now: datetime = START
    parameters: dict[str, str] = field(
        default_factory=lambda: {
            "ModelPackageArn": "none",
            "ChallengerPackageArn": "none",
            "ChallengerWeight": "0",
            "ShadowPackageArn": "none",
            "Guardrails": "on",
        }
    )
    status: str = "CREATE_COMPLETE"
    changed: datetime = START
    operation: Operation | None = None
    tokens: set[str] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)
    configs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    stack_config: str | None = None
    live_config: str | None = None
    failure: str | None = None
    packages: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    schedules: dict[str, tuple[datetime, str, str]] = field(default_factory=dict)
    raised: set[str] = field(default_factory=set)
    suspects: set[str] = field(default_factory=set)
    alarming: set[str] = field(default_factory=set)
    pages: list[str] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    began: list[Desired] = field(default_factory=list)
    dies_after: int | None = None
    dead: bool = False
    meanwhile: tuple[int, Callable[[], None]] | None = None
    table: Table = field(default_factory=Table)
    before_update: Callable[[Desired], None] = lambda _: None

    # --- calls

    def call(self, work: Callable[[], Any]) -> Any:
        if self.dead:
            raise Died
        if self.meanwhile:
            calls, happens = self.meanwhile
            self.meanwhile = (calls - 1, happens) if calls else None
            if not calls:
                happens()
        answer = work()
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after <= 0:
                self.dead = True
                raise Died
        return answer

    def client(self, parts: Any) -> Any:
        return Client(self, parts)

    def desired(self, parameters: dict[str, str]) -> Desired:
        challenger = parameters["ChallengerPackageArn"]
        return Desired.of(
            {
                "package": parameters["ModelPackageArn"],
                "challenger": challenger,
                "percent": 0 if challenger == "none" else percent(float(parameters["ChallengerWeight"])),
                "shadow": parameters["ShadowPackageArn"],
            }
        )

    @property
    def live(self) -> Desired:
        """What answers."""
        found = {
            variant["VariantName"]: (self.models[variant["ModelName"]], variant["InitialVariantWeight"])
            for variant in self.configs.get(self.live_config or "", [])
        }
        nothing: tuple[str | None, float] = (None, 0.0)
        challenger, weight = found.get("challenger", nothing)
        return Desired(
            package=found.get("champion", nothing)[0],
            challenger=challenger,
            percent=percent(weight),
            shadow=found.get("shadow", nothing)[0],
        )

    # --- what happens

    def put(self, queue: str, source: str, detail_type: str, detail: dict[str, Any]) -> None:
        body = {
            "id": f"event-{len(self.told)}-{len(self.messages)}",
            "source": source,
            "detail-type": detail_type,
            "account": ACCOUNT,
            "region": REGION,
            "time": self.now.isoformat(),
            "detail": detail,
        }
        self.messages.append(Message(queue=queue, body=body, visible=self.now))

    def register(self) -> str:
        version = len(self.packages) + 1
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{GROUP}/{version}"
        self.packages[arn] = {
            "ModelPackageArn": arn,
            "ModelPackageGroupName": GROUP,
            "ModelPackageVersion": version,
            "ModelApprovalStatus": "PendingManualApproval",
            "CreationTime": self.now,
            "CreatedBy": {"IamIdentity": {"Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/Pipeline/SageMaker"}},
            "LastModifiedTime": self.now,
            "CustomerMetadataProperties": {},
            "InferenceSpecification": {
                "Containers": [{"Image": "image", "ModelDataUrl": f"s3://b/{self.model_file(arn)}"}]
            },
        }
        self.files[self.model_file(arn)] = ("trained", self.now)
        return arn

    @staticmethod
    def model_file(package: str) -> str:
        return f"{MODEL}/runs/{package.rpartition('/')[2]}/model.tar.gz"

    def replace(self, package: str, etag: str) -> None:
        """Put another file where a package's model lies; SageMaker does not hear of it."""
        self.now += timedelta(seconds=1)
        self.files[self.model_file(package)] = (etag, self.now)

    def etags(self, package: str) -> dict[str, str]:
        key = self.model_file(package)
        return {f"s3://b/{key}": self.files[key][0]}

    def decide(self, package: str, decision: Decision, *, heard: bool) -> None:
        self.now += timedelta(seconds=1)
        self.packages[package] |= {
            "ModelApprovalStatus": decision,
            "LastModifiedTime": self.now,
        }
        if heard:
            detail = {
                "ModelPackageGroupName": GROUP,
                "ModelPackageArn": package,
                "ModelApprovalStatus": decision,
                "LastModifiedTime": self.now.isoformat(),
                "UpdatedModelPackageFields": ["ModelApprovalStatus"],
            }
            self.put("deploy-model", "aws.sagemaker", "SageMaker Model Package State Change", detail)

    def ask(self, **request: Any) -> None:
        self.now += timedelta(seconds=1)
        detail = {"model": MODEL, "reason": "a test", "by": "ana", "requested_at": self.now.isoformat(), **request}
        self.put("deploy-model", "noria", "Serving Requested", detail)

    def alarm(self) -> None:
        """An alarm about the challenger that answers, or that the update under way puts in its place."""
        self.now += timedelta(seconds=1)
        coming = self.desired(self.operation.parameters).challenger if self.operation else None
        self.suspects.add(coming or self.live.challenger or "nobody")
        name = f"{NAMES.challenger_alarms(MODEL)}errors"
        self.raised.add(name)
        state = {"value": "ALARM", "reason": "Threshold Crossed", "timestamp": self.now.isoformat()}
        detail = {"alarmName": name, "state": state}
        self.put("deploy-model", "aws.cloudwatch", "CloudWatch Alarm State Change", detail)

    def redeploy(self) -> None:
        """`cdk deploy` with a changed template, and the same parameters."""
        self._start(Operation(token="", parameters=dict(self.parameters)))

    def meddle(self, package: str) -> None:
        """A person updates the stack past Noria: this version alone is to answer."""
        alone = self.desired(self.parameters).challenger is None
        names = {"ModelPackageArn": package, "ChallengerPackageArn": "none", "ShadowPackageArn": "none"}
        more = {"ChallengerWeight": "0", "Guardrails": "on" if alone else "off"}
        self._start(Operation(token="", parameters=self.parameters | names | more))

    def _start(self, operation: Operation) -> None:
        self.operation, self.status, self.changed = operation, "UPDATE_IN_PROGRESS", self.now
        self._event("UPDATE_IN_PROGRESS", "AWS::CloudFormation::Stack", STACK)

    def _event(self, status: str, kind: str, name: str, reason: str = "") -> None:
        operation = self.operation
        self.events.insert(
            0,
            {
                "Timestamp": self.now,
                "ClientRequestToken": operation.token if operation else "",
                "ResourceStatus": status,
                "ResourceType": kind,
                "PhysicalResourceId": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:x/{name}",
                "ResourceStatusReason": reason,
            },
        )

    def finish(self, ending: Ending, *, heard: bool) -> None:
        """End the update under way. What cannot end so ends as it can: nothing watches what is not guarded."""
        operation = self.operation
        assert operation
        self.now += timedelta(minutes=1)
        before, after = self.live, self.desired(operation.parameters)
        guarded = operation.parameters["Guardrails"] != "off" and self.live_config is not None
        if guarded:
            assert after.variants == self.live.variants, "SageMaker refuses a guarded change of the variants"
        assert not (after.challenger and after.shadow), "SageMaker has a shadow beside one variant only"
        if after.package is None:
            self._remove(operation, ending)
            return
        if ending in {"alarm", "lie about an alarm"} and not guarded:
            ending = "quota"
        if ending.startswith("lie") and self.live_config is None:
            ending = "quota"
        new = {after.package, after.challenger, after.shadow} - {before.package, before.challenger, before.shadow, None}
        if any(self.packages[package]["ModelApprovalStatus"] != "Approved" for package in new if package):
            ending = "quota"  # SageMaker makes a model of an approved package only
        config = f"config-{len(self.configs) + 1}"
        self.configs[config] = self._variants(after, config)
        self._event("CREATE_COMPLETE", CONFIG_TYPE, config)
        self.failure = None
        if ending in {"alarm", "lie about an alarm"}:
            self.alarming.add(after.package)
        if ending in {"alarm", "quota"}:
            reason = "rolled back: alarms were in ALARM" if ending == "alarm" else "ResourceLimitExceeded: 4 instances"
            self._event("UPDATE_FAILED", ENDPOINT_TYPE, GROUP, reason)
            self.status = "UPDATE_ROLLBACK_COMPLETE"
        else:
            self.parameters, self.stack_config, self.status = operation.parameters, config, "UPDATE_COMPLETE"
            if ending == "success":
                self.live_config = config
                self.raised.clear()  # what comes has alarms of its own
            elif ending == "lie about capacity":
                self.failure = "InsufficientInstanceCapacity"
        self._rest(operation, heard=heard)

    def _rest(self, operation: Operation, *, heard: bool) -> None:
        self._event(self.status, "AWS::CloudFormation::Stack", STACK)
        self.operation, self.changed = None, self.now
        detail = {
            "stack-id": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}/1",
            "status-details": {"status": self.status},
            "client-request-token": operation.token,
        }
        for queue in ("deploy-model", "confirm-deployment"):
            self.put(queue, "aws.cloudformation", "CloudFormation Stack Status Change", detail)
        if heard:
            detail = {"EndpointName": GROUP, "EndpointStatus": "IN_SERVICE"}
            self.put("confirm-deployment", "aws.sagemaker", "SageMaker Endpoint State Change", detail)

    def _remove(self, operation: Operation, ending: Ending) -> None:
        """The endpoint goes, as a person asked; or it stays, and the stack says so or not."""
        if ending in {"alarm", "quota"} and self.live_config:
            self._event("UPDATE_FAILED", ENDPOINT_TYPE, GROUP, "it cannot be deleted now")
            self.status = "UPDATE_ROLLBACK_COMPLETE"
        else:
            self.parameters, self.stack_config, self.status = operation.parameters, None, "UPDATE_COMPLETE"
            if ending == "success":
                self.live_config = None
                self.raised.clear()
        self._rest(operation, heard=False)

    def _variants(self, desired: Desired, config: str) -> list[dict[str, Any]]:
        weights = {"champion": 1.0, "challenger": desired.percent / (100 - desired.percent), "shadow": 1.0}
        packages = {"champion": desired.package, "challenger": desired.challenger, "shadow": desired.shadow}
        variants = []
        for variant, package in packages.items():
            if package:
                model = f"{config}-{variant}"
                self.models[model] = package
                weight = weights[variant]
                variants.append({"VariantName": variant, "ModelName": model, "InitialVariantWeight": weight})
        return variants

    def pass_time(self, time: timedelta) -> None:
        self.now += time
        for name, (at, queue, body) in list(self.schedules.items()):
            if at <= self.now:
                del self.schedules[name]
                self.messages.append(Message(queue=queue, body=json.loads(body), visible=self.now))

    # --- clients

    def describe_stacks(self, **_: Any) -> dict[str, Any]:
        return {
            "Stacks": [
                {
                    "StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}/1",
                    "StackStatus": self.status,
                    "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in self.parameters.items()],
                    "Outputs": [{"OutputKey": "DeployerRoleArn", "OutputValue": "arn:aws:iam::1:role/deployer"}],
                    "CreationTime": START,
                    "LastUpdatedTime": self.changed,
                }
            ]
        }

    def update_stack(self, **request: Any) -> None:
        token = request["ClientRequestToken"]
        if token in self.tokens:
            raise error("UpdateStack", "TokenAlreadyExistsException", "it exists")
        if self.operation:
            raise error("UpdateStack", "ValidationError", f"Stack is in {self.status} state and can not be updated.")
        asked = {
            each["ParameterKey"]: each.get("ParameterValue", self.parameters[each["ParameterKey"]])
            for each in request["Parameters"]
        }
        if asked == self.parameters:
            raise error("UpdateStack", "ValidationError", "No updates are to be performed.")
        self.before_update(self.desired(asked))
        self.tokens.add(token)
        self._start(Operation(token=token, parameters=asked))

    def get_paginator(self, operation: str) -> Pages:
        answers: dict[str, Callable[..., dict[str, Any]]] = {
            "describe_stack_events": lambda **_: {"StackEvents": list(self.events)},
            "list_stack_resources": lambda **_: {"StackResourceSummaries": self._resources()},
            "list_model_packages": lambda **_: {"ModelPackageSummaryList": list(self.packages.values())[::-1]},
            "list_pipeline_executions": lambda **_: {"PipelineExecutionSummaries": []},
            "list_objects_v2": lambda **_: {},
            "list_object_versions": lambda **_: {},
            "get_metric_data": lambda **_: {"MetricDataResults": []},
            "describe_alarms": lambda **_: {"MetricAlarms": [{"AlarmName": name} for name in sorted(self.raised)]},
        }
        return Pages(answers[operation])

    def _resources(self) -> list[dict[str, str]]:
        if self.stack_config is None:
            return []
        models = [variant["ModelName"] for variant in self.configs[self.stack_config]]
        held = [(CONFIG_TYPE, self.stack_config), *((MODEL_TYPE, model) for model in models)]
        return [{"ResourceType": kind, "PhysicalResourceId": f"arn:aws:sagemaker:x:1:y/{name}"} for kind, name in held]

    def describe_endpoint(self, **_: Any) -> dict[str, Any]:
        if self.live_config is None:
            raise error("DescribeEndpoint", "ValidationException", "Could not find endpoint")
        failure = {"FailureReason": self.failure} if self.failure else {}
        status = "Updating" if self.operation else "InService"
        return {"EndpointStatus": status, "EndpointConfigName": self.live_config, **failure}

    def describe_endpoint_config(self, *, EndpointConfigName: str) -> dict[str, Any]:  # noqa: N803
        variants = self.configs[EndpointConfigName]
        return {
            "ProductionVariants": [v for v in variants if v["VariantName"] != "shadow"],
            "ShadowProductionVariants": [v for v in variants if v["VariantName"] == "shadow"],
        }

    def describe_model(self, *, ModelName: str) -> dict[str, Any]:  # noqa: N803
        return {"PrimaryContainer": {"ModelPackageName": self.models[ModelName]}}

    def delete_endpoint_config(self, *, EndpointConfigName: str) -> None:  # noqa: N803
        assert EndpointConfigName not in {self.live_config, self.stack_config}, "it is in use"

    def delete_model(self, *, ModelName: str) -> None:  # noqa: N803
        used = {v["ModelName"] for config in (self.live_config, self.stack_config) for v in self.configs[config or ""]}
        assert ModelName not in used, "it is in use"

    def describe_model_package(self, *, ModelPackageName: str) -> dict[str, Any]:  # noqa: N803
        if ModelPackageName not in self.packages:
            raise error("DescribeModelPackage", "ValidationException", "ModelPackage does not exist")
        return self.packages[ModelPackageName]

    def update_model_package(
        self,
        *,
        ModelPackageArn: str,  # noqa: N803
        CustomerMetadataProperties: dict[str, str] | None = None,  # noqa: N803
        ModelApprovalStatus: Decision | None = None,  # noqa: N803
        ApprovalDescription: str = "",  # noqa: N803
    ) -> None:
        package = self.packages[ModelPackageArn]
        package["CustomerMetadataProperties"] |= CustomerMetadataProperties or {}
        package["LastModifiedTime"] = self.now
        if ModelApprovalStatus:
            self.decide(ModelPackageArn, ModelApprovalStatus, heard=True)
            package["ApprovalDescription"] = ApprovalDescription

    def head_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        etag, modified = self.files[Key]
        return {"ETag": etag, "LastModified": modified}

    def get_queue_url(self, *, QueueName: str) -> dict[str, str]:  # noqa: N803
        return {"QueueUrl": QueueName}

    def send_message(self, *, QueueUrl: str, MessageBody: str, **_: Any) -> None:  # noqa: N803
        queue = QueueUrl.removeprefix(f"{NAMES.prefix}-")
        if queue in {"deploy-model", "confirm-deployment"}:
            self.messages.append(Message(queue=queue, body=json.loads(MessageBody), visible=self.now))

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: list[str]) -> dict[str, Any]:  # noqa: N803
        waiting = sum(QueueUrl.endswith(message.queue) for message in self.messages)
        return {"Attributes": dict.fromkeys(AttributeNames, "0") | {AttributeNames[0]: str(waiting)}}

    def put_events(self, *, Entries: list[dict[str, Any]]) -> dict[str, int]:  # noqa: N803
        self.told += Entries
        return {"FailedEntryCount": 0}

    def publish(self, *, Subject: str, Message: str, **_: Any) -> None:  # noqa: N803
        self.pages.append(f"{Subject}\n{Message}")

    class exceptions:  # noqa: N801 (as boto3 has it)
        class ConflictException(Exception): ...

    def create_schedule(self, *, Name: str, ScheduleExpression: str, Target: dict[str, str], **_: Any) -> None:  # noqa: N803
        if Name in self.schedules:
            raise self.exceptions.ConflictException
        at = datetime.fromisoformat(ScheduleExpression[3:-1]).replace(tzinfo=UTC)
        self.schedules[Name] = (at, Target["Arn"], Target["Input"])
