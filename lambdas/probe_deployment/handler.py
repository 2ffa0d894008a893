"""A new version is asked what it must know, as soon as it takes traffic, and before it takes all of it.

event or tick ─ what the endpoint moves to ─ for each new version:
    golden rows: are the answers those of the training run?                    GoldenRowsWrong
    captured requests: how far are its answers from those that were given?     PredictionShift
  its alarms then decide, and where none watches a person does; where it has not answered yet, a tick comes again

A version is known by the bundle that it says it serves: a canary answers under the name of the fleet before it.

Calls: sagemaker:DescribeEndpoint and sagemaker:InvokeEndpoint on the model's endpoint; sagemaker:DescribeEndpointConfig
and sagemaker:DescribeModel; sagemaker:DescribeModelPackage on the model's packages; s3:ListBucket and s3:GetObject on
*/captured/* and */baselines/*; cloudwatch:PutMetricData in namespace Noria; sqs:GetQueueUrl and sqs:SendMessage on its
own queue; sns:Publish; kms:Decrypt, kms:DescribeKey, kms:Encrypt and kms:GenerateDataKey; dynamodb:GetItem,
dynamodb:Query and dynamodb:PutItem on the ledger.
"""

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
from noria.aws.pages import Matter, Page, Pages
from noria.aws.probes import Answer, Deployment, ProbedEndpoint
from noria.aws.queues import Queues
from noria.aws.registry import Registry
from noria.aws.retries import retried_soon
from noria.aws.storage import Storage
from noria.aws.telemetry import follow, reaction, tell
from noria.deployment import WAY_BACK, Request, newest_request
from noria.events import EndpointDeploymentStateChange, EndpointStateChange, Tick, parse
from noria.golden import Golden
from noria.ledger import Entry, Fact, Kind, latest
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

MOST_ASKS = 90
"""Of one question. A tenth of the traffic, the smallest step, gets fewer than three of them once in 200 times."""
PAUSE = 0.25
LONGEST = 45.0
"""Seconds for all questions to one version."""
TELLING_ERRORS = 3

SLOT = timedelta(seconds=10)
"""In which one tick is sent at most: shorter than `AGAIN`, so that no chain of ticks gets into its own way."""
UNTOLD = timedelta(days=1)
"""In which nobody is told again that a version could not be probed."""

CAPTURED_HOURS = 24
CAPTURED_FILES = 50

FIRST = 5
"""Mistakes that are shown."""


class Outcome(StrEnum):
    PROVED = "DeploymentProbed"
    AGAIN = "DeploymentProbedLater"
    GIVEN_UP = "DeploymentNotProbed"
    NOTHING = "NothingToProbe"


@retried_soon
@reaction
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
        pages=Pages(topics=env.topics),
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
    """Prove what is new. `attempt` is of a tick; None for an event, which another one follows while a fleet starts.

    Ticks go on while something is new and has not answered, and while the endpoint does not yet move to what was asked.
    """
    model = prover.spec.model
    if prover.spec.serve.mode not in {Mode.REALTIME, Mode.SERVERLESS}:
        return Outcome.NOTHING
    entries = ledger.entries(model)
    if requested := latest(entries, Kind.DEPLOYMENT_REQUESTED):
        follow(requested.correlation)
    deployment = prover.endpoint.deployment()
    new = [n for n in _newcomers(deployment, entries) if not ledger.knows(model, Kind.PROBED, n.subject)]
    ticking = attempt is not None
    if deployment is None or not new:
        later = ticking and _awaited(deployment, entries)
    elif deployment.starting:
        later = ticking
    else:
        proved = [_prove(n, prover, ledger=ledger, measurements=measurements, pages=pages, now=now) for n in new]
        if all(proved):
            return Outcome.PROVED
        later = True
    if not later:
        return Outcome.NOTHING
    if (attempt or 0) >= ATTEMPTS:
        return _give_up(model, new, ledger=ledger, pages=pages, now=now)
    tick = Tick.message("Probe Deployment", model=model, time=now, attempt=(attempt or 0) + 1)
    with ledger.claim(model, "probe tick", now=now, lasting=SLOT) as ours:
        if ours:  # else another chain of ticks goes on, and this one ends in it
            queues.send(queue, tick, delay=AGAIN)
    return Outcome.AGAIN


def _awaited(deployment: Deployment | None, entries: Sequence[Entry]) -> bool:
    """Whether something was asked for that the endpoint does not move to yet."""
    request = newest_request(entries)
    if request is None:
        return False
    there = deployment.to_packages if deployment else {}
    return (request.desired.package, request.desired.challenger) != (there.get(CHAMPION), there.get("challenger"))


def _give_up(model: str, new: "Sequence[Newcomer]", *, ledger: Ledger, pages: Pages, now: datetime) -> Outcome:
    """Tell a person of a version that nobody could judge; that nothing came at all is told by who deploys."""
    if not new:
        return Outcome.NOTHING
    subject = f"unproved {' '.join(newcomer.subject for newcomer in new)}"
    with ledger.claim(model, subject, now=now, lasting=UNTOLD) as ours:
        if ours:
            pages.send(_unproved(model, new))
    return Outcome.GIVEN_UP


# --- what is new


@dataclass(frozen=True, kw_only=True)
class Newcomer:
    """A version in its place: `before` gave the answers that its own are compared with, from `since` to `until`.

    `alone`: nothing else answers for this variant, so that whoever answers is it. `baking`: it has its share of the
    traffic. `guarded`: alarms of its variant can still take it back. `returns`: people have gone back to it. `target`
    names the variant where there is a choice.
    """

    config: str
    variant: str
    package: str
    before: str | None
    since: datetime | None
    until: datetime | None
    alone: bool
    baking: bool
    guarded: bool
    returns: bool
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
            baking=deployment.baking,
            # SageMaker guards no deployment that changes the set of variants; a challenger is watched all its life.
            guarded=variant != CHAMPION
            or (deployment.moving and deployment.packages.keys() == deployment.to_packages.keys()),
            returns=variant == CHAMPION and _returns(entries, package),
            target=variant if several else None,
        )


def _returns(entries: Sequence[Entry], package: str) -> bool:
    """Whether this champion was last asked for by going back, or is what the stack was brought back to."""
    mine = [entry for entry in entries if entry.details.get("package") == package]
    last = latest(mine, Kind.DEPLOYMENT_REQUESTED, Kind.SERVING_RESTORED)
    return last is not None and (last.kind is Kind.SERVING_RESTORED or Request.of(last).cause in WAY_BACK)


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
        """Raises `Unanswered` where nothing can be said of it yet."""
        golden = self._golden(newcomer.package)
        questions = Questions(endpoint=self.endpoint, newcomer=newcomer, bundle=golden.bundle if golden else None)
        if golden is None or not golden.rows:
            compared, moved, why = self._compared(questions, now=now)
            return Proof(golden=0, mistakes=None, compared=compared, shift=moved, why=("It has no golden rows.", *why))
        answers = questions.ask(golden.rows).predictions
        rows = len(golden.rows)
        if answers is None:
            none = tuple(f"row {n}: no answer" for n in range(rows))
            why = ("What answers no golden row is not asked what clients have asked.",)
            return Proof(golden=rows, mistakes=none, compared=0, shift=None, why=why)
        mistakes = tuple(golden.mistakes(answers))
        try:
            compared, moved, why = self._compared(questions, now=now)
        except Unanswered:  # it has answered its golden rows, and that must be heard
            compared, moved, why = 0, None, (f"It answered no captured request within {LONGEST:.0f} seconds.",)
        return Proof(golden=rows, mistakes=mistakes, compared=compared, shift=moved, why=why)

    def _compared(self, questions: "Questions", *, now: datetime) -> tuple[int, float | None, tuple[str, ...]]:
        """How many captured requests were compared, how far the answers are apart, and what there is to say of it.

        Raises `Unanswered`.
        """
        before = self._asked(questions.newcomer, now=now)
        if isinstance(before, str):
            return 0, None, (before,)
        after = [answer_value(answer, self.spec.task) for answer in questions.answers(before.rows)]
        if all(value is None for value in after):
            return 0, None, ("It takes none of the captured requests, so answers cannot be compared.",)
        if len(after) < MIN_ROWS:
            return 0, None, (f"It answered only {len(after)} captured rows in time: {MIN_ROWS} are needed.",)
        return len(after), shift(before.answers[: len(after)], after, self.spec.task), ()

    def _golden(self, package: str) -> Golden | None:
        uri = self.registry.describe(package).metadata.get(GOLDEN)
        return Golden.model_validate_json(self.storage.read(self.storage.key_of(uri))) if uri else None

    def _asked(self, newcomer: Newcomer, *, now: datetime) -> Asked | str:
        """What clients asked the version before, or why that cannot be compared."""
        if newcomer.returns:
            return (
                "It comes back, and should answer otherwise than the version that it replaces: they are not compared."
            )
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

        An error names nobody. It is the new version's where nothing else answers, as soon as it comes again and again;
        so it is where the fleet before answers the same rows well again and again, and where nobody answers them well
        any more: then all traffic is on the new version, or has been often enough for it to have answered.
        """
        errors = others = 0
        for _ in range(MOST_ASKS):
            answer = self.endpoint.ask(rows, variant=self.newcomer.target)
            known = answer.bundle is not None and self.bundle is not None
            if answer.bundle == self.bundle if known else self.newcomer.alone and answer.predictions is not None:
                self.heard = True
                return answer
            errors += answer.predictions is None
            others += answer.predictions is not None
            if errors >= TELLING_ERRORS and (
                others >= TELLING_ERRORS or (not others and (self.newcomer.alone or self.heard))
            ):
                return Answer(predictions=None)
            if time.monotonic() > self.deadline:
                raise Unanswered
            time.sleep(0 if self.heard else PAUSE)
        if errors == MOST_ASKS and self.newcomer.baking:
            return Answer(predictions=None)
        raise Unanswered

    def answers(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer to each row, an empty one where the new version refuses it, for as many as there is time for.

        One bad row spoils a request, so a refused request is halved, as long as not too many were refused. Raises
        `Unanswered` where it gives no answer at all.
        """
        answered: list[dict[str, Any]] = []
        left = [rows]
        while left:
            part = left.pop()
            try:
                predictions = self.ask(part).predictions
            except Unanswered:
                if answered:
                    return answered
                raise
            if predictions is not None:
                answered += predictions
            elif len(part) == 1 or self.refusals == 0:
                answered += [{} for _ in part]
            else:
                self.refusals -= 1
                half = len(part) // 2
                left += [part[half:], part[:half]]
        return answered


def _prove(
    newcomer: Newcomer,
    prover: Prover,
    *,
    ledger: Ledger,
    measurements: Measurements,
    pages: Pages,
    now: datetime,
) -> bool:
    """Ask, measure and record; False when the new version has not answered.

    Wrong golden rows are a person's to judge where no alarm does it: the first version and what is proved only when its
    deployment has ended, and a serverless endpoint, which has no such alarms.
    """
    model = prover.spec.model
    try:
        proof = prover.prove(newcomer, now=now)
    except Unanswered:
        return False
    fleet = Fleet(endpoint=prover.endpoint.name, config=newcomer.config, variant=newcomer.variant)
    measurements.publish_of_fleet(fleet, proof.measured)
    fact = Fact(
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
            "mistakes": list(proof.mistakes or ())[:FIRST],
            "compared": proof.compared,
            "shift": proof.shift,
        },
    )
    serve = prover.spec.serve
    watched = newcomer.guarded and serve.mode is Mode.REALTIME and serve.golden > 0
    with ledger.claim(model, f"proof {newcomer.subject}", now=now) as ours:
        if ours:
            if proof.mistakes and not watched:
                pages.send(_wrong(model, newcomer, proof))
            ledger.record(fact)
    return True


def _wrong(model: str, newcomer: Newcomer, proof: Proof) -> Page:
    mistakes = proof.mistakes or ()
    who, few = f"{version(newcomer.package)} as {newcomer.variant}", mistakes[:FIRST]
    more = ["…"] if len(mistakes) > len(few) else []
    if newcomer.variant != CHAMPION:
        command = f"noria abandon {model} --reason '…'"
    elif newcomer.before:
        command = f"noria rollback {model} --reason '…'"
    else:
        command = f"noria reject {newcomer.package} --reason '…'"
    return Page(
        matter=Matter.GOLDEN_WRONG,
        subject=f"{model}: {version(newcomer.package)} answers golden rows wrongly",
        what=f"{who} answers {len(mistakes)} of its {proof.golden} golden rows otherwise than in training. It answers "
        "clients, and no alarm takes it back.\n\n" + "\n".join(f"- {mistake}" for mistake in [*few, *more]),
        where=f"endpoint of {model}; docs/runbooks/rollback-golden.md",
        do="What is served is not what was trained: take it back now, then look for the cause as the runbook says.",
        command=command,
    )


def _unproved(model: str, new: Sequence[Newcomer]) -> Page:
    who = ", ".join(f"{version(n.package)} as {n.variant}" for n in new) or "the new version"
    return Page(
        matter=Matter.UNPROBED,
        subject=f"{model}: a new version could not be probed",
        what=f"{who} answered no golden row and no captured request in {ATTEMPTS} attempts, and so was not judged.",
        where=f"endpoint of {model}",
        do="See whether the deployment moves; judge the version by its other metrics, and roll it back in doubt.",
        command=f"noria status {model}",
    )
