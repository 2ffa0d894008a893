"""The ledger's entries: what happened to a model, in order, each said once, each tied to the one before.

An entry is a fact. Its `subject` names what it is about (a dataset's hash, an execution, a package, a deployment), and
`(model, kind, subject)` is its meaning: recording it a second time changes nothing. Entries of a model are numbered
without gaps, and each carries the hash of its predecessor, so that an edit, a gap or a reorder shows.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

GENESIS = "0" * 64


class Kind(StrEnum):
    DATASET_ACCEPTED = "dataset_accepted"  # subject: dataset hash
    DATASET_QUARANTINED = "dataset_quarantined"  # subject: <object version id>
    TRAINING_STARTED = "training_started"  # subject: training token
    TRAINING_HELD = "training_held"  # subject: cause; the policy waits for an alarm
    TRAINING_SUCCEEDED = "training_succeeded"  # subject: execution arn
    TRAINING_FAILED = "training_failed"  # subject: execution arn
    PACKAGE_APPROVED = "package_approved"  # subject: package arn # decision time
    PACKAGE_REJECTED = "package_rejected"
    DEPLOYMENT_REQUESTED = "deployment_requested"  # subject: deployment id
    DEPLOYMENT_WAITING = "deployment_waiting"  # subject: deployment id
    DEPLOYMENT_REFUSED = "deployment_refused"  # subject: the decision
    DEPLOYED = "deployed"  # subject: deployment id
    ROLLED_BACK = "rolled_back"  # subject: deployment id
    DEPLOYMENT_FAILED = "deployment_failed"  # subject: deployment id
    DEPLOYMENT_SUPERSEDED = "deployment_superseded"
    CHALLENGER_ROLLED_BACK = "challenger_rolled_back"  # subject: package arn; an alarm of its own spoke against it
    PROBED = "probed"  # subject: endpoint config # variant
    SERVING_RESTORED = "serving_restored"  # subject: what is live # the stack's last change
    SERVING_DIFFERS = "serving_differs"  # subject: live config # the stack's last change
    MONITORED = "monitored"  # subject: window
    EXPERIMENT_JUDGED = "experiment_judged"  # subject: rival # champion # start # end of what was looked at
    LABELS_JOINED = "labels_joined"  # subject: labels object version, or tick, that joined all that waited
    LABELS_REFUSED = "labels_refused"  # subject: labels object version
    BATCH_STARTED = "batch_started"  # subject: batch token
    BATCH_REFUSED = "batch_refused"  # subject: batch token
    BATCH_PREDICTED = "batch_predicted"  # subject: batch token
    BATCH_FAILED = "batch_failed"  # subject: batch token
    RETRAINING_REQUESTED = "retraining_requested"  # subject: alarm transition
    RETRAINING_DECLINED = "retraining_declined"  # subject: alarm transition
    FLAGS_CHANGED = "flags_changed"  # subject: set or rollback # deployment of flags
    REPLAYED = "replayed"  # subject: what reconcile said again


class Fact(BaseModel):
    """Something to record: not yet numbered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    kind: Kind
    subject: str = Field(min_length=1, max_length=900)
    at: AwareDatetime
    summary: str = Field(description="one sentence for a person")
    details: dict[str, str | int | float | bool | list[str] | None] = Field(default_factory=dict)

    @property
    def meaning(self) -> str:
        return f"{self.kind}#{self.subject}"


class Entry(Fact):
    """A fact in its place in the chain."""

    number: int = Field(ge=1)
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def hash(self) -> str:
        """SHA-256 of the entry's canonical JSON, predecessor's hash included."""
        body = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(body.encode()).hexdigest()

    @classmethod
    def after(cls, fact: Fact, *, number: int, previous: str) -> Self:
        return cls(**fact.model_dump(), number=number, previous=previous)


def verify(entries: Sequence[Entry]) -> list[str]:
    """Every break of a model's chain, oldest entry first in `entries`; an empty list means that it holds."""
    problems = []
    number, previous = 1, GENESIS
    for entry in entries:
        if entry.number != number:
            problems.append(f"{entry.model}: entry {number} is missing: found {entry.number}")
        elif entry.previous != previous:
            problems.append(f"{entry.model}: entry {entry.number} does not follow from entry {entry.number - 1}")
        number, previous = entry.number + 1, entry.hash
    return problems


def latest(entries: Sequence[Entry], *kinds: Kind) -> Entry | None:
    """The newest of `kinds`; `entries` are oldest first."""
    return next((entry for entry in reversed(entries) if entry.kind in kinds), None)


def since(entries: Sequence[Entry], start: datetime, *kinds: Kind) -> list[Entry]:
    return [entry for entry in entries if entry.kind in kinds and entry.at >= start]
