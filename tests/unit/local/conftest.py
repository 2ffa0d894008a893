"""A cloud without a cloud: it runs things and hears events, and its services are what a test puts in."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest


@dataclass
class CloudInMemory:
    """The part of `local.sagemaker.cloud.Cloud` that needs no process and no network."""

    clients: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def scaled(self, seconds: float) -> float:
        return seconds / 1000

    def arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:eu-west-1:123456789012:{kind}/{name}"

    def emit(self, detail_type: str, detail: Mapping[str, Any], resources: Iterable[str]) -> None:
        assert list(resources)
        self.events.append((detail_type, dict(detail)))

    def client(self, service: str, role_arn: str | None = None) -> Any:
        assert role_arn is not None, "pipelines act as their role"
        return self.clients[service]

    def run(self, action: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=action, name=name, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def cloud() -> CloudInMemory:
    return CloudInMemory()
