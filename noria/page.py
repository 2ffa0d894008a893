"""A page: what a person is told, how much it matters, and what to do about it."""

from dataclasses import dataclass
from enum import Enum

from noria.alarms import Severity


class Matter(Enum):
    """What handlers tell people of: how severe it is, and why.

    Critical is what answers callers otherwise than somebody decided, or keeps them waiting, and what stands until a
    person moves it. What leaves everything as it was waits for the morning.
    """

    ROLLED_BACK = Severity.CRITICAL, "callers were answered by a version that an alarm took back"
    DEPLOYMENT_FAILED = Severity.CRITICAL, "what was decided does not answer, and nothing tries it again"
    STACK_STUCK = Severity.CRITICAL, "nothing can go live, nor be taken back"
    STACK_UNTRUE = Severity.CRITICAL, "the next deployment could change what answers unasked"
    SERVING_DIFFERS = Severity.CRITICAL, "callers are answered by what nobody decided"
    UNAPPROVED_LIVE = Severity.CRITICAL, "callers are answered by what nobody approved, or are about to be"
    UNWANTED_LIVE = (
        Severity.CRITICAL,
        "callers are answered by what was to be taken back, for nothing can replace it",
    )
    UNANSWERED = Severity.CRITICAL, "callers get no answer in the model's hours"
    GOLDEN_WRONG = Severity.CRITICAL, "callers are answered wrongly, and no alarm takes that back"
    BATCH_FAILED = Severity.CRITICAL, "whoever sent the rows waits for answers, and no alarm says that none come"
    LEDGER_CHANGED = Severity.CRITICAL, "somebody may have broken in"

    QUARANTINED = Severity.WARNING, "the file is kept for its sender to mend, and what answers stays"
    LABELS_REFUSED = Severity.WARNING, "the file is kept for its sender to mend, and nothing was measured with it"
    BATCH_REFUSED = Severity.WARNING, "the file is kept for its sender to mend, and nothing was begun"
    TRAINING_FAILED = Severity.WARNING, "there is no new version, and what answers stays"
    CANDIDATE_REFUSED = Severity.WARNING, "the gates did their work, and what answers stays"
    TRAINED = Severity.WARNING, "whoever approves looks when they are at work"
    NOT_BACK = Severity.WARNING, "nobody asks it before the model's hours begin, and a critical page tells it then"
    APPROVAL_VOID = Severity.WARNING, "it waits for approval again, and what answers stays"
    PACKAGE_EXPIRED = Severity.WARNING, "it was not live, and what answers stays"
    PACKAGE_OUTDATED = Severity.WARNING, "it answers as well as yesterday"
    REFUSED = Severity.WARNING, "what was asked cannot be, and what answers stays"
    SUPERSEDED = Severity.WARNING, "a newer decision goes live in its place"
    STAYS_ON = Severity.WARNING, "it answers on, outside of its hours, and costs what it need not"
    CHALLENGER_ROLLED_BACK = Severity.WARNING, "the champion answers"
    UNHEARD = Severity.WARNING, "what waits is kept, and other events go on"
    UNPROBED = Severity.WARNING, "alarms watch the version as any other"

    def __init__(self, severity: Severity, why: str) -> None:
        self.severity = severity
        self.why = why


@dataclass(frozen=True, kw_only=True)
class Page:
    """`subject` in one line; `what` happened, `where` to look, what to `do`, and a `command` that helps."""

    matter: Matter
    subject: str
    what: str
    where: str
    do: str
    command: str

    @property
    def message(self) -> str:
        severity = f"Severity: {self.matter.severity}, because {self.matter.why}."
        return f"{self.what}\n\nWhere: {self.where}\nWhat to do: {self.do}\n{severity}\n\n    {self.command}\n"
