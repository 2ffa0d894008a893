"""Start and stop a local cloud, which is a process of its own.

with LocalCloud(root=tmp_path, port=4601, time_scale=60) as cloud:
    boto3.client("s3", endpoint_url=cloud.endpoint, verify=str(cloud.certificate))
    subprocess.run(["cdk", "deploy"], env=os.environ | cloud.environment)
"""

import json
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from local.faults.control import Faults

REPOSITORY = Path(__file__).resolve().parent.parent
WORK = REPOSITORY / ".noria"
MAIL = "mail"
ACCOUNT = "123456789012"
REGION = "eu-west-1"
DEFAULT_PORT = 4566
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0


class CannotStart(Exception):
    """The cloud did not come up; the message says why."""


@dataclass(frozen=True)
class LocalCloud:
    """A cloud on this machine, on the loopback address only.

    `root` holds its logs, jobs and certificate; clouds with different roots and ports run side by side. `time_scale`
    says how many AWS seconds pass in one second. `python` is the interpreter that stands for AWS's container images. As
    a context manager it also ends if the process that started it dies.
    """

    root: Path = WORK
    port: int = DEFAULT_PORT
    time_scale: float = 1.0
    python: Path = WORK / "container" / "bin" / "python"
    _stdin: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    @property
    def endpoint(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.root / "tls" / "server.crt"

    @property
    def log(self) -> Path:
        return self.root / "logs" / "cloud.log"

    @property
    def environment(self) -> dict[str, str]:
        """What makes the AWS CLI, boto3 and the CDK talk to this cloud."""
        return {
            "NORIA_ENV": "local",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CA_BUNDLE": str(self.certificate),
            "NODE_EXTRA_CA_CERTS": str(self.certificate),
            "CDK_DEFAULT_ACCOUNT": ACCOUNT,
            "CDK_DEFAULT_REGION": REGION,
        }

    def __enter__(self) -> Self:
        self._stdin.append(self._start(with_parent=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        process = self._stdin.pop()
        if process.stdin:
            process.stdin.close()
        self.stop()

    # --- start

    def start(self) -> None:
        """Start in the background and wait until it answers; it outlives this process. Raises `CannotStart`."""
        self._start(with_parent=False)

    def _start(self, *, with_parent: bool) -> subprocess.Popen[bytes]:
        if self.running:
            raise CannotStart(f"A local cloud already runs in {self.root}: stop it first (python -m local down).")
        self.stop()  # what one that was killed left behind
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise CannotStart(f"Port {self.port} is in use: choose another with --port.") from error
        self._prepare()
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "local.server", "--root", self.root, "--port", str(self.port)),
                    *("--python", self.python, "--time-scale", str(self.time_scale)),
                    *("--certificate", self.certificate, "--key", self.root / "tls" / "server.key"),
                    *(["--with-parent"] if with_parent else []),
                ],
                cwd=REPOSITORY,
                env=self._server_environment(),
                stdin=subprocess.PIPE if with_parent else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._state.write_text(json.dumps({"pid": process.pid, "port": self.port}))
        try:
            self._wait_until_healthy(process)
        except BaseException:
            self.stop()
            raise
        self.environment_file.write_text(
            "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items())
        )
        return process

    def _prepare(self) -> None:
        for directory in ("logs", "tls", "tmp", "processes"):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        if not self.certificate.exists():
            _create_certificate(self.certificate, self.root / "tls" / "server.key")

    def _server_environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MINISTACK_"))}
        return kept | {
            **{name: value for name, value in self.environment.items() if name.startswith("AWS_")},
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.root / "tmp"),
            "SSL_CERT_FILE": str(self.certificate),  # its Lambda workers inherit this
            "NODE_EXTRA_CA_CERTS": str(self.certificate),
            "AUTH": "true",
            "USE_SSL": "1",
            "MINISTACK_SSL_CERT": str(self.certificate),
            "MINISTACK_SSL_KEY": str(self.root / "tls" / "server.key"),
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": REGION,
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": "127.0.0.1",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
        }

    def _wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise CannotStart(f"The local cloud ended at once; see {self.log}:\n{_tail(self.log)}")
            if self.healthy:
                return
            time.sleep(0.05)
        raise CannotStart(f"The local cloud did not answer within {START_TIMEOUT:.0f} s; see {self.log}.")

    # --- state

    @property
    def mail(self) -> Path:
        """Where what topics send to people lies, a file for each mail."""
        return self.root / MAIL

    @property
    def environment_file(self) -> Path:
        return self.root / "local.env"

    @property
    def _state(self) -> Path:
        return self.root / "cloud.json"

    @property
    def pid(self) -> int | None:
        try:
            return int(json.loads(self._state.read_text())["pid"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    @property
    def running(self) -> bool:
        return (pid := self.pid) is not None and _is_alive(pid)

    @property
    def healthy(self) -> bool:
        try:
            health = f"{self.endpoint}/_ministack/health"
            with urllib.request.urlopen(health, timeout=5, context=self._tls) as answer:  # noqa: S310 - always https
                return bool(answer.status == 200)
        except OSError:
            return False

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    @property
    def faults(self) -> Faults:
        """What goes wrong in this cloud on purpose."""
        return Faults(self.endpoint, self._tls)

    # --- stop

    def stop(self) -> None:
        """End the cloud and everything that it started, and remove its temporary files: a GB of functions' code."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT
            while _is_alive(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            for group in (pid, *self._left_behind(pid)):
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
        for leftover in (self._state, self.environment_file):
            leftover.unlink(missing_ok=True)
        shutil.rmtree(self.root / "tmp", ignore_errors=True)

    def _left_behind(self, server: int) -> list[int]:
        """Process groups that a crashed server recorded and could not end: those still in its session."""
        groups = []
        for record in (self.root / "processes").glob("*"):
            with suppress(ProcessLookupError):
                if os.getsid(int(record.name)) == server:
                    groups.append(int(record.name))
            record.unlink(missing_ok=True)
        return groups


def _create_certificate(certificate: Path, key: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-days", "825", "-subj", "/CN=localhost/O=Noria", "-keyout", key, "-out", certificate),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"),
            *("-addext", "subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)


def _is_alive(pid: int) -> bool:
    with suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:  # our own child, which has ended
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
