"""What `noria flags` does: shows a model's flags, deploys others, goes back to those before."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from noria.aws.account import caller
from noria.aws.flags import FlagDeployment, FlagsMovingError, FlagStore, NothingBeforeError, RefusedFlagsError
from noria.cli.output import Refused
from noria.cli.state import Deployed
from noria.documents import DocumentError, parse, text_of
from noria.flags import Flags
from noria.ledger import Fact, Kind


class FlagsStatus(BaseModel):
    """The flags of a model: those that hold, and the newest change of them."""

    model: str
    version: int | None
    rules: list[dict[str, Any]]
    deployment: int
    deploying: int
    state: str
    percent: float
    reason: str
    went_back: str | None

    @property
    def text(self) -> str:
        lines = [f"{self.model}: version {self.version} of the flags holds" if self.version else f"{self.model}:"]
        lines += [f"  {_sentence(rule)}" for rule in self.rules] or ["  no rule: the endpoint's weights decide"]
        change = f"Newest change: deployment {self.deployment} of version {self.deploying}, {self.state}"
        share = f" ({self.percent:g} %)" if self.state == "DEPLOYING" else ""
        reason = f": {self.reason}" if self.reason else ""
        return "\n".join([*lines, f"{change}{share}{reason}", *([f"  {self.went_back}"] if self.went_back else [])])


@dataclass(frozen=True)
class ModelFlags:
    """The flags of one deployed model. Raises `Refused` where it has no front door."""

    deployed: Deployed
    model: str

    @cached_property
    def store(self) -> FlagStore:
        outputs = self.deployed.front_door(self.deployed.require(self.model))
        if outputs is None:
            raise Refused(f"Model {self.model!r} has no front door: add `front_door: {{}}` to its `serve`, and deploy.")
        return FlagStore.of(outputs)

    def status(self) -> FlagsStatus:
        deployments = self.store.deployments()
        newest = self.store.deployment(deployments[0].number)
        holds = next((each for each in deployments if each.state == "COMPLETE"), None)
        rules = self.store.flags(holds.version).rules if holds else ()
        return FlagsStatus(
            model=self.model,
            version=holds.version if holds else None,
            rules=[rule.model_dump(exclude_defaults=True) for rule in rules],
            deployment=newest.number,
            deploying=newest.version,
            state=newest.state,
            percent=newest.percent,
            reason=newest.description,
            went_back=newest.why,
        )

    def set(self, file: Path, reason: str) -> FlagsStatus:
        flags = read(file)
        try:
            started = self.store.set(flags, reason=reason)
        except FlagsMovingError as error:
            raise Refused(f"{error}: wait for its end, or go back with `noria flags {self.model} rollback`.") from error
        except RefusedFlagsError as error:
            raise Refused(f"AppConfig refused these flags: {error}") from error
        self._record("set", started, reason, f"Flags changed to version {started.version}: {reason}")
        return self.status()

    def roll_back(self, reason: str) -> FlagsStatus:
        try:
            ended = self.store.roll_back(reason=reason)
        except (NothingBeforeError, FlagsMovingError) as error:
            raise Refused(f"{self.model}: {error}.") from error
        self._record("rollback", ended, reason, f"Flags taken back in deployment {ended.number}: {reason}")
        return self.status()

    def _record(self, action: str, deployment: FlagDeployment, reason: str, summary: str) -> None:
        self.deployed.ledger.record(
            Fact(
                model=self.model,
                kind=Kind.FLAGS_CHANGED,
                subject=f"{action} # {deployment.number}",
                at=datetime.now(UTC),
                summary=summary,
                details={
                    "action": action,
                    "version": deployment.version,
                    "deployment": deployment.number,
                    "reason": reason,
                    "by": caller(),
                },
            )
        )


def read(file: Path) -> Flags:
    """Flags from a YAML or JSON file."""
    try:
        _, document = parse(text_of(file), name=str(file))
        return Flags.model_validate(document or {})
    except DocumentError as error:
        raise Refused(str(error)) from error
    except ValidationError as error:
        problems = (
            f"{file}: {'.'.join(map(str, problem['loc'])) or '(whole file)'}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        )
        raise Refused("\n".join(problems)) from error


def _sentence(rule: dict[str, Any]) -> str:
    when = ", ".join(f"{name} {value}" for name, value in rule.get("when", {}).items()) or "everybody"
    return f"{rule['name']}: {when} → {rule['variant']}"
