"""Set faults in a cloud that runs, and ask what they met."""

import ssl
import urllib.request
from dataclasses import dataclass

from local.faults import PATH, Call, Fault, State


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

    def _ask(self, method: str, state: State | None = None) -> State:
        request = urllib.request.Request(  # noqa: S310 - always https
            f"{self.endpoint}{PATH}", method=method, data=state.model_dump_json().encode() if state else None
        )
        with urllib.request.urlopen(request, timeout=30, context=self.tls) as answer:  # noqa: S310 - as above
            return State.model_validate_json(answer.read())
