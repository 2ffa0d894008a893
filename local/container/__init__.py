"""The interpreter that stands for AWS's scikit-learn image: built once, and again when its requirements change."""

import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def build(directory: Path, *, report: Callable[[str], None]) -> Path:
    """Build the environment in `directory`, unless it is there already; returns its interpreter.

    It is complete or absent: what was begun and not finished is begun anew. `report` hears a line for each package.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    stamp = directory / "built-from"
    python = directory / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(directory, ignore_errors=True)
    report(f"Building {directory}")
    venv.create(directory, with_pip=True, symlinks=True)
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "-r",
        str(REQUIREMENTS),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        lines = [line.rstrip() for line in pip.stdout or () if not report_progress(line, report)]
    if pip.returncode:
        raise RuntimeError("\n".join(["pip could not install the container's packages:", *lines[-20:]]))
    stamp.write_text(wanted)
    return python


def report_progress(line: str, report: Callable[[str], None]) -> bool:
    """Report a line of pip's that says what it is at; False for any other line."""
    if line.startswith(("Collecting", "Building", "Installing")):
        report(line.strip()[:100])
        return True
    return False
