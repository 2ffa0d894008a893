"""The `noria` command as people type it: answers, and refusals that say what to do."""

import csv
import io
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from local.cloud import REPOSITORY
from local.demo import flights, traffic
from local.demo.scenes import YEAR, Play
from local.demo.world import World
from noria.ledger import Kind

NORIA = REPOSITORY / ".venv" / "bin" / "noria"


def run(world: World, *arguments: str, answers: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "NORIA_"))}
    return subprocess.run(
        [NORIA, *arguments],
        cwd=REPOSITORY,
        env=environment | world.cloud.environment | {"COLUMNS": "200"},
        input=answers,
        capture_output=True,
        text=True,
        check=False,
    )


def test_status_and_packages_are_tables_for_people(play: Play, world: World) -> None:
    version = play.live.rsplit("/", 1)[-1]
    status = run(world, "status")
    assert status.returncode == 0
    assert re.search(rf"flight-delay +InService +{version} ", status.stdout)
    listed = run(world, "packages", "flight-delay")
    assert "Approved  live " in listed.stdout
    assert "rolled-back" in listed.stdout


def test_an_upload_by_command_becomes_a_dataset(world: World, tmp_path: Path) -> None:
    mark = world.last_entry()
    file = tmp_path / "september.csv"
    file.write_bytes(flights.month(YEAR + 9))
    uploaded = run(world, "upload", "flight-delay", str(file), "--json")
    assert json.loads(uploaded.stdout)["uri"] == f"s3://{world.bucket}/flight-delay/incoming/september.csv"
    entry = world.wait_for(Kind.DATASET_ACCEPTED, after=mark)
    assert "september.csv" in entry.summary


def test_validate_says_before_the_upload_what_the_upload_would_say(world: World, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_bytes(flights.month(YEAR + 9))
    bad.write_bytes(flights.month(YEAR + 9).replace(b",dewp,", b",dew_point,", 1))
    assert run(world, "validate", str(good), "--model", "flight-delay").returncode == 0
    refused = run(world, "validate", str(bad), "--model", "flight-delay")
    assert refused.returncode == 1
    assert "column 'dewp' is missing: rename 'dew_point' to it" in refused.stdout


def test_rejecting_what_is_live_brings_its_predecessor_back(play: Play, world: World) -> None:
    mark, rejected = world.last_entry(), play.live
    version = rejected.rsplit("/", 1)[-1]
    assert run(world, "reject", f"flight-delay/{version}", "--reason", "a customer complained").returncode == 0
    entry = world.wait_for(Kind.DEPLOYED, after=mark, never=[Kind.DEPLOYMENT_FAILED, Kind.ROLLED_BACK])
    play.live = play.serving_package()
    assert play.live != rejected
    assert entry.details["package"] == play.live


def test_an_endpoint_is_asked_by_command_as_callers_ask_it(play: Play, world: World, tmp_path: Path) -> None:
    file = tmp_path / "september.csv"
    file.write_bytes(flights.month(YEAR + 9))
    asked = run(world, "predict", "flight-delay", str(file), "--first", "3", "--json")
    assert asked.returncode == 0, asked.stderr
    answered = json.loads(asked.stdout)
    rows = [play.instance(row) for row in csv.DictReader(io.StringIO(file.read_text()))][:3]
    assert [answer["score"] for answer in answered["predictions"]] == pytest.approx(traffic.predict(world, rows))
    assert answered["variant"] == "champion"
    refused = run(world, "predict", "flight-delay", "--row", json.dumps(rows[0] | {"hour": "noon"}))
    assert refused.returncode == 1
    assert "row 0: field hour:" in refused.stderr


def test_promises_are_held_against_what_happened(world: World) -> None:
    told = run(world, "slo", "flight-delay", "--json")
    assert told.returncode == 0, told.stderr
    kept = {row["objective"]: row["numbers"] for row in json.loads(told.stdout)}
    assert kept["availability"]["events"] > 1000
    assert kept["availability"]["share"] > 0.9  # a broken candidate has failed some, before it was taken back
    assert kept["upload_to_live"]["events"] >= 1
    assert kept["upload_to_live"]["bad"] == 0
    assert kept["detect"]["events"] >= 1
    assert kept["roll_back"]["events"] >= 2  # by alarms, and by the rejection above


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["status", "nix"], "No model 'nix' is deployed in 'local': known are batch, flight-control, flight-delay, "),
        (["status", "--env", "prod"], "Environment 'prod' is not deployed here"),
        (["approve", "flight-delay/99", "--reason", "x"], "Model 'flight-delay' has no version 99: versions are"),
        (["approve", "flight-delay", "--reason", "x"], "give its ARN, or <model>/<version> as in flight-delay/3"),
        (["approve", "flight-delay/1", "--reason", " "], "Give a reason"),
        (["validate", "README.md", "--model", "nix"], "No model 'nix' in models: known are flight-delay."),
        (["destroy", "--env", "dev"], "No stack of environment 'dev' is here"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(world: World, arguments: list[str], problem: str) -> None:
    refused = run(world, *arguments)
    assert refused.returncode == 1
    assert problem in refused.stderr
    assert "Traceback" not in refused.stderr


def test_without_a_cloud_the_command_says_so(world: World) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    nowhere = {**world.cloud.environment, "AWS_ENDPOINT_URL": "https://localhost:1", "AWS_MAX_ATTEMPTS": "1"}
    ran = subprocess.run([str(NORIA), "status"], env=environment | nowhere, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("AWS could not be reached")


def test_destroy_asks_first(world: World) -> None:
    refused = run(world, "destroy", "--env", "local", answers="no\n")
    assert refused.returncode == 1
    assert "noria-local-flight-delay-serving" in refused.stderr
    assert run(world, "status").returncode == 0
