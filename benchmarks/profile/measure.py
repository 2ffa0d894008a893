"""One program, from its start to its end, as the operating system counts."""

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Bytecode is kept from the first run on, as that of the peers' packages is, and as every bundle brings its own."""


class Failed(RuntimeError):
    """A program that ended with an error, did not compare every feature, or took too long."""


@dataclass(frozen=True)
class Run:
    """Seconds from start to end, seconds of processor time, and bytes that were resident at most."""

    wall: float
    processor: float
    memory: int


def run(command: Sequence[str | Path], *, folder: Path, says: str, limit: float) -> Run:
    """Run a program that prints `says` last; `limit` in seconds."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=_ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT)
        try:
            status, used = _wait(process, started + limit)
        except TimeoutError as error:
            process.kill()
            process.wait()
            raise Failed(f"no answer in {limit:.0f} s") from error
        wall = time.perf_counter() - started
        output.seek(0)
        printed = output.read().decode(errors="replace").strip().splitlines()
    if status or not printed or printed[-1] != says:
        raise Failed((printed or ["it said nothing"])[-1][:200])
    return Run(wall=wall, processor=used.ru_utime + used.ru_stime, memory=used.ru_maxrss * 1024)


def _wait(process: "subprocess.Popen[bytes]", until: float) -> "tuple[int, resource.struct_rusage]":
    """Wait for the process alone, as wait4 tells what it used."""
    while True:
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, used
        if time.perf_counter() > until:
            raise TimeoutError
        time.sleep(0.002)
