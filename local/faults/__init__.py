"""Faults on purpose: calls to the local cloud that end their caller, are refused, or are answered late or wrongly.

    with LocalCloud(…) as cloud:
        cloud.faults.set(Fault(kind=Kind.KILL_AFTER, caller="noria-local-validate-upload", operation="PutObject"))
        …
        cloud.faults.calls()  # who called what since then, and what became of it
        cloud.faults.clear()

They sit in the server, where it is known whose signature a request has, and so change no function. What `microburst`
(PyPI) does for AWS's protocols as a proxy is the smaller half of it: a proxy sees neither the role behind a signature
nor the process behind a connection.
"""

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PATH = "/_noria/faults"
INTERRUPTIONS = "/_noria/interruptions"


class Kind(StrEnum):
    """What happens to a call.

    `kill_before`, `kill_after`: its process gets SIGKILL before the call is done, or after it was done and before the
    answer is sent. `throttle`, `server_error`, `deny`: it is refused in the words of its service, and not done.
    `timeout`: it is done, and answered only `seconds` later. `stale`: it is answered as the same request was answered
    the last time that this caller made it since the fault was set, at most `seconds` ago.
    """

    KILL_BEFORE = "kill_before"
    KILL_AFTER = "kill_after"
    THROTTLE = "throttle"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    DENY = "deny"
    STALE = "stale"


class Fault(BaseModel):
    """Which calls, and what happens to them.

    `caller` is a pattern (`*`, `?`) of the role's name or of its session's, which for a function is the function's
    name. `service` and `operation` are patterns of what IAM calls the action: a HeadObject is `s3` `GetObject`. Of the
    matching calls it is the `nth` (from 1) and the `times - 1` after it; all that follow if `times` is None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    caller: str
    service: str = "*"
    operation: str = "*"
    nth: Annotated[int, Field(ge=1)] = 1
    times: Annotated[int, Field(ge=1)] | None = 1
    seconds: Annotated[float, Field(gt=0)] = 65.0  # longer than botocore waits

    def matches(self, *, role: str, session: str, service: str, operation: str) -> bool:
        return (
            (fnmatchcase(role, self.caller) or fnmatchcase(session, self.caller))
            and fnmatchcase(service, self.service)
            and fnmatchcase(operation, self.operation)
        )


class Interruption(BaseModel):
    """The training job whose Spot instance is taken away."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str


class Call(BaseModel):
    """A call that was seen; `outcome` is its HTTP status, or the kind of the fault that it met.

    `request` is the same of calls of one session that ask for the same, as of one that is made again.
    """

    model_config = ConfigDict(frozen=True)

    role: str
    session: str
    service: str
    operation: str
    outcome: str
    request: str = ""

    @property
    def what(self) -> str:
        return f"{self.service}:{self.operation}"


class State(BaseModel):
    """What is set, and every call of a role since then."""

    faults: tuple[Fault, ...] = ()
    calls: tuple[Call, ...] = ()
