"""A new version is asked on a real endpoint while a real canary takes its share; its metrics say what came of it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from lambdas.probe_deployment import handler
from lambdas.probe_deployment.handler import ATTEMPTS
from lambdas.probe_deployment.handler import handler as probe_deployment
from local.cloud import ACCOUNT
from noria.aws.traffic import TrafficMetrics
from noria.deployment import Cause
from noria.ledger import Entry, Fact, Kind
from noria.objectives import Served
from noria.spec import ModelSpec
from tests.integration.reactions.place import BUCKET, IMAGE, Place, ship
from tests.integration.test_local_endpoints import archive, eventually

SCRIPT = """
import json

HEADER = "X-Amzn-SageMaker-Custom-Attributes"

def model_fn(model_dir):
    with open(model_dir + "/version.json") as file:
        return json.load(file)

def transform_fn(model, content, content_type, accept):
    rows = json.loads(content)["instances"]
    if model["fails"]:
        raise RuntimeError("cannot")
    if any(row["x"] in model["refuses"] for row in rows):
        return refuse
    scores = [min(row["x"] / 100 + model["bias"], 1.0) for row in rows]
    body = json.dumps({"predictions": [{"prediction": int(s >= 0.5), "score": s} for s in scores]}).encode()

    def answer(environ, start_response):
        said = [(HEADER, "noria-bundle=" + model["bundle"])] if model["bundle"] else []
        start_response("200 OK", [("Content-Type", "application/json"), *said])
        return [body]

    return answer

def refuse(environ, start_response):
    start_response("400 Bad Request", [("Content-Type", "application/json")])
    return [b'{"error": "no such x"}']
"""
GOLDEN_ROWS: list[dict[str, Any]] = [{"x": float(x), "k": x, "c": "a"} for x in range(0, 100, 10)]
FEATURES = {"x": {"type": "number"}, "k": {"type": "integer"}, "c": {"type": "category", "missing": 0.5}}


@dataclass
class Probed:
    """A model with an endpoint of three instances, whose versions answer `x / 100 + bias`."""

    place: Place
    spec: ModelSpec
    versions: int = 0
    configs: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.place.names.model(self.spec.model)

    def version(
        self,
        bias: float = 0.0,
        *,
        wrong: int = 0,
        refuses: tuple[int, ...] = (),
        silent: bool = False,
        fails: bool = False,
    ) -> str:
        """A package; `wrong` of its golden rows were answered otherwise in training."""
        self.versions += 1
        bundle = hashlib.sha256(f"{self.name}{self.versions}".encode()).hexdigest()
        run = f"{self.spec.model}/runs/{self.versions}/model.tar.gz"
        about = {"bundle": None if silent else bundle, "bias": bias, "refuses": refuses, "fails": fails}
        self.place.put(run, archive({"version.json": json.dumps(about), "code/inference.py": SCRIPT}))
        scores = [min(row["x"] / 100 + bias, 1.0) - (0.1 if n < wrong else 0) for n, row in enumerate(GOLDEN_ROWS)]
        answers = [{"prediction": int(score >= 0.5), "score": score} for score in scores]
        golden = f"{self.spec.model}/baselines/{self.versions}/golden.json"
        self.place.put(golden, json.dumps({"bundle": bundle, "rows": GOLDEN_ROWS, "answers": answers}))
        arn: str = self.place.sagemaker.create_model_package(
            ModelPackageGroupName=self.name,
            ModelApprovalStatus="Approved",
            CustomerMetadataProperties={"noria:golden": f"s3://{BUCKET}/{golden}"},
            InferenceSpecification={
                "Containers": [
                    {
                        "Image": IMAGE,
                        "ModelDataUrl": f"s3://{BUCKET}/{run}",
                        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
                    }
                ],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )["ModelPackageArn"]
        return arn

    def config(self, champion: str, challenger: str | None = None) -> str:
        name = f"{self.name}-c{len(self.configs)}"
        self.configs.append(name)
        variants = []
        for variant, package in (("champion", champion), ("challenger", challenger)):
            if package:
                model = f"{name}-{variant}"
                self.place.sagemaker.create_model(
                    ModelName=model,
                    ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/everything",
                    PrimaryContainer={"ModelPackageName": package},
                )
                where = {"VariantName": variant, "ModelName": model, "InitialVariantWeight": 1.0}
                variants.append({**where, "InstanceType": "ml.m5.large", "InitialInstanceCount": 3})
        self.place.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
        return name

    def live(self, champion: str, challenger: str | None = None) -> None:
        """All at once, and confirmed."""
        config = self.config(champion, challenger)
        if len(self.configs) == 1:
            self.place.sagemaker.create_endpoint(EndpointName=self.name, EndpointConfigName=config)
        else:
            self.place.sagemaker.update_endpoint(EndpointName=self.name, EndpointConfigName=config)
        self.at_rest()
        self.record(Kind.DEPLOYED, champion)

    def canary(
        self, champion: str, challenger: str | None = None, *, bake: int = 1200, cause: Cause = Cause.APPROVED
    ) -> str:
        """Begin a deployment, and wait until one of three instances takes traffic. Returns the new config."""
        size = {"Type": "INSTANCE_COUNT", "Value": 1}
        routing = {"Type": "CANARY", "CanarySize": size, "WaitIntervalInSeconds": bake}
        policy = {"TrafficRoutingConfiguration": routing}
        return self.update(self.config(champion, challenger), policy, champion=champion, cause=cause)

    def at_once(self, champion: str) -> str:
        """Begin a deployment, and wait until it has all the traffic. Returns the new config."""
        routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
        policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 1800}
        return self.update(self.config(champion), policy, champion=champion, cause=Cause.APPROVED)

    def update(self, config: str, policy: dict[str, Any], *, champion: str, cause: Cause) -> str:
        self.record(Kind.DEPLOYMENT_REQUESTED, champion, cause=cause)
        self.place.sagemaker.update_endpoint(
            EndpointName=self.name,
            EndpointConfigName=config,
            DeploymentConfig={"BlueGreenUpdatePolicy": policy},
        )
        eventually(lambda: "Baking" in self.states())
        return config

    def states(self) -> list[str]:
        pending = self.described().get("PendingDeploymentSummary") or {"ProductionVariants": []}
        return [state["Status"] for v in pending["ProductionVariants"] for state in v["VariantStatus"]]

    def described(self) -> dict[str, Any]:
        described: dict[str, Any] = self.place.sagemaker.describe_endpoint(EndpointName=self.name)
        return described

    def at_rest(self) -> None:
        eventually(lambda: self.described()["EndpointStatus"] == "InService")

    def record(self, kind: Kind, package: str, **more: Any) -> None:
        subject = f"{kind} {self.versions} {len(self.configs)}"
        decision = f"{package}#{datetime.now(UTC).isoformat()}"
        details: dict[str, Any] = {"package": package, "decision": decision} | more
        at = datetime.now(UTC)
        self.place.ledger.record(
            Fact(model=self.spec.model, kind=kind, subject=subject, at=at, summary="so it is", details=details)
        )

    def captured(self, rows: int, variant: str = "champion", *, ago: timedelta = timedelta(0)) -> None:
        """What an unbiased version answered."""
        at = datetime.now(UTC) - ago
        instances = [{"x": float(x), "k": x, "c": None} for x in range(rows)]
        predictions = [{"prediction": int(x >= 50), "score": x / 100} for x in range(rows)]
        form = {"observedContentType": "application/json", "encoding": "JSON"}
        record = {
            "captureData": {
                "endpointInput": {**form, "data": json.dumps({"instances": instances})},
                "endpointOutput": {**form, "data": json.dumps({"predictions": predictions})},
            },
            "eventMetadata": {"eventId": f"{at}", "inferenceTime": at.isoformat()},
        }
        folder = f"{self.spec.model}/captured/{self.name}/{variant}/{at:%Y/%m/%d/%H}"
        self.place.put(f"{folder}/{at:%M-%S}.jsonl", json.dumps(record))

    def told(self) -> None:
        """SageMaker's event of a step of the deployment arrives."""
        detail = {"EndpointName": self.name, "EndpointStatus": "UPDATING"}
        event = self.place.event("aws.sagemaker", "SageMaker Endpoint Deployment State Change", detail)
        self.place.deliver(probe_deployment, event)

    def tick(self, attempt: int = 1) -> None:
        detail = {"model": self.spec.model, "time": datetime.now(UTC).isoformat(), "attempt": attempt}
        event = {"source": "noria.schedule", "detail-type": "Probe Deployment", "detail": detail}
        self.place.deliver(probe_deployment, event)

    def proofs(self) -> list[Entry]:
        return self.place.entries(self.spec.model, Kind.PROBED)

    def measured(self, config: str, variant: str = "champion") -> dict[str, float]:
        """Newest values by metric, as the alarms of that fleet see them."""
        dimensions = {"EndpointName": self.name, "EndpointConfigName": config, "VariantName": variant}
        now = datetime.now(UTC)
        found = {}
        for metric in ("GoldenRowsWrong", "PredictionShift"):
            points = boto3.client("cloudwatch").get_metric_statistics(
                Namespace="Noria",
                MetricName=metric,
                Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
                StartTime=now - timedelta(minutes=10),
                EndTime=now + timedelta(minutes=10),
                Period=3600,
                Statistics=["Maximum"],
            )["Datapoints"]
            if points:
                found[metric] = points[0]["Maximum"]
        return found


@pytest.fixture
def probed(place: Place, everything: None) -> Callable[..., Probed]:
    def make(**serve: Any) -> Probed:
        described = place.model().serve.model_dump(mode="json", by_alias=True) | serve
        spec = place.model(features=FEATURES, segments=[], gates={}, serve=described)
        place.sagemaker.create_model_package_group(ModelPackageGroupName=place.names.model(spec.model))
        return Probed(place, spec)

    return make


def test_a_good_canary_answers_its_golden_rows_and_much_as_the_version_before(probed: Callable[..., Probed]) -> None:
    model = probed()
    model.live(model.version())
    model.captured(100)
    two = model.version(bias=0.001)
    config = model.canary(two)
    model.told()
    (proof,) = model.proofs()
    assert proof.subject == f"{config}#champion"
    assert (proof.details["package"], proof.details["golden"], proof.details["wrong"]) == (two, 10, 0)
    assert proof.details["compared"] == 100
    measured = model.measured(config)
    assert measured["GoldenRowsWrong"] == 0
    assert measured["PredictionShift"] < 0.05
    assert "10 of its 10 golden rows" in proof.summary


def test_wrong_golden_rows_and_a_shift_are_measured_while_the_old_fleet_answers_most(
    probed: Callable[..., Probed],
) -> None:
    model = probed()
    model.live(model.version())
    model.captured(100)
    config = model.canary(model.version(bias=0.4, wrong=3))
    model.told()
    model.told()
    (proof,) = model.proofs()
    assert proof.details["wrong"] == 3
    assert model.measured(config)["GoldenRowsWrong"] == 3
    assert model.measured(config)["PredictionShift"] > 0.25


def test_a_version_that_fails_has_all_golden_rows_wrong(probed: Callable[..., Probed]) -> None:
    model = probed()
    model.live(model.version())
    config = model.canary(model.version(fails=True))
    model.told()
    assert model.measured(config) == {"GoldenRowsWrong": 10}
    (proof,) = model.proofs()
    assert "not asked what clients have asked" in proof.summary


def test_a_version_that_fails_is_found_out_when_it_has_all_the_traffic(probed: Callable[..., Probed]) -> None:
    """Nobody else answers then, and an error does not say whose it is."""
    model = probed()
    model.live(model.version())
    model.told()
    config = model.at_once(model.version(fails=True))
    model.told()
    assert model.measured(config) == {"GoldenRowsWrong": 10}
    assert model.place.told(model.spec.model) == [], "an alarm takes it back"


def test_a_version_that_comes_back_is_not_compared_with_the_one_it_replaces(probed: Callable[..., Probed]) -> None:
    model = probed()
    one, bad = model.version(), model.version(bias=0.4)
    model.live(one)
    model.told()
    model.live(bad)
    model.captured(100)
    config = model.canary(one, cause=Cause.ROLLBACK)
    model.told()
    proof = model.proofs()[-1]
    assert (proof.details["package"], proof.details["wrong"], proof.details["shift"]) == (one, 0, None)
    assert model.measured(config) == {"GoldenRowsWrong": 0}
    assert "comes back" in proof.summary


def test_requests_that_the_new_version_refuses_are_answers_that_are_missing(probed: Callable[..., Probed]) -> None:
    model = probed()
    model.live(model.version())
    model.captured(100)
    config = model.canary(model.version(refuses=(7, 77)))
    model.told()
    (proof,) = model.proofs()
    assert proof.details["compared"] == 100
    assert 0 < model.measured(config)["PredictionShift"] < 0.25


def test_while_nothing_but_the_old_fleet_answers_the_probe_comes_again(probed: Callable[..., Probed]) -> None:
    """A version that does not say which it is cannot be told from the old one until it is alone."""
    model = probed()
    model.live(model.version())
    model.canary(model.version(silent=True), bake=300)
    model.tick(attempt=3)
    assert model.proofs() == []
    (again,) = eventually(lambda: [t for t in waiting(model.place) if t["detail"]["model"] == model.spec.model])
    assert again["detail"]["attempt"] == 4
    model.at_rest()
    model.place.deliver(probe_deployment, again)
    (proof,) = model.proofs()
    assert proof.details["wrong"] == 0


def waiting(place: Place) -> list[dict[str, Any]]:
    return [json.loads(body) for body in place.drain(place.names.queue("probe-deployment"))]


def test_what_noria_asks_is_counted_as_cloudwatch_counts_it(
    probed: Callable[..., Probed], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "probe-deployment")
    model, now = probed(), datetime.now(UTC)
    span: Any = {"since": now - timedelta(minutes=5), "until": now + timedelta(minutes=10)}
    model.live(model.version())
    model.told()
    model.canary(model.version(fails=True))
    model.tick(attempt=1)
    ship(capsys.readouterr().out, "/aws/lambda/probe-deployment")
    traffic = TrafficMetrics(endpoint=model.name)

    def both() -> tuple[Served, Served] | None:
        own, every = traffic.own(**span, within_ms=0.001), traffic.served("champion", **span, within_ms=0.001)
        return (own, every) if own.requests == every.requests else None

    own, every = eventually(both)
    assert own.requests > 3
    assert 0 < own.failed == every.failed < own.requests
    assert own.slow == own.requests
    assert traffic.own(**span, within_ms=60_000).slow == 0


def test_after_many_attempts_a_person_is_asked_once(probed: Callable[..., Probed]) -> None:
    model = probed()
    model.live(model.version())
    model.told()
    model.canary(model.version(silent=True))
    model.tick(attempt=ATTEMPTS)
    model.tick(attempt=ATTEMPTS)
    (page,) = model.place.notices(model.spec.model)
    assert "could not be probed" in page
    assert "version 2 as champion" in page.lower()


def test_ticks_end_quietly_when_nothing_is_new(probed: Callable[..., Probed], undelayed: None) -> None:
    model = probed()
    one = model.version()
    model.live(one)
    model.told()
    model.record(Kind.DEPLOYMENT_REQUESTED, one)  # it answers already, and nobody has said what came of it
    model.tick()
    assert ticks(model) == []
    model.record(Kind.DEPLOYMENT_REQUESTED, model.version())  # the stack has not begun yet
    model.tick()
    assert ticks(model) == [2]
    model.tick(attempt=ATTEMPTS)
    assert ticks(model) == []
    assert model.place.told(model.spec.model) == []


def test_two_chains_of_ticks_become_one(probed: Callable[..., Probed], undelayed: None) -> None:
    model = probed()
    model.live(model.version())
    model.told()
    model.record(Kind.DEPLOYMENT_REQUESTED, model.version())
    model.tick(attempt=7)
    model.tick(attempt=2)
    assert ticks(model) == [8]


def ticks(model: Probed) -> list[int]:
    """Which attempts are to come."""
    return [tick["detail"]["attempt"] for tick in waiting(model.place) if tick["detail"]["model"] == model.spec.model]


@pytest.fixture
def undelayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "AGAIN", timedelta(0))


def test_a_first_version_with_wrong_golden_rows_is_a_page_once(probed: Callable[..., Probed]) -> None:
    model = probed()
    bad = model.version(wrong=7)
    model.live(bad)
    model.told()
    model.told()
    (page,) = model.place.pages(model.spec.model)
    assert "7 of its 10 golden rows" in page
    assert "rollback-golden.md" in page
    assert f"noria reject {bad} --reason" in page


def test_what_is_proved_only_when_its_deployment_has_ended_is_taken_back_by_a_person(
    probed: Callable[..., Probed],
) -> None:
    model = probed()
    model.live(model.version())
    model.told()
    model.live(model.version(silent=True, wrong=2))
    model.told()
    (page,) = model.place.pages(model.spec.model)
    assert f"noria rollback {model.spec.model} --reason" in page


def test_a_challenger_is_asked_by_name_and_compared_with_the_champion(probed: Callable[..., Probed]) -> None:
    model = probed()
    one, two = model.version(), model.version(bias=0.001)
    model.live(one)
    model.told()
    model.live(one, challenger=two)
    model.captured(80)
    model.told()
    assert [(p.details["variant"], p.details["package"]) for p in model.proofs()] == [
        ("champion", one),
        ("challenger", two),
    ]
    measured = model.measured(model.configs[-1], "challenger")
    assert measured["GoldenRowsWrong"] == 0
    assert measured["PredictionShift"] < 0.05


def test_the_first_version_has_nothing_before_it(probed: Callable[..., Probed]) -> None:
    model = probed()
    model.live(model.version())
    model.told()
    (proof,) = model.proofs()
    assert model.measured(model.configs[0]) == {"GoldenRowsWrong": 0}
    assert "Nothing answered before it" in proof.summary


def test_answers_of_earlier_versions_and_of_the_deployment_are_not_compared(probed: Callable[..., Probed]) -> None:
    model = probed()
    model.captured(100, ago=timedelta(hours=2))
    model.live(model.version())
    model.canary(model.version())
    model.captured(100, ago=timedelta(seconds=-60))
    model.told()
    (proof,) = model.proofs()
    assert proof.details["shift"] is None


def test_what_no_probe_can_ask_is_left_alone(place: Place, probed: Callable[..., Probed]) -> None:
    model = probed(mode="batch", strategy="all_at_once")
    model.tick()
    nobodys = {"EndpointName": "noria-local-nobodys", "EndpointStatus": "UPDATING"}
    place.deliver(probe_deployment, place.event("aws.sagemaker", "SageMaker Endpoint Deployment State Change", nobodys))
    assert model.proofs() == []
