"""Where functions, jobs and models are put when an environment has a network: subnets, security groups, permissions."""

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sagemaker as sagemaker

from stacks.constructs.permissions import Grant, allow

OF_FUNCTIONS = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)
"""What Lambda does with a function's role to put it into a network. Source: Lambda guide, `configuration-vpc`."""

OF_JOBS = (
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)
"""What SageMaker does with a role to put jobs and models into one. Source: SageMaker guide, `sagemaker-roles`."""

UNNAMED = "The network interfaces are made by AWS when they are needed, and EC2's Describe actions know no resource."


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Ids of the subnets, in different zones, and of the security groups of what runs in them."""

    subnets: Sequence[str]
    security_groups: Sequence[str]

    def of_jobs(self) -> dict[str, list[str]]:
        """`VpcConfig` in a pipeline's definition."""
        return {"SecurityGroupIds": list(self.security_groups), "Subnets": list(self.subnets)}

    def of_models(self) -> sagemaker.CfnModel.VpcConfigProperty:
        return sagemaker.CfnModel.VpcConfigProperty(
            security_group_ids=list(self.security_groups), subnets=list(self.subnets)
        )

    def of_functions(self) -> lambda_.CfnFunction.VpcConfigProperty:
        return lambda_.CfnFunction.VpcConfigProperty(
            security_group_ids=list(self.security_groups), subnet_ids=list(self.subnets)
        )


def admit_jobs(role: iam.Role) -> None:
    allow(role, Grant(actions=OF_JOBS, resources=["*"], because=UNNAMED))


def admit_function(role: iam.Role, *, function_arn: str) -> None:
    """Let Lambda put the function into the network; its own code, which has the same role, may not."""
    allow(role, Grant(actions=OF_FUNCTIONS, resources=["*"], because=UNNAMED))
    role.add_to_policy(
        iam.PolicyStatement(
            effect=iam.Effect.DENY,
            actions=list(OF_FUNCTIONS),
            resources=["*"],
            conditions={"ArnEquals": {"lambda:SourceFunctionArn": function_arn}},
        )
    )
