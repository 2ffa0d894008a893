"""The evidence of an experiment: captured requests and traffic of both variants, and the labels that came since."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from noria.aws.captures import Captures
from noria.aws.endpoints import CHAMPION
from noria.aws.storage import Storage
from noria.aws.traffic import TrafficMetrics
from noria.experiment import Experiment, Side, compare
from noria.ledger import Entry, Kind
from noria.names import key
from noria.profile import Source
from noria.quality import LabelsFile
from noria.spec import ModelSpec
from noria.trial import Trial

MOST_BYTES = 2**30
"""Of one variant, from the beginning: an experiment of more is judged by its first gigabyte."""

FILE = "experiment.json"


@dataclass(frozen=True, kw_only=True)
class Experiments:
    spec: ModelSpec
    captures: Captures
    storage: Storage
    traffic: TrafficMetrics

    def run(self, trial: Trial, entries: Sequence[Entry], *, until: datetime) -> Experiment:
        """Compare both variants over all that was captured until then."""
        with tempfile.TemporaryDirectory(prefix="noria-experiment-") as folder:
            sides, whole = {}, []
            for variant, package in ((CHAMPION, trial.champion), (trial.kind, trial.rival)):
                captures = replace(self.captures, variant=variant)
                files, complete = captures.first(trial.since, until, most_bytes=MOST_BYTES)
                paths = captures.fetch(files, _folder(folder, variant))
                sides[variant] = Side(
                    package=package,
                    source=Source.captured(*paths, since=trial.since, until=until),
                    traffic=self.traffic.of(variant, since=trial.since, until=until),
                )
                whole.append(complete)
            return compare(
                spec=self.spec,
                kind=trial.kind,
                champion=sides[CHAMPION],
                rival=sides[trial.kind],
                labels=self._labels(entries, trial.since, _folder(folder, "labels")),
                since=trial.since,
                until=until,
                complete=all(whole),
            )

    def _labels(self, entries: Sequence[Entry], since: datetime, folder: Path) -> list[LabelsFile]:
        """Labels that were joined since then, and so are known to be good, oldest first."""
        joined = [entry for entry in entries if entry.kind is Kind.LABELS_JOINED and entry.at >= since]
        found = []
        for number, entry in enumerate(joined):
            upload = str(entry.details["key"])
            path = folder / f"{number:06}"
            self.storage.download(upload, path, version=entry.subject)
            found.append(LabelsFile(path, upload.rsplit("/", 1)[-1]))
        return found


def newest(storage: Storage, model: str) -> Experiment | None:
    """The experiment that was reported last."""
    reports = [file.key for file in storage.list(key(model, "reports", "")) if file.key.endswith(f"/{FILE}")]
    return Experiment.model_validate_json(storage.read(max(reports))) if reports else None


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder
