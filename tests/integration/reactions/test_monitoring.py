"""Each tick, every monitor of the live model says something: a value, or what is lacking."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient

from lambdas.join_labels.handler import handler as join_labels
from lambdas.monitor_model.handler import handler as monitor_model
from noria.deployment import Desired
from noria.evaluation import Estimate
from noria.ledger import Entry, Fact, Kind
from noria.monitoring import Run
from noria.monitors import monitors
from noria.profile import Source, profile
from noria.quality import Quality, QualityLoss, Score
from noria.spec import Metric, ModelSpec
from tests.integration.reactions.place import BUCKET, IMAGE, Place

FEATURES = {"x": {"type": "number"}, "kind": {"type": "category"}}
ROWS = 1000


@dataclass
class Watched:
    """A model that has been live for a day, and what it was asked."""

    place: Place
    spec: ModelSpec
    package: str
    noon: datetime

    @property
    def name(self) -> str:
        return self.place.names.model(self.spec.model)

    def live(self, *, at: datetime, again: str = "1") -> None:
        """The package goes live; another time by the name of another, with the same baseline."""
        package = self.package if again == "1" else self._copy()
        details = Desired(package=package).details
        fact = Fact(
            model=self.spec.model, kind=Kind.DEPLOYED, subject=again, at=at, summary="so it is", details=details
        )
        self.place.ledger.record(fact)

    def _copy(self) -> str:
        package = self.place.sagemaker.describe_model_package(ModelPackageName=self.package)
        arn: str = self.place.sagemaker.create_model_package(
            **{
                name: package[name]
                for name in ("ModelPackageGroupName", "CustomerMetadataProperties", "InferenceSpecification")
            }
        )["ModelPackageArn"]
        return arn

    def captured(self, values: Sequence[float], *, at: datetime) -> None:
        form = {"observedContentType": "application/json", "encoding": "JSON"}
        lines = [
            json.dumps(
                {
                    "captureData": {
                        "endpointInput": {**form, "data": json.dumps({"instances": [{"x": value, "kind": "a"}]})},
                        "endpointOutput": {
                            **form,
                            "data": json.dumps({"predictions": [{"prediction": int(value >= 0.5), "score": value}]}),
                        },
                    },
                    "eventMetadata": {
                        "eventId": f"{at} {number}",
                        "inferenceId": f"{at} {number}",
                        "inferenceTime": at.isoformat(),
                    },
                }
            )
            for number, value in enumerate(values)
        ]
        folder = f"{self.spec.model}/captured/{self.name}/champion/{at:%Y/%m/%d/%H}"
        self.place.put(f"{folder}/{at:%M-%S}.jsonl", "\n".join(lines))

    def tick(self, time: datetime, **asked: str) -> None:
        """The schedule's tick; its window ends ten minutes earlier, when all files have been written. Or a person's."""
        detail = {"model": self.spec.model, "time": time.isoformat(), **asked}
        event = {"source": "noria.schedule", "detail-type": "Monitor Model", "detail": detail}
        self.place.deliver(monitor_model, event)

    def monitored(self) -> list[Entry]:
        return self.place.entries(self.spec.model, Kind.MONITORED)

    def run(self, entry: Entry) -> Run:
        return Run.model_validate_json(self.place.read(str(entry.details["report"])))

    def metrics(self) -> dict[str, list[float]]:
        """The values of each metric of the model without further dimensions, by the minute."""
        dimensions: list[Any] = [{"Name": "Model", "Value": self.spec.model}]
        cloudwatch = boto3.client("cloudwatch")
        names = {m["MetricName"] for m in cloudwatch.list_metrics(Namespace="Noria", Dimensions=dimensions)["Metrics"]}
        found = {}
        for name in names:
            points = cloudwatch.get_metric_statistics(
                Namespace="Noria",
                MetricName=name,
                Dimensions=dimensions,
                StartTime=self.noon - timedelta(days=1),
                EndTime=self.noon + timedelta(days=1),
                Period=60,
                Statistics=["Maximum"],
            )["Datapoints"]
            found[name] = [point["Maximum"] for point in sorted(points, key=lambda point: point["Timestamp"])]
        return {name: values for name, values in found.items() if values}


@pytest.fixture
def watched(place: Place, tmp_path: Path) -> Watched:
    return _watched(place, tmp_path)


def _watched(place: Place, folder: Path, **changes: Any) -> Watched:
    described = {"features": FEATURES, "segments": [], "gates": {}, "monitor": {"min_rows": ROWS}} | changes
    spec = place.model(**described)
    name = place.names.model(spec.model)
    place.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    rows = folder / "rows.csv"
    rows.write_text("x,kind,score\n" + "".join(f"{n / ROWS},a,{n / ROWS}\n" for n in range(ROWS)))
    baseline = f"{spec.model}/baselines/1/baseline.json"
    place.put(baseline, profile(Source.files(rows), spec).model_dump_json())
    package = place.sagemaker.create_model_package(
        ModelPackageGroupName=name,
        ModelApprovalStatus="Approved",
        CustomerMetadataProperties={"noria:baseline": f"s3://{BUCKET}/{baseline}"},
        InferenceSpecification={
            "Containers": [{"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/nothing"}],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )["ModelPackageArn"]
    noon = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    watched = Watched(place, spec, package, noon)
    watched.live(at=noon - timedelta(days=2))
    return watched


def even(count: int = ROWS) -> list[float]:
    return [n / count for n in range(count)]


def test_a_window_is_reported_measured_and_told_once_however_often_the_tick_comes(watched: Watched) -> None:
    watched.captured(even(), at=watched.noon + timedelta(minutes=30))
    tick = watched.noon + timedelta(minutes=70)
    watched.tick(tick)
    (entry,) = watched.monitored()
    run = watched.run(entry)
    watched.tick(tick)
    assert watched.monitored() == [entry]
    assert [finding.monitor for finding in run.findings] == [monitor.name for monitor in monitors(watched.spec)]
    assert (run.start, run.end) == (watched.noon, watched.noon + timedelta(hours=1))
    assert (run.package, run.own_rows, run.breached) == (watched.package, ROWS, ())
    assert entry.details["breached"] == []
    assert entry.details["not_enough"] == list(run.not_enough)
    assert entry.details["rows"] == ROWS
    said = watched.metrics()
    assert (said["Rows"], said["DriftedFeatures"], said["SilentHours"]) == ([ROWS], [0], [0])
    assert said["MonitorFailures"] == [0]
    assert said["PredictionDrift"] == said["PredictionPsi"] == [pytest.approx(0, abs=0.01)]


def test_each_window_is_a_page_and_the_newest_has_a_place_of_its_own(watched: Watched) -> None:
    for hour in (0, 1):
        watched.captured(even(), at=watched.noon + timedelta(hours=hour, minutes=30))
        watched.tick(watched.noon + timedelta(hours=hour, minutes=70))
    first, second = (str(e.details["report"]).replace(".json", ".html") for e in watched.monitored())
    kept = watched.place.s3.get_object(Bucket=BUCKET, Key=f"{watched.spec.model}/reports/latest.html")
    assert kept["ContentType"] == "text/html; charset=utf-8"
    assert kept["Body"].read() == watched.place.read(second) != watched.place.read(first)
    assert f"<h1><bdi>{watched.spec.model}</bdi></h1>".encode() in watched.place.read(first)


def test_what_a_person_asks_for_ends_when_they_ask_and_is_as_long_as_a_window_unless_they_say(watched: Watched) -> None:
    asked, later = (watched.noon + timedelta(minutes=minutes) for minutes in (70, 71))
    for minutes in (5, 30, 65):
        watched.captured(even(400), at=watched.noon + timedelta(minutes=minutes))
    watched.tick(asked)
    watched.tick(asked, by="somebody")
    watched.tick(later, by="somebody", since=(watched.noon + timedelta(minutes=50)).isoformat())
    runs = [watched.run(entry) for entry in watched.monitored()]
    told = [((run.start - watched.noon) / timedelta(minutes=1), run.own_rows) for run in runs]
    assert told == [(0, 800), (10, 800), (50, 400)]
    assert [run.end for run in runs] == [watched.noon + timedelta(hours=1), asked, later]


def test_what_has_drifted_is_a_breach_of_its_monitor_and_of_no_other(watched: Watched) -> None:
    watched.captured([0.5 + value / 2 for value in even()], at=watched.noon + timedelta(minutes=30))
    watched.tick(watched.noon + timedelta(minutes=70))
    (entry,) = watched.monitored()
    assert set(watched.run(entry).breached) >= {"drift", "prediction-drift"}
    assert entry.details["drifted"] == ["x"]
    assert watched.metrics()["DriftedFeatures"] == [1]
    assert watched.metrics()["PredictionDrift"][0] > watched.spec.monitor.psi


def test_too_few_rows_are_no_value_and_no_verdict(watched: Watched) -> None:
    watched.captured(even(ROWS - 1), at=watched.noon + timedelta(minutes=30))
    watched.tick(watched.noon + timedelta(minutes=70))
    (entry,) = watched.monitored()
    run = watched.run(entry)
    assert "drift" in run.not_enough
    (finding,) = [f for f in run.findings if f.monitor == "drift"]
    assert (finding.value, finding.reason) == (None, "999 rows are fewer than 1,000 (monitor.min_rows)")
    assert set(watched.metrics()) == {"Rows", "MalformedRecords", "SilentHours", "MonitorFailures"}


def test_windows_with_too_few_rows_are_looked_at_together(watched: Watched) -> None:
    for hour in range(3):
        watched.captured(even(400), at=watched.noon + timedelta(hours=hour, minutes=30))
        watched.tick(watched.noon + timedelta(hours=hour, minutes=70))
    one, two, three = (watched.run(entry) for entry in watched.monitored())
    assert [run.drift.enough for run in (one, two, three)] == [False, False, True]
    assert (three.start, three.end) == (watched.noon, watched.noon + timedelta(hours=3))
    assert (three.window.rows, three.own_rows) == (1200, 400)
    assert watched.metrics()["DriftedFeatures"] == [0]
    assert [point.end for point in three.trend] == [one.end, two.end]


def test_no_request_for_hours_is_counted_from_the_last_one(watched: Watched) -> None:
    watched.tick(watched.noon + timedelta(minutes=10))
    watched.captured(even(10), at=watched.noon + timedelta(minutes=30))
    for hour in range(1, 4):
        watched.tick(watched.noon + timedelta(hours=hour, minutes=10))
    assert watched.metrics()["SilentHours"] == [0, 1, 2]
    first = watched.run(watched.monitored()[0])
    assert next(f.reason for f in first.findings if f.monitor == "silence") == "no request has ever been seen"


def test_a_model_of_which_nothing_is_kept_says_so(place: Place, tmp_path: Path) -> None:
    watched = _watched(place, tmp_path, serve={"capture": 0})
    watched.tick(watched.noon + timedelta(minutes=70))
    run = watched.run(watched.monitored()[0])
    assert run.breached == ()
    reasons = {f.monitor: f.reason for f in run.findings}
    assert reasons["drift"] == reasons["silence"] == "nothing is kept of the requests: serve.capture is 0"


def test_what_breaks_while_it_is_measured_is_counted_and_silences_nobody_else(place: Place, tmp_path: Path) -> None:
    broken = {"broken": {"sql": "SELECT CAST(max(kind) AS DOUBLE) FROM predictions", "max": 1}}
    mean = {"mean": {"sql": "SELECT avg(x) FROM predictions", "max": 0.2}}
    watched = _watched(place, tmp_path, monitor={"min_rows": ROWS, "business": broken | mean})
    watched.captured(even(), at=watched.noon + timedelta(minutes=30))
    watched.tick(watched.noon + timedelta(minutes=70))
    run = watched.run(watched.monitored()[0])
    assert run.breached == ("business-mean-above", "monitor-failures")
    assert "business-broken-above" in run.not_enough
    said = watched.metrics()
    assert (said["MonitorFailures"], said["DriftedFeatures"]) == ([1], [0])
    assert said["Business-mean"] == pytest.approx([sum(even()) / ROWS])
    assert "Business-broken" not in said


def test_what_the_disk_holds_is_fetched_once_and_goes_when_it_is_not_needed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {"right": {"sql": "SELECT avg((prediction = label)::INT) FROM predictions", "min": 0.5}}
    watch = {"min_rows": ROWS, "business": right, "labels": {"within": "10m"}}
    watched = _watched(place, tmp_path, monitor=watch)
    at = watched.noon + timedelta(minutes=30)
    watched.captured(even(), at=at)
    body = "inference_id,row,late\n" + "".join(f"{at} {n},0,{int(n >= 500)}\n" for n in range(ROWS))
    key = f"{watched.spec.model}/labels/late.csv"
    place.deliver(join_labels, place.uploaded(key, place.put(key, body), len(body)))
    disk, fetched = tmp_path / "disk", []
    disk.mkdir()
    made = BaseClient._make_api_call  # type: ignore[attr-defined]

    def look(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        if operation in {"GetObject", "ListObjectsV2"}:
            fetched.append((parameters.get("Key", ""), [path.name for path in disk.rglob("*.jsonl")]))
        return made(client, operation, parameters)

    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    monkeypatch.setattr(BaseClient, "_make_api_call", look)
    watched.tick(watched.noon + timedelta(minutes=70))
    run = watched.run(watched.monitored()[0])
    assert run.business == {"right": 1}
    assert run.labels is not None
    (words,) = [place for place, (key, _) in enumerate(fetched) if "/labelled/told/" in key]
    # The window's files are gone when those whose labels are due are looked for.
    assert fetched[words][1] == ["000000.jsonl"]
    assert [key for key, there in fetched if "/captured/" in key and not there][-1].endswith(".jsonl")


def test_a_business_metric_that_asks_for_outcomes_waits_until_they_are_due(place: Place, tmp_path: Path) -> None:
    """Good outcomes are known at once, bad ones later: the labels of an hour ago tell of the good ones alone."""
    bad = {"bad": {"sql": "SELECT avg(label::INT) FROM predictions", "max": 0.1}}
    asked = {"asked": {"sql": "SELECT count(*) FROM predictions", "min": 1}}
    watch = {"min_rows": ROWS, "business": bad | asked, "labels": {"within": "1d"}}
    watched = _watched(place, tmp_path, monitor=watch)
    at, old = watched.noon + timedelta(minutes=30), watched.noon + timedelta(minutes=30) - timedelta(days=1)
    for when in (at, old):
        watched.captured(even(), at=when)
    told = [f"{at} {n},0,0" for n in range(ROWS) if n % 2] + [f"{old} {n},0,{n % 2}" for n in range(ROWS)]
    body = "\n".join(["inference_id,row,late", *told])
    key = f"{watched.spec.model}/labels/late.csv"
    place.deliver(join_labels, place.uploaded(key, place.put(key, body), len(body)))
    watched.tick(watched.noon + timedelta(minutes=70))
    run = watched.run(watched.monitored()[0])
    assert run.business == {"bad": 0.5, "asked": ROWS}
    assert "business-bad-above" in run.breached
    watched.live(at=old + timedelta(minutes=1), again="2")
    watched.tick(watched.noon + timedelta(minutes=75))
    run = watched.run(watched.monitored()[1])
    assert "business-bad-above" in run.not_enough
    reasons = {f.monitor: f.reason for f in run.findings}
    assert "made before this version went live" in reasons["business-bad-above"]


def test_labels_of_this_version_are_heard_and_those_of_an_earlier_one_are_not(watched: Watched) -> None:
    estimate = Estimate(value=0.8, low=0.7, high=0.9)
    loss = QualityLoss(
        metric=Metric.AUC, registered=estimate, live=Estimate(value=0.4, low=0.3, high=0.5), share=estimate, value=0.5
    )
    quality = Quality(
        model=watched.spec.model,
        predictions=ROWS,
        labels=ROWS,
        matched=ROWS,
        unmatched_labels=0,
        malformed=0,
        coverage=1,
        overall=Score(rows=ROWS, requests=ROWS, metrics={Metric.AUC: loss.live}),
        segments={},
        registration=loss,
    )
    watched.place.put(f"{watched.spec.model}/reports/quality/latest.json", quality.model_dump_json())
    watched.tick(watched.noon + timedelta(minutes=70))
    before = watched.run(watched.monitored()[0])
    assert (before.breached, before.quality) == (("quality",), quality)
    # join_labels publishes what labels say, when they say it.
    assert "QualityLoss" not in watched.metrics()

    watched.live(at=datetime.now(UTC) + timedelta(minutes=1), again="2")
    watched.tick(datetime.now(UTC) + timedelta(minutes=30))
    after = watched.run(watched.monitored()[1])
    assert (after.breached, after.quality) == ((), None)
    (told,) = [f.reason for f in after.findings if f.monitor == "quality"]
    assert told == "no labels of this version's predictions have been joined yet"


def test_the_newest_page_is_that_of_the_newest_window_whichever_comes_first(watched: Watched) -> None:
    for hour in (2, 1):
        watched.captured(even(), at=watched.noon + timedelta(hours=hour, minutes=30))
        watched.tick(watched.noon + timedelta(hours=hour + 1, minutes=10))
    second, first = (
        str(entry.details["report"]).replace("report.json", "report.html") for entry in watched.monitored()
    )
    newest = watched.place.read(f"{watched.spec.model}/reports/latest.html")
    assert newest == watched.place.read(second)
    assert newest != watched.place.read(first)
    assert newest.startswith(b"<!doctype html>")


@pytest.mark.parametrize("call", ["PutObject", "PutMetricData", "TransactWriteItems"])
def test_a_death_between_two_calls_heals_at_the_next_delivery(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    watched.captured([0.5 + value / 2 for value in even()], at=watched.noon + timedelta(minutes=30))
    tick = watched.noon + timedelta(minutes=70)
    made = BaseClient._make_api_call  # type: ignore[attr-defined]

    def die(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        if operation == call:
            raise RuntimeError("the function died")
        return made(client, operation, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", die)
        with pytest.raises(RuntimeError, match="the function died"):
            watched.tick(tick)
    assert watched.monitored() == []
    watched.tick(tick)
    (entry,) = watched.monitored()
    assert watched.run(entry).breached[:2] == ("drift", "prediction-drift")
    assert watched.metrics()["DriftedFeatures"] == [1]
