"""Who is compared. Every program gets the reference and the current file, and prints how many features it compared."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from local.cloud import WORK

HOME = WORK / "benchmarks"
PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Contender:
    """`pins`: the packages of its own environment; Noria's environment where None. `slow` ones run once."""

    name: str
    program: str
    pins: str | None = None
    slow: bool = False
    library: bool = True
    """Whether it is a library that tells drift, and not a tool with which statistics are written by hand."""

    @property
    def command(self) -> list[str | Path]:
        python = sys.executable if self.pins is None else self._python
        return [python, "-m", f"benchmarks.profile.peers.{self.program}"]

    @property
    def _python(self) -> Path:
        return HOME / f"profile-{self.pins}" / "bin" / "python"

    def install(self) -> None:
        """Its environment, made from the pinned packages unless it is there already."""
        if self.pins is None:
            return
        pins, made = PEERS / f"{self.pins}.txt", self._python.parent.parent / ".ready"
        if made.exists() and made.read_bytes() == pins.read_bytes():
            return
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, made.parent], check=True)
        subprocess.run(
            [uv, "pip", "install", "-q", "--compile-bytecode", "--python", self._python, "-r", pins], check=True
        )
        shutil.copyfile(pins, made)


BARE = Contender("bare DuckDB scan", "bare", library=False)
NORIA = Contender("Noria", "noria_check", library=False)
STARTS = {BARE.name: BARE, NORIA.name: Contender("Noria", "noria_start", library=False)}
"""Programs that read no file, as `bare` is given none: what the two above take before they do."""
OTHERS = (
    Contender("polars, by hand", "polars_counts", "polars", library=False),
    Contender("pandas with scipy, by hand", "pandas_scipy", "pandas", slow=True, library=False),
    Contender("frouros", "frouros_tests", "frouros", slow=True),
    Contender("alibi-detect", "alibi", "alibi-detect", slow=True),
    Contender("NannyML", "nannyml_drift", "nannyml", slow=True),
    Contender("deepchecks", "deepchecks_drift", "deepchecks", slow=True),
    Contender("whylogs", "whylogs_profile", "whylogs", slow=True),
    Contender("Evidently", "evidently_drift", "evidently", slow=True),
)
