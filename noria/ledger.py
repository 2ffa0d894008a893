"""The ledger's entries: what happened to a model, in order, each said once, each tied to the one before.

An entry is a fact. Its `subject` names what it is about (a dataset's hash, an execution, a package, a deployment), and
`(model, kind, subject)` is its meaning: recording it a second time changes nothing. Entries of a model are numbered
without gaps, and each carries the hash of its predecessor, so that an edit, a gap or a reorder shows. Who rewrites a
whole chain gets hashes that agree: only a copy that he cannot change, in a locked bucket, tells that one.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
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
    PACKAGE_IMPORTED = "package_imported"  # subject: package arn in the registry that it is a copy of
    PACKAGE_APPROVED = "package_approved"  # subject: package arn # decision time
    PACKAGE_REJECTED = "package_rejected"
    APPROVAL_GIVEN = "approval_given"  # subject: package arn # approver # content hash; one of as many as the rule asks
    APPROVAL_VOIDED = "approval_voided"  # subject: package arn # decision time, or # content hash that was not approved
    PACKAGE_EXPIRED = "package_expired"  # subject: package arn
    PACKAGE_OUTDATED = "package_outdated"  # subject: package arn; it answers, and is older than approval.max_age
    MODEL_RETIRED = "model_retired"  # subject: deployment id
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
    MODEL_PAUSED = "model_paused"  # subject: the wish; details say until when
    MODEL_RESUMED = "model_resumed"  # subject: the wish, or the pause whose time was up # until when it was
    EVENTS_UNHEARD = "events_unheard"  # subject: reaction without a queue # the end of the pause in which they came
    EVENT_REDRIVEN = "event_redriven"  # subject: a person's command # reaction whose dead letters were sent again
    EVENT_REPLAYED = "event_replayed"  # subject: a person's command; events of the archives were sent again


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
    """A fact in its place in the chain. `correlation` is the id of what it is an effect of, such as an upload."""

    number: int = Field(ge=1)
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")
    correlation: str | None = None

    @property
    def body(self) -> str:
        """The entry as it is written. One without a correlation says nothing of it, as before there were any."""
        return self.model_dump_json(exclude={"correlation"} if self.correlation is None else None)

    @property
    def hash(self) -> str:
        """SHA-256 of the entry's canonical JSON, predecessor's hash included."""
        return digest(self.body)

    @classmethod
    def after(cls, fact: Fact, *, number: int, previous: str, correlation: str | None = None) -> Self:
        return cls(**fact.model_dump(), number=number, previous=previous, correlation=correlation)

    def names(self, what: str) -> bool:
        """Whether it is about `what`: an execution, a package, a transform job, a deployment."""
        return self.subject == what or what in self.details.values()


def digest(body: str) -> str:
    """SHA-256 of JSON in its canonical form: keys sorted, no spaces. Raises ValueError for what is no JSON."""
    canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class Problem(StrEnum):
    """What is wrong with a ledger; each says somebody else than Noria has written, but the last."""

    EDITED = "edited"  # an entry is not what its own hash says
    MISSING = "missing"  # a number has no entry
    REORDERED = "reordered"  # an entry lies under another number than its own
    UNCHAINED = "unchained"  # an entry does not carry the hash of the one before
    CUT = "cut"  # entries are gone from the end
    HEAD = "head"  # the head names another entry than the last
    MEANING = "meaning"  # what keeps a fact from being said twice is gone, or keeps one from being said at all
    REWRITTEN = "rewritten"  # the locked copy says something else
    UNLOCKED = "unlocked"  # no locked copy: it is new, or its export failed


class Break(BaseModel):
    """Something that does not hold; `entry` is the number of the entry at which it shows."""

    model_config = ConfigDict(frozen=True)

    model: str
    entry: int
    problem: Problem
    text: str


def verify(entries: Sequence[Entry]) -> list[Break]:
    """Every break of a model's chain, oldest entry first in `entries`; an empty list means that it holds."""
    return list(chain((entry.model, entry.number, entry.previous, entry.hash) for entry in entries))


def chain(links: Iterable[tuple[str, int, str, str]]) -> Iterator[Break]:
    """Where a chain breaks; `links` are an entry's model, its number, the hash that it carries and its own."""
    number, previous = 1, GENESIS
    for model, found, carried, own in links:
        for missing in range(number, found):
            yield Break(model=model, entry=missing, problem=Problem.MISSING, text=f"entry {missing} is missing")
        if found < number:
            text = f"entry {found} comes after entry {number - 1}"
            yield Break(model=model, entry=found, problem=Problem.REORDERED, text=text)
        elif found == number and carried != previous:
            text = f"entry {found} does not follow from {f'entry {found - 1}' if found > 1 else 'nothing'}"
            yield Break(model=model, entry=found, problem=Problem.UNCHAINED, text=text)
        number, previous = found + 1, own


def latest(entries: Sequence[Entry], *kinds: Kind) -> Entry | None:
    """The newest of `kinds`; `entries` are oldest first."""
    return next((entry for entry in reversed(entries) if entry.kind in kinds), None)


def correlation_of(entries: Sequence[Entry], what: str) -> str | None:
    """The correlation of what caused an execution, a package, a job or a deployment: the first entry names it."""
    return next((entry.correlation for entry in entries if entry.names(what)), None)


def since(entries: Sequence[Entry], start: datetime, *kinds: Kind) -> list[Entry]:
    return [entry for entry in entries if entry.kind in kinds and entry.at >= start]
