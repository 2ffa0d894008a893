"""A spec proposed from data: what a file holds, read once, as YAML in which every line says why it is there."""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import yaml

from noria import contract, rules
from noria.spec import FeatureType, ModelSpec, Task, parse
from noria.sql import MODEST, HeaderError, Resources, csv_with_rejects, cursor, identifier, parquet
from noria.violations import shortened

FEW = 20
"""So many different values at most are listed one by one, or are the classes of a target."""
MARGIN = 0.25
"""Of the range that was seen, allowed beyond it at either end."""
OWN = 0.5
"""Share of rows with a value of their own from which a text column is no category."""

_ID = re.compile(r"(^|[_\W])(id|uuid|guid|key)$|[a-z]I[dD]$", re.IGNORECASE)
_TIME = re.compile(r"time|date|_at$|^ts$|_ts$", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_WORDS = frozenset({"yes", "no", "on", "off", "true", "false", "null", "y", "n"})
_SIGNIFICANT = 3
_READ = 100
"""Characters of a value."""


class InferError(ValueError):
    """Nothing can be proposed; the message says what is lacking."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one column holds: counts of rows, and its values where they are few."""

    name: str
    rows: int
    present: int
    numbers: int
    whole: int
    codes: int
    times: int
    distinct: int
    least: float | None
    most: float | None
    first: datetime | None
    last: datetime | None
    values: tuple[str, ...]

    @property
    def missing(self) -> float:
        return 1 - self.present / self.rows if self.rows else 0.0

    @property
    def few(self) -> bool:
        """Whether `values` are all there are, each in full."""
        return len(self.values) <= FEW and all(len(value) < _READ for value in self.values)

    @property
    def is_number(self) -> bool:
        return 0 < self.present == self.numbers and not self.codes

    @property
    def is_time(self) -> bool:
        return 0 < self.present == self.times and not self.is_number


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """`text` is the YAML; `spec` what it says."""

    text: str
    spec: ModelSpec


def infer(
    path: Path, *, target: str, time: str | None = None, model: str | None = None, resources: Resources = MODEST
) -> Proposal:
    """Propose a spec under which the file is accepted, if one can be. `time` is found where it is left out."""
    if unreadable := contract.unreadable(path, path.name):
        raise InferError(f"{path.name}: {unreadable[0].message}")
    kind = contract.format_of(path.name)
    try:
        with cursor(resources) as db:
            reader = csv_with_rejects(path) if kind == "csv" else parquet([path])
            columns = {column.name: column for column in _columns(db, reader)}
            moment = time or _time(columns, target)
            for role, name in (("target", target), ("time", moment)):
                if name not in columns:
                    known = ", ".join(map(shortened, [*columns][:FEW]))
                    raise InferError(f"{path.name}: no column is called {name!r}, the {role}: there are {known}")
            ids = [name for name in columns if name not in {target, moment} and _is_id(db, reader, columns[name])]
    except HeaderError as error:
        raise InferError(f"{path.name}: {error}") from error
    except duckdb.Error as error:
        raise InferError(f"{path.name}: {contract.cannot_read(kind, error)}") from error
    draft = _Draft(columns=columns, target=target, time=moment, id=ids[0] if ids else None)
    text = "\n".join(draft.lines(model or _model(path), path.name)) + "\n"
    if not draft.features:
        raise InferError(f"{path.name}: no column can be a feature beside {target!r} and {moment!r}:\n{text}")
    return Proposal(text=text, spec=parse(text, name=f"proposal of {path.name}"))


def _columns(db: duckdb.DuckDBPyConnection, reader: str) -> Iterator[Column]:
    """One scan of everything."""
    described = [(str(name), str(sql_type)) for name, sql_type, *_ in db.execute(f"DESCRIBE FROM {reader}").fetchall()]
    names = [name for name, _ in described]
    raw = ", ".join(f"nullif(CAST({identifier(name)} AS VARCHAR), '') AS r{i}" for i, name in enumerate(names))
    read = ", ".join(
        f"CASE WHEN isfinite(TRY_CAST(r{i} AS DOUBLE)) THEN TRY_CAST(r{i} AS DOUBLE) END AS f{i}, "
        f"{contract.moment(f'r{i}', 'VARCHAR')} AS t{i}"
        for i in range(len(names))
    )
    asked = [
        expression
        for i in range(len(names))
        for expression in (
            f"count(r{i})",
            f"count(f{i})",
            f"count_if(f{i} = floor(f{i}) AND abs(f{i}) <= {rules.LARGEST!r})",
            rf"count_if(regexp_matches(r{i}, '^0\d'))",
            f"count(t{i})",
            f"approx_count_distinct(r{i})",
            f"min(f{i})",
            f"max(f{i})",
            f"min(t{i})",
            f"max(t{i})",
            f"approx_top_k(left(r{i}, {_READ}), {FEW + 1})",
        )
    ]
    (values,) = db.execute(
        f"SELECT count(*), {', '.join(asked)} FROM (SELECT *, {read} FROM (SELECT {raw} FROM {reader}))"
    ).fetchall()
    rows, rest = values[0], iter(values[1:])
    for name in names:
        present, numbers, whole, codes, times, distinct, least, most, first, last, common = (
            next(rest) for _ in range(len(asked) // len(names))
        )
        found = tuple(sorted({value for value in common or () if value is not None}))
        yield Column(
            name=name,
            rows=rows,
            present=present,
            numbers=numbers,
            whole=whole or 0,
            codes=codes or 0,
            times=times,
            distinct=len(found) if len(found) <= FEW else distinct,
            least=least,
            most=most,
            first=first.replace(tzinfo=UTC) if first else None,
            last=last.replace(tzinfo=UTC) if last else None,
            values=found,
        )


def _time(columns: Mapping[str, Column], target: str) -> str:
    found = [column for name, column in columns.items() if column.is_time and column.missing == 0 and name != target]
    if not found:
        raise InferError("no column holds times such as 2013-01-31T17:00:00 in every row: name one by --time")
    return max(found, key=lambda column: bool(_TIME.search(column.name))).name


def _is_id(db: duckdb.DuckDBPyConnection, reader: str, column: Column) -> bool:
    """Whether a column that is called like an id, or is text, has another value in every row."""
    called_so = bool(_ID.search(column.name))
    likely = called_so or not (column.is_number or column.is_time)
    if not likely or column.missing or column.rows < 2 or column.distinct < OWN * column.rows:
        return False
    ((distinct,),) = db.execute(f"SELECT count(DISTINCT hash({identifier(column.name)})) FROM {reader}").fetchall()
    return bool(distinct == column.rows)


def _model(path: Path) -> str:
    """A model's name made of a file's."""
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-").lstrip("0123456789-")[:32].strip("-")
    return name or "my-model"


@dataclass(frozen=True, kw_only=True)
class _Draft:
    columns: Mapping[str, Column]
    target: str
    time: str
    id: str | None

    @property
    def features(self) -> list[Column]:
        return [column for column in self._others if not _no_feature(column)]

    @property
    def _others(self) -> list[Column]:
        roles = {self.target, self.time, self.id}
        return [column for name, column in self.columns.items() if name not in roles]

    def lines(self, model: str, filename: str) -> Iterator[str]:
        target, time, rows = self.columns[self.target], self.columns[self.time], self.columns[self.target].rows
        task, why = _task(target)
        yield f"# Proposed from the {rows:,} rows of {shortened(filename)!r}: read every line, and keep what is true."
        yield f"model: {_scalar(model)}"
        yield f"task: {task.value}  # {why}"
        yield f"target: {_scalar(self.target)}"
        yield (
            f"time: {_scalar(self.time)}  # from {time.first:%Y-%m-%d} to {time.last:%Y-%m-%d}"
            if time.first
            else (f"time: {_scalar(self.time)}  # holds no times: name another column by --time")
        )
        if self.id:
            yield f"id: {_scalar(self.id)}  # another value in each row"
        yield "features:"
        yield from map(_feature, self.features)
        for column in self._others:
            if reason := _no_feature(column):
                yield f"  # {shortened(column.name)!r} is left out: {reason}"
        if rows >= 10:
            yield f"min_rows: {rows // 10}  # a tenth of this file: fewer are more likely a mistake"
        yield from _contract(time)
        yield "owner: {team: my-team}  # who answers for this model; page: an address that is told"


def _period(time: Column) -> str:
    if time.first is None or time.last is None:
        return "holds no times such as 2013-01-31T17:00:00: name another column by --time"
    return f"from {time.first.date()} to {time.last.date()}"


def _task(target: Column) -> tuple[Task, str]:
    labels = {re.sub(r"^(-?\d+)\.0+$", r"\1", value.strip()).lower() for value in target.values}
    if target.few and len(labels) <= 2:
        return Task.BINARY, f"the target is {' or '.join(map(repr, sorted(labels))) or 'empty'}"
    if target.is_number and (not target.few or target.whole < target.present):
        return Task.REGRESSION, "the target is a number of many values"
    return Task.MULTICLASS, f"the target has {target.distinct:,} labels" + ("" if target.few else ": many, are they?")


def _no_feature(column: Column) -> str | None:
    """Why a column is no input; None when it may be one."""
    if not column.present:
        return "it is empty"
    if column.distinct == 1 and column.few and not column.missing:
        return f"every row has {shortened(column.values[0])!r}"
    if column.is_time:
        return "it holds times, of which a model learns days by heart: derive hour or weekday from it"
    if not column.is_number and not column.few and column.distinct > OWN * column.present:
        return "nearly every row has a value of its own: it is an id or free text"
    if column.is_number and _ID.search(column.name) and column.distinct > OWN * column.present:
        return "it is called like an id"
    return None


def _feature(column: Column) -> str:
    parts: list[str] = []
    why: list[str] = []
    if column.is_number and column.least is not None and column.most is not None:
        whole = column.whole == column.present
        parts.append(f"type: {(FeatureType.INTEGER if whole else FeatureType.NUMBER).value}")
        low, high = _range(column.least, column.most, whole=whole)
        parts += [f"min: {_number(low)}", f"max: {_number(high)}"]
        why.append(f"seen {column.least:g} to {column.most:g}")
    else:
        parts.append("type: category")
        if column.few:
            parts.append(f"values: [{', '.join(_scalar(value) for value in column.values)}]")
            why.append("all that were seen")
        else:
            why.append(f"about {column.distinct:,} values, too many to list")
        if column.codes:
            why.append("digits with leading zeros are codes, not numbers")
        elif column.numbers > column.present / 2:
            others = column.present - column.numbers
            why.append(f"{others:,} of {column.present:,} are no numbers: leave those empty to make it a number")
    if column.missing:
        parts.append(f"missing: {_headroom(column.missing)}")
        why.append(f"{column.missing:.1%} missing")
    return f"  {_scalar(column.name)}: {{{', '.join(parts)}}}" + (f"  # {', '.join(why)}" if why else "")


def _contract(time: Column) -> Iterator[str]:
    now = datetime.now(UTC)
    if time.last and time.last > now + timedelta(days=1):
        yield f"contract: {{severity: {{future: warn}}}}  # the last time is {time.last.date()}: is it?"
    elif time.first and time.first < datetime(1970, 1, 1, tzinfo=UTC):
        yield f"contract: {{earliest: {time.first.date()}T00:00:00Z}}  # before 1970 a clock is more often wrong"


def _range(least: float, most: float, *, whole: bool) -> tuple[float, float]:
    """The range seen, with a margin, to few digits; what is never negative stays so."""
    margin = (most - least) * MARGIN or abs(most) * MARGIN or 1.0
    if not math.isfinite(margin):
        return least, most
    low, high = _outward(least - margin, -1), _outward(most + margin, 1)
    if whole:
        low, high = math.floor(low), math.ceil(high)
    return (0 if least >= 0 and low < 0 else low), (0 if most <= 0 and high > 0 else high)


def _outward(value: float, sign: int) -> float:
    """Rounded away from the range, to a few significant digits."""
    if not value or not math.isfinite(value):
        return value
    places = _SIGNIFICANT - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    return rounded if (rounded - value) * sign >= 0 else round(value + sign * 10.0**-places, places)


def _headroom(share: float) -> float:
    """Half as much again as is missing, and one row in a hundred."""
    return min(1.0, math.ceil((share * 1.5 + 0.01) * 100) / 100)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _scalar(text: str) -> str:
    """A text as YAML: plain where nobody can take it for anything else, else in quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return yaml.dump(text, default_style='"', allow_unicode=True, width=10**9).strip()
