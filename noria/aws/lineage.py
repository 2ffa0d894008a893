"""SageMaker's lineage follows the ledger: what it lacks of a model is written, once each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import ClientError

from noria.aws.registry import Registry
from noria.ledger import Entry
from noria.lineage import Action, Artifact, action, name_of, told
from noria.names import Names

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient


class Outcome(StrEnum):
    WRITTEN = "LineageWritten"
    KNOWN = "LineageKnown"
    FULL = "LineageFull"  # the account has no room for more entities: the ledger tells what is left out


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Writes actions with their artifacts and associations.

    An action is `Completed` when all that belongs to it is there: who dies before that leaves it to the next.
    """

    names: Names
    bucket: str
    registry: Registry = field(default_factory=Registry)
    client: "SageMakerClient" = field(default_factory=lambda: boto3.client("sagemaker"), repr=False)
    _known: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def follow(self, entries: Sequence[Entry], *, since: datetime) -> Outcome:
        """Write what a model's ledger tells since a time and SageMaker does not know yet."""
        outcome = Outcome.KNOWN
        for entry in told(entries, since=since):
            name = name_of(entry, self.names)
            if name in self._known:
                continue
            if (status := self._status(name)) != "Completed":
                package = self.registry.find(self.names.model(entry.model), str(entry.details["package"]))
                code = package.metadata.get("noria:code") if package else None
                of_entry = action(entry, entries, names=self.names, bucket=self.bucket, code=code)
                try:
                    self._write(of_entry, began=status is not None)
                except ClientError as error:
                    if error.response["Error"]["Code"] != "ResourceLimitExceeded":
                        raise
                    return Outcome.FULL
                outcome = Outcome.WRITTEN
            self._known.add(name)
        return outcome

    def _write(self, action: Action, *, began: bool) -> None:
        if not began:
            self.client.create_action(
                ActionName=action.name,
                Source={"SourceUri": action.uri},
                ActionType=action.type,
                Description=action.description,
                Status="InProgress",
                Properties=action.properties,
            )
        own = self.client.describe_action(ActionName=action.name)["ActionArn"]
        for association in action.associations:
            artifact = self._artifact(association.artifact)
            other = self._artifact(association.of) if association.of else own
            source, destination = (other, artifact) if association.downwards else (artifact, other)
            there = self.client.list_associations(SourceArn=source, DestinationArn=destination)
            if not there["AssociationSummaries"]:
                self.client.add_association(
                    SourceArn=source, DestinationArn=destination, AssociationType=association.edge
                )
        self.client.update_action(ActionName=action.name, Status="Completed")

    def _status(self, name: str) -> str | None:
        try:
            return self.client.describe_action(ActionName=name).get("Status")
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFound":
                raise
            return None

    def _artifact(self, artifact: Artifact) -> str:
        """Its ARN: SageMaker's own of that URI where there is one, as of each package."""
        found = self.client.list_artifacts(SourceUri=artifact.uri)["ArtifactSummaries"]
        if found:
            return found[0]["ArtifactArn"]
        made = self.client.create_artifact(
            Source={"SourceUri": artifact.uri}, ArtifactType=artifact.type, Properties=artifact.properties
        )
        return made["ArtifactArn"]
