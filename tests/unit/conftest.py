"""Unit tests talk to nobody."""

import os
from collections.abc import Iterator

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # In a run of all tests, the integration tests' local cloud may still be what the environment names.
    for name in [name for name in os.environ if name.startswith(("AWS_", "NORIA_"))]:
        monkeypatch.delenv(name)
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
