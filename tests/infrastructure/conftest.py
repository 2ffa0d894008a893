"""Synthesis takes seconds: each environment is synthesised once, in this process, for all tests."""

from pathlib import Path

import aws_cdk
import pytest

from app import build
from noria.spec import ModelSpec, load_all
from tests.infrastructure.assembly import ACCOUNT, CONTEXT, REGION, REPOSITORY, Assembly

PRICES = """
model: house-prices
task: regression
target: price
time: sold
features: {rooms: {type: integer, min: 1}, district: {type: category}}
train: {instance: ml.c5.xlarge, timeout: 30m}
serve:
  {strategy: all_at_once, count: 1, instance: ml.c5.large, bake: 4m, capture: 0, front_door: {rate: 20, burst: 40}}
monitor: {every: 30m, when: 2 of 3}
retrain: {schedule: rate(7 days)}
owner: {team: estates, page: oncall@example.com}
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models: one with every default, served by canary; one that differs in each choice."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "flight-delay.yaml").write_text((REPOSITORY / "models" / "flight-delay.yaml").read_text())
    (folder / "house-prices.yaml").write_text(PRICES)
    return folder


def synthesise(env: str, *, models: Path, out: Path) -> Assembly:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDK_DEFAULT_ACCOUNT", ACCOUNT)
        patch.setenv("CDK_DEFAULT_REGION", REGION)
        app = aws_cdk.App(context=CONTEXT, outdir=str(out))
        build(app, env=env, models=models)
        app.synth()
    return Assembly(out)


@pytest.fixture(scope="session")
def local(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return synthesise("local", models=models, out=tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="session")
def prod(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return synthesise("prod", models=models, out=tmp_path_factory.mktemp("prod"))


@pytest.fixture(params=["local", "prod"])
def assembly(request: pytest.FixtureRequest) -> Assembly:
    """What is true of every environment."""
    synthesised: Assembly = request.getfixturevalue(request.param)
    return synthesised


@pytest.fixture(params=["flight-delay", "house-prices"])
def spec(request: pytest.FixtureRequest, models: Path) -> ModelSpec:
    return next(spec for spec in load_all(models) if spec.model == request.param)


@pytest.fixture
def name(assembly: Assembly, spec: ModelSpec) -> str:
    return f"noria-{assembly.env}-{spec.model}"
