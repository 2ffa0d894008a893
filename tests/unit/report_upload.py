"""Reports of uploads to render, by the contract itself."""

from pathlib import Path

from noria import contract
from noria.profile import Source, profile
from tests.unit.engine_data import NOW, SMALL
from tests.unit.report_run import HOSTILE, spec

ROWS = 600


def _file(folder: Path, name: str, *, x: float, color: str, header: str = "x,size,color,at,y") -> Path:
    lines = [f"{x + row / 100},{row % 5},{color},2026-11-20T{row % 24:02d}:00:00Z,{row % 2}" for row in range(ROWS)]
    path = folder / name
    path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return path


def accepted(folder: Path) -> contract.Report:
    """A file that keeps the contract, and has shifted from what the live model was trained on."""
    of = spec()
    baseline = profile(Source.files(_file(folder, "before.csv", x=0, color="red")), of, resources=SMALL)
    path = _file(folder, "after.csv", x=3, color="blue")
    return contract.check(path, of, filename=path.name, now=NOW, baseline=baseline, resources=SMALL)


def refused(folder: Path) -> contract.Report:
    """A file whose name, columns and values were chosen by an enemy."""
    of = spec(contract={"severity": {"formula": "reject"}})
    header = "x,size,color,at,\"<script>document.title = 'owned'</script>\""
    path = _file(folder, "enemy.csv", x=0, color=f"=cmd|{HOSTILE[0]}", header=header)
    return contract.check(path, of, filename=f"{HOSTILE[1]}.csv", now=NOW, resources=SMALL)
