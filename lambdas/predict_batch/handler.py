"""A file of rows put under `<model>/batch/` is answered by the live model: the result comes to lie beside it.

upload ─ live model ─ its signature ─ check, prepare ┬ transform job, ledger
                                                     └ refused: report, page, ledger
job ended ┬ Completed: result beside the upload, ledger
          └ Failed, Stopped: page, ledger

Calls: s3:GetObject and s3:GetObjectVersion on */batch/*; s3:PutObject on */batch/*; s3:GetObject and s3:PutObject on
*/transforms/*; s3:GetObject on */runs/*; s3:ListBucket; kms:Decrypt, kms:DescribeKey, kms:Encrypt and
kms:GenerateDataKey; sagemaker:CreateTransformJob and sagemaker:DescribeTransformJob; sagemaker:DescribeEndpoint,
sagemaker:DescribeEndpointConfig, sagemaker:DescribeModel and sagemaker:DescribeModelPackage;
cloudformation:DescribeStacks on the model's serving stack; sns:Publish; dynamodb:GetItem, dynamodb:Query and
dynamodb:PutItem on the ledger.
While the model is paused: s3:PutObject on */held/*.
"""

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria import batch
from noria.aws.endpoints import CHAMPION, Endpoint
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.pages import Matter, Page, Pages
from noria.aws.pauses import pausable
from noria.aws.registry import Registry
from noria.aws.retries import retried_soon
from noria.aws.serving import MODEL, ServingStack
from noria.aws.storage import Storage
from noria.aws.telemetry import follow, reaction, tell
from noria.aws.transforms import RefusedError, Transforms
from noria.batch import Batch, Report, Signature, batch_token, counted, job_name, work_key
from noria.events import ObjectCreated, S3Object, TransformJobDetail, TransformJobStateChange, parse
from noria.ledger import Fact, Kind, correlation_of
from noria.names import ObjectKey, version
from noria.spec import ModelSpec
from noria.violations import Violation

REQUEST = "request.json"
LOG_GROUP = "/aws/sagemaker/TransformJobs"


class Outcome(StrEnum):
    STARTED = "BatchStarted"
    REFUSED = "BatchRefused"
    PREDICTED = "BatchPredicted"
    FAILED = "BatchFailed"
    KNOWN = "BatchKnown"
    RUNNING = "BatchRunning"
    ELSEWHERE = "OtherAreaIgnored"


class BatchEnvironment(Environment):
    key_arn: str | None = None


@dataclass(frozen=True, kw_only=True)
class Live:
    """What answers now: SageMaker's name of the model, and the package that it was made of."""

    model_name: str
    package: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a model's batches are taken and told. `name` is the model's in SageMaker."""

    name: str
    key_arn: str | None
    storage: Storage
    transforms: Transforms
    registry: Registry
    endpoint: Endpoint
    stack: ServingStack
    ledger: Ledger
    pages: Pages
    now: datetime


@retried_soon
@reaction
@pausable
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = BatchEnvironment.from_os()
    happened = parse(event, ObjectCreated, TransformJobStateChange)
    storage = Storage(bucket=env.data_bucket)
    key = _key(happened, storage)
    if key is None:
        tell(Outcome.ELSEWHERE, model="none")
        return
    model = key.split("/")[0]
    place = Place(
        name=env.names.model(model),
        key_arn=env.key_arn,
        storage=storage,
        transforms=Transforms(),
        registry=Registry(),
        endpoint=Endpoint(name=env.names.model(model)),
        stack=ServingStack(name=env.names.stack(model, "serving")),
        ledger=Ledger(table=env.ledger_table),
        pages=Pages(topics=env.topics),
        now=datetime.now(UTC),
    )
    if isinstance(happened, ObjectCreated):
        outcome = start_batch(upload=happened.detail.object, spec=env.spec(model), place=place)
    else:
        outcome = end_batch(job=happened.detail, work=ObjectKey.parse(key), place=place)
    tell(outcome, model=model, key=key)


def _key(happened: ObjectCreated | TransformJobStateChange, storage: Storage) -> str | None:
    """The object that it is about; None for a job that somebody runs on data of their own."""
    if isinstance(happened, ObjectCreated):
        return happened.detail.object.key
    start = storage.uri("")
    return happened.detail.input.removeprefix(start) if happened.detail.input.startswith(start) else None


# --- an upload


def start_batch(*, upload: S3Object, spec: ModelSpec | None, place: Place) -> Outcome:
    """Answer one uploaded version. `spec` is None when nobody has described the model that the key names."""
    if not batch.is_upload(upload.key):
        return Outcome.ELSEWHERE
    source = ObjectKey.parse(upload.key)
    if source.area != "batch":  # the rule's wildcard also matches a deeper folder of that name
        return Outcome.ELSEWHERE
    token = batch_token(upload.key, upload.version)
    told = (Kind.BATCH_STARTED, Kind.BATCH_REFUSED, Kind.BATCH_FAILED)
    if any(place.ledger.knows(source.model, kind, token) for kind in told):
        return Outcome.KNOWN
    if place.transforms.describe(job_name(place.name, token)) is not None:  # a delivery before this one began it
        _record_start(Batch.model_validate_json(place.storage.read(work_key(source.model, token, REQUEST))), place)
        return Outcome.STARTED
    try:
        request = _prepare(upload, source, spec, place)
    except UnanswerableError as refusal:
        return _refuse(upload, source, refusal.report, place)
    return _start(request, place)


class UnanswerableError(Exception):
    """A batch that cannot be answered, and why."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.to_text())
        self.report = report

    @classmethod
    def because(cls, source: ObjectKey, rule: str, message: str) -> Self:
        wrong = Violation(rule=rule, message=message)
        return cls(Report(model=source.model, filename=source.filename, rows=0, violations=(wrong,)))


def _prepare(upload: S3Object, source: ObjectKey, spec: ModelSpec | None, place: Place) -> Batch:
    """Check an upload, and write the rows and the request of its job. Raises `UnanswerableError`."""
    model = source.model
    if spec is None:
        unknown = f"no model is called {model!r}: upload to <model>/batch/, or describe it and deploy"
        raise UnanswerableError.because(source, "model", unknown)
    if (live := _live(spec, place)) is None:
        raise UnanswerableError.because(source, "live", _nothing_live(spec, place.now))
    if upload.size > batch.LARGEST:
        large = f"{upload.size:,} bytes, at most {batch.LARGEST:,} can be answered at once: split the file"
        raise UnanswerableError.because(source, "size", large)
    token, kind = batch_token(upload.key, upload.version), batch.format_of(source.filename)
    with tempfile.TemporaryDirectory(prefix="noria-batch-") as folder:
        file, rows = Path(folder) / "upload", Path(folder) / "rows"
        place.storage.download(upload.key, file, version=upload.version)
        signature = _signature(live.package, spec, place)
        prepared = batch.prepare(file, signature, model=model, filename=source.filename, to=rows)
        if not prepared.report.accepted or kind is None:
            raise UnanswerableError(prepared.report)
        request = Batch(
            model=model,
            token=token,
            key=upload.key,
            version=upload.version,
            format=kind,
            rows=prepared.report.rows,
            columns=prepared.columns,
            others=prepared.others,
            package=live.package,
            model_name=live.model_name,
            instance=spec.serve.instance,
        )
        place.storage.upload(rows, request.work(request.input))
    place.storage.write(request.work(REQUEST), request.model_dump_json(indent=1))
    return request


def _start(request: Batch, place: Place) -> Outcome:
    name = job_name(place.name, request.token)
    uri = place.storage.uri
    try:
        place.transforms.start(
            name, request, source=uri(request.work(request.input)), target=uri(request.work("")), key=place.key_arn
        )
    except RefusedError as error:
        return _fail(request, f"SageMaker does not take the job: {error}", place)
    _record_start(request, place)
    return Outcome.STARTED


def _record_start(request: Batch, place: Place) -> None:
    place.ledger.record(
        Fact(
            model=request.model,
            kind=Kind.BATCH_STARTED,
            subject=request.token,
            at=place.now,
            summary=f"{_described(request)}, is being answered by {version(request.package)}.",
            details={**_details(request, place), "rows": request.rows},
        )
    )


def _live(spec: ModelSpec, place: Place) -> Live | None:
    if spec.serve.mode.has_endpoint:
        state = place.endpoint.state()
        if state is None or state.package is None:
            return None
        return Live(model_name=state.models[CHAMPION], package=state.package)
    model = place.stack.state().outputs.get(MODEL)
    package = place.endpoint.package_of(model) if model else None
    return Live(model_name=model, package=package) if model and package else None


def _nothing_live(spec: ModelSpec, now: datetime) -> str:
    if (hours := spec.serve.hours) and not hours.include(now):
        back = hours.local(hours.next_start(now))
        return f"nothing is live of {spec.model} before {back}: upload the file again when an approved package answers"
    return f"nothing is live of {spec.model}: approve a package, and upload the file again when it is live"


def _signature(package: str, spec: ModelSpec, place: Place) -> Signature:
    """What the live package takes: it may be older than the spec."""
    bundle = place.registry.describe(package).model_data
    if bundle is None:
        return Signature.of(spec)
    return Signature.in_bundle(place.storage.open(place.storage.key_of(bundle))) or Signature.of(spec)


def _refuse(upload: S3Object, source: ObjectKey, report: Report, place: Place) -> Outcome:
    token = batch_token(upload.key, upload.version)
    key = work_key(source.model, token, "report.json")
    place.storage.write(key, report.model_dump_json(indent=1))
    problems = counted(len(report.violations), "problem")
    place.pages.send(
        Page(
            matter=Matter.BATCH_REFUSED,
            subject=f"{source.model}: {source.filename} cannot be answered ({problems})",
            what=f"{upload.key} is not answered, and nothing was started.\n\n{report.to_text()}",
            where=place.storage.uri(key),
            do="Do what each line says, and upload the file again. The upload is kept; nothing was changed or lost.",
            command=f"noria predict {source.model} {source.filename}",
        )
    )
    place.ledger.record(
        Fact(
            model=source.model,
            kind=Kind.BATCH_REFUSED,
            subject=token,
            at=place.now,
            summary=f"{source.filename} cannot be answered, {problems}: {report.violations[0].message}"
            + (" …" if len(report.violations) > 1 else ""),
            details={
                "key": upload.key,
                "version": upload.version,
                "report": place.storage.uri(key),
                "problems": len(report.violations),
            },
        )
    )
    return Outcome.REFUSED


# --- its end


def end_batch(*, job: TransformJobDetail, work: ObjectKey, place: Place) -> Outcome:
    """Bring what became of a job to people. `work` is the key of the rows that it read."""
    if work.area != "transforms":
        return Outcome.ELSEWHERE
    token = work.rest.split("/")[0]
    if any(place.ledger.knows(work.model, kind, token) for kind in (Kind.BATCH_PREDICTED, Kind.BATCH_FAILED)):
        return Outcome.KNOWN
    follow(correlation_of(place.ledger.entries(work.model), job.job))
    request = Batch.model_validate_json(place.storage.read(work_key(work.model, token, REQUEST)))
    match job.status:
        case "Completed":
            return _predicted(request, work, place)
        case "Failed" | "Stopped":
            return _fail(request, job.failure or f"The job was {job.status.lower()}", place)
    return Outcome.RUNNING


def _predicted(request: Batch, work: ObjectKey, place: Place) -> Outcome:
    # A later upload under this name is answered by a job of its own, and the name's result is that one's.
    newest = place.storage.newest_version(request.key)
    replaced = newest is not None and newest != request.version
    result = request.work("result") if replaced else request.result
    with tempfile.TemporaryDirectory(prefix="noria-batch-") as folder:
        answered, finished = Path(folder) / "answered", Path(folder) / "result"
        place.storage.download(f"{work}{batch.RESULT}", answered)
        batch.finish(request, answered, finished)
        place.storage.upload(finished, result)
    uri = place.storage.uri(result)
    place.ledger.record(
        Fact(
            model=request.model,
            kind=Kind.BATCH_PREDICTED,
            subject=request.token,
            at=place.now,
            summary=f"{_described(request)}, was answered by {version(request.package)}: {uri}"
            + (" (a later upload has its name)" if replaced else ""),
            details={**_details(request, place), "rows": request.rows, "result": uri},
        )
    )
    return Outcome.PREDICTED


def _fail(request: Batch, why: str, place: Place) -> Outcome:
    job = job_name(place.name, request.token)
    place.pages.send(
        Page(
            matter=Matter.BATCH_FAILED,
            subject=f"{request.model}: {_name(request)} was not answered",
            what=f"{request.key} has no result: {why}",
            where=f"transform job {job}",
            do="Read what the model said in the job's log, mend the cause, then upload the file again.",
            command=f"aws logs tail {LOG_GROUP} --log-stream-name-prefix {job}",
        )
    )
    place.ledger.record(
        Fact(
            model=request.model,
            kind=Kind.BATCH_FAILED,
            subject=request.token,
            at=place.now,
            summary=f"{_name(request)} was not answered: {why}",
            details={**_details(request, place), "reason": why},
        )
    )
    return Outcome.FAILED


def _name(request: Batch) -> str:
    return ObjectKey.parse(request.key).filename


def _described(request: Batch) -> str:
    return f"{_name(request)}, {counted(request.rows, 'row')}"


def _details(request: Batch, place: Place) -> dict[str, str | int | float | bool | list[str] | None]:
    return {
        "key": request.key,
        "version": request.version,
        "job": job_name(place.name, request.token),
        "package": request.package,
    }
