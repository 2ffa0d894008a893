"""A local cloud with the front doors of some models, an endpoint behind one, callers, and an issuer of tokens."""

import base64
import io
import json
import os
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from local.cloud import ACCOUNT, REGION, REPOSITORY, LocalCloud

IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/sagemaker-scikit-learn:1.9-0-cpu-py3"

SCRIPT = """
import json

def model_fn(folder):
    with open(folder + "/version") as file:
        return file.read()

def transform_fn(version, content, content_type, accept):
    rows = json.loads(content)["instances"]
    if version == "bad" and any(row["hour"] == 13 for row in rows):
        raise RuntimeError("this version cannot count to thirteen")
    body = json.dumps({"predictions": [{"prediction": 1, "score": row["hour"] / 24} for row in rows]}).encode()
    bundle = "noria-bundle=" + ("a" if version == "good" else "b") * 64

    def answer(environ, start_response):
        headers = [("Content-Type", "application/json"), ("X-Amzn-SageMaker-Custom-Attributes", bundle)]
        start_response("200 OK", headers)
        return [body]

    return answer
"""

FLIGHTS = """
model: flights
task: binary_classification
target: late
time: ts
features:
  hour: {{type: integer, min: 0, max: 23}}
  carrier: {{type: category}}
  temp: {{type: number, missing: 0.2}}
serve: {serve}
owner: {{team: operations}}
"""


def eventually(check: Callable[[], Any], seconds: float = 30) -> Any:
    """The first truthy answer of `check`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := check():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {check()}")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    document: Any


@dataclass
class Place:
    cloud: LocalCloud
    issuer: "Issuer"
    models: Path
    _used: int = field(default=0)

    # --- set up

    def write(self, model: str, serve: str) -> None:
        text = FLIGHTS.format(serve=serve).replace("model: flights", f"model: {model}")
        (self.models / f"{model}.yaml").write_text(text)

    def deploy(self) -> None:
        command = [REPOSITORY / "node_modules" / ".bin" / "cdk"]
        common = ["--output", str(self.cloud.root / "cdk.out"), "--ci", "--no-color"]
        app = ["--app", f"{sys.executable} -m tests.integration.front_door.cloud_app"]
        policies = ["--cloudformation-execution-policies", "arn:aws:iam::aws:policy/AdministratorAccess"]
        # In a folder without an app, which nothing has to synthesise.
        self._run([*command, "bootstrap", f"aws://{ACCOUNT}/{REGION}", *policies, *common], folder=self.models)
        self._run([*command, "deploy", "--all", "--require-approval", "never", *app, *common])

    def noria(self, *arguments: str, code: int = 0) -> str:
        """What the command says to `arguments`: its output, or what is wrong."""
        run = self._run([str(Path(sys.executable).with_name("noria")), *arguments, "--env", "local"], code=code)
        return run.stdout if code == 0 else run.stderr

    def _run(
        self, command: list[Any], *, code: int = 0, folder: Path = REPOSITORY
    ) -> "subprocess.CompletedProcess[str]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "NORIA_"))}
        ours = {"NORIA_TEST_MODELS": str(self.models), "PYTHONPATH": str(REPOSITORY)}
        environment = kept | self.cloud.environment | ours
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == code, run.stdout + run.stderr
        return run

    def client(self, service: str) -> Any:
        client: Any = boto3.client  # it is typed per service, and this is for any
        return client(
            service,
            region_name=REGION,
            endpoint_url=self.cloud.endpoint,
            verify=str(self.cloud.certificate),
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )

    def serve(self, model: str, **versions: str) -> None:
        """Serve `model` with a variant for each version, all requests going to the champion."""
        sagemaker, name = self.client("sagemaker"), f"noria-local-{model}"
        variants = []
        for variant, version in versions.items():
            sagemaker.create_model(
                ModelName=f"{model}-{version}",
                ExecutionRoleArn=self._model_role,
                PrimaryContainer={
                    "Image": IMAGE,
                    "ModelDataUrl": self._artifact(version),
                    "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
                },
            )
            variants.append(
                {
                    "VariantName": variant,
                    "ModelName": f"{model}-{version}",
                    "InstanceType": "ml.m5.large",
                    "InitialInstanceCount": 1,
                    "InitialVariantWeight": 1 if variant == "champion" else 0,
                }
            )
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        eventually(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService", 60)

    @cached_property
    def _model_role(self) -> str:
        iam, trust = self.client("iam"), {"Service": "sagemaker.amazonaws.com"}
        statement = {"Effect": "Allow", "Principal": trust, "Action": "sts:AssumeRole"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        arn: str = iam.create_role(RoleName="model", AssumeRolePolicyDocument=policy)["Role"]["Arn"]
        allowed = [{"Effect": "Allow", "Action": ["s3:*", "logs:*", "kms:*"], "Resource": "*"}]
        document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
        iam.put_role_policy(RoleName="model", PolicyName="only", PolicyDocument=document)
        return arn

    def _artifact(self, version: str) -> str:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, text in {"version": version, "code/inference.py": SCRIPT}.items():
                info = tarfile.TarInfo(name)
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        bucket = f"noria-local-data-{ACCOUNT}-{REGION}"
        self.client("s3").put_object(Bucket=bucket, Key=f"test/{version}.tar.gz", Body=packed.getvalue())
        return f"s3://{bucket}/test/{version}.tar.gz"

    # --- callers

    def url(self, model: str) -> str:
        (stack,) = self.client("cloudformation").describe_stacks(StackName=f"noria-local-{model}-front-door")["Stacks"]
        found: str = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}["ApiUrl"]
        return found

    def user(self, name: str, *statements: dict[str, Any]) -> Credentials:
        iam = self.client("iam")
        iam.create_user(UserName=name)
        if statements:
            document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
            iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return Credentials(key["AccessKeyId"], key["SecretAccessKey"])

    def call(
        self,
        url: str,
        content: Any = None,
        *,
        caller: Credentials | None = None,
        **headers: str,
    ) -> Answer:
        """POST `content` (as JSON where it is no bytes), or GET; signed where there is a caller."""
        data = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
        named = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        request = AWSRequest(method="GET" if data is None else "POST", url=url, data=data, headers=named)
        if caller:
            SigV4Auth(caller, "execute-api", REGION).add_auth(request)
        sent = urllib.request.Request(url, data=data, method=request.method, headers=dict(request.headers))  # noqa: S310
        try:
            with urllib.request.urlopen(sent, context=self._tls, timeout=30) as answer:  # noqa: S310 - always https
                return Answer(answer.status, _lower(answer.headers), json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lower(error.headers), json.loads(error.read()))

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.cloud.certificate))

    def logged(self, group: str) -> list[str]:
        pages = self.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
        return [event["message"] for page in pages for event in page["events"]]


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Issuer:
    """An issuer of tokens on the loopback address: its discovery document, its key, and tokens signed with it."""

    def __init__(self, port: int, cloud: LocalCloud) -> None:
        self.url = f"https://localhost:{port}"
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._key.public_key().public_numbers()
        jwk = {
            "kty": "RSA",
            "kid": "one",
            "use": "sig",
            "alg": "RS256",
            "n": _number(numbers.n),
            "e": _number(numbers.e),
        }
        documents = {
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/keys"},
            "/keys": {"keys": [jwk]},
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(documents[self.path]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing: the test says what matters."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(cloud.certificate, cloud.root / "tls" / "server.key")
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def token(self, **claims: Any) -> str:
        """A token as this issuer would sign it, with `claims` instead of the usual ones."""
        now = int(time.time())
        told = {"iss": self.url, "aud": "flights", "sub": "user-7", "iat": now - 5, "exp": now + 600, **claims}
        signed = f"{_text({'alg': 'RS256', 'typ': 'JWT', 'kid': 'one'})}.{_text(told)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _text(document: Any) -> str:
    return _base64(json.dumps(document).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
