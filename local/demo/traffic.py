"""Callers of an endpoint: a steady stream of single rows in the background, and batches whose answers are kept."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.demo.story import Traffic
from local.demo.world import World

Row = Mapping[str, Any]

BATCH = 50
"""Rows of a request that nobody is waiting for."""


def predict(world: World, rows: Sequence[Row], *, called: str | None = None) -> list[float]:
    """Scores of `rows`, asked in requests of `BATCH` rows, the n-th with inference id `<called>-<n>`."""
    runtime = world.client("sagemaker-runtime")

    def ask(number: int, part: Sequence[Row]) -> list[float]:
        response = runtime.invoke_endpoint(
            EndpointName=world.endpoint,
            **({"InferenceId": f"{called}-{number}"} if called else {}),
            ContentType="application/json",
            Accept="application/json",
            Body=json.dumps({"instances": part}),
        )
        return [float(prediction["score"]) for prediction in json.loads(response["Body"].read())["predictions"]]

    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        return [score for scores in pool.map(ask, range(len(parts)), parts) for score in scores]


@contextmanager
def steady(
    world: World, rows: Sequence[Row], during: str, *, per_second: int = 40, callers: int = 2
) -> Iterator[Traffic]:
    """Send one row a request, `per_second` in all, until the block ends; then the counts are in the story."""
    traffic = Traffic(during=during, answered=0, failed=0, p95_ms=0.0)
    latencies: list[float] = []
    stop = threading.Event()
    lock = threading.Lock()

    def call(offset: int) -> None:
        runtime = world.client("sagemaker-runtime")
        turn = 0
        begin = time.monotonic() + offset / per_second
        while not stop.is_set():
            row = rows[(offset + turn * callers) % len(rows)]
            start = time.monotonic()
            try:
                response = runtime.invoke_endpoint(
                    EndpointName=world.endpoint, ContentType="application/json", Body=json.dumps({"instances": [row]})
                )
                json.loads(response["Body"].read())["predictions"][0]["score"]
                answered = True
            except (ClientError, BotoCoreError):
                answered = False
            with lock:
                latencies.append(time.monotonic() - start)
                traffic.answered += answered
                traffic.failed += not answered
            turn += 1
            stop.wait(max(0.0, begin + turn * callers / per_second - time.monotonic()))

    threads = [threading.Thread(target=call, args=(offset,), daemon=True) for offset in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield traffic
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)
        if latencies:
            traffic.p95_ms = 1000 * sorted(latencies)[int(0.95 * (len(latencies) - 1))]
        world.story.traffic.append(traffic)
