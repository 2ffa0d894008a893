"""How tests are spread over workers: a file stays together, and so does all that shares one cloud.

What AWS's services look like is read once by each of them, whichever session asks: it is most of what a client takes.
"""

from functools import cache

import botocore.session
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_CLOUDS = ("tests/integration/reactions/", "tests/breaking/")
"""Folders of which all files ask the same cloud."""


botocore.session.create_loader = cache(botocore.session.create_loader)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--points", default="2", help="tests/breaking: in how many ways to break each scene, or all")
    parser.addoption("--seed", type=int, default=0, help="tests/breaking: chooses them")


class ByCloud(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in _CLOUDS if nodeid.startswith(folder)), nodeid.split("::", 1)[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByCloud:
    return ByCloud(config, log)
