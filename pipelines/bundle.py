"""What jobs unpack: archives with the same bytes for the same content.

| archive            | holds                                                                              |
|--------------------|------------------------------------------------------------------------------------|
| `sourcedir.tar.gz` | `run.py`, `noria` and `pipelines`: everything a step imports that is ours           |
| `wheels.tar.gz`    | packages that the container's image lacks, as they are installed; none for `local`  |
"""

import ast
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Target = Literal["aws", "local"]

PIPELINES = Path(__file__).resolve().parent
REPOSITORY = PIPELINES.parent
REQUIREMENTS = PIPELINES / "container.txt"

# AWS's image sagemaker-scikit-learn:1.9-0 has Python 3.12 on x86_64, and a glibc newer than 2.28.
_AWS = ("--python-version", "3.12", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64")


def code_archive(out: Path) -> Path:
    """Write the code of the steps to `out`."""
    steps = (PIPELINES / "tabular" / "steps").glob("*.py")
    files = {path.relative_to(REPOSITORY).as_posix(): path for path in _with_imports(steps)}
    return _pack([("run.py", PIPELINES / "run.py"), *files.items()], out)


def wheels_archive(out: Path, target: Target) -> Path:
    """Write the packages of container.txt to `out`, for the container of `target`.

    For `aws` they come from the package index; the local container has them, and its archive is empty.
    """
    if target == "local":
        return _pack((), out)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-compile"]
        options = ["--no-deps", "--only-binary", ":all:", "--implementation", "cp", *_AWS, "--target", folder]
        subprocess.run([*command, *options, "--requirement", str(REQUIREMENTS)], check=True)
        installed = (path for path in Path(folder).rglob("*") if path.is_file())
        return _pack(((path.relative_to(folder).as_posix(), path) for path in installed), out)


def digest(archive: Path) -> str:
    """SHA-256 of a file, in hexadecimal: the placeholder NORIA_CODE_HASH of a code archive."""
    return hashlib.sha256(archive.read_bytes()).hexdigest()


def _with_imports(start: Iterable[Path]) -> set[Path]:
    """Modules of this repository that `start` imports, directly or not, and the packages they are in.

    Only these, so that the hash of the code changes when what a job does may change.
    """
    found: set[Path] = set()
    waiting = list(start)
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        waiting.append(path.parent / "__init__.py" if path.name != "__init__.py" else path.parents[1] / "__init__.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{name}" for name in names)]
            for module in (REPOSITORY.joinpath(*name.split(".")) for name in names):
                waiting += [module.with_suffix(".py"), module / "__init__.py"]
    return found


def _pack(files: Iterable[tuple[str, Path]], out: Path) -> Path:
    """A tar.gz that depends on names and contents alone: sorted, without owners, times and modes of its sources."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        out.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in sorted(files):
            content = path.read_bytes()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return out
