"""What the command knows of one deployed environment: its places, and what is live there and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from botocore.exceptions import ClientError
from pydantic import BaseModel

from noria.approval import APPROVED, heard_of
from noria.approval import state as state_of
from noria.aws import account
from noria.aws.approvals import candidate
from noria.aws.endpoints import Endpoint, EndpointState
from noria.aws.ledger import Ledger
from noria.aws.metrics import Measurements
from noria.aws.pauses import held
from noria.aws.registry import Registry
from noria.aws.serving import MODEL, ServingStack
from noria.aws.stacks import Stacks
from noria.aws.storage import Storage
from noria.aws.traffic import TrafficMetrics
from noria.cli.idle import idle_warning
from noria.cli.output import Refused
from noria.deployment import Desired, is_off, live, turned_off, under_way
from noria.ledger import Entry, Kind, latest
from noria.names import Names, Parameter, key, version
from noria.pause import paused
from noria.units import count


class ModelStatus(BaseModel):
    """What answers for a model now, and since when; `wanted` differs from `package` only while something moves."""

    model: str
    endpoint: str
    package: str | None
    version: int | None
    challenger: str | None
    percent: int
    shadow: str | None
    beside: str | None
    since: datetime | None
    dataset: str | None
    wanted: str | None
    under_way: str | None
    url: str | None
    alarms: list[str]
    report: str | None
    paused: str | None
    warning: str | None
    newest: str
    summary: str


class PackageRow(BaseModel):
    package: str
    version: int
    state: str
    approval: str
    outcome: str
    created: datetime
    dataset: str
    champion: str


class EventRow(BaseModel):
    number: int
    at: datetime
    model: str
    kind: Kind
    subject: str
    summary: str
    details: dict[str, str | int | float | bool | list[str] | None]

    @classmethod
    def of(cls, entry: Entry) -> "EventRow":
        return cls.model_validate(entry.model_dump())


@dataclass(frozen=True)
class Deployed:
    """One environment, as it is deployed. Raises `Refused` where it is not."""

    env: str

    @cached_property
    def names(self) -> Names:
        return Names(env=self.env)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(table=self.parameter("ledger-table"))

    @cached_property
    def registry(self) -> Registry:
        return Registry()

    def parameter(self, name: Parameter) -> str:
        path = self.names.parameter(name)
        value = account.parameter(path)
        if value is None:
            raise Refused(
                f"Environment {self.env!r} is not deployed here (no parameter {path}): "
                "name another with --env, or deploy it (make up, or make deploy ENV=…)."
            )
        return value

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Models whose training stack is deployed: each has a package group of its name."""
        self.parameter("data-bucket")  # refuses where the environment is not deployed at all
        groups = self.registry.groups(self.names.prefix)
        return tuple(sorted(model for group in groups if (model := self.names.model_of(group))))

    @property
    def dashboard(self) -> str | None:
        """Where CloudWatch shows the environment, and links each model's; the local cloud has no console."""
        region = account.region()
        if self.env == "local":
            return None
        console = f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
        return f"{console}#dashboards/dashboard/{self.names.prefix}"

    def require(self, model: str) -> str:
        if model not in self.models:
            known = ", ".join(self.models) or "none"
            raise Refused(f"No model {model!r} is deployed in {self.env!r}: known are {known}.")
        return model

    def package_arn(self, reference: str) -> str:
        """`reference` is a package's ARN, or `<model>/<version>`."""
        if reference.startswith("arn:"):
            return reference
        model, _, version = reference.partition("/")
        if not version.isdecimal():
            raise Refused(f"{reference!r} names no package: give its ARN, or <model>/<version> as in {model}/3.")
        packages = self.registry.packages(self.names.model(self.require(model)))
        found = next((package.arn for package in packages if package.version == int(version)), None)
        if found is None:
            if not packages:
                raise Refused(f"Model {model!r} has no version yet: follow its training with `noria events {model}`.")
            versions = ", ".join(str(package.version) for package in packages)
            raise Refused(f"Model {model!r} has no version {version}: versions are {versions}.")
        return found

    def packages(self, model: str) -> list[PackageRow]:
        rows = []
        entries = self.ledger.entries(self.require(model))
        for summary in self.registry.packages(self.names.model(model)):
            package = self.registry.describe(summary.arn)
            rows.append(
                PackageRow(
                    package=package.arn,
                    version=package.version,
                    state=state_of(entries, candidate(package)),
                    approval=package.approval,
                    outcome=package.metadata.get("noria:outcome", ""),
                    created=package.created,
                    dataset=package.metadata.get("noria:dataset", "")[:12],
                    champion=package.metadata.get("noria:champion", "").rsplit("/", 1)[-1],
                )
            )
        return rows

    def status(self, model: str) -> ModelStatus:
        entries = self.ledger.entries(self.require(model))
        state = Endpoint(name=self.names.model(model)).state()
        stack = ServingStack(name=self.names.stack(model, "serving")).state()
        answers = state.desired if state else Desired(package=None)
        if MODEL in stack.outputs:  # no endpoint: transform jobs use the stack's model
            answers = live(entries) or answers
        package, gone = answers.package, turned_off(entries)
        deployed = became_champion(entries, package)
        described = self.registry.describe(package) if package else None
        alarms = self._alarms(model)
        return ModelStatus(
            model=model,
            endpoint=state.status if state else "none",
            package=package,
            version=described.version if described else None,
            challenger=answers.challenger,
            percent=answers.percent,
            shadow=answers.shadow,
            beside=_beside(answers),
            since=deployed.at if deployed else None,
            dataset=described.metadata.get("noria:dataset") if described else None,
            wanted=stack.desired.package,
            under_way=under_way(entries),
            url=(self.front_door(model) or {}).get("ApiUrl"),
            alarms=alarms,
            report=self._report(model),
            paused=self.paused(model),
            warning=_warning(entries, package) or self._idle(model, state, deployed),
            newest=entries[-1].summary if entries else "nothing has happened yet",
            summary=_summary(
                model,
                state,
                deployed,
                described.version if described else None,
                beside=_beside(answers),
                gone=gone,
                moving=under_way(entries),
                alarms=alarms,
            ),
        )

    def waits(self, model: str, what: str) -> str | None:
        """That something waits for the end of a model's pause, for people; None where it is in none."""
        now = datetime.now(UTC)
        try:
            pause = paused(self.ledger.entries(model), now) if self.ledger.pauses(model, now) else None
        except ClientError as refused:  # it is sent already, perhaps by somebody who may read nothing
            code = refused.response.get("Error", {}).get("Code")
            return f"Whether {model} is paused, so that this waits, could not be asked ({code}): noria status {model}."
        if pause is None:
            return None
        until = f" until {pause.until:%Y-%m-%d %H:%M} UTC" if pause.until else ""
        return f"{model} is paused{until}: {what} when that ends (noria resume {model})."

    def paused(self, model: str) -> str | None:
        """The pause in which a model is, and what waits for its end; None where it is in none."""
        now = datetime.now(UTC)
        if not self.ledger.pauses(model, now):
            return None
        entries = self.ledger.entries(model)
        pause = paused(entries, now)
        if pause is None:
            return None
        waiting = Counter(each.reaction for each in held(Storage(bucket=self.parameter("data-bucket")), model))
        listed = ", ".join(f"{number} for {reaction}" for reaction, number in sorted(waiting.items()))
        events = count(waiting.total(), "event waits", "events wait")
        told = f"{pause}; {events} for noria resume {model}{f' ({listed})' if listed else ''}"
        packages = self.registry.packages(self.names.model(model))
        approved = [
            version(p.arn) for p in packages if p.approval == APPROVED and not heard_of(entries, p.arn, APPROVED)
        ]
        return f"{told}; approved, to go live when that ends: {', '.join(approved)}" if approved else told

    def _idle(self, model: str, state: EndpointState | None, deployed: Entry | None) -> str | None:
        if state is None or deployed is None:
            return None
        traffic = TrafficMetrics(endpoint=self.names.model(model))
        return idle_warning(model, state=state, since=deployed.at, now=datetime.now(UTC), traffic=traffic)

    def front_door(self, model: str) -> Mapping[str, str] | None:
        """The outputs of a model's front-door stack; None when the model has none."""
        return Stacks().outputs(self.names.stack(model, "front-door"))

    def events(self, models: Sequence[str], *, limit: int) -> list[EventRow]:
        return [EventRow.of(entry) for entry in self.ledger.newest(models, limit=limit)]

    def _report(self, model: str) -> str | None:
        """Where the newest report of a monitored window is; `noria report` brings it here."""
        storage = Storage(bucket=self.parameter("data-bucket"))
        newest = key(model, "reports", "latest.html")
        return storage.uri(newest) if storage.exists(newest) else None

    def _alarms(self, model: str) -> list[str]:
        return sorted(Measurements().raised(self.names.model(model)))


def became_champion(entries: Sequence[Entry], package: str | None) -> Entry | None:
    """When this package became the champion that it is: what came and went beside it since does not count."""
    found = None
    for entry in reversed(entries):
        if entry.kind is not Kind.DEPLOYED or is_off(entry):
            continue
        if entry.details.get("package") != package:
            break
        found = entry
    return found


def _warning(entries: Sequence[Entry], package: str | None) -> str | None:
    """What people were told of the version that answers, and is still so; or why none answers."""
    if package is None:
        why = turned_off(entries) or latest(entries, Kind.MODEL_RETIRED)
        return why.summary if why else None
    return next((e.summary for e in entries if e.kind is Kind.PACKAGE_OUTDATED and e.subject == package), None)


def _beside(answers: Desired) -> str | None:
    """Who answers beside the champion, and how much."""
    if answers.challenger:
        return f"challenger {version(answers.challenger)} on {answers.percent}%"
    return f"shadow {version(answers.shadow)}" if answers.shadow else None


def _summary(
    model: str,
    state: EndpointState | None,
    deployed: Entry | None,
    version: int | None,
    *,
    beside: str | None,
    gone: Entry | None,
    moving: str | None,
    alarms: Sequence[str],
) -> str:
    changes = f"; {moving}" if moving else ""
    if version is None and gone:
        return f"{model}: {gone.summary[0].lower()}{gone.summary[1:].rstrip('.')}{changes}"
    if version is None:
        return f"{model}: nothing is live{changes or '; approve a package to change that'}"
    since = f" since {deployed.at:%Y-%m-%d %H:%M:%S} UTC" if deployed else ""
    status = "" if state is None or state.status == "InService" else f", endpoint {state.status}"
    alarm = f"; in alarm: {', '.join(alarms)}" if alarms else "; no alarm"
    also = f", {beside}" if beside else ""
    return f"{model}: version {version} is live{since}{also}{status}{changes}{alarm}"
