"""What a model's front door takes and answers, as OpenAPI 3.1: written from the model's spec alone."""

from typing import Any

from noria.prediction import CORRELATION_ID, MOST_ROWS
from noria.serve import Jwt
from noria.spec import Feature, FeatureType, ModelSpec, Task

PROBLEMS = {
    400: "The request was not understood; `errors` names rows and fields.",
    413: "More bytes or rows than are taken at a time.",
    415: "The body is not application/json.",
    429: "Too many requests: wait and send it again.",
    502: "The model failed.",
    503: "No version of the model can answer now: wait and send it again.",
    504: "The model did not answer in time.",
}
"""Answers other than 200, and what they mean."""

_OF_GATEWAY = {
    401: "No token, or not a valid one.",
    403: "No valid signature, or not permitted.",
}


def openapi(spec: ModelSpec, *, url: str | None = None) -> dict[str, Any]:
    """The OpenAPI document of a model; `url` is where its front door is, if that is known."""
    scheme, security = _security(spec)
    problems = PROBLEMS | {status: _OF_GATEWAY[status] for status in _refused_by_gateway(spec)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": spec.model,
            "version": "1",
            "description": f"Predicts {spec.target} ({spec.task.value}). Owned by {spec.owner.team}.",
        },
        **({"servers": [{"url": url}]} if url else {}),
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": f"Predictions of {spec.target} for 1 to {MOST_ROWS} rows",
                    "parameters": [
                        {
                            "name": "x-correlation-id",
                            "in": "header",
                            "description": "Joins the answer with logs, captured data and late labels (their "
                            "inference_id); made up and returned when left out.",
                            "schema": {"type": "string", "pattern": CORRELATION_ID},
                        }
                    ],
                    "requestBody": {"required": True, "content": _json("Request")},
                    "responses": {
                        "200": {
                            "description": "One prediction for each row, in their order.",
                            "headers": {"x-correlation-id": {"schema": {"type": "string"}}},
                            "content": _json("Answer"),
                        },
                        **{
                            str(status): {"description": meaning, "content": _problem(status)}
                            for status, meaning in sorted(problems.items())
                        },
                    },
                }
            },
            "/openapi.json": {
                "get": {
                    "operationId": "openapi",
                    "summary": "This document",
                    "responses": {
                        "200": {
                            "description": "OpenAPI 3.1",
                            "content": {"application/json": {"schema": {"type": "object"}}},
                        },
                    },
                }
            },
        },
        "components": {"schemas": _schemas(spec), "securitySchemes": {security: scheme}},
        "security": [{security: []}],
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _problem(status: int) -> dict[str, Any]:
    """What API Gateway refuses by itself has its own short form."""
    if status in _OF_GATEWAY or status == 429:
        return _json("Refusal")
    return {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _refused_by_gateway(spec: ModelSpec) -> tuple[int, ...]:
    return (401, 403) if _jwt(spec) else (403,)


def _jwt(spec: ModelSpec) -> Jwt | None:
    door = spec.serve.front_door
    return door.auth if door and isinstance(door.auth, Jwt) else None


def _security(spec: ModelSpec) -> tuple[dict[str, Any], str]:
    if jwt := _jwt(spec):
        discovery = f"{jwt.issuer.rstrip('/')}/.well-known/openid-configuration"
        return {"type": "openIdConnect", "openIdConnectUrl": discovery}, "jwt"
    # As API Gateway itself exports it.
    sigv4 = {"type": "apiKey", "name": "Authorization", "in": "header", "x-amazon-apigateway-authtype": "awsSigv4"}
    return sigv4, "sigv4"


def _schemas(spec: ModelSpec) -> dict[str, Any]:
    features = {name: _feature(feature) for name, feature in spec.features.items()}
    text: dict[str, Any] = {"type": "string"}
    return {
        "Request": _object(
            {
                "instances": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MOST_ROWS,
                    "items": {"$ref": "#/components/schemas/Row"},
                }
            }
        ),
        "Row": _object(features),
        "Answer": _object(
            {
                "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
                "variant": {**text, "description": "which variant of the endpoint answered"},
                "bundle": {"type": ["string", "null"], "description": "SHA-256 of the served model file"},
                "correlation_id": text,
            }
        ),
        "Prediction": _object(_prediction(spec.task)),
        "Problem": {
            "type": "object",
            "description": "RFC 9457",
            "required": ["title", "status"],
            "properties": {
                "type": text,
                "title": text,
                "status": {"type": "integer"},
                "detail": text,
                "correlation_id": text,
                "errors": {"type": "array", "items": {"$ref": "#/components/schemas/RowProblem"}},
            },
        },
        "RowProblem": {
            "type": "object",
            "required": ["problem"],
            "properties": {"row": {"type": "integer", "minimum": 0}, "field": text, "problem": text},
        },
        "Refusal": {"type": "object", "properties": {"message": text}},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with all of these and nothing else."""
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }


def _feature(feature: Feature) -> dict[str, Any]:
    category = feature.type is FeatureType.CATEGORY
    type_ = "string" if category else feature.type.value
    schema: dict[str, Any] = {"type": [type_, "null"] if feature.missing else type_}
    for keyword, bound in (("minimum", feature.min), ("maximum", feature.max)):
        if bound is not None:
            schema[keyword] = int(bound) if bound.is_integer() else bound
    if feature.values:
        schema["enum"] = [*feature.values, *([None] if feature.missing else [])]
    return schema


def _prediction(task: Task) -> dict[str, Any]:
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    if task is Task.REGRESSION:
        return {"prediction": {"type": "number"}}
    label = {"type": ["boolean", "integer", "string"]}
    if task is Task.BINARY:
        return {"prediction": label, "score": {**probability, "description": "of the positive class"}}
    scores = {"type": "object", "additionalProperties": probability, "description": "by label"}
    return {"prediction": label, "scores": scores}
