"""How tests are spread over workers: a file stays together, and so does all that shares one cloud.

What AWS's services look like is read once by each of them, whichever session asks: it is most of what a client takes.
Temporary files lie in one folder, which goes with the session: also those of the CDK, which leaves its own, and of
processes that tests kill.
"""

import atexit
import gc
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import botocore.session
import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_CLOUDS = ("tests/integration/reactions/", "tests/breaking/")
"""Folders of which all files ask the same cloud."""


def _keep_temporary_files_together() -> None:
    """Before anything is imported that makes some, as aws_cdk does."""
    outside, prefix = Path(tempfile.gettempdir()), "noria-tests-"
    for folder in outside.glob(f"{prefix}*"):
        try:
            os.kill(int(folder.name.removeprefix(prefix)), 0)
        except ProcessLookupError:  # a session that was killed
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:
            continue  # somebody else's
    own = outside / f"{prefix}{os.getpid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(outside))  # pytest itself keeps tests' folders for a while
    os.environ["TMPDIR"] = tempfile.tempdir = str(own)
    atexit.register(shutil.rmtree, own, ignore_errors=True)


_keep_temporary_files_together()
botocore.session.create_loader = cache(botocore.session.create_loader)
# How long an example takes is this machine's affair, and no test's.
settings.register_profile("noria", deadline=None)
settings.load_profile("noria")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--points", default="2", help="tests/breaking: in how many ways to break each scene, or all")
    parser.addoption("--seed", type=int, default=0, help="tests/breaking: chooses them")


def pytest_sessionstart() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """What was imported and collected stays: looking through it for garbage, now and in each test, finds nothing."""
    gc.freeze()
    gc.enable()


class ByCloud(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in _CLOUDS if nodeid.startswith(folder)), nodeid.split("::", 1)[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByCloud:
    return ByCloud(config, log)
