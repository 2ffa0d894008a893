"""`noria live` and `noria ledger verify`: what answered when and why, and whether that can be believed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from pydantic import BaseModel

from noria.audit import audit
from noria.aws.ledger import Copies
from noria.cli.options import DEFAULT_ENV, AsJson, Env
from noria.cli.output import say, show
from noria.cli.state import Deployed
from noria.cli.times import past
from noria.history import Answering, LiveThen, live_at
from noria.ledger import Break, Problem
from noria.names import version
from noria.units import format_duration

app = typer.Typer(no_args_is_help=True, help="The ledger: whether anybody has changed it.")

ON_ITS_WAY = timedelta(minutes=30)
"""So long an entry may lack its copy: reconcile has seen by then what the table's stream failed to tell."""


class Verified(BaseModel):
    """What was looked at, and all that does not hold; `waiting` are new entries whose copy is on its way."""

    models: list[str]
    entries: int
    copies: int
    waiting: int
    broken: list[Break]

    @property
    def text(self) -> str:
        what = f"{self.entries} entries of {', '.join(self.models) or 'no model'}, {self.copies} locked copies"
        waiting = f"; {self.waiting} newer than {format_duration(ON_ITS_WAY)} have none yet" if self.waiting else ""
        return f"The ledger holds: {what}{waiting}."


@dataclass(frozen=True)
class Auditor:
    """Looks through the ledgers of one environment."""

    deployed: Deployed

    def verify(self, model: str | None, *, now: datetime) -> Verified:
        """Of one model, also where it is no longer deployed, or of all that there are or were."""
        copies = Copies.of(self.deployed.parameter("ledger-bucket"))
        known = copies.models()
        if model is not None and model not in known:
            self.deployed.require(model)
        models = [model] if model is not None else sorted(known.union(self.deployed.models))
        held = [self.deployed.ledger.holdings(name, copies) for name in models]
        new = {
            (each.model, written.number)
            for each in held
            for written in each.written
            if written.entry and now - written.entry.at < ON_ITS_WAY
        }
        found = [broken for each in held for broken in audit(each)]
        broken = [b for b in found if b.problem is not Problem.UNLOCKED or (b.model, b.entry) not in new]
        return Verified(
            models=models,
            entries=sum(len(each.written) for each in held),
            copies=sum(len(each.copies) for each in held),
            waiting=len(found) - len(broken),
            broken=broken,
        )


@app.command("verify")
def verify_command(
    model: Annotated[str | None, typer.Argument(help="one model; all that are or were, when left out")] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Whether entries, chain, head and locked copies agree. Exit code 1, and each break named, where they do not."""
    verified = Auditor(Deployed(env)).verify(model, now=datetime.now(UTC))
    if as_json or not verified.broken:
        say(verified, verified.text, as_json=as_json)
    else:
        show(verified.broken, columns=["model", "entry", "problem", "text"], as_json=False, empty="")
    if verified.broken:
        raise typer.Exit(1)


class Live(LiveThen):
    """What was live, as a person reads it."""

    @property
    def text(self) -> str:
        at = _utc(self.at)
        if not self.answering:
            since = f" since {_utc(self.since)}" if self.since else ": no version had gone live yet"
            why = f" {self.why}" if self.why else ""
            return f"{self.model}: nothing was live at {at}{since}.{why}"
        until = f", until {_utc(self.until)}" if self.until else ", and so it is still"
        since = f"so since {_utc(self.since)}" if self.since else ""
        return "\n".join([f"{self.model} at {at}, {since}{until}:", *map(_line, self.answering)])


def live_then(deployed: Deployed, model: str, at: str | None, *, now: datetime) -> Live:
    """What was live at `at`, or is now. A model that is no longer deployed has a ledger all the same."""
    then = past(at, now=now, option="--at") if at else now
    entries = deployed.ledger.entries(model)
    if not entries:
        deployed.require(model)
    return Live.model_validate(live_at(model, entries, then).model_dump())


def _line(part: Answering) -> str:
    share = f" on {part.percent}%" if part.percent is not None else ""
    lines = [
        f"{part.part}: {version(part.package)}{share}, since {_utc(part.since)}",
        f"  {part.package}",
        f"  {part.deployment or 'no deployment of ours'}{f', {part.cause}' if part.cause else ''}: {part.reason}",
    ]
    if word := part.approval:
        by, why = word.by or "somebody whom SageMaker did not name", word.reason or "no reason was given"
        lines.append(f"  approved by {by} at {_utc(word.at)}: {why}")
    return "\n".join(f"  {line}" for line in lines)


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
