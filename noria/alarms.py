"""Who is told of an alarm, or of what a handler pages (noria.page), and which alarms have one cause.

| severity   | topic     | who                                                        |
|------------|-----------|------------------------------------------------------------|
| `critical` | `pages`   | whoever is on duty, woken: callers wait, or events stand   |
| `warning`  | `notices` | the owner, in working hours: answers, and worse than meant |

Alarms of one cause are children of one composite alarm, which alone tells somebody: what breaks an endpoint makes it
slow, too, and what changes its inputs changes the predictions.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Self


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"


CauseName = Literal["serving", "data", "labels", "bias"]


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Its composite alarm is called after its model; its runbook is docs/runbooks/<name>.md."""

    name: CauseName
    severity: Severity
    meaning: str


CAUSES: dict[CauseName, Cause] = {
    cause.name: cause
    for cause in (
        Cause(name="serving", severity=Severity.CRITICAL, meaning="callers get errors, or wait"),
        Cause(name="data", severity=Severity.WARNING, meaning="what is asked is unlike what the model was trained on"),
        Cause(name="labels", severity=Severity.WARNING, meaning="outcomes say that the model is worse than it was"),
        # Of its own: who is treated unfairly must not wait until a model that is worse anyway is mended.
        Cause(name="bias", severity=Severity.WARNING, meaning="people or things are treated too unequally"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What an alarm's description says besides its meaning: for people, and read back by the command."""

    severity: Severity | None
    runbook: str

    _WORDS = re.compile(r"(?:Severity: (?P<severity>\w+)\. )?docs/runbooks/(?P<runbook>[a-z-]+)\.md$")

    def describe(self, text: str) -> str:
        """An alarm's description; without a severity where nobody is told, because something else acts.

        >>> Told(severity=Severity.WARNING, runbook="drift").describe("flight-delay: the inputs changed.")
        'flight-delay: the inputs changed. Severity: warning. docs/runbooks/drift.md'
        """
        severity = f"Severity: {self.severity}. " if self.severity else ""
        return f"{text} {severity}docs/runbooks/{self.runbook}.md"

    @classmethod
    def read(cls, description: str) -> Self | None:
        """What `describe` wrote; None of an alarm that is not described so."""
        if (found := cls._WORDS.search(description)) is None:
            return None
        severity = found["severity"]
        return cls(severity=Severity(severity) if severity else None, runbook=found["runbook"])
