"""The data contract: what a file must be to become a dataset, and everything about it that is not.

file ─ unreadable() ─ one scan: what the rules suspect, counts, the profile ┬ what is suspected, row by row
                                                                           └ shift from a baseline
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import codecs
import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import duckdb
from pydantic import BaseModel, ConfigDict, Field

from noria import capture, drift, rules, tally
from noria.profile import TOGETHER, ColumnProfile, Kind, Profile, Scan, Source, tallied, typed
from noria.rules import Rule
from noria.spec import Feature, FeatureType, ModelSpec, Task
from noria.sql import (
    LONGEST_LINE,
    MODEST,
    HeaderError,
    Resources,
    csv,
    csv_with_rejects,
    csv_without_rejects,
    cursor,
    header,
    identifier,
    one_row,
    parquet,
    paths,
)
from noria.violations import FIRST, LONGEST_SAMPLE, MASK, Violation, shortened

MOST = 100
"""Violations of one report: a person mends the first of them and asks again."""
SAMPLED = 100_000
"""Rows among which repetitions are looked for. Of a larger file it is a sample, chosen by hash so that equal rows are
in it together: if n different rows come twice, nobody notices with a probability of (1 - SAMPLED / rows)^n. Once one is
seen, all are counted."""
MOST_COLUMNS = 20_000
WIDE = 200
"""Features that a scan of CSV is asked about; it holds 2,048 values of each. Among more, repeated rows go unseen."""
_NAMED = 1000


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Report(Part):
    """What the contract says of a file: accepted unless a violation of severity reject was found.

    `shift` compares it with a baseline, and `no_shift` says why there is no comparison. `profile` is what was compared;
    it is not written with the report, because it holds values of columns that may be sensitive.
    """

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
    shift: drift.Report | None = None
    no_shift: str | None = None
    profile: Profile | None = Field(None, exclude=True, repr=False)

    @classmethod
    def refusing(cls, model: str, filename: str, violation: Violation, *, sha256: str, size: int) -> "Report":
        """The report of a file that was not even looked into."""
        return cls(
            model=model,
            filename=filename,
            format=format_of(filename),
            sha256=sha256,
            bytes=size,
            rows=0,
            columns=(),
            first_event=None,
            last_event=None,
            accepted=False,
            violations=(violation,),
        )

    def to_text(self) -> str:
        """Lines for a person: the verdict, then a line for each violation, and how far the file has shifted."""
        verdict = "accepted" if self.accepted else "refused"
        head = f"{shortened(self.filename)}: {verdict} for {self.model}: {self.rows:,} rows, {self.bytes:,} bytes"
        shift = [self.shift.summary] if self.shift else [f"No shift: {self.no_shift}"] if self.no_shift else []
        return "\n".join([head, *(f"- {_told(violation)}" for violation in self.violations), *shift])


class Manifest(Part):
    """An accepted dataset: its bytes are at `key`; `source_key` and `version_id` name the upload they came from.

    `uploaded_by` is the AWS account that sent it, and `request` the number under which CloudTrail knows who of it did;
    both None where S3's event was lost.
    """

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
    uploaded_by: str | None = None
    uploaded_at: datetime | None = None
    request: str | None = None
    accepted_at: datetime


class Live(Part):
    """The contract on captured requests: types, ranges, categories and missing values of `rows` requested rows.

    `invalid` rows break at least one rule of severity reject, and are counted once. `malformed` records could not be
    read and are in no other number. Violations have no row numbers.
    """

    model: str
    rows: int
    malformed: int
    invalid: int
    violations: tuple[Violation, ...]

    @property
    def share(self) -> float | None:
        """Invalid rows as a share of all; None when there are none."""
        return self.invalid / self.rows if self.rows else None


def check(
    path: Path,
    spec: ModelSpec,
    *,
    filename: str,
    now: datetime,
    sha256: str | None = None,
    baseline: Profile | None = None,
    resources: Resources = MODEST,
) -> Report:
    """Check one CSV or Parquet file, in one scan where it is good. Whatever the file holds, the answer is a report."""
    size = path.stat().st_size
    digest = sha256 or _hash(path)
    kind = format_of(filename)
    found = _Found(violations=unreadable(path, filename))
    if not found.violations and kind is not None:
        found = _scan(_File(path=path, kind=kind, spec=spec, now=now, baseline=baseline), resources)
    violations = _bounded(found.violations)
    return Report(
        model=spec.model,
        filename=filename,
        format=kind,
        sha256=digest,
        bytes=size,
        rows=found.rows,
        columns=tuple(map(shortened, found.columns[:_NAMED])),
        first_event=found.first,
        last_event=found.last,
        accepted=not any(violation.severity == "reject" for violation in violations),
        violations=tuple(violations),
        shift=found.shift,
        no_shift=found.no_shift,
        profile=found.profile,
    )


def check_captured(source: Source, spec: ModelSpec, *, resources: Resources = MODEST) -> Live:
    """Check the rows of captured requests, in one scan; in another, where more values are missing than may be.

    To lack a value is against the contract where none may be missing, or where more rows than may lack it.
    """
    asked = [rule for rule in rules.of_features(spec, spec.features) if rule.rule != "formula"]
    required = {name for name, feature in spec.features.items() if not feature.missing}
    with cursor(resources) as db:
        live = _live(db, source, spec, asked, required)
        over = {v.column for v in live.violations if v.rule == "missing" and v.column is not None}
        return _live(db, source, spec, asked, required | over) if over - required else live


Format = Literal["csv", "parquet"]
_FORMATS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet"}
_MAGIC = {
    b"PAR1": "Parquet",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip (Excel's .xlsx is one)",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7-Zip",
    b"\xd0\xcf\x11\xe0": "an old Excel or Office file",
    b"%PDF": "PDF",
    b"ARROW1": "Arrow",
    b"ORC": "ORC",
    b"Obj\x01": "Avro",
    b"SQLite": "SQLite",
    b"<!": "HTML or XML",
    b"<html": "HTML",
    b"<?xml": "XML",
    b'{"': "JSON",
    b"[{": "JSON",
}
_WIDE = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_CHUNK = 2**20


@dataclass(frozen=True, kw_only=True)
class _Found:
    violations: Sequence[Violation]
    rows: int = 0
    columns: tuple[str, ...] = ()
    first: datetime | None = None
    last: datetime | None = None
    profile: Profile | None = None
    shift: drift.Report | None = None
    no_shift: str | None = None


def _told(violation: Violation) -> str:
    where = f" (rows {', '.join(map(str, violation.rows))})" if violation.rows else ""
    where = where or (f" (lines {', '.join(map(str, violation.lines))})" if violation.lines else "")
    return f"{violation.severity}: {violation.message}{where}"


def _bounded(violations: Sequence[Violation]) -> list[Violation]:
    """What refuses a file first, and at most `MOST`, the last of which says how many more there are."""
    ordered = sorted(violations, key=lambda violation: violation.severity != "reject")
    if len(ordered) <= MOST:
        return ordered
    rest = len(ordered) - MOST + 1
    more = Violation(
        rule="more",
        severity=ordered[MOST - 1].severity,
        count=rest,
        message=f"{rest:,} more rules are broken, which are not listed: mend these first and check again",
    )
    return [*ordered[: MOST - 1], more]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- files that cannot be read


def format_of(filename: str) -> Format | None:
    return _FORMATS.get(Path(filename).suffix.lower())


def unreadable(path: Path, filename: str) -> list[Violation]:
    """What keeps a file from being read at all, found without parsing it."""
    kind = format_of(filename)
    found: tuple[str, str] | None
    if kind is None:
        found = "format", f"{shortened(filename)!r} is neither .csv nor .parquet: export it as one of them"
    elif path.stat().st_size == 0:
        found = "empty", "the file is empty: upload it again"
    elif kind == "parquet":
        found = _not_parquet(path)
    else:
        found = _not_text(path)
    return [Violation(rule=found[0], message=found[1])] if found else []


def _not_parquet(path: Path) -> tuple[str, str] | None:
    with path.open("rb") as file:
        start = file.read(4)
        if start == b"PARE":
            return "format", "the Parquet file is encrypted: export it without its own encryption"
        if start != b"PAR1":
            return "format", "the name says Parquet, the content does not: export it again"
        file.seek(max(0, path.stat().st_size - 4))
        if file.read() != b"PAR1":
            return "truncated", "the Parquet file has no end: it was cut off on its way; upload it again"
    return None


def _not_text(path: Path) -> tuple[str, str] | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        start = file.read(16)
        if found := _no_csv(start):
            return found
        file.seek(0)
        read = lines = length = start_of_chunk = 0
        try:
            while chunk := file.read(_CHUNK):
                # The decoder keeps the beginning of a character that the chunk before cut in two.
                kept = decoder.getstate()[0]
                start_of_chunk = read - len(kept)
                if b"\0" in chunk:
                    if not read and _looks_wide(chunk[:_LOOK]):
                        return "encoding", "the file looks like UTF-16: export it as UTF-8"
                    return "format", "the file holds NUL bytes: it is not a CSV text"
                read += len(chunk)
                if kept or not chunk.isascii():
                    decoder.decode(chunk)
                last = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
                length = length + len(chunk) if last < 0 else len(chunk) - last - 1
                if length > LONGEST_LINE - _CHUNK:
                    file.seek(0)
                    lines = sum(
                        part.count(b"\n") for part in iter(lambda: file.read(_CHUNK), b"") if file.tell() <= read
                    )
                    return "format", f"line {lines + 1:,} is longer than {length:,} bytes: it is not a row; mend it"
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            return "encoding", f"byte {start_of_chunk + error.start:,} is not UTF-8: export the file as UTF-8"
    return None


def _looks_wide(start: bytes) -> bool:
    """Whether nearly every other byte is NUL, as in UTF-16 of most languages that know spaces, commas and digits."""
    halves = start[::2], start[1::2]
    return len(start) >= _SOME and any(half.count(0) > 0.8 * len(half) for half in halves)


_LOOK, _SOME = 4096, 16


def _no_csv(start: bytes) -> tuple[str, str] | None:
    """What the first bytes of a file say that it is, if that is no CSV."""
    if wide := next((name for mark, name in _WIDE.items() if start.startswith(mark)), None):
        return "encoding", f"the file is {wide}: export it as UTF-8 (Excel calls it “CSV UTF-8”)"
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    looks = next((name for magic, name in _MAGIC.items() if text.lower().startswith(magic.lower())), None)
    return ("format", f"the name says CSV, the content is {looks}: upload plain CSV") if looks else None


def cannot_read(kind: Format | None, error: duckdb.Error) -> str:
    if "invalid state" in str(error):
        return "its lines end in different ways, or its quotes are broken: export the file again"
    return f"the file cannot be read as {kind}: {shortened(str(error).splitlines()[0])}: export it again"


def refused_lines(connection: duckdb.DuckDBPyConnection, *, sensitive: bool = False) -> list[Violation]:
    """Lines that `noria.sql.csv` set aside: too few or too many fields, quotes that never close."""
    found = connection.execute(
        f"SELECT count(*), min(line, {FIRST}), min(text, {FIRST}) FROM "
        f"(SELECT line, any_value(left(csv_line, {LONGEST_SAMPLE})) AS text FROM reject_errors GROUP BY line)"
    ).fetchone()
    if not found or not found[0]:
        return []
    message = f"{found[0]:,} line{'' if found[0] == 1 else 's'} with the wrong number of fields or a broken quote: "
    message += "the file may be truncated; export it again"
    samples = (MASK,) if sensitive else tuple(dict.fromkeys(found[2] or ()))
    return [Violation(rule="fields", count=found[0], lines=tuple(found[1]), samples=samples, message=message)]


# --- the scan


def _scan(file: "_File", resources: Resources) -> _Found:
    try:
        with cursor(resources) as connection:
            return _found(connection, file)
    except HeaderError as error:
        wrong = Violation(rule="header", message=str(error))
    except duckdb.Error as error:
        # Whatever a file does to the reader is a finding about the file.
        wrong = Violation(rule="readable", message=cannot_read(file.kind, error))
    return _Found(violations=[wrong])


def _found(db: duckdb.DuckDBPyConnection, file: "_File") -> _Found:
    """What is found of a file; where lines do not fit, of the others, and which lines those are."""
    if file.kind == "parquet":
        return _Examination(db, file, parquet([file.path])).found()
    if (many := len(header(file.path))) > MOST_COLUMNS:
        raise HeaderError(f"the first line names {many:,} columns, and at most {MOST_COLUMNS:,} can be read")
    try:
        return _Examination(db, file, csv([file.path])).found()
    except duckdb.InvalidInputException as error:
        first = unfit_line(error)
    found = _Examination(db, file, csv_without_rejects(file.path)).found()
    sensitive = any(feature.sensitive for feature in file.spec.features.values())
    return replace(found, violations=[*found.violations, unfit(db, file.path, found.rows, first, sensitive=sensitive)])


def unfit_line(error: duckdb.InvalidInputException) -> int:
    """Which line of a CSV file is no row. Raises the error again if it is about something else."""
    if not (line := re.search(r"CSV Error on Line: (\d+)", str(error))):
        raise error
    return int(line[1])


def unfit(db: duckdb.DuckDBPyConnection, path: Path, rows: int, first: int, *, sensitive: bool = False) -> Violation:
    """The lines that are no rows, `first` being one; all of them where they are few enough to be kept in memory."""
    with path.open("rb") as content:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: content.read(_CHUNK), b""))
    if lines - rows <= _KEPT:
        db.execute(f"SELECT count(*) FROM {csv_with_rejects(path)}").fetchall()
        if refused := refused_lines(db, sensitive=sensitive):
            return refused[0]
    message = f"line {first:,} and more have the wrong number of fields or a broken quote: export the file again"
    return Violation(rule="fields", lines=(first,), message=message)


@dataclass(frozen=True, kw_only=True)
class _File:
    """What is examined, and against what."""

    path: Path
    kind: Format
    spec: ModelSpec
    now: datetime
    baseline: Profile | None


class _Examination:
    """What one file is asked, and what is made of the answers."""

    def __init__(self, db: duckdb.DuckDBPyConnection, file: _File, reader: str) -> None:
        self.db, self.spec, self.kind, self.path, self.baseline = db, file.spec, file.kind, file.path, file.baseline
        self.reader, spec = reader, file.spec
        described = db.execute(f"DESCRIBE FROM {self.reader}").fetchall()
        self.types = {str(name): str(sql_type) for name, sql_type, *_ in described}
        self.present = [name for name in spec.features if name in self.types]
        self.complete = all(name in self.types for name in spec.columns)
        self.of_features = [*rules.of_features(spec, self.present)]
        self.rules = [
            *(rules.of_time(spec, file.now) if spec.time in self.types else ()),
            *(rules.of_target(spec) if spec.target in self.types else ()),
        ]

    def found(self) -> _Found:
        spec, columns = self.spec, tuple(self.types)
        rows = self._estimated_rows()
        violations = list(_columns(spec, columns))
        if self.kind == "parquet" and rows > spec.max_rows:
            return _Found(violations=[*violations, _too_many(spec, rows)], rows=rows, columns=columns)
        answer, features = self._counted(rows)
        whole = {
            "rows": "count(*)",
            "first": "min(event)",
            "last": "max(event)",
            "outcomes": self._outcomes(),
            **{_key(rule): rule.suspect for rule in self.rules},
        }
        if self.kind == "csv":
            whole["repeated"] = self._repeated_in_sample(rows)
        else:
            answer["repeated"] = self._repeated_rows(rows)
        whole = {question: sql for question, sql in whole.items() if question not in answer}
        for names in self._groups([name for name in self.present if _present(name) not in answer]):
            part, described = self._ask(names, whole)
            answer, features, whole = answer | part, features | described, {}
        violations += self._broken([rule for rule in (*self.rules, *self.of_features) if answer[_key(rule)]])
        violations += self._missing(answer)
        violations += self._whole(answer)
        found = _Found(
            violations=violations,
            rows=answer["rows"],
            columns=columns,
            first=_utc(answer["first"]),
            last=_utc(answer["last"]),
        )
        if self.baseline is None:
            return found
        described = {name: features[name] for name in self.present}
        return self._shifted(found, Profile(model=spec.model, rows=found.rows, features=described))

    def _groups(self, names: Sequence[str]) -> list[Sequence[str]]:
        """Features that are asked about together; what concerns the whole file is asked with the first."""
        most = TOGETHER if self.kind == "parquet" else WIDE
        groups: list[Sequence[str]] = [names[i : i + most] for i in range(0, len(names), most)]
        return [[], *groups] if self.kind == "parquet" else groups or [[]]

    def _counted(self, rows: int) -> tuple[dict[str, Any], dict[str, ColumnProfile]]:
        """The answers about columns with few values, which their values alone give, and their profiles.

        Of CSV all columns are counted at once, or none.
        """
        features: dict[str, ColumnProfile] = {}
        answer = self._counted_at_once(rows) if self.kind == "csv" else {}
        likely = (
            tally.likely(self.db, [self.path]) if self.kind == "parquet" else frozenset(self.types if answer else ())
        )
        for name, place in self._places:
            kind, raw, value = _kind(self.spec.features[name]), f"r{place}", f"f{place}"
            asked = [*rules.of_features(self.spec, [name])]
            relation = (
                f"(SELECT *, {typed(raw, kind)} AS {value} FROM {self._values(name, raw, text=kind == 'category')})"
            )
            broken = [rule.broken for rule in asked]
            wanted = ", ".join([value, tally.ROWS, f"{raw} IS NOT NULL", *broken])
            if name in likely and (values := tally.few(self.db, f"SELECT {wanted} FROM {relation}")) is not None:
                answer[_present(name)] = sum(rows for _, rows, present, *_ in values if present)
                answer |= _any_true(asked, [found for _, _, _, *found in values])
                if self.baseline:
                    features[name] = tallied(kind, self.baseline.edges.features.get(name), values)
        if self.spec.target in likely & {*self.types}:
            regression = self.spec.task is Task.REGRESSION
            asked = [*rules.of_target(self.spec)]
            wanted = ", ".join([rules.outcome(self.spec) if regression else "y", *(rule.broken for rule in asked)])
            relation = self._values(self.spec.target, "y", text=not regression)
            if (values := tally.few(self.db, f"SELECT {wanted} FROM {relation}")) is not None:
                answer["outcomes"] = [outcome for outcome, *_ in values]
                answer |= _any_true(asked, [found for _, *found in values])
        return answer, features

    def _counted_at_once(self, rows: int) -> dict[str, Any]:
        """Count the values of all columns of CSV, and answer what concerns all of them; nothing where not all are few.

        Whether a row comes twice is one of the counts, of the hashes of a sample.
        """
        spec, columns = self.spec, [*self._raws, "y"]
        if spec.task is Task.REGRESSION or spec.target not in self.types or not self.present:
            return {}
        if not tally.all_likely(self.db, self.reader, [identifier(name) for name in (*self.present, spec.target)]):
            return {}
        relation = self._relation(self.present)
        if self._may_repeat:
            columns.append("h")
            hashed = f"CASE WHEN {self._chosen(rows)} THEN {self._hashed} END"
            relation = f"(SELECT *, {hashed} AS h FROM {relation})"
        asked = [rule for rule in self.rules if rule.column == spec.time]
        suspects = {f"s{place}": rule.suspect for place, rule in enumerate(asked)}
        if not tally.count(self.db, relation, columns, {"first": "min(event)", "last": "max(event)", **suspects}):
            return {}
        found = ", ".join(
            ["coalesce(sum(n), 0)", "min(first)", "max(last)", *(f"bool_or({name})" for name in suspects)]
        )
        total, first, last, *broken = one_row(self.db, f"SELECT {found} FROM tally WHERE place = 0")
        twice = f"SELECT count(*) FROM tally WHERE place = {len(columns) - 1} AND value IS NOT NULL AND n > 1"
        return {
            "rows": int(total),
            "first": first,
            "last": last,
            "repeated": self._may_repeat and one_row(self.db, twice) != (0,),
            **{_key(rule): bool(found) for rule, found in zip(asked, broken, strict=True)},
        }

    def _values(self, name: str, called: str, *, text: bool) -> str:
        """SQL of a column's different values, as it came, and in how many rows each is."""
        if self.kind == "csv":
            values = tally.counted([*self.present, self.spec.target].index(name))
        else:
            values = tally.values(self.reader, identifier(name), self.types[name], text=text)
        raw = self._raw(name, text=text, column=tally.VALUE)
        return f"(SELECT {raw} AS {called}, {tally.ROWS} FROM {values})"

    def _ask(self, names: Sequence[str], whole: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, ColumnProfile]]:
        """One scan: the questions about the whole file, and those about some features with their profiles."""
        places = dict(self._places)
        asked = {
            **whole,
            **{_present(name): f"count(r{places[name]})" for name in names},
            **{_key(rule): rule.suspect for rule in rules.of_features(self.spec, names)},
        }
        if not asked and not names:
            return {}, {}
        scan = Scan(self.spec, self.baseline.edges, present=names) if self.baseline else None
        questions = [*asked.values(), *(scan.expressions if scan else ())]
        # Whether rows are equal is asked of all columns; those that nobody asks for are not read.
        relation = self._relation(self.present if "repeated" in whole and len(self.present) <= WIDE else names)
        (values,) = self.db.execute(f"SELECT {', '.join(questions)} FROM {relation}").fetchall()
        features = scan.name(self.db, relation, scan.read(values[len(asked) :])).features if scan else {}
        return dict(zip(asked, values, strict=False)), features

    # --- what is asked

    @property
    def _places(self) -> list[tuple[str, int]]:
        return [(name, place) for place, name in enumerate(self.spec.features) if name in self.types]

    @property
    def _raws(self) -> list[str]:
        return [f"r{place}" for _, place in self._places]

    def _relation(self, names: Sequence[str], *, numbered: bool = False) -> str:
        """The columns that `noria.rules` speaks of, the id, and the row's number where it is wanted."""
        spec, types, places = self.spec, self.types, dict(self._places)
        kinds = {name: _kind(spec.features[name]) for name in names}
        raw = [f"{self._raw(name, text=kind == 'category')} AS r{places[name]}" for name, kind in kinds.items()]
        raw.append(f"{identifier(spec.time) if spec.time in types else 'NULL::TIMESTAMP'} AS event_raw")
        labels = spec.task is not Task.REGRESSION
        raw.append(f"{self._raw(spec.target, text=labels) if spec.target in types else 'NULL::VARCHAR'} AS y")
        raw.append(f"{self._raw(spec.id, text=True) if spec.id in types and spec.id else 'NULL::VARCHAR'} AS {_ID}")
        if numbered:
            raw.append(f"row_number() OVER () AS {_ROW}")
        values = [f"{typed(f'r{places[name]}', kind)} AS f{places[name]}" for name, kind in kinds.items()]
        values.append(f"{self._event} AS event")
        return f"(SELECT *, {', '.join(values)} FROM (SELECT {', '.join(raw)} FROM {self.reader}))"

    @cached_property
    def _event(self) -> str:
        """SQL of the event time; as it came where Parquet's metadata says that a calendar has all, as it says more."""
        column, sql_type = identifier(self.spec.time), self.types.get(self.spec.time, "TIMESTAMP")
        if self.kind == "parquet" and self.types.get(self.spec.time) == "TIMESTAMP":
            ends = f"SELECT min({column}) AS first, max({column}) AS last FROM {self.reader}"
            inside = f"first >= {_FIRST} AND last <= {_LAST}"
            ((sure,),) = self.db.execute(f"SELECT {inside} FROM ({ends})").fetchall()
            if sure:
                return "event_raw"
        return moment("event_raw", sql_type)

    def _raw(self, name: str, *, text: bool, column: str | None = None) -> str:
        """SQL of a column as it came, but NULL where nothing came. In CSV, what is empty is NULL already."""
        column = column or identifier(name)
        if self.kind == "csv":
            return column
        return f"nullif(CAST({column} AS VARCHAR), '')" if text or self.types[name] == "VARCHAR" else column

    def _outcomes(self) -> str:
        """The smallest and the largest outcome of a regression; `_FEW` labels, or all where there are fewer."""
        if self.spec.task is Task.REGRESSION:
            value = rules.outcome(self.spec)
            return f"[min({value}), max({value})]"
        # Exact while it has room for all of them.
        return f"approx_top_k(y, {_FEW})"

    def _repeated_ids(self) -> bool:
        """Whether an id comes twice: a scan of the ids alone. Their hashes are counted, and spill to disk.

        Beside other aggregates, DuckDB 2.0.0 would keep every row that those are asked about.
        """
        if self.spec.id not in self.types:
            return False
        ids = f"(SELECT {_ID} AS id FROM {self._relation([])} WHERE {_ID} IS NOT NULL)"
        ((repeated,),) = self.db.execute(f"SELECT count(*) > count(DISTINCT hash(id)) FROM {ids}").fetchall()
        return bool(repeated)

    def _estimated_rows(self) -> int:
        """Rows of a Parquet file; about the rows of a CSV file."""
        if self.kind == "parquet":
            (found,) = self.db.execute(
                f"SELECT coalesce(sum(num_rows), 0) FROM parquet_file_metadata({paths([self.path])})"
            ).fetchall()
            return int(found[0])
        with self.path.open("rb") as file:
            start = file.read(2**16)
        return max(1, self.path.stat().st_size * start.count(b"\n") // max(1, len(start)))

    @property
    def _may_repeat(self) -> bool:
        """Rows that differ in their ids are not equal, and of half a row nobody knows."""
        return not self.spec.id and self.complete and len(self.present) <= WIDE

    @property
    def _hashed(self) -> str:
        return f"hash({', '.join(['event_raw', 'y', *self._raws])})"

    def _chosen(self, rows: int) -> str:
        """SQL: whether a row is one of about `SAMPLED`, as are all that equal it, or none of them.

        Hashing all of every row would take longer than reading it.
        """
        return f"hash(event_raw, {self._raws[0]}) <= {min(2**64 * SAMPLED // max(rows, 1), 2**64 - 1)}::UBIGINT"

    def _repeated_in_sample(self, rows: int) -> str:
        """SQL: whether any of about `SAMPLED` rows comes twice."""
        if not self._may_repeat:
            return "false"
        hashes = f"min(CASE WHEN {self._chosen(rows)} THEN {self._hashed} END, {SAMPLED})"
        return f"len({hashes}) > list_unique({hashes})"

    def _repeated_rows(self, rows: int) -> bool:
        """The same of Parquet, where few columns are read first: mostly they tell already that no row comes twice."""
        if not self._may_repeat:
            return False
        for hashed in (f"hash(event_raw, {self._raws[0]})", self._hashed):
            sample = f"(SELECT {hashed} AS h FROM {self._relation(self.present)} WHERE {self._chosen(rows)})"
            ((repeated,),) = self.db.execute(f"SELECT count(*) > count(DISTINCT h) FROM {sample}").fetchall()
            if not repeated:
                return False
        return True

    # --- what is made of the answers

    def _broken(self, suspected: Sequence[Rule]) -> Iterator[Violation]:
        """Which rows break the rules that a first look suspects, in another scan, which good files are spared."""
        for rule in suspected[MOST:]:
            what = f"column {shortened(rule.column)!r}: some rows break rule {rule.rule!r}: {rule.remedy}"
            yield Violation(column=rule.column, rule=rule.rule, severity=rule.severity, message=what)
        looked = suspected[:MOST]
        if not looked:
            return
        names = [name for name in dict.fromkeys(rule.column for rule in looked) if name in self.spec.features]
        details = ", ".join(
            f"struct_pack(n := count_if({rule.broken}), rows := min({_ROW}, {FIRST}) FILTER ({rule.broken}), "
            f"samples := min({rule.sample}, {_READ}) FILTER ({rule.broken}))"
            for rule in looked
        )
        (values,) = self.db.execute(f"SELECT {details} FROM {self._relation(names, numbered=True)}").fetchall()
        for rule, value in zip(looked, values, strict=True):
            if value["n"]:
                yield _violation(rule, value)

    def _missing(self, answer: Mapping[str, Any]) -> Iterator[Violation]:
        rows = answer["rows"]
        for name, _ in self._places:
            count, allowed = rows - answer[f"present {name}"], self.spec.features[name].missing
            if rows and count / rows > allowed:
                yield _too_few(self.spec, name, count, rows)

    def _whole(self, answer: Mapping[str, Any]) -> Iterator[Violation]:
        spec, rows = self.spec, answer["rows"]
        if rows < spec.min_rows:
            yield Violation(
                rule="min_rows",
                # Nothing can be learnt from no rows, whatever a spec says.
                severity=spec.severity("min_rows") if rows else "reject",
                message=f"{rows:,} rows, at least {spec.min_rows:,} are needed: upload more",
            )
        if rows > spec.max_rows:
            yield _too_many(spec, rows)
        if spec.target in self.types:
            yield from self._of_outcomes(rows, self._labels(answer["outcomes"]))
        repeated_ids = self._repeated_ids()
        if repeated_ids:
            yield from self._repeated("unique", _ID, allowed=0)
        if (repeated_ids and self.complete and len(self.present) <= WIDE) or answer["repeated"]:
            everything = ", ".join(["event_raw", "y", _ID, *self._raws])
            yield from self._repeated("duplicates", everything, allowed=spec.contract.duplicates * rows)

    def _labels(self, outcomes: Sequence[Any] | None) -> int:
        """How many different outcomes there are, 1 and 1.0 being one; of many labels, that there are at least two."""
        found = [value for value in outcomes or () if value is not None]
        if self.spec.task is Task.REGRESSION:
            return len({*found})
        count = f"SELECT count(DISTINCT {rules.outcome(self.spec)}) FROM "
        ((labels,),) = self.db.execute(f"{count}(SELECT unnest(?::VARCHAR[]) AS y)", [found]).fetchall()
        if len(found) == _FEW and (self.spec.task is Task.BINARY or labels < 2):
            ((labels,),) = self.db.execute(count + self._relation([])).fetchall()
        return int(labels)

    def _of_outcomes(self, rows: int, outcomes: int) -> Iterator[Violation]:
        spec = self.spec
        if spec.task is Task.BINARY and outcomes > 2:
            message = f"column {spec.target!r}: {outcomes:,} different outcomes, and a binary classification has two: "
            message += "correct the rows, or give the model task multiclass_classification"
            yield Violation(column=spec.target, rule="classes", message=message)
        if rows > 1 and outcomes == 1:
            message = f"column {spec.target!r}: all rows have the same outcome, from which nothing can be learnt"
            yield Violation(column=spec.target, rule="constant", severity=spec.severity("constant"), message=message)

    def _repeated(self, rule: str, what: str, *, allowed: float) -> Iterator[Violation]:
        """How many rows repeat what an earlier one has, and the first of them. Hashes are counted, and spill."""
        spec, names = self.spec, [] if rule == "unique" else self.present
        relation = f"(SELECT hash({what}) AS h, {_ROW}, {_ID} FROM {self._relation(names, numbered=True)})"
        there = f"WHERE {_ID} IS NOT NULL" if rule == "unique" else ""
        ((count, hashes, firsts),) = self.db.execute(
            f"SELECT sum(n - 1), arg_min(h, first, {FIRST}), min(first, {FIRST}) FROM "
            f"(SELECT h, count(*) AS n, min({_ROW}) AS first FROM {relation} {there} GROUP BY h HAVING n > 1)"
        ).fetchall()
        if (count or 0) <= allowed:
            return
        ((rows, samples),) = self.db.execute(
            f"SELECT min({_ROW}, {FIRST}), min(left({_ID}, {LONGEST_SAMPLE}), {FIRST}) FROM {relation} "
            f"WHERE h IN ({', '.join(map(str, hashes))}) AND {_ROW} NOT IN ({', '.join(map(str, firsts))})"
        ).fetchall()
        many = "1 row repeats" if count == 1 else f"{count:,} rows repeat"
        if rule == "unique":
            message = f"column {spec.id!r}: {many} an id that another row has: remove the repetitions"
        else:
            message = f"{many} another in everything that the spec names, and training takes each once: "
            message += "remove the repetitions, or raise contract.duplicates"
        yield Violation(
            column=spec.id if rule == "unique" else None,
            rule=rule,
            severity=spec.severity(rule),
            count=int(count),
            rows=tuple(rows),
            samples=tuple(dict.fromkeys(samples or ())) if rule == "unique" else (),
            message=message,
        )

    def _shifted(self, found: _Found, profile: Profile) -> _Found:
        """With the file's profile, and how far it is from the baseline, if the two can be compared."""
        if self.baseline is None or not found.rows:
            return replace(found, no_shift="the file has no rows to compare")
        try:
            shift = drift.compare(self.baseline, profile, self.spec)
        except ValueError as error:
            return replace(found, profile=profile, no_shift=f"the baseline cannot be compared: {error}")
        if not shift.enough:
            return replace(found, profile=profile, no_shift=shift.summary)
        violations = [*found.violations, *_shifts(self.spec, shift)]
        return replace(found, profile=profile, shift=shift, violations=violations)


def _present(name: str) -> str:
    return f"present {name}"


def _key(rule: Rule) -> str:
    return f"suspect {rule.rule} of {rule.column}: {rule.broken}"


def _any_true(asked: Sequence[Rule], broken: Sequence[Sequence[bool | None]]) -> dict[str, bool]:
    """By question: whether any value breaks the rule, from whether each breaks each."""
    return {_key(rule): any(found[place] for found in broken) for place, rule in enumerate(asked)}


_ROW, _ID = '"\x01row"', '"\x01id"'
_READ = 10 * FIRST
"""Values read for the samples of a violation, among which the same may come again and again."""
_FEW = 10
"""Labels that are read in the scan itself."""
_KEPT = 20_000
"""Lines that are no rows of which each is told from the others."""
_CLOSE = 10_000
"""Pairs of names that are compared for a likely misspelling: beyond that it would take seconds."""
_SHIFTED = 10
_FIRST, _LAST = "TIMESTAMP '0001-01-01'", "TIMESTAMP '9999-12-31'"


def _columns(spec: ModelSpec, columns: Sequence[str]) -> Iterator[Violation]:
    found, expected = {*columns}, {*spec.columns}
    missing = [name for name in spec.columns if name not in found]
    unexpected = [name for name in columns if name not in expected]
    if len(columns) == 1 and (separator := next((s for s in ";\t|" if s in columns[0]), None)):
        message = f"fields are separated by {separator!r} and not by commas: export the file with commas"
        yield Violation(rule="separator", message=message)
        return
    folded = {name.lower(): name for name in unexpected}
    for name in missing:
        near = len(missing) * len(folded) <= _CLOSE
        close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6) if near else []
        remedy = f"rename {shortened(folded[close[0]])!r} to it" if close else "add it"
        yield Violation(column=name, rule="column", message=f"column {shortened(name)!r} is missing: {remedy}")
    if unexpected:
        shown = [shortened(name) for name in unexpected[:FIRST]]
        named = ", ".join(map(repr, shown)) + (" …" if len(unexpected) > FIRST else "")
        yield Violation(
            column=shown[0] if len(unexpected) == 1 else None,
            rule="unexpected",
            severity=spec.severity("unexpected"),
            count=len(unexpected),
            samples=tuple(shown),
            message=f"not in the spec and ignored: {named}; remove them, or add them to features",
        )


def _kind(feature: Feature) -> Kind:
    return "category" if feature.type is FeatureType.CATEGORY else "number"


def moment(column: str, sql_type: str) -> str:
    """SQL: a column as a UTC time, as training reads it; NULL for what is none that a calendar has."""
    if sql_type.startswith("TIMESTAMP") or sql_type == "DATE":
        time = f"try_cast({column} AS TIMESTAMP)"
    else:
        text = f"CAST({column} AS VARCHAR)"
        # Zones are a matter of their own, and slow; 2013-01-31T17:00:00 and 2013-01-31T17:00:00.125 have none, nor room
        # for one. Elsewhere a zone would be ignored.
        rest = f"substring({text}, 20)"
        thousandths = f"strlen({text}) <= 23 AND {rest} >= '.' AND TRY_CAST({rest} AS DOUBLE) < 1"
        plain = f"{text} LIKE '_____________:__:__%' AND (strlen({text}) = 19 OR {thousandths})"
        time = (
            f"CASE WHEN {plain} THEN try_cast({text} AS TIMESTAMP) ELSE try_cast({text} AS TIMESTAMPTZ)::TIMESTAMP END"
        )
    return f"CASE WHEN {time} BETWEEN {_FIRST} AND {_LAST} THEN {time} END"


def _violation(rule: Rule, value: Mapping[str, Any]) -> Violation:
    samples = tuple(dict.fromkeys(value["samples"] or ()))[:FIRST]
    shown = f", as in {', '.join(repr(sample) for sample in samples[:3])}" if samples and not rule.sensitive else ""
    rows = "1 row breaks" if value["n"] == 1 else f"{value['n']:,} rows break"
    return Violation(
        column=rule.column,
        rule=rule.rule,
        severity=rule.severity,
        count=value["n"],
        rows=tuple(value["rows"] or ()),
        samples=samples,
        message=f"column {shortened(rule.column)!r}: {rows} rule {rule.rule!r}{shown}: {rule.remedy}",
    )


def _too_few(spec: ModelSpec, name: str, count: int, rows: int) -> Violation:
    return Violation(
        column=name,
        rule="missing",
        severity=spec.severity("missing", name),
        count=count,
        message=f"column {shortened(name)!r}: {count / rows:.1%} of rows lack a value, "
        f"{spec.features[name].missing:.1%} may: fill them, or raise `missing` in the spec",
    )


def _too_many(spec: ModelSpec, rows: int) -> Violation:
    message = f"{rows:,} rows, at most {spec.max_rows:,} are allowed: split the file"
    return Violation(rule="max_rows", message=message)


def _shifts(spec: ModelSpec, shift: drift.Report) -> Iterator[Violation]:
    for name in shift.drifted[:_SHIFTED]:
        yield Violation(
            column=name,
            rule="shift",
            severity="warn",
            count=shift.rows,
            message=f"column {shortened(name)!r} is distributed otherwise than what the live model was trained on: PSI "
            f"{shift.features[name].psi:.2f}, {spec.monitor.psi:g} is the limit: check where the file comes from",
        )


def _live(
    db: duckdb.DuckDBPyConnection, source: Source, spec: ModelSpec, asked: Sequence[Rule], required: Iterable[str]
) -> Live:
    """`required` names the features without which a row is invalid."""
    absent = {name: f"r{place} IS NULL" for place, name in enumerate(spec.features)}
    wrong = [rule.broken for rule in asked if rule.severity == "reject"]
    wrong += [absent[name] for name in required if spec.severity("missing", name) == "reject"]
    counted = [
        "count_if(NOT malformed)",
        "count_if(malformed)",
        f"count_if(NOT malformed AND ({_any(wrong)}))",
        *(f"count_if(NOT malformed AND {condition})" for condition in absent.values()),
        *(f"count_if(NOT malformed AND ({rule.broken}))" for rule in asked),
        *(f"min({rule.sample}, {_READ}) FILTER (NOT malformed AND ({rule.broken}))" for rule in asked),
    ]
    relation = capture.relation(source.paths, spec, since=source.since, until=source.until)
    (values,) = db.execute(f"SELECT {', '.join(counted)} FROM {relation}").fetchall()
    rows, malformed, invalid, *rest = (value or 0 for value in values[: 3 + len(absent)])
    details = zip(asked, values[-2 * len(asked) : -len(asked)], values[-len(asked) :], strict=True) if asked else ()
    violations = [
        _violation(rule, {"n": count, "rows": (), "samples": samples}) for rule, count, samples in details if count
    ]
    for name, count in zip(absent, rest, strict=True):
        if rows and count / rows > spec.features[name].missing:
            violations.append(_too_few(spec, name, count, rows))
    return Live(
        model=spec.model, rows=rows, malformed=malformed, invalid=invalid, violations=tuple(_bounded(violations))
    )


def _any(conditions: Sequence[str]) -> str:
    return " OR ".join(f"coalesce({condition}, false)" for condition in conditions) or "false"


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment else None
