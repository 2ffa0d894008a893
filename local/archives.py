"""AWS::Events::Archive: MiniStack keeps archives, but its CloudFormation doesn't know the type."""

import json
from typing import Any

from local.ministack import Change, Resource
from local.sagemaker.cloud import Cloud


class ArchiveType:
    """Ref gives the archive's name, `Fn::GetAtt` its Arn."""

    type = "AWS::Events::Archive"
    name_property = "ArchiveName"
    create_only = frozenset({"ArchiveName", "SourceArn"})

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def create(self, change: Change) -> Resource:
        name = change.properties.get("ArchiveName", change.generated_name)
        answer = self._events.create_archive(
            ArchiveName=name, EventSourceArn=change.properties["SourceArn"], **self._kept(change)
        )
        return Resource(name, {"Arn": answer["ArchiveArn"]})

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource:  # noqa: A002
        answer = self._events.update_archive(ArchiveName=id, **self._kept(change))
        return Resource(id, {"Arn": answer["ArchiveArn"]})

    def delete(self, id: str, change: Change) -> None:  # noqa: A002
        self._events.delete_archive(ArchiveName=id)

    @property
    def _events(self) -> Any:
        return self._cloud.client("events")

    @staticmethod
    def _kept(change: Change) -> dict[str, Any]:
        """What is kept, and how long."""
        kept: dict[str, Any] = {"RetentionDays": int(change.properties.get("RetentionDays", 0))}
        if "EventPattern" in change.properties:
            kept["EventPattern"] = json.dumps(change.properties["EventPattern"])
        return kept
