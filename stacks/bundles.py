"""What functions are made of: zip files, the same bytes for the same content, built once and kept in `.noria/build`.

    python -m stacks.bundles --target aws|local|all     builds ahead, so that synth needs neither network nor time

| bundle            | holds                                           | unpacks to        |
|-------------------|-------------------------------------------------|-------------------|
| layer `runtime`   | requirements-runtime.txt, `noria`               | `/opt/python`     |
| layer `data`      | requirements-data.txt                           | `/opt/python`     |
| layer `tracking`  | requirements-tracking.txt, where trainings are tracked | `/opt/python` |
| layer `models`    | each model's spec as JSON                       | `/opt/models`     |
| a function        | its folder under `lambdas/`, as a package       | `/var/task`       |

Wheels match the target: Python 3.13 on arm64 for AWS, the interpreter at hand for the local cloud. Bytecode travels
with its source, because a function's file system is read-only and compiling takes a second of every cold start; it is
hash-based and unchecked (PEP 552), so that it doesn't depend on file times.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

from noria.spec import ModelSpec
from pipelines.bundle import REQUIREMENTS, code_archive, wheels_archive
from stacks.settings import Target

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / ".noria" / "build"
LAMBDAS = REPOSITORY / "lambdas"

FORMAT = "2"
"""Part of every bundle's identity: change it when this module builds something else from the same content."""

AWS_PYTHON = "3.13"
AWS_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
"""Lambda's python3.13 runs on Amazon Linux 2023, which has glibc 2.34."""

BOTO_SERVICES = frozenset(
    {
        "appconfigdata",
        "athena",
        "cloudformation",
        "cloudwatch",
        "dynamodb",
        "events",
        "kms",
        "lambda",
        "s3",
        "sagemaker",
        "sagemaker-runtime",
        "scheduler",
        "sns",
        "sqs",
        "ssm",
        "sts",
    }
)
"""Services whose API models stay in the layer; those of some 400 others are most of botocore's size."""


def runtime(target: Target) -> Path:
    noria = [
        (f"python/{path.relative_to(REPOSITORY).as_posix()}", path)
        for path in _sources(REPOSITORY / "noria")
        if not path.is_relative_to(REPOSITORY / "noria" / "cli")
    ]
    return _layer("runtime", target, LAMBDAS / "requirements-runtime.txt", noria)


def data(target: Target) -> Path:
    return _layer("data", target, LAMBDAS / "requirements-data.txt", [])


def tracking(target: Target) -> Path:
    return _layer("tracking", target, LAMBDAS / "requirements-tracking.txt", [])


def models(specs: Iterable[ModelSpec]) -> Path:
    """The layer of model specs as a folder, which CDK zips: it is small, and the local cloud reads it in place."""
    texts = {f"models/{spec.model}.json": spec.model_dump_json(indent=1) + "\n" for spec in specs}

    def fill(folder: Path) -> None:
        (folder / "models").mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")

    return _folder("models", _digest(f"{name}\0{text}".encode() for name, text in sorted(texts.items())), fill)


def spec_file(spec: ModelSpec) -> Path:
    return models([spec]) / "models" / f"{spec.model}.json"


def pipeline_code() -> Path:
    """What the steps of the training pipeline import that is ours."""
    with tempfile.TemporaryDirectory() as work:
        built = code_archive(Path(work) / "code.tar.gz")
        kept = BUILD / f"pipeline-code-{_digest([built.read_bytes()])}.tar.gz"
        return _keep(built, kept)


def pipeline_wheels(target: Target) -> Path:
    """The packages that the training container lacks."""
    kept = BUILD / f"pipeline-wheels-{target}-{_digest([FORMAT.encode(), REQUIREMENTS.read_bytes()])}.tar.gz"
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory() as work:
        return _keep(wheels_archive(Path(work) / "wheels.tar.gz", target), kept)


def function(name: str, target: Target) -> Path:
    """The zip file of one function: `lambdas/<name>/` with its bytecode."""
    files = [(path.relative_to(LAMBDAS).as_posix(), path) for path in _sources(LAMBDAS / name)]

    def fill(folder: Path) -> None:
        _copy(files, folder)
        _compile(folder, target, root="/var/task")

    return _archive(f"function-{name}-{target}", _digest([*_platform(target), *_contents(files)]), fill)


FRONT_DOOR = "front_door"


def functions() -> tuple[str, ...]:
    """Names of the folders that are functions."""
    return tuple(sorted(path.parent.name for path in LAMBDAS.glob("*/handler.py")))


IMPORT_PACKAGE = "import_package"
TRACK_TRAINING = "track_training"


def reactions() -> tuple[str, ...]:
    """The functions that events start in every environment.

    A front door is asked by people, what is imported comes from the registry of another account, and trainings are
    tracked where a server for that is named.
    """
    return tuple(name for name in functions() if name not in {FRONT_DOOR, IMPORT_PACKAGE, TRACK_TRAINING})


def _layer(name: str, target: Target, requirements: Path, extra: Sequence[tuple[str, Path]]) -> Path:
    wheels = _digest([*_platform(target), requirements.read_bytes(), *sorted(s.encode() for s in BOTO_SERVICES)])

    def install(folder: Path) -> None:
        _install(requirements, folder / "python", target)
        _compile(folder, target, root="/opt")

    def fill(folder: Path) -> None:
        installed = _folder(f"wheels-{name}-{target}", wheels, install)
        shutil.copytree(installed, folder, dirs_exist_ok=True, copy_function=os.link)
        added = folder.with_name("added")
        added.mkdir()
        _copy(extra, added)
        _compile(added, target, root="/opt")
        shutil.copytree(added, folder, dirs_exist_ok=True)

    return _archive(f"layer-{name}-{target}", _digest([wheels.encode(), *_contents(extra)]), fill)


def _platform(target: Target) -> list[bytes]:
    """What a target's bundles depend on besides their sources."""
    if target == "aws":
        parts = [AWS_PYTHON, *AWS_PLATFORMS]
    else:
        parts = [sys.implementation.cache_tag, platform.system(), platform.machine()]
    bytecode = "bytecode" if _interpreter(target) else "source"
    return [part.encode() for part in (FORMAT, target, *parts, bytecode)]


@cache
def _interpreter(target: Target) -> str | None:
    """The interpreter that compiles for `target`: its version must be the target's. None if there is no such one."""
    if target == "local" or platform.python_version().startswith(f"{AWS_PYTHON}."):
        return sys.executable
    installed = sorted(str(path) for path in Path.home().glob(f".pyenv/versions/{AWS_PYTHON}.*/bin/python"))
    candidates = [shutil.which(f"python{AWS_PYTHON}"), *installed]
    return next((python for python in candidates if python and _runs(python)), None)


def _runs(python: str) -> bool:
    command = [python, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == AWS_PYTHON


def _install(requirements: Path, folder: Path, target: Target) -> None:
    """Wheels only, no dependencies but those listed, and nothing that the functions don't read."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-compile", "--only-binary=:all:", f"--target={folder}", f"--requirement={requirements}"]
    if target == "aws":
        command += [f"--platform={tag}" for tag in AWS_PLATFORMS]
        command += [f"--python-version={AWS_PYTHON}", "--implementation=cp"]
    subprocess.run(command, check=True)
    for record in (*folder.glob("*.dist-info/RECORD"), *folder.glob("*.dist-info/direct_url.json")):
        record.unlink()
    tests = [path for path in folder.rglob("tests") if path.is_dir()]
    services = [path for path in folder.glob("botocore/data/*/") if path.name not in BOTO_SERVICES]
    for unread in (*tests, *services, folder / "boto3" / "examples", folder / "bin"):
        shutil.rmtree(unread, ignore_errors=True)


def _compile(folder: Path, target: Target, *, root: str) -> None:
    """Compile to bytecode; tracebacks then name a file as it is called under `root`, on Lambda."""
    if (interpreter := _interpreter(target)) is None:
        sys.stderr.write(f"There is no python{AWS_PYTHON} to compile with: functions will start a second slower.\n")
        return
    command = [interpreter, "-I", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash"]
    subprocess.run([*command, "-s", str(folder), "-p", root, str(folder)], check=True)


def _folder(name: str, digest: str, fill: Callable[[Path], None]) -> Path:
    """The folder `name` with the identity `digest`: filled if it is not there yet, and put in place whole."""
    built = BUILD / f"{name}-{digest}"
    if not built.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD, prefix=f".{name}-") as work:
            folder = Path(work) / "content"
            folder.mkdir()
            fill(folder)
            try:
                folder.rename(built)
            except OSError:
                if not built.exists():  # else another process built it meanwhile
                    raise
    return built


def _archive(name: str, digest: str, fill: Callable[[Path], None]) -> Path:
    """As `_folder`, but a zip file: names in order, times and modes fixed."""
    built = BUILD / f"{name}-{digest}.zip"
    if not built.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD, prefix=f".{name}-") as work:
            folder = Path(work) / "content"
            folder.mkdir()
            fill(folder)
            packed = Path(work) / "packed.zip"
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
                for path in _sources(folder, bytecode=True):
                    entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.external_attr = 0o644 << 16  # functions run as another user than the owner
                    bundle.writestr(entry, path.read_bytes())
            packed.replace(built)
    return built


def _keep(built: Path, kept: Path) -> Path:
    if not kept.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD, prefix=".keep-") as work:
            shutil.copyfile(built, Path(work) / kept.name).replace(kept)
    return kept


def _sources(folder: Path, *, bytecode: bool = False) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and (bytecode or "__pycache__" not in p.parts))


def _copy(files: Iterable[tuple[str, Path]], folder: Path) -> None:
    for name, source in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)


def _contents(files: Iterable[tuple[str, Path]]) -> Iterable[bytes]:
    for name, path in files:
        yield name.encode()
        yield path.read_bytes()


def _digest(parts: Iterable[bytes]) -> str:
    """Identity of a sequence of byte strings, whose borders count."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stacks.bundles", description="Build the functions' layers ahead.")
    parser.add_argument("--target", choices=("aws", "local", "all"), default="all")
    chosen = parser.parse_args().target
    targets: tuple[Target, ...] = ("aws", "local") if chosen == "all" else (chosen,)
    for target in targets:
        began = time.time()
        bundles = [
            runtime(target),
            data(target),
            pipeline_wheels(target),
            *(function(name, target) for name in functions()),
        ]
        if built := [bundle for bundle in bundles if bundle.stat().st_mtime >= began]:
            sys.stdout.write(f"· {len(built)} of {len(bundles)} bundles for {target}\n")


if __name__ == "__main__":
    main()
