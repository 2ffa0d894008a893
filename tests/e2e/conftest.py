"""One cloud for all end-to-end tests: started, bootstrapped and deployed as `make demo` does it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.cloud import REPOSITORY, LocalCloud
from local.demo.control import CONTROL, Control
from local.demo.scenes import Play
from local.demo.story import Check, Scene, Story
from local.demo.world import Pager, World
from local.deployment import deploy
from local.privileges import Deployment
from noria import spec
from tests.e2e import ways


class Lines:
    """A `story.Listener` that prints what pytest shows when a test fails."""

    def scene_started(self, scene: Scene) -> None:
        print(f"{scene.number} {scene.title}")  # noqa: T201

    def waiting_for(self, scene: Scene, text: str) -> None:
        print(f"  … {text}")  # noqa: T201

    def checked(self, scene: Scene, check: Check) -> None:
        print(f"  ✓ {check.seconds:.1f} s {check.text}: {check.detail}")  # noqa: T201

    def scene_ended(self, scene: Scene) -> None:
        print(f"  {scene.seconds:.1f} s {scene.failure or ''}")  # noqa: T201


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the specs that are deployed."""
    return str(ways.write(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="session")
def world(models: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root: Path = tmp_path_factory.mktemp("cloud")
    with LocalCloud(root=root, port=4590, time_scale=60) as cloud:
        deploy(cloud, models=Path(models))
        yield World(cloud=cloud, model="flight-delay", story=Story(listener=Lines()))


@pytest.fixture(scope="session", autouse=True)
def deployment(world: World) -> Deployment:
    """What was deployed, before a test removes it again."""
    return Deployment.of(world.cloud, world.client("cloudformation"))


@pytest.fixture(scope="session")
def play(world: World) -> Play:
    return Play(
        world=world,
        spec=spec.load(REPOSITORY / "models" / "flight-delay.yaml"),
        pager=Pager(world),
        sample_rows=1000,
    )


@pytest.fixture(scope="session")
def control(world: World, play: Play) -> Control:
    return Control(world=World(cloud=world.cloud, model=CONTROL, story=world.story), play=play)


@pytest.fixture(autouse=True)
def _scene(world: World, request: pytest.FixtureRequest) -> Iterator[None]:
    with world.story.scene(request.node.name):
        yield
