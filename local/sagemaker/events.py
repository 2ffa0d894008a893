"""How SageMaker's events write moments, which differs by their kind.

Source: SageMaker guide, `automating-sagemaker-with-eventbridge`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from local.sagemaker.api import Document


def instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso(document: Document) -> Document:
    """As model packages and pipelines do: `2021-02-24T17:00:14Z`."""
    return _moments(document, instant)


def milliseconds(document: Document) -> Document:
    """As jobs and endpoints do: milliseconds since the epoch."""
    return _moments(document, lambda moment: int(moment.timestamp() * 1000))


def _moments(document: Document, render: Callable[[datetime], Any]) -> Document:
    def rendered(value: Any) -> Any:
        match value:
            case datetime():
                return render(value)
            case dict():
                return {key: rendered(member) for key, member in value.items()}
            case list():
                return [rendered(member) for member in value]
        return value

    return {key: rendered(value) for key, value in document.items()}
