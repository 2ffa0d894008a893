"""Bootstrap and deploy every stack to a running local cloud, with the unmodified CDK CLI."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from local.cloud import ACCOUNT, REGION, REPOSITORY, LocalCloud

MODELS = REPOSITORY / "models"
CDK = REPOSITORY / "node_modules" / ".bin" / "cdk"
_ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
_FINISHED = re.compile(r"^\s*✅\s+\S+ \((\S+)\)")


class DeploymentFailed(Exception):
    """The CDK said no; the message is what it printed last."""


def deploy(
    cloud: LocalCloud,
    *,
    models: Path = MODELS,
    tracking: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Deploy all stacks for the specs in `models` and return their names, in the order in which they came up.

    `tracking` is the URL of an MLflow server in which each training becomes a run.
    """
    stacks: list[str] = []

    def follow(line: str) -> None:
        if found := _FINISHED.match(line):
            stacks.append(found[1])
            progress(f"deployed {found[1]}")

    progress("bootstrapping the account")
    _cdk(
        cloud,
        # AdministratorAccess is the CDK's own default; said aloud, MiniStack gives it to the role.
        ["bootstrap", f"aws://{ACCOUNT}/{REGION}", "--cloudformation-execution-policies", _ADMINISTRATOR],
        models,
        lambda _: None,
    )
    progress("synthesising the stacks")
    _cdk(
        cloud,
        [
            *("deploy", "--all", "--concurrency", "8", "--require-approval", "never", "--asset-parallelism", "true"),
            *(("-c", f"tracking={tracking}") if tracking else ()),
        ],
        models,
        follow,
    )
    return stacks


def _cdk(cloud: LocalCloud, arguments: Sequence[str], models: Path, follow: Callable[[str], None]) -> None:
    output = cloud.root / "cdk.out"
    command: list[str | Path] = [
        CDK,
        *arguments,
        "-c",
        "env=local",
        "-c",
        f"models={models.resolve()}",
        "--output",
        output,
        "--no-color",
        "--progress",
        "events",
        "--ci",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment | cloud.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            follow(line)
    log = cloud.root / "logs" / f"cdk-{arguments[0]}.log"
    log.write_text("".join(lines))
    if process.returncode:
        raise DeploymentFailed(
            f"`cdk {' '.join(arguments)}` failed; the whole output is in {log}\n{''.join(lines[-30:])}"
        )
