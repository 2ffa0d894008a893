"""What the repository shows by example is right: specs are specs, and every Dockerfile is as hadolint wants it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from noria.spec import load_all

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILES = [REPOSITORY / "pipelines" / "serving" / "Dockerfile", *(REPOSITORY / "examples").glob("*/Dockerfile")]


def test_the_second_framework_is_served_from_its_own_image() -> None:
    (spec,) = load_all(REPOSITORY / "models" / "examples")
    assert (spec.train.estimator, spec.server) == ("lightgbm.LGBMClassifier", "aws")
    assert spec.image is not None
    assert spec.serve.instance.startswith("ml.g5.")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_a_dockerfile_has_nothing_to_remark(dockerfile: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    remarks = subprocess.run([hadolint, "--no-color", dockerfile], capture_output=True, text=True, check=False)
    assert (remarks.stdout + remarks.stderr, remarks.returncode) == ("", 0)


def test_noria_server_is_built_from_a_digest_and_hashes_and_runs_as_nobody() -> None:
    text = DOCKERFILES[0].read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert all(re.fullmatch(r"python:[\w.-]+@sha256:[0-9a-f]{64}", base) for base in bases)
    assert "--require-hashes" in text
    assert re.findall(r"^USER (\d+):", text, re.MULTILINE) == ["10001"]
