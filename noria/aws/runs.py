"""Runs of all monitors: evidence brought from the bucket and measured, and reports put there.

One thing that cannot be measured must not silence the rest: it is logged, its monitor says that there is not enough
data and why, and the monitor `monitor-failures` counts it. Without captures or baseline there is no run at all.

A window of more than `LARGEST` bytes of files is described by Athena. What needs the files themselves then looks at the
newest, `SAMPLE` bytes of them; what a part of them cannot tell says so. Where Athena fails, these are the window.
"""

import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from noria import business, drift
from noria.aws.athena import Athena
from noria.aws.attempts import attempt
from noria.aws.captures import Captures
from noria.aws.explanations import Explanations
from noria.aws.labelled import Due, Labelled
from noria.aws.metrics import Measurement
from noria.aws.storage import Storage, StoredObject
from noria.contract import check_captured
from noria.explain import UnexplainedError, WindowAttribution
from noria.labels import Coverage, last_words
from noria.ledger import Entry, Kind, latest
from noria.monitoring import (
    Engine,
    Evidence,
    Run,
    Window,
    few,
    known,
    previous_report,
    silence,
)
from noria.monitors import Unknown
from noria.names import key
from noria.profile import Profile, Source, profile
from noria.quality import Quality
from noria.report import render
from noria.spec import ModelSpec
from noria.trial import champion_since

LARGEST = 2**30
"""Bytes of captured files that one function reads: reading a gigabyte of JSON a few times takes minutes of its 15. Its
disk of 4 GiB holds at once these or those whose labels are due, a gigabyte too; words of labels, another at most; and
what DuckDB writes aside."""

SAMPLE = 2**28
"""Bytes of files beside those: enough rows for any share that is asked of them."""

_WINDOW = "window"
"""Folder of the window's files, and of what is made of them."""

_TOO_LARGE = (
    f"there are more than {LARGEST:,} bytes of files: a business metric needs all its rows on one machine; a shorter "
    "monitor.every or a smaller serve.capture makes windows small enough"
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """A window's profile, the engine that made it, and the files on disk: all of them, or the newest.

    `failed` says why the profile is of these alone.
    """

    profile: Profile
    engine: Engine
    source: Source
    failed: Unknown | None = None


@dataclass(frozen=True, kw_only=True)
class Runs:
    spec: ModelSpec
    captures: Captures
    storage: Storage
    explanations: Explanations
    labelled: Labelled
    athena: Athena

    def run(
        self, asked: Window, package: str, baseline: Profile, entries: Sequence[Entry], *, widen: bool, now: datetime
    ) -> Run:
        """Measure a window. With `widen`, one with too few rows begins earlier, where that helps."""
        spec, previous = self.spec, self._previous(entries, asked)
        with tempfile.TemporaryDirectory(prefix="noria-monitored-") as disk:
            folder = Path(disk)
            look = self._look(asked, baseline, folder)
            own, window = look.profile, asked
            if widen and not look.failed:
                since = champion_since(entries)
                window = asked.widened(entries, rows=own.rows, wanted=spec.monitor.min_rows, since=since)
            if window != asked:
                look = self._look(window, baseline, folder)
            found, source = look.profile, look.source
            too_few = few(spec, found)
            live = attempt("the contract on live traffic", lambda: check_captured(source, spec))
            carried = previous if widen and previous and previous.explains(package, until=window.end) else None
            attribution = (
                attempt("what predictions rest on", lambda: self._attribution(package, source, too_few))
                if carried is None or carried.attribution is None
                else carried.attribution
            )
            by_labels = business.of_outcomes(spec) if spec.monitor.business else frozenset()
            numbers = self._business(look, too_few, {*spec.monitor.business} - by_labels)
            shutil.rmtree(folder / _WINDOW)
            due = attempt("late labels of the window", lambda: self.labelled.due(until=window.end, folder=folder))
            coverage = (
                due if isinstance(due, Unknown) else attempt("label coverage", partial(self.labelled.coverage, due))
            )
            numbers |= self._outcomes(due, coverage, by_labels, live=champion_since(entries))
        evidence = Evidence(
            spec=spec,
            report=drift.compare(baseline, found, spec),
            baseline=baseline,
            window=found,
            few=too_few,
            live=live,
            attribution=attribution,
            silent=silence(spec, entries, asked, own),
            quality=attempt("late labels", lambda: self._quality(entries)),
            labels=coverage,
            business=numbers,
            engine=look.engine,
            undescribed=look.failed,
            explained=carried.explained if carried else window.end,
        )
        decided = latest(entries, Kind.RETRAINING_REQUESTED, Kind.RETRAINING_DECLINED)
        return Run.of(
            evidence,
            package=package,
            window=window,
            at=now,
            own_rows=own.rows,
            previous=previous,
            decision=decided.summary if decided else None,
        )

    def keep(self, run: Run, *, newest: bool) -> str:
        """Write the run's report and its page, and the latter as the newest too; returns the report's key.

        A report that cannot be drawn is a report all the same.
        """
        window = Window(start=run.start, end=run.end)
        target = window.report(run.model, "report.json")
        self.storage.write(target, run.model_dump_json(indent=1))
        drawn = known(attempt("the report's page", lambda: render(run)))
        latest = key(run.model, "reports", "latest.html")
        for page in (window.report(run.model, "report.html"), *((latest,) if newest else ())):
            if drawn:
                self.storage.write(page, drawn, content_type="text/html; charset=utf-8")
        return target

    def _look(self, window: Window, baseline: Profile, folder: Path) -> Look:
        files = self.captures.between(window.start, window.end)
        if sum(file.size for file in files) <= LARGEST:
            source = self._fetch(files, window, folder)
            return Look(profile=profile(source, self.spec, baseline.edges), engine="duckdb", source=source)
        source = self._fetch(self.captures.latest(files, most_bytes=min(SAMPLE, LARGEST)), window, folder)
        found = attempt("the whole window", lambda: self.athena.profile(window.start, window.end, baseline.edges))
        if isinstance(found, Unknown):
            newest = profile(source, self.spec, baseline.edges)
            return Look(profile=newest, engine="duckdb on the newest files", source=source, failed=found)
        return Look(profile=found, engine="athena", source=source)

    def _fetch(self, files: Sequence[StoredObject], window: Window, folder: Path) -> Source:
        """In the place of what was fetched before."""
        here = folder / _WINDOW
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        return Source.captured(*self.captures.fetch(files, here), since=window.start, until=window.end)

    def _attribution(self, package: str, source: Source, too_few: str | None) -> WindowAttribution | Unknown:
        if too_few:
            return Unknown(reason=too_few)
        try:
            return self.explanations.of_window(package, source)
        except UnexplainedError as error:
            return Unknown(reason=str(error))

    def _business(self, look: Look, too_few: str | None, names: Collection[str]) -> dict[str, float | Unknown]:
        """Business metrics of the window's predictions alone."""
        if not names:
            return {}
        if too_few or look.engine != "duckdb":
            return dict.fromkeys(names, Unknown(reason=too_few or _TOO_LARGE))
        found = attempt("business metrics", lambda: business.measure(look.source, [], self.spec, names=names))
        return dict.fromkeys(names, found) if isinstance(found, Unknown) else found

    def _outcomes(
        self, due: Due | Unknown, coverage: Coverage | Unknown, names: Collection[str], *, live: datetime | None
    ) -> dict[str, float | Unknown]:
        """Business metrics of what came of predictions: of those whose labels are due, since some come early."""
        if not names:
            return {}
        if isinstance(due, Unknown):
            return dict.fromkeys(names, due)
        if isinstance(coverage, Unknown):
            return dict.fromkeys(names, coverage)
        if live and due.since < live:
            before = "predictions whose labels are due were made before this version went live"
            return dict.fromkeys(names, Unknown(reason=before))
        asked, wanted = coverage.predictions, self.spec.monitor.min_rows
        if asked < wanted or not due.complete:
            few = f"{asked:,} predictions whose labels are due are fewer than {wanted:,} (monitor.min_rows)"
            return dict.fromkeys(names, Unknown(reason=few if due.complete else _TOO_LARGE))
        labels = last_words(due.told, self.spec, to=due.folder / "labels.parquet")
        found = attempt("business metrics", lambda: business.measure(due.predicted, [labels], self.spec, names=names))
        return dict.fromkeys(names, found) if isinstance(found, Unknown) else found

    def _previous(self, entries: Sequence[Entry], window: Window) -> Run | None:
        """The run before this one; None where there is none that can be read."""
        report = previous_report(entries, window)
        if report is None:
            return None
        read = attempt("the trend", lambda: Run.model_validate_json(self.storage.read(report)))
        return known(read)

    def _quality(self, entries: Sequence[Entry]) -> Quality | Unknown:
        """What the newest labels say of the live version; what was joined before it went live is about another."""
        live = champion_since(entries)
        newest = list(self.storage.list(key(self.spec.model, "reports", "quality/latest.json")))
        if not newest or (live and newest[0].modified < live):
            return Unknown(reason="no labels of this version's predictions have been joined yet")
        return Quality.model_validate_json(self.storage.read(newest[0].key))


def measured(run: Run) -> list[Measurement]:
    """The metrics of a run; what is not known has no value. What labels say, join_labels publishes when they say it."""
    of = {monitor.name: monitor for monitor in run.monitors if monitor.clock == "window"}
    told = {
        (monitor.metric, monitor.segment): finding.value
        for finding in run.findings
        if finding.value is not None and (monitor := of.get(finding.monitor))
    }
    drifts = run.drift.features
    return [
        Measurement(name="Rows", value=run.own_rows),
        Measurement(name="MalformedRecords", value=run.window.malformed),
        *(Measurement(name=metric, segment=segment, value=value) for (metric, segment), value in told.items()),
        *_delays(run),
        *(Measurement(name="MaxPsi", value=value) for value in [run.drift.max_psi] if value is not None),
        *(Measurement(name="PredictionPsi", value=found.psi) for found in [run.drift.prediction] if found),
        *(Measurement(name="Psi", feature=feature, value=found.psi) for feature, found in drifts.items()),
    ]


def _delays(run: Run) -> Iterator[Measurement]:
    """Coverage is published where no monitor watches it too: labels that stop coming must show."""
    watched = any(monitor.metric == "LabelCoverage" for monitor in run.monitors)
    if run.labels and run.labels.share is not None and not watched:
        yield Measurement(name="LabelCoverage", value=run.labels.share)
    if run.labels and run.labels.delay_p50_hours is not None:
        yield Measurement(name="LabelDelayHours", value=run.labels.delay_p50_hours)
