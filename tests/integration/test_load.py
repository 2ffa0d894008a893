"""The load generator against a small TLS server that checks each signature with botocore."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.cloud import LocalCloud
from local.load import NO_ANSWER, send, steady

ENDPOINT = "noria-local-flight-delay"
BODIES = [json.dumps({"instances": [{"hour": hour}]}).encode() for hour in range(3)]


@dataclass
class Place:
    """A cloud that is an HTTPS server; it answers 200, once it has the right signature."""

    environment: dict[str, str]
    bodies: list[bytes] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    stalled: threading.Lock = field(default_factory=threading.Lock)
    """While somebody holds it nothing is answered."""
    broken: bool = False


def expected_signature(request: BaseHTTPRequestHandler, body: bytes, environment: dict[str, str]) -> str:
    """The `Authorization` that botocore gives the headers of a request that were signed."""
    signed = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: request.headers[name] for name in signed if name not in ("host", "x-amz-date")}
    theirs = AWSRequest("POST", f"https://{request.headers['host']}{request.path}", headers, body)
    moment = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    caller = Credentials(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    with patch("botocore.auth.get_current_datetime", return_value=moment):
        SigV4Auth(caller, "sagemaker", environment["AWS_REGION"]).add_auth(theirs)
    return str(theirs.headers["Authorization"])


@pytest.fixture(name="place")
def a_place(tmp_path: Path) -> Iterator[Place]:
    cloud = LocalCloud(root=tmp_path)
    cloud._prepare()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            place.bodies.append(body)
            place.connections.add(self.connection)
            with place.stalled:
                pass
            if place.broken:
                self.close_connection = True
                return
            allowed = self.headers["authorization"] == expected_signature(self, body, place.environment)
            self.send_response(200 if allowed else 403)
            self.send_header(
                "x-Amzn-Invoked-Production-Variant", self.headers["x-amzn-sagemaker-target-variant"] or "champion"
            )
            self.send_header("X-Amzn-SageMaker-Custom-Attributes", f"noria-bundle={'ab' * 32}")
            answer = b'{"predictions": []}' if allowed else b"who are you?"
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class names it so

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    place = Place(cloud.environment | {"AWS_ENDPOINT_URL": f"https://localhost:{server.server_port}"})
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cloud.certificate, cloud.root / "tls" / "server.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield place
    server.shutdown()
    server.server_close()


def test_requests_are_signed_and_sent_at_the_rate_over_few_connections(place: Place) -> None:
    result = send(place.environment, ENDPOINT, BODIES, per_second=100, seconds=1, connections=4)
    assert result.statuses == {200: len(result.sent)}, result
    assert len(result.sent) == pytest.approx(100, abs=5)
    assert result.per_second == pytest.approx(100, rel=0.1)
    assert len(place.connections) <= 4
    assert set(place.bodies) == set(BODIES)
    assert result.variants == {"champion": len(result.sent)}
    assert result.bundles == {"ab" * 32: len(result.sent)}


def test_a_variant_can_be_asked_for(place: Place) -> None:
    result = send(place.environment, ENDPOINT, BODIES, per_second=20, seconds=0.5, target_variant="challenger")
    assert result.statuses == {200: len(result.sent)}, result
    assert result.variants == {"challenger": len(result.sent)}


def test_a_temporary_credential_sends_its_token(place: Place) -> None:
    environment = place.environment | {"AWS_SESSION_TOKEN": "temporary"}
    assert send(environment, ENDPOINT, BODIES, per_second=20, seconds=0.2).failures == []


def test_a_wrong_secret_is_counted_as_what_was_answered(place: Place) -> None:
    environment = place.environment | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    result = send(environment, ENDPOINT, BODIES, per_second=20, seconds=0.5)
    assert result.statuses == {403: len(result.sent)}
    assert result.failures[0].error == "who are you?"
    assert "403: who are you?" in str(result)


def test_a_stall_is_felt_by_everyone_who_was_due(place: Place) -> None:
    with steady(place.environment, ENDPOINT, BODIES, per_second=100, connections=2) as load:
        time.sleep(0.5)
        with place.stalled:
            time.sleep(1)
        time.sleep(0.5)
    waited = [sent for sent in load.result.sent if sent.latency > 0.1]
    assert len(waited) == pytest.approx(90, abs=15)  # those due in the first 0.9 s of it, though only 2 were under way
    assert load.result.latency_ms(0.99) > 800
    assert load.result.failures == []


def test_a_lost_connection_is_a_failure_and_the_next_request_makes_another(place: Place) -> None:
    with steady(place.environment, ENDPOINT, BODIES, per_second=50, connections=2) as load:
        time.sleep(0.3)
        place.broken = True
        time.sleep(0.3)
        place.broken = False
        time.sleep(0.3)
    statuses = [sent.status for sent in sorted(load.result.sent, key=lambda sent: sent.due)]
    assert NO_ANSWER in statuses
    assert statuses[0] == statuses[-1] == 200
    assert len(place.bodies) == len(statuses)  # nothing was sent twice


def test_a_load_without_bodies_is_refused(place: Place) -> None:
    with pytest.raises(ValueError, match="a body"):
        send(place.environment, ENDPOINT, [], per_second=10, seconds=1)
