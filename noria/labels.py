"""Labels that arrive late: files that name predictions by inference id and row, and what came of each.

A labels file says a word about each prediction that it names. Words come late, twice and out of order, and correct
each other; all are kept, and sets of them merge by union. The last word of a prediction is its label: the last by the
file's own column `labelled_at` where it has one, else by when the file arrived.

labels file ─ words() ─ words ┬ merge() ─ words
                              ├ last_words() ─ a label for each prediction
captured requests ────────────┼ join_day() ─ labelled predictions of a day, with their words
                              ├ coverage() ─ how many have a label, and how late it came
                              └ hard_cases() ─ which are worth a look
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
from pydantic import AwareDatetime, BaseModel, ConfigDict

from noria import capture, contract
from noria.profile import Source
from noria.spec import ModelSpec, Task
from noria.sql import (
    MODEST,
    HeaderError,
    Resources,
    csv,
    csv_without_rejects,
    cursor,
    identifier,
    label,
    listing,
    literal,
    one_row,
    parquet,
    timestamp,
)
from noria.violations import shortened

CLOCK = "labelled_at"
"""Column of a labels file, not required: when the outcome was found or corrected (ISO 8601, UTC without an offset)."""

AHEAD = timedelta(days=1)
"""How far ahead of a file's arrival its own clock may be: a label from the future could never be corrected."""


class LabelsError(ValueError):
    """A file that is no labels file; each of `problems` names the file, the field, the value and the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class LabelsFile(NamedTuple):
    path: Path
    name: str


class Arrival(NamedTuple):
    """How labels came: when, by which version of an object, S3's order of the versions under one key, and the key."""

    at: datetime
    version: str
    sequencer: str = ""
    key: str = ""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


# --- files to words


def read_labels(db: duckdb.DuckDBPyConnection, files: Sequence[LabelsFile], spec: ModelSpec) -> None:
    """Fill table `label` (inference_id, row, target) from files in order of arrival: the last word of each prediction.

    Raises `LabelsError` with everything that is wrong with the first file in which something is.
    """
    columns = ", ".join(f"{name} {kind}" for name, kind in word_types(spec).items())
    db.execute(f"CREATE TEMP TABLE word ({columns})")
    for number, file in enumerate(files):
        _read_file(db, file, spec, Arrival(datetime.min.replace(tzinfo=UTC) + timedelta(days=number + 1), ""))
        db.execute("INSERT INTO word FROM new_word")
    db.execute(f"CREATE TEMP TABLE label AS {_last('word')}")


def words(file: LabelsFile, spec: ModelSpec, arrival: Arrival, *, to: Path, resources: Resources = MODEST) -> int:
    """Write what a labels file says as words, in Parquet; returns how many predictions it speaks of.

    Columns inference_id, row (0 when absent), the target, and `CLOCK` where it likes. Raises `LabelsError`.
    """
    with cursor(resources) as db:
        _read_file(db, file, spec, arrival)
        db.sql("FROM new_word ORDER BY ALL").write_parquet(str(to))
        (said,) = one_row(db, "SELECT count(DISTINCT (inference_id, row)) FROM new_word")
    return int(said)


def merge(files: Sequence[Path], spec: ModelSpec, *, to: Path, resources: Resources = MODEST) -> None:
    """Write all words of several files, each once, in an order of their own."""
    with cursor(resources) as db:
        db.sql(f"FROM {words_of(files, spec)} ORDER BY ALL").write_parquet(str(to))


def predictions_of(said: Path) -> int:
    """Of how many predictions words speak."""
    with cursor(MODEST) as db:
        (count,) = one_row(db, f"SELECT count(DISTINCT (inference_id, row)) FROM {parquet([said])}")
    return int(count)


def versions_of(said: Path, spec: ModelSpec, *, most: int) -> list[str]:
    """The objects that said these words, by their versions; at most so many, those that arrived first."""
    with cursor(MODEST) as db:
        rows = db.execute(
            f"SELECT version FROM {words_of([said], spec)} GROUP BY version ORDER BY min(told_at), version LIMIT {most}"
        ).fetchall()
    return [version for (version,) in rows]


def arrived_since(said: Path, since: datetime) -> bool:
    """Whether any of these words came at that time or later."""
    with cursor(MODEST) as db:
        (some,) = one_row(db, f"SELECT count(*) > 0 FROM {parquet([said])} WHERE told_at >= {timestamp(since)}")
    return bool(some)


def still_waiting(
    waiting: Path, seen: Path, joined: Sequence[Path], spec: ModelSpec, *, since: datetime, to: Path
) -> None:
    """Write the words of `waiting` but those of `seen` that are about rows of `joined`, or arrived before `since`."""
    rows = parquet(joined) if joined else parquet([seen]) + " WHERE false"
    with cursor(MODEST) as db:
        db.sql(
            f"(FROM {words_of([waiting], spec)} EXCEPT (FROM {words_of([seen], spec)} "
            f"WHERE told_at < {timestamp(since)} OR (inference_id, row) IN (SELECT (inference_id, row) FROM {rows}))) "
            "ORDER BY ALL"
        ).write_parquet(str(to))


def last_words(files: Sequence[Path], spec: ModelSpec, *, to: Path, resources: Resources = MODEST) -> LabelsFile:
    """Write the label of each prediction that words speak of, as a labels file."""
    with cursor(resources) as db:
        db.sql(
            f"SELECT inference_id, row, target AS {identifier(spec.target)} FROM ({labels_of(files, spec)})"
        ).write_parquet(str(to))
    return LabelsFile(to, to.name)


def disagreement(said: Path, predicted: Collection[str], spec: ModelSpec, *, name: str) -> str | None:
    """Why labels cannot be about these predictions: a binary classification has two classes, by one name each."""
    if spec.task is not Task.BINARY:
        return None
    with cursor(MODEST) as db:
        found = db.execute(f"SELECT DISTINCT target FROM {words_of([said], spec)} LIMIT 5").fetchall()
    told = {target for (target,) in found}
    if len(told | {*predicted}) <= 2:
        return None
    return (
        f"{name}: column {spec.target!r} holds {shown(told)} where the model predicts "
        f"{shown(predicted) or 'nothing yet'}: write the labels as the model's training data does"
    )


def shown(classes: Iterable[str]) -> str:
    """Classes as a message names them, each shortened: a label may be as long as its file, an entry may not."""
    return ", ".join(map(shortened, sorted(classes)))


class Foreign(NamedTuple):
    """An object that told of classes which the model does not have, shortened; and of how many predictions it did."""

    key: str
    version: str
    classes: tuple[str, ...]
    predictions: int


def sift(told: Path, classes: Collection[str], spec: ModelSpec) -> list[Foreign]:
    """Leave those words out of a file whose label is none of `classes`; returns which objects had said them."""
    foreign = f"target NOT IN {listing(map(literal, sorted(classes)))}"
    with cursor(MODEST) as db:
        rows = db.execute(
            f"SELECT key, version, list_sort(list(DISTINCT target)), count(DISTINCT (inference_id, row)) "
            f"FROM {words_of([told], spec)} WHERE {foreign} GROUP BY key, version ORDER BY key, version"
        ).fetchall()
        if rows:
            kept = told.with_suffix(".kept")
            db.sql(f"FROM {words_of([told], spec)} WHERE NOT {foreign} ORDER BY ALL").write_parquet(str(kept))
            kept.replace(told)
    return [
        Foreign(key or "", version, tuple(map(shortened, targets[:5])), count) for key, version, targets, count in rows
    ]


def other_class(told: Sequence[Path], predicted: str, spec: ModelSpec) -> str | None:
    """What is told most often in files that also tell of the only class that was ever predicted; None without such."""
    with cursor(MODEST) as db:
        words = words_of(told, spec)
        found = db.execute(
            f"SELECT target FROM {words} WHERE target <> {literal(predicted)} AND version IN "
            f"(SELECT version FROM {words} WHERE target = {literal(predicted)}) "
            "GROUP BY target ORDER BY count(DISTINCT (inference_id, row)) DESC, target LIMIT 1"
        ).fetchone()
    return found[0] if found else None


WORD = ("target", CLOCK, "told_at", "sequencer", "version", "key")
"""Columns of a word beside inference_id and row, which say what it is about."""


def word_types(spec: ModelSpec) -> dict[str, str]:
    """All columns of a word, with their types."""
    target = "DOUBLE" if spec.task is Task.REGRESSION else "VARCHAR"
    kinds = (target, "TIMESTAMP", "TIMESTAMP", "VARCHAR", "VARCHAR", "VARCHAR")
    return {"inference_id": "VARCHAR", "row": "BIGINT"} | dict(zip(WORD, kinds, strict=True))


def words_of(files: Sequence[Path], spec: ModelSpec) -> str:
    """SQL of a relation of the words of files, each once. A file of before there was some column lacks it."""
    nothing = f"(SELECT {', '.join(f'NULL::{kind} AS {name}' for name, kind in word_types(spec).items())} WHERE false)"
    return each_once(f"({nothing} UNION ALL BY NAME FROM {parquet(files)})", spec) if files else nothing


def each_once(words: str, spec: ModelSpec) -> str:
    """SQL of a relation of words that came twice. Told again, a version may have lost its sequencer."""
    columns = (f"max({name}) AS {name}" if name in {"sequencer", "key"} else name for name in word_types(spec))
    return f"(SELECT {', '.join(columns)} FROM {words} GROUP BY ALL)"


def labels_of(files: Sequence[Path], spec: ModelSpec) -> str:
    """SQL of a query of the label of each prediction that words speak of: inference_id, row, target."""
    return _last(words_of(files, spec))


NEWEST = f"coalesce({CLOCK}, told_at) DESC, told_at DESC, sequencer DESC, version DESC, target DESC"
"""SQL: the last word first. Ties end with the word itself, so that no order of arrival shows."""


def _last(words: str) -> str:
    return (
        f"SELECT inference_id, row, target FROM {words} "
        f"QUALIFY row_number() OVER (PARTITION BY inference_id, row ORDER BY {NEWEST}) = 1"
    )


def _read_file(db: duckdb.DuckDBPyConnection, file: LabelsFile, spec: ModelSpec, arrival: Arrival) -> None:
    """Fill table `new_word`."""
    path, name = file
    kind = contract.format_of(name)
    if unreadable := contract.unreadable(path, name):
        raise LabelsError([f"{name}: {violation.message}" for violation in unreadable])
    refused = []
    try:
        if kind == "parquet":
            _take(db, parquet([path]), spec, name)
        else:
            try:
                _take(db, csv([path]), spec, name)
            except duckdb.InvalidInputException as error:
                line = contract.unfit_line(error)
                _take(db, csv_without_rejects(path), spec, name)
                (rows,) = one_row(db, "SELECT count(*) FROM told")
                refused.append(contract.unfit(db, path, rows, line))
    except HeaderError as error:
        raise LabelsError([f"{name}: {error}"]) from error
    except duckdb.Error as error:
        # Whatever a file does to the reader is a finding about the file.
        raise LabelsError([f"{name}: {contract.cannot_read(kind, error)}"]) from error
    problems = [f"{name}: lines {', '.join(map(str, v.lines))}: {v.message}" for v in refused]
    problems += _wrong(db, spec, name, arrival)
    if problems:
        raise LabelsError(problems)
    db.execute(
        "CREATE OR REPLACE TEMP TABLE new_word AS SELECT "
        "inference_id, CAST(TRY_CAST(row AS DOUBLE) AS BIGINT) AS row, "
        f"{outcome('target', spec.task)} AS target, {_moment(CLOCK)} AS {CLOCK}, "
        f"{timestamp(arrival.at)} AS told_at, {literal(arrival.sequencer)} AS sequencer, "
        f"{literal(arrival.version)} AS version, {literal(arrival.key)} AS key FROM told"
    )


def _take(db: duckdb.DuckDBPyConnection, reader: str, spec: ModelSpec, name: str) -> None:
    """Fill table `told` with the columns that matter, as texts."""
    columns = {str(column) for column, *_ in db.execute(f"DESCRIBE FROM {reader}").fetchall()}
    absent = [column for column in ("inference_id", spec.target) if column not in columns]
    if absent:
        found = ", ".join(repr(shortened(column)) for column in sorted(columns)[:20])
        raise LabelsError([f"{name}: column {column!r} is missing among {found}: add it" for column in absent])
    place = "CAST(row AS VARCHAR)" if "row" in columns else "'0'"
    clock = f"nullif(trim(CAST({CLOCK} AS VARCHAR)), '')" if CLOCK in columns else "NULL::VARCHAR"
    db.execute(
        "CREATE OR REPLACE TEMP TABLE told AS SELECT "
        f"CAST(inference_id AS VARCHAR) AS inference_id, {place} AS row, "
        f"CAST({identifier(spec.target)} AS VARCHAR) AS target, {clock} AS {CLOCK} FROM {reader}"
    )


def _wrong(db: duckdb.DuckDBPyConnection, spec: ModelSpec, name: str, arrival: Arrival) -> Iterator[str]:
    place = "TRY_CAST(row AS DOUBLE)"
    what = "is no finite number" if spec.task is Task.REGRESSION else "is empty"
    for column, shown, broken, problem in (
        ("inference_id", "inference_id", "coalesce(inference_id, '') = ''", "is empty: name the request it belongs to"),
        (
            "row",
            "row",
            f"NOT coalesce({place} >= 0 AND {place} < 1e15 AND {place} = floor({place}), false)",
            "is no whole number from 0: number the predictions of each request from 0, or leave the column out",
        ),
        (
            spec.target,
            "target",
            f"{outcome('target', spec.task)} IS NULL",
            f"{what}: leave out rows whose outcome is not known yet",
        ),
        (
            CLOCK,
            CLOCK,
            f"{CLOCK} IS NOT NULL AND {_moment(CLOCK)} IS NULL",
            "is no time: write ISO 8601, as in 2013-01-31T17:00:00Z, or leave the column out",
        ),
        (
            CLOCK,
            CLOCK,
            f"{_moment(CLOCK)} > {timestamp(arrival.at + AHEAD)}" if arrival.version else "false",
            "is in the future: no later correction could replace such a label; correct the clock",
        ),
    ):
        count, samples = one_row(db, f"SELECT count(*), min({shown}, 3) FROM told WHERE {broken}")
        if count:
            yield f"{name}: column {column!r}: in {count:,} rows {_quoted(samples)} {problem}"
    count, samples = one_row(
        db,
        "SELECT count(*), min(inference_id || ' row ' || row, 3) FROM "
        f"(SELECT inference_id, row, {CLOCK} FROM told GROUP BY ALL HAVING count(*) > 1)",
    )
    if count:
        yield (
            f"{name}: columns 'inference_id' and 'row': {count:,} pairs occur more than once, as in "
            f"{_quoted(samples)}: give each prediction one label, or each its own {CLOCK!r}"
        )


def _quoted(samples: Sequence[str] | None) -> str:
    return ", ".join(repr(sample[:80]) for sample in samples or [""])


def _moment(text: str) -> str:
    """SQL: a UTC time of a text; NULL for what is none."""
    return f"TRY_CAST({text} AS TIMESTAMPTZ)::TIMESTAMP"


def outcome(column: str, task: Task) -> str:
    """SQL: a finite number or a label; NULL for what is neither."""
    if task is not Task.REGRESSION:
        return label(column)
    return f"CASE WHEN isfinite(TRY_CAST({column} AS DOUBLE)) THEN TRY_CAST({column} AS DOUBLE) END"


# --- coverage


class Coverage(Part):
    """Of the champion's predictions from `since` to `until`, old enough to have one, how many have a label.

    Delays are from the prediction to the arrival of its first label, in hours; None without any label.
    """

    since: AwareDatetime
    until: AwareDatetime
    predictions: int
    labelled: int
    delay_p50_hours: float | None = None
    delay_p95_hours: float | None = None

    @property
    def share(self) -> float | None:
        """None when nothing was predicted then: that is not enough data, and neither good nor bad."""
        return self.labelled / self.predictions if self.predictions else None


def coverage(
    captured: Source, told: Sequence[Path], spec: ModelSpec, *, resources: Resources = MODEST
) -> tuple[int, int, float | None, float | None]:
    """Predictions, those of them that words speak of, and the median and 95th percentile of their delay in hours."""
    with cursor(resources) as db:
        predictions, labelled, p50, p95 = one_row(
            db,
            f"""WITH predicted AS (
                SELECT inference_id, row, max(time) AS time
                FROM {capture.relation(captured.paths, spec, since=captured.since, until=captured.until)}
                WHERE {answered(spec)} GROUP BY inference_id, row
            ), first AS (
                SELECT inference_id, row, min(told_at) AS told_at FROM {words_of(told, spec)} GROUP BY inference_id, row
            ), delayed AS (
                SELECT told_at, CASE WHEN told_at IS NOT NULL THEN greatest(epoch(told_at) - epoch(time), 0) / 3600 END
                    AS hours
                FROM predicted LEFT JOIN first USING (inference_id, row)
            )
            SELECT count(*), count(told_at), quantile_cont(hours, 0.5), quantile_cont(hours, 0.95) FROM delayed""",
        )
    return predictions, labelled, p50, p95


def answered(spec: ModelSpec) -> str:
    """SQL: whether a captured row holds an answer that can be judged."""
    usable = "isfinite(score)" if spec.task is Task.BINARY else f"{outcome('prediction', spec.task)} IS NOT NULL"
    return f"NOT malformed AND coalesce({usable}, false)"
