"""A new version is asked what it must know, as soon as it takes traffic, and before it takes all of it.

event or tick ─ what the endpoint moves to ─ for each new version:
    golden rows: are the answers those of the training run?                    GoldenRowsWrong
    captured requests: how far are its answers from those that were given?     PredictionShift
  its alarms then decide; where it has not answered yet, a tick comes again

A version is known by the bundle that it says it serves: a canary answers under the name of the fleet before it.

Calls: sagemaker:DescribeEndpoint and sagemaker:InvokeEndpoint on the model's endpoint; sagemaker:DescribeEndpointConfig
and sagemaker:DescribeModel; sagemaker:DescribeModelPackage on the model's packages; s3:ListBucket and s3:GetObject on
*/captured/* and */baselines/*; cloudwatch:PutMetricData in namespace Noria; sqs:GetQueueUrl and sqs:SendMessage on its
own queue; sns:Publish; kms:Decrypt, kms:DescribeKey, kms:Encrypt and kms:GenerateDataKey; dynamodb:GetItem,
dynamodb:Query and dynamodb:PutItem on the ledger.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.aws.captures import Captures
from noria.aws.endpoints import CHAMPION
from noria.aws.environment import Environment
from noria.aws.ledger import Ledger
from noria.aws.metrics import Fleet, Measurement, Measurements
from noria.aws.pages import Page, Pages
from noria.aws.probes import Answer, Deployment, ProbedEndpoint
from noria.aws.queues import Queues
from noria.aws.registry import Registry
from noria.aws.storage import Storage
from noria.aws.telemetry import EVENT_ID, logger, metrics, tell
from noria.deployment import unsettled
from noria.events import EndpointDeploymentStateChange, EndpointStateChange, Tick, parse
from noria.golden import Golden
from noria.ledger import Entry, Fact, Kind
from noria.names import version
from noria.serve import Mode
from noria.shift import MIN_ROWS, Asked, answer_value, asked, shift
from noria.spec import ModelSpec
from noria.trial import champion_since

GOLDEN = "noria:golden"
"""Property of a package: where its golden rows are."""

AGAIN = timedelta(seconds=15)
ATTEMPTS = 240
"""An hour, which is what instances may take to start."""

MOST_ASKS = 60
"""Of one question. A tenth of the traffic, the smallest step, misses all of them once in 500 times."""
PAUSE = 0.25
LONGEST = 45.0
"""Seconds for all questions to one version."""
TELLING_ERRORS = 3

CAPTURED_HOURS = 24
CAPTURED_FILES = 50


class Outcome(StrEnum):
    PROVED = "DeploymentProbed"
    AGAIN = "DeploymentProbedLater"
    GIVEN_UP = "DeploymentNotProbed"
    NOTHING = "NothingToProbe"


@logger.inject_lambda_context(correlation_id_path=EVENT_ID)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    change = parse(event, EndpointDeploymentStateChange, EndpointStateChange, Tick)
    model = change.model if isinstance(change, Tick) else env.names.model_of(change.detail.endpoint)
    spec = env.spec(model) if model else None
    if model is None or spec is None:
        tell(Outcome.NOTHING, model="none")
        return
    storage = Storage(bucket=env.data_bucket)
    name = env.names.model(model)
    outcome = probe_deployment(
        attempt=change.detail.attempt if isinstance(change, Tick) else None,
        prover=Prover(
            spec=spec,
            endpoint=ProbedEndpoint(name=name),
            captures=Captures(model=model, endpoint=name, storage=storage),
            storage=storage,
            registry=Registry(),
        ),
        ledger=Ledger(table=env.ledger_table),
        measurements=Measurements(),
        pages=Pages(topic=env.pages_topic),
        queues=Queues(),
        queue=env.names.queue("probe-deployment"),
        now=datetime.now(UTC),
    )
    tell(outcome, model=model)


def probe_deployment(
    *,
    attempt: int | None,
    prover: "Prover",
    ledger: Ledger,
    measurements: Measurements,
    pages: Pages,
    queues: Queues,
    queue: str,
    now: datetime,
) -> Outcome:
    """Prove what is new. `attempt` is of a tick; None for an event, which another one follows while a fleet starts."""
    model = prover.spec.model
    if prover.spec.serve.mode not in {Mode.REALTIME, Mode.SERVERLESS}:
        return Outcome.NOTHING
    entries = ledger.entries(model)
    deployment = prover.endpoint.deployment()
    new = [n for n in _newcomers(deployment, entries) if not ledger.knows(model, Kind.PROBED, n.subject)]
    ticking = attempt is not None
    if deployment is None or not new:
        later = ticking and bool(unsettled(entries))
    elif deployment.starting:
        later = ticking
    else:
        proved = [_prove(n, prover, ledger=ledger, measurements=measurements, now=now) for n in new]
        if all(proved):
            return Outcome.PROVED
        later = True
    if not later:
        return Outcome.NOTHING
    if (attempt or 0) >= ATTEMPTS:
        pages.send(_unproved(model, new))
        return Outcome.GIVEN_UP
    detail = {"model": model, "time": now.isoformat(), "attempt": (attempt or 0) + 1}
    tick = {"source": Tick.SOURCE, "detail-type": "Probe Deployment", "detail": detail}
    queues.send(queue, json.dumps(tick), delay=AGAIN)
    return Outcome.AGAIN


# --- what is new


@dataclass(frozen=True, kw_only=True)
class Newcomer:
    """A version in its place: `before` gave the answers that its own are compared with, from `since` to `until`.

    `alone`: nothing else answers for this variant, so that whoever answers is it. `target` names the variant where
    there is a choice.
    """

    config: str
    variant: str
    package: str
    before: str | None
    since: datetime | None
    until: datetime | None
    alone: bool
    target: str | None

    @property
    def subject(self) -> str:
        return f"{self.config}#{self.variant}"


def _newcomers(deployment: Deployment | None, entries: Sequence[Entry]) -> Iterator[Newcomer]:
    """What a deployment brings; when it has ended, what it has brought and nobody has asked yet."""
    if deployment is None:
        return
    several = len(deployment.packages) > 1 or len(deployment.to_packages) > 1
    for variant, package in deployment.to_packages.items():
        there = deployment.packages.get(variant)
        is_new = there != package if deployment.moving else _last_proved(entries, variant) != package
        if package is None or not is_new or (deployment.moving and there is None):
            continue  # a variant that comes into being can be asked when its deployment has ended
        if variant == CHAMPION:
            before = there if deployment.moving else _predecessor(entries, package)
        else:
            before = deployment.packages.get(CHAMPION)
        since = champion_since(entries, before) if before else None
        yield Newcomer(
            config=deployment.to,
            variant=variant,
            package=package,
            before=before,
            since=since,
            until=deployment.began or _asked_for(entries, package, since) if variant == CHAMPION else None,
            alone=not deployment.moving,
            target=variant if several else None,
        )


def _asked_for(entries: Sequence[Entry], package: str, since: datetime | None) -> datetime | None:
    """When the package was first asked for as champion, after that time."""
    asked = (e for e in entries if e.kind is Kind.DEPLOYMENT_REQUESTED and e.details["package"] == package)
    return next((entry.at for entry in asked if since is None or entry.at >= since), None)


def _last_proved(entries: Sequence[Entry], variant: str) -> str | None:
    proofs = (e for e in reversed(entries) if e.kind is Kind.PROBED and e.details["variant"] == variant)
    return next((str(proof.details["package"]) for proof in proofs), None)


def _predecessor(entries: Sequence[Entry], package: str) -> str | None:
    """What was live before `package`, whether that has been confirmed yet or not."""
    deployed = (str(e.details["package"]) for e in reversed(entries) if e.kind is Kind.DEPLOYED)
    return next((arn for arn in deployed if arn != package), None)


# --- proving one


class Unanswered(Exception):
    """The new version has given no answer that can be told from others'."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What came of it; where a number is None, `why` says the reason.

    `mistakes` are of the golden rows, `compared` counts the requests behind `shift`.
    """

    golden: int
    mistakes: tuple[str, ...] | None
    compared: int
    shift: float | None
    why: tuple[str, ...]

    @property
    def measured(self) -> list[Measurement]:
        found = {
            "GoldenRowsWrong": None if self.mistakes is None else len(self.mistakes),
            "PredictionShift": self.shift,
        }
        return [Measurement(name=name, value=value) for name, value in found.items() if value is not None]

    def summary(self, newcomer: Newcomer) -> str:
        sentences = list(self.why)
        if self.shift is not None:
            told = f"its answers to {self.compared} captured requests are PSI {self.shift:.3f} from those given before."
            sentences.insert(0, told[0].upper() + told[1:])
        if self.mistakes is not None:
            right = self.golden - len(self.mistakes)
            sentences.insert(0, f"{right} of its {self.golden} golden rows are answered as they were in training.")
        who = f"{version(newcomer.package).capitalize()} as {newcomer.variant}"
        return f"{who} was asked: {' '.join(sentences)}"


@dataclass(frozen=True, kw_only=True)
class Prover:
    spec: ModelSpec
    endpoint: ProbedEndpoint
    captures: Captures
    storage: Storage
    registry: Registry

    def prove(self, newcomer: Newcomer, *, now: datetime) -> Proof:
        """Raises `Unanswered`."""
        golden = self._golden(newcomer.package)
        questions = Questions(endpoint=self.endpoint, newcomer=newcomer, bundle=golden.bundle if golden else None)
        why: list[str] = []
        mistakes: tuple[str, ...] | None = None
        if golden and golden.rows:
            answers = questions.ask(golden.rows).predictions
            mistakes = tuple(
                golden.mistakes(answers) if answers else (f"row {n}: no answer" for n in range(len(golden.rows)))
            )
        else:
            why.append("It has no golden rows.")
        before = self._asked(newcomer, now=now)
        compared, moved = 0, None
        if isinstance(before, str):
            why.append(before)
        else:
            answered = questions.answers(before.rows)
            after = [answer_value(answer, self.spec.task) for answer in answered]
            if any(value is not None for value in after):
                compared, moved = len(after), shift(before.answers, after, self.spec.task)
            else:
                why.append("It takes none of the captured requests, so answers cannot be compared.")
        return Proof(
            golden=len(golden.rows) if golden else 0, mistakes=mistakes, compared=compared, shift=moved, why=tuple(why)
        )

    def _golden(self, package: str) -> Golden | None:
        uri = self.registry.describe(package).metadata.get(GOLDEN)
        return Golden.model_validate_json(self.storage.read(self.storage.key_of(uri))) if uri else None

    def _asked(self, newcomer: Newcomer, *, now: datetime) -> Asked | str:
        """What clients asked the version before, or why that cannot be compared."""
        if newcomer.before is None:
            return "Nothing answered before it, so there is nothing to compare with."
        if self.spec.serve.prediction_shift is None:
            return "The spec asks for no comparison with the version before."
        until = newcomer.until or now
        with tempfile.TemporaryDirectory(prefix="noria-captured-") as folder:
            files = self.captures.last(before=until, hours=CAPTURED_HOURS, files=CAPTURED_FILES)
            found = asked(self.captures.fetch(files, Path(folder)), self.spec, since=newcomer.since, until=until)
        if len(found.rows) < MIN_ROWS:
            return (
                f"{len(found.rows)} captured rows of the version before are too few to compare: {MIN_ROWS} are needed."
            )
        return found


@dataclass(kw_only=True)
class Questions:
    """Asks one version, until it has answered or the limits are reached."""

    endpoint: ProbedEndpoint
    newcomer: Newcomer
    bundle: str | None
    deadline: float = field(default_factory=lambda: time.monotonic() + LONGEST)
    refusals: int = MOST_ASKS
    heard: bool = False

    def ask(self, rows: Sequence[dict[str, Any]]) -> Answer:
        """What the new version answers to these rows. Raises `Unanswered`.

        An error names nobody. Where the fleet before has answered the same rows well again and again, errors are not
        its.
        """
        errors = others = 0
        for _ in range(MOST_ASKS):
            answer = self.endpoint.ask(rows, variant=self.newcomer.target)
            if answer.bundle == self.bundle if answer.bundle and self.bundle else self.newcomer.alone:
                self.heard = True
                return answer
            errors += answer.predictions is None
            others += answer.predictions is not None
            if min(errors, others) >= TELLING_ERRORS:
                return Answer(predictions=None)
            if time.monotonic() > self.deadline:
                break
            time.sleep(0 if self.heard else PAUSE)
        raise Unanswered

    def answers(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer to each row; an empty one where the new version refuses it.

        One bad row spoils a request, so a refused request is halved, as long as not too many were refused.
        """
        answer = self.ask(rows)
        if answer.predictions is not None:
            return answer.predictions
        self.refusals -= 1
        if len(rows) == 1 or self.refusals < 0:
            return [{} for _ in rows]
        half = len(rows) // 2
        return self.answers(rows[:half]) + self.answers(rows[half:])


def _prove(newcomer: Newcomer, prover: Prover, *, ledger: Ledger, measurements: Measurements, now: datetime) -> bool:
    """Ask, measure and record; False when the new version has not answered."""
    model = prover.spec.model
    try:
        proof = prover.prove(newcomer, now=now)
    except Unanswered:
        return False
    fleet = Fleet(endpoint=prover.endpoint.name, config=newcomer.config, variant=newcomer.variant)
    measurements.publish_of_fleet(fleet, proof.measured, at=now)
    ledger.record(
        Fact(
            model=model,
            kind=Kind.PROBED,
            subject=newcomer.subject,
            at=now,
            summary=proof.summary(newcomer),
            details={
                "package": newcomer.package,
                "variant": newcomer.variant,
                "config": newcomer.config,
                "before": newcomer.before,
                "golden": proof.golden,
                "wrong": None if proof.mistakes is None else len(proof.mistakes),
                "mistakes": list(proof.mistakes or ())[:5],
                "compared": proof.compared,
                "shift": proof.shift,
            },
        )
    )
    return True


def _unproved(model: str, new: Sequence[Newcomer]) -> Page:
    who = ", ".join(f"{version(n.package)} as {n.variant}" for n in new) or "the new version"
    return Page(
        subject=f"{model}: a new version could not be probed",
        what=f"{who} answered no golden row and no captured request in {ATTEMPTS} attempts, and so was not judged.",
        where=f"endpoint of {model}",
        do="See whether the deployment moves; judge the version by its other metrics, and roll it back in doubt.",
        command=f"noria status {model}",
    )
