"""Small specs and captured requests for the tests of the data engine."""

import base64
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from noria.spec import ModelSpec, Task
from noria.sql import Resources

SMALL = Resources(memory_mb=256, threads=1)
ODD = ("a b", "ünï cödé 🙂", 'it\'s "x"; DROP TABLE y; --', "select", "=1+1", "*", "a.b", "{}", "f0", "row")
"""Names that a column or a category may have."""
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def spec_of(task: Task = Task.BINARY, **changes: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "model": "example",
            "task": task,
            "target": "y",
            "time": "at",
            "features": {
                "x": {"type": "number", "missing": 0.5},
                "size": {"type": "integer", "missing": 0.5},
                "color": {"type": "category", "missing": 0.5},
            },
            "owner": {"team": "team"},
            **changes,
        }
    )


def record(
    event: str,
    instances: Sequence[dict[str, Any]] | str,
    predictions: Sequence[dict[str, Any]] | str | None,
    *,
    inference_id: str | None = None,
    time: str = "2026-11-21T10:00:00Z",
    binary: bool = False,
) -> str:
    """A line of a data-capture file; rows are given as mappings (JSON) or as text (CSV)."""
    data = {"endpointInput": _payload("instances", instances, binary)}
    if predictions is not None:
        data["endpointOutput"] = _payload("predictions", predictions, binary)
    metadata = {"eventId": event, "inferenceTime": time} | ({"inferenceId": inference_id} if inference_id else {})
    return json.dumps({"captureData": data, "eventMetadata": metadata, "eventVersion": "0"})


def write(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _payload(name: str, rows: Sequence[dict[str, Any]] | str, binary: bool) -> dict[str, str]:
    kind, data = ("text/csv", rows) if isinstance(rows, str) else ("application/json", json.dumps({name: rows}))
    encoding = {"text/csv": "CSV", "application/json": "JSON"}[kind]
    if binary:
        data, encoding = base64.b64encode(data.encode()).decode(), "BASE64"
    return {"observedContentType": kind, "mode": "INPUT", "data": data, "encoding": encoding}
