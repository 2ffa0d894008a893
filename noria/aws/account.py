"""The account at hand: who asks, in which region, and where its environments say that things are."""

import boto3
from botocore.exceptions import ClientError


def caller() -> str:
    """The ARN of whoever the credentials are of."""
    return boto3.client("sts").get_caller_identity()["Arn"]


def region() -> str | None:
    """What configuration or environment name; None where neither does."""
    return boto3.session.Session().region_name


def parameter(path: str) -> str | None:
    """The value of a parameter; None where there is none."""
    try:
        return boto3.client("ssm").get_parameter(Name=path)["Parameter"]["Value"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise
        return None
