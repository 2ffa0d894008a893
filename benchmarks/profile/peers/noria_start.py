"""Noria's start alone: all that `noria_check` does before it reads a file."""

from benchmarks.profile.peers.noria_spec import SPEC
from noria import contract, profile  # noqa: F401 -- to import them is what is measured
from noria.sql import MODEST, cursor

with cursor(MODEST):
    print(len(SPEC.features))
