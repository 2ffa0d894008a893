"""Explanations asked of a real endpoint, from requests that it really captured."""

import hashlib
import json
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from typer.testing import CliRunner, Result

from lambdas.monitor_model.handler import handler as monitor_model
from local.cloud import ACCOUNT
from noria import capture, explain
from noria.aws.captures import Captures
from noria.aws.explanations import Explanations
from noria.aws.registry import Registry
from noria.aws.storage import Storage
from noria.cli.commands import app
from noria.cli.output import Refused
from noria.explain import Attribution, UnexplainedError
from noria.ledger import Fact, Kind
from noria.monitoring import Run
from noria.profile import Source, profile
from noria.spec import ModelSpec, Task
from noria.sql import MODEST, connect
from tests.integration.reactions.place import BUCKET, IMAGE, Place
from tests.integration.test_local_endpoints import archive, capture_to, eventually

SCRIPT = """
import json

def model_fn(model_dir):
    with open(model_dir + "/version.json") as file:
        return json.load(file)

def transform_fn(model, content, content_type, accept):
    rows = json.loads(content)["instances"]
    scores = [score(row) for row in rows]
    body = json.dumps({"predictions": [{"prediction": int(s >= 0.5), "score": s} for s in scores]}).encode()

    def answer(environ, start_response):
        said = ("X-Amzn-SageMaker-Custom-Attributes", "noria-bundle=" + model["bundle"])
        start_response("200 OK", [("Content-Type", "application/json"), said])
        return [body]

    return answer

def score(row):
    return 0.5 + 0.2 * row["x"] + 0.01 * row["k"] + 0.02 * (row["c"] == "a")
"""
FEATURES = {
    "x": {"type": "number"},
    "k": {"type": "integer", "sensitive": True},
    "c": {"type": "category", "missing": 0.5},
}
Row = dict[str, Any]


def answer(rows: Sequence[Any]) -> list[Row]:
    """What the endpoint answers."""
    return [{"score": 0.5 + 0.2 * row["x"] + 0.01 * row["k"] + 0.02 * (row["c"] == "a")} for row in rows]


def rows_of(count: int, *, seed: int = 1, x: float = 1.0, k: int = 2) -> list[Row]:
    """`x` and `k` say how far their values spread."""
    chance = random.Random(seed)  # noqa: S311
    return [
        {"x": chance.uniform(-x, x), "k": chance.randint(-k, k), "c": chance.choice(["a", "b", None])}
        for _ in range(count)
    ]


BACKGROUND = rows_of(100, seed=5)


@dataclass
class Live:
    """A model whose endpoint answers, captures what it is asked, and has an attribution of its training."""

    place: Place
    spec: ModelSpec
    package: str = ""
    bundle: str = field(default_factory=lambda: hashlib.sha256(uuid.uuid4().bytes).hexdigest())

    @property
    def name(self) -> str:
        return self.place.names.model(self.spec.model)

    @property
    def explanations(self) -> Explanations:
        return Explanations.of(self.spec, endpoint=self.name, storage=Storage(bucket=BUCKET), registry=Registry())

    def begin(self) -> None:
        self.package = self.register()
        model = self.place.sagemaker.create_model(
            ModelName=f"{self.name}-1",
            ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/everything",
            PrimaryContainer={"ModelPackageName": self.package},
        )
        assert model
        variant = {"VariantName": "champion", "ModelName": f"{self.name}-1", "InitialVariantWeight": 1.0}
        self.place.sagemaker.create_endpoint_config(
            EndpointConfigName=self.name,
            ProductionVariants=[{**variant, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}],
            DataCaptureConfig=capture_to(f"s3://{BUCKET}/{self.spec.model}/captured"),
        )
        self.place.sagemaker.create_endpoint(EndpointName=self.name, EndpointConfigName=self.name)
        described = self.place.sagemaker.describe_endpoint
        eventually(lambda: described(EndpointName=self.name)["EndpointStatus"] == "InService")
        self.deployed(self.package)

    def deployed(self, package: str) -> None:
        """The ledger knows it as live since an hour."""
        at, details = datetime.now(UTC) - timedelta(hours=1), {"package": package}
        self.place.ledger.record(
            Fact(model=self.spec.model, kind=Kind.DEPLOYED, subject=package, at=at, summary="live", details=details)
        )

    def register(self) -> str:
        key = f"{self.spec.model}/runs/{uuid.uuid4()}/model.tar.gz"
        about = json.dumps({"bundle": self.bundle})
        self.place.put(key, archive({"version.json": about, "code/inference.py": SCRIPT}))
        container = {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/{key}"}
        arn: str = self.place.sagemaker.create_model_package(
            ModelPackageGroupName=self.name,
            ModelApprovalStatus="Approved",
            InferenceSpecification={
                "Containers": [{**container, "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )["ModelPackageArn"]
        return arn

    def attributed(self, bundle: str | None = None) -> None:
        """As the training leaves it."""
        rows = rows_of(explain.TRAINING_ROWS, seed=6)
        found = explain.weights(rows, BACKGROUND, answer, Task.BINARY, pairs=4, seed="any")
        attribution = Attribution(
            bundle=bundle or self.bundle,
            seed="any",
            rows=len(rows),
            pairs=4,
            seconds=0,
            weights=found,
            background=tuple(BACKGROUND),
        )
        key = f"{self.spec.model}/baselines/1/attribution.json"
        self.place.put(key, attribution.model_dump_json())
        Registry().mark(self.package, "noria:attribution", f"s3://{BUCKET}/{key}")

    def baseline(self, file: Path) -> None:
        """As the training leaves it."""
        rows = rows_of(explain.TRAINING_ROWS, seed=6)
        scores = [one["score"] for one in answer(rows)]
        lines = [f"{row['x']},{row['k']},{row['c'] or ''},{score}\n" for row, score in zip(rows, scores, strict=True)]
        file.write_text("x,k,c,score\n" + "".join(lines))
        key = f"{self.spec.model}/baselines/1/baseline.json"
        self.place.put(key, profile(Source.files(file), self.spec).model_dump_json())
        Registry().mark(self.package, "noria:baseline", f"s3://{BUCKET}/{key}")

    def tick(self, time: datetime, *, since: datetime | None) -> None:
        """The schedule's, or with `since` that of a person."""
        detail = {"model": self.spec.model, "time": time.isoformat()}
        detail |= {"since": since.isoformat()} if since else {}
        event = {"source": "noria.schedule", "detail-type": "Monitor Model", "detail": detail}
        self.place.deliver(monitor_model, event)

    def asked(self, rows: list[Row], inference_id: str) -> None:
        boto3.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=self.name,
            ContentType="application/json",
            Body=json.dumps({"instances": rows}),
            InferenceId=inference_id,
        )
        eventually(lambda: inference_id in self.lines())

    def lines(self) -> str:
        """All that was captured."""
        keys = self.place.keys(f"{self.spec.model}/captured/")
        return "\n".join(self.place.read(key).decode() for key in keys)

    def window(self, folder: Path) -> Source:
        now = datetime.now(UTC)
        captures = Captures(model=self.spec.model, endpoint=self.name, storage=Storage(bucket=BUCKET))
        return Source.captured(*captures.fetch(captures.between(now - timedelta(hours=1), now), folder))

    def explain(self, *arguments: str) -> Result:
        models = self.place.models / "yaml"
        models.mkdir(exist_ok=True)
        (models / f"{self.spec.model}.yaml").write_text(self.spec.model_dump_json(by_alias=True))
        where = ("--env", "local", "--models", str(models))
        return CliRunner().invoke(app, ["explain", self.spec.model, *arguments, *where])


@pytest.fixture
def live(place: Place, everything: None) -> Callable[..., Live]:
    for name, value in (
        (place.names.parameter("data-bucket"), BUCKET),
        (place.names.parameter("ledger-table"), "ledger"),
    ):
        boto3.client("ssm").put_parameter(Name=name, Value=value, Type="String", Overwrite=True)

    def make(**changes: Any) -> Live:
        spec = place.model(features=FEATURES, segments=[], gates={}, **changes)
        place.sagemaker.create_model_package_group(ModelPackageGroupName=place.names.model(spec.model))
        model = Live(place, spec)
        model.begin()
        return model

    return make


def test_a_captured_prediction_is_explained_and_its_sensitive_value_masked(live: Callable[[], Live]) -> None:
    model = live()
    model.attributed()
    rows: list[Row] = [{"x": 0.1, "k": 1, "c": "b"}, {"x": 0.251, "k": 7654, "c": None}]
    model.asked(rows, "order-1")
    said = model.explain("order-1", "--row", "1", "--json")
    assert said.exit_code == 0, said.exception
    found = json.loads(said.stdout)
    assert (found["package"], found["variant"], found["row"], found["notes"]) == (model.package, "champion", 1, [])
    assert found["score"] == pytest.approx(answer(rows)[1]["score"]) == pytest.approx(found["explained"])
    average = fmean(one["score"] for one in answer(BACKGROUND))
    assert found["average"] == pytest.approx(average)
    contributions = {one["feature"]: one["contribution"] for one in found["features"]}
    assert contributions["x"] == pytest.approx(0.2 * (rows[1]["x"] - fmean(row["x"] for row in BACKGROUND)))
    assert contributions["k"] == pytest.approx(0.01 * (7654 - fmean(row["k"] for row in BACKGROUND)))
    assert average + sum(contributions.values()) == pytest.approx(found["explained"])
    assert [one["feature"] for one in found["features"]] == ["k", "x", "c"], "the heaviest first"
    assert {one["feature"]: one["value"] for one in found["features"]} == {"x": 0.251, "k": "***", "c": None}
    text = model.explain("order-1", "--row", "1").stdout
    assert "7654" not in said.stdout + text
    assert "missing" in text
    assert "█" in text
    assert f"{average:+.4f}" in text


def test_what_cannot_be_explained_is_refused_with_the_reason(live: Callable[[], Live]) -> None:
    model = live()
    model.asked(rows_of(2), "order-1")

    def refused(*arguments: str) -> str:
        error = model.explain(*arguments).exception
        assert isinstance(error, Refused), error
        return str(error)

    assert "trained before attributions were kept" in refused("order-1")
    model.attributed()
    assert "No request 'order-2'" in refused("order-2")
    assert "has rows 0 to 1" in refused("order-1", "--row", "2")
    model.attributed(bundle="0" * 64)
    assert "another bundle" in refused("order-1")


def test_a_prediction_of_an_earlier_version_says_that_another_one_is_explained(live: Callable[[], Live]) -> None:
    model = live()
    model.attributed()
    model.asked(rows_of(1), "order-1")
    model.deployed(f"{model.package.rsplit('/', 1)[0]}/7")
    found = json.loads(model.explain("order-1", "--json").stdout)
    assert found["notes"] == ["It was version 7 that answered; version 1 answers now, and is what is explained."]


def test_a_window_tells_whether_predictions_rest_on_the_same_features(live: Callable[[], Live], tmp_path: Path) -> None:
    model = live()
    model.attributed()
    model.asked(rows_of(150), "unchanged")
    source = model.window(_new(tmp_path / "unchanged"))
    found = model.explanations.of_window(model.package, source)
    assert (found.rows, found.correlation, found.changed) == (100, 1, [])
    assert model.explanations.of_window(model.package, source) == found, "the same rows are explained each time"
    eventually(lambda: model.lines().count(capture.PROBE) > 1)
    with connect(MODEST) as db:
        requests = capture.relation(model.window(_new(tmp_path / "later")).paths, model.spec)
        asked = db.execute(f"SELECT count(*) FROM {requests}").fetchone()  # noqa: S608
    assert asked == (150,), "what is asked for an explanation is no traffic"


def test_a_window_in_which_another_feature_rules_is_found(live: Callable[[], Live], tmp_path: Path) -> None:
    model = live()
    model.attributed()
    model.asked(rows_of(150, x=0.05, k=40), "changed")
    found = model.explanations.of_window(model.package, model.window(_new(tmp_path / "changed")))
    assert found.correlation < model.spec.monitor.attribution
    assert found.changed[:2] in (["k", "x"], ["x", "k"])


def test_a_window_that_cannot_be_explained_says_why(live: Callable[[], Live], tmp_path: Path) -> None:
    model = live()
    source = Source.captured()

    def reason() -> str:
        with pytest.raises(UnexplainedError) as caught:
            model.explanations.of_window(model.package, source)
        return str(caught.value)

    assert "train it again" in reason()
    model.attributed()
    assert "0 answered rows are fewer than 50" in reason()
    model.asked(rows_of(60), "some")
    source = model.window(_new(tmp_path / "some"))
    other = model.register()
    Registry().mark(other, "noria:attribution", Registry().describe(model.package).metadata["noria:attribution"])
    model.package = other
    assert f"and not {other}" in reason()


def test_a_scheduled_window_is_explained_once_a_day_and_one_that_is_asked_for_each_time(
    live: Callable[..., Live], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = live(monitor={"min_rows": 100})
    model.attributed()
    model.baseline(tmp_path / "rows.csv")
    model.asked(rows_of(150), "unchanged")
    now, asked = datetime.now(UTC), [0]
    made = BaseClient._make_api_call  # type: ignore[attr-defined]

    def count(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        asked[-1] += operation == "InvokeEndpoint"
        return made(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", count)
    for minutes, since in ((11, None), (16, None), (17, now - timedelta(minutes=30)), (18, None)):
        asked.append(0)
        model.tick(now + timedelta(minutes=minutes), since=since)
    entries = model.place.entries(model.spec.model, Kind.MONITORED)
    first, second, third, fourth = (
        Run.model_validate_json(model.place.read(str(entry.details["report"]))) for entry in entries
    )
    assert asked[1] > 0
    assert first.attribution is not None
    assert (first.explained, second.explained, second.attribution) == (first.end, first.end, first.attribution)
    assert asked[2] == 0
    (reason,) = [finding.reason for finding in second.findings if finding.monitor == "attribution"]
    assert f"of the window that ended {first.end:%Y-%m-%d %H:%M} UTC" in reason
    assert (asked[3], third.explained) == (asked[1], third.end)
    # Of the windows that ended before it, not of the one that ended later.
    assert (asked[4], fourth.explained) == (0, first.end)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
