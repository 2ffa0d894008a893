"""How long a monitor takes for one file of captured requests, in a process that is warm."""

import json
import time
from pathlib import Path

import duckdb

from benchmarks.profile.peers.noria_spec import SPEC
from noria import drift, profile

ROWS, A_REQUEST, TIMES = 10_000, 10, 7


def seconds(reference: Path, folder: Path) -> float:
    """The fastest of several times: profile 10,000 captured rows and compare them."""
    captured = _captured(reference, folder)
    baseline = profile.profile(profile.Source.files(reference), SPEC)
    taken = []
    for _ in range(TIMES):
        started = time.perf_counter()
        found = profile.profile(profile.Source.captured(captured), SPEC, baseline.edges)
        report = drift.compare(baseline, found, SPEC)
        taken.append(time.perf_counter() - started)
        if report.rows != ROWS:
            raise RuntimeError(f"{report.rows} of {ROWS} rows were read from {captured}")
    return min(taken)


def _captured(reference: Path, folder: Path) -> Path:
    """Rows of the reference as SageMaker captures them, ten a request."""
    names = ", ".join(f'"{name}"' for name in SPEC.features)
    with duckdb.connect() as db:
        found = db.execute(f"SELECT {names} FROM '{reference}' LIMIT {ROWS}").fetchall()  # noqa: S608
    rows = [dict(zip(SPEC.features, row, strict=True)) for row in found]
    path = folder / "captured.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for start in range(0, ROWS, A_REQUEST):
            asked = rows[start : start + A_REQUEST]
            answers = [{"prediction": 0, "score": (start + place) / ROWS} for place in range(len(asked))]
            payload = {"observedContentType": "application/json", "mode": "INPUT", "encoding": "JSON"}
            record = {
                "captureData": {
                    "endpointInput": payload | {"data": json.dumps({"instances": asked})},
                    "endpointOutput": payload | {"data": json.dumps({"predictions": answers})},
                },
                "eventMetadata": {"eventId": str(start), "inferenceTime": "2026-11-21T10:00:00Z"},
                "eventVersion": "0",
            }
            lines.write(json.dumps(record) + "\n")
    return path
