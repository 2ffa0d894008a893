"""What an environment has once: key, buckets, event bus and archives, the ledger, and the topics that tell people."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal, cast

from aws_cdk import ArnFormat, Duration, Environment, RemovalPolicy, Stack
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from noria.spec import ModelSpec
from stacks.constructs.permissions import acknowledge
from stacks.settings import Settings

Published = Literal["data-bucket", "event-bus", "pages-topic", "notices-topic", "ledger-table", "ledger-bucket"]

SENDERS = ("events", "cloudwatch", "budgets")
"""Services that send to our encrypted queues and topics by themselves, without a role."""

REWRITING = (
    "UpdateItem",
    "DeleteItem",
    "BatchWriteItem",
    "PartiQLInsert",
    "PartiQLUpdate",
    "PartiQLDelete",
    "UpdateTimeToLive",  # by which DynamoDB deletes items itself
)
"""All that changes a table's items, but PutItem: with a condition, it only adds."""


class Foundation(Stack):
    def __init__(
        self, scope: Construct, id_: str, *, env: Environment, settings: Settings, specs: Sequence[ModelSpec]
    ) -> None:
        super().__init__(
            scope,
            id_,
            stack_name=settings.names.environment_stack("foundation"),
            description=f"Noria ({settings.env}): key, buckets, event bus, ledger and topics",
            env=env,
            termination_protection=settings.termination_protection,
        )
        self._settings = settings
        self._removal = RemovalPolicy.RETAIN if settings.keeps_data else RemovalPolicy.DESTROY

        # Named by convention, so that policies in other stacks can name parts of it without an export for each.
        self.data_bucket_name = f"{settings.names.prefix}-data-{self.account}-{self.region}"
        self.ledger_bucket_name = f"{settings.names.prefix}-ledger-{self.account}-{self.region}"

        self.key = self._key()
        self._access_logs = self._bucket_of_access_logs()
        self.data_bucket = self._data_bucket(specs)
        self.bus = self._bus()
        self.ledger = self._ledger()
        self.ledger_bucket = self._ledger_bucket()
        owners = [spec.owner for spec in specs]
        self.pages = self._topic("Pages", {owner.page for owner in owners})
        self.notices = self._topic("Notices", {owner.notices or owner.page for owner in owners})

        # Exported whether a model's alarms use it now or not: see the end of stacks/reactions.py.
        self.export_value(self.notices.topic_arn)

        self._archives()
        # The tables are the monitoring stacks'; they name it by convention.
        glue.CfnDatabase(
            self,
            "Captured",
            catalog_id=self.account,
            database_input=glue.CfnDatabase.DatabaseInputProperty(
                name=settings.names.database, description=f"Requests that Noria ({settings.env}) captured"
            ),
        )
        if settings.monthly_budget is not None:
            self._budget(settings.monthly_budget)
        published: Mapping[Published, str] = {
            "data-bucket": self.data_bucket.bucket_name,
            "event-bus": self.bus.event_bus_name,
            "pages-topic": self.pages.topic_arn,
            "notices-topic": self.notices.topic_arn,
            "ledger-table": self.ledger.table_name,
            "ledger-bucket": self.ledger_bucket.bucket_name,
        }
        for name, value in published.items():
            ssm.StringParameter(
                self, f"Parameter-{name}", parameter_name=settings.names.parameter(name), string_value=value
            )

    def _key(self) -> kms.Key:
        key = kms.Key(
            self,
            "Key",
            alias=self._settings.names.prefix,
            description=f"Encrypts everything that Noria ({self._settings.env}) keeps",
            enable_key_rotation=True,
            removal_policy=self._removal,
        )
        for service in SENDERS:
            key.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=f"Deliver{service.capitalize()}",
                    principals=[iam.ServicePrincipal(f"{service}.amazonaws.com")],
                    actions=["kms:Decrypt", "kms:GenerateDataKey"],
                    resources=["*"],  # in a key's policy, that is this key
                    # EventBridge is not documented to name the account when it encrypts for a queue: each queue's own
                    # policy says whose rules may send.
                    conditions={} if service == "events" else {"StringEquals": {"aws:SourceAccount": self.account}},
                )
            )
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="EncryptLogs",
                principals=[iam.ServicePrincipal(f"logs.{self.region}.amazonaws.com")],
                actions=[
                    "kms:Encrypt",
                    "kms:Decrypt",
                    "kms:ReEncryptFrom",
                    "kms:ReEncryptTo",
                    "kms:GenerateDataKey",
                    "kms:GenerateDataKeyWithoutPlaintext",
                    "kms:DescribeKey",
                ],
                resources=["*"],
                conditions={
                    "ArnLike": {
                        "kms:EncryptionContext:aws:logs:arn": [
                            self.format_arn(
                                service="logs",
                                resource="log-group",
                                resource_name=f"{folder}/{self._settings.names.prefix}-*",
                                arn_format=ArnFormat.COLON_RESOURCE_NAME,
                            )
                            for folder in ("/aws/lambda", "/aws/sagemaker/Endpoints", "/aws/vendedlogs")
                        ]
                    }
                },
            )
        )
        return key

    def _bucket_of_access_logs(self) -> s3.Bucket:
        access_logs = s3.Bucket(
            self,
            "AccessLogs",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=Duration.days(self._settings.log_days),
                    noncurrent_version_expiration=Duration.days(1),
                )
            ],
            removal_policy=self._removal,
        )
        acknowledge(
            access_logs,
            "AwsSolutions-S1",
            "This bucket receives the access logs; logging its own accesses into itself would never end.",
        )
        return access_logs

    def _bucket(self, id_: str, *, name: str, logs: str, **more: Any) -> s3.Bucket:
        """Versioned and encrypted; who asked for what is written into the bucket of access logs, under `logs`."""
        return s3.Bucket(
            self,
            id_,
            bucket_name=name,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            bucket_key_enabled=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            server_access_logs_bucket=self._access_logs,
            server_access_logs_prefix=logs,
            removal_policy=self._removal,
            **more,
        )

    def _data_bucket(self, specs: Sequence[ModelSpec]) -> s3.Bucket:
        bucket = self._bucket(
            "Data",
            name=self.data_bucket_name,
            logs="data/",
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="noncurrent-versions",
                    noncurrent_version_expiration=Duration.days(self._settings.noncurrent_days),
                    abort_incomplete_multipart_upload_after=Duration.days(7),
                ),
                *(
                    s3.LifecycleRule(
                        id=f"captured-{spec.model}",
                        prefix=f"{spec.model}/captured/",
                        expiration=Duration.days(self._settings.captured_days),
                    )
                    for spec in specs
                ),
                *(
                    s3.LifecycleRule(
                        id=f"queries-{spec.model}",
                        prefix=f"{spec.model}/queries/",
                        # Read at once by who asked; a week is for people who look into a failure.
                        expiration=Duration.days(7),
                    )
                    for spec in specs
                ),
                *(
                    s3.LifecycleRule(
                        id=f"checkpoints-{spec.model}",
                        prefix=f"{spec.model}/checkpoints/",
                        # Of use while their training lasts, or is tried again by hand; each replaces the one before.
                        expiration=Duration.days(7),
                        noncurrent_version_expiration=Duration.days(1),
                    )
                    for spec in specs
                ),
            ],
        )
        # The L2 method for this brings a custom resource with a function of its own.
        cast(s3.CfnBucket, bucket.node.default_child).add_property_override(
            "NotificationConfiguration.EventBridgeConfiguration.EventBridgeEnabled", True
        )
        return bucket

    def _bus(self) -> events.EventBus:
        return events.EventBus(self, "Bus", event_bus_name=self._settings.names.prefix)

    def _archives(self) -> None:
        """Both buses are kept, so that a reaction mended later can be given what it missed."""
        events.CfnArchive(
            self,
            "BusArchive",
            archive_name=f"{self._settings.names.prefix}-own",
            source_arn=self.bus.event_bus_arn,
            retention_days=self._settings.archive_days,
        )
        prefix = self._settings.names.prefix
        stacks = self.format_arn(service="cloudformation", resource="stack", resource_name=f"{prefix}-")
        alarms = self.format_arn(
            service="cloudwatch", resource="alarm", resource_name=f"{prefix}-", arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        events.CfnArchive(
            self,
            "DefaultBusArchive",
            archive_name=f"{prefix}-default",
            source_arn=self.format_arn(service="events", resource="event-bus", resource_name="default"),
            event_pattern={
                "$or": [
                    {"source": ["aws.s3"], "detail": {"bucket": {"name": [self.data_bucket.bucket_name]}}},
                    {"source": ["aws.sagemaker"]},
                    {"source": ["aws.cloudwatch"], "resources": [{"prefix": alarms}]},
                    {"source": ["aws.cloudformation"], "resources": [{"prefix": stacks}]},
                ]
            },
            retention_days=self._settings.archive_days,
        )

    def _ledger(self) -> dynamodb.Table:
        """Nothing in it is changed or deleted: the table's own policy denies that to everybody."""
        return dynamodb.Table(
            self,
            "Ledger",
            partition_key=dynamodb.Attribute(name="model", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="sk", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED,
            encryption_key=self.key,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            stream=dynamodb.StreamViewType.NEW_IMAGE,
            # It leaves DeleteTable to CloudFormation, where data does not survive its stack. A table's policy cannot
            # name the table: CloudFormation makes the two at once.
            resource_policy=iam.PolicyDocument(
                statements=[
                    iam.PolicyStatement(
                        sid="AppendOnly",
                        effect=iam.Effect.DENY,
                        principals=[iam.AnyPrincipal()],
                        actions=[f"dynamodb:{action}" for action in REWRITING],
                        resources=["*"],
                    )
                ]
            ),
            deletion_protection=self._settings.keeps_data,
            removal_policy=self._removal,
        )

    def _ledger_bucket(self) -> s3.Bucket:
        """A copy of each entry, which nobody can change or delete for as long as the settings say."""
        days = Duration.days(self._settings.ledger_lock_days)
        lock = s3.ObjectLockRetention.compliance if self._settings.keeps_data else s3.ObjectLockRetention.governance
        bucket = self._bucket(
            "LedgerCopies",
            name=self.ledger_bucket_name,
            logs="ledger/",
            object_lock_enabled=True,
            object_lock_default_retention=lock(days),
        )
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="WriteOnce",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[bucket.arn_for_objects("*")],
                conditions={"Null": {"s3:if-none-match": "true"}},
            )
        )
        return bucket

    def _topic(self, id_: str, addresses: Set[str | None]) -> sns.Topic:
        """`pages` wakes somebody, `notices` waits for the morning: see noria.alarms and noria.page."""
        topic = sns.Topic(
            self, id_, topic_name=f"{self._settings.names.prefix}-{id_.lower()}", master_key=self.key, enforce_ssl=True
        )
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="PublishAlarms",
                principals=[
                    iam.ServicePrincipal("cloudwatch.amazonaws.com"),
                    iam.ServicePrincipal("budgets.amazonaws.com"),
                ],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            )
        )
        for address in sorted(address for address in addresses if address):
            topic.add_subscription(subscriptions.EmailSubscription(address))
        return topic

    def _budget(self, dollars: int) -> None:
        budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_name=self._settings.names.prefix,
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=dollars, unit="USD"),
                cost_filters={"TagKeyValue": [f"user:noria:env${self._settings.env}"]},
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        comparison_operator="GREATER_THAN", notification_type=kind, threshold=100
                    ),
                    subscribers=[
                        budgets.CfnBudget.SubscriberProperty(address=self.pages.topic_arn, subscription_type="SNS")
                    ],
                )
                for kind in ("FORECASTED", "ACTUAL")
            ],
        )
