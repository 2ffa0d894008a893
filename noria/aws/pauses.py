"""The door of the reactions: while a model is paused, its events are set aside, and given back when that ends.

<model>/held/<milliseconds>/<reaction>/<message>.json in the data bucket is an event that waits, as it was sent.

Setting aside puts the same object at each delivery of a message, and giving back sends before it removes: who dies in
between is repeated, and nothing is lost. What is given back twice is heard twice, which reactions can bear.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import wraps
from itertools import islice
from typing import Any, TypeVar

from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError

from noria.aws.environment import Environment
from noria.aws.ledger import Ledger, LedgerBusyError
from noria.aws.queues import Queues
from noria.aws.storage import Storage
from noria.aws.telemetry import logger, tell
from noria.events import PauseRequest
from noria.ledger import Entry, Fact
from noria.messages import event_in, model_of, what
from noria.names import Names, key
from noria.pause import Turn, decide, ended_by_time, turn

Answer = TypeVar("Answer")
Handler = Callable[[dict[str, Any], LambdaContext], Answer]

_ATTEMPTS = 5
_AT_ONCE = 16

MOST = 5000
"""Events that are given back in one turn, of all models: some two minutes of work. The others follow at the next."""

_CLAIM = "give back"
_TURN = timedelta(minutes=6)
"""Longer than the reconciler runs."""


class Outcome(StrEnum):
    HELD = "EventHeld"
    LAPSED = "EventLapsed"


class DoorEnvironment(Environment):
    """`registry_env` is the environment whose packages are imported, where one is."""

    registry_env: str | None = None

    @property
    def all_names(self) -> Sequence[Names]:
        return [self.names, *([Names(env=self.registry_env)] if self.registry_env else [])]


def pausable(handler: Handler[Answer]) -> Handler[Answer | None]:
    """A handler that is not called for an event which has to wait (`noria.pause`)."""

    @wraps(handler)
    def handle(message: dict[str, Any], context: LambdaContext) -> Answer | None:
        return None if _waits(message) else handler(message, context)

    return handle


def _waits(message: dict[str, Any]) -> bool:
    """Whether a message of a queue is dealt with for now: set aside, or left to the next tick."""
    env = DoorEnvironment.from_os()
    for record in message.get("Records", ()):
        event = event_in(record.get("body", ""))
        model = model_of(event, names=env.all_names, models=env.models)
        becomes = turn(event)
        if model is None or becomes is Turn.GOES_ON:
            continue
        if not Ledger(table=env.ledger_table).pauses(model, datetime.now(UTC)):
            continue
        if becomes is Turn.LAPSES:
            tell(Outcome.LAPSED, model=model, event=what(event))
            return True
        queue = record["eventSourceARN"].rpartition(":")[2]
        held = Held(
            model=model,
            sent=int(record["attributes"]["SentTimestamp"]),
            reaction=queue.removeprefix(env.names.queue("")),
            message=record["messageId"],
        )
        Storage(bucket=env.data_bucket).write(held.key, record["body"])
        tell(Outcome.HELD, model=model, event=what(event))
        return True
    return False


@dataclass(frozen=True, kw_only=True)
class Held:
    """An event that waits: who is to hear it, and when it was sent (epoch milliseconds)."""

    model: str
    sent: int
    reaction: str
    message: str

    @property
    def key(self) -> str:
        return key(self.model, "held", f"{self.sent:013d}/{self.reaction}/{self.message}.json")

    @classmethod
    def parse(cls, key: str) -> "Held | None":
        """None of a key that `key` does not make."""
        found = _KEY.fullmatch(key)
        if found is None:
            return None
        return cls(model=found["model"], sent=int(found["sent"]), reaction=found["reaction"], message=found["message"])


_KEY = re.compile(r"(?P<model>[^/]+)/held/(?P<sent>\d{13})/(?P<reaction>[^/]+)/(?P<message>[^/]+)\.json")


def held(storage: Storage, model: str) -> Iterator[Held]:
    """What waits for a model, oldest first: keys are listed in their order. What else lies there is left alone."""
    for stored in storage.list(key(model, "held", "")):
        if event := Held.parse(stored.key):
            yield event
        else:
            logger.warning("No event that waits", model=model, key=stored.key)


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """Begins and ends pauses."""

    names: Names
    ledger: Ledger
    storage: Storage
    queues: Queues
    _heard: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def decide(self, asked: PauseRequest, now: datetime) -> bool:
        """Record a person's wish. False where it changes nothing. Raises `LedgerBusyError`."""
        return self._record(asked.model, lambda entries: decide(entries, asked, now))

    def end(self, model: str, now: datetime) -> bool:
        """Record that a pause has ended, where its time is up."""
        return self._record(model, lambda entries: ended_by_time(entries, model, now))

    def waiting(self, model: str) -> bool:
        """Whether anything waits that a reaction would hear."""
        return any(self._waiting(model))

    def _waiting(self, model: str) -> Iterator[Held]:
        """What waits for a reaction that there is, oldest first; what nobody hears keeps none of it."""
        return (each for each in held(self.storage, model) if self._hears(each.reaction))

    def _hears(self, reaction: str) -> bool:
        if reaction not in self._heard:
            try:
                self._heard[reaction] = bool(self.queues.url(self.names.queue(reaction)))
            except ClientError as error:
                # A queue that is not in the template any more is in no policy either.
                code = error.response["Error"]["Code"]
                if not (isinstance(error, self.queues.client.exceptions.QueueDoesNotExist) or "AccessDenied" in code):
                    raise
                self._heard[reaction] = False
        return self._heard[reaction]

    def unheard(self, model: str) -> Counter[str]:
        """How many events wait for each reaction that has no queue any more."""
        return Counter(each.reaction for each in held(self.storage, model) if not self._hears(each.reaction))

    def given_back(self, model: str) -> datetime | None:
        """When something was given back last, which takes reactions a while; later than now while somebody is at it."""
        return self.ledger.claimed(model, _CLAIM)

    def give_back(self, model: str, *, most: int = MOST) -> int:
        """Send what waits to whom it was sent, in that order; how many that were. None while somebody else is at it."""
        waiting = list(islice(self._waiting(model), most))
        if not waiting:
            return 0
        with self.ledger.claim(model, _CLAIM, now=datetime.now(UTC), lasting=_TURN, kept=False) as mine:
            return self._send(model, waiting) if mine else 0

    def _send(self, model: str, waiting: Sequence[Held]) -> int:
        sent = 0
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            for start in range(0, len(waiting), _AT_ONCE):
                some = waiting[start : start + _AT_ONCE]
                for each, body in zip(some, pool.map(self._body, some), strict=True):
                    if body is None:
                        continue
                    self.queues.send_again(self.names.queue(each.reaction), body, group=model)
                    self.storage.remove(each.key)
                    sent += 1
        return sent

    def _body(self, event: Held) -> str | None:
        """None of one that was given back since it was listed."""
        try:
            return self.storage.read(event.key).decode()
        except ClientError:
            # 403 instead of 404 to whoever may list under some prefixes only, as `Storage.exists` says.
            if self.storage.exists(event.key):
                raise
            return None

    def _record(self, model: str, fact_of: Callable[[Sequence[Entry]], Fact | None]) -> bool:
        for _ in range(_ATTEMPTS):
            entries = self.ledger.entries(model)
            if (fact := fact_of(entries)) is None:
                return False
            if self.ledger.append([fact], after=entries[-1] if entries else None):
                return True
        raise LedgerBusyError(f"{model}: written to all the time while a pause was to be recorded")
