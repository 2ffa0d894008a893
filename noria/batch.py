"""Batches: a file of rows that somebody wants answered, in the form in which a transform job answers it.

| upload   | what a person has                      | rows for the job                   | result, beside the upload |
|----------|----------------------------------------|------------------------------------|---------------------------|
| `.csv`   | a header, columns in any order, more   | no header: the more, then features | header, these, answers    |
| `.jsonl` | an object of features and more, a line | the same lines                     | the objects with answers  |

The model gets the features in the order of its signature; everything else in a row comes back with its prediction, so
that an id stays with its answer. A file with a row that the model would refuse is refused as a whole, before anything
runs: SageMaker would fail the job without naming the row.
"""

import csv
import difflib
import hashlib
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from noria.names import key
from noria.spec import FeatureType, ModelSpec
from noria.violations import FIRST, LONGEST_SAMPLE, Violation

Format = Literal["csv", "jsonl"]
FORMATS: Mapping[str, Format] = {".csv": "csv", ".jsonl": "jsonl"}
MEDIA_TYPES: Mapping[Format, str] = {"csv": "text/csv", "jsonl": "application/jsonlines"}

LARGEST = 2 * 2**30
"""Bytes of an upload. A function's disk, 10 GiB at most, holds what the job wrote and the result made of it at the same
time: each is the upload and, for each row, 20 bytes of answers (CSV) to 60 (JSON), so up to two and a half times the
upload where a row has 40 bytes. 2 x 2.5 x 2 GiB = 10 GiB.
"""
LONGEST_LINE = 2**20
ANSWERS = ("prediction", "score", "scores")
JOINED = "SageMakerOutput"
"""What SageMaker calls an answer that it joins with its record."""
RESULT = ".out"
"""What follows an upload's key in its result's, as SageMaker has it."""
RESERVED = frozenset({*ANSWERS, JOINED})


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Input(Part):
    """One feature, as a bundle's `signature.json` says it."""

    name: str
    type: FeatureType
    nullable: bool


class Signature(Part):
    """What a model takes, in its order."""

    features: tuple[Input, ...]

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        """What a model of the spec takes that says nothing itself."""
        return cls(
            features=tuple(
                Input(name=name, type=feature.type, nullable=spec.may_lack(name))
                for name, feature in spec.features.items()
            )
        )

    @classmethod
    def in_bundle(cls, bundle: IO[bytes]) -> Self | None:
        """From a `model.tar.gz`, which is read as a stream; None when it has no signature."""
        with tarfile.open(fileobj=bundle, mode="r|gz") as archive:
            for member in archive:
                if member.name.removeprefix("./") == "signature.json" and (file := archive.extractfile(member)):
                    return cls.model_validate_json(file.read())
        return None


class Report(Part):
    """What is wrong with a file of rows, if anything is."""

    model: str
    filename: str
    rows: int
    violations: tuple[Violation, ...] = ()

    @property
    def accepted(self) -> bool:
        return not self.violations

    def to_text(self) -> str:
        lines = []
        for violation in self.violations:
            where = f" (rows {', '.join(map(str, violation.rows))})" if violation.rows else ""
            lines.append(f"- {violation.message}{where}")
        verdict = "can be answered" if self.accepted else "cannot be answered"
        return "\n".join([f"{self.filename}: {verdict} by {self.model}: {counted(self.rows, 'row')}", *lines])


class Batch(Part):
    """A batch under way, kept as `<model>/transforms/<token>/request.json` while its job runs and after.

    `columns` names the fields of a CSV row as the job writes it, answers left out; the first `others` of them are no
    features. `model_name` is SageMaker's.
    """

    model: str
    token: str
    key: str
    version: str
    format: Format
    rows: int
    columns: tuple[str, ...] = ()
    others: int = 0
    package: str
    model_name: str
    instance: str

    @property
    def input(self) -> str:
        """The file name of the rows for the job, among the batch's own objects."""
        return f"rows.{self.format}"

    def work(self, name: str) -> str:
        """The key of one of the batch's own objects."""
        return work_key(self.model, self.token, name)

    @property
    def result(self) -> str:
        """The key of the result."""
        return f"{self.key}{RESULT}"

    @property
    def input_filter(self) -> str:
        return f"$[{self.others}:]" if self.others else "$"


def batch_token(upload: str, version: str) -> str:
    """Names a batch by what it is about: one version of an upload."""
    return hashlib.sha256(f"{upload}#{version}".encode()).hexdigest()


def job_name(name: str, token: str) -> str:
    """A transform job's name: at most 63 characters."""
    return f"{name[:46]}-{token[:16]}"


def work_key(model: str, token: str, name: str) -> str:
    """Where a batch's own objects are."""
    return key(model, "transforms", f"{token}/{name}")


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_of(filename: str) -> Format | None:
    return FORMATS.get(Path(filename).suffix.lower())


def is_upload(key: str) -> bool:
    """Whether a key names rows to answer, or what somebody took for them: no folder, and no upload's result.

    >>> is_upload("m/batch/week.csv"), is_upload("m/batch/week.csv.out"), is_upload("m/batch/week.xlsx")
    (True, False, True)
    """
    is_result = key.endswith(RESULT) and format_of(key.removesuffix(RESULT)) is not None
    return not is_result and not key.endswith("/")


# --- checking and preparing


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked file. `columns` and `others` as in `Batch`; nothing to answer with where the report refuses it."""

    report: Report
    columns: tuple[str, ...] = ()
    others: int = 0


def prepare(path: Path, signature: Signature, *, model: str, filename: str, to: Path) -> Prepared:
    """Check every row of a file, and write the rows for the job to `to`, in one pass and constant memory."""
    found = _Found()
    columns: tuple[str, ...] = ()
    others = 0
    kind = format_of(filename)
    try:
        with path.open("rb") as source, to.open("w", encoding="utf-8", newline="") as target:
            if kind == "csv":
                columns, others = _prepare_csv(source, signature, target, found)
            elif kind == "jsonl":
                _prepare_lines(source, signature, target, found)
            else:
                found.tell("format", f"{filename!r} is neither .csv nor .jsonl: export it as one of them")
    except _UnreadableError as error:
        found.tell("readable", str(error))
    if not found.violations and not found.rows:
        found.tell("empty", "the file has no rows: upload it again")
    report = Report(model=model, filename=filename, rows=found.rows, violations=tuple(found.told()))
    return Prepared(report=report, columns=columns, others=others)


class _UnreadableError(ValueError):
    """Why a file cannot be read any further."""


@dataclass
class _Broken:
    """Rows that break one rule in one column."""

    message: str
    column: str | None
    count: int = 0
    rows: list[int] = field(default_factory=list)
    samples: dict[str, None] = field(default_factory=dict)


@dataclass
class _Found:
    rows: int = 0
    violations: dict[tuple[str, str | None], _Broken] = field(default_factory=dict)

    def tell(self, rule: str, message: str, *, column: str | None = None, value: object = None) -> None:
        broken = self.violations.setdefault((rule, column), _Broken(message, column))
        broken.count += 1
        if self.rows and len(broken.rows) < FIRST:
            broken.rows.append(self.rows)
            if value is not None:
                broken.samples[str(value)[:LONGEST_SAMPLE]] = None

    def told(self) -> Iterator[Violation]:
        for (rule, column), broken in self.violations.items():
            samples = tuple(broken.samples)
            where = f"column {column!r}: " if column and broken.rows else ""
            count = f"{counted(broken.count, 'row')}: " if broken.rows else ""
            shown = f" (as in {', '.join(repr(sample) for sample in samples[:3])})" if samples else ""
            yield Violation(
                column=column,
                rule=rule,
                count=broken.count,
                rows=tuple(broken.rows),
                samples=samples,
                message=f"{where}{count}{broken.message}{shown}",
            )


def _lines(source: IO[bytes]) -> Iterator[str]:
    """Lines of text with their ends. Raises `_UnreadableError`."""
    number = 0
    while raw := source.readline(LONGEST_LINE):
        number += 1
        if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
            raise _UnreadableError(f"line {number:,} is longer than {LONGEST_LINE:,} bytes: it is not a row; mend it")
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _UnreadableError(f"line {number:,} is not UTF-8: export the file as UTF-8 text") from error


def _prepare_csv(
    source: IO[bytes], signature: Signature, target: IO[str], found: _Found
) -> tuple[tuple[str, ...], int]:
    reader = csv.reader(_lines(source), strict=True)
    writer = csv.writer(target, lineterminator="\n")
    try:
        header = [name.strip() for name in next(reader, [])]
        if header:
            _check_header(header, signature, found)
        if found.violations or not header:
            return (), 0
        features = [header.index(feature.name) for feature in signature.features]
        others = [place for place in range(len(header)) if place not in set(features)]
        order = [*others, *features]
        checks = [
            (place, feature, _TEXT_CHECKS[feature.type])
            for place, feature in zip(features, signature.features, strict=True)
        ]
        line = reader.line_num
        for fields in reader:
            spanned, line = reader.line_num - line, reader.line_num
            if not fields:
                continue
            found.rows += 1
            if len(fields) != len(header):
                message = f"it has another number of fields than the header's {len(header)}: export the file again"
                found.tell("fields", message, value=len(fields))
                continue
            if spanned > 1:
                found.tell("line_break", "a value has a line break, at which SageMaker would cut the row: remove it")
            for place, feature, wrong in checks:
                _check(fields[place], feature, wrong, found, empty=fields[place] == "")
            writer.writerow([fields[place] for place in order])
    except csv.Error as error:
        raise _UnreadableError(
            f"line {reader.line_num:,} cannot be read as CSV ({error}): export the file again"
        ) from error
    return tuple(header[place] for place in order), len(others)


def _check_header(header: Sequence[str], signature: Signature, found: _Found) -> None:
    wanted = [feature.name for feature in signature.features]
    if len(header) == 1 and (separator := next((s for s in ";\t|" if s in header[0]), None)):
        found.tell("separator", f"fields are separated by {separator!r} and not by commas: export the file with commas")
        return
    missing = [name for name in wanted if name not in header]
    if len(missing) == len(wanted):
        found.tell("header", f"the first line must name the columns, in any order: {', '.join(wanted)}")
        return
    folded = {name.lower(): name for name in header if name not in wanted}
    for name in missing:
        close = difflib.get_close_matches(name.lower(), folded, n=1)
        remedy = f"rename {folded[close[0]]!r} to it" if close else "add it"
        found.tell("column", f"column {name!r} is missing: {remedy}", column=name)
    for name in dict.fromkeys(name for name in header if header.count(name) > 1):
        found.tell("header", f"the first line names {name!r} twice: rename one", column=name)
    for name in RESERVED & set(header):
        found.tell("reserved", f"column {name!r}: the result calls its answer so: rename the column", column=name)


def _prepare_lines(source: IO[bytes], signature: Signature, target: IO[str], found: _Found) -> None:
    checks = [(feature, _VALUE_CHECKS[feature.type]) for feature in signature.features]
    for text in _lines(source):
        if not (line := text.strip()):
            continue
        found.rows += 1
        try:
            row = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            found.tell("json", f"the line is not JSON ({error}): write one object a line")
            continue
        if not isinstance(row, dict):
            found.tell("json", "the line is not an object of feature names and values", value=line)
            continue
        for name in RESERVED & set(row):
            found.tell("reserved", "the result calls its answer so: rename it", column=name)
        for feature, wrong in checks:
            if feature.name not in row:
                found.tell("missing", "the feature is missing: add it", column=feature.name)
                continue
            value = row[feature.name]
            _check(value, feature, wrong, found, empty=value is None)
        target.write(f"{line}\n")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check(value: Any, feature: Input, wrong: Callable[[Any], str | None], found: _Found, *, empty: bool) -> None:
    if empty:
        if not feature.nullable:
            found.tell("required", "a value is required: fill it, or leave the row out", column=feature.name)
    elif remedy := wrong(value):
        found.tell("type", f"it must be {remedy}", column=feature.name, value=value)


def _not_number(text: str) -> str | None:
    try:
        return None if math.isfinite(float(text)) else "a finite number"
    except ValueError:
        return "a number, or empty"


def _not_integer(text: str) -> str | None:
    try:
        return None if float(text).is_integer() else "a whole number"
    except (ValueError, OverflowError):
        return "a whole number, or empty"


def _no_number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "a number, or null"
    return None if math.isfinite(value) else "a finite number"


def _no_integer(value: Any) -> str | None:
    wrong = _no_number(value)
    return wrong or (None if float(value).is_integer() else "a whole number")


def _no_category(value: Any) -> str | None:
    return None if isinstance(value, str | bool | int) else "a text, or null"


_TEXT_CHECKS: Mapping[FeatureType, Callable[[Any], str | None]] = {
    FeatureType.NUMBER: _not_number,
    FeatureType.INTEGER: _not_integer,
    FeatureType.CATEGORY: lambda text: None,
}
_VALUE_CHECKS: Mapping[FeatureType, Callable[[Any], str | None]] = {
    FeatureType.NUMBER: _no_number,
    FeatureType.INTEGER: _no_integer,
    FeatureType.CATEGORY: _no_category,
}


# --- the result


def finish(batch: Batch, answered: Path, result: Path) -> None:
    """Turn what the job wrote into what a person reads."""
    with answered.open("rb") as source, result.open("wb") as target:
        if batch.format == "csv":
            first = source.readline()
            target.write(_header(batch.columns, first))
            target.write(first)
            while chunk := source.read(LONGEST_LINE):
                target.write(chunk)
            return
        for line in source:
            row = json.loads(line)
            answer = row.pop(JOINED)
            joined = {**row, **(answer if isinstance(answer, dict) else {"prediction": answer})}
            target.write(json.dumps(joined, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")


def _header(columns: Sequence[str], first: bytes) -> bytes:
    """The columns and, for each further field of the first row, the name of an answer."""
    fields = next(csv.reader([first.decode()]), [])
    answers = [ANSWERS[place] if place < 2 else f"answer_{place + 1}" for place in range(len(fields) - len(columns))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([*columns, *answers])
    return text.getvalue().encode()
