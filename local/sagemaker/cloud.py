"""What every part of the local SageMaker gets: where it is, how to reach the rest of the cloud, and how to run things."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local import ministack

ROOT_ACCESS_KEY = "test"  # MiniStack's root user


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
    _clients: dict[tuple[str, str | None], Any] = field(default_factory=dict, repr=False)
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
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name}"

    # --- the rest of the cloud

    def on_loop[T](self, action: Callable[[], T]) -> T:
        raise NotImplementedError

    def emit(self, detail_type: str, detail: Mapping[str, Any], resources: Iterable[str]) -> None:
        """Send an event of SageMaker's on the default bus; `detail` must be JSON."""
        arns = list(resources)
        self.on_loop(lambda: ministack.emit("aws.sagemaker", detail_type, detail, arns))

    def client(self, service: str, role_arn: str | None = None) -> Any:
        """A boto3 client of this very cloud: as its root user, or with what SageMaker gets when it assumes a role.

        Raises `ministack.CannotAssumeRole`.
        """
        with self._lock:
            if (service, role_arn) not in self._clients:
                self._clients[service, role_arn] = self._new_client(service, role_arn)
            return self._clients[service, role_arn]

    def credentials(self, role_arn: str | None, session: str = "SageMaker") -> ministack.Credentials:
        if role_arn is None:
            return ministack.Credentials(ROOT_ACCESS_KEY, ROOT_ACCESS_KEY, "")
        service = "sagemaker.amazonaws.com"
        return self.on_loop(lambda: ministack.role_credentials(role_arn, service=service, session=session))

    def _new_client(self, service: str, role_arn: str | None) -> Any:
        credentials = self.credentials(role_arn)
        return self._session.client(
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
