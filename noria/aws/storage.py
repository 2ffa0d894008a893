"""The data bucket."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PART = 256 * 1024**2
# The bytes stay in S3. In parts, so that each of them is copied before a call is taken for lost (noria.aws.retries).
_COPY = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART)
_CHUNK = 1024**2


@dataclass(frozen=True, kw_only=True)
class Download:
    """`etag` names the content that it was; `modified` is when that was put there, to the second."""

    sha256: str
    size: int
    modified: datetime
    etag: str


@dataclass(frozen=True, kw_only=True)
class Head:
    """`etag` names a content; `modified` is when it was put there, to the second."""

    etag: str
    modified: datetime


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, kw_only=True)
class ObjectVersion(StoredObject):
    version: str


@dataclass(frozen=True, kw_only=True)
class Storage:
    bucket: str
    client: "S3Client" = field(default_factory=lambda: boto3.client("s3"), repr=False)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def key_of(self, uri: str) -> str:
        """The key of an S3 URI in this bucket; ValueError for any other."""
        start = f"s3://{self.bucket}/"
        if not uri.startswith(start):
            raise ValueError(f"{uri!r} is not in bucket {self.bucket!r}")
        return uri.removeprefix(start)

    def download(self, key: str, to: Path, *, version: str | None = None) -> Download:
        """Stream one version of an object to a file, hashing on the way; memory does not grow with its size."""
        digest, size = hashlib.sha256(), 0
        if version is None:
            answer = self.client.get_object(Bucket=self.bucket, Key=key)
        else:
            answer = self.client.get_object(Bucket=self.bucket, Key=key, VersionId=version)
        with to.open("wb") as file:
            for chunk in answer["Body"].iter_chunks(_CHUNK):
                digest.update(chunk)
                size += file.write(chunk)
        return Download(sha256=digest.hexdigest(), size=size, modified=answer["LastModified"], etag=answer["ETag"])

    def head(self, key: str) -> Head | None:
        """What lies there now; None where nothing does."""
        try:
            answer = self.client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] == "404":
                return None
            raise
        return Head(etag=answer["ETag"], modified=answer["LastModified"])

    def open(self, key: str) -> IO[bytes]:
        """An object as a stream."""
        body: IO[bytes] = self.client.get_object(Bucket=self.bucket, Key=key)["Body"]  # type: ignore[assignment]
        return body

    def read(self, key: str, *, version: str | None = None) -> bytes:
        which = {"VersionId": version} if version else {}
        return self.client.get_object(Bucket=self.bucket, Key=key, **which)["Body"].read()  # type: ignore[arg-type]

    def write(self, key: str, body: str, *, content_type: str = "application/json") -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body.encode(), ContentType=content_type)

    def write_once(self, key: str, body: str, *, content_type: str = "application/json") -> bool:
        """Write unless the key is taken; False when it was, whatever it holds."""
        try:
            self.client.put_object(
                Bucket=self.bucket, Key=key, Body=body.encode(), ContentType=content_type, IfNoneMatch="*"
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "PreconditionFailed":
                return False
            raise
        return True

    def replace(self, key: str, file: Path, *, etag: str | None) -> bool:
        """Put a file where what was read with that `etag` (None: nothing) still lies; False when it no longer does."""
        condition: dict[str, str] = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            with file.open("rb") as body:
                self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **condition)  # type: ignore[arg-type]
        except ClientError as error:
            # The second is told while another write is under way.
            if error.response["Error"]["Code"] in {"PreconditionFailed", "ConditionalRequestConflict"}:
                return False
            raise
        return True

    def upload(self, file: Path, key: str) -> None:
        """Upload a file of any size, in parts where it is large."""
        self.client.upload_file(str(file), self.bucket, key)

    def exists(self, key: str) -> bool:
        # HeadObject says 403 instead of 404 to whoever may list under some prefixes only.
        first = self.client.list_objects_v2(Bucket=self.bucket, Prefix=key, MaxKeys=1).get("Contents", [])
        return any(item["Key"] == key for item in first)

    def newest_version(self, key: str) -> str | None:
        """Version of what is under that key now; None when nothing is."""
        if not self.exists(key):
            return None
        return self.client.head_object(Bucket=self.bucket, Key=key)["VersionId"]

    def copy(self, source: str, target: str, *, version: str) -> None:
        """Copy one version of an object on the server."""
        self.client.copy(
            {"Bucket": self.bucket, "Key": source, "VersionId": version}, self.bucket, target, Config=_COPY
        )

    def bring(self, key: str, *, source: str) -> bool:
        """Copy an object of another account's bucket, under the same key, part by part through this process.

        False where the same lies there already: it stays, and its date with it. Raises FileExistsError where something
        else does.
        """
        body: IO[bytes] = self.client.get_object(Bucket=source, Key=key)["Body"]  # type: ignore[assignment]
        # The condition as a hook: upload_fileobj does not take it (boto3's ALLOWED_UPLOAD_ARGS).
        events = [f"before-parameter-build.s3.{operation}" for operation in ("PutObject", "CompleteMultipartUpload")]
        for event in events:
            self.client.meta.events.register(event, _if_none)
        try:
            self.client.upload_fileobj(body, self.bucket, key)
        except ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
            # What S3 itself says of two objects, as their ETags, depends on their keys and parts.
            if self._digest(self.bucket, key) != self._digest(source, key):
                raise FileExistsError(
                    f"{self.uri(key)} is not what lies in s3://{source}/{key}: find out who put it there; once it is "
                    "removed, have the event sent again (noria redrive)"
                ) from error
            return False
        finally:
            for event in events:
                self.client.meta.events.unregister(event, _if_none)
        return True

    def _digest(self, bucket: str, key: str) -> bytes:
        """SHA-256 of an object, in constant memory."""
        digest = hashlib.sha256()
        for chunk in self.client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(_CHUNK):
            digest.update(chunk)
        return digest.digest()

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                yield StoredObject(key=item["Key"], size=item["Size"], modified=item["LastModified"])

    def folders(self, prefix: str = "") -> set[str]:
        """What comes between a prefix and the next slash of the keys."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        return {item["Prefix"][len(prefix) : -1] for page in pages for item in page.get("CommonPrefixes", [])}

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """All versions, also those that a later upload of the same name has covered."""
        for page in self.client.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=prefix):
            for item in page.get("Versions", []):
                yield ObjectVersion(
                    key=item["Key"], size=item["Size"], modified=item["LastModified"], version=item["VersionId"]
                )

    def remove(self, key: str) -> None:
        """Have nothing under a key any more; the bucket keeps what was there as an older version for a while."""
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def delete_everything(self) -> int:
        """Delete all versions of all objects for good; how many they were.

        From a bucket that locks them for the sake of governance too, which asks for the right to do so.
        """
        count, bypass = 0, {"BypassGovernanceRetention": True} if self._locks else {}
        for page in self.client.get_paginator("list_object_versions").paginate(Bucket=self.bucket):
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            if not found:
                continue
            answer = self.client.delete_objects(
                Bucket=self.bucket,
                Delete={"Objects": [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in found], "Quiet": True},
                **bypass,  # type: ignore[arg-type]
            )
            if errors := answer.get("Errors"):
                first = errors[0]
                raise RuntimeError(f"{self.bucket}: {first.get('Key')} was not deleted: {first.get('Message')}")
            count += len(found)
        return count

    @property
    def _locks(self) -> bool:
        try:
            self.client.get_object_lock_configuration(Bucket=self.bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ObjectLockConfigurationNotFoundError":
                raise
            return False
        return True


def _if_none(params: dict[str, Any], **_: object) -> None:
    params["IfNoneMatch"] = "*"
