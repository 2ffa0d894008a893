"""One run of all monitors of a model: what was measured of a window, and what each monitor says of it.

measured ─ Run (report.json) ─ findings ─ metrics, alarms
                             └ report.html

Of its own module, because `noria.monitors`, which templates and small functions read too, does without DuckDB.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from noria import drift
from noria.monitors import Finding, Monitor
from noria.profile import Profile
from noria.quality import Quality

Engine = Literal["duckdb", "athena"]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")


class Point(Part):
    """An earlier window, for the trend: its end, its rows, and the value of each monitor that had one."""

    end: AwareDatetime
    rows: int
    values: dict[str, float] = Field(default_factory=dict)


class Run(Part):
    """`report.json` of a monitored window.

    `monitors` are those of the spec then, and `findings` what they say, one each, in the same order. `baseline` and
    `window` are cut at the same edges. Whatever could not be measured is None, and its finding says why. `quality` is
    what the newest labels said, by `quality_report` (a key). `decision` is the newest decision about retraining, as a
    sentence. `trend` is of the windows before this one, oldest first.
    """

    model: str
    package: str
    start: AwareDatetime
    end: AwareDatetime
    at: AwareDatetime
    engine: Engine = "duckdb"
    summary: str
    monitors: tuple[Monitor, ...]
    findings: tuple[Finding, ...]
    drift: drift.Report
    baseline: Profile
    window: Profile
    quality: Quality | None = None
    quality_report: str | None = None
    business: dict[str, float] = Field(default_factory=dict)
    decision: str | None = None
    trend: tuple[Point, ...] = ()

    @property
    def breached(self) -> tuple[str, ...]:
        return tuple(finding.monitor for finding in self.findings if finding.state == "breach")

    @property
    def not_enough(self) -> tuple[str, ...]:
        return tuple(finding.monitor for finding in self.findings if finding.state == "not enough data")

    @property
    def values(self) -> Mapping[str, float]:
        """What the monitors measured, by name; nothing of those without enough data."""
        return {
            finding.monitor: finding.value
            for finding in self.findings
            if finding.value is not None and finding.state != "not enough data"
        }

    @property
    def point(self) -> Point:
        """This window in the trend of later ones."""
        return Point(end=self.end, rows=self.window.rows, values=dict(self.values))
