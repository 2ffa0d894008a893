"""python -m local up | down | container: the local cloud from the command line."""

import argparse
import sys
from pathlib import Path

from local.cloud import DEFAULT_PORT, WORK, CannotStart, LocalCloud
from local.container import build
from local.deployment import MODELS, DeploymentFailed, deploy
from local.tracking import NoServer, TrackingServer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local", description="The local cloud.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start it in the background, and write local.env into its work directory")
    up.add_argument("--port", type=int, default=DEFAULT_PORT)
    up.add_argument("--deploy", action="store_true", help="bootstrap and deploy every stack to it")
    up.add_argument("--time-scale", type=float, default=1.0, help="AWS seconds that pass in one second (default 1)")
    up.add_argument(
        "--models", type=Path, default=MODELS, help=f"directory of the specs to deploy (default {MODELS.name})"
    )
    up.add_argument(
        "--tracking", action="store_true", help="start MLflow too, in which each training is a run (make tracking)"
    )
    down = commands.add_parser("down", help="end it and everything it started")
    commands.add_parser("container", help="build the interpreter that stands for AWS's scikit-learn image")
    for command in (up, down):
        command.add_argument("--state", type=Path, default=WORK, help=f"its work directory (default {WORK})")
    options = parser.parse_args()

    if options.command == "container":
        build(WORK / "container")
        return 0
    if options.command == "down":
        sys.stdout.write("ending the local cloud and what it started: up to a minute or two while endpoints change\n")
        sys.stdout.flush()
        TrackingServer(root=options.state.resolve() / "mlflow").stop()
        LocalCloud(root=options.state.resolve()).stop()
        return 0
    cloud = LocalCloud(root=options.state.resolve(), port=options.port, time_scale=options.time_scale)
    try:
        cloud.start()
    except CannotStart as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    _say(f"· the local cloud answers at {cloud.endpoint}")
    server = TrackingServer(root=cloud.root / "mlflow") if options.tracking else None
    if server:
        try:
            server.start(cloud.environment)
        except NoServer as problem:
            cloud.stop()
            sys.stderr.write(f"{problem}\nThe cloud was ended again.\n")
            return 1
        _say(f"· MLflow answers at {server.url}")
    if options.deploy:
        try:
            deploy(
                cloud,
                models=options.models,
                tracking=server.url if server else None,
                progress=lambda line: _say(f"· {line}"),
            )
        except DeploymentFailed as problem:
            if server:
                server.stop()
            cloud.stop()
            sys.stderr.write(f"{problem}\nThe cloud was ended again.\n")
            return 1
        _say(f"· who is paged gets mail in {cloud.mail}")
    _say(f"source {cloud.environment_file}    # then aws, boto3 and noria talk to it")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
