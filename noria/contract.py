"""The data contract: what a file must be to become a dataset, and everything about it that is not."""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import codecs
import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import duckdb
from pydantic import BaseModel, ConfigDict

from noria.spec import Feature, FeatureType, ModelSpec, Task
from noria.sql import (
    LONGEST_LINE,
    MODEST,
    HeaderError,
    Resources,
    connect,
    csv_with_rejects,
    identifier,
    label,
    literal,
    number,
    parquet,
)
from noria.violations import FIRST, LONGEST_SAMPLE, Violation


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Report(Part):
    """What the contract says of a file: accepted unless a violation of severity reject was found."""

    model: str
    filename: str
    format: Literal["csv", "parquet"] | None
    sha256: str
    bytes: int
    rows: int
    columns: tuple[str, ...]
    first_event: datetime | None
    last_event: datetime | None
    accepted: bool
    violations: tuple[Violation, ...]

    def to_text(self) -> str:
        """Lines for a person: the verdict, then a line for each violation."""
        verdict = "accepted" if self.accepted else "refused"
        head = f"{self.filename}: {verdict} for {self.model}: {self.rows:,} rows, {self.bytes:,} bytes"
        return "\n".join([head, *(f"- {_told(violation)}" for violation in self.violations)])


class Manifest(Part):
    """An accepted dataset: its bytes are at `key`; `source_key` and `version_id` name the upload they came from."""

    model: str
    sha256: str
    filename: str
    format: Literal["csv", "parquet"]
    bytes: int
    rows: int
    columns: tuple[str, ...]
    first_event: datetime
    last_event: datetime
    key: str
    source_key: str
    version_id: str | None = None
    accepted_at: datetime


def check(
    path: Path,
    spec: ModelSpec,
    *,
    filename: str,
    now: datetime,
    sha256: str | None = None,
    resources: Resources = MODEST,
) -> Report:
    """Check one CSV or Parquet file. Whatever the file holds, the answer is a report."""
    size = path.stat().st_size
    digest = sha256 or _hash(path)
    kind = format_of(filename)
    found = _Found(rows=0, columns=(), first=None, last=None, violations=unreadable(path, filename))
    if not found.violations and kind is not None:
        found = _scan(path, spec, kind, now, resources)
    return Report(
        model=spec.model,
        filename=filename,
        format=kind,
        sha256=digest,
        bytes=size,
        rows=found.rows,
        columns=found.columns,
        first_event=found.first,
        last_event=found.last,
        accepted=not any(violation.severity == "reject" for violation in found.violations),
        violations=tuple(found.violations),
    )


Format = Literal["csv", "parquet"]
_FORMATS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet"}
_MAGIC = {b"PAR1": "Parquet", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_CHUNK = 2**20


@dataclass(frozen=True, kw_only=True)
class _Found:
    rows: int
    columns: tuple[str, ...]
    first: datetime | None
    last: datetime | None
    violations: list[Violation]


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """Rows for which `broken` holds are violations."""

    column: str
    rule: str
    broken: str
    remedy: str


def _told(violation: Violation) -> str:
    where = f" (rows {', '.join(map(str, violation.rows))})" if violation.rows else ""
    where = where or (f" (lines {', '.join(map(str, violation.lines))})" if violation.lines else "")
    return f"{violation.severity}: {violation.message}{where}"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_of(filename: str) -> Format | None:
    return _FORMATS.get(Path(filename).suffix.lower())


def unreadable(path: Path, filename: str) -> list[Violation]:
    """What keeps a file from being read at all, found without parsing it."""
    kind = format_of(filename)
    found: tuple[str, str] | None
    if kind is None:
        found = "format", f"{filename!r} is neither .csv nor .parquet: export it as one of them"
    elif path.stat().st_size == 0:
        found = "empty", "the file is empty: upload it again"
    elif kind == "parquet":
        found = _not_parquet(path)
    else:
        found = _not_text(path)
    return [Violation(rule=found[0], message=found[1])] if found else []


def _not_parquet(path: Path) -> tuple[str, str] | None:
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return "format", "the name says Parquet, the content does not: export it again"
    return None


def _not_text(path: Path) -> tuple[str, str] | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        start = file.read(8)
        looks = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
        if looks:
            return "format", f"the name says CSV, the content is {looks}: upload plain CSV"
        file.seek(0)
        read = lines = length = start_of_chunk = 0
        try:
            while chunk := file.read(_CHUNK):
                # The decoder keeps the beginning of a character that the chunk before cut in two.
                start_of_chunk = read - len(decoder.getstate()[0])
                read += len(chunk)
                if b"\0" in chunk:
                    return "format", "the file holds NUL bytes: it is not a CSV text"
                decoder.decode(chunk)
                last = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
                length = length + len(chunk) if last < 0 else len(chunk) - last - 1
                lines += chunk.count(b"\n")
                if length > LONGEST_LINE - _CHUNK:
                    return "format", f"line {lines + 1:,} is longer than {length:,} bytes: it is not a row; mend it"
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            return "encoding", f"byte {start_of_chunk + error.start:,} is not UTF-8: export the file as UTF-8"
    return None


def _scan(path: Path, spec: ModelSpec, kind: Format, now: datetime, resources: Resources) -> _Found:
    try:
        with connect(resources) as connection:
            return _examine(connection, path, spec, kind, now)
    except HeaderError as error:
        wrong = Violation(rule="header", message=str(error))
    except duckdb.Error as error:
        # Whatever a file does to the reader is a finding about the file.
        wrong = Violation(rule="readable", message=cannot_read(kind, error))
    return _Found(rows=0, columns=(), first=None, last=None, violations=[wrong])


def cannot_read(kind: Format | None, error: duckdb.Error) -> str:
    if "invalid state" in str(error):
        return "its lines end in different ways, or its quotes are broken: export the file again"
    return f"the file cannot be read as {kind}: {str(error).splitlines()[0]}: export it again"


def _examine(connection: duckdb.DuckDBPyConnection, path: Path, spec: ModelSpec, kind: Format, now: datetime) -> _Found:
    reader = csv_with_rejects(path) if kind == "csv" else parquet([path])
    columns = tuple(str(row[0]) for row in connection.execute(f"DESCRIBE FROM {reader}").fetchall())
    violations = list(_columns(spec, columns))
    present = set(columns)
    rules = [rule for rule in _rules(spec, now) if rule.column in present]
    moment = _moment(spec.time) if spec.time in present else "NULL::TIMESTAMP"
    shares = [name for name in spec.features if name in present]
    outcome = _outcome(spec) if spec.target in present else "NULL"
    ident = identifier(spec.id) if spec.id and spec.id in present else "NULL"
    asked = [
        "count(*)",
        f"min({moment})",
        f"max({moment})",
        f"count(DISTINCT {outcome})",
        f"count({ident}) - count(DISTINCT {ident})",
        *(f"count(*) FILTER ({_empty(name)})" for name in shares),
        *(_broken(rule) for rule in rules),
    ]
    # The reader's table of refused lines is there once the whole answer is fetched.
    (answer,) = connection.execute(
        f"SELECT {', '.join(asked)} FROM (SELECT *, row_number() OVER () AS {_ROW} FROM {reader})"
    ).fetchall()
    rows, first, last, outcomes, repeated, *rest = answer
    violations += refused_lines(connection) if kind == "csv" else []
    violations += [
        _violation(rule, value) for rule, value in zip(rules, rest[len(shares) :], strict=True) if value["n"]
    ]
    violations += _missing(spec, rows, dict(zip(shares, rest[: len(shares)], strict=True)))
    violations += _whole(spec, rows, outcomes if spec.target in present else None, repeated)
    return _Found(rows=rows, columns=columns, first=_utc(first), last=_utc(last), violations=violations)


_ROW = '"\x01row"'


def _columns(spec: ModelSpec, columns: Sequence[str]) -> Iterator[Violation]:
    missing = [name for name in spec.columns if name not in columns]
    unexpected = [name for name in columns if name not in spec.columns]
    if len(columns) == 1 and (separator := next((s for s in ";\t|" if s in columns[0]), None)):
        message = f"fields are separated by {separator!r} and not by commas: export the file with commas"
        yield Violation(rule="separator", message=message)
        return
    folded = {name.lower(): name for name in unexpected}
    for name in missing:
        close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
        remedy = f"rename {folded[close[0]]!r} to it" if close else "add it"
        yield Violation(column=name, rule="column", message=f"column {name!r} is missing: {remedy}")
    if unexpected:
        named = ", ".join(map(repr, unexpected[:FIRST])) + (" …" if len(unexpected) > FIRST else "")
        yield Violation(
            column=unexpected[0] if len(unexpected) == 1 else None,
            rule="unexpected",
            severity="warn",
            count=len(unexpected),
            samples=tuple(name[:LONGEST_SAMPLE] for name in unexpected[:FIRST]),
            message=f"not in the spec and ignored: {named}; remove them, or add them to features",
        )


def _rules(spec: ModelSpec, now: datetime) -> Iterator[_Rule]:
    for name, feature in spec.features.items():
        yield from _feature_rules(name, feature)
    moment = _moment(spec.time)
    latest = now.astimezone(UTC).replace(tzinfo=None) + _CLOCKS
    yield _Rule(
        column=spec.time,
        rule="time",
        broken=f"{moment} IS NULL",
        remedy="write ISO 8601 times, as in 2013-01-31T17:00:00",
    )
    yield _Rule(
        column=spec.time,
        rule="future",
        broken=f"{moment} > TIMESTAMP '{latest:%Y-%m-%d %H:%M:%S}'",
        remedy="an event cannot be in the future; correct the clock or the time zone (times are UTC)",
    )
    number_wanted = " (a number)" if spec.task is Task.REGRESSION else ""
    yield _Rule(
        column=spec.target,
        rule="target",
        broken=f"{_outcome(spec)} IS NULL",
        remedy=f"every row needs its outcome{number_wanted}; leave out rows whose outcome is not known yet",
    )


def _moment(name: str) -> str:
    """SQL: a UTC time, as training reads it; NULL for what is none that a calendar has."""
    time = f"try_cast(CAST({identifier(name)} AS VARCHAR) AS TIMESTAMPTZ)::TIMESTAMP"
    return f"CASE WHEN {time} BETWEEN '0001-01-01' AND '9999-12-31' THEN {time} END"


def _outcome(spec: ModelSpec) -> str:
    """SQL: a finite number or a class label, as training reads it; NULL for what is neither."""
    text = f"CAST({identifier(spec.target)} AS VARCHAR)"
    if spec.task is not Task.REGRESSION:
        return label(text)
    return f"CASE WHEN isfinite(try_cast({text} AS DOUBLE)) THEN try_cast({text} AS DOUBLE) END"


def _feature_rules(name: str, feature: Feature) -> Iterator[_Rule]:
    column, present = identifier(name), f"NOT ({_empty(name)})"
    if feature.type is FeatureType.CATEGORY:
        if feature.values is not None:
            allowed = ", ".join(literal(value) for value in feature.values)
            broken = f"{present} AND CAST({column} AS VARCHAR) NOT IN ({allowed})"
            remedy = f"allowed are {', '.join(feature.values)}; correct the rows, or add the value to the spec"
            yield _Rule(column=name, rule="category", broken=broken, remedy=remedy)
        return
    value = f"try_cast({column} AS DOUBLE)"
    what = "a whole number" if feature.type is FeatureType.INTEGER else "a number"
    wrong = f"{value} IS NULL OR NOT isfinite({value})"
    if feature.type is FeatureType.INTEGER:
        wrong += f" OR {value} <> floor({value}) OR abs({value}) > {number(_LARGEST)}"
    yield _Rule(column=name, rule="type", broken=f"{present} AND ({wrong})", remedy=f"it must be {what}, or empty")
    for bound, operator, words in ((feature.min, "<", "at least"), (feature.max, ">", "at most")):
        if bound is not None:
            yield _Rule(
                column=name,
                rule="range",
                broken=f"isfinite({value}) AND {value} {operator} {number(bound)}",
                remedy=f"it must be {words} {bound:g}; correct the rows, or the spec",
            )


def _empty(name: str) -> str:
    column = identifier(name)
    return f"{column} IS NULL OR CAST({column} AS VARCHAR) = ''"


def _broken(rule: _Rule) -> str:
    sample = f"left(CAST({identifier(rule.column)} AS VARCHAR), {LONGEST_SAMPLE})"
    return (
        f"struct_pack(n := count(*) FILTER ({rule.broken}), rows := min({_ROW}, {FIRST}) FILTER ({rule.broken}), "
        f"samples := min({sample}, {FIRST}) FILTER ({rule.broken}))"
    )


def _violation(rule: _Rule, value: Mapping[str, Any]) -> Violation:
    samples = tuple(dict.fromkeys(value["samples"] or ()))
    shown = f", as in {', '.join(repr(sample) for sample in samples[:3])}" if samples else ""
    rows = "1 row breaks" if value["n"] == 1 else f"{value['n']:,} rows break"
    return Violation(
        column=rule.column,
        rule=rule.rule,
        count=value["n"],
        rows=tuple(value["rows"] or ()),
        samples=samples,
        message=f"column {rule.column!r}: {rows} rule {rule.rule!r}{shown}: {rule.remedy}",
    )


def refused_lines(connection: duckdb.DuckDBPyConnection) -> list[Violation]:
    """Lines that `noria.sql.csv` set aside: too few or too many fields, quotes that never close."""
    found = connection.execute(
        f"SELECT count(*), min(line, {FIRST}), min(text, {FIRST}) FROM "
        f"(SELECT line, any_value(left(csv_line, {LONGEST_SAMPLE})) AS text FROM reject_errors GROUP BY line)"
    ).fetchone()
    if not found or not found[0]:
        return []
    message = f"{found[0]:,} line{'' if found[0] == 1 else 's'} with the wrong number of fields or a broken quote: "
    message += "the file may be truncated; export it again"
    samples = tuple(dict.fromkeys(found[2] or ()))
    return [Violation(rule="fields", count=found[0], lines=tuple(found[1]), samples=samples, message=message)]


def _missing(spec: ModelSpec, rows: int, counts: Mapping[str, int]) -> Iterator[Violation]:
    for name, count in counts.items():
        allowed = spec.features[name].missing
        if rows and count / rows > allowed:
            yield Violation(
                column=name,
                rule="missing",
                count=count,
                message=f"column {name!r}: {count / rows:.1%} of rows lack a value, {allowed:.1%} may: "
                "fill them, or raise `missing` in the spec",
            )


def _whole(spec: ModelSpec, rows: int, outcomes: int | None, repeated: int) -> Iterator[Violation]:
    if rows < spec.min_rows:
        yield Violation(rule="min_rows", message=f"{rows:,} rows, at least {spec.min_rows:,} are needed: upload more")
    if rows > spec.max_rows:
        yield Violation(
            rule="max_rows", message=f"{rows:,} rows, at most {spec.max_rows:,} are allowed: split the file"
        )
    if spec.task is Task.BINARY and outcomes and outcomes > 2:
        message = f"column {spec.target!r}: {outcomes:,} different outcomes, and a binary classification has two: "
        message += "correct the rows, or give the model task multiclass_classification"
        yield Violation(column=spec.target, rule="classes", message=message)
    if rows > 1 and outcomes == 1:
        message = f"column {spec.target!r}: all rows have the same outcome, from which nothing can be learnt"
        yield Violation(column=spec.target, rule="constant", message=message)
    if repeated:
        message = f"column {spec.id!r}: {repeated:,} rows repeat an id that another row has: remove the repetitions"
        yield Violation(column=spec.id, rule="unique", count=repeated, message=message)


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment else None


_LARGEST = 2.0**53
"""Whole numbers beyond this are not exact in a double, which is what models calculate with."""
_CLOCKS = timedelta(days=1)
"""Times without a zone may be a day ahead of UTC somewhere."""
