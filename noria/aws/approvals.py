"""Packages as the rules of approval see them: what the registry says, and what lies where their model data should."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from noria.approval import Candidate, content, word
from noria.aws.registry import Package, Registry
from noria.aws.storage import Storage
from noria.ledger import Entry
from noria.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Approvals:
    """Calls sagemaker:DescribeModelPackage, and s3:GetObject and s3:ListBucket of model data."""

    registry: Registry
    storage: Storage

    def candidate(self, package: Package) -> Candidate:
        lies = {url: self.storage.head(key) for url, key in self._model_data(package.described)}
        etags = {url: head.etag if head else "nothing" for url, head in lies.items()}
        return candidate(package, etags, max((head.modified for head in lies.values() if head), default=None))

    def word(self, spec: ModelSpec, group: str, entries: Sequence[Entry], package: str, now: datetime) -> str | None:
        """What the registry's word on a package of that group is worth; None where it has no such package."""
        found = self.registry.find(group, package)
        return word(spec, entries, self.candidate(found), now) if found else None

    def _model_data(self, described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """URL and key of each model file in the data bucket; of others the package's own word has to do."""
        for container in described.get("InferenceSpecification", {}).get("Containers", []):
            url = str(container.get("ModelDataUrl", ""))
            if url.startswith(self.storage.uri("")):
                yield url, self.storage.key_of(url)


def candidate(
    package: Package, etags: Mapping[str, str] | None = None, data_modified: datetime | None = None
) -> Candidate:
    """A package by what the registry says; with `etags` of its model data, also what an approval of it is of."""
    return Candidate(
        package=package.arn,
        approval=package.approval,
        created=package.created,
        content=None if etags is None else content(package.described, etags),
        data_modified=data_modified,
        registered_by=package.described.get("CreatedBy", {}).get("IamIdentity", {}).get("Arn"),
    )
