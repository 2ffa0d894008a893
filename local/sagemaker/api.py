"""The wire of our services: AWS JSON 1.1, checked against botocore's models on the way in and on the way out."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StringShape, StructureShape
from botocore.utils import parse_to_aware_datetime
from botocore.validate import ParamValidator

from local.ministack import Permission, Request, Response, caller
from local.sagemaker.authorization import permissions

logger = logging.getLogger("noria.sagemaker")

Document = dict[str, Any]


CALLER: ContextVar[Mapping[str, str]] = ContextVar("caller")
"""Who signed the request that is answered, as `IamIdentity` tells it."""


class Problem(Exception):
    """An error that the caller gets, under its AWS code."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def invalid(message: str) -> Problem:
    return Problem("ValidationException", message)


def not_found(message: str) -> Problem:
    return Problem("ResourceNotFound", message)


class Api:
    """The service `sagemaker`, or another that speaks the same.

    A part is any object; the operation `CreateModelPackage` goes to the part that has a method
    `create_model_package`, called with the request as botocore would type it (timestamps are `datetime`) and returning
    the response. Members that are None are left out of the response. `permissions` tells what a caller needs for an
    operation and its request.
    """

    def __init__(
        self,
        parts: list[object],
        *,
        service: str = "sagemaker",
        permissions: Callable[[str, Document], list[Permission]] = permissions,
    ) -> None:
        self.name = self.signing_name = service
        self._model = service_model(service)
        self._permissions = permissions
        self._methods = {
            name: method
            for operation in self._model.operation_names
            for name in [xform_name(operation)]
            for part in parts
            if (method := getattr(part, name, None)) is not None
        }

    def claims(self, request: Request) -> bool:
        return request.headers.get("x-amz-target", "").startswith(f"{self._model.metadata['targetPrefix']}.")

    def permissions(self, request: Request) -> list[Permission]:
        return self._permissions(_operation_name(request), _body(request))

    def handle(self, request: Request) -> Response:
        CALLER.set(caller(request))
        try:
            return Response(200, json.dumps(self.call(_operation_name(request), _body(request))).encode(), _JSON)
        except Problem as problem:
            body = {"__type": problem.code, "message": problem.message}
            return Response(problem.status, json.dumps(body).encode(), _JSON)

    def call(self, operation: str, request: Document) -> Document:
        """Answer one operation, JSON in and JSON out. Raises `Problem`."""
        method: Callable[[Document], Document] | None = self._methods.get(xform_name(operation))
        if method is None:
            name = self._model.service_id
            raise Problem("UnknownOperationException", f"The local {name} does not implement {operation}.")
        model = self._model.operation_model(operation)
        if model.input_shape is not None:
            check(request, model.input_shape)
            request = _from_wire(request, model.input_shape)
        return _answer(method(request), model)


_JSON = {"Content-Type": "application/x-amz-json-1.1"}


@cache
def service_model(service: str = "sagemaker") -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


def _operation_name(request: Request) -> str:
    return request.headers.get("x-amz-target", "").rpartition(".")[2]


def _body(request: Request) -> Document:
    try:
        body = json.loads(request.body or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _answer(response: Document, operation: OperationModel) -> Document:
    shape = operation.output_shape
    if shape is None:
        return {}
    response = _without_none(response)
    report = ParamValidator().validate(_OMITTED.get(operation.name, {}) | response, shape)
    if report.has_errors():
        logger.error("%s answered wrongly: %s", operation.name, report.generate_report())
        raise Problem("InternalFailure", f"{operation.name}: {report.generate_report()}", 500)
    answer: Document = _to_wire(response, shape)
    return answer


# What the model requires of an answer and SageMaker leaves out: a version has a group and a number, and no name.
_OMITTED = {"DescribeModelPackage": {"ModelPackageName": "none"}}


# --- validation


def check(value: Any, shape: Shape) -> None:
    """Refuse what SageMaker would: wrong types, missing or unknown members, and values outside their constraints."""
    report = ParamValidator().validate(value, shape)
    if report.has_errors():
        raise invalid(report.generate_report())
    problems = list(_violations(value, shape, ""))
    if problems:
        noun = "error" if len(problems) == 1 else "errors"
        raise invalid(f"{len(problems)} validation {noun} detected: {'; '.join(problems)}")


def _violations(value: Any, shape: Shape, at: str) -> Iterator[str]:
    """What ParamValidator leaves unchecked: maxima, patterns and enumerations."""
    limit = shape.metadata.get("max")
    size = len(value) if isinstance(value, str | list | dict) else value
    if limit is not None and isinstance(size, int | float) and size > limit:
        measure = "value" if size is value else "length"
        yield _violation(value, at, f"Member must have {measure} less than or equal to {limit}")
    match shape:
        case StringShape():
            if shape.enum and value not in shape.enum:
                yield _violation(value, at, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
            pattern = shape.metadata.get("pattern")
            if pattern and not _compiled(pattern).fullmatch(value):
                yield _violation(value, at, f"Member must satisfy regular expression pattern: {pattern}")
        case StructureShape():
            for name, member in value.items():
                yield from _violations(member, shape.members[name], f"{at}.{name}".lstrip("."))
        case ListShape():
            for index, member in enumerate(value, start=1):
                yield from _violations(member, shape.member, f"{at}.{index}.member")
        case MapShape():
            for key, member in value.items():
                yield from _violations(key, shape.key, f"{at}.key")
                yield from _violations(member, shape.value, f"{at}.{key}.value")


def _violation(value: Any, at: str, constraint: str) -> str:
    return f"Value '{value}' at '{at[:1].lower()}{at[1:]}' failed to satisfy constraint: {constraint}"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """The models' patterns are Java's."""
    for java, python in _JAVA_TO_PYTHON.items():
        pattern = pattern.replace(java, python)
    return re.compile(pattern, re.DOTALL)


_JAVA_TO_PYTHON = {
    # Unicode properties, which Python's expressions lack; symbols and punctuation are close to "not a word character".
    r"\p{L}": r"\w",
    r"\p{M}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Z}": r"\s",
    r"\p{S}": r"\W",
    r"\p{P}": r"\W",
    r"\p{Alnum}": "0-9A-Za-z",
    r"[\p{Print}]": "[ -~]",
    r"\p{ASCII}": r"[\x00-\x7f]",
    r"\z": r"\Z",
    r"\p{Print}": "[ -~]",
    r"\uD800\uDC00-\uDBFF\uDFFF": "\U00010000-\U0010ffff",
    # A repeated end of line, as in the pattern of package metadata: Java allows it, and it means nothing.
    "${1,128}": "$",
    "${1,256}": "$",
}


# --- wire types


def _from_wire(value: Any, shape: Shape) -> Any:
    return _mapped(value, shape, {"timestamp": parse_to_aware_datetime})


def _to_wire(value: Any, shape: Shape) -> Any:
    return _mapped(value, shape, {"timestamp": lambda moment: _utc(moment).timestamp()})


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _mapped(value: Any, shape: Shape, convert: dict[str, Callable[[Any], Any]]) -> Any:
    match shape:
        case StructureShape():
            return {name: _mapped(member, shape.members[name], convert) for name, member in value.items()}
        case ListShape():
            return [_mapped(member, shape.member, convert) for member in value]
        case MapShape():
            return {key: _mapped(member, shape.value, convert) for key, member in value.items()}
    return convert[shape.type_name](value) if shape.type_name in convert else value


def _without_none(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_none(member) for key, member in value.items() if member is not None}
        case list():
            return [_without_none(member) for member in value]
    return value
