"""Uploads become datasets, or go to quarantine with a report that says why.

upload ─ download, hash ─ contract ┬ accepted: copy, manifest (last), Dataset Accepted, ledger
                                   └ refused:  copy, report, Dataset Quarantined, page, ledger

Calls: s3:GetObject, s3:GetObjectVersion and s3:GetObjectVersionTagging on */incoming/*; s3:GetObject, s3:PutObject and
s3:PutObjectTagging on */datasets/* and */quarantine/*; s3:ListBucket; kms:Decrypt, kms:DescribeKey, kms:Encrypt and
kms:GenerateDataKey; events:PutEvents; sns:Publish; dynamodb:GetItem and dynamodb:PutItem on the ledger.
"""

import tempfile
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria import contract
from noria.aws.bus import Bus
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.pages import Page, Pages
from noria.aws.storage import Download, Storage
from noria.aws.telemetry import EVENT_ID, logger, metrics, tell
from noria.events import Dataset, DatasetAccepted, DatasetQuarantined, ObjectCreated, Quarantine, S3Object, parse
from noria.ledger import Fact, Kind
from noria.names import ObjectKey, key
from noria.spec import ModelSpec
from noria.violations import Violation


class Outcome(StrEnum):
    ACCEPTED = "DatasetAccepted"
    QUARANTINED = "DatasetQuarantined"
    FOLDER = "FolderIgnored"  # consoles make "folders": empty objects whose name ends in a slash
    ELSEWHERE = "OtherAreaIgnored"


@logger.inject_lambda_context(correlation_id_path=EVENT_ID)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    upload = parse(event, ObjectCreated).detail.object
    model = upload.key.split("/")[0]
    outcome = validate_upload(
        upload=upload,
        spec=env.spec(model),
        storage=Storage(bucket=env.data_bucket),
        ledger=Ledger(table=env.ledger_table),
        bus=Bus(name=env.event_bus),
        pages=Pages(topic=env.pages_topic),
        now=datetime.now(UTC),
    )
    tell(outcome, model=model, key=upload.key)


def validate_upload(
    *,
    upload: S3Object,
    spec: ModelSpec | None,
    storage: Storage,
    ledger: Ledger,
    bus: Bus,
    pages: Pages,
    now: datetime,
) -> Outcome:
    """Check one uploaded version. `spec` is None when nobody has described the model that the key names."""
    if upload.key.endswith("/") and upload.size == 0:
        return Outcome.FOLDER
    source = ObjectKey.parse(upload.key)
    if source.area != "incoming":  # the rule's wildcard also matches a deeper folder of that name
        return Outcome.ELSEWHERE
    with tempfile.TemporaryDirectory(prefix="noria-upload-") as folder:
        path = Path(folder) / "upload"
        file = storage.download(upload.key, path, version=upload.version)
        if spec is None:
            report = _unknown_model(source, file)
        else:
            report = contract.check(path, spec, filename=source.filename, now=now, sha256=file.sha256)
    if report.accepted:
        _accept(upload, source, report, storage=storage, ledger=ledger, bus=bus, now=now)
        return Outcome.ACCEPTED
    if not ledger.knows(source.model, Kind.DATASET_QUARANTINED, upload.version):
        _quarantine(upload, source, report, storage=storage, ledger=ledger, bus=bus, pages=pages, now=now)
    return Outcome.QUARANTINED


def _accept(
    upload: S3Object,
    source: ObjectKey,
    report: contract.Report,
    *,
    storage: Storage,
    ledger: Ledger,
    bus: Bus,
    now: datetime,
) -> None:
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
        accepted_at=now,
    )
    if not storage.exists(f"{folder}/manifest.json"):
        storage.copy(upload.key, manifest.key, version=upload.version)
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
                "key": upload.key,
                "version": upload.version,
                "rows": report.rows,
                "bytes": report.bytes,
                "first_event": report.first_event.isoformat(),
                "last_event": report.last_event.isoformat(),
                "warnings": [v.message for v in report.violations][:20],
            },
        )
    )


def _quarantine(
    upload: S3Object,
    source: ObjectKey,
    report: contract.Report,
    *,
    storage: Storage,
    ledger: Ledger,
    bus: Bus,
    pages: Pages,
    now: datetime,
) -> None:
    folder = key(source.model, "quarantine", report.sha256)
    wrong = [violation for violation in report.violations if violation.severity == "reject"]
    storage.copy(upload.key, f"{folder}/{source.filename}", version=upload.version)
    storage.write(f"{folder}/report.json", report.model_dump_json(indent=1))
    uri = storage.uri(f"{folder}/report.json")
    bus.publish(
        DatasetQuarantined.of(
            Quarantine(model=source.model, key=upload.key, version=upload.version, report=uri, problems=len(wrong))
        )
    )
    problems = f"{len(wrong)} problem{'' if len(wrong) == 1 else 's'}"
    pages.send(
        Page(
            subject=f"{source.model}: {source.filename} is in quarantine ({problems})",
            what=f"{upload.key} does not keep the data contract of {source.model}, so nothing is trained on it.\n\n"
            f"{report.to_text()}",
            where=uri,
            do="Correct the file, check it, and upload it again. The upload is kept; nothing was changed or lost.",
            command=f"noria validate {source.filename} --model {source.model}",
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
            details={"key": upload.key, "sha256": report.sha256, "report": uri, "problems": len(wrong)},
        )
    )


def _unknown_model(source: ObjectKey, file: Download) -> contract.Report:
    return contract.Report(
        model=source.model,
        filename=source.filename,
        format=None,
        sha256=file.sha256,
        bytes=file.size,
        rows=0,
        columns=(),
        first_event=None,
        last_event=None,
        accepted=False,
        violations=(
            Violation(
                rule="model",
                message=f"no model is called {source.model!r}: upload to <model>/incoming/, "
                f"or describe it in models/{source.model}.yaml and deploy",
            ),
        ),
    )
