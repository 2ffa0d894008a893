"""Unit tests talk to nobody, and share the processors with other workers."""

import os
from collections.abc import Iterator

import boto3
import pytest
from pytest_socket import disable_socket, enable_socket

# scikit-learn's threads spin while they wait for each other, which takes two thirds of the time of small models where
# another worker has the other processor. OpenMP reads this when it is loaded.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # In a run of all tests, the integration tests' local cloud may still be what the environment names.
    for name in [name for name in os.environ if name.startswith(("AWS_", "NORIA_"))]:
        monkeypatch.delenv(name)
    # A handler that was imported has left a session that keeps its clients, with what other tests did to them.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
