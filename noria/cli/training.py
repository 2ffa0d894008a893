"""What `noria retrain` and `noria policy` do: ask the governor of training, with the ledger as it is now.

The same decision is made here and by request_retraining: what it would refuse is refused at once.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel

from noria.aws.account import caller
from noria.aws.bus import Bus
from noria.cli.output import DRY_RUN, Refused, require_reason
from noria.cli.state import Deployed
from noria.events import RetrainingWanted, RetrainingWish
from noria.pause import Pause, paused
from noria.retraining import Ask, Decision, data_asks, decide, in_words, waits
from noria.spec import ModelSpec


class Wish(BaseModel):
    """What a person asks, and the answer. `request` names it once it was asked for."""

    model: str
    reason: str
    forced: bool
    decision: Decision
    request: str | None

    @property
    def text(self) -> str:
        if self.request is None:
            return f"{self.model}: nothing was asked for. By hand: {self.decision.sentence}"
        follow = f"Follow it with: noria events {self.model}"
        return f"{self.model}: a training is asked for. By hand: {self.decision.sentence}\n{follow}"


class Outlook(BaseModel):
    """What the policy would answer now: to whom, what, and why."""

    asks: str
    answer: str
    because: str
    again_at: AwareDatetime | None


@dataclass(frozen=True)
class Policy:
    """The policy of one deployed model. Raises `Refused` with the reason where it says no."""

    deployed: Deployed
    spec: ModelSpec

    def retrain(self, *, reason: str, force: bool, dry_run: bool) -> Wish:
        require_reason(reason, dry_run=dry_run)
        model, now = self.deployed.require(self.spec.model), datetime.now(UTC)
        decision = decide(self.spec, self.deployed.ledger.entries(model), Ask(cause="hand", forced=force), now=now)
        wish = RetrainingWish(
            model=model,
            reason=reason or DRY_RUN,
            by=caller(),
            force=force,
            requested_at=now,
            request=str(uuid.uuid4()),
        )
        if not dry_run:
            if not decision.retrain:
                over = {"runs", "hours"} >= set(decision.rules)
                raise Refused(f"{model}: {decision.sentence}" + " Go over the budget with --force." * over)
            Bus(name=self.deployed.parameter("event-bus")).publish(RetrainingWanted.of(wish))
        request = None if dry_run else wish.request
        return Wish(model=model, reason=wish.reason, forced=force, decision=decision, request=request)

    def outlook(self) -> list[Outlook]:
        """What would come of each that may ask, if it asked now."""
        retrain, now = self.spec.retrain, datetime.now(UTC)
        entries = self.deployed.ledger.entries(self.deployed.require(self.spec.model))
        data, pause = data_asks(self.spec, entries), paused(entries, now)
        asks = [data] if data else []
        asks += [Ask(cause=cause) for cause in retrain.after if cause != "upload"]
        asks += [Ask(cause="schedule")] if retrain.schedule else []
        asks += [Ask(cause="hand")]
        rows = [_outlook(ask, decide(self.spec, entries, ask, now=now), pause) for ask in asks]
        nothing = Outlook(asks="data", answer="no", because=waits(self.spec, entries), again_at=None)
        return rows if data else [nothing, *rows]


def _outlook(ask: Ask, decision: Decision, pause: Pause | None) -> Outlook:
    answer = "yes" if decision.retrain else "would" if decision.would else "no"
    because, again_at = "; ".join(decision.reasons), None if decision.retrain else decision.again_at
    if pause and ask.cause != "hand":
        because = f"{pause}. What asks waits for its end; without the pause, {answer}: {because}"
        answer, again_at = "waits", pause.until
    return Outlook(asks=in_words(ask.cause), answer=answer, because=because, again_at=again_at)
