"""`noria doctor`: asks everything that can be wrong at once, and says what is, and what was looked at."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel

from noria import doctor
from noria.alarms import Severity
from noria.aws.health import Health
from noria.cli.state import Deployed
from noria.doctor import Finding
from noria.units import count

_AT_ONCE = 16
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"})

_STACK, _STACKS = "stack ", "stacks"

Check = Callable[[], Iterable[Finding]]


class Diagnosis(BaseModel):
    """`looked_at` is what was asked, `denied` what whoever asks may not see."""

    env: str
    models: list[str]
    looked_at: list[str]
    denied: list[str]
    findings: list[Finding]

    @property
    def text(self) -> str:
        """One screen: what is wrong, the worst first, or that nothing is, and what was looked at."""
        told = [_told(finding) for finding in self.findings]
        many = count(len(self.findings), "thing is", "things are")
        told.append(f"{many if told else 'Nothing is'} wrong in {self.env!r}. Looked at: {', '.join(self.looked_at)}.")
        if self.denied:
            told.append(f"Not looked at, because whoever asks may not: {', '.join(self.denied)}.")
        return "\n".join(told)


def _told(finding: Finding) -> str:
    since = f" (since {finding.since:%Y-%m-%d %H:%M} UTC)" if finding.since else ""
    lines = [f"{finding.severity.upper()}: {finding.what}{since}", finding.means]
    lines += [f"docs/runbooks/{finding.runbook}.md"] * bool(finding.runbook)
    return "\n  ".join([*lines, f"$ {finding.command}"]) + "\n"


@dataclass(frozen=True)
class Doctor:
    """Looks at one environment; at one model of it, and all that models share, where one is named."""

    deployed: Deployed
    model: str | None
    now: datetime

    def look(self) -> Diagnosis:
        found: list[Finding] = []
        denied, looked_at = [], []
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            asked = {name: pool.submit(_all, check) for name, check in self._checks.items()}
        for name, answer in asked.items():
            try:
                found += answer.result()
                looked_at.append(_STACKS if name.startswith(_STACK) else name)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _DENIED:
                    found.append(_unknown(name, error))
                else:
                    denied.append(name)
            except BotoCoreError as error:
                found.append(_unknown(name, error))
        return Diagnosis(
            env=self.deployed.env,
            models=self._models,
            looked_at=list(dict.fromkeys(looked_at)),
            denied=denied,
            findings=doctor.in_order(found, self.deployed.env),
        )

    @cached_property
    def _models(self) -> list[str]:
        return [self.deployed.require(self.model)] if self.model else list(self.deployed.models)

    @property
    def _checks(self) -> Mapping[str, Check]:
        names, models, now = self.deployed.names, self._models, self.now
        health = Health(
            names=names, models=models, ledger=self.deployed.ledger, bus=self.deployed.parameter("event-bus"), now=now
        )
        return {
            "alarms": lambda: doctor.alarms(health.alarms(), names, models),
            "dead letters": lambda: doctor.dead_letters(health.dead_letters()),
            "queues": lambda: doctor.queues(health.waiting(), now),
            # One by one: who works on one model may not see all of them.
            **{f"{_STACK}{name}": partial(self._of_stack, health, name) for name in health.stacks},
            "rules": lambda: doctor.switched_off(health.rules()),
            "schedules": lambda: doctor.switched_off(health.schedules()),
            "event sources": lambda: doctor.switched_off(health.event_sources()),
            "functions": lambda: doctor.functions(health.functions(), names, now),
            "reconciler": lambda: doctor.reconciler(health.reconciler(3 * doctor.SILENT), names, now),
            "key": lambda: doctor.key(health.key()),
            "budget": lambda: doctor.budget(health.budget()),
            **{model: partial(self._of_model, health, model) for model in models},
        }

    def _of_model(self, health: Health, model: str) -> Iterable[Finding]:
        return doctor.of_model(health.model(model), self.now)

    def _of_stack(self, health: Health, name: str) -> Iterable[Finding]:
        stack = health.stack(name)
        return doctor.stacks([stack] if stack else [], self.now)


def _all(check: Check) -> list[Finding]:
    return list(check())


def _unknown(name: str, error: Exception) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        what=f"{name} could not be looked at: {error}",
        means="Whether anything is wrong with it is not known.",
        command="aws sts get-caller-identity",
    )
