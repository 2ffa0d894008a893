"""A real MLflow server with SQLite beside the local cloud, in an environment of its own (`make tracking`)."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = REPOSITORY / ".noria" / "mlflow"
PORT = 5566

_PATIENCE = 180.0
"""Seconds in which the server must answer: its first start makes the tables of its database."""


class NoServer(Exception):
    """The server did not start; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class TrackingServer:
    """Its database and log lie in `root`; it answers on 127.0.0.1 alone."""

    root: Path
    port: int = PORT

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.root / "mlflow.log"

    @property
    def _state(self) -> Path:
        return self.root / "mlflow.json"

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it in the background, with what leads to the cloud where artifacts are. Raises `NoServer`."""
        program = ENVIRONMENT / "bin" / "mlflow"
        if not program.exists():
            raise NoServer(f"MLflow is not in {ENVIRONMENT}: make tracking installs it there.")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise NoServer(f"Port {self.port} is in use, which MLflow was to have.") from error
        self.root.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [program, "server", "--host", "127.0.0.1", "--port", str(self.port)]
        # Who writes a run puts its files into the data bucket, with rights of their own.
        command += ["--backend-store-uri", f"sqlite:///{self.root / 'mlflow.db'}", "--no-serve-artifacts"]
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [*command, "--workers", "1"],
                cwd=self.root,
                env=os.environ | environment | {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._state.write_text(json.dumps({"pid": process.pid}))
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=1) as answer:  # noqa: S310
                if answer.status == 200:
                    return
            time.sleep(0.1)
        self.stop()
        raise NoServer(f"MLflow did not answer at {self.url}; its log is {self.log}.")

    def stop(self) -> None:
        """End it, if it was started here."""
        with suppress(FileNotFoundError):
            pid = int(json.loads(self._state.read_text())["pid"])
            self._state.unlink()
            # Another process may have its number by now.
            with suppress(ProcessLookupError, FileNotFoundError):
                if str(self.root) in Path(f"/proc/{pid}/cmdline").read_text():
                    os.killpg(pid, signal.SIGTERM)

    @contextmanager
    def running(self, environment: Mapping[str, str]) -> Iterator[None]:
        self.start(environment)
        try:
            yield
        finally:
            self.stop()
