"""What jobs unpack: the same bytes each time, complete, and started the way a container starts it."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from noria.evaluation import Evaluation
from noria.spec import ModelSpec, Task
from pipelines.bundle import code_archive, digest, wheels_archive
from pipelines.tabular.export import DEFINITION
from pipelines.tabular.steps.evaluate import ARCHIVE
from tests.unit.pipelines.conftest import pack, rows_for, spec_for, write_csv

ENTRYPOINT = next(
    step["Arguments"]["AppSpecification"]["ContainerEntrypoint"]
    for step in json.loads(DEFINITION.read_text())["Steps"]
    if step["Name"] == "Prepare"
)


@pytest.fixture
def container(tmp_path: Path) -> "Container":
    return Container(tmp_path / "ml", spec_for(Task.BINARY))


class Container:
    """/opt/ml as a job finds it, and the program that the definition starts there."""

    def __init__(self, base: Path, spec: ModelSpec) -> None:
        self.base = base
        code_archive(base / "code" / "sourcedir.tar.gz")
        wheels_archive(base / "wheels" / "wheels.tar.gz", "local")
        (base / "spec").mkdir()
        (base / "spec" / "spec.json").write_text(spec.model_dump_json())
        (base / "datasets" / "deep").mkdir(parents=True)

    def run(self, step: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """One step; every folder is under its own name."""
        folders = {
            "prepare": ("datasets", "spec", "train", "test"),
            "train": ("train", "test", "spec", "model"),
            "evaluate": ("model", "test", "champion", "spec", "evaluation", "baseline"),
        }[step]
        arguments = [part for name in folders for part in (f"--{name}", str(self.base / name))]
        start = [str(self.base / "code" / "sourcedir.tar.gz"), str(self.base / "unpacked"), "--step", step]
        given = ["--wheels", str(self.base / "wheels"), "--failure", str(self.base / "output" / "message")]
        images = ["--onnx-image", "noria-serving", "--sklearn-image", "sagemaker-scikit-learn"]
        more = ["--champion-package", "none", *images] if step == "evaluate" else []
        # The archive alone: neither this repository nor its folder is on the path.
        clean = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
        return subprocess.run(
            [*ENTRYPOINT, *start, *given, *arguments, *more],
            cwd=self.base,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def message(self) -> str:
        return (self.base / "output" / "message").read_text()


def test_the_same_content_makes_the_same_bytes(tmp_path: Path) -> None:
    assert digest(code_archive(tmp_path / "a.tar.gz")) == digest(code_archive(tmp_path / "b.tar.gz"))
    assert digest(wheels_archive(tmp_path / "c.tar.gz", "local")) == digest(
        wheels_archive(tmp_path / "d.tar.gz", "local")
    )


def test_the_code_holds_what_jobs_run_and_not_what_authors_them(tmp_path: Path) -> None:
    with tarfile.open(code_archive(tmp_path / "code.tar.gz")) as tar:
        names = tar.getnames()
    assert {"run.py", "noria/spec.py", "pipelines/serving/inference.py", "pipelines/tabular/steps/train.py"} <= set(
        names
    )
    assert not [name for name in names if Path(name).name in ("pipeline.py", "export.py", "bundle.py", "offline.py")]
    assert not [name for name in names if "__pycache__" in name]
    assert names == sorted(names)


def test_the_steps_run_from_the_archive_as_the_definition_starts_them(container: Container) -> None:
    write_csv(container.base / "datasets" / "deep" / "data.csv", rows_for(Task.BINARY))
    prepared = container.run("prepare")
    assert prepared.returncode == 0, prepared.stderr
    assert "480 rows before" in prepared.stdout
    trained = container.run("train")
    assert trained.returncode == 0, trained.stderr
    pack(container.base / "model", container.base / "packed.tar.gz").rename(container.base / "model" / ARCHIVE)
    (container.base / "champion").mkdir()
    evaluated = container.run("evaluate")
    assert evaluated.returncode == 0, evaluated.stderr
    report = Evaluation.model_validate_json((container.base / "evaluation" / "evaluation.json").read_text())
    assert report.gate.passed
    assert (report.serves, report.image) == ("onnx", "noria-serving")
    for name in ("baseline.json", "golden.json", "attribution.json"):
        assert (container.base / "baseline" / name).read_text() == (container.base / "model" / name).read_text()


def test_a_failure_leaves_its_reason(container: Container) -> None:
    failed = container.run("prepare")
    assert failed.returncode != 0
    assert container.message == "prepare: the manifest names no CSV or Parquet file: check the request of this training"


def test_packages_that_are_brought_along_go_before_the_images(container: Container) -> None:
    package = container.base / "made" / "duckdb" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("raise RuntimeError('this duckdb was brought along')")
    pack(package.parent.parent, container.base / "wheels" / "wheels.tar.gz")
    container.run("prepare")
    assert "this duckdb was brought along" in container.message
