"""A cloud of its own, with one model for each mode that has no instances, or answers through a queue."""

from collections.abc import Iterator

import pytest

from local.cloud import REPOSITORY, LocalCloud
from local.demo import flights
from local.demo.scenes import YEAR
from local.demo.story import Story
from local.demo.world import World
from local.deployment import deploy
from noria.ledger import Kind
from tests.e2e.conftest import Lines

SERVE = {
    "nightly": "{mode: batch}",
    "rare": "{mode: serverless, serverless: {memory_mb: 2048, concurrency: 2}}",
    "queued": "{mode: async, count: 2, strategy: canary, bake: 2m, termination_wait: 0m}",
}


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    """Each model trained on January, approved and live."""
    models, root = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("modes")
    for model, serve in SERVE.items():
        (models / f"{model}.yaml").write_text(described(model, serve))
    with LocalCloud(root=root, port=4592, time_scale=60) as cloud:
        deploy(cloud, models=models)
        story = Story(listener=Lines())
        with story.scene("every mode is live"):
            worlds = {model: World(cloud=cloud, model=model, story=story) for model in SERVE}
            for world in worlds.values():
                world.upload("2013-01.csv", flights.month(YEAR + 1))
            for world in worlds.values():
                trained = world.wait_for(Kind.TRAINING_SUCCEEDED, after=0, never=[Kind.TRAINING_FAILED], patience=300)
                world.noria(
                    "approve", str(trained.details["package"]), "--reason", "its gates passed", "--env", "local"
                )
            for world in worlds.values():
                world.wait_for(Kind.DEPLOYED, after=0, never=[Kind.DEPLOYMENT_FAILED, Kind.ROLLED_BACK])
        yield worlds


def described(model: str, serve: str) -> str:
    """The shipped model under another name, served otherwise, and trained on what is uploaded."""
    lines = (REPOSITORY / "models" / "flight-delay.yaml").read_text().splitlines()
    changed = {"model:": f"model: {model}", "serve:": f"serve: {serve}", "retrain:": "retrain: {after: [upload]}"}
    return "\n".join(next((new for old, new in changed.items() if line.startswith(old)), line) for line in lines) + "\n"


@pytest.fixture(scope="session")
def world(worlds: dict[str, World]) -> World:
    """In place of the demo's."""
    return worlds["nightly"]
