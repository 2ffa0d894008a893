"""`noria validate` and `noria contract`: what a file is held to, and what it could be held to."""

import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from noria import contract
from noria.cli.options import AsJson
from noria.cli.output import Refused, say
from noria.infer import InferError, infer
from noria.spec import ModelSpec
from noria.violations import Violation, shortened

app = typer.Typer(no_args_is_help=True, help="The data contract: propose one from data.")

_WIDTH = 80


class Proposed(BaseModel):
    """A proposed spec, and what it says of the file that it was made from."""

    yaml: str
    spec: ModelSpec
    report: contract.Report


@app.command("infer")
def infer_command(
    file: Annotated[Path, typer.Argument(help="a CSV or Parquet file", exists=True, dir_okay=False)],
    target: Annotated[str, typer.Option("--target", help="the column to predict")],
    time: Annotated[str | None, typer.Option("--time", help="the event time's column; found when left out")] = None,
    model: Annotated[str | None, typer.Option("--model", help="the model's name; the file's when left out")] = None,
    as_json: AsJson = False,
) -> None:
    """Propose a spec from data, as YAML with the reason of every line. Exit code 1 when its own file breaks it."""
    try:
        proposal = infer(file, target=target, time=time, model=model)
    except InferError as error:
        raise Refused(str(error)) from error
    report = contract.check(file, proposal.spec, filename=file.name, now=datetime.now(UTC))
    say(Proposed(yaml=proposal.text, spec=proposal.spec, report=report), proposal.text.rstrip("\n"), as_json=as_json)
    if not report.accepted:
        typer.echo(told(report), err=True)
        raise typer.Exit(1)


def told(report: contract.Report) -> str:
    """A report on 80 columns: the verdict, what refuses the file, what is only told, and the shift."""
    verdict = "accepted" if report.accepted else "refused"
    lines = [f"{shortened(report.filename)}: {verdict} for {report.model}"]
    lines += _wrapped(f"{report.rows:,} rows, {len(report.columns):,} columns, {report.bytes:,} bytes{_period(report)}")
    for title, severity in (("Refused because of", "reject"), ("Warnings", "warn")):
        found = [violation for violation in report.violations if violation.severity == severity]
        lines += ["", f"{title} ({len(found)}):"] if found else []
        for violation in found:
            lines += _wrapped(f"- {violation.message}{_where(violation)}", deeper="    ")
    if report.shift or report.no_shift:
        lines += ["", *_wrapped(report.shift.summary if report.shift else f"No shift: {report.no_shift}", first="")]
    return "\n".join(lines)


def _where(violation: Violation) -> str:
    for what, numbers in (("row", violation.rows), ("line", violation.lines)):
        if numbers:
            more = ", …" if violation.count > len(numbers) else ""
            return f" ({what}{'s' if len(numbers) > 1 or more else ''} {', '.join(f'{n:,}' for n in numbers)}{more})"
    return ""


def _period(report: contract.Report) -> str:
    if report.first_event is None or report.last_event is None:
        return ""
    return f", from {report.first_event:%Y-%m-%d %H:%M} to {report.last_event:%Y-%m-%d %H:%M} (UTC)"


def _wrapped(text: str, *, first: str = "  ", deeper: str = "") -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=deeper or first)
