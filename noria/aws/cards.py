"""SageMaker's model cards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import boto3

from noria.card.sagemaker import Status

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient


class Written(StrEnum):
    CREATED = "CardCreated"
    UPDATED = "CardUpdated"
    SAME = "CardKnown"


@dataclass(frozen=True, kw_only=True)
class Cards:
    """Cards of one environment, encrypted with its key."""

    key_arn: str
    client: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker"), repr=False)

    def write(self, name: str, content: str, status: Status, *, tags: Mapping[str, str]) -> Written:
        """Have a card say this. What it says already makes no new version of it."""
        try:
            there = self.client.describe_model_card(ModelCardName=name)
        except self.client.exceptions.ResourceNotFound:
            self.client.create_model_card(
                ModelCardName=name,
                Content=content,
                ModelCardStatus=status,
                SecurityConfig={"KmsKeyId": self.key_arn},
                Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )
            return Written.CREATED
        same_content, same_status = there["Content"] == content, there["ModelCardStatus"] == status
        if not same_status and there["ModelCardStatus"] == "Archived":
            self.client.update_model_card(ModelCardName=name, ModelCardStatus=status)
            same_status = True
        # Of content and status, SageMaker takes one at a time.
        if not same_content:
            self.client.update_model_card(ModelCardName=name, Content=content)
        if not same_status:
            self.client.update_model_card(ModelCardName=name, ModelCardStatus=status)
        known = same_content and there["ModelCardStatus"] == status
        return Written.SAME if known else Written.UPDATED
