"""Trainings: named by their cause, on a set of datasets that is written down once.

cause ─ token ─ TrainingRequest ─ datasets_manifest() ─ what SageMaker mounts
                                └ champion_manifest()
"""

import hashlib
import json
from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from noria import policy
from noria.feedback import origin, superseded
from noria.ledger import Entry, Kind
from noria.names import key

MOST_DATASETS = 5000
"""Of a training: the ledger's entry names each, and DynamoDB's items have at most 400 KB."""

NO_CHAMPION = "none"
REQUEST = "request.json"


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Cause(Part):
    """Why a training starts. `identity` makes it this cause and no other: a second delivery has the same one."""

    kind: policy.Cause
    identity: str
    text: str = Field(description="a few words for people, without commas: it becomes a pipeline parameter")


class TrainingDataset(Part):
    """An accepted dataset: the part of its manifest, or of its entry in the ledger, that a training needs."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    key: str
    source_key: str = Field("", description="the upload that it was")
    rows: int
    first_event: datetime
    last_event: datetime

    @classmethod
    def of(cls, accepted: Entry, key: str) -> Self:
        """What the ledger tells of the dataset that lies at `key`."""
        told = {"sha256": accepted.subject, "key": key, "source_key": accepted.details["key"]}
        return cls.model_validate(accepted.details | told)

    @property
    def part(self) -> str:
        """What it is a later or earlier form of: the day, of joined labels; else it is its own."""
        from_labels = self.source_key and origin(self.source_key) == "labels"
        return self.source_key.rpartition("/")[0] if from_labels else self.sha256


class Champion(Part):
    """The package that is live, and the key of its model.tar.gz."""

    package: str
    model_key: str


class TrainingRequest(Part):
    """What a training was asked to do: `<model>/trainings/<token>/request.json`."""

    model: str
    token: str = Field(pattern=r"^[0-9a-f]{64}$")
    cause: Cause
    dataset_hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the set, whatever its order")
    datasets: tuple[TrainingDataset, ...] = Field(min_length=1)
    champion: Champion | None
    fresh_rows: int = Field(0, ge=0, description="rows of datasets that the champion was not trained on")
    requested_at: AwareDatetime

    @classmethod
    def of(
        cls,
        *,
        model: str,
        cause: Cause,
        datasets: Iterable[TrainingDataset],
        champion: Champion | None,
        seen: Container[str] = frozenset(),
        now: datetime,
    ) -> Self:
        """`datasets`: all that were accepted. `seen`: hashes of those that the champion was trained on.

        Raises ValueError where they are more than `MOST_DATASETS`.
        """
        accepted = list(datasets)
        ordered = tuple(sorted(current(accepted), key=lambda dataset: (dataset.first_event, dataset.sha256)))
        if len(ordered) > MOST_DATASETS:
            raise ValueError(
                f"{model} has {len(ordered):,} datasets, and a training takes {MOST_DATASETS:,} at most: upload the "
                f"rows of many small files again as one, and move the folders of those under {model}/datasets/ away"
            )
        return cls(
            model=model,
            token=training_token(model, cause.identity),
            cause=cause,
            dataset_hash=set_hash(dataset.sha256 for dataset in ordered),
            datasets=ordered,
            champion=champion,
            fresh_rows=unseen_rows(accepted, seen) if champion else 0,
            requested_at=now,
        )

    def key(self, name: str) -> str:
        return key(self.model, "trainings", f"{self.token}/{name}")

    def datasets_manifest(self, bucket: str) -> str:
        """The request itself, which says how to split them, and the datasets."""
        return _manifest(bucket, self.model, [self.key(REQUEST), *(dataset.key for dataset in self.datasets)])

    def champion_manifest(self, bucket: str) -> str:
        """The request itself, so that the channel is never empty, and the champion's bundle if there is one."""
        champion = [self.champion.model_key] if self.champion else []
        return _manifest(bucket, self.model, [self.key(REQUEST), *champion])

    def parameters(self) -> dict[str, str]:
        """Parameters of the pipeline's execution."""
        return {
            "TrainingToken": self.token,
            "DatasetHash": self.dataset_hash,
            "ChampionPackage": self.champion.package if self.champion else NO_CHAMPION,
            "Cause": self.cause.text,
        }


def current(datasets: Sequence[TrainingDataset]) -> list[TrainingDataset]:
    """What a training uses of all accepted datasets: of labels that were joined, each prediction's newest."""
    old = superseded(dataset.source_key for dataset in datasets if dataset.source_key)
    return [dataset for dataset in datasets if dataset.source_key not in old]


def unseen_rows(accepted: Sequence[TrainingDataset], seen: Container[str]) -> int:
    """Rows that are used now and in no dataset of `seen`. A day's joined labels hold again what those before held."""
    known: dict[str, int] = {}
    for dataset in accepted:
        if dataset.sha256 in seen:
            known[dataset.part] = max(known.get(dataset.part, 0), dataset.rows)
    return sum(
        max(dataset.rows - known.get(dataset.part, 0), 0) for dataset in current(accepted) if dataset.sha256 not in seen
    )


def training_token(model: str, identity: str) -> str:
    """64 hexadecimal digits: also StartPipelineExecution's token, which takes 32 to 128 characters."""
    return hashlib.sha256(f"{model}\n{identity}".encode()).hexdigest()


def set_hash(hashes: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(set(hashes))).encode()).hexdigest()


def trained_on(entries: Sequence[Entry], package: str) -> frozenset[str]:
    """Hashes of the datasets that a registered package was trained on; empty where the ledger does not know."""
    registered = (e for e in entries if e.kind is Kind.TRAINING_SUCCEEDED and e.details["package"] == package)
    execution = next((e.subject for e in registered), None)
    started = (e for e in entries if e.kind is Kind.TRAINING_STARTED and e.details["execution"] == execution)
    datasets = next((e.details["datasets"] for e in started), None)
    return frozenset(datasets) if isinstance(datasets, list) else frozenset()


def unfinished(entries: Sequence[Entry]) -> list[Entry]:
    """Trainings that started and whose outcome is not known yet."""
    over = {e.subject for e in entries if e.kind in {Kind.TRAINING_SUCCEEDED, Kind.TRAINING_FAILED}}
    return [e for e in entries if e.kind is Kind.TRAINING_STARTED and e.details["execution"] not in over]


def _manifest(bucket: str, model: str, keys: Sequence[str]) -> str:
    """SageMaker's ManifestFile: a prefix, then keys relative to it.

    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_S3DataSource.html
    """
    start = f"{model}/"
    for name in keys:
        if not name.startswith(start):
            raise ValueError(f"{name!r} is not under {start!r}: a manifest has one prefix")
    return json.dumps([{"prefix": f"s3://{bucket}/{start}"}, *(name.removeprefix(start) for name in keys)])
