"""The cloud as a whole: what is synthesised, from what, and whether the scanners accept it."""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aws_cdk
import pytest
import yaml
from aws_cdk import aws_s3 as s3
from cdk_nag import AwsSolutionsChecks

from app import build
from noria.spec import SpecError, load_all
from noria.watch import LOOK_BACK, ExpectedLabels, Monitor
from stacks.settings import ENVIRONMENTS
from tests.infrastructure.assembly import CONTEXT, REGION, REPOSITORY, Assembly
from tests.infrastructure.conftest import WAY, WAYS, synthesise

CLOUDFORMATION_LIMIT = 500  # resources of a stack
TEMPLATE_LIMIT = 1_000_000  # bytes of a template in S3


def test_an_environment_has_three_stacks_and_each_model_three_or_with_a_front_door_four(local: Assembly) -> None:
    of_models = {
        f"noria-local-{model}-{part}"
        for model in ("flight-delay", "house-prices")
        for part in ("training", "serving", "monitoring")
    }
    of_all = {f"noria-local-{part}" for part in ("foundation", "reactions", "roles")}
    assert set(local.templates) == of_all | of_models | {"noria-local-house-prices-front-door"}


def test_no_stack_comes_near_the_limits_of_cloudformation(prod: Assembly) -> None:
    for template in prod.templates.values():
        assert 0 < len(template.resources) < CLOUDFORMATION_LIMIT / 2
    assert all(path.stat().st_size < TEMPLATE_LIMIT / 2 for path in prod.directory.glob("*.template.json"))


@pytest.mark.parametrize("env", ["local", "prod", "ways"])
def test_cdk_nag_and_the_cdk_find_nothing(env: str, request: pytest.FixtureRequest) -> None:
    assembly: Assembly = request.getfixturevalue(env)
    assert assembly.findings == []


def test_cdk_nag_would_find_something() -> None:
    app = aws_cdk.App(context=CONTEXT)
    s3.Bucket(aws_cdk.Stack(app, "Careless"), "Bucket")
    report = AwsSolutionsChecks(app).validate_scope(app)
    assert {violation.rule_name for violation in report.violations} >= {"AwsSolutions-S1", "AwsSolutions-S10"}


@pytest.mark.parametrize(
    ("env", "stacks"), [("local", "*.template.json"), ("prod", "*.template.json"), ("ways", "*-serving.template.json")]
)
def test_cfn_lint_accepts_every_template(env: str, stacks: str, request: pytest.FixtureRequest) -> None:
    assembly: Assembly = request.getfixturevalue(env)
    templates = sorted(str(path) for path in assembly.directory.glob(stacks))
    assert templates
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--regions", REGION, "--", *templates]
    lint = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout) == (0, "")


def test_two_synths_are_the_same_to_the_last_byte(twice: tuple[Path, Path]) -> None:
    first, second = ({p.relative_to(o): p.read_bytes() for p in o.rglob("*") if p.is_file()} for o in twice)
    assert first.keys() == second.keys()
    assert [str(name) for name in first if first[name] != second[name]] == []


def test_a_synth_without_account_or_region_leaves_them_to_the_deployment(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("CDK_DEFAULT_ACCOUNT", "CDK_DEFAULT_REGION"):
        monkeypatch.delenv(variable, raising=False)
    app = aws_cdk.App(context=CONTEXT, outdir=str(tmp_path))
    build(app, env="dev", models=models)
    app.synth()
    assembly = Assembly(tmp_path)
    assert assembly.findings == []
    mapping = assembly["noria-dev-flight-delay-training"].body["Mappings"]
    assert mapping["Registries"]["eu-west-1"] == {"account": "141502667606"}


def test_a_spec_that_is_wrong_stops_the_synth_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("model: wrong\ntask: divination\n")
    with pytest.raises(SpecError, match=r"wrong\.yaml:2: task = 'divination'"):
        build(aws_cdk.App(), env="dev", models=tmp_path)


def test_a_business_metric_that_cannot_be_asked_stops_the_synth(tmp_path: Path) -> None:
    shipped = (REPOSITORY / "models" / "flight-delay.yaml").read_text()
    wrong = "\n  business: {cost: {sql: SELECT sum(delay) FROM predictions}}\n"
    asked = re.sub(r"^monitor: .*$", f"monitor:{wrong}", shipped, flags=re.MULTILINE)
    (tmp_path / "flight-delay.yaml").write_text(asked)
    with pytest.raises(SpecError, match=r"flight-delay: monitor\.business\.cost\.sql: .*\"delay\".*write one SELECT"):
        build(aws_cdk.App(), env="dev", models=tmp_path)


def test_what_an_environment_does_not_keep_long_enough_stops_the_synth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = (REPOSITORY / "models" / "flight-delay.yaml").read_text()
    waiting = shipped.replace("labels: {", "labels: {within: 40d, ")
    (tmp_path / "flight-delay.yaml").write_text(waiting)
    monkeypatch.setitem(ENVIRONMENTS, "dev", replace(ENVIRONMENTS["dev"], captured_days=79))
    with pytest.raises(SpecError, match=r"flight-delay: monitor\.labels\.within = 40d: .* dev keeps .* 79d: lower it"):
        build(aws_cdk.App(), env="dev", models=tmp_path)


@pytest.mark.parametrize("env", sorted(ENVIRONMENTS))
def test_every_environment_keeps_what_the_slowest_labels_need(env: str, models: Path) -> None:
    slowest = next(iter(load_all(models))).model_copy(
        update={"monitor": Monitor(labels=ExpectedLabels(within=LOOK_BACK / 2))}
    )
    assert list(ENVIRONMENTS[env].problems(slowest)) == []


def test_models_whose_alarms_would_be_mixed_up_stop_the_synth(tmp_path: Path) -> None:
    for model in ("x", "x-prediction", "x-challenger"):
        (tmp_path / f"{model}.yaml").write_text(WAY.format(model=model, serve=WAYS["idle"]))
    with pytest.raises(SpecError) as mixed:
        build(aws_cdk.App(context=CONTEXT), env="local", models=tmp_path)
    assert "models 'x' and 'x-prediction' would both have an alarm noria-local-x-prediction-drift" in str(mixed.value)
    assert "the name of model 'x-prediction' begins with that of model 'x', whose permissions would reach it" in str(
        mixed.value
    )
    assert "alarm noria-local-x-challenger-drift of model 'x-challenger' would be taken for" in str(mixed.value)


def test_an_unknown_environment_is_refused_with_those_that_exist(models: Path) -> None:
    with pytest.raises(ValueError, match=r"no environment 'test'.*local\|dev\|staging\|prod"):
        build(aws_cdk.App(), env="test", models=models)


def test_without_models_there_is_an_environment_to_add_one_to(tmp_path: Path) -> None:
    app = aws_cdk.App(context=CONTEXT)
    build(app, env="dev", models=tmp_path)
    assert {child.node.id for child in app.node.children} >= {"Foundation", "Reactions"}


@pytest.mark.parametrize(("env", "protected"), [("local", False), ("prod", True)])
def test_only_prod_is_protected_from_deletion(env: str, protected: bool, request: pytest.FixtureRequest) -> None:
    assembly: Assembly = request.getfixturevalue(env)
    assert {assembly.is_protected(stack) for stack in assembly.templates} == {protected}


def test_what_models_import_is_exported_whether_one_imports_it_or_not(tmp_path: Path) -> None:
    """Else the deployment after the last model's removal would delete an export that is still in use."""

    def exports(folder: str, *specs: Mapping[str, Any]) -> dict[str, set[str]]:
        (tmp_path / folder).mkdir()
        for spec in specs:
            (tmp_path / folder / f"{spec['model']}.yaml").write_text(yaml.safe_dump(spec))
        assembly = synthesise("dev", models=tmp_path / folder, out=tmp_path / f"{folder}.out")
        shared = ("noria-dev-foundation", "noria-dev-reactions")
        return {name: set(assembly[name].body.get("Outputs", {})) for name in shared}

    spec = yaml.safe_load((REPOSITORY / "models" / "flight-delay.yaml").read_text())
    spec["serve"] |= {"hours": {"from": "07:00", "to": "20:00"}}
    assert exports("one", spec) == exports("none")
