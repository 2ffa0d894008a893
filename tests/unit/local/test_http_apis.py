"""Throttling and access logs of the local HTTP APIs."""

import json

from local.http_apis import Bucket, access_log
from local.ministack import ApiCall, Response


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_at_once_and_its_rate_after_that() -> None:
    clock = Clock()
    bucket = Bucket(rate=2, burst=5, clock=clock)
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]
    clock.now += 1
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.now += 3600
    assert sum(bucket.take() for _ in range(10)) == 5


def test_an_access_log_line_is_the_stage_s_format_with_its_variables_filled_in() -> None:
    call = ApiCall(
        api="a1",
        stage="$default",
        route="POST /predict",
        rate=None,
        burst=None,
        signed=False,
        log_group=None,
        log_format='{"route": "$context.routeKey", "who": "$context.authorizer.claims.sub", "of": "$context.unknown", '
        '"status": "$context.status", "ms": "$context.responseLatency", "error": "$context.error.message"}',
        claims={"sub": 'quoted "name"'},
        integration=0.02,
    )
    line = json.loads(access_log(call, Response(200, b'{"message": "an answer"}'), 25))
    assert line == {
        "route": "POST /predict",
        "who": 'quoted "name"',
        "of": "-",
        "status": "200",
        "ms": "25",
        "error": "-",
    }
    call.integration = None
    refused = json.loads(access_log(call, Response(403, b'{"message": "Forbidden"}'), 1))
    assert (refused["status"], refused["error"]) == ("403", "Forbidden")
