"""What `noria traffic`, `shadow`, `promote`, `abandon` and `rollback` do: look what would come of it, then ask.

The same decision is made here and by deploy_model, from the same ledger: what it would refuse is refused at once.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel

from noria.approval import word
from noria.aws.account import caller
from noria.aws.approvals import candidate
from noria.aws.bus import Bus
from noria.aws.serving import ServingStack, parameters
from noria.cli.output import DRY_RUN, Refused, require_reason
from noria.cli.state import Deployed
from noria.decisions import Decisions, Verdict
from noria.decisions import Outcome as Decision
from noria.deployment import Cause, Desired, Guard, Request, guard, live, requests, under_way, unsettled, wanted
from noria.events import ServingRequest, ServingRequested
from noria.ledger import Entry
from noria.spec import ModelSpec
from noria.units import format_duration

Action = Literal["traffic", "shadow", "promote", "abandon", "rollback", "retire"]


class Change(BaseModel):
    """A change of what answers: from what, to what, and how. `request` names it once it was asked for."""

    model: str
    action: str
    reason: str
    now: str
    then: str
    parameters: dict[str, str]
    guardrails: str
    takes: str
    waits: str | None
    request: str | None

    @property
    def text(self) -> str:
        rows = {
            "now": self.now,
            "then": self.then,
            "guardrails": self.guardrails,
            "takes": self.takes,
            "waits": self.waits or "for nothing: the serving stack is free",
            **self.parameters,
        }
        width = max(map(len, rows))
        lines = [f"  {name:<{width}}  {value}" for name, value in rows.items()]
        if self.request is None:
            return "\n".join([f"{self.model}: nothing was asked for. {self.action} would come to:", *lines])
        return "\n".join([f"{self.model}: {self.action} is asked for.", *lines, f"Follow it with: {self.follow}"])

    @property
    def follow(self) -> str:
        return f"noria events {self.model}"


@dataclass(frozen=True)
class Changes:
    """Changes of one deployed model. Raises `Refused` with the reason where one cannot be."""

    deployed: Deployed
    spec: ModelSpec

    def ask(
        self,
        action: Action,
        *,
        reason: str,
        package: str | None = None,
        percent: int | None = None,
        dry_run: bool = False,
    ) -> Change:
        require_reason(reason, dry_run=dry_run)
        model = self.deployed.require(self.spec.model)
        entries = self.deployed.ledger.entries(model)
        # Who asks has seen this ledger: a clock that is slow must not make the request older than what is in it.
        seen = [request.decided_at + timedelta(milliseconds=1) for request in requests(entries)]
        asked = ServingRequest(
            model=model,
            action=action,
            package=package,
            percent=percent,
            reason=reason or DRY_RUN,
            by=caller(),
            requested_at=max([datetime.now(UTC), *seen]),
            request=str(uuid.uuid4()),
        )
        verdict = self._decide(asked, entries)
        moving = under_way(entries)
        also = f" {moving[0].upper()}{moving[1:]}." if moving else ""
        if verdict.outcome is Decision.REFUSED:
            raise Refused(f"{verdict.refusal}{also}")
        if verdict.desired is None:
            raise Refused(f"{model}: that is so already, or on its way: see noria events {model}.{also}")
        if not dry_run:
            meant = self._meant(action, package, verdict.desired, entries)
            Bus(name=self.deployed.parameter("event-bus")).publish(
                ServingRequested.of(asked.model_copy(update={"package": meant}))
            )
        return self._change(asked, verdict, verdict.desired, entries, sent=not dry_run)

    def _meant(self, action: Action, package: str | None, desired: Desired, entries: list[Entry]) -> str | None:
        """The package that the person saw when asking: by the time that it is heard, another may be in its place."""
        match action:
            case "rollback" | "promote":
                return desired.package
            case "abandon":
                before = wanted(entries)
                return before.challenger if before else None
            case _:
                return package

    def _decide(self, asked: ServingRequest, entries: list[Entry]) -> Verdict:
        def approval(package: str) -> str | None:
            found = self.deployed.registry.find(self.deployed.names.model(self.spec.model), package)
            return word(self.spec, entries, candidate(found), asked.requested_at) if found else None

        return Decisions(spec=self.spec, entries=entries, approval=approval, now=asked.requested_at).requested(asked)

    def _change(
        self, asked: ServingRequest, verdict: Verdict, desired: Desired, entries: list[Entry], *, sent: bool
    ) -> Change:
        now = live(entries) or Desired(package=None)
        guarded = guard(now, desired, Cause(str(verdict.facts[-1].details["cause"])))
        state = ServingStack(name=self.deployed.names.stack(asked.model, "serving")).state()
        return Change(
            model=asked.model,
            action=asked.action,
            reason=asked.reason,
            now=str(now),
            then=str(desired),
            parameters={
                name: value for name, value in parameters(desired, guarded).items() if name in state.parameters
            },
            guardrails=self._watched(guarded),
            takes=self._takes(guarded, desired),
            waits=self._waits(desired, entries, asked.requested_at, changing=state.in_progress),
            request=asked.request if sent else None,
        )

    def _waits(self, desired: Desired, entries: list[Entry], at: datetime, *, changing: bool) -> str | None:
        """What it waits for, and how long that may take; what waits already and is not carried out then."""
        hours, now, moving = self.spec.serve.hours, live(entries) or Desired(package=None), unsettled(entries)
        if hours and not hours.include(at) and now.package is None and desired.package:
            waits = f"for its hours: {self.spec.model} is off until {hours.local(hours.next_start(at))}"
            waiting = moving
        elif moving:
            first, *waiting = moving
            waits = f"for its turn: a deployment is under way, from {now} to {first.desired}, {self._lasts(now, first)}"
        else:
            return "for its turn: the serving stack is changing for another reason" if changing else None
        return f"{waits}. It replaces {waiting[-1].desired}, which waits too" if waiting else waits

    def _lasts(self, now: Desired, request: Request) -> str:
        guarded = guard(now, request.desired, request.cause)
        watched = guarded is not Guard.OFF and self.spec.serve.mode.has_instances
        sooner = "; an alarm may end it sooner" if watched else ""
        return f"since {request.at:%Y-%m-%d %H:%M:%S} UTC, and takes {self._takes(guarded, request.desired)}{sooner}"

    def _watched(self, guarded: Guard) -> str:
        if not self.spec.serve.mode.has_instances:
            return f"none in mode {self.spec.serve.mode.value}"
        return {
            Guard.ON: f"alarms watch it, strategy {self.spec.serve.strategy.value}",
            Guard.AT_ONCE: "alarms watch it, everything at once",
            Guard.OFF: "none: SageMaker guards no change that adds or removes a variant",
        }[guarded]

    def _takes(self, guarded: Guard, desired: Desired) -> str:
        serve = self.spec.serve
        if not serve.mode.has_instances:
            return "minutes: there is no fleet to move"
        if guarded is Guard.OFF and desired.package is None:
            return "minutes: requests that are being answered are, later ones fail"
        if guarded is Guard.OFF:
            return "as long as new instances need to start; no bake"
        steps = 1 if guarded is Guard.AT_ONCE else serve.steps
        bakes = f"{steps} bake{'s' if steps > 1 else ''} of {format_duration(serve.bake)}"
        return f"{bakes}, after new instances have started"
