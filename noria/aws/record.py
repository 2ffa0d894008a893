"""The reader of `noria.record`: registry, data bucket and ledger."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from botocore.exceptions import ClientError
from pydantic import BaseModel, ValidationError

from noria import contract, golden, training
from noria.aws.ledger import Ledger
from noria.aws.registry import Package, Registry
from noria.aws.storage import Storage
from noria.evaluation import Evaluation, Training
from noria.explain import Attribution
from noria.golden import Golden
from noria.ledger import Entry, Kind
from noria.names import Names, key
from noria.profile import Profile
from noria.record import Dataset, Record, Registered, about
from noria.spec import ModelSpec
from noria.tracking import Attempt, Outcome
from noria.training import TrainingDataset, TrainingRequest

D = TypeVar("D", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records of the packages of one environment.

    Calls sagemaker:DescribeModelPackage; s3:GetObject and s3:ListBucket of baselines, datasets, runs and trainings;
    dynamodb:Query of the ledger.
    """

    names: Names
    storage: Storage
    ledger: Ledger
    registry: Registry = field(default_factory=Registry)

    def of(self, arn: str) -> Record:
        """LookupError where the package is none of this environment's."""
        package = self.registry.describe(arn)
        model = self.names.model_of(package.group)
        if model is None:
            raise LookupError(f"{arn} is in group {package.group!r}, which is none of {self.names.prefix}'s")
        entries = self.ledger.entries(model)
        reading = _Reading(package, self.storage)
        request = reading.request(model)
        return Record(
            package=self._registered(package, model),
            spec=reading.beside_baseline("spec", "spec.json", ModelSpec),
            training=reading.beside_baseline("training", "training.json", Training),
            request=request,
            datasets=tuple(reading.dataset(model, told, entries) for told in request.datasets) if request else (),
            evaluation=reading.named("evaluation", Evaluation),
            baseline=reading.named("baseline", Profile),
            attribution=reading.named("attribution", Attribution),
            golden=reading.named(golden.FILE.partition(".")[0], Golden),
            entries=about(entries, package.arn, request),
            unknown=reading.unknown,
        )

    def attempt(self, model: str, execution: str, *, outcome: Outcome, package: str | None) -> Attempt:
        """What is known of a training by its execution, whether it registered a package or not."""
        reading = _Reading(None, self.storage)
        id_ = execution.rsplit("/", 1)[-1]
        made = key(model, "baselines", id_)
        started = (e for e in self.ledger.entries(model) if e.kind is Kind.TRAINING_STARTED)
        token = next((entry.subject for entry in started if entry.details["execution"] == execution), None)
        asked = key(model, "trainings", f"{token or 'none'}/{training.REQUEST}")
        measured = key(model, "runs", f"{id_}/evaluation/evaluation.json")
        return Attempt(
            model=model,
            execution=execution,
            outcome=outcome,
            package=package,
            code=self.registry.describe(package).metadata.get("noria:code") if package else None,
            spec=reading.read("spec", lambda: f"{made}/spec.json", ModelSpec),
            training=reading.read("training", lambda: f"{made}/training.json", Training),
            request=reading.read("request", lambda: asked, TrainingRequest),
            evaluation=reading.read("evaluation", lambda: measured, Evaluation),
            unknown=reading.unknown,
        )

    def _registered(self, package: Package, model: str) -> Registered:
        return Registered(
            arn=package.arn,
            model=model,
            version=package.version,
            created=package.created,
            author=package.author,
            approval=package.approval,
            decided=package.modified,
            decided_by=package.decided_by,
            reason=package.reason,
            image=package.image,
            model_data=package.model_data,
            bytes=self._size(package.model_data),
            metadata=package.metadata,
        )

    def _size(self, uri: str | None) -> int | None:
        try:
            name = self.storage.key_of(uri or "")
        except ValueError:
            return None
        return next((stored.size for stored in self.storage.list(name) if stored.key == name), None)


@dataclass(frozen=True)
class _Reading:
    """Documents that belong to a package; of what cannot be read, the reason is kept."""

    package: Package | None
    storage: Storage
    unknown: dict[str, str] = field(default_factory=dict)

    def named(self, part: str, shape: type[D]) -> D | None:
        """What the package's metadata names."""
        return self.read(part, lambda: self.storage.key_of(self._metadata(part)), shape)

    def beside_baseline(self, part: str, name: str, shape: type[D]) -> D | None:
        return self.read(
            part, lambda: self.storage.key_of(f"{self._metadata('baseline').rpartition('/')[0]}/{name}"), shape
        )

    def request(self, model: str) -> TrainingRequest | None:
        return self.read(
            "request",
            lambda: key(model, "trainings", f"{self._metadata('training')}/{training.REQUEST}"),
            TrainingRequest,
        )

    def dataset(self, model: str, told: TrainingDataset, entries: list[Entry]) -> Dataset:
        folder = key(model, "datasets", told.sha256)
        said = (e for e in entries if e.kind is Kind.DATASET_ACCEPTED and e.subject == told.sha256)
        return Dataset(
            told=told,
            manifest=self.read(f"manifest of {told.sha256}", lambda: f"{folder}/manifest.json", contract.Manifest),
            report=self.read(f"report of {told.sha256}", lambda: f"{folder}/report.json", contract.Report),
            accepted=next(said, None),
        )

    def _metadata(self, name: str) -> str:
        if self.package and (value := self.package.metadata.get(f"noria:{name}")):
            return value
        raise LookupError(f"the package has no noria:{name} in its metadata, as one that was not registered by Noria")

    def read(self, part: str, where: Callable[[], str], shape: type[D]) -> D | None:
        try:
            return shape.model_validate_json(self.storage.read(where()))
        except ValidationError as error:
            self.unknown[part] = f"{where()} is of another form: {error.error_count()} fields do not fit"
        except (LookupError, ValueError) as error:
            self.unknown[part] = str(error.args[0])
        except ClientError as error:
            # Any other, as a right that lacks, is no fact about the package.
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            self.unknown[part] = f"{where()} is not in the bucket any more, or the package is older than it"
        return None
