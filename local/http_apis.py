"""What API Gateway does for an HTTP API and MiniStack does not: throttling, metrics and access logs.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-throttling.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from local import ministack
from local.ministack import ApiCall, Response

NAMESPACE = "AWS/ApiGateway"
VARIABLE = re.compile(r"\$context\.([A-Za-z][A-Za-z0-9_.]*)")


@dataclass
class Bucket:
    """A token bucket: `burst` at once, `rate` a second. Seconds are those of this machine, whose work they limit."""

    rate: float
    burst: int
    clock: Callable[[], float] = time.monotonic
    _tokens: float = field(init=False)
    _filled: float = field(init=False)

    def __post_init__(self) -> None:
        self._tokens, self._filled = float(self.burst), self.clock()

    def take(self) -> bool:
        now = self.clock()
        self._tokens = min(self.burst, self._tokens + (now - self._filled) * self.rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class HttpApis:
    """The gateway before every HTTP API of the cloud."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str, str], Bucket] = {}

    def start(self) -> None:
        ministack.place_before_apis(self)

    def admits(self, call: ApiCall) -> bool:
        if call.rate is None or call.burst is None:
            return True
        place = (call.api, call.stage, call.route)
        bucket = self._buckets.get(place)
        if bucket is None or (bucket.rate, bucket.burst) != (call.rate, call.burst):
            bucket = self._buckets[place] = Bucket(float(call.rate), int(call.burst))
        return bucket.take()

    def answered(self, call: ApiCall, response: Response, seconds: float) -> None:
        milliseconds = round(seconds * 1000)
        family = response.status // 100
        values: dict[str, tuple[float, str]] = {
            "Count": (1, "Count"),
            "4xx": (family == 4, "Count"),
            "5xx": (family == 5, "Count"),
            "Latency": (milliseconds, "Milliseconds"),
        }
        if call.integration is not None:
            values["IntegrationLatency"] = (round(call.integration * 1000), "Milliseconds")
        for dimensions in ({"ApiId": call.api}, {"ApiId": call.api, "Stage": call.stage}):
            for name, (value, unit) in values.items():
                ministack.put_metric(NAMESPACE, name, {float(value): 1}, unit=unit, dimensions=dimensions)
        if call.log_group:
            ministack.put_log(call.log_group, call.api, access_log(call, response, milliseconds))


def access_log(call: ApiCall, response: Response, milliseconds: int) -> str:
    """One line in the stage's format; a variable without a value is a hyphen."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    values: Mapping[str, object] = {
        "requestId": headers.get("apigw-requestid"),
        "requestTime": datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "routeKey": call.route,
        "stage": call.stage,
        "status": response.status,
        "identity.sourceIp": "127.0.0.1",
        "identity.userArn": call.user,
        **{f"authorizer.claims.{name}": value for name, value in call.claims.items()},
        "responseLatency": milliseconds,
        "integrationLatency": None if call.integration is None else round(call.integration * 1000),
        "responseLength": len(response.body),
        "error.message": _message(response.body) if call.integration is None else None,
    }

    def value_of(variable: re.Match[str]) -> str:
        value = values.get(variable[1])
        return "-" if value is None else json.dumps(str(value), ensure_ascii=False)[1:-1]

    return VARIABLE.sub(value_of, call.log_format)


def _message(refusal: bytes) -> str | None:
    try:
        return str(json.loads(refusal)["message"])
    except (ValueError, TypeError, KeyError):
        return None
