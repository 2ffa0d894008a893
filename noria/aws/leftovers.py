"""What of an environment, or of a model in it, is still in the account: found by name, and by tag for what has none.

Each is told with what it is paid by (noria/prices.yaml), so that who reads it sees what staying costs.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from noria.aws.endpoints import instances
from noria.names import Names
from noria.prices import HOURS

GB = 1e9
MOST_VERSIONS = 100_000
"""Of a bucket's objects so many are looked at; of a larger one at least what these hold is told."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """`paid` says by which prices, and how many units of each in a month; empty where it costs nothing."""

    type: str
    name: str
    paid: tuple[tuple[str, float], ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """A kind that could not be looked for, and why."""

    type: str
    because: str


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """`others` are models that stay, whose names may begin as `model`'s does."""

    env: str
    model: str | None = None
    others: Collection[str] = ()
    client: Callable[[str], Any] = field(default=cache(boto3.client), repr=False)

    def found(self) -> tuple[list[Left], list[Unseen]]:
        left: dict[tuple[str, str], Left] = {}
        unseen: list[Unseen] = []
        for type_, look in self._kinds().items():
            try:
                for each in look():
                    left.setdefault((each.type, each.name), each)
            except (ClientError, BotoCoreError) as error:
                unseen.append(Unseen(type=type_, because=str(error)))
        return sorted(left.values(), key=lambda each: (each.type, each.name)), unseen

    def _kinds(self) -> dict[str, Callable[[], Iterator[Left]]]:
        of_models: dict[str, Callable[[], Iterator[Left]]] = {
            "AWS::SageMaker::Endpoint": self._endpoints,
            "AWS::SageMaker::EndpointConfig": lambda: self._sagemaker("EndpointConfig", "list_endpoint_configs"),
            "AWS::SageMaker::Model": lambda: self._sagemaker("Model", "list_models"),
            "AWS::SageMaker::Pipeline": lambda: self._sagemaker("Pipeline", "list_pipelines"),
            "AWS::SageMaker::ModelPackageGroup": lambda: self._sagemaker(
                "ModelPackageGroup", "list_model_package_groups"
            ),
            "AWS::CloudWatch::Alarm": self._alarms,
            "AWS::CloudWatch::Dashboard": self._dashboards,
            "AWS::Logs::LogGroup": self._log_groups,
            "AWS::CloudFormation::Stack": self._stacks,
        }
        of_environments = {
            "AWS::S3::Bucket": self._buckets,
            "AWS::DynamoDB::Table": self._tables,
            "AWS::SQS::Queue": self._queues,
            "AWS::SNS::Topic": self._topics,
            "AWS::Lambda::Function": self._functions,
            "AWS::Events::Archive": self._archives,
        }
        # Last, since it knows least of what it finds.
        return of_models | ({} if self.model else of_environments) | {"resources with the tag noria:env": self._tagged}

    def _ours(self, name: str) -> bool:
        names = Names(env=self.env)
        if self.model is None:
            return name == names.prefix or name.startswith(f"{names.prefix}-")
        longer = [names.model(each) for each in self.others if each.startswith(f"{self.model}-")]
        ours = names.model(self.model)
        return (name == ours or name.startswith(f"{ours}-")) and not any(
            name == each or name.startswith(f"{each}-") for each in longer
        )

    def _pages(self, service: str, operation: str, key: str, **given: Any) -> Iterator[Any]:
        for page in self.client(service).get_paginator(operation).paginate(**given):
            yield from page.get(key, ())

    # --- of models

    def _sagemaker(self, kind: str, operation: str) -> Iterator[Left]:
        plural = {"ModelPackageGroup": "ModelPackageGroupSummaryList", "Pipeline": "PipelineSummaries"}
        for each in self._pages("sagemaker", operation, plural.get(kind, f"{kind}s")):
            # What CloudFormation names begins with the logical id, which has the same words.
            name = each[f"{kind}Name"]
            if self._ours(name) or self._ours(_hyphenated(name)):
                yield Left(type=f"AWS::SageMaker::{kind}", name=name)

    def _endpoints(self) -> Iterator[Left]:
        for each in self._sagemaker("Endpoint", "list_endpoints"):
            described = self.client("sagemaker").describe_endpoint(EndpointName=each.name)
            config = self.client("sagemaker").describe_endpoint_config(
                EndpointConfigName=described["EndpointConfigName"]
            )
            running = instances(described, config).values()
            paid = tuple((instance, float(HOURS * count)) for instance, count in running)
            yield Left(type=each.type, name=each.name, paid=paid)

    def _alarms(self) -> Iterator[Left]:
        kinds = ["MetricAlarm", "CompositeAlarm"]
        prefix = Names(env=self.env).prefix
        pages = (
            self.client("cloudwatch")
            .get_paginator("describe_alarms")
            .paginate(AlarmNamePrefix=prefix, AlarmTypes=kinds)
        )
        for page in pages:
            for alarm in (each for each in page.get("MetricAlarms", []) if self._ours(each["AlarmName"])):
                metrics = sum("MetricStat" in metric for metric in alarm.get("Metrics", [])) or 1
                paid = (("alarm.metric", float(metrics)),)
                yield Left(type="AWS::CloudWatch::Alarm", name=alarm["AlarmName"], paid=paid)
            for alarm in (each for each in page.get("CompositeAlarms", []) if self._ours(each["AlarmName"])):
                paid = (("alarm.composite", 1.0),)
                yield Left(type="AWS::CloudWatch::CompositeAlarm", name=alarm["AlarmName"], paid=paid)

    def _dashboards(self) -> Iterator[Left]:
        prefix = Names(env=self.env).prefix
        for each in self._pages("cloudwatch", "list_dashboards", "DashboardEntries", DashboardNamePrefix=prefix):
            if self._ours(each["DashboardName"]):
                yield Left(type="AWS::CloudWatch::Dashboard", name=each["DashboardName"], paid=(("dashboard", 1.0),))

    def _log_groups(self) -> Iterator[Left]:
        prefix = Names(env=self.env).prefix
        for folder in ("/aws/lambda/", "/aws/sagemaker/Endpoints/", "/aws/vendedlogs/"):
            given = {"logGroupNamePrefix": f"{folder}{prefix}"}
            for each in self._pages("logs", "describe_log_groups", "logGroups", **given):
                if self._ours(each["logGroupName"].removeprefix(folder)):
                    paid = (("logs.kept", each.get("storedBytes", 0) / GB),)
                    yield Left(type="AWS::Logs::LogGroup", name=each["logGroupName"], paid=paid)

    def _stacks(self) -> Iterator[Left]:
        for each in self._pages("cloudformation", "describe_stacks", "Stacks"):
            if self._ours(each["StackName"]) and each["StackStatus"] != "DELETE_COMPLETE":
                yield Left(type="AWS::CloudFormation::Stack", name=each["StackName"], note=each["StackStatus"])

    # --- of environments

    def _buckets(self) -> Iterator[Left]:
        for bucket in self.client("s3").list_buckets()["Buckets"]:
            if not self._ours(bucket["Name"]):
                continue
            count = size = 0
            for version in self._pages("s3", "list_object_versions", "Versions", Bucket=bucket["Name"]):
                count, size = count + 1, size + version["Size"]
                if count == MOST_VERSIONS:
                    break
            note = f"{count:,} versions of objects" + (" at least" if count == MOST_VERSIONS else "")
            yield Left(type="AWS::S3::Bucket", name=bucket["Name"], paid=(("s3.kept", size / GB),), note=note)

    def _tables(self) -> Iterator[Left]:
        for name in self._pages("dynamodb", "list_tables", "TableNames"):
            if self._ours(name):
                table = self.client("dynamodb").describe_table(TableName=name)["Table"]
                size = table.get("TableSizeBytes", 0) / GB
                paid = (("dynamodb.kept", size), ("dynamodb.recovery", size))
                yield Left(
                    type="AWS::DynamoDB::Table", name=name, paid=paid, note=f"{table.get('ItemCount', 0):,} items"
                )

    def _queues(self) -> Iterator[Left]:
        prefix = Names(env=self.env).prefix
        for url in self._pages("sqs", "list_queues", "QueueUrls", QueueNamePrefix=prefix):
            if self._ours(name := url.rpartition("/")[-1]):
                yield Left(type="AWS::SQS::Queue", name=name)

    def _topics(self) -> Iterator[Left]:
        for each in self._pages("sns", "list_topics", "Topics"):
            if self._ours(name := each["TopicArn"].rpartition(":")[-1]):
                yield Left(type="AWS::SNS::Topic", name=name)

    def _functions(self) -> Iterator[Left]:
        for each in self._pages("lambda", "list_functions", "Functions"):
            if self._ours(each["FunctionName"]):
                yield Left(type="AWS::Lambda::Function", name=each["FunctionName"])

    def _archives(self) -> Iterator[Left]:
        prefix = Names(env=self.env).prefix
        for each in self.client("events").list_archives(NamePrefix=prefix)["Archives"]:
            if self._ours(each["ArchiveName"]):
                paid = (("archive.kept", each.get("SizeBytes", 0) / GB),)
                yield Left(type="AWS::Events::Archive", name=each["ArchiveName"], paid=paid)

    # --- whatever it is

    def _tagged(self) -> Iterator[Left]:
        """What the kinds above do not look for; of a key, whether it is to be deleted, after which it costs nothing."""
        filters = [{"Key": "noria:env", "Values": [self.env]}]
        if self.model:
            filters.append({"Key": "noria:model", "Values": [self.model]})
        known = {kind.split("::")[1].lower() for kind in self._kinds() if "::" in kind} | {"monitoring"}
        for each in self._pages(
            "resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList", TagFilters=filters
        ):
            arn = each["ResourceARN"]
            service = arn.split(":")[2]
            if service == "kms" and ":key/" in arn:
                yield from self._key(arn)
            elif service not in known:
                yield Left(type=f"resource of {service}", name=arn)

    def _key(self, arn: str) -> Iterator[Left]:
        state = self.client("kms").describe_key(KeyId=arn)["KeyMetadata"]
        if state["KeyState"] == "PendingDeletion":
            yield Left(
                type="AWS::KMS::Key", name=arn, note=f"goes on {state['DeletionDate']:%Y-%m-%d}, free until then"
            )
        else:
            yield Left(type="AWS::KMS::Key", name=arn, paid=(("kms.key", 1.0),))


def _hyphenated(name: str) -> str:
    """`noria-dev-flight-delay-…` of `NoriaDevFlightDelay…`, as stacks/constructs/generated.py names them."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")
