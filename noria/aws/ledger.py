"""The ledger's table: `model` (S), `sk` (S).

| sk                        | item                                                          |
|---------------------------|---------------------------------------------------------------|
| `entry#<12 digits>`       | an entry: `body` (JSON), `hash`                               |
| `meaning#<kind>#<subject>`| `number` of the entry that says it: once written, it is said  |
| `head`                    | `number` and `hash` of the newest entry                       |
| `claim#<subject>`         | `until` when (epoch seconds) somebody is busy saying it       |
"""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import merge
from typing import TYPE_CHECKING

import boto3

from noria.ledger import GENESIS, Entry, Fact, Kind

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

_ATTEMPTS = 12

_CLAIM = timedelta(minutes=2)
"""Longer than a function runs, shorter than its message stays hidden: after a death, the message finds no claim."""


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
            entry = Entry.after(fact, number=number + 1, previous=previous)
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
            entries.append(Entry.after(fact, number=number + 1, previous=previous))
            number, previous = entries[-1].number, entries[-1].hash
        try:
            if entries:
                self.client.transact_write_items(TransactItems=self._writes(entries))
        except self.client.exceptions.TransactionCanceledException:
            return False
        return True

    @contextmanager
    def claim(self, model: str, subject: str, *, now: datetime, lasting: timedelta = _CLAIM) -> Iterator[bool]:
        """Whether it is up to the caller to tell the world of `subject`, and not to somebody who is at it now.

        Who fails gives the claim back; who dies loses it after some minutes, when its message comes again. What no
        entry will say, so that nothing else keeps it from being told twice, is claimed for as long as it is not to be.
        """
        item = {"model": {"S": model}, "sk": {"S": f"claim#{subject}"}}
        try:
            self.client.put_item(
                TableName=self.table,
                Item=item | {"until": {"N": str((now + lasting).timestamp())}},
                ConditionExpression="attribute_not_exists(sk) OR #until < :now",
                ExpressionAttributeNames={"#until": "until"},
                ExpressionAttributeValues={":now": {"N": str(now.timestamp())}},
            )
        except self.client.exceptions.ConditionalCheckFailedException:
            yield False
            return
        try:
            yield True
        except BaseException:
            self.client.put_item(TableName=self.table, Item=item | {"until": {"N": "0"}})
            raise

    def knows(self, model: str, kind: Kind, subject: str) -> bool:
        key = {"model": {"S": model}, "sk": {"S": f"meaning#{kind}#{subject}"}}
        return "Item" in self.client.get_item(TableName=self.table, Key=key, ConsistentRead=True)

    def entries(self, model: str) -> list[Entry]:
        """All entries of a model, oldest first."""
        pages = self.client.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression="model = :model AND begins_with(sk, :entry)",
            ExpressionAttributeValues={":model": {"S": model}, ":entry": {"S": "entry#"}},
            ConsistentRead=True,
        )
        return [Entry.model_validate_json(item["body"]["S"]) for page in pages for item in page["Items"]]

    def newest(self, models: Iterable[str]) -> list[Entry]:
        """The entries of several models, newest first; a model's own keep the order in which they were written."""
        return list(merge(*(reversed(self.entries(model)) for model in models), key=lambda e: e.at, reverse=True))

    def _head(self, model: str) -> tuple[int, str]:
        key = {"model": {"S": model}, "sk": {"S": "head"}}
        item = self.client.get_item(TableName=self.table, Key=key, ConsistentRead=True).get("Item")
        return (int(item["number"]["N"]), item["hash"]["S"]) if item else (0, GENESIS)

    def _writes(self, entries: Sequence[Entry]) -> "list[TransactWriteItemTypeDef]":
        new = "attribute_not_exists(sk)"
        writes: list[TransactWriteItemTypeDef] = []
        for entry in entries:
            model, number = {"S": entry.model}, {"N": str(entry.number)}
            meaning = {"model": model, "sk": {"S": f"meaning#{entry.meaning}"}, "number": number}
            body = {
                "model": model,
                "sk": {"S": f"entry#{entry.number:012d}"},
                "body": {"S": entry.model_dump_json()},
                "hash": {"S": entry.hash},
            }
            writes += [
                {"Put": {"TableName": self.table, "Item": item, "ConditionExpression": new}} for item in (meaning, body)
            ]
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
