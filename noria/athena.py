"""The profile of captured requests on Athena, for windows that are too large for one machine.

    profile.Scan ─ its aggregates, translated by sqlglot ─┐
    capture.relation ─ its twin in Trino's SQL ───────────┴ queries ─ Athena ─ rows of texts ─ Scan.read ─ Profile

Both engines answer the same questions, and the same `Scan` reads what they say. The records are decoded by a query of
its own, as DuckDB's functions for that (`from_json`, list comprehensions) have no translation. What else differs:

- A literal such as 0.1 is a DECIMAL there, and its cast to DOUBLE rounds twice: numbers are cast from texts.
- `array_position` says 0 and not NULL of what is in no list; `noria.profile` counts neither.
- `hash` and `bitstring_agg` do not exist: values are hashed by MD5, and the bits of a sketch come as a list. So
  sketches of both engines say the same within their bound, but do not merge with each other.
- `from_utf8` replaces what is no UTF-8 instead of failing: the text must encode to the same bytes.
- A cast of text to DOUBLE takes Java's `1f`, `0x1p3`: only decimal numbers are cast.
- JSON has no NaN there: where a document cannot be parsed, it is tried with null in the place of NaN and infinities.
- JSON numbers are written anew: a category that is sent as the number 1.10 is called 1.1.
- Base64 may lack its padding there, and times must be ISO 8601, as SageMaker writes both.

Sources: Trino's documentation, "Functions and operators"; Athena guide, "Functions in Amazon Athena" (its engine 3 is
Trino).
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

import sqlglot
from sqlglot import exp

from noria import sketch
from noria.capture import PROBE
from noria.profile import Edges, Profile, Scan
from noria.spec import FeatureType, ModelSpec, Task
from noria.sql import identifier, literal

LONGEST = 262_144
"""Bytes of a query that Athena takes (Athena guide, "Service quotas")."""

AT_ONCE = 400
"""Aggregates of one query: Trino compiles them to one method, which the JVM limits to 64 KiB."""

HOUR = "%Y/%m/%d/%H"
"""Partitions: SageMaker's folders of hours."""

_PAYLOAD = "struct<observedcontenttype:string,mode:string,data:string,encoding:string>"
COLUMNS: Mapping[str, str] = {
    "capturedata": f"struct<endpointinput:{_PAYLOAD},endpointoutput:{_PAYLOAD}>",
    "eventmetadata": "struct<eventid:string,inferenceid:string,inferencetime:string>",
}
"""Of a table of records that SageMaker captured; its partitions are `variant` and `hour`. The SerDe reads all names in
lower case, and leaves out what is not named."""

_PREDICTED: Mapping[Task, tuple[str, ...]] = {
    Task.BINARY: ("p", "c"),
    Task.MULTICLASS: ("p", "c"),
    Task.REGRESSION: ("p",),
}
_NUMBER = r"^\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\s*$"

Row = Sequence[str | None]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Captured requests of one variant in a Glue table, from `since` (inclusive) to `until` (exclusive).

    Files lie in the hour in which they were written, `late` after a request at most.
    """

    database: str
    table: str
    variant: str
    since: datetime
    until: datetime
    late: timedelta


class CapturedScan:
    """What `profile.profile` asks of captured requests, as queries for Athena.

    scan = CapturedScan(rows, spec, baseline.edges)
    found = scan.read([the row that answers each of scan.queries])
    names = scan.naming(found)            queries too; none where nothing is left to name
    found = scan.named(found, all rows that answer them)
    """

    def __init__(self, rows: Rows, spec: ModelSpec, cut: Edges) -> None:
        self._rows, self._spec = rows, spec
        self._scan = Scan(spec, cut, predicted=_PREDICTED[spec.task], distinct=True, across=True)
        self._asked = [Aggregate.of(sql) for sql in ("coalesce(count_if(malformed), 0)", *self._scan.expressions)]

    @property
    def queries(self) -> list[str]:
        """Of `AT_ONCE` aggregates at most; ValueError where one alone is longer than Athena takes."""

        def query(asked: Sequence[Aggregate]) -> str:
            columns = ", ".join(f"{aggregate.sql} AS a{place}" for place, aggregate in enumerate(asked))
            return f"SELECT {columns} FROM {self._relation(asked)}"

        return [
            text
            for start in range(0, len(self._asked), AT_ONCE)
            for text in _split(self._asked[start : start + AT_ONCE], query)
        ]

    def read(self, answers: Sequence[Row]) -> Profile:
        """The profile, from the one row that answers each query; new categories have no names yet."""
        texts = [text for row in answers for text in row]
        values = [aggregate.read(text) for aggregate, text in zip(self._asked, texts, strict=True)]
        malformed, total, *rest = values
        return self._scan.read([total - malformed, *rest], malformed=malformed)

    def naming(self, found: Profile) -> list[str]:
        """Queries for (column, name) of the categories that the edges do not know; ValueError as `queries`."""

        def query(asked: Sequence[tuple[str, Aggregate]]) -> str:
            names = " UNION ALL ".join(f"(SELECT '{place}' AS place, name FROM ({one.sql}))" for place, one in asked)
            # Decoded here once by its text, and by Trino for each column: as in DuckDB, a scan each.
            return f"WITH relation AS (SELECT * FROM {self._relation([one for _, one in asked])}) {names}"

        asked = [(place, Aggregate.of(sql)) for place, sql in self._scan.naming(found, "relation").items()]
        return list(_split(asked, query))

    def named(self, found: Profile, names: Sequence[Row]) -> Profile:
        """The same profile with the names that answer `naming`."""
        of: dict[str, list[str]] = {}
        for place, name in names:
            of.setdefault(str(place), []).append(str(name))
        return self._scan.named(found, {place: sorted(found_names) for place, found_names in of.items()})

    def _relation(self, asked: Sequence["Aggregate"]) -> str:
        """With the features that are asked of alone: the text of hundreds is as long as a query may be."""
        return relation(self._rows, self._spec, {column for one in asked for column in one.columns})


def _split(asked: Sequence[T], query: Callable[[Sequence[T]], str]) -> Iterator[str]:
    """As few queries of it, in its order, as halving makes short enough for Athena."""
    if not asked:
        return
    text = query(asked)
    if len(text.encode()) <= LONGEST:
        yield text
    elif len(asked) == 1:
        raise ValueError(
            f"a query of {len(text.encode()):,} bytes is longer than the {LONGEST:,} that Athena takes; a shorter "
            "monitor.every or a smaller serve.capture leaves less than needs Athena"
        )
    else:
        half = len(asked) // 2
        yield from _split(asked[:half], query)
        yield from _split(asked[half:], query)


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """An aggregate in Athena's SQL, the columns that it is of, and what its text means."""

    sql: str
    kind: str
    columns: frozenset[str]

    @classmethod
    @lru_cache(maxsize=4096)
    def of(cls, duckdb: str) -> "Aggregate":
        """The twin of one of `Scan.expressions`, which windows of one model ask again and again."""
        tree = sqlglot.parse_one(duckdb, dialect="duckdb")
        kind = tree.name if isinstance(tree, exp.Anonymous) else tree.key
        columns = frozenset(column.name for column in tree.find_all(exp.Column))
        return cls(sql=tree.transform(_twin).sql("athena"), kind=kind.lower(), columns=columns)

    def read(self, text: str | None) -> Any:
        """Its value as DuckDB gives it: exactly, as texts of doubles name one double each."""
        if text is None:
            return None
        if self.kind == "histogram_exact":
            return {int(place): int(count) for place, count in json.loads(text).items()}
        if self.kind == "bitstring_agg":
            return sketch.text({int(place) for place in json.loads(text)})
        return float(text) if self.kind in {"min", "max", "sum"} else int(text)


def translated(duckdb: str) -> exp.Expr:
    """A query or an expression of `noria.profile` for Trino: what sqlglot knows, and what it does not."""
    return sqlglot.parse_one(duckdb, dialect="duckdb").transform(_twin)


def _twin(node: exp.Expr) -> exp.Expr:
    match node:
        case exp.Cast(this=exp.Literal(is_string=False) as value, to=exp.DataType(this=exp.DataType.Type.DOUBLE)):
            return _double(value)
        case exp.Literal(is_string=False) if not node.is_int:
            return _double(node)
        case exp.Cast(to=exp.DataType(this=exp.DataType.Type.UBIGINT)):
            return exp.cast(node.this, "BIGINT")
        case exp.Anonymous() if said := _OTHERWISE.get(node.name.lower()):
            return _said(said, node.expressions[0].transform(_twin))
    return node


_OTHERWISE: Mapping[str, str] = {
    "bit_count": "bit_count(?, 64)",
    "histogram_exact": "json_format(CAST(histogram(?) AS JSON))",
    "bitstring_agg": "json_format(CAST(map_keys(histogram(?)) AS JSON))",
    # Without the sign: shifting right then means the same everywhere.
    "hash": f"bitwise_and(from_big_endian_64(substr(md5(to_utf8(CAST(? AS VARCHAR))), 1, 8)), {2**63 - 1})",
}
"""What Trino has for functions of DuckDB, of their first argument."""


def _said(pattern: str, value: exp.Expr) -> exp.Expr:
    return exp.replace_placeholders(sqlglot.parse_one(pattern, dialect="athena"), value)


def _double(value: exp.Expr) -> exp.Expr:
    return exp.cast(exp.Literal.string(value.name), "DOUBLE")


def relation(rows: Rows, spec: ModelSpec, columns: Collection[str]) -> str:
    """SQL of a relation with a row per captured prediction, and one with `malformed` true per record that is none.

    Columns: malformed, p and c, and of f0 … fn those in `columns`, as in `noria.profile`: finite DOUBLEs or VARCHARs.
    """
    wanted = [(place, *item) for place, item in enumerate(spec.features.items()) if f"f{place}" in columns]
    came = "".join(
        f"CASE WHEN fields IS NOT NULL THEN element_at(fields, {place + 1}) "
        f"ELSE nullif({_scalar(f'element_at(named, {literal(name)})')}, '') END AS r{place},\n"
        for place, name, _ in wanted
    )
    values = "".join(
        f"{f'r{place}' if feature.type is FeatureType.CATEGORY else _number(f'r{place}')} AS f{place},\n"
        for place, _, feature in wanted
    )
    first, last = (f"{moment.astimezone(UTC):{HOUR}}" for moment in (rows.since, rows.until + rows.late))
    return f"""(
WITH record AS (
    SELECT capturedata AS d, eventmetadata AS m
    FROM {identifier(rows.database)}.{identifier(rows.table)}
    WHERE variant = {literal(rows.variant)} AND hour BETWEEN {literal(first)} AND {literal(last)}
        AND NOT coalesce(starts_with(eventmetadata.inferenceid, {literal(PROBE)}), false)
), decoded AS (
    SELECT coalesce(m.inferenceid, m.eventid) AS inference_id,
        TRY(from_iso8601_timestamp_nanos(m.inferencetime)) AS time,
        lower(d.endpointinput.observedcontenttype) LIKE '%json%' AS json_in,
        lower(d.endpointoutput.observedcontenttype) LIKE '%json%' AS json_out,
        {_text("d.endpointinput", lines_of="instances")} AS input,
        {_text("d.endpointoutput", lines_of="predictions")} AS output,
        d.endpointoutput.data IS NOT NULL AS answered
    FROM record
), parsed AS (
    SELECT inference_id, time, answered,
        CASE WHEN json_in THEN {_listed("input", "instances")} END AS instances,
        CASE WHEN NOT json_in THEN {_csv("input")} END AS lines,
        CASE WHEN json_out THEN {_listed("output", "predictions")} END AS answers,
        CASE WHEN json_out THEN NULL ELSE {_csv("output")} END AS answer_lines
    FROM decoded
    WHERE time IS NULL OR (time >= {_timestamp(rows.since)} AND time < {_timestamp(rows.until)})
), counted AS (
    SELECT *, coalesce(cardinality(instances), cardinality(lines)) AS asked,
        coalesce(cardinality(answers), cardinality(answer_lines)) AS told
    FROM parsed
), judged AS (
    SELECT *, inference_id IS NULL OR time IS NULL OR asked IS NULL
        OR coalesce(cardinality(filter(lines, l -> cardinality(l) <> {len(spec.features)})), 0) > 0
        OR (answered AND told IS DISTINCT FROM asked) AS malformed
    FROM counted
), unnested AS (
    SELECT malformed, TRY(CAST(instance AS MAP(VARCHAR, JSON))) AS named, fields,
        TRY(CAST(answer AS MAP(VARCHAR, JSON))) AS answer, answer_fields
    FROM judged
    CROSS JOIN UNNEST(
        CASE WHEN malformed THEN CAST(ARRAY[NULL] AS ARRAY(JSON)) ELSE instances END,
        CASE WHEN NOT malformed THEN lines END,
        CASE WHEN NOT malformed THEN answers END,
        CASE WHEN NOT malformed THEN answer_lines END
    ) AS t(instance, fields, answer, answer_fields)
), came AS (
    SELECT malformed, answer,
    {came}CASE WHEN answer_fields IS NOT NULL THEN element_at(answer_fields, 1)
        ELSE {_scalar("element_at(answer, 'prediction')")} END AS prediction,
    CASE WHEN answer_fields IS NOT NULL THEN element_at(answer_fields, 2)
        ELSE {_scalar("element_at(answer, 'score')")} END AS score
    FROM unnested
), typed AS (
    SELECT malformed,
    {values}{_predicted(spec.task)}
    FROM came
)
SELECT *{_LIKELIER if spec.task is Task.BINARY else ""} FROM typed
)"""


_LIKELIER = ", CASE WHEN p >= CAST('0.5' AS DOUBLE) THEN p ELSE CAST('1' AS DOUBLE) - p END AS c"
"""Of a binary classification: the probability of what is predicted."""


def _predicted(task: Task) -> str:
    match task:
        case Task.BINARY:
            return f"{_number('score')} AS p"
        case Task.REGRESSION:
            return f"{_number('prediction')} AS p"
        case Task.MULTICLASS:
            scores = "map_values(TRY(CAST(element_at(answer, 'scores') AS MAP(VARCHAR, JSON))))"
            known = f"filter(transform({scores}, s -> {_number(_scalar('s'))}), s -> s IS NOT NULL)"
            return f"prediction AS p, array_max({known}) AS c"


def _text(payload: str, *, lines_of: str) -> str:
    """SQL: a payload as text, as `noria.capture` has it."""
    decoded = f"from_utf8(from_base64({payload}.data))"
    kind = f"lower({payload}.observedcontenttype)"
    text = (
        f"CASE WHEN {kind} LIKE '%parquet%' THEN NULL WHEN {payload}.encoding = 'BASE64' "
        f"THEN TRY(CASE WHEN to_utf8({decoded}) = from_base64({payload}.data) THEN {decoded} END) "
        f"ELSE {payload}.data END"
    )
    joined = rf"regexp_replace(regexp_replace({text}, '^[\r\n ]+|[\r\n ]+$', ''), '[\r\n]+', ',')"
    return f"CASE WHEN {kind} LIKE '%jsonlines%' THEN '{{\"{lines_of}\": [' || {joined} || ']}}' ELSE {text} END"


def _listed(text: str, name: str) -> str:
    r"""SQL: the list under a name of a JSON document; NULL where there is none.

    A second try takes what JSON's grammar has no word for as null: numbers that are none, as Python writes them.
    """
    mended = rf"regexp_replace({text}, '([:\[,]\s*)-?(?:NaN|Infinity)', '$1null')"
    document = f"coalesce(TRY(json_parse({text})), TRY(json_parse({mended})))"
    return f"TRY(CAST(element_at(TRY(CAST({document} AS MAP(VARCHAR, JSON))), {literal(name)}) AS ARRAY(JSON)))"


def _csv(text: str) -> str:
    """SQL: lines of fields of a CSV text (RFC 4180), as `noria.capture` has it."""
    body = rf"regexp_replace(replace({text}, chr(13) || chr(10), chr(10)), '\n+$', '')"
    lines = rf"""regexp_extract_all(chr(10) || {body}, '\n((?:"(?:[^"]|"")*"|[^"\n])*)', 1)"""
    fields = """regexp_extract_all(',' || line, ',("(?:[^"]|"")*"|[^,]*)', 1)"""
    bare = """replace(substr(field, 2, length(field) - 2), '""', '"')"""
    value = f"""CASE WHEN starts_with(field, '"') THEN {bare} ELSE nullif(field, '') END"""
    return f"transform({lines}, line -> transform({fields}, field -> {value}))"


def _scalar(json_value: str) -> str:
    """SQL: the text of a JSON value, of lists and objects too; NULL of null."""
    return f"coalesce(json_extract_scalar({json_value}, '$'), nullif(json_format({json_value}), 'null'))"


def _number(text: str) -> str:
    """SQL: the finite DOUBLE that a text names; else NULL."""
    value = f"TRY_CAST({text} AS DOUBLE)"
    return f"CASE WHEN regexp_like({text}, {literal(_NUMBER)}) AND is_finite({value}) THEN {value} END"


def _timestamp(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')} UTC'"
