"""Both files as pandas frames of the features."""

import sys

import pandas

from benchmarks.profile.peers.columns import FEATURES


def frames() -> "tuple[pandas.DataFrame, pandas.DataFrame]":
    reference, current = (
        pandas.read_parquet(path, columns=FEATURES)
        if path.endswith(".parquet")
        else pandas.read_csv(path, usecols=FEATURES)
        for path in sys.argv[1:3]
    )
    return reference, current
