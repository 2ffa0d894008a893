"""Every way to answer: without idle instances, from a queue, for whole files, and behind a front door."""

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

from local.demo.packages import register
from local.demo.scenes import Play
from local.demo.world import World
from noria.ledger import Kind
from tests.e2e.test_3_command import run
from tests.e2e.test_4_ways import go_live, of


@pytest.fixture(scope="module")
def first(play: Play) -> str:
    if not play.live:
        pytest.fail("no model is live: test_january_goes_live failed before")
    return play.live


@pytest.fixture(scope="module")
def instances(play: Play) -> list[dict[str, Any]]:
    return [play.instance(row) for row in play.sample(8)[:20]]


def test_a_serverless_model_answers_and_its_predictions_are_kept(
    world: World, first: str, instances: list[dict[str, Any]]
) -> None:
    at = of(world, "serverless")
    go_live(at, register(at, first))
    answer = at.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=at.endpoint, ContentType="application/json", Body=json.dumps({"instances": instances})
    )
    predictions = json.loads(answer["Body"].read())["predictions"]
    assert len(predictions) == len(instances)
    (kept,) = at.wait_until("kept predictions", lambda: at.keys(f"{at.model}/captured/{at.endpoint}/champion/"))
    record = json.loads(at.s3.get_object(Bucket=at.bucket, Key=kept)["Body"].read().splitlines()[0])
    assert json.loads(record["captureData"]["endpointOutput"]["data"])["predictions"] == predictions


def test_an_asynchronous_model_answers_objects_and_says_so(
    world: World, first: str, instances: list[dict[str, Any]]
) -> None:
    at = of(world, "queued")
    go_live(at, register(at, first))
    place = f"{at.model}/async/request.json"
    at.s3.put_object(Bucket=at.bucket, Key=place, Body=json.dumps({"instances": instances}).encode())
    asked = at.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=at.endpoint, ContentType="application/json", InputLocation=f"s3://{at.bucket}/{place}"
    )
    output = asked["OutputLocation"].removeprefix(f"s3://{at.bucket}/")
    at.wait_until("answered object", lambda: at.keys(output))
    assert len(at.read_json(output)["predictions"]) == len(instances)


def test_a_file_of_rows_is_answered_beside_it(world: World, first: str, play: Play, tmp_path: Any) -> None:
    at = of(world, "batch")
    go_live(at, register(at, first))
    assert at.endpoint not in [e["EndpointName"] for e in at.sagemaker.list_endpoints()["Endpoints"]]
    rows = play.sample(9)[:200]
    names = [*play.spec.features]
    file = tmp_path / "september.csv"
    file.write_text("\n".join([",".join(names), *(",".join(row[name] for name in names) for row in rows)]) + "\n")
    mark = at.last_entry()
    assert run(at, "predict", at.model, str(file)).returncode == 0
    at.wait_for(Kind.BATCH_PREDICTED, after=mark, never=[Kind.BATCH_FAILED, Kind.BATCH_REFUSED])
    result = at.s3.get_object(Bucket=at.bucket, Key=f"{at.model}/batch/september.csv.out")["Body"].read().decode()
    assert len(result.splitlines()) in {len(rows), len(rows) + 1}


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
