"""The interpreter that stands for AWS's scikit-learn image: built once, and again when its requirements change."""

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.lock")


def build(directory: Path) -> Path:
    """Build the environment in `directory`, unless it is there already; returns its interpreter.

    It is complete or absent: what was begun and not finished is begun anew. Raises RuntimeError with uv's reasons.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    stamp = directory / "built-from"
    python = directory / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, with_pip=True, symlinks=True)
    sync = [sys.executable, "-m", "uv", "pip", "sync", "--require-hashes", "--python", str(python), str(REQUIREMENTS)]
    ran = subprocess.run(sync, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"uv could not install the container's packages:\n{ran.stderr[-2000:]}")
    stamp.write_text(wanted)
    return python
