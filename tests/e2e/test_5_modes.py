"""Every way to answer: for whole files, without idle instances, from a queue, and behind a front door. All alike."""

import csv
import io
import json
import ssl
import urllib.error
import urllib.request
from typing import Any
from unittest.mock import ANY

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.demo import flights
from local.demo.packages import register
from local.demo.scenes import YEAR, Play
from local.demo.world import World
from noria.ledger import Kind
from tests.e2e.test_3_command import run
from tests.e2e.test_4_ways import go_live, of

ROWS = 500


@pytest.fixture(scope="module")
def live(world: World, play: Play) -> dict[str, World]:
    """A model for each mode, all with the same version."""
    if not play.live:
        pytest.fail("no model is live: test_january_goes_live failed before")
    worlds = {model: of(world, model) for model in ("batch", "serverless", "queued")}
    for at in worlds.values():
        go_live(at, register(at, play.live))
    return worlds


@pytest.fixture(scope="module")
def february() -> str:
    """The month's first flights, with columns that are no features."""
    return "\n".join(flights.month(YEAR + 2).decode().splitlines()[: ROWS + 1]) + "\n"


@pytest.fixture(scope="module")
def instances(play: Play, february: str) -> list[dict[str, Any]]:
    return [play.instance(row) for row in csv.DictReader(io.StringIO(february))]


@pytest.fixture(scope="module")
def scores(live: dict[str, World], february: str) -> list[float]:
    """The answers of the model without an endpoint."""
    at = live["batch"]
    assert at.endpoint not in [e["EndpointName"] for e in at.sagemaker.list_endpoints()["Endpoints"]]
    rows = list(csv.DictReader(io.StringIO(answers(at, "february.csv", february))))
    assert [row["ts"] for row in rows] == [row["ts"] for row in csv.DictReader(io.StringIO(february))]
    assert {row["prediction"] for row in rows} <= {"0", "1"}
    return [float(row["score"]) for row in rows]


def answers(world: World, name: str, body: str) -> str:
    """What comes to lie beside a file under batch/."""
    key, mark = f"{world.model}/batch/{name}", world.last_entry()
    world.s3.put_object(Bucket=world.bucket, Key=key, Body=body.encode())
    predicted = world.wait_for(Kind.BATCH_PREDICTED, after=mark, never=[Kind.BATCH_FAILED, Kind.BATCH_REFUSED])
    assert predicted.details["result"] == f"s3://{world.bucket}/{key}.out"
    return world.read_uri(str(predicted.details["result"])).decode()


def test_a_model_with_an_endpoint_answers_files_too(live: dict[str, World], february: str, scores: list[float]) -> None:
    rows = csv.DictReader(io.StringIO(answers(live["queued"], "february.csv", february)))
    assert [float(row["score"]) for row in rows] == pytest.approx(scores, abs=1e-6)


def test_json_lines_are_answered_as_json_lines(
    live: dict[str, World], instances: list[dict[str, Any]], scores: list[float]
) -> None:
    lines = "".join(f"{json.dumps({'id': number, **row})}\n" for number, row in enumerate(instances[:20]))
    answered = [json.loads(line) for line in answers(live["batch"], "february.jsonl", lines).splitlines()]
    assert [row["id"] for row in answered] == list(range(20))
    assert [row["score"] for row in answered] == pytest.approx(scores[:20], abs=1e-6)


def test_a_file_that_cannot_be_answered_says_why(live: dict[str, World], february: str, tmp_path: Any) -> None:
    at, mark, file = live["batch"], live["batch"].last_entry(), tmp_path / "broken.csv"
    file.write_text(february.replace("temp,", "tmp,", 1))
    assert run(at, "predict", at.model, str(file)).returncode == 0
    refused = at.wait_for(Kind.BATCH_REFUSED, after=mark, never=[Kind.BATCH_STARTED])
    assert "column 'temp' is missing: rename 'tmp' to it" in refused.summary
    assert at.read_uri(str(refused.details["report"]))


def test_a_serverless_endpoint_answers_and_its_log_becomes_captured_data(
    live: dict[str, World], instances: list[dict[str, Any]], scores: list[float]
) -> None:
    at = live["serverless"]
    answer = at.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=at.endpoint,
        ContentType="application/json",
        Body=json.dumps({"instances": instances[:50]}),
        InferenceId="rare-1",
    )
    predictions = json.loads(answer["Body"].read())["predictions"]
    assert [each["score"] for each in predictions] == pytest.approx(scores[:50], abs=1e-6)
    prefix = f"{at.model}/captured/{at.endpoint}/champion/"

    def captured() -> bool:
        return any(b'"rare-1"' in at.read_uri(f"s3://{at.bucket}/{key}") for key in at.keys(prefix))

    at.wait_until("captured request", captured)


def test_an_asynchronous_endpoint_answers_into_the_bucket(
    live: dict[str, World], instances: list[dict[str, Any]], scores: list[float]
) -> None:
    at = live["queued"]
    runtime = at.client("sagemaker-runtime")
    asked = []
    for number in range(10):
        key = f"{at.model}/async/{number}.json"
        body = json.dumps({"instances": instances[number * 5 : number * 5 + 5]})
        at.s3.put_object(Bucket=at.bucket, Key=key, Body=body.encode())
        asked.append(
            runtime.invoke_endpoint_async(
                EndpointName=at.endpoint,
                ContentType="application/json",
                InputLocation=f"s3://{at.bucket}/{key}",
            )["OutputLocation"]
        )
    at.wait_until("ten answers", lambda: len(at.keys(f"{at.model}/async-results/")) == 10)
    predictions = [each for uri in asked for each in json.loads(at.read_uri(uri))["predictions"]]
    assert [each["score"] for each in predictions] == pytest.approx(scores[:50], abs=1e-6)
    at.wait_until("captured requests", lambda: at.keys(f"{at.model}/captured/{at.endpoint}/champion/"))


def test_the_front_door_answers_who_may_ask_and_nobody_else(world: World, instances: list[dict[str, Any]]) -> None:
    at = of(world, "linear")
    stack = at.client("cloudformation").describe_stacks(StackName=at.names.stack(at.model, "front-door"))["Stacks"][0]
    url = next(output["OutputValue"] for output in stack["Outputs"] if output["OutputKey"] == "ApiUrl")
    request = AWSRequest(
        "POST",
        f"{url}/predict",
        data=json.dumps({"instances": instances[:1]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    assert send(at, request) == (403, ANY)
    environment = at.cloud.environment
    keys = Credentials(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    SigV4Auth(keys, "execute-api", environment["AWS_REGION"]).add_auth(request)
    status, answer = send(at, request)
    assert status == 200, answer
    assert len(json.loads(answer)["predictions"]) == 1


def send(world: World, request: AWSRequest) -> tuple[int, str]:
    """Status and body of the answer."""
    asked = urllib.request.Request(  # noqa: S310 - the local cloud's own door
        str(request.url), data=request.data, headers=dict(request.headers), method="POST"
    )
    context = ssl.create_default_context(cafile=str(world.cloud.certificate))
    try:
        with urllib.request.urlopen(asked, context=context) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
