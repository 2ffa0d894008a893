"""The commands. Each reads or does one thing, answers as a table or a sentence, and as JSON with --json."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import BaseModel

from noria import business, contract, spec
from noria.aws.account import caller
from noria.aws.experiments import newest
from noria.aws.queues import Queues
from noria.aws.registry import Decision
from noria.aws.running import Endpoints
from noria.aws.storage import Storage
from noria.cli import approvals, contracts, diagnosis, ledger, oncall
from noria.cli.cards import Format, Versions
from noria.cli.costs import Costs, tell
from noria.cli.explanations import Explainer
from noria.cli.flags import ModelFlags
from noria.cli.labels import HardCaseRow, Labelling, hard_cases
from noria.cli.metrics import Exporter
from noria.cli.objectives import KeptRow, ServiceLevels, left_out_of
from noria.cli.options import DEFAULT_ENV, AsJson, Env
from noria.cli.output import Refused, require_reason, say, show, told, write_json
from noria.cli.predictions import Answers, Sent, at_once, first_of, of_file, typed
from noria.cli.reports import Reports
from noria.cli.serving import Changes
from noria.cli.state import Deployed
from noria.cli.teardown import Teardown
from noria.cli.times import PAST, past
from noria.cli.traces import Tracer, left_out, rows
from noria.cli.training import Policy
from noria.compare import text as text_of
from noria.cost import Load
from noria.events import Tick
from noria.names import Names, key
from noria.openapi import openapi as describe
from noria.openmetrics import exposition
from noria.prediction import MOST_ROWS
from noria.serve import impossible

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Noria: what is live and why, approve and reject, the ledger, the model specs.",
)

app.add_typer(contracts.app, name="contract")
app.add_typer(ledger.app, name="ledger")
app.add_typer(diagnosis.app)
app.add_typer(oncall.app)

ModelsDir = Annotated[Path, typer.Option("--models", help="folder of model specs", file_okay=False)]
Reason = Annotated[str, typer.Option("--reason", help="why; kept in the registry and in the ledger")]
ReasonToDo = Annotated[str, typer.Option("--reason", help="why; kept in the ledger, and so not for --dry-run")]
Package = Annotated[str, typer.Argument(help="a package's ARN, or MODEL/VERSION as in flight-delay/3")]

_DEFAULT_MODELS = Path("models")


class SpecRow(BaseModel):
    model: str
    task: str
    target: str
    features: int
    serve: str
    monitor: str
    team: str


class Uploaded(BaseModel):
    model: str
    file: str
    uri: str
    waits: str | None

    @property
    def text(self) -> str:
        return told(f"Uploaded to {self.uri}\nFollow it with: noria events {self.model}", self.waits)


class Written(BaseModel):
    files: list[str]


class Checked(BaseModel):
    """Models whose specs can be deployed, and those of them that answer now."""

    env: str
    models: list[str]
    running: list[str]


class Asked(BaseModel):
    """A window that a person asks for; `since` None where it is as long as one of the schedule's."""

    model: str
    since: datetime | None
    until: datetime

    @property
    def text(self) -> str:
        start = f"since {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else "of one window's length"
        return (
            f"Asked for, of all requests {start} that are in files by now: a request takes minutes to get there.\n"
            f"What is found: noria events {self.model}, and noria report {self.model}"
        )


@app.command()
def status(
    model: Annotated[str | None, typer.Argument(help="one model; all when left out")] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """What is live, since when, from which data; what is wanted; which alarms are raised."""
    deployed = Deployed(env)
    rows = [deployed.status(name) for name in ([model] if model else deployed.models)]
    show(
        rows,
        columns=["model", "endpoint", "version", "beside", "since", "dataset", "newest"],
        as_json=as_json,
        empty=f"No model is deployed in {env!r}: add models/<name>.yaml and deploy.",
        below=[
            *(f"{row.model} is in alarm: {', '.join(row.alarms)}" for row in rows if row.alarms),
            *(f"{row.model} is {row.paused}" for row in rows if row.paused),
            *(f"{row.model}: {row.under_way}" for row in rows if row.under_way),
            *(f"{row.model}: {row.warning}" for row in rows if row.warning),
            *(f"Newest report of {row.model}: {row.report} (noria report {row.model})" for row in rows if row.report),
            *([f"Dashboard: {deployed.dashboard}"] if rows and deployed.dashboard else []),
        ],
    )


@app.command()
def metrics(
    *,
    serve: Annotated[int | None, typer.Option("--serve", help="answer on this port of this machine: /metrics")] = None,
    every: Annotated[int, typer.Option("--every", min=1, help="minutes: no metric is asked for more often")] = 5,
    grafana: Annotated[
        Path | None, typer.Option("--grafana", help="write Grafana's dashboards into this folder", file_okay=False)
    ] = None,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """What the dashboards show, as OpenMetrics: once, or served for Prometheus. CloudWatch takes money for it."""
    exporter = Exporter(deployed=Deployed(env), specs=spec.load_all(models_dir), every=timedelta(minutes=every))
    if grafana:
        written = Written(files=[str(path) for path in exporter.write_dashboards(grafana)])
        say(written, f"Written: {', '.join(written.files)}", as_json=as_json)
    elif serve:
        typer.echo(exporter.told(serve), err=True)
        exporter.serve(serve)
    else:
        samples = exporter.samples(now=datetime.now(UTC))
        if as_json:
            write_json([sample.model_dump(mode="json") for sample in samples])
        else:
            typer.echo(exposition(samples), nl=False)


@app.command()
def models(models_dir: ModelsDir = _DEFAULT_MODELS, as_json: AsJson = False) -> None:
    """The model specs of this repository."""
    specs = spec.load_all(models_dir)
    if wrong := [problem for model in specs for problem in business.problems(model)]:
        raise Refused("\n".join(wrong))
    rows = [
        SpecRow(
            model=model.model,
            task=model.task,
            target=model.target,
            features=len(model.features),
            serve=str(model.serve),
            monitor=f"psi {model.monitor.psi:g}, {model.monitor.when.breaching} of {model.monitor.when.of}",
            team=model.owner.team,
        )
        for model in specs
    ]
    show(rows, columns=list(SpecRow.model_fields), as_json=as_json, empty=f"No YAML file in {models_dir}.")


@app.command()
def slo(
    model: Annotated[str | None, typer.Argument(help="one model; all that promise something when left out")] = None,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """What is promised in `objectives`, how well it was kept, and how much of the budget is left."""
    deployed = Deployed(env)
    known = {known.model: known for known in spec.load_all(models_dir)}
    asked = [_spec(model, models_dir)] if model else [known[name] for name in deployed.models if name in known]
    levels, now = ServiceLevels(deployed), datetime.now(UTC)
    rows = [KeptRow.of(kept) for each in asked for kept in levels.of(each, now=now)]
    show(
        rows,
        columns=["model", "objective", "promised", "happened", "kept", "budget_left", "burns", "worst"],
        below=left_out_of(rows),
        as_json=as_json,
        empty="Nothing is promised: add `objectives:` to a model's YAML, as in docs/objectives.md.",
    )


@app.command()
def packages(model: str, env: Env = DEFAULT_ENV, as_json: AsJson = False) -> None:
    """The registered versions of a model, newest first."""
    show(
        Deployed(env).packages(model),
        columns=["version", "state", "approval", "outcome", "created", "dataset", "champion"],
        as_json=as_json,
        empty=f"{model} has no version yet: upload data, which trains one (noria upload {model} FILE).",
    )


@app.command()
def upload(
    model: str,
    file: Annotated[Path, typer.Argument(help="a CSV or Parquet file", exists=True, dir_okay=False)],
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Upload training data: it is checked against the contract, and what is good becomes a dataset."""
    deployed = Deployed(env)
    storage = Storage(bucket=deployed.parameter("data-bucket"))
    target = key(deployed.require(model), "incoming", file.name)
    storage.upload(file, target)
    waits = deployed.waits(model, "it is checked")
    uploaded = Uploaded(model=model, file=str(file), uri=storage.uri(target), waits=waits)
    say(uploaded, uploaded.text, as_json=as_json)


@app.command()
def label(
    model: str,
    file: Annotated[
        Path | None, typer.Argument(help="a labels file, CSV or Parquet", exists=True, dir_okay=False)
    ] = None,
    *,
    inference_id: Annotated[
        str | None, typer.Option("--id", help="of one prediction instead: its inference id")
    ] = None,
    row: Annotated[int, typer.Option("--row", min=0, help="with --id: its row in the request")] = 0,
    value: Annotated[str | None, typer.Option("--label", help="with --id: what came of it")] = None,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Tell what came of predictions: late, twice or corrected, the last word counts."""
    one = inference_id is not None and value is not None
    if (file is None) != one or (inference_id is None) != (value is None):
        raise Refused(f"Name a labels file, or one prediction: noria label {model} --id … --label …")
    labelling = Labelling(Deployed(env), _spec(model, models_dir))
    if inference_id is not None and value is not None:
        given = labelling.give_one(inference_id, row, value)
    elif file is not None:
        given = labelling.give(file)
    say(given, given.text, as_json=as_json)


@app.command("hard-cases")
def list_hard_cases(model: str, env: Env = DEFAULT_ENV, as_json: AsJson = False) -> None:
    """Predictions worth a look: the least confident to label, and the most confident that were wrong to review."""
    found = hard_cases(Deployed(env), model)
    if as_json:
        write_json(found.model_dump(mode="json"))
        return
    rows = [HardCaseRow.of(why, case) for why in ("unsure", "surprising") for case in getattr(found, why)]
    show(
        rows,
        columns=list(HardCaseRow.model_fields),
        as_json=False,
        empty=f"None of the predictions of {model} since {found.since:%Y-%m-%d %H:%M} UTC is worth a look.",
    )


@app.command()
def predict(
    model: str,
    file: Annotated[
        Path | None, typer.Argument(help="rows: CSV with a header, or JSON lines", exists=True, dir_okay=False)
    ] = None,
    *,
    first: Annotated[
        int | None, typer.Option("--first", min=1, max=MOST_ROWS, help="have the endpoint answer so many rows, at once")
    ] = None,
    row: Annotated[
        list[str] | None, typer.Option("--row", help='such a row instead of a file, as {"hour": 7, …}; or several')
    ] = None,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Ask what is live: a file is answered beside its upload; with --first or --row the endpoint answers here."""
    if (file is None) != bool(row) or (first is not None and file is None):
        raise Refused(f"Name a file of rows, or type one: noria predict {model} --row '{{…}}'.")
    deployed = Deployed(env)
    answered: Sent | Answers
    if file and first is None:
        answered = of_file(deployed, model, file)
    else:
        of = _spec(model, models_dir)
        answered = at_once(deployed, of, first_of(file, first, of) if file and first else typed(row or (), of))
    say(answered, answered.text, as_json=as_json)


@app.command()
def approve(package: Package, reason: Reason, env: Env = DEFAULT_ENV, as_json: AsJson = False) -> None:
    """Approve a package: it goes live by the model's strategy, once as many have approved as its spec asks for."""
    _decide(Deployed(env), package, "Approved", reason, as_json=as_json)


@app.command()
def reject(package: Package, reason: Reason, env: Env = DEFAULT_ENV, as_json: AsJson = False) -> None:
    """Reject a package: if it is live, its predecessor takes over."""
    _decide(Deployed(env), package, "Rejected", reason, as_json=as_json)


def _decide(deployed: Deployed, reference: str, decision: Decision, reason: str, *, as_json: bool) -> None:
    decided = approvals.decide(deployed, reference, decision, reason)
    say(decided, decided.text, as_json=as_json)


@app.command()
def events(
    model: Annotated[str | None, typer.Argument(help="one model; all when left out")] = None,
    limit: Annotated[int, typer.Option(min=1, help="how many")] = 30,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """The ledger: what happened and why, newest first."""
    deployed = Deployed(env)
    models = [deployed.require(model)] if model else deployed.models
    show(
        deployed.events(models, limit=limit),
        columns=["at", "model", "kind", "summary"],
        as_json=as_json,
        empty="Nothing has happened yet.",
        below=[] if as_json else [f"{name} is {told}" for name in models if (told := deployed.paused(name))],
    )


@app.command()
def live(
    model: str,
    at: Annotated[str | None, typer.Option("--at", help=f"when: {PAST}; now if left out")] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """What was live at a moment, since when, who approved it and why: from the ledger alone."""
    found = ledger.live_then(Deployed(env), model, at, now=datetime.now(UTC))
    say(found, found.text, as_json=as_json)


@app.command()
def monitor(
    model: str,
    since: Annotated[
        str | None,
        typer.Option("--since", help=f"from when: {PAST}; if left out, for as long as monitor.every says"),
    ] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Have what was asked until now looked at by every monitor, without waiting for the next window."""
    deployed, now = Deployed(env), datetime.now(UTC)
    start = past(since, now=now, option="--since") if since else None
    asked = Asked(model=deployed.require(model), since=start, until=now)
    window = {"since": start} if start else {}
    message = Tick.message("Monitor Model", model=model, time=asked.until, by=caller(), **window)
    Queues().send(deployed.names.queue("monitor-model"), message)
    say(asked, asked.text, as_json=as_json)


@app.command()
def report(
    model: str,
    window: Annotated[
        str | None, typer.Option("--window", help="its end, as in 2026-11-21T1200; else the newest")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="where to save it", dir_okay=False)] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Save the page of a monitored window here, to be opened in a browser."""
    fetched = Reports(Deployed(env), model).fetch(window, out)
    say(fetched, fetched.text, as_json=as_json)


@app.command()
def card(
    package: Package,
    form: Annotated[Format, typer.Option("--format", help="html, pdf or json")] = "html",
    out: Annotated[Path | None, typer.Option("--out", help="where to save it", dir_okay=False)] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """All that is known of a version, as a page, on paper or as JSON: what it is, from what, how good, who decided."""
    made = Versions(Deployed(env)).card(package, form, out)
    say(made, f"{made.file}\nThe card of {made.package}.", as_json=as_json)


@app.command("compare")
def compare_versions(
    before: Annotated[str, typer.Argument(help="a package's ARN, or MODEL/VERSION")],
    after: Annotated[str, typer.Argument(help="another version of the model")],
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """How two versions differ: data, code, parameters, metrics and whether chance explains that, weights, size."""
    difference = Versions(Deployed(env)).compare(before, after)
    say(difference, text_of(difference), as_json=as_json)


@app.command()
def explain(
    model: str,
    inference_id: Annotated[str, typer.Argument(help="as the client sent it, or the captured event's id")],
    *,
    row: Annotated[int, typer.Option("--row", min=0, help="which row of the request, from 0")] = 0,
    days: Annotated[int, typer.Option("--days", min=1, help="how far back it is looked for")] = 7,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Why a captured prediction is what it is: what each feature of the row adds to the average prediction."""
    explained = Explainer(Deployed(env), _spec(model, models_dir)).explain(inference_id, row, days=days)
    say(explained, explained.text, as_json=as_json)


@app.command()
def trace(
    asked: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="an inference id; or a package (its ARN, or MODEL/VERSION), a dataset's hash, an execution's ARN, or "
            "s3://… of an upload",
        ),
    ],
    *,
    model: Annotated[
        str | None, typer.Option("--model", help="where to look for it; in all models when left out")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, help="how far back a prediction is looked for")] = 7,
    who: Annotated[
        bool, typer.Option("--who", help="look in S3's access logs for who of an account sent each file")
    ] = False,
    hour: Annotated[
        datetime | None,
        typer.Option(
            "--hour", formats=["%Y-%m-%dT%H"], help="count who answered the captured requests of an hour (UTC)"
        ),
    ] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Walk the record: from a prediction back to who sent what it was learnt from, or from a file forward."""
    walked = Tracer(Deployed(env), model, days, who, hour).trace(asked)
    if as_json:
        write_json(walked.model_dump(mode="json"))
        return
    found = rows(walked)
    show(found, columns=list(type(found[0]).model_fields), as_json=False, empty="", below=left_out(walked))


@app.command()
def traffic(
    model: str,
    *,
    challenger: Annotated[int, typer.Option("--challenger", help="percent of the requests, 1 to 99")],
    reason: Reason,
    package: Annotated[str | None, typer.Option("--package", help="the challenger, to begin an A/B")] = None,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Give a challenger a share of the requests: begin an A/B, or move it. That approves the version."""
    changes = _changes(model, models_dir, env)
    arn = changes.deployed.package_arn(package) if package else None
    change = changes.ask("traffic", package=arn, percent=challenger, reason=reason)
    say(change, change.text, as_json=as_json)


@app.command()
def shadow(
    model: str,
    package: Annotated[str | None, typer.Argument(help="a package's ARN, or MODEL/VERSION")] = None,
    *,
    reason: Reason,
    off: Annotated[bool, typer.Option("--off", help="end it")] = False,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Have a version answer copies of the requests, unheard; its answers are compared. That approves the version."""
    if off == (package is not None):
        raise Refused("Name the version that is to be the shadow, or end it with --off.")
    changes = _changes(model, models_dir, env)
    change = changes.ask("shadow", package=changes.deployed.package_arn(package) if package else None, reason=reason)
    say(change, change.text, as_json=as_json)


@app.command()
def promote(
    model: str,
    *,
    reason: Reason,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Make the challenger the champion."""
    change = _changes(model, models_dir, env).ask("promote", reason=reason)
    say(change, change.text, as_json=as_json)


@app.command()
def abandon(
    model: str,
    *,
    reason: Reason,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """End the A/B: the champion answers everything."""
    change = _changes(model, models_dir, env).ask("abandon", reason=reason)
    say(change, change.text, as_json=as_json)


@app.command()
def rollback(
    model: str,
    *,
    reason: ReasonToDo = "",
    to: Annotated[
        str | None, typer.Option("--to", help="a version that was live before; the last one if left out")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would happen")] = False,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Go back to a version that was live before, and to nothing beside it: one update, at most one bake."""
    changes = _changes(model, models_dir, env)
    arn = changes.deployed.package_arn(to) if to else None
    change = changes.ask("rollback", package=arn, reason=reason, dry_run=dry_run)
    say(change, change.text, as_json=as_json)


@app.command()
def retire(
    model: str,
    *,
    reason: ReasonToDo = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would happen")] = False,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Have a model answer nobody any more: its endpoint goes, its record stays. An approval brings it back."""
    change = _changes(model, models_dir, env).ask("retire", reason=reason, dry_run=dry_run)
    say(change, change.text, as_json=as_json)


@app.command()
def retrain(
    model: str,
    *,
    reason: ReasonToDo = "",
    force: Annotated[bool, typer.Option("--force", help="even where that goes over the budget")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be decided")] = False,
    models_dir: ModelsDir = _DEFAULT_MODELS,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Train anew on all data there is. Never beside another training and, unless forced, never over the budget."""
    wish = Policy(Deployed(env), _spec(model, models_dir)).retrain(reason=reason, force=force, dry_run=dry_run)
    say(wish, wish.text, as_json=as_json)


@app.command()
def policy(
    model: str, models_dir: ModelsDir = _DEFAULT_MODELS, env: Env = DEFAULT_ENV, as_json: AsJson = False
) -> None:
    """What would come of it if something asked for a training now, and why."""
    show(
        Policy(Deployed(env), _spec(model, models_dir)).outlook(),
        columns=["asks", "answer", "again_at", "because"],
        as_json=as_json,
        empty="Nothing may ask for a training.",
    )


def _changes(model: str, models_dir: Path, env: str) -> Changes:
    return Changes(Deployed(env), _spec(model, models_dir))


@app.command()
def experiment(model: str, env: Env = DEFAULT_ENV, as_json: AsJson = False) -> None:
    """Champion against challenger or shadow: the newest comparison, its verdict, and what to do."""
    deployed = Deployed(env)
    found = newest(Storage(bucket=deployed.parameter("data-bucket")), deployed.require(model))
    if found is None:
        raise Refused(
            f"No experiment of {model} has been reported: begin one with noria traffic or noria shadow; each tick of "
            f"the monitor then reports it (at once: noria monitor {model})."
        )
    say(found, found.text, as_json=as_json)


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="a CSV or Parquet file", exists=True, dir_okay=False)],
    model: Annotated[str, typer.Option("--model", help="the model whose contract it should meet")],
    models_dir: ModelsDir = _DEFAULT_MODELS,
    as_json: AsJson = False,
) -> None:
    """Check a file against a model's data contract, as an upload would be. Exit code 1 when it is refused."""
    report = contract.check(file, _spec(model, models_dir), filename=file.name, now=datetime.now(UTC))
    say(report, contracts.told(report), as_json=as_json)
    if not report.accepted:
        raise typer.Exit(1)


def _spec(model: str, models_dir: Path) -> spec.ModelSpec:
    known = {known.model: known for known in spec.load_all(models_dir)}
    if model not in known:
        raise Refused(f"No model {model!r} in {models_dir}: known are {', '.join(known) or 'none'}.")
    return known[model]


@app.command()
def flags(
    model: str,
    action: Annotated[Literal["show", "set", "rollback"], typer.Argument(help="what to do")] = "show",
    file: Annotated[Path | None, typer.Argument(help="set: a YAML or JSON file of rules", dir_okay=False)] = None,
    *,
    reason: Annotated[str, typer.Option("--reason", help="set, rollback: why; kept in the ledger")] = "",
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """Feature flags: who gets which variant. Others reach callers step by step, and go back on an alarm."""
    of_model = ModelFlags(Deployed(env), model)
    if action != "show":
        require_reason(reason)
    if action == "set":
        if file is None or not file.exists():
            raise Refused(f"Name a file of rules: noria flags {model} set FILE --reason …")
        status = of_model.set(file, reason)
    else:
        status = of_model.roll_back(reason) if action == "rollback" else of_model.status()
    say(status, status.text, as_json=as_json)


@app.command()
def openapi(
    model: Annotated[str, typer.Argument(help="a model spec's name")], models_dir: ModelsDir = _DEFAULT_MODELS
) -> None:
    """What a model's front door takes and answers, as OpenAPI 3.1."""
    write_json(describe(_spec(model, models_dir)))


@app.command()
def preflight(models_dir: ModelsDir = _DEFAULT_MODELS, env: Env = DEFAULT_ENV, as_json: AsJson = False) -> None:
    """Whether every endpoint can be made, or become, what its spec says now; exit code 1 when one cannot."""
    endpoints = Endpoints(names=Names(env=env))
    up = {known.model: (endpoints.running(known.model), known.serve) for known in spec.load_all(models_dir)}
    refused = [
        f"{model}: serve: {reason}" for model, (now, serve) in up.items() if now for reason in impossible(now, serve)
    ]
    refused += [
        f"{model}: log group {group} is there, and CloudFormation would fail to make it. Deploy {model}-training alone "
        f"(npx cdk deploy {model}-training -c env={env}), after which SageMaker may not make it again; then, when "
        f"nobody needs its lines any more: aws logs delete-log-group --log-group-name {group}"
        for model, (_, serve) in up.items()
        if serve.mode.has_endpoint and (group := endpoints.foreign_log_group(model))
    ]
    if refused:
        raise Refused("\n".join(refused))
    checked = Checked(env=env, models=list(up), running=[model for model, (now, _) in up.items() if now])
    say(checked, f"Every spec can be deployed to {env!r}.", as_json=as_json)


@app.command()
def cost(
    *,
    out: Annotated[Path, typer.Option("--out", help="what cdk synth wrote", file_okay=False)] = Path("cdk.out"),
    against: Annotated[
        Path | None, typer.Option("--against", help="another such folder: what would cost more or less than there")
    ] = None,
    region: Annotated[
        str | None, typer.Option("--region", help="whose prices; the templates' own when left out")
    ] = None,
    uploads: Annotated[float, typer.Option("--uploads", min=0, help="for each model and month")] = Load().uploads,
    trainings: Annotated[float, typer.Option("--trainings", min=0, help="for each model and month")] = Load().trainings,
    predictions: Annotated[
        float, typer.Option("--predictions", min=0, help="for each model and month")
    ] = Load().predictions,
    assume: Annotated[
        list[str] | None, typer.Option("--assume", help="NAME=NUMBER: what else is assumed, as job_minutes=20")
    ] = None,
    price: Annotated[
        list[str] | None, typer.Option("--price", help="NAME=USD: a price of your own, as ml.p4d.24xlarge=37.7")
    ] = None,
    live: Annotated[bool, typer.Option("--live/--no-live", help="whether models answer")] = True,
    as_json: AsJson = False,
) -> None:
    """What the synthesised templates cost in a month, at list prices and under a load; asks no cloud."""
    load = Load(uploads=uploads, trainings=trainings, predictions=predictions, live=live)
    costs = Costs(out, region=region, assume=assume or (), given=price or (), load=load)
    tell(costs.against(against) if against else costs.estimate(), as_json=as_json)


@app.command()
def destroy(
    env: Annotated[str, typer.Option("--env", help="environment: local, dev, staging or prod")],
    model: Annotated[str | None, typer.Option("--model", help="only this model; then remove its YAML")] = None,
    only: Annotated[
        Literal["front-door"] | None, typer.Option("--only", help="only this part of the model; the rest stays")
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove every stack of an environment or a model, its packages and, with the environment, data not to be kept."""
    if only and not model:
        raise Refused("--only is about one model: name it with --model.")
    teardown = Teardown(env=env, model=model, part=only)
    stacks = teardown.found()
    if not yes:
        typer.echo("These stacks, and what is in them, are removed for good:", err=True)
        typer.echo("\n".join(f"  {stack.name}" for stack in stacks), err=True)
        word = model or env
        if typer.prompt(f"Type {word} to go on", err=True) != word:
            raise Refused("Nothing was removed.")
    removed = teardown.run(progress=lambda line: typer.echo(line, err=True))
    kept = "\n".join(f"  {line}" for line in removed.kept)
    found = "\n".join(f"  {line}" for line in removed.scan.sentences()) if removed.scan else "  nothing was looked for"
    say(
        removed,
        f"Removed {len(removed.stacks)} stacks, {removed.packages} packages and {removed.objects} objects. "
        f"What is left:\n{kept}\nWhat is in the account:\n{found}",
        as_json=as_json,
    )


@app.command()
def leftovers(
    model: Annotated[str | None, typer.Option("--model", help="only what is of this model")] = None,
    env: Env = DEFAULT_ENV,
    as_json: AsJson = False,
) -> None:
    """What of an environment or a model is in the account, by name and by tag, with what each costs a month."""
    scan = Teardown(env=env, model=model).scan()
    if scan:
        say(scan, "\n".join(scan.sentences()), as_json=as_json)


@app.command()
def schema(as_json: AsJson = True) -> None:
    """The JSON Schema of models/*.yaml, for editors."""
    write_json(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Noria model"}
        | spec.ModelSpec.model_json_schema(mode="validation")
    )
