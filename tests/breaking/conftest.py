"""A cloud to break, and what breaks it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from local.cloud import REGION, LocalCloud
from tests.breaking.delivery import REGISTRY_BUCKET, Lambda
from tests.breaking.report import Report
from tests.breaking.stage import Stage
from tests.integration.reactions.conftest import cloud, everything, place
from tests.integration.reactions.place import Place

__all__ = ["cloud", "everything", "place"]


@pytest.fixture(scope="session")
def functions(place: Place, cloud: LocalCloud, everything: None) -> Lambda:
    """Reactions that run in processes of their own."""
    place.s3.create_bucket(Bucket=REGISTRY_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return Lambda(place, Path(cloud.root) / "logs" / "functions.log")


@pytest.fixture
def stage(cloud: LocalCloud, functions: Lambda) -> Iterator[Stage]:
    yield Stage(cloud, functions)
    cloud.faults.clear()


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Write past pytest's capture, so that who waits sees how far it is."""
    capture = request.config.pluginmanager.get_plugin("capturemanager")

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    return line


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest, say: Callable[[str], None]) -> Iterator[Report]:
    about = request.module.__name__.rpartition("test_")[2]
    report = Report(about, say)
    yield report
    say(f"  {len(report.tried)} tried: {report.save()}")
