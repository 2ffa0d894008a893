"""Causes start trainings, once each; what came of them is recorded and told."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from lambdas.record_training.handler import handler as record_training
from lambdas.start_training.handler import handler as start_training
from local.cloud import ACCOUNT, REGION
from noria.ledger import Fact, Kind
from noria.policy import Cause
from noria.retraining import announced
from noria.spec import ModelSpec
from noria.training import TrainingRequest
from tests.integration.reactions.place import BUCKET, IMAGE, Place

REASONS = ["auc 0.51 is below 0.55", "auc 0.51 does not beat the champion's 0.60"]


def evaluation(*, passed: bool) -> str:
    auc = {"value": 0.61, "low": 0.59, "high": 0.63}
    rows = {"rows": 100, "first_event": "2013-01-25T00:00:00Z", "last_event": "2013-01-31T00:00:00Z"}
    reasons = [] if passed else REASONS
    gate = {"passed": passed, "reasons": reasons, "reason": "; ".join(reasons)}
    return json.dumps(
        {
            "model": "m",
            "slice": rows,
            "trained_on": rows,
            "metrics": {"auc": auc},
            "latency_p95_ms": 3.0,
            "gate": gate,
        }
    )


def pipeline(place: Place, spec: ModelSpec, *, group: bool = True) -> str:
    """A pipeline that registers a package when its cause is an upload, and refuses otherwise."""
    name = place.names.model(spec.model)
    boto3.client("iam").create_role(
        RoleName=f"{spec.model}-pipeline",
        AssumeRolePolicyDocument=policy({"Principal": {"Service": "sagemaker.amazonaws.com"}}, "sts:AssumeRole"),
    )
    boto3.client("iam").put_role_policy(
        RoleName=f"{spec.model}-pipeline", PolicyName="all", PolicyDocument=policy({"Resource": "*"}, "sagemaker:*")
    )
    if group:
        place.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    container = {
        "Image": IMAGE,
        "ModelDataUrl": f"s3://{BUCKET}/{spec.model}/runs/one/model.tar.gz",
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    register = {
        "Name": "Register",
        "Type": "RegisterModel",
        "Arguments": {
            "ModelPackageGroupName": name,
            "ModelApprovalStatus": "PendingManualApproval",
            "CustomerMetadataProperties": {
                "noria:evaluation": f"s3://{BUCKET}/{spec.model}/runs/one/evaluation.json",
                "noria:execution": {"Get": "Execution.PipelineExecutionArn"},
            },
            "InferenceSpecification": {
                "Containers": [container],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        },
    }
    refuse = {"Name": "Refuse", "Type": "Fail", "Arguments": {"ErrorMessage": "; ".join(REASONS)}}
    condition = {"Type": "Equals", "LeftValue": {"Get": "Parameters.Cause"}, "RightValue": "drift alarm"}
    gate = {"Conditions": [condition], "IfSteps": [refuse], "ElseSteps": [register]}
    definition = {
        "Version": "2020-12-01",
        "Parameters": [
            {"Name": "TrainingToken", "Type": "String"},
            {"Name": "DatasetHash", "Type": "String"},
            {"Name": "ChampionPackage", "Type": "String", "DefaultValue": "none"},
            {"Name": "Cause", "Type": "String", "DefaultValue": "by hand"},
        ],
        "Steps": [{"Name": "Gate", "Type": "Condition", "Arguments": gate}],
    }
    place.sagemaker.create_pipeline(
        PipelineName=name,
        PipelineDefinition=json.dumps(definition),
        ClientRequestToken="0" * 32,
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{spec.model}-pipeline",
    )
    return name


def policy(who: dict[str, Any], action: str) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, **who}]})


def dataset(place: Place, spec: ModelSpec, number: int) -> str:
    sha = f"{number:064x}"
    manifest = {
        "model": spec.model,
        "sha256": sha,
        "filename": f"{number}.csv",
        "key": f"{spec.model}/datasets/{sha}/data.csv",
        "rows": 10 * number,
        "first_event": f"2013-{number:02}-01T00:00:00",
        "last_event": f"2013-{number:02}-28T00:00:00",
    }
    place.put(f"{spec.model}/datasets/{sha}/manifest.json", json.dumps(manifest))
    return sha


def granted(place: Place, spec: ModelSpec, cause: Cause = "first", request: str = "one") -> dict[str, Any]:
    """The event of a grant that the ledger knows."""
    fact = Fact(
        model=spec.model,
        kind=Kind.RETRAINING_REQUESTED,
        subject=request,
        at=datetime.now(UTC),
        summary="A training is granted.",
        details={"cause": cause, "reasons": ["a test"], "again_at": None},
    )
    place.ledger.record(fact)
    return place.event("noria", "Retraining Requested", announced(fact).model_dump(mode="json"))


def executions(place: Place, spec: ModelSpec) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = place.sagemaker.list_pipeline_executions(PipelineName=place.names.model(spec.model))[
        "PipelineExecutionSummaries"
    ]
    return listed


def ended(place: Place, arn: str) -> dict[str, Any]:
    """The event that SageMaker sends when this execution has ended, once it has."""
    deadline = time.monotonic() + 30
    while (
        status := place.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]
    ) in (
        "Executing",
        "Starting",
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return place.event(
        "aws.sagemaker",
        "SageMaker Model Building Pipeline Execution Status Change",
        {
            "pipelineArn": arn.partition("/execution/")[0],
            "pipelineExecutionArn": arn,
            "currentPipelineExecutionStatus": status,
        },
    )


def ledger_keys(spec: ModelSpec) -> list[str]:
    """Sort keys of everything that the ledger holds of a model."""
    found = boto3.client("dynamodb").query(
        TableName="ledger",
        KeyConditionExpression="model = :model",
        ExpressionAttributeValues={":model": {"S": spec.model}},
    )
    return [item["sk"]["S"] for item in found["Items"]]


@pytest.fixture
def spec(place: Place) -> ModelSpec:
    spec = place.model()
    pipeline(place, spec)
    place.put(f"{spec.model}/runs/one/evaluation.json", evaluation(passed=True))
    return spec


def test_a_grant_trains_and_its_event_twice_is_one_training(place: Place, spec: ModelSpec) -> None:
    sha = dataset(place, spec, 1)
    for _ in range(2):
        place.deliver(start_training, granted(place, spec))
    (execution,) = executions(place, spec)
    (started,) = place.entries(spec.model, Kind.TRAINING_STARTED)
    assert started.details["cause"] == "first"
    assert started.details["execution"] == execution["PipelineExecutionArn"]
    assert started.details["datasets"] == [sha]

    folder = f"{spec.model}/trainings/{started.subject}"
    request = TrainingRequest.model_validate_json(place.read(f"{folder}/request.json"))
    head, *keys = json.loads(place.read(f"{folder}/datasets.manifest"))
    assert head == {"prefix": f"s3://{BUCKET}/{spec.model}/"}
    assert keys == [f"trainings/{started.subject}/request.json", f"datasets/{sha}/data.csv"]
    parameters = place.sagemaker.list_pipeline_parameters_for_execution(
        PipelineExecutionArn=execution["PipelineExecutionArn"]
    )["PipelineParameters"]
    assert {p["Name"]: p["Value"] for p in parameters} == request.parameters()


def test_a_delivery_after_a_crash_trains_on_the_set_that_was_written_down(place: Place, spec: ModelSpec) -> None:
    dataset(place, spec, 1)
    place.deliver(start_training, granted(place, spec))
    (started,) = place.entries(spec.model, Kind.TRAINING_STARTED)
    # The crash: the execution was started, the ledger does not know.
    keys = [key for key in ledger_keys(spec) if not key.startswith("claim#")]
    for item in keys:
        boto3.client("dynamodb").delete_item(TableName="ledger", Key={"model": {"S": spec.model}, "sk": {"S": item}})
    dataset(place, spec, 2)
    place.deliver(start_training, granted(place, spec))
    (healed,) = place.entries(spec.model, Kind.TRAINING_STARTED)
    assert healed.details == started.details
    assert len(executions(place, spec)) == 1


def test_a_training_is_on_every_dataset_there_is(place: Place, spec: ModelSpec) -> None:
    first, second = dataset(place, spec, 1), dataset(place, spec, 2)
    place.deliver(start_training, granted(place, spec, "drift"))
    assert place.entries(spec.model)[-1].details["datasets"] == [first, second]


def test_nothing_trains_that_was_not_granted(place: Place, spec: ModelSpec) -> None:
    dataset(place, spec, 1)
    event = granted(place, spec)
    event["detail"]["request"] = "somebody's own"
    with pytest.raises(LookupError, match='the ledger has no grant "somebody\'s own"; ask with noria retrain'):
        place.deliver(start_training, event)
    assert executions(place, spec) == []


def test_a_grant_without_data_is_an_error(place: Place, spec: ModelSpec) -> None:
    with pytest.raises(LookupError, match="no dataset lies under"):
        place.deliver(start_training, granted(place, spec))


def test_a_success_awaits_approval_and_says_how_good_it_is(place: Place, spec: ModelSpec) -> None:
    dataset(place, spec, 1)
    place.deliver(start_training, granted(place, spec))
    arn = executions(place, spec)[0]["PipelineExecutionArn"]
    for _ in range(2):
        place.deliver(record_training, ended(place, arn))
    (entry,) = place.entries(spec.model, Kind.TRAINING_SUCCEEDED)
    assert entry.subject == arn
    assert str(entry.details["package"]).endswith(f"model-package/{place.names.model(spec.model)}/1")
    assert "auc 0.610 (0.590 to 0.630); there is no champion" in entry.summary
    assert entry.details["hours"] == 0, "its steps ran no job"
    told = place.events(spec.model, "Training Ended")
    assert (
        told
        == [{"model": spec.model, "execution": arn, "outcome": "succeeded", "package": entry.details["package"]}] * 2
    )
    (page,) = place.notices(spec.model)
    assert "awaits approval" in page
    assert f"noria approve {entry.details['package']}" in page


def test_a_refused_candidate_is_told_with_every_reason(place: Place, spec: ModelSpec) -> None:
    dataset(place, spec, 1)
    place.deliver(start_training, granted(place, spec, "drift"))
    arn = executions(place, spec)[0]["PipelineExecutionArn"]
    place.put(f"{spec.model}/runs/{arn.rsplit('/', 1)[-1]}/evaluation/evaluation.json", evaluation(passed=False))
    place.deliver(record_training, ended(place, arn))
    (entry,) = place.entries(spec.model, Kind.TRAINING_FAILED)
    assert entry.details["refused"] is True
    assert entry.details["reasons"] == REASONS
    assert [told["outcome"] for told in place.events(spec.model, "Training Ended")] == ["refused"]
    (page,) = place.notices(spec.model)
    assert "candidate refused" in page
    assert all(reason in page for reason in REASONS)


def test_another_failure_names_its_step(place: Place, spec: ModelSpec) -> None:
    dataset(place, spec, 1)
    place.deliver(start_training, granted(place, spec, "drift"))
    arn = executions(place, spec)[0]["PipelineExecutionArn"]
    place.deliver(record_training, ended(place, arn))  # no evaluation was written
    (entry,) = place.entries(spec.model, Kind.TRAINING_FAILED)
    assert "step Refuse" in entry.summary
    assert REGION in str(entry.subject)
    (page,) = place.notices(spec.model)
    assert f"noria retrain {spec.model} --reason" in page
    assert "retry" not in page, "what has an outcome is over, for the ledger too"
    assert [told["outcome"] for told in place.events(spec.model, "Training Ended")] == ["refused"]
