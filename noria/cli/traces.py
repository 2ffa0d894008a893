"""`noria trace`: whatever is asked about is found first, then walked (noria.trace)."""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

from botocore.exceptions import ClientError
from pydantic import BaseModel

from noria.aws.access_logs import AccessLogs, Asked
from noria.aws.captures import MOST_BYTES, Captured, Captures
from noria.aws.record import Records
from noria.aws.storage import Storage
from noria.capture import PROBE
from noria.cli.output import Refused
from noria.cli.state import Deployed
from noria.ledger import Entry, Kind
from noria.names import ObjectKey, version
from noria.record import Record
from noria.trace import Answering, Step, answering, back, clock, datasets, forward, lived, sent_by, training, unknown

VARIANTS = ("champion", "challenger", "shadow")
_HASH = re.compile(r"[0-9a-f]{12,64}")
_DATASETS_SHOWN = 5

Subject = Literal["prediction", "package", "execution", "dataset", "file"]


class Trace(BaseModel):
    """What was asked about, and every step of its walk."""

    asked: str
    kind: Subject
    model: str
    steps: list[Step]


class Row(BaseModel):
    step: str
    version: str
    at: datetime | None
    what: str


@dataclass(frozen=True)
class Tracer:
    """Walks the record of one environment. Raises `Refused` where what is asked about is not found."""

    deployed: Deployed
    model: str | None
    days: int
    who: bool
    hour: datetime | None = None

    def trace(self, asked: str) -> Trace:
        found = self._found(asked)
        steps = list(self._named(found.steps)) if self.who else found.steps
        return found.model_copy(update={"steps": [*steps, *self._answered_in_hour(found.model)]})

    def _found(self, asked: str) -> Trace:
        if asked.startswith("s3://"):
            return self._file(asked)
        if ":model-package/" in asked or re.fullmatch(r"[^/:]+/\d+", asked):
            return self._package(asked)
        if "/execution/" in asked:
            return self._execution(asked)
        if _HASH.fullmatch(asked) and (found := self._hash(asked)):
            return found
        return self._prediction(asked)

    # --- what is asked about

    def _prediction(self, id_: str) -> Trace:
        for model in self._models:
            if captured := self._captured(model, id_):
                entries = self._entries(model)
                answered = self._answering(entries, captured)
                steps = [_captured(captured, self._storage), _answered(answered, captured)]
                for package in answered.packages:
                    steps += back(entries, package, *self._record(package))
                return Trace(asked=id_, kind="prediction", model=model, steps=steps)
        of = f"model {self.model}" if self.model else "any model"
        raise Refused(
            f"No request {id_!r} of {of} is among those captured in the last {self.days} days (--days), the newest "
            f"{MOST_BYTES >> 30} GiB of each variant's. A request is captured minutes after it was answered, and "
            "serve.capture may keep a part of them only. Also understood: a package (its ARN, or MODEL/VERSION), the "
            "hash of a dataset, the ARN of an execution, s3://… of an upload."
        )

    def _package(self, reference: str) -> Trace:
        arn = self.deployed.package_arn(reference)
        model = self._model_of(arn.split("/")[-2])
        entries = self._entries(model)
        record, gone = self._record(arn)
        if record is None and not any(entry.details.get("package") == arn for entry in entries):
            raise Refused(f"{arn}: {gone}, and the ledger of {model} does not know it either.")
        steps = [*back(entries, arn, record, gone=gone), *lived(entries, arn)]
        return Trace(asked=reference, kind="package", model=model, steps=steps)

    def _execution(self, arn: str) -> Trace:
        model = self._model_of(arn.partition(":pipeline/")[2].partition("/")[0])
        entries = self._entries(model)
        ended = next((e for e in entries if e.subject == arn and e.kind is Kind.TRAINING_SUCCEEDED), None)
        if ended:
            package = str(ended.details["package"])
            return Trace(asked=arn, kind="execution", model=model, steps=back(entries, package, *self._record(package)))
        started = next((e for e in entries if e.details.get("execution") == arn), None)
        if started is None:
            raise Refused(f"The ledger of {model} knows of no execution {arn}.")
        failed = next((e for e in entries if e.subject == arn and e.kind is Kind.TRAINING_FAILED), None)
        what = failed.summary if failed else "none yet: the training is under way"
        at, known_from = (failed.at, f"ledger #{failed.number}") if failed else (None, "ledger")
        hashes = started.details.get("datasets")
        steps = [
            Step(step="package", what=what, at=at, known_from=known_from),
            training(entries, arn),
            *datasets(entries, hashes if isinstance(hashes, list) else None),
        ]
        return Trace(asked=arn, kind="execution", model=model, steps=steps)

    def _hash(self, start: str) -> Trace | None:
        """The dataset, or the set of them that a training had, whose hash begins so; None where there is none."""
        for model in self._models:
            entries = self._entries(model)
            accepted = {e.subject for e in entries if e.kind is Kind.DATASET_ACCEPTED and e.subject.startswith(start)}
            for sha256 in sorted(accepted):
                steps = [*datasets(entries, [sha256]), *forward(entries, sha256)]
                return Trace(asked=start, kind="dataset", model=model, steps=steps)
            for entry in entries:
                if entry.kind is Kind.TRAINING_STARTED and str(entry.details.get("dataset")).startswith(start):
                    return self._execution(str(entry.details["execution"]))
        return None

    def _file(self, uri: str) -> Trace:
        name, _, wanted = uri.partition("?versionId=")
        try:
            key = self._storage.key_of(name)
            place = ObjectKey.parse(key)
        except ValueError as error:
            raise Refused(
                f"{error}: name an upload, as s3://{self._storage.bucket}/<model>/incoming/<file>."
            ) from error
        entries = self._entries(self.deployed.require(place.model))
        steps: list[Step] = []
        for sha256 in self._learnt(entries, key, place, wanted):
            steps += [*datasets(entries, [sha256]), *forward(entries, sha256)]
        steps += [
            Step(step="file", what=e.summary, at=e.at, known_from=f"ledger #{e.number}", facts=dict(e.details))
            for e in entries
            if e.kind is Kind.DATASET_QUARANTINED and e.details["key"] == key and wanted in {"", e.subject}
        ]
        if not steps:
            raise Refused(
                f"The ledger of {place.model} does not know {uri}: it is no upload under {place.model}/incoming/, or "
                "has not been checked yet (noria events)."
            )
        return Trace(asked=uri, kind="file", model=place.model, steps=steps)

    def _learnt(self, entries: Sequence[Entry], key: str, place: ObjectKey, wanted: str) -> list[str]:
        """Hashes of the datasets that this file became, in any of its versions or in one."""
        if place.area == "datasets":
            return [place.rest.partition("/")[0]]
        accepted = [entry for entry in entries if entry.kind is Kind.DATASET_ACCEPTED]
        found = [e.subject for e in accepted if e.details["key"] == key and wanted in {"", e.details["version"]}]
        if found or place.area != "incoming":
            return found
        # The same bytes may have come under another name first, which is the one that the ledger tells.
        known = {entry.subject for entry in accepted}
        return [sha256 for sha256 in self._hashes(key, wanted) if sha256 in known]

    def _hashes(self, key: str, wanted: str) -> Iterator[str]:
        for stored in self._storage.versions(key):
            if stored.key == key and wanted in {"", stored.version} and stored.size <= MOST_BYTES:
                with tempfile.TemporaryDirectory(prefix="noria-trace-") as folder:
                    yield self._storage.download(key, Path(folder) / "upload", version=stored.version).sha256

    # --- who of an account it was

    def _named(self, steps: Sequence[Step]) -> Iterator[Step]:
        """The steps, with the principals that S3's access logs name for requests that sent files."""
        logs, asked = AccessLogs.of(self._storage.bucket), dict[str, Asked | None]()
        for step in steps:
            request = step.facts.get("request")
            if step.step != "file" or not isinstance(request, str) or step.at is None:
                yield step
                continue
            if request not in asked:
                asked[request] = logs.find(request, at=step.at) if logs else None
            yield sent_by(step, *((who.by, who.uri) if (who := asked[request]) else (None, "")))

    # --- what was answered

    def _answered_in_hour(self, model: str) -> Iterator[Step]:
        """Captured requests of the hour that is asked about, by variant and by who may have answered."""
        if self.hour is None:
            return
        start = self.hour.replace(tzinfo=UTC)
        entries = self._entries(model)
        for variant in VARIANTS:
            captures = self._captures(model, variant)
            files, whole = captures.first(start, start + timedelta(hours=1), most_bytes=MOST_BYTES)
            if not files:
                continue
            counts: Counter[str] = Counter()
            with tempfile.TemporaryDirectory(prefix="noria-captured-") as folder:
                for second, requests in _seconds(captures.fetch(files, Path(folder))).items():
                    if start <= second < start + timedelta(hours=1):
                        counts[answering(entries, variant, second).text] += requests
            told = ", ".join(f"{count:,} by {who}" for who, count in counts.most_common())
            part = "" if whole else f"; more than {MOST_BYTES >> 30} GiB, of which the oldest were read"
            yield Step(
                step="predictions",
                what=f"captured requests of {variant} from {clock(start)} on, for an hour: {told or 'none'}{part}",
                at=start,
                known_from=self._storage.uri(f"{files[0].key.rpartition('/')[0]}/"),
                known=whole,
                facts={"variant": variant, **counts},
            )

    # --- what it is read from

    def _captures(self, model: str, variant: str) -> Captures:
        endpoint = self.deployed.names.model(model)
        return Captures(model=model, endpoint=endpoint, storage=self._storage, variant=variant)

    @cached_property
    def _storage(self) -> Storage:
        return Storage(bucket=self.deployed.parameter("data-bucket"))

    @cached_property
    def _records(self) -> Records:
        return Records(
            names=self.deployed.names,
            storage=self._storage,
            ledger=self.deployed.ledger,
            registry=self.deployed.registry,
        )

    @property
    def _models(self) -> tuple[str, ...]:
        return (self.deployed.require(self.model),) if self.model else self.deployed.models

    def _entries(self, model: str) -> list[Entry]:
        return self.deployed.ledger.entries(model)

    def _model_of(self, name: str) -> str:
        """Of a package group or a pipeline; a model that is deployed no more has its ledger still."""
        model = self.deployed.names.model_of(name)
        if model is None:
            raise Refused(f"{name!r} is not of environment {self.deployed.env!r}: name another with --env.")
        return model

    def _record(self, package: str) -> tuple[Record | None, str]:
        """What is known of a package; None, and why, where the registry has it no more."""
        try:
            return self._records.of(package), ""
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            return None, "the registry has it no more"

    def _captured(self, model: str, id_: str) -> Captured | None:
        for variant in VARIANTS:
            if found := self._captures(model, variant).find(id_, now=datetime.now(UTC), days=self.days):
                return found
        return None

    def _answering(self, entries: Sequence[Entry], captured: Captured) -> Answering:
        """Who answered; where the ledger knows of several, and the record tells its bundle, the one that served it."""
        may = answering(entries, captured.variant, captured.at)
        if len(may.packages) < 2 or captured.bundle is None:
            return may
        for package in may.packages:
            record, _ = self._record(package)
            if record and record.golden and record.golden.bundle == captured.bundle:
                return Answering(
                    packages=(package,), entries=may.entries, why=f"its answer named bundle {captured.bundle}"
                )
        return may


def _seconds(files: Sequence[Path]) -> Counter[datetime]:
    """How many requests of clients each second had."""
    found: Counter[datetime] = Counter()
    for path in files:
        with path.open("rb") as lines:
            for line in lines:
                about = json.loads(line)["eventMetadata"]
                if not str(about.get("inferenceId", "")).startswith(PROBE):
                    found[datetime.fromisoformat(about["inferenceTime"]).replace(microsecond=0)] += 1
    return found


def _captured(captured: Captured, storage: Storage) -> Step:
    return Step(
        step="prediction",
        what=f"{captured.inference_id or captured.event}, answered as {captured.variant}",
        at=captured.at,
        known_from=storage.uri(captured.key),
        facts={
            "variant": captured.variant,
            "event": captured.event,
            "inference_id": captured.inference_id,
            "bundle": captured.bundle,
        },
    )


def _answered(answered: Answering, captured: Captured) -> Step:
    known_from = ", ".join(f"ledger #{entry.number}" for entry in answered.entries) or "ledger"
    if not answered.packages:
        return unknown("answered by", str(answered.why), known_from=known_from)
    since = f", live since {clock(answered.since)}" if answered.since else ""
    until = f" until {clock(answered.until)}" if answered.until else ""
    under = f", under configuration {answered.config}" if answered.config else ""
    why = f": {answered.why}; the captured record does not tell which" if len(answered.packages) > 1 else ""
    return Step(
        step="answered by",
        what=f"{answered.text}{since}{until}{under}{why}",
        at=captured.at,
        known_from=known_from,
        known=len(answered.packages) == 1,
        facts={"packages": list(answered.packages), "config": answered.config, "why": answered.why},
    )


def rows(trace: Trace) -> list[Row]:
    """The steps for a screen: of many datasets the first few."""
    shown, files = [], 0
    for step in trace.steps:
        files += step.step == "dataset"
        if step.step in {"dataset", "file"} and files > _DATASETS_SHOWN:
            continue
        of = version(step.package).removeprefix("version ") if step.package else ""
        shown.append(Row(step=step.step, version=of, at=step.at, what=f"{step.what} (known from {step.known_from})"))
    return shown


def left_out(trace: Trace) -> list[str]:
    """What `rows` leaves out, as a sentence."""
    more = sum(step.step == "dataset" for step in trace.steps) - _DATASETS_SHOWN
    return [f"And {more} other datasets: --json names them all."] if more > 0 else []
