"""The floor: a handler that reads the request and answers always the same, under the server that Noria uses.

`python -m … PORT WORKERS`, set up as pipelines/serving/__main__.py does.
"""

import multiprocessing
import sys
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels

ANSWER = b'{"predictions":[{"prediction":0,"score":0.5}]}'


class Empty:
    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        await protocol()
        protocol.response_bytes(200, [("content-type", "application/json")], ANSWER)


def application() -> Any:
    return Empty()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    Granian(
        "floor",
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        workers=int(sys.argv[2]),
        log_level=LogLevels.warning,
    ).serve(target_loader=application, wrap_loader=False)
