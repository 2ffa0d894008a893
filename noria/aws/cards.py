"""SageMaker's model cards."""

from collections.abc import Mapping
from contextlib import suppress
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
    client: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker"), repr=False)

    def write(self, name: str, content: str, status: Status, *, tags: Mapping[str, str], key: str) -> Written:
        """Have a card say this, encrypted with `key`. What it says already makes no new version of it."""
        try:
            return self._write(name, content, status, tags=tags, key=key)
        except self.client.exceptions.ConflictException:
            # Another function writes it at this moment: if that says the same, it is done.
            there = self.client.describe_model_card(ModelCardName=name)
            if (there["Content"], there["ModelCardStatus"]) != (content, status):
                raise
            return Written.UPDATED

    def _write(self, name: str, content: str, status: Status, *, tags: Mapping[str, str], key: str) -> Written:
        try:
            there = self.client.describe_model_card(ModelCardName=name)
        except self.client.exceptions.ResourceNotFound:
            self.client.create_model_card(
                ModelCardName=name,
                Content=content,
                ModelCardStatus=status,
                SecurityConfig={"KmsKeyId": key},
                Tags=[{"Key": tag, "Value": value} for tag, value in tags.items()],
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

    def delete(self, name: str) -> None:
        """Where there is one."""
        with suppress(self.client.exceptions.ResourceNotFound):
            self.client.delete_model_card(ModelCardName=name)
