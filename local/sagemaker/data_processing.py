"""What a transform job does to its records on the way in and out: filters, and joining answers with their records.

Filters are the JSONPath expressions that SageMaker knows: `$`, names, indices, several of them, slices and `*`. A row
of CSV counts as an array. https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from local.sagemaker.api import Document, invalid

CSV = "text/csv"
JSON_LINES = "application/jsonlines"

_STEP = re.compile(
    r"\.(?P<name>[A-Za-z_][\w-]*|\*)"
    r"|\.?\[(?P<names>'[^']*'(?:\s*,\s*'[^']*')*)\]"
    r"|\.?\[(?P<indices>-?\d+(?:\s*,\s*-?\d+)*)\]"
    r"|\.?\[(?P<start>-?\d*):(?P<end>-?\d*)\]"
    r"|\.?\[(?P<all>\*)\]"
)

Filter = Callable[[Any], Any]


class RecordError(Exception):
    """A record or an answer that cannot be filtered or joined."""


def path(expression: str) -> Filter:
    """The filter of a JSONPath expression; it raises `RecordError` for a value without what it names.

    Raises `Problem` for an expression that SageMaker doesn't support.
    """
    steps, position = [], 1
    while position < len(expression):
        found = _STEP.match(expression, position)
        if found is None:
            break
        steps.append(_step(found))
        position = found.end()
    if not expression.startswith("$") or position < len(expression):
        raise invalid(f"{expression!r} is not a JSONPath expression that SageMaker supports.")

    def apply(value: Any) -> Any:
        try:
            for step in steps:
                value = step(value)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise RecordError(f"{expression} finds nothing in {str(value)[:80]}") from error
        return value

    return apply


def _step(found: re.Match[str]) -> Filter:
    if found["all"] or found["name"] == "*":
        return lambda value: list(value.values()) if isinstance(value, dict) else list(value)
    if found["start"] is not None:
        bounds = slice(*(int(bound) if bound else None for bound in (found["start"], found["end"])))
        return lambda value: value[bounds]
    keys: list[Any] = [found["name"]]
    if names := found["names"]:
        keys = re.findall(r"'([^']*)'", names)
    elif indices := found["indices"]:
        keys = [int(index) for index in indices.split(",")]
    if len(keys) == 1:
        return lambda value: value[keys[0]]
    return lambda value: {key: value[key] for key in keys} if isinstance(value, dict) else [value[key] for key in keys]


@dataclass(frozen=True)
class DataProcessing:
    """The `DataProcessing` of a transform job whose records are lines. Methods raise `RecordError`."""

    input_filter: Filter
    output_filter: Filter
    join: bool
    content_type: str

    @classmethod
    def of(cls, request: Document) -> "DataProcessing | None":
        """None where records and answers stay as they are. Raises `Problem`."""
        asked = request.get("DataProcessing", {})
        expressions = [asked.get(name, "$") for name in ("InputFilter", "OutputFilter")]
        join = asked.get("JoinSource", "None") == "Input"
        if not join and expressions == ["$", "$"]:
            return None
        source, output = request["TransformInput"], request["TransformOutput"]
        content_type = source.get("ContentType", "").partition(";")[0].strip().lower()
        accept = output.get("Accept", content_type).partition(";")[0].strip().lower()
        lines = source.get("SplitType") == "Line" and output.get("AssembleWith") == "Line"
        if content_type not in (CSV, JSON_LINES) or accept != content_type or not lines:
            raise invalid(
                "The local SageMaker processes lines of text/csv or application/jsonlines only: give ContentType and "
                "Accept the same of the two, SplitType and AssembleWith Line."
            )
        return cls(path(expressions[0]), path(expressions[1]), join, content_type)

    def record(self, line: bytes) -> bytes:
        """What the model gets of a record."""
        return self._written(self.input_filter(self._read(line)))

    def answers(self, records: Sequence[bytes], answer: bytes) -> bytes:
        """The output for a mini-batch: its records, unfiltered, and the container's answer to it."""
        lines = [line for line in answer.splitlines() if line.strip()]
        if len(lines) != len(records):
            raise RecordError(f"{len(lines)} answers to {len(records)} records: they cannot be joined")
        return b"\n".join(self._output(record, line) for record, line in zip(records, lines, strict=True))

    def _output(self, record: bytes, line: bytes) -> bytes:
        answer = self._read(line)
        if not self.join:
            return self._written(self.output_filter(answer))
        source = self._read(record)
        if self.content_type == CSV:
            return self._written(self.output_filter([*source, *answer]))
        joined = source if isinstance(source, dict) else {"SageMakerInput": source}
        return self._written(self.output_filter({**joined, "SageMakerOutput": answer}))

    def _read(self, line: bytes) -> Any:
        try:
            text = line.decode()
            return next(csv.reader([text], strict=True)) if self.content_type == CSV else json.loads(text)
        except (ValueError, csv.Error, StopIteration) as error:
            raise RecordError(f"not a record of {self.content_type}: {line[:80]!r}: {error}") from error

    def _written(self, value: Any) -> bytes:
        if self.content_type == CSV:
            text = io.StringIO()
            csv.writer(text, lineterminator="").writerow(value if isinstance(value, list) else [value])
            return text.getvalue().encode()
        return json.dumps(value, separators=(",", ":")).encode()


def batches(lines: Iterable[bytes], largest: int | None, *, single: bool) -> Iterable[list[bytes]]:
    """Lines as mini-batches of one record, or of as many as fit into `largest` bytes, line ends included."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and (single or (largest is not None and size + len(line) > largest)):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line) + 1
    if batch:
        yield batch
