"""One server under load: how long until it answers, how fast it answers right, and how much memory it holds."""

import http.client
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.contenders import CORES, ENVIRONMENT, LIBRARIES, Contender, Start, tool
from benchmarks.serving.models import Trained

PATIENCE = 60.0
LONGEST_LOAD = 8
WRK = Path(__file__).with_name("wrk.lua")
MEGABYTE = 1e6
TICKS = os.sysconf("SC_CLK_TCK")
TOLERANCE = 1e-4
"""By how much a score may differ from scikit-learn's; ONNX computes with single precision."""


class Unfair(Exception):
    """A server does not do what is compared: it fails, or answers something else than the model says."""


@dataclass(frozen=True)
class Load:
    per_second: float
    p50_ms: float
    p95_ms: float
    server_us: float
    """Microseconds of processor time that the server took for a request; others on the machine hardly change it."""
    client_cores: float
    """Seconds of processor time that the load generator took a second."""


@dataclass(frozen=True)
class Memory:
    """In megabytes: the largest process, and all together with what they share counted once."""

    worker: float
    server: float


@dataclass(frozen=True)
class Running:
    port: int
    ready: float
    """Seconds from its start to its first right answer."""
    pid: int

    def processor_seconds(self) -> float:
        """Of all its processes so far."""
        stats = [stat for process in _family(self.pid) if (stat := _stat(process))]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / TICKS

    def memory(self) -> Memory:
        resident, shared_once = [], 0.0
        for process in _family(self.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = dict(
                    line.split()[:2] for line in (process / "smaps_rollup").read_text().splitlines()[1:] if line
                )
                resident.append(int(fields["Rss:"]) * 1024 / MEGABYTE)
                shared_once += int(fields["Pss:"]) * 1024 / MEGABYTE
        return Memory(max(resident), shared_once)


@contextmanager
def running(contender: Contender, start: Start, model: Trained, port: int, log: Path) -> Iterator[Running]:
    """The server, from when it answers a request rightly until the block ends."""
    body = contender.request(model.rows[:1], model.task)
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            list(start.command),
            cwd=start.folder,
            env={**os.environ, **ENVIRONMENT, **contender.environment, **start.environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while _ask(port, contender.path, body) is None:
                if process.poll() is not None or time.monotonic() > began + PATIENCE:
                    raise Unfair(f"{contender.name} does not answer; see {log}")
                time.sleep(0.005)
            yield Running(port, time.monotonic() - began, process.pid)
        finally:
            _end(process.pid)
            process.wait()


def check(contender: Contender, server: Running, model: Trained, expected: Sequence[object]) -> None:
    """Raises `Unfair` unless the server scores the rows as scikit-learn does, one at a time and together."""
    if contender.scores is None:
        return
    for part in (slice(0, 1), slice(0, len(expected))):
        answer = _ask(server.port, contender.path, contender.request(model.rows[part], model.task))
        if answer is None:
            raise Unfair(f"{contender.name} refuses {part.stop} rows")
        for score, right in zip(contender.scores(json.loads(answer), model.task), expected[part], strict=True):
            if not _close(score, right):
                raise Unfair(f"{contender.name} answers {score} where the model says {right}")


def load(contender: Contender, server: Running, bodies: Path, *, connections: int, seconds: int) -> Load:
    """wrk over keep-alive connections, for longer if nothing was answered; raises `Unfair` if a request failed."""
    before, server_before = resource.getrusage(resource.RUSAGE_CHILDREN), server.processor_seconds()
    ran = subprocess.run(
        [
            *(tool("wrk"), f"-t{min(connections, CORES)}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"),
            *("-s", WRK, f"http://127.0.0.1:{server.port}{contender.path}", "--", bodies),
        ],
        env={**os.environ, **LIBRARIES},
        capture_output=True,
        text=True,
        check=True,
    )
    after, server_after = resource.getrusage(resource.RUSAGE_CHILDREN), server.processor_seconds()
    saw = json.loads(ran.stdout.strip().splitlines()[-1])
    if saw["bad_statuses"] or saw["broken"]:
        raise Unfair(f"{contender.name} failed requests: {saw}")
    if not saw["requests"]:
        if seconds >= LONGEST_LOAD:
            raise Unfair(f"{contender.name} answers nothing in {seconds} s")
        return load(contender, server, bodies, connections=connections, seconds=2 * seconds)
    took = saw["microseconds"] / 1e6
    return Load(
        per_second=saw["requests"] / took,
        p50_ms=saw["p50_us"] / 1000,
        p95_ms=saw["p95_us"] / 1000,
        server_us=1e6 * (server_after - server_before) / saw["requests"],
        client_cores=(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / took,
    )


def _ask(port: int, path: str, body: bytes) -> bytes | None:
    """The answer to one request; None if there is none, or not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", "Accept": "application/json"})
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return content if response.status == http.client.OK else None


def _close(score: object, right: object) -> bool:
    if isinstance(right, list):
        return isinstance(score, list) and all(map(_close, score, right))
    return abs(float(str(score)) - float(str(right))) <= TOLERANCE * max(1.0, abs(float(str(right))))


def _family(pid: int) -> list[Path]:
    """A process, those of its group and all their descendants that still run, as folders in /proc."""
    parents, family = {}, {pid}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and (stat := _stat(process)):
            parents[int(process.name)] = int(stat[1])
            if int(stat[2]) == pid:
                family.add(int(process.name))
    while born := {child for child, parent in parents.items() if parent in family} - family:
        family |= born
    return [Path("/proc", str(member)) for member in sorted(family & parents.keys())]


def _stat(process: Path) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on (proc(5), number 3); None of a process that has ended."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields


def _end(pid: int) -> None:
    """Asks a server to end and, five seconds later, ends what is left of it."""
    family = _family(pid)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
    deadline = time.monotonic() + 5
    while any(map(_stat, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in family:
        if _stat(process):
            os.kill(int(process.name), signal.SIGKILL)
