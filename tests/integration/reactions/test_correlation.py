"""One id goes from an upload to its page: in events, ledger entries and log lines, where AWS tells none too."""

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lambdas.confirm_deployment.handler import handler as confirm_deployment
from lambdas.deploy_model.handler import handler as deploy_model
from lambdas.record_training.handler import handler as record_training
from lambdas.request_retraining.handler import handler as request_retraining
from lambdas.start_training.handler import handler as start_training
from lambdas.validate_upload.handler import handler as validate_upload
from noria.aws.telemetry import logger
from noria.ledger import Kind, verify
from tests.integration.reactions.place import Place
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
    pages = place.pages(spec.model)
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
