"""Records to make cards of: all that can be known of a version, of usual names and of names that an enemy chose."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from noria.contract import Manifest, Report
from noria.evaluation import (
    Bin,
    Calibration,
    ChampionScore,
    Estimate,
    Evaluation,
    Fairness,
    Gate,
    Rates,
    SegmentScore,
    Slice,
    Training,
)
from noria.explain import Attribution, Weight
from noria.golden import Golden
from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.record import Dataset, Record, Registered, about
from noria.spec import Metric, ModelSpec
from noria.training import Cause, Champion, TrainingDataset, TrainingRequest, training_token
from tests.unit import report_run

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
GROUP = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/noria-local-example"
EXECUTION = "arn:aws:sagemaker:eu-west-1:123456789012:pipeline/noria-local-example/execution/e1"
ANNA, BEN = "arn:aws:iam::123456789012:user/anna", "arn:aws:iam::123456789012:user/ben"
CATEGORIES = ("red", "green", "blue")


def arn(version: int) -> str:
    return f"{GROUP}/{version}"


def estimate(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def chain(*facts: Fact) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    for number, fact in enumerate(facts, start=1):
        previous = entries[-1].hash if entries else GENESIS
        plain = Fact(**fact.model_dump(include=set(Fact.model_fields)))
        entries.append(Entry.after(plain, number=number, previous=previous))
    return tuple(entries)


def fact(kind: Kind, subject: str, minutes: int, summary: str, **details: Any) -> Fact:
    at = NOW + timedelta(minutes=minutes)
    return Fact(model="example", kind=kind, subject=subject, at=at, summary=summary, details=details)


def spec(names: Sequence[str] = ("x", "size", "color"), **changes: Any) -> ModelSpec:
    return report_run.spec(
        names,
        **{
            "purpose": "Says which parcels come late, so that people are told before they ask.",
            "limits": ["Not for parcels from abroad: none were in the training."],
            "gates": {"auc": {"min": 0.6, "beats_champion_by": 0.0}, "latency_p95_ms": 50, "bias": {names[2]: 0.1}},
            **changes,
        },
    )


def evaluation(of: ModelSpec, categories: Sequence[str]) -> Evaluation:
    (segment,) = of.segments
    scores = {v: SegmentScore(rows=300 + n, metrics={Metric.AUC: 0.6 + n / 50}) for n, v in enumerate(categories)}
    rates = {v: Rates(rows=300 + n, selected=90, positives=100, true_positives=60) for n, v in enumerate(categories)}
    return Evaluation(
        model=of.model,
        slice=Slice(rows=1200, first_event=NOW - timedelta(days=6), last_event=NOW - timedelta(days=1)),
        trained_on=Slice(rows=4800, first_event=NOW - timedelta(days=30), last_event=NOW - timedelta(days=6)),
        metrics={Metric.AUC: estimate(0.7123), Metric.BRIER: estimate(0.1817, 0.003)},
        segments={segment: scores},
        calibration=Calibration(
            rows=1200,
            error=0.0231,
            chance=0.011,
            value=0.0121,
            bins=(Bin(rows=800, predicted=0.21, happened=0.2), Bin(rows=400, predicted=0.72, happened=0.75)),
        ),
        fairness={
            segment: Fairness(
                values=rates,
                left_out={"rare": 12},
                disparate_impact=estimate(0.91),
                equal_opportunity=estimate(0.05),
            )
        },
        champion=ChampionScore(
            package=arn(1), metrics={Metric.AUC: estimate(0.69)}, margins={Metric.AUC: estimate(0.0223, 0.01)}
        ),
        latency_p95_ms=3.417,
        gate=Gate(passed=True),
    )


def record(
    of: ModelSpec | None = None,
    categories: Sequence[str] = CATEGORIES,
    *,
    version: int = 2,
    said: str = "it is better",
    live: bool = True,
) -> Record:
    of = of or spec()
    sha = f"{version:0>64}"
    told = TrainingDataset(
        sha256=sha,
        key=f"example/datasets/{sha}/data.csv",
        source_key="example/incoming/january.csv",
        rows=6000,
        first_event=NOW - timedelta(days=30),
        last_event=NOW - timedelta(days=1),
    )
    request = TrainingRequest(
        model=of.model,
        token=training_token(of.model, f"c{version}"),
        cause=Cause(kind="upload", identity=f"c{version}", text="new data"),
        dataset_hash="d" * 64,
        datasets=(told,),
        champion=Champion(package=arn(1), model_key="example/runs/e0/model.tar.gz"),
        requested_at=NOW,
    )
    package = Registered(
        arn=arn(version),
        model=of.model,
        version=version,
        created=NOW + timedelta(minutes=5),
        author="arn:aws:sts::123456789012:assumed-role/pipeline/SageMaker",
        approval="Approved",
        decided=NOW + timedelta(minutes=6),
        decided_by=ANNA,
        reason=said,
        image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/server:1",
        model_data="s3://bucket/example/runs/e1/model/model.tar.gz",
        bytes=123456,
        metadata={
            "noria:execution": EXECUTION,
            "noria:code": "c" * 64,
            "noria:dataset": "d" * 64,
            "noria:champion": arn(1),
            "noria:evaluation": "s3://bucket/example/runs/e1/evaluation/evaluation.json",
            "noria:baseline": "s3://bucket/example/baselines/e1/baseline.json",
        },
    )
    facts = [
        fact(Kind.DATASET_ACCEPTED, sha, 0, "january.csv is a dataset.", key="k", version="v7", uploaded_by=BEN),
        fact(Kind.TRAINING_STARTED, request.token, 1, "A training started.", execution=EXECUTION),
        fact(Kind.TRAINING_SUCCEEDED, EXECUTION, 5, "It passed its gates.", package=package.arn, hours=0.25),
        fact(
            Kind.PACKAGE_APPROVED,
            f"{package.arn}#{NOW.isoformat()}",
            6,
            f"Version {version} was approved by {ANNA}: {said}",
            package=package.arn,
            by=ANNA,
            reason=said,
        ),
        fact(Kind.DEPLOYMENT_REQUESTED, "deploy-1", 6, "It is to go live.", package=package.arn),
    ]
    if live:
        facts.append(fact(Kind.DEPLOYED, "deploy-1", 9, f"Version {version} is live.", package=package.arn))
    entries = chain(*facts)
    baseline, _ = report_run.profiles(of, categories)
    window = NOW - timedelta(days=30)
    return Record(
        package=package,
        spec=of,
        training=Training(
            serves="onnx",
            onnx_difference=1e-7,
            onnx_rows=6000,
            rows=evaluation(of, categories).trained_on,
            estimator="sklearn.HistGradientBoostingClassifier",
            iterations=83,
            hyperparameters={"learning_rate": 0.05},
        ),
        request=request,
        datasets=(
            Dataset(
                told=told,
                manifest=Manifest(
                    model=of.model,
                    sha256=sha,
                    filename="january.csv",
                    format="csv",
                    bytes=99,
                    rows=6000,
                    columns=tuple(of.columns),
                    first_event=window,
                    last_event=NOW,
                    key=told.key,
                    source_key=told.source_key,
                    accepted_at=NOW,
                ),
                report=Report(
                    model=of.model,
                    filename="january.csv",
                    format="csv",
                    sha256=sha,
                    bytes=99,
                    rows=6000,
                    columns=tuple(of.columns),
                    first_event=window,
                    last_event=NOW,
                    accepted=True,
                    violations=(),
                ),
                accepted=entries[0],
            ),
        ),
        evaluation=evaluation(of, categories),
        baseline=baseline,
        attribution=Attribution(
            bundle="b" * 64,
            seed="s",
            rows=200,
            pairs=4,
            seconds=1.0,
            weights={
                name: Weight(value=0.1, standard_error=0.01, share=share, share_error=0.02)
                for name, share in zip(of.features, (0.55, 0.3, 0.15), strict=False)
            },
            background=(dict.fromkeys(of.features, 1),),
        ),
        golden=Golden(bundle="b" * 64, rows=({},), answers=({},)),
        entries=about(entries, package.arn, request),
    )
