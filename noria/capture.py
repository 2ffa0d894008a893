"""SageMaker data-capture files as rows: one JSON line per invocation, many predictions in each.

    {"captureData": {"endpointInput":  {"observedContentType", "mode", "data", "encoding"},
                     "endpointOutput": {…}},
     "eventMetadata": {"eventId", "inferenceId"?, "inferenceTime"}, "eventVersion": "0"}

Input is `{"instances": [{feature: value}]}` or CSV without a header, in the order of the spec's features; output is
`{"predictions": [{"prediction", "score"?, "scores"?}]}` or CSV lines `prediction[,score]`; `encoding` is JSON, CSV or
BASE64. A request in Parquet counts as malformed, since nothing here reads it out of a record. Requests of Noria's own
probes, which say so in their `inferenceId`, are no traffic and left out.
Format: Amazon SageMaker AI developer guide, "Capture data from real-time endpoint".
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import json
from collections.abc import Sequence
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

from noria.spec import FeatureType, ModelSpec
from noria.sql import identifier, literal, paths, timestamp

PROBE = "noria-probe-"
"""How the inference ids of Noria's own requests begin."""

_SHORTEST_RESERVE = 2**20

_PAYLOAD = "STRUCT(observedContentType VARCHAR, data VARCHAR, encoding VARCHAR)"
_COLUMNS = {
    "captureData": f"STRUCT(endpointInput {_PAYLOAD}, endpointOutput {_PAYLOAD})",
    "eventMetadata": "STRUCT(eventId VARCHAR, inferenceId VARCHAR, inferenceTime VARCHAR)",
}
_PREDICTIONS = {"predictions": [{"prediction": "VARCHAR", "score": "DOUBLE", "scores": "MAP(VARCHAR, DOUBLE)"}]}


def relation(
    files: Sequence[Path], spec: ModelSpec, *, since: datetime | None = None, until: datetime | None = None
) -> str:
    """SQL of a relation with one row per captured prediction, and one with `malformed` true per record that is none.

    Columns: malformed, inference_id (the client's, else the event's), row (from 0), time (UTC), f0 … fn (features in
    the order of the spec: DOUBLE or VARCHAR), r0 … rn (the same as texts, as they came), prediction (VARCHAR), score
    (DOUBLE), scores (MAP of label to DOUBLE). A value that is not of its feature's type is NULL among the first, one
    that is missing among both. A record whose time is outside [since, until) is left out.
    """
    features = list(spec.features.items())
    came = ",\n".join(
        f"CASE WHEN by_name IS NULL THEN by_place[{i + 1}] ELSE nullif(by_name.{identifier(name)}, '') END AS r{i}"
        for i, (name, _) in enumerate(features)
    )
    texts = dict.fromkeys(spec.features, "VARCHAR")
    values = ", ".join(
        f"r{i} AS f{i}" if f.type is FeatureType.CATEGORY else f"TRY_CAST(r{i} AS DOUBLE) AS f{i}"
        for i, (_, f) in enumerate(features)
    )
    window = "".join(
        f" AND (time IS NULL OR time {operator} {timestamp(bound)})"
        for operator, bound in ((">=", since), ("<", until))
        if bound is not None
    )
    return f"""(
WITH record AS (
    SELECT captureData AS d, eventMetadata AS m
    FROM {_records(files)}
    WHERE NOT coalesce(starts_with(eventMetadata.inferenceId, {literal(PROBE)}), false)
), decoded AS (
    SELECT coalesce(m.inferenceId, m.eventId) AS inference_id,
        TRY_CAST(m.inferenceTime AS TIMESTAMPTZ) AT TIME ZONE 'UTC' AS time,
        d.endpointInput.observedContentType ILIKE '%json%' AS json_in,
        d.endpointOutput.observedContentType ILIKE '%json%' AS json_out,
        {_text("d.endpointInput", lines_of="instances")} AS input,
        {_text("d.endpointOutput", lines_of="predictions")} AS output,
        d.endpointOutput.data IS NOT NULL AS answered
    FROM record
), parsed AS (
    SELECT inference_id, time, answered,
        CASE WHEN json_in THEN TRY(from_json(input, {_structure({"instances": [texts]})})).instances END AS by_name,
        CASE WHEN NOT json_in THEN {_csv("input")} END AS by_place,
        CASE WHEN json_out THEN TRY(from_json(output, {_structure(_PREDICTIONS)})).predictions
            ELSE list_transform({_csv("output")}, lambda p: {{
                'prediction': p[1], 'score': TRY_CAST(p[2] AS DOUBLE), 'scores': NULL::MAP(VARCHAR, DOUBLE)}})
        END AS predictions
    FROM decoded
    WHERE true{window}
), judged AS (
    SELECT *, inference_id IS NULL OR time IS NULL OR coalesce(len(by_name), len(by_place)) IS NULL
        OR coalesce(len(list_filter(by_place, lambda p: len(p) <> {len(features)})), 0) > 0
        OR (answered AND len(predictions) IS DISTINCT FROM coalesce(len(by_name), len(by_place))) AS malformed
    FROM parsed
), rows AS (
    SELECT malformed, inference_id, time,
        unnest(CASE WHEN malformed THEN [0] ELSE range(coalesce(len(by_name), len(by_place))) END) AS row,
        unnest(CASE WHEN NOT malformed THEN by_name END) AS by_name,
        unnest(CASE WHEN NOT malformed THEN by_place END) AS by_place,
        unnest(CASE WHEN NOT malformed THEN predictions END) AS p
    FROM judged
)
SELECT *, {values}
FROM (
    SELECT malformed, inference_id, row, time,
    {came},
    p.prediction AS prediction, p.score AS score, p.scores AS scores
    FROM rows
)
)"""


def instance(values: Sequence[Any], spec: ModelSpec) -> dict[str, Any]:
    """f0 … fn of a row as a client sends it: whole numbers are whole, and a number that is none is missing."""

    def sent(value: Any, kind: FeatureType) -> Any:
        if not isinstance(value, float):
            return value
        whole = kind is FeatureType.INTEGER
        return None if not isfinite(value) else int(value) if whole else value

    return {
        name: sent(value, feature.type) for (name, feature), value in zip(spec.features.items(), values, strict=True)
    }


def _records(files: Sequence[Path]) -> str:
    if not files:
        nothing = (f"NULL::{kind} AS {name}" for name, kind in _COLUMNS.items())
        return f"(SELECT {', '.join(nothing)} WHERE false)"
    columns = ", ".join(f"{name}: {literal(kind)}" for name, kind in _COLUMNS.items())
    return (
        f"read_json({paths(files)}, format = 'newline_delimited', columns = {{{columns}}}, ignore_errors = true, "
        f"maximum_object_size = {_longest_line(files)})"
    )


def _longest_line(files: Sequence[Path]) -> int:
    """Bytes that DuckDB must reserve for a line: it refuses longer ones, and base64 of a large request is one."""
    longest = _SHORTEST_RESERVE
    for file in files:
        if file.stat().st_size > longest:
            with file.open("rb") as lines:
                longest = max(longest, *map(len, lines))
    return longest


def _text(payload: str, *, lines_of: str) -> str:
    """SQL: a payload as text; JSON lines become the list `lines_of` of one document (no JSON text holds a newline)."""
    text = (
        f"CASE WHEN {payload}.observedContentType ILIKE '%parquet%' THEN NULL "
        f"WHEN {payload}.encoding = 'BASE64' THEN TRY(decode(from_base64({payload}.data))) ELSE {payload}.data END"
    )
    joined = f"regexp_replace(trim({text}, chr(13) || chr(10) || ' '), '[\\r\\n]+', ',', 'g')"
    return (
        f"CASE WHEN {payload}.observedContentType ILIKE '%jsonlines%' "
        f"THEN '{{\"{lines_of}\": [' || {joined} || ']}}' ELSE {text} END"
    )


def _csv(text: str) -> str:
    """SQL: lines of fields of a CSV text (RFC 4180); quoted fields may hold commas, newlines and doubled quotes."""
    body = f"regexp_replace(replace({text}, chr(13) || chr(10), chr(10)), '\\n+$', '')"
    lines = f"""regexp_extract_all(chr(10) || {body}, '\\n((?:"(?:[^"]|"")*"|[^"\\n])*)', 1)"""
    fields = """regexp_extract_all(',' || line, ',("(?:[^"]|"")*"|[^,]*)', 1)"""
    value = """CASE WHEN starts_with(field, '"') THEN replace(field[2:-2], '""', '"') ELSE nullif(field, '') END"""
    return f"list_transform({lines}, lambda line: list_transform({fields}, lambda field: {value}))"


def _structure(shape: object) -> str:
    return literal(json.dumps(shape))
