"""The commands of who asks what happened, and what is wrong."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from noria.cli.doctor import Doctor
from noria.cli.logs import Follower
from noria.cli.options import DEFAULT_ENV, AsJson, Env
from noria.cli.output import show, write_json
from noria.cli.state import Deployed
from noria.cli.times import PAST, past

app = typer.Typer()


@app.command()
def logs(
    asked: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="a correlation, as a page names it; or an event, a package (its ARN, or MODEL/VERSION), an execution, "
            "a deployment, the newest upload of a key or a file's name, a dataset's hash, an inference id",
        ),
    ],
    since: Annotated[
        str | None,
        typer.Option("--since", help=f"from when: {PAST}; from its beginning if left out"),
    ] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Log lines of all functions and jobs, and entries of the ledger, that one thing led to, in order."""
    now = datetime.now(UTC)
    start = past(since, now=now, option="--since") if since else None
    lines = Follower(Deployed(env), start, now).follow(asked)
    show(
        lines,
        columns=["at", "where", "level", "message"],
        as_json=as_json,
        empty=f"Nothing was logged about {asked}.",
    )


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Argument(help="one model, and what all share; every model when left out")
    ] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """What is wrong now: since when, what it means, its runbook, and the one command to try first. Exit code 1 then."""
    diagnosis = Doctor(Deployed(env), model, datetime.now(UTC)).look()
    if as_json:
        write_json(diagnosis.model_dump(mode="json"))
    else:
        typer.echo(diagnosis.text)
    raise typer.Exit(code=1 if diagnosis.findings else 0)
