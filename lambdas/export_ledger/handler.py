"""Each entry of the ledger gets a locked copy, as it was first written; who changes an entry afterwards is told of.

the table's stream ┬ an entry is new ──> its copy, once
                   └ one was changed or removed, or its copy says something else ──> page
reconcile, of a model ──> the copies that it lacks
a note of what Lambda gave up ──> the copies that any model lacks

Lambda reads the stream in the order of the entries. What it gives up after some tries goes to the dead-letter queue as
a note of which records those were, without them: the entries are in the table all the same.

Calls: s3:PutObject and s3:GetObject on the copies, s3:ListBucket on their bucket; dynamodb:Query on the ledger;
kms:Decrypt and kms:GenerateDataKey; sns:Publish. Lambda itself, with its role: dynamodb:DescribeStream,
dynamodb:GetRecords, dynamodb:GetShardIterator and dynamodb:ListStreams on the ledger's stream; sqs:SendMessage on the
dead-letter queue.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.audit import Written
from noria.aws.environment import LedgerEnvironment
from noria.aws.ledger import Copies, Ledger, written_item
from noria.aws.pages import Matter, Page, Pages
from noria.aws.retries import retried_soon
from noria.aws.telemetry import reaction, tell
from noria.events import TableChange, Tick, is_stream_failure, parse, table_changes


class Outcome(StrEnum):
    EXPORTED = "LedgerExported"
    CHANGED = "LedgerChanged"


@retried_soon
@reaction
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = LedgerEnvironment.from_os()
    copies, pages = Copies.of(env.ledger_bucket), Pages(topics=env.topics)
    changes = table_changes(event)
    if changes is not None:
        changed = export(changes, copies=copies)
    else:
        ledger = Ledger(table=env.ledger_table)
        models = env.models if is_stream_failure(event) else (parse(event, Tick).model,)
        changed = [what for model in models for what in export_missing(model, ledger.written(model), copies=copies)]
    for what in changed:
        pages.send(_page(env.ledger_table, *what))
    tell(Outcome.CHANGED if changed else Outcome.EXPORTED, model="all", changed=changed)


def export(changes: Iterable[TableChange], *, copies: Copies) -> list[tuple[str, int, str]]:
    """Copy what is new; returns model, number and what happened of each entry that somebody else has written."""
    changed = []
    for change in changes:
        model, written = change.key["model"]["S"], written_item(change.item or change.key)
        if change.what == "INSERT" and change.item is not None:
            if not copies.keep(model, written):
                changed.append((model, written.number, "written anew, unlike its locked copy"))
        else:
            changed.append((model, written.number, "removed" if change.what == "REMOVE" else "changed"))
    return changed


def export_missing(model: str, written: Iterable[Written], *, copies: Copies) -> list[tuple[str, int, str]]:
    """Copy what has no copy yet; as `export`, returns what has got another one meanwhile."""
    known = copies.numbers(model)
    return [
        (model, entry.number, "unlike its locked copy")
        for entry in written
        if entry.number not in known and not copies.keep(model, entry)
    ]


def _page(table: str, model: str, number: int, what: str) -> Page:
    return Page(
        matter=Matter.LEDGER_CHANGED,
        subject=f"{model}: the ledger was changed",
        what=f"Entry {number} of {model}'s ledger was {what}. Noria only ever adds entries: somebody else did this.",
        where=f"DynamoDB, table {table}; CloudTrail says who, where data events of the table are recorded",
        do="Take it for a breach until you know better: find out who holds the right to PutItem on the table, and what "
        "else they did. The locked copy is the truth; the table is not to be mended by hand.",
        command=f"noria ledger verify {model}",
    )
