"""What `noria queues`, `redrive` and `replay` do: see what waits or failed, and have it sent again.

Reactions that hear an event twice act once, so that sending again is safe. What was sent again is recorded in the
ledger of each model that it is about, by the reconciler, whom these commands tell.
"""

import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Any

from pydantic import AwareDatetime, BaseModel

from noria.aws.account import caller
from noria.aws.archives import Archives, NoArchiveError, Replay, Rule
from noria.aws.bus import Bus
from noria.aws.logs import Logs, Place
from noria.aws.queues import DeadLetters, Letter, Queues, ages
from noria.cli.output import Refused
from noria.cli.state import Deployed
from noria.events import EventsSentAgain, Heard, SentAgain
from noria.messages import event_in, model_of, what
from noria.names import PROMOTION
from noria.units import count

EXPLAINED = 20
"""Dead letters of a reaction whose errors are looked up: each is a search in a log."""

LOT = 100
"""Dead letters that are told of together, before the first of them is sent: who is killed has told of all they sent."""

UNKNOWN = "unknown"
"""Whose dead letters are that come from nothing of the environment's, or that somebody else looks at just now."""

_POLL = 2.0


class DeadLetter(BaseModel):
    """`sent_again` is how often it was, and failed again."""

    reaction: str
    model: str | None
    event: str
    since: AwareDatetime
    sent_again: int
    error: str | None
    id: str


class QueueRow(BaseModel):
    """A reaction's queue, and its dead letters; `oldest` is how many seconds the oldest message has waited.

    None where there is no queue: of `promotion`, `unknown` and what is deployed no more there are dead letters alone.
    """

    reaction: str
    waiting: int | None
    in_flight: int | None
    delayed: int | None
    oldest: int | None
    dead: int
    letters: list[DeadLetter]

    @property
    def empty(self) -> bool:
        return not (self.waiting or self.in_flight or self.delayed or self.dead)


class Redriven(BaseModel):
    """Dead letters of one reaction and model that were, or would be, sent again."""

    reaction: str
    model: str | None
    events: list[str]
    count: int


class Replayed(BaseModel):
    """What was asked of the archives, or would be; `replays` say how far each is."""

    since: AwareDatetime
    until: AwareDatetime
    rules: list[str]
    reactions: list[str]
    replays: list[str]
    states: list[str]

    @property
    def text(self) -> str:
        span = f"{self.since:%Y-%m-%d %H:%M:%S} to {self.until:%Y-%m-%d %H:%M:%S} UTC"
        to = f"to {', '.join(self.reactions)}, by {count(len(self.rules), 'rule')}"
        if not self.replays:
            return f"Nothing was sent. Events of {span} would be sent again {to}."
        states = ", ".join(f"{name} {state}" for name, state in zip(self.replays, self.states, strict=True))
        return f"Events of {span} are sent again {to}: {states}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be sent again, and to which rules of which reactions."""

    since: datetime
    until: datetime
    chosen: Mapping[Rule, str]

    @property
    def reactions(self) -> list[str]:
        return sorted(set(self.chosen.values()))

    @property
    def by_archive(self) -> dict[str, list[Rule]]:
        found: dict[str, list[Rule]] = {}
        for rule in self.chosen:
            found.setdefault(rule.archive, []).append(rule)
        return found

    def told(self, replays: Sequence[Replay] = ()) -> Replayed:
        return Replayed(
            since=self.since,
            until=self.until,
            rules=sorted(rule.name for rule in self.chosen),
            reactions=self.reactions,
            replays=[replay.name for replay in replays],
            states=[replay.state for replay in replays],
        )


@dataclass(frozen=True)
class Recovery:
    """Queues and archives of one environment."""

    deployed: Deployed
    queues: Queues = field(default_factory=Queues)

    # --- what there is

    @cached_property
    def reactions(self) -> list[str]:
        return self.queues.of_reactions(self.deployed.names)

    def look(self, reaction: str | None) -> list[QueueRow]:
        """One row for each reaction, and for what else dead letters are of."""
        if not self.reactions:
            return []
        dead: dict[str, list[Letter]] = {each: [] for each in self.reactions}
        counted = self._count()
        with self.queues.dead_letters(self.deployed.names.dead_letters) as lying:
            found = sorted(lying, key=lambda letter: letter.sent)
        for letter in found:
            dead.setdefault(self._of(letter), []).append(letter)
        if hidden := max(0, counted - len(found)):
            dead.setdefault(UNKNOWN, [])
        if reaction:
            named = self._named(reaction, {*dead, PROMOTION})
            dead = {of: letters for of, letters in ({named: list[Letter]()} | dead).items() if of in {named, UNKNOWN}}
        oldest = ages([self.deployed.names.queue(each) for each in self.reactions], now=datetime.now(UTC))
        return [self._row(of, letters, oldest, hidden if of == UNKNOWN else 0) for of, letters in dead.items()]

    def _row(self, reaction: str, dead: Sequence[Letter], oldest: Mapping[str, int], hidden: int) -> QueueRow:
        queue = self.deployed.names.queue(reaction)
        found = self.queues.count(queue) if reaction in self.reactions else None
        return QueueRow(
            reaction=reaction,
            waiting=found and found.waiting,
            in_flight=found and found.in_flight,
            delayed=found and found.delayed,
            oldest=oldest.get(queue) if found and (found.waiting or found.in_flight) else None,
            dead=len(dead) + hidden,
            letters=[self._letter(reaction, each, number) for number, each in enumerate(dead)],
        )

    def _letter(self, reaction: str, letter: Letter, number: int) -> DeadLetter:
        event = event_in(letter.body)
        error = letter.undelivered
        if error is None and number < EXPLAINED:
            heard = Heard.of({"Records": [{"body": letter.body, "messageId": letter.id}]}).event or letter.id
            error = self._last_error(reaction, heard, since=letter.received or letter.sent)
        return DeadLetter(
            reaction=reaction,
            model=self._model(letter),
            event=what(event),
            since=letter.sent,
            sent_again=letter.times,
            error=error,
            id=letter.id,
        )

    def _last_error(self, reaction: str, event: str, *, since: datetime) -> str | None:
        """The last line of what a reaction failed on; a function that was stopped has said nothing of its end."""
        place = Place(group=f"/aws/lambda/{self.deployed.names.function(reaction)}", name=reaction)
        lines = self._logs.lines([place], since=since, word=event)
        errors = [line.exception or line.message for line in lines if line.event == event and line.level == "ERROR"]
        return errors[-1].strip().splitlines()[-1] if errors else None

    @cached_property
    def _logs(self) -> Logs:
        return Logs()

    def _model(self, letter: Letter) -> str | None:
        return model_of(event_in(letter.body), names=[self.deployed.names], models=self.deployed.models)

    def _named(self, reaction: str, known: Collection[str]) -> str:
        if (named := reaction.replace("_", "-")) not in known:
            raise Refused(
                f"No reaction {reaction!r} is deployed here: known are {', '.join(self.reactions)}. "
                "What to do with dead letters of one that was removed: docs/runbooks/dead-letters.md"
            )
        return named

    # --- dead letters

    def redrive(
        self, reaction: str | None, model: str | None, *, most: int, dry_run: bool
    ) -> tuple[list[Redriven], int]:
        """Bring dead letters back to where they belong: those of EventBridge and of Lambda, too.

        Also how many are left then, of all reactions: those that were seen, or as many as SQS counts.
        """
        if model:
            self.deployed.require(model)
        if not self.reactions:
            return [], 0
        known = {*self.reactions, PROMOTION}
        chosen = {self._named(reaction, known)} if reaction else known
        sent: dict[tuple[str, str | None], list[str]] = defaultdict(list)
        counted = self._count()
        with self.queues.dead_letters(self.deployed.names.dead_letters) as lying:
            meant = (letter for letter in lying if self._of(letter) in chosen and model in {None, self._model(letter)})
            wanted = islice(meant, most)
            while lot := list(islice(wanted, LOT)):
                if not dry_run:
                    self._tell_redriven(lot)
                for letter in lot:
                    if not dry_run:
                        self._bring_back(letter, lying)
                    sent[self._of(letter), self._model(letter)].append(what(event_in(letter.body)))
        rows = [
            Redriven(reaction=of, model=about, events=_kinds(events), count=len(events))
            for (of, about), events in sorted(sent.items(), key=str)
        ]
        return rows, max(counted, len(lying.seen)) - sum(row.count for row in rows)

    def _count(self) -> int:
        """Dead letters, those included that somebody looks at, as SQS knows it: seconds late."""
        found = self.queues.count(self.deployed.names.dead_letters)
        return found.waiting + found.in_flight

    def _of(self, letter: Letter) -> str:
        """The reaction that a letter is of, which may be deployed no more."""
        return self.deployed.names.reaction_of(letter.origin or "") or UNKNOWN

    def _bring_back(self, letter: Letter, lying: DeadLetters) -> None:
        if (reaction := self._of(letter)) != PROMOTION:
            lying.bring_back(letter, to=self.deployed.names.queue(reaction))
            return
        # Nobody but AWS may put its events on a bus: the rule hears this one again from the archive.
        rule = next((each for each in self._archives.rules() if each.name == letter.origin), None)
        if rule is None:
            raise Refused(f"There is no rule {letter.origin} any more that could hear its event again.")
        at, second = datetime.fromisoformat(event_in(letter.body)["time"]), timedelta(seconds=1)
        name, why = f"{rule.archive}-{str(uuid.uuid4())[:8]}", f"noria redrive, {self._who}"
        self._archives.replay(name, [rule], since=at - second, until=at + second, why=why)
        lying.throw_away(letter)

    def _tell_redriven(self, lot: Sequence[Letter]) -> None:
        for (of, about), number in Counter((self._of(letter), self._model(letter)) for letter in lot).items():
            if about is not None:  # what is about no model is in no ledger
                self._tell([about], how="redrive", reactions=(of,), count=number)

    # --- archives

    def plan(self, asked: Sequence[str], since: datetime, until: datetime) -> Plan:
        """The rules that would hear what the archives have of that time: those of `asked`, or all."""
        if since >= until:
            raise Refused(
                f"Nothing lies between {since.isoformat()} and {until.isoformat()}: --since is to be earlier."
            )
        rules = {rule: reaction for rule in self._archives.rules() if (reaction := self._reaction_of(rule))}
        wanted = [each.replace("_", "-") for each in asked]
        chosen = {
            rule: reaction for rule, reaction in rules.items() if not asked or {rule.name, reaction} & {*asked, *wanted}
        }
        heard = {name for rule, reaction in rules.items() for name in (rule.name, reaction)}
        if unknown := [each for each, name in zip(asked, wanted, strict=True) if not {each, name} & heard]:
            raise Refused(
                f"{', '.join(unknown)}: neither a rule nor a reaction that has one. Reactions with rules are "
                f"{', '.join(sorted(set(rules.values())))}."
            )
        return Plan(since=since, until=until, chosen=chosen)

    def replay(self, plan: Plan, *, wait: timedelta, progress: Callable[[str], None]) -> Replayed:
        """Start a replay of each bus, and follow them for `wait`. Raises `Refused`."""
        request = str(uuid.uuid4())
        started: list[Replay] = []
        try:
            for archive, rules in plan.by_archive.items():
                name = f"{archive}-{request[:8]}"
                why = f"noria replay, {self._who}"
                started.append(self._archives.replay(name, rules, since=plan.since, until=plan.until, why=why))
        except NoArchiveError as error:
            raise Refused(str(error)) from error
        finally:
            if started:
                reactions, span = tuple(plan.reactions), {"since": plan.since, "until": plan.until}
                self._tell(self.deployed.models, how="replay", reactions=reactions, request=request, **span)
        end = time.monotonic() + wait.total_seconds()
        while not all(replay.ended for replay in started) and time.monotonic() < end:
            time.sleep(_POLL)
            started = [self._archives.progress(replay.name) for replay in started]
            progress("; ".join(map(_progress, started)))
        if broken := [replay for replay in started if replay.ended and replay.state != "COMPLETED"]:
            raise Refused("; ".join(map(_progress, broken)))
        return plan.told(started)

    @cached_property
    def _archives(self) -> Archives:
        return Archives(names=self.deployed.names, bus=self.deployed.parameter("event-bus"))

    def _reaction_of(self, rule: Rule) -> str | None:
        return next(
            (each for each in self.reactions if rule.name.startswith(self.deployed.names.queue(f"{each}-"))), None
        )

    # --- the record

    @cached_property
    def _who(self) -> str:
        return caller()

    def _tell(self, models: Sequence[str], **what_was_done: Any) -> None:
        bus, told = Bus(name=self.deployed.parameter("event-bus")), {"request": str(uuid.uuid4()), **what_was_done}
        for model in models:
            bus.publish(EventsSentAgain.of(SentAgain(model=model, by=self._who, at=datetime.now(UTC), **told)))


def _kinds(events: Sequence[str]) -> list[str]:
    return [f"{number} × {event}" for event, number in Counter(events).most_common()]


def _progress(replay: Replay) -> str:
    reached = f", at {replay.reached:%Y-%m-%d %H:%M} UTC" if replay.reached and not replay.ended else ""
    return f"{replay.name} {replay.state}{reached}{f': {replay.why}' if replay.why else ''}"
