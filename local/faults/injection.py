"""The server's side of faults: what stands before each call, and the door through which faults are set."""

import asyncio
import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import ValidationError

from local import ministack
from local.faults import PATH, Call, Fault, Kind, State
from local.ministack import Asked, Proceed, Request, Response

logger = logging.getLogger("noria.faults")

# How each service says that it is asked too often, where it isn't ThrottlingException with status 400: in botocore's
# own models (`service-2.json`), and for S3 in its guide, "Error responses".
_THROTTLED = {
    "s3": (503, "SlowDown"),
    "dynamodb": (400, "ProvisionedThroughputExceededException"),
    "sns": (429, "Throttled"),
    "cloudformation": (400, "Throttling"),
    "cloudwatch": (400, "Throttling"),
    "lambda": (429, "TooManyRequestsException"),
    "scheduler": (429, "ThrottlingException"),
}
_Key = tuple[str, str, str, str, bytes]


@dataclass
class Injection:
    """What is set now. Only the server's event loop touches it."""

    faults: tuple[Fault, ...] = ()
    seen: dict[int, int] = field(default_factory=dict)  # by a fault's place, how many calls it matched
    calls: list[Call] = field(default_factory=list)
    answers: dict[_Key, tuple[float, Response]] = field(default_factory=dict)
    active: bool = False

    def install(self) -> None:
        ministack.place_before_calls(self)
        ministack.register_door(PATH, self.door)

    def door(self, request: Request) -> Response:
        """GET tells, PUT replaces, DELETE ends."""
        if request.method in {"PUT", "DELETE"}:
            try:
                wanted = State.model_validate_json(request.body) if request.method == "PUT" else State()
            except ValidationError as error:
                return Response(400, str(error).encode(), {"Content-Type": "text/plain"})
            self.faults, self.active = wanted.faults, request.method == "PUT"
            self.seen, self.calls, self.answers = {}, [], {}
        told = State(faults=self.faults, calls=tuple(self.calls))
        return Response(200, told.model_dump_json().encode(), {"Content-Type": "application/json"})

    async def answer(self, asked: Asked, proceed: Proceed) -> Response:
        """Let a call be done, or what a fault makes of it."""
        fault = self._due(asked)
        response = await (self._meet(fault, asked, proceed) if fault else proceed())
        self.calls.append(
            Call(
                role=asked.role,
                session=asked.session,
                service=asked.service,
                operation=asked.operation,
                outcome=fault.kind if fault else str(response.status),
                request=hashlib.sha256(repr(_key(asked)).encode()).hexdigest()[:16],
            )
        )
        if isinstance(response.body, bytes) and any(each.kind is Kind.STALE for each in self.faults):
            self.answers.setdefault(_key(asked), (time.monotonic(), response))
        return response

    def _due(self, asked: Asked) -> Fault | None:
        """The first fault whose turn it is with this call; all that match it have seen it."""
        due = None
        for place, fault in enumerate(self.faults):
            if fault.matches(role=asked.role, session=asked.session, service=asked.service, operation=asked.operation):
                number = self.seen[place] = self.seen.get(place, 0) + 1
                turn = fault.nth <= number and (fault.times is None or number < fault.nth + fault.times)
                due = due or (fault if turn else None)
        return due

    async def _meet(self, fault: Fault, asked: Asked, proceed: Proceed) -> Response:
        logger.info("%s meets %s:%s of %s", fault.kind, asked.service, asked.operation, asked.session)
        if fault.kind is Kind.KILL_BEFORE:
            kill(asked)
            return Response(500, b"")  # nobody is left to read it
        if fault.kind is Kind.STALE:
            known = self.answers.get(_key(asked))
            return known[1] if known and time.monotonic() - known[0] <= fault.seconds else await proceed()
        if fault.kind in _REFUSALS:
            return _REFUSALS[fault.kind](asked)
        response = await proceed()
        if fault.kind is Kind.KILL_AFTER:
            kill(asked)
        else:
            await asyncio.sleep(fault.seconds)
        return response


def _throttled(asked: Asked) -> Response:
    status, code = _THROTTLED.get(asked.service, (400, "ThrottlingException"))
    return ministack.refusal(asked, status, code, "Rate exceeded")


def _server_error(asked: Asked) -> Response:
    code = "InternalError" if asked.service in {"s3", "sns"} else "InternalServerError"
    return ministack.refusal(asked, 500, code, "We encountered an internal error. Please try again.")


_REFUSALS: dict[Kind, Callable[[Asked], Response]] = {
    Kind.THROTTLE: _throttled,
    Kind.SERVER_ERROR: _server_error,
    Kind.DENY: ministack.refusal,
}


def kill(asked: Asked) -> None:
    """End the process that made a call, as the kernel does when it runs out of memory."""
    for process in ministack.processes_of(asked):
        if process != os.getpid():
            os.kill(process, signal.SIGKILL)


def _key(asked: Asked) -> _Key:
    request = asked.request
    return asked.session, request.method, request.path, repr(sorted(request.query.items())), request.body
