"""Uploads become datasets, or go to quarantine with a report that says why.

upload ─ download, hash ┐
live model's baseline  ─┴ contract ┬ accepted: copy, report, manifest (last), Dataset Accepted, ledger
                                   └ refused:  copy, report, Dataset Quarantined, page, ledger
larger than the disk ─ not looked into, and refused so

Calls: s3:GetObject, s3:GetObjectVersion and s3:GetObjectVersionTagging on */incoming/*; s3:GetObject, s3:PutObject and
s3:PutObjectTagging on */datasets/* and */quarantine/*; s3:GetObject on */baselines/*; s3:ListBucket;
sagemaker:DescribeModelPackage on the model's packages; kms:Decrypt, kms:DescribeKey, kms:Encrypt and
kms:GenerateDataKey; events:PutEvents; sns:Publish; dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
While the model is paused: s3:PutObject on */held/*.
"""

import errno
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError

from noria import contract
from noria.aws.attempts import attempt
from noria.aws.bus import Bus
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.pages import Matter, Page, Pages
from noria.aws.pauses import pausable
from noria.aws.registry import Registry
from noria.aws.retries import retried_soon
from noria.aws.storage import Download, Storage
from noria.aws.telemetry import logger, reaction, tell
from noria.deployment import live_package
from noria.events import (
    Dataset,
    DatasetAccepted,
    DatasetQuarantined,
    ObjectCreated,
    ObjectCreatedDetail,
    Quarantine,
    S3Object,
    parse,
)
from noria.feedback import asked_of_a_part, origin
from noria.ledger import Fact, Kind
from noria.monitoring import known
from noria.names import ObjectKey, key
from noria.profile import Profile
from noria.report import render_contract
from noria.spec import ModelSpec
from noria.violations import Violation


class Outcome(StrEnum):
    ACCEPTED = "DatasetAccepted"
    QUARANTINED = "DatasetQuarantined"
    FOLDER = "FolderIgnored"  # consoles make "folders": empty objects whose name ends in a slash
    ELSEWHERE = "OtherAreaIgnored"


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """An upload, and what S3 tells of its sending; None what it does not."""

    upload: S3Object
    by: str | None
    request: str | None
    at: datetime | None

    @property
    def details(self) -> dict[str, str | None]:
        """For the ledger."""
        return {
            "key": self.upload.key,
            "version": self.upload.version,
            "uploaded_by": self.by,
            "uploaded_at": self.at.isoformat() if self.at else None,
            "request": self.request,
        }


class Baseline(NamedTuple):
    """What the live model was trained on; None where nothing can be compared, and why."""

    profile: Profile | None
    because: str | None = None


SPILL = 0.2
"""Share of the free disk that is kept for what a scan cannot hold in memory: hashes of ids, 16 bytes a row."""
LONGEST_KEY = 1024
"""Bytes of an object's key: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html"""


@retried_soon
@reaction
@pausable
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    created = parse(event, ObjectCreated).detail
    upload = created.object
    model = upload.key.split("/")[0]
    outcome = validate_upload(
        created=created,
        spec=env.spec(model),
        storage=Storage(bucket=env.data_bucket),
        registry=Registry(),
        ledger=Ledger(table=env.ledger_table),
        bus=Bus(name=env.event_bus),
        pages=Pages(topics=env.topics),
        now=datetime.now(UTC),
    )
    tell(outcome, model=model or "none", key=upload.key)


def validate_upload(
    *,
    created: ObjectCreatedDetail,
    spec: ModelSpec | None,
    storage: Storage,
    registry: Registry,
    ledger: Ledger,
    bus: Bus,
    pages: Pages,
    now: datetime,
) -> Outcome:
    """Check one uploaded version. `spec` is None when nobody has described the model that the key names."""
    upload = created.object
    if upload.key.endswith("/") and upload.size == 0:
        return Outcome.FOLDER
    try:
        source = ObjectKey.parse(upload.key)
    except ValueError:
        return Outcome.ELSEWHERE  # as in /incoming/january.csv, which belongs to no model
    if source.area != "incoming":  # the rule's wildcard also matches a deeper folder of that name
        return Outcome.ELSEWHERE
    with tempfile.TemporaryDirectory(prefix="noria-upload-") as folder:
        path = Path(folder) / "upload"
        file = _download(upload, path, storage)
        sent = _Sent(upload=upload, by=created.requester, request=created.request, at=file.modified if file else None)
        if file is None:
            report = _too_large(source, upload, _room(path.parent))
        elif spec is None:
            report = _unknown_model(source, file)
        else:
            baseline = _baseline(spec, storage=storage, registry=registry, ledger=ledger)
            report = contract.check(
                path,
                asked_of_a_part(spec) if origin(upload.key) == "labels" else spec,
                filename=source.filename,
                now=now,
                sha256=file.sha256,
                baseline=baseline.profile,
            )
            if baseline.because:
                report = report.model_copy(update={"no_shift": baseline.because})
    if report.accepted:
        _accept(sent, source, report, storage=storage, ledger=ledger, bus=bus, now=now)
        return Outcome.ACCEPTED
    if not ledger.knows(source.model, Kind.DATASET_QUARANTINED, upload.version):
        _quarantine(sent, source, report, storage=storage, ledger=ledger, bus=bus, pages=pages, now=now)
    return Outcome.QUARANTINED


def _accept(
    sent: _Sent,
    source: ObjectKey,
    report: contract.Report,
    *,
    storage: Storage,
    ledger: Ledger,
    bus: Bus,
    now: datetime,
) -> None:
    upload = sent.upload
    if report.format is None or report.first_event is None or report.last_event is None:
        raise ValueError(f"{upload.key}: the contract accepted a file without rows or format")
    folder = key(source.model, "datasets", report.sha256)
    manifest = contract.Manifest(
        model=source.model,
        sha256=report.sha256,
        filename=report.filename,
        format=report.format,
        bytes=report.bytes,
        rows=report.rows,
        columns=report.columns,
        first_event=report.first_event,
        last_event=report.last_event,
        key=f"{folder}/data.{report.format}",
        source_key=upload.key,
        version_id=upload.version,
        uploaded_by=sent.by,
        uploaded_at=sent.at,
        request=sent.request,
        accepted_at=now,
    )
    if not storage.exists(f"{folder}/manifest.json"):
        storage.copy(upload.key, manifest.key, version=upload.version)
        _keep(report, folder, storage)
        storage.write_once(f"{folder}/manifest.json", manifest.model_dump_json(indent=1))
    bus.publish(
        DatasetAccepted.of(
            Dataset(
                model=source.model,
                dataset=report.sha256,
                key=upload.key,
                version=upload.version,
                rows=report.rows,
            )
        )
    )
    ledger.record(
        Fact(
            model=source.model,
            kind=Kind.DATASET_ACCEPTED,
            subject=report.sha256,
            at=now,
            summary=f"{source.filename} is a dataset: {report.rows:,} rows "
            f"from {report.first_event:%Y-%m-%d} to {report.last_event:%Y-%m-%d}.",
            details={
                **sent.details,
                "origin": origin(upload.key),
                "rows": report.rows,
                "bytes": report.bytes,
                "first_event": report.first_event.isoformat(),
                "last_event": report.last_event.isoformat(),
                "report": f"{folder}/report.json",
                "warnings": [v.message for v in report.violations][:20],
                "drifted": list(report.shift.drifted) if report.shift else [],
            },
        )
    )


def _quarantine(
    sent: _Sent,
    source: ObjectKey,
    report: contract.Report,
    *,
    storage: Storage,
    ledger: Ledger,
    bus: Bus,
    pages: Pages,
    now: datetime,
) -> None:
    upload = sent.upload
    folder = key(source.model, "quarantine", report.sha256 or f"unread-{upload.version}")
    wrong = [violation for violation in report.violations if violation.severity == "reject"]
    if report.sha256:  # what was too large to read is left where it is
        storage.copy(upload.key, _within(folder, source.filename), version=upload.version)
    _keep(report, folder, storage)
    uri = storage.uri(f"{folder}/report.json")
    bus.publish(
        DatasetQuarantined.of(
            Quarantine(model=source.model, key=upload.key, version=upload.version, report=uri, problems=len(wrong))
        )
    )
    problems = f"{len(wrong)} problem{'' if len(wrong) == 1 else 's'}"
    pages.send(
        Page(
            matter=Matter.QUARANTINED,
            subject=f"{source.model}: {source.filename} is in quarantine ({problems})",
            what=f"{upload.key} does not keep the data contract of {source.model}, so nothing is trained on it.\n\n"
            f"{report.to_text()}",
            where=uri,
            do="Correct the file, check it, and upload it again. The upload is kept; nothing was changed or lost.",
            command=f"noria validate {shlex.quote(source.filename)} --model {source.model}",
        )
    )
    ledger.record(
        Fact(
            model=source.model,
            kind=Kind.DATASET_QUARANTINED,
            subject=upload.version,
            at=now,
            summary=f"{source.filename} is in quarantine, {problems}: {wrong[0].message}"
            + (" …" if len(wrong) > 1 else ""),
            details={**sent.details, "sha256": report.sha256, "report": uri, "problems": len(wrong)},
        )
    )


def _keep(report: contract.Report, folder: str, storage: Storage) -> None:
    """The report, and as a page. One that cannot be drawn is a report all the same."""
    storage.write(f"{folder}/report.json", report.model_dump_json(indent=1))
    if drawn := known(attempt("the report's page", lambda: render_contract(report))):
        storage.write(f"{folder}/report.html", drawn, content_type="text/html; charset=utf-8")


def _baseline(spec: ModelSpec, *, storage: Storage, registry: Registry, ledger: Ledger) -> Baseline:
    """The profile that the live package was registered with. A lack of it refuses no upload."""
    package = live_package(ledger.entries(spec.model))
    if package is None:
        return Baseline(None, "no model is live, so there is nothing to compare with")
    try:
        stored = storage.read(storage.key_of(registry.describe(package).metadata["noria:baseline"]))
        return Baseline(Profile.model_validate_json(stored))
    except (ClientError, LookupError, ValueError) as error:
        logger.warning("The baseline cannot be read", package=package, error=str(error))
        return Baseline(None, f"the baseline of {package} cannot be read: {type(error).__name__}")


def _download(upload: S3Object, path: Path, storage: Storage) -> Download | None:
    """None where the file is larger than the disk has room for."""
    if upload.size > _room(path.parent):
        return None
    try:
        return storage.download(upload.key, path, version=upload.version)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return None
        raise


def _room(folder: Path) -> int:
    """Bytes that a file may have to be checked here."""
    return round(shutil.disk_usage(folder).free * (1 - SPILL))


def _within(folder: str, filename: str) -> str:
    """The key of a file in a folder; of a name that would make it too long, the end, which says what kind it is."""
    room = LONGEST_KEY - len(f"{folder}/".encode())
    return f"{folder}/{filename.encode()[-room:].decode(errors='ignore')}"


def _too_large(source: ObjectKey, upload: S3Object, room: int) -> contract.Report:
    message = f"the file has {upload.size / 1e9:,.1f} GB, and at most {room / 1e9:,.1f} GB can be checked: "
    message += "split it by time into several files, or write it as Parquet, which is smaller"
    return contract.Report.refusing(
        source.model, source.filename, Violation(rule="size", message=message), sha256="", size=upload.size
    )


def _unknown_model(source: ObjectKey, file: Download) -> contract.Report:
    message = f"no model is called {source.model!r}: upload to <model>/incoming/, "
    message += f"or describe it in models/{source.model}.yaml and deploy"
    return contract.Report.refusing(
        source.model, source.filename, Violation(rule="model", message=message), sha256=file.sha256, size=file.size
    )
