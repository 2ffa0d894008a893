"""Noria: the reference's profile, then the contract and all statistics of the current file in one scan of it.

The digest of the file is given, as by who received it: `noria.contract` would otherwise read the file once more.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.profile.peers.noria_spec import SPEC
from noria import contract, profile

reference, current = Path(sys.argv[1]), Path(sys.argv[2])
baseline = profile.profile(profile.Source.files(reference), SPEC)
report = contract.check(
    current, SPEC, filename=current.name, now=datetime(2026, 1, 1, tzinfo=UTC), sha256="0" * 64, baseline=baseline
)
if not report.accepted or report.shift is None:
    sys.exit(report.to_text())
print(len(report.shift.features))
