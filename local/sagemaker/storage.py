"""Data between S3 and a job's file system, laid out as SageMaker lays it out."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError


class TransferFailed(Exception):
    """SageMaker's own words for data that could not be brought in or out."""


@dataclass(frozen=True)
class Location:
    """A bucket and a key, or a key prefix."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> "Location":
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not bucket:
            raise TransferFailed(f"ClientError: {uri} is not an S3 URI.")
        return cls(bucket, key)

    def __truediv__(self, relative: str) -> "Location":
        return Location(self.bucket, f"{self.key.rstrip('/')}/{relative}".lstrip("/"))


def download(s3: Any, uri: str, directory: Path, *, data_type: str = "S3Prefix") -> None:
    """Bring what a data source names under `directory`. Raises `TransferFailed`.

    `S3Prefix`: every object whose key has the prefix, by the rest of its key; an object that is named itself, by its
    file name. `ManifestFile`: the objects that the manifest lists, by the paths it lists them under
    (https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_S3DataSource.html).
    """
    directory.mkdir(parents=True, exist_ok=True)
    for location, relative in objects(s3, uri, data_type=data_type):
        path = _inside(directory, relative)
        if relative.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            s3.download_file(location.bucket, location.key, str(path))
        except ClientError as error:
            raise TransferFailed(f"ClientError: Data download failed for {uri}: {error}") from error


def download_all(s3: Any, place: Location, directory: Path) -> None:
    """Bring what is under a prefix, if only nothing. Raises `TransferFailed`."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        for location, relative in _under_prefix(s3, place / ""):
            path = _inside(directory, relative)
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(location.bucket, location.key, str(path))
    except ClientError as error:
        raise TransferFailed(
            f"ClientError: Data download failed for s3://{place.bucket}/{place.key}: {error}"
        ) from error


def objects(s3: Any, uri: str, *, data_type: str = "S3Prefix") -> Iterator[tuple[Location, str]]:
    """What a data source names, and each object's path relative to it. Raises `TransferFailed`, if only for nothing."""
    source = Location.parse(uri)
    found = False
    try:
        for named in _in_manifest(s3, source) if data_type == "ManifestFile" else _under_prefix(s3, source):
            found = True
            yield named
    except ClientError as error:
        raise TransferFailed(f"ClientError: Data download failed for {uri}: {error}") from error
    if not found:
        raise TransferFailed(
            f'ClientError: No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the '
            "bucket exists in the selected region, that objects exist under that S3 prefix, and that the role has "
            f'"s3:ListBucket" permissions on bucket "{source.bucket}".'
        )


def upload(s3: Any, path: Path, uri: str, *, kms_key: str | None = None) -> None:
    """Send a file, or every file under a directory, to a URI. Raises `TransferFailed`."""
    destination = Location.parse(uri)
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    try:
        for file in files:
            target = destination / file.relative_to(path).as_posix() if path.is_dir() else destination
            s3.upload_file(str(file), target.bucket, target.key, ExtraArgs=encryption)
    except Exception as error:  # boto3 wraps what S3 answers in errors of its own
        raise TransferFailed(f"ClientError: Data upload failed for {uri}: {error}") from error


def _under_prefix(s3: Any, prefix: Location) -> Iterator[tuple[Location, str]]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=prefix.bucket, Prefix=prefix.key)
    for page in pages:
        for item in page.get("Contents", []):
            relative = _relative(item["Key"], prefix.key)
            if relative:
                yield Location(prefix.bucket, item["Key"]), relative


def _relative(key: str, prefix: str) -> str:
    """`a/b/c` under `a/b`, `a/b/` or `a` is `c`, `c` or `b/c`; under itself, or a mere start such as `a/b/c`, `c`."""
    rest = key.removeprefix(prefix)
    if rest and (prefix == "" or prefix.endswith("/") or rest.startswith("/")):
        return rest.lstrip("/")
    return key[prefix.rfind("/") + 1 :] if not key.endswith("/") else ""


def _in_manifest(s3: Any, manifest: Location) -> Iterator[tuple[Location, str]]:
    body = s3.get_object(Bucket=manifest.bucket, Key=manifest.key)["Body"].read()
    try:
        head, *suffixes = json.loads(body)
        prefix = head["prefix"]
    except (ValueError, TypeError, KeyError) as error:
        raise TransferFailed(
            f"ClientError: s3://{manifest.bucket}/{manifest.key} is not a manifest: it must be a JSON list whose first "
            'element is {"prefix": "s3://…"}.'
        ) from error
    for suffix in suffixes:
        yield Location.parse(f"{prefix}{suffix}"), suffix


def _inside(directory: Path, relative: str) -> Path:
    path = (directory / relative).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise TransferFailed(f"ClientError: The key {relative} leads outside of its directory.")
    return path
