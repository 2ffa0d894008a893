"""Everything this project knows about the inside of MiniStack 1.5.33; no other module imports it.

    register_service      a service of ours beside MiniStack's, authorised by IAM like them
    register_policies     policies of their own for the resources of such a service
    caller                who signed a request
    register_resource     a CloudFormation type of ours
    register_door         a path of ours that is no AWS service's
    scale_time            EventBridge's rates, CloudWatch's and AppConfig's minutes in scaled time
    place_before_apis     throttling, metrics and access logs of HTTP APIs
    place_before_calls    whatever is to happen to calls on purpose
    register_tags         tags of such resources, for policies that compare them
    calls                 which role was allowed what
    emit                  an `aws.*` event on the default bus, as AWS's own services send them
    role_credentials      what an AWS service gets when it assumes a role
    on_loop, soon         run something in MiniStack's own thread, where its stores may be touched
    account               whose request is being answered
    alarms, set_alarm_state, on_alarm_state_change, evaluate_alarms_with, put_metric, metric_points
    on_log_lines          hear what is written to log groups
    on_mail               hear what topics send to mail addresses
    queues                what waits in each queue
    answer_queries_with   an engine for Athena's queries
    serve                 run it all

MiniStack keeps its state in plain dictionaries that its event loop alone changes. So whatever reads or changes them
from another thread goes through `on_loop`.
"""

import asyncio
import base64
import gzip
import hashlib
import json
import logging
import os
import re
import secrets
import signal
import sys
import threading
import time
import uuid
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qs

import cbor2
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from jsonschema import Draft4Validator
from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.concurrency import run_reentrant
from ministack.core.responses import _request_account_id, get_account_id, get_region, request_scope
from ministack.core.router import extract_access_key_id
from ministack.core.sigv4 import decode_header_value
from ministack.services import (
    apigateway,
    appconfig,
    athena,
    cloudformation,
    cloudwatch,
    cloudwatch_logs,
    dynamodb,
    eventbridge,
    glue,
    iam,
    lambda_svc,
    s3,
    scheduler,
    sns,
    sqs,
    sts,
    tagging,
)
from ministack.services.cloudformation import changesets, handlers, provisioners, stacks

from local.metric_math import Sample, statistic

logger = logging.getLogger("noria.ministack")

VERSION = "1.5.33"

T = TypeVar("T")


# --- services -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One HTTP request to a service; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    query: Mapping[str, list[str]]


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Permission:
    """What a caller must be allowed to do: an IAM action on one resource, and the condition keys of the request."""

    action: str
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)


class Service(Protocol):
    """A service of ours.

    `name` is the botocore name (`sagemaker-runtime`), `signing_name` what its requests are signed for (`sagemaker`).
    `claims` tells whether a request that is signed so is for this service, `permissions` what its caller needs (all
    of them), `handle` answers it, in a thread of its own.
    """

    name: str
    signing_name: str

    def claims(self, request: Request) -> bool: ...

    def permissions(self, request: Request) -> list[Permission]: ...

    def handle(self, request: Request) -> Response: ...


_services: list[Service] = []
_busy_services: list[Service] = []


def register_service(service: Service, *, busy: bool = False) -> None:
    """Add a service. A `busy` one expects hundreds of requests a second, which come to it by the short way below."""
    _services.append(service)
    if busy:
        _busy_services.append(service)
    iam_actions.SERVICE_TO_IAM_NAMESPACE[service.name] = service.signing_name

    async def handler(
        method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, list[str]]
    ) -> tuple[int, dict[str, str], bytes]:
        request = Request(method, path, headers, body, query)
        # MiniStack has checked the first permission already (see `_action` and `_resource`).
        for permission in service.permissions(request)[1:]:
            if denied := _denied(service, permission, request):
                return denied
        response = await run_reentrant(service.handle, request)
        return response.status, dict(response.headers), response.body

    app.SERVICE_HANDLERS[service.name] = handler


def _claimed(name: str, request: Request) -> Service | None:
    return next((s for s in _services if s.signing_name == name and s.claims(request)), None)


def _named(name: str) -> Service | None:
    return next((s for s in _services if s.name == name), None)


def _denied(service: Service, permission: Permission, request: Request) -> tuple[int, dict[str, str], bytes] | None:
    if not app.AUTH:
        return None
    failure = iam_evaluator.enforce(
        extract_access_key_id(request.headers, request.query),
        permission.action,
        service.name,
        get_region(),
        resource_arn=permission.resource,
        service_context=dict(permission.context),
    )
    if failure is None:
        return None
    if isinstance(failure, iam_evaluator.AuthError):
        refusal: tuple[int, dict[str, str], bytes] = app._credential_failure(
            service.name, permission.action, request.headers.get("x-amzn-requestid", ""), failure, request.headers
        )
        return refusal
    return _deny(
        service.name,
        permission.action,
        getattr(failure, "principal_arn", ""),
        request.headers.get("x-amzn-requestid", ""),
        headers=request.headers,
        resource_arn=permission.resource,
        explicit_deny=getattr(failure, "decision", "") == "Deny",
    )


_policies: dict[str, Callable[[str], tuple[str, str] | None]] = {}
_resource_policy = iam_evaluator._resource_policy


def register_policies(service: str, policy_of: Callable[[str], tuple[str, str] | None]) -> None:
    """Let resources of a service of ours have policies of their own: by ARN, the policy's JSON and who owns it."""
    _policies[service] = policy_of


def _policy_of(service: str, arn: str) -> tuple[str, str] | None:
    if service in _policies:
        return _policies[service](arn)
    found: tuple[str, str] | None = _resource_policy(service, arn)
    return found


iam_evaluator._resource_policy = _policy_of

_condition_key = iam_evaluator._resolve_condition_key


def _condition_value(key: str, context: Any) -> Any:
    """Of a role's session `aws:PrincipalArn` is the role's ARN; MiniStack has the session's.

    Source: IAM guide, `reference_policies_condition-keys`.
    """
    if key.lower() != "aws:principalarn" or ":assumed-role/" not in context.principal_arn:
        return _condition_key(key, context)
    name = iam_evaluator._role_name_from_assumed_arn(context.principal_arn)
    role = iam._roles.get_scoped(context.principal_account, None, name)
    return role["Arn"] if role else context.principal_arn


iam_evaluator._resolve_condition_key = _condition_value


def caller(request: Request) -> Mapping[str, str]:
    """Who signed a request, as SageMaker tells it: `Arn` and `PrincipalId`; nothing where nobody is known."""
    found = iam_evaluator.resolve_caller_identity(extract_access_key_id(request.headers, request.query) or "")
    return {"Arn": found["userArn"], "PrincipalId": found["userId"]} if found else {}


_first_context: ContextVar[Mapping[str, str]] = ContextVar("first_context")  # of the request's first permission
_detect_service = app.detect_service
_access_denied = iam_actions.access_denied_response
_extract_action = iam_actions.extract_iam_action
_extract_resource = iam_actions.extract_resource_arn
_request_context = iam_actions.request_tag_context


def _deny(
    service: str, action: str, principal: str, request_id: str, **details: Any
) -> tuple[int, dict[str, str], bytes]:
    """A denial in AWS's words, which name the resource; MiniStack leaves it out."""
    if _named(service) and not details.get("error_code") and not details.get("message"):
        explicit, resource = details.get("explicit_deny", False), details.get("resource_arn", "*")
        message = iam_actions.identity_denial_message(action, principal, resource, explicit)
        body = {"__type": "AccessDeniedException", "Message": message}
        return 400, {"Content-Type": "application/json"}, json.dumps(body).encode()
    denial: tuple[int, dict[str, str], bytes] = _access_denied(service, action, principal, request_id, **details)
    return denial


def _route(method: str, path: str, headers: dict[str, str], query: dict[str, list[str]]) -> str:
    name: str = _detect_service(method, path, headers, query)
    service = _claimed(name, Request(method, path, headers, b"", query))
    return service.name if service else name


def _action(  # noqa: PLR0917 - MiniStack's signature
    name: str, method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, list[str]]
) -> str | None:
    if (service := _named(name)) is None:
        action: str | None = _extract_action(name, method, path, headers, body, query)
        return action
    permissions = service.permissions(Request(method, path, headers, body, query))
    _first_context.set(permissions[0].context if permissions else {})
    return permissions[0].action if permissions else None


def _schedule_group(body: bytes, query: Mapping[str, list[str]]) -> str:
    if group := query.get("groupName"):
        return group[0]
    with suppress(ValueError, TypeError, AttributeError):
        return str(json.loads(body).get("GroupName") or "default")
    return "default"


def _workgroup_of_query(body: bytes) -> str | None:
    """The workgroup in which a query runs, for requests that name the query alone."""
    with suppress(ValueError, TypeError, AttributeError):
        execution = athena._executions.get(json.loads(body).get("QueryExecutionId"))
        return str(execution["WorkGroup"]) if execution else None
    return None


def _archive_or_replay(body: bytes, region: str, account: str) -> str | None:
    """Of requests about one: MiniStack knows buses and rules alone."""
    with suppress(ValueError, TypeError, AttributeError):
        asked = json.loads(body)
        if str(source := asked.get("EventSourceArn")).startswith("arn:") and ":archive/" in source:
            return str(source)
        for field_name, kind in (("ArchiveName", "archive"), ("ReplayName", "replay")):
            if field_name in asked:
                return f"arn:aws:events:{region}:{account}:{kind}/{asked[field_name]}"
    return None


def _resource(  # noqa: PLR0917 - MiniStack's signature
    name: str,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    query: dict[str, list[str]],
    region: str,
    account: str,
) -> str:
    if (service := _named(name)) is None:
        arn: str = _extract_resource(name, method, path, headers, body, query, region, account)
        if name == "scheduler" and ":schedule/default/" in arn:  # MiniStack knows no other group here
            arn = arn.replace(":schedule/default/", f":schedule/{_schedule_group(body, query)}/")
        if name == "events":
            arn = _archive_or_replay(body, region, account) or arn
        if name == "athena" and (workgroup := _workgroup_of_query(body)):
            arn = f"arn:aws:athena:{region}:{account}:workgroup/{workgroup}"
        return arn
    permissions = service.permissions(Request(method, path, headers, body, query))
    return permissions[0].resource if permissions else "*"


def _context(name: str, action: str, body: bytes, query: dict[str, list[str]]) -> dict[str, Any]:
    """Condition keys of a request, those included that MiniStack does not know.

    AWS asks for each event of a PutEvents. Where they differ we leave the key out, so that a policy that asks for it
    refuses them. Keys: EventBridge guide, "Using IAM policy conditions"; CloudWatch guide, "Using condition keys to
    limit access to CloudWatch namespaces".
    """
    if _named(name):
        return dict(_first_context.get())
    context: dict[str, Any] = _request_context(name, action, body, query)
    with suppress(ValueError, TypeError, AttributeError, KeyError):  # the service itself answers a malformed request
        if action == "events:PutEvents":
            entries = json.loads(body)["Entries"]
            for key, field_name in (("events:source", "Source"), ("events:detail-type", "DetailType")):
                values = {entry.get(field_name) for entry in entries}
                if len(values) == 1:
                    context[key] = values.pop()
        elif action == "cloudwatch:PutMetricData":
            context["cloudwatch:namespace"] = _namespace(body, query)
    return context


def _namespace(body: bytes, query: Mapping[str, list[str]]) -> str:
    """The namespace of PutMetricData, in any of the three protocols that SDKs send it with."""
    if "Namespace" in query:
        return query["Namespace"][0]
    decoded = json.loads(body) if body.startswith(b"{") else cbor2.loads(body)
    return str(decoded["Namespace"])


app.detect_service = _route
iam_actions.access_denied_response = _deny
iam_actions.extract_iam_action = _action
iam_actions.extract_resource_arn = _resource
iam_actions.request_tag_context = _context


# --- tables' policies, and buckets that lock --------------------------------------------------------------------

_transaction_checks = iam_actions.dynamodb_transaction_checks
_s3_context = iam_actions.s3_service_context
_tables = dict(provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"])
_buckets = dict(provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"])
Provisioned = tuple[str, dict[str, Any]]


def _policy_of_table(arn: str) -> tuple[str, str] | None:
    """A table's own policy, which speaks of its indexes too, and the account that owns it; MiniStack never asks it."""
    table, account = arn.partition("/index/")[0], arn.split(":")[4]
    found = dynamodb._resource_policies.get(table)
    return (str(found["Policy"]), account) if found else None


def _statements_and_transactions(action: str, body: bytes, region: str, account: str) -> list[tuple[str, str]]:
    """What is asked for item by item: as MiniStack does of transactions, of PartiQL's statements too.

    Source: DynamoDB guide, "IAM security policies with PartiQL for DynamoDB".
    """
    asked = {}
    with suppress(ValueError, TypeError):
        asked = json.loads(body)
    statements = {
        "dynamodb:ExecuteStatement": [asked],
        "dynamodb:BatchExecuteStatement": asked.get("Statements", []),
        "dynamodb:ExecuteTransaction": asked.get("TransactStatements", []),
    }.get(action)
    if statements is None:
        checks: list[tuple[str, str]] = _transaction_checks(action, body, region, account)
        return checks
    found = []
    for statement in statements:
        with suppress(ValueError, KeyError, TypeError):  # DynamoDB itself answers what is malformed
            parsed = dynamodb._parse_partiql(statement["Statement"], statement.get("Parameters", []))
            operation = "Select" if parsed["op"] == "EXISTS" else parsed["op"].capitalize()
            arn = iam_actions._dynamodb_table_arn(parsed["table"], region, account)
            found.append((f"dynamodb:PartiQL{operation}", arn))
    return found


def _keep_policy(name: str, properties: Mapping[str, Any]) -> None:
    """What a template says of a table's policy, which MiniStack leaves out."""
    arn = dynamodb._tables[name]["TableArn"]
    dynamodb._resource_policies.pop(arn, None)
    if policy := (properties.get("ResourcePolicy") or {}).get("PolicyDocument"):
        dynamodb._resource_policies[arn] = {"Policy": json.dumps(policy), "RevisionId": str(uuid.uuid4())}


def _create_table(logical_id: str, properties: dict[str, Any], stack: str) -> Provisioned:
    provisioned: Provisioned = _tables["create"](logical_id, properties, stack)
    _keep_policy(provisioned[0], properties)
    return provisioned


def _update_table(id_: str, old: dict[str, Any], new: dict[str, Any], *stack: Any) -> Provisioned:
    provisioned: Provisioned = _tables["update"](id_, old, new, *stack)
    _keep_policy(provisioned[0], new)
    return provisioned


def _delete_table(id_: str, properties: dict[str, Any]) -> None:
    if id_ in dynamodb._tables:
        _keep_policy(id_, {})
    _tables["delete"](id_, properties)


def _keep_lock(name: str, properties: Mapping[str, Any]) -> None:
    """What a template says of locking a bucket's objects, which MiniStack leaves out."""
    if str(properties.get("ObjectLockEnabled", False)).lower() != "true":
        return
    rule = (properties.get("ObjectLockConfiguration") or {}).get("Rule") or {}
    retention = dict(rule.get("DefaultRetention") or {})
    numbers = {unit: int(retention[unit]) for unit in ("Days", "Years") if unit in retention}
    s3._bucket_object_lock[name] = {"enabled": True, "default_retention": {**retention, **numbers} or None}


def _create_bucket(logical_id: str, properties: dict[str, Any], stack: str) -> Provisioned:
    provisioned: Provisioned = _buckets["create"](logical_id, properties, stack)
    _keep_lock(provisioned[0], properties)
    return provisioned


def _update_bucket(id_: str, old: dict[str, Any], new: dict[str, Any], stack: str) -> Provisioned:
    provisioned: Provisioned = _buckets["update"](id_, old, new, stack)
    _keep_lock(provisioned[0], new)
    return provisioned


def _delete_bucket(id_: str, properties: dict[str, Any]) -> None:
    _buckets["delete"](id_, properties)
    s3._bucket_object_lock.pop(id_, None)


def _context_of_write(
    action: str, query: Mapping[str, Any] | None, path: str = "", headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """With the condition keys of conditional writes. Source: S3 guide, "Enforce conditional writes"."""
    context: dict[str, Any] = _s3_context(action, query, path, headers)
    if action == "s3:PutObject":
        keys = ("if-none-match", "if-match")
        context |= {f"s3:{key}": headers[key] for key in keys if headers and headers.get(key)}
    return context


dynamodb.policy_of_table = _policy_of_table  # MiniStack asks the service's module by name
iam_evaluator._RESOURCE_POLICY_LOOKUPS["dynamodb"] = ("dynamodb", "policy_of_table")
iam_actions.dynamodb_transaction_checks = _statements_and_transactions
iam_actions.s3_service_context = _context_of_write
provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"] |= {
    "create": _create_table,
    "update": _update_table,
    "delete": _delete_table,
}
provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"] |= {
    "create": _create_bucket,
    "update": _update_bucket,
    "delete": _delete_bucket,
}


# --- calls that go wrong on purpose ------------------------------------------------------------------------------

Answer = tuple[int, dict[str, str], bytes]
Proceed = Callable[[], Awaitable[Response]]

_peer: ContextVar[tuple[str, int] | None] = ContextVar("peer", default=None)
_dispatch_request = app._dispatch_service_request


@dataclass(frozen=True)
class Asked:
    """A call of a role, in IAM's words: `role` and `session` are the names in its ARN, `service` is as in an action.

    `peer` is the port that it came from on this machine.
    """

    role: str
    session: str
    service: str
    operation: str
    request: Request
    name: str
    peer: int


class Injector(Protocol):
    """What stands before each call of a role, while it is `active`."""

    active: bool

    async def answer(self, asked: Asked, proceed: Proceed) -> Response: ...


_injectors: list[Injector] = []


def place_before_calls(injector: Injector) -> None:
    _injectors.append(injector)


async def _through_faults(name: str, request: Request, answer: Callable[[], Awaitable[Answer]]) -> Answer:
    injector = next((each for each in _injectors if each.active), None)
    if injector is None or (asked := _asked(name, request)) is None:
        return await answer()

    async def proceed() -> Response:
        status, headers, body = await answer()
        return Response(status, body, headers)

    response = await injector.answer(asked, proceed)
    return response.status, dict(response.headers), response.body


def _asked(name: str, request: Request) -> Asked | None:
    """Which call of which role a request is; None for those of users and of nobody."""
    key = extract_access_key_id(request.headers, request.query)
    arn = (sts._sessions.get(key) or {}).get("Arn", "")
    if ":assumed-role/" not in arn:
        return None
    query = app._routing_params(request.method, request.path, request.headers, request.body, request.query)
    action = iam_actions.extract_iam_action(name, request.method, request.path, request.headers, request.body, query)
    service, _, operation = (action or f"{name}:").partition(":")
    _, role, session = arn.split("/", 2)
    return Asked(role, session, service, operation, request, name, (_peer.get() or ("", 0))[1])


async def _dispatch_through_faults(  # noqa: PLR0917 - MiniStack's signature
    method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, list[str]], request_id: str
) -> Answer:
    async def answer() -> Answer:
        answered: Answer = await _dispatch_request(method, path, headers, body, query, request_id)
        return answered

    if not any(injector.active for injector in _injectors):
        return await answer()
    routing = app._routing_params(method, path, headers, body, query)
    name = app.detect_service(method, path, headers, routing)
    return await _through_faults(name, Request(method, path, headers, body, query), answer)


def refusal(asked: Asked, status: int = 0, code: str = "", message: str = "") -> Response:
    """A refusal in the words and the protocol of the call's service: a denial, or another error."""
    answered = iam_actions.access_denied_response(
        asked.name,
        f"{asked.service}:{asked.operation}",
        f"arn:aws:sts::{get_account_id()}:assumed-role/{asked.role}/{asked.session}",
        str(uuid.uuid4()),
        error_code=code,
        message=message,
        headers=asked.request.headers,
    )
    return Response(status or answered[0], answered[2], answered[1])


def processes_of(asked: Asked) -> Iterator[int]:
    """Processes of this machine that hold the other end of a call's connection. Source: proc(5), `/proc/net/tcp`."""
    own_port = int(os.environ["GATEWAY_PORT"])
    ends = f"{_LOOPBACK}:{asked.peer:04X}", f"{_LOOPBACK}:{own_port:04X}"
    rows = (row.split() for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:])
    sockets = {f"socket:[{row[9]}]" for row in rows if (row[1], row[2]) == ends}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if any(str(each.readlink()) in sockets for each in (process / "fd").iterdir()):
                yield int(process.name)


_LOOPBACK = "0100007F"  # 127.0.0.1 as /proc/net/tcp writes it on a little-endian machine

app._dispatch_service_request = _dispatch_through_faults


# --- the short way to busy services -------------------------------------------------------------------------------

# Threads are used again. A request may wait for another that it makes itself, so there must be one for every request.
_workers = ThreadPoolExecutor(max_workers=1000, thread_name_prefix="service")


async def _front(scope: Any, receive: Any, send: Any) -> None:
    """Every request enters here: the signed ones of busy services go straight there, all others through MiniStack.

    MiniStack looks into each request in some forty ways before it knows whose it is, and starts a thread for it; that
    costs more than all the rest. What decides about a request is the same either way: MiniStack's check of its
    signature, its time and its token, and of its permissions against the policies of that moment.
    """
    _peer.set(scope.get("client"))
    if (found := _busy(scope)) is None:
        await app.app(scope, receive, send)
        return
    service, request = found
    app.set_request_account_id(app._request_account_scope(extract_access_key_id(request.headers)))
    app.set_request_region(app.extract_region(request.headers, request.query))
    iam_evaluator.pin_request_origin(scope["client"][0], scope["scheme"] == "https")
    iam_evaluator.pin_signed_request(
        request.method, scope["raw_path"].decode("latin-1"), request.query, scope["headers"]
    )
    try:
        body = await app._read_request_body(receive, request.method, request.headers)
    except app._RequestBodyDisconnected:
        return
    request = replace(request, body=body)
    status, headers, answer = await _through_faults(service.name, request, lambda: _answer(service, request))
    await app._send_response(send, status, {**headers, "x-amzn-requestid": str(uuid.uuid4())}, answer)


def _busy(scope: Mapping[str, Any]) -> tuple[Service, Request] | None:
    if scope["type"] != "http":
        return None
    headers = {name.decode("latin-1").lower(): decode_header_value(value) for name, value in scope["headers"]}
    query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
    request = Request(scope["method"], scope["path"], headers, b"", query)
    for service in _busy_services:
        if f"/{service.signing_name}/aws4_request" in headers.get("authorization", "") and service.claims(request):
            return service, request
    return None


async def _answer(service: Service, request: Request) -> tuple[int, dict[str, str], bytes]:
    for permission in service.permissions(request):
        if denied := _denied(service, permission, request):
            return denied
    context = copy_context()
    try:
        response = await asyncio.get_running_loop().run_in_executor(_workers, context.run, service.handle, request)
    except Exception as error:
        logger.exception("%s failed", service.name)
        body = {"__type": "InternalError", "message": str(error)}
        return 500, {"Content-Type": "application/json"}, json.dumps(body).encode()
    return response.status, response.headers, response.body


_parse_policy = iam_evaluator.parse_policy_document
_parsed = lru_cache(maxsize=1024)(_parse_policy)
# The same text always means the same, so this needs no word of a policy's change.
iam_evaluator.parse_policy_document = lambda text: (_parsed if isinstance(text, str) else _parse_policy)(text)


# --- variables and tags in policies, and who did what


_VARIABLE = re.compile(r"\$\{(?P<key>[^,}]+?)(?:\s*,\s*'(?P<default>[^']*)')?\}")
_statement_of = iam_evaluator._first_match
_enforce = iam_evaluator.enforce
_resource_tags = tagging.resource_tags
_tags: dict[str, Callable[[str], dict[str, str] | None]] = {}
_calls: dict[str, set[str]] = defaultdict(set)


class _NoValue(Exception):
    """A variable that the request gives no value."""


def _filled(value: Any, context: Any) -> Any:
    """A part of a statement with its variables replaced. Source: IAM guide, `reference_policies_variables`."""

    def replaced(found: re.Match[str]) -> str:
        if found["key"] in "*?$":
            return found["key"]
        actual = iam_evaluator._resolve_condition_key(found["key"], context)
        if not isinstance(actual, str) and (actual := found["default"]) is None:
            raise _NoValue(found["key"])
        return actual

    match value:
        case str() if "${" in value:
            return _VARIABLE.sub(replaced, value)
        case list():
            return [_filled(each, context) for each in value]
        case dict():
            return {name: _filled(each, context) for name, each in value.items()}
    return value


def _first_match(context: Any, statements: list[Any], effect: str) -> Any:
    """As MiniStack's, which takes variables for text; a statement with one that has no value matches nothing."""
    for statement in statements:
        if statement.effect != effect or not iam_evaluator._action_matches(
            context.action, statement.actions, statement.not_actions
        ):
            continue
        with suppress(_NoValue):
            filled = replace(
                statement,
                resources=_filled(statement.resources, context),
                conditions=_filled(statement.conditions, context),
            )
            if _statement_of(context, [filled], effect):
                return statement
    return None


def register_tags(service: str, tags_of: Callable[[str], dict[str, str] | None]) -> None:
    """Let policies compare the tags of a service's resources, which MiniStack does not know; None for no such."""
    _tags[service] = tags_of


def _tags_of(arn: str) -> dict[str, str] | None:
    service = arn.split(":")[2] if arn.count(":") >= 5 else ""
    if service in _tags:
        return _tags[service](arn)
    found: dict[str, str] | None = _resource_tags(arn)
    return found


def _enforce_and_record(access_key_id: str, action: str, *rest: Any, **details: Any) -> Any:
    """Remember which role was allowed which action: what `calls` tells."""
    failure = _enforce(access_key_id, action, *rest, **details)
    arn = (sts._sessions.get(access_key_id) or {}).get("Arn", "")
    if failure is None and ":assumed-role/" in arn:
        _calls[arn.split("/")[1]].add(action)
    return failure


def calls() -> dict[str, list[str]]:
    """By role, every action that it was asked for and allowed since the cloud started."""
    return {role: sorted(actions) for role, actions in sorted(_calls.items())}


iam_evaluator._first_match = _first_match
iam_evaluator.enforce = _enforce_and_record
tagging.resource_tags = _tags_of


_item_context = iam_actions.dynamodb_service_context


def _context_of_items(body: bytes) -> dict[str, Any]:
    """With the partitions that a request names. Source: DynamoDB guide, "Using conditions": `dynamodb:LeadingKeys`."""
    context: dict[str, Any] = _item_context(body)
    with suppress(ValueError, TypeError, KeyError, AttributeError):  # DynamoDB itself answers what is malformed
        request = json.loads(body)
        table = dynamodb._tables[request["TableName"].rsplit("/", 1)[-1]]
        (partition,) = (key["AttributeName"] for key in table["KeySchema"] if key["KeyType"] == "HASH")
        if found := _partition_of(request, partition):
            context["dynamodb:LeadingKeys"] = [found]
    return context


def _partition_of(request: Mapping[str, Any], partition: str) -> str | None:
    if item := request.get("Key") or request.get("Item"):
        return str(next(iter(item[partition].values())))
    names = request.get("ExpressionAttributeNames") or {}
    for name, value in re.findall(r"([#\w]+)\s*=\s*(:\w+)", request.get("KeyConditionExpression") or ""):
        if names.get(name, name) == partition:
            return str(next(iter(request["ExpressionAttributeValues"][value].values())))
    return None


iam_actions.dynamodb_service_context = _context_of_items


# --- tables that read only what is asked for


class _Partition(dict[str, Any]):
    """A partition's items by their sort key, which is a string; in order, so that a range of them is found at once."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: list[str] = []

    def __setitem__(self, key: str, item: Any) -> None:
        if key not in self:
            insort(self._keys, key)
        super().__setitem__(key, item)

    def pop(self, key: str, *default: Any) -> Any:
        if key in self:
            del self._keys[bisect_left(self._keys, key)]
        return super().pop(key, *default)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # its copies are MiniStack's own

    def between(self, first: str, last: str) -> dict[str, Any]:
        """`last` included."""
        keys = self._keys
        at = bisect_left(keys, first)
        return {key: self[key] for key in keys[at : bisect_right(keys, last, lo=at)]}


_set_item = dynamodb._set_item
_query = dynamodb._query
_RANGE = re.compile(r"\s*([#\w]+) = (:\w+) AND ([#\w]+) BETWEEN (:\w+) AND (:\w+)\s*")


def _set_in_order(table: dict[str, Any], partition: str, key: str, item: dict[str, Any]) -> Any:
    if table["sk_name"] and dynamodb._get_attr_type(table, table["sk_name"]) == "S" and partition not in table["items"]:
        table["items"][partition] = _Partition()
    return _set_item(table, partition, key, item)


def _query_range(request: dict[str, Any]) -> Any:
    """Show MiniStack those items of a partition that a range selects: it evaluates the condition for all it sees."""
    asked = _RANGE.fullmatch(request.get("KeyConditionExpression") or "")
    table = dynamodb._tables.get(str(request.get("TableName")))
    if not asked or not table or request.get("IndexName"):
        return _query(request)
    names = request.get("ExpressionAttributeNames") or {}
    keys = tuple(names.get(asked[group], asked[group]) for group in (1, 3))
    every = table["items"]
    try:
        partition, first, last = (request["ExpressionAttributeValues"][asked[group]]["S"] for group in (2, 4, 5))
        items = every.get(partition)
    except (KeyError, TypeError):
        return _query(request)  # it says what is wrong
    if keys != (table["pk_name"], table["sk_name"]) or not isinstance(items, _Partition):
        return _query(request)
    table["items"] = {partition: items.between(first, last)}
    try:
        return _query(request)
    finally:
        table["items"] = every


dynamodb._set_item = _set_in_order
dynamodb._query = _query_range
dynamodb._condition_syntax_error = lru_cache(maxsize=1024)(dynamodb._condition_syntax_error)


# --- doors of our own


_shortcuts = app._handle_post_body_shortcuts
_doors: dict[str, Callable[[Request], Response]] = {}


def register_door(path: str, handle: Callable[[Request], Response]) -> None:
    """Answer requests to a path that no AWS service has, unsigned; for those who run this cloud."""
    _doors[path] = handle


async def _through_doors(  # noqa: PLR0917 - MiniStack's signature
    method: str, path: str, headers: dict[str, str], body: bytes, query: dict[str, list[str]], request_id: str
) -> Any:
    if handle := _doors.get(path):
        response = handle(Request(method, path, headers, body, query))
        return response.status, dict(response.headers), response.body
    return await _shortcuts(method, path, headers, body, query, request_id)


app._handle_post_body_shortcuts = _through_doors


# --- CloudFormation types -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resource:
    """A provisioned resource: what `Ref` gives, and what `Fn::GetAtt` gives."""

    id: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What CloudFormation asks of a resource type.

    `role_arn` is the stack's service role, None if the stack has none; `generated_name` is what the resource is to be
    called if its properties don't say.
    """

    stack: str
    logical_id: str
    role_arn: str | None
    properties: dict[str, Any]
    generated_name: str


class ResourceType(Protocol):
    """A CloudFormation type of ours. Each method may block, and fails the resource by raising with the reason.

    `name_property` is the property that names the resource, `create_only` those whose change replaces it.
    """

    type: str
    name_property: str
    create_only: frozenset[str]

    def create(self, change: Change) -> Resource: ...

    def update(self, id: str, change: Change, previous: dict[str, Any]) -> Resource: ...  # noqa: A002

    def delete(self, id: str, change: Change) -> None: ...  # noqa: A002


_resource_types: set[str] = set()
_stack_roles: dict[str, str] = {}
_owner: dict[tuple[str, str], tuple[str, str]] = {}  # (type, physical id): (stack, logical id)


def register_resource(resource: ResourceType) -> None:
    def change(stack: str, logical_id: str, properties: dict[str, Any]) -> Change:
        return Change(
            stack=stack,
            logical_id=logical_id,
            role_arn=_stack_roles.get(stack),
            properties=properties,
            generated_name=provisioners._physical_name(stack, logical_id, max_len=63),
        )

    def provisioned(result: Resource, stack: str, logical_id: str) -> tuple[str, dict[str, Any]]:
        _owner[resource.type, result.id] = (stack, logical_id)
        return result.id, result.attributes

    def create(logical_id: str, properties: dict[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
        return provisioned(resource.create(change(stack, logical_id, properties)), stack, logical_id)

    def update(
        physical_id: str, old: dict[str, Any], new: dict[str, Any], stack: str, logical_id: str
    ) -> tuple[str, dict[str, Any]]:
        return provisioned(resource.update(physical_id, change(stack, logical_id, new), old), stack, logical_id)

    def delete(physical_id: str, properties: dict[str, Any]) -> None:
        stack, logical_id = _owner.pop((resource.type, physical_id), ("", ""))
        resource.delete(physical_id, change(stack, logical_id, properties))

    _resource_types.add(resource.type)
    provisioners._RESOURCE_HANDLERS[resource.type] = {
        "create": create,
        "update": update,
        "update_with_logical_id": True,
        "delete": delete,
    }
    provisioners._REPLACING_PROPERTIES[resource.type] = resource.create_only
    # A resource named in the template cannot be replaced under the same name: CloudFormation refuses that.
    provisioners._CUSTOM_NAME_REPLACEMENT[resource.type] = {"name": resource.name_property}
    provisioners._STACK_TAG_PROPERTY[resource.type] = ("Tags", "list")


_may_block = stacks._runs_on_worker_thread
stacks._runs_on_worker_thread = lambda type_: type_ in _resource_types or _may_block(type_)

# On the way back CloudFormation also updates the resource whose update failed, to what it was before.
_is_sent_back = stacks._sends_back_failed_update
stacks._sends_back_failed_update = lambda type_: type_ in _resource_types or _is_sent_back(type_)


def _remember_role(action: str) -> None:
    """MiniStack ignores RoleARN; on AWS a stack keeps it for every later operation, until it is given another."""
    operate = cloudformation._ACTION_HANDLERS[action]

    def remember(params: dict[str, Any]) -> Any:
        name, role = (params.get(key, "") for key in ("StackName", "RoleARN"))
        name, role = (value[0] if isinstance(value, list) else value for value in (name, role))
        stack = name.split("/")[1] if name.startswith("arn:") else name
        if role:
            _stack_roles[stack] = role
        elif action == "CreateStack":
            _stack_roles.pop(stack, None)
        return operate(params)

    cloudformation._ACTION_HANDLERS[action] = remember


for _name in ("CreateStack", "UpdateStack", "DeleteStack", "CreateChangeSet"):
    _remember_role(_name)


# --- events -------------------------------------------------------------------------------------------------------


def emit(source: str, detail_type: str, detail: Mapping[str, Any], resources: Iterable[str]) -> None:
    """Send an event on the default bus of the current account and region; from the loop's thread only."""
    entry = {
        "Source": source,
        "DetailType": detail_type,
        "Detail": json.dumps(detail),
        "Resources": list(resources),
    }
    eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


_object_version: ContextVar[str | None] = ContextVar("object_version", default=None)
_fire_object_event = s3._fire_s3_event
_dispatch = eventbridge._dispatch_event


def _fire_with_version(*args: Any, version_id: str | None = None, **kwargs: Any) -> None:
    _object_version.set(version_id)  # each event is fired in a thread and context of its own
    _fire_object_event(*args, version_id=version_id, **kwargs)


def _dispatch_with_version(event: dict[str, Any], view: Any = None) -> Any:
    """Say which version of an object an event is about, as AWS does in versioned buckets and MiniStack does not.

    And keep S3's events in archives, where MiniStack keeps what comes through PutEvents alone.
    """
    if event["Source"] == "aws.s3" and "ReplayName" not in event:
        if version := _object_version.get():
            detail = json.loads(event["Detail"])
            detail["object"]["version-id"] = version
            event = {**event, "Detail": json.dumps(detail)}
        at = int(datetime.fromisoformat(event["Time"]).timestamp())  # as MiniStack compares it with a replay's times
        eventbridge._archive_event({**event, "Time": at})
    return _dispatch(event, view)


s3._fire_s3_event = _fire_with_version
eventbridge._dispatch_event = _dispatch_with_version


# --- between accounts ---------------------------------------------------------------------------------------------

_dispatch_to_bus = eventbridge._dispatch_to_event_bus
_foreign_bucket_allows = s3._foreign_bucket_allows
_put_one_permission = eventbridge._put_permission
_bus_type = dict(provisioners._RESOURCE_HANDLERS["AWS::Events::EventBus"])


def _dispatch_to_any_bus(
    spec: Any, event: dict[str, Any], rule: dict[str, Any], path: Any, payload: Any = None
) -> None:
    """To buses of other accounts too, where the rule's role and the bus's policy let it; MiniStack knows none of them.

    Source: EventBridge guide, `eb-cross-account`.
    """
    if spec.account_id == get_account_id():
        _dispatch_to_bus(spec, event, rule, path, payload)
        return
    own = f":{spec.account_id}:{spec.resource}"
    target = next((t for t in _targets_of(rule) if str(t.get("Arn", "")).endswith(own)), {})
    role = str(target.get("RoleArn", ""))
    with request_scope(spec.account_id, spec.region):
        policy = eventbridge._event_bus_policies.get(spec.resource.partition("/")[2])
    if not role or not _allows_to_put_events(role, str(target["Arn"]), policy):
        logger.warning("event bus %s does not take events of %s with role %r", spec, rule.get("Name"), role)
        return
    with request_scope(spec.account_id, spec.region):
        _dispatch_to_bus(spec, event, rule, path, payload)


def _targets_of(rule: Mapping[str, Any]) -> list[dict[str, Any]]:
    key = eventbridge._rule_key(rule.get("Name"), rule.get("EventBusName", "default"))
    found: list[dict[str, Any]] = eventbridge._targets.get(key, [])
    return found


def _allows_to_put_events(role: str, bus: str, policy: str | dict[str, Any] | None) -> bool:
    """Whether a role may send to a bus of another account: its own policies and the bus's must both say so."""
    owner, name = role.split(":")[4], role.rpartition("/")[2]
    context = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{owner}:assumed-role/{name}/EventBridge",
        principal_type="AssumedRole",
        principal_account=owner,
        action="events:PutEvents",
        resource_arn=bus,
        region=get_region(),
    )
    own = iam_evaluator.evaluate(context, iam_evaluator._gather_role_policies(name, owner))
    of_bus = iam_evaluator.evaluate_resource_policy(policy, context)
    return bool(own.decision == of_bus.decision == "Allow")


def _foreign_bucket_allows_caller(  # noqa: PLR0917 - MiniStack's signature
    owner: str, bucket: str, key: str, method: str, query: Any, account: str, headers: Any = None
) -> bool:
    """Asks a bucket's policy about the role or user itself, too; MiniStack asks it about the account's root alone."""
    if _foreign_bucket_allows(owner, bucket, key, method, query, account, headers):
        return True
    policy = s3._bucket_policies.get_scoped(owner, None, bucket)
    if not account or not policy:
        return False
    path = f"/{bucket}/{key}" if key else f"/{bucket}"
    context = iam_evaluator.EvalContext(
        principal_arn=iam_evaluator.caller_arn(),
        principal_type="AssumedRole",
        principal_account=account,
        action=f"s3:{iam_actions._s3_action(method, path, query) or 'GetObject'}",
        resource_arn=f"arn:aws:s3:::{path[1:]}",
        region=get_region(),
    )
    return bool(iam_evaluator.evaluate_resource_policy(policy, context).decision == "Allow")


def _put_permission(data: dict[str, Any]) -> Any:
    """A whole policy, too, which MiniStack takes for a statement that lets everybody."""
    answer = _put_one_permission(data)
    if "Policy" in data:
        _keep_bus_policy(data.get("EventBusName", "default"), data["Policy"])
    return answer


def _keep_bus_policy(bus: str, said: str | dict[str, Any] | None) -> None:
    eventbridge._event_bus_policies.pop(bus, None)
    if said:
        eventbridge._event_bus_policies[bus] = json.loads(said) if isinstance(said, str) else said


def _create_bus(logical_id: str, properties: dict[str, Any], stack: str) -> Provisioned:
    provisioned: Provisioned = _bus_type["create"](logical_id, properties, stack)
    _keep_bus_policy(provisioned[0], properties.get("Policy"))
    return provisioned


def _update_bus(id_: str, old: dict[str, Any], new: dict[str, Any], stack: str) -> Provisioned:
    provisioned: Provisioned = _bus_type["update"](id_, old, new, stack)
    _keep_bus_policy(provisioned[0], new.get("Policy"))
    return provisioned


provisioners._RESOURCE_HANDLERS["AWS::Events::EventBus"] |= {"create": _create_bus, "update": _update_bus}
eventbridge._put_permission = _put_permission
eventbridge._dispatch_to_event_bus = _dispatch_to_any_bus
s3._foreign_bucket_allows = _foreign_bucket_allows_caller

_record_event = stacks._add_event


def _announce(  # noqa: PLR0917 - MiniStack's signature
    stack_id: str,
    stack: str,
    logical_id: str,
    resource_type: str,
    status: str,
    reason: str = "",
    physical_id: str = "",
    detailed_status: str = "",
) -> None:
    """Record a stack event and send it, which MiniStack does not.

    Shapes: CloudFormation guide, `event-detail-stack-status-change` and `event-detail-resource-status-change`.
    """
    of_stack = resource_type == "AWS::CloudFormation::Stack" and logical_id == stack
    if of_stack and status == "UPDATE_COMPLETE":  # on AWS the clean-up has an event, however little there is to clean
        _announce(stack_id, stack, logical_id, resource_type, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "", physical_id)
    _record_event(stack_id, stack, logical_id, resource_type, status, reason, physical_id, detailed_status)
    token = stacks.CLIENT_REQUEST_TOKEN.get()
    detail: dict[str, Any] = {
        "stack-id": stack_id,
        "status-details": {"status": status, "status-reason": reason},
        **({"client-request-token": token} if token else {}),
    }
    if of_stack:
        emit("aws.cloudformation", "CloudFormation Stack Status Change", detail, [stack_id])
    else:
        detail |= {
            "logical-resource-id": logical_id,
            "physical-resource-id": physical_id,
            "resource-type": resource_type,
        }
        emit("aws.cloudformation", "CloudFormation Resource Status Change", detail, [stack_id])


for _module in (stacks, handlers, changesets):
    _module._add_event = _announce


# --- schedules ----------------------------------------------------------------------------------------------------

_invoke_target = eventbridge._invoke_target
_rate_seconds = eventbridge._parse_rate_seconds
_at_time = scheduler._at_time_epoch


def _invoke_scheduled(target: dict[str, Any], event: dict[str, Any], rule: dict[str, Any], view: Any = None) -> None:
    """Fill in the context attributes of EventBridge Scheduler's inputs, which MiniStack sends as they are.

    https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html
    """
    if event["Source"] == "aws.scheduler" and "Input" in target:
        moment = datetime.fromtimestamp(int(event["Time"]), UTC)
        attributes = {
            "scheduled-time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "schedule-arn": rule["Arn"],
            "execution-id": event["EventId"],
            "attempt-number": "1",
        }
        text = target["Input"]
        for name, value in attributes.items():
            text = text.replace(f"<aws.scheduler.{name}>", value)
        target = {**target, "Input": text}
    _invoke_target(target, event, rule, view)


def scale_time(time_scale: float) -> None:
    """Let minutes (of metrics, of AppConfig's deployments), rates of schedules and waits for one-time ones pass faster.

    Moments stay on the clock: what is booked for ten minutes from now is due in ten scaled ones.
    """
    global _minute  # noqa: PLW0603 - as MiniStack's own settings, this is the process's
    _minute = appconfig._DEPLOYMENT_MINUTE_SECONDS = 60 / time_scale

    def seconds(expression: str) -> float | None:
        rate = _rate_seconds(expression)
        return rate if rate is None else rate / time_scale

    booked: dict[str, float] = {}

    def due(expression: str) -> float | None:
        moment: float | None = _at_time(expression)
        seen = booked.setdefault(expression, time.time())
        return moment if moment is None or moment <= seen else seen + (moment - seen) / time_scale

    eventbridge._parse_rate_seconds = seconds
    scheduler._at_time_epoch = due


def next_cron(expression: str, after: datetime) -> datetime | None:
    """The first whole minute (UTC) after a moment that `cron(…)` names; ValueError if it is no such thing."""
    fields = eventbridge._parse_cron_fields(expression)
    if fields is None:
        raise ValueError("not at(…), rate(…) or cron(…) as Amazon EventBridge writes them")
    due: datetime | None = eventbridge._cron_next_fire(fields, after)
    return due


# --- replays ------------------------------------------------------------------------------------------------------


def _invoke_replayed(target: dict[str, Any], event: dict[str, Any], rule: dict[str, Any], view: Any = None) -> None:
    """Send what is replayed to the rules that the replay names, and say how far it is; MiniStack sends it to all.

    https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_ReplayDestination.html
    """
    if replay := eventbridge._replays.get(event.get("ReplayName", "")):
        replay["EventLastReplayedTime"] = event["Time"]
        named = replay["Destination"].get("FilterArns") or [rule["Arn"]]
        if rule["Arn"] not in named:
            return
    _invoke_scheduled(target, event, rule, view)


eventbridge._invoke_target = _invoke_replayed
eventbridge._SCHEDULER_TICK_INTERVAL = scheduler._SCHEDULE_TICK_INTERVAL = 1  # seconds between looks at what is due


# --- log lines ----------------------------------------------------------------------------------------------------


LineListener = Callable[[str, Sequence[str]], None]

_line_listeners: list[LineListener] = []


def on_log_lines(listener: LineListener) -> None:
    """Call `listener(group, lines)` with what is written to any log group; on the thread of whoever writes."""
    _line_listeners.append(listener)


def _deliver_lines(group: str, stream: str, lines: list[dict[str, Any]]) -> None:
    """Call the functions that a log group's subscription filters name, as AWS does: asynchronously.

    MiniStack calls them too, but forgets what fails: neither is it tried again nor does it reach its destination.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html#LambdaFunctionExample
    """
    for listener in _line_listeners:
        listener(group, [line["message"] for line in lines])
    found = cloudwatch_logs._log_groups.get(group, {}).get("subscriptionFilters", {})
    for subscription in found.values():
        function = lambda_svc._functions.get(subscription["destinationArn"].partition(":function:")[2])
        matched = [
            line
            for line in lines
            if cloudwatch_logs._subscription_pattern_matches(subscription["filterPattern"], line["message"])
        ]
        if function is None or not matched:
            continue
        batch = {
            "messageType": "DATA_MESSAGE",
            "owner": get_account_id(),
            "logGroup": group,
            "logStream": stream,
            "subscriptionFilters": [subscription["filterName"]],
            "logEvents": [{"id": f"{uuid.uuid4().int:056}", **_line(line)} for line in matched],
        }
        packed = base64.b64encode(gzip.compress(json.dumps(batch).encode()))
        lambda_svc.invoke_async_with_retry(function, {"awslogs": {"data": packed.decode()}})


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    return {"timestamp": line["timestamp"], "message": line["message"]}


cloudwatch_logs._fanout_to_subscription_filters = _deliver_lines

_filter_log_events = cloudwatch_logs._filter_log_events


def _filter_streams(data: dict[str, Any]) -> Any:
    """FilterLogEvents, in streams of one prefix where one is given, which MiniStack overlooks."""
    if (prefix := data.get("logStreamNamePrefix")) is None:
        return _filter_log_events(data)
    streams = cloudwatch_logs._log_groups.get(data["logGroupName"], {}).get("streams", {})
    return _filter_log_events({**data, "logStreamNames": [name for name in streams if name.startswith(prefix)] or [""]})


cloudwatch_logs._filter_log_events = _filter_streams


# --- the loop -----------------------------------------------------------------------------------------------------


def is_running() -> bool:
    return app._MAIN_LOOP is not None


def account(otherwise: str) -> str:
    """The account of the request that is being answered, or that began this work; where there is none, another."""
    return str(copy_context().get(_request_account_id, otherwise))


def on_loop(action: Callable[[], T], *, account: str, region: str, timeout: float = 30.0) -> T:
    """Run `action` on MiniStack's event loop, as a request in that account and region would, and return its result."""
    loop: asyncio.AbstractEventLoop | None = app._MAIN_LOOP
    if loop is None:
        raise RuntimeError("MiniStack is not running yet")

    def scoped() -> T:
        with request_scope(account, region):
            return action()

    with suppress(RuntimeError):
        if asyncio.get_running_loop() is loop:
            return scoped()

    async def run() -> T:
        return scoped()

    return asyncio.run_coroutine_threadsafe(run(), loop).result(timeout)


def soon(action: Callable[[], None]) -> None:
    """Have the loop run `action`, in the account and region of what is being done; nobody waits for it."""
    loop: asyncio.AbstractEventLoop | None = app._MAIN_LOOP
    if loop is None:
        raise RuntimeError("MiniStack is not running yet")
    account_id, region = get_account_id(), get_region()

    def scoped() -> None:
        with request_scope(account_id, region):
            action()

    loop.call_soon_threadsafe(scoped)


# --- credentials --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Credentials:
    access_key_id: str
    secret_access_key: str
    session_token: str


class CannotAssumeRole(Exception):
    """The role does not exist, or does not trust the service that wants to assume it."""


def role_credentials(role_arn: str, *, service: str, session: str) -> Credentials:
    """What `service` (such as `sagemaker.amazonaws.com`) gets when it assumes a role; from the loop's thread only."""
    role = iam._roles.get(role_arn.rsplit("/", 1)[-1])
    if role is None or not _trusts(role["AssumeRolePolicyDocument"], service):
        raise CannotAssumeRole(role_arn)
    name = role_arn.rsplit("/", 1)[-1]
    credentials = Credentials(
        access_key_id="ASIA" + hashlib.sha256(secrets.token_bytes(16)).hexdigest()[:16].upper(),
        secret_access_key=secrets.token_hex(32),
        session_token=secrets.token_hex(32),
    )
    sts.register_session(
        credentials.access_key_id,
        {
            "Arn": f"arn:aws:sts::{get_account_id()}:assumed-role/{name}/{session}",
            "UserId": f"{role.get('RoleId', name)}:{session}",
            "SecretAccessKey": credentials.secret_access_key,
            "SessionToken": credentials.session_token,
            "AccountId": get_account_id(),
            "PrincipalType": "AssumedRole",
        },
    )
    return credentials


def _trusts(policy: str | dict[str, Any], service: str) -> bool:
    document = json.loads(policy) if isinstance(policy, str) else policy
    statements = document["Statement"]
    return any(
        statement["Effect"] == "Allow" and iam_evaluator._service_principal_matches(statement.get("Principal"), service)
        for statement in (statements if isinstance(statements, list) else [statements])
    )


# --- CloudWatch ---------------------------------------------------------------------------------------------------

Alarm = dict[str, Any]
Point = dict[str, Any]
AlarmListener = Callable[[Alarm, str, str], None]

_alarm_listeners: list[AlarmListener] = []
_record_alarm_history = cloudwatch._record_history


def alarms() -> list[Alarm]:
    """Every metric and composite alarm, as stored (the members of PutMetricAlarm plus `State*`); on the loop only."""
    return [*cloudwatch._alarms.values(), *cloudwatch._composite_alarms.values()]


def on_alarm_state_change(listener: AlarmListener) -> None:
    """Call `listener(alarm, old_state, new_state)` on the loop after each change; `alarm` carries the new state."""
    _alarm_listeners.append(listener)


def _announce_alarm(name: str, old: str, new: str, *args: Any, **kwargs: Any) -> None:
    _record_alarm_history(name, old, new, *args, **kwargs)
    if (alarm := cloudwatch._alarms.get(name) or cloudwatch._composite_alarms.get(name)) and old != new:
        for listener in _alarm_listeners:
            listener(alarm, old, new)


cloudwatch._record_history = _announce_alarm


def evaluate_alarms_with(evaluate: Callable[[Alarm], None]) -> None:
    """Replace MiniStack's evaluation of one metric alarm, which knows neither metric math nor missing data."""
    cloudwatch._evaluate_alarm = evaluate


def set_alarm_state(alarm: Alarm, state: str, reason: str, reason_data: str | None = None) -> None:
    """Move an alarm to a state: its history, its actions, its parents and our listeners follow; on the loop only."""
    old = alarm["StateValue"]
    if old == state:
        return
    alarm["StateValue"] = state
    alarm["StateReason"] = reason
    alarm["StateReasonData"] = reason_data
    alarm["StateUpdatedTimestamp"] = int(datetime.now(UTC).timestamp())
    cloudwatch._record_history(alarm["AlarmName"], old, state, reason, reason_data=reason_data)
    cloudwatch._dispatch_alarm_actions(alarm, old, state, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


# Minutes in which each value of a metric is known, as percentiles need it; of older ones a statistic set is left.
KEPT_MINUTES = 180
EVICTION_INTERVAL = 60.0

_minute = 60.0  # seconds here of a minute in the cloud
_values_by_minute: defaultdict[tuple[str, str, Any], deque["Minute"]] = defaultdict(deque)
_evict = cloudwatch._evict_old_metrics
_store_datum = cloudwatch._store_datum
_next_eviction = 0.0


class Minute(NamedTuple):
    """A minute of a metric in which each value is known: all of its points are of the moment of the first."""

    number: int
    moment: float
    points: dict[float, Point]


def put_metric(
    namespace: str,
    name: str,
    values: Mapping[float, int],
    *,
    unit: str,
    dimensions: Mapping[str, str],
    at: float | None = None,
) -> None:
    """Add values of a metric, each with how often it was seen, of a moment (epoch seconds) or now; on the loop only.

    What comes within a minute of the cloud's is one point for each value, however often it is put, so that a steady
    load makes neither memory nor alarms grow with its rate.
    """
    moment = time.time() if at is None else at
    key = (namespace, name, cloudwatch._dims_key(dict(dimensions)))
    points, minutes = cloudwatch._metric_bucket(key), _values_by_minute[key]
    number = int(moment // _minute)
    index = bisect_left(minutes, number, key=_number)
    if index == len(minutes) or minutes[index].number != number:
        minutes.insert(index, Minute(number, moment, {}))
    minute = minutes[index]
    for value, count in values.items():
        if known := minute.points.get(value):
            known["Count"] += count
        else:
            point = {"Timestamp": minute.moment, "Unit": unit, "Dimensions": dict(dimensions), "Value": value}
            minute.points[value] = point | {"Count": float(count)}
            insort(points, minute.points[value], key=_timestamp)
    if len(minutes) > KEPT_MINUTES:
        _summarise(points, list(minutes.popleft().points.values()))


def _number(minute: Minute) -> int:
    return minute.number


def _summarise(points: list[Point], minute: list[Point]) -> None:
    """Put one statistic set in the place of a minute's points."""
    total = sum(point["Value"] * point["Count"] for point in minute)
    count = sum(point["Count"] for point in minute)
    values = [point["Value"] for point in minute]
    statistics = {"SampleCount": count, "Sum": total, "Minimum": min(values), "Maximum": max(values)}
    start = bisect_left(points, minute[0]["Timestamp"], key=_timestamp)
    points[start : start + len(minute)] = [{**minute[0], "Value": total / count, "Count": count, "_stat": statistics}]


def metric_points(namespace: str, name: str, dimensions: Mapping[str, str], since: float) -> list[Point]:
    """The stored points of one metric (`Timestamp` in epoch seconds, `Value`, or statistic sets); on the loop only."""
    points: list[Point] = cloudwatch._metrics.get((namespace, name, cloudwatch._dims_key(dict(dimensions))), [])
    return points[bisect_left(points, since, key=_timestamp) :]


def _timestamp(point: Point) -> float:
    return float(point["Timestamp"])


def _store_in_order(namespace: str, name: str, dimensions: dict[str, str], *datum: Any) -> None:
    """Keep the points of a metric in the order of their time, also those that arrive late."""
    _store_datum(namespace, name, dimensions, *datum)
    cloudwatch._metric_bucket((namespace, name, cloudwatch._dims_key(dimensions))).sort(key=_timestamp)


def _evict_sometimes() -> None:
    """MiniStack looks at every point of every metric before it answers anything about any."""
    global _next_eviction  # noqa: PLW0603 - MiniStack's own state is the module's, too
    if time.monotonic() >= _next_eviction:
        _next_eviction = time.monotonic() + EVICTION_INTERVAL
        _evict()


_stat_value = cloudwatch._stat_value


def _any_statistic(known: Any, name: str, points: list[Point] | None = None) -> float | None:
    """MiniStack knows no trimmed count."""
    if name.startswith("TC("):
        return statistic([Sample.from_point(point) for point in points or []], name)
    value: float | None = _stat_value(known, name, points)
    return value


cloudwatch._stat_value = _any_statistic
cloudwatch._store_datum = _store_in_order
cloudwatch._evict_old_metrics = _evict_sometimes

_put_alarm = cloudwatch._put_metric_alarm
_alarm_record = provisioners._cw_metric_alarm_record


def _put_metric_alarm(
    params: dict[str, Any], members: dict[str, Any], is_cbor: bool, is_json: bool = False
) -> tuple[int, dict[str, str], bytes]:
    if not members and any(name.startswith("Metrics.") for name in params):
        refusal: tuple[int, dict[str, str], bytes] = cloudwatch._error(
            "InvalidParameterCombination", "MiniStack reads metric math in CBOR and JSON requests only", 400
        )
        return refusal
    answer: tuple[int, dict[str, str], bytes] = _put_alarm(params, members, is_cbor, is_json)
    if answer[0] == 200 and members:
        _keep_metric_math(cloudwatch._alarms[members["AlarmName"]], members)
    return answer


def _templated_alarm(name: str, properties: dict[str, Any]) -> Alarm:
    # MiniStack refuses metric math in a template: it gets a metric to its taste, which is taken out again.
    named = {"Namespace": "-", "MetricName": "-"} if properties.get("Metrics") else {}
    alarm: Alarm = _alarm_record(name, {**properties, "Metrics": None, **named})
    _keep_metric_math(alarm, properties)
    return alarm


def _keep_metric_math(alarm: Alarm, members: Mapping[str, Any]) -> None:
    """Put back what MiniStack drops of an alarm's members."""
    if "EvaluateLowSampleCountPercentile" in members:
        alarm["EvaluateLowSampleCountPercentile"] = members["EvaluateLowSampleCountPercentile"]
    if not members.get("Metrics"):
        return
    for member in ("Namespace", "MetricName", "Dimensions", "Statistic", "ExtendedStatistic", "Period", "Unit"):
        alarm.pop(member, None)
    alarm["Metrics"] = [_typed_query(query) for query in members["Metrics"]]


def _typed_query(query: Mapping[str, Any]) -> dict[str, Any]:
    """Templates may write numbers and truths as text."""
    typed = {**query, "ReturnData": str(query.get("ReturnData", True)).lower() == "true"}
    if stat := query.get("MetricStat"):
        typed["MetricStat"] = {**stat, "Period": int(stat["Period"])}
    return typed


cloudwatch._put_metric_alarm = _put_metric_alarm
provisioners._cw_metric_alarm_record = _templated_alarm


# --- what functions tell of their invocations --------------------------------------------------------------------

_invoke = lambda_svc._execute_function_dispatch


def _invoke_and_measure(
    function: Any, config: Mapping[str, Any], event: Any, request_id: str, began: float
) -> dict[str, Any]:
    """Count every invocation, whatever asked for it; MiniStack counts those alone that `Invoke` asks for.

    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    """
    result: dict[str, Any] = {"error": True}
    try:
        result = _invoke(function, config, event, request_id, began)
        return result
    finally:
        duration = round(1000 * (time.time() - began))
        _tell_of_function(
            config["FunctionName"], Invocations=1, Errors=int(bool(result.get("error"))), Throttles=0, Duration=duration
        )


def _tell_throttled(function: str, *, throttle: bool, **_: Any) -> None:
    """What was invoked, `_invoke_and_measure` tells."""
    if throttle:
        _tell_of_function(function, Throttles=1)


def _tell_of_function(function: str, **values: float) -> None:
    def tell() -> None:
        for metric, value in values.items():
            unit = "Milliseconds" if metric == "Duration" else "Count"
            put_metric("AWS/Lambda", metric, {value: 1}, unit=unit, dimensions={"FunctionName": function})

    soon(tell)


lambda_svc._execute_function_dispatch = _invoke_and_measure
lambda_svc._emit_lambda_metrics = _tell_throttled


# --- mail ---------------------------------------------------------------------------------------------------------

MailListener = Callable[[str, str, str], None]

_publish_to_subscribers = sns._fanout
_mail_listeners: list[MailListener] = []


def on_mail(listener: MailListener) -> None:
    """Call `listener(address, subject, text)` with what a topic sends to a mail address."""
    _mail_listeners.append(listener)


def _publish_and_mail(
    topic: str, message_id: str, message: str, subject: str, structure: str = "", *rest: Any, **more: Any
) -> None:
    """MiniStack sends no mail. Nobody has to confirm an address here, which on AWS its owner must."""
    _publish_to_subscribers(topic, message_id, message, subject, structure, *rest, **more)
    subscriptions = (sns._topic_by_arn_any_scope(topic) or {}).get("subscriptions", [])
    for address in [each["endpoint"] for each in subscriptions if each["protocol"] == "email"]:
        for listener in _mail_listeners:
            try:
                listener(address, subject, sns._resolve_message_for_protocol(message, structure, "email"))
            except Exception:
                logger.exception("no mail to %s", address)  # who publishes hears nothing of it, as of SNS's own


sns._fanout = _publish_and_mail


# --- queues -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Queue:
    """How many messages of a queue can be received, were received and not deleted, are held back; seconds of age."""

    name: str
    account: str
    region: str
    visible: int
    not_visible: int
    delayed: int
    oldest: float


_NOISY_SHARE, _NOISY_SECONDS = 0.1, 300.0
"""A tenant with a larger share of what consumers did lately is a noisy neighbour; "lately" is the guide's five minutes.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues-detailed.html
"""

_busy_with: dict[str, deque[tuple[float, str, float]]] = defaultdict(deque)
_collect = sqs._collect_msgs
_send_to_queue = eventbridge._dispatch_to_sqs
_run_batch = lambda_svc._run_sqs_batch
_waiting_scale = 1.0
_sending = threading.Lock()


def queues() -> list[Queue]:
    """Every queue of the cloud."""
    now = time.time()
    found = []
    with sqs._queues_lock:
        for (owner, region, _), queue in list(sqs._queues._data.items()):
            waiting = [message for message in queue["messages"] if message["visible_at"] > now]
            received = sum(message["receive_count"] > 0 for message in waiting)
            found.append(
                Queue(
                    name=queue["name"],
                    account=owner,
                    region=region,
                    visible=len(queue["messages"]) - len(waiting),
                    not_visible=received,
                    delayed=len(waiting) - received,
                    oldest=now - min((message["sent_at"] for message in queue["messages"]), default=now),
                )
            )
    return found


def scale_waiting(time_scale: float) -> None:
    """Let messages that a function failed on stay hidden for the cloud's minutes, not this machine's."""
    global _waiting_scale  # noqa: PLW0603 - as the minute
    _waiting_scale = time_scale


def _run_batch_and_wait_scaled(  # noqa: PLR0917 - MiniStack's signature
    mapping: dict[str, Any], function: Any, event: Any, batch: list[dict[str, Any]], url: str, name: str
) -> None:
    began = time.time()
    receipts = {message["id"]: message["receipt_handle"] for message in batch}
    _run_batch(mapping, function, event, batch, url, name)
    now = time.time()
    with sqs._queues_lock:
        for message in batch:
            _busy_with[url].append((now, message.get("group_id") or message["id"], now - began))
            if message["visible_at"] > now and message["receipt_handle"] == receipts[message["id"]]:
                message["visible_at"] = now + (message["visible_at"] - now) / _waiting_scale


def _send_with_group(target: Any, payload: str, parameters: Mapping[str, str] | None = None) -> None:
    """Set a message's group in standard queues too, which makes them fair; it may be a path into the event.

    MiniStack sends in many threads: which message is this one's, only one at a time can tell.
    """
    queue = sqs._queue_by_arn(str(target))
    with _sending:
        before = queue["messages"][-1:] if queue else []
        _send_to_queue(target, payload, parameters)
        group = (parameters or {}).get("MessageGroupId")
        if queue and group and not queue["is_fifo"] and queue["messages"][-1:] != before:
            queue["messages"][-1]["group_id"] = _group(group, payload)


def _group(group: str, payload: str) -> str | None:
    if not group.startswith("$."):
        return group
    value: Any = json.loads(payload)
    for name in group[2:].split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return None if value is None else str(value)


def _collect_fairly(queue: dict[str, Any], most: int, hidden: int) -> list[dict[str, Any]]:
    """Messages of quiet tenants before those of noisy ones, and of these the one with the fewest in flight first.

    A message without a group is a tenant of its own, which is quiet.
    """
    if queue["is_fifo"] or not any(message.get("group_id") for message in queue["messages"]):
        return list(_collect(queue, most, hidden))
    now = time.time()
    busy = _busy_with[queue["url"]]
    while busy and busy[0][0] < now - _NOISY_SECONDS:
        busy.popleft()
    share: dict[str, float] = defaultdict(float)
    for _, group, seconds in busy:
        share[group] += seconds
    total = sum(share.values())
    flying: dict[str, int] = defaultdict(int)
    first: dict[str, dict[str, Any]] = {}
    for message in queue["messages"]:
        group = message.get("group_id") or message["id"]
        if message["visible_at"] <= now:
            first.setdefault(group, message)
        elif message["receive_count"]:
            flying[group] += 1

    def turn(group: str) -> int:
        return flying[group] + 1 if share[group] > _NOISY_SHARE * total else 0

    chosen = [first[group] for group in sorted(first, key=turn)[:most]]
    return list(_collect({**queue, "messages": chosen}, most, hidden))


sqs._collect_msgs = _collect_fairly
eventbridge._dispatch_to_sqs = _send_with_group
lambda_svc._run_sqs_batch = _run_batch_and_wait_scaled


# --- HTTP APIs ----------------------------------------------------------------------------------------------------


@dataclass
class ApiCall:
    """A request to an HTTP API: the route that it takes, what the stage says, and what became known on the way.

    `signed` says that its callers must be IAM's; `claims` are those of a verified token, `user` the ARN of an IAM
    caller, `integration` the seconds in the function.
    """

    api: str
    stage: str
    route: str
    rate: float | None
    burst: int | None
    signed: bool
    log_group: str | None
    log_format: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    user: str | None = None
    integration: float | None = None


class Gateway(Protocol):
    """What stands before every HTTP API: says which calls are too many, and hears how each was answered."""

    def admits(self, call: ApiCall) -> bool: ...

    def answered(self, call: ApiCall, response: Response, seconds: float) -> None: ...


_api_call: ContextVar[ApiCall | None] = ContextVar("api_call", default=None)
_execute = app._handle_execute_api_request
_integrate = apigateway._invoke_lambda_proxy
_stage_properties = provisioners._apigw_v2_stage_props
_create_api = provisioners._RESOURCE_HANDLERS["AWS::ApiGatewayV2::Api"]["create"]
_FORBIDDEN = (403, {"Content-Type": "application/json"}, b'{"message":"Forbidden"}')
_TOO_MANY = (429, {"Content-Type": "application/json"}, b'{"message":"Too Many Requests"}')


def place_before_apis(gateway: Gateway) -> None:
    """Let `gateway` do what MiniStack does not for HTTP APIs; it is called on the loop."""

    async def execute(  # noqa: PLR0917 - MiniStack's signature
        host: str, path: str, method: str, headers: dict[str, str], body: bytes, query: dict[str, list[str]], **raw: Any
    ) -> Any:
        if (call := _called(host, path, method)) is None:
            return await _execute(host, path, method, headers, body, query, **raw)
        _api_call.set(call)
        began = time.perf_counter()
        if not gateway.admits(call):
            answer = _TOO_MANY
        elif call.signed and not headers.get("authorization", "").startswith("AWS4-"):  # MiniStack takes any other
            answer = _FORBIDDEN
        else:
            answer = await _execute(host, path, method, headers, body, query, **raw)
        gateway.answered(call, Response(answer[0], answer[2], answer[1]), time.perf_counter() - began)
        return answer

    app._handle_execute_api_request = execute


def _called(host: str, path: str, method: str) -> ApiCall | None:
    """The HTTP API's route that a request takes; None where it takes none."""
    parsed = app._parse_execute_api_url(host, path)
    if parsed is None or (scope := apigateway.find_api_scope(parsed[0])) is None:
        return None
    name, rest = app._resolve_stage_and_path(*parsed)
    with request_scope(*scope):
        stage = apigateway._stages.get(parsed[0], {}).get(name)
        route = apigateway._match_route(parsed[0], method, rest)
    if stage is None or route is None:
        return None
    limits, log = stage.get("defaultRouteSettings") or {}, stage.get("accessLogSettings") or {}
    destination = log.get("destinationArn")
    return ApiCall(
        api=parsed[0],
        stage=name,
        route=route["routeKey"],
        rate=limits.get("throttlingRateLimit"),
        burst=limits.get("throttlingBurstLimit"),
        signed=route.get("authorizationType") == "AWS_IAM",
        log_group=destination.removesuffix(":*").rsplit(":", 1)[-1] if destination else None,
        log_format=log.get("format", ""),
    )


async def _invoke_and_tell(*args: Any, **kwargs: Any) -> Any:
    began = time.perf_counter()
    answer = await _integrate(*args, **kwargs)
    if call := _api_call.get():
        call.integration = time.perf_counter() - began
        call.claims = kwargs.get("authorizer_claims") or {}
        call.user = (kwargs.get("authorizer_iam") or {}).get("userArn")
    return answer


def _create_reachable_api(logical_id: str, properties: dict[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
    """An API's own host name has two labels before `localhost`: no certificate and not every resolver knows it."""
    id_, attributes = _create_api(logical_id, properties, stack)
    host = attributes["ApiEndpoint"].partition(".execute-api.")[2]
    endpoint = apigateway._apis[id_]["apiEndpoint"] = f"https://{host}/_aws/execute-api/{id_}"
    return id_, {**attributes, "ApiEndpoint": endpoint}


def _stage_as_the_api_has_it(properties: dict[str, Any]) -> dict[str, Any]:
    """MiniStack keeps a template's names of throttling limits, in other case than the API's."""
    stage: dict[str, Any] = _stage_properties(properties)
    return {**stage, "defaultRouteSettings": provisioners._pascal_to_camel(stage["defaultRouteSettings"])}


apigateway._invoke_lambda_proxy = _invoke_and_tell
provisioners._apigw_v2_stage_props = _stage_as_the_api_has_it
provisioners._RESOURCE_HANDLERS["AWS::ApiGatewayV2::Api"]["create"] = _create_reachable_api


def put_log(group: str, stream: str, message: str) -> None:
    """Add an event to a log group that exists; nothing where it does not. On the loop only."""
    name = {"logGroupName": group, "logStreamName": stream}
    cloudwatch_logs._create_log_stream(name)  # refused where there is one
    now = int(datetime.now(UTC).timestamp() * 1000)
    cloudwatch_logs._put_log_events({**name, "logEvents": [{"timestamp": now, "message": message}]})


# --- AppConfig ----------------------------------------------------------------------------------------------------

_start_configuration = appconfig._start_deployment
_latest_configuration = appconfig._get_latest_configuration
_delete_profile = provisioners._RESOURCE_HANDLERS["AWS::AppConfig::ConfigurationProfile"]["delete"]
_WAIT = "Next-Poll-Interval-In-Seconds"


def _start_valid_configuration(
    application: str, environment: str, body: dict[str, Any]
) -> tuple[int, dict[str, str], bytes]:
    """Check a configuration with its profile's JSON Schema before it is deployed, which MiniStack does not.

    https://docs.aws.amazon.com/appconfig/latest/userguide/appconfig-creating-configuration-and-profile-validators.html
    """
    answer: tuple[int, dict[str, str], bytes]
    name = f"{application}/{body.get('ConfigurationProfileId', '')}"
    version = appconfig._hosted_versions.get(f"{name}/{body.get('ConfigurationVersion', '')}")
    for validator in (appconfig._config_profiles.get(name) or {}).get("Validators") or []:
        if version and validator["Type"] == "JSON_SCHEMA":
            schema = Draft4Validator(json.loads(validator["Content"]))
            if problem := next(schema.iter_errors(json.loads(version["Content"])), None):
                answer = appconfig._error(400, "BadRequestException", f"Error in validator: {problem.message}")
                return answer
    answer = _start_configuration(application, environment, body)
    return answer


def _latest_in_scaled_time(token: str) -> tuple[int, dict[str, str], bytes]:
    status, headers, body = _latest_configuration(token)
    if wait := headers.get(_WAIT):
        headers = {**headers, _WAIT: str(max(1, round(int(wait) * _minute / 60)))}
    return status, headers, body


def _delete_empty_profile(id_: str, properties: dict[str, Any]) -> None:
    """AppConfig deletes no profile with versions, of which CloudFormation knows only the template's own."""
    name = f"{properties.get('ApplicationId', '')}/{id_}/"
    if any(version.startswith(name) for version in appconfig._hosted_versions):
        raise ValueError(
            f"Cannot delete configuration profile {id_} because there are still hosted configuration versions existing "
            "under it."
        )
    _delete_profile(id_, properties)


appconfig._start_deployment = _start_valid_configuration
appconfig._get_latest_configuration = _latest_in_scaled_time
provisioners._RESOURCE_HANDLERS["AWS::AppConfig::ConfigurationProfile"]["delete"] = _delete_empty_profile


# --- Athena -------------------------------------------------------------------------------------------------------


class QueryEngine(Protocol):
    """What answers queries. `problem` tells why a statement is none; `run` raises with the reason where it fails.

    `tables` gives a Table of the Glue API by the names of its database and its own, `objects` those of S3 whose URI
    begins so, each with what brings its content.
    """

    def problem(self, statement: str) -> str | None: ...

    def run(
        self,
        statement: str,
        database: str,
        tables: Callable[[str, str], dict[str, Any] | None],
        objects: Callable[[str], Iterable[tuple[str, Callable[[], bytes]]]],
    ) -> tuple[list[str], list[str], list[list[Any]]]:
        """Names of the columns, their types as Athena calls them, and the rows."""


def answer_queries_with(engine: QueryEngine) -> None:
    """Let an engine answer Athena's queries, which MiniStack takes for DuckDB's SQL."""
    submit = athena._start_query_execution

    def start(data: dict[str, Any]) -> Any:
        if (problem := engine.problem(data.get("QueryString", ""))) is None:
            return submit(data)
        return athena.error_response_json(
            "InvalidRequestException", problem, 400, extra={"AthenaErrorCode": "MALFORMED_QUERY"}
        )

    async def run(statement: str, database: str, catalog: str | None = None) -> dict[str, Any]:
        account, region = get_account_id(), get_region()

        def table(of: str, name: str) -> dict[str, Any] | None:
            found: dict[str, Any] | None = on_loop(
                lambda: glue._tables.get(f"{of}/{name}"), account=account, region=region
            )
            return found

        def objects(start: str) -> Iterable[tuple[str, Callable[[], bytes]]]:
            bucket, _, prefix = start.removeprefix("s3://").partition("/")
            keys = on_loop(
                lambda: sorted(key for key in s3._buckets[bucket]["objects"] if key.startswith(prefix)),
                account=account,
                region=region,
            )
            for key in keys:
                yield (
                    f"s3://{bucket}/{key}",
                    lambda key=key: on_loop(  # type: ignore[misc]
                        lambda: bytes(s3._get_object_data(bucket, key) or b""), account=account, region=region
                    ),
                )

        columns, types, rows = await asyncio.to_thread(engine.run, statement, database, table, objects)
        return {"columns": columns, "column_types": types, "rows": rows}

    athena._start_query_execution = start
    athena._run_duckdb = run


# --- serving ------------------------------------------------------------------------------------------------------


SHUTDOWN_TIMEOUT = 1.5


def serve(*, port: int, certificate: Path, key: Path) -> None:
    """Serve over TLS on the loopback address until the process is told to end.

    MiniStack's own `main` also tries port 443; this does not.
    """
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = sys.maxsize
    config.loglevel = "WARNING"
    config.certfile, config.keyfile = str(certificate), str(key)
    config.graceful_timeout = 1

    async def run() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)

        async def until_stopped() -> None:
            await stopped.wait()

        serving = asyncio.ensure_future(hypercorn_serve(_front, config, shutdown_trigger=until_stopped))
        await asyncio.wait([serving, asyncio.ensure_future(stopped.wait())], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([serving], timeout=SHUTDOWN_TIMEOUT)
        if serving.done():
            serving.result()

    # `asyncio.run` would now wait for idle clients to take part in closing their TLS connections, which they don't.
    asyncio.new_event_loop().run_until_complete(run())
