"""Who may let a version go live: what an approval is of, whether it holds, and in which state a version is.

    draft ─ pending ─┬─ approved ─ live ─ retired
                     ├─ rejected
                     └─ expired

| the spec's rule                 | who approves                                                                      |
|---------------------------------|-----------------------------------------------------------------------------------|
| mode open                       | who may change a package in the registry, alone                                   |
| mode strict, `approvers: N`     | N people, none of them its author, each with a reason, through approve_package;   |
|                                 | one more where its author is not known as a person                                |
| `automatic_below` above `risk`  | its gates                                                                         |

An approval is of a package's content. It is void once that is another, and in mode strict where it came another way.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self

from pydantic import BaseModel

from noria.deployment import Cause, kept, requests, rollback_of
from noria.ledger import Entry, Fact, Kind, latest
from noria.names import version
from noria.page import Matter, Page
from noria.spec import Approval, ModelSpec
from noria.training import training_token
from noria.units import format_duration

APPROVED: Final = "Approved"
REJECTED: Final = "Rejected"
PENDING: Final = "PendingManualApproval"


ASKED_AGAIN: Final = "asked again"
"""Why approve_package itself takes an approval back that another hand gave, right before it gives its own."""

AUTOMATIC = "automatic"
"""The approver where the rule asks nobody."""

DECIDED: Final = frozenset({Kind.PACKAGE_APPROVED, Kind.PACKAGE_REJECTED, Kind.APPROVAL_VOIDED})
"""What uses up the approvals that were given before it."""

TAKEN_BACK: Final = frozenset({Kind.PACKAGE_REJECTED, Kind.APPROVAL_VOIDED})
"""What ends them for deploy_model: one decision may be told twice, under two times, or after a later one."""

REGISTERED = tuple(
    f"noria:{name}"
    for name in (
        "attribution",
        "baseline",
        "champion",
        "code",
        "dataset",
        "evaluation",
        "execution",
        "golden",
        "training",
    )
)
"""Metadata that the pipeline registers a package with. What is set later, as its outcome, is no part of the content."""


class State(StrEnum):
    """Where a version is on its way."""

    DRAFT = "draft"  # registered, and nobody was asked yet
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    LIVE = "live"
    RETIRED = "retired"  # it answered once, and does no more


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A package as the registry has it now. `content` is None to those who may not look at its model data.

    `data_modified` is when the newest of its model files was put where it lies now, to the second.
    """

    package: str
    approval: str
    created: datetime
    content: str | None = None
    data_modified: datetime | None = None
    registered_by: str | None = None


def content(described: Mapping[str, Any], etags: Mapping[str, str] | None = None) -> str:
    """SHA-256 of what decides what a package serves: its containers, and the metadata that it was registered with.

    `described` is the answer of DescribeModelPackage; `etags` are those of its model data as it lies in S3 now, by URL.
    """
    containers = described.get("InferenceSpecification", {}).get("Containers", [])
    metadata = described.get("CustomerMetadataProperties", {})
    parts = {
        "package": described["ModelPackageArn"],
        "containers": containers,
        "metadata": {key: metadata[key] for key in REGISTERED if key in metadata},
        "etags": dict(etags or {}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- people

_SESSION = re.compile(r"arn:(?P<partition>[\w-]+):sts::(?P<account>\d{12}):assumed-role/(?P<role>[^/]+)/(?P<name>.+)")
_IDENTITY_CENTER = "AWSReservedSSO_"


def person(principal: str) -> str:
    """Who stands behind a principal's ARN: two that are equal count as one person.

    The name of a role's session is whatever its caller chose, so that a role counts as one person; of the roles of IAM
    Identity Center, which names sessions after the user itself, each session's name is a person of that account.
    """
    session = _SESSION.fullmatch(principal)
    if session is None:
        return principal
    if session["role"].startswith(_IDENTITY_CENTER):
        return f"{session['account']}/{session['name']}"
    return f"arn:{session['partition']}:iam::{session['account']}:role/{session['role']}"


def authors(entries: Sequence[Entry], candidate: Candidate) -> frozenset[str]:
    """Everybody who is known to have made a package: asked for its training, uploaded its data, or registered it."""
    known = {candidate.registered_by, *_told_authors(entries, candidate.package)}
    return frozenset(person(who) for who in known if who)


def _told_authors(entries: Sequence[Entry], package: str) -> Iterator[str]:
    trained = {e.subject for e in entries if e.kind is Kind.TRAINING_SUCCEEDED and e.details.get("package") == package}
    before: list[Entry] = []
    for entry in entries:
        if entry.kind is Kind.TRAINING_STARTED and entry.details.get("execution") in trained:
            hashes = entry.details.get("datasets")
            uploads = set(hashes) if isinstance(hashes, list) else set()
            yield from (
                str(told.details["uploaded_by"])
                for told in before
                if told.kind is Kind.DATASET_ACCEPTED and told.subject in uploads and told.details.get("uploaded_by")
            )
            yield from (
                str(grant.details["by"])
                for grant in before
                if grant.kind is Kind.RETRAINING_REQUESTED
                and grant.details.get("by")
                and training_token(grant.model, grant.subject) == entry.subject
            )
        before.append(entry)


def author_unknown(entries: Sequence[Entry], candidate: Candidate) -> str | None:
    """Why not everybody who made a package is known as a person; None where everybody is.

    S3's event tells of who sent a file the account alone (S3 guide, `ev-events`: `requester`), and a copy of another
    account's package was made by people there.
    """
    package = candidate.package
    origin = next((e for e in entries if e.kind is Kind.PACKAGE_IMPORTED and e.details.get("package") == package), None)
    if origin:
        return f"it is a copy of a version of account {origin.details.get('account')}"
    learnt_from = _datasets(entries, package)
    if learnt_from is None:
        return None if candidate.registered_by else "neither ledger nor registry name anybody"
    senders = {e.subject: str(e.details.get("uploaded_by") or "") for e in entries if e.kind is Kind.DATASET_ACCEPTED}
    for dataset in learnt_from:
        sender = senders.get(dataset, "")
        if not sender.startswith("arn:"):
            return f"who sent dataset {dataset[:12]} is known as {f'account {sender}' if sender else 'nobody'} alone"
    return None


def _datasets(entries: Sequence[Entry], package: str) -> list[str] | None:
    """What a package was trained on; None where the ledger knows nothing of its training."""
    trained = {e.subject for e in entries if e.kind is Kind.TRAINING_SUCCEEDED and e.details.get("package") == package}
    started = [e for e in entries if e.kind is Kind.TRAINING_STARTED and e.details.get("execution") in trained]
    if not started:
        return None
    return [str(each) for entry in started if isinstance(told := entry.details.get("datasets"), list) for each in told]


# --- the rule


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """Whether enough people have approved, by which rule. `because` says what is missing, or why it cannot be."""

    approved: bool
    approvers: tuple[str, ...]
    rule: str
    because: str


def rule(approval: Approval) -> str:
    """The rule in words."""
    if approval.automatic:
        return f"automatic: risk {approval.risk.value} is below {approval.automatic_below}"
    if not approval.strict:
        return "open: whoever may change the package"
    people = "1 person" if approval.approvers == 1 else f"{approval.approvers} people"
    return f"{people}{' who did not make it' if approval.independent else ''}"


def decisions(entries: Sequence[Entry], package: str) -> list[Entry]:
    """What was decided about a package, oldest first."""
    return [entry for entry in entries if entry.kind in DECIDED and entry.details.get("package") == package]


def decided_at(entry: Entry) -> datetime:
    """When a package was approved or rejected: its entry's subject says it (`noria.decisions.Decided.name`)."""
    return datetime.fromisoformat(entry.subject.rpartition("#")[2])


def heard_of(entries: Sequence[Entry], package: str, approval: str) -> bool:
    """Whether the ledger knows the registry's word on a package; that it waits is no word unless it was approved."""
    last = latest(decisions(entries, package), *DECIDED)
    if approval == PENDING:
        return last is None or last.kind is not Kind.PACKAGE_APPROVED
    said = Kind.PACKAGE_APPROVED if approval == APPROVED else Kind.PACKAGE_REJECTED
    return last is not None and last.kind is said


def given(entries: Sequence[Entry], package: str, ended_by: frozenset[Kind] = DECIDED) -> list[Entry]:
    """Approvals since it was decided last: each leads to one decision, and one that was taken back needs new ones."""
    since = max((entry.number for entry in decisions(entries, package) if entry.kind in ended_by), default=0)
    words = [entry for entry in entries if entry.kind is Kind.APPROVAL_GIVEN and entry.number > since]
    return [entry for entry in words if entry.details.get("package") == package]


def judge(
    spec: ModelSpec, entries: Sequence[Entry], candidate: Candidate, ended_by: frozenset[Kind] = DECIDED
) -> Ruling:
    """Whether the approvals that were given let a package go live by the rule of mode strict, or by itself."""
    approval, made_by = spec.approval, authors(entries, candidate)
    people: dict[str, str] = {}
    other = 0
    for word in given(entries, candidate.package, ended_by):
        approver = str(word.details["approver"])
        if candidate.content is not None and word.details.get("content") != candidate.content:
            other += 1
        elif approver == AUTOMATIC:
            if approval.automatic:
                return Ruling(approved=True, approvers=(AUTOMATIC,), rule=rule(approval), because="its gates approved")
        elif not (approval.independent and person(approver) in made_by):
            people.setdefault(person(approver), approver)
    unknown = author_unknown(entries, candidate) if approval.independent else None
    # Whoever the author is, so many of them are somebody else.
    needed = approval.approvers + (unknown is not None)
    so_far = f"{len(people)} of {needed} approved"
    one_more = f"; one more than approval.approvers, because its author is not known: {unknown}" if unknown else ""
    stale = f"; {other} approved another content" if other else ""
    return Ruling(
        approved=len(people) >= needed,
        approvers=tuple(people.values()),
        rule=f"{rule(approval)}, and one more, as its author is not known" if unknown else rule(approval),
        because=f"{so_far}{one_more}{stale}",
    )


def author(entries: Sequence[Entry], candidate: Candidate) -> str:
    """Who made a package, as far as the record tells, for the record of its approval."""
    known = ", ".join(sorted(authors(entries, candidate)))
    unknown = author_unknown(entries, candidate)
    if unknown is None:
        return known or "nobody: the schedule trained it"
    return f"not known: {unknown}" + (f"; known are {known}" if known else "")


class Refusal(Exception):
    """An approval that cannot be given; the message says why and what can be done."""


class Answer(BaseModel):
    """What came of an approval that was given."""

    package: str
    approved: bool
    approvers: tuple[str, ...]
    rule: str
    because: str

    @classmethod
    def of(cls, package: str, ruling: Ruling) -> Self:
        return cls(
            package=package,
            approved=ruling.approved,
            approvers=ruling.approvers,
            rule=ruling.rule,
            because=ruling.because,
        )


def approve(
    spec: ModelSpec, entries: Sequence[Entry], candidate: Candidate, *, by: str, reason: str, now: datetime
) -> Iterator[Fact]:
    """The approval as a fact, unless that person has approved this content already. Raises `Refusal`."""
    approval, package = spec.approval, candidate.package
    if not (approval.strict or approval.automatic):
        raise Refusal(f"{spec.model} is in mode open: approve the package in the registry (noria approve does)")
    if by != AUTOMATIC and not approval.strict:
        raise Refusal(f"{spec.model} approves its versions by itself, {rule(approval)}; in the registry you may too")
    decided = decisions(entries, package)
    if by == AUTOMATIC and (decided or candidate.approval != PENDING):
        raise Refusal(f"{version(package)} was decided before: what comes after that is for people")
    if by == AUTOMATIC and _retired(entries):
        raise Refusal(f"{spec.model} is retired: a person brings it back (noria approve or noria rollback)")
    if late := expired(spec, entries, candidate, now):
        raise Refusal(f"{version(package)} cannot be approved: {late}")
    if other := replaced(entries, candidate):
        raise Refusal(f"{version(package)} cannot be approved: {other}; train a new version")
    if before := rollback_of(entries, package):
        raise Refusal(f"{version(package)} was rolled back before: {before.summary}")
    if approval.independent and person(by) in authors(entries, candidate):
        raise Refusal(f"you made {version(package)}, as {person(by)}: somebody else has to approve it")
    words = [word for word in given(entries, package) if word.details.get("content") == candidate.content]
    if any(person(str(word.details["approver"])) == person(by) for word in words):
        return
    who = "Its gates" if by == AUTOMATIC else by
    yield Fact(
        model=spec.model,
        kind=Kind.APPROVAL_GIVEN,
        subject=f"{package}#{by}#{candidate.content}" + f"#{len(decided)}" * bool(decided),
        at=now,
        summary=f"{who} approved {version(package)}: {reason.rstrip('.')}.",
        details={
            "package": package,
            "approver": by,
            "reason": reason,
            "rule": rule(approval),
            "content": candidate.content,
            "author": author(entries, candidate),
        },
    )


def _retired(entries: Sequence[Entry]) -> bool:
    asked = requests(entries)
    return bool(asked) and asked[-1].cause is Cause.RETIRED


def expiry(spec: ModelSpec, entries: Sequence[Entry], candidate: Candidate) -> datetime | None:
    """When a package that waits expires; None where it never does, or was approved before."""
    decided = any(e.kind is Kind.PACKAGE_APPROVED and e.details.get("package") == candidate.package for e in entries)
    return None if spec.approval.within is None or decided else candidate.created + spec.approval.within


def expired(spec: ModelSpec, entries: Sequence[Entry], candidate: Candidate, at: datetime) -> str | None:
    """Why a package may not be approved at that time any more: it waited too long."""
    until, within = expiry(spec, entries, candidate), spec.approval.within
    if until is None or within is None or at <= until:
        return None
    return (
        f"it waited for longer than approval.within {format_duration(within)}, and expired at "
        f"{until:%Y-%m-%d %H:%M} UTC: train a new version, which is compared with what is live now"
    )


def changed(entries: Sequence[Entry], candidate: Candidate) -> str | None:
    """Why what the package serves now is not what was approved last; None where it is, or none ever was."""
    words = [entry for entry in entries if entry.details.get("package") == candidate.package]
    word = latest(words, Kind.PACKAGE_APPROVED)
    approved = word.details.get("content") if word else None
    if not approved or candidate.content is None or approved == candidate.content:
        return None
    return f"it was changed: its content is {candidate.content[:12]}, and {str(approved)[:12]} was approved"


def stands(entries: Sequence[Entry], package: str, at: datetime) -> bool:
    """Whether there was an approval, or a part of one, that somebody could take back at that time."""
    words = [entry for entry in entries if entry.details.get("package") == package]
    last = latest(words, Kind.APPROVAL_GIVEN, *DECIDED)
    if last is None or last.kind in TAKEN_BACK:
        return False
    given_at = decided_at(last) if last.kind is Kind.PACKAGE_APPROVED else last.at
    return given_at.replace(microsecond=0) <= at


def replaced(entries: Sequence[Entry], candidate: Candidate) -> str | None:
    """Why its gates say nothing of what a package serves: another file lies there, which was never approved."""
    moment = candidate.data_modified
    if moment is None or moment <= candidate.created:
        return None
    known = {"package": candidate.package, "content": candidate.content}
    words = (e for e in entries if e.kind in {Kind.APPROVAL_GIVEN, Kind.PACKAGE_APPROVED})
    if any(known.items() <= entry.details.items() for entry in words):
        return None
    return f"its model file was replaced at {moment:%Y-%m-%d %H:%M:%S} UTC, after it was registered"


def void(spec: ModelSpec, entries: Sequence[Entry], candidate: Candidate, at: datetime) -> str | None:
    """Why an approval that the registry shows since `at` does not count; None where it does."""
    if late := expired(spec, entries, candidate, at):
        return late
    if other := replaced(entries, candidate):
        return other
    ruling = judge(spec, entries, candidate, TAKEN_BACK)
    if spec.approval.strict and not ruling.approved:
        return f"mode strict asks for {ruling.rule}, through noria approve: {ruling.because}"
    return None


def word(spec: ModelSpec, entries: Sequence[Entry], candidate: Candidate, now: datetime) -> str:
    """What the registry's word on a package is worth: one of another content is none, and waiting has an end."""
    if candidate.approval != REJECTED and expired(spec, entries, candidate, now):
        return State.EXPIRED
    if candidate.approval != APPROVED:
        return candidate.approval
    return PENDING if unfit(spec, entries, candidate, now) else APPROVED


def unfit(spec: ModelSpec, entries: Sequence[Entry], candidate: Candidate, now: datetime) -> str | None:
    """Why nothing may be served from a package as it is now, whatever the registry says of it."""
    known = any(e.kind is Kind.PACKAGE_APPROVED and e.details.get("package") == candidate.package for e in entries)
    # What deploy_model has not heard of yet may have been approved by any hand.
    return changed(entries, candidate) if known else void(spec, entries, candidate, now)


# --- states


def state(entries: Sequence[Entry], candidate: Candidate) -> State:
    """Where a version is on its way, by registry and ledger together; that it expired is what the ledger says."""
    package = candidate.package
    said = {entry.kind for entry in entries if entry.details.get("package") == package}
    answers = kept(entries)
    if answers and package in {answers.package, answers.challenger, answers.shadow}:
        return State.LIVE
    if candidate.approval == REJECTED:
        return State.REJECTED
    if any(entry.kind is Kind.DEPLOYED and package in _placed(entry) for entry in entries):
        return State.RETIRED
    if candidate.approval == APPROVED and changed(entries, candidate) is None:
        return State.APPROVED
    if Kind.PACKAGE_EXPIRED in said:
        return State.EXPIRED
    asked = said & {Kind.TRAINING_SUCCEEDED, Kind.APPROVAL_GIVEN, Kind.APPROVAL_VOIDED}
    return State.PENDING if asked else State.DRAFT


def _placed(entry: Entry) -> set[object]:
    return {entry.details.get(role) for role in ("package", "challenger", "shadow")}


# --- what time brings


def told_by_time(
    spec: ModelSpec, entries: Sequence[Entry], candidate: Candidate, now: datetime
) -> tuple[Fact, Page] | None:
    """That a version expired, or answers and is too old, as fact and page; None where neither is so, or it is known."""
    package, model = candidate.package, spec.model
    if candidate.approval == PENDING and (why := expired(spec, entries, candidate, now)):
        kind, matter = Kind.PACKAGE_EXPIRED, Matter.PACKAGE_EXPIRED
        state, what = "expired", f"cannot be approved any more: {why}"
        do = "Nothing, if what is live is to stay. Otherwise train anew, and look at the new version in time."
    elif why := outdated(spec, entries, candidate, now):
        kind, matter = Kind.PACKAGE_OUTDATED, Matter.PACKAGE_OUTDATED
        state, what = "is too old", f"answers, and {why}"
        do = "Train a new version and approve it; or retire the model if nobody needs it (noria retire)."
    else:
        return None
    if any(entry.kind is kind and entry.subject == package for entry in entries):
        return None
    page = Page(
        matter=matter,
        subject=f"{model}: {version(package)} {state}",
        what=f"{version(package).capitalize()} of {model} {what}.",
        where=package,
        do=do,
        command=f"noria retrain {model} --reason '…'",
    )
    details: dict[str, str | int | float | bool | list[str] | None] = {"package": package, "reason": why}
    return Fact(model=model, kind=kind, subject=package, at=now, summary=page.what, details=details), page


def outdated(spec: ModelSpec, entries: Sequence[Entry], candidate: Candidate, now: datetime) -> str | None:
    """Why a version that answers is older than the spec lets it be."""
    oldest, answers = spec.approval.max_age, kept(entries)
    if oldest is None or answers is None or candidate.package not in {answers.package, answers.challenger}:
        return None
    age = now - candidate.created
    return f"it is {age.days} days old, and approval.max_age is {format_duration(oldest)}" if age > oldest else None
