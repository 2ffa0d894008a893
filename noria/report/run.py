"""A monitor run as one page, what matters most first. A pure function: the same run gives the same bytes.

verdict, decision ─ what changed most ─ all monitors ─ features ─ contract ─ quality ─ bias ─ weights ─ business ─ next
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from noria import masking
from noria.contract import Live
from noria.monitoring import Run
from noria.monitors import Finding, Monitor
from noria.names import version
from noria.profile import SegmentCount
from noria.report import charts, columns, drifts, outcomes, violations
from noria.report.charts import Line
from noria.report.columns import Pair
from noria.report.html import Html, join, tag
from noria.report.numbers import figure, length, moment, percent, span
from noria.report.page import Column, Section, Verdict, aside, badge, commands, name, page, pill, table, tiles
from noria.units import count

_CARDS = 9
_WEIGHTS = _VALUES = 30


def render(run: Run) -> str:
    """One HTML document without anything beside it; under 1 MB, whatever the run holds."""
    run = _masked(run)
    pairs, quality = _pairs(run), run.quality
    return page(
        kind="Monitor run",
        subject=run.model,
        about=_about(run),
        verdict=_verdict(run),
        figures=_tiles(run),
        sections=[
            Section("changed", "What changed most", _changed(run, pairs)),
            Section("predictions", "Predictions", _predictions(run)),
            Section("monitors", "All monitors", _monitors(run)),
            Section("trends", "Trends", _trends(run)),
            Section("features", "Features", _features(run, pairs)),
            Section("contract", "Data contract", _contract(run.live) if run.live else None),
            Section("quality", "Model quality", outcomes.metrics(quality) if quality else None),
            Section("calibration", "Calibration", outcomes.calibration(quality) if quality else None),
            Section("labels", "Labels", outcomes.coverage(run.labels) if run.labels else None),
            Section("asked", "Whom it is asked about", _asked(run)),
            Section("segments", "Quality and bias by segment", outcomes.segments(quality) if quality else None),
            Section("weights", "What predictions rest on", _weights(run)),
            Section("business", "Business", _business(run)),
            Section("next", "What to do next", _next(run)),
        ],
        end=f"Noria, measured {moment(run.at)} by {run.engine}. This page fetches nothing and runs no script.",
    )


def _masked(run: Run) -> Run:
    """A run holds no values of sensitive features; whoever made this one may not have known."""
    baseline, window = masking.profiles(run.baseline, run.window, run.sensitive)
    quality = masking.quality(run.quality, run.sensitive) if run.quality else None
    return run.model_copy(update={"baseline": baseline, "window": window, "quality": quality})


# --- the top


_VERDICTS = {"breach": "Beyond limits", "ok": "Within limits", "not": "Not enough data"}


def _state(run: Run) -> Literal["ok", "breach", "not"]:
    if run.breached:
        return "breach"
    # The first monitor is the most telling: where even that is silent, nobody should read that all is well.
    return "not" if not run.findings or run.findings[0].state == "not enough data" else "ok"


def _about(run: Run) -> list[str]:
    own = f"widened: the window itself had {count(run.own_rows, 'row')}"
    widened = [own] if run.own_rows < run.window.rows else []
    when = f"{span(run.start, run.end)} ({length(run.end - run.start)})"
    return [version(run.package).capitalize(), *widened, when]


def _verdict(run: Run) -> Verdict:
    decision = run.decision or "none about retraining so far; nothing has asked for it."
    state = _state(run)
    return Verdict(kind=state, word=_VERDICTS[state], said=_sentence(run), more=join(tag("b", "Decision: "), decision))


def _sentence(run: Run) -> str:
    titles = {monitor.name: monitor.title for monitor in run.monitors}
    lacking = f"; {len(run.not_enough)} could not be judged" if run.not_enough else ""
    if run.breached:
        listed = _listed([titles[monitor] for monitor in run.breached])
        are = "is" if len(run.breached) == 1 else "are"
        return (
            f"{len(run.breached)} of {count(len(run.findings), 'monitor')} {are} beyond the limit: {listed}{lacking}."
        )
    judged = len(run.findings) - len(run.not_enough)
    well = f"{judged} {'monitor' if judged == 1 else 'monitors'} {'is' if judged == 1 else 'are'} within the limit"
    if _state(run) == "ok":
        return f"All {well}." if not run.not_enough else f"{well}; {len(run.not_enough)} could not be judged."
    why = run.findings[0].reason.rstrip(".") if run.findings else "nothing is watched"
    return f"Too little is known: {why}. {f'{well} all the same.' if judged else 'Nothing could be judged.'}"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _tiles(run: Run) -> Html:
    report = run.drift
    of = [
        (f"{run.window.rows:,}", "rows in the window"),
        (f"{run.baseline.rows:,}", "rows in training"),
        (f"{len(report.drifted)} of {len(report.features)}", "features drifted")
        if report.features
        else ("–", "features drifted"),
    ]
    if run.quality and run.quality.overall.metrics:
        metric, found = outcomes.primary(run.quality)
        of.append((figure(found.value), f"{metric.value}, by {count(run.quality.matched, 'label')}"))
    if run.window.malformed:
        of.append((f"{run.window.malformed:,}", "records could not be read"))
    return tiles(*of)


# --- what changed


def _pairs(run: Run) -> list[Pair]:
    """Features on both sides, the most changed first."""
    pairs = [
        Pair(
            name=feature,
            baseline=before,
            window=after,
            drift=run.drift.features.get(feature),
            sensitive=feature in run.sensitive,
        )
        for feature, before in run.baseline.features.items()
        if (after := run.window.features.get(feature)) and before.cut_like(after)
    ]
    return sorted(pairs, key=lambda pair: (-pair.psi, pair.name))


def _changed(run: Run, pairs: Sequence[Pair]) -> Html | None:
    if not run.window.rows:
        return aside("No request was captured in this window.")
    drifted = [pair for pair in pairs if pair.drifted]
    shown = (drifted or list(pairs[:3]))[:_CARDS]
    left_out = len(drifted) - _CARDS
    return join(
        tag("p", _drifted(run), class_="lead"),
        _legend(run),
        tag("div", *(columns.card(pair, name(pair.name)) for pair in shown), class_="cards"),
        aside(f"{count(left_out, 'more drifted feature')} in the table below.") if left_out > 0 else None,
    )


def _drifted(run: Run) -> str:
    report = run.drift
    if not report.features:
        return "Too few rows to tell a change from chance; how they look all the same:"
    limit = f"a PSI above {figure(report.threshold)} that is not by chance"
    if not report.drifted:
        return f"No feature has drifted, which is {limit}; those that come closest:"
    return f"{len(report.drifted)} of {count(len(report.features), 'feature')} drifted: {limit}."


def _predictions(run: Run) -> Html | None:
    cards = [
        columns.card(Pair(name=title, baseline=before, window=after, drift=drift, sensitive=False), join(title))
        for title, before, after, drift in (
            ("what is predicted", run.baseline.prediction, run.window.prediction, run.drift.prediction),
            ("confidence: the probability of it", run.baseline.confidence, run.window.confidence, None),
        )
        if before and after and before.cut_like(after) and after.rows
    ]
    return tag("div", *cards, class_="cards") if cards else None


def _asked(run: Run) -> Html | None:
    """For each value of each segment: its share of rows, and the share that is predicted positive."""
    parts = []
    for segment, then in run.baseline.segments.items():
        now = run.window.segments.get(segment, {})
        if not run.window.rows or not then:
            continue
        values = sorted(then, key=lambda value: (-max(then[value].rows, now[value].rows if value in now else 0), value))
        shares = [
            (value, then[value].rows / max(run.baseline.rows, 1), now[value].rows / run.window.rows)
            for value in values
            if value in now
        ]
        highest = max((max(before, after) for _, before, after in shares), default=1.0)
        selects = any(found.selected is not None for found in now.values())
        rows = [
            [
                name(value),
                charts.pair(before, after, highest),
                percent(before),
                percent(after),
                *([_selected(then[value]), _selected(now[value])] if selects else []),
            ]
            for value, before, after in shares[:_VALUES]
        ]
        titles = ["training", "window", *(["selected in training", "selected in window"] if selects else [])]
        head = [Column("value"), Column("share"), *(Column(title, figures=True) for title in titles)]
        more = len(shares) - _VALUES
        parts.append(
            tag(
                "div",
                tag("h3", "By ", name(segment)),
                table("Shares of rows, the most frequent value first", head, rows, class_="sheet bars"),
                aside(f"{count(more, 'rarer value')} not listed.") if more > 0 else None,
                class_="part",
            )
        )
    return join(*parts) if parts else None


def _selected(found: SegmentCount) -> str:
    return percent(found.selected / found.rows if found.selected is not None and found.rows else None)


def _legend(run: Run) -> Html:
    def swatch(side: str, x: int, width: int) -> Html:
        bar = tag("rect", x=x, y=1, width=width, height=12, class_=side)
        return tag("svg", bar, viewBox="0 0 18 14", aria_hidden="true")

    return tag(
        "p",
        tag("span", swatch("baseline", 1, 16), f"training, {count(run.baseline.rows, 'row')}"),
        tag("span", swatch("window", 5, 8), f"this window, {count(run.window.rows, 'row')}"),
        tag("span", "bars: share of rows; lines: least, mean, most"),
        class_="legend",
    )


def _features(run: Run, pairs: Sequence[Pair]) -> Html | None:
    if not pairs:
        return None
    shapes = {pair.name: pair for pair in pairs}
    return drifts.listed(
        run.drift, [*shapes], shape=lambda feature: columns.mini(shapes[feature]) if feature in shapes else None
    )


# --- monitors


_ORDER = {"breach": 0, "not enough data": 1, "ok": 2}


def _findings(run: Run) -> list[tuple[Monitor, Finding]]:
    of = {finding.monitor: finding for finding in run.findings}
    found = [(monitor, of[monitor.name]) for monitor in run.monitors if monitor.name in of]
    return sorted(found, key=lambda pair: _ORDER[pair[1].state])


def _monitors(run: Run) -> Html | None:
    found = _findings(run)
    if not found:
        return None
    rows = [
        [
            join(monitor.title, tag("small", f"speaks when {monitor.meaning}")),
            pill(finding.state),
            _value(finding, monitor.unit),
            _limit(monitor, finding),
            finding.reason,
            _spark(run, monitor, finding),
        ]
        for monitor, finding in found
    ]
    head = [Column("monitor"), Column("state"), Column("value", tight=True), Column("limit", tight=True)]
    head += [Column("what it says", words=True), Column("trend")]
    return table("What is watched, its limit, and what this window says", head, rows)


def _limit(monitor: Monitor, finding: Finding) -> str:
    side = "at most" if monitor.breaches == "above" else "at least"
    return f"{side} {figure(finding.limit)} {monitor.unit}".strip()


def _value(finding: Finding, unit: str) -> Html:
    if finding.value is None:
        return join("–")
    between = (
        tag("small", f"{figure(finding.low)} to {figure(finding.high)}")
        if finding.low is not None and finding.high is not None
        else None
    )
    return join(tag("b", f"{figure(finding.value)} {unit}".strip()), between)


def _line(run: Run, monitor: Monitor, finding: Finding) -> Line | None:
    points = [*((point.end, point.values.get(monitor.name)) for point in run.trend), (run.end, finding.value)]
    if sum(value is not None for _, value in points) < 2:
        return None
    return Line(
        values=[value for _, value in points],
        labels=[f"{end:%m-%d %H:%M}" for end, _ in points],
        limit=finding.limit,
        breaches=monitor.breaches,
    )


def _spark(run: Run, monitor: Monitor, finding: Finding) -> Html | None:
    line = _line(run, monitor, finding)
    return charts.spark(line, title=_told(monitor, line)) if line else None


def _told(monitor: Monitor, line: Line) -> str:
    known = [value for value in line.values if value is not None]
    beyond = sum(line.beyond(value) for value in known)
    return (
        f"{monitor.title} in {len(known)} windows: from {figure(known[0])} to {figure(known[-1])}, "
        f"beyond the limit of {figure(line.limit)} in {beyond}"
    )


def _trends(run: Run) -> Html | None:
    lines = [(monitor, finding, line) for monitor, finding in _findings(run) if (line := _line(run, monitor, finding))]
    if not lines:
        return None
    cards = [
        tag(
            "article",
            tag("header", tag("h3", monitor.title), tag("span", figure(line.values[-1]), class_="value")),
            charts.trend(line, title=_told(monitor, line)),
            class_="card breach" if finding.state == "breach" else "card",
        )
        for monitor, finding, line in lines
    ]
    return join(
        tag("p", "Dashed: the limit. Square: a window beyond it.", class_="lead"), tag("div", *cards, class_="cards")
    )


# --- contract, weights and business


def _contract(live: Live) -> Html:
    if not live.violations:
        return tag("p", f"{count(live.rows, 'requested row')} kept the data contract.", class_="lead")
    invalid = f"{count(live.invalid, 'row')} of {live.rows:,} ({percent(live.share)}) break a rule of severity reject."
    return join(
        tag("p", invalid, class_="lead"),
        violations.listed("Rules of the contract that requests broke", live.violations, rows=live.rows),
    )


def _weights(run: Run) -> Html | None:
    found = run.attribution
    if found is None:
        return None
    ordered = sorted(found.features, key=lambda f: -max(found.features[f].training, found.features[f].window))
    highest = max((max(w.training, w.window) for w in found.features.values()), default=1.0)
    rows = [
        [
            name(feature),
            charts.pair(weight.training, weight.window, highest),
            percent(weight.training),
            percent(weight.window),
            badge("changed", symbol="▲") if weight.changed else None,
        ]
        for feature in ordered[:_WEIGHTS]
        for weight in [found.features[feature]]
    ]
    head = [Column("feature"), Column("share"), Column("training", figures=True), Column("window", figures=True)]
    spearman = "" if found.spearman is None else f", Spearman's {figure(found.spearman)}"
    left_out = len(ordered) - _WEIGHTS
    of = f" of the window that ended {moment(run.explained)}" if run.explained else ""
    return join(
        tag(
            "p",
            f"Shares of the mean absolute contribution to a prediction, of {count(found.rows, 'explained row')}{of}. "
            f"Rank correlation with training {figure(found.correlation)} (1 is the same order{spearman}; NDCG "
            f"{figure(found.ndcg)}).",
            class_="lead",
        ),
        table(
            "Weight of each feature, the heaviest first", [*head, Column("beyond chance")], rows, class_="sheet bars"
        ),
        aside(f"{count(left_out, 'lighter feature')} not listed.") if left_out > 0 else None,
    )


def _business(run: Run) -> Html | None:
    if not run.business:
        return None
    return tiles(*((figure(value), called) for called, value in run.business.items()))


# --- what to do


def _next(run: Run) -> Html:
    items = [
        tag(
            "li",
            tag("b", f"{monitor.title}: "),
            f"{finding.reason} How to find the cause, and the way back: ",
            tag("code", f"docs/runbooks/{monitor.runbook}.md"),
        )
        for monitor, finding in _findings(run)
        if finding.state == "breach"
    ]
    todo = tag("ol", *items, class_="todo") if items else tag("p", "Nothing. The next window is compared by itself.")
    return join(todo, commands(*_commands(run)))


def _commands(run: Run) -> Iterator[str]:
    of = {monitor.name: monitor for monitor in run.monitors}
    told = {of[monitor].runbook for monitor in run.breached}
    wanted = [
        (f"events {run.model}", "what happened, and what was decided", True),
        (f"policy {run.model}", "what may retrain, and what stands against it now", True),
        (f"monitor {run.model}", "compare again, now", bool(told)),
        (
            f"retrain {run.model} --reason … --dry-run",
            "what would be decided by hand",
            any(of[monitor].trigger for monitor in run.breached),
        ),
        (
            f"explain {run.model} INFERENCE_ID",
            "why one prediction is what it is",
            bool(told & {"attribution", "confidence", "prediction-drift", "quality"}),
        ),
        (f"label {run.model} FILE", "tell what came of predictions", "label-coverage" in told or run.quality is None),
    ]
    for command, why, shown in wanted:
        if shown:
            yield from (f"# {why}", f"noria {command}{_environment(run)}", "")


def _environment(run: Run) -> str:
    """The environment as an option, by the name of the package's group (noria.names)."""
    found = re.search(rf"/noria-(.+)-{re.escape(run.model)}/", run.package)
    return f" --env {found[1]}" if found else ""
