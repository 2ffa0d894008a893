"""Walking the record: from one prediction back to who sent what it was learnt from, and from a file forward.

    prediction ─ variant ─ package ─ approval ─ gates ─ training ─ code ─ datasets ─ files and who sent them
    file ─ dataset ─ trainings ─ packages ─ as what and when each was live ─ predictions

Nothing is guessed. A step that is not known says why, and where two may be true both are named. Each step says what it
is known from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from noria.deployment import SETTLED, Desired
from noria.feedback import origin
from noria.ledger import Entry, Kind, latest
from noria.names import version
from noria.record import Record
from noria.units import count

Fact = str | int | float | bool | list[str] | None

REGISTRY = "model registry"


class Step(BaseModel):
    """One step of a walk. `known` is False where `what` says why nothing is known.

    `package` is whose step it is, where a walk goes through several packages.
    """

    model_config = ConfigDict(frozen=True)

    step: str
    what: str
    at: datetime | None = None
    known_from: str
    known: bool = True
    package: str | None = None
    facts: dict[str, Fact] = Field(default_factory=dict)


def unknown(step: str, why: str, *, known_from: str = "·") -> Step:
    return Step(step=step, what=f"not known: {why}", known_from=known_from, known=False)


# --- who answered, and when -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Move:
    """A change of an endpoint. Between `start` and `end` what was before and what was asked for may both answer.

    `sure` is False where another was asked for at once, and the ledger does not tell whether this one had begun.
    """

    asked: Entry
    start: datetime
    outcome: Entry | None
    sure: bool = True

    @property
    def end(self) -> datetime | None:
        return self.outcome.at if self.outcome else None

    @property
    def desired(self) -> Desired:
        return Desired.of(self.asked.details)

    def covers(self, moment: datetime) -> bool:
        return self.start <= moment and (self.end is None or moment < self.end)


@dataclass(frozen=True, kw_only=True)
class Answering:
    """Who may have answered a request as one variant: one package, several, or none that is known.

    `entries` are those of the ledger that say so; `why` it is several or none, where it is. `config` is SageMaker's
    name of the endpoint configuration, where one answer is sure and the ledger has it.
    """

    packages: tuple[str, ...]
    entries: tuple[Entry, ...] = ()
    config: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    why: str | None = None

    @property
    def text(self) -> str:
        """As `version 3`, or `either version 3 or version 4`."""
        named = [version(package) for package in self.packages]
        return f"either {' or '.join(named)}" if len(named) > 1 else named[0] if named else "nobody who is known"


def of_variant(desired: Desired, variant: str) -> str | None:
    """The package that answers as `champion`, `challenger` or `shadow`."""
    return {"champion": desired.package, "challenger": desired.challenger, "shadow": desired.shadow}.get(variant)


def moves(entries: Sequence[Entry]) -> list[Move]:
    """Every change of the endpoint that was begun, or may have been, oldest first.

    One is carried out at a time: one that was asked for meanwhile began when that ended. What was superseded while it
    waited for another, or by a word against it alone, was never begun.
    """
    outcomes = {entry.subject: entry for entry in entries if entry.kind in SETTLED}
    ends = [entry for entry in outcomes.values() if entry.kind is not Kind.DEPLOYMENT_SUPERSEDED]
    waited = {entry.subject for entry in entries if entry.kind is Kind.DEPLOYMENT_WAITING}
    found: list[Move] = []
    for entry in entries:
        if entry.kind is not Kind.DEPLOYMENT_REQUESTED:
            continue
        outcome = outcomes.get(entry.subject)
        sure = outcome is None or outcome.kind is not Kind.DEPLOYMENT_SUPERSEDED
        start = max([entry.at, *(move.end for move in found if move.end and move.sure)])
        if outcome and not sure:
            between = entries[entry.number : outcome.number - 1]
            free = entry.subject not in waited or any(end in between for end in ends)
            if not free or not any(other.kind is Kind.DEPLOYMENT_REQUESTED for other in between):
                continue
            given_up = outcome.number
            outcome = next((end for end in ends if end.number > given_up), None)
        found.append(Move(asked=entry, start=start, outcome=outcome, sure=sure))
    return found


def answering(entries: Sequence[Entry], variant: str, at: datetime) -> Answering:
    """Who answered as that variant at that time, as far as the ledger tells."""
    seen = _seen(entries)
    before = [entry for entry in seen if entry.at <= at]
    after = next((entry for entry in seen if entry.at > at), None)
    known, why = before[-1] if before else None, []
    may: dict[str, Entry] = {}
    if known and (package := of_variant(Desired.of(known.details), variant)):
        may[package] = known
    for move in moves(entries):
        package = of_variant(move.desired, variant)
        if move.covers(at) and package and package not in may:
            may[package] = move.asked
            doubt = "" if move.sure else ", if it had begun before another was asked for"
            why.append(f"{version(package)} was brought {_between(move.start, move.end)}, in steps or at once{doubt}")
    if after and after.kind is Kind.SERVING_DIFFERS:
        package = of_variant(Desired.of(after.details), variant)
        if package and package not in may:
            may[package] = after
            why.append(f"{version(package)} was found to answer at {clock(after.at)}, and nobody knows since when")
    if not may:
        why.append(f"the ledger knows of nobody who answered as {variant} at {clock(at)}")
    sure = len(may) == 1 and known is not None and known in may.values()
    config = known.details.get("config") if sure and known and known.kind is Kind.DEPLOYED else None
    return Answering(
        packages=tuple(may),
        entries=tuple(may.values()),
        config=str(config) if config else None,
        since=known.at if sure and known else None,
        until=after.at if sure and after else None,
        why="; ".join(why) or None,
    )


@dataclass(frozen=True, kw_only=True)
class Span:
    """When a package answered as a variant, alone; `shared` where it was beside another under the same name."""

    variant: str
    since: datetime
    until: datetime | None
    shared: bool
    entry: Entry


def spans(entries: Sequence[Entry], package: str) -> list[Span]:
    """When and as what a package answered, oldest first."""
    found: list[Span] = []
    seen = _seen(entries)
    for variant in ("champion", "challenger", "shadow"):
        since: Entry | None = None
        for entry in seen:
            here = of_variant(Desired.of(entry.details), variant) == package
            if here and since is None:
                since = entry
            elif not here and since is not None:
                found.append(Span(variant=variant, since=since.at, until=entry.at, shared=False, entry=since))
                since = None
        if since is not None:
            found.append(Span(variant=variant, since=since.at, until=None, shared=False, entry=since))
        for move in (move for move in moves(entries) if move.sure):
            already = [entry for entry in seen if entry.at <= move.start]
            before = of_variant(Desired.of(already[-1].details), variant) if already else None
            if of_variant(move.desired, variant) == package != before:
                found.append(
                    Span(
                        variant=variant, since=move.start, until=move.end, shared=True, entry=move.outcome or move.asked
                    )
                )
    return sorted(found, key=lambda span: (span.since, span.variant))


def _seen(entries: Sequence[Entry]) -> list[Entry]:
    """Entries that tell what answers from then on."""
    return [entry for entry in entries if entry.kind in {Kind.DEPLOYED, Kind.SERVING_DIFFERS}]


# --- back -------------------------------------------------------------------------------------------------------------


def back(entries: Sequence[Entry], package: str, record: Record | None, gone: str = "") -> list[Step]:
    """From a package to who sent the files that it learnt from.

    `entries` is the model's whole ledger. `record` is None where the registry has the package no more, and `gone` then
    says so: what the ledger alone tells is told.
    """
    steps = [
        _package(package, record, gone),
        *_approvals(entries, package, record),
        _gates(entries, package, record),
        *_training(entries, package, record),
        *datasets(entries, _learnt_from(entries, package, record), record),
    ]
    return [step.model_copy(update={"package": package}) for step in steps]


def _package(package: str, record: Record | None, gone: str) -> Step:
    if record is None:
        return unknown("package", f"{version(package)}: {gone}")
    found = record.package
    facts: dict[str, Fact] = {"arn": found.arn, "image": found.image, "model_data": found.model_data}
    by = f" by {found.author}" if found.author else ""
    return Step(
        step="package",
        what=f"{version(found.arn)} of {found.model}, registered{by}",
        at=found.created,
        known_from=REGISTRY,
        facts=facts | {"version": found.version, "author": found.author},
    )


def _approvals(entries: Sequence[Entry], package: str, record: Record | None) -> list[Step]:
    words = [
        entry
        for entry in entries
        if entry.kind.startswith(("package_", "approval_")) and entry.subject.partition("#")[0] == package
    ]
    if words:
        return [
            Step(step="approval", what=e.summary, at=e.at, known_from=_entry(e), facts=dict(e.details)) for e in words
        ]
    if record and record.package.approval == "Approved":
        by = record.package.decided_by
        who = f"by {by}" if by else "by whom the registry does not tell"
        return [
            Step(
                step="approval",
                what=f"approved, {who}: {record.package.reason or 'without a reason'}",
                at=record.package.decided,
                known_from=f"{REGISTRY}; the ledger has no word on it",
                facts={"by": by, "reason": record.package.reason},
            )
        ]
    return [unknown("approval", "the ledger has no word on it, so nobody has decided yet", known_from="ledger")]


def _gates(entries: Sequence[Entry], package: str, record: Record | None) -> Step:
    if record is None or record.evaluation is None:
        said = _succeeded(entries, package)
        if said:
            return Step(step="gates", what=said.summary, at=said.at, known_from=_entry(said), facts=dict(said.details))
        why = record.unknown.get("evaluation", "") if record else "its evaluation was named by the package alone"
        return unknown("gates", why)
    evaluation = record.evaluation
    facts: dict[str, Fact] = {"passed": evaluation.gate.passed, "reasons": list(evaluation.gate.reasons)}
    limits = record.spec.gates.metrics if record.spec else {}
    told = []
    for metric, estimate in evaluation.metrics.items():
        facts[metric.value] = estimate.value
        if record.spec and metric not in limits:
            continue
        gate = limits.get(metric)
        asked = [f"at least {gate.min:g}"] if gate and gate.min is not None else []
        asked += [f"at most {gate.max:g}"] if gate and gate.max is not None else []
        margin = evaluation.champion.margins.get(metric) if evaluation.champion else None
        if margin and gate and gate.beats_champion_by is not None:
            asked.append(f"{margin.value:+.4f} against {version(record.champion)}, {gate.beats_champion_by:g} asked")
        told.append(f"{metric.value} {estimate.value:.4f}" + (f" ({'; '.join(asked)})" if asked else ""))
    verdict = "passed" if evaluation.gate.passed else f"not passed: {evaluation.gate.reason}"
    return Step(
        step="gates",
        what=f"{verdict}: {', '.join(told)}" if told else verdict,
        known_from=record.package.metadata.get("noria:evaluation", "evaluation.json"),
        facts=facts,
    )


def _training(entries: Sequence[Entry], package: str, record: Record | None) -> list[Step]:
    ended = _succeeded(entries, package)
    execution = ended.subject if ended else record.execution if record else None
    if execution is None:
        why = "the ledger has no training that ended with it, and its metadata name none: it was registered by hand"
        return [unknown("training", why), _code(record)]
    return [training(entries, execution, record), _code(record)]


def training(entries: Sequence[Entry], execution: str, record: Record | None = None) -> Step:
    """An execution: since when, why, and for how many instance-hours."""
    started = next(
        (e for e in entries if e.kind is Kind.TRAINING_STARTED and e.details["execution"] == execution), None
    )
    ended = next(
        (e for e in entries if e.subject == execution and e.kind in {Kind.TRAINING_SUCCEEDED, Kind.TRAINING_FAILED}),
        None,
    )
    facts: dict[str, Fact] = {"execution": execution}
    if started is None:
        why = f"the ledger does not tell when {_tail(execution)} started, or why"
        return unknown("training", why).model_copy(update={"facts": facts})
    facts |= {name: started.details.get(name) for name in ("cause", "dataset", "champion")} | {"token": started.subject}
    text = record.request.cause.text if record and record.request else str(started.details.get("cause"))
    hours = ended.details.get("hours") if ended else None
    took = f", {hours:g} instance-hours" if isinstance(hours, int | float) else ""
    known_from = ", ".join(_entry(entry) for entry in (started, ended) if entry)
    return Step(
        step="training",
        what=f"{_tail(execution)}, because of: {text}{took}",
        at=started.at,
        known_from=known_from,
        facts=facts | {"hours": hours},
    )


def _code(record: Record | None) -> Step:
    if record is None:
        return unknown("code", "its hash was in the package's metadata alone")
    if record.code is None:
        return unknown("code", "the package has no noria:code in its metadata", known_from=REGISTRY)
    return Step(step="code", what=f"SHA-256 {record.code}", known_from=REGISTRY, facts={"code": record.code})


def _learnt_from(entries: Sequence[Entry], package: str, record: Record | None) -> list[str] | None:
    """Hashes of its datasets; None where nobody tells."""
    if record and record.request:
        return [dataset.sha256 for dataset in record.request.datasets]
    ended = _succeeded(entries, package)
    started = (
        e for e in entries if e.kind is Kind.TRAINING_STARTED and ended and e.details["execution"] == ended.subject
    )
    hashes = next((entry.details.get("datasets") for entry in started), None)
    return list(hashes) if isinstance(hashes, list) else None


def datasets(entries: Sequence[Entry], hashes: Sequence[str] | None, record: Record | None = None) -> Iterator[Step]:
    """Each dataset, and the upload that it was."""
    if hashes is None:
        why = record.unknown.get("request") if record else None
        yield unknown("dataset", why or "the ledger has no training that started it")
        return
    accepted = {entry.subject: entry for entry in entries if entry.kind is Kind.DATASET_ACCEPTED}
    manifests = {d.told.sha256: d.manifest for d in record.datasets} if record else {}
    for sha256 in hashes:
        entry, manifest = accepted.get(sha256), manifests.get(sha256)
        if entry:
            told: dict[str, Fact] = dict(entry.details)
            known_from = _entry(entry)
        elif manifest:
            told = manifest.model_dump(mode="json") | {"key": manifest.source_key, "version": manifest.version_id}
            known_from = manifest.key.replace("/data.", "/manifest.json#").partition("#")[0]
        else:
            yield unknown("dataset", f"{sha256}: neither the ledger nor the data bucket tells of it")
            continue
        facts: dict[str, Fact] = {name: told.get(name) for name in ("rows", "first_event", "last_event")}
        yield Step(
            step="dataset",
            what=f"{sha256[:12]}: {told['rows']:,} rows of {_day(told['first_event'])} to {_day(told['last_event'])}",
            at=entry.at if entry else manifest.accepted_at if manifest else None,
            known_from=known_from,
            facts={"sha256": sha256, **facts},
        )
        yield _file(told, known_from)


def _file(told: Mapping[str, Fact], known_from: str) -> Step:
    key, by, request = str(told["key"]), told.get("uploaded_by"), told.get("request")
    names = ("key", "version", "uploaded_by", "uploaded_at", "request")
    facts: dict[str, Fact] = {name: told.get(name) for name in names}
    at = datetime.fromisoformat(str(told["uploaded_at"])) if told.get("uploaded_at") else None
    upload = _upload(told)
    if origin(key) == "labels":
        what = f"{upload}: made by join_labels of captured predictions and their labels"
    elif by:
        what = f"{upload}: sent by account {by}; who of it, S3's access logs may tell by request {request} (--who)"
    else:
        what = f"{upload}: who sent it is not known, because S3's event was lost, or is older than its being kept"
    return Step(step="file", what=what, at=at, known_from=known_from, known=bool(by), facts=facts)


def _upload(told: Mapping[str, Fact]) -> str:
    return f"{told['key']}, version {told.get('version') or 'not known'}"


def sent_by(file: Step, principal: str | None, log: str) -> Step:
    """A file's step, with the principal that S3's access log names for its request; None where no log does."""
    if principal is None:
        return file.model_copy(update={"what": f"{file.what}: no access log names it, which S3 delivers within hours"})
    facts = file.facts | {"principal": principal}
    known_from = f"{file.known_from}, {log}"
    return file.model_copy(
        update={"what": f"{_upload(facts)}: sent by {principal}", "known_from": known_from, "facts": facts}
    )


# --- forward ----------------------------------------------------------------------------------------------------------


def forward(entries: Sequence[Entry], sha256: str) -> Iterator[Step]:
    """From a dataset to every version that learnt from it, when each was live, and how much it answered."""
    trained = [e for e in entries if e.kind is Kind.TRAINING_STARTED and sha256 in _list(e.details.get("datasets"))]
    if not trained:
        yield unknown("training", "no training has used it", known_from="ledger").model_copy(update={"known": True})
    for started in trained:
        execution = str(started.details["execution"])
        yield training(entries, execution)
        ended = [e for e in entries if e.subject == execution]
        over = latest(ended, Kind.TRAINING_SUCCEEDED, Kind.TRAINING_FAILED)
        if over is None:
            yield Step(step="package", what="none yet: the training is under way", known_from="ledger")
        elif over.kind is Kind.TRAINING_FAILED:
            yield Step(step="package", what=f"none: {over.summary}", at=over.at, known_from=_entry(over))
        else:
            package = str(over.details["package"])
            told = Step(step="package", what=over.summary, at=over.at, known_from=_entry(over), facts={"arn": package})
            for step in (told, *lived(entries, package)):
                yield step.model_copy(update={"package": package})


def lived(entries: Sequence[Entry], package: str) -> Iterator[Step]:
    """When and as what a package answered, and how many predictions of it are known."""
    found = spans(entries, package)
    if not found:
        yield Step(step="live", what=f"{version(package)} was never live", known_from="ledger")
    for span in found:
        beside = ", beside what answered before" if span.shared else ""
        yield Step(
            step="live",
            what=f"{version(package)} as {span.variant} {_between(span.since, span.until)}{beside}",
            at=span.since,
            known_from=_entry(span.entry),
            facts={
                "variant": span.variant,
                "since": span.since.isoformat(),
                "until": span.until.isoformat() if span.until else None,
                "shared": span.shared,
            },
        )
    windows = [e for e in entries if e.kind is Kind.MONITORED and e.details.get("package") == package]
    if windows:
        rows = sum(int(str(e.details.get("own_rows", e.details["rows"]))) for e in windows)
        yield Step(
            step="predictions",
            what=f"{rows:,} captured rows of {count(len(windows), 'monitored window')}, as champion",
            at=windows[-1].at,
            known_from=f"ledger #{windows[0].number} to #{windows[-1].number}",
            facts={"rows": rows, "windows": len(windows)},
        )
    for batch in (e for e in entries if e.kind is Kind.BATCH_PREDICTED and e.details.get("package") == package):
        yield Step(
            step="predictions", what=batch.summary, at=batch.at, known_from=_entry(batch), facts=dict(batch.details)
        )


# --- words ------------------------------------------------------------------------------------------------------------


def clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _between(since: datetime, until: datetime | None) -> str:
    return f"from {clock(since)} {f'to {clock(until)}' if until else 'on'}"


def _succeeded(entries: Sequence[Entry], package: str) -> Entry | None:
    ended = (e for e in entries if e.kind is Kind.TRAINING_SUCCEEDED and e.details.get("package") == package)
    return next(ended, None)


def _entry(entry: Entry) -> str:
    return f"ledger #{entry.number}"


def _tail(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


def _day(moment: Fact) -> str:
    return str(moment)[:10]


def _list(value: Fact) -> list[str]:
    return value if isinstance(value, list) else []
