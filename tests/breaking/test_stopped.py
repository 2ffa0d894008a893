"""Stopped in the middle: the local cloud is killed, and a deployment."""

import io
import json
import os
import signal
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.cloud import ACCOUNT, REPOSITORY, LocalCloud
from local.deployment import CDK, deploy

SLEEPS = "import time\ndef handler(event, context):\n    time.sleep(600)\n"


@pytest.fixture(name="victim")
def a_cloud_of_its_own(tmp_path: Path) -> Iterator[LocalCloud]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    cloud = LocalCloud(root=tmp_path, port=port, time_scale=60)
    cloud.start()
    yield cloud
    cloud.stop()


def client(cloud: LocalCloud, service: str) -> Any:
    return boto3.Session("test", "test", region_name=cloud.environment["AWS_REGION"]).client(
        service,  # type: ignore[call-overload]
        endpoint_url=cloud.endpoint,
        verify=str(cloud.certificate),
    )


def processes(session: int) -> set[int]:
    """Those that a cloud of this id started and that still run."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, *_ = fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and state != "Z":
                found.add(int(process.name))
    return found


def test_a_killed_cloud_leaves_nothing_behind_once_another_starts(victim: LocalCloud) -> None:
    s3, functions, iam = (client(victim, service) for service in ("s3", "lambda", "iam"))
    s3.create_bucket(Bucket="kept", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    iam.create_role(RoleName="sleeper", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("sleeper.py", SLEEPS)
    functions.create_function(
        FunctionName="sleeper",
        Runtime="python3.11",
        Role=f"arn:aws:iam::{ACCOUNT}:role/sleeper",
        Handler="sleeper.handler",
        Timeout=900,
        Code={"ZipFile": packed.getvalue()},
    )
    functions.invoke(FunctionName="sleeper", InvocationType="Event")
    killed = victim.pid
    assert killed is not None
    deadline = time.monotonic() + 30
    while len(processes(killed)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(killed, signal.SIGKILL)
    while victim.running:
        time.sleep(0.05)
    assert processes(killed), "a worker of a killed cloud lives on"

    victim.start()
    assert victim.healthy
    assert not processes(killed)
    with pytest.raises(ClientError, match="404"):  # as docs/fidelity.md says: nothing outlives the process
        client(victim, "s3").head_bucket(Bucket="kept")


def test_a_deployment_that_was_killed_is_done_by_the_next(victim: LocalCloud, pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("points") != "all":
        pytest.skip("two deployments take minutes: make breaking")
    models = REPOSITORY / "models"
    command: list[str | Path] = [
        CDK,
        "deploy",
        "--all",
        "--require-approval",
        "never",
        "-c",
        "env=local",
        "-c",
        f"models={models}",
    ]
    subprocess.run(
        [CDK, "bootstrap", "--output", victim.root / "first"], cwd=REPOSITORY, env=os.environ | victim.environment,
        check=True, capture_output=True,
    )  # fmt: skip
    with subprocess.Popen(
        [*command, "--output", victim.root / "first"],
        cwd=REPOSITORY,
        env=os.environ | victim.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as cdk:
        formation = client(victim, "cloudformation")
        while not _stacks(formation, "noria-local-"):
            assert cdk.poll() is None, "it ended before it could be killed"
            time.sleep(0.1)
        os.killpg(cdk.pid, signal.SIGKILL)
    stacks = deploy(victim)
    found = _stacks(formation, "noria-local-")
    assert set(found) >= set(stacks)
    assert set(found.values()) <= {"CREATE_COMPLETE", "UPDATE_COMPLETE"}


def _stacks(formation: Any, start: str) -> dict[str, str]:
    pages = formation.get_paginator("describe_stacks").paginate()
    found = (stack for page in pages for stack in page["Stacks"])
    return {stack["StackName"]: stack["StackStatus"] for stack in found if stack["StackName"].startswith(start)}
