"""Everything known of one package: what cards, comparisons and traces are made from.

package ─ training.json, spec.json, evaluation.json, baseline.json, attribution.json, golden.json   what it is
        ─ request.json ─ datasets ─ manifest.json, report.json                                      what it learnt from
        ─ ledger                                                                                    what happened to it

A part is None where it is not known, as of a package that somebody registered by hand; `unknown` says why.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from noria import contract
from noria.deployment import is_off, rollback_of
from noria.evaluation import Evaluation, Training
from noria.explain import Attribution
from noria.golden import Golden
from noria.ledger import Entry, Kind
from noria.profile import Profile
from noria.spec import ModelSpec
from noria.training import TrainingDataset, TrainingRequest

_ROLES = ("package", "challenger", "shadow", "blamed")
"""Where entries of the ledger name the packages that they are about."""

_LIVE = (
    Kind.DEPLOYMENT_REQUESTED,
    Kind.DEPLOYMENT_WAITING,
    Kind.DEPLOYMENT_REFUSED,
    Kind.DEPLOYED,
    Kind.DEPLOYMENT_FAILED,
    Kind.DEPLOYMENT_SUPERSEDED,
    Kind.ROLLED_BACK,
    Kind.CHALLENGER_ROLLED_BACK,
    Kind.SERVING_RESTORED,
    Kind.SERVING_DIFFERS,
    Kind.MODEL_RETIRED,
)

Standing = Literal["live", "approved", "pending", "rejected", "rolled back", "retired"]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Registered(Part):
    """A package as the registry has it. `author` and `decided_by` are ARNs, or names of Studio's users."""

    arn: str
    model: str
    version: int
    created: datetime
    author: str | None = None
    approval: str
    decided: datetime
    decided_by: str | None = None
    reason: str = ""
    image: str | None = None
    model_data: str | None = Field(None, description="S3 URI of model.tar.gz")
    bytes: int | None = Field(None, description="size of model.tar.gz")
    metadata: dict[str, str] = Field(default_factory=dict)


class Dataset(Part):
    """One of the files that it was trained on: as the training was told of it, as it was accepted, and by whom sent."""

    told: TrainingDataset
    manifest: contract.Manifest | None = None
    report: contract.Report | None = None
    accepted: Entry | None = None

    @property
    def uploaded_by(self) -> str | None:
        by = self.accepted.details.get("uploaded_by") if self.accepted else None
        return str(by) if by else None

    @property
    def version_id(self) -> str | None:
        """The version of the upload."""
        version = self.accepted.details.get("version") if self.accepted else None
        return str(version) if version else self.manifest.version_id if self.manifest else None


class Record(Part):
    """`spec` is the one that it was trained for. `entries` are those of the ledger that are about it, oldest first.

    `unknown`: by the name of each part that is None, or of a dataset that lacks its own, the reason.
    """

    package: Registered
    spec: ModelSpec | None = None
    training: Training | None = None
    request: TrainingRequest | None = None
    datasets: tuple[Dataset, ...] = ()
    evaluation: Evaluation | None = None
    baseline: Profile | None = None
    attribution: Attribution | None = None
    golden: Golden | None = None
    entries: tuple[Entry, ...] = ()
    unknown: dict[str, str] = Field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.package.model

    @property
    def execution(self) -> str | None:
        """ARN of the pipeline's execution that made it."""
        return self.package.metadata.get("noria:execution")

    @property
    def code(self) -> str | None:
        """SHA-256 of the code archive that trained it."""
        return self.package.metadata.get("noria:code")

    @property
    def dataset_hash(self) -> str | None:
        return self.package.metadata.get("noria:dataset")

    @property
    def champion(self) -> str | None:
        """The package that it was measured against."""
        named = self.package.metadata.get("noria:champion", "none")
        return None if named == "none" else named

    @property
    def registered(self) -> Entry | None:
        """The training's end, with the hours that it took."""
        return next((entry for entry in self.entries if entry.kind is Kind.TRAINING_SUCCEEDED), None)

    @property
    def decisions(self) -> tuple[Entry, ...]:
        """Every word on whether it may go live, oldest first."""
        return tuple(e for e in self.entries if e.kind.startswith(("package_", "approval_")))

    @property
    def deployments(self) -> tuple[Entry, ...]:
        """What became of it before people: asked for, live, beside the champion, taken back."""
        return tuple(entry for entry in self.entries if entry.kind in _LIVE)

    @property
    def live_since(self) -> datetime | None:
        """When it last became the champion; None where it is not the champion, as far as its own entries tell."""
        found = None
        for entry in self.entries:
            if entry.kind is Kind.DEPLOYED and not is_off(entry):
                found = (found or entry.at) if self._crowned(entry) else None
            elif entry.kind is Kind.MODEL_RETIRED:
                found = None
        return found

    def _crowned(self, entry: Entry) -> bool:
        """Whether this entry says that it became the champion."""
        return entry.kind is Kind.DEPLOYED and entry.details.get("package") == self.package.arn

    @property
    def standing(self) -> Standing:
        """Where it stands: what answers is live, whatever was said of it; else an alarm's word goes before people's."""
        if self.live_since:
            return "live"
        ends = [e for e in self.entries if e.kind is Kind.MODEL_RETIRED or self._crowned(e)]
        if ends and ends[-1].kind is Kind.MODEL_RETIRED:
            return "retired"
        if rollback_of(self.entries, self.package.arn):
            return "rolled back"
        return _STANDINGS.get(self.package.approval, "pending")


_STANDINGS: dict[str, Standing] = {"Approved": "approved", "Rejected": "rejected"}


def about(entries: Sequence[Entry], package: str, request: TrainingRequest | None = None) -> tuple[Entry, ...]:
    """Entries about this package, its training and its datasets; and the deployments that replaced it."""
    made = {request.token, request.cause.identity, *(d.sha256 for d in request.datasets)} if request else set()
    chosen, before = [], None
    for entry in entries:
        names = {entry.details.get(role) for role in _ROLES} | {entry.subject.partition("#")[0]}
        replaces = entry.kind is Kind.DEPLOYED and before == package
        if package in names or entry.subject in made or replaces:
            chosen.append(entry)
        if entry.kind is Kind.DEPLOYED and not is_off(entry):
            before = entry.details.get("package")
    return tuple(chosen)
