"""`noria trace` over an environment in AWS's services as moto has them: captures, registry, data bucket and ledger."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from noria.aws.ledger import Ledger
from noria.aws.storage import Storage
from noria.cli.commands import app
from noria.cli.output import Refused
from noria.ledger import Fact, Kind
from noria.spec import load
from tests.integration.moto_cloud import in_memory

SPEC = load(Path(__file__).parents[2] / "models" / "flight-delay.yaml")
MODEL, GROUP = SPEC.model, f"noria-dev-{SPEC.model}"
SHA, CODE, TOKEN, SET = "a" * 64, "c" * 64, "e" * 64, "d" * 64
EXECUTION = f"arn:aws:sagemaker:us-east-1:123456789012:pipeline/{GROUP}/execution/abc123"
NOW = datetime.now(UTC).replace(microsecond=0)
UPLOAD = f"{MODEL}/incoming/january.csv"
MONTH = {"rows": 500, "first_event": "2013-01-01T00:00:00+00:00", "last_event": "2013-01-31T00:00:00+00:00"}


@dataclass
class World:
    storage: Storage
    ledger: Ledger
    packages: list[str]
    version: str

    def tell(self, before: float, kind: Kind, subject: str, /, **details: Any) -> None:
        at = NOW - timedelta(hours=before)
        summary = details.pop("summary", f"{kind}.")
        self.ledger.record(Fact(model=MODEL, kind=kind, subject=subject, at=at, summary=summary, details=details))

    def live(self, id_: str, package: int, *, asked: float, since: float | None) -> None:
        details = {"package": self.packages[package], "challenger": "none", "percent": 0, "shadow": "none"}
        self.tell(asked, Kind.DEPLOYMENT_REQUESTED, id_, **details)
        if since is not None:
            self.tell(since, Kind.DEPLOYED, id_, **details, config=f"config-{id_}")

    def capture(self, inference_id: str, *, hours: float, **more: Any) -> None:
        at = NOW - timedelta(hours=hours)
        metadata = {"eventId": f"event-of-{inference_id}", "inferenceId": inference_id, "inferenceTime": at.isoformat()}
        line = json.dumps({"captureData": {}, "eventMetadata": metadata | more, "eventVersion": "0"})
        key = f"{MODEL}/captured/{GROUP}/champion/{at:%Y/%m/%d/%H}/00-00-000-{inference_id}.jsonl"
        self.storage.write(key, f"{line}\n")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("COLUMNS", "150")
    with in_memory(monkeypatch):
        storage, s3 = Storage(bucket="data"), boto3.client("s3")
        s3.create_bucket(Bucket="data")
        s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
        ssm = boto3.client("ssm")
        for name, value in (("data-bucket", "data"), ("ledger-table", "ledger")):
            ssm.put_parameter(Name=f"/noria/dev/{name}", Value=value, Type="String")
        boto3.client("dynamodb").create_table(
            TableName="ledger",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "model", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("model", "sk")],
        )
        version = s3.put_object(Bucket="data", Key=UPLOAD, Body=b"january")["VersionId"]
        world = World(storage=storage, ledger=Ledger(table="ledger"), packages=_registered(storage), version=version)
        sent = {"uploaded_by": "123456789012", "uploaded_at": NOW.isoformat(), "request": "N4N7"}
        world.tell(48, Kind.DATASET_ACCEPTED, SHA, key=UPLOAD, version=version, **MONTH, **sent)
        world.tell(
            47,
            Kind.TRAINING_STARTED,
            TOKEN,
            execution=EXECUTION,
            cause="upload",
            dataset=SET,
            datasets=[SHA],
            champion=None,
        )
        world.tell(46, Kind.TRAINING_SUCCEEDED, EXECUTION, package=world.packages[0], hours=0.2)
        by = "arn:aws:iam::123456789012:user/anna"
        words = f"Version 1 was approved by {by}: good on June"
        said = {"summary": words, "package": world.packages[0], "by": by, "reason": "good on June"}
        world.tell(45, Kind.PACKAGE_APPROVED, f"{world.packages[0]}#{NOW.isoformat()}", **said)
        world.live("d1", 0, asked=45, since=44)
        yield world


def _registered(storage: Storage) -> list[str]:
    """Two packages, each with what it was made from beside it."""
    sagemaker = boto3.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)
    told = {"sha256": SHA, "key": f"{MODEL}/datasets/{SHA}/data.csv", "source_key": UPLOAD, **MONTH}
    request = {
        "model": MODEL,
        "token": TOKEN,
        "cause": {"kind": "upload", "identity": SHA, "text": "new data"},
        "dataset_hash": SET,
        "datasets": [told],
        "champion": None,
        "requested_at": NOW.isoformat(),
    }
    storage.write(f"{MODEL}/trainings/{TOKEN}/request.json", json.dumps(request))
    part = {"rows": 100, "first_event": "2013-01-25T00:00:00Z", "last_event": "2013-01-31T00:00:00Z"}
    evaluation = {
        "model": MODEL,
        "slice": part,
        "trained_on": part,
        "metrics": {"auc": {"value": 0.7012, "low": 0.69, "high": 0.71}},
        "latency_p95_ms": 3.0,
        "gate": {"passed": True},
    }
    storage.write(f"{MODEL}/evaluation.json", json.dumps(evaluation))
    storage.write(f"{MODEL}/spec.json", SPEC.model_dump_json())
    arns = []
    for number in (1, 2):
        golden = {"bundle": f"{number}" * 64, "rows": [], "answers": []}
        storage.write(f"{MODEL}/golden-{number}.json", json.dumps(golden))
        metadata = {
            "training": TOKEN,
            "dataset": SET,
            "code": CODE,
            "execution": EXECUTION,
            "champion": "none",
            "baseline": f"s3://data/{MODEL}/baseline.json",
            "golden": f"s3://data/{MODEL}/golden-{number}.json",
            "evaluation": f"s3://data/{MODEL}/evaluation.json",
        }
        container = {"Image": "image", "ModelDataUrl": f"s3://data/{MODEL}/model.tar.gz"}
        answer = sagemaker.create_model_package(
            ModelPackageGroupName=GROUP,
            CustomerMetadataProperties={f"noria:{name}": value for name, value in metadata.items()},
            InferenceSpecification={  # type: ignore[arg-type, misc]
                "Containers": [container],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )
        arns.append(answer["ModelPackageArn"])
    return arns


def traced(*asked: str) -> dict[str, Any]:
    answer = CliRunner().invoke(app, ["trace", *asked, "--json"], catch_exceptions=False)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def test_one_prediction_is_walked_back_to_who_sent_what_it_was_learnt_from(world: World) -> None:
    world.capture("flight-7", hours=3)
    found = traced("flight-7")
    assert (found["kind"], found["model"]) == ("prediction", MODEL)
    steps = {step["step"]: step for step in found["steps"]}
    assert list(steps) == [
        "prediction", "answered by", "package", "approval", "gates", "training", "code", "dataset", "file"
    ]  # fmt: skip
    assert all(step["known"] for step in found["steps"])
    assert steps["prediction"]["known_from"].startswith(f"s3://data/{MODEL}/captured/{GROUP}/champion/")
    assert steps["answered by"]["facts"]["packages"] == [world.packages[0]]
    assert steps["answered by"]["facts"]["config"] == "config-d1"
    assert steps["approval"]["facts"]["by"] == "arn:aws:iam::123456789012:user/anna"
    assert steps["approval"]["facts"]["reason"] == "good on June"
    assert steps["gates"]["facts"]["auc"] == 0.7012
    assert steps["training"]["facts"]["execution"] == EXECUTION
    assert steps["code"]["facts"]["code"] == CODE
    assert steps["dataset"]["facts"]["sha256"] == SHA
    file = steps["file"]["facts"]
    assert (file["key"], file["version"], file["uploaded_by"]) == (UPLOAD, world.version, "123456789012")
    assert traced("event-of-flight-7")["steps"] == found["steps"]


def test_during_a_canary_both_are_named_unless_the_record_tells_its_bundle(world: World) -> None:
    world.live("d2", 1, asked=2, since=1)
    world.capture("early", hours=3)
    world.capture("meanwhile", hours=1.5)
    world.capture("told", hours=1.5, customAttributes=[f"trace=9,noria-bundle={'2' * 64}"])
    world.capture("late", hours=0.5)

    def answered(id_: str) -> tuple[list[str], bool]:
        step = next(step for step in traced(id_)["steps"] if step["step"] == "answered by")
        return step["facts"]["packages"], step["known"]

    one, two = world.packages
    assert answered("early") == ([one], True)
    assert answered("meanwhile") == ([one, two], False)
    assert answered("told") == ([two], True)
    assert answered("late") == ([two], True)
    both = traced("meanwhile")["steps"]
    assert {step["package"] for step in both if step["step"] == "approval"} == {one, two}


def test_who_answered_the_requests_of_an_hour_is_counted(world: World) -> None:
    world.live("d2", 1, asked=2, since=1)
    hour = (NOW - timedelta(hours=3)).replace(minute=0, second=0)
    before = (NOW - hour).total_seconds() / 3600
    for number in range(3):
        world.capture(f"client-{number}", hours=before - number / 10)
    world.capture("noria-probe-1", hours=before - 0.5)
    world.capture("later", hours=before - 1.01)
    (step,) = [
        step for step in traced(f"{MODEL}/1", "--hour", f"{hour:%Y-%m-%dT%H}")["steps"] if step["step"] == "predictions"
    ]
    assert step["facts"] == {"variant": "champion", "version 1": 3}


def test_a_file_is_walked_forward_and_a_dataset_too(world: World) -> None:
    world.tell(30, Kind.MONITORED, "w", package=world.packages[0], rows=70, own_rows=70)
    of_file = traced(f"s3://data/{UPLOAD}")
    steps = [step["step"] for step in of_file["steps"]]
    assert steps == ["dataset", "file", "training", "package", "live", "live", "predictions"]
    assert [step["facts"]["shared"] for step in of_file["steps"] if step["step"] == "live"] == [True, False]
    assert of_file["steps"][-1]["facts"]["rows"] == 70
    assert traced(f"s3://data/{UPLOAD}?versionId={world.version}")["steps"] == of_file["steps"]
    assert traced(SHA)["steps"] == of_file["steps"]
    assert traced(SHA[:12])["steps"] == of_file["steps"]
    assert traced(f"s3://data/{MODEL}/datasets/{SHA}/data.csv")["steps"] == of_file["steps"]


def test_a_package_and_its_execution_are_understood(world: World) -> None:
    for asked in (world.packages[0], f"{MODEL}/1"):
        steps = [step["step"] for step in traced(asked)["steps"]]
        assert steps == ["package", "approval", "gates", "training", "code", "dataset", "file", "live", "live"]
    for asked in (EXECUTION, SET):
        assert [step["step"] for step in traced(asked)["steps"]][:4] == ["package", "approval", "gates", "training"]


def test_the_table_fits_on_a_screen_and_says_where_each_step_is_known_from(world: World) -> None:
    world.capture("flight-7", hours=3)
    answer = CliRunner().invoke(app, ["trace", "flight-7"], catch_exceptions=False)
    assert answer.exit_code == 0
    assert len(answer.stdout.splitlines()) < 40
    for word in ("approval", "ledger #", "model registry", "good on June", CODE[:20]):
        assert word in answer.stdout


def test_what_is_not_found_says_where_it_was_looked_for(world: World) -> None:
    with pytest.raises(Refused, match=r"No request 'nobody' of any model is among those captured in the last 7 days"):
        CliRunner().invoke(app, ["trace", "nobody"], catch_exceptions=False)
    with pytest.raises(Refused, match=r"does not know s3://data/.*/incoming/march.csv"):
        CliRunner().invoke(app, ["trace", f"s3://data/{MODEL}/incoming/march.csv"], catch_exceptions=False)
    with pytest.raises(Refused, match="is not in bucket 'data': name an upload"):
        CliRunner().invoke(app, ["trace", "s3://other/x"], catch_exceptions=False)
    with pytest.raises(Refused, match="knows of no execution"):
        CliRunner().invoke(app, ["trace", EXECUTION.replace("abc123", "zzz")], catch_exceptions=False)


def test_who_of_an_account_sent_a_file_is_in_the_access_log_that_names_its_request(world: World) -> None:
    silent = {step["step"]: step for step in traced(SHA, "--who")["steps"]}["file"]
    assert "no access log names it" in silent["what"]
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="access", ACL="log-delivery-write")  # type: ignore[arg-type]
    logging = {"LoggingEnabled": {"TargetBucket": "access", "TargetPrefix": "data/"}}
    s3.put_bucket_logging(Bucket="data", BucketLoggingStatus=logging)  # type: ignore[arg-type]
    anna = "arn:aws:sts::123456789012:assumed-role/scientist/anna"
    owner = "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be"
    lines = [
        f"{owner} data [{NOW:%d/%b/%Y:%H:%M:%S +0000}] 192.0.2.3 {who} {request} REST.PUT.OBJECT {UPLOAD} "
        f'"PUT /{UPLOAD} HTTP/1.1" 200 - - 7 9 8 "-" "a N4N7 b" v - SigV4 cipher AuthHeader host TLSv1.3 - -'
        for who, request in ((owner, "OTHER1"), (anna, "N4N7"))
    ]
    for minutes, line in ((-5, lines[0]), (30, lines[0]), (40, "\n".join(lines))):
        at = NOW + timedelta(minutes=minutes)
        s3.put_object(Bucket="access", Key=f"data/{at:%Y-%m-%d-%H-%M-%S}-EXAMPLE", Body=line.encode())
    file = {step["step"]: step for step in traced(SHA, "--who")["steps"]}["file"]
    assert file["facts"]["principal"] == anna
    assert file["what"].endswith(f"sent by {anna}")
    assert "s3://access/data/" in file["known_from"]
    assert "principal" not in {step["step"]: step for step in traced(SHA)["steps"]}["file"]["facts"]


def test_the_same_bytes_under_another_name_are_known_by_their_hash(world: World) -> None:
    body, copy = b"february", f"{MODEL}/incoming/copy.csv"
    boto3.client("s3").put_object(Bucket="data", Key=copy, Body=body)
    sha256 = hashlib.sha256(body).hexdigest()
    world.tell(20, Kind.DATASET_ACCEPTED, sha256, key=f"{MODEL}/incoming/february.csv", version="v", **MONTH)
    steps = traced(f"s3://data/{copy}")["steps"]
    assert steps[0]["facts"]["sha256"] == sha256
    assert not steps[1]["known"]
