"""Labels that arrive late are joined with what was predicted: how right has the live model been?

labels ─ join with captured ┬ joined:  report, metrics, ledger
                            └ refused: page, ledger; the file stays where it is

Calls: s3:GetObject and s3:GetObjectVersion on */labels/*; s3:ListBucket and s3:GetObject on */captured/*; s3:PutObject
on */reports/*; kms:Decrypt, kms:DescribeKey, kms:Encrypt and kms:GenerateDataKey; cloudwatch:PutMetricData in namespace
Noria; sns:Publish; dynamodb:GetItem and dynamodb:PutItem on the ledger.
"""

import shlex
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.aws.captures import Captures
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.metrics import Measurement, Measurements
from noria.aws.pages import Page, Pages
from noria.aws.storage import Storage
from noria.aws.telemetry import EVENT_ID, logger, metrics, tell
from noria.events import ObjectCreated, S3Object, parse
from noria.labels import LabelsError, LabelsFile
from noria.ledger import Fact, Kind
from noria.names import ObjectKey, key
from noria.profile import Source
from noria.quality import Quality, join
from noria.spec import ModelSpec

LOOK_BACK_DAYS = 90
MOST_CAPTURED_BYTES = 2 * 1024**3
"""Newest first: more would not fit beside the labels into the function's disk."""


class Outcome(StrEnum):
    JOINED = "LabelsJoined"
    REFUSED = "LabelsRefused"
    KNOWN = "LabelsKnown"
    FOLDER = "FolderIgnored"
    ELSEWHERE = "OtherAreaIgnored"


@logger.inject_lambda_context(correlation_id_path=EVENT_ID)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    upload = parse(event, ObjectCreated).detail.object
    model = upload.key.split("/")[0]
    storage = Storage(bucket=env.data_bucket)
    outcome = join_labels(
        upload=upload,
        spec=env.spec(model),
        captures=Captures(model=model, endpoint=env.names.model(model), storage=storage),
        storage=storage,
        ledger=Ledger(table=env.ledger_table),
        pages=Pages(topic=env.pages_topic),
        measurements=Measurements(),
        now=datetime.now(UTC),
    )
    tell(outcome, model=model, key=upload.key)


def join_labels(
    *,
    upload: S3Object,
    spec: ModelSpec | None,
    captures: Captures,
    storage: Storage,
    ledger: Ledger,
    pages: Pages,
    measurements: Measurements,
    now: datetime,
) -> Outcome:
    """Join one uploaded version. `spec` is None when nobody has described the model that the key names."""
    if upload.key.endswith("/") and upload.size == 0:
        return Outcome.FOLDER
    source = ObjectKey.parse(upload.key)
    if source.area != "labels":  # the rule's wildcard also matches a deeper folder of that name
        return Outcome.ELSEWHERE
    if any(ledger.knows(source.model, kind, upload.version) for kind in (Kind.LABELS_JOINED, Kind.LABELS_REFUSED)):
        return Outcome.KNOWN
    refuse = partial(_refuse, upload, source, storage=storage, ledger=ledger, pages=pages, now=now)
    if spec is None:
        problem = (
            f"no model is called {source.model!r}: upload to <model>/labels/, or describe it in models/ and deploy"
        )
        return refuse([f"{source.filename}: {problem}"])
    try:
        quality = _join(upload, source, spec, captures=captures, storage=storage, now=now)
    except LabelsError as error:
        return refuse(error.problems)
    target = key(spec.model, "reports", f"labels-{upload.version}/report.json")
    storage.write(target, quality.model_dump_json(indent=1))
    measurements.publish(spec.model, measure(quality), at=now)
    ledger.record(
        Fact(
            model=spec.model,
            kind=Kind.LABELS_JOINED,
            subject=upload.version,
            at=now,
            summary=_summary(source.filename, quality, spec),
            details={
                "key": upload.key,
                "report": target,
                "labels": quality.labels,
                "matched": quality.matched,
                "coverage": quality.coverage,
                **{metric.value: value for metric, value in quality.overall.values.items()},
            },
        )
    )
    return Outcome.JOINED


def _join(
    upload: S3Object, source: ObjectKey, spec: ModelSpec, *, captures: Captures, storage: Storage, now: datetime
) -> Quality:
    with tempfile.TemporaryDirectory(prefix="noria-labels-") as folder:
        labels = Path(folder) / "labels"
        storage.download(upload.key, labels, version=upload.version)
        files = captures.newest(now=now, days=LOOK_BACK_DAYS, most_bytes=MOST_CAPTURED_BYTES)
        captured = Source.captured(*captures.fetch(files, Path(folder)))
        return join(captured, [LabelsFile(labels, source.filename)], spec)


def _refuse(
    upload: S3Object,
    source: ObjectKey,
    problems: Sequence[str],
    *,
    storage: Storage,
    ledger: Ledger,
    pages: Pages,
    now: datetime,
) -> Outcome:
    uri, listed = storage.uri(upload.key), "\n".join(f"- {problem}" for problem in problems)
    pages.send(
        Page(
            subject=f"{source.model}: labels {source.filename} cannot be joined",
            what=f"{upload.key} is no labels file of {source.model}, so nothing was measured with it.\n\n{listed}",
            where=uri,
            do="Correct the file and upload it again. The upload is kept; nothing was changed or lost.",
            command=f"aws s3 cp {shlex.quote(source.filename)} {shlex.quote(uri)}",
        )
    )
    ledger.record(
        Fact(
            model=source.model,
            kind=Kind.LABELS_REFUSED,
            subject=upload.version,
            at=now,
            summary=f"Labels refused: {problems[0]}" + (" …" if len(problems) > 1 else ""),
            details={"key": upload.key, "problems": list(problems)},
        )
    )
    return Outcome.REFUSED


def measure(quality: Quality) -> list[Measurement]:
    """Metrics by the names of the spec's in one word: `Auc`, `LogLoss`, `Rmse`."""
    return [
        Measurement(name="LabelCoverage", value=quality.coverage),
        *(
            Measurement(name=metric.value.title().replace("_", ""), value=value)
            for metric, value in quality.overall.values.items()
        ),
    ]


def _summary(filename: str, quality: Quality, spec: ModelSpec) -> str:
    value = quality.overall.values.get(spec.primary_metric)
    score = f"{spec.primary_metric.value} {value:.3f}" if value is not None else f"no {spec.primary_metric.value}"
    return (
        f"{filename}: {quality.matched:,} of {quality.labels:,} labels belong to captured predictions "
        f"({quality.coverage:.0%} of those now have one): {score}."
    )
