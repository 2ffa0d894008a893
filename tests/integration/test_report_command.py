"""`noria report` brings a page from the bucket to the disk, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from typer.testing import CliRunner

from noria.aws.storage import Storage
from noria.cli.commands import app
from noria.cli.output import Refused
from tests.integration.moto_cloud import in_memory

MODEL = "flight-delay"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Storage]:
    """The data bucket of an environment with one model; the current folder is empty."""
    monkeypatch.chdir(tmp_path)
    with in_memory(monkeypatch):
        boto3.client("s3").create_bucket(Bucket="data")
        boto3.client("ssm").put_parameter(Name="/noria/dev/data-bucket", Value="data", Type="String")
        boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName=f"noria-dev-{MODEL}")
        yield Storage(bucket="data")


def keep(storage: Storage, window: str, page: str, *, newest: bool) -> None:
    for place in (window, *(("latest",) if newest else ())):
        name = "latest.html" if place == "latest" else f"{place}/report.html"
        storage.write(f"{MODEL}/reports/{name}", page, content_type="text/html; charset=utf-8")


def test_the_newest_page_is_saved_under_the_models_name(storage: Storage, tmp_path: Path) -> None:
    keep(storage, "2026-11-21T1100", "eleven", newest=True)
    keep(storage, "2026-11-21T1200", "twelve, ünï cödé", newest=True)

    answer = CliRunner().invoke(app, ["report", MODEL])

    assert answer.exit_code == 0
    assert answer.stdout.splitlines()[0] == "flight-delay-latest.html"
    assert (tmp_path / "flight-delay-latest.html").read_text(encoding="utf-8") == "twelve, ünï cödé"


def test_a_named_page_is_saved_where_it_is_wanted(storage: Storage, tmp_path: Path) -> None:
    keep(storage, "2026-11-21T1100", "eleven", newest=True)
    keep(storage, "2026-11-21T1200", "twelve", newest=True)
    wanted = tmp_path / "pages" / "of-eleven.html"

    answer = CliRunner().invoke(app, ["report", MODEL, "--window", "2026-11-21T1100", "--out", str(wanted), "--json"])

    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["file"] == str(wanted)
    assert wanted.read_text(encoding="utf-8") == "eleven"


def test_what_is_not_there_is_refused_with_what_is(storage: Storage) -> None:
    with pytest.raises(Refused, match=r"reported yet.*noria monitor flight-delay"):
        CliRunner().invoke(app, ["report", MODEL], catch_exceptions=False)

    keep(storage, "2026-11-21T1100", "eleven", newest=True)
    with pytest.raises(Refused, match="'yesterday': the newest are of 2026-11-21T1100"):
        CliRunner().invoke(app, ["report", MODEL, "--window", "yesterday"], catch_exceptions=False)
