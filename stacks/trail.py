"""Who read or wrote which object and which entry of the ledger: CloudTrail's data events; off unless the settings say.

    data bucket, copies of the ledger ─┐                 ┌─ key: CloudTrail may encrypt for this trail alone
    ledger table ──────────────────────┴─> trail ──> bucket: written once, locked, and each hour's files signed

Management events (who changed a role, a key, a stack) are not in it: an account's own trail has those, and the first
copy of them costs nothing there.
"""

from typing import Any, cast

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_cloudtrail as cloudtrail
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.foundation import Foundation
from stacks.settings import Settings

SERVICE = "cloudtrail.amazonaws.com"


class Trail(Construct):
    """Part of the foundation's stack, because the key and the log of accesses are its."""

    def __init__(self, foundation: Foundation, id_: str, *, settings: Settings) -> None:
        super().__init__(foundation, id_)
        self._foundation = foundation
        self._settings = settings
        self._name = settings.names.prefix
        self._arn = foundation.format_arn(service="cloudtrail", resource="trail", resource_name=self._name)
        self._by_the_trail = {"StringEquals": {"aws:SourceArn": self._arn}}

        self._let_encrypt()
        bucket = self._bucket()
        trail = cloudtrail.CfnTrail(
            self,
            "Trail",
            trail_name=self._name,
            is_logging=True,
            s3_bucket_name=bucket.bucket_name,
            kms_key_id=foundation.key.key_arn,
            enable_log_file_validation=True,
            include_global_service_events=False,
            is_multi_region_trail=False,
            advanced_event_selectors=[
                self._selector("Objects", "AWS::S3::Object", starts_with=self._objects()),
                self._selector("Ledger", "AWS::DynamoDB::Table", equal_to=[foundation.ledger.table_arn]),
            ],
        )
        # CloudTrail tries both when the trail is made.
        trail.node.add_dependency(bucket.policy, foundation.key)

    def _objects(self) -> list[str]:
        """What the ARNs of objects in Noria's buckets begin with; the log of accesses is a log itself."""
        buckets = [child for child in self._foundation.node.children if isinstance(child, s3.Bucket)]
        return [bucket.arn_for_objects("") for bucket in buckets if bucket.node.id != "AccessLogs"]

    def _selector(self, name: str, type_: str, **arns: Any) -> cloudtrail.CfnTrail.AdvancedEventSelectorProperty:
        field = cloudtrail.CfnTrail.AdvancedFieldSelectorProperty
        return cloudtrail.CfnTrail.AdvancedEventSelectorProperty(
            name=name,
            field_selectors=[
                field(field="eventCategory", equal_to=["Data"]),
                field(field="resources.type", equal_to=[type_]),
                field(field="resources.ARN", **arns),
            ],
        )

    def _let_encrypt(self) -> None:
        """Source: CloudTrail guide, `create-kms-key-policy-for-cloudtrail`."""
        context = self._foundation.format_arn(
            service="cloudtrail", region="*", resource="trail", resource_name=self._name
        )
        self._foundation.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="EncryptTrail",
                principals=[iam.ServicePrincipal(SERVICE)],
                actions=["kms:GenerateDataKey"],
                resources=["*"],  # in a key's policy, that is this key
                conditions=self._by_the_trail | {"StringLike": {"kms:EncryptionContext:aws:cloudtrail:arn": context}},
            )
        )
        self._foundation.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="DescribeForTrail",
                principals=[iam.ServicePrincipal(SERVICE)],
                actions=["kms:DescribeKey"],
                resources=["*"],
                conditions=self._by_the_trail,
            )
        )

    def _bucket(self) -> s3.Bucket:
        """Source of its policy: CloudTrail guide, `create-s3-bucket-policy-for-cloudtrail`."""
        kept = self._settings.keeps_data
        lock = s3.ObjectLockRetention.compliance if kept else s3.ObjectLockRetention.governance
        bucket = s3.Bucket(
            self,
            "Files",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self._foundation.key,
            bucket_key_enabled=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            object_lock_enabled=True,
            object_lock_default_retention=lock(Duration.days(self._settings.log_days)),
            lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(self._settings.log_days + 1))],
            server_access_logs_bucket=cast(s3.Bucket, self._foundation.node.find_child("AccessLogs")),
            server_access_logs_prefix="trail/",
            removal_policy=RemovalPolicy.RETAIN if kept else RemovalPolicy.DESTROY,
        )
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="LookWhose",
                principals=[iam.ServicePrincipal(SERVICE)],
                actions=["s3:GetBucketAcl"],
                resources=[bucket.bucket_arn],
                conditions=self._by_the_trail,
            )
        )
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="Deliver",
                principals=[iam.ServicePrincipal(SERVICE)],
                actions=["s3:PutObject"],
                resources=[bucket.arn_for_objects(f"AWSLogs/{self._foundation.account}/*")],
                conditions={
                    "StringEquals": {
                        **self._by_the_trail["StringEquals"],
                        "s3:x-amz-acl": "bucket-owner-full-control",
                    }
                },
            )
        )
        return bucket
