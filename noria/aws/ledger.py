"""The ledger's table, and the bucket with a locked copy of each entry. The table: `model` (S), `sk` (S).

| sk                        | item                                                          |
|---------------------------|---------------------------------------------------------------|
| `entry#<12 digits>`       | an entry: `body` (JSON), `hash`                               |
| `meaning#<kind>#<subject>`| `number` of the entry that says it: once written, it is said  |
| `head`                    | `number` and `hash` of the newest entry                       |
| `claim#<subject>`         | `until` when (epoch seconds) `caller` is busy saying it       |
| `pause`                   | `until` when (epoch seconds) the model's events wait          |

The bucket: `<model>/<12 digits>.json` is an entry's `body`, as it was first written.
"""

import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from noria.audit import Holdings, Written
from noria.aws.storage import ObjectVersion, Storage
from noria.aws.telemetry import following
from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.pause import held_until

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef

_ATTEMPTS = 12

_ENTRY = "entry#"
_MEANING = "meaning#"
_PAUSE = "pause"
_AFTER = {"entry#": "entry$", "meaning#": "meaning$"}
"""What comes after all that begins so: `$` follows `#`."""
_COPY = ".json"
_AT_ONCE = 16

_CLAIM = timedelta(minutes=2)
"""Longer than a function runs, shorter than its message stays hidden: after a death, the message finds no claim."""

_READ: dict[tuple[str, str], tuple[Entry, ...]] = {}
"""By table and model, what was read last; the model that was asked for least lately comes first."""
_MOST_READ = 40_000
"""Entries that are kept for a next time, of all models together: some 2.5 KB each, 100 MB of the 512 MiB of a function.
Without them, each event of a model would read all that ever happened to it."""


class LedgerBusyError(RuntimeError):
    """Other writers were faster each time; the caller's message comes again."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    table: str
    client: "DynamoDBClient" = field(default_factory=lambda: boto3.client("dynamodb"), repr=False)

    def record(self, fact: Fact) -> bool:
        """Append a fact to its model's chain, in one transaction. False when the ledger knew it already."""
        for attempt in range(_ATTEMPTS):
            if self.knows(fact.model, fact.kind, fact.subject):
                return False
            number, previous = self._head(fact.model)
            entry = Entry.after(fact, number=number + 1, previous=previous, correlation=following())
            try:
                self.client.transact_write_items(TransactItems=self._writes([entry]))
            except self.client.exceptions.TransactionCanceledException:
                # Somebody wrote this fact or another one in between: look again, a little later than they do.
                time.sleep(random.uniform(0, 0.02 * 2 ** min(attempt, 5)))  # noqa: S311 (no secret)
                continue
            return True
        raise LedgerBusyError(f"{fact.model}: {fact.kind} not recorded after {_ATTEMPTS} attempts")

    def append(self, facts: Sequence[Fact], *, after: Entry | None) -> bool:
        """Record facts of one model together, right after `after` (None: as the first).

        False when something else was recorded meanwhile: who decided on what was there must look again.
        """
        entries: list[Entry] = []
        number, previous = (after.number, after.hash) if after else (0, GENESIS)
        for fact in facts:
            entries.append(Entry.after(fact, number=number + 1, previous=previous, correlation=following()))
            number, previous = entries[-1].number, entries[-1].hash
        try:
            if entries:
                self.client.transact_write_items(TransactItems=self._writes(entries))
        except self.client.exceptions.TransactionCanceledException:
            return False
        return True

    @contextmanager
    def claim(
        self, model: str, subject: str, *, now: datetime, lasting: timedelta = _CLAIM, kept: bool = True
    ) -> Iterator[bool]:
        """Whether it is up to the caller to tell the world of `subject`, and not to somebody who is at it now.

        Who fails gives the claim back; who dies loses it after some minutes, when its message comes again. What no
        entry will say, so that nothing else keeps it from being told twice, is claimed for as long as it is not to be.
        With `kept` false, a claim ends when its work is done; it must last longer than that can take.
        """
        item: dict[str, AttributeValueTypeDef] = {"model": {"S": model}, "sk": {"S": f"claim#{subject}"}}
        caller: AttributeValueTypeDef = {"S": uuid.uuid4().hex}
        try:
            self.client.put_item(
                TableName=self.table,
                Item={**item, "until": {"N": str((now + lasting).timestamp())}, "caller": caller},
                # The last where the answer was lost, and the call is made again.
                ConditionExpression="attribute_not_exists(sk) OR #until < :now OR #caller = :caller",
                ExpressionAttributeNames={"#until": "until", "#caller": "caller"},
                ExpressionAttributeValues={":now": {"N": str(now.timestamp())}, ":caller": caller},
            )
        except self.client.exceptions.ConditionalCheckFailedException:
            yield False
            return
        except (BotoCoreError, ClientError):
            self._give_back(item, caller)  # it may have been written, and no answer came
            raise
        try:
            yield True
        except BaseException:
            self._give_back(item, caller)
            raise
        if not kept:
            self.client.put_item(TableName=self.table, Item={**item, "until": {"N": str(time.time())}})

    def _give_back(self, claim: "Mapping[str, AttributeValueTypeDef]", caller: "AttributeValueTypeDef") -> None:
        """Unless somebody else has it by now. Where that cannot be said either, it is over in its time."""
        with suppress(BotoCoreError, ClientError):
            self.client.put_item(
                TableName=self.table,
                Item={**claim, "until": {"N": "0"}},
                ConditionExpression="#caller = :caller",
                ExpressionAttributeNames={"#caller": "caller"},
                ExpressionAttributeValues={":caller": caller},
            )

    def claimed(self, model: str, subject: str) -> datetime | None:
        """Until when a subject is claimed, or was; None where it never was, or by one who failed."""
        key = {"model": {"S": model}, "sk": {"S": f"claim#{subject}"}}
        item = self.client.get_item(TableName=self.table, Key=key, ConsistentRead=True).get("Item")
        until = float(item["until"]["N"]) if item else 0
        return datetime.fromtimestamp(until, UTC) if until else None

    def pauses(self, model: str, now: datetime) -> bool:
        """Whether the model's events wait: one read, whatever its record's length, as reactions ask at each event."""
        key = {"model": {"S": model}, "sk": {"S": _PAUSE}}
        item = self.client.get_item(TableName=self.table, Key=key, ConsistentRead=True).get("Item")
        return item is not None and now.timestamp() < float(item["until"]["N"])

    def knows(self, model: str, kind: Kind, subject: str) -> bool:
        key = {"model": {"S": model}, "sk": {"S": f"{_MEANING}{kind}#{subject}"}}
        return "Item" in self.client.get_item(TableName=self.table, Key=key, ConsistentRead=True)

    def entries(self, model: str) -> list[Entry]:
        """All entries of a model, oldest first.

        What this process has read is not read again, since entries do not change; but the last of it is, so that a
        table that is not the same any more is noticed.
        """
        known = _READ.pop((self.table, model), ())
        entries = (*known[:-1], *self._entries(model, first=known[-1].number if known else 1))
        if known and known[-1:] != entries[len(known) - 1 : len(known)]:
            entries = self._entries(model)
        _READ[self.table, model] = entries
        _forget()
        return list(entries)

    def _entries(self, model: str, *, first: int = 1) -> tuple[Entry, ...]:
        items = self._query(model, _ENTRY, first=f"{first:012d}")
        return tuple(Entry.model_validate_json(item["body"]["S"]) for item in items)

    def ends_with(self, entry: Entry) -> bool:
        """Whether the head agrees that this is the newest entry, or knows of newer ones that were written since."""
        number, digest = self._head(entry.model)
        return number > entry.number or (number, digest) == (entry.number, entry.hash)

    def newest(self, models: Iterable[str], *, limit: int | None = None) -> list[Entry]:
        """Of each model the entries that were written last, all together newest first: by when it happened.

        What is heard late, as after a replay, is written after what happened later. No more is read than a page of
        each model beyond `limit`.
        """
        written = chain.from_iterable(islice(self._backwards(model), limit) for model in models)
        return sorted(written, key=lambda entry: entry.at, reverse=True)[:limit]

    def _backwards(self, model: str) -> Iterator[Entry]:
        items = self._query(model, _ENTRY, ScanIndexForward=False)
        return (Entry.model_validate_json(item["body"]["S"]) for item in items)

    def written(self, model: str) -> list[Written]:
        """The entries as they lie in the table, in the order of their numbers; nothing is taken for granted."""
        return [written_item(item) for item in self._query(model, _ENTRY)]

    def holdings(self, model: str, copies: "Copies") -> Holdings:
        """All that table and bucket keep of a model's ledger, as it is between two writes. Raises `LedgerBusyError`."""
        copied, head = copies.read(model), self._head(model)
        for _ in range(_ATTEMPTS):
            before, written = head, self.written(model)
            meanings = {
                item["sk"]["S"].removeprefix(_MEANING): int(item["number"]["N"])
                for item in self._query(model, _MEANING)
            }
            head = self._head(model)
            if head == before:
                known = head if head[0] else None
                return Holdings(model=model, written=written, head=known, meanings=meanings, copies=copied)
        raise LedgerBusyError(f"{model}: written to all the time while it was read")

    def _query(
        self, model: str, start: str, *, first: str = "", **more: bool
    ) -> "Iterator[dict[str, AttributeValueTypeDef]]":
        """A model's items whose `sk` begins with `start`, from `first` after it."""
        between = {":first": {"S": start + first}, ":last": {"S": _AFTER[start]}}
        pages = self.client.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression="model = :model AND sk BETWEEN :first AND :last",
            ExpressionAttributeValues={":model": {"S": model}, **between},
            ConsistentRead=True,
            **more,  # type: ignore[arg-type]
        )
        return (item for page in pages for item in page["Items"])

    def _head(self, model: str) -> tuple[int, str]:
        key = {"model": {"S": model}, "sk": {"S": "head"}}
        item = self.client.get_item(TableName=self.table, Key=key, ConsistentRead=True).get("Item")
        return (int(item["number"]["N"]), item["hash"]["S"]) if item else (0, GENESIS)

    def _writes(self, entries: Sequence[Entry]) -> "list[TransactWriteItemTypeDef]":
        new = "attribute_not_exists(sk)"
        writes: list[TransactWriteItemTypeDef] = []
        for entry in entries:
            model, number = {"S": entry.model}, {"N": str(entry.number)}
            meaning = {"model": model, "sk": {"S": f"{_MEANING}{entry.meaning}"}, "number": number}
            body = {
                "model": model,
                "sk": {"S": f"{_ENTRY}{entry.number:012d}"},
                "body": {"S": entry.body},
                "hash": {"S": entry.hash},
            }
            writes += [
                {"Put": {"TableName": self.table, "Item": item, "ConditionExpression": new}} for item in (meaning, body)
            ]
            if until := held_until(entry):
                pause = {"model": model, "sk": {"S": _PAUSE}, "until": {"N": str(until.timestamp())}}
                writes.append({"Put": {"TableName": self.table, "Item": pause}})
        first, last = entries[0], entries[-1]
        head: TransactWriteItemTypeDef = {
            "Put": {
                "TableName": self.table,
                "Item": {
                    "model": {"S": last.model},
                    "sk": {"S": "head"},
                    "number": {"N": str(last.number)},
                    "hash": {"S": last.hash},
                },
                "ConditionExpression": f"{new} OR #hash = :previous" if first.number == 1 else "#hash = :previous",
                "ExpressionAttributeNames": {"#hash": "hash"},
                "ExpressionAttributeValues": {":previous": {"S": first.previous}},
            }
        }
        return [*writes, head]


def _forget() -> None:
    """Keep no more than is to be kept, and all of the model that was read last.

    Of others the newest go, and no more than must: models that are too many by a few do not read each other's whole
    past, again and again.
    """
    excess = sum(map(len, _READ.values())) - _MOST_READ
    for other in list(_READ)[:-1]:
        if excess <= 0:
            return
        kept = _READ.get(other, ())
        _READ[other] = kept[: max(0, len(kept) - excess)]
        excess -= len(kept)


def written_item(item: Mapping[str, Mapping[str, Any]]) -> Written:
    """An entry's item, as the table or its stream gives it; what it lacks is empty, and no entry."""
    number = item["sk"]["S"].removeprefix(_ENTRY)
    body, hash_ = (item[name]["S"] if name in item and "S" in item[name] else "" for name in ("body", "hash"))
    return Written(number=int(number) if number.isdecimal() else 0, body=body, hash=hash_)


def _number(key: str) -> int:
    """Of the entry whose copy has this key."""
    return int(key.rpartition("/")[2].removesuffix(_COPY))


@dataclass(frozen=True, kw_only=True)
class Copies:
    """The locked copies. The oldest version of each is the copy: later ones, and delete markers, only cover it."""

    storage: Storage

    @classmethod
    def of(cls, bucket: str) -> Self:
        return cls(storage=Storage(bucket=bucket))

    def keep(self, model: str, written: Written) -> bool:
        """Lock a copy of an entry. False when there is one that says something else; the same again changes nothing."""
        key = f"{model}/{written.number:012d}{_COPY}"
        return self.storage.write_once(key, written.body) or self.storage.read(key) == written.body.encode()

    def numbers(self, model: str) -> set[int]:
        """Which entries have a copy."""
        return {_number(stored.key) for stored in self.storage.list(f"{model}/")}

    def models(self) -> set[str]:
        """Models of which there are copies, also those that are no longer deployed."""
        return self.storage.folders()

    def read(self, model: str) -> dict[int, str]:
        """The copies' JSON by the entry's number."""
        oldest: dict[str, ObjectVersion] = {}
        for version in self.storage.versions(f"{model}/"):
            if version.key not in oldest or version.modified <= oldest[version.key].modified:  # newer ones come first
                oldest[version.key] = version
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            bodies = pool.map(lambda copy: self.storage.read(copy.key, version=copy.version), oldest.values())
            return {_number(key): body.decode() for key, body in zip(oldest, bodies, strict=True)}
