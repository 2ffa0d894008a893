"""The local cloud under steady load: what is checked of each request, how much it carries, and how endpoints change.

One minute of the cloud is one second here.
"""

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local import load
from local.cloud import ACCOUNT, REGION
from tests.integration.test_local_endpoints import World, eventually, opened

PORT = 4691
BODIES = [json.dumps([number]).encode() for number in range(8)]
# Says which version answered, as Noria's model servers do. A broken one answers 500.
SCRIPT = """
def model_fn(model_dir):
    with open(model_dir + "/version") as file:
        return file.read()

def transform_fn(version, content, content_type, accept):
    def answer(environ, start_response):
        told = [("Content-Type", "application/json"), ("X-Amzn-SageMaker-Custom-Attributes", f"noria-bundle={version}")]
        start_response("500 Broken" if version.startswith("broken") else "200 OK", told)
        return [b"{}"]
    return answer
"""
# Calm enough for a machine that does other things meanwhile.
PER_SECOND = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(tmp_path_factory.mktemp("cloud"), port=PORT) as world:
        yield world


@pytest.fixture(scope="module")
def endpoint(world: World) -> str:
    return world.endpoint(world.config(world.model("v1", SCRIPT)))


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


# --- each request counts


def test_every_request_of_a_steady_load_is_in_the_metrics(world: World) -> None:
    endpoint = world.endpoint(world.config(world.model(world.name("v"), SCRIPT)))
    began = datetime.now(UTC)
    result = load.send(world.cloud.environment, endpoint, BODIES, per_second=2 * PER_SECOND, seconds=4, connections=8)
    assert result.failures == []

    def measured(metric: str, **statistics: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = world.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName=metric,
            Dimensions=[
                {"Name": "EndpointName", "Value": endpoint},
                {"Name": "VariantName", "Value": "champion"},
            ],
            StartTime=began,
            EndTime=datetime.now(UTC) + timedelta(minutes=1),
            Period=300,
            **statistics,
        )["Datapoints"]
        return found

    def total(metric: str) -> float:
        return float(sum(point["Sum"] for point in measured(metric, Statistics=["Sum"])))

    eventually(lambda: total("Invocations") == len(result.sent), 15)
    assert total("InvocationsPerInstance") == pytest.approx(len(result.sent) / 3)
    assert total("Invocation5XXErrors") == 0
    [latency, *_] = measured("ModelLatency", ExtendedStatistics=["p95"])
    assert 0 < latency["ExtendedStatistics"]["p95"] / 1000 <= result.latency_ms(1)


# --- endpoints change under load


@dataclass
class Serving:
    """An endpoint of three instances under a steady load, whose versions come and go."""

    world: World
    name: str
    version: str

    @classmethod
    def of(cls, world: World) -> "Serving":
        version = world.name("v")
        return cls(world, world.endpoint(world.config(world.model(version, SCRIPT))), version)

    @contextmanager
    def under_load(self) -> Iterator[load.Load]:
        with load.steady(
            self.world.cloud.environment, self.name, BODIES, per_second=PER_SECOND, connections=6
        ) as running:
            time.sleep(0.5)
            yield running
            time.sleep(0.5)

    def variant(self, name: str, version: str, weight: float = 1.0) -> dict[str, Any]:
        model = self.world.model(version, SCRIPT)
        instances = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 3}
        return {"VariantName": name, "ModelName": model, "InitialVariantWeight": weight, **instances}

    def update(self, *variants: dict[str, Any], shadow: dict[str, Any] | None = None, **members: Any) -> str:
        """Deploy a config with these variants; returns its name, once the endpoint has settled."""
        sagemaker, config = self.world.client("sagemaker"), self.world.name("config")
        shadows = {"ShadowProductionVariants": [shadow]} if shadow else {}
        sagemaker.create_endpoint_config(EndpointConfigName=config, ProductionVariants=list(variants), **shadows)
        sagemaker.update_endpoint(EndpointName=self.name, EndpointConfigName=config, **members)
        self.settled()
        return config

    def settled(self) -> Any:
        return self.world.settled(self.name)

    def reweigh(self, **weights: float) -> None:
        changes = [{"VariantName": name, "DesiredWeight": weight} for name, weight in weights.items()]
        self.world.client("sagemaker").update_endpoint_weights_and_capacities(
            EndpointName=self.name, DesiredWeightsAndCapacities=changes
        )
        self.settled()


def shared(sent: list[load.Sent], bundle: str, *, seconds: float) -> float:
    """The share that a version had of the requests in the first seconds after its first answer."""
    first = min(each.due for each in sent if each.bundle == bundle)
    within = [each for each in sent if first <= each.due < first + seconds]
    return sum(each.bundle == bundle for each in within) / len(within)


@pytest.fixture(scope="module")
def serving(world: World) -> Serving:
    return Serving.of(world)


def instances(value: int = 1) -> dict[str, Any]:
    return {"Type": "INSTANCE_COUNT", "Value": value}


def shifting(kind: str, **size: Any) -> dict[str, Any]:
    routing = {"Type": kind, **size, "WaitIntervalInSeconds": 180}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 60}}


STRATEGIES = {
    "all at once": {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
            "TerminationWaitInSeconds": 60,
        }
    },
    "canary": shifting("CANARY", CanarySize=instances()),
    "linear": shifting("LINEAR", LinearStepSize=instances()),
    "rolling": {"RollingUpdatePolicy": {"MaximumBatchSize": instances(), "WaitIntervalInSeconds": 180}},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_good_version_goes_live_without_a_failed_request(serving: Serving, strategy: str) -> None:
    old, new = serving.version, serving.world.name("v")
    with serving.under_load() as running:
        config = serving.update(serving.variant("champion", new), DeploymentConfig=STRATEGIES[strategy])
    serving.version = new
    assert running.result.failures == []
    assert set(running.result.bundles) == {old, new}
    assert running.result.sent[0].bundle == old
    assert running.result.sent[-1].bundle == new
    assert serving.settled()["EndpointConfigName"] == config
    if strategy != "all at once":
        # One of three instances, for the first of the waits.
        assert shared(running.result.sent, new, seconds=2.5) == pytest.approx(1 / 3, abs=0.12)


def test_a_challenger_comes_is_given_more_and_goes_without_a_failed_request(serving: Serving) -> None:
    world, other = serving.world, serving.world.name("v")
    champion = serving.variant("champion", serving.version)
    with serving.under_load() as running:
        serving.update(champion, serving.variant("challenger", other, weight=1 / 3))
        time.sleep(2.5)
        serving.reweigh(challenger=1.0)
        changed = time.time()
        time.sleep(2.5)
        serving.update(champion)
    sent = running.result.sent
    assert running.result.failures == []
    assert shared(sent, other, seconds=2) == pytest.approx(1 / 4, abs=0.1)
    later = [each for each in sent if changed + 0.2 <= each.due < changed + 2]
    assert sum(each.variant == "challenger" for each in later) / len(later) == pytest.approx(1 / 2, abs=0.12)
    assert sent[-1].variant == "champion"
    assert world.settled(serving.name)["ProductionVariants"][0]["CurrentInstanceCount"] == 3


def test_a_shadow_comes_and_goes_without_a_failed_request(serving: Serving) -> None:
    shadow = serving.world.name("v")
    champion = serving.variant("champion", serving.version)
    with serving.under_load() as running:
        serving.update(champion, shadow=serving.variant("shadow", shadow))
        time.sleep(1)
        serving.update(champion)
    assert running.result.failures == []
    assert set(running.result.bundles) == {serving.version}


def test_instances_come_and_go_without_a_failed_request(serving: Serving) -> None:
    with serving.under_load() as running:
        for count in (5, 1, 3):
            change = {"VariantName": "champion", "DesiredInstanceCount": count}
            serving.world.client("sagemaker").update_endpoint_weights_and_capacities(
                EndpointName=serving.name, DesiredWeightsAndCapacities=[change]
            )
            assert serving.settled()["ProductionVariants"][0]["CurrentInstanceCount"] == count
    assert running.result.failures == []


@pytest.mark.parametrize("strategy", ["canary", "rolling"])
def test_a_broken_version_fails_its_share_until_it_is_noticed(serving: Serving, strategy: str) -> None:
    world, broken = serving.world, serving.world.name("broken")
    sagemaker, config = world.client("sagemaker"), world.name("config")
    alarm = world.alarm(serving.name, config)
    sagemaker.create_endpoint_config(
        EndpointConfigName=config, ProductionVariants=[serving.variant("champion", broken)]
    )
    guarded = {**STRATEGIES[strategy], "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]}}
    with serving.under_load() as running:
        sagemaker.update_endpoint(EndpointName=serving.name, EndpointConfigName=config, DeploymentConfig=guarded)
        described = serving.settled()
    assert described["EndpointConfigName"] != config
    assert alarm in described["FailureReason"]
    failures = running.result.failures
    assert {each.status for each in failures} == {424}
    first, last = failures[0].due, failures[-1].due
    meanwhile = [each for each in running.result.sent if first <= each.due <= last]
    # Three standard deviations: the alarm is quick, and on a busy machine few requests come before it.
    spread = 3 * (1 / 3 * 2 / 3 / len(meanwhile)) ** 0.5
    assert len(failures) / len(meanwhile) == pytest.approx(1 / 3, abs=max(0.12, spread))
    assert running.result.sent[-1].bundle == serving.version
