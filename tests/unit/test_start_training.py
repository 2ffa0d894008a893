"""A training begins on what the ledger and the bucket say there is, however much has ever come."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from lambdas.start_training.handler import start_training
from noria.aws.ledger import Ledger
from noria.aws.pipelines import Pipelines
from noria.aws.registry import Registry
from noria.aws.storage import Storage
from noria.events import Retraining
from noria.ledger import Fact, Kind
from noria.retraining import announced
from noria.training import Cause, TrainingDataset, TrainingRequest
from tests.unit.serving_world import GROUP, MODEL
from tests.unit.test_training_machine import spec
from tests.unit.training_world import BUCKET, TrainingWorld

DAY = timedelta(days=1)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Place(TrainingWorld):
    """Notes what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []
        self.ledger = Ledger(table="ledger", client=self.client(self.table))

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        self.read.append(Key)
        return super().get_object(Key=Key)

    def dataset(self, number: int, *, source: str, first: datetime, rows: int, told: bool = True) -> TrainingDataset:
        sha = f"{number:064x}"
        folder = f"{MODEL}/datasets/{sha}"
        times = {"first_event": first.isoformat(), "last_event": (first + DAY).isoformat()}
        manifest = {"sha256": sha, "key": f"{folder}/data.parquet", "source_key": source, "rows": rows, **times}
        for name in ("data.parquet", "report.json", "report.html"):
            self._put(f"{folder}/{name}", "…")
        self._put(f"{folder}/manifest.json", json.dumps(manifest))
        if told:
            self.record(Kind.DATASET_ACCEPTED, sha, key=source, rows=rows, **times)
        return TrainingDataset.model_validate(manifest)

    def record(self, kind: Kind, subject: str, **details: Any) -> Fact:
        fact = Fact(model=MODEL, kind=kind, subject=subject, at=self.now, summary="It is said.", details=details)
        self.ledger.record(fact)
        return fact

    def start(self, granted: Retraining) -> TrainingRequest:
        start_training(
            spec=spec("uploads"),
            granted=granted,
            pipeline=GROUP,
            storage=Storage(bucket=BUCKET, client=self.client(self)),
            pipelines=Pipelines(client=self.client(self)),
            registry=Registry(client=self.client(self)),
            ledger=self.ledger,
            now=self.now,
        )
        (request,) = (body for key, (body, _) in self.objects.items() if key.endswith("/request.json"))
        return TrainingRequest.model_validate_json(request)


def test_what_the_ledger_tells_of_a_dataset_is_not_read_again() -> None:
    """A day's labels come many times, each time a dataset; only what the ledger has not heard of yet is opened."""
    place = Place()
    datasets = [place.dataset(1, source=f"{MODEL}/incoming/january.parquet", first=BEGAN, rows=1000)]
    for day in range(50):
        for number in range(6):
            first = BEGAN + day * DAY
            source = f"{MODEL}/incoming/labelled/{first.date()}/{number:012}-state.parquet"
            datasets.append(place.dataset(2 + 6 * day + number, source=source, first=first, rows=100 * (number + 1)))
    fresh = place.dataset(999, source=f"{MODEL}/incoming/now.parquet", first=BEGAN + 60 * DAY, rows=7, told=False)
    grant = announced(place.record(Kind.RETRAINING_REQUESTED, "one", cause="upload", reasons=["a test"], again_at=None))

    request = place.start(grant)

    assert place.read == [f"{MODEL}/datasets/{fresh.sha256}/manifest.json"]
    cause = Cause(kind="upload", identity="one", text="new data")
    by_manifests = TrainingRequest.of(
        model=MODEL, cause=cause, datasets=[*datasets, fresh], champion=None, now=datetime.now(UTC)
    )
    assert len(request.datasets) == 52, "of a day's labels the newest, and the two uploads"
    assert request.datasets == by_manifests.datasets
    assert request.dataset_hash == by_manifests.dataset_hash
