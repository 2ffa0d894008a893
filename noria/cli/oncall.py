"""The commands of who is on call: what waits and what failed, sending it again, pausing a model."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from noria.aws.archives import LATE
from noria.cli.options import DEFAULT_ENV, AsJson, Env
from noria.cli.output import Refused, say, show
from noria.cli.pauses import PauseWish
from noria.cli.recovery import DeadLetter, Recovery
from noria.cli.state import Deployed
from noria.cli.times import COMING, PAST, past
from noria.units import count

app = typer.Typer()

DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would happen")]
Reason = Annotated[str, typer.Option("--reason", help="why; kept in the ledger")]


@app.command()
def queues(
    reaction: Annotated[str | None, typer.Argument(help="one reaction; all when left out")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="empty queues, too")] = False,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """What waits for each reaction, for how long, and what is dead and why. Dead letters stay where they are."""
    rows = Recovery(Deployed(env)).look(reaction)
    told = [row for row in rows if not row.empty or everything or reaction or as_json]
    left_out = len(rows) - len(told)
    also = f"{count(left_out, 'queue is', 'queues are')} empty (noria queues --all lists them)."
    show(
        told,
        columns=["reaction", "waiting", "in_flight", "delayed", "oldest", "dead"],
        as_json=as_json,
        empty=f"Nothing waits, and nothing is dead: {also}" if rows else f"No reaction is deployed in {env!r}.",
        below=[also] if left_out else [],
    )
    letters = [letter for row in rows for letter in row.letters]
    if as_json or not letters:
        return
    typer.echo()
    show(
        letters,
        columns=[name for name in DeadLetter.model_fields if name != "id"],
        as_json=False,
        empty="",
        below=["Once the cause is mended: noria redrive REACTION (docs/runbooks/dead-letters.md)"],
    )


@app.command()
def redrive(
    reaction: Annotated[str | None, typer.Argument(help="whose dead letters; with --all, everybody's")] = None,
    *,
    model: Annotated[str | None, typer.Option("--model", help="only what is about this model")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="of every reaction")] = False,
    most: Annotated[int, typer.Option("--limit", min=1, help="at most so many, of all reactions together")] = 1000,
    dry_run: DryRun = False,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Send dead letters to their reaction again. One that fails again is dead again, and noria queues says so."""
    if everybody == (reaction is not None):
        raise Refused("Name the reaction whose dead letters to send again (noria queues lists them), or say --all.")
    rows, left = Recovery(Deployed(env)).redrive(reaction, model, most=most, dry_run=dry_run)
    sent = sum(row.count for row in rows)
    verb = "would be sent" if dry_run else "was sent" if sent == 1 else "were sent"
    be = "would be" if dry_run else "is" if left == 1 else "are"
    stay = f"{count(left, 'dead letter')} of all reactions {be} left."
    show(
        rows,
        columns=["reaction", "model", "count", "events"],
        as_json=as_json,
        empty=f"No dead letter of that kind: nothing to send again. {stay}",
        below=[f"{count(sent, 'dead letter')} {verb} again. {stay} Look whether they come back: noria queues"],
    )


@app.command()
def replay(
    since: Annotated[str, typer.Option("--since", help=f"from when: {PAST}")],
    until: Annotated[str | None, typer.Option("--until", help=f"to when: {PAST}; now if left out")] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            help="a rule or a reaction, several times; all when left out. EventBridge replays by time and rule, not by "
            "model: to others nothing happens, since what is done is not done twice; of one model alone, noria redrive "
            "--model sends what is dead",
        ),
    ] = None,
    *,
    wait: Annotated[int, typer.Option("--wait", min=0, help="follow it for so many minutes at most")] = 60,
    dry_run: DryRun = False,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Send to the reactions again what happened in a time, of all models, as the archives kept it."""
    now = datetime.now(UTC)
    recovery = Recovery(Deployed(env))
    end = past(until, now=now, option="--until") if until else now
    plan = recovery.plan(rule or (), past(since, now=now, option="--since"), end)
    if end > now - LATE:
        typer.echo("What happened in the last ten minutes may not be in the archives yet.", err=True)
    if dry_run:
        told = plan.told()
    else:
        told = recovery.replay(plan, wait=timedelta(minutes=wait), progress=lambda line: typer.echo(line, err=True))
    say(told, told.text, as_json=as_json)


@app.command()
def pause(
    model: str,
    *,
    reason: Reason,
    until: Annotated[
        str | None, typer.Option("--until", help=f"when it ends by itself: {COMING}; by noria resume if left out")
    ] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Begin nothing for a model by itself: its events wait, also of uploads and approvals, and none is lost."""
    wish = PauseWish(Deployed(env), model)
    told = wish.pause(reason=reason, until=until)
    say(told, told.text, as_json=as_json)


@app.command()
def resume(model: str, *, reason: Reason, env: Env = DEFAULT_ENV, as_json: AsJson = False) -> None:
    """End a pause: what waited is sent to its reactions, in the order in which it came."""
    told = PauseWish(Deployed(env), model).resume(reason=reason)
    say(told, told.text, as_json=as_json)
