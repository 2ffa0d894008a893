"""Athena's engine for the local cloud: Trino's SQL over Glue tables of JSON lines, run by DuckDB.

    statement ─ parsed as Trino ─ tables read through their partition projection ─ translated to DuckDB ─ rows

What is no Trino is refused, as far as sqlglot knows: DuckDB's casts with `::`, functions that neither has. Where the
same function means something else in DuckDB, it is given Trino's meaning here. Partitions are those that the table's
properties project, and only those are read that the query's conditions leave. (Athena guide, "Partition projection";
Trino's documentation, "Functions and operators"; OpenX JSON SerDe: names of columns are read in lower case.)
"""
# ruff: noqa: S608 -- SQL is built by sqlglot, and from identifiers and literals that noria.sql quotes

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import sqlglot
from duckdb.sqltypes import BLOB, BOOLEAN, VARCHAR
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

from noria.sql import identifier, listing, literal

_TYPES = {"BIGINT": "bigint", "HUGEINT": "bigint", "UBIGINT": "bigint", "INTEGER": "integer", "BOOLEAN": "boolean"}
_TYPES |= {"DOUBLE": "double", "FLOAT": "float"}

_ATHENA = sqlglot.Dialect.get_or_raise("athena")

_STEPS = {"HOURS": timedelta(hours=1), "DAYS": timedelta(days=1), "WEEKS": timedelta(weeks=1)}
_DATES = (("yyyy", "%Y"), ("MM", "%m"), ("dd", "%d"), ("HH", "%H"), ("mm", "%M"))


class AthenaError(Exception):
    """A query that Athena refuses; the text begins with the error's name."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the Glue catalog: names and types of its columns and partition keys, its properties, its SerDe."""

    location: str
    columns: Mapping[str, str]
    partitions: Sequence[str]
    properties: Mapping[str, str]
    serde: Mapping[str, str]

    @classmethod
    def of(cls, glue: Mapping[str, Any]) -> "Table":
        """From a Table of the Glue API."""
        storage = glue["StorageDescriptor"]
        serde = storage.get("SerdeInfo") or {}
        if "JsonSerDe" not in serde.get("SerializationLibrary", ""):
            raise AthenaError(f"NOT_SUPPORTED: the local Athena reads tables of JSON lines, and {glue['Name']} is none")
        return cls(
            location=storage["Location"],
            columns={column["Name"].lower(): column["Type"] for column in storage["Columns"]},
            partitions=[column["Name"].lower() for column in glue.get("PartitionKeys") or []],
            properties=glue.get("Parameters") or {},
            serde=serde.get("Parameters") or {},
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    scanned: int
    """Bytes of the objects that were read."""


Catalog = Callable[[str, str], Table | None]
"""A table by the names of its database and its own."""
Objects = Callable[[str], Iterable[tuple[str, Callable[[], bytes]]]]
"""Objects whose URI begins so: URI, and what brings the content."""


def parsed(statement: str) -> exp.Query:
    """A query in Trino's SQL; raises `AthenaError` for what is none."""
    try:
        tokens = _ATHENA.tokenize(statement)
        if any(token.token_type is TokenType.DCOLON for token in tokens):
            raise AthenaError("SYNTAX_ERROR: mismatched input '::'")
        tree = next(iter(_ATHENA.parser().parse(tokens, statement)), None)
    except SqlglotError as error:
        raise AthenaError(f"SYNTAX_ERROR: {error}") from error
    if not isinstance(tree, exp.Query):
        raise AthenaError("NOT_SUPPORTED: the local Athena answers queries only")
    for call in tree.find_all(exp.Anonymous):
        if call.name.lower() not in {*_MEANT, *_SAME}:
            raise AthenaError(f"FUNCTION_NOT_FOUND: Function '{call.name.lower()}' not registered")
    return tree


def run(statement: str, *, database: str, catalog: Catalog, objects: Objects, now: datetime) -> Answer:
    """Answer a query; raises `AthenaError`."""
    tree = parsed(statement)
    with tempfile.TemporaryDirectory(prefix="athena-") as folder, duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.create_function("from_utf8", lambda b: b.decode(errors="replace"), [BLOB], VARCHAR)
        db.create_function("is_json", _is_json, [VARCHAR], BOOLEAN)
        scanned = 0
        for number, named in enumerate(_tables(tree)):
            table = catalog(named.db or database, named.name)
            if table is None:
                raise AthenaError(f"TABLE_NOT_FOUND: Table '{named.db or database}.{named.name}' does not exist")
            file = Path(folder) / f"{number}.jsonl"
            scanned += _read(db, table, _conditions(named, table), objects, file, now=now)
            given = _view(table, file)
            named.replace(exp.to_table(f"table{number}").as_(named.alias_or_name))
            db.execute(f"CREATE TEMP VIEW table{number} AS {given}")
        try:
            answer = db.execute(in_duckdb(tree))
            described = answer.description or []
            return Answer(
                columns=[name for name, *_ in described],
                types=[_TYPES.get(str(kind), "varchar") for _, kind, *_ in described],
                rows=[list(row) for row in answer.fetchall()],
                scanned=scanned,
            )
        except duckdb.Error as error:
            raise AthenaError(f"GENERIC_USER_ERROR: {error}") from error


class Engine:
    """`local.ministack.QueryEngine`."""

    def problem(self, statement: str) -> str | None:
        try:
            parsed(statement)
        except AthenaError as error:
            return str(error)
        return None

    def run(
        self, statement: str, database: str, tables: Callable[[str, str], dict[str, Any] | None], objects: Objects
    ) -> tuple[list[str], list[str], list[list[Any]]]:
        def catalog(of: str, name: str) -> Table | None:
            found = tables(of, name)
            return Table.of(found) if found else None

        answer = run(statement, database=database, catalog=catalog, objects=objects, now=datetime.now(UTC))
        return answer.columns, answer.types, answer.rows


def in_duckdb(tree: exp.Expr) -> str:
    """Trino's query in DuckDB's SQL, with Trino's meaning."""
    return tree.transform(_meant).sql("duckdb")


def _meant(node: exp.Expr) -> exp.Expr:
    said, values = "", list[exp.Expr]()
    match node:
        case exp.Join(this=exp.Unnest() as unnest) if len(unnest.expressions) > 1:
            return _unnested(unnest)
        case exp.RegexpReplace():
            replacement = node.args["replacement"]
            replacement.replace(exp.Literal.string(re.sub(r"\$(\d)", r"\\\1", replacement.name)))
        case exp.ArrayPosition():
            said = "CASE WHEN ? IS NOT NULL THEN coalesce(list_position(?, ?), 0) END"
            values = [node.expression, node.this, node.expression]
        case exp.ParseJSON():
            # DuckDB reads more than JSON, and has no error() inside TRY: what is none becomes what cannot be cast.
            said, values = "CAST(CASE WHEN is_json(?) THEN ? ELSE '{{' || ? END AS JSON)", [node.this] * 3
        case exp.Decode():
            said, values = "from_utf8(?)", [node.this]
        case exp.Substring(this=exp.MD5Digest()):
            start, length = int(node.args["start"].name), int(node.args["length"].name)
            said, values = f"array_slice(?, {start}, {start + length - 1})", [node.this]
        case exp.Anonymous():
            said, values = _MEANT.get(node.name.lower(), ""), node.expressions
    return _said(said, values) if said else node


def _said(pattern: str, values: Iterable[exp.Expr]) -> exp.Expr:
    """DuckDB's SQL, with expressions of Trino's for its question marks."""
    return exp.replace_placeholders(_parsed(pattern), *(value.transform(_meant) for value in values))


@cache
def _parsed(pattern: str) -> exp.Expr:
    return sqlglot.parse_one(pattern, dialect="duckdb")


_SAME = ("histogram", "map_values")
"""Trino's functions that DuckDB has too, and sqlglot no class for."""

_MEANT: Mapping[str, str] = {
    "bit_count": "bit_count(?)",
    "bitwise_right_shift": "((?) >> (?))",
    "from_big_endian_64": "CAST('0x' || hex(?) AS UBIGINT)",
    "is_finite": "isfinite(?)",
}
"""What DuckDB has for Trino's functions."""


def _unnested(unnest: exp.Unnest) -> exp.Join:
    """DuckDB joins one list at a time, but unnests several in a SELECT, as long as the longest."""
    names = [column.name for column in unnest.args["alias"].columns]
    lists = ", ".join(f"unnest(?) AS {name}" for name in names)
    tree = _said(f"SELECT 1 FROM x CROSS JOIN LATERAL (SELECT {lists}) AS u", unnest.expressions)
    join: exp.Join = tree.args["joins"][0].pop()
    return join


def _is_json(text: str) -> bool:
    """Whether a text is JSON by its grammar, which has no NaN and no infinities."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(word: str) -> None:
    raise ValueError(word)


# --- tables


def _tables(tree: exp.Query) -> list[exp.Table]:
    known = {cte.alias for cte in tree.find_all(exp.CTE)}
    return [table for table in tree.find_all(exp.Table) if table.db or table.name not in known]


def _conditions(named: exp.Table, table: Table) -> list[exp.Expr]:
    """Conditions of the query on partitions alone; raises `AthenaError` where an injected one is not given."""
    select = named.find_ancestor(exp.Select)
    where = select.args.get("where") if select else None
    found = [
        condition
        for condition in (where.this.flatten() if where and isinstance(where.this, exp.And) else [where and where.this])
        if condition and {column.name for column in condition.find_all(exp.Column)} <= {*table.partitions}
    ]
    for key in table.partitions:
        given = any(isinstance(condition, exp.EQ) and condition.this.name == key for condition in found)
        if table.properties.get(f"projection.{key}.type") == "injected" and not given:
            raise AthenaError(
                f"CONSTRAINT_VIOLATION: For the injected projected partition column {key}, the WHERE clause must "
                "contain only static equality conditions, and at least one such condition must be present."
            )
    return found


def _read(
    db: duckdb.DuckDBPyConnection,
    table: Table,
    conditions: Sequence[exp.Expr],
    objects: Objects,
    to: Path,
    *,
    now: datetime,
) -> int:
    """Write the rows of the partitions that the conditions leave, and return the bytes that they were read from."""
    scanned = 0
    left: dict[tuple[str, ...], bool] = {}
    with to.open("w", encoding="utf-8") as file:
        for uri, content in objects(_start(table)):
            values = _partition(uri, table, now)
            if values is None:
                continue
            if (place := tuple(values.values())) not in left:
                left[place] = _meets(db, values, conditions)
            if left[place]:
                body = content()
                scanned += len(body)
                for row in _rows(body, table):
                    file.write(json.dumps(row | values) + "\n")
    return scanned


def _start(table: Table) -> str:
    return _template(table).partition("${")[0]


def _template(table: Table) -> str:
    if table.properties.get("projection.enabled") != "true" or not table.partitions:
        return table.location
    return table.properties.get("storage.location.template", table.location)


def _partition(uri: str, table: Table, now: datetime) -> dict[str, str] | None:
    """The partition's values of an object; None where no partition that the table projects holds it."""
    pattern = re.escape(_template(table).rstrip("/"))
    for key in table.partitions:
        date = table.properties.get(f"projection.{key}.format", "")
        value = "/".join("[^/]+" for _ in date.split("/"))
        pattern = pattern.replace(re.escape(f"${{{key}}}"), f"(?P<{key}>{value})")
    found = re.fullmatch(f"{pattern}/[^/]+", uri)
    if found is None:
        return None
    values = found.groupdict()
    return values if all(_projected(table, key, value, now) for key, value in values.items()) else None


def _projected(table: Table, key: str, value: str, now: datetime) -> bool:
    of = {name: table.properties.get(f"projection.{key}.{name}", "") for name in ("type", "values", "format", "range")}
    match of["type"]:
        case "injected":
            return True
        case "enum":
            return value in of["values"].split(",")
        case "date":
            pattern = of["format"]
            for theirs, ours in _DATES:
                pattern = pattern.replace(theirs, ours)
            try:
                moment = datetime.strptime(value, pattern).replace(tzinfo=UTC)
            except ValueError:
                return False
            first, last = (_moment(bound, pattern, now) for bound in of["range"].split(","))
            return first <= moment <= last
    raise AthenaError(f"INVALID_TABLE_PROPERTY: projection.{key}.type {of['type']!r} is not known to the local Athena")


def _moment(bound: str, pattern: str, now: datetime) -> datetime:
    relative = re.fullmatch(r"\s*NOW\s*(?:([+-])\s*(\d+)\s*(HOURS|DAYS|WEEKS))?\s*", bound)
    if relative is None:
        return datetime.strptime(bound.strip(), pattern).replace(tzinfo=UTC)
    sign, count, unit = relative.groups()
    return now + (_STEPS[unit] * int(count) * (1 if sign == "+" else -1) if sign else timedelta())


def _meets(db: duckdb.DuckDBPyConnection, values: Mapping[str, str], conditions: Sequence[exp.Expr]) -> bool:
    given = ", ".join(f"{literal(value)} AS {identifier(key)}" for key, value in values.items())
    asked = " AND ".join(f"({in_duckdb(condition)})" for condition in conditions) or "true"
    if not given:
        return True
    found = db.execute(f"SELECT {asked} FROM (SELECT {given})").fetchone()
    return bool(found and found[0])


def _rows(body: bytes, table: Table) -> Iterator[dict[str, Any]]:
    for line in body.decode(errors="replace").split("\n"):
        if not line:
            continue
        try:
            row = _lower(json.loads(line))
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            if table.serde.get("ignore.malformed.json", "").lower() != "true":
                raise AthenaError(f"HIVE_CURSOR_ERROR: Row is not a valid JSON Object: {line[:100]!r}")
            row = {}
        yield {name: row.get(name) for name in table.columns}


def _lower(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.lower(): _lower(of) for name, of in value.items()}
    return value


def _view(table: Table, file: Path) -> str:
    types = {name: exp.DataType.build(kind, dialect="hive").sql("duckdb") for name, kind in table.columns.items()}
    types |= dict.fromkeys(table.partitions, "VARCHAR")
    columns = ", ".join(f"{identifier(name)}: {literal(kind)}" for name, kind in types.items())
    longest = max(2**20, *map(len, file.open("rb"))) if file.stat().st_size else 2**20
    return (
        f"SELECT * FROM read_json({listing([literal(str(file))])}, format = 'newline_delimited', "
        f"columns = {{{columns}}}, ignore_errors = true, maximum_object_size = {longest})"
    )
