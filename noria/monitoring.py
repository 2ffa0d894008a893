"""One run of all monitors of a model: what was measured of a window, and what each monitor says of it.

    evidence ─ findings() ─ Run (report.json) ─ report.html, metrics, alarms

Of its own module, because `noria.monitors`, which templates and small functions read too, does without DuckDB.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from noria import drift, fairness, masking
from noria.contract import Live
from noria.explain import WindowAttribution
from noria.labels import Coverage
from noria.ledger import Entry, Kind
from noria.monitors import BUSINESS, Finding, Monitor, Reading, Unknown, monitors
from noria.names import key
from noria.profile import Profile
from noria.quality import Quality
from noria.quality import reading as read_quality
from noria.spec import ModelSpec

T = TypeVar("T")

Engine = Literal["duckdb", "athena", "duckdb on the newest files"]

TREND = 168
"""Points of a trend: a week of hours."""

_NOTHING_KEPT = "nothing is kept of the requests: serve.capture is 0"

_NEWEST = "Only the newest files of the window were looked at, as Athena could not describe it."

EXPLAINED_EVERY = timedelta(days=1)
"""How often a model is asked what its predictions rest on: thousands of rows each time, which data capture keeps."""

REACH = timedelta(days=1)
"""How far back a window with too few rows may begin."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")


# --- the window


@dataclass(frozen=True, kw_only=True)
class Window:
    """Requests from `start` (inclusive) to `end` (exclusive)."""

    start: datetime
    end: datetime

    @property
    def name(self) -> str:
        return f"{self.start.isoformat()}/{self.end.isoformat()}"

    @classmethod
    def named(cls, name: str) -> "Window":
        start, _, end = name.partition("/")
        return cls(start=datetime.fromisoformat(start), end=datetime.fromisoformat(end))

    def report(self, model: str, name: str) -> str:
        """The key of a report of this window."""
        return key(model, "reports", f"{self.end:%Y-%m-%dT%H%M}/{name}")

    def widened(self, entries: Sequence[Entry], *, rows: int, wanted: int, since: datetime | None) -> "Window":
        """Back over earlier windows of the same version, a day at most, until they hold the rows that are wanted.

        Itself where they do not. `since`: when the version went live.
        """
        start = self.start
        for earlier in reversed(_earlier(entries, self)):
            window = earlier.window
            if rows >= wanted:
                break
            if window.end <= start and window.start >= max(since or window.start, self.end - REACH):
                start, rows = window.start, rows + earlier.rows
        return replace(self, start=start) if rows >= wanted else self

    def overtaken(self, entries: Sequence[Entry]) -> bool:
        """Whether a later window has been reported already."""
        return any(Window.named(e.subject).end > self.end for e in entries if e.kind is Kind.MONITORED)


class Earlier(NamedTuple):
    """A window that the ledger knows; `rows` are its own, before it was widened."""

    window: Window
    rows: int
    malformed: int
    report: str


def _earlier(entries: Sequence[Entry], window: Window) -> list[Earlier]:
    """Windows that ended before this one does, by their ends."""
    found = [
        Earlier(
            Window.named(entry.subject),
            int(str(entry.details.get("own_rows", entry.details["rows"]))),
            int(str(entry.details["malformed"])),
            str(entry.details["report"]),
        )
        for entry in entries
        if entry.kind is Kind.MONITORED
    ]
    return sorted((e for e in found if e.window.end < window.end), key=lambda e: (e.window.end, e.window.start))


def previous_report(entries: Sequence[Entry], window: Window) -> str | None:
    """The key of the report of the window before this one."""
    earlier = _earlier(entries, window)
    return earlier[-1].report if earlier else None


def silence(spec: ModelSpec, entries: Sequence[Entry], window: Window, found: Profile) -> "timedelta | Unknown":
    """How long no request has come, of the time that it could, at the end of a window in which `found` was captured."""
    if spec.serve.capture == 0:
        return Unknown(reason=_NOTHING_KEPT)
    if found.rows or found.malformed:
        return timedelta()
    asked = [e.window.end for e in _earlier(entries, window) if e.rows or e.malformed]
    if not asked:
        return Unknown(reason="no request has ever been seen")
    # Outside of its hours nobody can ask it.
    hours = spec.serve.hours
    return hours.between(asked[-1], window.end) if hours else window.end - asked[-1]


# --- what was measured


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of a window, or why it is not.

    `few` says why there are too few rows to judge; None when there are enough. `silent` is how long no request has
    come, at the window's end. `engine` is what described the window: where it is not DuckDB alone, there was more than
    one function reads, and `live` and `attribution` are of the newest files; so is everything where Athena failed, and
    `undescribed` says why. `explained` is the end of the window that `attribution` is of, this one or an earlier one.
    """

    spec: ModelSpec
    report: drift.Report
    baseline: Profile
    window: Profile
    few: str | None
    live: Live | Unknown
    attribution: WindowAttribution | Unknown
    silent: timedelta | Unknown
    quality: Quality | Unknown
    labels: Coverage | Unknown
    business: Mapping[str, float | Unknown] = field(default_factory=dict)
    engine: Engine = "duckdb"
    undescribed: Unknown | None = None
    explained: datetime | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """What went wrong while measuring, a sentence each."""
        parts = [self.undescribed, self.live, self.attribution, self.quality, self.labels, *self.business.values()]
        return tuple(dict.fromkeys(part.reason for part in parts if isinstance(part, Unknown) and part.failed))


def known(value: T | Unknown) -> T | None:
    return None if isinstance(value, Unknown) else value


def few(spec: ModelSpec, window: Profile) -> str | None:
    """Why a window cannot be judged: the sentence that a person needs to change it. None when it can."""
    if window.rows >= spec.monitor.min_rows:
        return None
    if spec.serve.capture == 0:
        return _NOTHING_KEPT
    kept = f" of {spec.serve.capture} % of the requests, which serve.capture keeps" if spec.serve.capture < 100 else ""
    unreadable = f"; {window.malformed:,} records could not be read" if window.malformed else ""
    return f"{window.rows:,} rows{kept} are fewer than {spec.monitor.min_rows:,} (monitor.min_rows){unreadable}"


# --- what the monitors say


def findings(evidence: Evidence) -> tuple[Finding, ...]:
    """What each monitor of the spec says, in their order."""
    return tuple(_finding(monitor, _read(monitor, evidence)) for monitor in monitors(evidence.spec))


def _finding(monitor: Monitor, reading: Reading | Unknown) -> Finding:
    if isinstance(reading, Unknown):
        return Finding(monitor=monitor.name, state="not enough data", limit=monitor.limit, reason=reading.reason)
    return Finding(
        monitor=monitor.name,
        state="breach" if monitor.breached(reading.value) else "ok",
        value=reading.value,
        low=reading.low,
        high=reading.high,
        limit=monitor.limit,
        reason=reading.reason,
    )


def _read(monitor: Monitor, evidence: Evidence) -> Reading | Unknown:
    needs_rows, read = _READERS["Business" if monitor.metric.startswith(BUSINESS) else monitor.metric]
    return Unknown(reason=evidence.few) if needs_rows and evidence.few else read(monitor, evidence)


def _drifted(_: Monitor, evidence: Evidence) -> Reading | Unknown:
    report = evidence.report
    if not report.features:
        return Unknown(reason="no feature can be compared: baseline and spec have none in common")
    return Reading(len(report.drifted), report.summary)


def _prediction(monitor: Monitor, evidence: Evidence) -> Reading | Unknown:
    """The PSI; 0 where it is beyond the limit by chance alone."""
    found = evidence.report.prediction
    if found is None:
        return Unknown(reason="the baseline has no predictions to compare with: train anew")
    chance = found.psi > monitor.limit and not found.drifted
    told = f"The predictions' PSI is {found.psi:.2f}"
    return Reading(0.0 if chance else found.psi, f"{told}, which chance explains." if chance else f"{told}.")


def _invalid(_: Monitor, evidence: Evidence) -> Reading | Unknown:
    live = evidence.live
    if isinstance(live, Unknown):
        return live
    if live.share is None:
        return Unknown(reason="no requested row could be read")
    newest = "" if evidence.engine == "duckdb" else "the newest "
    return Reading(live.share, f"{live.invalid:,} of {newest}{live.rows:,} rows break the data contract.")


def _outliers(_: Monitor, evidence: Evidence) -> Reading | Unknown:
    """The share beyond what chance explains: of n rows as those of the training, one more is the largest of all in one
    of n + 1 cases, or the smallest (exchangeability), and of a category that was not seen as often as one was seen once
    (Good, The population frequencies of species, Biometrika 40, 1953).
    """
    window, columns = evidence.window, evidence.baseline.features.values()
    if window.outliers is None:
        return Unknown(reason="the baseline does not say how far its values reach: train anew")
    numbers = sum(2 / (c.rows - c.missing + 1) for c in columns if c.kind == "number")
    once = sum(sum(n == 1 for n in c.categories.values()) / max(1, c.rows - c.missing) for c in columns)
    share, chance = window.outliers / window.rows, min(1.0, numbers + once)
    told = f"{window.outliers:,} of {window.rows:,} rows hold a value beyond all of the training data"
    return Reading(max(0.0, share - chance), f"{told}; chance explains {chance:.1%} of rows.")


def _confidence(_: Monitor, evidence: Evidence) -> Reading | Unknown:
    before, now = (p.confidence.mean if p.confidence else None for p in (evidence.baseline, evidence.window))
    if before is None or now is None:
        which = "baseline" if before is None else "window"
        return Unknown(reason=f"no prediction of the {which} carries a probability")
    return Reading(before - now, f"Mean probability of what is predicted {now:.3f}, {before:.3f} in training.")


def _selected(monitor: Monitor, evidence: Evidence) -> Reading | Unknown:
    counts = evidence.window.segments.get(monitor.segment or "", {})
    return fairness.reading(monitor, fairness.by_selection(counts))


def _attribution(_: Monitor, evidence: Evidence) -> Reading | Unknown:
    found = evidence.attribution
    if isinstance(found, Unknown):
        return found
    changed = f"most of all {', '.join(found.changed[:3])}" if found.changed else "no feature's weight has changed"
    of = f", of the window that ended {evidence.explained:%Y-%m-%d %H:%M} UTC" if evidence.explained else ""
    return Reading(found.correlation, f"Rank correlation with the training {found.correlation:.2f}; {changed}{of}.")


def _outcomes(monitor: Monitor, evidence: Evidence) -> Reading | Unknown:
    found = evidence.quality
    return found if isinstance(found, Unknown) else read_quality(monitor, found, evidence.spec)


def _covered(_: Monitor, evidence: Evidence) -> Reading | Unknown:
    found = evidence.labels
    if isinstance(found, Unknown):
        return found
    wanted = evidence.spec.monitor.min_rows
    if found.share is None or found.predictions < wanted:
        return Unknown(
            reason=f"{found.predictions:,} predictions old enough to have a label are fewer than {wanted:,} "
            "(monitor.min_rows)"
        )
    return Reading(found.share, f"{found.labelled:,} of {found.predictions:,} predictions have their label in time.")


def _silence(_: Monitor, evidence: Evidence) -> Reading | Unknown:
    if isinstance(evidence.silent, Unknown):
        return evidence.silent
    hours = evidence.silent / timedelta(hours=1)
    return Reading(hours, f"The last request came {hours:.1f} hours before the end of the window.")


def _failures(_: Monitor, evidence: Evidence) -> Reading:
    return Reading(len(evidence.failures), " ".join(evidence.failures) or "Everything could be measured.")


def _business(monitor: Monitor, evidence: Evidence) -> Reading | Unknown:
    name = monitor.metric.removeprefix(BUSINESS)
    value = evidence.business[name]
    if isinstance(value, Unknown):
        return value
    return Reading(value, f"{name} is {value:g}.")


_READERS: Mapping[str, tuple[bool, Callable[[Monitor, Evidence], Reading | Unknown]]] = {
    "DriftedFeatures": (True, _drifted),
    "InvalidShare": (True, _invalid),
    "Business": (False, _business),
    "PredictionDrift": (True, _prediction),
    "OutlierShare": (True, _outliers),
    "ConfidenceDrop": (True, _confidence),
    "DisparateImpact": (True, _selected),
    "AttributionCorrelation": (True, _attribution),
    "QualityLoss": (False, _outcomes),
    "CalibrationError": (False, _outcomes),
    "EqualOpportunityDifference": (False, _outcomes),
    "EqualizedOddsDifference": (False, _outcomes),
    "LabelCoverage": (False, _covered),
    "SilentHours": (False, _silence),
    "MonitorFailures": (False, _failures),
}
"""By metric: whether a window with too few rows says nothing of it, and how it is read."""


# --- the run


class Point(Part):
    """An earlier window, for the trend: its end, its rows, and the value of each monitor that had one."""

    end: AwareDatetime
    rows: int
    values: dict[str, float] = Field(default_factory=dict)


class Run(Part):
    """`report.json` of a monitored window.

    `monitors` are those of the spec then, and `findings` what they say, one each, in the same order. `baseline` and
    `window` are cut at the same edges. Whatever could not be measured is None, and its finding says why. `quality` is
    what the newest labels said of this version. `decision` is the newest decision about retraining, as a sentence.
    `trend` is of the windows before this one, oldest first. `own_rows` are those of the window as it was asked for,
    before it was widened. `explained` is the end of the window that `attribution` is of. Values of `sensitive` features
    are shown nowhere.
    """

    model: str
    package: str
    start: AwareDatetime
    end: AwareDatetime
    at: AwareDatetime
    own_rows: int
    engine: Engine = "duckdb"
    summary: str
    monitors: tuple[Monitor, ...]
    findings: tuple[Finding, ...]
    drift: drift.Report
    baseline: Profile
    window: Profile
    live: Live | None = None
    attribution: WindowAttribution | None = None
    explained: AwareDatetime | None = None
    quality: Quality | None = None
    labels: Coverage | None = None
    business: dict[str, float] = Field(default_factory=dict)
    decision: str | None = None
    trend: tuple[Point, ...] = ()
    sensitive: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        evidence: Evidence,
        *,
        package: str,
        window: Window,
        at: datetime,
        own_rows: int,
        previous: "Run | None" = None,
        decision: str | None = None,
    ) -> "Run":
        """What the evidence says; `previous` is the run before, where there is one."""
        spec = evidence.spec
        sensitive = masking.sensitive(spec)
        baseline, seen = masking.profiles(evidence.baseline, evidence.window, sensitive)
        labelled = known(evidence.quality)
        quality = masking.quality(labelled, sensitive) if labelled else None
        return cls(
            model=spec.model,
            package=package,
            start=window.start,
            end=window.end,
            at=at,
            own_rows=own_rows,
            engine=evidence.engine,
            summary=" ".join([evidence.report.summary, *([_NEWEST] if evidence.undescribed else [])]),
            monitors=monitors(spec),
            findings=findings(evidence),
            drift=evidence.report,
            baseline=baseline,
            window=seen,
            live=known(evidence.live),
            attribution=known(evidence.attribution),
            explained=evidence.explained if known(evidence.attribution) else None,
            quality=quality,
            labels=known(evidence.labels),
            business={name: value for name, value in evidence.business.items() if not isinstance(value, Unknown)},
            decision=decision,
            trend=(*previous.trend, previous.point)[-TREND:] if previous else (),
            sensitive=sensitive,
        )

    def explains(self, package: str, *, until: datetime) -> bool:
        """Whether its attribution is of that package, and of less than `EXPLAINED_EVERY` before."""
        recent = self.explained is not None and until - self.explained < EXPLAINED_EVERY
        return recent and self.package == package

    @property
    def breached(self) -> tuple[str, ...]:
        return tuple(finding.monitor for finding in self.findings if finding.state == "breach")

    @property
    def not_enough(self) -> tuple[str, ...]:
        return tuple(finding.monitor for finding in self.findings if finding.state == "not enough data")

    @property
    def values(self) -> Mapping[str, float]:
        """What the monitors measured, by name; nothing of those without enough data."""
        return {finding.monitor: finding.value for finding in self.findings if finding.value is not None}

    @property
    def point(self) -> Point:
        """This window in the trend of later ones."""
        return Point(end=self.end, rows=self.window.rows, values=dict(self.values))
