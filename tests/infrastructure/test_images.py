"""Which images a model's containers run, for each choice that a spec has."""

import json
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App, CfnOutput, Environment, Stack

from noria.spec import ModelSpec, load_all
from stacks.images import images_of
from stacks.settings import Target
from tests.infrastructure.assembly import ACCOUNT, REGION, REPOSITORY
from tests.infrastructure.conftest import synthesise

SPEC = {
    "model": "example",
    "task": "regression",
    "target": "y",
    "time": "at",
    "features": {"x": {"type": "number"}},
    "owner": {"team": "team"},
}
OWN = "222222222222.dkr.ecr.eu-west-1.amazonaws.com/team/model:1.2"
AWS = f"683313688378.dkr.ecr.{REGION}.amazonaws.com/sagemaker-scikit-learn:1.9-0-cpu-py3"
CHOICES: dict[str, tuple[Target, dict[str, Any]]] = {
    "noria": ("aws", {}),
    "graviton": ("aws", {"serve": {"instance": "ml.m8g.large"}}),
    "gpu": ("aws", {"serve": {"instance": "ml.g5.xlarge"}}),
    "serverless": ("aws", {"serve": {"mode": "serverless", "instance": "ml.m8g.large"}}),
    "local": ("local", {}),
    "aws": ("aws", {"serve": {"server": "aws"}}),
    "own": ("aws", {"image": OWN}),
    "own-local": ("local", {"image": OWN}),
}


class Synthesised:
    """A stack for each choice, with its images as outputs."""

    def __init__(self, folder: Path) -> None:
        app = App(outdir=str(folder))
        for name, (target, change) in CHOICES.items():
            stack = Stack(app, name, env=Environment(account=ACCOUNT, region=REGION))
            images = images_of(ModelSpec.model_validate({**SPEC, **change}), stack, target)
            for part in ("jobs", "serving"):
                CfnOutput(stack, part, value=getattr(images, part).uri)
            CfnOutput(stack, "repositories", value=" ".join(images.repository_arns))
        app.synth()
        self._folder = folder

    def outputs(self, name: str) -> dict[str, str]:
        template = json.loads((self._folder / f"{name}.template.json").read_text())
        return {output: _text(part["Value"]) for output, part in template["Outputs"].items()}

    def built(self, name: str) -> list[dict[str, Any]]:
        """Docker images that a deployment builds."""
        assets = json.loads((self._folder / f"{name}.assets.json").read_text())
        return [image["source"] for image in assets["dockerImages"].values()]


def _text(value: Any) -> str:
    """A value with what CloudFormation fills in, as it is in the tests' region."""
    match value:
        case {"Fn::Join": [separator, list(parts)]}:
            return str(separator).join(map(_text, parts))
        case {"Ref": "AWS::URLSuffix"} | {"Fn::Sub": "${AWS::URLSuffix}"}:
            return "amazonaws.com"
        case {"Ref": "AWS::Partition"}:
            return "aws"
        case {"Fn::Sub": str(text)}:
            return text.replace("${AWS::URLSuffix}", "amazonaws.com").replace("${AWS::Partition}", "aws")
    return str(value)


def test_the_example_with_its_own_image_and_a_gpu_is_a_whole_cloud(tmp_path: Path) -> None:
    assembly = synthesise("dev", models=REPOSITORY / "models" / "examples", out=tmp_path)
    (spec,) = load_all(REPOSITORY / "models" / "examples")
    name = f"noria-dev-{spec.model}"
    pipeline = assembly[f"{name}-training"].one("AWS::SageMaker::Pipeline")
    definition = json.dumps(pipeline.properties["PipelineDefinition"])
    assert definition.count(str(spec.image)) == 5, "three jobs, and both of what the evaluation may choose"
    assert "sagemaker-scikit-learn" not in definition
    config = assembly[f"{name}-serving"].one("AWS::SageMaker::EndpointConfig")
    assert config.properties["ProductionVariants"][0]["InstanceType"] == "ml.g5.xlarge"
    assert assembly.findings == []


@pytest.fixture(scope="module")
def synthesised(tmp_path_factory: pytest.TempPathFactory) -> Synthesised:
    return Synthesised(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("noria", "linux/amd64"),
        ("graviton", "linux/arm64"),
        ("gpu", "linux/amd64"),
        ("serverless", "linux/amd64"),  # has no instance, whatever the spec names
    ],
)
def test_noria_server_is_built_for_the_instances_processor(synthesised: Synthesised, name: str, platform: str) -> None:
    (image,) = synthesised.built(name)
    assert image["platform"] == platform
    outputs = synthesised.outputs(name)
    assert outputs["jobs"] == AWS
    repository = f"cdk-hnb659fds-container-assets-{ACCOUNT}-{REGION}"
    assert outputs["serving"].startswith(f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{repository}:")
    assert outputs["repositories"].split() == [
        f"arn:aws:ecr:{REGION}:683313688378:repository/sagemaker-scikit-learn",
        f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{repository}",
    ]


@pytest.mark.parametrize(
    ("name", "jobs", "serving", "repositories"),
    [
        ("aws", AWS, AWS, [f"arn:aws:ecr:{REGION}:683313688378:repository/sagemaker-scikit-learn"]),
        ("own", OWN, OWN, ["arn:aws:ecr:eu-west-1:222222222222:repository/team/model"]),
        ("own-local", OWN, OWN, ["arn:aws:ecr:eu-west-1:222222222222:repository/team/model"]),
        (
            "local",
            AWS,
            f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/noria-serving:local",
            [
                f"arn:aws:ecr:{REGION}:683313688378:repository/sagemaker-scikit-learn",
                f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/noria-serving",
            ],
        ),
    ],
)
def test_no_other_choice_needs_docker(
    synthesised: Synthesised, name: str, jobs: str, serving: str, repositories: list[str]
) -> None:
    assert synthesised.built(name) == []
    outputs = synthesised.outputs(name)
    assert (outputs["jobs"], outputs["serving"]) == (jobs, serving)
    assert outputs["repositories"].split() == repositories
