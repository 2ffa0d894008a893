"""Reports of monitor runs: pages in the data bucket, brought here to be opened."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from noria.aws.storage import Storage
from noria.cli.output import Refused
from noria.cli.state import Deployed
from noria.names import key

_PAGE = "report.html"
_SHOWN = 5


class Fetched(BaseModel):
    model: str
    window: str
    uri: str
    file: str

    @property
    def text(self) -> str:
        return f"{self.file}\nThe report of {self.window}, from {self.uri}: open it in a browser."


@dataclass(frozen=True)
class Reports:
    """The pages of one model."""

    deployed: Deployed
    model: str

    def fetch(self, window: str | None, to: Path | None) -> Fetched:
        """Save the page of a window (`2026-11-21T1200`, its end), or the newest. Raises `Refused`."""
        model = self.deployed.require(self.model)
        storage = Storage(bucket=self.deployed.parameter("data-bucket"))
        source = key(model, "reports", f"{window}/{_PAGE}" if window else "latest.html")
        if not storage.exists(source):
            raise Refused(self._absent(storage, window))
        file = to or Path(f"{model}-{window or 'latest'}.html")
        file.parent.mkdir(parents=True, exist_ok=True)
        storage.download(source, file)
        return Fetched(model=model, window=window or "the newest window", uri=storage.uri(source), file=str(file))

    def _absent(self, storage: Storage, window: str | None) -> str:
        start = key(self.model, "reports", "")
        there = sorted(
            stored.key.removeprefix(start).removesuffix(f"/{_PAGE}")
            for stored in storage.list(start)
            if stored.key.endswith(f"/{_PAGE}")
        )
        ask = f"have one made with noria monitor {self.model}"
        if window is None or not there:
            return f"No window of {self.model} has been reported yet: wait for the next one, or {ask}."
        return f"No report of {self.model} is of {window!r}: the newest are of {', '.join(there[-_SHOWN:])}; or {ask}."
