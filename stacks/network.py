"""A network without a way to the internet, for functions, jobs and models; off unless `stacks/settings.py` asks for it.

    subnets (isolated) ──┬── gateway endpoints     S3, DynamoDB
     functions, jobs,    └── interface endpoints   what functions call, each behind a policy
     models

There is no internet gateway, no NAT and no peering: what is not behind an endpoint cannot be reached, by anybody's
mistake. An endpoint serves principals of this account (or organisation) alone, and leads to its resources alone, so
that neither somebody else's credentials nor somebody else's bucket is of use in here.
"""

from collections.abc import Sequence
from typing import Any

from aws_cdk import Environment, Fn, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.constructs.permissions import Grant, allow
from stacks.constructs.placement import Placement
from stacks.constructs.reaction import RETENTION
from stacks.foundation import Foundation
from stacks.settings import ExistingVpc, OwnVpc, Settings

INTERFACES = (
    "appconfigdata",
    "athena",
    "cloudformation",
    "events",
    "monitoring",
    "sagemaker.api",
    "sagemaker.runtime",
    "scheduler",
    "sns",
    "sqs",
)
"""Services that functions call themselves, as the `Calls:` of their handlers say.

Of the others: KMS is asked by S3, DynamoDB, SQS and SNS, Glue by Athena, on the caller's behalf and not through the
network. Queues are polled, logs and traces delivered by Lambda; images are pulled, data brought and fetched, and logs
written by SageMaker, beside containers that reach nothing at all.
"""

HTTPS = 443
SUBNET_BITS = 10
"""1,024 addresses a subnet: SageMaker wants two for each instance, and a deployment doubles the instances."""


class Network(Stack):
    """`placement` is where everything goes."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        env: Environment,
        settings: Settings,
        vpc: OwnVpc,
        foundation: Foundation,
    ) -> None:
        super().__init__(
            scope,
            id_,
            stack_name=settings.names.environment_stack("network"),
            description=f"Noria ({settings.env}): subnets without a way to the internet, and endpoints of AWS services",
            env=env,
            termination_protection=settings.termination_protection,
        )
        self._settings = settings
        self._own = vpc
        self._key = kms.Key.from_key_arn(self, "Key", foundation.key.key_arn)

        self._vpc = ec2.CfnVPC(self, "Vpc", cidr_block=vpc.cidr, enable_dns_support=True, enable_dns_hostnames=True)
        self._routes = ec2.CfnRouteTable(self, "Routes", vpc_id=self._vpc.ref)
        subnets = self._subnets()
        inside = self._group(
            "Inside",
            "Functions, jobs and models: nothing comes in",
            # Endpoints are all there is, and the addresses of S3's and DynamoDB's are AWS's own.
            outgoing="0.0.0.0/0",
        )
        self._gateways()
        self._interfaces(subnets, inside)
        self._flow_log()
        self.placement = Placement(subnets=subnets, security_groups=[inside.attr_group_id])

    def _subnets(self) -> list[str]:
        """One in each of the first zones, each with an equal part of the addresses."""
        parts = Fn.cidr(self._own.cidr, self._own.zones, str(SUBNET_BITS))
        subnets = []
        for number in range(self._own.zones):
            subnet = ec2.CfnSubnet(
                self,
                f"Subnet{number + 1}",
                vpc_id=self._vpc.ref,
                availability_zone=Fn.select(number, Fn.get_azs()),
                cidr_block=Fn.select(number, parts),
                map_public_ip_on_launch=False,
            )
            ec2.CfnSubnetRouteTableAssociation(
                self, f"Routes{number + 1}", route_table_id=self._routes.ref, subnet_id=subnet.ref
            )
            subnets.append(subnet.ref)
        return subnets

    def _group(
        self, id_: str, description: str, *, outgoing: str, coming_from: ec2.CfnSecurityGroup | None = None
    ) -> ec2.CfnSecurityGroup:
        return ec2.CfnSecurityGroup(
            self,
            id_,
            group_description=description,
            vpc_id=self._vpc.ref,
            security_group_ingress=[
                ec2.CfnSecurityGroup.IngressProperty(
                    ip_protocol="tcp",
                    from_port=HTTPS,
                    to_port=HTTPS,
                    source_security_group_id=coming_from.attr_group_id,
                    description="Calls of AWS services",
                )
            ]
            if coming_from
            else [],
            security_group_egress=[
                ec2.CfnSecurityGroup.EgressProperty(
                    ip_protocol="tcp",
                    from_port=HTTPS,
                    to_port=HTTPS,
                    cidr_ip=outgoing,
                    description="Calls of AWS services",
                )
            ],
        )

    # --- endpoints

    def _gateways(self) -> None:
        for name in ("dynamodb", "s3"):
            ec2.CfnVPCEndpoint(
                self,
                f"Endpoint-{name}",
                vpc_id=self._vpc.ref,
                service_name=f"com.amazonaws.{self.region}.{name}",
                vpc_endpoint_type="Gateway",
                route_table_ids=[self._routes.ref],
                policy_document=self._ours_alone(),
            )

    def _interfaces(self, subnets: Sequence[str], inside: ec2.CfnSecurityGroup) -> None:
        group = self._group(
            "Endpoints",
            "Endpoints of AWS services: HTTPS from inside, and no call of their own",
            outgoing="127.0.0.1/32",
            coming_from=inside,
        )
        for name in INTERFACES:
            ec2.CfnVPCEndpoint(
                self,
                f"Endpoint-{name}",
                vpc_id=self._vpc.ref,
                service_name=f"com.amazonaws.{self.region}.{name}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=list(subnets),
                security_group_ids=[group.attr_group_id],
                policy_document=self._ours_alone(),
            )

    def _ours_alone(self) -> dict[str, Any]:
        """Who may use an endpoint, and for what: what IAM allows our principals on our resources, and nothing else."""
        registry = self._settings.registry
        accounts = [self.account, registry.account] if registry else self.account
        ours = (
            {"aws:PrincipalOrgID": self._own.organisation, "aws:ResourceOrgID": self._own.organisation}
            if self._own.organisation
            else {"aws:PrincipalAccount": self.account, "aws:ResourceAccount": accounts}
        )
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "OursAlone",
                    "Effect": "Allow",
                    "Principal": {"AWS": "*"},
                    "Action": "*",
                    "Resource": "*",
                    "Condition": {"StringEquals": ours},
                }
            ],
        }

    # --- what was refused

    def _flow_log(self) -> None:
        """Of refused connections alone: each is a mistake, or somebody's attempt."""
        group = logs.LogGroup(
            self,
            "Refused",
            log_group_name=f"/aws/vendedlogs/{self._settings.names.prefix}-network",
            retention=RETENTION[self._settings.log_days],
            encryption_key=self._key,
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = iam.Role(
            self,
            "FlowLogRole",
            assumed_by=iam.ServicePrincipal(
                "vpc-flow-logs.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": self.account}}
            ),
        )
        allow(
            role,
            Grant(
                actions=["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                resources=[group.log_group_arn],
            ),
            Grant(
                actions=["logs:DescribeLogGroups"],
                resources=["*"],
                because="CloudWatch Logs doesn't narrow DescribeLogGroups to single groups.",
            ),
        )
        flow_log = ec2.CfnFlowLog(
            self,
            "FlowLog",
            resource_id=self._vpc.ref,
            resource_type="VPC",
            traffic_type="REJECT",
            log_destination_type="cloud-watch-logs",
            log_group_name=group.log_group_name,
            deliver_logs_permission_arn=role.role_arn,
        )
        flow_log.node.add_dependency(role.node.find_child("DefaultPolicy"))


def placed(scope: Construct, *, env: Environment, settings: Settings, foundation: Foundation) -> Placement | None:
    """Where an environment's functions, jobs and models go; None where they stay in AWS's own network."""
    match settings.network:
        case OwnVpc() as vpc:
            return Network(scope, "Network", env=env, settings=settings, vpc=vpc, foundation=foundation).placement
        case ExistingVpc(subnets=subnets, security_groups=groups):
            return Placement(subnets=subnets, security_groups=groups)
    return None
