"""Fleets of model servers: the processes that an endpoint's variants run on.

    Container, VariantSpec    what is to run
    ModelServer               one process, standing for every instance of a variant
    Fleet                     the servers of one endpoint config

AWS starts one container per instance; here one process serves a variant of any instance count, so that three
instances don't cost three times the CPU of the one machine beneath them. Instance counts still decide how traffic is
split and what the metrics say.
"""

import http.client
import logging
import shutil
import socket
import struct
import subprocess
import tarfile
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from botocore.exceptions import ClientError

from local import ministack
from local.sagemaker.capture import Capture
from local.sagemaker.cloud import Cloud
from local.sagemaker.container import BASE, Container, NoImage
from local.sagemaker.joblog import Shipping
from local.sagemaker.storage import Location, TransferFailed, download

logger = logging.getLogger("noria.fleet")

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = REPOSITORY / "local" / "container" / "serve.py"
NORIA_SERVER = "/noria-serving:"
"""In an image's name: Noria's model server (stacks/images.py). What serves any other image keeps AWS's contract."""
# https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
INVOCATION_TIMEOUT = 60.0
PING_TIMEOUT = 2.0


@dataclass(frozen=True)
class ContainerSpec:
    """A container of a model: image, environment, S3 URI of its artifacts (a `.tar.gz`, or a prefix if not packed)."""

    image: str
    environment: Mapping[str, str]
    artifacts: str | None
    packed: bool = True


@dataclass(frozen=True)
class VariantSpec:
    """What a variant of an endpoint config runs, and on how many instances."""

    name: str
    role_arn: str
    containers: tuple[ContainerSpec, ...]
    isolated: bool
    instance_count: int
    weight: float
    startup_timeout: float
    invocation_timeout: float = INVOCATION_TIMEOUT


@dataclass(frozen=True)
class Place:
    """Where a variant's servers are: their directory, the path their logs' names begin with, their log group."""

    directory: Path
    logs: Path
    log_group: str


@dataclass(frozen=True)
class Answer:
    """What a container answered; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StartError(Exception):
    """Why a variant did not come up, as DescribeEndpoint's FailureReason says it."""


class NoAnswerError(Exception):
    """The container did not answer: it died, or took too long."""


class ThrottledError(Exception):
    """The variant answers as many requests as it may at once."""


# --- one process


class ModelServer:
    """The process of one container; `root` becomes its directory. Its `log` goes to CloudWatch as it is written."""

    def __init__(
        self,
        cloud: Cloud,
        spec: ContainerSpec,
        *,
        role_arn: str,
        isolated: bool,
        root: Path,
        log: Path,
        log_group: str,
    ) -> None:
        self._cloud = cloud
        self._spec = spec
        self._role_arn = role_arn
        self._isolated = isolated
        self._container = Container(cloud, root)
        self._log = log
        self._log_group = log_group
        self._shipping: Shipping | None = None
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        # A Unix socket's path has about 100 characters, which names of endpoints and configs would use up.
        self._socket = Path(tempfile.mkdtemp(prefix="noria-")) / "8080"
        self._idle: deque[_Connection] = deque()

    def start(self, *, variant: str, timeout: float) -> None:
        """Fetch the model, start its server and wait until it answers pings. Raises `StartError`."""
        try:
            self._fetch_model()
        except (ClientError, TransferFailed, ministack.CannotAssumeRole, tarfile.TarError, EOFError, OSError) as error:
            logger.warning("variant %s: %s: %s", variant, self._spec.artifacts, error)
            raise StartError(
                f'Failed to download model data for container "container_1" from URL: "{self._spec.artifacts}". Please '
                "ensure that there is an object located at the URL and that the role passed to CreateModel has "
                "permissions to download the object."
            ) from error
        stream = f"{variant}/{self._socket.parent.name}"
        self._shipping = Shipping(self._cloud, self._log, group=self._log_group, stream=stream, role_arn=self._role_arn)
        self._shipping.follow()
        try:
            self._process = self._start_process()
        except NoImage as error:
            raise StartError(str(error)) from error
        if not self._comes_up(self._process, timeout):
            logger.warning("variant %s did not come up: see %s", variant, self._log)
            raise StartError(
                f"The primary container for production variant {variant} did not pass the ping health check. "
                "Please check CloudWatch logs for this endpoint."
            )

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        """One HTTP exchange with the process. Raises `NoAnswerError`."""
        try:
            connection, kept = self._idle.pop(), True
        except IndexError:
            connection, kept = _Connection(self._socket), False
        try:
            answer = connection.exchange(method, path, headers, body, timeout=timeout)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if kept and isinstance(error, ConnectionError):
                # Servers close what was idle for long: nobody has heard the request, so another connection may ask.
                return self.ask(method, path, headers, body, timeout)
            raise NoAnswerError(str(error)) from error
        self._idle.append(connection)
        return answer

    def revive(self) -> None:
        """Start a process that has died again, as AWS restarts a container."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                logger.warning("a model server ended by itself and starts again: see %s", self._log)
                self._cloud.end(self._process)
                self._process = self._start_process()

    def stop(self) -> None:
        with self._lock:
            if self._process is not None:
                self._cloud.end(self._process)
                self._process = None
            if self._shipping is not None:
                self._shipping.finish()
        while self._idle:
            self._idle.pop().close()
        shutil.rmtree(self._container.root, ignore_errors=True)
        shutil.rmtree(self._socket.parent, ignore_errors=True)

    def _fetch_model(self) -> None:
        """What AWS does before it starts a container: bring the artifacts to /opt/ml/model."""
        target = self._container.base / "model"
        target.mkdir(parents=True)
        if self._spec.artifacts is None:
            return
        s3 = self._cloud.client("s3", self._role_arn)
        if not self._spec.packed:
            download(s3, self._spec.artifacts, target)
            return
        location = Location.parse(self._spec.artifacts)
        packed = s3.get_object(Bucket=location.bucket, Key=location.key)["Body"]
        with tarfile.open(fileobj=packed, mode="r|gz") as archive:
            archive.extractall(target, filter="data")

    def _start_process(self) -> "subprocess.Popen[bytes]":
        self._socket.unlink(missing_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            "SM_MODEL_DIR": f"{BASE}/model",
            "SAGEMAKER_SUBMIT_DIRECTORY": f"{BASE}/model/code",
            # Many servers share this machine; without this each takes all of its cores for a single row.
            "OMP_NUM_THREADS": "1",
            "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
            **self._spec.environment,
        }
        command = ["python", str(SERVER)]
        if NORIA_SERVER in self._spec.image:
            command = ["python", "-m", "pipelines.serving"]
            environment["PYTHONPATH"] = str(REPOSITORY)
        return self._container.start(
            [*command, "--socket", str(self._socket)],
            environment,
            log=self._log,
            role_arn=self._role_arn,
            isolated=self._isolated,
        )

    def _comes_up(self, process: "subprocess.Popen[bytes]", timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and process.poll() is None:
            try:
                return self.ask("GET", "/ping", {}, b"", PING_TIMEOUT).status == http.HTTPStatus.OK
            except NoAnswerError:
                time.sleep(0.05)
        return False


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("model.aws.local")
        self._path = path

    def exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes, *, timeout: float) -> Answer:
        self.timeout = timeout
        if self.sock is not None:
            self.sock.settimeout(timeout)
        self.request(method, path, body, dict(headers))
        response = self.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        # Without blocking, connecting to a socket whose queue is full fails at once instead of waiting for its turn.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(self.timeout or 0) + 1, 0))
        self.sock.connect(str(self._path))
        self.sock.settimeout(self.timeout)


# --- a variant


@dataclass
class Variant:
    """A running variant: one server per container; a request passes through all, as in an inference pipeline.

    `instance_count` is how many instances it should have, of which a rolling deployment leaves some `absent`.
    """

    spec: VariantSpec
    servers: list[ModelServer]
    instance_count: int
    weight: float
    absent: int = 0
    _in_flight: int = 0
    _idle: threading.Condition = field(default_factory=threading.Condition)

    @property
    def running(self) -> int:
        return self.instance_count - self.absent

    @property
    def utilization(self) -> float | None:
        """The share of the requests allowed at once that are under way; None where nothing limits them."""
        return None

    def enter(self) -> None:
        """Begin a request. Raises `ThrottledError` where the variant takes no more of them."""
        with self._idle:
            self._in_flight += 1

    def leave(self) -> None:
        with self._idle:
            self._in_flight -= 1
            self._idle.notify_all()

    def warm(self) -> float | None:
        """Seconds that a cold start took, None if there was none; between `enter` and `leave`. Raises `StartError`."""
        return None

    def invoke(self, headers: Mapping[str, str], body: bytes, timeout: float | None = None) -> Answer:
        """Answer one request; between `enter` and `leave`. Raises `NoAnswerError`."""
        for server in self.servers:
            try:
                answer = server.ask("POST", "/invocations", headers, body, timeout or self.spec.invocation_timeout)
            except NoAnswerError:
                server.revive()
                raise
            if not 200 <= answer.status < 300:
                break
            body = answer.body
            headers = {**headers, "Content-Type": answer.headers.get("content-type", "")}
        return answer

    def stop(self) -> None:
        """End the servers once no request is under way."""
        with self._idle:
            self._idle.wait_for(lambda: self._in_flight == 0, timeout=self.spec.invocation_timeout)
        for server in self.servers:
            server.stop()


# --- a fleet


@dataclass
class Fleet:
    """What one endpoint config runs, and what captures its invocations."""

    config_name: str
    variants: dict[str, Variant]
    shadows: dict[str, Variant]
    capture: Capture | None = None

    @property
    def all(self) -> list[Variant]:
        return [*self.variants.values(), *self.shadows.values()]

    def stop(self) -> None:
        """End it, after the requests that are under way. It must have been taken out of the traffic."""
        for variant in self.all:
            variant.stop()
        if self.capture is not None:
            self.capture.close()


def start_servers(cloud: Cloud, spec: VariantSpec, place: Place) -> list[ModelServer]:
    """A server for each container of a variant, all up. Raises `StartError`, once nothing is left running."""
    servers = [
        ModelServer(
            cloud,
            container,
            role_arn=spec.role_arn,
            isolated=spec.isolated,
            root=place.directory / str(number),
            log=place.logs.with_name(f"{place.logs.name}-{number}.log"),
            log_group=place.log_group,
        )
        for number, container in enumerate(spec.containers)
    ]
    try:
        for server in servers:
            server.start(variant=spec.name, timeout=spec.startup_timeout)
    except StartError:
        for server in servers:
            server.stop()
        raise
    return servers


def start_variant(cloud: Cloud, spec: VariantSpec, place: Place) -> Variant:
    """Raises `StartError`."""
    return Variant(spec, start_servers(cloud, spec, place), spec.instance_count, spec.weight)


def start_fleet(
    cloud: Cloud,
    *,
    endpoint: str,
    config_name: str,
    variants: list[VariantSpec],
    shadows: list[VariantSpec],
    start: Callable[[Cloud, VariantSpec, Place], Variant] = start_variant,
) -> Fleet:
    """Start every variant, all at once. Raises `StartError` with the first reason, once nothing is left running."""
    directory = cloud.root / "endpoints" / endpoint / f"{config_name}-{time.monotonic_ns()}"
    logs = cloud.root / "logs" / "endpoints" / endpoint

    def place(spec: VariantSpec) -> Place:
        return Place(directory / spec.name, logs / f"{config_name}-{spec.name}", f"/aws/sagemaker/Endpoints/{endpoint}")

    with ThreadPoolExecutor(max_workers=len(variants) + len(shadows)) as pool:
        starting = [(spec, pool.submit(start, cloud, spec, place(spec))) for spec in [*variants, *shadows]]
    failures = [failure for _, future in starting if (failure := future.exception())]
    started = {spec.name: future.result() for spec, future in starting if not future.exception()}
    if failures:
        for variant in started.values():
            variant.stop()
        raise failures[0]
    names = {spec.name for spec in variants}
    return Fleet(
        config_name,
        {name: variant for name, variant in started.items() if name in names},
        {name: variant for name, variant in started.items() if name not in names},
    )
