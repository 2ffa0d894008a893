"""A container without Docker: a directory for /opt/ml, a private Python environment, a clean set of variables.

`/opt/ml` in a command, in its environment and in its hyperparameters is replaced by the directory. A program that
builds such a path itself takes it from `SAGEMAKER_BASE_DIR`, which is unset on AWS, where it is `/opt/ml`.

The Python environment is one layer above the interpreter that stands for the image: it sees what the image has, and
what the program installs stays in it.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from local.sagemaker.cloud import Cloud

BASE = "/opt/ml"


class NoImage(Exception):
    """The interpreter that stands for AWS's image isn't there."""


@dataclass(frozen=True)
class Container:
    """`root` holds all of it: `ml` (/opt/ml), `python` (the private environment), `home` and `tmp`."""

    cloud: Cloud
    root: Path

    @property
    def base(self) -> Path:
        return self.root / "ml"

    def path(self, inside: str) -> Path:
        """Where a path under /opt/ml is on this machine."""
        path = Path(self.translated(inside)).resolve()
        if not path.is_relative_to(self.base.resolve()):
            raise ValueError(f"{inside} is not under {BASE}")
        return path

    def clear(self) -> None:
        """Forget all that was in it, as on another instance."""
        for directory in (self.base, self.root / "python", self.root / "home", self.root / "tmp"):
            shutil.rmtree(directory, ignore_errors=True)

    def translated(self, text: str) -> str:
        return text.replace(BASE, str(self.base))

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        log: Path,
        role_arn: str | None,
        isolated: bool = False,
    ) -> "subprocess.Popen[bytes]":
        """Start a program as AWS would in the container; its output goes to `log`.

        With `isolated`, it has neither network (where this machine can withhold it) nor credentials.
        """
        bin_directory = self._layer()
        for directory in (self.base, self.root / "home", self.root / "tmp"):
            directory.mkdir(parents=True, exist_ok=True)
        credentials = {} if isolated else self._credentials(role_arn)
        variables = {
            "PATH": f"{bin_directory}:{self.cloud.python.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "AWS_REGION": self.cloud.region,
            "AWS_DEFAULT_REGION": self.cloud.region,
            "SAGEMAKER_BASE_DIR": str(self.base),
            # Otherwise sagemaker-training waits for a host name that only AWS gives.
            "SM_STUDIO_LOCAL_MODE": "true",
            **credentials,
            **{name: self.translated(value) for name, value in environment.items()},
        }
        command = [*(_isolation() if isolated else []), *(self.translated(argument) for argument in argv)]
        with log.open("ab") as output:
            return self.cloud.spawn(command, env=variables, cwd=self.base, stdout=output)

    def _credentials(self, role_arn: str | None) -> dict[str, str]:
        credentials = self.cloud.credentials(role_arn)
        return {
            "AWS_ACCESS_KEY_ID": credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
            "AWS_SESSION_TOKEN": credentials.session_token,
            "AWS_ENDPOINT_URL": self.cloud.endpoint,
            "AWS_CA_BUNDLE": str(self.cloud.certificate),
        }

    def _layer(self) -> Path:
        """Make the private environment: what `python -m venv` would, without its half second."""
        image = self.cloud.python
        if not image.exists():
            raise NoImage(f"{image} does not exist: build it with `python -m local container`.")
        layer = self.root / "python"
        if layer.exists():
            return layer / "bin"
        packages = next((image.parent.parent / "lib").glob("python*/site-packages"))
        own_packages = layer / "lib" / packages.parent.name / "site-packages"
        own_packages.mkdir(parents=True)
        (own_packages / "image.pth").write_text(f"{packages}\n")
        (layer / "bin").mkdir()
        interpreter = image.resolve()
        (layer / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\ninclude-system-site-packages = false\n")
        for name in ("python", "python3"):
            (layer / "bin" / name).symlink_to(interpreter)
        for name in ("pip", "pip3"):
            script = layer / "bin" / name
            script.write_text('#!/bin/sh\nexec "$(dirname "$0")/python" -m pip "$@"\n')
            script.chmod(0o755)
        return layer / "bin"


@cache
def _isolation() -> tuple[str, ...]:
    """A prefix that starts a program without network; empty where the operating system has or allows none."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    prefix = (unshare, "--net") if os.geteuid() == 0 else (unshare, "--map-root-user", "--net")
    works = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    return prefix if works else ()
