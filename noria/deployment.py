"""Deployments: what should answer, what does, and what it means when they differ.

SageMaker has no event that says "rolled back": it is inferred from what is live. Stack and endpoint are both asked,
because nobody documents what a stack reports when SageMaker rolls an update back on an alarm.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from noria.ledger import Entry, Kind, latest
from noria.names import version

ENDPOINT_TYPE = "AWS::SageMaker::Endpoint"
RESTORES = 5
"""How often a stack is brought back to what is live before a person is asked instead."""

NONE = "none"
"""How ledger and stack write that there is no such package."""

SETTLED = frozenset({Kind.DEPLOYED, Kind.ROLLED_BACK, Kind.DEPLOYMENT_FAILED, Kind.DEPLOYMENT_SUPERSEDED})


class Cause(StrEnum):
    """Why something is to go live."""

    APPROVED = "approved"
    REJECTED = "rejected"
    ROLLBACK = "rollback"
    TRAFFIC = "traffic"
    PROMOTE = "promote"
    ABANDON = "abandon"
    SHADOW = "shadow"
    RETIRED = "retired"
    PROGRESSIVE = "progressive"  # a step of a challenger on its way to become the champion
    OFF = "off"  # outside of serve.hours: nothing answers, whatever is wanted
    ON = "on"  # they have begun


OF_CHAMPION = frozenset({Cause.APPROVED, Cause.ROLLBACK, Cause.PROMOTE, Cause.PROGRESSIVE, Cause.RETIRED})
"""Decisions about who is to be champion: of two, the later one counts, whichever is heard first."""


BY_HOURS = frozenset({Cause.OFF, Cause.ON})
"""Decided by the clock: they change when a model answers, and not what by."""

WAY_BACK = frozenset({Cause.ROLLBACK, Cause.REJECTED, Cause.ABANDON})
"""Decisions against what answers. Alarms that watch the way back compare with what is left, and so blame nobody."""


@dataclass(frozen=True, kw_only=True)
class Desired:
    """An endpoint as it should be, or is: packages by what they do, and the challenger's percent of the requests."""

    package: str | None
    challenger: str | None = None
    percent: int = 0
    shadow: str | None = None

    @property
    def packages(self) -> frozenset[str]:
        return frozenset(package for package in (self.package, self.challenger, self.shadow) if package)

    @property
    def variants(self) -> int:
        """How many variants answer: SageMaker guards no deployment that changes this."""
        return bool(self.package) + bool(self.challenger)

    @property
    def details(self) -> dict[str, str | int | float | bool | list[str] | None]:
        return {
            "package": self.package or NONE,
            "challenger": self.challenger or NONE,
            "percent": self.percent,
            "shadow": self.shadow or NONE,
        }

    @classmethod
    def of(cls, details: Mapping[str, object]) -> Self:
        """From a ledger entry; what was recorded before there were challengers and shadows has none."""
        package, challenger, shadow = (
            None if (value := str(details.get(name) or NONE)) == NONE else value
            for name in ("package", "challenger", "shadow")
        )
        return cls(package=package, challenger=challenger, percent=int(str(details.get("percent", 0))), shadow=shadow)

    def without(self, package: str, *, instead: str | None = None) -> "Desired":
        """The same where `package` does nothing; as champion `instead` takes its place, and does nothing else."""
        champion = instead if self.package == package else self.package
        gone = {package, champion}
        challenged = self.challenger is not None and self.challenger not in gone
        return Desired(
            package=champion,
            challenger=self.challenger if challenged else None,
            percent=self.percent if challenged else 0,
            shadow=None if self.shadow in gone else self.shadow,
        )

    def __str__(self) -> str:
        challenger = f", with {version(self.challenger)} on {self.percent}%" if self.challenger else ""
        shadow = f", shadowed by {version(self.shadow)}" if self.shadow else ""
        return f"{version(self.package)}{challenger}{shadow}"


def weight(percent: int) -> float:
    """What a challenger with `percent` of the requests weighs, the champion weighing 1."""
    return percent / (100 - percent)


def percent(weight: float) -> int:
    """Of the requests, for a challenger of this weight beside a champion of weight 1."""
    return round(100 * weight / (1 + weight))


@dataclass(frozen=True, kw_only=True)
class Request:
    """A deployment that was asked for. `decided_at`: when somebody decided what it carries out."""

    id: str
    desired: Desired
    at: datetime
    cause: Cause
    reason: str
    decision: str
    decided_at: datetime

    @classmethod
    def of(cls, entry: Entry) -> Self:
        details = entry.details
        decision = str(details.get("decision", ""))
        moment = details.get("decided_at") or decision.rpartition("#")[2]
        return cls(
            id=entry.subject,
            desired=Desired.of(details),
            at=entry.at,
            cause=Cause(str(details.get("cause", Cause.APPROVED))),
            reason=str(details.get("reason", "")),
            decision=decision,
            decided_at=datetime.fromisoformat(str(moment)) if moment else entry.at,
        )


class Guard(StrEnum):
    """How alarms watch a change of the endpoint; the values are those of the stack's parameter."""

    ON = "on"  # by the spec's strategy
    AT_ONCE = "at-once"  # everything at once, then one bake
    OFF = "off"


def guard(before: Desired | None, after: Desired, cause: Cause) -> Guard:
    """SageMaker refuses to guard a change that adds or removes a variant; the way back is not taken in steps."""
    if before and before.package and before.variants != after.variants:
        return Guard.OFF
    return Guard.AT_ONCE if cause in WAY_BACK else Guard.ON


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The resource at which the stack's operation went wrong first, and what CloudFormation says about it."""

    resource_type: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Stack and endpoint, looked at together: `wanted` is what the stack's parameters say, `live` what answers.

    `same_config`: the endpoint has the stack's configuration. `failure` belongs to the operation of the deployment in
    question. `alarms`: whether the mode of serving knows rollback alarms at all.
    """

    changing: bool
    wanted: Desired
    live: Desired
    same_config: bool = True
    failure: Failure | None = None
    endpoint_failure: str | None = None
    alarms: bool = True


class Outcome(StrEnum):
    """What a look at stack and endpoint shows; the values are names of metrics."""

    CHANGING = "DeploymentChanging"  # look again when it has ended: that is an event
    QUIET = "DeploymentQuiet"  # nothing was asked
    LIVE = "ModelDeployed"
    ROLLED_BACK = "ModelRolledBack"
    FAILED = "DeploymentFailed"


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """`restore`: the stack wants something else than what is live, and must be told the truth.

    `blamed`: the package that the alarms spoke against.
    """

    outcome: Outcome
    reason: str
    restore: bool = False
    blamed: str | None = None


def deployment_id(what: str, decision: str) -> str:
    """Names a deployment by what was decided; also the token of the stack's update: `[a-zA-Z0-9][-a-zA-Z0-9]*`."""
    return f"deploy-{hashlib.sha256(f'{what}#{decision}'.encode()).hexdigest()[:24]}"


def requests(entries: Sequence[Entry]) -> list[Request]:
    """Every deployment that was ever asked for, oldest first."""
    return [Request.of(entry) for entry in entries if entry.kind is Kind.DEPLOYMENT_REQUESTED]


def unsettled(entries: Sequence[Entry]) -> list[Request]:
    """Deployments without an outcome, oldest first."""
    settled = {entry.subject for entry in entries if entry.kind in SETTLED}
    return [request for request in requests(entries) if request.id not in settled]


def asked_for(entries: Sequence[Entry]) -> list[Request]:
    """Every deployment that was decided on, oldest first: all but those that go by the clock."""
    return [request for request in requests(entries) if request.cause not in BY_HOURS]


def newest_request(entries: Sequence[Entry]) -> Request | None:
    """The deployment that was decided on last, if it has no outcome yet. Older ones are not carried out any more."""
    last = asked_for(entries)[-1:]
    return next((request for request in unsettled(entries) if request in last), None)


def by_hours(entries: Sequence[Entry]) -> Request | None:
    """The endpoint's coming or going by the clock, if it has no outcome yet; it supersedes nothing."""
    return next((request for request in unsettled(entries) if request.cause in BY_HOURS), None)


def overtaken_by(entries: Sequence[Entry], decided_at: datetime, causes: frozenset[Cause] | None = None) -> str | None:
    """What was asked for by a decision later than `decided_at` (of `causes`): events arrive in any order."""
    for request in reversed(asked_for(entries)):
        if request.decided_at > decided_at and (causes is None or request.cause in causes):
            return str(request.desired)
    return None


def live(entries: Sequence[Entry]) -> Desired | None:
    """What was last seen to answer: rollbacks and failures leave it as it was."""
    seen = latest(entries, Kind.DEPLOYED, Kind.SERVING_DIFFERS)
    return Desired.of(seen.details) if seen else None


def answering(entries: Sequence[Entry]) -> frozenset[str]:
    """The packages that answer, or that a deployment under way is about to have answer."""
    moving = [] if waits_for_hours(entries) else [request.desired for request in unsettled(entries)]
    now = live(entries)
    return frozenset().union(*(desired.packages for desired in [*moving, *([now] if now else [])]))


def turned_off(entries: Sequence[Entry]) -> Entry | None:
    """What says that nothing answers because it is outside of the model's hours."""
    seen = latest(entries, Kind.DEPLOYED, Kind.SERVING_DIFFERS)
    return seen if seen and is_off(seen) else None


def is_off(entry: Entry) -> bool:
    """Whether it says that the endpoint was taken away by the clock."""
    return entry.kind is Kind.DEPLOYED and entry.details.get("cause") == Cause.OFF


def places(entries: Sequence[Entry]) -> list[Entry]:
    """Each time that something was seen to answer, oldest first, as if there were no hours."""
    kinds = {Kind.DEPLOYED, Kind.SERVING_DIFFERS}
    return [entry for entry in entries if entry.kind in kinds and not is_off(entry)]


def kept(entries: Sequence[Entry]) -> Desired | None:
    """What answers, or outside of the model's hours answered before."""
    seen = places(entries)[-1:]
    return Desired.of(seen[0].details) if seen else None


def comes_back(entries: Sequence[Entry]) -> Desired | None:
    """What answers when hours begin: what did before, or what a way back has asked for since."""
    gone = turned_off(entries)
    since = [request for request in asked_for(entries) if gone and request.at > gone.at and request.cause in WAY_BACK]
    return since[-1].desired if since else kept(entries)


def live_package(entries: Sequence[Entry]) -> str | None:
    """The champion's package: as it was last seen to answer."""
    champion = kept(entries)
    return champion.package if champion else None


def wanted(entries: Sequence[Entry]) -> Desired | None:
    """What is to be live when everything under way has ended well, within the model's hours."""
    newest = newest_request(entries)
    return newest.desired if newest else kept(entries)


def waits_for_hours(entries: Sequence[Entry]) -> Entry | None:
    """What says that the newest deployment without an outcome waits for the model's hours to begin."""
    now, moving = live(entries), unsettled(entries)
    if not moving or (now and now.package) or by_hours(entries):
        return None
    return latest([entry for entry in entries if entry.subject == moving[-1].id], Kind.DEPLOYMENT_WAITING)


def under_way(entries: Sequence[Entry]) -> str | None:
    """From what to what a deployment goes that has no outcome yet, and what is asked for after it, for people."""
    moving = unsettled(entries)
    if not moving:
        return None
    now = live(entries) or Desired(package=None)
    if waits := waits_for_hours(entries):
        return waits.summary[0].lower() + waits.summary[1:].rstrip(".")
    told = f"a deployment is under way, from {now} to {moving[0].desired}"
    return f"{told}; then {moving[-1].desired} is to go live" if len(moving) > 1 else told


def rollback_of(entries: Sequence[Entry], package: str) -> Entry | None:
    """The entry that says that alarms spoke against this package."""
    for entry in entries:
        blamed = entry.details.get("blamed", entry.details.get("package"))
        if entry.kind in {Kind.ROLLED_BACK, Kind.CHALLENGER_ROLLED_BACK} and blamed == package:
            return entry
    return None


def predecessors(entries: Sequence[Entry], package: str | None) -> list[str]:
    """Champions before `package`, newest first, without those that were rolled back.

    Who goes back leaves what came after behind: after 1, 2, 3 and a rollback to 2, only 1 is before it.
    """
    causes = {request.id: request.cause for request in requests(entries)}
    line: list[str] = []
    for entry in entries:
        if entry.kind is not Kind.DEPLOYED:
            continue
        champion = str(entry.details["package"])
        if champion == NONE:
            continue
        if champion in line and causes.get(entry.subject) in WAY_BACK | {Cause.ON}:
            line = line[: line.index(champion) + 1]
        elif not line or line[-1] != champion:
            line = [*(other for other in line if other != champion), champion]
    if package in line:
        line = line[: line.index(package)]
    return [champion for champion in reversed(line) if rollback_of(entries, champion) is None]


def took_back(entries: Sequence[Entry]) -> Request | None:
    """The decision against another champion that brought the one which answers, where nobody asked for this one."""
    champion, brought = None, ""
    for entry in places(entries):
        answers = Desired.of(entry.details).package
        if answers != champion and entry.details.get("cause") != Cause.ON:
            champion, brought = answers, entry.subject
    request = next((request for request in requests(entries) if request.id == brought), None)
    return request if request and request.cause in WAY_BACK - {Cause.ROLLBACK} else None


def decided_against(entries: Sequence[Entry], desired: Desired) -> str | None:
    """A package of `desired` that was decided against since it was asked for, and does not answer yet."""
    now = live(entries) or Desired(package=None)
    for package in (desired.package, desired.challenger, desired.shadow):
        if package is None or package in {now.package, now.challenger, now.shadow}:
            continue
        if rollback_of(entries, package) or taken_back(entries, package):
            return package
    return None


def taken_back(entries: Sequence[Entry], package: str) -> bool:
    """Whether the last word on a package, of those that the ledger knows, is against it."""
    words = [entry for entry in entries if entry.details.get("package") == package]
    word = latest(words, Kind.PACKAGE_APPROVED, Kind.PACKAGE_REJECTED, Kind.APPROVAL_VOIDED)
    return word is not None and word.kind is not Kind.PACKAGE_APPROVED


def challenger_at(entries: Sequence[Entry], moment: datetime, under_way: Request | None) -> str | None:
    """The challenger that an alarm of that moment is about.

    It is the one that answered then, or the one that the deployment under way then brought: the alarms move to the new
    configuration before the endpoint does. One that waits for its turn has no alarms yet.
    """
    brought = under_way.desired.challenger if under_way else None
    seen = live([entry for entry in entries if entry.at <= moment])
    return brought or (seen.challenger if seen else None)


def restores(entries: Sequence[Entry]) -> int:
    """How often the stack was brought back to what is live since a deployment last had an outcome."""
    count = 0
    for entry in reversed(entries):
        if entry.kind in SETTLED:
            break
        count += entry.kind is Kind.SERVING_RESTORED
    return count


def difference(observed: Observed, entries: Sequence[Entry]) -> str | None:
    """What is wrong although stack and endpoint are quiet and no deployment is under way; None where nothing is."""
    if observed.changing:
        return None
    known = live(entries) or Desired(package=None)
    if observed.live != known:
        return f"{observed.live} answers, of which the ledger knows nothing: it has {known}"
    if observed.wanted == observed.live and not observed.same_config:
        return (
            f"{observed.live} answers under another configuration than the stack's: a deployment of a changed template "
            "was rolled back, whatever the stack says"
        )
    return None


def difference_subject(answers: str | None, changed: datetime) -> str:
    """Names a difference, so that it is told once: what answers, and when the stack changed last."""
    return f"{answers}#{changed.isoformat()}"


def settle(observed: Observed, request: Request | None) -> Settlement:
    """What became of the deployment that the stack has carried out, or begun and given up.

    What the endpoint gave up because of an alarm is rolled back, whether the stack calls that a failure or a success;
    so is what it gave up without a word where alarms watched, since nobody documents what it says. What failed for a
    stated reason of another kind, as a quota or another resource, says nothing against the package: it may be tried
    again; nor does a stack that somebody else has changed since. Alarms watch the champion, so they speak against a
    package only where that one was to become it; and not on the way back, to what answered well before.
    """
    if observed.changing:
        return Settlement(outcome=Outcome.CHANGING, reason="stack or endpoint is still changing")
    now, restore = observed.live, observed.wanted != observed.live
    if request is None:
        return Settlement(outcome=Outcome.QUIET, reason="no deployment is under way", restore=restore)
    desired = request.desired
    if now == desired:
        return Settlement(outcome=Outcome.LIVE, reason="the endpoint answers with it", restore=restore)
    failure = observed.failure
    why = (failure.reason if failure else None) or observed.endpoint_failure
    if now.package is None:
        return Settlement(outcome=Outcome.FAILED, reason=why or "the endpoint did not start", restore=restore)
    if failure is None and why is None and not restore:
        why = "another hand has changed the serving stack since"
    of_endpoint = failure is None or failure.resource_type == ENDPOINT_TYPE
    watched = observed.alarms and guard(now, desired, request.cause) is not Guard.OFF
    if of_endpoint and watched and (why is None or "alarm" in why.lower()):
        why = why or "the endpoint answers as before although the stack reports success"
        new_champion = desired.package != now.package and request.cause not in WAY_BACK
        blamed = desired.package if new_champion else None
        return Settlement(outcome=Outcome.ROLLED_BACK, reason=why, restore=restore, blamed=blamed)
    why = why or ("the endpoint answers as before" if failure is None else "CloudFormation gave no reason")
    return Settlement(outcome=Outcome.FAILED, reason=why, restore=restore)
