"""The local cloud under steady load: what is checked of each request, how much it carries, and how endpoints change.

One minute of the cloud is one second here.
"""

import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from local import load
from local.cloud import ACCOUNT, REGION, LocalCloud
from tests.integration.test_local_endpoints import World

PORT = 4691
BODIES = [json.dumps([number]).encode() for number in range(8)]
# Calm enough for a machine that does other things meanwhile.
PER_SECOND = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=PORT, time_scale=60) as cloud:
        world = World(cloud)
        world.client("s3").create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": REGION})
        world.role_arn = world.role(
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"], "Resource": "*"},
            {"Effect": "Allow", "Action": ["cloudwatch:DescribeAlarms", "logs:*"], "Resource": "*"},
        )
        yield world


@pytest.fixture(scope="module")
def endpoint(world: World) -> str:
    return world.endpoint(world.config(world.model("v1")))


# --- each request is checked


@dataclass
class User:
    """An IAM user with one key and at most one policy."""

    world: World
    name: str
    key: dict[str, str]

    @classmethod
    def of(cls, world: World) -> "User":
        iam, name = world.client("iam"), world.name("user")
        iam.create_user(UserName=name)
        return cls(world, name, iam.create_access_key(UserName=name)["AccessKey"])

    def environment(self, **changes: str) -> dict[str, str]:
        key = {"AWS_ACCESS_KEY_ID": self.key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": self.key["SecretAccessKey"]}
        return {**self.world.cloud.environment, **key, **changes}

    def may_invoke(self, endpoint: str, effect: str = "Allow") -> None:
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{endpoint}"
        statement = {"Effect": effect, "Action": "sagemaker:InvokeEndpoint", "Resource": arn}
        self.world.client("iam").put_user_policy(
            UserName=self.name,
            PolicyName=effect,
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )

    def may_not_any_more(self) -> None:
        self.world.client("iam").delete_user_policy(UserName=self.name, PolicyName="Allow")


def asked(environment: dict[str, str], endpoint: str) -> load.Answer:
    with load.Connection(load.Caller(environment, endpoint, None, 10)) as connection:
        return connection.ask(BODIES[0])


def test_a_permission_counts_from_the_moment_it_is_given_or_taken(world: World, endpoint: str) -> None:
    user = User.of(world)
    with load.Connection(load.Caller(user.environment(), endpoint, None, 10)) as connection:

        def status() -> int:
            return connection.ask(BODIES[0]).status

        assert status() in (400, 403)
        user.may_invoke("another-endpoint")
        assert status() in (400, 403)
        user.may_invoke(endpoint)
        assert [status() for _ in range(3)] == [200] * 3
        user.may_invoke(endpoint, "Deny")
        assert status() in (400, 403)
        world.client("iam").delete_user_policy(UserName=user.name, PolicyName="Deny")
        assert status() == 200
        user.may_not_any_more()
        denied = connection.ask(BODIES[0])
        assert denied.status in (400, 403)
        assert "not authorized to perform: sagemaker:InvokeEndpoint" in denied.text


def test_a_key_counts_until_it_is_switched_off(world: World, endpoint: str) -> None:
    user = User.of(world)
    user.may_invoke(endpoint)
    assert asked(user.environment(), endpoint).status == 200
    world.client("iam").update_access_key(UserName=user.name, AccessKeyId=user.key["AccessKeyId"], Status="Inactive")
    refused = asked(user.environment(), endpoint)
    assert refused.status in (400, 403)
    assert "token" in refused.text


def test_a_signature_has_to_fit_the_request(world: World, endpoint: str) -> None:
    user = User.of(world)
    user.may_invoke(endpoint)
    forged = asked(user.environment(AWS_SECRET_ACCESS_KEY="guessed"), endpoint)
    assert (forged.status, "signature we calculated does not match" in forged.text) == (403, True)

    class Tampered(load.Caller):
        """Signs one body and sends another."""

        def request(self, body: bytes) -> bytes:
            return super().request(body).removesuffix(body) + b"[7]"

    assert len(BODIES[0]) == len(b"[7]")
    with load.Connection(Tampered(user.environment(), endpoint, None, 10)) as connection:
        tampered = connection.ask(BODIES[0])
    assert (tampered.status, "does not match" in tampered.text) == (403, True)


def test_an_unsigned_request_is_nobodys(world: World, endpoint: str) -> None:
    tls = ssl.create_default_context(cafile=str(world.cloud.certificate))
    connection = http.client.HTTPSConnection("localhost", PORT, context=tls)
    connection.request("POST", f"/endpoints/{endpoint}/invocations", b"[1]")
    assert connection.getresponse().status >= 400
    connection.close()
