"""The evidence of an experiment: captured requests and traffic of both variants, and the labels that came since."""

# ruff: noqa: S608 -- SQL is built from identifiers and literals that noria.sql quotes

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from noria import capture
from noria.aws.captures import Captures
from noria.aws.endpoints import CHAMPION
from noria.aws.labelled import Labelled, subfolder
from noria.aws.storage import Storage
from noria.aws.traffic import TrafficMetrics
from noria.experiment import Experiment, Side, compare
from noria.names import key
from noria.profile import Source
from noria.spec import ModelSpec
from noria.sql import MODEST, cursor
from noria.trial import Trial

MOST_BYTES = 2**30
"""Of one variant, from the beginning: an experiment of more is judged by the time that its first gigabyte covers."""

FILE = "experiment.json"


@dataclass(frozen=True, kw_only=True)
class Experiments:
    spec: ModelSpec
    captures: Captures
    labelled: Labelled
    traffic: TrafficMetrics

    def run(self, trial: Trial, *, until: datetime) -> Experiment:
        """Compare both variants over all that was captured until then, or as far as the captures of both go."""
        packages = {CHAMPION: trial.champion, trial.kind: trial.rival}
        with tempfile.TemporaryDirectory(prefix="noria-experiment-") as disk:
            folder = Path(disk)
            paths, ends = {}, []
            for variant in packages:
                captures = replace(self.captures, variant=variant)
                files, complete = captures.first(trial.since, until, most_bytes=MOST_BYTES)
                paths[variant] = captures.fetch(files, subfolder(folder, variant))
                if not complete:
                    ends.append(self._end(paths[variant], since=trial.since, until=until))
            # One side fills its gigabyte sooner than the other: both are judged by the same time, whose days are alike.
            end = min(ends, default=until)
            sides = {
                variant: Side(
                    package=package,
                    source=Source.captured(*paths[variant], since=trial.since, until=end),
                    traffic=self.traffic.of(variant, since=trial.since, until=end),
                )
                for variant, package in packages.items()
            }
            return compare(
                spec=self.spec,
                kind=trial.kind,
                champion=sides[CHAMPION],
                rival=sides[trial.kind],
                labels=[self.labelled.labels(trial.since, subfolder(folder, "labels"))],
                since=trial.since,
                until=end,
                complete=not ends,
            )

    def _end(self, files: Sequence[Path], *, since: datetime, until: datetime) -> datetime:
        """Just after the last of the captured requests of that time."""
        with cursor(MODEST) as db:
            requests = capture.relation(files, self.spec, since=since, until=until)
            found = db.execute(f"SELECT max(time) FROM {requests} WHERE NOT malformed").fetchone()
        return found[0].replace(tzinfo=UTC) + timedelta(microseconds=1) if found and found[0] else until


def newest(storage: Storage, model: str) -> Experiment | None:
    """The experiment that was reported last."""
    reports = [file.key for file in storage.list(key(model, "reports", "")) if file.key.endswith(f"/{FILE}")]
    return Experiment.model_validate_json(storage.read(max(reports))) if reports else None
