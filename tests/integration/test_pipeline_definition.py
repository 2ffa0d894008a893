"""The committed pipeline definition is what the SDK exports, and what SageMaker would accept step by step."""

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from pipelines.tabular.export import DEFINITION

REPOSITORY = DEFINITION.parents[2]
SDK = REPOSITORY / ".noria" / "sdk" / "bin" / "python"

PLACEHOLDERS = {
    "NORIA_ROLE_ARN": "arn:aws:iam::123456789012:role/pipeline",
    "NORIA_BUCKET": "noria-data",
    "NORIA_MODEL": "flight-delay",
    "NORIA_GROUP": "noria-dev-flight-delay",
    "NORIA_IMAGE": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.9-0-cpu-py3",
    "NORIA_SERVE_IMAGE": "123456789012.dkr.ecr.us-east-1.amazonaws.com/noria-serving:local",
    "NORIA_KEY_ARN": "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000",
    "NORIA_CODE_URI": "s3://assets/hash/sourcedir.tar.gz",
    "NORIA_CODE_HASH": "0" * 64,
    "NORIA_WHEELS_URI": "s3://assets/hash/wheels.tar.gz",
    "NORIA_SPEC_URI": "s3://assets/hash/spec.json",
    "NORIA_TRAIN_INSTANCE": "ml.m5.large",
    '"NORIA_TIMEOUT_SECONDS"': "3600",
}
"""As docs/architecture.md lists them."""

CREATES = {
    "Processing": ("CreateProcessingJob", {"ProcessingJobName": "job"}),
    "Training": ("CreateTrainingJob", {"TrainingJobName": "job"}),
    "RegisterModel": ("CreateModelPackage", {}),
}


def steps(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in found:
        yield step
        yield from steps([*step["Arguments"].get("IfSteps", []), *step["Arguments"].get("ElseSteps", [])])


@cache
def filled() -> dict[str, dict[str, Any]]:
    """Steps by name, placeholders filled in."""
    text = DEFINITION.read_text(encoding="utf-8")
    for placeholder in sorted(PLACEHOLDERS, key=len, reverse=True):
        text = text.replace(placeholder, PLACEHOLDERS[placeholder])
    return {step["Name"]: step for step in steps(json.loads(text)["Steps"])}


def resolved(value: Any) -> Any:
    """A value as an execution would compute it, every reference a word of its own."""
    match value:
        case {"Get": str(path)}:
            return f"s3://of/{path}" if path.startswith("Steps.") else path.rsplit(".", 1)[-1]
        case {"Std:Join": {"On": str(separator), "Values": list(values)}}:
            return separator.join(resolved(part) for part in values)
        case {"Std:JsonGet": {"Path": str(path)}}:
            return path
        case dict():
            return {name: resolved(part) for name, part in value.items()}
        case list():
            return [resolved(part) for part in value]
    return value


@pytest.mark.skipif(not SDK.exists(), reason="needs the SageMaker SDK: make sdk")
def test_the_committed_definition_is_what_the_sdk_exports() -> None:
    exported = subprocess.run(
        [str(SDK), "-m", "pipelines.tabular.export", "--stdout"],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout == DEFINITION.read_text(encoding="utf-8"), "run: make pipeline"


def test_the_placeholders_are_those_of_the_architecture() -> None:
    found = set(re.findall(r"NORIA_[A-Z_]+", DEFINITION.read_text(encoding="utf-8")))
    assert found == {name.strip('"') for name in PLACEHOLDERS}
    described = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert not [name for name in found if name not in described]


def test_the_steps_follow_each_other_as_drawn() -> None:
    assert list(filled()) == ["Prepare", "Train", "Evaluate", "Gate", "Register", "Refuse"]
    reads = {name: set(re.findall(r"Steps\.(\w+)\.", json.dumps(step["Arguments"]))) for name, step in filled().items()}
    assert reads["Prepare"] == set()
    assert reads["Train"] == {"Prepare"}
    assert reads["Evaluate"] == {"Prepare", "Train"}
    assert reads["Refuse"] == {"Evaluate"}


@pytest.mark.parametrize("name", ["Prepare", "Train", "Evaluate", "Register"])
def test_a_step_is_a_request_that_sagemaker_takes(name: str) -> None:
    step = filled()[name]
    operation, required = CREATES[step["Type"]]
    shape = botocore.session.get_session().get_service_model("sagemaker").operation_model(operation).input_shape
    assert shape is not None
    request = {**required, **resolved(step["Arguments"])}
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


def test_a_package_names_no_instances() -> None:
    """Endpoints run on some that CreateModelPackage refuses among those of transforms: Graviton's, ml.t2.medium."""
    specification = filled()["Register"]["Arguments"]["InferenceSpecification"]
    assert specification.keys() == {"Containers", "SupportedContentTypes", "SupportedResponseMIMETypes"}


@pytest.mark.parametrize("name", ["Prepare", "Train", "Evaluate"])
def test_a_job_is_isolated_encrypted_and_limited_in_time(name: str) -> None:
    arguments = resolved(filled()[name]["Arguments"])
    key = PLACEHOLDERS["NORIA_KEY_ARN"]
    resources = arguments.get("ResourceConfig") or arguments["ProcessingResources"]["ClusterConfig"]
    output = arguments.get("OutputDataConfig") or arguments["ProcessingOutputConfig"]
    assert resources["VolumeKmsKeyId"] == output["KmsKeyId"] == key
    assert {**arguments, **arguments.get("NetworkConfig", {})}["EnableNetworkIsolation"] is True
    assert arguments["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600}


@pytest.mark.parametrize("name", ["Prepare", "Evaluate"])
def test_the_entry_point_fits_sagemakers_limits(name: str) -> None:
    """At most 100 parts of 256 characters (API reference, AppSpecification)."""
    application = resolved(filled()[name]["Arguments"]["AppSpecification"])
    for part in ("ContainerEntrypoint", "ContainerArguments"):
        assert len(application[part]) <= 100
        assert max(map(len, application[part])) <= 256


def test_metadata_of_a_package_keeps_to_what_the_registry_takes() -> None:
    metadata = resolved(filled()["Register"]["Arguments"]["CustomerMetadataProperties"])
    assert set(metadata) == {
        "noria:training",
        "noria:dataset",
        "noria:code",
        "noria:execution",
        "noria:champion",
        "noria:baseline",
        "noria:golden",
        "noria:attribution",
        "noria:evaluation",
    }
    # The references that were not computed here stand for URIs, whose quotes and brackets are not in what they become.
    values = [re.sub(r"\['(\w+)'\]", r"\1", value) for value in metadata.values()]
    assert not [value for value in values if not re.fullmatch(r"[\w\s.:/=+\-@]{1,256}", value)]


def test_no_path_of_this_machine_and_no_region_is_in_the_definition() -> None:
    text = DEFINITION.read_text(encoding="utf-8")
    assert str(Path.home()) not in text
    assert str(REPOSITORY) not in text
    assert not re.findall(r"\b(?:us|eu|ap)-[a-z]+-\d\b", text)
