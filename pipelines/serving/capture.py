"""Requests and answers as lines on standard output, where SageMaker captures no data itself (serverless endpoints)."""

import multiprocessing
import os

import orjson

from pipelines.serving.inference import Exchange

LONGEST_LINE = 1_000_000
"""Bytes; CloudWatch Logs takes events up to 1 MB (`PutLogEvents`). Longer ones are told of, and not captured."""


class Capture:
    """Writes lines to a file descriptor. Made before the workers are forked, whose lines must not mix."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._lock = multiprocessing.get_context("fork").Lock()

    def __call__(self, exchange: Exchange) -> None:
        line = orjson.dumps(exchange.record()) + b"\n"
        if len(line) > LONGEST_LINE:
            line = orjson.dumps({"noria": "not captured", "bytes": len(line)}) + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]
