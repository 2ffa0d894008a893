"""What an event failed to tell is told again: SageMaker's events are best effort.

| AWS says                                     | the ledger lacks            | told again to        |
|----------------------------------------------|-----------------------------|----------------------|
| a version lies under incoming/               | a verdict                   | validate_upload      |
| a version lies under labels/                 | a join of it, or why not    | join_labels          |
| a file of rows lies under batch/             | a job, or why not           | predict_batch        |
| a transform job has ended                    | its outcome                 | predict_batch        |
| a dataset has a manifest                     | a decision about it         | request_retraining   |
| a training was granted                       | its start                   | start_training       |
| an execution has ended                       | its outcome                 | record_training      |
| a package is approved, rejected, taken back  | that decision               | deploy_model         |
| a package is registered by hand, or imported | the training that made it   | write_card           |
| a package waits, or answers, for too long    | that people were told       | approve_package      |
| a package waits, though enough have approved | the registry's Approved     | approve_package      |
| serving stack and endpoint are quiet         | the deployment's outcome, or they differ | confirm_deployment |
| a progressive step has answered long enough  | what was asked for after it | deploy_model      |
| it is in, or outside of, a model's hours     | that it answers, or does not | deploy_model     |
| an entry of the ledger has no locked copy    |                             | export_ledger     |

Each has the shape of the event that AWS sends, and is told once; little is told to a reaction for which a hundred
messages wait, as in a flood. And SageMaker's lineage follows the ledger (noria/lineage.py).

`noria pause` and `resume` are heard here: what waits for a paused model is not told again, and what waited is given
back when that ends, by a person or by time (noria/pause.py). And what people had sent again is recorded.

Calls: s3:ListBucketVersions on */incoming/*, */labels/* and */batch/*; s3:ListBucket and s3:GetObject on */datasets/*;
sagemaker:ListPipelineExecutions and sagemaker:DescribePipelineExecution on the model's pipeline;
sagemaker:DescribeTransformJob; sagemaker:ListModelPackages; sagemaker:DescribeModelPackage on its packages;
cloudformation:DescribeStacks and cloudformation:ListStackResources on its serving stack; sagemaker:DescribeEndpoint,
sagemaker:DescribeEndpointConfig and sagemaker:DescribeModel; sqs:GetQueueUrl, sqs:GetQueueAttributes and
sqs:SendMessage on the queues of these; sagemaker:CreateAction, sagemaker:DescribeAction, sagemaker:UpdateAction and
sagemaker:AddAssociation on the model's actions; sagemaker:CreateArtifact and sagemaker:AddAssociation on artifacts;
sagemaker:ListArtifacts and sagemaker:ListAssociations; kms:Decrypt, kms:DescribeKey, kms:Encrypt and
kms:GenerateDataKey; dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger; s3:ListBucket on its locked
copies. Of what waited: s3:ListBucket, s3:GetObject and s3:DeleteObject on */held/*, sqs:GetQueueUrl and
sqs:SendMessage on the queues of all that begins, and sns:Publish.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache, cached_property
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.approval import PENDING, Candidate, given, heard_of, judge, told_by_time
from noria.aws.approvals import candidate
from noria.aws.endpoints import Endpoint, EndpointState
from noria.aws.environment import Environment, LedgerEnvironment
from noria.aws.ledger import Copies, Ledger
from noria.aws.lineage import Lineage
from noria.aws.lineage import Outcome as LineageOutcome
from noria.aws.pages import Matter, Page, Pages
from noria.aws.pauses import MOST, Pauses
from noria.aws.pipelines import Pipelines
from noria.aws.queues import Queues
from noria.aws.registry import EXECUTION, PackageSummary, Registry
from noria.aws.retries import retried_soon
from noria.aws.serving import ServingStack, StackState
from noria.aws.stacks import Stacks
from noria.aws.storage import ObjectVersion, Storage
from noria.aws.telemetry import logger, metrics, reaction, tell
from noria.aws.transforms import Transforms
from noria.batch import batch_token, is_upload
from noria.deployment import BY_HOURS, Cause, Desired, Request, difference_subject, live, turned_off, unsettled
from noria.events import (
    DatasetAccepted,
    EventsSentAgain,
    ModelPackageStateChange,
    ObjectCreated,
    PauseRequested,
    PipelineExecutionStatusChange,
    RetrainingRequested,
    SentAgain,
    StackStatusChange,
    Tick,
    TransformJobStateChange,
    parse,
)
from noria.ledger import Entry, Fact, Kind, latest
from noria.names import Names, key
from noria.pause import Turn, paused, resumed, turn, unheard
from noria.retraining import announced, unstarted
from noria.serve import Mode
from noria.spec import Approval
from noria.training import TrainingDataset
from noria.units import count

GRACE = timedelta(minutes=15)
"""What is younger may still be on its way: a queue gives a message back after some minutes."""

LOOK_BACK = timedelta(days=7)

BACKLOG, FEW = 100, 5
"""Where so many messages wait for a reaction, or are tried again, what it has not done yet is among them, and no more
are told in a turn; but so many of each model, which no flood of another's keeps waiting."""


class Outcome(StrEnum):
    TOLD = "EventReplayed"
    NOTHING = "NothingMissed"
    PAUSE = "PauseChanged"
    KNOWN = "PauseKnown"
    RECORDED = "EventsSentAgain"
    UNKNOWN = "UnknownModelIgnored"


@dataclass(frozen=True, kw_only=True)
class Missed:
    """An event to tell again to a reaction; `subject` names it, so that it is told once."""

    reaction: str
    subject: str
    why: str
    event: Mapping[str, Any]


@retried_soon
@reaction
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = LedgerEnvironment.from_os()
    heard = parse(event, Tick, PauseRequested, EventsSentAgain)
    if not isinstance(heard, Tick) and heard.detail.model not in env.models:
        # What a typo asks for is never done, however often it is tried, and nobody could take it out of the ledger.
        tell(Outcome.UNKNOWN, model="none", asked=heard.detail.model)
        return
    ledger, copies, queues = _ledger(env.ledger_table), Copies.of(env.ledger_bucket), Queues()
    # One client of a service for all models: to make one takes longer than most calls.
    storage = Storage(bucket=env.data_bucket)
    pauses = Pauses(names=env.names, ledger=ledger, storage=storage, queues=queues)
    if isinstance(heard, EventsSentAgain):
        ledger.record(_sent_again(heard.detail))
        tell(Outcome.RECORDED, model=heard.detail.model)
        return
    if isinstance(heard, PauseRequested):
        model = heard.detail.model
        changed = pauses.decide(heard.asked, datetime.now(UTC))
        tell(Outcome.PAUSE if changed else Outcome.KNOWN, model=model, given_back=give_back(model, pauses))
        return
    registry, stacks = Registry(), Stacks()
    pipelines, transforms = Pipelines(client=registry.client), Transforms(client=registry.client)
    told: list[str] = []
    failures, room = Failures(), Room(queues=queues)
    waiting = []
    for model in env.models:
        with failures.of(model):
            ended = pauses.end(model, datetime.now(UTC)) or resumed(ledger.entries(model))
            if ended:
                tell_unheard(model, pauses, Pages(topics=env.topics), now=datetime.now(UTC))
                if pauses.waiting(model):
                    waiting.append(model)
    for model in waiting:
        with failures.of(model):
            give_back(model, pauses, most=MOST // len(waiting))
    for model in env.models:
        with failures.of(model):
            search = Search(
                model=model,
                env=env,
                entries=ledger.entries(model),
                given_back=pauses.given_back(model),
                held=model in waiting and pauses.waiting(model),
                copied=copies.numbers(model),
                storage=storage,
                pipelines=pipelines,
                transforms=transforms,
                registry=registry,
                stack=ServingStack(name=env.names.stack(model, "serving"), client=stacks.client),
                endpoint=Endpoint(name=env.names.model(model), client=registry.client),
                now=datetime.now(UTC),
            )
            told += reconcile(search=search, ledger=ledger, room=room)
    tell(Outcome.TOLD if told else Outcome.NOTHING, model="all", events=told)
    # Last, because whoever asks for what was missed does not wait for lineage.
    lineage = _lineage(env.names, env.data_bucket)
    for model in env.models:
        with failures.of(model):
            written = lineage.follow(ledger.entries(model), since=datetime.now(UTC) - LOOK_BACK)
            if written is not LineageOutcome.KNOWN:
                logger.info(written.value, model=model)
                metrics.add_metric(name=written.value, unit=MetricUnit.Count, value=1)  # of all models, as what is told
    failures.raise_them()


@dataclass(frozen=True)
class Failures:
    """What went wrong with one model keeps no other waiting, and fails the turn when it is over."""

    found: list[Exception] = field(default_factory=list)

    @contextmanager
    def of(self, model: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised when the turn is over
            logger.exception("A model could not be reconciled", model=model)
            error.add_note(f"while {model} was reconciled")
            self.found.append(error)

    def raise_them(self) -> None:
        if len(self.found) == 1:
            raise self.found[0]  # by its kind, `retried_soon` knows how soon to try again
        if self.found:
            raise ExceptionGroup("several models could not be reconciled", self.found)


@cache
def _ledger(table: str) -> Ledger:
    """Kept from one tick to the next: of what it has read, it reads nothing again."""
    return Ledger(table=table)


@cache
def _lineage(names: Names, bucket: str) -> Lineage:
    """Kept from one tick to the next: what it has written, it asks nobody about."""
    return Lineage(names=names, bucket=bucket)


def give_back(model: str, pauses: Pauses, *, most: int = MOST) -> int:
    """Send what waited for a model that is not paused; how many events that were.

    At each turn after a pause, too: a function that looked just before the end sets aside just after it.
    """
    return 0 if paused(pauses.ledger.entries(model), datetime.now(UTC)) else pauses.give_back(model, most=most)


def tell_unheard(model: str, pauses: Pauses, pages: Pages, *, now: datetime) -> None:
    """Tell people of events that waited and have nobody to go to; they stay, and keep no other."""
    ledger, where = pauses.ledger, pauses.storage.uri(key(model, "held", ""))
    for name, number in sorted(pauses.unheard(model).items()):
        fact = unheard(ledger.entries(model), model, name, number, now)
        if ledger.knows(model, fact.kind, fact.subject):
            continue
        with ledger.claim(model, fact.meaning, now=now) as ours:
            if not ours:
                continue
            page = Page(
                matter=Matter.UNHEARD,
                subject=f"{model}: events wait for {name}, which is not there",
                what=fact.summary,
                where=where,
                do="If the reaction is to be there, deploy it: the events follow by themselves. If not, remove them.",
                command=f"aws s3 ls --recursive {where}",
            )
            pages.send(page)
            ledger.record(fact)


def _sent_again(told: SentAgain) -> Fact:
    who = told.by.rpartition("/")[2]
    if told.how == "redrive":
        kind, subject = Kind.EVENT_REDRIVEN, f"{told.request} # {', '.join(told.reactions)}"
        were = "was" if told.count == 1 else "were"
        letters = count(told.count, "dead letter") if told.count is not None else "Dead letters"
        summary = f"{letters} of {', '.join(told.reactions)} {were} sent again by {who}."
    else:
        kind, subject = Kind.EVENT_REPLAYED, told.request
        since, until = (f"{at:%Y-%m-%d %H:%M:%S}" if at else "?" for at in (told.since, told.until))
        summary = f"Events of {since} to {until} UTC were sent again by {who} to {', '.join(told.reactions)}."
    details = {
        "by": told.by,
        "reactions": list(told.reactions),
        "count": told.count,
        "since": told.since.isoformat() if told.since else None,
        "until": told.until.isoformat() if told.until else None,
    }
    return Fact(model=told.model, kind=kind, subject=subject, at=told.at, summary=summary, details=details)


@dataclass(frozen=True, kw_only=True)
class Room:
    """How much more is told in a turn."""

    queues: Queues
    _left: dict[str, int] = field(default_factory=dict)
    _taken: Counter[tuple[str, str]] = field(default_factory=Counter)

    def has(self, queue: str, model: str) -> bool:
        if queue not in self._left:
            count = self.queues.count(queue)
            self._left[queue] = BACKLOG - count.waiting - count.in_flight
        return self._left[queue] > 0 or self._taken[queue, model] < FEW

    def take(self, queue: str, model: str) -> None:
        self._left[queue] -= 1
        self._taken[queue, model] += 1


def reconcile(*, search: "Search", ledger: Ledger, room: Room) -> list[str]:
    """Tell a model's reactions what they missed; returns what that was."""
    told = []
    for missed in search.missed():
        if search.waits(missed):
            continue
        queue = search.env.names.queue(missed.reaction)
        if not room.has(queue, search.model) or ledger.knows(search.model, Kind.REPLAYED, missed.subject):
            continue
        room.take(queue, search.model)
        room.queues.send(queue, json.dumps(missed.event))
        ledger.record(
            Fact(
                model=search.model,
                kind=Kind.REPLAYED,
                subject=missed.subject,
                at=search.now,
                summary=f"{missed.why}: {missed.reaction} is told again.",
            )
        )
        told.append(missed.subject)
    return told


@dataclass(frozen=True, kw_only=True)
class Search:
    """Looks for what the ledger should know of a model and does not; `copied` are the entries with a locked copy.

    `given_back` is when events that waited were given back last, and `held` whether others wait after a pause.
    """

    model: str
    env: Environment
    entries: list[Entry]
    given_back: datetime | None
    held: bool
    copied: Container[int]
    storage: Storage
    pipelines: Pipelines
    transforms: Transforms
    registry: Registry
    stack: ServingStack
    endpoint: Endpoint
    now: datetime

    def waits(self, missed: Missed) -> bool:
        """Whether this is not missed, but set aside, or given back a moment ago."""
        ends = (resumed(self.entries), self.given_back)
        recent = any(end is not None and end > self.now - GRACE for end in ends)
        waits = recent or self.held or paused(self.entries, self.now) is not None
        return waits and turn(missed.event) is not Turn.GOES_ON

    @cached_property
    def _packages(self) -> list[PackageSummary]:
        """Newest first."""
        return self.registry.packages(self.env.names.model(self.model))

    def missed(self) -> Iterator[Missed]:
        yield from self._uploads()
        yield from self._labels()
        yield from self._batches()
        yield from self._transform_jobs()
        yield from self._datasets()
        yield from self._grants()
        yield from self._executions()
        yield from self._decisions()
        yield from self._registered()
        yield from self._looks()
        yield from self._deployments()
        yield from self._steps()
        yield from self._hours()
        yield from self._copies()

    def _uploads(self) -> Iterator[Missed]:
        judged = {entry.details.get("version") for entry in self.entries if entry.kind is Kind.DATASET_ACCEPTED}
        judged |= {entry.subject for entry in self.entries if entry.kind is Kind.DATASET_QUARANTINED}
        for upload in self.storage.versions(key(self.model, "incoming", "")):
            if upload.version in judged or not self._settled(upload.modified) or upload.key.endswith("/"):
                continue
            yield self._upload("validate-upload", upload, f"{upload.key} has no verdict")

    def _labels(self) -> Iterator[Missed]:
        known: set[object] = set()
        for entry in self.entries:
            if entry.kind in {Kind.LABELS_JOINED, Kind.LABELS_REFUSED}:
                told = entry.details.get("versions")
                known |= {entry.subject, *(told if isinstance(told, list) else ())}
        for upload in self.storage.versions(key(self.model, "labels", "")):
            if upload.version in known or not self._settled(upload.modified) or upload.key.endswith("/"):
                continue
            # Kept at once, joined in turn: that takes a quarter of an hour more.
            if upload.modified <= self.now - 2 * GRACE:
                yield self._upload("join-labels", upload, f"{upload.key} was neither joined nor refused")

    def _batches(self) -> Iterator[Missed]:
        kinds = {Kind.BATCH_STARTED, Kind.BATCH_REFUSED, Kind.BATCH_FAILED}
        known = {entry.subject for entry in self.entries if entry.kind in kinds}
        for upload in self.storage.versions(key(self.model, "batch", "")):
            if not is_upload(upload.key) or not self._settled(upload.modified):
                continue
            if batch_token(upload.key, upload.version) not in known:
                yield self._upload("predict-batch", upload, f"{upload.key} was neither answered nor refused")

    def _transform_jobs(self) -> Iterator[Missed]:
        ended = {e.subject for e in self.entries if e.kind in {Kind.BATCH_PREDICTED, Kind.BATCH_FAILED}}
        for entry in self.entries:
            if entry.kind is not Kind.BATCH_STARTED or entry.subject in ended or not self._settled(entry.at):
                continue
            job = self.transforms.describe(str(entry.details["job"]))
            if job is None or not job.finished or job.changed > self.now - GRACE:
                continue
            detail = {
                "TransformJobName": job.name,
                "TransformJobStatus": job.status,
                "TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": job.input}}},
                **({"FailureReason": job.failure} if job.failure else {}),
            }
            yield Missed(
                reaction="predict-batch",
                subject=f"job {job.name}",
                why=f"Transform job {job.name} ended ({job.status}) unheard",
                event=self._event(TransformJobStateChange, detail),
            )

    def _upload(self, reaction: str, upload: ObjectVersion, why: str) -> Missed:
        detail = {
            "bucket": {"name": self.storage.bucket},
            "object": {"key": upload.key, "size": upload.size, "version-id": upload.version},
        }
        event = self._event(ObjectCreated, detail)
        return Missed(reaction=reaction, subject=f"upload {upload.version}", why=why, event=event)

    def _datasets(self) -> Iterator[Missed]:
        decided = {Kind.TRAINING_HELD, Kind.RETRAINING_REQUESTED}
        known = {entry.subject for entry in self.entries if entry.kind in decided}
        for entry in self.entries:
            if entry.kind is Kind.TRAINING_STARTED and isinstance(hashes := entry.details["datasets"], list):
                known |= set(hashes)
        for manifest in self.storage.list(key(self.model, "datasets", "")):
            folder, _, name = manifest.key.rpartition("/")
            sha256 = folder.rsplit("/", 1)[-1]
            if name != "manifest.json" or sha256 in known or not self._settled(manifest.modified):
                continue
            dataset = TrainingDataset.model_validate_json(self.storage.read(manifest.key))
            accepted = next((e for e in self.entries if e.kind is Kind.DATASET_ACCEPTED and e.subject == sha256), None)
            upload = accepted.details if accepted else {}
            detail = {
                "model": self.model,
                "dataset": sha256,
                "key": str(upload.get("key", dataset.key)),
                "version": str(upload.get("version", "")),
                "rows": dataset.rows,
                "correlation": accepted.correlation if accepted else None,
            }
            yield Missed(
                reaction="request-retraining",
                subject=f"dataset {sha256}",
                why=f"Dataset {sha256[:12]} was neither trained on nor held",
                event=self._event(DatasetAccepted, detail),
            )

    def _grants(self) -> Iterator[Missed]:
        for entry in unstarted(self.entries):
            if entry.at > self.now - GRACE:
                continue
            yield Missed(
                reaction="start-training",
                # Once an hour: until it has begun, nothing else may train.
                subject=f"grant {entry.subject} {self.now:%Y-%m-%dT%H}",
                why="A granted training has not begun",
                event=self._event(
                    RetrainingRequested, announced(entry).model_dump(mode="json") | {"correlation": entry.correlation}
                ),
            )

    def _executions(self) -> Iterator[Missed]:
        told = {e.subject for e in self.entries if e.kind in {Kind.TRAINING_SUCCEEDED, Kind.TRAINING_FAILED}}
        pipeline = self.env.names.model(self.model)
        for execution in self.pipelines.executions(pipeline, since=self.now - LOOK_BACK):
            if not execution.finished or execution.arn in told:
                continue
            if self.pipelines.changed(execution.arn) > self.now - GRACE:
                continue
            detail = {
                "pipelineArn": execution.arn.partition("/execution/")[0],
                "pipelineExecutionArn": execution.arn,
                "currentPipelineExecutionStatus": execution.status,
            }
            yield Missed(
                reaction="record-training",
                subject=f"execution {execution.arn}",
                why=f"Execution {execution.arn.rsplit('/', 1)[-1]} ended ({execution.status}) unheard",
                event=self._event(PipelineExecutionStatusChange, detail),
            )

    def _decisions(self) -> Iterator[Missed]:
        group = self.env.names.model(self.model)
        for summary in self._packages:
            if heard_of(self.entries, summary.arn, summary.approval):
                continue
            package = self.registry.describe(summary.arn)
            if not self._settled(package.modified):
                continue
            detail = {
                "ModelPackageGroupName": group,
                "ModelPackageArn": package.arn,
                "ModelApprovalStatus": package.approval,
                "UpdatedModelPackageFields": ["ModelApprovalStatus"],
                "LastModifiedTime": package.modified.isoformat(),
            }
            what = "taken back" if package.approval == PENDING else package.approval.lower()
            yield Missed(
                reaction="deploy-model",
                subject=f"decision {package.arn}#{package.modified.isoformat()}",
                why=f"Version {package.version} was {what} unheard",
                event=self._event(ModelPackageStateChange, detail),
            )

    def _registered(self) -> Iterator[Missed]:
        """No training's end tells write_card of these, and a package that waits for its first decision has no event."""
        trained = {e.details.get("package") for e in self.entries if e.kind is Kind.TRAINING_SUCCEEDED}
        imported = {e.details.get("package") for e in self.entries if e.kind is Kind.PACKAGE_IMPORTED}
        group = self.env.names.model(self.model)
        for summary in self._packages:
            if summary.approval != PENDING or summary.arn in trained or not self._settled(summary.created):
                continue
            # Of an execution that nobody has heard of yet, that is what is told.
            if summary.arn not in imported and EXECUTION in self.registry.describe(summary.arn).metadata:
                continue
            detail = {
                "ModelPackageGroupName": group,
                "ModelPackageArn": summary.arn,
                "ModelApprovalStatus": summary.approval,
                "UpdatedModelPackageFields": [],
            }
            yield Missed(
                reaction="write-card",
                subject=f"registered {summary.arn}",
                why=f"Version {summary.version} comes from no training that is known",
                event=self._event(ModelPackageStateChange, detail),
            )

    def _looks(self) -> Iterator[Missed]:
        """What time brings, and approvals that nobody let count."""
        spec = self.env.required_spec(self.model)
        if spec.approval == Approval():
            return
        for summary in self._packages:
            listed = Candidate(package=summary.arn, approval=summary.approval, created=summary.created)
            due = told_by_time(spec, self.entries, listed, self.now)
            waits = summary.approval == PENDING and not due
            words = given(self.entries, summary.arn)
            complete = waits and words and self._settled(words[-1].at)
            if due:
                subject, why = f"{due[0].kind} {summary.arn}", f"Version {summary.version} {due[0].kind}"
            elif complete and judge(spec, self.entries, candidate(self.registry.describe(summary.arn))).approved:
                subject = f"approvals {summary.arn} {words[-1].number}"
                why = f"Version {summary.version} has the approvals that it needs, and waits"
            else:
                continue
            detail = {"model": self.model, "time": self.now.isoformat(), "package": summary.arn}
            event = self._event(Tick, detail, "Look At Package")
            yield Missed(reaction="approve-package", subject=subject, why=why, event=event)

    def _deployments(self) -> Iterator[Missed]:
        stack, endpoint = self.stack.found(), self.endpoint.state()
        if stack is None or stack.in_progress or stack.changed > self.now - GRACE or (endpoint and endpoint.changing):
            return
        waiting = [request for request in unsettled(self.entries) if request.at <= self.now - GRACE]
        hours = self.env.required_spec(self.model).serve.hours
        if turned_off(self.entries) or (hours and endpoint is None and not hours.include(self.now)):
            waiting = [request for request in waiting if request.cause in BY_HOURS]  # the others wait for the hours
        known = live(self.entries) or Desired(package=None)
        # A batch model has no endpoint that its stack could be wrong about.
        batch = self.env.required_spec(self.model).serve.mode is Mode.BATCH
        answers = endpoint.desired if endpoint else known if batch else Desired(package=None)
        if not waiting and answers == stack.desired == known and not self._another_config(stack, endpoint):
            return
        detail = {"stack-id": stack.id, "status-details": {"status": stack.status}, "client-request-token": ""}
        what = f"Deployment {waiting[-1].id} has no outcome" if waiting else "Stack, endpoint and ledger differ"
        yield Missed(
            reaction="confirm-deployment",
            # Once an hour: what stays so is not for one event to mend.
            subject=f"serving {stack.changed.isoformat()} {self.now:%Y-%m-%dT%H}",
            why=f"{what} while all is quiet",
            event=self._event(StackStatusChange, detail),
        )

    def _another_config(self, stack: StackState, endpoint: EndpointState | None) -> bool:
        """Whether the endpoint has kept an older configuration than the stack's, and nobody has been told."""
        config = self.stack.config()
        if endpoint is None or config is None or config.lower() == endpoint.config.lower():
            return False
        subject = difference_subject(endpoint.config, stack.changed)
        return not any(e.kind is Kind.SERVING_DIFFERS and e.subject == subject for e in self.entries)

    def _steps(self) -> Iterator[Missed]:
        last = latest(self.entries, Kind.DEPLOYMENT_REQUESTED)
        deployed = latest(self.entries, Kind.DEPLOYED)
        if last is None or deployed is None or deployed.subject != last.subject:
            return
        if Request.of(last).cause is not Cause.PROGRESSIVE:
            return
        due = deployed.at + self.env.required_spec(self.model).serve.bake
        if Desired.of(deployed.details).challenger is None or due > self.now - GRACE:
            return
        detail = {"model": self.model, "time": due.isoformat(), "deployment": deployed.subject}
        yield Missed(
            reaction="deploy-model",
            subject=f"step {deployed.subject}",
            why=f"{Desired.of(deployed.details)} has answered long enough".capitalize(),
            event=self._event(Tick, detail, "Advance Challenger"),
        )

    def _hours(self) -> Iterator[Missed]:
        hours, gone = self.env.required_spec(self.model).serve.hours, turned_off(self.entries)
        answers = live(self.entries) or Desired(package=None)
        within = hours is None or hours.include(self.now)
        turned = hours.turned(self.now) if hours else None
        if within == (answers.package is not None) or (within and gone is None):
            return
        if turned and turned > self.now - GRACE:
            return
        detail = {"model": self.model, "time": self.now.isoformat()}
        yield Missed(
            reaction="deploy-model",
            # Once an hour: what fails is tried again as often.
            subject=f"hours {self.now:%Y-%m-%dT%H}",
            why=f"{self.model} is {'off within' if within else 'on outside of'} its hours",
            event=self._event(Tick, detail, "Keep Hours"),
        )

    def _copies(self) -> Iterator[Missed]:
        lacking = [e for e in self.entries if e.number not in self.copied and e.at <= self.now - GRACE]
        if lacking:
            first = lacking[0].number
            yield Missed(
                reaction="export-ledger",
                # Once an hour: an export may fail for longer, and be mended.
                subject=f"copies from {first} {self.now:%Y-%m-%dT%H}",
                why=f"{len(lacking)} entries from number {first} on have no locked copy",
                event=self._event(Tick, {"model": self.model, "time": self.now.isoformat()}, "Export Ledger"),
            )

    def _settled(self, at: datetime) -> bool:
        return self.now - LOOK_BACK <= at <= self.now - GRACE

    def _event(self, kind: type[Any], detail: Mapping[str, Any], detail_type: str | None = None) -> dict[str, Any]:
        """An event as AWS sends it, with an id that says it was made here. No effect of the look that found it."""
        detail = {"correlation": None, **detail}
        identity = hashlib.sha256(json.dumps(detail, sort_keys=True).encode()).hexdigest()[:24]
        return {
            "version": "0",
            "id": f"replayed-{identity}",
            "detail-type": detail_type or kind.DETAIL_TYPES[0],
            "source": kind.SOURCE,
            "account": self.env.account,
            "time": self.now.isoformat(),
            "region": self.env.region,
            "resources": [],
            "detail": detail,
        }
