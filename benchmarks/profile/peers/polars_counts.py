"""polars, lazily: count, missing, least, largest, mean, and PSI, KS and Jensen-Shannon on deciles, by hand."""

import sys
from collections.abc import Mapping
from itertools import pairwise
from math import log, sqrt
from typing import Any

import polars as pl

from benchmarks.profile.peers.columns import CATEGORIES, FEATURES, NUMBERS


def scan(path: str) -> pl.LazyFrame:
    return pl.scan_parquet(path) if path.endswith(".parquet") else pl.scan_csv(path)


reference, current = map(scan, sys.argv[1:3])
cuts = reference.select(
    pl.col(name).quantile(i / 10).alias(f"{name} {i}") for name in NUMBERS for i in range(1, 10)
).collect()
edges = {name: sorted({cuts[f"{name} {i}"][0] for i in range(1, 10)}) for name in NUMBERS}


def counts(frame: pl.LazyFrame) -> dict[str, Any]:
    asked = [pl.len().alias("rows")]
    for name in FEATURES:
        asked.append(pl.col(name).count().alias(f"{name} count"))
    for name in NUMBERS:
        asked += [getattr(pl.col(name), what)().alias(f"{name} {what}") for what in ("min", "max", "mean")]
        asked += [(pl.col(name) <= edge).sum().alias(f"{name} at {i}") for i, edge in enumerate(edges[name])]
    for name in CATEGORIES:
        asked.append(pl.col(name).value_counts().implode().alias(name))
    return frame.select(asked).collect(engine="streaming").row(0, named=True)


def shares(found: Mapping[str, Any], name: str) -> dict[Any, int]:
    if name in CATEGORIES:
        return {value[name]: value["count"] for value in found[name]}
    at_most = [0, *(found[f"{name} at {i}"] for i in range(len(edges[name]))), found[f"{name} count"]]
    return {i: high - low for i, (low, high) in enumerate(pairwise(at_most))}


before, after = counts(reference), counts(current)
for name in FEATURES:
    b, a = shares(before, name), shares(after, name)
    n, m = sum(b.values()), sum(a.values())
    pairs = [((b.get(k, 0) + 1) / (n + len(b)), (a.get(k, 0) + 1) / (m + len(b))) for k in {*a, *b}]
    psi = sum((q - p) * log(q / p) for p, q in pairs)
    js = sqrt(max(0.0, sum(p * log(2 * p / (p + q)) + q * log(2 * q / (p + q)) for p, q in pairs) / 2))
print(len(FEATURES))
