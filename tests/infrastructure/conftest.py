"""Synthesis takes seconds: each environment is synthesised once for all tests, by the worker that needs it first."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
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
train: {instance: ml.c5.xlarge, timeout: 30m, spot: true}
serve:
  {strategy: all_at_once, count: 1, instance: ml.c5.large, bake: 4m, capture: 0, front_door: {rate: 20, burst: 40},
   hours: {from: "08:00", to: 18:00}}
monitor:
  every: 30m
  when: 2 of 3
  labels: {coverage: 0.5}
  business: {turnover: {sql: SELECT sum(prediction) FROM predictions, min: 1, max: 1000000}}
retrain: {schedule: rate(7 days)}
approval: {mode: strict, approvers: 2, within: 14d, risk: high, max_age: 180d}
owner: {team: estates, page: oncall@example.com, notices: estates@example.com}
"""

BIAS = "bias: {origin: {disparate_impact: 0.8, equal_opportunity: 0.2, equalized_odds: 0.2}}"


WAYS = {
    "at-once": "{strategy: all_at_once, bake: 20m, termination_wait: 5m}",
    "canary": "{strategy: canary, count: 8, step: 25%, termination_wait: 30m}",
    "linear": """{strategy: linear, count: 4, step: 2, bake: 5m, hours:
  {days: MON-SAT, from: "06:30", to: 20:00, timezone: Europe/Madrid}}""",
    "rolling": """{strategy: rolling, count: 4, step: 25%, scale: {min: 4, max: 12, target: 600, in: 10m, schedule: [
  {at: "cron(0 7 ? * MON-FRI *)", min: 8, max: 12, timezone: Europe/Madrid},
  {at: "cron(0 20 ? * MON-FRI *)", min: 4, max: 12, timezone: Europe/Madrid}]}}""",
    "gradual": "{strategy: progressive, golden: 0, prediction_shift: null}",
    "queued": "{mode: async, count: 1, scale: {min: 0, max: 3, target: 5}}",
    "waiting": "{mode: async, count: 4, step: 2, scale: {min: 4, max: 6, target: 5}}",
    "idle": "{mode: serverless, serverless: {memory_mb: 3072, concurrency: 20}}",
    "silent": "{mode: serverless, capture: 0}",
    "nightly": "{mode: batch}",
}
"""The `serve` part of a model each, by the model's name: every mode, strategy and option, with it and without."""

WAY = """
model: {model}
task: regression
target: price
time: sold
features: {{rooms: {{type: integer}}}}
serve: {serve}
owner: {{team: estates}}
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models: one with nearly every default, served by canary; one that differs in each choice."""
    folder = tmp_path_factory.mktemp("models")
    shipped = (REPOSITORY / "models" / "flight-delay.yaml").read_text()
    watched = shipped.replace("monitor: {", f"monitor: {{{BIAS}, ")
    assert watched != shipped
    (folder / "flight-delay.yaml").write_text(watched)
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
def shared(worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a run see."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


def once(folder: Path, fill: Callable[[Path], object]) -> Path:
    """`folder`, filled by whoever asks first; others wait until it is."""
    done = folder.with_suffix(".done")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            fill(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def local(models: Path, shared: Path) -> Assembly:
    return Assembly(once(shared / "local", lambda out: synthesise("local", models=models, out=out)))


@pytest.fixture(scope="session")
def prod(models: Path, shared: Path) -> Assembly:
    return Assembly(once(shared / "prod", lambda out: synthesise("prod", models=models, out=out)))


@pytest.fixture(scope="session")
def twice(shared: Path) -> tuple[Path, Path]:
    """One cloud with a model for each of `WAYS`, synthesised by two processes that hash differently."""
    folder = once(shared / "ways", _synthesise_twice)
    return folder / "first", folder / "second"


def _synthesise_twice(folder: Path) -> None:
    (folder / "models").mkdir(parents=True)
    for model, serve in WAYS.items():
        (folder / "models" / f"{model}.yaml").write_text(WAY.format(model=model, serve=serve))
    context = CONTEXT | {"env": "dev", "models": str(folder / "models")}
    running = [
        subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=REPOSITORY,
            env=os.environ
            | {
                "CDK_OUTDIR": str(out),
                "CDK_CONTEXT_JSON": json.dumps(context),
                "CDK_DEFAULT_ACCOUNT": ACCOUNT,
                "CDK_DEFAULT_REGION": REGION,
                "PYTHONHASHSEED": seed,
            },
        )
        for out, seed in ((folder / "first", "1"), (folder / "second", "2"))
    ]
    assert [process.wait() for process in running] == [0, 0]


@pytest.fixture(scope="session")
def ways(twice: tuple[Path, Path]) -> Assembly:
    return Assembly(twice[0])


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
