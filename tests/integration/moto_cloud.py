"""AWS's services as moto has them, in this process."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto import mock_aws


@contextmanager
def in_memory(monkeypatch: pytest.MonkeyPatch, region: str = "us-east-1") -> Iterator[None]:
    """Nothing of them outlives the block, and no account or cloud that the environment names is asked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    for name in ("AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_REGION", "NORIA_ENV"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        boto3.setup_default_session()
        yield
    boto3.setup_default_session()
