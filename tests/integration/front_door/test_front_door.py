"""Front doors deployed to a local cloud by the CDK, behind them a served model: asked as callers ask.

One minute of the cloud is one second here.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials
from openapi_spec_validator import validate

from local.cloud import ACCOUNT, REGION, LocalCloud
from tests.integration.front_door.place import Answer, Issuer, Place, eventually

PORT = 4650
ISSUER_PORT = 4651
ROW = {"hour": 7, "carrier": "UA", "temp": None}
ROOT = Credentials("test", "test")
CHALLENGER = {"name": "testers", "when": {"headers": {"x-tenant": ["acme"]}}, "variant": "challenger"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    models = tmp_path_factory.mktemp("models")
    with LocalCloud(root=tmp_path_factory.mktemp("cloud"), port=PORT, time_scale=60) as cloud:
        issuer = Issuer(ISSUER_PORT, cloud)
        place = Place(cloud, issuer, models)
        # A bake of two minutes, the shortest: flags settle after twelve seconds.
        place.write("flights", "{front_door: {rate: 500, burst: 500}, bake: 2m}")
        auth = json.dumps({"issuer": issuer.url, "audience": ["flights"]})
        place.write("tokens", f"{{front_door: {{auth: {auth}, rate: 500, burst: 500}}, bake: 2m}}")
        place.write("busy", "{front_door: {rate: 0.5, burst: 5}, bake: 2m}")
        place.deploy()
        for model in ("flights", "tokens", "busy"):
            place.client("sagemaker").create_model_package_group(ModelPackageGroupName=f"noria-local-{model}")
        place.serve("flights", champion="good", challenger="bad")
        try:
            yield place
        finally:
            issuer.close()


@pytest.fixture(scope="module")
def ask(place: Place) -> Callable[..., Answer]:
    """A prediction asked of `flights` by somebody who may do it, and nothing else."""
    url = place.url("flights")
    api = url.rsplit("/", 1)[-1]
    arn = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{api}/*/POST/predict"
    caller = place.user("caller", {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": arn})

    def ask(*rows: Any, **headers: str) -> Answer:
        return place.call(f"{url}/predict", {"instances": list(rows) or [ROW]}, caller=caller, **headers)

    return ask


def flags(place: Place) -> Any:
    return json.loads(place.noria("flags", "flights", "show", "--json"))


@pytest.fixture
def rules(tmp_path: Path) -> Callable[..., Path]:
    def write(*rules: dict[str, Any]) -> Path:
        file = tmp_path / "flags.yaml"
        file.write_text(json.dumps({"rules": rules}))
        return file

    return write


# --- who may ask


def test_a_signed_request_is_answered_with_who_answered(ask: Callable[..., Answer]) -> None:
    answer = ask(ROW, ROW | {"hour": 12}, x_correlation_id="order-7")
    assert (answer.status, answer.headers["x-correlation-id"]) == (200, "order-7")
    assert answer.document == {
        "predictions": [{"prediction": 1, "score": 7 / 24}, {"prediction": 1, "score": 0.5}],
        "variant": "champion",
        "bundle": "a" * 64,
        "correlation_id": "order-7",
    }


def test_nobody_else_is(place: Place) -> None:
    url, content = f"{place.url('flights')}/predict", {"instances": [ROW]}
    stranger = place.user("stranger")
    assert place.call(url, content).status == 403
    assert place.call(url, content, caller=stranger).status == 403
    assert place.call(url, content, caller=Credentials(stranger.access_key, "guessed")).status == 403
    assert place.call(url, content, Authorization=f"Bearer {place.issuer.token()}").status == 403


def test_a_permission_is_for_one_route(place: Place, ask: Callable[..., Answer]) -> None:
    assert ask().status == 200
    reader = place.user("reader", {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*/GET/*"})
    document = place.call(f"{place.url('flights')}/openapi.json", caller=reader)
    assert document.status == 200
    validate(document.document)
    assert document.document["servers"] == [{"url": place.url("flights")}]
    assert place.call(f"{place.url('flights')}/predict", {"instances": [ROW]}, caller=reader).status == 403


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({}, 503),  # let in; there is no endpoint behind this door
        ({"aud": ["others", "flights"]}, 503),
        ({"aud": "others"}, 401),
        ({"iss": "https://elsewhere.example.com"}, 401),
        ({"exp": 1_700_000_000}, 401),
    ],
)
def test_a_token_is_checked(place: Place, claims: dict[str, Any], status: int) -> None:
    url, content = f"{place.url('tokens')}/predict", {"instances": [ROW]}
    bearer = f"Bearer {place.issuer.token(**claims)}"
    assert place.call(url, content, Authorization=bearer).status == status


def test_a_token_that_nobody_signed_is_refused(place: Place) -> None:
    url, content = f"{place.url('tokens')}/predict", {"instances": [ROW]}
    head, claims, signature = place.issuer.token().split(".")
    forged = f"{head}.{claims}.{'A' * len(signature)}"
    assert place.call(url, content).status == 401
    assert place.call(url, content, Authorization=f"Bearer {forged}").status == 401


def test_too_many_requests_are_refused_for_a_while(place: Place) -> None:
    url, content = f"{place.url('busy')}/predict", {"instances": [ROW]}
    seen = Counter(place.call(url, content, caller=ROOT).status for _ in range(15))
    assert seen[429] > 5
    assert seen[503] >= 5  # the burst went through, to find no endpoint
    eventually(lambda: place.call(url, content, caller=ROOT).status == 503)


# --- what may be asked


def test_a_request_that_the_spec_does_not_allow_is_refused_with_row_and_field(
    place: Place, ask: Callable[..., Answer]
) -> None:
    answer = ask(ROW, ROW | {"hour": 24})
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.document["errors"] == [{"row": 1, "field": "hour", "problem": "24 is more than 23"}]
    assert ask(*[ROW] * 1001).status == 413
    assert ask(content_type="text/csv").status == 415
    assert ask(x_correlation_id="noria-probe-1").status == 400


def test_what_was_asked_is_in_no_log(place: Place, ask: Callable[..., Answer]) -> None:
    assert ask(ROW | {"carrier": "SECRET"}, x_correlation_id="order-8").status == 200
    name = "noria-local-flights-front-door"

    def line() -> Any:
        lines = place.logged(f"/aws/lambda/{name}")
        return next((json.loads(text) for text in lines if '"order-8"' in text), None)

    told = eventually(line)
    assert (told["message"], told["rows"], told["variant"]) == ("PredictionAnswered", 1, "champion")
    assert told["caller"] == f"arn:aws:iam::{ACCOUNT}:user/caller"
    access = [json.loads(text) for text in place.logged(f"/aws/vendedlogs/{name}")]
    assert {"200", "403"} <= {entry["status"] for entry in access}
    assert {entry["caller"] for entry in access} >= {f"arn:aws:iam::{ACCOUNT}:user/caller", "-"}
    everything = [*place.logged(f"/aws/lambda/{name}"), *place.logged(f"/aws/vendedlogs/{name}")]
    assert not [text for text in everything if "SECRET" in text]


# --- flags


def test_flags_send_some_to_the_challenger_step_by_step(
    place: Place, ask: Callable[..., Answer], rules: Callable[..., Path]
) -> None:
    assert flags(place)["rules"] == []
    place.noria("flags", "flights", "set", str(rules(CHALLENGER)), "--reason", "try it on one tenant")
    refused = place.noria("flags", "flights", "set", str(rules()), "--reason", "too early", code=1)
    assert "is under way" in refused

    states = []

    def done() -> bool:
        states.append(flags(place))
        return bool(states[-1]["state"] == "COMPLETE")

    eventually(done, 60)
    assert [state["percent"] for state in states] == sorted(state["percent"] for state in states)
    assert states[-1]["rules"] == [CHALLENGER | {"when": {"headers": {"x-tenant": ["acme"]}}}]

    tenant = eventually(lambda: (a := ask(x_tenant="acme")).document["variant"] == "challenger" and a)
    assert tenant.document["bundle"] == "b" * 64
    assert ask(x_tenant="others").document["variant"] == "champion"

    place.noria("flags", "flights", "rollback", "--reason", "that was enough")
    eventually(lambda: ask(x_tenant="acme").document["variant"] == "champion")
    assert flags(place)["state"] == "REVERTED"
    assert "no flags before these" in place.noria("flags", "flights", "rollback", "--reason", "further", code=1)
    told = json.loads(place.noria("events", "flights", "--json"))
    assert [(entry["kind"], entry["details"]["action"]) for entry in told] == [
        ("flags_changed", "rollback"),
        ("flags_changed", "set"),
    ]
    assert told[0]["details"]["reason"] == "that was enough"


def test_flags_that_do_harm_go_back_by_themselves(
    place: Place, ask: Callable[..., Answer], rules: Callable[..., Path]
) -> None:
    stop, seen = threading.Event(), Counter[tuple[int, str]]()

    def send() -> None:
        while not stop.wait(0.02):
            answer = ask(ROW | {"hour": 13})  # the challenger fails on it
            seen[answer.status, answer.document.get("variant", "")] += 1

    callers = [threading.Thread(target=send) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        everybody = {"name": "everybody", "variant": "challenger"}
        place.noria("flags", "flights", "set", str(rules(everybody)), "--reason", "be bold")
        back = eventually(lambda: (now := flags(place))["state"] == "ROLLED_BACK" and now, 60)
        seen.clear()
        eventually(lambda: seen[200, "champion"] > 20)
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert "noria-local-flights-front-door-errors" in back["went_back"]
    assert back["rules"] == []
    alarm = "noria-local-flights-front-door-errors"
    history = place.client("cloudwatch").describe_alarm_history(AlarmName=alarm, HistoryItemType="StateUpdate")
    assert any("to ALARM" in item["HistorySummary"] for item in history["AlarmHistoryItems"])


def test_appconfig_itself_refuses_what_cannot_be_read(place: Place) -> None:
    stack = place.client("cloudformation").describe_stacks(StackName="noria-local-flights-front-door")["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    appconfig, where = place.client("appconfig"), {"ApplicationId": outputs["FlagsApplication"]}
    version = appconfig.create_hosted_configuration_version(
        **where,
        ConfigurationProfileId=outputs["FlagsProfile"],
        Content=b'{"rules": [{"name": "a", "variant": "loser"}]}',
        ContentType="application/json",
    )["VersionNumber"]
    with pytest.raises(appconfig.exceptions.BadRequestException, match="loser"):
        appconfig.start_deployment(
            **where,
            EnvironmentId=outputs["FlagsEnvironment"],
            ConfigurationProfileId=outputs["FlagsProfile"],
            ConfigurationVersion=str(version),
            DeploymentStrategyId=outputs["FlagsAtOnceStrategy"],
        )


def test_flags_of_a_model_without_a_front_door_are_refused(place: Place) -> None:
    place.client("sagemaker").create_model_package_group(ModelPackageGroupName="noria-local-plain")
    assert "has no front door" in place.noria("flags", "plain", code=1)


# --- the end


def test_a_front_door_is_removed_with_the_flags_that_people_set(place: Place) -> None:
    began = time.monotonic()
    removed = json.loads(place.noria("destroy", "--model", "flights", "--only", "front-door", "--yes", "--json"))
    assert removed["stacks"] == ["noria-local-flights-front-door"]
    assert time.monotonic() - began < 30
    assert place.client("appconfig").list_applications()["Items"] != []  # the others' are still there
    names = [item["Name"] for item in place.client("appconfig").list_applications()["Items"]]
    assert "noria-local-flights-front-door" not in names
