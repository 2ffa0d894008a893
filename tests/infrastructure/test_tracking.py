"""The optional tracking of trainings: what it may do where a server is named, and that without one nothing changes."""

from pathlib import Path

import aws_cdk
import pytest

from app import build
from tests.infrastructure.assembly import ACCOUNT, CONTEXT, REGION, Assembly, Template
from tests.infrastructure.patterns import matches
from tests.infrastructure.test_events import event
from tests.infrastructure.test_reactions import OF_EVERY_FUNCTION, actions, calls

SERVER = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:mlflow-tracking-server/team"
NAME = "noria-dev-track-training"


@pytest.fixture(scope="module")
def tracked(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Template:
    out = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDK_DEFAULT_ACCOUNT", ACCOUNT)
        patch.setenv("CDK_DEFAULT_REGION", REGION)
        app = aws_cdk.App(context=CONTEXT | {"tracking": SERVER}, outdir=str(out))
        build(app, env="dev", models=models)
        app.synth()
    return Assembly(out)["noria-dev-reactions"]


def test_without_a_server_nothing_tracks(prod: Assembly) -> None:
    assert not [f for f in prod.all("AWS::Lambda::Function") if "track" in str(f.properties["FunctionName"])]
    assert not [r for r in prod.all("AWS::Lambda::LayerVersion") if "tracking" in str(r.properties["LayerName"])]


def test_what_tracking_may_do_is_what_it_calls_and_of_mlflow_that_server_alone(tracked: Template) -> None:
    function = tracked.one("AWS::Lambda::Function", FunctionName=NAME)
    allowed = tracked.allowed(tracked.target(function.properties["Role"]))
    assert actions(allowed) - OF_EVERY_FUNCTION == calls("track_training") - OF_EVERY_FUNCTION
    of_mlflow = [s for s in allowed if any(a.startswith("sagemaker-mlflow:") for a in s["Action"])]
    assert [s["Resource"] for s in of_mlflow] == [[SERVER]]
    variables = function.properties["Environment"]["Variables"]
    assert variables["NORIA_TRACKING_URI"] == SERVER
    assert len(function.properties["Layers"]) == 4


def test_each_end_of_a_training_is_tracked_retried_and_paged_of(tracked: Template) -> None:
    (rule,) = (r for r in tracked.of("AWS::Events::Rule") if str(r.properties["Name"]).startswith(NAME))
    assert matches(rule.properties["EventPattern"], event("noria-training-ended", env="dev"))
    queue = tracked.one("AWS::SQS::Queue", QueueName=NAME)
    assert queue.properties["RedrivePolicy"]["maxReceiveCount"] == 5
    dead = tracked.target(queue.properties["RedrivePolicy"]["deadLetterTargetArn"])
    assert dead.properties["QueueName"] == "noria-dev-dead-letters"
