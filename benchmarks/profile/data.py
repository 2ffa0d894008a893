"""The files that everybody reads: flights of 2013 with their weather, drawn with replacement, 17 features each.

Reference rows are of January to June, current rows of July to December. In the continuous variant nine of the numbers
carry a uniform jitter of half a unit, so that hardly two values are equal. Times are distinct, so that rows are.
"""
# ruff: noqa: S608 -- SQL is built from the names below

from pathlib import Path

from benchmarks.profile.peers.columns import NUMBERS
from local.demo import flights

CURRENT, REFERENCE = 3_000_000, 260_000
JITTERED = NUMBERS[5:]

_FLIGHTS = """
    SELECT hour, minute, month, day, flight, carrier, origin, dest, distance,
        temp, dewp, humid, wind_dir, wind_speed, precip, pressure, visib, (arr_delay > 15)::INTEGER AS late
    FROM flights LEFT JOIN weather USING (origin, year, month, day, hour)
    WHERE arr_delay IS NOT NULL AND month {half}
    ORDER BY month, day, hour, minute, carrier, flight, origin
"""
_HALVES = {"reference": "<= 6", "current": "> 6"}


def file(folder: Path, name: str, *, rows: int, kind: str = "parquet", continuous: bool = False) -> Path:
    """`reference` or `current` rows as a file; made when it is asked for first."""
    variant = "continuous" if continuous else "plain"
    path = folder / f"{name}-{rows}-{variant}.{kind}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    db = flights.tables()
    db.execute(f"CREATE OR REPLACE TEMP TABLE pool AS {_FLIGHTS.format(half=_HALVES[name])}")
    ((size,),) = db.execute("SELECT count(*) FROM pool").fetchall()
    jitter = ", ".join(f"{c} + (hash(r, '{c}') % 1000003) / 1000003 - 0.5 AS {c}" for c in JITTERED)
    columns = f"* EXCLUDE (r) REPLACE ({jitter})" if continuous else "* EXCLUDE (r)"
    part = path.with_suffix(".part")
    db.execute(
        f"COPY (SELECT TIMESTAMP '2013-01-01' + to_milliseconds(r) AS ts, {columns} FROM "
        f"(SELECT r, pool.* EXCLUDE (place) FROM "
        f"(SELECT range AS r, (hash(range, '{name}') % {size})::BIGINT AS draw FROM range({rows})) "
        f"JOIN (SELECT row_number() OVER () - 1 AS place, * FROM pool) AS pool ON place = draw)) "
        f"TO '{part}' (FORMAT {kind})"
    )
    part.rename(path)
    return path
