"""A window of captured requests is compared with what the live model was trained on.

tick ┬ captured files of the window ─ profile ─ compare with the package's baseline ─ report, metrics, ledger
     └ while a challenger or shadow is on trial: all since it began, with labels ─ experiment, metrics, verdict

Calls: s3:ListBucket and s3:GetObject on */captured/*; s3:GetObject on */baselines/*; s3:GetObjectVersion on */labels/*;
s3:PutObject on */reports/*; kms:Decrypt, kms:DescribeKey, kms:Encrypt and kms:GenerateDataKey;
sagemaker:DescribeModelPackage on the model's packages; cloudwatch:GetMetricData, and cloudwatch:PutMetricData in
namespace Noria; dynamodb:GetItem, dynamodb:Query and dynamodb:PutItem on the ledger.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from noria.aws.captures import LATE, Captures
from noria.aws.environment import Environment
from noria.aws.experiments import FILE, Experiments
from noria.aws.ledger import Ledger
from noria.aws.metrics import Measurement, Measurements
from noria.aws.registry import Registry
from noria.aws.storage import Storage
from noria.aws.telemetry import EVENT_ID, logger, metrics, tell
from noria.aws.traffic import TrafficMetrics
from noria.deployment import live_package
from noria.drift import Report, compare
from noria.events import Tick, parse
from noria.experiment import Experiment, Verdict
from noria.ledger import Entry, Fact, Kind
from noria.names import key
from noria.profile import Profile, Source, profile
from noria.spec import ModelSpec
from noria.trial import Trial, champion_since


class Outcome(StrEnum):
    COMPARED = "WindowCompared"
    TOO_FEW = "WindowTooSmall"
    NOTHING_LIVE = "NothingToMonitor"
    KNOWN = "WindowKnown"


@dataclass(frozen=True, kw_only=True)
class Window:
    start: datetime
    end: datetime

    @property
    def name(self) -> str:
        return f"{self.start.isoformat()}/{self.end.isoformat()}"

    def report(self, model: str, name: str) -> str:
        """The key of a report of this window."""
        return key(model, "reports", f"{self.end:%Y-%m-%dT%H%M}/{name}")

    @classmethod
    def of(cls, tick: Tick, spec: ModelSpec, entries: list[Entry]) -> "Window":
        """The window that a person asks for, or the latest whose captured files have all been written by the tick.

        What answered before the live package is no business of its baseline.
        """
        tock = tick.detail.time.astimezone(UTC)
        end = tock if tick.detail.since else tock - LATE
        start = (tick.detail.since or end - spec.monitor.every).astimezone(UTC)
        live = champion_since(entries)
        return cls(start=min(end, max(start, live)) if live else start, end=end)


@logger.inject_lambda_context(correlation_id_path=EVENT_ID)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    env = Environment.from_os()
    tick = parse(event, Tick)
    spec = env.required_spec(tick.model)
    storage = Storage(bucket=env.data_bucket)
    endpoint = env.names.model(tick.model)
    captures = Captures(model=tick.model, endpoint=endpoint, storage=storage)
    outcome = monitor_model(
        tick=tick,
        spec=spec,
        captures=captures,
        experiments=Experiments(
            spec=spec, captures=captures, storage=storage, traffic=TrafficMetrics(endpoint=endpoint)
        ),
        storage=storage,
        registry=Registry(),
        ledger=Ledger(table=env.ledger_table),
        measurements=Measurements(),
        now=datetime.now(UTC),
    )
    tell(outcome, model=tick.model)


def monitor_model(
    *,
    tick: Tick,
    spec: ModelSpec,
    captures: Captures,
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
    window = Window.of(tick, spec, entries)
    if ledger.knows(spec.model, Kind.MONITORED, window.name):
        return Outcome.KNOWN
    baseline = Profile.model_validate_json(
        storage.read(storage.key_of(registry.describe(package).metadata["noria:baseline"]))
    )
    report = _compare(spec, window, baseline, captures)
    target = window.report(spec.model, "report.json")
    storage.write(target, report.model_dump_json(indent=1))
    measurements.publish(spec.model, measure(report), at=tick.detail.time)
    if (trial := Trial.of(entries)) and trial.since < window.end:
        _judge(trial, window, entries, experiments, storage=storage, ledger=ledger, measurements=measurements, now=now)
    ledger.record(
        Fact(
            model=spec.model,
            kind=Kind.MONITORED,
            subject=window.name,
            at=now,
            summary=report.summary,
            details={
                "report": target,
                "package": package,
                "rows": report.rows,
                "malformed": report.malformed,
                "drifted": list(report.drifted),
                "max_psi": report.max_psi,
            },
        )
    )
    return Outcome.COMPARED if report.enough else Outcome.TOO_FEW


def _compare(spec: ModelSpec, window: Window, baseline: Profile, captures: Captures) -> Report:
    with tempfile.TemporaryDirectory(prefix="noria-captured-") as folder:
        paths = captures.fetch(captures.between(window.start, window.end), Path(folder))
        source = Source.captured(*paths, since=window.start, until=window.end)
        return compare(baseline, profile(source, spec, baseline.edges), spec)


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
    experiment = experiments.run(trial, entries, until=window.end)
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


def measure(report: Report) -> list[Measurement]:
    """The metrics of a window. Too few rows say how many there were and nothing else: silence is not health."""
    measured = [
        Measurement(name="Rows", value=report.rows),
        Measurement(name="MalformedRecords", value=report.malformed),
    ]
    if not report.enough:
        return measured
    measured.append(Measurement(name="DriftedFeatures", value=len(report.drifted)))
    if report.max_psi is not None:
        measured.append(Measurement(name="MaxPsi", value=report.max_psi))
    if report.prediction is not None:
        measured.append(Measurement(name="PredictionPsi", value=report.prediction.psi))
    return measured + [
        Measurement(name="Psi", value=drift.psi, feature=feature) for feature, drift in report.features.items()
    ]
