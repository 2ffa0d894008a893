"""Starts Noria's model server: `python -m pipelines.serving [--socket PATH]`, one worker per core, on port 8080.

SageMaker starts an image with the argument `serve`. The container's environment:

| variable                        | meaning                                                   |
|---------------------------------|-----------------------------------------------------------|
| `SM_MODEL_DIR`                  | where the bundle is unpacked; `/opt/ml/model`             |
| `SAGEMAKER_MODEL_SERVER_WORKERS`| how many workers; as many as there are cores              |
| `SAGEMAKER_BIND_TO_PORT`        | the port, where it is not to be 8080                      |
| `NORIA_CAPTURE`                 | `stdout`: print requests and answers (`inference.capture`)|

SIGTERM ends it once the requests under way are answered.
"""

import argparse
import multiprocessing
import os
import signal
from pathlib import Path

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels

from pipelines.serving.inference import SIGNATURE
from pipelines.serving.metrics import Metrics
from pipelines.serving.server import MODEL, Application, load

# Standard output is for captured requests alone.
LOGGING = {
    "handlers": {
        name: {"class": "logging.StreamHandler", "formatter": formatter, "stream": "ext://sys.stderr"}
        for name, formatter in (("console", "generic"), ("access", "access"))
    }
}

# Of a request under way; SageMaker gives a container so long for one (guide, "your-algorithms-inference-code").
LONGEST_ANSWER_SECONDS = 60


def check(bundle: Path) -> None:
    """Ends the process, and says why, where workers could only fail and be started again."""
    for file in (bundle / SIGNATURE, bundle / MODEL):
        try:
            file.open("rb").close()
        except FileNotFoundError:
            raise SystemExit(f"{bundle} has no {file.name}: this bundle is not for Noria's model server") from None
        except PermissionError:
            raise SystemExit(
                f"user {os.geteuid()} may not read {file}: SageMaker's guide asks for images that run as root. Remove "
                "USER from pipelines/serving/Dockerfile and deploy again (docs/decisions/0012)"
            ) from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="pipelines.serving", description="Noria's model server.")
    parser.add_argument("command", nargs="?", choices=["serve"])
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a container's port is reached from outside of it
    parser.add_argument("--socket", type=Path, help="listen on this Unix socket, and on no port")
    options = parser.parse_args()
    environment = os.environ
    bundle = Path(environment.get("SM_MODEL_DIR", "/opt/ml/model"))
    check(bundle)
    workers = int(environment.get("SAGEMAKER_MODEL_SERVER_WORKERS") or len(os.sched_getaffinity(0)))
    # Workers are forked: what is imported here is theirs already, and only the model is left to load.
    multiprocessing.set_start_method("fork")
    metrics = Metrics()
    capture = environment.get("NORIA_CAPTURE") == "stdout"

    server = Granian(
        "pipelines.serving",
        address=options.host,
        port=int(environment.get("SAGEMAKER_BIND_TO_PORT") or 8080),
        uds=options.socket,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        workers=workers,
        respawn_failed_workers=True,
        workers_kill_timeout=LONGEST_ANSWER_SECONDS,
        log_level=LogLevels.warning,
        log_dictconfig=LOGGING,
    )

    def worker() -> Application:
        # It has inherited the parent's handler, which would only note that it should end, and it is not serving yet.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return Application(load(bundle), metrics.of_this_worker(), capture=capture)

    server.serve(target_loader=worker, wrap_loader=False)


if __name__ == "__main__":
    main()
