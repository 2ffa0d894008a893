"""A change that would replace or drop what holds data stops the build, and says what to do."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from noria.template import Assembly as Templates
from noria.template import Template
from stacks.stores import KEPT, listed, problems, renewed, stores
from tests.infrastructure.assembly import CONTEXT, REGION, REPOSITORY, Assembly


@pytest.mark.parametrize("env", ["local", "prod", "ways"])
def test_every_environment_has_the_stores_that_are_listed(env: str, request: pytest.FixtureRequest) -> None:
    assembly: Assembly = request.getfixturevalue(env)
    assert problems(Templates.read(assembly.directory)) == []


def test_what_cloudformation_cannot_change_in_place_is_compared() -> None:
    """Against the provider's own schemas, as cfn-lint brings them; DynamoDB's leaves out the keys, by its guide."""
    for type_, kept in KEPT.items():
        fixed = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, type_).schema.get("createOnlyProperties", [])
        assert {path.removeprefix("/properties/") for path in fixed} <= set(kept), type_


Change = Callable[[dict[str, Any]], None]


def _other_key(resources: dict[str, Any]) -> None:
    _of("AWS::DynamoDB::Table", resources)["Properties"]["KeySchema"][1]["AttributeName"] = "at"


def _other_bucket_name(resources: dict[str, Any]) -> None:
    buckets = (each for each in resources.values() if each["Type"] == "AWS::S3::Bucket")
    next(each for each in buckets if "-data-" in str(each["Properties"].get("BucketName")))["Properties"][
        "BucketName"
    ] = "elsewhere"


def _other_encryption(resources: dict[str, Any]) -> None:
    _of("AWS::DynamoDB::Table", resources)["Properties"]["SSESpecification"]["KMSMasterKeyId"] = "alias/aws/dynamodb"


def _other_path(resources: dict[str, Any]) -> None:
    id_ = next(id_ for id_, each in resources.items() if each["Type"] == "AWS::DynamoDB::Table")
    resources["LedgerMoved"] = resources.pop(id_)


def _of(type_: str, resources: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in resources.values() if each["Type"] == type_)
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_other_key, "KeySchema was"),
        (_other_bucket_name, "elsewhere"),
        (_other_encryption, "SSESpecification was"),
        (_other_path, "would be deleted, or replaced"),
    ],
)
def test_a_store_that_would_be_replaced_is_named_with_what_to_do(prod: Assembly, change: Change, says: str) -> None:
    read = Templates.read(prod.directory)
    (foundation,) = (each for each in read.templates if each.stack == "noria-prod-foundation")
    body = copy.deepcopy(dict(foundation.body))
    change(body["Resources"])
    found = problems(Templates((Template(foundation.stack, body),), read.region))
    assert any(says in problem and "python -m stacks.stores" in problem for problem in found), found
    assert all(name.startswith("noria-prod-foundation: foundation/") for name in found)


def _of_models(*groups: tuple[str, str], region: str = REGION) -> Templates:
    """Stacks of models by the names of their groups of packages, which are what they hold."""
    return Templates(
        tuple(
            Template(
                f"noria-dev-{model}-training",
                {
                    "Resources": {
                        "Packages": {
                            "Type": "AWS::SageMaker::ModelPackageGroup",
                            "Properties": {
                                "ModelPackageGroupName": group,
                                "ModelPackageGroupDescription": f"Candidates and champions of {model}",
                                "Tags": [{"Key": "noria:model", "Value": model}],
                            },
                        }
                    }
                },
            )
            for model, group in groups
        ),
        region,
    )


@pytest.mark.parametrize("model", ["churn-2", "churn-eu-1", "demand-eu-west-1", "a-1"])
def test_a_model_may_be_called_like_a_region(model: str) -> None:
    assert problems(_of_models((model, f"noria-dev-{model}"), region="eu-west-1")) == []


@pytest.mark.parametrize("wrong", ["first", "middle", "last"])
def test_the_stores_of_each_model_are_compared(wrong: str) -> None:
    groups = [(model, "elsewhere" if model == wrong else f"noria-dev-{model}") for model in ("first", "middle", "last")]
    (problem,) = problems(_of_models(*groups))
    assert problem.startswith(f"noria-dev-{wrong}-training: training/Packages: ModelPackageGroupName was")
    lost = _of_models(*((model, f"noria-dev-{model}") for model in ("first", "middle", "last")))
    for template in lost.templates:
        if template.model == wrong:
            template.body["Resources"].clear()
    (problem,) = problems(lost)
    assert problem.startswith(f"noria-dev-{wrong}-training: training/Packages: ")
    assert "would be deleted" in problem


def test_a_store_that_nobody_listed_is_named(prod: Assembly) -> None:
    known = {name: store for name, store in listed().items() if "Data" not in name}
    (problem,) = problems(Templates.read(prod.directory), known)
    assert "AWS::S3::Bucket holds data and is not in stacks/stores.yaml" in problem


def test_a_list_written_anew_keeps_what_only_other_environments_have(prod: Assembly) -> None:
    known = listed()
    optional = {name for name, store in known.items() if store.get("optional")}
    assert any("Trail" in name for name in optional)
    found = stores(Templates.read(prod.directory))
    assert optional.isdisjoint(found)  # a trail is switched on in settings
    assert renewed(known, found) == known
    assert renewed(known, found | {"foundation/New": {"type": "AWS::S3::Bucket"}}).keys() - known.keys() == {
        "foundation/New"
    }


def test_the_synth_of_a_changed_key_schema_fails_and_with_it_the_deployment(tmp_path: Path) -> None:
    """As somebody would do it who edits stacks/foundation.py: the app is run as the CDK runs it."""
    (tmp_path / "models").mkdir()
    edited = (
        "import aws_cdk.aws_dynamodb as d; real = d.Attribute\n"
        "d.Attribute = lambda name, type: real(name='at' if name == 'sk' else name, type=type)\n"
        "import app; app.main()"
    )
    context = CONTEXT | {"env": "dev", "models": str(tmp_path / "models")}
    environment = {"CDK_OUTDIR": str(tmp_path / "out"), "CDK_CONTEXT_JSON": json.dumps(context)}
    run = subprocess.run(
        [sys.executable, "-c", edited],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "foundation/Ledger" in run.stderr
    assert "KeySchema was" in run.stderr
    assert "move the data first" in run.stderr
