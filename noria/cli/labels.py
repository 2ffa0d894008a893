"""What `noria label` and `noria hard-cases` do: put labels where all labels go, and read what is worth labelling."""

import csv
import tempfile
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from noria.aws.storage import Storage
from noria.cli.output import Refused, told
from noria.cli.state import Deployed
from noria.labelled import HARD_CASES, HardCase, HardCases
from noria.labels import CLOCK, Arrival, LabelsError, LabelsFile, words
from noria.names import key
from noria.spec import ModelSpec
from noria.units import count


class Given(BaseModel):
    """Labels that were put into the bucket: where, and of how many predictions they speak."""

    model: str
    uri: str
    predictions: int
    waits: str | None

    @property
    def text(self) -> str:
        return told(
            f"Labels of {count(self.predictions, 'prediction')} are in {self.uri}",
            f"Follow it with: noria events {self.model}",
            self.waits,
        )


class HardCaseRow(BaseModel):
    why: str
    inference_id: str
    row: int
    time: datetime
    prediction: str
    label: str | None
    measure: str

    @classmethod
    def of(cls, why: str, case: HardCase) -> "HardCaseRow":
        facts = case.model_dump(include={"inference_id", "row", "time", "prediction", "label"})
        return cls(why=why, measure=f"{case.measure:.3g}", **facts)


@dataclass(frozen=True)
class Labelling:
    """Labels of one deployed model. Raises `Refused` with what is wrong with them, before anything is sent."""

    deployed: Deployed
    spec: ModelSpec

    def give(self, file: Path) -> Given:
        now = datetime.now(UTC)
        with tempfile.TemporaryDirectory(prefix="noria-label-") as folder:
            try:
                said = Path(folder) / "said.parquet"
                predictions = words(LabelsFile(file, file.name), self.spec, Arrival(now, "command"), to=said)
            except LabelsError as error:
                raise Refused(str(error)) from error
        storage = Storage(bucket=self.deployed.parameter("data-bucket"))
        target = key(self.deployed.require(self.spec.model), "labels", file.name)
        storage.upload(file, target)
        waits = self.deployed.waits(self.spec.model, "they are joined")
        return Given(model=self.spec.model, uri=storage.uri(target), predictions=predictions, waits=waits)

    def give_one(self, inference_id: str, row: int, label: str) -> Given:
        with tempfile.TemporaryDirectory(prefix="noria-label-") as folder:
            file = Path(folder) / f"command-{uuid.uuid4()}.csv"
            with file.open("w", encoding="utf-8", newline="") as text:
                rows = csv.writer(text)
                rows.writerow(["inference_id", "row", self.spec.target, CLOCK])
                rows.writerow([inference_id, row, label, datetime.now(UTC).isoformat()])
            return self.give(file)


def hard_cases(deployed: Deployed, model: str) -> HardCases:
    storage = Storage(bucket=deployed.parameter("data-bucket"))
    listed = key(deployed.require(model), "reports", HARD_CASES)
    if not storage.exists(listed):
        raise Refused(f"No case of {model} is listed yet: they are when labels are joined (noria label {model} FILE).")
    return HardCases.model_validate_json(storage.read(listed))
