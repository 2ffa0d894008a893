"""Files under batch/ are answered by what is live, or refused with the reason; once, whatever is told twice."""

import csv
import io
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from lambdas.predict_batch.handler import handler as predict_batch
from local.cloud import ACCOUNT
from noria.cli.commands import app
from noria.ledger import Kind
from noria.spec import ModelSpec
from tests.integration.reactions.place import BUCKET, IMAGE, Place
from tests.integration.test_local_endpoints import archive

pytestmark = pytest.mark.usefixtures("everything")

ROLE = f"arn:aws:iam::{ACCOUNT}:role/everything"
SIGNATURE = {
    "features": [
        {"name": "hour", "type": "integer", "nullable": False},
        {"name": "temp", "type": "number", "nullable": True},
    ]
}
SCRIPT = """
import json

def model_fn(model_dir):
    return None

def transform_fn(model, content, content_type, accept):
    text = content.decode() if isinstance(content, bytes) else content
    rows = [line for line in text.splitlines() if line]
    if "13" in text:
        return refuse
    if content_type == "text/csv":
        return "\\n".join(f"{int(row.split(',')[0]) % 2},0.5" for row in rows), "text/csv"
    answers = [{"prediction": json.loads(row)["hour"] % 2, "score": 0.5} for row in rows]
    return "\\n".join(map(json.dumps, answers)), "application/jsonlines"

def refuse(environ, start_response):
    start_response("400 Bad Request", [("Content-Type", "text/plain")])
    return [b"row 0: 13 brings bad luck"]
"""


def package(place: Place, spec: ModelSpec, **files: str) -> str:
    """An approved package of a model that answers odd hours with 1."""
    sagemaker, name = place.sagemaker, place.names.model(spec.model)
    key = f"{spec.model}/runs/1/model.tar.gz"
    place.put(key, archive({"code/inference.py": SCRIPT, "signature.json": json.dumps(SIGNATURE), **files}))
    sagemaker.create_model_package_group(ModelPackageGroupName=name)
    container = {
        "Image": IMAGE,
        "ModelDataUrl": f"s3://{BUCKET}/{key}",
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    arn: str = sagemaker.create_model_package(
        ModelPackageGroupName=name,
        ModelApprovalStatus="Approved",
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )["ModelPackageArn"]
    return arn


def serve_batches(place: Place, spec: ModelSpec) -> str:
    """The serving stack of a model without an endpoint, cut down to its model; returns the package."""
    arn = package(place, spec)
    model = {
        "Type": "AWS::SageMaker::Model",
        "Properties": {"ExecutionRoleArn": ROLE, "PrimaryContainer": {"ModelPackageName": arn}},
    }
    name, cloudformation = place.names.stack(spec.model, "serving"), boto3.client("cloudformation")
    output = {"ChampionModelName": {"Value": {"Fn::GetAtt": ["Model", "ModelName"]}}}
    cloudformation.create_stack(
        StackName=name, TemplateBody=json.dumps({"Resources": {"Model": model}, "Outputs": output})
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    return arn


@pytest.fixture
def spec(place: Place) -> ModelSpec:
    """A model that is live for batches."""
    spec = place.model(serve={"mode": "batch"})
    serve_batches(place, spec)
    return spec


def upload(place: Place, spec: ModelSpec, name: str, body: str) -> dict[str, Any]:
    """Put a file under batch/; returns the event of it."""
    key = f"{spec.model}/batch/{name}"
    return place.uploaded(key, place.put(key, body), len(body))


def ended(place: Place, job: str) -> dict[str, Any]:
    """The event that SageMaker sends once a job has ended."""
    deadline = time.monotonic() + 60
    while (found := place.sagemaker.describe_transform_job(TransformJobName=job))["TransformJobStatus"] == "InProgress":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    members = ("TransformJobName", "TransformJobStatus", "FailureReason", "TransformInput")
    detail = {member: found[member] for member in members if member in found}
    return place.event("aws.sagemaker", "SageMaker Transform Job State Change", detail)


def answer(place: Place, spec: ModelSpec, name: str, body: str) -> None:
    """Upload a file, and go on until its job has ended."""
    place.deliver(predict_batch, upload(place, spec, name, body))
    started = place.entries(spec.model, Kind.BATCH_STARTED)[-1]
    place.deliver(predict_batch, ended(place, str(started.details["job"])))


def test_rows_come_back_with_their_ids_and_answers(place: Place, spec: ModelSpec) -> None:
    answer(place, spec, "week.csv", "temp,id,hour\n1.5,a,7\n,b,8\n2,c,9\n")
    result = place.read(f"{spec.model}/batch/week.csv.out").decode()
    assert list(csv.DictReader(io.StringIO(result))) == [
        {"id": "a", "hour": "7", "temp": "1.5", "prediction": "1", "score": "0.5"},
        {"id": "b", "hour": "8", "temp": "", "prediction": "0", "score": "0.5"},
        {"id": "c", "hour": "9", "temp": "2", "prediction": "1", "score": "0.5"},
    ]
    assert place.kinds(spec.model) == [Kind.BATCH_STARTED, Kind.BATCH_PREDICTED]
    started, predicted = place.entries(spec.model)
    assert started.details["rows"] == 3
    assert predicted.details["result"] == f"s3://{BUCKET}/{spec.model}/batch/week.csv.out"
    assert not place.told(spec.model)


def test_json_lines_come_back_as_json_lines(place: Place, spec: ModelSpec) -> None:
    answer(place, spec, "more/week.jsonl", '{"id": 1, "hour": 7, "temp": null}\n{"hour": 8, "temp": 1, "id": 2}\n')
    lines = place.read(f"{spec.model}/batch/more/week.jsonl.out").decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": 1, "hour": 7, "temp": None, "prediction": 1, "score": 0.5},
        {"hour": 8, "temp": 1, "id": 2, "prediction": 0, "score": 0.5},
    ]


def test_a_person_asks_by_command(place: Place, spec: ModelSpec, tmp_path: Path) -> None:
    for name, value in {"data-bucket": BUCKET, "ledger-table": "ledger"}.items():
        boto3.client("ssm").put_parameter(Name=f"/noria/local/{name}", Value=value, Type="String", Overwrite=True)
    file = tmp_path / "asked.csv"
    file.write_text("hour,temp\n7,1\n")
    said = CliRunner().invoke(app, ["predict", spec.model, str(file), "--env", "local", "--json"])
    told = json.loads(said.stdout)
    assert told["uri"] == f"s3://{BUCKET}/{spec.model}/batch/asked.csv"
    key = f"{spec.model}/batch/asked.csv"
    version = place.s3.head_object(Bucket=BUCKET, Key=key)["VersionId"]
    place.deliver(predict_batch, place.uploaded(key, version))
    (started,) = place.entries(spec.model)
    place.deliver(predict_batch, ended(place, str(started.details["job"])))
    (predicted,) = place.entries(spec.model, Kind.BATCH_PREDICTED)
    assert predicted.details["result"] == told["result"]
    (tmp_path / "asked.parquet").touch()
    refused = CliRunner().invoke(app, ["predict", spec.model, str(tmp_path / "asked.parquet"), "--env", "local"])
    assert "neither .csv nor .jsonl" in str(refused.exception)


def test_a_model_with_an_endpoint_answers_batches_too(place: Place) -> None:
    spec = place.model()
    arn, name, sagemaker = package(place, spec), place.names.model(spec.model), place.sagemaker
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"ModelPackageName": arn})
    variant = {
        "VariantName": "champion",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
    answer(place, spec, "week.csv", "hour,temp\n7,1\n")
    assert place.read(f"{spec.model}/batch/week.csv.out") == b"hour,temp,prediction,score\n7,1,1,0.5\n"
    (started,) = place.entries(spec.model, Kind.BATCH_STARTED)
    assert started.details["package"] == arn


def test_told_twice_it_happens_once(place: Place, spec: ModelSpec) -> None:
    happened = upload(place, spec, "week.csv", "hour,temp\n7,1\n")
    for _ in range(2):
        place.deliver(predict_batch, happened)
    (started,) = place.entries(spec.model)
    end = ended(place, str(started.details["job"]))
    for _ in range(2):
        place.deliver(predict_batch, end)
    assert place.kinds(spec.model) == [Kind.BATCH_STARTED, Kind.BATCH_PREDICTED]
    jobs = place.sagemaker.list_transform_jobs(NameContains=place.names.model(spec.model))["TransformJobSummaries"]
    assert len([job for job in jobs if job["TransformJobName"] == started.details["job"]]) == 1


@pytest.mark.parametrize("crash", ["write", "record"])
def test_a_delivery_after_a_crash_finishes_what_was_begun(
    place: Place, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    happened = upload(place, spec, "week.csv", "hour,temp\n7,1\n")

    def fail(*args: object, **members: object) -> None:
        raise OSError("the machine went away")

    owner = {"write": "noria.aws.storage.Storage", "record": "noria.aws.ledger.Ledger"}[crash]
    with monkeypatch.context() as broken:
        broken.setattr(f"{owner}.{crash}", fail)
        with pytest.raises(OSError, match="went away"):
            place.deliver(predict_batch, happened)
    assert not place.entries(spec.model)
    place.deliver(predict_batch, happened)
    (started,) = place.entries(spec.model)
    place.deliver(predict_batch, ended(place, str(started.details["job"])))
    assert place.kinds(spec.model) == [Kind.BATCH_STARTED, Kind.BATCH_PREDICTED]


def test_the_same_name_again_is_a_batch_of_its_own_and_has_the_result(place: Place, spec: ModelSpec) -> None:
    place.deliver(predict_batch, upload(place, spec, "week.csv", "hour,temp\n7,1\n"))
    place.deliver(predict_batch, upload(place, spec, "week.csv", "hour,temp\n8,1\n"))
    first, second = (str(entry.details["job"]) for entry in place.entries(spec.model))
    place.deliver(predict_batch, ended(place, second))
    place.deliver(predict_batch, ended(place, first))
    assert place.read(f"{spec.model}/batch/week.csv.out").decode().splitlines()[1:] == ["8,1,0,0.5"]
    later, earlier = place.entries(spec.model, Kind.BATCH_PREDICTED)
    assert later.details["result"] == f"s3://{BUCKET}/{spec.model}/batch/week.csv.out"
    assert "a later upload has its name" in earlier.summary


def refused(place: Place, model: str) -> tuple[dict[str, Any], str]:
    """The report and the page of the only refusal."""
    (entry,) = place.entries(model)
    assert entry.kind is Kind.BATCH_REFUSED
    (page,) = place.notices(model)
    report = str(entry.details["report"])
    assert report in page
    return json.loads(place.read(report.removeprefix(f"s3://{BUCKET}/"))), page


def test_a_file_with_rows_that_the_model_would_refuse_is_refused_with_their_places(
    place: Place, spec: ModelSpec
) -> None:
    happened = upload(place, spec, "week.csv", "hour,temp\n7,1\nlate,1\n9,x\n")
    for _ in range(2):
        place.deliver(predict_batch, happened)
    report, page = refused(place, spec.model)
    told = {violation["column"]: violation["rows"] for violation in report["violations"]}
    assert told == {"hour": [2], "temp": [3]}
    assert "week.csv cannot be answered (2 problems)" in page
    assert "column 'hour': 1 row: it must be a whole number" in page
    assert place.read(f"{spec.model}/batch/week.csv").startswith(b"hour")
    assert f"{spec.model}/batch/week.csv.out" not in place.keys(f"{spec.model}/batch/")


def test_what_is_no_file_of_rows_is_refused_and_not_left_lying(place: Place, spec: ModelSpec) -> None:
    place.deliver(predict_batch, upload(place, spec, "week.parquet", "PAR1"))
    _, page = refused(place, spec.model)
    assert "'week.parquet' is neither .csv nor .jsonl" in page


def test_the_case_of_a_name_does_not_matter(place: Place, spec: ModelSpec) -> None:
    answer(place, spec, "WEEK.CSV", "hour,temp\n7,1\n")
    assert place.read(f"{spec.model}/batch/WEEK.CSV.out").decode().startswith("hour,temp,prediction")


@pytest.mark.parametrize("name", ["week.csv.out", "folder/", ""])
def test_results_and_folders_are_no_uploads(place: Place, spec: ModelSpec, name: str) -> None:
    place.deliver(predict_batch, upload(place, spec, name, ""))
    assert place.entries(spec.model) == []


def test_where_nothing_is_live_nothing_is_answered(place: Place) -> None:
    spec = place.model()
    place.deliver(predict_batch, upload(place, spec, "week.csv", "hour,temp\n7,1\n"))
    _, page = refused(place, spec.model)
    assert "nothing is live" in page


def test_what_comes_outside_of_a_models_hours_is_refused_until_they_begin(place: Place) -> None:
    zone = f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"  # where it is noon
    hours = {"days": "MON-SUN", "from": "18:00", "to": "24:00", "timezone": zone}
    spec = place.model(serve={"mode": "realtime", "hours": hours})
    place.deliver(predict_batch, upload(place, spec, "week.csv", "hour,temp\n7,1\n"))
    _, page = refused(place, spec.model)
    assert re.search(rf"nothing is live of {spec.model} before \w+ \d+ \w+ 18:00 {re.escape(zone)}: upload", page)


def test_a_model_that_nobody_described_is_named(place: Place) -> None:
    key = "no-such-model/batch/week.csv"
    place.deliver(predict_batch, place.uploaded(key, place.put(key, "hour,temp\n7,1\n")))
    _, page = refused(place, "no-such-model")
    assert "no model is called 'no-such-model'" in page


def test_a_job_that_fails_pages_once_with_its_log(place: Place, spec: ModelSpec) -> None:
    place.deliver(predict_batch, upload(place, spec, "week.csv", "hour,temp\n13,1\n"))
    (started,) = place.entries(spec.model)
    end = ended(place, str(started.details["job"]))
    for _ in range(2):
        place.deliver(predict_batch, end)
    assert place.kinds(spec.model) == [Kind.BATCH_STARTED, Kind.BATCH_FAILED]
    (page,) = place.pages(spec.model)
    assert "week.csv was not answered" in page
    assert f"--log-stream-name-prefix {started.details['job']}" in page


def test_a_job_that_sagemaker_does_not_take_is_a_failure(place: Place) -> None:
    spec = place.model(serve={"mode": "batch", "instance": "ml.t2.medium"})
    serve_batches(place, spec)
    happened = upload(place, spec, "week.csv", "hour,temp\n7,1\n")
    for _ in range(2):
        place.deliver(predict_batch, happened)
    (failed,) = place.entries(spec.model)
    assert failed.kind is Kind.BATCH_FAILED
    assert "ml.t2.medium" in failed.summary


def test_a_job_that_somebody_runs_themselves_is_left_alone(place: Place, spec: ModelSpec) -> None:
    for uri in ("s3://elsewhere/rows.csv", f"s3://{BUCKET}/{spec.model}/runs/rows.csv"):
        data = {"DataSource": {"S3DataSource": {"S3Uri": uri}}}
        detail = {"TransformJobName": "noria-local-own", "TransformJobStatus": "Failed", "TransformInput": data}
        place.deliver(predict_batch, place.event("aws.sagemaker", "SageMaker Transform Job State Change", detail))
    assert not place.entries(spec.model)


@pytest.mark.parametrize("key", ["{model}/incoming/batch/week.csv", "{model}/runs/batch/week.csv"])
def test_other_areas_are_left_alone(place: Place, spec: ModelSpec, key: str) -> None:
    name = key.format(model=spec.model)
    place.deliver(predict_batch, place.uploaded(name, place.put(name, "hour,temp\n7,1\n")))
    assert not place.entries(spec.model)
