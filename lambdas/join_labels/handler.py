"""Labels that arrive late are joined with what was predicted: how right has the live model been, and what is learnt?

labels file ┬ refused: page, ledger; the file stays where it is
            └ words, kept at once ┐
tick ─ words that wait ───────────┴ joined in turn ┬ quality: report, metrics of the monitors that need labels
                                                   ├ hard cases, for people
                                                   └ training data, an upload for each day
event ─ a labels file, named after the event

A join reads days of captures and tells of all labels, so a model has one a turn (`TURN`), however many files come: the
first at once, and whoever has the turn books a tick that joins what comes meanwhile. Words wait, in the bucket, until a
join has seen them; who dies before is followed by the message that comes again, by that tick, or by the next file.

Calls: s3:GetObject, s3:GetObjectVersion and s3:PutObject on */labels/*; s3:ListBucket, s3:GetObject and s3:PutObject on
*/labelled/*; s3:ListBucket and s3:GetObject on */captured/*; s3:GetObject on */runs/*; s3:ListBucket on */incoming/*;
s3:PutObject on */incoming/labelled/* and */reports/*;
sagemaker:DescribeModelPackage on the model's packages; sqs:GetQueueUrl and sqs:SendMessage on its own queue;
kms:Decrypt, kms:DescribeKey, kms:Encrypt and kms:GenerateDataKey; cloudwatch:PutMetricData in namespace Noria;
sns:Publish; dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
While the model is paused: s3:PutObject on */held/*.
"""

import csv
import io
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria import masking
from noria.aws.captures import LATE, Captures
from noria.aws.environment import Environment
from noria.aws.labelled import MOST_TOLD_BYTES, Labelled, Session
from noria.aws.ledger import Ledger
from noria.aws.metrics import Measurement, Measurements
from noria.aws.pages import Matter, Page, Pages
from noria.aws.pauses import pausable
from noria.aws.queues import Queues
from noria.aws.registry import Registry
from noria.aws.retries import retried_soon
from noria.aws.storage import Storage
from noria.aws.telemetry import reaction, tell
from noria.deployment import live_package
from noria.evaluation import Evaluation
from noria.events import EventError, LabelsTold, ObjectCreated, S3Object, Tick, parse
from noria.labelled import HARD_CASES, HardCases
from noria.labels import CLOCK, Arrival, Foreign, LabelsError, LabelsFile, predictions_of, shown, versions_of, words
from noria.ledger import Entry, Fact, Kind
from noria.monitors import Reading, Unknown, monitors
from noria.names import ObjectKey, key
from noria.quality import Quality, reading
from noria.spec import ModelSpec
from noria.trial import champion_since

AGAIN = LATE + timedelta(minutes=5)
"""By then whatever was predicted before its label came has been captured. SQS delays no message for longer."""

TURN = AGAIN - timedelta(seconds=30)
"""A little shorter, so that the tick that was booked finds the turn free."""

TICK = "Join Labels"

LATEST = "quality/latest.json"
"""The newest report, under the model's reports/."""

LARGEST = MOST_TOLD_BYTES
"""Of a labels file, in bytes: about as many labels as are read at once, and a tenth of the disk."""

LISTED = 2000
"""Of the versions that a join's entry names; entries have at most 400 KB. Those beyond may be told again once."""

Details = dict[str, str | int | float | bool | list[str] | None]


class Outcome(StrEnum):
    JOINED = "LabelsJoined"
    KEPT = "LabelsKept"
    REFUSED = "LabelsRefused"
    KNOWN = "LabelsKnown"
    WRITTEN = "LabelsWritten"
    FOLDER = "FolderIgnored"
    ELSEWHERE = "OtherAreaIgnored"


@retried_soon
@reaction
@pausable
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    said = parse(event, ObjectCreated, LabelsTold, Tick)
    storage = Storage(bucket=env.data_bucket)
    model = _model(said)
    captures = Captures(model=model, endpoint=env.names.model(model), storage=storage)
    told = Told(
        registry=Registry(),
        ledger=Ledger(table=env.ledger_table),
        measurements=Measurements(),
        again=lambda: Queues().send(
            env.names.queue("join-labels"), Tick.message(TICK, model=model, time=datetime.now(UTC)), delay=AGAIN
        ),
        pages=Pages(topics=env.topics),
        now=datetime.now(UTC),
    )
    spec = env.spec(model)
    labelled = Labelled(spec=spec, captures=captures, storage=storage) if spec else None
    if isinstance(said, ObjectCreated):
        outcome = join_labels(
            upload=said.detail.object,
            labelled=labelled,
            told=told,
            uri=storage.uri(said.detail.object.key),
        )
    elif labelled is None:
        raise LookupError(f"no model is called {model!r}: known are {', '.join(env.models) or 'none'}")
    elif isinstance(said, LabelsTold):
        outcome = write_labels(said, spec=labelled.spec, storage=storage)
    else:
        with tempfile.TemporaryDirectory(prefix="noria-labels-") as folder:
            session = labelled.session(Path(folder), now=told.now)
            outcome = join_in_turn(session, told, subject=f"again-{said.detail.time:%Y-%m-%dT%H%M%S}")
    tell(outcome, model=model or "none")


def _model(said: LabelsTold | Tick | ObjectCreated) -> str:
    match said:
        case ObjectCreated(detail=detail):
            return detail.object.key.split("/")[0]
        case LabelsTold(detail=labels):
            return labels.model
        case Tick():
            return said.model


@dataclass(frozen=True, kw_only=True)
class Told:
    """Who hears of what was joined, and what is live while it is. `again` books the tick after a turn."""

    registry: Registry
    ledger: Ledger
    measurements: Measurements
    again: Callable[[], None]
    pages: Pages
    now: datetime


def write_labels(said: LabelsTold, *, spec: ModelSpec, storage: Storage) -> Outcome:
    """What an event says becomes a labels file, so that all labels go one way. The same event again changes nothing."""
    if not said.id:
        raise EventError("a 'Labels Told' event has no id, which EventBridge gives: the file is named after it")
    labels = said.detail
    clock = labels.told_at.isoformat() if labels.told_at else ""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["inference_id", "row", spec.target, CLOCK])
    rows.writerows([label.inference_id, label.row, label.label, clock] for label in labels.labels)
    storage.write_once(key(spec.model, "labels", f"event-{said.id}.csv"), text.getvalue(), content_type="text/csv")
    return Outcome.WRITTEN


def join_labels(
    *,
    upload: S3Object,
    labelled: Labelled | None,
    told: Told,
    uri: str,
) -> Outcome:
    """Keep one uploaded version and join it, in turn. `labelled` is None when nobody has described its model."""
    if upload.key.endswith("/") and upload.size == 0:
        return Outcome.FOLDER
    source = _source(upload.key)
    if source is None:
        return Outcome.ELSEWHERE
    if any(told.ledger.knows(source.model, kind, upload.version) for kind in (Kind.LABELS_JOINED, Kind.LABELS_REFUSED)):
        return Outcome.KNOWN
    refuse = partial(_refuse, source, upload.version, uri=uri, told=told)
    if labelled is None:
        problem = (
            f"no model is called {source.model!r}: upload to <model>/labels/, or describe it in models/ and deploy"
        )
        return refuse([f"{source.filename}: {problem}"])
    with tempfile.TemporaryDirectory(prefix="noria-labels-") as folder:
        session = labelled.session(Path(folder), now=told.now)
        try:
            _keep(upload, source, labelled, session)
        except LabelsError as error:
            return refuse(error.problems)
        return join_in_turn(session, told, subject=upload.version, key=upload.key)


def _source(upload: str) -> ObjectKey | None:
    """Which model's labels a key holds; None for /labels/may.csv, which belongs to none, and for what is elsewhere."""
    try:
        source = ObjectKey.parse(upload)
    except ValueError:
        return None
    # The rule's wildcard also matches a deeper folder of that name.
    return source if source.area == "labels" else None


def join_in_turn(session: Session, told: Told, *, subject: str, **details: str) -> Outcome:
    """Join the words that wait, unless somebody has the turn: the tick that they have booked comes after these words.

    Tells of the join as `subject`, the version or the tick that had the turn.
    """
    waiting, model = session.waiting(), session.spec.model
    if waiting is None:
        return Outcome.KNOWN
    # The time is taken now, not when the function began: whoever finds no turn has kept its words by then.
    with told.ledger.claim(model, "labels", now=datetime.now(UTC), lasting=TURN) as mine:
        if not mine:
            return Outcome.KEPT
        told.again()
        count = predictions_of(waiting)
        matched = session.find(waiting, count)
        session.join()
        found = _measure(session, told)
        for foreign in session.foreign.values():
            _refuse_late(foreign, session, told)
        found.publish(key(model, "reports", f"labels-{subject}/report.json"), session.labelled.storage, told)
        # Before it is said: of what is said no message comes again, and the tick would join all of it once more.
        session.settle(waiting)
        told.ledger.record(
            found.fact(
                subject,
                f"{matched:,} of {count:,} labels that came belong to captured predictions",
                {
                    **details,
                    "versions": versions_of(waiting, session.spec, most=LISTED),
                    "labels": count,
                    "matched": matched,
                    "complete": session.complete,
                    "given_up": session.given_up,
                },
                at=told.now,
            )
        )
    return Outcome.JOINED


def _keep(upload: S3Object, source: ObjectKey, labelled: Labelled, session: Session) -> None:
    """Keep what a file says. Raises `LabelsError`."""
    if upload.size > LARGEST:
        size = f"the file has {upload.size:,} bytes, and at most {LARGEST:,} are read at once"
        raise LabelsError([f"{source.filename}: {size}: split it into several"])
    path, said = session.folder / "upload", session.folder / "said.parquet"
    arrived = labelled.storage.download(upload.key, path, version=upload.version).modified
    arrival = Arrival(arrived, upload.version, upload.sequencer, upload.key)
    words(LabelsFile(path, source.filename), labelled.spec, arrival, to=said)
    if problem := session.disagreement(said, name=source.filename):
        raise LabelsError([problem])
    labelled.keep(said, arrived.astimezone(UTC).date(), session.folder)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of a join. `problem`: why the quality could not be measured, where it could not."""

    spec: ModelSpec
    quality: Quality | None
    problem: str
    hard_cases: HardCases
    datasets: Sequence[str]

    @property
    def readings(self) -> dict[str, Reading | Unknown]:
        """What each monitor that needs labels says, by its name."""
        needs_labels = (monitor for monitor in monitors(self.spec) if monitor.clock == "labels")
        return {
            monitor.name: reading(monitor, self.quality, self.spec) if self.quality else Unknown(reason=self.problem)
            for monitor in needs_labels
        }

    def publish(self, report: str, storage: Storage, told: Told) -> None:
        model = self.spec.model
        storage.write(key(model, "reports", HARD_CASES), self.hard_cases.model_dump_json(indent=1))
        if self.quality is None:
            return
        shown = masking.quality(self.quality, masking.sensitive(self.spec)).model_dump_json(indent=1)
        for target in (report, key(model, "reports", LATEST)):
            storage.write(target, shown)
        told.measurements.publish(model, measure(self.quality, self.readings, self.spec), at=told.now)

    def fact(self, subject: str, what: str, details: Details, *, at: datetime) -> Fact:
        readings, quality = self.readings, self.quality
        unknown = {name: read.reason for name, read in readings.items() if isinstance(read, Unknown)}
        breached = [
            monitor.name
            for monitor in monitors(self.spec)
            if isinstance(read := readings.get(monitor.name), Reading) and monitor.breached(read.value)
        ]
        values = quality.overall.values if quality else {}
        primary = self.spec.primary_metric
        score = f"{primary.value} {values[primary]:.3f}" if primary in values else f"no {primary.value}"
        return Fact(
            model=self.spec.model,
            kind=Kind.LABELS_JOINED,
            subject=subject,
            at=at,
            summary=f"{what}: {score} over {quality.matched if quality else 0:,} labelled predictions.",
            details={
                **details,
                "coverage": quality.coverage if quality else None,
                "judged_until": quality.until.isoformat() if quality and quality.until else None,
                "breached": breached,
                "not_enough": list(unknown),
                "reasons": list(dict.fromkeys(unknown.values())),
                "datasets": list(self.datasets),
                **{metric.value: value for metric, value in values.items()},
            },
        )


def _measure(session: Session, told: Told) -> Found:
    entries = told.ledger.entries(session.spec.model)
    live = champion_since(entries)
    quality: Quality | Unknown
    try:
        quality = session.quality(live=live, registered=_registered(entries, session, told.registry))
    except LabelsError as error:  # each file was good for itself, but they do not agree on what labels are called
        quality = Unknown(reason=str(error))
    return Found(
        spec=session.spec,
        quality=None if isinstance(quality, Unknown) else quality,
        problem=quality.reason if isinstance(quality, Unknown) else "",
        hard_cases=session.hard_cases(live=live),
        datasets=_published(session, entries) if session.spec.monitor.labels.train else [],
    )


def _published(session: Session, entries: Sequence[Entry]) -> list[str]:
    """Uploads of the joined days that no entry names: a join that died may have made some, and said nothing."""
    named: set[str] = set()
    for entry in entries:
        if entry.kind is Kind.LABELS_JOINED and isinstance(datasets := entry.details.get("datasets"), list):
            named.update(datasets)
    return [upload for upload in session.publish() if upload not in named]


def _registered(entries: Sequence[Entry], session: Session, registry: Registry) -> Evaluation | None:
    """What the live package was measured at before it was registered."""
    package = live_package(entries)
    evaluation = registry.describe(package).metadata.get("noria:evaluation") if package else None
    storage = session.labelled.storage
    return Evaluation.model_validate_json(storage.read(storage.key_of(evaluation))) if evaluation else None


def _refuse_late(foreign: Foreign, session: Session, told: Told) -> None:
    """Tell once of a file that came before anybody knew what the model's classes are called."""
    spec, source = session.spec, ObjectKey.parse(foreign.key)
    if told.ledger.knows(spec.model, Kind.LABELS_REFUSED, foreign.version):
        return
    problem = (
        f"{source.filename}: column {spec.target!r} holds {shown(foreign.classes)} where the model predicts "
        f"{shown(session.labelled.classes())}: the labels of {foreign.predictions:,} predictions are left out, the "
        "others are used; write the labels as the model's training data does"
    )
    _refuse(source, foreign.version, [problem], uri=session.labelled.storage.uri(foreign.key), told=told)


def _refuse(source: ObjectKey, version: str, problems: Sequence[str], *, uri: str, told: Told) -> Outcome:
    listed = "\n".join(f"- {problem}" for problem in problems)
    told.pages.send(
        Page(
            matter=Matter.LABELS_REFUSED,
            subject=f"{source.model}: labels {source.filename} cannot be joined",
            what=f"{source} is no labels file of {source.model}, so nothing was measured with it.\n\n{listed}",
            where=uri,
            do="Correct the file and upload it again. The upload is kept; nothing was changed or lost.",
            command=f"aws s3 cp {shlex.quote(source.filename)} {shlex.quote(uri)}",
        )
    )
    told.ledger.record(
        Fact(
            model=source.model,
            kind=Kind.LABELS_REFUSED,
            subject=version,
            at=told.now,
            summary=f"Labels refused: {problems[0]}" + (" …" if len(problems) > 1 else ""),
            details={"key": str(source), "problems": list(problems)},
        )
    )
    return Outcome.REFUSED


def measure(quality: Quality, readings: Mapping[str, Reading | Unknown], spec: ModelSpec) -> list[Measurement]:
    """What the monitors read, and the metrics by the names of the spec's in one word: `Auc`, `LogLoss`, `Rmse`.

    Nothing of too few rows: silence is neither good nor bad.
    """
    if quality.overall.rows < spec.monitor.min_rows:
        return []
    of = {monitor.name: monitor for monitor in monitors(spec)}
    return [
        *(
            Measurement(name=of[name].metric, segment=of[name].segment, value=read.value)
            for name, read in readings.items()
            if isinstance(read, Reading)
        ),
        *(
            Measurement(name=metric.value.title().replace("_", ""), value=value)
            for metric, value in quality.overall.values.items()
        ),
    ]
