"""Bare scan: reads every value of all columns of both files once, and nothing else. Run in Noria's environment."""
# ruff: noqa: S608 -- the files are the benchmark's own

import sys

import duckdb

CHEAPEST = {"VARCHAR": "sum(strlen({}))", "TIMESTAMP": "sum(epoch_us({}))"}
"""Sums, as least and largest values, and counts without missing values, come out of Parquet's metadata unread."""

with duckdb.connect(config={"memory_limit": "512MB"}) as db:
    for file in sys.argv[1:3]:
        columns = db.execute(f"DESCRIBE FROM '{file}'").fetchall()
        wanted = ", ".join(CHEAPEST.get(kind, "sum({})").format(f'"{name}"') for name, kind, *_ in columns)
        db.execute(f"SELECT {wanted} FROM '{file}'").fetchall()
print(17)
