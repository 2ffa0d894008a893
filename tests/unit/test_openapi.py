"""The OpenAPI document: valid, and of one mind with the check of requests."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from noria.openapi import openapi
from noria.prediction import NotUnderstoodError
from noria.spec import ModelSpec, Task, load_all
from tests.unit.test_prediction import GOOD, SPEC, body, check

MODELS = load_all(Path(__file__).resolve().parents[2] / "models")


def with_door(spec: ModelSpec, **door: Any) -> ModelSpec:
    return ModelSpec.model_validate(spec.model_dump(by_alias=True) | {"serve": {"front_door": door}})


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.model)
@pytest.mark.parametrize("task", Task)
def test_every_model_has_a_valid_document(spec: ModelSpec, task: Task) -> None:
    validate(openapi(spec.model_copy(update={"task": task}), url="https://example.com"))


def test_a_front_door_says_how_to_prove_who_asks() -> None:
    signed = openapi(with_door(SPEC))
    assert signed["components"]["securitySchemes"]["sigv4"]["x-amazon-apigateway-authtype"] == "awsSigv4"
    assert "401" not in signed["paths"]["/predict"]["post"]["responses"]

    issuer = {"issuer": "https://id.example.com/", "audience": ["flights"]}
    bearer = openapi(with_door(SPEC, auth=issuer))
    validate(bearer)
    assert bearer["security"] == [{"jwt": []}]
    scheme = bearer["components"]["securitySchemes"]["jwt"]
    assert scheme["openIdConnectUrl"] == "https://id.example.com/.well-known/openid-configuration"


@pytest.mark.parametrize(
    "change",
    [{}, {"temp": None}, {"hour": 24}, {"hour": 7.5}, {"hour": None}, {"carrier": "XX"}, {"origin": 5}, {"gate": 1}]
    + [{name: ...} for name in GOOD],
)
def test_the_document_and_the_check_agree(change: dict[str, Any]) -> None:
    row = {name: value for name, value in (GOOD | change).items() if value is not ...}
    document = openapi(SPEC)
    schema = {"$ref": "#/components/schemas/Request", "components": document["components"]}
    try:
        check.instances(body(row))
        understood = True
    except NotUnderstoodError:
        understood = False
    assert Draft202012Validator(schema).is_valid({"instances": [row]}) is understood
