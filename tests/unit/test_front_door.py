"""The front door's function: what it answers to what, whom it asks, and what it tells nobody."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError
from botocore.response import StreamingBody

from lambdas.front_door.handler import Door, answer
from noria.aws.flag_reader import LatestFlags
from noria.aws.predictor import ABSENT_SECONDS, CannotPredictError, Predictor
from noria.aws.telemetry import logger
from noria.flags import Flags
from noria.hours import Hours
from noria.http import HttpRequest
from noria.prediction import RequestCheck
from noria.spec import ModelSpec
from tests.unit.test_prediction import GOOD, SPEC, body

BUNDLE = "ab" * 32
USER = "arn:aws:iam::123456789012:user/ann"
CHALLENGE = {"rules": [{"name": "all", "variant": "challenger"}]}


def stream(content: bytes) -> StreamingBody:
    return StreamingBody(io.BytesIO(content), len(content))


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def refusal(code: str, **members: Any) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "of AWS"}, **members}
    return ClientError(response, "InvokeEndpoint")


class SageMaker:
    """Stands for SageMaker Runtime: answers as it is told to, and remembers what it was asked."""

    def __init__(self, *, absent: bool = False, error: Exception | None = None, content: bytes | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self._absent, self._error = absent, error
        self._content = content if content is not None else b'{"predictions": [{"prediction": 1, "score": 0.75}]}'

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        if self._absent and "TargetVariant" in request:
            raise refusal("ValidationError")
        if self._error:
            raise self._error
        return {
            "Body": stream(self._content),
            "InvokedProductionVariant": request.get("TargetVariant", "champion"),
            "CustomAttributes": f"trace=1,noria-bundle={BUNDLE}",
        }


class AppConfig:
    """Stands for AppConfig's data API: `contents` in turn, the last again and again; an exception is raised."""

    def __init__(self, *contents: bytes | Exception, wait: int = 30) -> None:
        self._contents, self._wait = list(contents), wait
        self.sessions = self.polls = 0
        self._tokens: set[str] = set()

    def start_configuration_session(self, **_: Any) -> dict[str, Any]:
        self.sessions += 1
        return {"InitialConfigurationToken": self._token()}

    def get_latest_configuration(self, *, ConfigurationToken: str) -> dict[str, Any]:  # noqa: N803 - of AWS's API
        self._tokens.remove(ConfigurationToken)  # each is good for one call
        self.polls += 1
        content = self._contents.pop(0) if len(self._contents) > 1 else self._contents[0]
        if isinstance(content, Exception):
            raise content
        return {
            "NextPollConfigurationToken": self._token(),
            "NextPollIntervalInSeconds": self._wait,
            "Configuration": stream(content),
        }

    def _token(self) -> str:
        token = f"token-{self.sessions}-{self.polls}"
        self._tokens.add(token)
        return token


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def latest(appconfig: AppConfig, clock: Callable[[], float], warnings: list[str]) -> LatestFlags:
    return LatestFlags(
        application="app",
        environment="env",
        profile="flags",
        warn=warnings.append,
        client=cast("Any", appconfig),
        clock=clock,
    )


def door(
    sagemaker: SageMaker, flags: Any = None, clock: Callable[[], float] | None = None, spec: ModelSpec = SPEC
) -> Door:
    clock = clock or Clock()
    return Door(
        spec=spec,
        url="https://flights.example.com",
        check=RequestCheck(SPEC),
        flags=latest(AppConfig(json.dumps(flags or {}).encode()), clock, []),
        predictor=Predictor(endpoint="noria-test-flights", client=cast("Any", sagemaker), clock=clock),
    )


def request(
    content: bytes, *, route: str = "POST /predict", encoded: bool = False, authorizer: Any = None, **headers: str
) -> HttpRequest:
    sent = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
    return HttpRequest.parse(
        {
            "version": "2.0",
            "routeKey": route,
            "headers": sent,
            "body": base64.b64encode(content).decode() if encoded else content.decode(),
            "isBase64Encoded": encoded,
            "requestContext": {"authorizer": authorizer or {"iam": {"userArn": USER}}, "stage": "$default"},
        }
    )


def ask(place: Door, asked: HttpRequest, *, now: datetime = NOW) -> tuple[int, dict[str, str], Any]:
    response = answer(request=asked, door=place, now=now)
    return response["statusCode"], response["headers"], json.loads(response["body"])


# --- answers


@pytest.mark.parametrize("encoded", [False, True])
def test_a_good_request_is_passed_on_and_answered_with_who_answered(encoded: bool) -> None:
    sagemaker = SageMaker()
    status, headers, told = ask(door(sagemaker), request(body(GOOD), encoded=encoded, x_correlation_id="order-7"))
    assert (status, headers["x-correlation-id"]) == (200, "order-7")
    assert told == {
        "predictions": [{"prediction": 1, "score": 0.75}],
        "variant": "champion",
        "bundle": BUNDLE,
        "correlation_id": "order-7",
    }
    (asked,) = sagemaker.asked
    assert asked["InferenceId"] == "order-7"
    assert json.loads(asked["Body"]) == {"instances": [GOOD]}
    assert "TargetVariant" not in asked


def test_a_request_without_a_correlation_id_gets_one() -> None:
    sagemaker = SageMaker()
    _, headers, told = ask(door(sagemaker), request(body(GOOD)))
    assert headers["x-correlation-id"] == told["correlation_id"] == sagemaker.asked[0]["InferenceId"]
    assert len(told["correlation_id"]) == 32


@pytest.mark.parametrize("given", ["noria-probe-1", "x" * 65, "two words", "é"])
def test_an_id_that_could_not_join_anything_is_refused(given: str) -> None:
    sagemaker = SageMaker()
    status, _, told = ask(door(sagemaker), request(body(GOOD), x_correlation_id=given))
    assert (status, sagemaker.asked) == (400, [])
    assert "x-correlation-id must match" in told["detail"]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(body(GOOD | {"hour": 99})), 400),
        (request(b"no json"), 400),
        (request(body(*[GOOD] * 1001)), 413),
        (request(body(GOOD), content_type="text/csv"), 415),
    ],
)
def test_what_the_spec_does_not_allow_never_reaches_the_model(asked: HttpRequest, status: int) -> None:
    sagemaker = SageMaker()
    found, headers, told = ask(door(sagemaker), asked)
    assert (found, told["status"], sagemaker.asked) == (status, status, [])
    assert headers["content-type"] == "application/problem+json"
    assert told["correlation_id"] == headers["x-correlation-id"]


def test_problems_name_row_and_field() -> None:
    _, _, told = ask(door(SageMaker()), request(body(GOOD, GOOD | {"hour": 99})))
    assert told["errors"] == [{"row": 1, "field": "hour", "problem": "99 is more than 23"}]


MODEL_PROBLEM = {"row": 0, "field": "hour", "problem": "no"}


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (refusal("ModelError", OriginalStatusCode=500, OriginalMessage="oops"), 502, "the model failed"),
        (refusal("ModelError", OriginalStatusCode=0), 504, "in time"),
        (refusal("ModelError", OriginalStatusCode=400, OriginalMessage="not json"), 400, "did not understand"),
        (refusal("ModelNotReadyException"), 503, "starting"),
        (refusal("ServiceUnavailable"), 503, "not available"),
        (refusal("ThrottlingException"), 503, "busy"),
        (refusal("InternalFailure"), 502, "SageMaker failed"),
        (refusal("ValidationError"), 503, "no version"),
        (ReadTimeoutError(endpoint_url="https://x"), 504, "in time"),
        (ConnectTimeoutError(endpoint_url="https://x"), 503, "reached"),
    ],
)
def test_each_way_to_fail_has_its_status(error: Exception, status: int, detail: str) -> None:
    found, headers, told = ask(door(SageMaker(error=error)), request(body(GOOD)))
    assert (found, told["title"] != "") == (status, True)
    assert detail in told["detail"]
    assert ("retry-after" in headers) is (status == 503)


@pytest.mark.parametrize(
    ("at", "wait", "excused"),
    [
        ("2026-11-23T20:30", "37800", True),  # until the next morning
        ("2026-11-24T07:10", "60", True),  # it starts
        ("2026-11-24T08:00", "2", False),
    ],
)
def test_outside_of_its_hours_callers_are_told_when_to_come_back_and_nobody_is_paged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: str, wait: str, *, excused: bool
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "noria-test-flights-front-door")
    hours = Hours.model_validate({"from": "07:00", "to": "20:00"})
    spec = SPEC.model_copy(update={"serve": SPEC.serve.model_copy(update={"hours": hours})})
    place = door(SageMaker(error=refusal("ValidationError")), spec=spec)
    status, headers, told = ask(place, request(body(GOOD)), now=datetime.fromisoformat(at).replace(tzinfo=UTC))
    assert (status, headers["retry-after"]) == (503, wait)
    assert ("MON-FRI 07:00 to 20:00 UTC" in told["detail"]) is excused
    assert ('"OutsideHours":[1.0]' in capsys.readouterr().out.replace(" ", "")) is excused


@pytest.mark.parametrize(
    ("sagemaker", "failed"),
    [
        (SageMaker(), 0),
        (SageMaker(absent=True), 0),
        (SageMaker(content=b"<html>"), 0),
        (SageMaker(error=refusal("ModelError", OriginalStatusCode=400)), 0),
        (SageMaker(error=refusal("ModelError", OriginalStatusCode=500)), 1),
        (SageMaker(error=refusal("ModelError")), 1),
        (SageMaker(error=refusal("InternalFailure")), None),
        (SageMaker(error=refusal("ValidationError")), None),
    ],
    ids=["answered", "by another variant", "unreadable", "4XX", "5XX", "in no time", "SageMaker's", "no endpoint"],
)
def test_what_noria_itself_asks_is_counted_where_a_model_answered(
    sagemaker: SageMaker, failed: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "noria-test-probe-deployment")
    predictor = Predictor(endpoint="noria-test-flights", own=True, client=cast("Any", sagemaker))
    with suppress(CannotPredictError):
        predictor.predict(b"{}", inference_id="i", variant="challenger")
    counted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["EndpointName"], line["OwnRequestFailures"]) for line in counted] == (
        [] if failed is None else [("noria-test-flights", [failed])]
    )


def test_the_model_s_own_problems_are_passed_on() -> None:
    message = json.dumps({"problems": [MODEL_PROBLEM]})
    error = refusal("ModelError", OriginalStatusCode=400, OriginalMessage=message)
    assert ask(door(SageMaker(error=error)), request(body(GOOD)))[2]["errors"] == [MODEL_PROBLEM]


def test_an_answer_that_is_none_is_the_model_s_failure() -> None:
    assert ask(door(SageMaker(content=b"<html>")), request(body(GOOD)))[0] == 502


def test_what_no_request_can_cause_is_not_dressed_up() -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        answer(request=request(body(GOOD)), door=door(SageMaker(error=refusal("AccessDeniedException"))), now=NOW)


def test_the_document_says_where_the_door_is() -> None:
    status, _, document = ask(door(SageMaker()), request(b"", route="GET /openapi.json"))
    assert (status, document["servers"]) == (200, [{"url": "https://flights.example.com"}])


def test_nothing_of_a_request_or_an_answer_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", lines)
    place = door(SageMaker(content=b'{"predictions": [{"prediction": 1, "score": 0.123456789}]}'), CHALLENGE)
    ask(place, request(body(GOOD | {"origin": "SECRET-ORIGIN"}), x_correlation_id="order-7"))
    ask(place, request(body(GOOD | {"carrier": "SECRET-CARRIER"}), x_correlation_id="order-8"))
    logged = lines.getvalue()
    first, second = (json.loads(line) for line in logged.splitlines())
    assert (first["message"], first["variant"], first["rows"]) == ("PredictionAnswered", "challenger", 1)
    assert (second["message"], second["status"], second["correlation_id"]) == ("PredictionRefused", 400, "order-8")
    assert "SECRET" not in logged
    assert "0.123456789" not in logged


# --- flags


def test_flags_choose_the_variant() -> None:
    rules = {"rules": [{"name": "ann", "when": {"callers": [USER]}, "variant": "challenger"}]}
    sagemaker = SageMaker()
    assert ask(door(sagemaker, rules), request(body(GOOD)))[2]["variant"] == "challenger"
    assert sagemaker.asked[0]["TargetVariant"] == "challenger"


def test_claims_of_a_token_choose_too() -> None:
    rules = {"rules": [{"name": "staff", "when": {"claims": {"groups": ["staff"]}}, "variant": "challenger"}]}
    token = {"jwt": {"claims": {"sub": "user-7", "groups": "[admin staff]"}, "scopes": None}}
    asked = request(body(GOOD), authorizer=token)
    assert asked.caller.id == "user-7"
    assert ask(door(SageMaker(), rules), asked)[2]["variant"] == "challenger"


def test_a_variant_that_is_not_there_is_asked_for_once_in_a_while_and_others_answer() -> None:
    clock, sagemaker = Clock(), SageMaker(absent=True)
    place = door(sagemaker, CHALLENGE, clock)
    assert [ask(place, request(body(GOOD)))[2]["variant"] for _ in range(3)] == ["champion"] * 3
    assert ["TargetVariant" in asked for asked in sagemaker.asked] == [True, False, False, False]
    clock.now += ABSENT_SECONDS
    ask(place, request(body(GOOD)))
    assert "TargetVariant" in sagemaker.asked[4]


@contextmanager
def reading(*contents: bytes | Exception, wait: int = 30) -> Iterator[tuple[LatestFlags, AppConfig, Clock, list[str]]]:
    appconfig, clock, warnings = AppConfig(*contents, wait=wait), Clock(), list[str]()
    yield latest(appconfig, clock, warnings), appconfig, clock, warnings


def test_flags_are_read_as_often_as_appconfig_wants() -> None:
    with reading(json.dumps(CHALLENGE).encode(), b"", wait=60) as (flags, appconfig, clock, _):
        for _ in range(3):
            assert flags.get() == Flags.model_validate(CHALLENGE)
        assert appconfig.polls == 1
        clock.now += 60
        assert flags.get() == Flags.model_validate(CHALLENGE)  # nothing new: an empty answer
        assert (appconfig.polls, appconfig.sessions) == (2, 1)


def test_the_last_good_flags_stay_while_appconfig_is_down() -> None:
    down = refusal("InternalServerException")
    with reading(json.dumps(CHALLENGE).encode(), down, b'{"rules": []}') as (flags, appconfig, clock, warnings):
        good = flags.get()
        clock.now += 30
        assert flags.get() == good
        assert "AppConfig did not answer" in warnings[0]
        assert flags.get() == good
        assert appconfig.polls == 2  # not again at once
        clock.now += 30
        assert flags.get() == Flags()
        assert appconfig.sessions == 2


def test_flags_that_cannot_be_read_change_nothing() -> None:
    with reading(json.dumps(CHALLENGE).encode(), b'{"rules": 7}') as (flags, _, clock, warnings):
        good = flags.get()
        clock.now += 30
        assert flags.get() == good
        assert "cannot be read" in warnings[0]
