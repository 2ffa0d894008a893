"""Bootstrap and deploy every stack to a running local cloud, with the unmodified CDK CLI."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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

    assembly = cloud.root / "cdk.out"
    progress("bootstrapping the account, and synthesising the stacks")
    with ThreadPoolExecutor() as both:
        # From a folder without an app: where it finds one, it synthesises it too, and does not need it.
        # AdministratorAccess is the CDK's own default; said aloud, MiniStack gives it to the role.
        account = ("bootstrap", f"aws://{ACCOUNT}/{REGION}", "--cloudformation-execution-policies", _ADMINISTRATOR)
        bootstrapped = both.submit(_cdk, cloud, account, folder=cloud.root)
        given = {"env": "local", "models": str(models.resolve())} | ({"tracking": tracking} if tracking else {})
        context = (word for name, value in given.items() for word in ("-c", f"{name}={value}"))
        _cdk(cloud, ("synth", "--quiet", "--output", assembly, *context))
        bootstrapped.result()
    progress("deploying the stacks")
    _cdk(
        cloud,
        (
            *("deploy", "--all", "--app", assembly, "--progress", "events"),
            *("--concurrency", "8", "--require-approval", "never", "--asset-parallelism", "true"),
        ),
        follow=follow,
    )
    return stacks


def _cdk(
    cloud: LocalCloud,
    arguments: Sequence[str | Path],
    *,
    folder: Path = REPOSITORY,
    follow: Callable[[str], None] = lambda _: None,
) -> None:
    command = [CDK, *arguments, "--no-color", "--ci"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=folder,
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
            f"`cdk {' '.join(map(str, arguments))}` failed; the whole output is in {log}\n{''.join(lines[-30:])}"
        )
