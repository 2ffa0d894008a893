"""Set faults in a cloud that runs, and ask what they met."""

import ssl
import urllib.request
from dataclasses import dataclass

from pydantic import BaseModel

from local.faults import INTERRUPTIONS, PATH, Call, Fault, Interruption, State


@dataclass(frozen=True)
class Faults:
    """The faults of one cloud; `endpoint` and `tls` are the cloud's."""

    endpoint: str
    tls: ssl.SSLContext

    def set(self, *faults: Fault) -> None:
        """Replace what is set, and begin the record of calls anew; without faults, calls are recorded only."""
        self._ask("PUT", State(faults=faults))

    def clear(self) -> None:
        """End all faults, and the record."""
        self._ask("DELETE")

    def calls(self) -> tuple[Call, ...]:
        """What roles called since faults were set, in the order in which it was answered."""
        return self._ask("GET").calls

    def interrupt(self, job: str) -> None:
        """Take away the Spot instance on which a training job runs. Raises `HTTPError` 400 where it runs on none."""
        self._send(INTERRUPTIONS, "POST", Interruption(job=job))

    def _ask(self, method: str, state: State | None = None) -> State:
        return State.model_validate_json(self._send(PATH, method, state))

    def _send(self, path: str, method: str, body: BaseModel | None) -> bytes:
        request = urllib.request.Request(  # noqa: S310 - always https
            f"{self.endpoint}{path}", method=method, data=body.model_dump_json().encode() if body else None
        )
        with urllib.request.urlopen(request, timeout=30, context=self.tls) as answer:  # noqa: S310 - as above
            content: bytes = answer.read()
            return content
