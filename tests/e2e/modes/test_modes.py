"""Each mode as it is deployed, with the permissions of its templates: all three give the same answers."""

import csv
import io
import json
from typing import Any

import pytest

from local.cloud import REPOSITORY
from local.demo import flights
from local.demo.scenes import YEAR, Play
from local.demo.world import Pager, World
from noria.ledger import Kind
from noria.spec import load

ROWS = 500


@pytest.fixture(scope="session")
def february() -> str:
    """The month's first flights, with columns that are no features."""
    return "\n".join(flights.month(YEAR + 2).decode().splitlines()[: ROWS + 1]) + "\n"


def answers(world: World, name: str, body: str) -> str:
    """What comes to lie beside a file under batch/."""
    key, mark = f"{world.model}/batch/{name}", world.last_entry()
    world.s3.put_object(Bucket=world.bucket, Key=key, Body=body.encode())
    predicted = world.wait_for(Kind.BATCH_PREDICTED, after=mark, never=[Kind.BATCH_FAILED, Kind.BATCH_REFUSED])
    assert predicted.details["result"] == f"s3://{world.bucket}/{key}.out"
    return world.read_uri(str(predicted.details["result"])).decode()


@pytest.fixture(scope="session")
def scores(worlds: dict[str, World], february: str) -> list[float]:
    """The answers of the model without an endpoint."""
    rows = list(csv.DictReader(io.StringIO(answers(worlds["nightly"], "february.csv", february))))
    assert [row["ts"] for row in rows] == [row["ts"] for row in csv.DictReader(io.StringIO(february))]
    assert {row["prediction"] for row in rows} <= {"0", "1"}
    return [float(row["score"]) for row in rows]


@pytest.fixture(scope="session")
def instances(worlds: dict[str, World], february: str) -> list[dict[str, Any]]:
    world = worlds["rare"]
    play = Play(world=world, spec=load(REPOSITORY / "models" / "flight-delay.yaml"), pager=Pager(world))
    return [play.instance(row) for row in csv.DictReader(io.StringIO(february))]


@pytest.mark.parametrize("model", ["rare", "queued"])
def test_batches_are_answered_alike_in_every_mode(
    worlds: dict[str, World], model: str, february: str, scores: list[float]
) -> None:
    rows = csv.DictReader(io.StringIO(answers(worlds[model], "february.csv", february)))
    assert [float(row["score"]) for row in rows] == pytest.approx(scores, abs=1e-6)


def test_json_lines_are_answered_as_json_lines(
    worlds: dict[str, World], instances: list[dict[str, Any]], scores: list[float]
) -> None:
    lines = "".join(f"{json.dumps({'id': number, **row})}\n" for number, row in enumerate(instances[:20]))
    answered = [json.loads(line) for line in answers(worlds["nightly"], "february.jsonl", lines).splitlines()]
    assert [row["id"] for row in answered] == list(range(20))
    assert [row["score"] for row in answered] == pytest.approx(scores[:20], abs=1e-6)


def test_a_file_that_cannot_be_answered_says_why(worlds: dict[str, World], february: str) -> None:
    world = worlds["nightly"]
    mark, key = world.last_entry(), "nightly/batch/broken.csv"
    broken = february.replace("temp,", "tmp,", 1)
    world.s3.put_object(Bucket=world.bucket, Key=key, Body=broken.encode())
    refused = world.wait_for(Kind.BATCH_REFUSED, after=mark, never=[Kind.BATCH_STARTED])
    assert "column 'temp' is missing: rename 'tmp' to it" in refused.summary
    assert world.read_uri(str(refused.details["report"]))


def test_a_serverless_endpoint_answers_and_its_log_becomes_captured_data(
    worlds: dict[str, World], instances: list[dict[str, Any]], scores: list[float]
) -> None:
    world = worlds["rare"]
    answer = world.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=world.endpoint,
        ContentType="application/json",
        Body=json.dumps({"instances": instances[:50]}),
        InferenceId="rare-1",
    )
    predictions = json.loads(answer["Body"].read())["predictions"]
    assert [each["score"] for each in predictions] == pytest.approx(scores[:50], abs=1e-6)
    prefix = f"rare/captured/{world.endpoint}/champion/"

    def captured() -> bool:
        return any(b'"rare-1"' in world.read_uri(f"s3://{world.bucket}/{key}") for key in world.keys(prefix))

    world.wait_until("captured request", captured)


def test_an_asynchronous_endpoint_answers_into_the_bucket(
    worlds: dict[str, World], instances: list[dict[str, Any]], scores: list[float]
) -> None:
    world = worlds["queued"]
    runtime = world.client("sagemaker-runtime")
    asked = []
    for number in range(10):
        key = f"queued/async/{number}.json"
        body = json.dumps({"instances": instances[number * 5 : number * 5 + 5]})
        world.s3.put_object(Bucket=world.bucket, Key=key, Body=body.encode())
        asked.append(
            runtime.invoke_endpoint_async(
                EndpointName=world.endpoint,
                ContentType="application/json",
                InputLocation=f"s3://{world.bucket}/{key}",
            )["OutputLocation"]
        )
    assert all(uri.startswith(f"s3://{world.bucket}/queued/async-results/") for uri in asked)
    world.wait_until("ten answers", lambda: len(world.keys("queued/async-results/")) == 10)
    predictions = [each for uri in asked for each in json.loads(world.read_uri(uri))["predictions"]]
    assert [each["score"] for each in predictions] == pytest.approx(scores[:50], abs=1e-6)
    world.wait_until("captured requests", lambda: world.keys(f"queued/captured/{world.endpoint}/champion/"))
