"""How objects are laid out for a job, and where its files go."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from local.sagemaker.storage import Location, TransferFailed, download, upload

KEYS = ["raw/2024/a.csv", "raw/2024/b.csv", "raw/2025/a.csv", "raw-old/a.csv", "raw/", "code/train.py"]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="data")
        for key in KEYS:
            client.put_object(Bucket="data", Key=key, Body=key.encode())
        yield client


def files(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("uri", "layout"),
    [
        ("s3://data/raw/", ["2024/a.csv", "2024/b.csv", "2025/a.csv"]),
        ("s3://data/raw/2024", ["a.csv", "b.csv"]),
        ("s3://data/raw/2024/a.csv", ["a.csv"]),
        ("s3://data/code/train.py", ["train.py"]),
        ("s3://data/code/tr", ["train.py"]),
    ],
)
def test_a_prefix_is_cut_off(s3: Any, tmp_path: Path, uri: str, layout: list[str]) -> None:
    download(s3, uri, tmp_path)
    assert files(tmp_path) == layout


def test_a_manifest_names_paths_under_its_prefix(s3: Any, tmp_path: Path) -> None:
    manifest = [{"prefix": "s3://data/raw/"}, "2024/a.csv", "2025/a.csv"]
    s3.put_object(Bucket="data", Key="m.json", Body=json.dumps(manifest))
    download(s3, "s3://data/m.json", tmp_path, data_type="ManifestFile")
    assert files(tmp_path) == ["2024/a.csv", "2025/a.csv"]
    assert (tmp_path / "2025/a.csv").read_text() == "raw/2025/a.csv"


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"prefix": "s3://data/"}, "is not a manifest"),
        (["raw/2024/a.csv"], "is not a manifest"),
        ([{"prefix": "s3://data/"}], "No S3 objects found"),
        ([{"prefix": "s3://data/"}, "missing.csv"], "Data download failed"),
        ([{"prefix": "s3://data/raw/2024/"}, "../2025/a.csv"], "leads outside"),
    ],
)
def test_refuses_manifests(s3: Any, tmp_path: Path, manifest: Any, message: str) -> None:
    s3.put_object(Bucket="data", Key="m.json", Body=json.dumps(manifest))
    with pytest.raises(TransferFailed, match=message):
        download(s3, "s3://data/m.json", tmp_path / "job", data_type="ManifestFile")


def test_says_where_nothing_was_found(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed, match='No S3 objects found under S3 URL "s3://data/nothing/"'):
        download(s3, "s3://data/nothing/", tmp_path)
    with pytest.raises(TransferFailed, match="NoSuchBucket"):
        download(s3, "s3://elsewhere/", tmp_path)


def test_sends_a_directory_under_a_uri(s3: Any, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.json").write_text("{}")
    (tmp_path / "y.json").write_text("{}")
    upload(s3, tmp_path, "s3://data/out/", kms_key="alias/aws/s3")
    answer = s3.list_objects_v2(Bucket="data", Prefix="out/")
    assert [item["Key"] for item in answer["Contents"]] == ["out/deep/x.json", "out/y.json"]
    assert s3.head_object(Bucket="data", Key="out/y.json")["ServerSideEncryption"] == "aws:kms"


def test_sends_a_file_to_a_uri(s3: Any, tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"x")
    upload(s3, tmp_path / "model.tar.gz", "s3://data/models/m/model.tar.gz")
    assert s3.get_object(Bucket="data", Key="models/m/model.tar.gz")["Body"].read() == b"x"


@pytest.mark.parametrize("uri", ["data/raw", "https://data/raw", "s3://"])
def test_refuses_other_uris(uri: str) -> None:
    with pytest.raises(TransferFailed, match="is not an S3 URI"):
        Location.parse(uri)
