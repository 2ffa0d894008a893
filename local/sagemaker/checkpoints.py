"""A training job's checkpoints: a folder of its container, and what S3 has of it.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-checkpoints.html
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.sagemaker.cloud import Cloud
from local.sagemaker.storage import Location, TransferFailed, download_all

# Seconds here between two looks at the folder.
INTERVAL = 0.2
# What is called so is not sent (aws/sagemaker-xgboost-container, `checkpointing.py`).
IGNORED = ".sagemaker-ignore"

Seen = dict[Path, tuple[int, int]]


@contextmanager
def kept(cloud: Cloud, s3: Any, folder: Path, uri: str) -> Iterator["Checkpoints"]:
    """Bring what S3 has into the folder; send what changes there until the end, as the job's role.

    Raises `TransferFailed` at the beginning, or at the end.
    """
    checkpoints = Checkpoints(s3, folder, Location.parse(uri))
    checkpoints.restore()
    cloud.run(checkpoints.follow, f"checkpoints of {uri}")
    try:
        yield checkpoints
    finally:
        checkpoints.finish()


class Checkpoints:
    """The files of `folder`, and the objects of the same names under `place`."""

    def __init__(self, s3: Any, folder: Path, place: Location) -> None:
        self._s3 = s3
        self._folder = folder
        self._place = place
        self._sent: Seen = {}
        self._failure: TransferFailed | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def restore(self) -> None:
        download_all(self._s3, self._place, self._folder)
        self._sent = self._seen()

    def follow(self) -> None:
        while not self._ended.wait(INTERVAL):
            self._send()

    def lose(self) -> None:
        """Send nothing more: the instance is gone, and the folder with it."""
        self._ended.set()

    def finish(self) -> None:
        """Send what is left."""
        if not self._ended.is_set():
            self._ended.set()
            self._send()
        if self._failure:
            raise self._failure

    def _send(self) -> None:
        with self._lock:
            if self._failure:
                return
            seen = self._seen()
            try:
                for path in sorted(path for path, state in seen.items() if self._sent.get(path) != state):
                    self._s3.put_object(Bucket=self._place.bucket, Key=self._key(path), Body=path.read_bytes())
                for path in sorted(self._sent.keys() - seen.keys()):
                    self._s3.delete_object(Bucket=self._place.bucket, Key=self._key(path))
            except FileNotFoundError:
                return  # replaced or deleted meanwhile: the next look sees it as it is then
            except (ClientError, BotoCoreError) as error:
                self._failure = TransferFailed(f"ClientError: Data upload failed for checkpoints: {error}")
                self._ended.set()
                return
            self._sent = seen

    def _key(self, path: Path) -> str:
        return (self._place / path.relative_to(self._folder).as_posix()).key

    def _seen(self) -> Seen:
        """Each file's moment and size."""
        seen = {}
        for path in self._folder.rglob("*"):
            if not path.name.endswith(IGNORED) and path.is_file():
                with suppress(FileNotFoundError):
                    about = path.stat()
                    seen[path] = (about.st_mtime_ns, about.st_size)
        return seen
