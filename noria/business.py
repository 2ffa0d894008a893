"""Business metrics: a number by the user's own SQL over what was predicted, and what came of it.

    captured requests ┐
    labels files ─────┴ table `predictions` ─ everything else locked away ─ the user's query ─ one number

The query is code of whoever writes specs, and reads what may be people's data: it runs where there is no file, no
network, no setting to change and no other table, with bounded memory and time. Whatever becomes of it, the other
monitors are not touched: what gives no number gives the reason.

DuckDB documentation, "Securing DuckDB".
"""
# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import math
import re
from collections.abc import Collection, Sequence
from decimal import Decimal
from threading import Timer

import duckdb

from noria import capture
from noria.labels import LabelsError, LabelsFile, answered, read_labels
from noria.monitors import Unknown
from noria.profile import Source
from noria.spec import FeatureType, ModelSpec, Task
from noria.sql import MODEST, Resources, connect, identifier, label

SECONDS = 30
"""How long a query may take."""

SPILL_MB = 1024
"""Disk that a query may use, beside what the predictions take."""

_REMEDY = "write one SELECT over table predictions that gives one row of one number"
_NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*\)")
_OWN = ("inference_id", "row", "time", "prediction", "score", "label")


def of_outcomes(spec: ModelSpec) -> frozenset[str]:
    """Metrics that ask what came of the predictions: those whose queries are none without the column `label`."""
    found = set()
    with connect(MODEST) as db:
        columns = (f"{name} {kind}" for name, kind in _columns(spec).items() if name != "label")
        db.execute(f"CREATE TABLE predictions ({', '.join(columns)})")
        lock(db)
        for name, metric in spec.monitor.business.items():
            try:
                db.execute(f"DESCRIBE {_query(db, metric.sql)}")
            except (duckdb.Error, QueryError):
                found.add(name)
    return frozenset(found)


def measure(
    source: Source,
    labels: Sequence[LabelsFile],
    spec: ModelSpec,
    *,
    names: Collection[str] | None = None,
    resources: Resources = MODEST,
) -> dict[str, float | Unknown]:
    """Business metrics of the spec over captured requests, those called `names` or all.

    `labels` files are in order of arrival.
    """
    wanted = {name: metric for name, metric in spec.monitor.business.items() if names is None or name in names}
    if not wanted:
        return {}
    with connect(resources) as db:
        try:
            read_labels(db, labels, spec)
        except LabelsError as error:
            return dict.fromkeys(wanted, Unknown(reason=str(error), failed=True))
        db.execute(f"CREATE TABLE predictions AS {_predictions(source, spec)}")
        lock(db)
        masked = any(feature.sensitive for feature in spec.features.values())
        return {name: _number(db, metric.sql, masked=masked) for name, metric in wanted.items()}


def problems(spec: ModelSpec) -> list[str]:
    """What is wrong with the queries of a spec, as far as it shows without predictions; a line each, with a remedy."""
    if not spec.monitor.business:
        return []
    taken = [name for name in spec.features if name.casefold() in _OWN]
    if taken:
        called = (
            f"{spec.model}: monitor.business: feature {taken[0]!r} is called like a column that every prediction has"
        )
        return [f"{called}: rename it, or do without business metrics"]
    found = []
    with connect(MODEST) as db:
        db.execute(f"CREATE TABLE predictions ({', '.join(f'{name} {kind}' for name, kind in _columns(spec).items())})")
        lock(db)
        for name, metric in spec.monitor.business.items():
            try:
                columns = db.execute(f"DESCRIBE {_query(db, metric.sql)}").fetchall()
                kinds = [str(kind) for _, kind, *_ in columns]
                wrong = None if len(kinds) == 1 and _NUMBERS.fullmatch(kinds[0]) else f"it gives {', '.join(kinds)}"
            except (duckdb.Error, QueryError) as error:
                wrong = _first_line(error)
            if wrong:
                found.append(f"{spec.model}: monitor.business.{name}.sql: {wrong}: {_REMEDY}")
    return found


# --- the table


def _columns(spec: ModelSpec) -> dict[str, str]:
    """Columns of `predictions`, quoted, with their types."""
    kinds = {FeatureType.CATEGORY: "VARCHAR", FeatureType.INTEGER: "BIGINT", FeatureType.NUMBER: "DOUBLE"}
    features = {identifier(name): kinds[feature.type] for name, feature in spec.features.items()}
    outcome = "DOUBLE" if spec.task is Task.REGRESSION else "VARCHAR"
    own = {"prediction": outcome, "label": outcome} | ({"score": "DOUBLE"} if spec.task is Task.BINARY else {})
    return {"inference_id": "VARCHAR", "row": "BIGINT", "time": "TIMESTAMP"} | features | own


def _predictions(source: Source, spec: ModelSpec) -> str:
    captured = capture.relation(source.paths, spec, since=source.since, until=source.until)
    predicted = "prediction" if spec.task is Task.REGRESSION else label("prediction")
    places = {identifier(name): f"f{place}" for place, name in enumerate(spec.features)}
    places |= {"prediction": predicted, "label": "target"}
    typed = (f"TRY_CAST({places.get(name, name)} AS {kind}) AS {name}" for name, kind in _columns(spec).items())
    return (
        f"SELECT {', '.join(typed)} FROM (FROM {captured} WHERE {answered(spec)} QUALIFY {_NEWEST}) "
        "LEFT JOIN label USING (inference_id, row)"
    )


_NEWEST = "row_number() OVER (PARTITION BY inference_id, row ORDER BY time DESC, prediction, score) = 1"


# --- the query


class QueryError(ValueError):
    """A query that cannot give a number, and why."""


def lock(db: duckdb.DuckDBPyConnection) -> None:
    """Leave nothing but table `predictions` to be read, and nothing to be changed."""
    for (name,) in db.execute("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall():
        db.execute(f"DROP TABLE {identifier(name)}")
    ((spilled,),) = db.execute("SELECT coalesce(sum(size), 0)::BIGINT FROM duckdb_temporary_files()").fetchall()
    for setting in (
        "enable_external_access = false",
        "python_enable_replacements = false",
        f"max_temp_directory_size = '{spilled // 2**20 + SPILL_MB}MiB'",
        "lock_configuration = true",
    ):
        db.execute(f"SET {setting}")


def _query(db: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The one query that `sql` is. Raises `QueryError`, or DuckDB's where it is no SQL."""
    statements = db.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(f"it holds {len(statements)} statements")
    if statements[0].type is not duckdb.StatementType.SELECT:
        raise QueryError(f"it is a statement of kind {statements[0].type.name}")
    return str(statements[0].query)


def _number(db: duckdb.DuckDBPyConnection, sql: str, *, masked: bool) -> float | Unknown:
    """`masked`: what DuckDB says of an error is not told, for it quotes values."""
    timer = Timer(SECONDS, db.interrupt)
    timer.start()
    try:
        rows = db.execute(_query(db, sql)).fetchmany(2)
        return _one_number(rows)
    except duckdb.InterruptException:
        return Unknown(reason=f"its query was not done after {SECONDS} seconds: ask for less", failed=True)
    except QueryError as error:
        return Unknown(reason=f"its query is of no use: {error}: {_REMEDY}", failed=True)
    except duckdb.Error as error:
        told = type(error).__name__ if masked else _first_line(error)
        return Unknown(reason=f"its query fails: {told}: {_REMEDY}", failed=True)
    finally:
        timer.cancel()


def _one_number(rows: Sequence[Sequence[object]]) -> float | Unknown:
    if len(rows) != 1:
        raise QueryError("it gives more than one row" if rows else "it gives no row")
    if len(rows[0]) != 1:
        raise QueryError(f"it gives {len(rows[0])} columns")
    (value,) = rows[0]
    if value is None:
        return Unknown(reason="its query gives NULL, as where no row meets its conditions")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise QueryError(f"it gives {value!r:.80}, which is no number")
    if not math.isfinite(value):
        raise QueryError(f"it gives {value}, as where it divides by nothing")
    return float(value)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
