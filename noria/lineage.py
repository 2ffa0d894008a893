"""What SageMaker's lineage should hold of a model, as the ledger tells it and SageMaker itself cannot.

    dataset ─┐
    dataset ─┴ set of datasets ─┐
    code ───────────────────────┴ training ─ package ─ deployment
    set of datasets before ─ …      approval ─┘

SageMaker makes by itself what it knows: jobs, images, S3 prefixes, package groups, packages, endpoints. It does not
know which datasets a prefix held, who approved and why, or what a change of an endpoint was for. An account has room
for 3,000 actions and 6,000 artifacts and associations, so each training adds the datasets that are new in it, and the
set before, and not all that it read.
https://docs.aws.amazon.com/sagemaker/latest/dg/lineage-tracking-manual-creation.html
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from noria.deployment import Desired
from noria.ledger import Entry, Kind
from noria.names import Names, key, version
from noria.training import REQUEST

Edge = Literal["ContributedTo", "AssociatedWith", "DerivedFrom", "Produced"]

LONGEST = 256
"""Characters of a property that are kept: of a reason, its beginning. The ledger has the whole."""

_NAMED_KINDS = {
    Kind.TRAINING_SUCCEEDED: "training",
    Kind.PACKAGE_APPROVED: "approval",
    Kind.DEPLOYED: "deployment",
}


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Artifact(Part):
    """Something that is read or made. SageMaker knows one for each `uri`."""

    uri: str
    type: Literal["DataSet", "Code", "Model"]
    properties: dict[str, str] = Field(default_factory=dict)


class Association(Part):
    """`downwards`: from the action to the artifact; else from the artifact to it, or to `of` where that is given."""

    artifact: Artifact
    edge: Edge
    downwards: bool = False
    of: Artifact | None = None


class Action(Part):
    """Something that was done, and what belongs to it. `name` is the same each time it is told."""

    name: str = Field(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,119}$")
    type: Literal["Training", "Approval", "Deployment"]
    uri: str
    description: str
    properties: dict[str, str]
    associations: tuple[Association, ...]


def told(entries: Sequence[Entry], *, since: datetime) -> list[Entry]:
    """Entries that are an action, oldest first."""
    return [entry for entry in entries if entry.kind in _NAMED_KINDS and entry.at >= since]


def action(entry: Entry, entries: Sequence[Entry], *, names: Names, bucket: str, code: str | None) -> Action:
    """The action that an entry of `told` is. `entries` are the model's, `code` the hash of what trained the package."""
    match entry.kind:
        case Kind.TRAINING_SUCCEEDED:
            return _training(entry, entries, names, bucket, code)
        case Kind.PACKAGE_APPROVED:
            return _approval(entry, names)
        case Kind.DEPLOYED:
            return _deployment(entry, names)
    raise ValueError(f"an entry of kind {entry.kind} is no action")


def name_of(entry: Entry, names: Names) -> str:
    """The name of an entry's action. The ledger has one entry of a kind and subject, so it is this entry's alone."""
    identity = hashlib.sha256(entry.subject.encode()).hexdigest()[:16]
    return f"{names.model(entry.model)}-{_NAMED_KINDS[entry.kind]}-{identity}"


def _training(entry: Entry, entries: Sequence[Entry], names: Names, bucket: str, code: str | None) -> Action:
    started = [e for e in entries if e.kind is Kind.TRAINING_STARTED]
    mine = next((e for e in started if e.details["execution"] == entry.subject), None)
    package = str(entry.details["package"])
    associations = [Association(artifact=_package(package), edge="Produced", downwards=True)]
    if code:
        artifact = Artifact(uri=f"sha256:{code}", type="Code", properties={"sha256": code})
        associations.append(Association(artifact=artifact, edge="ContributedTo"))
    if mine:
        before = next((e for e in reversed(started) if e.number < mine.number), None)
        associations += _learnt(mine, before, entries, bucket)
    return Action(
        name=name_of(entry, names),
        type="Training",
        uri=entry.subject,
        description=_text(entry.summary),
        properties=_properties(entry, mine.details if mine else {}, "cause", "hours", "metric", "value"),
        associations=tuple(associations),
    )


def _learnt(started: Entry, before: Entry | None, entries: Sequence[Entry], bucket: str) -> Iterator[Association]:
    """The set of a training's datasets, those that are new in it, and the set before."""
    accepted = {entry.subject: entry for entry in entries if entry.kind is Kind.DATASET_ACCEPTED}
    whole = _set(started, bucket)
    yield Association(artifact=whole, edge="ContributedTo")
    old = _hashes(before) if before else []
    for sha256 in _hashes(started):
        if sha256 not in old and sha256 in accepted:
            yield Association(artifact=_dataset(accepted[sha256], bucket), edge="ContributedTo", of=whole)
    if before and set(old) & set(_hashes(started)):
        yield Association(artifact=_set(before, bucket), edge="DerivedFrom", of=whole)


def _set(started: Entry, bucket: str) -> Artifact:
    request = key(started.model, "trainings", f"{started.subject}/{REQUEST}")
    properties = {"sha256": str(started.details["dataset"]), "datasets": str(len(_hashes(started)))}
    return Artifact(uri=f"s3://{bucket}/{request}", type="DataSet", properties=properties)


def _dataset(accepted: Entry, bucket: str) -> Artifact:
    told = {
        name: accepted.details.get(name)
        for name in ("rows", "key", "version", "uploaded_by", "first_event", "last_event")
    }
    suffix = str(accepted.details["key"]).rpartition(".")[2]
    data = key(accepted.model, "datasets", f"{accepted.subject}/data.{suffix}")
    properties = {"sha256": accepted.subject} | {n: _text(str(value)) for n, value in told.items() if value is not None}
    return Artifact(uri=f"s3://{bucket}/{data}", type="DataSet", properties=properties)


def _approval(entry: Entry, names: Names) -> Action:
    package = str(entry.details["package"])
    return Action(
        name=name_of(entry, names),
        type="Approval",
        uri=package,
        description=_text(entry.summary),
        properties=_properties(entry, entry.details, "by", "approver", "reason", "rule"),
        associations=(Association(artifact=_package(package), edge="AssociatedWith", downwards=True),),
    )


def _deployment(entry: Entry, names: Names) -> Action:
    desired = Desired.of(entry.details)
    packages = [package for package in (desired.package, desired.challenger, desired.shadow) if package]
    return Action(
        name=name_of(entry, names),
        type="Deployment",
        uri=f"noria:deployment:{entry.subject}",
        description=_text(entry.summary),
        properties=_properties(entry, entry.details, "cause", "reason", "config", "percent"),
        associations=tuple(Association(artifact=_package(package), edge="ContributedTo") for package in packages),
    )


def _package(arn: str) -> Artifact:
    """SageMaker has made one already, with this URI."""
    return Artifact(uri=arn, type="Model", properties={"version": version(arn)})


def _hashes(started: Entry) -> list[str]:
    found = started.details.get("datasets")
    return found if isinstance(found, list) else []


def _properties(entry: Entry, details: Mapping[str, object], *names: str) -> dict[str, str]:
    told = {
        name: _text(str(value)) for name in names if (value := details.get(name, entry.details.get(name))) is not None
    }
    return told | {"ledger": f"{entry.model} {entry.number}", "at": entry.at.isoformat()}


def _text(said: str) -> str:
    return re.sub(r"\s+", " ", said).strip()[:LONGEST]
