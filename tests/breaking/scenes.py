"""The moment before each event, reaction by reaction: a world of its own for each model that is made."""

import json
import random
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import boto3

from lambdas.predict_batch.handler import handler as predict_batch
from lambdas.start_training.handler import handler as start_training
from local.cloud import ACCOUNT
from noria.ledger import Kind
from noria.names import Names
from tests.breaking.delivery import REGISTRY_BUCKET, REGISTRY_ENV, queued
from tests.integration.reactions import test_batches as batches
from tests.integration.reactions import test_labels as labels
from tests.integration.reactions import test_monitoring as monitoring
from tests.integration.reactions import test_probes as probes
from tests.integration.reactions import test_retraining as retraining
from tests.integration.reactions import test_training as training
from tests.integration.reactions import test_uploads as uploads
from tests.integration.reactions.place import IMAGE, Place
from tests.integration.reactions.served import BROKEN, Served
from tests.unit import test_logged as logged


@dataclass(frozen=True)
class Moment:
    """What is to be delivered, in the order in which it happened, and how to wait for what that begins.

    `afterwards` comes hours later in any case: what was booked, or what a schedule says.
    """

    model: str
    messages: tuple[dict[str, Any], ...]
    settle: Callable[[], object] = field(default=lambda: None)
    afterwards: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Scene:
    """One kind of event of one reaction.

    `hidden` is how long a message that was not done stays hidden, `age` how old the event is when it first comes.
    `parts` are those of the world that are the same whichever of several events comes first, `folders` those of the
    model's objects; () for all.
    """

    reaction: str
    what: str
    before: Callable[[Place], Moment]
    hidden: timedelta = timedelta(minutes=6)
    age: timedelta = timedelta(0)
    parts: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.reaction}: {self.what}"


SCENES: list[Scene] = []
NEIGHBOURS: list[Scene] = []
"""Of several events each, any of which may come first."""

Before = Callable[[Place], Moment]


def scene(reaction: str, what: str, *, to: list[Scene] = SCENES, **more: Any) -> Callable[[Before], Before]:
    def add(before: Before) -> Before:
        to.append(Scene(reaction, what, before, **more))
        return before

    return add


neighbours = partial(scene, to=NEIGHBOURS)


def drawn(scenes: list[Scene], wanted: str, few: int, seed: int) -> list[Scene]:
    """All of them, or a few."""
    return scenes if wanted == "all" else random.Random(seed).sample(scenes, min(few, len(scenes)))  # noqa: S311


PACKAGE_CHANGE = "SageMaker Model Package State Change"
DATA_HIDDEN = timedelta(minutes=90)  # six times what functions with data work may take


# --- uploads


def _uploaded(place: Place, **changes: Any) -> Moment:
    spec = place.model()
    key, body = f"{spec.model}/incoming/january.csv", uploads.table(spec, **changes)
    event = place.uploaded(key, place.put(key, body), len(body))
    return Moment(spec.model, (queued(event),))


@scene("validate_upload", "a good file", hidden=DATA_HIDDEN)
def good_file(place: Place) -> Moment:
    return _uploaded(place)


@scene("validate_upload", "a broken file", hidden=DATA_HIDDEN)
def broken_file(place: Place) -> Moment:
    return _uploaded(place, hour="25")


# --- trainings


@scene("request_retraining", "an alarm that is granted a training")
def alarm_with_data(place: Place) -> Moment:
    spec = place.model()
    retraining.accept(place, spec, "february")
    return Moment(spec.model, (queued(retraining.alarm(place, spec)),))


@scene("request_retraining", "an alarm that is refused one")
def alarm_without_data(place: Place) -> Moment:
    spec = place.model()
    return Moment(spec.model, (queued(retraining.alarm(place, spec)),))


@scene("request_retraining", "data that wait for the training that runs")
def data_that_wait(place: Place) -> Moment:
    spec = place.model(retrain={"after": ["upload"]})
    retraining.accept(place, spec, "january")
    retraining.begin(place, spec, "january", "january")
    return Moment(spec.model, (queued(retraining.accept(place, spec, "february")),))


@scene("start_training", "a grant")
def grant(place: Place) -> Moment:
    spec = place.model()
    training.pipeline(place, spec)
    place.put(f"{spec.model}/runs/one/evaluation.json", training.evaluation(passed=True))
    training.dataset(place, spec, 1)
    return Moment(spec.model, (queued(training.granted(place, spec)),), lambda: _ended(place, spec))


def _ended(place: Place, spec: Any) -> None:
    for execution in training.executions(place, spec):
        training.ended(place, execution["PipelineExecutionArn"])


# --- serving


@scene("deploy_model", "an approval")
def approval(place: Place) -> Moment:
    served = Served(place, place.model().model).create()
    event = served.decide(served.register(), "Approved")
    return Moment(served.model, (queued(event),), served.stack)


def _trained(place: Place, cause: Any) -> Moment:
    spec = place.model()
    training.pipeline(place, spec)
    place.put(f"{spec.model}/runs/one/evaluation.json", training.evaluation(passed=True))
    training.dataset(place, spec, 1)
    place.deliver(start_training, training.granted(place, spec, cause))
    (execution,) = training.executions(place, spec)
    event = training.ended(place, execution["PipelineExecutionArn"])
    return Moment(spec.model, (queued(event),))


@scene("record_training", "a training that registered a package")
def succeeded(place: Place) -> Moment:
    return _trained(place, "first")


@scene("record_training", "a training that was refused")
def refused(place: Place) -> Moment:
    return _trained(place, "drift")


# --- approvals


def _awaiting(place: Place, **approval: Any) -> tuple[Served, str]:
    served = Served(place, place.model(approval=approval).model).create()
    return served, served.register()


def _asks(served: Served, package: str, by: str) -> dict[str, Any]:
    return {
        "version": "2.0",
        "routeKey": "POST /approvals/{model}",
        "pathParameters": {"model": served.model},
        "headers": {"content-type": "application/json"},
        "requestContext": {
            "authorizer": {"iam": {"userArn": f"arn:aws:iam::{ACCOUNT}:user/{by}", "accountId": ACCOUNT}},
            "domainName": "api",
            "requestId": by,
        },
        "body": json.dumps({"package": package, "reason": "looked at it"}),
        "isBase64Encoded": False,
    }


@scene("approve_package", "a person whose approval is enough")
def enough(place: Place) -> Moment:
    served, package = _awaiting(place, mode="strict")
    return Moment(served.model, (_asks(served, package, "ana"),))


@scene("approve_package", "two people who are both needed")
def both(place: Place) -> Moment:
    served, package = _awaiting(place, mode="strict", approvers=2)
    return Moment(served.model, (_asks(served, package, "ana"), _asks(served, package, "ben")))


@scene("import_package", "a package that was approved in the environment with the registry")
def imported(place: Place) -> Moment:
    spec, there = place.model(), Names(env=REGISTRY_ENV)
    group = there.model(spec.model)
    place.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    place.sagemaker.create_model_package_group(ModelPackageGroupName=place.names.model(spec.model))
    uris = {}
    for name, key in {"model": "runs/1/model.tar.gz", "baseline": "baselines/1/baseline.json"}.items():
        place.s3.put_object(Bucket=REGISTRY_BUCKET, Key=f"{spec.model}/{key}", Body=name.encode())
        uris[name] = f"s3://{REGISTRY_BUCKET}/{spec.model}/{key}"
    container = {"Image": IMAGE, "ModelDataUrl": uris["model"]}
    package = place.sagemaker.create_model_package(
        ModelPackageGroupName=group,
        ModelApprovalStatus="Approved",
        CustomerMetadataProperties={"noria:baseline": uris["baseline"]},
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )["ModelPackageArn"]
    detail = {
        "ModelPackageGroupName": group,
        "ModelPackageArn": package,
        "ModelApprovalStatus": "Approved",
        "UpdatedModelPackageFields": ["ModelApprovalStatus"],
        "LastModifiedTime": datetime.now(UTC).isoformat(),
    }
    return Moment(spec.model, (queued(place.event("aws.sagemaker", PACKAGE_CHANGE, detail)),))


# --- serving


@scene("deploy_model", "a rejection of what is live")
def rejection(place: Place) -> Moment:
    served = _live(place, versions=2)
    event = served.decide(served.packages[1], "Rejected", "customers complain")
    return Moment(served.model, (queued(event),), served.stack)


@scene("deploy_model", "a stack that came to rest while an approval waited")
def waiting(place: Place) -> Moment:
    served = Served(place, place.model().model).create()
    served.approve(served.register())
    served.approve(served.register())
    return Moment(served.model, (queued(served.settled()),), served.stack)


@scene("deploy_model", "a person who goes back to the version before")
def way_back(place: Place) -> Moment:
    served = _live(place, versions=2)
    asked = {
        "model": served.model,
        "action": "rollback",
        "package": None,
        "percent": None,
        "reason": "it is too slow",
        "by": "ana",
        "requested_at": datetime.now(UTC).isoformat(),
        "request": str(uuid.uuid4()),
    }
    return Moment(served.model, (queued(place.event("noria", "Serving Requested", asked)),), served.stack)


@dataclass
class Live(Served):
    packages: list[str] = field(default_factory=list)


def _live(place: Place, versions: int) -> Live:
    served = Live(place, place.model().model)
    served.create()
    for _ in range(versions):
        served.packages.append(served.register())
        served.approve(served.packages[-1])
        served.confirm()
    return served


@scene("confirm_deployment", "a version that went live in place of another")
def went_live(place: Place) -> Moment:
    served = _live(place, versions=2)
    served.approve(served.register())
    return Moment(served.model, (queued(served.settled()),), served.stack)


@scene("confirm_deployment", "a version that SageMaker took back")
def taken_back(place: Place) -> Moment:
    served = _live(place, versions=1)
    served.alarm("ALARM")
    served.approve(served.register())
    event = served.settled()
    served.alarm("OK")
    return Moment(served.model, (queued(event),), served.stack)


@scene("confirm_deployment", "a first version that could not start")
def never_started(place: Place) -> Moment:
    served = Served(place, place.model().model).create()
    served.approve(served.register(BROKEN))
    return Moment(served.model, (queued(served.settled()),), served.stack)


def _probed(place: Place) -> probes.Probed:
    described = place.model().serve.model_dump(mode="json", by_alias=True)
    spec = place.model(
        features=probes.FEATURES, segments=[], gates={}, serve=described | {"count": 1, "strategy": "all_at_once"}
    )
    place.sagemaker.create_model_package_group(ModelPackageGroupName=place.names.model(spec.model))
    return probes.Probed(place, spec)


@scene("probe_deployment", "a new version that has all the traffic")
def probed(place: Place) -> Moment:
    model = _probed(place)
    model.live(model.version())
    model.captured(100)
    model.live(model.version(bias=0.3, wrong=2))
    detail = {"EndpointName": model.name, "EndpointStatus": "IN_SERVICE"}
    event = place.event("aws.sagemaker", "SageMaker Endpoint State Change", detail)
    return Moment(model.spec.model, (queued(event),))


@scene("write_card", "a package that was approved")
def card(place: Place) -> Moment:
    served = Served(place, place.model().model).create()
    return Moment(served.model, (queued(served.decide(served.register(), "Approved")),))


# --- what was answered


@scene("keep_predictions", "log lines of a serverless endpoint")
def lines(place: Place) -> Moment:
    model = place.model().model
    group = f"/aws/sagemaker/Endpoints/{place.names.model(model)}"
    sent = logged.event(
        logged.printed("a"), "INFO: listening", logged.printed("b"), at=datetime.now(UTC), logGroup=group
    )
    return Moment(model, (sent,))


def _watched(place: Place) -> monitoring.Watched:
    with tempfile.TemporaryDirectory() as folder:
        return monitoring._watched(place, Path(folder))


@scene("monitor_model", "a window that has drifted", hidden=DATA_HIDDEN)
def drifted(place: Place) -> Moment:
    watched = _watched(place)
    watched.captured([0.5 + value / 2 for value in monitoring.even()], at=watched.noon + timedelta(minutes=30))
    detail = {"model": watched.spec.model, "time": (watched.noon + timedelta(minutes=70)).isoformat()}
    event = {"source": "noria.schedule", "detail-type": "Monitor Model", "detail": detail}
    return Moment(watched.spec.model, (queued(event),))


def _labelled(place: Place, name: str, body: str) -> Moment:
    spec = place.model(segments=[], monitor={"min_rows": 2})
    labels.capture(place, spec)
    key = f"{spec.model}/labels/{name}"
    event = place.uploaded(key, place.put(key, body), len(body))
    detail = {"model": spec.model, "time": datetime.now(UTC).isoformat()}
    tick = {"source": "noria.schedule", "detail-type": "Join Labels", "detail": detail}
    return Moment(spec.model, (queued(event),), afterwards=(queued(tick),))


@scene("join_labels", "a labels file", hidden=DATA_HIDDEN)
def labelled(place: Place) -> Moment:
    # Without the label of what nobody asked: it waits for its prediction only if it is looked for within minutes.
    return _labelled(place, "may.csv", labels.LABELS.replace("elsewhere,0,1\n", ""))


@scene("join_labels", "a labels file that cannot be read", hidden=DATA_HIDDEN)
def unreadable_labels(place: Place) -> Moment:
    return _labelled(place, "may.csv", "no,labels\n1,2\n")


# --- batches


def _batches(place: Place) -> Any:
    spec = place.model(serve={"mode": "batch"})
    batches.serve_batches(place, spec)
    return spec


@scene("predict_batch", "a file of rows", hidden=DATA_HIDDEN)
def rows(place: Place) -> Moment:
    spec = _batches(place)
    event = batches.upload(place, spec, "week.csv", "temp,id,hour\n1.5,a,7\n,b,8\n2,c,9\n")

    def settle() -> None:
        for entry in place.entries(spec.model, Kind.BATCH_STARTED):
            batches.ended(place, str(entry.details["job"]))

    return Moment(spec.model, (queued(event),), settle)


@scene("predict_batch", "a file of other columns", hidden=DATA_HIDDEN)
def wrong_rows(place: Place) -> Moment:
    spec = _batches(place)
    return Moment(spec.model, (queued(batches.upload(place, spec, "week.csv", "weight\n1\n")),))


@scene("predict_batch", "a transform job that has ended", hidden=DATA_HIDDEN)
def transformed(place: Place) -> Moment:
    spec = _batches(place)
    place.deliver(predict_batch, batches.upload(place, spec, "week.csv", "temp,hour\n1.5,7\n,8\n"))
    (started,) = place.entries(spec.model, Kind.BATCH_STARTED)
    return Moment(spec.model, (queued(batches.ended(place, str(started.details["job"]))),))


# --- the record


def _recorded(place: Place) -> str:
    spec = place.model()
    for name in ("one", "two"):
        retraining.record(place, spec, Kind.MONITORED, name)
    return spec.model


@scene("export_ledger", "new entries in the table's stream")
def streamed(place: Place) -> Moment:
    model = _recorded(place)
    records = [
        {"eventSource": "aws:dynamodb", "eventName": "INSERT", "dynamodb": {"Keys": _key(item), "NewImage": item}}
        for item in _items(place, model)
    ]
    return Moment(model, ({"Records": records},))


@scene("export_ledger", "an entry that somebody changed")
def tampered(place: Place) -> Moment:
    model = _recorded(place)
    item, _ = _items(place, model)
    record = {"eventSource": "aws:dynamodb", "eventName": "MODIFY", "dynamodb": {"Keys": _key(item), "NewImage": item}}
    return Moment(model, ({"Records": [record]},))


@scene("export_ledger", "the reconciler's word of copies that are missing")
def uncopied(place: Place) -> Moment:
    model = _recorded(place)
    detail = {"model": model, "time": datetime.now(UTC).isoformat()}
    return Moment(model, (queued({"source": "noria.schedule", "detail-type": "Export Ledger", "detail": detail}),))


def _items(place: Place, model: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.client("dynamodb").query(
        TableName=place.ledger.table,
        KeyConditionExpression="model = :model AND begins_with(sk, :entry)",
        ExpressionAttributeValues={":model": {"S": model}, ":entry": {"S": "entry#"}},
    )["Items"]
    return found


def _key(item: dict[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ("model", "sk")}


@scene("reconcile", "an upload and a training that no event told", age=timedelta(hours=1))
def untold(place: Place) -> Moment:
    spec = place.model()
    training.pipeline(place, spec, group=False)
    Served(place, spec.model).create()
    place.put(f"{spec.model}/runs/one/evaluation.json", training.evaluation(passed=True))
    training.dataset(place, spec, 1)
    place.deliver(start_training, training.granted(place, spec))
    (execution,) = training.executions(place, spec)
    training.ended(place, execution["PipelineExecutionArn"])
    place.put(f"{spec.model}/incoming/lost.csv", "x")
    tick = {"source": "noria.schedule", "detail-type": "Reconcile", "detail": {"time": "2026-11-21T10:00:00Z"}}
    return Moment(spec.model, (queued(tick),))


# --- neighbours


@neighbours("validate_upload", "two files", hidden=DATA_HIDDEN)
def two_files(place: Place) -> Moment:
    spec = place.model()
    bodies = {"january.csv": uploads.table(spec), "february.csv": uploads.table(spec, rows=50)}
    return Moment(spec.model, tuple(_incoming(place, spec.model, name, body) for name, body in bodies.items()))


@neighbours("validate_upload", "the same bytes under two names", hidden=DATA_HIDDEN, parts=("endpoint", "left behind"))
def same_bytes(place: Place) -> Moment:
    spec = place.model()
    body = uploads.table(spec)
    return Moment(spec.model, tuple(_incoming(place, spec.model, name, body) for name in ("a.csv", "b.csv")))


def _incoming(place: Place, model: str, name: str, body: bytes) -> dict[str, Any]:
    key = f"{model}/incoming/{name}"
    return queued(place.uploaded(key, place.put(key, body), len(body)))


@neighbours("request_retraining", "an alarm and the data that it needs", parts=("executions", "metrics"))
def alarm_and_data(place: Place) -> Moment:
    spec = place.model()
    accepted = retraining.accept(place, spec, "february")
    return Moment(spec.model, (queued(retraining.alarm(place, spec)), queued(accepted)))


@neighbours("deploy_model", "approvals of two versions", parts=("stack", "packages"))
def two_approvals(place: Place) -> Moment:
    served = Served(place, place.model().model).create()
    events = [served.decide(served.register(), "Approved") for _ in range(2)]
    return _until_quiet(served, events)


@neighbours("deploy_model", "an approval and a rejection of the same version", parts=("stack", "packages"))
def approved_and_rejected(place: Place) -> Moment:
    served = _live(place, versions=1)
    two = served.register()
    events = [served.decide(two, "Approved"), served.decide(two, "Rejected")]
    return _until_quiet(served, events)


def _until_quiet(served: Served, events: list[dict[str, Any]]) -> Moment:
    """Until what waited for its turn has had it: each end of an update is told."""

    def settle() -> None:
        while True:
            before = served.parameters
            served.confirm()
            if served.parameters == before:
                return

    return Moment(served.model, tuple(map(queued, events)), settle)


@neighbours("confirm_deployment", "the endpoint's word and the stack's")
def two_words(place: Place) -> Moment:
    served = _live(place, versions=1)
    served.approve(served.register())
    settled = served.settled()
    detail = {"EndpointName": served.name, "EndpointStatus": "IN_SERVICE"}
    said = place.event("aws.sagemaker", "SageMaker Endpoint State Change", detail)
    return Moment(served.model, (queued(settled), queued(said)), served.stack)


@neighbours("approve_package", "two people who are both needed", parts=("approvals", "ledger"))
def both_at_once(place: Place) -> Moment:
    return both(place)


@neighbours(
    "join_labels",
    "two files that contradict each other",
    hidden=DATA_HIDDEN,
    parts=("objects",),
    folders=("labelled/", "reports/quality/"),  # a report is of what had come by then
)
def second_word(place: Place) -> Moment:
    spec = place.model(segments=[], monitor={"min_rows": 2})
    labels.capture(place, spec)
    events = []
    for name, text in (("one.csv", labels.LABELS), ("two.csv", labels.LABELS.replace("first,0,1", "first,0,0"))):
        key = f"{spec.model}/labels/{name}"
        events.append(queued(place.uploaded(key, place.put(key, text), len(text))))
    detail = {"model": spec.model, "time": datetime.now(UTC).isoformat()}
    tick = {"source": "noria.schedule", "detail-type": "Join Labels", "detail": detail}
    return Moment(spec.model, tuple(events), afterwards=(queued(tick),))


@neighbours("export_ledger", "two entries in two batches")
def two_entries(place: Place) -> Moment:
    whole = streamed(place)
    (message,) = whole.messages
    return Moment(whole.model, tuple({"Records": [record]} for record in message["Records"]))


@neighbours("keep_predictions", "two batches of log lines")
def two_batches(place: Place) -> Moment:
    model = place.model().model
    group = f"/aws/sagemaker/Endpoints/{place.names.model(model)}"
    now = datetime.now(UTC)
    sent = tuple(logged.event(logged.printed(name), at=now, logGroup=group) for name in ("a", "b"))
    return Moment(model, sent)


@neighbours("monitor_model", "two windows", hidden=DATA_HIDDEN, parts=("metrics", "packages"))
def two_windows(place: Place) -> Moment:
    watched = _watched(place)
    ticks = []
    for hour in (0, 1):
        watched.captured(monitoring.even(), at=watched.noon + timedelta(hours=hour, minutes=30))
        detail = {"model": watched.spec.model, "time": (watched.noon + timedelta(hours=hour, minutes=70)).isoformat()}
        ticks.append(queued({"source": "noria.schedule", "detail-type": "Monitor Model", "detail": detail}))
    return Moment(watched.spec.model, tuple(ticks))


@neighbours("write_card", "two events about one version")
def two_changes(place: Place) -> Moment:
    served = Served(place, place.model().model).create()
    package = served.register()
    return Moment(served.model, tuple(queued(served.decide(package, word)) for word in ("Approved", "Rejected")))
