"""What `noria card` and `noria compare` do: read records, and write what is known of them."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from noria import drift
from noria.aws.record import Records
from noria.aws.storage import Storage
from noria.card import page, pdf
from noria.card.facts import card
from noria.cli.output import Refused
from noria.cli.state import Deployed
from noria.compare import Difference, compare
from noria.names import key
from noria.profile import Source, profile
from noria.record import Record

Format = Literal["html", "pdf", "json"]

LARGEST = 2 * 2**30
"""Bytes of training rows that are brought here to be compared."""


class Made(BaseModel):
    package: str
    format: Format
    file: str


@dataclass(frozen=True)
class Versions:
    """Versions of the models of an environment. Raises `Refused`."""

    deployed: Deployed

    def record(self, reference: str) -> Record:
        arn = self.deployed.package_arn(reference)
        storage = Storage(bucket=self.deployed.parameter("data-bucket"))
        records = Records(
            names=self.deployed.names, storage=storage, ledger=self.deployed.ledger, registry=self.deployed.registry
        )
        try:
            return records.of(arn)
        except LookupError as error:
            raise Refused(f"{error.args[0]}: name another environment with --env.") from error

    def card(self, reference: str, kind: Format, out: Path | None) -> Made:
        record = self.record(reference)
        file = out or Path(f"{record.model}-{record.package.version}.card.{kind}")
        made = card(record)
        file.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "pdf":
                file.write_bytes(pdf.render(made))
            case "html":
                file.write_text(page.render(made), encoding="utf-8")
            case "json":
                file.write_text(made.model_dump_json(indent=1), encoding="utf-8")
        return Made(package=record.package.arn, format=kind, file=str(file))

    def compare(self, one: str, other: str) -> Difference:
        before, after = self.record(one), self.record(other)
        found, why = self._drift(before, after)
        try:
            return compare(before, after, found=found, no_drift=why)
        except ValueError as error:
            raise Refused(f"{error}.") from error

    def _drift(self, before: Record, after: Record) -> tuple[drift.Report | None, str | None]:
        """The rows that `after` was trained on, counted at the edges of `before`: those of its own are elsewhere."""
        if before.baseline is None or after.spec is None or after.execution is None:
            return None, "not known, because a baseline, a spec or an execution is not"
        if before.dataset_hash == after.dataset_hash and before.dataset_hash:
            return None, "none: both were trained on the same datasets"
        storage = Storage(bucket=self.deployed.parameter("data-bucket"))
        rows = key(after.model, "runs", f"{after.execution.rsplit('/', 1)[-1]}/train/rows.parquet")
        there = next((stored for stored in storage.list(rows) if stored.key == rows), None)
        if there is None:
            return None, f"not known, because {storage.uri(rows)} is not there any more"
        if there.size > LARGEST:
            return None, f"not measured: {storage.uri(rows)} has {there.size:,} bytes, and {LARGEST:,} are brought here"
        with tempfile.TemporaryDirectory(prefix="noria-compare-") as folder:
            path = Path(folder) / "rows.parquet"
            storage.download(rows, path)
            window = profile(Source.files(path), after.spec, before.baseline.edges)
        return drift.compare(before.baseline, window, after.spec), None
