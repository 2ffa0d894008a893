"""What the expressions of a pipeline definition stand for."""

from typing import Any

import pytest

from local.sagemaker.expressions import Scope, Unresolvable, evaluate, holds, lookup, referenced_steps

PREPARED = {
    "ProcessingOutputConfig": {
        "Outputs": [
            {"OutputName": "train", "S3Output": {"S3Uri": "s3://bucket/train"}},
            {"OutputName": "test", "S3Output": {"S3Uri": "s3://bucket/test"}},
        ]
    }
}
EVALUATION = {"gate": {"passed": True}, "auc": [{"value": 0.71}], "reasons": []}


def properties(step: str) -> Any:
    if step != "Prepare":
        raise Unresolvable(f"step {step} did not run")
    return PREPARED


def read_json(uri: str) -> Any:
    if uri != "s3://bucket/evaluation.json":
        raise Unresolvable("NoSuchKey")
    return EVALUATION


SCOPE = Scope(
    parameters={"Depth": 3, "Rate": 0.1, "Verbose": True, "Name": "late"},
    execution={"PipelineExecutionId": "abc"},
    properties=properties,
    property_file=lambda step, name: f"s3://bucket/{name}.json",
    read_json=read_json,
)


def json_get(path: str, name: str = "evaluation") -> dict[str, Any]:
    return {"Std:JsonGet": {"PropertyFile": {"Get": f"Steps.Evaluate.PropertyFiles.{name}"}, "Path": path}}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ({"Get": "Parameters.Depth"}, 3),
        ({"Get": "Execution.PipelineExecutionId"}, "abc"),
        ({"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['test'].S3Output.S3Uri"}, "s3://bucket/test"),
        ({"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs[0].S3Output.S3Uri"}, "s3://bucket/train"),
        (
            {"Std:Join": {"On": "/", "Values": ["s3://b", {"Get": "Execution.PipelineExecutionId"}, "x"]}},
            "s3://b/abc/x",
        ),
        ({"Std:Join": {"On": " ", "Values": [{"Get": "Parameters.Verbose"}, 1, 0.5]}}, "true 1 0.5"),
        (json_get("gate.passed"), True),
        (json_get("auc[0].value"), 0.71),
        ({"Std:JsonGet": {"S3Uri": "s3://bucket/evaluation.json", "Path": "auc[0].value"}}, 0.71),
        ([{"a": {"Get": "Parameters.Name"}}, "b"], [{"a": "late"}, "b"]),
        ({"Get": "Parameters.Name", "Other": 1}, {"Get": "Parameters.Name", "Other": 1}),
    ],
)
def test_evaluates(expression: Any, value: Any) -> None:
    assert evaluate(expression, SCOPE) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({"Get": "Parameters.Width"}, r"Parameters\.Width"),
        ({"Get": "Steps.Train.ModelArtifacts"}, "step Train did not run"),
        ({"Get": "Steps.Prepare.Nothing"}, "there is no 'Nothing'"),
        ({"Get": "Somewhere.else"}, "unknown namespace Somewhere"),
        (json_get("gate.failed"), "gate.failed of s3://bucket/evaluation.json"),
        (json_get("gate.passed", name="missing"), "NoSuchKey"),
    ],
)
def test_says_what_cannot_be_resolved(expression: Any, message: str) -> None:
    with pytest.raises(Unresolvable, match=message):
        evaluate(expression, SCOPE)


@pytest.mark.parametrize(
    ("path", "value"),
    [("", {"a b": [[7]]}), ("$", {"a b": [[7]]}), ("['a b'][0][0]", 7), ('["a b"][0]', [7])],
)
def test_looks_up_paths(path: str, value: Any) -> None:
    assert lookup({"a b": [[7]]}, path) == value


def test_refuses_what_is_no_path() -> None:
    with pytest.raises(Unresolvable, match="is not a path"):
        lookup({"a": 1}, "a[")


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        ({"Type": "Equals", "LeftValue": json_get("gate.passed"), "RightValue": True}, True),
        (
            {"Type": "GreaterThan", "LeftValue": json_get("auc[0].value"), "RightValue": {"Get": "Parameters.Rate"}},
            True,
        ),
        ({"Type": "GreaterThanOrEqualTo", "LeftValue": 3, "RightValue": {"Get": "Parameters.Depth"}}, True),
        ({"Type": "LessThan", "LeftValue": 3, "RightValue": 3.0}, False),
        ({"Type": "LessThanOrEqualTo", "LeftValue": 3, "RightValue": 3.0}, True),
        ({"Type": "In", "QueryValue": {"Get": "Parameters.Name"}, "Values": ["early", "late"]}, True),
        ({"Type": "Not", "Expression": {"Type": "Equals", "LeftValue": 1, "RightValue": 1}}, False),
        (
            {
                "Type": "Or",
                "Conditions": [
                    {"Type": "Equals", "LeftValue": 1, "RightValue": 2},
                    {"Type": "Equals", "LeftValue": 1, "RightValue": 1},
                ],
            },
            True,
        ),
    ],
)
def test_decides(condition: dict[str, Any], outcome: bool) -> None:
    assert holds(condition, SCOPE) is outcome


@pytest.mark.parametrize("right", ["3", True, None])
def test_refuses_to_compare_kinds(right: Any) -> None:
    with pytest.raises(Unresolvable, match="cannot be compared"):
        holds({"Type": "GreaterThan", "LeftValue": 3, "RightValue": right}, SCOPE)


def test_finds_the_steps_that_a_value_refers_to() -> None:
    arguments = {
        "Conditions": [{"LeftValue": json_get("x"), "RightValue": {"Get": "Steps.Train['a'].b"}}],
        "IfSteps": [{"Arguments": {"Uri": {"Get": "Steps.Later.Uri"}}}],
        "Depth": {"Get": "Parameters.Depth"},
    }
    assert set(referenced_steps(arguments)) == {"Evaluate", "Train"}
