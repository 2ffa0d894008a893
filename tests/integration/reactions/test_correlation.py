"""One id goes from an upload to its page: in events, ledger entries and log lines, where AWS tells none too."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from lambdas.confirm_deployment.handler import handler as confirm_deployment
from lambdas.deploy_model.handler import handler as deploy_model
from lambdas.record_training.handler import handler as record_training
from lambdas.request_retraining.handler import handler as request_retraining
from lambdas.start_training.handler import handler as start_training
from lambdas.validate_upload.handler import handler as validate_upload
from noria.aws.telemetry import logger
from noria.cli.commands import app
from noria.ledger import Kind, verify
from noria.spec import ModelSpec
from tests.integration.reactions.place import BUCKET, Place, ship
from tests.integration.reactions.served import SCRIPT, Served
from tests.integration.reactions.test_training import ended, evaluation, executions, pipeline
from tests.integration.reactions.test_uploads import table
from tests.integration.test_local_endpoints import archive


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the handlers log."""
    logger.registered_handler.setStream(written := io.StringIO())  # type: ignore[attr-defined]
    yield written
    logger.registered_handler.setStream(sys.stdout)  # type: ignore[attr-defined]


def test_one_id_from_upload_to_page(place: Place, everything: None, lines: io.StringIO) -> None:
    spec = place.model()
    served = Served(place, spec.model).create()
    pipeline(place, spec, group=False)
    served.approve(served.register())
    served.confirm()
    before = len(place.entries(spec.model))
    place.put(f"{spec.model}/runs/one/evaluation.json", evaluation(passed=True))
    place.put(f"{spec.model}/runs/one/model.tar.gz", archive({"version": "2", "code/inference.py": SCRIPT}))

    def told(detail_type: str) -> dict[str, Any]:
        """Noria's newest event, as the bus gives it."""
        place.events(spec.model, detail_type)
        return next(event for event in reversed(place.heard) if event["detail-type"] == detail_type)

    key, body = f"{spec.model}/incoming/january.csv", table(spec)
    place.deliver(validate_upload, place.uploaded(key, place.put(key, body), len(body)) | {"id": "the-upload"})
    place.deliver(request_retraining, told("Dataset Accepted"))
    place.deliver(start_training, told("Retraining Requested"))
    execution = executions(place, spec)[0]["PipelineExecutionArn"]
    place.deliver(record_training, ended(place, execution) | {"id": "the-execution"})
    package = place.events(spec.model, "Training Ended")[-1]["package"]
    served.alarm("ALARM")
    place.deliver(deploy_model, served.decide(package, "Approved") | {"id": "the-approval"})
    place.deliver(confirm_deployment, served.settled() | {"id": "the-stack"})

    entries = place.entries(spec.model)
    assert [entry.kind for entry in entries[before:]] == [
        Kind.DATASET_ACCEPTED,
        Kind.RETRAINING_REQUESTED,
        Kind.TRAINING_STARTED,
        Kind.TRAINING_SUCCEEDED,
        Kind.PACKAGE_APPROVED,
        Kind.DEPLOYMENT_REQUESTED,
        Kind.ROLLED_BACK,
    ]
    assert {entry.correlation for entry in entries[before:]} == {"the-upload"}
    assert verify(entries) == []
    pages = place.told(spec.model)
    assert ["rolled back" in page for page in pages] == [False, True]
    assert all("noria logs the-upload" in page for page in pages)
    assert told("Model Rolled Back")["detail"]["correlation"] == "the-upload"

    logged = [json.loads(line) for line in lines.getvalue().splitlines() if "_aws" not in line]
    last = {line["event_id"]: line["correlation_id"] for line in logged if line["event_id"].startswith("the-")}
    assert last == dict.fromkeys(["the-upload", "the-execution", "the-approval", "the-stack"], "the-upload")


def test_a_failure_says_what_it_was_about(place: Place, lines: io.StringIO) -> None:
    with pytest.raises(LookupError, match="none of noria-local's"):
        place.deliver(
            record_training,
            place.event(
                "aws.sagemaker",
                "SageMaker Model Building Pipeline Execution Status Change",
                {
                    "pipelineArn": "arn:aws:sagemaker:eu-west-1:1:pipeline/another",
                    "pipelineExecutionArn": "arn:aws:sagemaker:eu-west-1:1:pipeline/another/execution/1",
                    "currentPipelineExecutionStatus": "Failed",
                },
            ),
        )
    heard, failed = [json.loads(line) for line in lines.getvalue().splitlines() if "_aws" not in line]
    assert (heard["message"], failed["message"]) == ("Heard", "Failed")
    assert heard["correlation_id"] == failed["correlation_id"] == failed["event_id"]
    assert failed["exception_name"] == "LookupError"


@pytest.fixture
def noria(place: Place) -> Callable[..., Any]:
    """The command, where the ledger is found; asked about what the functions logged to CloudWatch."""
    for name, value in {"data-bucket": BUCKET, "ledger-table": "ledger"}.items():
        boto3.client("ssm").put_parameter(Name=f"/noria/local/{name}", Value=value, Type="String", Overwrite=True)

    def run(*arguments: str) -> Any:
        answer = CliRunner().invoke(app, [*arguments, "--env", "local", "--json"])
        return json.loads(answer.stdout) if answer.exit_code == 0 else str(answer.exception)

    return run


def test_all_that_belongs_together_is_told_in_order(
    place: Place, noria: Callable[..., Any], lines: io.StringIO
) -> None:
    spec = place.model()
    pipeline(place, spec)
    key, body = f"{spec.model}/incoming/january-of-logs.csv", table(spec)
    upload = place.uploaded(key, place.put(key, body), len(body)) | {"id": "upload-of-logs"}
    place.deliver(validate_upload, upload)
    place.events(spec.model, "Dataset Accepted")
    heard = place.heard[-1] | {"id": "second-event"}
    place.deliver(request_retraining, heard)
    ship(f"START RequestId: 1\n{lines.getvalue()}END RequestId: 1", "/aws/lambda/noria-local-validate-upload")

    told = noria("logs", "upload-of-logs")
    assert [(line["kind"], line["level"]) for line in told if line["kind"] == "ledger"] == [
        ("ledger", "dataset_accepted"),
        ("ledger", "retraining_requested"),
    ]
    logged = [line for line in told if line["kind"] == "log"]
    assert [line["message"].split()[0] for line in logged] == [
        "Heard",
        "DatasetAccepted",
        "Heard",
        "RetrainingRequested",
    ]
    assert {line["where"] for line in logged} == {"validate-upload"}
    assert [line["at"] for line in told] == sorted(line["at"] for line in told)
    assert noria("logs", "second-event") == told, "an event is found by any line that names it"
    for name in (key, "january-of-logs.csv", f"s3://{BUCKET}/{key}"):
        assert noria("logs", name) == told
    assert "names never-was" in noria("logs", "never-was")
    assert "no id" in noria("logs", "two words")


def test_a_files_name_is_its_newest_upload_or_of_several_keys_none(place: Place, noria: Callable[..., Any]) -> None:
    def upload(model: ModelSpec, id_: str, body: bytes) -> str:
        key = f"{model.model}/incoming/same.csv"
        place.deliver(validate_upload, place.uploaded(key, place.put(key, body), len(body)) | {"id": id_})
        return key

    spec, other = place.model(), place.model()
    for each in (spec, other):
        pipeline(place, each)
    upload(spec, "broken-upload", b"no,table\n1,2\n")
    mine = upload(spec, "good-upload", table(spec))
    assert [line["level"] for line in noria("logs", "same.csv")] == ["dataset_accepted"]
    assert noria("logs", "same.csv") == noria("logs", mine) == noria("logs", "good-upload")
    theirs = upload(other, "another-upload", table(other))
    both = ", ".join(sorted([mine, theirs]))
    assert noria("logs", "same.csv") == f"same.csv was uploaded as {both}: ask for one of these."
    assert noria("logs", theirs) == noria("logs", "another-upload")


def test_an_invocation_that_was_killed_is_told_by_what_lambda_says_of_it(
    place: Place, noria: Callable[..., Any]
) -> None:
    heard = {"level": "INFO", "message": "Heard", "correlation_id": "killed-one", "event_id": "killed-one"}
    heard |= {"function_request_id": "request-7", "timestamp": "2026-11-21 10:00:00,123+0000"}
    killed = "2026-11-21T10:01:00.123Z request-7 Task timed out after 60.00 seconds"
    other = "2026-11-21T10:01:00.123Z request-8 Task timed out after 60.00 seconds"
    ship("\n".join([json.dumps(heard), killed, other]), "/aws/lambda/noria-local-monitor-model")
    told = noria("logs", "killed-one")
    assert [(line["level"], line["message"]) for line in told] == [("INFO", "Heard"), ("ERROR", killed)]
