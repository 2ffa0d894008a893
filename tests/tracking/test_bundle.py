"""The function that tracks trainings, with nothing but its bundle and its layers: what it imports, its size."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stacks import bundles
from stacks.settings import Target

LARGEST = 250 * 2**20
"""Bytes of a function with its layers, unzipped. Source: Lambda quotas."""


def zips(target: Target) -> list[Path]:
    layers = [bundles.runtime(target), bundles.data(target), bundles.tracking(target)]
    return [bundles.function(bundles.TRACK_TRAINING, target), *layers]


def test_it_imports_with_nothing_but_its_bundle_and_its_layers(tmp_path: Path) -> None:
    for bundle in zips("local"):
        zipfile.ZipFile(bundle).extractall(tmp_path)
    script = "import sys; sys.path[:0] = sys.argv[1:]; from track_training.handler import handler; assert handler"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(tmp_path), str(tmp_path / "python")],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["local", "aws"])
def test_it_fits_into_a_function(target: Target) -> None:
    sizes = [sum(entry.file_size for entry in zipfile.ZipFile(bundle).infolist()) for bundle in zips(target)]
    assert sum(sizes) < LARGEST
