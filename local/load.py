"""A steady stream of signed InvokeEndpoint requests, and what became of each: for the end-to-end tests and benchmarks.

with steady(environment, "noria-local-flight-delay", bodies, per_second=200) as load:
    ...                                                  # deploy something
assert load.result.failures == []

The stream is open-loop: request n is due at start + n / per_second whatever happened to those before it, and its
latency counts from when it was due, so that a stalled server is charged for everyone it kept waiting.

Light, so that it leaves the machine to what it measures: a few threads, each with one TLS connection that it keeps, and
signatures made by hand: 0.7 ms of CPU a request in all, a seventh of a core at 200 a second.
"""

import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import count
from urllib.parse import quote, urlsplit

VARIANT = "x-amzn-invoked-production-variant"
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
NO_ANSWER = 0
"""In place of a status: the connection failed, or nothing came within the timeout."""
EXAMPLES = 5


@dataclass(frozen=True)
class Sent:
    """One request and its answer. Times are in seconds, of the clock `time.time`."""

    due: float
    latency: float
    """From when it was due to the last byte of its answer."""
    status: int
    variant: str | None = None
    bundle: str | None = None
    """SHA-256 of the model file that answered, where the model server tells it."""
    error: str | None = None
    """What was answered instead of a prediction."""

    @property
    def answered(self) -> bool:
        return self.status == http.client.OK


@dataclass
class Result:
    """What was sent, in the order of the answers; complete once the stream has ended."""

    sent: list[Sent] = field(default_factory=list)
    seconds: float = 0.0
    """From the first request being due to the last answer."""

    @property
    def statuses(self) -> Counter[int]:
        return Counter(sent.status for sent in self.sent)

    @property
    def failures(self) -> list[Sent]:
        return [sent for sent in self.sent if not sent.answered]

    @property
    def variants(self) -> Counter[str | None]:
        return Counter(sent.variant for sent in self.sent if sent.answered)

    @property
    def bundles(self) -> Counter[str | None]:
        return Counter(sent.bundle for sent in self.sent if sent.answered)

    @property
    def per_second(self) -> float:
        """Answers of any status a second: lower than was asked for if the server cannot keep up."""
        return len(self.sent) / self.seconds if self.seconds else 0.0

    def latency_ms(self, quantile: float) -> float:
        """The latency that `quantile` (0 to 1) of all requests did not exceed, in milliseconds; 0 if none was sent."""
        latencies = sorted(sent.latency for sent in self.sent)
        return 1000 * latencies[round(quantile * (len(latencies) - 1))] if latencies else 0.0

    def __str__(self) -> str:
        statuses = ", ".join(f"{number} × {status or 'no answer'}" for status, number in sorted(self.statuses.items()))
        p50, p95, p99 = (self.latency_ms(quantile) for quantile in (0.5, 0.95, 0.99))
        latencies = f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms"
        examples = [f"  {sent.status or 'no answer'}: {sent.error}" for sent in self.failures[:EXAMPLES]]
        return "\n".join([f"{len(self.sent)} requests, {self.per_second:.0f}/s: {statuses}; {latencies}", *examples])


class Load:
    """A running stream; `result` grows while it runs."""

    def __init__(self, caller: "Caller", bodies: Sequence[bytes], per_second: float, connections: int) -> None:
        if not bodies or per_second <= 0 or connections < 1:
            raise ValueError("a load needs a body, a rate above 0 and a connection")
        self.result = Result()
        self._caller = caller
        self._bodies = bodies
        self._interval = 1 / per_second
        self._turns = count()
        self._stop = threading.Event()
        self._begin = time.monotonic()
        self._clock = time.time() - time.monotonic()
        self._threads = [threading.Thread(target=self._run, daemon=True, name="load") for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> Result:
        """Send nothing more, wait for what is under way, and give the result."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.result.seconds = time.monotonic() - self._begin
        return self.result

    def _run(self) -> None:
        with Connection(self._caller) as connection:
            while not self._stop.is_set():
                turn = next(self._turns)
                due = self._begin + turn * self._interval
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
                answer = connection.ask(self._bodies[turn % len(self._bodies)])
                latency = time.monotonic() - due
                self.result.sent.append(
                    Sent(
                        due=due + self._clock,
                        latency=latency,
                        status=answer.status,
                        variant=answer.headers.get(VARIANT),
                        bundle=_bundle(answer.headers.get(ATTRIBUTES)),
                        error=answer.text if answer.status != http.client.OK else None,
                    )
                )


@contextmanager
def steady(
    environment: Mapping[str, str],
    endpoint: str,
    bodies: Sequence[bytes],
    *,
    per_second: float,
    connections: int = 16,
    target_variant: str | None = None,
    timeout: float = 30.0,
) -> Iterator[Load]:
    """Send JSON `bodies` in turn to the endpoint until the block ends.

    `environment` names the cloud and the caller as it does for boto3 (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …); see
    `LocalCloud.environment`. No request is ever sent twice: what a client would retry is counted as it is.
    """
    load = Load(Caller(environment, endpoint, target_variant, timeout), bodies, per_second, connections)
    try:
        yield load
    finally:
        load.stop()


def send(
    environment: Mapping[str, str],
    endpoint: str,
    bodies: Sequence[bytes],
    *,
    per_second: float,
    seconds: float,
    connections: int = 16,
    target_variant: str | None = None,
) -> Result:
    """A stream of `seconds`; see `steady`."""
    with steady(
        environment, endpoint, bodies, per_second=per_second, connections=connections, target_variant=target_variant
    ) as load:
        time.sleep(seconds)
    return load.result


# --- one request


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str


class Caller:
    """Whoever asks one endpoint: where it is, and how a request to it is signed (Signature Version 4).

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    def __init__(
        self, environment: Mapping[str, str], endpoint: str, target_variant: str | None, timeout: float
    ) -> None:
        self.address = urlsplit(environment["AWS_ENDPOINT_URL"])
        self.path = f"/endpoints/{quote(endpoint, safe='')}/invocations"
        self.timeout = timeout
        self._key, self._secret = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        self._region = environment["AWS_REGION"]
        self._certificates = environment.get("AWS_CA_BUNDLE")
        self._headers = {"accept": "application/json", "content-type": "application/json", "host": self.address.netloc}
        if token := environment.get("AWS_SESSION_TOKEN"):
            self._headers["x-amz-security-token"] = token
        if target_variant:
            self._headers["x-amzn-sagemaker-target-variant"] = target_variant
        self._signed_in = lru_cache(maxsize=4096)(self._signed)

    def open(self) -> socket.socket:
        host = str(self.address.hostname)
        plain = socket.create_connection((host, self.address.port or 443), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._tls.wrap_socket(plain, server_hostname=host)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._certificates)

    def request(self, body: bytes) -> bytes:
        """A request sent now, whole. A signature holds for its second, and is made once in it for each body."""
        return self._signed_in(body, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))

    def _signed(self, body: bytes, moment: str) -> bytes:
        day = moment[:8]
        headers = dict(sorted({**self._headers, "x-amz-date": moment}.items()))
        names = ";".join(headers)
        canonical = "\n".join(
            ("POST", self.path, "", *(f"{name}:{value}" for name, value in headers.items()), "", names, _sha256(body))
        )
        scope = f"{day}/{self._region}/sagemaker/aws4_request"
        to_sign = "\n".join(("AWS4-HMAC-SHA256", moment, scope, _sha256(canonical.encode())))
        signature = hmac.new(self._signing_key(day), to_sign.encode(), "sha256").hexdigest()
        authorization = f"AWS4-HMAC-SHA256 Credential={self._key}/{scope}, SignedHeaders={names}, Signature={signature}"
        lines = (f"{name}: {value}\r\n" for name, value in {**headers, "authorization": authorization}.items())
        return f"POST {self.path} HTTP/1.1\r\n{''.join(lines)}content-length: {len(body)}\r\n\r\n".encode() + body

    def _signing_key(self, day: str) -> bytes:
        key = f"AWS4{self._secret}".encode()
        for part in (day, self._region, "sagemaker", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key


class Connection:
    """One keep-alive connection; made anew when the server closes it, or after an error."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._socket: socket.socket | None = None

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def ask(self, body: bytes) -> Answer:
        try:
            if self._socket is None:
                self._socket = self._caller.open()
            self._socket.sendall(self._caller.request(body))  # in one write; `http.client` takes two
            with http.client.HTTPResponse(self._socket, method="POST") as response:
                response.begin()
                content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._close()
            return Answer(NO_ANSWER, {}, f"{type(error).__name__}: {error}")
        if response.will_close:
            self._close()
        return Answer(
            response.status,
            {name.lower(): value for name, value in response.headers.items()},
            content.decode(errors="replace"),
        )

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _bundle(attributes: str | None) -> str | None:
    """The value of `noria-bundle=…` among the custom attributes of an answer."""
    pairs = (part.strip().partition("=") for part in (attributes or "").split(","))
    return next((value for name, _, value in pairs if name == "noria-bundle"), None)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
