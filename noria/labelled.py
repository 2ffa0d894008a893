"""Predictions that have a label: the joined table of a day, and the training data and hard cases made of it.

captured requests ─ predictions() ┐
words ────────────────────────────┼ join_day() ─ joined ─ dataset() ─ an upload (noria.feedback)
joined so far ────────────────────┘
        predictions, words ─ hard_cases() ─ what people should look at
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
from pydantic import AwareDatetime, BaseModel, ConfigDict

from noria import capture
from noria.labels import NEWEST, WORD, LabelsFile, answered, labels_of, word_types, words_of
from noria.profile import Source
from noria.spec import Feature, FeatureType, ModelSpec, Task
from noria.sql import (
    MODEST,
    Resources,
    cursor,
    identifier,
    label,
    listing,
    literal,
    number,
    one_row,
    parquet,
    paths,
    timestamp,
)
from noria.violations import MASK

HARD_CASES = "quality/hard-cases.json"
"""The newest list of them, under the model's reports/."""

LISTED = 50
"""Hard cases of a kind: about what a person looks at in an hour."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


# --- the joined table


class Joined(NamedTuple):
    """`state` names the rows: the same rows have the same. `number` grows whenever they change."""

    rows: int
    number: int
    state: str


def predictions(captured: Mapping[str, Source], spec: ModelSpec, *, to: Path, resources: Resources = MODEST) -> None:
    """Write what each variant answered, in Parquet; what was asked twice under one inference id, as answered last.

    Columns: variant, inference_id, row, time (UTC), `feature.<name>` …, prediction, score, scores (label to p).
    """
    parts = [_nothing(spec), *(_captured(variant, source, spec) for variant, source in sorted(captured.items()))]
    with cursor(resources) as db:
        db.sql(_once(f"({' UNION ALL BY NAME '.join(parts)})", spec)).write_parquet(str(to))


def join_day(
    predicted: Path,
    told: Sequence[Path],
    joined: Path | None,
    spec: ModelSpec,
    *,
    to: Path,
    resources: Resources = MODEST,
) -> Joined:
    """Write the labelled predictions of a day: those of before (`joined`) and of `predicted`, each with its last word.

    Columns as of `predictions`, then those of the word, whose `target` is the label. It is a union: whose captured
    files have expired, and words that are no longer read, are in `joined` already. Where nothing is new, `joined` is
    written again.
    """
    before = state_of(joined, resources=resources) if joined else Joined(rows=0, number=0, state="")
    with cursor(resources) as db:
        known = f" UNION ALL BY NAME FROM {parquet([joined])}" if joined else ""
        db.execute(f"CREATE TEMP VIEW before AS {_nothing_joined(spec)}{known}")
        db.execute(
            "CREATE TEMP TABLE last AS SELECT * FROM ("
            f"SELECT inference_id, row, {', '.join(WORD)} FROM {words_of(told, spec)} "
            f"SEMI JOIN (SELECT inference_id, row FROM {parquet([predicted])} UNION ALL "
            "SELECT inference_id, row FROM before) USING (inference_id, row) "
            f"UNION ALL SELECT inference_id, row, {', '.join(WORD)} FROM before"
            f") QUALIFY row_number() OVER (PARTITION BY inference_id, row ORDER BY {NEWEST}) = 1"
        )
        every = (
            f"({_nothing(spec)} UNION ALL BY NAME SELECT * EXCLUDE ({', '.join(WORD)}) FROM before "
            f"UNION ALL BY NAME FROM {parquet([predicted])} SEMI JOIN last USING (inference_id, row))"
        )
        db.execute(
            f"COPY (SELECT answer.*, {', '.join(WORD)} FROM ({_once(every, spec)}) answer "
            "JOIN last USING (inference_id, row) ORDER BY variant, inference_id, row) "
            f"TO {literal(str(to))} (FORMAT parquet, KV_METADATA {{{_NUMBER}: '{before.number + 1}'}})"
        )
    after = state_of(to, resources=resources)
    if joined and (after.rows, after.state) == (before.rows, before.state):
        shutil.copyfile(joined, to)
        return before
    return after


_NUMBER = "noria_number"


def state_of(joined: Path, *, resources: Resources = MODEST) -> Joined:
    with cursor(resources) as db:
        rows, state = _state(db, joined)
        (number,) = one_row(
            db, f"SELECT value::VARCHAR::BIGINT FROM parquet_kv_metadata({paths([joined])}) WHERE key = '{_NUMBER}'"
        )
    return Joined(rows=rows, number=number, state=state)


def _state(db: duckdb.DuckDBPyConnection, table: Path) -> tuple[int, str]:
    """How many rows a table has, and a name of what they are, in whatever order."""
    rows, total = one_row(db, f"SELECT count(*), coalesce(sum(hash(t)), 0) FROM {parquet([table])} t")
    return rows, f"{int(total) % 2**64:016x}"


def newest(
    joined: Sequence[Path], *, variant: str, since: datetime | None, resources: Resources = MODEST
) -> datetime | None:
    """When a variant made the newest of its labelled predictions since then."""
    if not joined:
        return None
    with cursor(resources) as db:
        (found,) = one_row(db, f"SELECT max(time) FROM {parquet(joined)} WHERE variant = {literal(variant)}")
    moment = found.replace(tzinfo=UTC) if found else None
    return moment if moment and (since is None or moment >= since) else None


class Made(NamedTuple):
    """`state` names the rows: the same rows have the same."""

    rows: int
    state: str


def dataset(
    joined: Path, earlier: Path | None, spec: ModelSpec, *, number: int, to: Path, resources: Resources = MODEST
) -> Made:
    """Write the labelled requests of a day as training data, one row for each that was predicted.

    Those that were asked on the day before too, whose table is `earlier`, are learnt from there: retries at midnight.
    The event's time is when it was predicted; the id, where the spec has one, is the inference id, with `#<row>` for
    all but the first row of a request. Requests that break the contract of a column are left out: nobody can correct
    what was asked. `number` is written into the file, so that labels that are corrected back are another file than the
    first was, and come after the correction.
    """
    target, time = identifier(spec.target), identifier(spec.time)
    named = "CASE WHEN row = 0 THEN inference_id ELSE inference_id || '#' || row END"
    columns = [f"{named} AS {identifier(spec.id)}"] if spec.id else []
    columns += [f"time AS {time}", *(f"{_value(name, f)} AS {identifier(name)}" for name, f in spec.features.items())]
    kept = " AND ".join(["true", *(_allowed(name, feature) for name, feature in spec.features.items())])
    # A shadow is asked what the champion was asked: it is one request, and was labelled once.
    one = "PARTITION BY inference_id, row ORDER BY variant <> 'champion', variant"
    again = f"ANTI JOIN {parquet([earlier])} earlier USING (inference_id, row)" if earlier else ""
    with cursor(resources) as db:
        db.execute(
            f"COPY (SELECT {', '.join(columns)}, target AS {target} FROM {parquet([joined])} joined {again} "
            f"WHERE {kept} QUALIFY row_number() OVER ({one}) = 1 ORDER BY time, inference_id, row) "
            f"TO {literal(str(to))} (FORMAT parquet, KV_METADATA {{{_NUMBER}: '{number}'}})"
        )
        rows, state = _state(db, to)
    return Made(rows=rows, state=state)


def judged_until(
    predicted: Sequence[Path],
    told: Sequence[Path],
    spec: ModelSpec,
    *,
    variant: str,
    since: datetime,
    settled: datetime,
    resources: Resources = MODEST,
) -> datetime | None:
    """Until when a variant's predictions of `since` or later can be judged: before the first that still waits.

    It waits when it has no label, was made at `settled` or later, and after another that has one. None where nothing
    waits. What is labelled early is labelled early for a reason, so that what has a label so far must not speak for
    what has none; where all until then have theirs, at most one request's that come late is missed, on average
    (docs/decisions/0019-labels-judge-beyond-chance.md).
    """
    with cursor(resources) as db:
        (found,) = one_row(
            db,
            f"""WITH made AS (
                SELECT inference_id, row, max(time) AS time FROM {parquet(predicted)}
                WHERE variant = {literal(variant)} AND time >= {timestamp(since)} GROUP BY inference_id, row
            ), known AS (
                SELECT time, target IS NOT NULL AS labelled
                FROM made LEFT JOIN ({labels_of(told, spec)}) USING (inference_id, row)
            )
            SELECT min(time) FROM known WHERE NOT labelled AND time >= {timestamp(settled)}
                AND time >= (SELECT min(time) FROM known WHERE labelled)""",
        )
    return found.replace(tzinfo=UTC) if found else None


def labels_about(
    predicted: Sequence[Path],
    told: Sequence[Path],
    spec: ModelSpec,
    *,
    variant: str,
    since: datetime,
    until: datetime,
    to: Path,
    resources: Resources = MODEST,
) -> LabelsFile:
    """Write the labels of what a variant predicted in [since, until), as a labels file."""
    with cursor(resources) as db:
        made = (
            f"FROM {parquet(predicted)} WHERE variant = {literal(variant)} "
            f"AND time >= {timestamp(since)} AND time < {timestamp(until)}"
        )
        db.sql(
            f"SELECT inference_id, row, target AS {identifier(spec.target)} FROM ({labels_of(told, spec)}) "
            f"SEMI JOIN ({made}) USING (inference_id, row)"
        ).write_parquet(str(to))
    return LabelsFile(to, to.name)


def classes(predicted: Sequence[Path], *, variant: str, resources: Resources = MODEST) -> frozenset[str]:
    """Some of the labels that a variant predicts: more than two where there are more."""
    if not predicted:
        return frozenset()
    with cursor(resources) as db:
        found = db.execute(
            f"SELECT DISTINCT {label('prediction')} AS name FROM {parquet(predicted)} "
            f"WHERE variant = {literal(variant)} AND name IS NOT NULL LIMIT 5"
        ).fetchall()
    return frozenset(name for (name,) in found)


def found_of(
    predicted: Path, joined: Path | None, words: Path, spec: ModelSpec, *, rest: Path, resources: Resources = MODEST
) -> int:
    """How many of the predictions that `words` speak of were made that day, by any variant; the other words: `rest`."""
    known = [parquet([path]) for path in (predicted, joined) if path]
    made = " UNION ALL ".join(f"SELECT inference_id, row FROM {table}" for table in known)
    said = words_of([words], spec)
    with cursor(resources) as db:
        db.sql(f"FROM {said} ANTI JOIN ({made}) USING (inference_id, row)").write_parquet(str(rest))
        (count,) = one_row(
            db, f"SELECT count(DISTINCT (inference_id, row)) FROM {said} SEMI JOIN ({made}) USING (inference_id, row)"
        )
    return int(count)


# --- hard cases


class HardCase(Part):
    """A prediction worth a look. Values of sensitive features are masked. `label` is None while nobody knows it.

    `measure`: of the unsure the probability of what was predicted; of the surprising that of what was true, or, of a
    regression, the absolute error.
    """

    inference_id: str
    row: int
    time: AwareDatetime
    features: dict[str, float | str | None]
    prediction: str
    label: str | None
    measure: float


class HardCases(Part):
    """The least confident predictions that have no label, and the wrong ones that were most confident.

    Of each at most `LISTED`, of the champion's predictions from `since` to `until`. A regression has no confidence:
    its surprising predictions are those furthest from the truth.
    """

    model: str
    since: AwareDatetime
    until: AwareDatetime
    unsure: tuple[HardCase, ...]
    surprising: tuple[HardCase, ...]


def hard_cases(
    predicted: Sequence[Path],
    told: Sequence[Path],
    spec: ModelSpec,
    *,
    variant: str,
    since: AwareDatetime,
    until: AwareDatetime,
    resources: Resources = MODEST,
) -> HardCases:
    unsure: tuple[HardCase, ...] = ()
    surprising: tuple[HardCase, ...] = ()
    if predicted:
        with cursor(resources) as db:
            db.execute(
                f"CREATE TEMP VIEW known AS SELECT p.*, l.target AS label, {_SURE[spec.task]} AS sure, "
                f"{_TRUE[spec.task]} AS measured FROM {parquet(predicted)} p LEFT JOIN ({labels_of(told, spec)}) l "
                f"USING (inference_id, row) WHERE variant = {literal(variant)} AND time >= {timestamp(since)} "
                "QUALIFY row_number() OVER (PARTITION BY inference_id, row ORDER BY time DESC) = 1"
            )
            unsure = _listed(db, spec, "sure", "label IS NULL AND sure IS NOT NULL", "sure")
            wrong = "true" if spec.task is Task.REGRESSION else "measured < 0.5"
            first = "measured DESC" if spec.task is Task.REGRESSION else "measured"
            surprising = _listed(db, spec, "measured", f"label IS NOT NULL AND {wrong}", first)
    return HardCases(model=spec.model, since=since, until=until, unsure=unsure, surprising=surprising)


_PREDICTED = label("prediction")
_OF_LABEL = "coalesce(map_extract(scores, label)[1], 0.0)"
_SURE = {
    Task.BINARY: "greatest(score, 1 - score)",
    Task.MULTICLASS: "list_max(map_values(scores))",
    Task.REGRESSION: "NULL::DOUBLE",
}
"""SQL: the probability of what was predicted."""
_TRUE = {
    Task.BINARY: f"CASE WHEN {_PREDICTED} = label THEN greatest(score, 1 - score) ELSE least(score, 1 - score) END",
    Task.MULTICLASS: f"CASE WHEN scores IS NULL THEN ({_PREDICTED} = label)::DOUBLE ELSE {_OF_LABEL} END",
    Task.REGRESSION: "abs(TRY_CAST(prediction AS DOUBLE) - label)",
}
"""SQL: the probability of what was true; of a regression the error."""


def _listed(
    db: duckdb.DuckDBPyConnection, spec: ModelSpec, measure: str, which: str, first: str
) -> tuple[HardCase, ...]:
    values = ", ".join(
        f"{literal(MASK)} AS {_feature(name)}" if feature.sensitive else _feature(name)
        for name, feature in spec.features.items()
    )
    rows = db.execute(
        f"SELECT inference_id, row, time, prediction, label::VARCHAR, {measure}, {values} FROM known "
        f"WHERE {which} ORDER BY {first}, time DESC, inference_id, row LIMIT {LISTED}"
    ).fetchall()
    return tuple(
        HardCase(
            inference_id=inference_id,
            row=row,
            time=time.replace(tzinfo=UTC),
            prediction=prediction or "",
            label=truth,
            measure=measured,
            features=dict(zip(spec.features, features, strict=True)),
        )
        for inference_id, row, time, prediction, truth, measured, *features in rows
    )


# --- columns


def _feature(name: str) -> str:
    return identifier(f"feature.{name}")


def _types(spec: ModelSpec) -> dict[str, str]:
    """Columns of a table of predictions by name, with their types."""
    features = {
        _feature(name): "VARCHAR" if feature.type is FeatureType.CATEGORY else "DOUBLE"
        for name, feature in spec.features.items()
    }
    before = {"variant": "VARCHAR", "inference_id": "VARCHAR", "row": "BIGINT", "time": "TIMESTAMP"}
    return before | features | {"prediction": "VARCHAR", "score": "DOUBLE", "scores": "MAP(VARCHAR, DOUBLE)"}


def _nothing(spec: ModelSpec) -> str:
    return f"SELECT {', '.join(f'NULL::{kind} AS {name}' for name, kind in _types(spec).items())} WHERE false"


def _nothing_joined(spec: ModelSpec) -> str:
    kinds = word_types(spec)
    return f"SELECT *, {', '.join(f'NULL::{kinds[name]} AS {name}' for name in WORD)} FROM ({_nothing(spec)})"


def _captured(variant: str, source: Source, spec: ModelSpec) -> str:
    features = [f"f{place} AS {_feature(name)}" for place, name in enumerate(spec.features)]
    # Labels of classes are written one way, as words are, so that they can be looked up.
    scores = f"map_from_entries(list_transform(map_entries(scores), lambda e: ({label('e.key')}, e.value)))"
    return (
        f"SELECT {literal(variant)} AS variant, inference_id, row, time, {', '.join(features)}, prediction, score, "
        f"{scores} AS scores FROM {capture.relation(source.paths, spec, since=source.since, until=source.until)} "
        f"WHERE {answered(spec)}"
    )


def _once(table: str, spec: ModelSpec) -> str:
    """Each prediction once, the newest; in the spec's types, which may have changed since a file was written."""
    types = _types(spec)
    typed = ", ".join(f"TRY_CAST({name} AS {kind}) AS {name}" for name, kind in types.items())
    ties = ", ".join(name for name in types if name not in {"variant", "inference_id", "row", "time", "scores"})
    return (
        f"SELECT {typed} FROM {table} QUALIFY row_number() OVER "
        f"(PARTITION BY variant, inference_id, row ORDER BY time DESC, {ties}) = 1"
    )


def _value(name: str, feature: Feature) -> str:
    column = _feature(name)
    if feature.type is FeatureType.CATEGORY:
        return f"nullif({column}, '')"
    return f"CAST({column} AS BIGINT)" if feature.type is FeatureType.INTEGER else column


def _allowed(name: str, feature: Feature) -> str:
    """SQL: whether a value keeps the contract of its column, as far as one value can."""
    return f"({_feature(name)} IS NULL OR coalesce({' AND '.join(_bounds(name, feature))}, false))"


def _bounds(name: str, feature: Feature) -> Iterator[str]:
    column = _feature(name)
    yield "true"
    if feature.type is FeatureType.CATEGORY:
        if feature.values is not None:
            yield f"{column} IN {listing(map(literal, ('', *feature.values)))}"
        return
    yield f"isfinite({column})"
    if feature.type is FeatureType.INTEGER:
        yield f"{column} = floor({column}) AND abs({column}) <= {number(2.0**53)}"
    if feature.min is not None:
        yield f"{column} >= {number(feature.min)}"
    if feature.max is not None:
        yield f"{column} <= {number(feature.max)}"
