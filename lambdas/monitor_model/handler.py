"""A window of captured requests is looked at by every monitor of the live model.

tick ┬ captured files of the window ─ measured, and compared with the package's baseline ─ report, metrics, ledger
     └ while a challenger or shadow is on trial: all since it began, with labels ─ experiment, metrics, verdict

What a window cannot tell is "not enough data" in the report, and no value of any metric. What breaks while one thing
is measured leaves the others be, and is counted in `MonitorFailures`; only without captures, baseline or ledger the
message comes again, and ends among the dead letters. The ledger knows the window before the experiment is looked at:
one that cannot be judged is judged by the next tick, of all since it began, and no window is measured twice for it.

Calls: s3:ListBucket and s3:GetObject on */captured/*; s3:GetObject on */baselines/*; s3:ListBucket and s3:GetObject on
*/labelled/*; s3:ListBucket, s3:GetObject and s3:PutObject on */reports/*; kms:Decrypt, kms:DescribeKey, kms:Encrypt and
kms:GenerateDataKey; sagemaker:DescribeModelPackage on the model's packages; sagemaker:DescribeEndpoint,
sagemaker:DescribeEndpointConfig, sagemaker:DescribeModel and sagemaker:InvokeEndpoint on its endpoint;
cloudwatch:GetMetricData, and cloudwatch:PutMetricData in namespace Noria; dynamodb:GetItem, dynamodb:Query and
dynamodb:PutItem on the ledger. Of windows too large for one machine: athena:StartQueryExecution,
athena:GetQueryExecution, athena:GetQueryResults and athena:StopQueryExecution in the model's workgroup, and as Athena:
glue:GetDatabase, glue:GetTable and glue:GetPartitions; s3:GetBucketLocation; s3:ListBucket, s3:GetObject, s3:PutObject,
s3:AbortMultipartUpload and s3:ListMultipartUploadParts on */queries/*.
While the model is paused: s3:PutObject on */held/*.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.aws.athena import Athena
from noria.aws.attempts import attempt
from noria.aws.captures import LATE, Captures
from noria.aws.environment import Environment
from noria.aws.experiments import FILE, Experiments
from noria.aws.explanations import Explanations
from noria.aws.labelled import Labelled
from noria.aws.ledger import Ledger
from noria.aws.metrics import Measurement, Measurements
from noria.aws.pauses import pausable
from noria.aws.registry import Registry
from noria.aws.retries import retried_soon
from noria.aws.runs import Runs, measured
from noria.aws.storage import Storage
from noria.aws.telemetry import reaction, tell
from noria.aws.traffic import TrafficMetrics
from noria.deployment import live_package
from noria.events import Tick, parse
from noria.experiment import Experiment, Verdict
from noria.ledger import Entry, Fact, Kind
from noria.monitoring import Run, Window
from noria.monitors import Unknown
from noria.profile import Profile
from noria.spec import ModelSpec
from noria.trial import Trial, champion_since


class Outcome(StrEnum):
    COMPARED = "WindowCompared"
    TOO_FEW = "WindowTooSmall"
    NOTHING_LIVE = "NothingToMonitor"
    KNOWN = "WindowKnown"


@retried_soon
@reaction
@pausable
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    tick = parse(event, Tick)
    spec = env.required_spec(tick.model)
    storage, registry = Storage(bucket=env.data_bucket), Registry()
    endpoint = env.names.model(tick.model)
    captures = Captures(model=tick.model, endpoint=endpoint, storage=storage)
    labelled = Labelled(spec=spec, captures=captures, storage=storage)
    outcome = monitor_model(
        tick=tick,
        spec=spec,
        runs=Runs(
            spec=spec,
            captures=captures,
            storage=storage,
            explanations=Explanations.of(spec, endpoint=endpoint, storage=storage, registry=registry),
            labelled=labelled,
            athena=Athena(names=env.names, spec=spec, variant=captures.variant, late=LATE),
        ),
        experiments=Experiments(
            spec=spec, captures=captures, labelled=labelled, traffic=TrafficMetrics(endpoint=endpoint)
        ),
        storage=storage,
        registry=registry,
        ledger=Ledger(table=env.ledger_table),
        measurements=Measurements(),
        now=datetime.now(UTC),
    )
    tell(outcome, model=tick.model)


def monitor_model(
    *,
    tick: Tick,
    spec: ModelSpec,
    runs: Runs,
    experiments: Experiments,
    storage: Storage,
    registry: Registry,
    ledger: Ledger,
    measurements: Measurements,
    now: datetime,
) -> Outcome:
    entries = ledger.entries(spec.model)
    package = live_package(entries)
    if package is None:
        return Outcome.NOTHING_LIVE
    window = _window(tick, spec, entries)
    if ledger.knows(spec.model, Kind.MONITORED, window.name):
        return Outcome.KNOWN
    baseline = Profile.model_validate_json(
        storage.read(storage.key_of(registry.describe(package).metadata["noria:baseline"]))
    )
    run = runs.run(window, package, baseline, entries, widen=tick.detail.since is None, now=now)
    report = runs.keep(run, newest=not window.overtaken(entries))
    measurements.publish(spec.model, measured(run), at=tick.detail.time)
    ledger.record(_fact(run, window, report))
    if (trial := Trial.of(entries)) and trial.since < window.end:
        judged = attempt(
            "the experiment",
            lambda: _judge(
                trial, window, entries, experiments, storage=storage, ledger=ledger, measurements=measurements, now=now
            ),
        )
        if isinstance(judged, Unknown):
            failures = Measurement(name="MonitorFailures", value=run.values["monitor-failures"] + 1)
            measurements.publish(spec.model, [failures], at=tick.detail.time)
    return Outcome.COMPARED if run.drift.enough else Outcome.TOO_FEW


def _window(tick: Tick, spec: ModelSpec, entries: list[Entry]) -> Window:
    """What a person asks for ends when they ask; of the schedule, the latest whose files are all written by the tick.

    Either is as long as the spec says, by the clock, unless a person says since when. What answered before the live
    package is no business of its baseline.
    """
    tock = tick.detail.time.astimezone(UTC)
    end = tock if tick.detail.by or tick.detail.since else tock - LATE
    start = (tick.detail.since or end - spec.monitor.every).astimezone(UTC)
    live = champion_since(entries)
    return Window(start=min(end, max(start, live)) if live else start, end=end)


def _fact(run: Run, window: Window, report: str) -> Fact:
    return Fact(
        model=run.model,
        kind=Kind.MONITORED,
        subject=window.name,
        at=run.at,
        summary=run.summary,
        details={
            "report": report,
            "package": run.package,
            "rows": run.drift.rows,
            "own_rows": run.own_rows,
            "malformed": run.drift.malformed,
            "drifted": list(run.drift.drifted),
            "max_psi": run.drift.max_psi,
            "breached": list(run.breached),
            "not_enough": list(run.not_enough),
        },
    )


def _judge(
    trial: Trial,
    window: Window,
    entries: Sequence[Entry],
    experiments: Experiments,
    *,
    storage: Storage,
    ledger: Ledger,
    measurements: Measurements,
    now: datetime,
) -> None:
    """Report what is on trial as far as it is known; the ledger tells each change of the verdict."""
    experiment = experiments.run(trial, until=window.end)
    target = window.report(experiment.model, FILE)
    storage.write(target, experiment.model_dump_json(indent=1))
    measurements.publish(experiment.model, measure_experiment(experiment), at=now)
    name = f"{trial.rival}#{trial.champion}#{trial.since.isoformat()}"
    told = [e for e in entries if e.kind is Kind.EXPERIMENT_JUDGED and e.subject.startswith(f"{name}#")]
    if (told[-1].details["verdict"] if told else Verdict.WAIT) == experiment.verdict:
        return
    ledger.record(
        Fact(
            model=experiment.model,
            kind=Kind.EXPERIMENT_JUDGED,
            subject=f"{name}#{window.end.isoformat()}",
            at=now,
            summary=experiment.summary,
            details={
                "verdict": experiment.verdict.value,
                "kind": trial.kind,
                "champion": trial.champion,
                "rival": trial.rival,
                "report": target,
                "labelled": experiment.rival.labelled,
            },
        )
    )


def measure_experiment(experiment: Experiment) -> list[Measurement]:
    """`ChallengerWorse` is 1 where the verdict is to abandon it. A shadow is measured by the same names."""
    measured = [
        Measurement(name="ChallengerRows", value=experiment.rival.predictions),
        Measurement(name="ChallengerLabels", value=experiment.rival.labelled),
        Measurement(name="ChallengerWorse", value=float(experiment.verdict is Verdict.ABANDON)),
    ]
    if experiment.loss:
        measured.append(Measurement(name="ChallengerLossDifference", value=experiment.loss.value))
    if experiment.psi is not None:
        measured.append(Measurement(name="ChallengerPsi", value=experiment.psi))
    return measured
