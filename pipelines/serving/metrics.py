"""Counters of all workers in one piece of shared memory, and Prometheus' text of their sums.

Each worker writes to a slot of its own, so that counting takes neither a lock nor a system call. Its slot is the one
whose byte it has locked, until it ends. Memory without a name, because a sandbox may have no /dev/shm.
"""

import fcntl
import mmap
import os
from bisect import bisect_left
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4"
"""https://prometheus.io/docs/instrumenting/exposition_formats/"""

STATUSES = (200, 400, 406, 415, 500)
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds; upper bounds of the histogram's buckets."""

_ROWS = len(STATUSES)
_SECONDS = _ROWS + 1
_BUCKETS = _SECONDS + 1
_CELLS = _BUCKETS + len(BOUNDS) + 1
_SLOTS = 256
"""Workers at a time; one that is started again counts on in the slot of one that ended."""


class Metrics:
    """Made before the workers are forked; each then calls `of_this_worker`."""

    def __init__(self) -> None:
        self._file = os.memfd_create("metrics")
        os.ftruncate(self._file, _SLOTS * _CELLS * 8)
        self._memory = memoryview(mmap.mmap(self._file, 0)).cast("d")
        self._start = 0

    def of_this_worker(self) -> "Metrics":
        self._start = next(slot for slot in range(_SLOTS) if self._is_free(slot)) * _CELLS
        return self

    def _is_free(self, slot: int) -> bool:
        """Whether no other process has the slot; if so, this one has it from now on."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except (BlockingIOError, PermissionError):  # either, says POSIX
            return False
        return True

    def count(self, status: int, rows: int, seconds: float) -> None:
        """One request, answered after so many seconds."""
        cells, start = self._memory, self._start
        cells[start + STATUSES.index(status)] += 1
        cells[start + _ROWS] += rows
        cells[start + _SECONDS] += seconds
        cells[start + _BUCKETS + bisect_left(BOUNDS, seconds)] += 1

    def text(self, bundle: str) -> bytes:
        cells = self._memory.tolist()
        sums = [sum(cells[cell::_CELLS]) for cell in range(_CELLS)]
        requests = [f'noria_requests_total{{status="{s}"}} {sums[i]:.0f}' for i, s in enumerate(STATUSES)]
        bounds = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
        counts = list(accumulate(sums[_BUCKETS:]))
        buckets = [f'noria_request_seconds_bucket{{le="{b}"}} {c:.0f}' for b, c in zip(bounds, counts, strict=True)]
        lines = [
            "# HELP noria_model_info The bundle that is served: SHA-256 of its model file.",
            "# TYPE noria_model_info gauge",
            f'noria_model_info{{bundle="{bundle}"}} 1',
            "# HELP noria_requests_total Requests answered.",
            "# TYPE noria_requests_total counter",
            *requests,
            "# HELP noria_rows_total Rows predicted.",
            "# TYPE noria_rows_total counter",
            f"noria_rows_total {sums[_ROWS]:.0f}",
            "# HELP noria_request_seconds Time from a request's body to its answer.",
            "# TYPE noria_request_seconds histogram",
            *buckets,
            f"noria_request_seconds_sum {sums[_SECONDS]:.6f}",
            f"noria_request_seconds_count {counts[-1]:.0f}",
        ]
        return "".join(f"{line}\n" for line in lines).encode()
