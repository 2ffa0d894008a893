"""What every part of the local SageMaker gets: where it is, the rest of the cloud, and a way to run things."""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import boto3
from botocore.config import Config

from local import ministack

logger = logging.getLogger("noria.cloud")
T = TypeVar("T")

ROOT_ACCESS_KEY = "test"  # MiniStack's root user
PRINCIPAL = "sagemaker.amazonaws.com"


@dataclass
class Cloud:
    """One running local cloud, seen from inside.

    `root` is its work directory, `python` the interpreter that stands for AWS's container images, `time_scale` how many
    AWS seconds pass in one second here.
    """

    account: str
    region: str
    root: Path
    python: Path
    endpoint: str
    certificate: Path
    time_scale: float = 1.0
    _session: boto3.Session = field(default_factory=boto3.Session, repr=False)
    _clients: dict[tuple[str, str | None, str], Any] = field(default_factory=dict, repr=False)
    _processes: set[subprocess.Popen[bytes]] = field(default_factory=set, repr=False)
    _closed: threading.Event = field(default_factory=threading.Event, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    # --- time

    def now(self) -> datetime:
        return datetime.now(UTC)

    def scaled(self, seconds: float) -> float:
        """Seconds here for so many seconds on AWS."""
        return seconds / self.time_scale

    def sleep(self, seconds: float) -> bool:
        """Wait so many AWS seconds; False if the cloud was stopped meanwhile."""
        return not self._closed.wait(self.scaled(seconds))

    # --- names

    def arn(self, kind: str, name: str) -> str:
        """The ARN of a SageMaker resource, such as `arn("endpoint", "noria-local-flight-delay")`."""
        return f"arn:aws:sagemaker:{self.region}:{self.here}:{kind}/{name}"

    @property
    def here(self) -> str:
        """The account that is being worked for: that of the request, or of the one that began this work."""
        return ministack.account(self.account)

    # --- the rest of the cloud

    def on_loop(self, action: Callable[[], T]) -> T:
        """Run something in MiniStack's own thread, the only one that may touch its stores."""
        return ministack.on_loop(action, account=self.here, region=self.region)

    def emit(self, detail_type: str, detail: Mapping[str, Any], resources: Iterable[str]) -> None:
        """Send an event of SageMaker's on the default bus; `detail` must be JSON."""
        arns = list(resources)
        self.on_loop(lambda: ministack.emit("aws.sagemaker", detail_type, detail, arns))

    def client(self, service: str, role_arn: str | None = None, *, service_principal: str = PRINCIPAL) -> Any:
        """A boto3 client of this very cloud: as its root user, or as an AWS service that has assumed a role.

        Raises `ministack.CannotAssumeRole`.
        """
        key = (service, role_arn or self.here, service_principal)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._new_client(service, self.credentials(role_arn, service_principal))
            return self._clients[key]

    def credentials(self, role_arn: str | None, service_principal: str = PRINCIPAL) -> ministack.Credentials:
        """Raises `ministack.CannotAssumeRole`."""
        if role_arn is None:
            # Of other accounts MiniStack takes the number as the key of the root user.
            root = ROOT_ACCESS_KEY if self.here == self.account else self.here
            return ministack.Credentials(root, root, "")
        session = "AWSCloudFormation" if service_principal != PRINCIPAL else "SageMaker"
        return self.on_loop(lambda: ministack.role_credentials(role_arn, service=service_principal, session=session))

    def _new_client(self, service: str, credentials: ministack.Credentials) -> Any:
        session: Any = self._session  # typed for each service by its literal name, which this isn't
        return session.client(
            service,
            region_name=self.region,
            endpoint_url=self.endpoint,
            verify=str(self.certificate),
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            aws_session_token=credentials.session_token or None,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"mode": "standard", "max_attempts": 2},
                max_pool_connections=32,
            ),
        )

    # --- things that run

    def run(self, action: Callable[[], None], name: str) -> threading.Thread:
        """Run something in the background; an error it lets out is logged."""

        def guarded() -> None:
            try:
                action()
            except Exception:
                if not self._closed.is_set():
                    logger.exception("%s failed", name)

        thread = threading.Thread(target=copy_context().run, args=(guarded,), name=name, daemon=True)
        thread.start()
        return thread

    def spawn(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int = subprocess.STDOUT,
    ) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own, which ends with the cloud at the latest.

        Its group is recorded in a file under `processes`, so that `python -m local down` finds it even after a crash.
        """
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError("the cloud is stopping")
            process = subprocess.Popen(
                argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, process_group=0
            )
            self._processes.add(process)
            self._record(process).touch()
        return process

    def end(self, process: "subprocess.Popen[bytes]", *, grace: float = 2.0) -> int:
        """End a process and everything it started: ask first, insist after `grace` seconds. Returns its exit code."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            logger.warning("process %d did not end when asked", process.pid)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        with self._lock:
            self._processes.discard(process)
        self._record(process).unlink(missing_ok=True)
        return code

    def close(self) -> None:
        """End everything that was started here."""
        self._closed.set()
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            self.end(process)

    def _record(self, process: "subprocess.Popen[bytes]") -> Path:
        directory = self.root / "processes"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / str(process.pid)
