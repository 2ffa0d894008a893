"""While a challenger or shadow is live, each tick of the monitor judges it by all that is known since it began."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from typer.testing import CliRunner

from lambdas.join_labels.handler import handler as join_labels
from lambdas.monitor_model.handler import handler as monitor_model
from noria.aws import experiments
from noria.aws.experiments import newest
from noria.aws.storage import Storage
from noria.cli.commands import app
from noria.deployment import Desired
from noria.experiment import Experiment, Verdict
from noria.ledger import Fact, Kind
from noria.profile import Source, profile
from noria.spec import ModelSpec
from tests.integration.reactions.place import BUCKET, IMAGE, Place

FEATURES = {"x": {"type": "number"}}
ROWS = 300


@dataclass
class OnTrial:
    """A model with two packages, and what its variants were asked since an hour ago."""

    place: Place
    spec: ModelSpec
    packages: tuple[str, str]
    since: datetime

    @property
    def name(self) -> str:
        return self.place.names.model(self.spec.model)

    def live(self, desired: Desired, *, at: datetime) -> None:
        self.place.ledger.record(
            Fact(
                model=self.spec.model,
                kind=Kind.DEPLOYED,
                subject=f"{desired} {at}",
                at=at,
                summary="so it is",
                details=desired.details,
            )
        )

    def captured(self, variant: str, scores: Sequence[float], *, first: int = 0, minute: int = 1) -> None:
        at = self.since + timedelta(minutes=minute)
        form = {"observedContentType": "application/json", "encoding": "JSON"}
        lines = [
            json.dumps(
                {
                    "captureData": {
                        "endpointInput": {**form, "data": json.dumps({"instances": [{"x": score}]})},
                        "endpointOutput": {
                            **form,
                            "data": json.dumps({"predictions": [{"prediction": int(score >= 0.5), "score": score}]}),
                        },
                    },
                    "eventMetadata": {
                        "eventId": f"{variant} {number}",
                        "inferenceId": f"r{first + number}",
                        "inferenceTime": at.isoformat(),
                    },
                }
            )
            for number, score in enumerate(scores)
        ]
        folder = f"{self.spec.model}/captured/{self.name}/{variant}/{at:%Y/%m/%d/%H}"
        self.place.put(f"{folder}/{at:%M-%S}.jsonl", "\n".join(lines))

    def labelled(self, labels: Sequence[int], name: str = "labels.csv") -> None:
        body = "inference_id,late\n" + "".join(f"r{n},{label}\n" for n, label in enumerate(labels))
        key = f"{self.spec.model}/labels/{name}"
        self.place.deliver(join_labels, self.place.uploaded(key, self.place.put(key, body), len(body)))

    def tick(self) -> None:
        now, since = datetime.now(UTC), self.since + timedelta(seconds=1)
        detail = {"model": self.spec.model, "time": now.isoformat(), "since": since.isoformat()}
        event = {"source": "noria.schedule", "detail-type": "Monitor Model", "detail": detail}
        self.place.deliver(monitor_model, event)

    def reported(self) -> Experiment | None:
        return newest(Storage(bucket=BUCKET), self.spec.model)

    def verdicts(self) -> list[Any]:
        return [e.details["verdict"] for e in self.place.entries(self.spec.model, Kind.EXPERIMENT_JUDGED)]

    def measured(self) -> set[str]:
        listed = boto3.client("cloudwatch").list_metrics(
            Namespace="Noria", Dimensions=[{"Name": "Model", "Value": self.spec.model}]
        )
        return {metric["MetricName"] for metric in listed["Metrics"]}

    def failures(self) -> float:
        """The most that `MonitorFailures` counted of a run."""
        found = boto3.client("cloudwatch").get_metric_statistics(
            Namespace="Noria",
            MetricName="MonitorFailures",
            Dimensions=[{"Name": "Model", "Value": self.spec.model}],
            StartTime=self.since,
            EndTime=self.since + timedelta(days=1),
            Period=60,
            Statistics=["Maximum"],
        )
        return max(point["Maximum"] for point in found["Datapoints"])


@pytest.fixture
def trial(place: Place, tmp_path: Path) -> OnTrial:
    spec = place.model(features=FEATURES, segments=[], gates={}, monitor={"min_rows": 200})
    name = place.names.model(spec.model)
    place.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    rows = tmp_path / "rows.csv"
    rows.write_text("x,score\n" + "".join(f"{n / 100},{n / 100}\n" for n in range(100)))
    baseline = f"{spec.model}/baselines/1/baseline.json"
    place.put(baseline, profile(Source.files(rows), spec).model_dump_json())
    packages = [
        place.sagemaker.create_model_package(
            ModelPackageGroupName=name,
            ModelApprovalStatus="Approved",
            CustomerMetadataProperties={"noria:baseline": f"s3://{BUCKET}/{baseline}"},
            InferenceSpecification={
                "Containers": [{"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/nothing"}],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )["ModelPackageArn"]
        for _ in range(2)
    ]
    return OnTrial(place, spec, (packages[0], packages[1]), datetime.now(UTC) - timedelta(hours=1))


def truths(count: int) -> list[int]:
    """Labels that no model here has seen: two of five are positive."""
    return [int(n % 5 < 2) for n in range(count)]


def knowing(labels: Sequence[int], how_well: float) -> list[float]:
    return [round(how_well * label + (1 - how_well) * (n * 7919 % 1000) / 1000, 4) for n, label in enumerate(labels)]


def test_a_challenger_that_knows_more_is_to_be_promoted_once_labels_say_so(trial: OnTrial) -> None:
    one, two = trial.packages
    trial.live(Desired(package=one), at=trial.since - timedelta(hours=1))
    trial.live(Desired(package=one, challenger=two, percent=50), at=trial.since)
    labels = truths(2 * ROWS)
    trial.captured("champion", knowing(labels[:ROWS], 0.1))
    trial.captured("challenger", knowing(labels, 0.9)[ROWS:], first=ROWS)
    trial.tick()
    waiting = trial.reported()
    assert waiting is not None
    assert (waiting.verdict, waiting.loss, waiting.rival.predictions) == (Verdict.WAIT, None, ROWS)
    assert waiting.psi is not None
    assert trial.verdicts() == []
    trial.labelled(labels)
    trial.tick()
    judged = trial.reported()
    assert judged is not None
    assert (judged.verdict, judged.rival.package, judged.since) == (Verdict.PROMOTE, two, trial.since)
    assert judged.loss is not None
    assert judged.loss.high < 0
    trial.tick()
    assert trial.verdicts() == ["promote"]
    (entry,) = trial.place.entries(trial.spec.model, Kind.EXPERIMENT_JUDGED)
    assert entry.summary.startswith("Promote the challenger")
    assert trial.measured() >= {
        "ChallengerRows",
        "ChallengerLabels",
        "ChallengerWorse",
        "ChallengerLossDifference",
        "ChallengerPsi",
    }


def test_a_shadow_is_judged_by_the_same_requests(trial: OnTrial) -> None:
    one, two = trial.packages
    trial.live(Desired(package=one, shadow=two), at=trial.since)
    labels = truths(ROWS)
    trial.captured("champion", knowing(labels, 0.8))
    trial.captured("shadow", knowing(labels, 0.1))
    trial.labelled([1 - label for label in labels], "first.csv")
    trial.labelled(labels, "corrected.csv")
    trial.tick()
    judged = trial.reported()
    assert judged is not None
    assert judged.loss is not None
    assert (judged.kind, judged.verdict, judged.loss.paired) == ("shadow", Verdict.ABANDON, True)
    assert (judged.loss.rows, judged.champion.labelled) == (ROWS, ROWS)
    assert judged.agreement is not None
    assert trial.verdicts() == ["abandon"]
    assert "noria shadow" in command(trial)
    assert json.loads(command(trial, "--json"))["verdict"] == "abandon"


def command(trial: OnTrial, *options: str) -> str:
    """What `noria experiment` prints."""
    parameter = trial.place.names.parameter("data-bucket")
    boto3.client("ssm").put_parameter(Name=parameter, Value=BUCKET, Type="String", Overwrite=True)
    answer = CliRunner().invoke(app, ["experiment", trial.spec.model, "--env", "local", *options])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_a_challenger_that_fails_is_to_be_abandoned_without_any_label(trial: OnTrial) -> None:
    one, two = trial.packages
    trial.live(Desired(package=one, challenger=two, percent=50), at=trial.since)
    cloudwatch: Any = boto3.client("cloudwatch")
    for variant, failures in (("champion", 2), ("challenger", 300)):
        dimensions = [{"Name": "EndpointName", "Value": trial.name}, {"Name": "VariantName", "Value": variant}]
        for metric, value in (("Invocations", 2000), ("Invocation5XXErrors", failures), ("ModelLatency", 7000)):
            datum: dict[str, Any] = {"MetricName": metric, "Dimensions": dimensions, "Value": value}
            datum["Timestamp"] = trial.since + timedelta(minutes=30)
            cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=[datum])
    trial.tick()
    judged = trial.reported()
    assert judged is not None
    assert judged.verdict is Verdict.ABANDON
    assert judged.rival.traffic.failures == 300
    assert judged.champion.traffic.latency_p95_ms == 7.0


def test_where_there_is_too_much_of_one_side_both_are_judged_by_the_same_time(
    trial: OnTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion's share fills the limit long before the challenger's does."""
    one, two = trial.packages
    trial.live(Desired(package=one, challenger=two, percent=5), at=trial.since)
    for minute in (1, 20, 40):
        trial.captured("champion", [0.4] * 190, minute=minute, first=1000 * minute)
        trial.captured("challenger", [0.4] * 10, minute=minute, first=1000 * minute + 500)
    files = trial.place.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{trial.spec.model}/captured/{trial.name}/champion/")
    monkeypatch.setattr(experiments, "MOST_BYTES", round(2.5 * files["Contents"][0]["Size"]))
    trial.tick()
    judged = trial.reported()
    assert judged is not None
    assert (judged.champion.predictions, judged.rival.predictions) == (380, 20)
    assert not judged.complete
    assert judged.until - trial.since < timedelta(minutes=21)


def test_an_experiment_that_cannot_be_judged_is_counted_and_judged_by_the_next_tick(
    trial: OnTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = trial.packages
    trial.live(Desired(package=one, shadow=two), at=trial.since)
    labels = truths(ROWS)
    trial.captured("champion", knowing(labels, 0.8))
    trial.captured("shadow", knowing(labels, 0.1))
    trial.labelled(labels)
    made = BaseClient._make_api_call  # type: ignore[attr-defined]

    def throttle(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        if operation == "GetMetricData":
            raise RuntimeError("throttled")
        return made(client, operation, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", throttle)
        trial.tick()
    assert trial.place.kinds(trial.spec.model)[-1] is Kind.MONITORED
    assert (trial.reported(), trial.verdicts(), trial.failures()) == (None, [], 1)
    trial.tick()
    assert trial.verdicts() == ["abandon"]


def test_a_champion_alone_is_on_no_trial(trial: OnTrial) -> None:
    one, two = trial.packages
    trial.live(Desired(package=one, challenger=two, percent=50), at=trial.since)
    trial.live(Desired(package=one), at=trial.since + timedelta(minutes=5))
    trial.tick()
    assert trial.reported() is None
    assert trial.place.kinds(trial.spec.model)[-1] is Kind.MONITORED


def test_a_trial_that_began_after_the_window_is_judged_in_the_next_one(trial: OnTrial) -> None:
    one, two = trial.packages
    trial.live(Desired(package=one, shadow=two), at=datetime.now(UTC) - timedelta(minutes=5))
    event = {"model": trial.spec.model, "time": datetime.now(UTC).isoformat()}
    trial.place.deliver(monitor_model, {"source": "noria.schedule", "detail-type": "Monitor Model", "detail": event})
    assert trial.reported() is None
    assert trial.place.kinds(trial.spec.model)[-1] is Kind.MONITORED
