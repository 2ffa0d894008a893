"""Every door through which something comes that we have not made, and what is allowed to happen there.

A door takes any bytes. It returns, or raises the error that its callers catch and show to people; whatever else comes
out of it is a defect: a crash of a function, or a traceback in front of somebody. `seeds` are what comes on good days,
from which hostile input is made.
"""

import csv
import io
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from gzip import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from typer.testing import CliRunner

from noria import batch, capture, contract, events, infer, labels, logged, messages, pause, spec
from noria.batch import Signature
from noria.cli import flags
from noria.cli.commands import app
from noria.cli.output import Refused
from noria.events import Event, EventError
from noria.names import Names
from noria.profile import Source
from noria.sql import Resources, connect
from pipelines.serving import inference
from pipelines.serving.server import READABLE, Invocations

ROOT = Path(__file__).parents[2]
SPEC_FILE = ROOT / "models" / "flight-delay.yaml"
SPEC = spec.load(SPEC_FILE)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SMALL = Resources(threads=1, memory_mb=256)


@dataclass(frozen=True)
class Door:
    """`slow`: takes tens of milliseconds, as everything does that DuckDB reads."""

    name: str
    seeds: Sequence[bytes]
    enter: Callable[[bytes], object]
    slow: bool = False


def doors() -> list[Door]:
    row = dict.fromkeys(SPEC.features, 1.0) | {"carrier": "AA", "origin": "EWR", "dest": "BOS", "hour": 7}
    table = _csv([{"ts": "2013-01-01T07:00:00", **row, "late": n % 2} for n in range(4)])
    told = _csv([{"inference_id": f"i{n}", "row": 0, "late": n % 2} for n in range(4)])
    instances = json.dumps({"instances": [row, row]}).encode()
    return [
        Door("events", [path.read_bytes() for path in sorted((ROOT / "tests" / "events").glob("*.json"))], _event),
        Door("messages", [path.read_bytes() for path in sorted((ROOT / "tests" / "events").glob("*.json"))], _message),
        Door("log lines", [_log_lines(captured(1))], _logged),
        Door("model spec", [SPEC_FILE.read_bytes()], _spec),
        Door("flags", [b"rules:\n- name: staff\n  when: {group: staff}\n  variant: challenger\n"], _flags),
        Door("inference", [instances, _csv([row]), _parquet(_csv([row]))], _inference, slow=True),
        Door("batch, CSV", [_csv([row])], _batch(".csv")),
        Door("batch, JSON lines", [json.dumps(row).encode() + b"\n"], _batch(".jsonl")),
        Door("upload, CSV", [table], _upload(".csv"), slow=True),
        Door("upload, Parquet", [_parquet(table)], _upload(".parquet"), slow=True),
        Door("contract infer", [table], _infer, slow=True),
        Door("captured records", [captured(3)], _captured, slow=True),
        Door("labels, CSV", [told], _labels(".csv"), slow=True),
        Door("labels, Parquet", [_parquet(told)], _labels(".parquet"), slow=True),
        Door("command line", [" ".join(words).encode() for words in COMMANDS], _command, slow=True),
    ]


COMMANDS = (
    ("models",),
    ("schema",),
    ("validate", "models/flight-delay.yaml", "--model", "flight-delay"),
    ("contract", "infer", "README.md", "--target", "late"),
    ("cost", "--out", "nowhere"),
)
"""Those that ask no cloud: the others have the same doors, and end at the first call."""


# --- what comes on good days


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _parquet(table: bytes) -> bytes:
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "rows.csv", Path(folder) / "rows.parquet"
        source.write_bytes(table)
        with connect(SMALL) as db:
            db.read_csv(str(source)).write_parquet(str(target))
        return target.read_bytes()


def captured(records: int) -> bytes:
    """Records of a data-capture file: one row asked as CSV, and its answer."""
    values = ",".join("AA" if feature.type == "category" else "1" for feature in SPEC.features.values())
    lines = []
    for number in range(records):
        asked = {"observedContentType": "text/csv", "mode": "INPUT", "data": values, "encoding": "CSV"}
        answered = {"observedContentType": "text/csv", "mode": "OUTPUT", "data": "1,0.75", "encoding": "CSV"}
        metadata = {"eventId": f"e{number}", "inferenceTime": "2026-01-01T00:00:00Z"}
        record = {"captureData": {"endpointInput": asked, "endpointOutput": answered}, "eventMetadata": metadata}
        lines.append(json.dumps({**record, "eventVersion": "0", "noria": "capture"}))
    return "\n".join(lines).encode() + b"\n"


def _log_lines(lines: bytes) -> bytes:
    event = {"id": "1", "timestamp": 1767225600000, "message": lines.decode()}
    return json.dumps(
        {
            "messageType": "DATA_MESSAGE",
            "logGroup": "/aws/sagemaker/Endpoints/noria-dev-flight-delay",
            "logStream": "champion/i-1",
            "logEvents": [event],
        }
    ).encode()


# --- the doors


def _event(data: bytes) -> None:
    """A message of a queue, heard by every reaction."""
    body = data.decode("utf-8", "replace")
    for kind in _kinds():
        try:
            events.parse({"Records": [{"messageId": "1", "body": body}]}, kind)
        except EventError:
            continue


def _message(data: bytes) -> None:
    """The same as the door of a paused model, the log and `noria queues` read it."""
    body = data.decode("utf-8", "replace")
    event = messages.event_in(body)
    messages.what(event)
    messages.model_of(event, names=[Names(env="local")], models={SPEC.model})
    pause.turn(event)
    events.Heard.of({"Records": [{"messageId": "1", "body": body}]})


@cache
def _kinds() -> tuple[type[Event], ...]:
    found = (kind for kind in vars(events).values() if isinstance(kind, type) and hasattr(kind, "DETAIL_TYPES"))
    return tuple(found)


def _logged(data: bytes) -> None:
    try:
        told = logged.parse_batch({"awslogs": {"data": b64encode(compress(data, 1)).decode()}})
        logged.capture_files(told)
        _ = told.endpoint
    except EventError:
        return


def _spec(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.yaml"
        path.write_bytes(data)
        try:
            spec.load(path)
        except spec.SpecError as error:
            _names(error, path)


def _flags(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "flags.yaml"
        path.write_bytes(data)
        try:
            flags.read(path)
        except Refused as error:
            _names(error, path)


def _names(error: Exception, path: Path) -> None:
    assert str(error).startswith(str(path)), f"the error does not name the file: {error}"


@cache
def _model() -> inference.Model:
    features: list[dict[str, Any]] = [
        {"name": name, "type": feature.type.value, "nullable": feature.missing > 0, "categories": ["AA"]}
        for name, feature in SPEC.features.items()
    ]
    signature = {"task": SPEC.task.value, "labels": [0, 1], "features": features}
    return inference.Model(inference.Contract(signature), lambda rows: np.full(len(rows), 0.5), "0" * 64)


_TYPES = (*READABLE, "", "text/html", "application/json; charset=x")


def _inference(data: bytes) -> None:
    """A request in each content type, to both servers: answered, or refused with a status below 500."""
    accept = data[:40].decode("latin-1")
    for content_type in _TYPES:
        assert 200 <= Invocations(_model())(data, content_type, accept).status < 500
        if content_type in inference.MEDIA_TYPES:
            prediction = inference.predict_fn(inference.input_fn(data, content_type), _model())
            assert 200 <= inference.output_fn(prediction, accept).status < 500


def _batch(ending: str) -> Callable[[bytes], None]:
    signature = Signature.model_validate(
        {
            "features": [
                {"name": name, "type": feature.type.value, "nullable": feature.missing > 0}
                for name, feature in SPEC.features.items()
            ],
            "task": SPEC.task.value,
        }
    )

    def enter(data: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "upload"
            path.write_bytes(data)
            name = f"rows{ending}"
            batch.prepare(path, signature, model=SPEC.model, filename=name, to=Path(folder) / "rows")

    return enter


def _upload(ending: str) -> Callable[[bytes], None]:
    def enter(data: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "upload"
            path.write_bytes(data)
            report = contract.check(path, SPEC, filename=f"january{ending}", now=NOW, resources=SMALL)
            assert report.accepted or all(violation.message for violation in report.violations)
            report.to_text()

    return enter


def _infer(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(data)
        try:
            proposed = infer.infer(path, target="late", resources=SMALL)
            contract.check(path, proposed.spec, filename="rows.csv", now=NOW, resources=SMALL)
        except infer.InferError:
            return


def _captured(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "captured.jsonl"
        path.write_bytes(data)
        with connect(SMALL) as db:
            db.execute(f"SELECT * FROM {capture.relation([path], SPEC)}").fetchall()  # noqa: S608
        contract.check_captured(Source.files(path), SPEC, resources=SMALL)


def _labels(ending: str) -> Callable[[bytes], None]:
    def enter(data: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "labels"
            path.write_bytes(data)
            file = labels.LabelsFile(path, f"labels{ending}")
            try:
                labels.words(file, SPEC, labels.Arrival(NOW, "v"), to=Path(folder) / "words", resources=SMALL)
            except labels.LabelsError:
                return

    return enter


def _command(data: bytes) -> None:
    """Words of a command, as a shell hands them on: an exit code, and never a traceback."""
    words = [word for word in data.decode("utf-8", "replace").replace("\0", "").split(" ") if word]
    if {"--help", "destroy"} & set(words):
        return
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit | Refused | spec.SpecError)
