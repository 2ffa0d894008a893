"""What `noria.doctor` judges, read from the services that know it. Each method asks one of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from noria.aws.endpoints import Endpoint
from noria.aws.ledger import Ledger
from noria.aws.logs import Logs, Place
from noria.aws.queues import Letter, Queues, ages
from noria.aws.registry import Registry
from noria.aws.serving import ServingStack
from noria.doctor import Alarm, Answering, Budget, DeadLetters, Function, Key, Model, Off, Stack, Version, Waiting
from noria.messages import event_in, model_of
from noria.names import PROMOTION, Names, Part
from noria.serve import Mode

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

_LOOKED_AT = 100
"""Dead letters that are read: whose they are, which models they are about, and since when."""

_CONFIG = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})
"""Who asks what is wrong waits for no service that does not answer."""


@dataclass(frozen=True, kw_only=True)
class Health:
    names: Names
    models: Sequence[str]
    ledger: Ledger
    bus: str
    now: datetime
    # All made by who makes this: boto3's session is not for several threads, its clients are.
    budgets: Any = field(default_factory=lambda: boto3.client("budgets", config=_CONFIG), repr=False)
    cloudformation: "CloudFormationClient" = field(
        default_factory=lambda: boto3.client("cloudformation", config=_CONFIG), repr=False
    )
    cloudwatch: "CloudWatchClient" = field(
        default_factory=lambda: boto3.client("cloudwatch", config=_CONFIG), repr=False
    )
    events: "EventBridgeClient" = field(default_factory=lambda: boto3.client("events", config=_CONFIG), repr=False)
    functions_of: "LambdaClient" = field(default_factory=lambda: boto3.client("lambda", config=_CONFIG), repr=False)
    keys: Any = field(default_factory=lambda: boto3.client("kms", config=_CONFIG), repr=False)
    logs: Logs = field(default_factory=Logs, repr=False)
    sagemaker: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker", config=_CONFIG), repr=False)
    scheduler: "EventBridgeSchedulerClient" = field(
        default_factory=lambda: boto3.client("scheduler", config=_CONFIG), repr=False
    )
    sqs: "SQSClient" = field(default_factory=lambda: boto3.client("sqs", config=_CONFIG), repr=False)
    sts: "STSClient" = field(default_factory=lambda: boto3.client("sts", config=_CONFIG), repr=False)

    def alarms(self) -> list[Alarm]:
        pages = self.cloudwatch.get_paginator("describe_alarms").paginate(
            AlarmNamePrefix=f"{self.names.prefix}-", StateValue="ALARM", AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
        return [
            Alarm(
                name=alarm["AlarmName"],
                description=alarm.get("AlarmDescription", ""),
                reason=alarm.get("StateReason", ""),
                since=alarm["StateUpdatedTimestamp"],
                rule=str(alarm.get("AlarmRule", "")),
            )
            for page in pages
            for raised in (page["MetricAlarms"], page["CompositeAlarms"])
            for alarm in raised
        ]

    def dead_letters(self) -> Iterator[DeadLetters]:
        """By reaction; without one for those that were not looked at, or that do not say where they come from."""
        queues = Queues(client=self.sqs)
        counted = queues.count(self.names.dead_letters)
        lying = counted.waiting + counted.in_flight
        with queues.dead_letters(self.names.dead_letters, most=min(lying, _LOOKED_AT)) as found:
            letters: dict[str | None, list[Letter]] = {}
            for letter in found:
                letters.setdefault(self.names.reaction_of(letter.origin or ""), []).append(letter)
        if unseen := max(0, lying - sum(map(len, letters.values()))):
            letters.setdefault(None, [])
        deployed = {None, PROMOTION, *queues.of_reactions(self.names)}
        for reaction, of in sorted(letters.items(), key=str):
            models = {model_of(event_in(each.body), names=[self.names], models=self.models) for each in of}
            yield DeadLetters(
                reaction=reaction,
                removed=reaction not in deployed,
                count=len(of) + (0 if reaction else unseen),
                oldest=min((letter.sent for letter in of), default=None),
                models=sorted(model for model in models if model),
            )

    def waiting(self) -> list[Waiting]:
        queues = Queues(client=self.sqs)
        names = {self.names.queue(reaction): reaction for reaction in queues.of_reactions(self.names)}
        return [
            Waiting(reaction=names[queue], waiting=queues.count(queue).waiting, age=timedelta(seconds=age))
            for queue, age in ages(list(names), now=self.now).items()
            if age
        ]

    @property
    def stacks(self) -> list[str]:
        """Names of those of the environment and of the models, which may be there."""
        names = [self.names.environment_stack(part) for part in ("foundation", "network", "reactions", "roles")]
        parts: tuple[Part, ...] = get_args(Part)
        return names + [self.names.stack(model, part) for model in self.models for part in parts]

    def stack(self, name: str) -> Stack | None:
        """None where there is none."""
        try:
            (stack,) = self.cloudformation.describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            return None
        changed = stack.get("LastUpdatedTime", stack["CreationTime"])
        return Stack(name=stack["StackName"], status=stack["StackStatus"], changed=changed)

    def model(self, model: str) -> Model:
        entries = self.ledger.entries(model)
        state = Endpoint(name=self.names.model(model), client=self.sagemaker).state()
        stack = ServingStack(name=self.names.stack(model, "serving"), client=self.cloudformation).state()
        packages = Registry(client=self.sagemaker).packages(self.names.model(model))
        return Model(
            name=model,
            entries=entries,
            head=not entries or self.ledger.ends_with(entries[-1]),
            has_endpoint=stack.outputs.get("Mode") != Mode.BATCH,
            endpoint=Answering(status=state.status, failure=state.failure, desired=state.desired) if state else None,
            versions=[Version(arn=p.arn, number=p.version, approval=p.approval, created=p.created) for p in packages],
        )

    def rules(self) -> Iterator[Off]:
        for bus in ("default", self.bus):
            pages = self.events.get_paginator("list_rules").paginate(
                NamePrefix=f"{self.names.prefix}-", EventBusName=bus
            )
            for rule in (rule for page in pages for rule in page["Rules"]):
                if rule.get("State") == "DISABLED":
                    on = f"aws events enable-rule --event-bus-name {bus} --name {rule['Name']}"
                    yield Off(kind="rule", name=rule["Name"], state="disabled", on=on)

    def schedules(self) -> Iterator[Off]:
        pages = self.scheduler.get_paginator("list_schedules").paginate(GroupName=self.names.prefix)
        for schedule in (schedule for page in pages for schedule in page["Schedules"]):
            if schedule.get("State") == "DISABLED":
                name = schedule["Name"]
                # UpdateSchedule replaces all of a schedule: CloudFormation, which wrote it, writes it again.
                on = f"aws scheduler get-schedule --group-name {self.names.prefix} --name {name}"
                yield Off(kind="schedule", name=name, state="disabled", on=on)

    def event_sources(self) -> Iterator[Off]:
        for page in self.functions_of.get_paginator("list_event_source_mappings").paginate():
            for source in page["EventSourceMappings"]:
                function = source["FunctionArn"].split(":function:")[-1].split(":")[0]
                if not function.startswith(f"{self.names.prefix}-") or source["State"] not in {"Disabled", "Disabling"}:
                    continue
                on = f"aws lambda update-event-source-mapping --enabled --uuid {source['UUID']}"
                yield Off(kind="event source", name=f"of {function}", state=source["State"].lower(), on=on)

    def functions(self) -> list[Function]:
        pages = self.functions_of.get_paginator("list_functions").paginate()
        names = [f["FunctionName"] for page in pages for f in page["Functions"]]
        own = [name for name in names if name.startswith(f"{self.names.prefix}-")]
        counts = self._sums([(name, metric) for name in own for metric in ("Errors", "Throttles")]) if own else {}
        return [Function(name=n, errors=counts[n, "Errors"], throttles=counts[n, "Throttles"]) for n in own]

    def _sums(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Sums of functions' metrics over the last hour; at most 500 in one call, which is 250 functions."""
        queries: Any = [
            {
                "Id": f"f{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/Lambda",
                        "MetricName": metric,
                        "Dimensions": [{"Name": "FunctionName", "Value": function}],
                    },
                    "Period": 3600,
                    "Stat": "Sum",
                },
            }
            for number, (function, metric) in enumerate(wanted)
        ]
        pages = self.cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=self.now - timedelta(hours=1), EndTime=self.now
        )
        sums = dict.fromkeys(wanted, 0)
        for result in (result for page in pages for result in page["MetricDataResults"]):
            sums[wanted[int(result["Id"][1:])]] += round(sum(result.get("Values", [])))
        return sums

    def reconciler(self, within: timedelta) -> datetime | None:
        """When the reconciler began its newest turn, or was deployed if none is known; None if that is as long ago."""
        name, since = self.names.function("reconcile"), self.now - within
        place = Place(group=f"/aws/lambda/{name}", name=name)
        if heard := [line.at for line in self.logs.lines([place], since=since, word="Heard")]:
            return max(heard)
        deployed = self.stack(self.names.environment_stack("reactions"))
        return deployed.changed if deployed and deployed.changed > since else None

    def key(self) -> Key:
        found = self.keys.describe_key(KeyId=f"alias/{self.names.prefix}")["KeyMetadata"]
        return Key(id=found["KeyId"], state=found["KeyState"], deleted_at=found.get("DeletionDate"))

    def budget(self) -> Budget | None:
        """None where the environment has none."""
        account = self.sts.get_caller_identity()["Account"]
        try:
            found = self.budgets.describe_budget(AccountId=account, BudgetName=self.names.prefix)["Budget"]
        except self.budgets.exceptions.NotFoundException:
            return None
        spend = found.get("CalculatedSpend", {})
        forecast = spend.get("ForecastedSpend", {}).get("Amount")
        return Budget(
            name=self.names.prefix,
            limit=float(found["BudgetLimit"]["Amount"]),
            spent=float(spend.get("ActualSpend", {}).get("Amount", 0)),
            forecast=float(forecast) if forecast else None,
        )
