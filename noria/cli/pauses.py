"""What `noria pause` and `noria resume` do: ask the reconciler, and wait until the ledger says that it is so."""

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel

from noria.aws.account import caller
from noria.aws.bus import Bus
from noria.aws.pauses import held
from noria.aws.storage import Storage
from noria.cli.output import Refused, require_reason
from noria.cli.state import Deployed
from noria.cli.times import coming
from noria.events import PauseRequest, PauseRequested
from noria.pause import last_pause
from noria.units import count

_PATIENCE = 60.0
_POLL = 1.0


class Paused(BaseModel):
    """What was asked, and whether the ledger knows it already; `waiting` are events set aside until now."""

    model: str
    action: Literal["pause", "resume"]
    until: AwareDatetime | None
    reason: str
    request: str
    recorded: bool
    waiting: int

    @property
    def text(self) -> str:
        if not self.recorded:
            return (
                f"{self.model}: {self.action} is asked for, and not done yet. Follow it with: noria events {self.model}"
            )
        if self.action == "resume":
            return f"{self.model} is resumed: {count(self.waiting, 'event')} that waited go to their reactions."
        end = f"until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else f"until noria resume {self.model}"
        return (
            f"{self.model} is paused {end}: nothing begins by itself, and its events wait, those of uploads and "
            "approvals too. What is live answers, alarms take a deployment back as ever, and noria rollback, reject, "
            "traffic, shadow, promote, abandon, retire, retrain and monitor work."
        )


@dataclass(frozen=True)
class PauseWish:
    """A person's wish about one deployed model. Raises `Refused` with the reason where it can come to nothing."""

    deployed: Deployed
    model: str

    def pause(self, *, reason: str, until: str | None) -> Paused:
        now = datetime.now(UTC)
        end = coming(until, now=now, option="--until") if until else None
        return self._ask("pause", reason=reason, until=end, now=now)

    def resume(self, *, reason: str) -> Paused:
        entries = self.deployed.ledger.entries(self.deployed.require(self.model))
        if last_pause(entries) is None:
            raise Refused(f"{self.model} is not paused: see noria events {self.model}.")
        return self._ask("resume", reason=reason, until=None, now=datetime.now(UTC))

    def _ask(self, action: Literal["pause", "resume"], *, reason: str, until: datetime | None, now: datetime) -> Paused:
        require_reason(reason)
        waiting = sum(1 for _ in held(Storage(bucket=self.deployed.parameter("data-bucket")), self.model))
        asked = PauseRequest(
            model=self.deployed.require(self.model),
            action=action,
            until=until,
            reason=reason,
            by=caller(),
            requested_at=now,
            request=str(uuid.uuid4()),
        )
        Bus(name=self.deployed.parameter("event-bus")).publish(PauseRequested.of(asked))
        return Paused(
            model=self.model,
            action=action,
            until=until,
            reason=reason,
            request=asked.request,
            recorded=self._recorded(asked.request),
            waiting=waiting,
        )

    def _recorded(self, request: str) -> bool:
        end = time.monotonic() + _PATIENCE
        while not any(entry.subject == request for entry in self.deployed.ledger.entries(self.model)):
            if time.monotonic() > end:
                return False
            time.sleep(_POLL)
        return True
