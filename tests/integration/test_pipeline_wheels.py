"""The packages that jobs on AWS unpack: made for the image's Python, and all that the steps import."""

import ast
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.bundle import REQUIREMENTS, code_archive, wheels_archive

IMAGE = {"numpy", "sklearn", "joblib"}
"""What the steps take from AWS's image sagemaker-scikit-learn:1.9-0."""

OURS = {"noria", "pipelines"}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    archive = wheels_archive(tmp_path_factory.mktemp("wheels") / "wheels.tar.gz", "aws")
    with tarfile.open(archive) as tar:
        return tar.getnames()


def test_each_package_has_the_pinned_version(names: list[str]) -> None:
    pinned = re.findall(r"^([\w-]+)==([\w.]+)$", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    installed = {name.split("/")[0].removesuffix(".dist-info").lower() for name in names if ".dist-info/" in name}
    assert installed == {f"{name.replace('-', '_').lower()}-{version}" for name, version in pinned}


def test_compiled_code_is_for_the_images_python(names: list[str]) -> None:
    compiled = [name for name in names if name.endswith(".so") and not Path(name).name.startswith("lib")]
    assert compiled
    assert not [name for name in compiled if not re.search(r"\.(cpython-312-x86_64-linux-gnu|abi3)\.so$", name)]


def test_the_steps_import_nothing_else(names: list[str], tmp_path: Path) -> None:
    brought = {name.split("/")[0].split(".")[0] for name in names}
    unknown = set(_imported(tmp_path)) - set(sys.stdlib_module_names) - IMAGE - OURS - brought
    assert unknown == set()


def _imported(folder: Path) -> Iterator[str]:
    """Top-level names of all modules that the code of the steps imports."""
    with tarfile.open(code_archive(folder / "sourcedir.tar.gz")) as tar:
        tar.extractall(folder, filter="data")
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module.split(".")[0]
